"""Folders for temporary files that do not outlive their process for long, however it ends."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from multiprocessing.util import Finalize
from pathlib import Path

# No name that anybody would give to what is to stay, such as the folder of a release.
PREFIX = ".fingerprint_dagster-temporary-"
_IN_THE_MAKING_SECONDS = 60.0


class TemporaryFolder:
    """An empty folder in the system's place for temporary files: `path`.

    It is removed by `close`, else when this process ends. What a process that was killed has left is removed when
    the next one, of whatever program of ours, makes such a folder: nobody holds the lock on it then.
    """

    def __init__(self) -> None:
        _remove_left()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        # Unlike weakref's, this comes after the end of the worker processes that use the folder, and in no fork.
        self._end = Finalize(self, _remove, (self.path, _locked(self.path)), exitpriority=-1)

    def close(self) -> None:
        """Remove the folder with all that is in it. Closing again does nothing."""
        self._end()


def _locked(folder: Path) -> int | None:
    """A descriptor of the folder that holds the lock on it; None where another process has it, or there are no locks.

    Processes that are forked have it open, too, and so the lock is there while any of them is.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _remove(folder: Path, lock: int | None) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        os.close(lock)


def _remove_left() -> None:
    """Remove the folders of processes that are gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            old = time.time() - folder.stat().st_ctime > _IN_THE_MAKING_SECONDS  # else it may not be locked yet
            lock = _locked(folder) if old else None
        except OSError:  # Another process was faster, or it is another user's.
            continue
        if lock is not None:
            _remove(folder, lock)
