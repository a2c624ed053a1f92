"""A small IPFS node: makes trees of blocks, and serves them as the trustless gateway specification says."""

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from servers import Handler

from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.sources import unixfs
from fingerprint_dagster.sources.ipfs import DAG_PB, RAW, Cid, parse_cid, varint

SHA2_256 = 0x12


def record(number: int, value: int | bytes) -> bytes:
    """One protobuf field."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def binary(cid: Cid) -> bytes:
    hashed = varint(cid.hash_code) + varint(len(cid.digest)) + cid.digest
    return hashed if cid.version == 0 else varint(1) + varint(cid.codec) + hashed


@dataclass
class Node:
    """blocks: digest -> (CID, bytes). asked: what the gateway was asked for. The rest: how it misbehaves."""

    blocks: dict[bytes, tuple[Cid, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    cars: bool = True
    without: set[bytes] = field(default_factory=set)
    false: dict[bytes, bytes] = field(default_factory=dict)
    cut: int | None = None
    names: dict[str, bytes] = field(default_factory=dict)
    roots: dict[str, str] = field(default_factory=dict)

    # ------------------------------------------------------------------ making trees

    def add(self, block: bytes, codec: int = RAW, version: int = 1) -> Cid:
        cid = Cid(version, codec, SHA2_256, hashlib.sha256(block).digest())
        self.blocks[cid.digest] = cid, block
        return cid

    def file(self, data: bytes, chunk: int = 1000, width: int = 3, *, raw_leaves: bool = True, version: int = 1) -> Cid:
        """A balanced tree, like `ipfs add` makes it."""
        level = [
            (self.leaf(data[at : at + chunk], raw_leaves, version), len(data[at : at + chunk]))
            for at in range(0, len(data) or 1, chunk)
        ]
        while len(level) > 1:
            level = [self.branch(level[at : at + width], version) for at in range(0, len(level), width)]
        return level[0][0]

    def leaf(self, data: bytes, raw: bool, version: int) -> Cid:
        if raw:
            return self.add(data)
        payload = record(1, 2) + (record(2, data) if data else b"") + record(3, len(data))
        return self.add(record(1, payload), DAG_PB, version)

    def branch(self, children: Sequence[tuple[Cid, int]], version: int = 1) -> tuple[Cid, int]:
        size = sum(each for _, each in children)
        payload = record(1, 2) + record(3, size) + b"".join(record(4, each) for _, each in children)
        return self.add(self.links([("", cid) for cid, _ in children]) + record(1, payload), DAG_PB, version), size

    def folder(self, entries: dict[str, Cid]) -> Cid:
        return self.add(self.links(sorted(entries.items())) + record(1, record(1, 1)), DAG_PB)

    def sharded(self, entries: dict[str, Cid], level: int = 0) -> Cid:
        """A sharded folder with a fanout of 256."""
        slots: dict[int, dict[str, Cid]] = {}
        for name, cid in entries.items():
            slots.setdefault(unixfs.murmur3(name.encode()) >> (56 - 8 * level) & 255, {})[name] = cid
        links = []
        for slot, inner in sorted(slots.items()):
            if len(inner) == 1:
                links += [(f"{slot:02X}{name}", cid) for name, cid in inner.items()]
            else:
                links.append((f"{slot:02X}", self.sharded(inner, level + 1)))
        payload = record(1, 5) + record(2, b"\xff" * 32) + record(5, 0x22) + record(6, 256)
        return self.add(self.links(links) + record(1, payload), DAG_PB)

    def links(self, entries: Sequence[tuple[str, Cid]]) -> bytes:
        return b"".join(
            record(2, record(1, binary(cid)) + record(2, name.encode()) + record(3, 0)) for name, cid in entries
        )

    # ------------------------------------------------------------------ serving them

    def __call__(self, handler: Handler) -> None:
        parts = urlsplit(handler.path)
        wanted = parse_qs(parts.query).get("format", [""])[0]
        kind, _, rest = parts.path.strip("/").partition("/")
        self.asked.append(f"{wanted} {kind}/{rest}")
        first, *names = [unquote(part) for part in rest.split("/")]
        if kind == "ipns":
            if wanted == "ipns-record" and first in self.names:
                handler.send(self.names[first], Content_Type="application/vnd.ipfs.ipns-record")
            elif first in self.roots:
                handler.send(b"block", X_Ipfs_Roots=self.roots[first])
            else:
                handler.send(b"", 404)
            return
        cid = parse_cid(first)
        if wanted == "raw" and cid.digest in self.blocks and cid.digest not in self.without:
            handler.send(
                self.false.get(cid.digest, self.blocks[cid.digest][1]), Content_Type="application/vnd.ipld.raw"
            )
        elif wanted == "car" and self.cars and cid.digest in self.blocks:
            body = self.car(cid, names)
            body = body[: self.cut]
            handler.send(
                body, Content_Type="application/vnd.ipld.car; version=1", Content_Length=None, Connection="close"
            )
            handler.close_connection = True
        else:
            handler.send(b"", 404 if cid.digest not in self.blocks else 406)

    def car(self, root: Cid, names: Sequence[str]) -> bytes:
        passed: dict[bytes, None] = {}

        def get(cid: Cid) -> bytes:
            passed[cid.digest] = None
            return self.blocks[cid.digest][1]

        def below(cid: Cid) -> None:
            for link in unixfs.read_node(cid, get(cid)).links:
                below(link.cid)

        with contextlib.suppress(ContentError):  # what was passed shows that there is nothing more
            below(unixfs.resolve(root, names, get))
        out = varint(58) + bytes(58)
        for digest in passed:
            if digest not in self.without:
                cid, block = self.blocks[digest]
                section = binary(cid) + self.false.get(digest, block)
                out += varint(len(section)) + section
        return out
