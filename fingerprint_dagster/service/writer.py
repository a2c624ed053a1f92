"""Writing into the store in the background, many fingerprints at a time, without losing one."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fingerprint_dagster.content import Fingerprint
from fingerprint_dagster.errors import FingerprintError
from fingerprint_dagster.index.store import Store
from fingerprint_dagster.service.journal import Journal

log = logging.getLogger("fingerprint_dagster.service")

BATCH = 512
MAX_WAITING = 4096
MAX_WAITING_BYTES = 256 << 20
RETRY_SECONDS = (0.5, 2.0, 10.0, 60.0)


class StoreError(FingerprintError):
    """What was answered is not in the store. It is in the journal, and goes into the store at the next start."""


class StoreWriter:
    """Puts fingerprints into the store from a thread of its own. May be used by many threads at once.

    journal: None for a store that does not outlive the
    process. linger_seconds: how long the first fingerprint waits for others to be put with it. sync_seconds: how often
    the journal is synced; 0 means before `add` returns.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal | None,
        *,
        linger_seconds: float = 1.0,
        sync_seconds: float = 1.0,
    ) -> None:
        self.written = self.replayed = self.failures = 0
        self.last_error = ""
        self._store = store
        self._journal = journal
        self._linger_seconds = linger_seconds
        self._sync_seconds = sync_seconds
        self._waiting: list[Fingerprint] = []
        self._sealed: list[tuple[Path | None, list[Fingerprint]]] = []
        self._bytes = 0
        self._since = self._synced = self._retry_at = 0.0  # monotonic seconds
        self._attempts = 0
        self._urgent = False  # somebody waits for it
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="fingerprint-store", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        """Fingerprints that are answered and not yet in the store."""
        with self._changed:
            return self._count()

    def add(self, fingerprint: Fingerprint) -> None:
        """Take a fingerprint over: when this returns, it is in the journal. Waits while very many are pending.

        Raises StoreError where the journal cannot be written: the caller must not promise anything.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._has_room() or self._closed)
            if self._closed:
                raise StoreError("the service is closed")
            size = 0 if self._journal is None else self._journaled(self._journal, fingerprint)
            if not self._waiting:
                self._since = time.monotonic()
            self._waiting.append(fingerprint)
            self._bytes += size
            self._changed.notify_all()
        if self._sync_seconds == 0:
            self._sync()

    def flush(self) -> None:
        """Wait until everything that was added is in the store. Raises StoreError where it cannot be put there."""
        with self._changed:
            failures = self.failures
            self._urgent = True
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: not (self._waiting or self._sealed) or self.failures > failures or self._closed
            )
            if self._waiting or self._sealed:
                why = self.last_error if self.failures > failures else "the service was closed"
                raise StoreError(f"{self._count()} fingerprints are in the journal, not in the store: {why}")

    def close(self) -> None:
        """Flush, and end the thread. Raises StoreError where something is left in the journal."""
        try:
            self.flush()
        finally:
            with self._changed:
                self._closed = True
                self._changed.notify_all()
            self._thread.join()
            if self._journal is not None:
                self._journal.close()

    # ------------------------------------------------------------------ the writer's thread

    def _run(self) -> None:
        self._replay()
        while (step := self._next_step()) is not None:
            step()

    def _next_step(self) -> Callable[[], None] | None:
        """What to do now, once there is something to do; None at the end."""
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                put_at, sync_at = self._put_at(), self._sync_at()
                if now >= put_at:
                    self._seal()
                    return self._put_sealed
                if now >= sync_at:
                    return self._sync
                until = min(put_at, sync_at)
                self._changed.wait(None if until == math.inf else until - now)
            return None

    def _put_at(self) -> float:
        """When what waits is to be put into the store, in monotonic seconds."""
        if not self._waiting and not self._sealed:
            return math.inf
        if self._urgent:
            return 0.0
        if self._sealed or len(self._waiting) >= BATCH or not self._has_room():
            return self._retry_at
        return max(self._retry_at, self._since + self._linger_seconds)

    def _sync_at(self) -> float:
        """When the journal is to be synced."""
        if self._journal is None or not self._waiting or not self._sync_seconds:
            return math.inf
        return max(self._since, self._synced) + self._sync_seconds

    def _seal(self) -> None:
        path = self._journal.seal() if self._journal is not None else None
        if self._waiting:
            self._sealed.append((path, self._waiting))
        self._waiting = []
        self._bytes = 0
        self._urgent = False

    def _put_sealed(self) -> None:
        for segment, records in list(self._sealed):
            try:
                written = self._put(records)
                if segment is not None:
                    segment.unlink(missing_ok=True)
            except Exception as error:  # Whatever it is, it must come out where somebody sees it.
                with self._changed:
                    self._attempts += 1
                    self._retry_at = time.monotonic() + RETRY_SECONDS[min(self._attempts, len(RETRY_SECONDS)) - 1]
                    self._fail(f"{type(error).__name__}: {error}")
                return
            with self._changed:
                self._attempts, self._retry_at = 0, 0.0
                self.written += written
                self._sealed.remove((segment, records))
                self._changed.notify_all()

    def _put(self, records: list[Fingerprint]) -> int:
        """Put those that are not in the store as they are; returns their number."""
        latest = {record.content.content_id: record for record in records}
        there = self._store.keys(list(latest))
        new = [record for content_id, record in latest.items() if there.get(content_id) != record.key]
        if new:
            self._store.put(new)
        return len(new)

    def _replay(self) -> None:
        if self._journal is None:
            return
        try:
            for segment, records in self._journal.abandoned():
                self._put(records)
                segment.unlink(missing_ok=True)
                with self._changed:
                    self.replayed += len(records)
                log.warning("put %d fingerprints into the store that an ended process had answered", len(records))
        except Exception as error:
            with self._changed:
                self._fail(f"the journal of an ended process is not stored: {type(error).__name__}: {error}")

    def _sync(self) -> None:
        if self._journal is None:
            return
        try:
            self._journal.sync()
        except OSError as error:
            with self._changed:
                self._fail(f"the journal cannot be synced: {error.strerror or error}")
        self._synced = time.monotonic()

    def _journaled(self, journal: Journal, fingerprint: Fingerprint) -> int:
        try:
            return journal.append(fingerprint)
        except OSError as error:
            self._fail(f"the journal cannot be written: {error.strerror or error}")
            raise StoreError(self.last_error) from error

    def _fail(self, reason: str) -> None:
        self.failures += 1
        self.last_error = reason
        log.error("the store: %s", reason)
        self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._count() < MAX_WAITING and self._bytes < MAX_WAITING_BYTES

    def _count(self) -> int:
        return len(self._waiting) + sum(len(records) for _, records in self._sealed)

    def facts(self) -> dict[str, Any]:
        """What the statistics say of the store."""
        return {
            "pending": self.pending,
            "written": self.written,
            "replayed": self.replayed,
            "failures": self.failures,
            "last_error": self.last_error or None,
        }
