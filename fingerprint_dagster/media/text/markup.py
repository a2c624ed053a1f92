"""HTML: the text that a reader of the page came for."""

from __future__ import annotations

import re

MAX_DEPTH = 500
"""How deep the blocks of a page may be nested for its main text to be looked for: its time grows with the square."""

# An XHTML element that is empty by its slash; to an HTML parser it is open, and the page behind it is its content.
_CLOSED = re.compile(
    r"<(script|style|title|textarea|iframe|noscript|template|a|p|div|span|i|b|em|svg)\b([^<>]*)/>", re.IGNORECASE
)
_BLOCK = re.compile(
    r"<(/?)(?:div|section|article|main|blockquote|ul|ol|dl|li|table|tr|td|form|fieldset|center|header|footer|aside)\b",
    re.IGNORECASE,
)


def html_text(html: str, *, whole: bool = False) -> str:
    """The main text of an HTML or XHTML page, one line a block; without menus, side bars and footers.

    whole: everything that is to be read between the tags, menus too (a chapter of a book is all text). Where no main
    text can be told from the rest, it is the whole as well. The extractor is resiliparse's (J. Bevendorff and others,
    "An Empirical Comparison of Web Content Extraction Algorithms", SIGIR 2023).
    """
    from resiliparse.extract.html2text import extract_plain_text

    if "xmlns" in html[:4096]:
        html = _CLOSED.sub(r"<\1\2></\1>", html)

    def extracted(main: bool) -> str:
        return extract_plain_text(html, main_content=main, list_bullets=False, alt_texts=False, noscript=False)

    text = "" if whole or _depth(html) > MAX_DEPTH else extracted(main=True)
    if not any(map(str.isalnum, text)):
        text = extracted(main=False)
    return "\n".join(filter(None, map(str.strip, text.split("\n"))))


def _depth(html: str) -> int:
    """How deep blocks are nested, where every one of them has its end."""
    depth = deepest = 0
    for block in _BLOCK.finditer(html):
        depth = max(0, depth + (-1 if block[1] else 1))
        deepest = max(deepest, depth)
    return deepest
