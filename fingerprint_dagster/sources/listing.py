"""What a user names - a file, a folder, a list, a uri - as a stream of addresses.

A uri and a path to any other file stand for one content. A path to a folder stands for every file below it,
`s3://bucket` and `s3://bucket/prefix/` (gs, az) for every object below it, and a path or uri that ends in .zip, .tar,
.tar.gz, .tgz, .tar.bz2, .tbz2, .tar.xz or .txz for every member of the archive. In a list every row is one content.
A path ending in .csv, .tsv, .jsonl, .ndjson or .parquet is a list and must have a `uri` column; to fingerprint
such a table itself, give its uri (`file:///.../table.csv`) or the folder it lies in. `@PATH` is a list whatever its
ending: one path or uri a line where the ending is none of those. `./@name` is a file called `@name`. `@URI`
(`@https://host/list.csv`, `@ipfs://CID`) is a list behind an address; it may name no files of this machine.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from fingerprint_dagster.errors import ContentError, UsageError
from fingerprint_dagster.sources.guard import Guard
from fingerprint_dagster.sources.uri import (
    ARCHIVE_SCHEMES,
    OBJECT_SCHEMES,
    archive_kind,
    is_uri,
    member_of,
    member_uri,
    path_uri,
    scheme_of,
    to_uri,
)

if TYPE_CHECKING:
    from fingerprint_dagster.sources.fetcher import Fetcher

LIST_ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")

_CHUNK_ROWS = 20_000

Reader = Callable[[Path], Iterator[tuple[str, dict[str, Any]]]]


@dataclass(frozen=True)
class Listed:
    """One row of a list, or one file.

    uri: normalised (see `to_uri`). content_id, content_type: None where the list has none.
    metadata: the other columns, as JSON data; empty cells are left out. Cells of a CSV or TSV stay text.
    validator: a text that changes with the content, where the listing itself tells: the ETag of an object.
    """

    uri: str
    content_id: str | None = None
    content_type: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    validator: str = ""


def expand(source: str, fetcher: Fetcher | None = None, *, after: str = "") -> Iterator[Listed]:
    """Everything that `source` names (see the module's text), streamed: a list is never held in memory.

    fetcher: opens archives and buckets, and confines folders to the allowed ones. Without one, an archive or a bucket
    stands for itself. An archive that cannot be opened is listed as its member `*`, so that it ends in quarantine
    with the reason.

    Files of a folder come sorted by name, folder by folder; hidden files and folders (`.name`) are left out, and a
    folder reached twice through symbolic links is listed once. A broken link or a folder that may not be read is
    listed itself, so that it ends in quarantine with a reason and is not lost. Relative paths in a list are
    relative to the list's folder. after: of a bucket, the uri of the object to go on after.

    Raises UsageError, while it is read, for a source that does not exist and for a wrong list.
    """
    if source.startswith("@") and is_uri(source[1:].strip()) and fetcher:
        uri = to_uri(source[1:])
        try:
            path = fetcher.fetch(uri).path
        except ContentError as error:
            raise UsageError(f"{uri}: the list cannot be read: {error.reason}") from None
        yield from rows_from(uri, path)
    elif source.startswith("@"):
        yield from _rows_checked(_existing(source[1:]))
    elif is_uri(source.strip()):
        yield from _behind(to_uri(source), fetcher, after)
    elif not os.path.lexists(source) and Path(source).suffix and Path(source).suffix.lower() not in LIST_ENDINGS:
        # The name of a file that is not there: a content that ends in quarantine, like a row of a list would.
        yield Listed(path_uri(Path(source)))
    else:
        path = _existing(source)
        guard = fetcher.guard if fetcher else Guard()
        try:
            guard.check_file(path)
        except (ContentError, RuntimeError) as error:
            raise UsageError(f"{path}: {error}") from None
        if path.is_dir():
            yield from (Listed(path_uri(file)) for file in _files_below(path, guard))
        elif path.suffix.lower() in LIST_ENDINGS:
            yield from _rows_checked(path)
        else:
            yield from _behind(path_uri(path), fetcher)


def rows_from(uri: str, path: Path) -> Iterator[Listed]:
    """The rows of the list behind `uri`, which was downloaded to `path`. Relative addresses are relative to `uri`.

    Raises UsageError, while it is read, for a wrong list, and for one that names files of this machine.
    """
    try:
        yield from _rows_checked(path, uri)
    except UsageError as error:
        raise UsageError(str(error).replace(str(path), uri)) from None


def _behind(uri: str, fetcher: Fetcher | None, after: str = "") -> Iterator[Listed]:
    """The objects of a bucket, the members of an archive, or the content of that uri itself."""
    scheme = scheme_of(uri)
    kind = None if scheme in ("data", *ARCHIVE_SCHEMES) else archive_kind(uri.partition("?")[0])
    if fetcher and scheme in OBJECT_SCHEMES and uri.endswith("/"):
        try:
            yield from (Listed(each, validator=validator) for each, validator in fetcher.objects(uri, after))
        except ContentError as error:
            raise UsageError(f"{uri}: {error}") from None
    elif fetcher and kind:
        try:
            yield from map(Listed, fetcher.members(uri, kind))
        except ContentError:  # raised before the first member or not at all
            yield Listed(member_uri(kind, uri, "*"))
    else:
        yield Listed(uri)


def absolute(source: str) -> str:
    """The same source, good from any current folder."""
    if is_uri(source.strip().removeprefix("@")):
        return source.strip()
    return f"@{Path(source[1:]).absolute()}" if source.startswith("@") else str(Path(source).absolute())


def _existing(text: str) -> Path:
    path = Path(text)
    try:
        if text and os.path.lexists(path):
            return path
    except ValueError:  # a NUL in the name
        pass
    raise UsageError(f"{text or 'the empty path'}: no such file or folder")


def _files_below(folder: Path, guard: Guard) -> Iterator[Path]:
    seen: set[tuple[int, int]] = set()
    todo: list[Iterator[Path]] = [iter((folder,))]  # of each folder on the way down, what is left in it
    while todo:
        path = next(todo[-1], None)
        if path is None:
            todo.pop()
            continue
        if not path.is_dir():
            if path.is_file() or path.is_symlink():  # no sockets, pipes, devices
                yield path
            continue
        try:
            guard.check_file(path)
            about = path.stat()
            names = _names_in(path)
        except (OSError, ContentError):
            yield path
            continue
        if (about.st_dev, about.st_ino) not in seen:
            seen.add((about.st_dev, about.st_ino))
            todo.append(map(path.joinpath, names))


def _names_in(folder: Path) -> list[str]:
    """The names in a folder, sorted, without the hidden ones; of all that a listing holds, the most: 100 bytes each."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith("."))


def _rows_checked(path: Path, origin: str = "") -> Iterator[Listed]:
    """The rows of the list at `path` as `Listed`, each checked. origin: the uri it was downloaded from."""
    uri_of_id: dict[str, int] = {}  # a uri as its 64-bit hash: a million rows fit in memory
    for place, row in _rows(path, Path(origin.partition("?")[0] if origin else path).suffix.lower()):
        uri = _text(row.pop("uri", None))
        if not uri.strip():
            raise UsageError(f"{path}, {place}: the uri is empty; give every row a path or a uri, or remove the row")
        try:
            uri = _beside(uri, origin) if origin else to_uri(uri, path.parent)
        except UsageError as error:
            raise UsageError(f"{path}, {place}: {error}") from error
        content_id = _text(row.pop("content_id", None)) or None
        if content_id is not None and uri_of_id.setdefault(content_id, hash(uri)) != hash(uri):
            raise UsageError(
                f"{path}, {place}: content_id {content_id!r} stands for another uri above; give each content its own id"
            )
        content_type = _text(row.pop("content_type", None)).strip() or None
        yield Listed(uri, content_id, content_type, _metadata(row))


def _beside(text: str, origin: str) -> str:
    """The uri of a row in the list behind the uri `origin`. Raises UsageError where it names a file of this machine."""
    if is_uri(text.strip()):
        uri = to_uri(text)
    else:
        scheme, _, place = origin.partition("://")
        # As an http address, whatever it is: `urljoin` joins nothing under a scheme that it does not know.
        uri = to_uri(f"{scheme}://{urljoin(f'http://{place}', text.strip()).removeprefix('http://')}")
    if scheme_of(member_of(uri)[1] if scheme_of(uri) in ARCHIVE_SCHEMES else uri) == "file":
        raise UsageError("a list from elsewhere may not name files of this machine; download it and give its path")
    return uri


def _rows(path: Path, ending: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a list, each with its place for messages (`row 3`, `line 3`), whatever its format.

    ending: of its name, in lower case, which says the format.
    """
    tsv: Reader = partial(_csv, separator="\t")
    readers: dict[str, Reader] = {".csv": _csv, ".tsv": tsv, ".jsonl": _jsonl, ".ndjson": _jsonl, ".parquet": _parquet}
    try:
        if path.is_dir():
            raise UsageError(f"{path}: a folder, not a list")
        yield from readers.get(ending, _lines)(path)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: the list is not in UTF-8; save it as UTF-8") from error
    except OSError as error:
        raise UsageError(f"{path}: the list cannot be read: {error.strerror or error}") from error


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """One path or uri a line, white space around it dropped; blank lines and lines that begin with # are skipped."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip() and not line.startswith("#"):
                yield f"line {number}", {"uri": line.strip()}


def _csv(path: Path, separator: str = ",") -> Iterator[tuple[str, dict[str, Any]]]:
    import pandas as pd

    row = 0
    try:
        # Text, not guessed types: an id of 007 and a cell of NA stay what they are. `object` avoids a conversion.
        chunks = pd.read_csv(
            path, sep=separator, chunksize=_CHUNK_ROWS, dtype=object, keep_default_na=False, encoding="utf-8-sig"
        )
        with chunks:
            for chunk in chunks:
                if not isinstance(chunk.index, pd.RangeIndex):  # what pandas makes of rows longer than the header
                    raise UsageError(f"{path}: rows have more cells than the header; quote the cells with separators")
                columns = [str(name) for name in chunk.columns]
                _require_uri(path, columns)
                for cells in zip(*(chunk[name].tolist() for name in chunk.columns), strict=True):
                    row += 1
                    yield f"row {row}", dict(zip(columns, cells, strict=True))
    except pd.errors.EmptyDataError as error:
        raise UsageError(f"{path}: the list is empty; its first row must name the columns, one of them uri") from error
    except pd.errors.ParserError as error:
        detail = str(error).removeprefix("Error tokenizing data. C error: ").strip()
        raise UsageError(f"{path}: not a well-formed table: {detail}; quote the cells with separators") from error


def _jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    # Line by line and not pandas.read_json, which makes 5.0 of 5 where a row lacks the key, and names no line.
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                detail = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deep or too long"
                raise UsageError(f"{path}, line {number}: not JSON ({detail}); write one object a line") from error
            if not isinstance(row, dict):
                raise UsageError(f'{path}, line {number}: not an object; write {{"uri": ...}} on every line')
            _require_uri(path, list(row), f"line {number}")
            yield f"line {number}", row


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    try:
        with pq.ParquetFile(path) as table:
            _require_uri(path, table.schema_arrow.names)
            for batch in table.iter_batches(batch_size=_CHUNK_ROWS):
                for cells in batch.to_pylist():
                    row += 1
                    yield f"row {row}", cells
    except pa.ArrowException as error:
        raise UsageError(f"{path}: not a readable Parquet file") from error


def _require_uri(path: Path, columns: list[str], place: str = "") -> None:
    if "uri" not in columns:
        found = ", ".join(columns) or "none"
        raise UsageError(
            f"{path}{', ' if place else ''}{place}: no column uri (columns found: {found}); name the column of paths "
            f"or uris uri, or give {path_uri(path)} to fingerprint the table itself"
        )


def _text(cell: Any) -> str:
    """A cell as text: empty for None and NaN, and 7 for an id that Parquet or JSON holds as the number 7."""
    return "" if _missing(cell) else str(cell)


def _metadata(row: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name): _plain(cell) for name, cell in row.items() if not (_missing(cell) or cell == "")}


def _missing(cell: Any) -> bool:
    # NaT, too, differs from itself; a list or a dict does not.
    return cell is None or (isinstance(cell, float | datetime) and cell != cell)


def _plain(cell: Any) -> Any:
    """The cell as JSON data. Dates become ISO 8601 text, exact decimals text, bytes hexadecimal text."""
    if isinstance(cell, Mapping):
        return {str(name): _plain(part) for name, part in cell.items()}
    if isinstance(cell, list | tuple):
        return [_plain(part) for part in cell]
    if isinstance(cell, float):
        return float(cell) if math.isfinite(cell) else None
    if cell is None or isinstance(cell, str | bool | int):
        return cell
    if isinstance(cell, datetime | date | time):
        return cell.isoformat()
    if isinstance(cell, timedelta):
        return cell.total_seconds()
    if isinstance(cell, Decimal):
        return str(cell)
    if isinstance(cell, bytes):
        return cell.hex()
    if hasattr(cell, "item"):  # a numpy scalar
        return _plain(cell.item())
    return str(cell)
