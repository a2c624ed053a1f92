"""From a uri to bytes on local disk."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import threading
import time
import uuid
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fingerprint_dagster.errors import ContentError, UsageError
from fingerprint_dagster.sources.ipfs import Cid, parse_cid
from fingerprint_dagster.sources.uri import SCHEMES, file_path

if TYPE_CHECKING:
    from fingerprint_dagster.sources.download import Downloader

_HEAD_BYTES = 4096
_LEFTOVER_SECONDS = 3600.0
_IN_USE_SECONDS = 60.0


@dataclass(frozen=True)
class Fetched:
    """A content on local disk. digest: SHA-256, hexadecimal. size: bytes. head: the first 4,096 bytes.

    validator: a short text by which its source knows this content again; empty where only the bytes can tell.
    """

    path: Path
    digest: str
    size: int
    head: bytes
    validator: str = ""


class Fetcher:
    """Gets the bytes behind `file:`, `http:`, `https:` and `ipfs:` uris. May be used by many threads at once.

    Local files are read where they are and never copied. What is downloaded lies in the folder `blobs`, one file
    per SHA-256 (`blobs/ab/abcd...`), shared by every uri with the same bytes.

    timeout_seconds: for one download as a whole, retries included. max_bytes: the largest content accepted.
    retries: further attempts where a server is busy or a connection breaks. backoff_seconds: the longest wait
    before the first of them, doubled each time. ipfs_gateway: the HTTP gateway that ipfs uris are read through.
    """

    def __init__(
        self,
        blobs: Path,
        *,
        timeout_seconds: float = 30.0,
        max_bytes: int = 16 * 1024**3,
        retries: int = 3,
        backoff_seconds: float = 0.5,
        ipfs_gateway: str = "https://ipfs.io",
    ) -> None:
        self._blobs = blobs
        self._timeout_seconds = timeout_seconds
        self._max_bytes = max_bytes
        self._retries = retries
        self._backoff_seconds = backoff_seconds
        self._ipfs_gateway = ipfs_gateway.rstrip("/")
        self._lock = threading.Lock()
        self._made: Downloader | None = None

    def __reduce__(self) -> tuple[object, ...]:
        """A fetcher that is sent to another process is made anew there: neither a lock nor a connection travels."""
        options: dict[str, Any] = {
            "timeout_seconds": self._timeout_seconds,
            "max_bytes": self._max_bytes,
            "retries": self._retries,
            "backoff_seconds": self._backoff_seconds,
            "ipfs_gateway": self._ipfs_gateway,
        }
        return partial(Fetcher, **options), (self._blobs,)

    def validator(self, uri: str) -> str:
        """A cheap text that changes when the content behind `uri` does; empty where only its bytes can tell.

        A file's size and time of modification; the address itself where it is an ipfs one, which never changes
        its content. Never raises: what is wrong with an address is for `fetch` to say.
        """
        scheme = _scheme(uri)
        if scheme == "ipfs":
            return uri
        if scheme != "file":
            return ""
        try:
            about = file_path(uri).stat()
        except (OSError, ValueError, UsageError):
            return ""
        return _file_validator(about)

    def fetch(self, uri: str) -> Fetched:
        """The content behind `uri`, read from its source now. Raises ContentError."""
        fetched = self.fetch_if_changed(uri, "")
        assert fetched is not None
        return fetched

    def fetch_if_changed(self, uri: str, validator: str) -> Fetched | None:
        """Like `fetch`; but None where the content is still the one that had this validator.

        Costs one look at a file's time, or one short request to a web server that gives validators (ETag or
        Last-Modified). Content under an ipfs uri never changes.
        """
        scheme = _scheme(uri)
        if scheme == "file":
            unchanged = validator and validator == self.validator(uri)
            return None if unchanged else self._file(uri)
        if scheme in ("http", "https"):
            return self._download(uri, validator)
        if scheme == "ipfs":
            return None if validator == uri else self._ipfs(uri)
        raise ContentError(f"the scheme of the uri is unknown; known are {', '.join(SCHEMES)}")

    def peek(self, uri: str) -> bytes:
        """The first 4,096 bytes of the content behind `uri`, without reading the rest. Raises ContentError."""
        scheme = _scheme(uri)
        if scheme == "file":
            return self._file(uri, digested=False).head
        if scheme in ("http", "https"):
            return self._downloader().peek(uri)
        if scheme == "ipfs":
            return self._downloader().peek(self._gateway_url(uri))
        raise ContentError(f"the scheme of the uri is unknown; known are {', '.join(SCHEMES)}")

    def open(self, uri: str, digest: str) -> Path:
        """A local file that holds exactly the bytes with this SHA-256, which `fetch(uri)` once gave.

        A local file is read and compared; a download is taken from `blobs`, and made again if it is gone from
        there. Raises ContentError, retryable, where the source has other bytes now.
        """
        if _scheme(uri) != "file":
            blob = self._blob(digest)
            if blob.is_file():
                with contextlib.suppress(OSError):  # somebody else's file is as good
                    os.utime(blob)  # the time of last use, for `evict`
                return blob
        fetched = self.fetch(uri)
        if fetched.digest != digest:
            raise ContentError("changed while it was being fingerprinted", retryable=True)
        return fetched.path

    def evict(self, max_bytes: int, *, in_use_seconds: float = _IN_USE_SECONDS) -> int:
        """Delete the downloads that were not used for longest until at most `max_bytes` remain; returns bytes freed.

        What was used within the last `in_use_seconds` stays: a decoder may be about to open it. Parts of
        downloads that a killed process left behind go after an hour.
        """
        now = time.time()
        blobs: list[tuple[float, int, Path]] = []
        freed = 0
        for path in self._blobs.glob("??/*"):
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
        for path in self._blobs.glob("part-*"):
            about = _stat(path)
            if about is not None and about.st_mtime < now - _LEFTOVER_SECONDS:
                path.unlink(missing_ok=True)
                freed += about.st_size
        return freed

    def _file(self, uri: str, *, digested: bool = True) -> Fetched:
        try:
            path = file_path(uri)
            about = path.stat()
            if stat.S_ISDIR(about.st_mode):
                readable = os.access(path, os.R_OK | os.X_OK)
                raise ContentError("a folder, not a file" if readable else "a folder without permission to read it")
            if not stat.S_ISREG(about.st_mode):
                raise ContentError("not a regular file (a pipe, a socket or a device)")
            if about.st_size > self._max_bytes:
                raise ContentError(f"too large: {about.st_size} bytes, allowed are {self._max_bytes}")
            with path.open("rb") as file:
                if not digested:
                    return Fetched(path, "", about.st_size, file.read(_HEAD_BYTES))
                return self._hashed(path, file)
        except (FileNotFoundError, NotADirectoryError):
            raise ContentError("no such file") from None
        except PermissionError:
            raise ContentError("no permission to read the file") from None
        except (UsageError, ValueError) as error:
            raise ContentError(str(error)) from None
        except OSError as error:
            raise ContentError(f"the file cannot be read: {error.strerror or error}", retryable=True) from None

    def _hashed(self, path: Path, file: io.BufferedReader) -> Fetched:
        before = os.fstat(file.fileno())
        head = file.read(_HEAD_BYTES)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
        after = os.fstat(file.fileno())
        if size != before.st_size or before.st_mtime_ns != after.st_mtime_ns:
            raise ContentError("changed while it was being read", retryable=True)
        return Fetched(path, digest, size, head, _file_validator(before))

    def _ipfs(self, uri: str) -> Fetched:
        address = uri.removeprefix("ipfs://")
        cid = _cid(address.partition("/")[0])
        fetched = self._download(self._gateway_url(uri), "")
        assert fetched is not None
        if "/" not in address and cid.sha256 not in (None, fetched.digest):
            raise ContentError("the gateway sent bytes that do not match the CID", retryable=True)
        return replace(fetched, validator=uri)

    def _gateway_url(self, uri: str) -> str:
        address = uri.removeprefix("ipfs://")
        _cid(address.partition("/")[0])  # a wrong one is not worth a request
        return f"{self._ipfs_gateway}/ipfs/{address}"

    def _download(self, url: str, validator: str) -> Fetched | None:
        part = self._blobs / f"part-{uuid.uuid4().hex}"
        try:
            self._blobs.mkdir(parents=True, exist_ok=True)
            with part.open("xb") as file:
                got = self._downloader().download_if_changed(url, file, validator)
            if got is None:
                return None
            blob = self._blob(got.digest)
            blob.parent.mkdir(exist_ok=True)
            part.replace(blob)
        except OSError as error:
            raise ContentError(f"the download cannot be stored: {error.strerror or error}", retryable=True) from None
        finally:
            with contextlib.suppress(OSError):
                part.unlink()
        return Fetched(blob, got.digest, got.size, got.head, got.validator)

    def _downloader(self) -> Downloader:
        from fingerprint_dagster.sources.download import Downloader, Limits

        with self._lock:
            if self._made is None:
                limits = Limits(self._timeout_seconds, self._max_bytes, self._retries, self._backoff_seconds)
                self._made = Downloader(limits)
            return self._made

    def _blob(self, digest: str) -> Path:
        return self._blobs / digest[:2] / digest


def _file_validator(about: os.stat_result) -> str:
    return f"{about.st_size}-{about.st_mtime_ns}"


def _scheme(uri: str) -> str:
    try:
        return urlsplit(uri).scheme
    except ValueError:
        return ""


def _cid(text: str) -> Cid:
    try:
        return parse_cid(text)
    except ValueError:
        raise ContentError("the ipfs uri does not begin with a valid CID") from None


def _stat(path: Path) -> os.stat_result | None:
    """What the system knows of a file; None where another process has just removed it."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None
