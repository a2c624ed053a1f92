"""Bytes to text: what is text at all, and the text of it that is meant to be read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fingerprint_dagster.content import Value
from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.media.text import charset, documents, pdf, subtitles
from fingerprint_dagster.media.text.markup import html_text

EXTENSIONS = frozenset(
    ".txt .text .md .markdown .rst .adoc .org .log .csv .tsv .json .jsonl .xml .yaml .yml .toml .ini .tex "  # noqa: SIM905
    ".html .htm .xhtml .srt .vtt .pdf .docx .docm .dotx .odt .ott .epub .rtf "
    ".py .pyi .js .mjs .jsx .ts .tsx .java .kt .scala .c .h .cc .cpp .hpp .cs .go .rs .rb .php .pl .lua .r "
    ".jl .swift .sh .sql .css .scss .vue".split()
)
"""The endings of the names of text files. What a file is, is told by its bytes alone."""

MAX_BYTES = 100 * 1024**2
"""The largest plain text, HTML, RTF or subtitle file that is decoded."""
MAX_DOCUMENT_BYTES = 1024**3
"""The largest PDF, Word, OpenDocument or EPUB file: most of it may be pictures."""
MAX_CHARACTERS = 20_000_000
"""The longest text: ten times "War and Peace" and more."""

PDF, RTF, HTML, PLAIN = "application/pdf", "application/rtf", "text/html", "text/plain"

_HTML = re.compile(r"<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_SVG = re.compile(r"<(?:\w+:)?svg\b", re.IGNORECASE)
_PROLOGUE = re.compile(r"(?:\s|<\?.*?\?>|<!--.*?-->|<!doctype\s+svg[^>]*>)*", re.IGNORECASE | re.DOTALL)
# Beginnings of what is no text to read, or cannot be opened, with the reason for it.
_OTHER: Mapping[bytes, str] = {
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "not text: an old Office document, or a new one with a password;"
    " save it as DOCX without a password",
    b"%!PS": "not text: PostScript; convert it to PDF",
    b"PK\x03\x04": "not text: an archive, or a document of another kind than DOCX, ODT and EPUB",
    b"PK\x05\x06": "not text: an empty archive",
}


def sniff(head: bytes) -> str | None:
    """The media type of the text or document that begins with `head`, else None.

    Documents (PDF, DOCX, ODT, EPUB, RTF) are known by their signatures. Text has no control characters but white
    space, and is UTF-8, UTF-16, UTF-32, or recognised by charset-normalizer as another encoding; HTML and subtitles
    are told from plain text by how they begin.
    """
    head = head[: charset.HEAD_BYTES]
    if head.startswith(b"%PDF-"):
        return PDF
    if head.startswith(b"{\\rtf"):
        return RTF
    if head.startswith(b"PK\x03\x04"):
        return documents.sniff_zip(head)
    if not head or head.startswith(tuple(_OTHER)):
        return None
    encoding = charset.encoding_of(head, whole=False)
    text = charset.decoded(head, encoding, whole=False) if encoding else None
    if text is None or charset.CONTROL.search(text):
        return None
    start = _PROLOGUE.match(text).end()  # type: ignore[union-attr]  # it matches emptiness, too
    if _SVG.match(text, start):
        return None
    return HTML if _HTML.match(text, start) else subtitles.sniff(text) or PLAIN


def decode(path: Path) -> Value:
    """The text in the file, as a reader sees it and before any normalising.

    arrays: "text", uint8, the text in UTF-8. Where the text has pages (PDF), chapters (EPUB) or cues (subtitles),
        "parts", int32 [n], the character at which each begins; of cues also "times", float64 [n, 2], in seconds.
    info: "media", the media type; "encoding", None for documents; "characters", the length of the text; "flags", what
        is odd about it: "mixed encoding", "damaged characters", "control characters".

    Of HTML it is the main text, without menus and side bars. Raises ContentError for a file or a text over the limits,
    for what is not text or is damaged, for documents with a password, for ZIP and XML bombs, and for a text without a
    single letter or digit.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(charset.HEAD_BYTES)
    media = sniff(head)
    document = media in (PDF, documents.DOCX, documents.ODT, documents.EPUB)
    allowed = MAX_DOCUMENT_BYTES if document else MAX_BYTES
    if size > allowed:
        raise ContentError(f"too large: {size} bytes, allowed are {allowed}; split the text")
    arrays: dict[str, np.ndarray] = {}
    encoding: str | None = None
    flags: list[str] = []
    if media == PDF:
        text = _joined(pdf.pdf_pages(path, MAX_CHARACTERS), arrays)
    elif media == documents.EPUB:
        text = _joined(documents.epub_chapters(path), arrays)
    elif media == documents.DOCX:
        text = documents.docx_text(path)
    elif media == documents.ODT:
        text = documents.odt_text(path)
    elif media == RTF:
        text = documents.rtf_text(path.read_bytes())
    else:
        text, encoding, flags = _plain(path.read_bytes(), media)
        if media == HTML:
            text = html_text(text)
        elif media is not None and media != PLAIN:
            text, arrays["parts"], arrays["times"] = subtitles.subtitle_text(text)
    if not any(map(str.isalnum, text)):
        raise ContentError(_empty(media))
    length = _unfolded_length(text)
    if length > MAX_CHARACTERS:
        raise ContentError(f"too long: {length} characters, allowed are {MAX_CHARACTERS}; split the text")
    stored = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
    info = {"media": media, "encoding": encoding, "characters": len(text), "flags": flags}
    return Value({"text": stored, **arrays}, info)


def text_of(decoded: Value) -> str:
    """The text that `decode` stored."""
    return decoded.arrays["text"].tobytes().decode("utf-8")


def _plain(data: bytes, media: str | None) -> tuple[str, str, list[str]]:
    """The text of bytes that are characters, the name of their encoding, and what is odd about them."""
    if not data.strip():
        raise ContentError("empty text")
    for beginning, reason in _OTHER.items():
        if data.startswith(beginning):
            raise ContentError(reason)
    encoding = charset.encoding_of(data, whole=True) if media else None
    if encoding is None:
        raise ContentError("not text: binary data, or a text in an unknown encoding")
    text = charset.text_in(data, encoding)
    damaged, controls = text.count("\ufffd"), len(charset.CONTROL.findall(text))
    if damaged + controls > len(text) // 100:
        raise ContentError("not text: it begins like text, but holds binary data")
    odd = {"mixed encoding": encoding == charset.MIXED, "damaged characters": damaged, "control characters": controls}
    return text, encoding, [flag for flag, there in odd.items() if there]


def _unfolded_length(text: str) -> int:
    """How many characters there are once ligatures stand for all they mean, where that could be too many.

    The longest ligature, U+FDFA, becomes 18 characters, and three words.
    """
    if text.isascii() or len(text) <= MAX_CHARACTERS // 18:
        return len(text)
    block = 1 << 20
    pieces = (text[start : start + block] for start in range(0, len(text), block))
    return max(len(text), sum(len(unicodedata.normalize("NFKC", piece)) for piece in pieces))


def _joined(parts: list[str], arrays: dict[str, np.ndarray]) -> str:
    """The pages or chapters as one text, a line end between them; where each begins goes into `arrays`."""
    lengths = np.array([len(part) + 1 for part in parts], np.int64)
    arrays["parts"] = (np.cumsum(lengths) - lengths).astype(np.int32)
    return "\n".join(parts)


def _empty(media: str | None) -> str:
    if media == PDF:
        return "empty text: the PDF has no text, perhaps only pictures of it (a scan); recognise its text (OCR) first"
    return "empty text: not a single letter or digit"
