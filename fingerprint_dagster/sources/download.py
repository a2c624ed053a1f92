"""One HTTP download into a file: bounded in time and in bytes, whatever the server does, and only where it may go.

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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
from fingerprint_dagster.sources.guard import Guard
from fingerprint_dagster.sources.hosts import Hosts
from fingerprint_dagster.sources.uri import host_of, to_uri

HEAD_BYTES = 4096
"""How many first bytes of a content are kept for recognising what it is."""

_CHUNK_BYTES = 256 * 1024
_CONNECT_SECONDS = 10.0
_MAX_REDIRECTS = 5
_MAX_LINE = 65536
_LONGEST_PAUSE_SECONDS = 3600.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BUSY = frozenset({408, 425, 429})


@dataclass(frozen=True)
class Limits:
    """What one download may take.

    seconds: everything together, retries and waits included. Only the operating system's name look-up cannot be
        interrupted, and of a host with several addresses each may take the 10 seconds of a connection attempt.
    bytes: after any content encoding is undone. retries: further attempts after the first.
    backoff_seconds: the longest wait before the first retry; it doubles with each.
    per_host: downloads from one host at once, or what says how many now.
    per_second: requests to one host in a second; 0: any number.
    """

    seconds: float
    bytes: int
    retries: int
    backoff_seconds: float
    per_host: int | Callable[[], int] = 8
    per_second: float = 0.0


@dataclass(frozen=True)
class Downloaded:
    """digest: SHA-256, hexadecimal. size: bytes. head: the first 4,096 bytes.

    validator: what the server will know this content by again (see `_validator`); empty where it says nothing.
    headers: those of the response.
    """

    digest: str
    size: int
    head: bytes
    validator: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Downloader:
    """Downloads over pooled connections. May be used by many threads at once.

    guard: decides where connections may go; every redirect, and every address of every name, is put to it.
    proxy: the HTTP proxy that everything goes through, empty for none. It looks the names up, so of a proxied
        download only the host's name is checked: which addresses may be reached is for the proxy to decide.
    """

    def __init__(self, limits: Limits, guard: Guard, proxy: str = "") -> None:
        self._limits = limits
        self._guard = guard
        self._hosts = Hosts(limits.per_host, limits.per_second)
        self._proxied = bool(proxy)
        # Trusted and other requests never share a connection: one opened unchecked must not serve a checked one.
        self._pools = {trusted: _pool_manager(proxy) for trusted in (False, True)}

    def download(
        self,
        url: str,
        into: BinaryIO,
        *,
        headers: Mapping[str, str] | None = None,
        trusted: bool = False,
        max_bytes: int | None = None,
    ) -> Downloaded:
        """Write the body behind the http(s) `url` into `into`, which is emptied before every new beginning.

        headers: sent with the request. max_bytes: of this one, instead of the limit for all.
        trusted: the operator named this server (a gateway, an object store), so it may have any address; where it
        redirects to another, that one may not.
        Raises ContentError; its reason names the host only, never the address: that may hold passwords and tokens.
        """
        downloaded = self._attempts(_Wish(url, headers or {}, trusted, max_bytes=max_bytes), into)
        assert downloaded is not None
        return downloaded

    def peek(self, url: str, *, headers: Mapping[str, str] | None = None, trusted: bool = False) -> Downloaded:
        """Like `download` for the first 4,096 bytes (`head`); the rest is not read."""
        downloaded = self._attempts(_Wish(url, headers or {}, trusted, only_head=True), io.BytesIO())
        assert downloaded is not None
        return downloaded

    def download_if_changed(
        self, url: str, into: BinaryIO, validator: str, *, trusted: bool = False
    ) -> Downloaded | None:
        """Like `download`; but None, and nothing written, where the server says that what it gave this validator to
        is still what it has (a conditional request, RFC 9110, 13)."""
        return self._attempts(_Wish(url, {}, trusted, validator), into)

    def _attempts(self, wish: _Wish, into: BinaryIO) -> Downloaded | None:
        host = host_of(wish.url)
        with self._hosts.slot(host):  # outside of the time limit: others may have a long queue there
            deadline = _Deadline(self._limits.seconds)
            body = _Body(into, wish.max_bytes or self._limits.bytes, wish.only_head)
            busy = f"{host} asks for more time than the limit of {self._limits.seconds:g} s leaves"
            attempt = 0
            while True:
                if not self._hosts.wait_turn(host, deadline.left()):
                    raise ContentError(busy, retryable=True)
                try:
                    return self._attempt(wish, body, deadline)
                except _Transient as failure:
                    busy = failure.reason
                    if failure.wait_seconds:
                        self._hosts.pause(host, min(failure.wait_seconds, _LONGEST_PAUSE_SECONDS))
                    # Half to all of the doubling wait, by chance: what failed together comes back apart.
                    wait = self._limits.backoff_seconds * 2**attempt * random.uniform(0.5, 1.0)
                    wait = max(wait, failure.wait_seconds)
                    if attempt >= self._limits.retries or wait >= deadline.left():
                        raise ContentError(busy, retryable=True) from None
                time.sleep(wait)
                attempt += 1

    def _attempt(self, wish: _Wish, body: _Body, deadline: _Deadline) -> Downloaded | None:
        url, place = wish.url, host_of(wish.url)
        home = _origin(url)
        _here.deadline, _here.proxied = deadline, self._proxied
        try:
            for _ in range(_MAX_REDIRECTS + 1):
                place = host_of(url)
                trusted = wish.trusted and _origin(url) == home
                _here.guard = None if trusted else self._guard
                if not trusted:
                    self._guard.check_scheme(url)
                    self._guard.check_host(urlsplit(url).hostname or "")
                asked = {**wish.headers, **_condition(wish.validator), **body.range_header(url)}
                response = self._request(url, deadline, asked, trusted)
                try:
                    location = response.headers.get("Location")
                    if response.status in _REDIRECTS and location:
                        url = _redirected(url, location)
                        continue
                    if response.status == 304 and wish.validator:
                        return None
                    if response.status == 416 and body.size:
                        body.begin()
                        raise _Transient(f"{place} no longer has what it began to send")
                    resumed = body.begin_or_resume(response, url)
                    if not resumed:
                        _check_status(response, place)
                    return body.read(response, place)
                finally:
                    # Where a rest is not wanted it is neither read nor the connection used again.
                    response.close()
                    response.release_conn()
            raise ContentError(f"more than {_MAX_REDIRECTS} redirects, the last one by {place}")
        except (HTTPError, OSError) as error:
            if refusal := _refusal(error, place):
                raise refusal from None
            if deadline.left() <= 0 or isinstance(error, ReadTimeoutError):
                raise ContentError(
                    f"{place} took longer than {self._limits.seconds:g} s; the time limit can be raised", retryable=True
                ) from None
            raise _failure(error, place) from None
        finally:
            del _here.deadline, _here.proxied
            _here.guard = None

    def _request(
        self, url: str, deadline: _Deadline, more: Mapping[str, str], trusted: bool
    ) -> urllib3.BaseHTTPResponse:
        left = max(deadline.left(), 0.001)
        address, password = _split_password(url)
        # identity: the stored bytes are wanted, not a compressed form of them.
        headers = {"User-Agent": "fingerprint-dagster", "Accept": "*/*", "Accept-Encoding": "identity"}
        return self._pools[trusted].request(
            "GET",
            address,
            redirect=False,
            preload_content=False,
            timeout=urllib3.Timeout(connect=min(_CONNECT_SECONDS, left), read=left),
            headers={**headers, **more, **password},
        )


@dataclass(frozen=True)
class _Wish:
    """What is asked for: see `Downloader.download`."""

    url: str
    headers: Mapping[str, str]
    trusted: bool
    validator: str = ""
    only_head: bool = False
    max_bytes: int | None = None


class _Body:
    """The body as far as it has come, over all attempts: a broken one is gone on with where the server can do that.

    Only under a strong ETag, which promises the same bytes (RFC 9110, 8.8.1), and only from the place that gave it.
    """

    def __init__(self, into: BinaryIO, limit: int, only_head: bool) -> None:
        self._into = into
        self._limit = limit
        self._only_head = only_head
        self.begin()

    def begin(self) -> None:
        """Forget what came."""
        self.size = 0
        self._head = b""
        self._digest = hashlib.sha256()
        self._etag = self._url = ""
        self._total: int | None = None

    def range_header(self, url: str) -> dict[str, str]:
        """What asks for the rest, if there was a beginning from there."""
        if not (self.size and self._etag and url == self._url):
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": self._etag}

    def begin_or_resume(self, response: urllib3.BaseHTTPResponse, url: str) -> bool:
        """Whether the response goes on where the body stopped. If not, the body begins anew."""
        if response.status == 206 and self.range_header(url):
            rest = f"bytes {self.size}-{(self._total or 0) - 1}/{self._total}"
            about = response.headers
            if about.get("Content-Range", "") == rest and about.get("ETag", self._etag) == self._etag:
                return True
            self.begin()
            raise _Transient(f"{host_of(url)} sent another part than it was asked for")
        if response.status not in (200, 203):
            return False  # not the content: what came before may still be of use
        self.begin()
        etag, length = response.headers.get("ETag", ""), response.headers.get("Content-Length", "")
        plain = response.headers.get("Content-Encoding", "identity") == "identity"
        if response.status == 200 and etag.startswith('"') and length.isdecimal() and plain:
            self._etag, self._url, self._total = etag, url, int(length)
        return False

    def read(self, response: urllib3.BaseHTTPResponse, place: str) -> Downloaded:
        """Take the response's body to the end, or the head alone. Raises ContentError where it is too large."""
        too_large = ContentError(f"too large: {place} sends more than the allowed {self._limit} bytes")
        promised = response.headers.get("Content-Length", "")
        if promised.isdecimal() and self.size + int(promised) > self._limit and not self._only_head:
            raise too_large
        self._into.seek(self.size)
        self._into.truncate()
        for chunk in response.stream(HEAD_BYTES if self._only_head else _CHUNK_BYTES):
            if self.size + len(chunk) > self._limit:
                raise too_large
            self._into.write(chunk)
            self._digest.update(chunk)
            self.size += len(chunk)
            if len(self._head) < HEAD_BYTES:
                self._head += chunk[: HEAD_BYTES - len(self._head)]
            if self._only_head and len(self._head) == HEAD_BYTES:
                break
        if self._total not in (None, self.size) and not self._only_head:
            raise _Transient(f"{place} sent fewer bytes than it announced")
        self._into.flush()
        headers = dict(response.headers.items())
        return Downloaded(self._digest.hexdigest(), self.size, self._head, _validator(response), headers)


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


