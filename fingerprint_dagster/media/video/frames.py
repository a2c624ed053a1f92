"""The frames of a video as they are compared: how alike two are, and what that is worth as evidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fingerprint_dagster.content import Fingerprint
from fingerprint_dagster.media.image.match import exact
from fingerprint_dagster.media.image.pdq import MIN_QUALITY
from fingerprint_dagster.media.video.sketch import PDQ, PDQ_QUALITY, REPEAT_DISTANCE

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

# Likeness is a cosine of descriptors or what PDQ says of the same, whichever is more: 1 - d / CHANCE_BITS.
CHANCE_BITS = 128
# What a likeness is worth, in nats: the logarithm of how much more often frames of copies have it than frames of
# videos that have nothing to do with each other. Measured on 81,000 pairs of unrelated frames of 41 videos, of which
# 1 % have 0.23 or more, 0.1 % 0.33 and one 0.50, and on the same frames in copies of 9 kinds: of those filmed from a
# screen 20 % have less than 0.4, of cropped and mirrored ones 5 %.
LIKENESS, NATS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0), (-2.0, -1.2, 0.3, 2.5, 5.0, 6.5, 8.0, 9.0)
# The descriptor sees the scene rather than the frame: the same stage by the same camera is as like at another moment.
# Where PDQ does not say so too (83 bits or less), a frame is worth no more than this.
SUPPORTED, SCENE_NATS = 0.35, 3.0
# The same by PDQ alone, where the two videos are all alike: 38, 26, 13 and 0 bits.
SAME_PICTURE, SAME_NATS = (0.7, 0.8, 0.9, 1.0), (-2.0, 3.0, 7.0, 9.0)
# Bits from the frame before at which a frame is news; between REPEAT_DISTANCE and that it is some.
NEWS_BITS = 20
SAMPLED = 1.0  # seconds: frames that differ are kept about that often
_ROWS = 256  # compared at once


@dataclass(frozen=True)
class Frames:
    """The frames of one video, or one picture, that can be compared: those with enough features, not flat.

    hashes: uint8 [v, n, 32], in v orientations, the upright one first. vectors: float32 [n, dim], of length 1.
    starts, ends: float64 [n], seconds. news: float64 [n], 0..1, how much each differs from those before it.
    duration: seconds.
    """

    hashes: U8
    vectors: F32
    starts: F64
    ends: F64
    news: F64
    duration: float

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def stood(self) -> F64:
        """Seconds that each frame is known to have stood still: it is kept until one looks different."""
        return np.maximum(self.ends - self.starts - SAMPLED, 0)

    def of(self, rows: NDArray[np.int64]) -> Frames:
        """Some of the frames."""
        parts = (self.vectors[rows], self.starts[rows], self.ends[rows], self.news[rows])
        return Frames(self.hashes[:, rows], *parts, self.duration)


def frames_of(fingerprint: Fingerprint) -> Frames | None:
    """The frames of a video's fingerprint, or None where it has none that can be compared."""
    pdq, quality = fingerprint.component(PDQ), fingerprint.component(PDQ_QUALITY)
    if pdq is None or quality is None or pdq.positions is None:
        return None
    count = len(quality.values)
    usable = np.flatnonzero(quality.values >= MIN_QUALITY)
    if not len(usable):
        return None
    hashes = pdq.values.reshape(-1, count, pdq.values.shape[1])[:, usable]
    starts, ends = pdq.positions[:count].T
    return Frames(
        hashes,
        vectors_of(fingerprint)[usable]
        if count == len(vectors_of(fingerprint))
        else np.zeros((len(usable), 0), np.float32),
        starts[usable],
        ends[usable],
        news(hashes[0]),
        float(ends[-1]),
    )


def vectors_of(fingerprint: Fingerprint) -> F32:
    """The descriptors of all frames or of the picture, float32 [n, dim], of length 1; [0, 0] where there are none."""
    for component in fingerprint.sketch.components:
        values = fingerprint.component(exact(component.algorithm)) if component.kind == "signs" else None
        if values is not None:
            rows = values.values.astype(np.float32)
            lengths = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-6))
            return np.asarray(rows / lengths, np.float32)
    return np.zeros((0, 0), np.float32)


def news(hashes: U8) -> F64:
    """How much each frame differs from the last one that differed: 0 for a repeat, 1 for another picture; [n]."""
    result = np.ones(len(hashes))
    last = 0
    for row in range(1, len(hashes)):
        bits = int(np.bitwise_count(hashes[row] ^ hashes[last]).sum())
        result[row] = np.clip((bits - REPEAT_DISTANCE) / (NEWS_BITS - REPEAT_DISTANCE), 0, 1)
        if bits > REPEAT_DISTANCE:
            last = row
    return result


def distances(query: Frames, reference: Frames) -> NDArray[np.uint16]:
    """Bits between the query's frames in each of its orientations and the reference's upright ones: [v, n, m]."""
    theirs = np.ascontiguousarray(reference.hashes[0]).view(np.uint64)
    result = np.empty((len(query.hashes), len(query), len(reference)), np.uint16)
    for turned, out in zip(query.hashes, result, strict=True):
        ours = np.ascontiguousarray(turned).view(np.uint64)
        for first in range(0, len(ours), _ROWS):
            rows = slice(first, first + _ROWS)
            out[rows] = np.bitwise_count(ours[rows, np.newaxis] ^ theirs).sum(axis=2, dtype=np.uint16)
    return result


@dataclass(frozen=True)
class Likeness:
    """How alike each two frames of two videos are, -1..1, also where one is mirrored: float32 [n, m].

    same: by PDQ, that they are one picture. alike: by PDQ or the descriptor, whichever says more.
    """

    same: F32
    alike: F32


def likeness(query: Frames, reference: Frames) -> Likeness:
    """Of each frame of the query with each of the reference."""
    same = 1 - distances(query, reference).min(axis=0).astype(np.float32) / np.float32(CHANCE_BITS)
    if query.vectors.shape[1] == reference.vectors.shape[1] != 0:
        cosine = np.minimum(query.vectors @ reference.vectors.T, np.float32(1))
        return Likeness(same, np.maximum(same, cosine))
    return Likeness(same, same)


def evidence(same: NDArray[np.floating], alike: NDArray[np.floating], usual: NDArray[np.floating] | float = 0.0) -> F32:
    """What a likeness is worth, in nats: see NATS. Arrays of one shape.

    usual: how alike frames of these two videos are anyway: one stage, one camera, drawings of one hand. What is above
    it counts, as a share of what is possible; or that PDQ calls them the same picture.
    """
    above = np.interp((alike - usual) / (1 - usual), LIKENESS, NATS)
    above = np.where(same >= SUPPORTED, above, np.minimum(above, SCENE_NATS))
    return np.asarray(np.maximum(above, np.interp(same, SAME_PICTURE, SAME_NATS)), np.float32)
