"""A value with what proves it whole, for memos that keep it where others have their hands on it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import xxhash

_LAYOUT = struct.Struct("<4s16s16sdQ")
_MAGIC = b"FPM1"
HEADER_BYTES = _LAYOUT.size
"""The bytes at the front of a sealed value that say everything but the value itself."""


@dataclass(frozen=True)
class Header:
    """stage: whose value it is. created: seconds since 1970. size: of the value, in bytes. digest: XXH3, 128 bits."""

    stage: str
    created: float
    size: int
    digest: bytes


def seal(stage: str, created: float, value: bytes) -> bytes:
    """The header and the value. stage: at most 16 ASCII letters."""
    return _LAYOUT.pack(_MAGIC, xxhash.xxh3_128_digest(value), stage.encode(), created, len(value)) + value


def read_header(data: bytes) -> Header | None:
    """The header at the front of `data`; None where there is none."""
    if len(data) < HEADER_BYTES:
        return None
    magic, digest, stage, created, size = _LAYOUT.unpack_from(data)
    return Header(stage.rstrip(b"\0").decode(errors="replace"), created, size, digest) if magic == _MAGIC else None


def unseal(data: bytes) -> tuple[Header, bytes] | None:
    """The header and the value; None where a byte of it is missing or another than was sealed."""
    header = read_header(data)
    value = data[HEADER_BYTES:]
    if header is None or header.size != len(value) or xxhash.xxh3_128_digest(value) != header.digest:
        return None
    return header, value