def _refusal(error: BaseException | None, place: str) -> ContentError | None:
    """The guard's refusal behind what urllib3 made of it, if there is one."""
    while error is not None:
        if isinstance(error, _Refused):
            return error.refusal
        if isinstance(error, _TooMuchHeader):
            return ContentError(f"{place} sends larger headers than any content needs")
        error = error.__cause__ or error.__context__
    return None


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


class _Here(threading.local):
    """Of the download that runs in this thread. guard: None where the server is trusted."""

    deadline: _Deadline
    proxied: bool = False
    guard: Guard | None = None


_here = _Here()


class _Refused(HTTPError):
    """The guard forbids the connection. An HTTPError, so that it passes through urllib3 as it is."""

    def __init__(self, refusal: ContentError) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


class _TooMuchHeader(HTTPError):
    pass


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


class _BoundedReader(io.BufferedReader):
    """No line is longer than a header may be, whoever asks for it: http.client bounds its lines, others forget to."""

    def readline(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _MAX_LINE:
            size = _MAX_LINE + 1
        line = super().readline(size)
        if len(line) > _MAX_LINE:
            raise _TooMuchHeader
        return line


class _DeadlineResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None):
        super().__init__(sock, debuglevel, method, url)
        self.fp.close()
        self.fp = _BoundedReader(_DeadlineReader(sock, _here.deadline))

    def begin(self) -> None:
        try:
            super().begin()
        except http.client.HTTPException as error:
            if isinstance(error, http.client.LineTooLong) or "more than" in str(error):
                raise _TooMuchHeader from error
            raise


