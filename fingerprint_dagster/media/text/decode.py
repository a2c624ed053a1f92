"""Bytes to text: what is text at all, in which encoding, and what of HTML is meant to be read."""

from __future__ import annotations

import codecs
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from fingerprint_dagster.content import Value
from fingerprint_dagster.errors import ContentError

MAX_BYTES = 100 * 1024**2
"""The largest text file that is decoded."""
MAX_HTML_BYTES = 20 * 1024**2
"""The largest HTML file that is decoded: its parser takes about a second for 3 MB."""

_SAMPLE_BYTES = 16 * 1024  # what the encoding is guessed from; more makes the guess slow and no better
_MIN_GUESSED_BYTES = 16  # of fewer, any bytes look like a text in some encoding
_HEAD_BYTES = 4096
_ASCII = bytes(range(128))

_MARKS = (  # byte-order marks, the longer of those with the same beginning first
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Document formats that are written in characters but are no text to read.
_DOCUMENTS = (b"%PDF-", b"%!PS", b"{\\rtf")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")  # all but white space and the escape of terminal colours
_CONTROL_BYTES = re.compile(_CONTROL.pattern.encode())
_HTML = re.compile(r"<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_SVG = re.compile(r"<(?:\w+:)?svg\b", re.IGNORECASE)
_PROLOGUE = re.compile(r"(?:\s|<\?.*?\?>|<!--.*?-->|<!doctype\s+svg[^>]*>)*", re.IGNORECASE | re.DOTALL)
# <meta charset=...>, <meta ... content="text/html; charset=...">, <?xml ... encoding="...">
_DECLARED = re.compile(
    rb"<(?:meta\b[^>]*?\bcharset|\?xml\b[^>]*?\bencoding)\s*=\s*[\"']?\s*([\w.:-]{2,40})", re.IGNORECASE
)


def sniff(head: bytes) -> str | None:
    """`text/html` or `text/plain` if the bytes that begin with `head` are text, else None.

    Text has no control characters but white space, and is UTF-8, is UTF-16 or UTF-32 (with a byte-order mark, or
    UTF-16 with mostly Latin letters), or is recognised by charset-normalizer as another encoding.
    """
    head = head[:_HEAD_BYTES]
    if not head or head.startswith(_DOCUMENTS):
        return None
    encoding = _encoding(head, whole=False)
    if encoding is None:
        return None
    text = _decoded(head, encoding, whole=False)
    if text is None or _CONTROL.search(text):
        return None
    start = _PROLOGUE.match(text).end()  # type: ignore[union-attr]  # it matches emptiness, too
    if _SVG.match(text, start):
        return None
    return "text/html" if _HTML.match(text, start) else "text/plain"


def decode(path: Path) -> Value:
    """The text in the file: arrays {"text": uint8, its UTF-8}, info {"encoding", "characters", "media"}.

    Of HTML it is the text between the tags, without scripts, styles and navigation. Raises ContentError for a file
    over `MAX_BYTES` (HTML: `MAX_HTML_BYTES`), for bytes that are not text and for a text without a single word.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ContentError(f"too large: {size} bytes of text, allowed are {MAX_BYTES}")
    data = path.read_bytes()
    if not data.strip():
        raise ContentError("empty text")
    media = sniff(data[:_HEAD_BYTES])
    encoding = _encoding(data, whole=True) if media else None
    if media is None or encoding is None:
        raise ContentError("not text: binary data, or a text in an unknown encoding")
    if media == "text/html" and size > MAX_HTML_BYTES:
        raise ContentError(f"too large: {size} bytes of HTML, allowed are {MAX_HTML_BYTES}")
    text = data.decode(encoding, "replace")
    if len(_CONTROL.findall(text)) + text.count("\ufffd") > len(text) // 100:
        raise ContentError("not text: it begins like text, but holds binary data")
    if media == "text/html":
        text = html_text(text)
    if not any(map(str.isalnum, text)):
        raise ContentError("empty text: not a single letter or digit")
    stored = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
    return Value({"text": stored}, {"encoding": encoding, "characters": len(text), "media": media})


def text_of(decoded: Value) -> str:
    """The text that `decode` stored."""
    return decoded.arrays["text"].tobytes().decode("utf-8")


def html_text(html: str) -> str:
    """What a reader of the HTML page sees, roughly: the text between the tags, a line break where a block ends."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return re.sub(r"\s*\n\s*", "\n", "".join(reader.pieces)).strip()


class _Reader(HTMLParser):
    """Collects in `pieces` the text outside the elements that are not read."""

    _SKIPPED = frozenset({"script", "style", "nav", "template", "noscript", "svg", "title"})
    _INLINE = frozenset(
        "a abbr b bdi bdo big cite code data del dfn em font i ins kbd mark q s samp small span strong sub sup "  # noqa: SIM905
        "time tt u var wbr".split()
    )

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._skipping: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self._SKIPPED:
            self._skipping.append(tag)
        self._break_at(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._break_at(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._skipping:  # it ends what was opened inside it, too
            del self._skipping[self._skipping.index(tag) :]
        self._break_at(tag)

    def handle_data(self, data: str) -> None:
        if not self._skipping:
            self.pieces.append(data)

    def _break_at(self, tag: str) -> None:
        if tag not in self._INLINE:
            self.pieces.append("\n")


def _encoding(data: bytes, *, whole: bool) -> str | None:
    """The name of the encoding of `data`, the whole of a text or only its beginning; None where it is no text."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding
    if b"\0" in data[:_HEAD_BYTES]:
        return _utf_16(data[:_HEAD_BYTES])
    if _decoded(data, "utf-8", whole=whole) is not None:
        return "utf-8"
    if _CONTROL_BYTES.search(data[:_HEAD_BYTES]):
        return None
    return _declared(data) or _guessed(data)


def _decoded(data: bytes, encoding: str, *, whole: bool) -> str | None:
    """`data` as text, None if it does not fit; what is not the whole may end inside a character."""
    try:
        return codecs.getincrementaldecoder(encoding)().decode(data, final=whole)
    except UnicodeError:
        return None


def _utf_16(head: bytes) -> str | None:
    """UTF-16 without a mark, known by the zero bytes of its Latin letters, spaces and digits: all at one side."""
    zeros = [head[side::2].count(0) for side in (0, 1)]
    few, many = sorted(zeros)
    if few > 0 or many < len(head) // 2 * 0.7:
        return None
    return "utf-16-le" if zeros[1] else "utf-16-be"


def _declared(data: bytes) -> str | None:
    """The encoding that an HTML or XML file itself names, if Python knows it and it fits."""
    found = _DECLARED.search(data, 0, _HEAD_BYTES)
    if found is None:
        return None
    name = found[1].decode("ascii").lower()
    try:
        if not codecs.lookup(name)._is_text_encoding or name.startswith(("utf-16", "utf-32", "utf-7")):
            return None
    except LookupError:
        return None
    return name if _decoded(data[:_SAMPLE_BYTES], name, whole=False) is not None else None


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
