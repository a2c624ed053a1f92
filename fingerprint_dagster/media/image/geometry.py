"""Proof that two pictures share a part, by the places of their local features, and where that part is in each.

Features are paired by their bits: each other's nearest, and clearly nearer than the second (Lowe 2004). One pair gives
a whole similarity transform, since a feature has a place, a size and an angle. The transform that most pairs agree
with, in place, size and angle, wins; all are tried, so nothing is random. It then finds more pairs by their places, and
is refined to an affine or projective one by least squares.

Points are in units of the longer side of their picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fingerprint_dagster.media.image.local_features import LocalFeatures

F64 = NDArray[np.float64]
Box = tuple[float, float, float, float]
Shape = tuple[float, float]

_RATIO = 0.9  # of the distances of the nearest and the second feature
_FARTHEST = 88  # bits of 256 that may differ in a pair; those of unrelated patches are 128 +- 14 apart
_TRIED = 100  # pairs, the clearest first
_SEED = 3  # pairs that must agree before more are looked for
_UNLIKE = 96  # bits that differ in a pair that weighs nothing, where place, size and angle agree
_APART = 0.03  # how far from its predicted place a feature may be; less in a query that shows the reference smaller
_REFINED = (1, 0.8, 0.6)  # shares of that for the refined transforms, one after the other
_LOG_SIZE = 0.5
_AFFINE_FROM, _PROJECTIVE_FROM = 8, 24  # pairs
_ANGLE = 0.5  # radians


@dataclass(frozen=True)
class Alignment:
    """How the reference lies in the query.

    matrix: float64 [3, 3], a point (x, y, 1) of the reference to its place in the query.
    inliers: pairs of features that agree with it.
    support: what they weigh together. A pair weighs 1 where 66 of its 256 bits differ, 2 where 36 do, and 0 from 96 on:
        few pairs that are very like each other may prove more than many that are hardly so.
    mirrored: whether the reference is seen mirrored. agreeing: float64 [inliers, 2], where these are in the reference.
    """

    matrix: F64
    inliers: int
    support: float
    mirrored: bool
    agreeing: F64


def align(query: LocalFeatures, reference: LocalFeatures, least: float) -> Alignment | None:
    """The transform that most pairs of features agree with, or None with less support than `least`."""
    ours, theirs = pairs(query, reference)
    if len(ours) < _SEED:
        return None
    place, origin = _complex(query.points), _complex(reference.points)
    mirrored = query.reversed[ours] ^ reference.reversed[theirs]
    source = np.where(mirrored, origin[theirs].conj(), origin[theirs])
    angle = query.angles[ours] - np.where(mirrored, -reference.angles[theirs], reference.angles[theirs])
    turn = query.sizes[ours] / reference.sizes[theirs] * np.exp(1j * angle)
    move = place[ours] - turn * source
    apart = _APART * np.minimum(np.abs(turn), 1)
    tried = slice(0, _TRIED)
    relative = turn / turn[tried, None]
    agrees = (
        (np.abs(turn[tried, None] * source + move[tried, None] - place[ours]) < apart[tried, None])
        & (np.abs(np.log(np.abs(relative))) < _LOG_SIZE)
        & (np.abs(np.angle(relative)) < _ANGLE)
        & (mirrored == mirrored[tried, None])
    )
    support = agrees.sum(axis=1)
    best = int(support.argmax())
    if support[best] < _SEED:
        return None
    flip = bool(mirrored[best])
    ours, theirs, weights = _agreeing(query, reference, turn[best], move[best], flip, apart[best])
    if weights.sum() < least:
        return None
    targets, sources = query.points[ours].astype(np.float64), reference.points[theirs].astype(np.float64)
    kept = np.ones(len(ours), np.bool_)
    for share in _REFINED:
        matrix = _least_squares(sources[kept], targets[kept], flip)
        kept = np.linalg.norm(project(matrix, sources) - targets, axis=1) < share * apart[best]
        if weights[kept].sum() < least:
            return None
    return Alignment(matrix, int(kept.sum()), float(weights[kept].sum()), flip, sources[kept])


def _agreeing(
    query: LocalFeatures, reference: LocalFeatures, turn: complex, move: complex, flip: bool, apart: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], F64]:
    """The pairs of like features that agree with a transform, each other's nearest or not, and their weights.

    Where a feature must be is known now, so its bits need not single it out.
    """
    origin = _complex(reference.points)
    predicted = turn * (origin.conj() if flip else origin) + move
    angles = np.angle(turn) + (-reference.angles if flip else reference.angles)
    sizes = np.log(reference.sizes * abs(turn))
    ours, theirs = np.nonzero(np.abs(_complex(query.points)[:, None] - predicted) < apart)
    wrapped = np.abs((query.angles[ours] - angles[theirs] + np.pi) % (2 * np.pi) - np.pi)
    agrees = (
        (np.abs(np.log(query.sizes[ours]) - sizes[theirs]) < _LOG_SIZE)
        & (wrapped < _ANGLE)
        & ((query.reversed[ours] ^ reference.reversed[theirs]) == flip)
    )
    ours, theirs = ours[agrees], theirs[agrees]
    distance = np.bitwise_count(query.bits[ours] ^ reference.bits[theirs]).sum(axis=1, dtype=np.int64)
    order = np.argsort(distance, kind="stable")
    order = order[distance[order] < _UNLIKE]
    # Each feature is in its nearest pair only.
    for side in (ours, theirs):
        order = order[np.sort(np.unique(side[order], return_index=True)[1])]
    return ours[order], theirs[order], (_UNLIKE - distance[order]) / 30


def pairs(query: LocalFeatures, reference: LocalFeatures) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers of the paired features in both, the clearest pair first."""
    if len(query) < 2 or len(reference) < 2:
        nothing = np.zeros(0, np.int64)
        return nothing, nothing
    distance = _distances(query.bits, reference.bits)
    first, nearest = distance.min(axis=1), distance.argmin(axis=1)
    # Each other's nearest: first by the least number, which is quicker, and then whether of equal ones it is the first.
    ours = np.flatnonzero((first <= _FARTHEST) & (first == distance.min(axis=0)[nearest]))
    ours = ours[distance[:, nearest[ours]].argmin(axis=0) == ours]
    second = np.partition(distance[ours], 1, axis=1)[:, 1]
    ratio = first[ours] / np.maximum(second, 1).astype(np.float32)
    clear = np.flatnonzero(ratio < _RATIO)
    ours = ours[clear[np.argsort(ratio[clear], kind="stable")]]
    return ours, nearest[ours]


