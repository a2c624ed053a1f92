"""What was answered and is not yet in the store, in files that survive the death of the process.

A service has a folder of its own below `journal` in the home, and holds a lock as long as it lives. The folder has
segments: a record is appended to the newest one before its answer is given; a segment is deleted when all of it is in
the store. What a service that is no longer alive left behind, the next one puts into the store.

A segment begins with the address of the store as one line of JSON. Then come the records: 4 bytes with the length of
the body and 8 with its XXH3 (little-endian), and the body: one line of JSON with the record's facts, and its payload. A
record that was cut short ends its segment.

When a call of `append` returns, the record is with the operating system, so that no crash of the process loses it. That
it is on the disk, and survives a power cut too, `sync` promises; it is called once a second by default.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import struct
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import xxhash
from filelock import FileLock, Timeout

from fingerprint_dagster.content import Fingerprint
from fingerprint_dagster.index.record import from_record, to_record

_HEAD = struct.Struct("<IQ")
_MAX_BODY = 1 << 30


class Journal:
    """The journal of one service, for one store. Safe for many threads. Made on first use."""

    def __init__(self, folder: Path, store: str) -> None:
        """folder: shared by every service of the home. store: the address of the store."""
        self.folder = folder
        self.store = store
        self._name = uuid.uuid4().hex
        # Of the journal and not of the thread that happens to make it.
        self._lock_file = FileLock(folder / f"{self._name}.lock", thread_local=False)
        self._segment: IO[bytes] | None = None
        self._number = 0
        self._unsynced = False
        self._lock = threading.Lock()
        self._syncing = threading.Lock()

    def append(self, fingerprint: Fingerprint) -> int:
        """Write the record down; returns its number of bytes. Raises OSError where the disk does not take it."""
        record = to_record(fingerprint)
        payload = record.pop("payload")
        body = json.dumps(record, ensure_ascii=False).encode() + b"\n" + payload
        data = _HEAD.pack(len(body), xxhash.xxh3_64_intdigest(body)) + body
        with self._lock:
            segment = self._open_segment()
            start = segment.tell()
            try:
                segment.write(data)
            except OSError:
                with contextlib.suppress(OSError):  # What is cut short must not hide the next record.
                    segment.truncate(start)
                    segment.seek(start)
                raise
            self._unsynced = True
        return len(data)

    def sync(self) -> None:
        """Wait until everything that was appended is on the disk. Others may append meanwhile."""
        with self._syncing:  # Whoever comes second must not return before the first one's sync has ended.
            with self._lock:
                if self._segment is None or not self._unsynced:
                    return
                file = os.dup(self._segment.fileno())
                self._unsynced = False
            try:
                os.fsync(file)
            finally:
                os.close(file)

    def seal(self) -> Path | None:
        """End the newest segment; its path, or None where nothing was appended. The next record begins another."""
        with self._lock:
            if self._segment is None:
                return None
            path = Path(self._segment.name)
            self._segment.close()
            self._segment = None
            return path

    def close(self) -> None:
        """Let go of the folder, which vanishes if it is empty; what is left in it is for the next service."""
        self.seal()
        with self._lock:
            if self._lock_file.is_locked:
                empty = False
                with contextlib.suppress(OSError):
                    (self.folder / self._name).rmdir()
                    empty = True
                self._lock_file.release()
                if empty:
                    Path(self._lock_file.lock_file).unlink(missing_ok=True)

    def abandoned(self) -> Iterator[tuple[Path, list[Fingerprint]]]:
        """Each segment that a dead service left for this store, and its records; those of no worth are deleted.

        While a segment is out, no other service takes it. The caller deletes it when its records are stored; the
        folder goes with its last segment.
        """
        for folder in sorted(path for path in self.folder.glob("*") if path.is_dir() and path.name != self._name):
            lock = FileLock(folder.with_suffix(".lock"))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue  # Its owner lives.
            try:
                for segment in sorted(folder.glob("*.log")):
                    store, records = read_segment(segment)
                    if store == self.store:
                        yield segment, records
                if folder.is_dir() and not any(folder.iterdir()):
                    shutil.rmtree(folder, ignore_errors=True)
                    Path(lock.lock_file).unlink(missing_ok=True)
            finally:
                lock.release()

    def _open_segment(self) -> IO[bytes]:
        if self._segment is None:
            folder = self.folder / self._name
            if not self._lock_file.is_locked:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._lock_file.acquire()  # Before the folder is there: who finds it finds it locked.
            folder.mkdir(exist_ok=True)
            self._number += 1
            # Unbuffered: what is written is with the operating system at once.
            self._segment = (folder / f"{self._number:09}.log").open("xb", buffering=0)
            self._segment.write(json.dumps({"store": self.store}).encode() + b"\n")
        return self._segment


def read_segment(path: Path) -> tuple[str, list[Fingerprint]]:
    """The store's address and the records of a segment, up to the first that is damaged or cut short."""
    records: list[Fingerprint] = []
    with path.open("rb") as file:
        try:
            store: Any = json.loads(file.readline())["store"]
        except (ValueError, KeyError, TypeError):
            return "", records
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            size, checksum = _HEAD.unpack(head)
            body = file.read(size) if size <= _MAX_BODY else b""
            if len(body) != size or xxhash.xxh3_64_intdigest(body) != checksum:
                break
            facts, _, payload = body.partition(b"\n")
            records.append(from_record({**json.loads(facts), "payload": payload}))
    return str(store), records
