"""The addresses of contents: one normalised uri for each, so that the same address always gives the same text.

A member of an archive has the uri `zip+ARCHIVE!/MEMBER` or `tar+ARCHIVE!/MEMBER`, where ARCHIVE is the uri of the
archive (`zip+file:///data/a.zip!/sub/x.jpg`, `tar+https://example.org/a.tar.gz!/x.jpg`).
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit, urlunsplit

from fingerprint_dagster.errors import UsageError

OBJECT_SCHEMES = ("s3", "gs", "az")
ARCHIVE_SCHEMES = ("zip", "tar")
SCHEMES = ("file", "http", "https", *OBJECT_SCHEMES, "ipfs", "ipns", "data", *ARCHIVE_SCHEMES)

ARCHIVE_ENDINGS = {
    ".zip": "zip",
    ".tar": "tar",
    ".tar.gz": "tar",
    ".tgz": "tar",
    ".tar.bz2": "tar",
    ".tbz2": "tar",
    ".tar.xz": "tar",
    ".txz": "tar",
}
"""Name ending -> the kind of archive: what scheme its members' uris have."""

MAX_DATA_URI = 1 << 20
"""Characters of a data: uri at most. It is kept in the catalog like any other address; larger contents are files."""

_URI = re.compile(r"(?:(?:zip|tar)\+)?(?:file|https?|ipfs|ipns):|data:[^,\s]*,|[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
_BUCKET = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._$-]{0,254}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# What is no visible character, changes the direction of those that follow, or cannot be encoded.
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
_REPLACEMENT = "\ufffd"
_SHOWN_CHARACTERS = 400
# Characters that may stand in a path or a query (RFC 3986), and "%": what is encoded already stays encoded.
_PATH_SAFE = "/%:@!$&'()*+,;=~-._"
_QUERY_SAFE = _PATH_SAFE + "?[]"
_NAME_SAFE = _PATH_SAFE.replace("%", "").replace("!", "")  # "!/" ends the uri of an archive


def is_uri(text: str) -> bool:
    """True where `text` is a uri and not a path: `scheme://...`, or one of ours without slashes (`ipfs:CID`)."""
    return _URI.match(text) is not None


def scheme_of(uri: str) -> str:
    """The scheme of a uri, in lower case; of a member of an archive, `zip` or `tar`. Empty where there is none."""
    scheme, colon, _ = uri.partition(":")
    return scheme.partition("+")[0].lower() if colon else ""


