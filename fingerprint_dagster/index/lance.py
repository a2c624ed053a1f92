"""The store in LanceDB: a folder that any number of processes read and write, or a prefix of an object store.

One table, a row for each content. A deleted content leaves a row without payload, so that every change is one commit,
and has a number greater than those before it (`seq`): that is how the search structure keeps up. `compact` drops such
rows. The row of content_id "" has what no other table has (its digest), and the number up to which they were dropped.

LanceDB leaves it to the operating system when files reach the disk. In a folder, a write is finished when all of it is
there, and one that a power cut fell into is undone: its versions go, those before it are whole.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock
from lancedb.index import BTree

from fingerprint_dagster.content import Fingerprint
from fingerprint_dagster.durable import Immutable, Unfinished, sync
from fingerprint_dagster.index.record import from_record, to_record
from fingerprint_dagster.index.search_index import Change, Searched, SearchIndex

TABLE = "records"
SCHEMA = pa.schema(
    [
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("content_type", pa.string(), nullable=False),  # "": deleted
        pa.field("digest", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("media_type", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("metadata", pa.string(), nullable=False),
        pa.field("payload", pa.large_binary()),
        pa.field("seq", pa.int64(), nullable=False),
    ]
)
RECORD = [name for name in SCHEMA.names if name != "seq"]  # what `record` knows of
INDEXED = ("content_id", "digest", "seq")
_DELETED: dict[str, Any] = dict.fromkeys(SCHEMA.names, "") | {"size": 0, "payload": None}
# Ids in one SQL filter.
CHUNK = 1000
# Rows not covered by the index on a column are scanned; below this many that is as fast as the index.
UNINDEXED_ROWS = 10_000
# The table's files are merged when there are more than FILES and one more for each ROWS_PER_FILE rows.
FILES = 32
ROWS_PER_FILE = 5000
# Replaced versions are kept this long for readers that still scan them.
KEEP_VERSIONS = timedelta(hours=1)
KEEP_ALL_VERSIONS = timedelta(days=36_500)
# LanceDB names versions so that the newest comes first.
LAST_NAME = 2**64 - 1
# Rows keep their ids when files are merged: `SearchIndex.places` stay good. In version 2.2 of the files a page of equal
# values is laid out whole to read one of them: six records of a million take three times as long as with 2.1.
NEW_TABLE = {"new_table_enable_stable_row_ids": "true", "new_table_data_storage_version": "2.1"}
# Another writer without our lock (LanceDB's own tools, another machine) makes a commit fail.
ATTEMPTS = 8
# A change's number is the version of the table that it makes, or an earlier one that no other change made, and
# so many random bits: without a lock two writers may make the same version.
RANDOM_BITS = 20
# Nanoseconds after which a folder's time of change can be told from that of the next change.
SETTLED = 100_000_000

T = TypeVar("T")


class LanceStore(Searched):
    """A `Store` in the folder `location`, made when the first fingerprint is put, or in an object store.

    Safe to share between threads. Sees at once what other processes write. In a folder any number of processes write,
    one after the other. An object store has no lock: there, any number of processes read, and one may write at a time
    (of several, all keep their records, but the search structures may miss some until `compact`).

    In a forked child it is opened anew, but LanceDB calls that experimental, and it crashes where the parent had used
    OpenCV or torch: start a fork server before, or spawn.
    """

    def __init__(
        self, location: str | Path, search_folder: Path | None = None, options: dict[str, str] | None = None
    ) -> None:
        """search_folder: where the search structure lies; None means `search` in the folder. options: LanceDB's own."""
        self.path = Path(location).absolute() if search_folder is None else None
        self.location = str(self.path or location)
        self.search = SearchIndex(self, search_folder or Path(self.location) / "search")
        self._options = options
        self._unfinished = Unfinished(Path(self.location) / "unfinished")
        self._files = Immutable(Path(self.location) / f"{TABLE}.lance")
        self._pid: int | None = None
        self._seen: tuple[int | None, int] = None, -1

    def put(self, fingerprints: Sequence[Fingerprint]) -> None:
        """See `Store.put`."""
        latest = {fingerprint.content.content_id: fingerprint for fingerprint in fingerprints}
        if latest:
            merged = self._write(lambda: self._put(list(latest.values())))
            if merged:
                self._write(self._drop_old_versions)

    def get(self, content_ids: Sequence[str]) -> list[Fingerprint]:
        """See `Store.get`."""
        found = {row["content_id"]: from_record(row) for row in self._rows(content_ids, RECORD) if row["content_type"]}
        return [found[content_id] for content_id in content_ids if content_id in found]

    def keys(self, content_ids: Sequence[str]) -> dict[str, str]:
        """See `Store.keys`."""
        rows = self._rows(content_ids, ["content_id", "content_type", "key"])
        return {row["content_id"]: row["key"] for row in rows if row["content_type"]}

    def delete(self, content_ids: Sequence[str]) -> None:
        """See `Store.delete`."""
        if content_ids and self._table() is not None:
            self._write(lambda: self._delete(content_ids))

    def count(self) -> dict[str, int]:
        """See `Store.count`."""
        table = self._table()
        if table is None:
            return {}
        counts = pc.value_counts(_read(table, ["content_type"])["content_type"])
        return {entry["values"]: entry["counts"] for entry in counts.to_pylist() if entry["values"]}

    def scan(self, batch_size: int = 1000, *, sketches: bool = True) -> Iterator[list[Fingerprint]]:
        """See `Store.scan`."""
        table = self._table()
        if table is None:
            return
        columns = [name for name in RECORD if sketches or name != "payload"]
        query = table.search().where("content_type != ''").select(columns).limit(None)
        for batch in query.to_batches(batch_size=batch_size):
            yield [from_record(record) for record in batch.to_pylist()]

    def by_digest(self, digest: str) -> list[str]:
        """See `Store.by_digest`."""
        table = self._table()
        # The search structure knows in a hundredth of the time that nothing has it, which is the usual answer.
        if table is None or not self.search.may_have_digest(digest):
            return []
        found = _read(table, ["content_id"], f"digest = {_quoted(digest)} AND content_type != ''")
        return sorted(found["content_id"].to_pylist())

    def compact(self) -> None:
        """Merge small files, drop what versions older than an hour held and deleted rows, and search anew."""
        if self._table() is not None:
            self._write(self._compact)
            self._write(self._drop_old_versions)
            self.search.rebuild()

    def identity(self) -> str:
        """See `Records.identity`."""
        table = self._table()
        return "" if table is None else str(_read(table, ["digest"], "content_id = ''")["digest"][0].as_py())

    def latest(self) -> int:
        """See `Records.latest`."""
        table = self._table()
        if table is None:
            return -1
        # Asking LanceDB takes a third of a millisecond, the folder's time of change a hundredth of that.
        versions = self.path and self.path / f"{TABLE}.lance" / "_versions"
        changed = versions.stat().st_mtime_ns if versions and versions.is_dir() else None
        if changed is None or changed != self._seen[0]:
            settled = changed is not None and time.time_ns() - changed > SETTLED
            version = int(table.version)
            self._seen = (changed if settled else None), version
        return self._seen[1]

    def changes(self, after: int) -> Iterator[list[Change]]:
        """See `Records.changes`."""
        table = self._table()
        if table is None:
            return
        # Not one stream: of two that are read by turns one may wait for ever, and users read one (`scan`). The version
        # is held, so that nothing moves between the look for what has changed and the reading of it.
        held = self._connection.open_table(TABLE)
        held.checkout(table.version)  # Not held's own: no older than what `latest` has told.
        columns = ["content_id", "seq", "content_type", "digest", "payload"]
        changed = held.search().where(f"seq > {after}").select(["seq"]).with_row_id(True).limit(None).to_arrow()
        for chunk in _chunks(np.sort(changed["_rowid"].to_numpy()).tolist()):
            rows = held.take_row_ids(list(chunk)).select(columns).with_row_id().to_arrow()
            yield [Change(*row) for row in zip(*(rows[n].to_pylist() for n in (*columns, "_rowid")), strict=True)]

    def _put(self, fingerprints: list[Fingerprint]) -> bool:
        """Whether files were merged, so that old versions are in the way."""
        table = self._table_for_writing()
        seq = _next_seq(table)
        records = [to_record(fingerprint) | {"seq": seq} for fingerprint in fingerprints]
        _upsert(table).when_not_matched_insert_all().execute(pa.Table.from_pylist(records, SCHEMA))
        return _keep_fast(table)

    def _delete(self, content_ids: Sequence[str]) -> None:
        table = self._table_for_writing()
        seq = _next_seq(table)
        gone = [_DELETED | {"content_id": each, "seq": seq} for each in dict.fromkeys(content_ids) if each]
        _upsert(table).execute(pa.Table.from_pylist(gone, SCHEMA))

    def _compact(self) -> None:
        table = self._table_for_writing()
        about = _DELETED | {"digest": self.identity(), "seq": _next_seq(table)}
        _upsert(table).execute(pa.Table.from_pylist([about], SCHEMA))
        table.delete("content_type = '' AND content_id != ''")
        table.optimize(cleanup_older_than=KEEP_ALL_VERSIONS)

    def _drop_old_versions(self) -> None:
        """A write of its own: before what replaced them is on the disk, a power cut would leave neither."""
        self._table_for_writing().optimize(cleanup_older_than=KEEP_VERSIONS)

    def _write(self, action: Callable[[], T]) -> T:
        """Do `action`, which may be done twice, while no other process of this machine writes."""
        if self.path:
            self.path.mkdir(parents=True, exist_ok=True)
        attempt = 0
        while True:
            attempt += 1
            try:
                with self._lock():
                    return self._durably(action) if self.path else action()
            except RuntimeError as error:
                if "commit conflict" not in str(error).lower() or attempt == ATTEMPTS:
                    raise
                time.sleep(0.05 * 2**attempt)

    def _lock(self) -> AbstractContextManager[Any]:
        return FileLock(self.path / "write.lock") if self.path else nullcontext()

    def _durably(self, action: Callable[[], T]) -> T:
        """Do `action`, and bring all that it wrote to the disk."""
        self._finish()
        table = self._table()
        self._unfinished.begin(-1 if table is None else int(table.version))
        try:
            return action()
        finally:
            self._files.sync()
            self._unfinished.end()

    def _finish(self) -> None:
        """Bring to the disk what a killed process wrote; undo what it wrote when the system went down with it."""
        unfinished = self._unfinished.read()
        if unfinished is not None:
            version, lost = unfinished
            if lost:
                self._undo(version)
            self._files.sync()
            self._unfinished.end()

    def _undo(self, version: int) -> None:
        """Make the table what it was at this version; -1: not there."""
        folder = self._files.folder
        if version < 0:
            shutil.rmtree(folder, ignore_errors=True)
        for manifest in folder.glob("_versions/*.manifest*"):
            if LAST_NAME - int(manifest.name.partition(".")[0]) > version:
                manifest.unlink()
        (folder / "_versions" / "latest_version_hint.json").unlink(missing_ok=True)
        # It may be torn, too, and know changes whose numbers come again.
        shutil.rmtree(self.search.folder, ignore_errors=True)
        sync([folder / "_versions", Path(self.location)])

    def _table(self) -> Any:
        """The table at its latest version; None if there is none yet. Neither it nor its connection survives a fork."""
        if self.path and not self.path.exists():
            return None
        if self._pid != os.getpid():
            unfinished = self._unfinished.read() if self.path else None
            if unfinished is not None and unfinished[1]:
                with self._lock():
                    self._finish()
            # Without an interval of zero a table would go on showing the version it was opened at.
            self._connection = lancedb.connect(
                self.location, read_consistency_interval=timedelta(0), storage_options=self._options
            )
            self._opened: Any = None
            self._pid = os.getpid()
        if self._opened is None and self._exists():
            self._opened = self._connection.open_table(TABLE)
        return self._opened

    def _exists(self) -> bool:
        if self.path:  # What a killed process, or one without space on the disk, made of it may be a folder only.
            return any(self._files.folder.glob("_versions/*.manifest"))
        return TABLE in self._connection.list_tables().tables

    def _table_for_writing(self) -> Any:
        table = self._table()
        if table is None:
            if self.path:
                shutil.rmtree(self._files.folder, ignore_errors=True)
            about = _DELETED | {"digest": secrets.token_hex(16), "seq": 0}
            self._opened = table = self._connection.create_table(
                TABLE, pa.Table.from_pylist([about], SCHEMA), storage_options=(self._options or {}) | NEW_TABLE
            )
        return table

    def _rows(self, content_ids: Sequence[str], columns: list[str]) -> Iterator[dict[str, Any]]:
        """The rows of those that are stored or were deleted. columns: content_id among them."""
        table = self._table()
        if table is None or not content_ids:
            return
        # Reading rows by their ids takes a third of the time; what has moved since, the index on content_id finds.
        wanted, found = set(content_ids), set[str]()
        for places in _chunks(self.search.places(content_ids)):
            for row in table.take_row_ids(list(places)).select(columns).to_arrow().to_pylist():
                if row["content_id"] in wanted:
                    found.add(row["content_id"])
                    yield row
        for chunk in _chunks([each for each in content_ids if each not in found]):
            yield from _read(table, columns, f"content_id IN ({_list(chunk)})").to_pylist()


