"""Files and folders as IPFS stores them: trees of blocks (UnixFS in dag-pb), read from the root down.

Who hands over the blocks has checked each against its CID. So what comes out are the bytes that the root CID names,
or an error; a block's own numbers are believed in nothing that matters.

Formats: https://specs.ipfs.tech/unixfs/ and https://ipld.io/specs/codecs/dag-pb/spec/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.sources.ipfs import DAG_PB, RAW, Cid, read_cid
from fingerprint_dagster.sources.protobuf import fields

Blocks = Callable[[Cid], bytes]
"""The verified bytes of a block. Raises ContentError where they cannot be had."""

_RAW_LEAF, _DIRECTORY, _FILE, _SYMLINK, _SHARD = 0, 1, 2, 4, 5
_MURMUR3 = 0x22
_MAX_DEPTH = 64
_SMALL_CHUNK = 1 << 14  # files are usually cut into chunks of 256 KiB; a mean below this is no file's
_FREE_BLOCKS = 10_000
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Link:
    """A named edge of the tree; of a file's parts the names are empty."""

    name: bytes
    cid: Cid


@dataclass(frozen=True)
class Node:
    """One block of a tree. kind: the UnixFS type. data: the file's own bytes in it. links: its children, in order.

    size: bytes of the whole file below, as the block claims. fanout: of a sharded folder.
    """

    kind: int
    data: bytes
    links: tuple[Link, ...]
    size: int = 0
    fanout: int = 0
    hash_type: int = 0


def read_node(cid: Cid, block: bytes) -> Node:
    """The node that a block holds. Raises ContentError where it is none."""
    if cid.codec == RAW:
        return Node(_RAW_LEAF, block, (), len(block))
    if cid.codec != DAG_PB:
        raise ContentError(f"the ipfs codec {cid.codec:#x} is not supported; supported are files: raw and dag-pb")
    try:
        return _node(block)
    except ValueError as error:
        raise ContentError(f"a block of the ipfs tree is no valid UnixFS node: {error}") from None


def resolve(root: Cid, names: Sequence[str], blocks: Blocks) -> Cid:
    """The CID at the end of a path through folders, plain or sharded. Raises ContentError where there is none."""
    cid = root
    for place, name in enumerate(names):
        node = read_node(cid, blocks(cid))
        key = name.encode("utf-8", "surrogateescape")
        if node.kind == _DIRECTORY:
            found = next((link.cid for link in node.links if link.name == key), None)
        elif node.kind == _SHARD:
            found = _in_shards(node, key, blocks)
        else:
            raise ContentError(f"the ipfs path goes through something that is no folder (part {place + 1})")
        if found is None:
            raise ContentError("no such file under the ipfs path")
        cid = found
    return cid


def read_file(root: Cid, blocks: Blocks, max_bytes: int) -> Iterator[bytes]:
    """The bytes of a file, in order. Raises ContentError, also where it has more than `max_bytes`."""
    too_large = ContentError(f"too large: the ipfs file has more than the allowed {max_bytes} bytes")
    size = seen = 0
    max_blocks = _FREE_BLOCKS + max_bytes // _SMALL_CHUNK
    todo: list[Iterator[Cid]] = [iter((root,))]
    while todo:
        cid = next(todo[-1], None)
        if cid is None:
            todo.pop()
            continue
        seen += 1
        if seen > max_blocks or len(todo) > _MAX_DEPTH:  # the same block may be linked to again and again
            raise ContentError("the ipfs tree has too many blocks or levels")
        node = read_node(cid, blocks(cid))
        if node.kind in (_DIRECTORY, _SHARD):
            raise ContentError("a folder, not a file: add the path of a file in it to the ipfs uri")
        if node.kind not in (_RAW_LEAF, _FILE):
            raise ContentError("the ipfs uri leads to a symbolic link or something else that is no file")
        size += len(node.data)
        if size > max_bytes or (seen == 1 and node.size > max_bytes):
            raise too_large
        if node.data:
            yield node.data
        todo.append(link.cid for link in node.links)


