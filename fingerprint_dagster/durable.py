"""What a power cut must not take: files that are on the disk, and a note of the write that was cut short.

Programs that write files and rename them leave it to the operating system when these reach the disk, in an order of its
own. After a power cut a name may be there whose bytes are not.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

_NOTE_BYTES = 128  # Far less than a sector, so it is written in full or not at all.


def sync(paths: Iterable[Path]) -> None:
    """Bring files and folders to the disk; a folder's names, not what they name. What is gone is left out."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            if os.name == "posix" or not path.is_dir():  # Windows has its folders written at once.
                descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)


def write_durably(path: Path, text: str) -> None:
    """Replace a file: after a power cut it has its old text or the new one."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(text, encoding="utf-8")
    sync([new])
    new.replace(path)
    sync([path.parent])


class Immutable:
    """Keeps a folder on the disk whose files are never changed, only added and removed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._synced: set[str] = set()

    def sync(self) -> None:
        """Bring to the disk what was added since the last time."""
        there: set[str] = set()
        for folder, _, names in os.walk(self.folder):
            files = {f"{folder}/{name}" for name in names}
            new = files - self._synced
            if new:
                sync([*map(Path, new), Path(folder)])
            if folder not in self._synced:
                sync([Path(folder), Path(folder).parent])
            there |= files | {folder}
        self._synced = there


class Unfinished:
    """The note, in a file, that something is being written: from which version on, and since which start of the system.

    Whoever finds a note of another start knows that the system has gone down meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[int, bool] | None:
        """The version before the write that was not finished, and whether the system was started anew since."""
        try:
            version, _, boot = self.path.read_text().strip().partition(" ")
        except FileNotFoundError:
            return None
        return (int(version), not boot or boot != _boot()) if version else None

    def begin(self, version: int) -> None:
        """Note that what is written from now on comes after this version."""
        self._write(f"{version} {_boot()}")

    def end(self) -> None:
        """Note that all of it is on the disk."""
        self._write("")

    def _write(self, text: str) -> None:
        new = not self.path.exists()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, text.ljust(_NOTE_BYTES).encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if new:
            sync([self.path.parent])


def _boot() -> str:
    """What tells this start of the system from every other; empty where it cannot be told."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
