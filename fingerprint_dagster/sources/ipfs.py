"""IPFS content identifiers (CIDs): what they promise about the bytes behind them.

Formats: https://github.com/multiformats/cid, /multibase and /multihash.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
_RAW = 0x55
_DAG_PB = 0x70
_SHA2_256 = 0x12


@dataclass(frozen=True)
class Cid:
    """A parsed CID. version: 0 or 1. codec, hash_code: multicodec numbers. digest: the hash in it."""

    version: int
    codec: int
    hash_code: int
    digest: bytes

    @property
    def sha256(self) -> str | None:
        """The SHA-256 (hexadecimal) of the content's own bytes, where the CID holds it: codec raw, hash sha2-256.

        Of other CIDs the hash is that of a tree node around the bytes, which a plain download cannot check.
        """
        return self.digest.hex() if (self.codec, self.hash_code) == (_RAW, _SHA2_256) else None


def parse_cid(text: str) -> Cid:
    """The CID that `text` writes: version 0, or version 1 in base 16, 32, 36 or 58. Raises ValueError if it is none."""
    if len(text) == 46 and text.startswith("Qm"):
        version, codec, rest = 0, _DAG_PB, _from_base(text, _BASE58)
    else:
        data = _multibase(text)
        version, data = _varint(data)
        codec, rest = _varint(data)
        if version != 1:
            raise ValueError(f"CID version {version} is unknown")
    hash_code, rest = _varint(rest)
    length, digest = _varint(rest)
    if len(digest) != length or not length:
        raise ValueError("the hash in the CID has the wrong length")
    return Cid(version, codec, hash_code, digest)


def _multibase(text: str) -> bytes:
    prefix, digits = text[:1], text[1:]
    if prefix in ("b", "B"):
        if digits != (digits.lower() if prefix == "b" else digits.upper()):
            raise ValueError("a base-32 CID mixes upper and lower case")
        return base64.b32decode(digits.upper() + "=" * (-len(digits) % 8))
    if prefix in ("f", "F"):
        return bytes.fromhex(digits)
    if prefix == "z":
        return _from_base(digits, _BASE58)
    if prefix in ("k", "K"):
        return _from_base(digits.lower(), _BASE36)
    raise ValueError("not a CID")


def _from_base(digits: str, alphabet: str) -> bytes:
    if len(digits) > 200:  # a CID is some 60 digits long; the arithmetic below is quadratic
        raise ValueError("too long for a CID")
    number = 0
    for digit in digits:
        number = number * len(alphabet) + alphabet.index(digit)
    zeros = len(digits) - len(digits.lstrip(alphabet[0]))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")


def _varint(data: bytes) -> tuple[int, bytes]:
    """The first unsigned LEB128 number of `data`, and what follows it."""
    number = 0
    for place, byte in enumerate(data[:9]):
        number |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return number, data[place + 1 :]
    raise ValueError("the CID ends too early")
