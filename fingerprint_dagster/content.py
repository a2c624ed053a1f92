"""The records that travel through the pipeline: content, stage values, fingerprints and matches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import numpy as np

from fingerprint_dagster.errors import ContentError

Range = tuple[float, float]
Box = tuple[float, float, float, float]
ComponentKind = Literal["hamming", "signs", "cosine", "tokens", "data"]


class ContentType(StrEnum):
    """The built-in content types. A plugin may add others, so the engine keeps the type as plain text."""

    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"
    TEXT = "text"


@dataclass(frozen=True)
class Content:
    """One thing to fingerprint.

    content_id: given by the user, or derived from the uri; the key of everything that is stored about it.
    uri: where its bytes are (`file:///...`, `https://...`, `ipfs://...`).
    content_type: the name of the plugin that handles it.
    metadata: the other columns of the list it came from, kept as they are.
    """

    content_id: str
    uri: str
    content_type: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Value:
    """What a stage makes of one content: named arrays and a small JSON-able record.

    arrays: name -> numpy array of bool, an integer type, float16, float32 or float64 (what safetensors holds).
    info: plain JSON data: strings, numbers, booleans, None, lists and string-keyed dicts.
    """

    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Component:
    """One part of a fingerprint: n rows made by one versioned algorithm, each with its place in the content.

    algorithm: the versioned name (`pdq_v1`). Rows of different names are never compared.
    kind: how rows are looked up:
        "hamming": values uint8 [n, bytes], near in Hamming distance;
        "signs": values uint8 [n, bytes], the sign bits of vectors, near in the angle that differing bits estimate;
        "cosine": values float32 [n, dim], every row of length 1;
        "tokens": values uint64 [n], equal or not;
        "data": values of any shape and dtype, never looked up, kept for the comparison of two fingerprints.
    positions: where each row is in the content: float64 [n, 2], start and end (seconds in audio and video,
        characters in text), or float64 [n, 4], a box (left, top, right, bottom as fractions of the upright
        picture); None where every row stands for the whole content.
    searchable: bool [n], the rows that others may find (a black frame is not one); None means all of them.
    asked: bool [n], the rows looked up when this content is the query (a mirrored hash, say, which nobody need find);
        None means the searchable ones.
    """

    algorithm: str
    kind: ComponentKind
    values: np.ndarray
    positions: np.ndarray | None = None
    searchable: np.ndarray | None = None
    asked: np.ndarray | None = None


@dataclass(frozen=True)
class Sketch:
    """What the hash stage makes of one content, before it is bound to a content_id.

    info: facts a person wants to see (width, height, duration in seconds, words, quality).
        `info["low_information"]` is True for flat, silent or nearly empty content: it can be looked up but
        is never a confident match.
    """

    components: tuple[Component, ...]
    info: Mapping[str, Any] = field(default_factory=dict)

    def component(self, algorithm: str) -> Component | None:
        """The component made by `algorithm`, or None."""
        return next((c for c in self.components if c.algorithm == algorithm), None)


@dataclass(frozen=True)
class Fingerprint:
    """The versioned record of one content.

    digest: SHA-256 of the bytes, hexadecimal. size: bytes. media_type: what the bytes are (`image/jpeg`).
    key: the memo key of the sketch: equal keys mean equal bytes and equal stage versions.
    """

    content: Content
    digest: str
    size: int
    media_type: str
    key: str
    sketch: Sketch

    def component(self, algorithm: str) -> Component | None:
        """The component made by `algorithm`, or None."""
        return self.sketch.component(algorithm)


@dataclass(frozen=True)
class Match:
    """A verified copy: `reference` contains what the query contains.

    score: 0..1, similarity by the algorithm named in `evidence`; 1 is the same.
    strength: how much evidence that is, in the algorithm's own unit (features that agree, different words in common):
        what chance is measured by. None where it is the score.
    query_range, reference_range: where on both sides (seconds or characters); None means the whole content.
    query_box, reference_box: where in the picture on both sides (left, top, right, bottom as fractions of its sides);
        None means all of it.
    confidence: 0..1, how sure it is that this is a copy, by how often unrelated contents reach that strength (see
        `fingerprint_dagster.calibration`); None where that was not measured. `search.verify` sets it.
    details: what else the algorithm found out, as plain JSON data (`{"mirrored": True}`, `{"speed": 1.05}`).
    """

    reference: Content
    score: float
    evidence: str
    query_range: Range | None = None
    reference_range: Range | None = None
    query_box: Box | None = None
    reference_box: Box | None = None
    confidence: float | None = None
    strength: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """Why one content is in quarantine: the stage that failed, the reason, and whether a retry can help."""

    content_id: str
    uri: str
    stage: str
    reason: str
    retryable: bool

    @classmethod
    def of(cls, content: Content, stage: str, error: ContentError) -> Failure:
        """The record of `error`, raised for `content` in `stage`."""
        return cls(content.content_id, content.uri, stage, error.reason, error.retryable)
