"""Texts: plain text in any encoding, Markdown, source code, tables, subtitles and HTML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from fingerprint_dagster.content import Component, Fingerprint, Match, Sketch, Value
from fingerprint_dagster.media.plugin import ContentTypePlugin
from fingerprint_dagster.media.text import decode, match
from fingerprint_dagster.media.text.minhash import LSH, MINHASH, lsh_tokens_v1, minhash_v1
from fingerprint_dagster.media.text.normalize import count_words, normalize_v1

LOW_INFORMATION_WORDS = 20
"""A text of fewer words (or ideographs) may agree with another by chance or habit: "All rights reserved"."""


class TextPlugin(ContentTypePlugin):
    """Near-duplicate texts by the Jaccard similarity of their sets of word sequences (MinHash)."""

    name: ClassVar[str] = "text"
    extensions: ClassVar[frozenset[str]] = frozenset(
        ".txt .text .md .markdown .rst .log .csv .tsv .json .jsonl .xml .yaml .yml .html .htm .xhtml .srt .vtt .tex "  # noqa: SIM905
        ".py .js .ts .java .c .h .cpp .go .rs .rb .php .sh .sql .css".split()
    )
    batch_size: ClassVar[int] = 1000
    versions: ClassVar[Mapping[str, str]] = {"decode": "text_utf8_v1", "embed": "none_v1", "hash": "minhash_v1"}

    def sniff(self, head: bytes) -> str | None:
        """`text/html` or `text/plain`; None for anything else, PDF and office documents included."""
        return decode.sniff(head)

    def decode(self, path: Path) -> Value:
        """See `fingerprint_dagster.media.text.decode.decode`."""
        return decode.decode(path)

    def hash(self, decoded: Value, embedded: Value) -> Sketch:
        """The MinHash signature and the tokens of its LSH bands; `embedded` is not used."""
        normalised = normalize_v1(decode.text_of(decoded))
        words = count_words(normalised)
        signature = minhash_v1(normalised)
        components = (Component(MINHASH, "data", signature), Component(LSH, "tokens", lsh_tokens_v1(signature)))
        info = {
            "characters": decoded.info["characters"],
            "words": words,
            "encoding": decoded.info["encoding"],
            "low_information": words < LOW_INFORMATION_WORDS,
        }
        return Sketch(components, info)

    def match(self, query: Fingerprint, reference: Fingerprint) -> list[Match]:
        """See `fingerprint_dagster.media.text.match.match`."""
        return match.match(query, reference)
