"""How far the stages are, told from the processes that work to the one that shows it: lines appended to one file.

The file is named by the environment variable FINGERPRINT_PROGRESS, which child processes inherit. One short line is
one append, so lines of several processes never mix.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

VARIABLE = "FINGERPRINT_PROGRESS"
_SECONDS_BETWEEN_LINES = 0.1


def reporter(batch: str, stage: str, total: int) -> Callable[[int], None]:
    """A function that takes the number of contents done and reports it, often enough for a person and no more."""
    path = os.environ.get(VARIABLE)
    last = 0.0

    def report(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if path is None or (now - last < _SECONDS_BETWEEN_LINES and done < total):
            return
        last = now
        line = json.dumps([batch, stage, done]) + "\n"
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    return report


class ProgressReader:
    """Reads what has been reported since the last look."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def news(self) -> Iterator[tuple[str, str, int]]:
        """(batch, stage, contents done) of every new line."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                batch, stage, done = json.loads(line)
                yield batch, stage, done
