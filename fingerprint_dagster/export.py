"""Fingerprints for people and for other programs: JSON records, and tables in Parquet, CSV or JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fingerprint_dagster.content import Box, Component, Fingerprint, Match, Range
from fingerprint_dagster.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from fingerprint_dagster.index.store import Store

_SHOWN_ROWS = 5


def describe_match(match: Match) -> dict[str, Any]:
    """One match as JSON data: ranges in seconds or characters, boxes as fractions."""
    return {
        "content_id": match.reference.content_id,
        "uri": match.reference.uri,
        "content_type": match.reference.content_type,
        "score": round(match.score, 6),
        "confidence": None if match.confidence is None else round(match.confidence, 6),
        "query_range": rounded(match.query_range),
        "reference_range": rounded(match.reference_range),
        "query_box": rounded(match.query_box),
        "reference_box": rounded(match.reference_box),
        "evidence": match.evidence,
        "strength": round(match.score if match.strength is None else match.strength, 6),
        "details": dict(match.details),
    }


def rounded(where: Range | Box | None) -> list[float] | None:
    """A place to a thousandth of a second or of a side."""
    return None if where is None else [round(end, 3) for end in where]


def place_text(span: Range | None, box: Box | None, content_type: str) -> str:
    """Where in a content, for a person: seconds, characters, or per cent of the sides; "all" where it is all of it."""
    places = []
    if span is not None:
        places.append(("characters {:.0f}-{:.0f}" if content_type == "text" else "{:.1f}-{:.1f} s").format(*span))
    if box is not None:
        left, top, right, bottom = (100 * side for side in box)
        places.append(f"{left:.0f}-{right:.0f} % across, {top:.0f}-{bottom:.0f} % down")
    return ", ".join(places) or "all"


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
    if out.suffix not in _WRITERS:
        raise UsageError(f"{out}: unknown ending {out.suffix!r}; use one of {', '.join(_WRITERS)}")
    schema = _schema(store)
    with in_whole(out) as temporary, _WRITERS[out.suffix](temporary, schema) as write:
        count = 0
        for batch in store.scan():
            write([_row(each) for each in batch])
            count += len(batch)
    return count


@contextmanager
def in_whole(out: Path) -> Iterator[Path]:
    """A path to write to in the block, which is `out` once all of it is written.

    Raises `UsageError` where it cannot be written; then nothing of it is left, and what `out` was before is.
    """
    temporary = out.with_name(f".{out.name}.part")
    try:
        yield temporary
        temporary.replace(out)
    except OSError as error:
        raise UsageError(f"{out}: cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


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


def _rows(component: Component) -> list[Any]:
    """The rows of a component: bytes as hexadecimal text, numbers as they are."""
    if component.values.dtype == np.uint8 and component.values.ndim == 2:
        return [row.tobytes().hex() for row in component.values]
    return list(component.values.tolist())


def _describe_component(component: Component) -> dict[str, Any]:
    rows = len(component.values)
    described: dict[str, Any] = {"algorithm": component.algorithm, "kind": component.kind, "rows": rows}
    if component.kind == "cosine":
        described["dimensions"] = component.values.shape[1]
    else:
        described["values"] = _rows(replace(component, values=component.values[:_SHOWN_ROWS]))
    if component.positions is not None:
        described["positions"] = np.round(component.positions[:_SHOWN_ROWS], 3).tolist()
    return described


def _schema(store: Store) -> pa.Schema:
    """The columns of everything in the store, in a stable order. One pass, since a Parquet file begins with them."""
    import pyarrow as pa

    components: dict[str, pa.DataType] = {}
    for batch in store.scan():
        for fingerprint in batch:
            for component in fingerprint.sketch.components:
                if component.algorithm not in components:
                    components[component.algorithm] = _arrow_type(component)
    fields = [pa.field(name, pa.int64() if name == "size" else pa.string()) for name in (*_FACTS, "metadata", "info")]
    return pa.schema(fields + [pa.field(name, components[name]) for name in sorted(components)])


def _arrow_type(component: Component) -> pa.DataType:
    import pyarrow as pa

    if component.values.dtype == np.uint8 and component.values.ndim == 2:
        return pa.list_(pa.string())
    kind = pa.from_numpy_dtype(component.values.dtype)
    for _ in range(component.values.ndim):
        kind = pa.list_(kind)
    return kind


Write = Callable[[list[dict[str, Any]]], None]


@contextmanager
def _parquet(path: Path, schema: pa.Schema) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, schema) as writer:
        yield lambda rows: writer.write_table(pa.Table.from_pylist(rows, schema))


@contextmanager
def _csv(path: Path, schema: pa.Schema) -> Iterator[Write]:
    import pandas as pd

    def write(rows: list[dict[str, Any]]) -> None:
        frame = pd.DataFrame(rows, columns=schema.names)
        for name in schema.names[len(_FACTS) + 2 :]:
            frame[name] = [json.dumps(cell) if isinstance(cell, list) else None for cell in frame[name]]
        frame.to_csv(path, mode="a", header=False, index=False)

    pd.DataFrame(columns=schema.names).to_csv(path, index=False)
    yield write


@contextmanager
def _jsonl(path: Path, schema: pa.Schema) -> Iterator[Write]:
    with path.open("w", encoding="utf-8") as file:
        yield lambda rows: file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


_WRITERS = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}
