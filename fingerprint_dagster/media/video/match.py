"""Which stretches of one video are in another: equal frames, then equal order.

A pair of frames, one from each video, votes for the offset between their times. Frames of a copy agree on one offset;
frames that merely look alike scatter. This is the Hough vote of the VSC video copy localisation baselines and of audio
fingerprinting (Wang, "An Industrial-Strength Audio Search Algorithm", 2003), here with PDQ frames and vPDQ's thresholds
(distance 31, quality 50), and an image descriptor where PDQ finds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fingerprint_dagster.content import Fingerprint, Match, Range
from fingerprint_dagster.media.image.pdq import MAX_DISTANCE, MIN_QUALITY
from fingerprint_dagster.media.video.sketch import EMBEDDING, PDQ, PDQ_QUALITY

# Measured on the concert of the ISCC samples, filmed by cameras that return to the same view: the same moment in two
# encodings, sampled up to 0.3 s apart, has a median cosine of 0.94; moments over 5 s apart have 0.89 in 1 % of pairs.
# Frames of different videos stay below 0.50. It is also the threshold for pictures.
MIN_COSINE = 0.90
# A weaker likeness is no evidence of an alignment, but where stronger pairs have shown one it tells how far it reaches:
# the same shot a moment earlier or later, because the two sides are not sampled at the same instants.
WEAK_COSINE = 0.80
WEAK_DISTANCE = 60
# A PDQ pair counts as one, a descriptor pair as half: the descriptor sees the scene rather than the frame. Two frames
# that differ from each other must agree: one alone may be a title card or a stock shot. A video of only one distinct
# frame can offer no more than that one, so there one is enough.
MIN_SUPPORT = 2.0
_DESCRIPTOR_WEIGHT = 0.5
# Without a single PDQ pair twice the support is needed: two parts of one long shot look alike to the descriptor.
_DESCRIPTOR_ALONE = 2.0
MIN_COVERAGE = 0.5  # of the usable frames within a segment, on the side that has fewer of them
TOLERANCE = 1.0  # seconds by which the offsets of one segment may differ: both sides are sampled about once a second
MAX_GAP = 4.0  # tolerances without a pair that a segment may bridge
MAX_SEGMENTS = 32
_BINS = 4  # of the offset histogram, in one tolerance
_ROWS = 256  # of the query compared at once


@dataclass(frozen=True)
class Frames:
    """The frames of one video that can be compared: those with enough features.

    hashes: uint8 [n, 32]. vectors: float32 [n, dim], or [n, 0] where there are none. starts, ends: float64 [n],
    seconds. looks: int [n], equal for frames that repeat one another. duration: seconds.
    """

    hashes: NDArray[np.uint8]
    vectors: NDArray[np.float32]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    looks: NDArray[np.int64]
    duration: float

    @property
    def step(self) -> float:
        """The usual time from frame to frame, in seconds."""
        return float(np.median(np.diff(self.starts))) if len(self.starts) > 1 else 0.0


@dataclass(frozen=True)
class Pairs:
    """Frames that look alike. query, reference: row numbers, int [p]. similarity: float [p], 0..1.

    weight: float [p], what each counts as evidence: 1 by PDQ, less by the descriptor, 0 for a weak likeness.
    """

    query: NDArray[np.int64]
    reference: NDArray[np.int64]
    similarity: NDArray[np.float64]
    weight: NDArray[np.float64]

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Pairs:
        return Pairs(self.query[rows], self.reference[rows], self.similarity[rows], self.weight[rows])


@dataclass(frozen=True)
class Segment:
    """A stretch of the query that is in the reference, in seconds on both sides.

    score: mean similarity of the usable frames within it, those without a counterpart counting 0, on the side that is
    sampled more sparsely: only there every frame can have a counterpart. exact: whether PDQ gave most of the evidence.
    """

    query: Range
    reference: Range
    score: float
    exact: bool


def match(query: Fingerprint, reference: Fingerprint) -> list[Match]:
    """The stretches of the query that are in the reference, most evidence (score x length) first.

    The score is the mean similarity of the usable frames within the stretch, on the side that is sampled more sparsely:
    1 - distance / 256 by PDQ, the cosine by the descriptor, 0 for a frame without a counterpart. `evidence` names
    whichever gave most of it. Frames with few features (black, flat, blurred) take no part.
    """
    ours, theirs = _frames(query), _frames(reference)
    if ours is None or theirs is None:
        return []
    return [
        Match(reference.content, segment.score, PDQ if segment.exact else EMBEDDING, segment.query, segment.reference)
        for segment in align(ours, theirs, find_pairs(ours, theirs))
    ]


def _frames(fingerprint: Fingerprint) -> Frames | None:
    pdq, quality = fingerprint.component(PDQ), fingerprint.component(PDQ_QUALITY)
    if pdq is None or quality is None or pdq.positions is None:
        return None
    usable = quality.values >= MIN_QUALITY
    if not usable.any():
        return None
    embedding = fingerprint.component(EMBEDDING)
    vectors = np.zeros((len(usable), 0), np.float32) if embedding is None else embedding.values
    firsts = usable if pdq.searchable is None else pdq.searchable
    return Frames(
        pdq.values[usable],
        vectors[usable],
        pdq.positions[usable, 0],
        pdq.positions[usable, 1],
        np.cumsum(firsts)[usable],
        float(pdq.positions[-1, 1]),
    )


def find_pairs(query: Frames, reference: Frames) -> Pairs:
    """Pairs at PDQ distance 31 or less, and of the others those that are at least weakly alike."""
    ours = np.ascontiguousarray(query.hashes).view(np.uint64)
    theirs = np.ascontiguousarray(reference.hashes).view(np.uint64)
    compare_vectors = query.vectors.shape[1] == reference.vectors.shape[1] != 0
    found: list[Pairs] = []
    for first in range(0, len(ours), _ROWS):
        rows = slice(first, first + _ROWS)
        distance = np.bitwise_count(ours[rows, np.newaxis] ^ theirs).sum(axis=2, dtype=np.uint16)
        similarity = 1 - distance / 256
        weight = (distance <= MAX_DISTANCE).astype(np.float64)
        alike = distance <= WEAK_DISTANCE
        if compare_vectors:
            cosine = np.minimum(query.vectors[rows] @ reference.vectors.T, 1.0)
            similarity = np.where(weight > 0, similarity, cosine)
            weight[(weight == 0) & (cosine >= MIN_COSINE)] = _DESCRIPTOR_WEIGHT
            alike |= cosine >= WEAK_COSINE
        q, r = np.nonzero(alike)
        found.append(Pairs(q + first, r, similarity[q, r], weight[q, r]))
    return Pairs(
        np.concatenate([pairs.query for pairs in found]),
        np.concatenate([pairs.reference for pairs in found]),
        np.concatenate([pairs.similarity for pairs in found]),
        np.concatenate([pairs.weight for pairs in found]),
    )


def align(query: Frames, reference: Frames, pairs: Pairs) -> list[Segment]:
    """Group pairs that agree on the offset into segments, strongest offset first; each pair is used once.

    A stretch that the reference holds twice gives two segments; so does a reference that leaves out a part in the
    middle. A copy at another speed comes as several, each as long as its offset stays within the tolerance.
    """
    if query.step < reference.step:
        turned = align(reference, query, Pairs(pairs.reference, pairs.query, pairs.similarity, pairs.weight))
        segments = [Segment(s.reference, s.query, s.score, s.exact) for s in turned]
    else:
        segments = _align(query, reference, pairs)
    return sorted(segments, key=lambda s: (-s.score * (s.query[1] - s.query[0]), s.query, s.reference))


def _align(sparse: Frames, dense: Frames, pairs: Pairs) -> list[Segment]:
    """`align` where the query is the side that is sampled more sparsely."""
    tolerance = max(TOLERANCE, sparse.step / 2)
    needed = min(MIN_SUPPORT, float(len(np.unique(sparse.looks))), float(len(np.unique(dense.looks))))
    kernel = 1 - np.abs(np.arange(-_BINS, _BINS + 1)) / (_BINS + 1)
    segments: list[Segment] = []
    while len(pairs.query) and len(segments) < MAX_SEGMENTS:
        offset = dense.starts[pairs.reference] - sparse.starts[pairs.query]
        bins = np.rint((offset - offset.min()) * (_BINS / tolerance)).astype(np.int64)
        votes = np.convolve(np.bincount(bins, pairs.weight), kernel)[_BINS:-_BINS]
        peak = int(votes.argmax())
        if votes[peak] < needed / 2:
            break
        agree = np.abs(bins - peak) <= _BINS
        remaining = pairs[~agree]
        for run in _runs(sparse, _best_of_each(pairs[agree]), MAX_GAP * tolerance):
            segment = _segment(sparse, dense, run, needed)
            if segment is not None:
                segments.append(segment)
                remaining = remaining[~_inside(sparse, dense, remaining, segment)]
        pairs = remaining
    return segments


def _best_of_each(pairs: Pairs) -> Pairs:
    """The strongest and then most similar pair of each query frame, in the order of the frames."""
    order = np.lexsort((pairs.reference, -pairs.similarity, -pairs.weight, pairs.query))
    _, firsts = np.unique(pairs.query[order], return_index=True)
    return pairs[order[firsts]]


def _runs(query: Frames, pairs: Pairs, longest_gap: float) -> list[Pairs]:
    """The pairs, cut where the next one is more than `longest_gap` seconds later in the query."""
    cuts = np.flatnonzero(np.diff(query.starts[pairs.query]) > longest_gap) + 1
    return [pairs[rows] for rows in np.split(np.arange(len(pairs.query)), cuts)]


def _segment(query: Frames, reference: Frames, pairs: Pairs, needed: float) -> Segment | None:
    """The segment that these pairs show, or None where they are too few or too sparse."""
    support = min(_support(query.looks[pairs.query], pairs), _support(reference.looks[pairs.reference], pairs))
    first, last = pairs.query[0], pairs.query[-1]
    usable = last - first + 1
    if support < needed or len(pairs.query) < MIN_COVERAGE * usable:
        return None
    strong = pairs.weight > 0
    if support < needed * _DESCRIPTOR_ALONE and not (pairs.weight == 1).any():
        return None
    offset = float(np.median((reference.starts[pairs.reference] - query.starts[pairs.query])[strong]))
    start = max(float(query.starts[first]), -offset)
    end = min(float(query.ends[last]), reference.duration - offset)
    return Segment(
        (start, end),
        (start + offset, end + offset),
        float(pairs.similarity.sum() / usable),
        bool((pairs.weight[strong] == 1).mean() >= 0.5),
    )


def _support(looks: NDArray[np.int64], pairs: Pairs) -> float:
    """The evidence of the pairs, where frames that repeat one another count once."""
    best: dict[int, float] = {}
    for look, weight in zip(looks.tolist(), pairs.weight.tolist(), strict=True):
        best[look] = max(best.get(look, 0.0), weight)
    return sum(best.values())


def _inside(query: Frames, reference: Frames, pairs: Pairs, segment: Segment) -> NDArray[np.bool_]:
    """Which pairs lie between two frames of the segment: other ways to align what is aligned already."""
    ours, theirs = query.starts[pairs.query], reference.starts[pairs.reference]
    inside: NDArray[np.bool_] = (
        (ours >= segment.query[0])
        & (ours < segment.query[1])
        & (theirs >= segment.reference[0])
        & (theirs < segment.reference[1])
    )
    return inside
