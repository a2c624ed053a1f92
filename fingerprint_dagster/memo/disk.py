"""A memo in a folder: a SQLite index with the small values, one file for each large one.

Many processes read and write it at once. A crash loses at most what was being written: a value counts only when its
row is there and its bytes have the checksum that the row promises.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import xxhash

from fingerprint_dagster.database import prepare
from fingerprint_dagster.errors import FingerprintError
from fingerprint_dagster.memo.base import StageUsage

# SQLite reads and writes small values faster than the file system does, and large ones slower;
# the two meet near 100 KB (https://sqlite.org/intern-v-extern-blob.html).
INLINE_BYTES = 64 * 1024
# A value's time of last use is written at most this often, so that reading stays free of writes.
TOUCH_SECONDS = 3600.0
# Eviction stops at this share of the cap, so that it does not run again at the next write.
EVICT_TO = 0.9
# A file without a row that is younger than this may be one that another process is just writing.
ORPHAN_SECONDS = 600.0
_KEYS_PER_QUERY = 500

# A table with rowids, where new values come after all others. Sorted by their keys, which are random, every few new
# values would have pages of old ones read and written again, the more so the more there are.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY, stage TEXT NOT NULL, size INTEGER NOT NULL, checksum TEXT NOT NULL,
    created REAL NOT NULL, used REAL NOT NULL, value BLOB
);
CREATE INDEX IF NOT EXISTS entries_by_use ON entries (used, key, size);
CREATE TABLE IF NOT EXISTS totals (
    stage TEXT PRIMARY KEY, entries INTEGER NOT NULL, bytes INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS count_insert AFTER INSERT ON entries BEGIN
    INSERT INTO totals VALUES (new.stage, 1, new.size)
    ON CONFLICT (stage) DO UPDATE SET entries = entries + 1, bytes = bytes + new.size;
END;
CREATE TRIGGER IF NOT EXISTS count_delete AFTER DELETE ON entries BEGIN
    UPDATE totals SET entries = entries - 1, bytes = bytes - old.size WHERE stage = old.stage;
END;
CREATE TRIGGER IF NOT EXISTS count_update AFTER UPDATE OF size ON entries BEGIN
    UPDATE totals SET bytes = bytes - old.size + new.size WHERE stage = old.stage;
END;
"""