def _next_seq(table: Any) -> int:
    return int(table.version + 1) << RANDOM_BITS | secrets.randbits(RANDOM_BITS)


def _upsert(table: Any) -> Any:
    return table.merge_insert("content_id").when_matched_update_all()


def _read(table: Any, columns: list[str], where: str | None = None) -> pa.Table:
    query = table.search().select(columns).limit(None)
    return (query.where(where) if where else query).to_arrow()


def _keep_fast(table: Any) -> bool:
    """Merge the table's files when there are many of them, and keep the columns indexed; whether files were merged."""
    # Every put adds a file to a table, and a look-up opens each: 200 of them make it ten times slower. Merging
    # rewrites the table, so the larger it is, the more files it may have.
    many = bool(table.stats()["fragment_stats"]["num_fragments"] > FILES + table.count_rows() // ROWS_PER_FILE)
    if many:
        table.optimize(cleanup_older_than=KEEP_ALL_VERSIONS)
    for column in INDEXED:
        stats = table.index_stats(f"{column}_idx")
        unindexed, indexed = (stats.num_unindexed_rows, stats.num_indexed_rows) if stats else (table.count_rows(), 0)
        # Making an index takes some 0.1 s per million rows; a tenth more rows each time keeps the sum linear.
        if unindexed > max(UNINDEXED_ROWS, indexed // 10):
            table.create_index(column, config=BTree(), replace=True)
    return many


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))


def _list(content_ids: Iterable[str]) -> str:
    return ", ".join(map(_quoted, content_ids))


def _quoted(text: str) -> str:
    """`text` as a string literal of SQL, in which only the quote is special."""
    return "'" + text.replace("'", "''") + "'"
