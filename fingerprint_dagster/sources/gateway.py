"""IPFS through HTTP gateways that need not be trusted: every block is checked against its CID.

Protocol: https://specs.ipfs.tech/http-gateways/trustless-gateway/
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar
from urllib.parse import quote, unquote

from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.sources import car, unixfs
from fingerprint_dagster.sources.download import HEAD_BYTES, Downloaded, Downloader
from fingerprint_dagster.sources.ipfs import IDENTITY, LIBP2P_KEY, RAW, Cid, new_hash, parse_cid
from fingerprint_dagster.sources.ipns import MAX_RECORD, parse_name, read_record
from fingerprint_dagster.sources.uri import host_of

_RAW_BLOCK = {"Accept": "application/vnd.ipld.raw"}
_CAR = {"Accept": "application/vnd.ipld.car; version=1; order=dfs; dups=n"}
_RECORD = {"Accept": "application/vnd.ipfs.ipns-record"}
_CHUNK_BYTES = 1 << 20

Answer = TypeVar("Answer")


class Gateways:
    """HTTP gateways, or local nodes, that are asked one after the other until one has the content.

    seconds: for one content from one gateway. max_bytes: of one content. folder: for what is being received.
    """

    def __init__(
        self, downloader: Downloader, gateways: Sequence[str], *, seconds: float, max_bytes: int, folder: Path
    ) -> None:
        self._downloader = downloader
        self._gateways = tuple(gateway.rstrip("/") for gateway in gateways)
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._folder = folder

    def fetch(self, uri: str, into: BinaryIO) -> Downloaded:
        """Write the content behind an `ipfs://CID/path` uri into `into`. Raises ContentError.

        The CAR with all its blocks is asked for; blocks missing in it, and all of them where a gateway makes no
        CARs, are asked for one by one.
        """
        root, names = _parts(uri)
        return self._each(lambda gateway: self._fetch(gateway, root, names, into))

    def peek(self, uri: str) -> bytes:
        """The first 4,096 bytes of the content, of which only the blocks on the way there are fetched, and verified."""
        root, names = _parts(uri)

        def first(gateway: str) -> bytes:
            blocks = _GatewayBlocks(self._downloader, gateway, time.monotonic() + self._seconds)
            cid = unixfs.resolve(root, names, blocks)
            head = b""
            for chunk in unixfs.read_file(cid, blocks, self._max_bytes):
                head += chunk[: HEAD_BYTES - len(head)]
                if len(head) == HEAD_BYTES:
                    break
            return head

        return self._each(first)

    def resolve(self, name: str) -> str:
        """The `ipfs://CID...` uri that an ipns name stands for now.

        A name that is a key is resolved by its record, whose signature is verified. A domain name (DNSLink) has no
        signature: what it stands for is the gateway's word. Raises ContentError.
        """
        key = parse_name(name)
        if key is None and "." not in name:
            raise ContentError("the ipns uri begins with neither a key nor a domain name")
        return self._each(lambda gateway: self._resolve(gateway, name, key))

    def _resolve(self, gateway: str, name: str, key: Cid | None) -> str:
        if key is None:
            about = self._downloader.peek(f"{gateway}/ipns/{quote(name)}?format=raw", headers=_RAW_BLOCK, trusted=True)
            roots = {title.lower(): value for title, value in about.headers.items()}.get("x-ipfs-roots", "")
            root = roots.rpartition(",")[2].strip()
            _cid(root)
            return f"ipfs://{root}"
        record = io.BytesIO()
        text = Cid(1, LIBP2P_KEY, key.hash_code, key.digest).text
        url = f"{gateway}/ipns/{text}?format=ipns-record"
        self._downloader.download(url, record, headers=_RECORD, trusted=True, max_bytes=MAX_RECORD)
        path = read_record(key, record.getvalue(), host_of(gateway))
        if not path.startswith("/ipfs/"):
            raise ContentError("the ipns name leads to another name; give that one")
        return f"ipfs://{path.removeprefix('/ipfs/').strip('/')}"

    def _fetch(self, gateway: str, root: Cid, names: Sequence[str], into: BinaryIO) -> Downloaded:
        if root.codec == RAW and root.hash_code != IDENTITY and not names:
            return self._fetch_block(gateway, root, into)
        with tempfile.TemporaryFile(dir=self._folder) as file:
            blocks = _GatewayBlocks(self._downloader, gateway, time.monotonic() + self._seconds)
            if root.hash_code != IDENTITY:
                path = "/".join(quote(name, safe="", errors="surrogateescape") for name in (root.text, *names))
                blocks.receive(f"{gateway}/ipfs/{path}?format=car&dag-scope=entity", file, self._max_bytes)
            cid = unixfs.resolve(root, names, blocks)
            into.seek(0)
            into.truncate()
            digest, size, head = hashlib.sha256(), 0, b""
            for chunk in unixfs.read_file(cid, blocks, self._max_bytes):
                into.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                head += chunk[: HEAD_BYTES - len(head)]
            into.flush()
            return Downloaded(digest.hexdigest(), size, head, "")

    def _fetch_block(self, gateway: str, cid: Cid, into: BinaryIO) -> Downloaded:
        """A content that is one block: of any size, so it goes to disk and is hashed there."""
        hasher = _hash(cid)
        got = self._downloader.download(_block_url(gateway, cid), into, headers=_RAW_BLOCK, trusted=True)
        if cid.sha256 is not None:
            matches = got.digest == cid.sha256
        else:
            into.seek(0)
            while chunk := into.read(_CHUNK_BYTES):
                hasher.update(chunk)
            matches = hasher.digest() == cid.digest
        if not matches:
            raise _lie(gateway)
        return got

    def _each(self, ask: Callable[[str], Answer]) -> Answer:
        failures: list[ContentError] = []
        for gateway in self._gateways:
            try:
                return ask(gateway)
            except ContentError as failure:
                failures.append(failure)
        if not failures:
            raise ContentError("no IPFS gateway is set; name one in FINGERPRINT_IPFS_GATEWAY")
        reasons = list(dict.fromkeys(failure.reason for failure in failures))
        raise ContentError("; ".join(reasons), retryable=any(failure.retryable for failure in failures))


class _GatewayBlocks:
    """Blocks by their CIDs: from the CAR that was received, or asked for one by one. Each is verified when used."""

    def __init__(self, downloader: Downloader, gateway: str, deadline: float) -> None:
        self._downloader = downloader
        self._gateway = gateway
        self._deadline = deadline
        self._file: BinaryIO = io.BytesIO()
        self._places: dict[car.Multihash, tuple[int, int]] = {}

    def receive(self, url: str, file: BinaryIO, max_bytes: int) -> None:
        """Take what is there of a CAR into `file`. A gateway without CARs is no failure."""
        try:
            got = self._downloader.download(
                url, file, headers=_CAR, trusted=True, max_bytes=max_bytes + max_bytes // 8 + car.MAX_BLOCK
            )
        except ContentError as failure:
            if failure.retryable or failure.reason.startswith("too large"):
                raise
            return
        kind = {title.lower(): value for title, value in got.headers.items()}.get("content-type", "")
        if kind.startswith("application/vnd.ipld.car"):
            self._file, self._places = file, car.index(file)

    def __call__(self, cid: Cid) -> bytes:
        if cid.hash_code == IDENTITY:
            return cid.digest
        _hash(cid)
        place = self._places.get((cid.hash_code, cid.digest))
        if place is not None:
            self._file.seek(place[0])
            block = self._file.read(place[1])
        else:
            if time.monotonic() > self._deadline:
                raise ContentError(
                    f"{host_of(self._gateway)} took too long to send the blocks; the time limit can be raised",
                    retryable=True,
                )
            buffer = io.BytesIO()
            url = _block_url(self._gateway, cid)
            self._downloader.download(url, buffer, headers=_RAW_BLOCK, trusted=True, max_bytes=car.MAX_BLOCK)
            block = buffer.getvalue()
        if not cid.vouches_for(block):
            raise _lie(self._gateway)
        return block


def _block_url(gateway: str, cid: Cid) -> str:
    return f"{gateway}/ipfs/{cid.text}?format=raw"


def _lie(gateway: str) -> ContentError:
    return ContentError(f"{host_of(gateway)} sent bytes that do not match the CID", retryable=True)


def _parts(uri: str) -> tuple[Cid, list[str]]:
    """The CID and the names on the path of an ipfs uri. Raises ContentError where its CID is none."""
    address = uri.partition("://")[2]
    cid, _, path = address.partition("/")
    names = [unquote(name, errors="surrogateescape") for name in path.split("/") if name]
    return _cid(cid), names


def _cid(text: str) -> Cid:
    try:
        return parse_cid(text)
    except ValueError:
        raise ContentError("the ipfs uri does not begin with a valid CID") from None


def _hash(cid: Cid) -> hashlib._Hash:
    try:
        return new_hash(cid)
    except ValueError as error:
        raise ContentError(str(error)) from None
