"""Archives of IPFS blocks (CAR version 1): where in the file each block lies.

Format: https://ipld.io/specs/transport/car/carv1/
"""

from __future__ import annotations

from typing import BinaryIO

from fingerprint_dagster.sources.ipfs import read_cid

MAX_BLOCK = 4 << 20
"""Bytes of one block at most; IPFS itself moves none above 2 MiB."""

_MAX_BLOCKS = 1 << 20
_MAX_CID = 256


Multihash = tuple[int, bytes]
"""(hash function, digest): what names a block, whatever version its CID has."""


def index(file: BinaryIO) -> dict[Multihash, tuple[int, int]]:
    """Multihash -> (offset, length) of the blocks in a CAR, as far as it can be read. None of them is verified.

    A CAR that breaks off or turns into something else gives the blocks before that: the others are missing, and who
    needs them will notice.
    """
    found: dict[Multihash, tuple[int, int]] = {}
    end = file.seek(0, 2)
    file.seek(0)
    header = _section(file)
    if header is None:
        return found
    file.seek(header, 1)
    while len(found) < _MAX_BLOCKS:
        length = _section(file)
        if length is None:
            break
        start = file.tell()
        beginning = file.read(min(length, _MAX_CID))
        try:
            cid, rest = read_cid(beginning)
        except ValueError:
            break
        taken = len(beginning) - len(rest)
        if start + length > end or length - taken > MAX_BLOCK:
            break
        found.setdefault((cid.hash_code, cid.digest), (start + taken, length - taken))
        file.seek(start + length)
    return found


def _section(file: BinaryIO) -> int | None:
    """The length that begins a section; None at the end of the file and where it is no length."""
    number = shift = 0
    while shift < 35:
        byte = file.read(1)
        if not byte:
            return None
        number |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return number or None
        shift += 7
    return None
