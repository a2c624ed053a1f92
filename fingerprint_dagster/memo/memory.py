"""A memo in this process's memory, least recently used first out."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path

from fingerprint_dagster.memo.base import StageUsage


class MemoryMemo:
    """See `Memo`. For tests, notebooks and one-off queries; nothing outlives the process."""

    shared = False
    folders: Sequence[Path] = ()

    def __init__(self, max_bytes: int, ttl_seconds: float) -> None:
        self.max_bytes = max_bytes
        self.ttl_seconds = ttl_seconds
        self._entries: OrderedDict[str, tuple[str, float, bytes]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        oldest = time.time() - self.ttl_seconds
        with self._lock:
            found = {}
            for key in keys:
                entry = self._entries.get(key)
                if entry is not None and entry[1] > oldest:
                    self._entries.move_to_end(key)
                    found[key] = entry[2]
            return found

    def contains(self, keys: Sequence[str]) -> set[str]:
        oldest = time.time() - self.ttl_seconds
        with self._lock:
            return {key for key in keys if key in self._entries and self._entries[key][1] > oldest}

    def put_many(self, stage: str, items: Iterable[tuple[str, bytes]]) -> None:
        with self._lock:
            for key, value in items:
                self._forget(key)
                self._entries[key] = (stage, time.time(), value)
                self._bytes += len(value)
        self.evict()

    def delete(self, keys: Sequence[str]) -> None:
        with self._lock:
            for key in keys:
                self._forget(key)

    def clear(self, stage: str | None = None) -> int:
        with self._lock:
            doomed = [key for key, entry in self._entries.items() if stage in (None, entry[0])]
            for key in doomed:
                self._forget(key)
            return len(doomed)

    def usage(self) -> dict[str, StageUsage]:
        with self._lock:
            sizes: dict[str, list[int]] = {}
            for stage, _, value in self._entries.values():
                sizes.setdefault(stage, []).append(len(value))
            return {stage: StageUsage(len(each), sum(each)) for stage, each in sorted(sizes.items())}

    def evict(self) -> int:
        oldest = time.time() - self.ttl_seconds
        with self._lock:
            doomed = [key for key, entry in self._entries.items() if entry[1] <= oldest]
            for key in doomed:
                self._forget(key)
            evicted = len(doomed)
            while self._bytes > self.max_bytes:
                self._forget(next(iter(self._entries)))
                evicted += 1
            return evicted

    def _forget(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= len(entry[2])
