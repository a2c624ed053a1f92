"""Fingerprints for people and for other programs: JSON records, and tables in Parquet, CSV or JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fingerprint_dagster.content import Component, Fingerprint
from fingerprint_dagster.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from fingerprint_dagster.index.store import Store

FORMATS = (".parquet", ".csv", ".jsonl")
_SHOWN_ROWS = 5


def describe(fingerprint: Fingerprint) -> dict[str, Any]:
    """The whole record as JSON data; of long components, the first rows and how many there are."""
    return {
        **_facts(fingerprint),
        "metadata": dict(fingerprint.content.metadata),
        "info": dict(fingerprint.sketch.info),
        "components": [_describe_component(component) for component in fingerprint.sketch.components],
    }


def export_fingerprints(store: Store, out: Path) -> int:
    """Write one row for each stored fingerprint to `out`, streamed; returns their number.

    Columns: content_id, uri, content_type, digest, size, media_type, key; metadata and info as JSON; and for each
    component `<algorithm>`: hexadecimal rows for bits, lists of numbers for vectors, tokens and data.
    Raises `UsageError` for an unknown ending or a file that cannot be written.
    """
    if out.suffix not in FORMATS:
        raise UsageError(f"{out}: unknown ending {out.suffix!r}; use one of {', '.join(FORMATS)}")
    columns = sorted({column for batch in store.scan() for each in batch for column in _row(each)}, key=_column_order)
    temporary = out.with_name(f".{out.name}.part")
    count = 0
    try:
        with _writer(temporary, out.suffix) as writer:
            for batch in store.scan():
                writer.write(_frame([_row(each) for each in batch], columns))
                count += len(batch)
            if not count:
                writer.write(_frame([], columns))
        temporary.replace(out)
    except OSError as error:
        raise UsageError(f"{out}: cannot be written: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return count


_FACTS = ("content_id", "uri", "content_type", "digest", "size", "media_type", "key")


def _facts(fingerprint: Fingerprint) -> dict[str, Any]:
    content = fingerprint.content
    return {
        "content_id": content.content_id,
        "uri": content.uri,
        "content_type": content.content_type,
        "digest": fingerprint.digest,
        "size": fingerprint.size,
        "media_type": fingerprint.media_type,
        "key": fingerprint.key,
    }


def _row(fingerprint: Fingerprint) -> dict[str, Any]:
    return {
        **_facts(fingerprint),
        "metadata": json.dumps(dict(fingerprint.content.metadata), ensure_ascii=False),
        "info": json.dumps(dict(fingerprint.sketch.info), ensure_ascii=False),
        **{component.algorithm: _rows(component) for component in fingerprint.sketch.components},
    }


def _column_order(column: str) -> tuple[int, str]:
    fixed = (*_FACTS, "metadata", "info")
    return (fixed.index(column), "") if column in fixed else (len(fixed), column)


def _rows(component: Component) -> list[Any]:
    if component.kind == "hamming":
        return [row.tobytes().hex() for row in component.values]
    return list(component.values.tolist())


def _describe_component(component: Component) -> dict[str, Any]:
    rows = len(component.values)
    some = Component(component.algorithm, component.kind, component.values[:_SHOWN_ROWS])
    shown: Any = _rows(some)
    if component.kind == "cosine":
        shown = f"{rows} x {component.values.shape[1]} vectors, shown by `fingerprint export`"
    return {
        "algorithm": component.algorithm,
        "kind": component.kind,
        "rows": rows,
        "values": shown,
        **({"positions": np.round(component.positions[:_SHOWN_ROWS], 3).tolist()} if component.positions is not None else {}),
    }


def _frame(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=columns)


class _writer:  # noqa: N801 - a context manager, used like a function.
    """Appends frames to one file in the format of its ending."""

    def __init__(self, path: Path, ending: str) -> None:
        self.path = path
        self.ending = ending
        self._parquet: Any = None
        self._first = True

    def __enter__(self) -> _writer:
        self.path.write_bytes(b"")
        return self

    def __exit__(self, *_: object) -> None:
        if self._parquet is not None:
            self._parquet.close()

    def write(self, frame: pd.DataFrame) -> None:
        """Append the rows of `frame`."""
        if self.ending == ".csv":
            frame.to_csv(self.path, mode="a", header=self._first, index=False)
        elif self.ending == ".jsonl":
            frame.to_json(self.path, mode="a", orient="records", lines=True, force_ascii=False)
        else:
            import pyarrow as pa
            import pyarrow.parquet as pq

            table = pa.Table.from_pandas(frame, preserve_index=False)
            if self._parquet is None:
                self._parquet = pq.ParquetWriter(self.path, table.schema)
            self._parquet.write_table(table.cast(self._parquet.schema))
        self._first = False
