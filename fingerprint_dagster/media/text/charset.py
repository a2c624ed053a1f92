"""In which encoding the bytes of a text are, and the text that they are."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter

HEAD_BYTES = 4096

_SAMPLE_BYTES = 16 * 1024  # what the encoding is guessed from; more makes the guess slow and no better
_MIN_GUESSED_BYTES = 16  # of fewer, any bytes look like a text in some encoding
_ASCII = bytes(range(128))
_PRINTABLE = bytes([0, 9, 10, 13, *range(32, 127)])
_LINES = dict.fromkeys(map(ord, "\t\n\r"))

_MARKS = (  # byte-order marks, the longer of those with the same beginning first
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
"""All control characters but white space and the escape of terminal colours."""
_CONTROL_BYTES = re.compile(CONTROL.pattern.encode())
# <meta charset=...>, <meta ... content="text/html; charset=...">, <?xml ... encoding="...">
_DECLARED = re.compile(
    rb"<(?:meta\b[^>]*?\bcharset|\?xml\b[^>]*?\bencoding)\s*=\s*[\"']?\s*([\w.:-]{2,40})", re.IGNORECASE
)
# High bytes of the UTF-16 units of one writing: Latin, Greek, Cyrillic and their marks; Chinese, Japanese; Korean.
_WRITINGS = (
    range(0x06),
    range(0x06, 0x08),
    range(0x09, 0x10),
    (0x30, *range(0x4E, 0xA0), 0xFF),
    range(0xAC, 0xD8),
)
_SPACED_WRITINGS = _WRITINGS[:3]

MIXED = "utf-8 with windows-1252"
"""What `encoding_of` calls UTF-8 into which pieces of Windows' Western encoding were pasted."""


def encoding_of(data: bytes, *, whole: bool) -> str | None:
    """The name of the encoding of `data`, the whole of a text or only its beginning; None where it is no text.

    A byte-order mark decides; else zero bytes tell UTF-16 and UTF-32, and UTF-8 is what is valid UTF-8. Of the rest
    a declaration in HTML or XML is believed if it fits, and charset-normalizer guesses.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding
    if b"\0" in data[:HEAD_BYTES]:
        return _wide(data[:HEAD_BYTES])
    if decoded(data, "utf-8", whole=whole) is not None:
        return "utf-8"
    if _CONTROL_BYTES.search(data[:HEAD_BYTES]):
        return None
    if _mostly_utf_8(data):
        return MIXED
    return _declared(data) or _guessed(data)


def decoded(data: bytes, encoding: str, *, whole: bool) -> str | None:
    """`data` as text, None if it does not fit; what is not the whole may end inside a character."""
    if encoding == MIXED:
        return text_in(data, encoding)
    try:
        return codecs.getincrementaldecoder(encoding)().decode(data, final=whole)
    except UnicodeError:
        return None


def text_in(data: bytes, encoding: str) -> str:
    """`data` as text; what does not fit the encoding becomes U+FFFD."""
    if encoding == MIXED:
        return data.decode("utf-8", "fingerprint_windows_1252")
    return data.decode(encoding, "replace")


def _windows_1252(error: UnicodeError) -> tuple[str, int]:
    """The bytes that are no UTF-8, read as Windows-1252."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


codecs.register_error("fingerprint_windows_1252", _windows_1252)


def _mostly_utf_8(data: bytes) -> bool:
    """Whether more characters outside ASCII are valid UTF-8 than not: by chance, bytes of no encoding are."""
    text = data.decode("utf-8", "replace")
    invalid = text.count("\ufffd")
    return len(text) - len(text.encode("ascii", "ignore")) > 2 * invalid


def _wide(head: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark, known by where its zero bytes stand."""
    zeros = [head[place::4].count(0) for place in range(4)]
    quarter = len(head) // 4
    if quarter and zeros[2] >= quarter and zeros[3] >= quarter:
        return "utf-32-le"
    if quarter and zeros[0] >= quarter and zeros[1] >= quarter:
        return "utf-32-be"
    even, odd = zeros[0] + zeros[2], zeros[1] + zeros[3]
    few, many = sorted((even, odd))
    if few == 0 and many >= len(head) // 2 * 0.7:  # mostly Latin letters
        return "utf-16-le" if odd else "utf-16-be"
    return next((encoding for encoding in ("utf-16-le", "utf-16-be") if _plausible(head, encoding)), None)


def _plausible(head: bytes, encoding: str) -> bool:
    """Whether UTF-16 without many Latin letters is text: assigned characters, all of one writing or ASCII."""
    if len(head) % 2 or len(head.translate(None, _PRINTABLE)) < len(head) // 10:  # two ASCII letters make a Han one
        return False
    text = decoded(head, encoding, whole=False)
    if text is None or any(
        unicodedata.category(character) in ("Cc", "Cn", "Co") for character in text.translate(_LINES)
    ):
        return False
    high = Counter(ord(character) >> 8 for character in text if ord(character) > 0x7F)
    has_spaces = len(text.split()) > len(text) // 64  # any two-byte numbers below 0x600 would do as letters
    return any(
        sum(high[byte] for byte in (*writing, 0x20)) >= 0.95 * high.total()
        for writing in _WRITINGS
        if has_spaces or writing not in _SPACED_WRITINGS
    )


def _declared(data: bytes) -> str | None:
    """The encoding that an HTML or XML file itself names, if Python knows it and it fits."""
    found = _DECLARED.search(data, 0, HEAD_BYTES)
    if found is None:
        return None
    name = found[1].decode("ascii").lower()
    try:
        if not codecs.lookup(name)._is_text_encoding or name.startswith(("utf-16", "utf-32", "utf-7")):
            return None
    except LookupError:
        return None
    return name if decoded(data[:_SAMPLE_BYTES], name, whole=False) is not None else None


def _guessed(data: bytes) -> str | None:
    """charset-normalizer's guess, from a sample around the first byte that is not ASCII."""
    if len(data) < _MIN_GUESSED_BYTES:
        return None
    from charset_normalizer import from_bytes

    first = len(data) - len(data.lstrip(_ASCII))
    start = max(0, data.rfind(b"\n", 0, first), first - _SAMPLE_BYTES // 2)
    sample = data[start : start + _SAMPLE_BYTES]
    for cut in range(4):  # where the sample ends inside a character, no encoding fits until that is cut off
        best = from_bytes(sample[: len(sample) - cut]).best()
        if best is not None:
            return best.encoding
    return None
