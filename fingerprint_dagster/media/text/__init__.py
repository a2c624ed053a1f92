"""Texts: near-duplicates and quoted passages with their ranges, in any language and from any document that has text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fingerprint_dagster.content import Component, Fingerprint, Match, Sketch, Value
from fingerprint_dagster.media.plugin import ContentTypePlugin
from fingerprint_dagster.media.text import decode, match
from fingerprint_dagster.media.text.boilerplate import BOILERPLATE, boilerplate_v1, is_boilerplate, with_own
from fingerprint_dagster.media.text.iscc import ISCC, text_code_v0, text_of_code_v0
from fingerprint_dagster.media.text.minhash import LSH, MINHASH, lsh_tokens_v2, minhash_v2
from fingerprint_dagster.media.text.normalize import normalize_v2
from fingerprint_dagster.media.text.semantic import SEMANTIC, SIGNS, semantic_v1, semantic_version, signs_v1
from fingerprint_dagster.media.text.simhash import SIMHASH, simhash_v1
from fingerprint_dagster.media.text.winnowing import WINNOWING, winnow_v1
from fingerprint_dagster.media.text.words import LONG_WORDS, WORDS, Numbers, packed_words_v1, shingles_v1, words_v1

if TYPE_CHECKING:
    from fingerprint_dagster.models import ModelRuntime

LOW_INFORMATION_WORDS = 20
"""A text of fewer words (or ideographs) may agree with another by chance or habit: "All rights reserved"."""


class TextPlugin(ContentTypePlugin):
    """Near-duplicate texts, and the passages one text has from another."""

    name: ClassVar[str] = "text"
    extensions: ClassVar[frozenset[str]] = decode.EXTENSIONS
    batch_size: ClassVar[int] = 1000
    versions: ClassVar[Mapping[str, str]] = {
        "decode": "text_documents_v1",
        "embed": "use_multilingual3_24words_v1",
        "hash": "text_passages_v1",
    }

    thresholds: ClassVar[Mapping[str, float]] = {
        match.SIMILARITY: match.MIN_DISTINCT,
        match.CONTAINMENT: match.MIN_DISTINCT,
        MINHASH: match.MIN_JACCARD,
        SEMANTIC: match.MIN_COSINE,
    }

    @cached_property
    def _boilerplate(self) -> Numbers:
        from fingerprint_dagster.settings import get_settings

        return with_own(get_settings().text_boilerplate)

    @cached_property  # not in the constructor: wrong settings must not keep the other content types from loading
    def parameters(self) -> Mapping[str, Mapping[str, Any]]:  # type: ignore[override]
        """The model of the embed stage, and what text counts as boilerplate in the hash stage."""
        digest = hashlib.sha256(self._boilerplate.tobytes()).hexdigest()[:16]
        return {"embed": {"model": semantic_version()}, "hash": {"boilerplate": digest}}

    @property
    def has_model(self) -> bool:
        """False: the model of the embed stage needs no torch, and may not be installed."""
        return False

    def sniff(self, head: bytes) -> str | None:
        """See `fingerprint_dagster.media.text.decode.sniff`."""
        return decode.sniff(head)

    def decode(self, path: Path) -> Value:
        """See `fingerprint_dagster.media.text.decode.decode`."""
        return decode.decode(path)

    def embed(self, decoded: Sequence[Value], models: ModelRuntime) -> list[Value]:
        """Arrays {SEMANTIC: int8 [512]}, see `semantic`; none where it is not installed. `models` is not used."""
        if self.parameters["embed"]["model"] is None:
            return [Value() for _ in decoded]
        return [Value({SEMANTIC: semantic_v1(decode.text_of(value))}) for value in decoded]

    def hash(self, decoded: Value, embedded: Value) -> Sketch:
        """The components that find candidates (winnowing, MinHash bands, SimHash, meaning) and those that verify them.

        Positions are not stored with the tokens: the record of the words has the place of every word.
        """
        text = decode.text_of(decoded)
        words = words_v1(normalize_v2(text))
        shingles = shingles_v1(words)
        signature = minhash_v2(shingles)
        tokens = winnow_v1(shingles)
        known = is_boilerplate(tokens, self._boilerplate)
        boilerplate = boilerplate_v1(shingles, tokens[known])
        packed, long = packed_words_v1(words)
        components = [
            Component(MINHASH, "data", signature),
            Component(LSH, "tokens", lsh_tokens_v2(signature)),
            Component(WINNOWING, "tokens", tokens, searchable=None if known.all() else ~known),
            Component(SIMHASH, "hamming", simhash_v1(shingles)[None]),
            Component(ISCC, "data", text_code_v0(text)),
            Component(WORDS, "data", packed),
            Component(LONG_WORDS, "data", long),
            Component(BOILERPLATE, "data", boilerplate),
        ]
        if SEMANTIC in embedded.arrays:
            vector = embedded.arrays[SEMANTIC]
            components += [Component(SEMANTIC, "data", vector), Component(SIGNS, "signs", signs_v1(vector)[None])]
        info: dict[str, Any] = {
            "characters": decoded.info["characters"],
            "words": len(words),
            "encoding": decoded.info["encoding"],
            "low_information": len(words) < LOW_INFORMATION_WORDS,
        }
        if decoded.info.get("flags"):
            info["flags"] = decoded.info["flags"]
        return Sketch(tuple(components), info)

    def match(self, query: Fingerprint, reference: Fingerprint) -> list[Match]:
        """See `fingerprint_dagster.media.text.match.match`."""
        return match.match(query, reference)

    def strengths(self, query: Fingerprint, reference: Fingerprint) -> dict[str, float]:
        """See `fingerprint_dagster.media.text.match.strengths`."""
        return match.strengths(query, reference)

    def interchange(self, fingerprint: Fingerprint) -> dict[str, str]:
        """`iscc`: the Text-Code of 64 bits."""
        code = fingerprint.component(ISCC)
        return {} if code is None else {"iscc": text_of_code_v0(code.values)}