class DiskMemo:
    """See `Memo`. Safe for many threads and processes, and after a fork."""

    shared = True

    def __init__(self, root: Path, max_bytes: int, ttl_seconds: float) -> None:
        self.root = root
        self.folders: Sequence[Path] = (root,)
        self.max_bytes = max_bytes
        self.ttl_seconds = ttl_seconds
        self._local = threading.local()

    def __reduce__(self) -> tuple[object, ...]:
        return DiskMemo, (self.root, self.max_bytes, self.ttl_seconds)

    def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        now = time.time()
        found: dict[str, bytes] = {}
        damaged: list[str] = []
        stale: list[str] = []
        with self._told():
            rows = list(self._rows("key, checksum, used, value", keys, now))
        for row in rows:
            key, checksum, used, inline = row
            value = inline if inline is not None else self._read_file(key)
            if value is None or _checksum(value) != checksum:
                damaged.append(key)
                continue
            found[key] = value
            if now - used > TOUCH_SECONDS:
                stale.append(key)
        if damaged:
            self.delete(damaged)
        if stale:
            # Losing a race for the write lock only makes these look less recently used than they are.
            with contextlib.suppress(sqlite3.OperationalError), self._connection() as db:
                db.executemany("UPDATE entries SET used = ? WHERE key = ?", [(now, key) for key in stale])
        return found

    def contains(self, keys: Sequence[str]) -> set[str]:
        with self._told():
            return {key for (key,) in self._rows("key", keys, time.time())}

    def put_many(self, stage: str, items: Iterable[tuple[str, bytes]]) -> None:
        now = time.time()
        rows = []
        with self._told():
            for key, value in items:
                inline = value if len(value) <= INLINE_BYTES else None
                if inline is None:
                    self._write_file(key, value)
                rows.append((key, stage, len(value), _checksum(value), now, now, inline))
            with self._connection() as db:
                db.executemany(
                    "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
                    " size = excluded.size, checksum = excluded.checksum, created = excluded.created,"
                    " used = excluded.used, value = excluded.value",
                    rows,
                )
        if self._total_bytes() > self.max_bytes:
            self.evict()

    def delete(self, keys: Sequence[str]) -> None:
        with self._told(), self._connection() as db:
            db.executemany("DELETE FROM entries WHERE key = ?", [(key,) for key in keys])
        for key in keys:
            self._file(key).unlink(missing_ok=True)

    def clear(self, stage: str | None = None) -> int:
        db = self._connection()
        where, parameters = ("", ()) if stage is None else (" WHERE stage = ?", (stage,))
        keys = [key for (key,) in db.execute(f"SELECT key FROM entries{where}", parameters)]
        self.delete(keys)
        if stage is None:
            self._remove_orphans()
        # Another process in the middle of its work may hold the file; then the space is only reused, not given back.
        with contextlib.suppress(sqlite3.OperationalError):
            db.execute("VACUUM")
        return len(keys)

    def usage(self) -> dict[str, StageUsage]:
        rows = self._connection().execute("SELECT stage, entries, bytes FROM totals WHERE entries > 0 ORDER BY stage")
        return {stage: StageUsage(entries, size) for stage, entries, size in rows}

    def evict(self) -> int:
        db = self._connection()
        oldest = time.time() - self.ttl_seconds
        doomed = [key for (key,) in db.execute("SELECT key FROM entries WHERE created <= ?", (oldest,))]
        self.delete(doomed)
        evicted = len(doomed)
        excess = self._total_bytes() - self.max_bytes
        if excess > 0:
            excess += int(self.max_bytes * (1 - EVICT_TO))
            doomed = []
            for key, size in db.execute("SELECT key, size FROM entries ORDER BY used, key"):
                doomed.append(key)
                excess -= size
                if excess <= 0:
                    break
            self.delete(doomed)
            evicted += len(doomed)
        self._remove_orphans()
        return evicted

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Raises `FingerprintError` where the folder cannot be read or written: that is no content's fault."""
        try:
            yield
        except (OSError, sqlite3.OperationalError) as error:
            raise FingerprintError(
                f"memo {self.root} cannot be used: {error}; free space on its disk, lower FINGERPRINT_MEMO_MAX_BYTES, "
                "or set FINGERPRINT_MEMO to another folder"
            ) from error

    def _rows(self, columns: str, keys: Sequence[str], now: float) -> Iterator[tuple[Any, ...]]:
        db = self._connection()
        unique = list(dict.fromkeys(keys))
        for start in range(0, len(unique), _KEYS_PER_QUERY):
            part = unique[start : start + _KEYS_PER_QUERY]
            marks = ",".join("?" * len(part))
            query = f"SELECT {columns} FROM entries WHERE key IN ({marks}) AND created > ?"
            yield from db.execute(query, (*part, now - self.ttl_seconds)).fetchall()

    def _total_bytes(self) -> int:
        (total,) = self._connection().execute("SELECT coalesce(sum(bytes), 0) FROM totals").fetchone()
        return int(total)

    def _file(self, key: str) -> Path:
        return self.root / key[:2] / key

    def _read_file(self, key: str) -> bytes | None:
        try:
            return self._file(key).read_bytes()
        except OSError:
            return None

    def _write_file(self, key: str, value: bytes) -> None:
        path = self._file(key)
        temporary = path.with_name(f"{key}.{os.getpid()}.{threading.get_ident()}.tmp")
        try:
            try:
                temporary.write_bytes(value)
            except FileNotFoundError:
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary.write_bytes(value)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)  # The disk is full: half a value is in the way of whatever comes next.
            raise

    def _remove_orphans(self) -> None:
        """Remove the files that a crash left without a row."""
        oldest = time.time() - ORPHAN_SECONDS
        known = {key for (key,) in self._connection().execute("SELECT key FROM entries WHERE value IS NULL")}
        for file in self.root.glob("??/*"):
            with contextlib.suppress(FileNotFoundError):
                if file.name not in known and file.stat().st_mtime < oldest:
                    file.unlink()

    def _connection(self) -> sqlite3.Connection:
        # A connection must cross neither a thread nor a fork.
        if getattr(self._local, "pid", None) != os.getpid():
            self.root.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(self.root / "index.sqlite", timeout=60.0)
            prepare(db, _SCHEMA)
            # No fsync at each commit: after a power cut the newest entries may be gone, which a cache can afford.
            db.execute("PRAGMA synchronous = NORMAL")
            self._local.db, self._local.pid = db, os.getpid()
        connection: sqlite3.Connection = self._local.db
        return connection


def _checksum(value: bytes) -> str:
    return xxhash.xxh3_64_hexdigest(value)
