"""How two contents that match relate: copies of each other, one a part of the other, or only overlapping.

Being a part is directed: a crop, an excerpt or a quotation is in the whole, and the whole is not in it. So it is kept
apart from being a copy, which holds in both directions and is what clusters are made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from fingerprint_dagster.content import Box, Fingerprint, Match, Range

Relation = Literal["copy", "part_of", "contains", "overlap", "suggestion"]
RELATIONS: tuple[Relation, ...] = ("copy", "part_of", "contains", "overlap", "suggestion")

WHOLE = 0.8
"""The share of a content that must be found in the other one for all of it to count as found there."""
_GRID = 64  # cells on a side, to measure what several boxes cover together


def relation_of(one: Fingerprint, other: Fingerprint, matches: Sequence[Match]) -> Relation:
    """What `one` is to `other`, by the matches that `plugin.match(one, other)` gave (at least one).

    "copy": at least `WHOLE` of both is found in the other. "part_of": that much of `one` only, as of a crop or an
    excerpt; "contains": of `other` only. "overlap": of neither, as of two collages that share a picture.
    "suggestion": nothing is proved (see `Match.details`).
    """
    if all(match.details.get("suggestion") for match in matches):
        return "suggestion"
    whole = covered([(match.query_range, match.query_box) for match in matches], extent(one)) >= WHOLE
    other_whole = covered([(match.reference_range, match.reference_box) for match in matches], extent(other)) >= WHOLE
    if whole and other_whole:
        return "copy"
    if whole or other_whole:
        return "part_of" if whole else "contains"
    return "overlap"


def covered(places: Sequence[tuple[Range | None, Box | None]], length: float) -> float:
    """The share, 0..1, of a content of that length that the places cover together; None means all of it.

    Several ranges with boxes (of a film, say) count as the ranges' share times the boxes' share.
    """
    ranges, boxes = [each for each, _ in places], [each for _, each in places]
    time = 1.0 if None in ranges or length <= 0 else _union([each for each in ranges if each]) / length
    area = 1.0 if None in boxes else _area([each for each in boxes if each])
    return min(1.0, time) * area


def extent(fingerprint: Fingerprint) -> float:
    """How far the ranges of a content can reach: its length in seconds or characters; 0 where nothing tells."""
    for name in ("duration", "characters"):
        length = fingerprint.sketch.info.get(name)
        if isinstance(length, int | float) and length > 0:
            return float(length)
    ends = [
        float(component.positions[:, 1].max())
        for component in fingerprint.sketch.components
        if component.positions is not None and component.positions.shape[1] == 2 and len(component.positions)
    ]
    return max(ends, default=0.0)


def _union(ranges: Sequence[Range]) -> float:
    """The length that the ranges cover together."""
    total, reached = 0.0, -np.inf
    for start, end in sorted(ranges):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return float(total)


def _area(boxes: Sequence[Box]) -> float:
    """The share of the picture that the boxes cover together."""
    if len(boxes) == 1:
        left, top, right, bottom = np.clip(boxes[0], 0, 1)
        return float(max(0.0, right - left) * max(0.0, bottom - top))
    cells = np.zeros((_GRID, _GRID), np.bool_)
    for box in boxes:
        left, top, right, bottom = np.round(np.clip(box, 0, 1) * _GRID).astype(int)
        cells[top:bottom, left:right] = True
    return float(cells.mean())
