"""PDQ: the 256-bit perceptual image hash of Meta, computed to the bit.

Source: "The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm" (Meta, 2019) and its published test
vectors. The published definition is a chain: luma, two passes of a box filter along rows and columns, decimation to
64 x 64, a 16 x 16 DCT without its constant term, one bit for each coefficient above their median. Everything before
the median is linear and separable, so each axis is one small matrix here: `_reduction` is both box passes and the
decimation at once, and only the rows and columns that the decimation keeps are computed. In float64 the order of the
additions cannot reach a bit of the hash of a real picture, so every machine gets the same one.

The functions hash what they are given. Which pre-shrink comes first is the caller's choice, and is part of the
version of what is stored (see `decode.py`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

U8 = NDArray[np.uint8]
F64 = NDArray[np.float64]

ALGORITHM = "pdq_v1"
DIHEDRAL_ALGORITHM = "pdq_dihedral_v1"
# The authors' recommendations: what is at most this far apart is the same picture, and pictures of lower quality have
# too few features for a distance to mean anything.
MAX_DISTANCE = 31
MIN_QUALITY = 50

_SIDE = 64  # the picture the DCT sees
_MIN_SIDE = 5  # smaller pictures have no hash
_COEFFICIENTS = 16  # kept along each axis


def pdq_v1(rgb: U8) -> tuple[U8, int]:
    """The hash of one picture.

    rgb: uint8 [h, w, 3].
    Returns the hash, uint8 [32] (the bytes of the usual 64-digit hexadecimal form), and its quality, 0..100.
    A picture with a side below 5 pixels has a zero hash of quality 0.
    """
    hashes, qualities = pdq_frames_v1(rgb[np.newaxis])
    return hashes[0], int(qualities[0])


def pdq_frames_v1(frames: U8) -> tuple[U8, U8]:
    """The hashes of many pictures of one size, each equal to what `pdq_v1` gives.

    frames: uint8 [n, h, w, 3]. Returns hashes uint8 [n, 32] and qualities uint8 [n], 0..100.
    """
    small = _shrink(frames)
    return _bits(_dct(small)), _quality(small)


def pdq_dihedral_v1(rgb: U8) -> tuple[U8, int]:
    """The hashes of one picture and of its seven rotations and reflections.

    rgb: uint8 [h, w, 3]. Returns hashes uint8 [8, 32] and the quality 0..100 of the first. The rows are: as it is;
    rotated by 90, 180 and 270 degrees counter-clockwise; upside down; mirrored; the two diagonal reflections.

    Each is what `pdq_v1` gives for the picture so turned. The published shortcut, which changes signs in one DCT, is
    not: the 64 x 64 samples are not placed symmetrically, and it was 16 to 20 bits off in the mean of 250 photographs
    and more than 31 in a tenth of them.
    """
    _check(rgb[np.newaxis])
    small = np.zeros((4, _SIDE, _SIDE))
    if min(rgb.shape[:2]) >= _MIN_SIDE:
        columns = _columns(rgb.shape[1])
        lines = rgb.reshape(rgb.shape[0], -1).astype(np.float64)
        for index, upside_down in enumerate((False, True)):
            rows = _luma_rows(lines, upside_down=upside_down)
            small[index], small[index + 2] = rows @ columns, rows[:, ::-1] @ columns
    upright, upside_down, mirrored, both = _dct(small)
    forms = [upright, mirrored.T, both, upside_down.T, upside_down, mirrored, upright.T, both.T]
    return _bits(np.stack(forms)), int(_quality(small[:1])[0])


def pdq_frames_torch_v1(frames: Tensor) -> tuple[Tensor, Tensor]:
    """`pdq_frames_v1` on the device that holds the pictures, CPU or CUDA.

    frames: uint8 [n, h, w, 3]. Returns hashes uint8 [n, 32] and qualities uint8 [n], 0..100, on the same device. It
    holds the pictures in float64, 8 bytes a pixel; on a CPU `pdq_frames_v1` is the faster of the two.
    """
    import torch

    if frames.ndim != 4 or frames.dtype != torch.uint8 or frames.shape[3] != 3:
        raise ValueError(f"pictures must be uint8 [n, h, w, 3], not {frames.dtype} {list(frames.shape)}")
    count, height, width, _ = frames.shape
    if min(height, width) < _MIN_SIDE:
        return frames.new_zeros((count, 32)), frames.new_zeros(count)

    def on_device(matrix: F64) -> Tensor:
        return torch.from_numpy(matrix).to(frames.device)

    red, green, blue = frames.double().unbind(-1)
    small = on_device(_reduction(height)) @ (0.299 * red + 0.587 * green + 0.114 * blue) @ on_device(_columns(width))
    steps = [(small.diff(dim=axis) * 100 / 255).trunc().abs().sum(dim=(1, 2)) for axis in (1, 2)]
    quality = ((steps[0] + steps[1]) // 90).clamp(max=100).to(torch.uint8)
    basis = on_device(_basis())
    dct = (basis @ small @ basis.T).flatten(1)
    above = (dct > dct.median(dim=1, keepdim=True).values).flip(1).view(count, 32, 8)
    places = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=frames.device)
    return (above * places).sum(dim=2, dtype=torch.uint8), quality


def _check(frames: U8) -> None:
    if frames.ndim != 4 or frames.dtype != np.uint8 or frames.shape[3] != 3:
        raise ValueError(f"a picture must be uint8 [h, w, 3], not {frames.dtype} {list(frames.shape[1:])}")


def _shrink(frames: U8) -> F64:
    """Filtered and decimated luma, float64 [n, 64, 64]; zeros where a side is below 5 pixels."""
    _check(frames)
    small = np.zeros((len(frames), _SIDE, _SIDE))
    if min(frames.shape[1:3]) >= _MIN_SIDE:
        columns = _columns(frames.shape[2])
        for frame, out in zip(frames, small, strict=True):
            np.matmul(_luma_rows(frame.reshape(frame.shape[0], -1)), columns, out=out)
    return small


def _luma_rows(lines: U8 | F64, *, upside_down: bool = False) -> F64:
    """The luma of a picture, filtered and decimated from top to bottom only: [h, 3 w], RGB -> float64 [64, w]."""
    rows = np.empty((_SIDE, lines.shape[1]))
    for (first, weights), row in zip(_bands(len(lines)), rows, strict=True):
        if upside_down:
            first, weights = len(lines) - first - len(weights), weights[::-1].copy()
        np.dot(weights, lines[first : first + len(weights)].astype(np.float64, copy=False), out=row)
    red, green, blue = np.moveaxis(rows.reshape(_SIDE, -1, 3), 2, 0)
    luma: F64 = 0.299 * red + 0.587 * green + 0.114 * blue
    return luma


def _quality(small: F64) -> U8:
    """How much the neighbouring samples differ: the sum of their whole-percent differences over 90, at most 100."""
    gradient = sum(
        np.abs(np.trunc(np.diff(small, axis=axis) * 100 / 255)).sum(axis=(1, 2), dtype=np.int64) for axis in (1, 2)
    )
    quality: U8 = np.minimum(gradient // 90, 100).astype(np.uint8)
    return quality


def _dct(small: F64) -> F64:
    """Rows and columns 1..16 of the DCT: float64 [n, 64, 64] -> [n, 16, 16]."""
    basis = _basis()
    dct: F64 = basis @ small @ basis.T
    return dct


def _bits(dct: F64) -> U8:
    """One bit for each coefficient above the median (the lower of the two middle ones): [n, 16, 16] -> uint8 [n, 32].

    The hexadecimal form begins with the last coefficient.
    """
    flat = dct.reshape(len(dct), _COEFFICIENTS**2)
    middle = (flat.shape[1] - 1) // 2
    median = np.partition(flat, middle, axis=1)[:, middle : middle + 1]
    bits: U8 = np.packbits((flat > median)[:, ::-1], axis=1)
    return bits


def _reduction(size: int) -> F64:
    """The two box passes and the decimation of one axis as one matrix [64, size], whose rows sum to 1.

    The window around i is [i + ahead - window, i + ahead), cut at the ends of the axis. Sample x counts in row r once
    for every position of r's window whose own window holds x, each time divided by the lengths of both windows.
    """
    window = (size + 127) // 128
    ahead = (window + 2) // 2
    index = np.arange(size)
    first, last = np.maximum(index + ahead - window, 0), np.minimum(index + ahead, size)
    shares = np.concatenate(([0.0], np.cumsum(1 / (last - first))))
    kept = ((np.arange(_SIDE) + 0.5) * size / _SIDE).astype(np.int64)[:, np.newaxis]
    low = np.maximum(first[kept], index - ahead + 1)
    high = np.maximum(np.minimum(last[kept], index - ahead + window + 1), low)
    reduction: F64 = (shares[high] - shares[low]) / (last - first)[kept]
    return reduction


@lru_cache(maxsize=32)
def _columns(width: int) -> F64:
    return np.ascontiguousarray(_reduction(width).T)


@lru_cache(maxsize=256)
def _bands(height: int) -> list[tuple[int, F64]]:
    """Each row of `_reduction` without its zeros: where it begins, and its few weights."""
    matrix = _reduction(height)
    ends = [(int(used[0]), int(used[-1]) + 1) for used in map(np.flatnonzero, matrix)]
    return [(first, row[first:last].copy()) for row, (first, last) in zip(matrix, ends, strict=True)]


@lru_cache(maxsize=1)
def _basis() -> F64:
    frequency = np.arange(1, _COEFFICIENTS + 1)[:, np.newaxis]
    sample = np.arange(_SIDE)[np.newaxis, :]
    basis: F64 = np.sqrt(2 / _SIDE) * np.cos(np.pi / (2 * _SIDE) * frequency * (2 * sample + 1))
    return basis
