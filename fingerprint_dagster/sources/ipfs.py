"""IPFS content identifiers (CIDs): what they promise about the bytes behind them.

Formats: https://github.com/multiformats/cid, /multibase and /multihash.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
RAW = 0x55
DAG_PB = 0x70
LIBP2P_KEY = 0x72
IDENTITY = 0x00
_SHA2_256 = 0x12
_BLAKE3 = 0x1E
# Hash functions that nobody knows how to deceive; neither SHA-1 nor anything shorter than 256 bits is among them.
_HASHES: dict[int, Callable[[], hashlib._Hash]] = {
    _SHA2_256: hashlib.sha256,
    0x13: hashlib.sha512,
    0x14: hashlib.sha3_512,
    0x16: hashlib.sha3_256,
    0xB220: lambda: hashlib.blake2b(digest_size=32),  # type: ignore[dict-item, return-value]
}


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
        return self.digest.hex() if (self.codec, self.hash_code) == (RAW, _SHA2_256) else None

    @property
    def text(self) -> str:
        """The CID as text: version 0 in base 58, version 1 in base 32."""
        code = varint(self.hash_code) + varint(len(self.digest)) + self.digest
        if self.version == 0:
            return _to_base58(code)
        return "b" + base64.b32encode(varint(1) + varint(self.codec) + code).decode().rstrip("=").lower()

    def vouches_for(self, block: bytes) -> bool:
        """Whether these are the bytes that the CID names. Raises ValueError for a hash function that is not known."""
        if self.hash_code == IDENTITY:
            return self.digest == block
        hasher = new_hash(self)
        hasher.update(block)
        return hmac.compare_digest(hasher.digest(), self.digest)


def new_hash(cid: Cid) -> hashlib._Hash:
    """A hash object of the CID's function. Raises ValueError where it is not known or its digest was shortened."""
    hasher: hashlib._Hash
    if cid.hash_code == _BLAKE3:
        try:
            from blake3 import blake3
        except ModuleNotFoundError:
            raise ValueError("a CID with a BLAKE3 hash needs the package blake3: pip install blake3") from None
        hasher = blake3()  # type: ignore[assignment]
    elif cid.hash_code in _HASHES:
        hasher = _HASHES[cid.hash_code]()
    else:
        raise ValueError(f"the hash function {cid.hash_code:#x} of the CID is not supported")
    if hasher.digest_size != len(cid.digest):
        raise ValueError("the hash in the CID was shortened; it vouches for too little")
    return hasher


def parse_cid(text: str) -> Cid:
    """The CID that `text` writes: version 0, or version 1 in base 16, 32, 36 or 58. Raises ValueError if it is none."""
    data = _from_base(text, _BASE58) if len(text) == 46 and text.startswith("Qm") else _multibase(text)
    cid, rest = read_cid(data)
    if rest:
        raise ValueError("the hash in the CID has the wrong length")
    return cid


def read_cid(data: bytes) -> tuple[Cid, bytes]:
    """The CID at the beginning of `data`, in its binary form, and what follows it. Raises ValueError."""
    if data[:2] == b"\x12\x20":  # a bare SHA-256 multihash: version 0
        version, codec, rest = 0, DAG_PB, data
    else:
        version, rest = read_varint(data)
        codec, rest = read_varint(rest)
        if version != 1:
            raise ValueError(f"CID version {version} is unknown")
    hash_code, rest = read_varint(rest)
    length, rest = read_varint(rest)
    if len(rest) < length or not length or length > 128:
        raise ValueError("the hash in the CID has the wrong length")
    return Cid(version, codec, hash_code, rest[:length]), rest[length:]


def read_varint(data: bytes) -> tuple[int, bytes]:
    """The first unsigned LEB128 number of `data`, and what follows it. Raises ValueError."""
    number = 0
    for place, byte in enumerate(data[:9]):
        number |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return number, data[place + 1 :]
    raise ValueError("the number ends too early")


def varint(number: int) -> bytes:
    """The unsigned LEB128 form of a number."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def from_base58(text: str) -> bytes:
    """The bytes that `text` writes in base 58, as Bitcoin does. Raises ValueError."""
    return _from_base(text, _BASE58)


def _multibase(text: str) -> bytes:
    prefix, digits = text[:1], text[1:]
    if len(digits) > 400:
        raise ValueError("too long for a CID")
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
    if len(digits) > 400:  # a CID is some 60 digits long; the arithmetic below is quadratic
        raise ValueError("too long for a CID")
    number = 0
    for digit in digits:
        number = number * len(alphabet) + alphabet.index(digit)
    zeros = len(digits) - len(digits.lstrip(alphabet[0]))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")


def _to_base58(data: bytes) -> str:
    number, digits = int.from_bytes(data, "big"), ""
    while number:
        number, rest = divmod(number, 58)
        digits = _BASE58[rest] + digits
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + digits
