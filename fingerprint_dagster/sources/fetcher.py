"""From a uri to bytes on local disk."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fingerprint_dagster.errors import ContentError, FingerprintError, UsageError
from fingerprint_dagster.share import Share
from fingerprint_dagster.sources.blobs import Blobs
from fingerprint_dagster.sources.guard import Guard
from fingerprint_dagster.sources.uri import ARCHIVE_SCHEMES, OBJECT_SCHEMES, file_path, member_of, member_uri

if TYPE_CHECKING:
    from fingerprint_dagster.sources.archive import Archive
    from fingerprint_dagster.sources.download import Downloaded, Downloader
    from fingerprint_dagster.sources.gateway import Gateways
    from fingerprint_dagster.sources.objects import ObjectStores

HEAD_BYTES = 4096
PUBLIC_GATEWAYS = ("https://trustless-gateway.link", "https://ipfs.io")

_IN_USE_SECONDS = 60.0
_IMMUTABLE = "immutable"
_ARCHIVES_OPEN = 8
_ARCHIVE_LOCKS = 64
_ARCHIVE_FRESH_SECONDS = 600.0
_UNPACKED_FACTOR = 8  # an archive may hold several of the largest contents


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


@dataclass(frozen=True)
class _OpenArchive:
    """archive: None where its source says that the copy which had this validator still holds, or with a failure.

    since: monotonic seconds. failure: why it could not be opened; the same for all its members.
    """

    archive: Archive | None
    validator: str
    since: float
    failure: ContentError | None = None


class Fetcher:
    """Gets the bytes behind uris of every known scheme. May be used by many threads at once.

    Local files are read where they are and never copied. What is downloaded lies in the folder `blobs`, one file
    per SHA-256 (`blobs/ab/abcd...`), shared by every uri with the same bytes.

    timeout_seconds: for one download as a whole, retries included. max_bytes: the largest content accepted.
    retries: further attempts where a server is busy or a connection breaks. backoff_seconds: the longest wait
    before the first of them, doubled each time. guard: what may be fetched from where.
    ipfs_gateways: the HTTP gateways that ipfs uris are read through, tried in order; they need not be trusted, and
    may be local nodes. downloads_per_host: from one host at once, in this process, or a share of those in several.
    requests_per_second: to one host, in this process; 0 means any number. proxy: the HTTP proxy for all downloads,
    empty for none.
    """

    def __init__(
        self,
        blobs: Path,
        *,
        timeout_seconds: float = 30.0,
        max_bytes: int = 16 * 1024**3,
        retries: int = 3,
        backoff_seconds: float = 0.5,
        guard: Guard | None = None,
        ipfs_gateways: Sequence[str] = PUBLIC_GATEWAYS,
        downloads_per_host: int | Share = 8,
        requests_per_second: float = 0.0,
        proxy: str = "",
    ) -> None:
        self._options: dict[str, Any] = {
            "timeout_seconds": timeout_seconds,
            "max_bytes": max_bytes,
            "retries": retries,
            "backoff_seconds": backoff_seconds,
            "guard": guard,
            "ipfs_gateways": tuple(ipfs_gateways),
            "downloads_per_host": downloads_per_host,
            "requests_per_second": requests_per_second,
            "proxy": proxy,
        }
        self.guard = guard or Guard()
        self._blobs = Blobs(blobs)
        self._timeout_seconds = timeout_seconds
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._made: dict[str, Any] = {}
        self._archives: dict[str, _OpenArchive] = {}
        self._archive_locks = [threading.Lock() for _ in range(_ARCHIVE_LOCKS)]

    def __reduce__(self) -> tuple[object, ...]:
        """A fetcher that is sent to another process is made anew there: neither a lock nor a connection travels."""
        return partial(Fetcher, **self._options), (self._blobs.folder,)

    def sharing_hosts(self) -> AbstractContextManager[None]:
        """Take part in the downloads that several processes make from one host; see `downloads_per_host`."""
        per_host = self._options["downloads_per_host"]
        return per_host.joined() if isinstance(per_host, Share) else nullcontext()

    def validator(self, uri: str) -> str:
        """A cheap text that changes when the content behind `uri` does; empty where only its bytes can tell.

        A file's size and time of modification, which are those of the archive for its members; a constant for an
        ipfs or data uri, which never changes its content. Never raises: what is wrong with an address is for `fetch`
        to say.
        """
        try:
            scheme = self.guard.check_scheme(uri)
            if scheme in ARCHIVE_SCHEMES:
                return self.validator(member_of(uri)[1])
            if scheme in ("ipfs", "data"):
                return _IMMUTABLE
            return _file_validator(self.guard.check_file(file_path(uri)).stat()) if scheme == "file" else ""
        except (OSError, ValueError, RuntimeError, UsageError, ContentError):
            return ""

    def fetch(self, uri: str) -> Fetched:
        """The content behind `uri`, read from its source now. Raises ContentError."""
        fetched = self.fetch_if_changed(uri, "")
        assert fetched is not None
        return fetched

    def fetch_if_changed(self, uri: str, validator: str) -> Fetched | None:
        """Like `fetch`; but None where the content is still the one that had this validator.

        Costs one look at a file's time, or one short request to a server that gives validators (ETag or
        Last-Modified). Content under an ipfs or data uri never changes.
        """
        with _one_content():
            return self._fetch_if_changed(uri, validator)

    def _fetch_if_changed(self, uri: str, validator: str) -> Fetched | None:
        scheme = self.guard.check_scheme(uri)
        if scheme == "file":
            unchanged = validator and validator == self.validator(uri)
            return None if unchanged else self._file(uri)
        if scheme in ("http", "https"):
            return self._download(uri, validator)
        if scheme in OBJECT_SCHEMES:
            return self._download(self._object_url(uri), validator, trusted=True)
        if scheme in ("ipfs", "data") and validator == _IMMUTABLE:
            return None
        if scheme == "ipfs":
            return replace(self._received(partial(self._gateways().fetch, uri)), validator=_IMMUTABLE)
        if scheme == "ipns":
            target = self._ipns(uri)
            return None if validator == target else replace(self.fetch(target), validator=target)
        if scheme == "data":
            return self._stored(iter((self._data(uri),)), _IMMUTABLE)
        return self._member(uri, validator)

    def peek(self, uri: str) -> bytes:
        """The first 4,096 bytes of the content behind `uri`, without reading the rest. Raises ContentError."""
        with _one_content():
            return self._peek(uri)

    def _peek(self, uri: str) -> bytes:
        scheme = self.guard.check_scheme(uri)
        if scheme == "file":
            return self._file(uri, digested=False).head
        if scheme in ("http", "https"):
            return self._downloader().peek(uri).head
        if scheme in OBJECT_SCHEMES:
            return self._downloader().peek(self._object_url(uri), trusted=True).head
        if scheme in ("ipfs", "ipns"):
            return self._gateways().peek(uri if scheme == "ipfs" else self._ipns(uri))
        if scheme == "data":
            return self._data(uri)[:HEAD_BYTES]
        name = member_of(uri)[2]
        head = b""
        for chunk in self._archive(uri, "").read(name, self._max_bytes):
            head += chunk[: HEAD_BYTES - len(head)]
            if len(head) == HEAD_BYTES:
                break
        return head

    def open(self, uri: str, digest: str) -> Path:
        """A local file that holds exactly the bytes with this SHA-256, which `fetch(uri)` once gave.

        A local file is read and compared; a download is taken from `blobs`, and made again if it is gone from
        there. Raises ContentError, retryable, where the source has other bytes now.
        """
        if self.guard.check_scheme(uri) != "file":
            blob = self._blobs.find(digest)
            if blob is not None:
                return blob
        fetched = self.fetch(uri)
        if fetched.digest != digest:
            raise ContentError("changed while it was being fingerprinted", retryable=True)
        return fetched.path

    def members(self, archive: str, kind: str) -> Iterator[str]:
        """The uris of all files in the archive behind the uri `archive`. kind: `zip` or `tar`. Raises ContentError."""
        for member in self._archive(member_uri(kind, archive, "x"), "").members():
            yield member_uri(kind, archive, member.name)

    def objects(self, uri: str, after: str = "") -> Iterator[tuple[str, str]]:
        """(uri, validator) of all objects below `s3://bucket/prefix/`, or of those after one of them.

        Raises UsageError where they cannot be listed.
        """
        self._check_bucket(uri)
        return self._stores().list(uri, after)

    def evict(self, max_bytes: int, *, in_use_seconds: float = _IN_USE_SECONDS) -> int:
        """Delete the downloads that were not used for longest until at most `max_bytes` remain; returns bytes freed.

        What was used within the last `in_use_seconds` stays: a decoder may be about to open it. Parts of
        downloads that a killed process left behind go after an hour.
        """
        return self._blobs.evict(max_bytes, in_use_seconds)

    # ------------------------------------------------------------------ local files

    def _file(self, uri: str, *, digested: bool = True) -> Fetched:
        try:
            path = self._local(uri)
            about = path.stat()
            if about.st_size > self._max_bytes:
                raise ContentError(f"too large: {about.st_size} bytes, allowed are {self._max_bytes}")
            with path.open("rb") as file:
                if not digested:
                    return Fetched(path, "", about.st_size, file.read(HEAD_BYTES))
                return self._hashed(path, file)
        except (FileNotFoundError, NotADirectoryError):
            raise ContentError("no such file") from None
        except PermissionError:
            raise ContentError("no permission to read the file") from None
        except OSError as error:
            raise ContentError(f"the file cannot be read: {error.strerror or error}", retryable=True) from None

    def _local(self, uri: str) -> Path:
        """The regular file that a uri names, where it may be read. Raises ContentError and OSError."""
        try:
            path = self.guard.check_file(file_path(uri))
        except (UsageError, ValueError, RuntimeError) as error:  # RuntimeError: symbolic links in a circle
            raise ContentError(str(error)) from None
        about = path.stat()
        if stat.S_ISDIR(about.st_mode):
            readable = os.access(path, os.R_OK | os.X_OK)
            raise ContentError("a folder, not a file" if readable else "a folder without permission to read it")
        if not stat.S_ISREG(about.st_mode):
            raise ContentError("not a regular file (a pipe, a socket or a device)")
        return path

    def _hashed(self, path: Path, file: io.BufferedReader) -> Fetched:
        before = os.fstat(file.fileno())
        head = file.read(HEAD_BYTES)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
        after = os.fstat(file.fileno())
        if size != before.st_size or before.st_mtime_ns != after.st_mtime_ns:
            raise ContentError("changed while it was being read", retryable=True)
        return Fetched(path, digest, size, head, _file_validator(before))

    # ------------------------------------------------------------------ what is downloaded

    def _download(self, url: str, validator: str, *, trusted: bool = False) -> Fetched | None:
        with self._blobs.part() as part:
            got = self._downloader().download_if_changed(url, part, validator, trusted=trusted)
            if got is None:
                return None
            return Fetched(self._blobs.keep(part, got.digest), got.digest, got.size, got.head, got.validator)

    def _received(self, receive: Any) -> Fetched:
        with self._blobs.part() as part:
            got: Downloaded = receive(part)
            return Fetched(self._blobs.keep(part, got.digest), got.digest, got.size, got.head, got.validator)

    def _stored(self, chunks: Iterator[bytes], validator: str) -> Fetched:
        digest, size, head = hashlib.sha256(), 0, b""
        with self._blobs.part() as part:
            for chunk in chunks:
                part.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                head += chunk[: HEAD_BYTES - len(head)]
            return Fetched(self._blobs.keep(part, digest.hexdigest()), digest.hexdigest(), size, head, validator)

    def _data(self, uri: str) -> bytes:
        from fingerprint_dagster.sources import data_uri

        return data_uri.read(uri, self._max_bytes)

    def _ipns(self, uri: str) -> str:
        """The ipfs uri that an ipns uri stands for now."""
        name, _, path = uri.partition("://")[2].partition("/")
        return "/".join(filter(None, (self._gateways().resolve(name), path)))

    def _object_url(self, uri: str) -> str:
        self._check_bucket(uri)
        return self._stores().url(uri)

    def _check_bucket(self, uri: str) -> None:
        self.guard.check_scheme(uri)
        self.guard.check_name(uri.partition("://")[2].partition("/")[0])

    # ------------------------------------------------------------------ members of archives

    def _member(self, uri: str, validator: str) -> Fetched | None:
        opened = self._opened(uri, validator)
        if opened.archive is None or (validator and validator == opened.validator):
            return None
        return self._stored(opened.archive.read(member_of(uri)[2], self._max_bytes), opened.validator)

    def _archive(self, uri: str, validator: str) -> Archive:
        archive = self._opened(uri, validator).archive
        assert archive is not None
        return archive

    def _opened(self, uri: str, validator: str) -> _OpenArchive:
        """The archive of a member's uri, opened once for all its members."""
        kind, source, _ = member_of(uri)
        scheme = self.guard.check_scheme(source)
        key = f"{kind}+{source}"
        with self._archive_locks[hash(key) % _ARCHIVE_LOCKS]:
            opened = self._archives.get(key)
            if opened is None or not self._is_fresh(opened, source, scheme, validator):
                since = time.monotonic()
                try:
                    opened = self._open_archive(kind, source, scheme, validator)
                except ContentError as failure:
                    opened = _OpenArchive(None, self.validator(source), since, failure)
            with self._lock:
                self._archives.pop(key, None)
                self._archives[key] = opened
                for old in list(self._archives)[:-_ARCHIVES_OPEN]:
                    del self._archives[old]  # it closes when the last thread has read from it
        if opened.failure is not None:
            raise ContentError(opened.failure.reason, retryable=opened.failure.retryable)
        return opened

    def _is_fresh(self, known: _OpenArchive, source: str, scheme: str, validator: str) -> bool:
        if scheme == "file":
            if known.validator != self.validator(source):
                return False
        elif time.monotonic() > known.since + _ARCHIVE_FRESH_SECONDS:
            return False
        if known.failure is not None:
            return not known.failure.retryable
        if known.archive is None:
            return bool(validator) and known.validator == validator
        return self._blobs.is_there(known.archive.path)

    def _open_archive(self, kind: str, source: str, scheme: str, validator: str) -> _OpenArchive:
        from fingerprint_dagster.sources import archive

        since = time.monotonic()
        if scheme == "file":
            try:
                path, current = self._local(source), self.validator(source)
            except OSError as error:
                raise ContentError(f"the archive cannot be read: {error.strerror or error}") from None
        else:
            fetched = self.fetch_if_changed(source, validator)
            if fetched is None:
                return _OpenArchive(None, validator, since)
            path, current = fetched.path, fetched.validator
        try:
            if kind == "tar" and archive.is_packed(path):
                path = self._unpacked(path)
            return _OpenArchive(archive.Archive(path, kind), current, since)
        except OSError as error:
            raise ContentError(f"the archive cannot be read: {error.strerror or error}", retryable=True) from None

    def _unpacked(self, path: Path) -> Path:
        from fingerprint_dagster.sources import archive

        with self._blobs.part() as part:
            archive.unpacked(path, part, _UNPACKED_FACTOR * self._max_bytes, self._timeout_seconds)
            part.seek(0)
            return self._blobs.keep(part, hashlib.file_digest(part, "sha256").hexdigest())  # type: ignore[arg-type]

    # ------------------------------------------------------------------ made on first use: they import much

    def _downloader(self) -> Downloader:
        from fingerprint_dagster.sources.download import Downloader, Limits

        def make() -> Downloader:
            given = self._options
            limits = Limits(
                self._timeout_seconds,
                self._max_bytes,
                given["retries"],
                given["backoff_seconds"],
                given["downloads_per_host"],
                given["requests_per_second"],
            )
            return Downloader(limits, self.guard, given["proxy"])

        with self._lock:
            if "downloader" not in self._made:
                self._made["downloader"] = make()
            downloader: Downloader = self._made["downloader"]
            return downloader

    def _gateways(self) -> Gateways:
        from fingerprint_dagster.sources.gateway import Gateways

        downloader = self._downloader()
        addresses = self._options["ipfs_gateways"]
        return Gateways(
            downloader, addresses, seconds=self._timeout_seconds, max_bytes=self._max_bytes, folder=self._blobs.folder
        )

    def _stores(self) -> ObjectStores:
        from fingerprint_dagster.sources.objects import ObjectStores

        with self._lock:
            if "stores" not in self._made:
                self._made["stores"] = ObjectStores()
            stores: ObjectStores = self._made["stores"]
            return stores


@contextmanager
def _one_content() -> Iterator[None]:
    """Whatever goes wrong with one content is its failure alone. Texts of others are not shown: they hold addresses."""
    try:
        yield
    except FingerprintError:
        raise
    except Exception as error:
        raise ContentError(f"the source cannot be read ({type(error).__name__})") from error


def _file_validator(about: os.stat_result) -> str:
    return f"{about.st_size}-{about.st_mtime_ns}"
