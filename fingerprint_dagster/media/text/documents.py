"""Documents in ZIP archives (Word, OpenDocument, EPUB) and in rich text (RTF).

An archive may be a trap: a few kilobytes that unpack to terabytes, or XML whose entities multiply. Only the entries
that hold text are unpacked, never more than `MAX_UNPACKED_BYTES` in all, and defusedxml refuses entities.
"""

from __future__ import annotations

import lzma
import posixpath
import re
import struct
import urllib.parse
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.media.text.charset import encoding_of, text_in
from fingerprint_dagster.media.text.markup import html_text

DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
ODT = "application/vnd.oasis.opendocument.text"
EPUB = "application/epub+zip"

MAX_UNPACKED_BYTES = 200 * 1024**2
"""The most that is unpacked of one archive."""
MAX_ENTRIES = 20_000
"""The most entries that an archive may have."""
MAX_RATIO = 250
"""How many times its packed size an entry over 4 MiB may have: text packs to a tenth, a bomb to a thousandth."""

_SMALL_BYTES = 4 * 1024**2
_CHUNK_BYTES = 256 * 1024
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, NotImplementedError, ValueError)
_FONT_ALGORITHMS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")  # fonts, not the text


def sniff_zip(head: bytes) -> str | None:
    """The media type of a document whose ZIP archive begins with `head`; None for any other archive.

    EPUB and OpenDocument begin with an entry that names their type. Word documents are known by an entry below
    `word/` or by what `[Content_Types].xml` says.
    """
    for name, content in _local_entries(head):
        if name == b"mimetype":
            kind = content.decode("ascii", "replace").strip()
            if kind == EPUB:
                return EPUB
            return ODT if kind == ODT or kind.startswith(ODT + "-") else None
        if name.startswith(b"word/") or (name == b"[Content_Types].xml" and b"wordprocessingml.document" in content):
            return DOCX
        if name.startswith((b"xl/", b"ppt/")):
            return None
    return None


