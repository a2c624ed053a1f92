"""The store on disk: one LanceDB folder that any number of processes read and write.

Table `fingerprints` is the truth. One table for each algorithm with rows to look up (`hamming_pdq_v1`) is derived from
it and read by `candidates`. Look-ups are exact: every row is read and compared, which takes some 10 ms per 100,000
hashes of 256 bits, and 0.3 s or more per 100,000 vectors of 1,280 numbers, whose reading is what takes the time. Where
that is too long, an approximate index on the column `values` is the next step; the tables need not change for it.

Writing goes: add the new derived rows, delete the replaced ones, then the truth. So what the truth names is complete, a
reader finds the old or the new rows at any moment, and a put that was killed is completed by repeating it.
"""

from __future__ import annotations

import os
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock
from lancedb.index import BTree

from fingerprint_dagster.content import Component, Content, Fingerprint
from fingerprint_dagster.index import ranking
from fingerprint_dagster.index.record import from_record, to_record

TRUTH = "fingerprints"
TRUTH_SCHEMA = pa.schema(
    [
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("content_type", pa.string(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("media_type", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("metadata", pa.string(), nullable=False),
        pa.field("payload", pa.large_binary(), nullable=False),
    ]
)
# Ids or tokens in one SQL filter.
CHUNK = 1000
# Rows not covered by the index on a column are scanned; below this many that is as fast as the index.
UNINDEXED_ROWS = 10_000
# A table's files are merged when there are more than FILES and one more for each ROWS_PER_FILE rows.
FILES = 32
ROWS_PER_FILE = 5000
# Replaced versions are kept this long for readers that still scan them.
KEEP_VERSIONS = timedelta(hours=1)
# Another writer without our lock (LanceDB's own tools, a network file system without locks) makes a commit fail.
ATTEMPTS = 8
# The widest row that fits Lance's "miniblock" layout with room to spare: 4,096 numbers of float16.
MINIBLOCK_BYTES = 8192
# Nearest rows a search asks for at first, for each content wanted: a content can have several.
ROWS_PER_CONTENT = 4

T = TypeVar("T")


class LanceStore:
    """A `Store` in the folder `path`, made when the first fingerprint is put.

    Safe to share between threads. Sees at once what other processes write. In a forked child it is opened anew, but
    LanceDB calls that experimental, and it crashes where the parent had used OpenCV or torch: start a fork server
    before, or spawn.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self._pid: int | None = None

    def put(self, fingerprints: Sequence[Fingerprint]) -> None:
        """See `Store.put`."""
        latest = {fingerprint.content.content_id: fingerprint for fingerprint in fingerprints}
        if latest:
            self._write(lambda: self._put(list(latest.values())))

    def get(self, content_ids: Sequence[str]) -> list[Fingerprint]:
        """See `Store.get`."""
        found = {r["content_id"]: from_record(r) for rows in self._rows(content_ids, None) for r in rows.to_pylist()}
        return [found[content_id] for content_id in content_ids if content_id in found]

    def keys(self, content_ids: Sequence[str]) -> dict[str, str]:
        """See `Store.keys`."""
        found: dict[str, str] = {}
        for rows in self._rows(content_ids, ["content_id", "key"]):
            found |= zip(rows["content_id"].to_pylist(), rows["key"].to_pylist(), strict=True)
        return found

    def delete(self, content_ids: Sequence[str]) -> None:
        """See `Store.delete`."""
        if content_ids and self._table(TRUTH) is not None:
            self._write(lambda: self._delete(content_ids))

    def count(self) -> dict[str, int]:
        """See `Store.count`."""
        truth = self._table(TRUTH)
        if truth is None:
            return {}
        counts = pc.value_counts(_read(truth, ["content_type"])["content_type"])
        return {entry["values"]: entry["counts"] for entry in counts.to_pylist()}

    def scan(self, batch_size: int = 1000) -> Iterator[list[Fingerprint]]:
        """See `Store.scan`."""
        truth = self._table(TRUTH)
        if truth is None:
            return
        for batch in truth.search().limit(None).to_batches(batch_size=batch_size):
            yield [from_record(record) for record in batch.to_pylist()]

    def candidates(self, query: Fingerprint, limit: int) -> list[str]:
        """See `Store.candidates`."""
        where = f"content_type = {_quoted(str(query.content.content_type))}"
        rankings = []
        for component in query.sketch.components:
            table = None if component.kind == "data" else self._table(f"{component.kind}_{component.algorithm}")
            if table is None:
                continue
            values = ranking.query_values(component)
            if component.kind == "tokens":
                rankings.append(_rank_tokens(table, where, values, limit))
            elif len(values) == 1:
                rankings.append(_rank_one(table, where, component.kind, values[0], limit))
            elif len(values):
                rankings.append(_rank_many(table, where, component.kind, values, limit))
        return ranking.merge(rankings, limit)

    def by_digest(self, digest: str) -> list[str]:
        """See `Store.by_digest`."""
        truth = self._table(TRUTH)
        if truth is None:
            return []
        return sorted(_read(truth, ["content_id"], f"digest = {_quoted(digest)}")["content_id"].to_pylist())

    def compact(self) -> None:
        """Merge small files, drop what versions older than an hour held, and derived rows that nothing stored owns."""
        self._write(self._compact)

    def _put(self, fingerprints: list[Fingerprint]) -> None:
        # Every put marks its derived rows with a number of its own: those of the same contents that bear another
        # number are of an older fingerprint, or of a put that was killed.
        mark = secrets.randbits(63)
        for name, rows in _derived_rows(fingerprints, mark).items():
            self._table_for_writing(name, rows.schema).add(rows)
        content_ids = [fingerprint.content.content_id for fingerprint in fingerprints]
        for table in self._derived_tables():
            for chunk in _chunks(content_ids):
                table.delete(f"content_id IN ({_list(chunk)}) AND put != {mark}")
            _keep_fast(table, "content_id", *({"token"} & set(table.schema.names)))
        truth = self._table_for_writing(TRUTH, TRUTH_SCHEMA)
        records = pa.Table.from_pylist([to_record(fingerprint) for fingerprint in fingerprints], TRUTH_SCHEMA)
        truth.merge_insert("content_id").when_matched_update_all().when_not_matched_insert_all().execute(records)
        _keep_fast(truth, "content_id", "digest")

    def _delete(self, content_ids: Sequence[str]) -> None:
        # The truth first: what it does not name is not stored, whatever derived rows a kill leaves for `compact`.
        for table in [self._table(TRUTH), *self._derived_tables()]:
            for chunk in _chunks(content_ids):
                table.delete(f"content_id IN ({_list(chunk)})")

    def _compact(self) -> None:
        truth = self._table(TRUTH)
        if truth is None:
            return
        stored = set(_read(truth, ["content_id"])["content_id"].to_pylist())
        derived = self._derived_tables()
        for table in derived:
            batches = table.search().select(["content_id"]).limit(None).to_batches()
            owners = {content_id for batch in batches for content_id in pc.unique(batch["content_id"]).to_pylist()}
            for chunk in _chunks(sorted(owners - stored)):
                table.delete(f"content_id IN ({_list(chunk)})")
        for table in [truth, *derived]:
            table.optimize(cleanup_older_than=KEEP_VERSIONS)

    def _write(self, action: Callable[[], None]) -> None:
        """Do `action`, which may be done twice, while no other process writes."""
        self.path.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with FileLock(self.path / "write.lock"):
                    return action()
            except RuntimeError as error:
                if "commit conflict" not in str(error).lower() or attempt == ATTEMPTS:
                    raise
                time.sleep(0.05 * 2**attempt)
        return None

    def _open(self) -> tuple[Any, dict[str, Any]]:
        """The connection of this process and its open tables: neither survives a fork."""
        if self._pid != os.getpid():
            # Without an interval of zero a table would go on showing the version it was opened at.
            self._connection = lancedb.connect(self.path, read_consistency_interval=timedelta(0))
            self._tables: dict[str, Any] = {}
            self._pid = os.getpid()
        return self._connection, self._tables

    def _table(self, name: str) -> Any | None:
        """The table, or None where nothing has been put in it yet."""
        if not self.path.exists():
            return None
        connection, tables = self._open()
        if name not in tables:
            try:
                tables[name] = connection.open_table(name)
            except ValueError:  # not there, or not a name a table can have
                return None
        return tables[name]

    def _table_for_writing(self, name: str, schema: pa.Schema) -> Any:
        table = self._table(name)
        # Not `or`: a table without rows is false.
        return self._open()[0].create_table(name, schema=schema) if table is None else table

    def _derived_tables(self) -> list[Any]:
        names = [name for name in self._open()[0].list_tables().tables if name != TRUTH]
        # A folder without a table in it is what is left of a writer that was killed while it made the table.
        return [table for name in sorted(names) if (table := self._table(name)) is not None]

    def _rows(self, content_ids: Sequence[str], columns: list[str] | None) -> Iterator[pa.Table]:
        truth = self._table(TRUTH)
        for chunk in _chunks(content_ids) if truth is not None else ():
            yield _read(truth, columns or TRUTH_SCHEMA.names, f"content_id IN ({_list(chunk)})")


def _derived_rows(fingerprints: Iterable[Fingerprint], mark: int) -> dict[str, pa.Table]:
    """Table name -> the rows to look the fingerprints up by."""
    parts: dict[tuple[str, str], list[tuple[Content, Component, np.ndarray]]] = defaultdict(list)
    for fingerprint in fingerprints:
        for component in fingerprint.sketch.components:
            rows = ranking.searchable_rows(component) if component.kind != "data" else np.empty(0, np.int64)
            if len(rows):
                parts[component.kind, component.algorithm].append((fingerprint.content, component, rows))
    return {f"{kind}_{algorithm}": _derived_table(kind, part, mark) for (kind, algorithm), part in parts.items()}


def _derived_table(kind: str, part: list[tuple[Content, Component, np.ndarray]], mark: int) -> pa.Table:
    owners = np.repeat(np.arange(len(part)), [len(rows) for _, _, rows in part])
    spans = np.concatenate([_spans(component, rows) for _, component, rows in part])
    values = np.concatenate([component.values[rows] for _, component, rows in part])
    columns = {
        "content_id": pa.array([content.content_id for content, _, _ in part]).take(owners),
        "content_type": pa.array([str(content.content_type) for content, _, _ in part]).take(owners),
        "put": pa.repeat(pa.scalar(mark, pa.int64()), len(owners)),
        "row": pa.array(np.concatenate([rows for _, _, rows in part]), pa.int32()),
        "start": pa.array(spans[:, 0], from_pandas=True),
        "end": pa.array(spans[:, 1], from_pandas=True),
    }
    if kind == "tokens":
        return pa.table(columns | {"token": pa.array(values, pa.uint64())})
    # Half the size, and precise enough to find candidates: a match is verified on the payload.
    flat = pa.array(values.astype(np.float16 if kind == "cosine" else np.uint8).ravel())
    width = values.shape[1]
    column = pa.FixedSizeListArray.from_arrays(flat, width)
    # Lance chooses another layout for wide rows, which reads at half the speed; narrow rows have this one anyway.
    layout = (
        {"lance-encoding:structural-encoding": "miniblock"} if flat.type.byte_width * width <= MINIBLOCK_BYTES else None
    )
    table = pa.table(columns)
    return table.append_column(pa.field("values", column.type, metadata=layout), column)


def _spans(component: Component, rows: np.ndarray) -> np.ndarray:
    """Float64 [rows, 2]: start and end of each row; NaN where it has none, as a part of a picture."""
    if component.positions is None or component.positions.shape[1] != 2:
        return np.full((len(rows), 2), np.nan)
    spans: np.ndarray = component.positions[rows]
    return spans


def _rank_one(table: Any, where: str, kind: str, query: np.ndarray, limit: int) -> list[str]:
    """Rank by one query row: LanceDB's own search."""
    width = len(query)
    farthest = ranking.farthest(kind, width)
    rows = ROWS_PER_CONTENT * limit
    while True:
        search = table.search(query).distance_type("dot" if kind == "cosine" else "hamming").where(where)
        found = search.distance_range(None, farthest).select(["content_id", "_distance"]).limit(rows).to_arrow()
        distance = found["_distance"].to_numpy()
        # Contents at the last distance may have been cut off, so only those nearer are certain to be the best.
        certain = found["content_id"].filter(pa.array(distance < distance[-1:]))
        if len(found) < rows or pc.count_distinct(certain).as_py() >= limit:
            return _rank(found["content_id"], ranking.nearness(kind, width, distance)[:, None], limit)
        rows *= 8


def _rank_many(table: Any, where: str, kind: str, queries: np.ndarray, limit: int) -> list[str]:
    """Rank by many query rows: one pass over the table, where LanceDB would make one for each of them."""
    width = queries.shape[1]
    content_ids, nears = [], []
    for batch in table.search().where(where).select(["content_id", "values"]).limit(None).to_batches():
        values = batch["values"].flatten().to_numpy().reshape(-1, width)
        near = ranking.nearness(kind, width, ranking.distances(kind, values, queries))
        hit = near.any(axis=1)
        content_ids.append(batch["content_id"].filter(pa.array(hit)))
        nears.append(near[hit])
    return _rank(pa.chunked_array(content_ids, pa.string()), np.concatenate(nears), limit) if nears else []


def _rank(content_ids: pa.ChunkedArray, near: np.ndarray, limit: int) -> list[str]:
    encoded = pc.dictionary_encode(content_ids).combine_chunks()
    return ranking.rank_rows(encoded.dictionary.to_pylist(), encoded.indices.to_numpy(), near, limit)


def _rank_tokens(table: Any, where: str, tokens: np.ndarray, limit: int) -> list[str]:
    """Rank by the shared tokens. Stored tokens are distinct within a content, and so are the query's."""
    found = [
        _read(table, ["content_id", "token"], f"token IN ({', '.join(map(str, chunk))}) AND {where}")
        for chunk in _chunks(tokens.tolist())
    ]
    if not found:
        return []
    shared = pa.concat_tables(found)
    return ranking.rank_tokens(
        shared["content_id"].to_numpy(zero_copy_only=False), shared["token"].to_numpy(zero_copy_only=False), limit
    )


def _read(table: Any, columns: list[str], where: str | None = None) -> pa.Table:
    query = table.search().select(columns).limit(None)
    return (query.where(where) if where else query).to_arrow()


def _keep_fast(table: Any, *columns: str) -> None:
    """Merge the table's files when there are many of them, and keep the columns indexed."""
    # Every put adds a file to a table, and a look-up opens each: 200 of them make it ten times slower. Merging
    # rewrites the table, so the larger it is, the more files it may have.
    if table.stats()["fragment_stats"]["num_fragments"] > FILES + table.count_rows() // ROWS_PER_FILE:
        table.optimize(cleanup_older_than=KEEP_VERSIONS)
    for column in columns:
        stats = table.index_stats(f"{column}_idx")
        unindexed, indexed = (stats.num_unindexed_rows, stats.num_indexed_rows) if stats else (table.count_rows(), 0)
        # Making an index takes some 0.1 s per million rows; a tenth more rows each time keeps the sum linear.
        if unindexed > max(UNINDEXED_ROWS, indexed // 10):
            table.create_index(column, config=BTree(), replace=True)


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))


def _list(content_ids: Iterable[str]) -> str:
    return ", ".join(map(_quoted, content_ids))


def _quoted(text: str) -> str:
    """`text` as a string literal of SQL, in which only the quote is special."""
    return "'" + text.replace("'", "''") + "'"