def _connect(connection: HTTPConnection) -> socket.socket:
    """A connection to an address that the guard has checked, and to no other.

    The name stays the one that is asked for in the request, and that the certificate must be of.
    """
    assert _here.guard is not None
    try:
        addresses = _here.guard.addresses(connection.host, connection.port)
    except ContentError as refusal:
        raise _Refused(refusal) from None
    except (OSError, UnicodeError) as error:
        raise NameResolutionError(connection.host, connection, socket.gaierror("no address")) from error
    failure: OSError = OSError("no address")
    for address in addresses:
        try:
            return _connect_to(address, connection)
        except OSError as error:
            failure = error
    if isinstance(failure, TimeoutError):
        raise ConnectTimeoutError(connection, "timed out") from failure
    raise NewConnectionError(connection, "failed") from failure


def _connect_to(address: str, connection: HTTPConnection) -> socket.socket:
    # AI_NUMERICHOST: the address is taken apart, nothing is looked up.
    found = socket.getaddrinfo(address, connection.port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    family, kind, protocol, _, where = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        for option in connection.socket_options or ():
            sock.setsockopt(*option)
        sock.settimeout(max(0.001, min(_CONNECT_SECONDS, _here.deadline.left())))
        sock.connect(where)
    except BaseException:
        sock.close()
        raise
    return sock


class _HTTPConnection(HTTPConnection):
    response_class = _DeadlineResponse

    def _new_conn(self) -> socket.socket:
        return super()._new_conn() if _here.guard is None or _here.proxied else _connect(self)


class _HTTPSConnection(HTTPSConnection):
    response_class = _DeadlineResponse

    def _new_conn(self) -> socket.socket:
        return super()._new_conn() if _here.guard is None or _here.proxied else _connect(self)


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


def _pool_manager(proxy: str) -> urllib3.PoolManager:
    pool = urllib3.PoolManager(num_pools=64, maxsize=16, retries=False)
    if proxy:
        address, password = _split_password(proxy)
        headers = {f"Proxy-{name}": value for name, value in password.items()}
        pool = urllib3.ProxyManager(address, num_pools=64, maxsize=16, retries=False, proxy_headers=headers)
    pool.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
    return pool


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2]
