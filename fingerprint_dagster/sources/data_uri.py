"""`data:` uris (RFC 2397): the content is in the address."""

from __future__ import annotations

import binascii
from urllib.parse import unquote_to_bytes

from fingerprint_dagster.errors import ContentError


def read(uri: str, max_bytes: int) -> bytes:
    """The bytes in a data uri. Raises ContentError where they are no base64, or more than `max_bytes`."""
    about, _, text = uri.partition(":")[2].partition(",")
    data = unquote_to_bytes(text)
    if about.lower().endswith(";base64"):
        try:
            # Padding may be missing, and the alphabet for addresses is as good.
            plain = b"".join(data.split()).rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
            data = binascii.a2b_base64(plain + b"=" * (-len(plain) % 4), strict_mode=True)
        except binascii.Error:
            raise ContentError("the data uri says base64 and is none") from None
    if len(data) > max_bytes:
        raise ContentError(f"too large: {len(data)} bytes, allowed are {max_bytes}")
    return data