def _local_entries(head: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and unpacked content, as far as it is there, of the entries at the beginning of an archive."""
    place = 0
    while len(head) >= place + _LOCAL_HEADER.size:
        signature, _, flags, method, *_, packed, _, name_size, extra_size = _LOCAL_HEADER.unpack_from(head, place)
        if signature != b"PK\x03\x04":
            return
        start = place + _LOCAL_HEADER.size
        name, start = head[start : start + name_size], start + name_size + extra_size
        unknown_size = bool(flags & 8) and not packed
        content, end = head[start : start + packed], start + packed
        if method == zipfile.ZIP_DEFLATED and not flags & 1:
            unpacking = zlib.decompressobj(-15)
            try:
                content = unpacking.decompress(head[start:] if unknown_size else content, 16 * 1024)
            except zlib.error:
                content = b""
            if unknown_size:
                end = len(head) - len(unpacking.unused_data) if unpacking.eof else len(head)
        yield name, content
        place = end
        if unknown_size:  # a descriptor follows the content
            place = head.find(b"PK\x03\x04", end)
            if place < 0:
                return


class _Archive:
    """The entries of a ZIP file, unpacked under the limits."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, OSError) as error:
            raise ContentError(f"damaged document: {error}") from error
        self._left = MAX_UNPACKED_BYTES
        if len(self._zip.infolist()) > MAX_ENTRIES:
            raise ContentError(f"too many entries in the archive: {len(self._zip.infolist())}, allowed {MAX_ENTRIES}")
        self.names = frozenset(self._zip.namelist())

    def __enter__(self) -> _Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def read(self, name: str) -> bytes:
        """The whole entry. Raises ContentError where it is missing, encrypted, damaged or too large."""
        if name not in self.names:
            raise ContentError(f"damaged document: it has no {name}")
        entry = self._zip.getinfo(name)
        if entry.flag_bits & 1:
            raise ContentError("password-protected: remove the password of the document")
        allowed = min(self._left, max(_SMALL_BYTES, entry.compress_size * MAX_RATIO))
        if entry.file_size > allowed:
            raise ContentError(f"ZIP bomb: {name} would unpack to {entry.file_size} bytes")
        chunks: list[bytes] = []
        size = 0
        try:
            with self._zip.open(entry) as stream:
                while chunk := stream.read(_CHUNK_BYTES):
                    chunks.append(chunk)
                    size += len(chunk)
                    if size > allowed:
                        raise ContentError(f"ZIP bomb: {name} unpacks to more than {allowed} bytes")
        except _DAMAGED as error:
            raise ContentError(f"damaged document: {name}: {error}") from error
        self._left -= size
        return b"".join(chunks)


# Elements by their local names: the namespaces of Word differ between the two editions of its standard.
_WORD_READ = {"t"}
_WORD_BREAKS = {"p": "\n", "br": "\n", "cr": "\n", "tab": "\t", "noBreakHyphen": "-"}
_WORD_SKIPPED = {"pPr", "rPr", "del", "moveFrom", "Fallback"}  # formats, deleted text, pictures of what stands beside
_ODT_READ = {"p", "h", "span", "a", "ruby-base", "meta", "meta-field"}
_ODT_BREAKS = {"p": "\n", "h": "\n", "line-break": "\n", "tab": "\t", "s": " "}
_ODT_SKIPPED = {"tracked-changes", "note-citation", "ruby-text", "annotation"}


def docx_text(path: Path) -> str:
    """The text of a Word document, one line a paragraph, its foot- and endnotes last; no headers, no deleted text."""
    with _Archive(path) as archive:
        parts = ["word/document.xml", *(n for n in ("word/footnotes.xml", "word/endnotes.xml") if n in archive.names)]
        texts = (_xml_text(archive.read(part), _WORD_READ, _WORD_BREAKS, _WORD_SKIPPED) for part in parts)
        return "\n".join(filter(None, texts))


def odt_text(path: Path) -> str:
    """The text of an OpenDocument text, one line a paragraph; no headers, comments and deleted text."""
    with _Archive(path) as archive:
        manifest = "META-INF/manifest.xml"
        if manifest in archive.names and b"encryption-data" in archive.read(manifest):
            raise ContentError("password-protected: remove the password of the document")
        return _xml_text(archive.read("content.xml"), _ODT_READ, _ODT_BREAKS, _ODT_SKIPPED)


def epub_chapters(path: Path) -> list[str]:
    """The text of each document of an EPUB book in reading order, without the table of contents."""
    with _Archive(path) as archive:
        if "META-INF/encryption.xml" in archive.names:
            protected = _xml(archive.read("META-INF/encryption.xml"))
            methods = (element for element in protected.iter() if _local(element.tag) == "EncryptionMethod")
            if any(method.get("Algorithm") not in _FONT_ALGORITHMS for method in methods):
                raise ContentError("encrypted: the book is protected by digital rights management")
        container = _xml(archive.read("META-INF/container.xml"))
        roots = (element.get("full-path", "") for element in container.iter() if _local(element.tag) == "rootfile")
        package = next(roots, "")
        elements = list(_xml(archive.read(package)).iter())
        items = {element.get("id"): element for element in elements if _local(element.tag) == "item"}
        chapters: list[str] = []
        for reference in (element for element in elements if _local(element.tag) == "itemref"):
            item = items.get(reference.get("idref"))
            if item is None or "html" not in item.get("media-type", "") or "nav" in item.get("properties", "").split():
                continue
            name = posixpath.normpath(
                posixpath.join(posixpath.dirname(package), urllib.parse.unquote(item.get("href", "")))
            )
            if name not in archive.names:
                continue
            data = archive.read(name)
            chapters.append(html_text(text_in(data, encoding_of(data, whole=True) or "utf-8"), whole=True))
        return list(filter(None, chapters))


def rtf_text(data: bytes) -> str:
    """The text of a rich text file. Raises ContentError for a damaged one."""
    from striprtf.striprtf import rtf_to_text

    code_page = re.search(rb"\\ansicpg(\d{3,5})", data[:_CHUNK_BYTES])
    encoding = f"cp{code_page[1].decode()}" if code_page else "cp1252"
    try:
        return str(rtf_to_text(data.decode("latin-1"), encoding, errors="replace"))  # type: ignore[no-untyped-call]
    except (LookupError, ValueError, IndexError, OverflowError, RecursionError, TypeError) as error:
        raise ContentError(f"damaged RTF: {error!r}") from error


def _local(tag: str) -> str:
    """The name of an element without its namespace."""
    return tag.rpartition("}")[2]


def _xml(data: bytes) -> Element:
    """The tree of a small XML file."""
    import defusedxml
    import defusedxml.ElementTree

    try:
        root: Element = defusedxml.ElementTree.fromstring(data)
    except defusedxml.DefusedXmlException as error:
        raise ContentError(f"XML bomb: {error}") from error
    except (ParseError, ValueError, LookupError) as error:
        raise ContentError(f"damaged document: {error}") from error
    return root


def _xml_text(data: bytes, read: Collection[str], breaks: Mapping[str, str], skipped: Collection[str]) -> str:
    """The text directly in elements `read`, none of it within `skipped`, and behind an element what `breaks` says."""
    import defusedxml
    import defusedxml.ElementTree

    reader = _Reader(read, breaks, skipped)
    try:
        parser = defusedxml.ElementTree.XMLParser(target=reader)
        for start in range(0, len(data), _CHUNK_BYTES):
            parser.feed(data[start : start + _CHUNK_BYTES])
        text: str = parser.close()
    except defusedxml.DefusedXmlException as error:
        raise ContentError(f"XML bomb: {error}") from error
    except (ParseError, ValueError, LookupError) as error:
        raise ContentError(f"damaged document: {error}") from error
    return text


class _Reader:
    """A target for an XML parser: keeps text, builds no tree."""

    def __init__(self, read: Collection[str], breaks: Mapping[str, str], skipped: Collection[str]) -> None:
        self._read, self._breaks, self._skipped = read, breaks, skipped
        self._pieces: list[str] = []
        self._open: list[str] = []
        self._skipping = 0  # how many open elements are to be skipped

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        tag = _local(tag)
        self._open.append(tag)
        self._skipping += tag in self._skipped

    def end(self, _: str) -> None:
        tag = self._open.pop()
        self._skipping -= tag in self._skipped
        if not self._skipping and tag in self._breaks:
            self._pieces.append(self._breaks[tag])

    def data(self, data: str) -> None:
        if not self._skipping and self._open[-1] in self._read:
            self._pieces.append(data)

    def close(self) -> str:
        return "".join(self._pieces).strip("\n")
