"""Clusters and pairs as rows for other programs: JSON lines, CSV and Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from fingerprint_dagster.content import Fingerprint, Match
from fingerprint_dagster.duplicates.findings import Cluster, Finding
from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.export import in_whole, rounded

_ROWS_AT_ONCE = 5000
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for a formula

_MEMBER = ("content_id", "uri", "content_type", "digest", "bytes", "width", "height", "seconds")
_SIDE = ("id", "uri", "content_type", "digest", "bytes", "cluster")
CLUSTER_COLUMNS = ("cluster", "keep", *_MEMBER)
PAIR_COLUMNS = (
    *(f"{side}_{name}" for side in ("one", "other") for name in _SIDE),
    *("relation", "score", "confidence", "evidence", "decision", "one_start", "one_end", "other_start", "other_end"),
    "matches",
)


def cluster_rows(clusters: Iterable[Cluster]) -> Iterator[dict[str, Any]]:
    """One row (`CLUSTER_COLUMNS`) for each member of each cluster, the one to keep first."""
    for cluster in clusters:
        for member in cluster.members:
            info = member.sketch.info
            yield {
                "cluster": cluster.number,
                "keep": member is cluster.keep,
                "content_id": member.content.content_id,
                "uri": member.content.uri,
                "content_type": member.content.content_type,
                "digest": member.digest,
                "bytes": member.size,
                "width": info.get("width"),
                "height": info.get("height"),
                "seconds": info.get("duration"),
            }


def pair_rows(findings: Iterable[Finding]) -> Iterator[dict[str, Any]]:
    """One row (`PAIR_COLUMNS`) for each pair; start and end are of its best match, `matches` is all of them as JSON."""
    for finding in findings:
        pair, best = finding.pair, finding.pair.best
        yield {
            **_side("one", pair.one, finding.one_cluster),
            **_side("other", pair.other, finding.other_cluster),
            "relation": pair.relation,
            "score": round(best.score, 6),
            "confidence": None if best.confidence is None else round(best.confidence, 6),
            "evidence": best.evidence,
            "decision": finding.verdict,
            **dict(zip(("one_start", "one_end"), best.query_range or (None, None), strict=True)),
            **dict(zip(("other_start", "other_end"), best.reference_range or (None, None), strict=True)),
            "matches": json.dumps([place_json(match) for match in pair.matches], ensure_ascii=False),
        }


def cluster_json(cluster: Cluster) -> dict[str, Any]:
    """One cluster as JSON data."""
    members = [{name: row[name] for name in _MEMBER} for row in cluster_rows([cluster])]
    return {"cluster": cluster.number, "keep": members[0], "copies": members[1:], "spare_bytes": cluster.spare_bytes}


def pair_json(finding: Finding) -> dict[str, Any]:
    """One pair as JSON data."""
    (row,) = pair_rows([finding])
    return {**row, "matches": json.loads(row["matches"])}


def write_rows(rows: Iterable[Mapping[str, Any]], columns: tuple[str, ...], out: Path) -> int:
    """Write rows to a .parquet, .csv or .jsonl file, streamed, whole or not at all; returns their number.

    Raises `UsageError` for an unknown ending or a file that cannot be written.
    """
    writers = {".parquet": _parquet, ".csv": _csv_file, ".jsonl": _jsonl}
    if out.suffix not in writers:
        raise UsageError(f"{out}: unknown ending {out.suffix!r}; use one of {', '.join(writers)}")
    with in_whole(out) as temporary:
        return writers[out.suffix](rows, columns, temporary)


def write_csv(rows: Iterable[Mapping[str, Any]], columns: tuple[str, ...], file: IO[str]) -> int:
    """Write rows as CSV. What a spreadsheet would take for a formula is preceded by an apostrophe."""
    writer = csv.writer(file)
    writer.writerow(columns)
    count = 0
    for row in rows:
        writer.writerow([_cell(row[name]) for name in columns])
        count += 1
    return count


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _csv_file(rows: Iterable[Mapping[str, Any]], columns: tuple[str, ...], path: Path) -> int:
    with path.open("w", encoding="utf-8", newline="") as file:
        return write_csv(rows, columns, file)


def _jsonl(rows: Iterable[Mapping[str, Any]], columns: tuple[str, ...], path: Path) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(dict(row), ensure_ascii=False) + "\n")
            count += 1
    return count


def _parquet(rows: Iterable[Mapping[str, Any]], columns: tuple[str, ...], path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([pa.field(name, _arrow_type(pa, name)) for name in columns])
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        part: list[Mapping[str, Any]] = []
        for row in rows:
            part.append(row)
            if len(part) == _ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(part, schema))
                count, part = count + len(part), []
        writer.write_table(pa.Table.from_pylist(part, schema))
    return count + len(part)


def _arrow_type(pa: Any, column: str) -> Any:
    if column.endswith(("cluster", "bytes", "width", "height")):
        return pa.int64()
    if column.endswith(("score", "confidence", "start", "end", "seconds")):
        return pa.float64()
    return pa.bool_() if column == "keep" else pa.string()


def _side(name: str, content: Fingerprint, cluster: int) -> dict[str, Any]:
    return {
        f"{name}_id": content.content.content_id,
        f"{name}_uri": content.content.uri,
        f"{name}_content_type": content.content.content_type,
        f"{name}_digest": content.digest,
        f"{name}_bytes": content.size,
        f"{name}_cluster": cluster or None,
    }


def place_json(match: Match) -> dict[str, Any]:
    """One match as JSON data: where it is on both sides of its pair, and how sure."""
    return {
        "score": round(match.score, 6),
        "confidence": None if match.confidence is None else round(match.confidence, 6),
        "evidence": match.evidence,
        "one_range": rounded(match.query_range),
        "other_range": rounded(match.reference_range),
        "one_box": rounded(match.query_box),
        "other_box": rounded(match.reference_box),
        "details": dict(match.details),
    }


def size_text(content: Fingerprint) -> str:
    """How large a content is, for a person: pixels, seconds, characters, as far as known."""
    info = content.sketch.info
    parts = []
    if info.get("width") and info.get("height"):
        parts.append(f"{info['width']} x {info['height']}")
    if info.get("duration"):
        parts.append(f"{info['duration']:.1f} s")
    if info.get("characters"):
        parts.append(f"{info['characters']:,} characters")
    return ", ".join(parts)