def to_uri(text: str, base: Path | None = None) -> str:
    """The normalised uri of a path or a uri.

    A path, relative to the folder `base` (default: the current one), becomes `file:///...`; `.` and `..` are
    resolved by name, symbolic links stay. In a uri the scheme and the host become lower case, and the default
    port and the fragment are dropped. Of the ipfs forms (`ipfs:CID/path`, `ipfs://ipfs/CID/path`) one is made:
    `ipfs://CID/path`. In the key of an object (`s3://bucket/key`) only `%` has a meaning of its own.

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
    scheme = scheme_of(text)
    if scheme not in SCHEMES:
        raise UsageError(f"unknown scheme {scheme}: in a uri; known are {', '.join(SCHEMES)}")
    if _CONTROL.search(text):
        raise UsageError(f"a {scheme} uri with a control character: percent-encode it")
    if scheme == "file":
        return path_uri(file_path(text))
    if scheme in OBJECT_SCHEMES:
        return _object_uri(text, scheme)
    if scheme in ARCHIVE_SCHEMES:
        return _member_uri(text, scheme)
    if scheme == "data":
        return _data_uri(text)
    return _ipfs_uri(text, scheme) if scheme in ("ipfs", "ipns") else _http_uri(text, scheme)


def path_uri(path: Path) -> str:
    """The `file:///...` uri of a path, made absolute from the current folder. Any bytes a name can hold are kept."""
    # abspath and not resolve: a uri must not change when a symbolic link is turned elsewhere.
    return Path(os.path.abspath(path)).as_uri()  # noqa: PTH100


def file_path(uri: str) -> Path:
    """The local path of a `file:` uri: the inverse of `path_uri`. Raises UsageError where it names none here."""
    try:
        parts = urlsplit(uri)
    except ValueError:  # brackets that are no IPv6 address
        raise UsageError("not the uri of a local file: write file:///absolute/path") from None
    here = parts.netloc.lower() in ("", "localhost")
    if parts.scheme.lower() != "file" or not here or not parts.path.startswith("/"):
        raise UsageError("not the uri of a local file: write file:///absolute/path")
    if os.name == "nt":
        return Path(unquote(parts.path).lstrip("/"))
    return Path(os.fsdecode(unquote_to_bytes(parts.path)))


def object_uri(scheme: str, bucket: str, key: str) -> str:
    """The uri of an object with that exact key."""
    return f"{scheme}://{bucket}/{quote(key, safe=_NAME_SAFE)}"


def object_of(uri: str) -> tuple[str, str, str]:
    """(scheme, bucket, key) of the uri of an object: the inverse of `object_uri`."""
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    return scheme, bucket, unquote(key)


def member_uri(kind: str, archive: str, name: str) -> str:
    """The uri of the member `name` of the archive behind the uri `archive`. kind: `zip` or `tar`."""
    return f"{kind}+{archive}!/{quote(name, safe=_NAME_SAFE, errors='surrogateescape')}"


def member_of(uri: str) -> tuple[str, str, str]:
    """(kind, uri of the archive, name of the member): the inverse of `member_uri`."""
    kind, _, rest = uri.partition("+")
    archive, _, name = rest.rpartition("!/")
    return kind, archive, unquote(name, errors="surrogateescape")


def readable(uri: str) -> str:
    """The address as people know it, to be shown and not to be opened: `/music/a song.mp3`, `/a.zip!/my picture.jpg`.

    A local file by its path, an object by its key, a member by its archive and its name; an address on the web as it
    is, but cut where it is very long (`data:`). What cannot be seen, or not be printed, is replaced by U+FFFD.
    """
    scheme = scheme_of(uri)
    if scheme in ARCHIVE_SCHEMES:
        _, archive, name = member_of(uri)
        return f"{readable(archive)}!/{_INVISIBLE.sub(_REPLACEMENT, name)}"
    text = uri if len(uri) <= _SHOWN_CHARACTERS else f"{uri[:_SHOWN_CHARACTERS]}…"
    if scheme in OBJECT_SCHEMES:
        text = "{}://{}/{}".format(*object_of(uri))
    elif scheme == "file":
        with contextlib.suppress(UsageError):  # of another machine
            text = str(file_path(uri))
    return _INVISIBLE.sub(_REPLACEMENT, text)


def archive_kind(name: str) -> str | None:
    """`zip` or `tar` by the ending of a file name, None for any other."""
    lower = name.lower()
    return next((kind for ending, kind in ARCHIVE_ENDINGS.items() if lower.endswith(ending)), None)


def host_of(uri: str) -> str:
    """`host` or `host:port` of a uri: all of an http address that may be shown to anybody (no password, no token)."""
    return urlsplit(uri).netloc.rpartition("@")[2]


def without_password(uri: str) -> str:
    """The address of a server as it may be shown: without user and password. A path stays as it is."""
    scheme, slashes, rest = uri.partition("://")
    if not slashes:
        return uri
    head, mark, query = rest.partition("?")
    place, slash, path = head.partition("/")
    shown = "&".join(part for part in query.split("&") if not part.startswith("password="))
    return f"{scheme}://{place.rpartition('@')[2]}{slash}{path}{mark}{shown}"


def _http_uri(text: str, scheme: str) -> str:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
        place = f"[{host}]" if ":" in host else host.encode("idna").decode()
    except ValueError as error:  # a broken port or IPv6 address; UnicodeError, for a name that IDNA refuses, is one too
        raise UsageError(f"a {scheme} uri with a wrong host or port: write {scheme}://host/path") from error
    if not host:
        raise UsageError(f"a {scheme} uri without a host: write {scheme}://host/path")
    user, at, _ = parts.netloc.rpartition("@")
    # Programs differ in what such a host is; the address that is checked must be the one that is asked.
    if not _HOST.fullmatch(place) or "\\" in user or "@" in user:
        raise UsageError(f"a {scheme} uri with a wrong host or port: write {scheme}://host/path")
    if port is not None and port != _DEFAULT_PORTS[scheme]:
        place = f"{place}:{port}"
    path = quote(parts.path or "/", safe=_PATH_SAFE)
    return urlunsplit((scheme, f"{user}{at}{place}", path, quote(parts.query, safe=_QUERY_SAFE), ""))


def _ipfs_uri(text: str, scheme: str) -> str:
    """`ipfs://CID/path`. The CID keeps its case: it carries meaning. What it says is checked when it is fetched."""
    rest = text.partition(":")[2].partition("#")[0].partition("?")[0].lstrip("/")
    rest = rest.removeprefix(f"{scheme}/")
    cid, _, path = rest.partition("/")
    if not cid:
        what = "a CID: write ipfs://CID or ipfs://CID/path" if scheme == "ipfs" else "a name: write ipns://name"
        raise UsageError(f"an {scheme} uri without {what}")
    return f"{scheme}://{cid}/{quote(path, safe=_PATH_SAFE)}" if path else f"{scheme}://{cid}"


def _object_uri(text: str, scheme: str) -> str:
    bucket, _, key = text.partition(":")[2].removeprefix("//").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(f"a {scheme} uri without a valid bucket: write {scheme}://bucket/key")
    return f"{scheme}://{bucket}/{quote(key, safe=_PATH_SAFE)}"


def _member_uri(text: str, scheme: str) -> str:
    archive, separator, name = text.partition("+")[2].rpartition("!/")
    if not separator or not name or not is_uri(archive):
        raise UsageError(f"an address in an archive without its parts: write {scheme}+file:///archive.{scheme}!/member")
    if scheme_of(archive) in (*ARCHIVE_SCHEMES, "data"):
        raise UsageError("an archive inside an archive is not opened: unpack the outer one")
    return f"{scheme}+{_uri(archive)}!/{quote(name, safe=_NAME_SAFE + '%')}"


def _data_uri(text: str) -> str:
    if len(text) > MAX_DATA_URI:
        raise UsageError(f"a data uri of {len(text)} characters, allowed are {MAX_DATA_URI}: save it as a file")
    about, comma, data = text.partition(":")[2].partition("#")[0].partition(",")
    if not comma:
        raise UsageError("a data uri without data: write data:image/png;base64,...")
    return f"data:{quote(about, safe=_QUERY_SAFE)},{quote(data, safe=_QUERY_SAFE)}"
