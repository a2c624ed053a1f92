"""Black bars around the pictures of a video: letterbox, pillarbox, or both."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
F64 = NDArray[np.float64]

_BLACK, _EVEN = 24.0, 6.0  # of 255: below that mean and that standard deviation a row is a bar
_WIDEST = 0.36  # of the picture's side: what is left between wider bars is a small bright thing on black
_NEAR = 0.008  # of the side: by so much compression moves the edge of a bar
_SHARE, _FEW = 0.05, 4  # of the frames of a video must show a bar, and two where there are more than a few
_LOW = 20  # percentile of what the frames of a shot show: the others are darker at the edge of their content


def bars(picture: U8) -> tuple[float, float]:
    """How wide the black bars seem to be: at top and bottom, at left and right, as fractions of the sides.

    picture: uint8 [h, w, 3], RGB. Bars are put on both sides alike, so the narrower one of two counts for both: a
    night scene that is black on its left only has none. A black picture has bars of 0.5, and so has, at top and bottom,
    one too dark to tell.
    """
    grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
    height, width = grey.shape
    top = _bar(grey, axis=1)
    left = _bar(grey[top : height - top], axis=0) if 2 * top < height else width // 2
    return top / height, left / width


def content_boxes(seen: F64, shots: NDArray[np.int32]) -> F64:
    """Where the content of each frame is: float64 [n, 4], left, top, right, bottom as fractions of the sides.

    seen: float64 [n, 2], what `bars` says of the frames; shots: int32 [n], the shot of each. All frames of a shot have
    one box. A dark frame seems to have wider bars than it has, never narrower ones, so bars count that some share of
    the video's frames show, and a shot has the widest of these that it can have.
    """
    sides = np.zeros((len(seen), 2))
    for axis in range(2):
        known = _known(seen[:, axis])
        for shot in np.unique(shots):
            rows = shots == shot
            widest = np.percentile(seen[rows, axis], _LOW) + _NEAR
            sides[rows, axis] = max((bar for bar in known if bar <= widest), default=0.0)
    top, left = sides.T
    return np.column_stack([left, top, 1 - left, 1 - top])


def crop(frame: U8, box: F64) -> U8:
    """The content of a frame, uint8 [side, side, 3], again as large as the frame."""
    side = len(frame)
    left, top, right, bottom = box * side
    # To the fraction of a pixel: where the middle of each new pixel was.
    matrix = np.array([[(right - left) / side, 0, left], [0, (bottom - top) / side, top]])
    matrix[:, 2] += (matrix[0, 0] - 1) / 2, (matrix[1, 1] - 1) / 2
    return np.asarray(
        cv2.warpAffine(
            frame,
            matrix,
            (side, side),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        ),
        np.uint8,
    )


def _known(seen: F64) -> list[float]:
    """The widths that enough frames show, each the median of those near it."""
    candidates = np.sort(seen[(seen > _NEAR) & (seen <= _WIDEST)])
    needed = max(1 if len(seen) <= _FEW else 2, _SHARE * len(seen))
    known = []
    while len(candidates):
        near = np.abs(candidates[:, None] - candidates) <= _NEAR
        best = near.sum(axis=1).argmax()
        if near[best].sum() < needed:
            break
        known.append(float(np.median(candidates[near[best]])))
        candidates = candidates[np.abs(candidates - known[-1]) > 2 * _NEAR]
    return known


def _bar(grey: U8, axis: int) -> int:
    """How many rows (axis 1) or columns (axis 0) the bars at both ends have."""
    black = (grey.mean(axis=axis) < _BLACK) & (grey.std(axis=axis) < _EVEN)
    if black.all():
        return len(black) // 2
    return int(min(np.argmin(black), np.argmin(black[::-1])))
