"""The folder of downloaded files, each named by the SHA-256 of its bytes (`ab/abcd...`)."""

from __future__ import annotations

import contextlib
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fingerprint_dagster.errors import ContentError

_LEFTOVER_SECONDS = 3600.0
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Blobs:
    """A content-addressed store on disk, for many processes. Made on first use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def part(self) -> Iterator[BinaryIO]:
        """A file to write a content into; gone at the end unless it was kept. Raises ContentError if it cannot be."""
        path = self.folder / f"part-{uuid.uuid4().hex}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with path.open("x+b") as file:
                yield file
        except OSError as error:
            raise ContentError(f"the download cannot be stored: {error.strerror or error}", retryable=True) from None
        finally:
            with contextlib.suppress(OSError):
                path.unlink()

    def keep(self, part: BinaryIO, digest: str) -> Path:
        """The place of the blob that a finished part becomes."""
        blob = self.path(digest)
        part.close()
        blob.parent.mkdir(exist_ok=True)
        Path(part.name).replace(blob)
        return blob

    def path(self, digest: str) -> Path:
        """Where the blob with this SHA-256 lies, or would. Raises ValueError for what is no SHA-256."""
        if not _DIGEST.fullmatch(digest):
            raise ValueError("not a SHA-256 in hexadecimal")
        return self.folder / digest[:2] / digest

    def find(self, digest: str) -> Path | None:
        """The blob's file, marked as just used; None where there is none."""
        blob = self.path(digest)
        return blob if self.is_there(blob) else None

    def is_there(self, path: Path) -> bool:
        """Whether that file is still there. A blob among them counts as just used."""
        if not path.is_file():
            return False
        if path.is_relative_to(self.folder):
            with contextlib.suppress(OSError):  # somebody else's file is as good
                os.utime(path)  # the time of last use, for `evict`
        return True

    def evict(self, max_bytes: int, in_use_seconds: float) -> int:
        """Delete the blobs that were not used for longest until at most `max_bytes` remain; returns bytes freed.

        What was used within the last `in_use_seconds` stays. Parts that a killed process left behind go after an hour.
        """
        now = time.time()
        blobs: list[tuple[float, int, Path]] = []
        freed = 0
        for path in self.folder.glob("??/*"):
            about = _stat(path)
            if about is not None:
                blobs.append((about.st_mtime, about.st_size, path))
        total = sum(size for _, size, _ in blobs)
        for used, size, path in sorted(blobs):
            if total <= max_bytes or used > now - in_use_seconds:
                break
            path.unlink(missing_ok=True)
            total -= size
            freed += size
        for path in self.folder.glob("part-*"):
            about = _stat(path)
            if about is not None and about.st_mtime < now - _LEFTOVER_SECONDS:
                path.unlink(missing_ok=True)
                freed += about.st_size
        return freed


def _stat(path: Path) -> os.stat_result | None:
    """What the system knows of a file; None where another process has just removed it."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None
