"""One HTTP download into a file: bounded in time and in bytes, whatever the server does.

urllib3 is imported at the top: the fetcher imports this module when it first needs it.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import random
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import BinaryIO
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    DecodeError,
    HTTPError,
    IncompleteRead,
    LocationValueError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)

from fingerprint_dagster.errors import ContentError, UsageError
from fingerprint_dagster.sources.uri import host_of, to_uri

HEAD_BYTES = 4096
"""How many first bytes of a content are kept for recognising what it is."""

_CHUNK_BYTES = 256 * 1024
_CONNECT_SECONDS = 10.0
_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BUSY = frozenset({408, 425, 429})


@dataclass(frozen=True)
class Limits:
    """What one download may take.

    seconds: everything together, retries and waits included. Only the operating system's name look-up cannot be
        interrupted, and of a host with several addresses each may take the 10 seconds of a connection attempt.
    bytes: after any content encoding is undone. retries: further attempts after the first.
    backoff_seconds: the longest wait before the first retry; it doubles with each.
    """

    seconds: float
    bytes: int
    retries: int
    backoff_seconds: float


@dataclass(frozen=True)
class Downloaded:
    """digest: SHA-256, hexadecimal. size: bytes. head: the first 4,096 bytes.

    validator: what the server will know this content by again (see `_validator`); empty where it says nothing.
    """

    digest: str
    size: int
    head: bytes
    validator: str


class Downloader:
    """Downloads over pooled connections. May be used by many threads at once."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pool = urllib3.PoolManager(num_pools=64, maxsize=16, retries=False)
        self._pool.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    def download(self, url: str, into: BinaryIO) -> Downloaded:
        """Write the body behind the http(s) `url` into `into`, which is emptied before every attempt.

        Raises ContentError; its reason names the host only, never the address: that may hold passwords and tokens.
        """
        downloaded = self.download_if_changed(url, into, "")
        assert downloaded is not None
        return downloaded

    def peek(self, url: str) -> bytes:
        """The first 4,096 bytes behind the http(s) `url`; the rest is not read. Raises ContentError."""
        downloaded = self._attempts(url, io.BytesIO(), "", only_head=True)
        assert downloaded is not None
        return downloaded.head

    def download_if_changed(self, url: str, into: BinaryIO, validator: str) -> Downloaded | None:
        """Like `download`; but None, and nothing written, where the server says that what it gave this validator to
        is still what it has (a conditional request, RFC 9110, 13)."""
        return self._attempts(url, into, validator, only_head=False)

    def _attempts(self, url: str, into: BinaryIO, validator: str, *, only_head: bool) -> Downloaded | None:
        deadline = _Deadline(self._limits.seconds)
        attempt = 0
        while True:
            try:
                return self._attempt(url, into, deadline, validator, only_head)
            except _Transient as failure:
                # Half to all of the doubling wait, by chance: many downloads that failed together come back apart.
                wait = self._limits.backoff_seconds * 2**attempt * random.uniform(0.5, 1.0)
                wait = max(wait, failure.wait_seconds)
                if attempt >= self._limits.retries or wait >= deadline.left():
                    raise ContentError(failure.reason, retryable=True) from None
            time.sleep(wait)
            attempt += 1

    def _attempt(
        self, url: str, into: BinaryIO, deadline: _Deadline, validator: str, only_head: bool
    ) -> Downloaded | None:
        place = host_of(url)
        _here.deadline = deadline
        try:
            for _ in range(_MAX_REDIRECTS + 1):
                place = host_of(url)
                response = self._request(url, deadline, _condition(validator))
                try:
                    location = response.headers.get("Location")
                    if response.status in _REDIRECTS and location:
                        url = _redirected(url, location)
                        continue
                    if response.status == 304 and validator:
                        return None
                    _check_status(response, place)
                    return self._body(response, into, place, only_head)
                finally:
                    response.close()  # where a rest is not wanted: neither read it nor use the connection again
            raise ContentError(f"more than {_MAX_REDIRECTS} redirects, the last one by {place}")
        except (HTTPError, OSError) as error:
            if deadline.left() <= 0 or isinstance(error, ReadTimeoutError):
                raise ContentError(
                    f"{place} took longer than {self._limits.seconds:g} s; the time limit can be raised", retryable=True
                ) from None
            raise _failure(error, place) from None
        finally:
            del _here.deadline

    def _request(self, url: str, deadline: _Deadline, condition: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        left = max(deadline.left(), 0.001)
        address, password = _split_password(url)
        # identity: the stored bytes are wanted, not a compressed form of them.
        headers = {"User-Agent": "fingerprint-dagster", "Accept": "*/*", "Accept-Encoding": "identity"}
        return self._pool.request(
            "GET",
            address,
            redirect=False,
            preload_content=False,
            timeout=urllib3.Timeout(connect=min(_CONNECT_SECONDS, left), read=left),
            headers={**headers, **condition, **password},
        )

    def _body(self, response: urllib3.BaseHTTPResponse, into: BinaryIO, place: str, only_head: bool) -> Downloaded:
        limit = self._limits.bytes
        too_large = ContentError(f"too large: {place} sends more than the allowed {limit} bytes")
        promised = response.headers.get("Content-Length", "")
        if promised.isdecimal() and int(promised) > limit and not only_head:
            raise too_large
        into.seek(0)
        into.truncate()
        digest, size, head = hashlib.sha256(), 0, b""
        for chunk in response.stream(HEAD_BYTES if only_head else _CHUNK_BYTES):
            size += len(chunk)
            if size > limit:
                raise too_large
            if len(head) < HEAD_BYTES:
                head += chunk[: HEAD_BYTES - len(head)]
            digest.update(chunk)
            into.write(chunk)
            if only_head and len(head) == HEAD_BYTES:
                break
        into.flush()
        return Downloaded(digest.hexdigest(), size, head, _validator(response))


class _Transient(Exception):
    """An attempt failed in a way that another one may not. wait_seconds: what the server asked for, else 0."""

    def __init__(self, reason: str, wait_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_seconds = wait_seconds


def _validator(response: urllib3.BaseHTTPResponse) -> str:
    """The header, with its name, that identifies this content on its server: `ETag: "..."` or `Last-Modified: ...`."""
    for name in ("ETag", "Last-Modified"):
        value = response.headers.get(name, "")
        if value:
            return f"{name}: {value}"
    return ""


def _condition(validator: str) -> dict[str, str]:
    """The request header that asks for the content only if it is no longer the one of that validator."""
    name, _, value = validator.partition(": ")
    return {{"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}[name]: value} if value else {}


def _split_password(url: str) -> tuple[str, Mapping[str, str]]:
    """The url without `user:password@`, and the header that says the same. urllib3 itself would ignore them."""
    parts = urlsplit(url)
    user, at, place = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    name, _, password = user.partition(":")
    headers = urllib3.make_headers(basic_auth=f"{unquote(name)}:{unquote(password)}")
    return urlunsplit(parts._replace(netloc=place)), headers


def _redirected(url: str, location: str) -> str:
    try:
        target = to_uri(urljoin(url, location))
    except (UsageError, ValueError):
        target = ""
    if not target.startswith(("http://", "https://")):
        raise ContentError(f"{host_of(url)} redirects to an address that is not http or https")
    parts = urlsplit(url)
    user, at, place = parts.netloc.rpartition("@")
    if at and target.startswith(f"{parts.scheme}://{place}/"):  # the same place may see the password again, no other
        target = target.replace("://", f"://{user}@", 1)
    return target


def _check_status(response: urllib3.BaseHTTPResponse, place: str) -> None:
    """Raise unless the status is 200 or 203, the two that carry the whole content."""
    status = response.status
    if status in (200, 203):
        return
    reason = f"{place} answered {status} {http.client.responses.get(status, '')}"
    if status in _BUSY or status >= 500:
        raise _Transient(reason, _retry_after(response.headers.get("Retry-After", "")))
    raise ContentError(reason)


def _retry_after(text: str) -> float:
    """Seconds of a Retry-After header: a number or an HTTP date (RFC 9110, 10.2.3); 0 where there is none."""
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0


def _failure(error: Exception, place: str) -> Exception:
    """What `error` of one attempt means: a `_Transient` or a ContentError. urllib3's own texts hold the address."""
    if isinstance(error, NameResolutionError):
        return _Transient(f"the name of {place} cannot be resolved")
    if isinstance(error, NewConnectionError):  # before the next: it is one of those, too
        refused = isinstance(error.__cause__, ConnectionRefusedError)
        return _Transient(f"{place} {'refused the connection' if refused else 'cannot be reached'}")
    if isinstance(error, ConnectTimeoutError):
        return _Transient(f"{place} did not accept a connection in time")
    if isinstance(error, SSLError):
        if any(isinstance(part, ssl.SSLCertVerificationError) for part in (error, *error.args)):
            return ContentError(f"the certificate of {place} is not valid")
        return _Transient(f"the encrypted connection to {place} failed")
    if isinstance(error, LocationValueError):
        return ContentError(f"the address of {place} is not valid")
    if isinstance(error, DecodeError):
        return ContentError(f"{place} sent a body that does not match its Content-Encoding")
    causes = (error, *error.args)
    if any(isinstance(part, IncompleteRead | http.client.IncompleteRead) for part in causes):
        return _Transient(f"{place} sent fewer bytes than it announced")
    if isinstance(error, HTTPError):
        return _Transient(f"{place} broke the connection")
    if isinstance(error, OSError) and error.errno is not None:  # of the local disk: urllib3 wraps those of the network
        return ContentError(f"the download cannot be stored: {error.strerror}", retryable=True)
    return _Transient(f"{place} broke the connection")


class _Deadline:
    """A moment in the future, `seconds` from now."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until then; negative after it."""
        return self._end - time.monotonic()


_here = threading.local()  # .deadline: of the download that runs in this thread


class _DeadlineReader(io.RawIOBase):
    """Reads a socket, no single read longer than what the whole download has left.

    A socket's own time-out counts from one byte to the next: a server that drips never trips it.
    """

    def __init__(self, sock: socket.socket, deadline: _Deadline) -> None:
        self._sock = sock
        self._deadline = deadline
        self._raw = sock.makefile("rb", buffering=0)  # keeps the socket open for as long as it is, as http.client needs

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int | None:  # type: ignore[override]
        left = self._deadline.left()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _DeadlineResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None):
        super().__init__(sock, debuglevel, method, url)
        self.fp.close()
        self.fp = io.BufferedReader(_DeadlineReader(sock, _here.deadline))


class _HTTPConnection(HTTPConnection):
    response_class = _DeadlineResponse


class _HTTPSConnection(HTTPSConnection):
    response_class = _DeadlineResponse


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection
