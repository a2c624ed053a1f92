"""IPNS records: what a name that is a key stands for, signed by that key.

Format: https://specs.ipfs.tech/ipns/ipns-record/
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.sources.ipfs import IDENTITY, LIBP2P_KEY, Cid, from_base58, parse_cid, read_cid, varint
from fingerprint_dagster.sources.protobuf import fields

MAX_RECORD = 10 << 10
"""Bytes of a record at most, by the specification."""

_ED25519 = 1
_SIGNED = b"ipns-signature:"


def parse_name(text: str) -> Cid | None:
    """The key that an ipns name is, as a CID of its multihash; None where it is no key (but perhaps a domain)."""
    try:
        if text.startswith("1"):  # a bare multihash in base 58: no CID, but older and still common
            return read_cid(varint(1) + varint(LIBP2P_KEY) + from_base58(text))[0]
        return parse_cid(text)
    except ValueError:
        return None


def read_record(name: Cid, record: bytes, gateway: str, *, now: datetime | None = None) -> str:
    """The path (`/ipfs/CID...`) that the record gives, once its signature and its end are checked.

    name: the key that must have signed it. gateway: who sent it, for messages. now: default: the time it is.
    Raises ContentError: for keys other than Ed25519, too, and where the package cryptography is missing.
    """
    key = _public_key(name)
    try:
        parts = {number: value for number, value in fields(record) if isinstance(value, bytes)}
        signature, data = parts[8], parts[9]
        said, rest = _cbor(data)
        if rest or not isinstance(said, dict):
            raise ValueError("no map")
        value, validity, kind = said["Value"], said["Validity"], said["ValidityType"]
        if not isinstance(value, bytes) or not isinstance(validity, bytes):
            raise ValueError("no bytes")
        end = datetime.fromisoformat(_microseconds(validity.decode("ascii")))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ContentError(f"{gateway} sent no valid ipns record", retryable=True) from None
    if not _is_signed(key, signature, _SIGNED + data):
        raise ContentError(f"{gateway} sent an ipns record that its key did not sign", retryable=True)
    if kind != 0 or end.astimezone(UTC) < (now or datetime.now(UTC)):
        raise ContentError(f"{gateway} sent an ipns record that is out of date", retryable=True)
    return value.decode("utf-8", "replace")


def _public_key(name: Cid) -> bytes:
    unsupported = ContentError("the ipns name is no Ed25519 key; its record cannot be verified")
    if name.hash_code != IDENTITY:  # a hash of a longer key, RSA for example
        raise unsupported
    try:
        parts = dict(fields(name.digest))
    except ValueError:
        raise unsupported from None
    key = parts.get(2)
    if parts.get(1) != _ED25519 or not isinstance(key, bytes) or len(key) != 32:
        raise unsupported
    return key


def _is_signed(key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ModuleNotFoundError:
        raise ContentError("verifying ipns names needs the package cryptography: pip install cryptography") from None
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _microseconds(text: str) -> str:
    """The RFC 3339 time with at most six digits after the point: all that datetime takes."""
    before, point, after = text.rstrip("Z").partition(".")
    return f"{before}{point}{after[:6]}+00:00"


def _cbor(data: bytes) -> tuple[Any, bytes]:
    """The first item of `data` in the part of CBOR (RFC 8949) that records use, and what follows it."""
    if not data:
        raise ValueError("an item is missing")
    kind, low = data[0] >> 5, data[0] & 31
    wide = {24: 1, 25: 2, 26: 4, 27: 8}.get(low, 0)
    if low > 27 or len(data) < 1 + wide:
        raise ValueError("an item of an unknown kind")
    number = int.from_bytes(data[1 : 1 + wide], "big") if wide else low
    rest = data[1 + wide :]
    if kind == 0:
        return number, rest
    if kind == 1:
        return -1 - number, rest
    if kind in (2, 3):
        if number > len(rest):
            raise ValueError("an item ends too early")
        text = rest[:number]
        return (text if kind == 2 else text.decode("utf-8")), rest[number:]
    if kind == 5:
        found: dict[Any, Any] = {}
        for _ in range(number):
            key, rest = _cbor(rest)
            found[key], rest = _cbor(rest)
        return found, rest
    raise ValueError("an item of an unknown kind")
