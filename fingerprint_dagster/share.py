"""What the runs of a machine divide among them: its cores, and how much they ask of a server at once."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_LOOK_SECONDS = 0.5


class Share:
    """A run's part of a number: all of it while the run is alone, an equal part beside others.

    folder: each run that takes part holds a locked file in it, which a killed one loses. So no run needs to know of
    the others. Where the system has no such locks, each run takes all.
    total: what is divided; where there are more runs than that, each gets one.
    """

    def __init__(self, folder: Path, total: int) -> None:
        self.folder = folder / socket.gethostname()  # Machines may have a home in common, not their cores.
        self.total = total
        self._looked = 0.0
        self._part = total

    def __reduce__(self) -> tuple[object, ...]:
        return Share, (self.folder.parent, self.total)

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """Take part."""
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self.folder)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._looked = 0.0
            yield
        finally:
            # Worker processes that were forked in the meantime have the file open, too: closing it unlocks nothing.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)
            Path(name).unlink(missing_ok=True)

    def __call__(self) -> int:
        """The part of this run now, at least one."""
        now = time.monotonic()
        if now - self._looked > _LOOK_SECONDS:
            self._looked = now
            self._part = max(1, self.total // max(1, self._takers()))
        return self._part

    def _takers(self) -> int:
        try:
            import fcntl
        except ImportError:
            return 1
        count = 0
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    count += 1
                else:
                    # Of a run that was killed, or of one that is just about to lock it.
                    if time.time() - path.stat().st_mtime > 60:
                        path.unlink(missing_ok=True)
        return count


@contextlib.contextmanager
def turn(path: Path) -> Iterator[None]:
    """Wait until no other process of this machine has its turn at the file `path`; a killed one loses its turn.

    Waiting takes no processor time, and the next one goes on at once. Where the system has no such locks, none waits.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    path = path.parent / socket.gethostname() / path.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # Processes that were forked in the meantime have the file open, too.
