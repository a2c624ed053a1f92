"""Consideration for the servers: so many downloads at once from one host, so many a second, and waits they ask for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOOK_SECONDS = 0.5


class Hosts:
    """The traffic of this process with each host. May be used by many threads at once.

    at_once: downloads from one host at the same time, or what says how many now. per_second: requests to one host in a
    second; 0: any number.
    """

    def __init__(self, at_once: int | Callable[[], int], per_second: float = 0.0) -> None:
        self._at_once = at_once if callable(at_once) else lambda: at_once
        self._interval = 1.0 / per_second if per_second else 0.0
        self._lock = threading.Lock()
        self._freed = threading.Condition(self._lock)
        self._busy: dict[str, int] = {}
        self._not_before: dict[str, float] = {}

    @contextmanager
    def slot(self, host: str) -> Iterator[None]:
        """Wait until another download from `host` may begin, and count as one until the end."""
        with self._freed:
            while self._busy.get(host, 0) >= self._at_once():
                self._freed.wait(_LOOK_SECONDS)  # More may be allowed although nothing of ours has ended.
            self._busy[host] = self._busy.get(host, 0) + 1
        try:
            yield
        finally:
            with self._freed:
                self._busy[host] -= 1
                if not self._busy[host]:
                    del self._busy[host]  # a list may name a million hosts
                self._freed.notify_all()

    def pause(self, host: str, seconds: float) -> None:
        """Nobody asks `host` for so long: what it answered to one, it would answer to all."""
        self._forget_the_past()
        with self._lock:
            until = time.monotonic() + seconds
            self._not_before[host] = max(until, self._not_before.get(host, 0.0))

    def wait_turn(self, host: str, at_most_seconds: float) -> bool:
        """Wait until the next request to `host` may be made. False, at once, where that is too long to wait."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._not_before.get(host, 0.0))
            if turn - now > at_most_seconds:
                return False
            if self._interval:
                self._not_before[host] = turn + self._interval
        if self._interval:
            self._forget_the_past()
        if turn > now:
            time.sleep(turn - now)
        return True

    def _forget_the_past(self) -> None:
        with self._lock:
            if len(self._not_before) > 10_000:
                now = time.monotonic()
                self._not_before = {host: turn for host, turn in self._not_before.items() if turn > now}