def _node(block: bytes) -> Node:
    links: list[Link] = []
    payload: bytes | None = None
    for number, value in fields(block):
        if not isinstance(value, bytes):
            raise ValueError("a field of the wrong kind")
        if number == 2:
            links.append(_link(value))
        elif number == 1 and payload is None:
            payload = value
        else:
            raise ValueError("an unknown or repeated field")
    if payload is None:
        raise ValueError("it has no data")
    kind, data, size, fanout, hash_type = -1, b"", 0, 0, 0
    for number, value in fields(payload):
        if number == 2 and isinstance(value, bytes):
            data = value
        elif isinstance(value, int):
            kind = value if number == 1 else kind
            size = value if number == 3 else size
            hash_type = value if number == 5 else hash_type
            fanout = value if number == 6 else fanout
    if kind in (_DIRECTORY, _SHARD):
        return Node(kind, data, tuple(links), 0, fanout, hash_type)
    return Node(kind, data, tuple(links), size)


def _link(data: bytes) -> Link:
    name, cid = b"", None
    for number, value in fields(data):
        if number == 1 and isinstance(value, bytes):
            cid, rest = read_cid(value)
            if rest:
                raise ValueError("a link with a wrong CID")
        elif number == 2 and isinstance(value, bytes):
            name = value
    if cid is None:
        raise ValueError("a link without a CID")
    return Link(name, cid)


def _in_shards(node: Node, name: bytes, blocks: Blocks) -> Cid | None:
    """Look `name` up in a sharded folder: a trie over the hash of the names, `fanout` children a level."""
    code = murmur3(name)
    left = 64
    while True:
        bits = node.fanout.bit_length() - 1
        if node.hash_type != _MURMUR3 or not 3 <= bits <= 12 or node.fanout != 1 << bits:
            raise ContentError("the ipfs folder is sharded in an unknown way")
        left -= bits
        if left < 0:
            return None
        slot = code >> left & (node.fanout - 1)
        prefix = b"%0*X" % (len(f"{node.fanout - 1:X}"), slot)
        deeper = None
        for link in node.links:
            if link.name == prefix + name:
                return link.cid
            if link.name == prefix:
                deeper = link.cid
        if deeper is None:
            return None
        node = read_node(deeper, blocks(deeper))
        if node.kind != _SHARD:
            raise ContentError("the ipfs folder is sharded in an unknown way")


def murmur3(data: bytes) -> int:
    """The first 64 bits of MurmurHash3 x64-128 with seed 0 (A. Appleby), as sharded folders use it."""
    c1, c2 = 0x87C37B91114253D5, 0x4CF5AD432745937F
    h1 = h2 = 0
    whole = len(data) // 16 * 16
    for at in range(0, whole, 16):
        k1, k2 = (int.from_bytes(data[at + part : at + part + 8], "little") for part in (0, 8))
        h1 ^= _rotated(k1 * c1 & _MASK, 31) * c2 & _MASK
        h1 = ((_rotated(h1, 27) + h2) * 5 + 0x52DCE729) & _MASK
        h2 ^= _rotated(k2 * c2 & _MASK, 33) * c1 & _MASK
        h2 = ((_rotated(h2, 31) + h1) * 5 + 0x38495AB5) & _MASK
    tail = data[whole:]
    k1, k2 = int.from_bytes(tail[:8], "little"), int.from_bytes(tail[8:], "little")
    h2 ^= _rotated(k2 * c2 & _MASK, 33) * c1 & _MASK
    h1 ^= _rotated(k1 * c1 & _MASK, 31) * c2 & _MASK
    h1, h2 = h1 ^ len(data), h2 ^ len(data)
    h1 = (h1 + h2) & _MASK
    h2 = (h2 + h1) & _MASK
    return (_mixed(h1) + _mixed(h2)) & _MASK


def _rotated(number: int, bits: int) -> int:
    return (number << bits | number >> (64 - bits)) & _MASK


def _mixed(number: int) -> int:
    number = (number ^ number >> 33) * 0xFF51AFD7ED558CCD & _MASK
    number = (number ^ number >> 33) * 0xC4CEB9FE1A85EC53 & _MASK
    return number ^ number >> 33
