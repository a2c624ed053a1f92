"""The addresses of contents: one normalised uri for each, so that the same address always gives the same text."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit, urlunsplit

from fingerprint_dagster.errors import UsageError

SCHEMES = ("file", "http", "https", "ipfs")

_URI = re.compile(rf"(?:{'|'.join(SCHEMES)}):|[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}
# Characters that may stand in a path or a query (RFC 3986), and "%": what is encoded already stays encoded.
_PATH_SAFE = "/%:@!$&'()*+,;=~-._"
_QUERY_SAFE = _PATH_SAFE + "?[]"


def is_uri(text: str) -> bool:
    """True where `text` is a uri and not a path: `scheme://...`, or `file:...`, `http:...`, `https:...`, `ipfs:...`."""
    return _URI.match(text) is not None


def to_uri(text: str, base: Path | None = None) -> str:
    """The normalised uri of a path or a uri.

    A path, relative to the folder `base` (default: the current one), becomes `file:///...`; `.` and `..` are
    resolved by name, symbolic links stay. In a uri the scheme and the host become lower case, and the default
    port and the fragment are dropped. Of the ipfs forms (`ipfs:CID/path`, `ipfs://ipfs/CID/path`) one is made:
    `ipfs://CID/path`.

    Raises UsageError for a scheme that is not known, and for text that is no address at all.
    """
    if not text.strip():
        raise UsageError("an empty path or uri: give a file, a folder or a uri")
    if "\0" in text:
        raise UsageError("a path or uri with a NUL character: no file can have that name")
    try:
        return _uri(text.strip()) if is_uri(text.strip()) else path_uri(Path(base or "", text))
    except UnicodeEncodeError as error:  # half of a surrogate pair, which JSON can hold
        raise UsageError("a path or uri with a character that cannot be encoded") from error


def _uri(text: str) -> str:
    scheme = text.partition(":")[0].lower()
    if scheme not in SCHEMES:
        raise UsageError(f"unknown scheme {scheme}: in a uri; known are {', '.join(SCHEMES)}")
    if scheme == "file":
        return path_uri(file_path(text))
    return _ipfs_uri(text) if scheme == "ipfs" else _http_uri(text, scheme)


def path_uri(path: Path) -> str:
    """The `file:///...` uri of a path, made absolute from the current folder. Any bytes a name can hold are kept."""
    # abspath and not resolve: a uri must not change when a symbolic link is turned elsewhere.
    return Path(os.path.abspath(path)).as_uri()  # noqa: PTH100


def file_path(uri: str) -> Path:
    """The local path of a `file:` uri: the inverse of `path_uri`. Raises UsageError where it names none here."""
    parts = urlsplit(uri)
    here = parts.netloc.lower() in ("", "localhost")
    if parts.scheme.lower() != "file" or not here or not parts.path.startswith("/"):
        raise UsageError("not the uri of a local file: write file:///absolute/path")
    if os.name == "nt":
        return Path(unquote(parts.path).lstrip("/"))
    return Path(os.fsdecode(unquote_to_bytes(parts.path)))


def host_of(uri: str) -> str:
    """`host` or `host:port` of a uri: all of an http address that may be shown to anybody (no password, no token)."""
    return urlsplit(uri).netloc.rpartition("@")[2]


def _http_uri(text: str, scheme: str) -> str:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
        place = f"[{host}]" if ":" in host else host.encode("idna").decode()
    except ValueError as error:  # a broken port or IPv6 address; UnicodeError, for a name that IDNA refuses, is one too
        raise UsageError(f"a {scheme} uri with a wrong host or port: write {scheme}://host/path") from error
    if not host:
        raise UsageError(f"a {scheme} uri without a host: write {scheme}://host/path")
    if port is not None and port != _DEFAULT_PORTS[scheme]:
        place = f"{place}:{port}"
    user, at, _ = parts.netloc.rpartition("@")
    path = quote(parts.path or "/", safe=_PATH_SAFE)
    return urlunsplit((scheme, f"{user}{at}{place}", path, quote(parts.query, safe=_QUERY_SAFE), ""))


def _ipfs_uri(text: str) -> str:
    """`ipfs://CID/path`. The CID keeps its case: it carries meaning. What it says is checked when it is fetched."""
    rest = text.partition(":")[2].partition("#")[0].partition("?")[0].lstrip("/")
    rest = rest.removeprefix("ipfs/")
    cid, _, path = rest.partition("/")
    if not cid:
        raise UsageError("an ipfs uri without a CID: write ipfs://CID or ipfs://CID/path")
    return f"ipfs://{cid}/{quote(path, safe=_PATH_SAFE)}" if path else f"ipfs://{cid}"
