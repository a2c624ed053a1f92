"""The service's two caches: its memory of what it has answered, and the memo that it shares with others."""

from __future__ import annotations

import logging
import sqlite3
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from fingerprint_dagster.content import Fingerprint
from fingerprint_dagster.errors import FingerprintError
from fingerprint_dagster.memo import Memo

log = logging.getLogger("fingerprint_dagster.service")

# So long a memo whose server is away is not asked again: a cache that is slower than computing is none.
AWAY_SECONDS = 10.0

_ENTRY_BYTES = 2000  # what the objects around the arrays take


@dataclass(frozen=True)
class Answer:
    """A fingerprint that was given for an address.

    text: its identity (see `result.fingerprint_text`). validator: by what its source knows the content again.
    checked: monotonic seconds of when the source was last known to have this content.
    """

    record: Fingerprint
    text: str
    validator: str
    checked: float


class AnswerCache:
    """Answers by key, in this process: least recently used first out. Safe for many threads.

    max_bytes: size cap; the least recently used go first. ttl_seconds: older ones are dropped when they are met.
    """

    def __init__(self, max_bytes: int, ttl_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_bytes = max_bytes
        self.ttl_seconds = ttl_seconds
        self.evictions = self.expired = 0
        self._clock = clock
        self._entries: OrderedDict[Hashable, tuple[float, int, Answer]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """What the answers take, about."""
        return self._bytes

    def __len__(self) -> int:
        with self._lock:
            self._drop_expired()
            return len(self._entries)

    def get(self, key: Hashable) -> Answer | None:
        """The answer, as long as it lives."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            until, _, answer = entry
            if until <= self._clock():
                self._forget(key)
                self.expired += 1
                return None
            self._entries.move_to_end(key)
            return answer

    def put(self, key: Hashable, answer: Answer) -> None:
        """Remember the answer from now on, in place of an older one."""
        size = answer_bytes(answer.record)
        with self._lock:
            self._forget(key)
            if size > self.max_bytes:
                return
            self._entries[key] = (self._clock() + self.ttl_seconds, size, answer)
            self._bytes += size
            if self._bytes > self.max_bytes:
                self._drop_expired()
            while self._bytes > self.max_bytes:
                self._forget(next(iter(self._entries)))
                self.evictions += 1

    def touch(self, key: Hashable, answer: Answer) -> None:
        """Replace an answer that is there; its time to live goes on as it was."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries[key] = (entry[0], entry[1], answer)

    def clear(self) -> int:
        """Forget everything; returns the number of answers."""
        with self._lock:
            count = len(self._entries)
            self._entries.clear()
            self._bytes = 0
            return count

    def _drop_expired(self) -> None:
        now = self._clock()
        for key in [key for key, (until, _, _) in self._entries.items() if until <= now]:
            self._forget(key)
            self.expired += 1

    def _forget(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry[1]


def answer_bytes(record: Fingerprint) -> int:
    """What a record takes in memory, about: its arrays, and what stands around them."""
    arrays = 0
    for component in record.sketch.components:
        for array in (component.values, component.positions, component.searchable, component.asked):
            arrays += 0 if array is None else array.nbytes + sys.getsizeof(array)
    return _ENTRY_BYTES + arrays


class SharedMemo:
    """A memo that is never in the way: while it cannot be used, it is like an empty one. Safe for many threads.

    problem: why it could not be used at the last try; None when it could.
    """

    def __init__(self, memo: Memo, clock: Callable[[], float] = time.monotonic) -> None:
        self.memo = memo
        self.problem: str | None = None
        self._clock = clock
        self._away_until = 0.0

    def get(self, keys: Sequence[str]) -> dict[str, bytes]:
        """The values of those keys that are there."""
        found: dict[str, bytes] = {}
        self._use(lambda: found.update(self.memo.get_many(keys)))
        return found

    def put(self, stage: str, key: str, value: bytes) -> None:
        """Add one value."""
        self._use(lambda: self.memo.put_many(stage, [(key, value)]))

    def clear(self, *stages: str) -> int:
        """Forget these stages; returns the number of entries. Raises FingerprintError where it cannot be done."""
        return sum(self.memo.clear(stage) for stage in stages)

    def _use(self, use: Callable[[], None]) -> None:
        if self._clock() < self._away_until:
            return
        try:
            use()
        except (FingerprintError, OSError, sqlite3.Error) as error:
            if self.problem is None:
                log.warning("the memo is not used: %s", error)
            self.problem = str(error)
            self._away_until = self._clock() + AWAY_SECONDS
        else:
            self.problem = None
