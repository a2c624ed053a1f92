"""PDF: the text of its pages, by PDFium."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from fingerprint_dagster.errors import ContentError

if TYPE_CHECKING:
    import pypdfium2

MAX_PAGES = 20_000

_PDFIUM = threading.Lock()  # the library is not made for two threads


def pdf_pages(path: Path, max_characters: int) -> list[str]:
    """The text of each page.

    Raises ContentError for a file that needs a password, is damaged, has too many pages or over `max_characters`.
    """
    import pypdfium2

    with _PDFIUM:
        try:
            document = pypdfium2.PdfDocument(path)
        except pypdfium2.PdfiumError as error:
            if "password" in str(error).lower():
                raise ContentError("password-protected: remove the password of the PDF") from error
            raise ContentError(f"damaged PDF: {error}") from error
        try:
            count = len(document)
            if count > MAX_PAGES:
                raise ContentError(f"too long: {count} pages, allowed are {MAX_PAGES}")
            pages: list[str] = []
            total = 0
            for number in range(count):
                pages.append(_page(document, number))
                total += len(pages[-1])
                if total > max_characters:
                    raise ContentError(f"too long: over {max_characters} characters of text; split the document")
            return pages
        finally:
            document.close()


def _page(document: pypdfium2.PdfDocument, number: int) -> str:
    """The text of one page; empty where the page itself is damaged."""
    import pypdfium2

    try:
        page = document[number]
    except pypdfium2.PdfiumError:
        return ""
    try:
        text_page = page.get_textpage()
        try:
            text: str = text_page.get_text_range()
        finally:
            text_page.close()
    except pypdfium2.PdfiumError:
        return ""
    finally:
        page.close()
    # PDFium has U+FFFE for the hyphen that divides a word at the end of a line.
    return text.replace("\ufffe", "-\n").replace("\r\n", "\n").strip("\n")