def _distances(query: NDArray[np.uint8], reference: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """The bits, of 256, in which each of the one differs from each of the other: [n, 32] and [m, 32] to [n, m]."""
    here, there = (np.ascontiguousarray(np.ascontiguousarray(side).view(np.uint64).T) for side in (query, reference))
    distance = np.zeros((len(query), len(reference)), np.uint16)
    for ours, theirs in zip(here, there, strict=True):
        distance += np.bitwise_count(ours[:, None] ^ theirs)
    return distance


def boxes(matrix: F64, query_shape: Shape, reference_shape: Shape) -> tuple[Box, Box] | None:
    """Where the reference is in the query, and which part of it that is: boxes in fractions of the pictures' sides.

    The shapes are width and height in units of the longer side. None where the two do not overlap.
    """
    import cv2

    outline = project(matrix, _corners(reference_shape))
    area, part = cv2.intersectConvexConvex(outline.astype(np.float32), _corners(query_shape).astype(np.float32))
    if area <= 0:
        return None
    shared: F64 = np.asarray(part, np.float64).reshape(-1, 2)
    return _bounds(shared, query_shape), _bounds(
        project(np.linalg.inv(matrix).astype(np.float64), shared), reference_shape
    )


def project(matrix: F64, points: F64) -> F64:
    """Points, float64 [n, 2], through a projective transform."""
    moved = points @ matrix[:, :2].T + matrix[:, 2]
    return np.asarray(moved[:, :2] / moved[:, 2:])


def _complex(points: NDArray[np.float32]) -> NDArray[np.complex128]:
    return points[:, 0].astype(np.float64) + 1j * points[:, 1].astype(np.float64)


def _least_squares(source: F64, target: F64, flip: bool) -> F64:
    """The projective transform of many points, the affine one of some, the similarity of few: what they can bear."""
    import cv2

    if len(source) >= _PROJECTIVE_FROM:
        matrix, _ = cv2.findHomography(source, target, 0)
        if matrix is not None and np.isfinite(matrix).all():
            return np.asarray(matrix, np.float64)
    if len(source) >= _AFFINE_FROM:
        solution = np.linalg.lstsq(np.column_stack([source, np.ones(len(source))]), target, rcond=None)[0]
        return np.vstack([solution.T, [0, 0, 1]])
    sign = -1.0 if flip else 1.0
    centre, aim = source.mean(axis=0), target.mean(axis=0)
    (x, y), (u, v) = ((source - centre) * [1, sign]).T, (target - aim).T
    spread = max(float((x * x + y * y).sum()), 1e-12)
    cosine, sine = (x * u + y * v).sum() / spread, (x * v - y * u).sum() / spread
    linear = np.array([[cosine, -sine], [sine, cosine]]) @ np.diag([1, sign])
    return np.vstack([np.column_stack([linear, aim - linear @ centre]), [0, 0, 1]])


def _corners(shape: Shape) -> F64:
    width, height = shape
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)


def _bounds(points: F64, shape: Shape) -> Box:
    low, high = (np.clip(edge / np.array(shape), 0, 1) for edge in (points.min(axis=0), points.max(axis=0)))
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])
