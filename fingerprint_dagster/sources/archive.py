"""Members of zip and tar archives as contents: listed, and read one by one. Nothing is ever unpacked by its name.

An archive is hostile until shown otherwise. What bounds it: the size of its directory, the number of its members, how
much it says it holds beside its own size, and the bytes that really come out. Archives inside archives stay shut.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fingerprint_dagster.errors import ContentError

MAX_MEMBERS = 200_000
_MAX_READ = 32 << 20  # more than this at once only a directory or a header of unreasonable size asks for
_MAX_RATIO = 200
_FREE_BYTES = 1 << 30  # so much may come out whatever the ratio: blank pictures shrink to nothing
_CHUNK_BYTES = 1 << 20
_LZMA_MEMORY = 256 << 20
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError)


@dataclass(frozen=True)
class Member:
    """A regular file in an archive. name: as written in it. size: bytes, as the archive claims."""

    name: str
    size: int


class Archive:
    """An open zip or plain tar file. May be read by many threads at once."""

    def __init__(self, path: Path, kind: str) -> None:
        """kind: `zip` or `tar`. Raises ContentError for what is no such archive, is damaged or is too much."""
        self.path = path
        self._kind = kind
        self._size = path.stat().st_size
        self._zip: dict[str, zipfile.ZipInfo] = {}
        self._tar: dict[str, tuple[int, int]] = {}
        self._encrypted: set[str] = set()
        self._skipped: dict[str, str] = {}
        try:
            if kind == "zip":
                self._open = zipfile.ZipFile(_reader(path))
                self._read_zip()
            else:
                self._read_tar()
        except _DAMAGED as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise ContentError(f"the archive cannot be read: {error.strerror}", retryable=True) from None
            raise ContentError(f"not a readable {kind} archive") from None
        except (RecursionError, MemoryError, OverflowError, NotImplementedError):
            raise ContentError(f"not a readable {kind} archive") from None

    def members(self) -> Iterator[Member]:
        """The regular files, in the archive's order, hidden ones (a part of the name begins with a dot) left out."""
        sizes: dict[str, int] = {name: info.file_size for name, info in self._zip.items()}
        sizes |= {name: size for name, (_, size) in self._tar.items()}
        for name, size in sizes.items():
            parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
            if parts and "__MACOSX" not in parts and not any(part.startswith(".") for part in parts):
                yield Member(name, size)

    def read(self, name: str, max_bytes: int) -> Iterator[bytes]:
        """The bytes of a member, in pieces. Raises ContentError: no such member, encrypted, too large, damaged."""
        if name in self._encrypted:
            raise ContentError("the member is encrypted: unpack the archive with its password")
        if name in self._skipped:
            raise ContentError(self._skipped[name])
        if name not in self._zip and name not in self._tar:
            raise ContentError("no such member in the archive")
        size = self._zip[name].file_size if name in self._zip else self._tar[name][1]
        too_large = ContentError(f"too large: more than the allowed {max_bytes} bytes")
        if size > max_bytes:
            raise too_large
        done = 0
        try:
            for chunk in self._zip_chunks(self._zip[name]) if name in self._zip else self._tar_chunks(name):
                done += len(chunk)
                if done > max_bytes:
                    raise too_large
                yield chunk
        except (RuntimeError, NotImplementedError, MemoryError):  # LZMA may ask for 4 GB
            raise ContentError("the member is packed in a way that cannot be read; unpack the archive") from None
        except _DAMAGED as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise ContentError(f"the archive cannot be read: {error.strerror}", retryable=True) from None
            raise ContentError("the member is damaged or cut short") from None

    def _read_zip(self) -> None:
        total = 0
        for info in self._open.infolist():
            mode = info.external_attr >> 16
            if not info.filename or info.is_dir():
                continue
            if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                self._skipped[info.filename] = "the member is a symbolic link or something else that is no file"
            else:
                if info.flag_bits & 0x41:
                    self._encrypted.add(info.filename)
                self._zip[info.filename] = info
                total += info.file_size
            self._check(total)

    def _read_tar(self) -> None:
        total = 0
        with tarfile.open(fileobj=_reader(self.path), mode="r:", errors="surrogateescape") as tar:
            while (info := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it would remember them all
                if info.isdir():
                    continue
                if info.size < 0 or info.offset_data < 0:
                    raise ValueError("a member with a negative size")
                if not info.isreg() or info.issparse():
                    self._skipped[info.name] = "the member is a link or something else that is no file"
                else:
                    self._tar[info.name] = (info.offset_data, info.size)
                    total += info.size
                self._check(total)

    def _check(self, total: int) -> None:
        if len(self._zip) + len(self._tar) + len(self._skipped) > MAX_MEMBERS:
            raise ContentError(f"the archive has more than {MAX_MEMBERS} members: unpack it")
        if total > _FREE_BYTES and total > _MAX_RATIO * self._size:
            raise ContentError(f"the archive says it holds more than {_MAX_RATIO} times its own size: unpack it")

    def _zip_chunks(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        with self._open.open(info) as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk

    def _tar_chunks(self, name: str) -> Iterator[bytes]:
        start, left = self._tar[name]
        with self.path.open("rb") as file:
            file.seek(start)
            while left > 0:
                chunk = file.read(min(left, _CHUNK_BYTES))
                if not chunk:
                    raise EOFError
                left -= len(chunk)
                yield chunk


def is_packed(path: Path) -> bool:
    """Whether a tar file is compressed as a whole, so that its members can only be reached through `unpacked`."""
    with path.open("rb") as file:
        return _packing(file.read(6)) is not None


def unpacked(path: Path, into: BinaryIO, max_bytes: int, seconds: float) -> None:
    """Write the plain tar in a compressed one into `into`. Raises ContentError: a bomb, damaged, out of time."""
    limit = min(max_bytes, max(_FREE_BYTES, _MAX_RATIO * path.stat().st_size))
    end = time.monotonic() + seconds
    done = 0
    try:
        with path.open("rb") as file:
            packing = _packing(file.read(6))
            file.seek(0)
            for chunk in _unpacked_chunks(file, packing):
                done += len(chunk)
                if done > limit:
                    raise ContentError(f"the archive holds more than the allowed {limit} bytes: unpack it")
                if time.monotonic() > end:
                    raise ContentError(f"unpacking the archive took longer than {seconds:g} s", retryable=True)
                into.write(chunk)
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise ContentError(f"the archive cannot be unpacked: {error.strerror}", retryable=True) from None
        raise ContentError("the archive is damaged or cut short") from None


def _packing(head: bytes) -> str | None:
    magics = {"gz": b"\x1f\x8b", "bz2": b"BZh", "xz": b"\xfd7zXZ\0"}
    return next((name for name, magic in magics.items() if head.startswith(magic)), None)


def _unpacked_chunks(file: BinaryIO, packing: str | None) -> Iterator[bytes]:
    if packing == "xz":
        yield from _unpacked_xz(file)
        return
    reader: io.BufferedIOBase = gzip.GzipFile(fileobj=file) if packing == "gz" else bz2.BZ2File(file)
    while chunk := reader.read(_CHUNK_BYTES):
        yield chunk


def _unpacked_xz(file: BinaryIO) -> Iterator[bytes]:
    """Like lzma.open, but with a limit to the memory that the archive may ask for."""
    data = file.read(_CHUNK_BYTES)
    while data:
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY)
        while not unpacker.eof:
            chunk = unpacker.decompress(data, _CHUNK_BYTES)
            if chunk:
                yield chunk
            data = b""
            if unpacker.needs_input and not unpacker.eof:
                data = file.read(_CHUNK_BYTES)
                if not data:
                    raise EOFError
        data = unpacker.unused_data.lstrip(b"\0") or file.read(_CHUNK_BYTES).lstrip(b"\0")


class _Reader(io.BufferedReader):
    """Reads no unreasonable amount at once: an archive's directory or header of gigabytes is refused, not loaded."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_READ:
            size = _MAX_READ + 1
        found = super().read(_MAX_READ + 1 if size in (None, -1) else size)
        if len(found) > _MAX_READ:
            raise ValueError("an archive with a directory or a header of unreasonable size")
        return found


def _reader(path: Path) -> io.BufferedReader:
    return _Reader(io.FileIO(path, "rb"))
