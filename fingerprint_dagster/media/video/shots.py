"""What changes from one sampled picture to the next: nothing, something, or all of it, as at a cut."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]

GRID = 17  # blocks along each side of a picture
STILL_LEVELS = 5  # of 255: in a picture that stands still, re-encoding moves the mean of a block by less
CUT_LIKENESS = 0.6  # the correlation of the blocks below which the picture is another one, and
CUT = 0.16  # how much must differ: the share of colours times what the correlation is short of 1
BLACK = 24  # of 255: blocks darker than that in both pictures, as black bars are, say nothing of their likeness


def blocks(picture: U8) -> U8:
    """The mean colours of a picture's blocks: uint8 [GRID, GRID, 3]."""
    return np.asarray(cv2.resize(picture, (GRID, GRID), interpolation=cv2.INTER_AREA), np.uint8)


def is_still(before: U8, after: U8) -> bool:
    """Whether two pictures, given as blocks, are the same but for what compression does."""
    return bool(cv2.absdiff(before, after).max() <= STILL_LEVELS)


def is_cut(before: U8, after: U8) -> bool:
    """Whether a shot ends between two pictures, given as blocks: other colours in other places.

    A moving camera keeps the colours; a flash or a fade keeps the places.
    """
    alike = likeness(before, after)
    return alike < CUT_LIKENESS and colour_difference(before, after) * (1 - alike) > CUT


def colour_difference(before: U8, after: U8) -> float:
    """The share of blocks, 0..1, whose colours the other picture does not have: half the L1 distance of histograms."""
    return float(np.abs(_histogram(before) - _histogram(after)).sum() / 2)


def likeness(before: U8, after: U8) -> float:
    """The correlation, -1..1, of the brightness of the same blocks; 1 for two even pictures, 0 for one and another."""
    one, other = (blocks.mean(axis=2).ravel() for blocks in (before, after))
    seen = np.maximum(one, other) >= BLACK
    if not seen.any():
        return 1.0
    one, other = one[seen] - one[seen].mean(), other[seen] - other[seen].mean()
    length = float(np.sqrt((one @ one) * (other @ other)))
    return float(one @ other) / length if length else float(np.array_equal(one, other))


def _histogram(blocks: U8) -> NDArray[np.float64]:
    """The shares of 64 colours."""
    levels = (blocks >> 6).reshape(-1, 3).astype(np.int64)
    return np.bincount(levels @ [16, 4, 1], minlength=64) / len(levels)
