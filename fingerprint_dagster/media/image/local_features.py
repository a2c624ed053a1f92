"""Local features: up to 256 small patches of a picture, each as 256 bits that survive turning, scaling and mirroring.

They prove that one picture shows a part of another, and where (`geometry.py`); their words find such pictures in an
index. The steps and where they are from:

- Places: the extrema of the difference of Gaussians, with a scale and an orientation (Lowe, "Distinctive Image Features
  from Scale-Invariant Keypoints", 2004; OpenCV's detector), in the luma at 192 pixels, which the detector doubles. The
  strongest of each octave are taken in turn, so that enough large ones are among them: a copy that is shown small has
  only those.
- Vectors: gradient histograms of 4 x 4 cells and 8 directions as there, as square roots of shares (Arandjelovic and
  Zisserman, "Three things everyone should know to improve object retrieval", 2012), of all patches at once.
- Mirror images: a patch and its mirror image have the same 128 numbers in another order. Of the two orders the one that
  scores higher along a fitted direction is kept, and which it was (Xie et al., "RIDE: Reversal Invariant Descriptor
  Enhancement", 2015). So mirrored copies cost nothing more.
- Bits: whether each number is above a lower and an upper threshold (Zhou et al., "Scalar Quantization for Large Scale
  Image Search", 2012).
- Words: the nearest entries in two codebooks of fitted projections (Babenko and Lempitsky, "The Inverted Multi-Index",
  2012).

The direction, thresholds, projections and codebooks come from `fit.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pathlib import Path

ALGORITHM = "local_features_v1"
WORDS_ALGORITHM = "local_words_v1"

MOST = 256
WEIGHTS = "image_local_features_v1.safetensors"

_SIDE = 192  # the longer side of the luma that is searched
# OpenCV's threshold, of which the default is 0.04. Where it leaves few features, the picture is soft, and the lower one
# finds those that such a picture has.
_CONTRAST, _SOFT_CONTRAST, _FEW = 0.01, 0.003, 100
_MOST_FOUND = 1000
_PATCH = 16  # samples along each side of a patch
_PATCH_SIZE = 6.0  # its side in units of the feature's size (OpenCV's: the diameter of the blob)
_CELLS = 4
_DIRECTIONS = 8
_DIM = _CELLS * _CELLS * _DIRECTIONS
_BYTES = 2 * _DIM // 8
_SCALE_STEPS = 20.0  # steps an octave, of which a byte holds 12.75

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class LocalFeatures:
    """The features of one picture, strongest first within each octave.

    points: float32 [n, 2], x and y in units of the longer side.
    sizes: float32 [n], in the same units. angles: float32 [n], radians, clockwise from the x axis.
    reversed: bool [n], whether the bits are those of the mirrored patch.
    bits: uint8 [n, 32].
    """

    points: F32
    sizes: F32
    angles: F32
    reversed: NDArray[np.bool_]
    bits: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.points)


def local_features_v1(rgb: NDArray[np.uint8]) -> tuple[LocalFeatures, NDArray[np.uint64]]:
    """The features of a picture, and the word of each, uint64 [n], below 2**20.

    rgb: uint8 [h, w, 3]. A picture without texture has none.
    """
    points, sizes, angles, vectors = detect(rgb)
    weights = _weights()
    vectors, turned = canonical(vectors, weights["direction"])
    above = np.concatenate([vectors > weights["low"], vectors > weights["high"]], axis=1)
    projected = (vectors - weights["mean"]) @ weights["projection"]
    first, second = (_nearest(projected[:, half::2], weights[f"codebook{half}"]) for half in (0, 1))
    words = (first * len(weights["codebook1"]) + second).astype(np.uint64)
    return LocalFeatures(points, sizes, angles, turned, np.packbits(above, axis=1)), words


def pack(features: LocalFeatures) -> NDArray[np.uint8]:
    """The features as rows of 38 bytes: 32 of bits, x and y (16 bits each, little-endian), size, angle and reversal."""
    place = np.rint(np.clip(features.points, 0, 1) * 65535).astype("<u2")
    size = np.clip(np.rint((np.log2(np.maximum(features.sizes, 1e-6)) + 12) * _SCALE_STEPS), 0, 255).astype(np.uint8)
    angle = np.rint(features.angles / (2 * np.pi) * 128).astype(np.int64) % 128
    last = (angle * 2 + features.reversed).astype(np.uint8)
    return np.concatenate([features.bits, place.view(np.uint8).reshape(-1, 4), size[:, None], last[:, None]], axis=1)


def unpack(rows: NDArray[np.uint8]) -> LocalFeatures:
    """The features that `pack` was given, with positions to 1/65535, angles to 3 and sizes to 4 percent."""
    place = np.ascontiguousarray(rows[:, _BYTES : _BYTES + 4]).view("<u2").astype(np.float32) / np.float32(65535)
    sizes = np.exp2(rows[:, _BYTES + 4].astype(np.float32) / np.float32(_SCALE_STEPS) - np.float32(12))
    angles = (rows[:, _BYTES + 5] >> 1).astype(np.float32) * np.float32(2 * np.pi / 128)
    turned = (rows[:, _BYTES + 5] & 1).astype(np.bool_)
    return LocalFeatures(place, sizes, angles, turned, np.ascontiguousarray(rows[:, :_BYTES]))


def detect(rgb: NDArray[np.uint8]) -> tuple[F32, F32, F32, F32]:
    """Points [n, 2] and sizes [n] in units of the longer side, angles [n] in radians, and vectors [n, 128]."""
    import cv2

    height, width = rgb.shape[:2]
    scale = _SIDE / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    small: Any = cv2.resize(luma, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    found = _detector(_CONTRAST).detect(small, None)
    if len(found) < _FEW:
        found = _detector(_SOFT_CONTRAST).detect(small, None)
    rows = np.array([(*k.pt, k.size, k.angle, k.response) for k in found], np.float32).reshape(-1, 5)
    rows = rows[_strongest(rows[:, 2], rows[:, 4])]
    points, sizes, angles = rows[:, :2], rows[:, 2], np.radians(rows[:, 3])
    vectors = _vectors(small, points, sizes, angles)
    # OpenCV counts from the centre of the first pixel; rows and columns are squeezed by slightly different factors.
    units = np.array([width / size[0], height / size[1]], np.float32) / max(width, height)
    return (points + np.float32(0.5)) * units, sizes / np.float32(_SIDE), angles, vectors


@lru_cache(maxsize=2)
def _detector(contrast: float) -> Any:
    import cv2

    untyped: Any = cv2  # the stubs of some releases leave this class out
    return untyped.SIFT_create(nfeatures=_MOST_FOUND, contrastThreshold=contrast)


def _strongest(sizes: F32, responses: F32) -> NDArray[np.int64]:
    """The numbers of the `MOST` features to keep: the best of each octave, the second of each, and so on."""
    order = np.argsort(-responses, kind="stable")
    octaves = np.floor(np.log2(sizes[order])).astype(np.int64)
    by_octave = np.argsort(octaves, kind="stable")
    starts = np.searchsorted(octaves[by_octave], octaves[by_octave])
    turn = np.empty(len(order), np.int64)
    turn[by_octave] = np.arange(len(order)) - starts
    return order[np.argsort(turn, kind="stable")[:MOST]]


def _vectors(luma: NDArray[np.uint8], points: F32, sizes: F32, angles: F32) -> F32:
    """The histograms of square patches around the points, turned by the angles: float32 [n, 128], of length 1."""
    import cv2

    number = len(points)
    if not number:
        return np.zeros((0, _DIM), np.float32)
    step = sizes * np.float32(_PATCH_SIZE / _PATCH)
    pyramid: list[Any] = [luma]
    while min(pyramid[-1].shape) >= 24:
        pyramid.append(cv2.pyrDown(pyramid[-1]))
    levels = np.clip(np.floor(np.log2(step / 0.9)), 0, len(pyramid) - 1).astype(np.int64)
    grid = (np.arange(_PATCH + 2) - (_PATCH + 1) / 2).astype(np.float32)
    cosine, sine = (turn(angles)[:, None, None] * step[:, None, None] for turn in (np.cos, np.sin))
    x = points[:, 0, None, None] + cosine * grid[None, None, :] - sine * grid[None, :, None]
    y = points[:, 1, None, None] + sine * grid[None, None, :] + cosine * grid[None, :, None]
    patches = np.empty((number, _PATCH + 2, _PATCH + 2), np.float32)
    for level in range(len(pyramid)):
        rows = np.flatnonzero(levels == level)
        if len(rows):
            across, down = ((axis[rows] * np.float32(0.5**level)).reshape(len(rows), -1) for axis in (x, y))
            samples = cv2.remap(pyramid[level], across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            patches[rows] = np.asarray(samples).reshape(-1, _PATCH + 2, _PATCH + 2)
    dx = (patches[:, 1:-1, 2:] - patches[:, 1:-1, :-2]).reshape(number, -1)
    dy = (patches[:, 2:, 1:-1] - patches[:, :-2, 1:-1]).reshape(number, -1)
    # The length of the gradient times the cube of the cosine of its angle to each direction: a soft vote without an
    # arc tangent for every sample.
    inverse = 1 / (dx * dx + dy * dy + np.float32(1e-6))
    histograms = np.empty((number, _DIRECTIONS, _CELLS * _CELLS), np.float32)
    for index in range(_DIRECTIONS // 2):
        angle = index * 2 * np.pi / _DIRECTIONS
        along = dx * np.float32(np.cos(angle)) + dy * np.float32(np.sin(angle))
        votes = along * along * along * inverse
        histograms[:, index] = np.maximum(votes, 0) @ _windows()
        histograms[:, index + _DIRECTIONS // 2] = np.maximum(-votes, 0) @ _windows()
    shares = histograms.transpose(0, 2, 1).reshape(number, _DIM)
    vectors: F32 = np.sqrt(shares / np.maximum(shares.sum(axis=1, keepdims=True), np.float32(1e-6)))
    return vectors


@lru_cache(maxsize=1)
def _windows() -> F32:
    """How much each sample counts in each cell, float32 [samples, cells]: bilinear, and less far from the centre."""
    grid = np.arange(_PATCH) - (_PATCH - 1) / 2
    place = grid / (_PATCH / _CELLS) + (_CELLS - 1) / 2
    near = np.exp(-((grid / (_PATCH / 2)) ** 2) / 2)
    share = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(_CELLS))) * near[:, None]
    windows: F32 = np.einsum("yi,xj->yxij", share, share).reshape(_PATCH**2, _CELLS**2).astype(np.float32)
    return windows


def mirrored(vectors: NDArray[Any]) -> NDArray[Any]:
    """The vectors of the mirrored patches, mirrored at their own x axis: [n, 128]."""
    cells = vectors.reshape(-1, _CELLS, _CELLS, _DIRECTIONS)
    return cells[:, ::-1, :, -np.arange(_DIRECTIONS) % _DIRECTIONS].reshape(-1, _DIM)


def canonical(vectors: NDArray[Any], direction: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Each vector or its mirror image, whichever scores higher along `direction`, and which ones were mirrored."""
    other = mirrored(vectors)
    turned: NDArray[np.bool_] = (vectors - other) @ direction < 0
    return np.where(turned[:, None], other, vectors), turned


def _nearest(points: NDArray[Any], codebook: F32) -> NDArray[np.int64]:
    # The half squared length as one more coordinate: one product, and no pass over the differences.
    lengths = -(codebook**2).sum(axis=1, keepdims=True) / 2
    ones = np.ones((len(points), 1), np.float32)
    nearness = np.concatenate([points, ones], axis=1) @ np.concatenate([codebook, lengths], axis=1).T
    nearest: NDArray[np.int64] = nearness.argmax(axis=1)
    return nearest


@lru_cache(maxsize=1)
def _weights() -> dict[str, F32]:
    from safetensors.numpy import load_file

    return {name: array.astype(np.float32) for name, array in load_file(weights_path()).items()}


def weights_path() -> Path:
    """The file of the fitted direction, thresholds, projections and codebooks."""
    from pathlib import Path

    import fingerprint_dagster

    return Path(fingerprint_dagster.__file__).parent / "models" / "weights" / WEIGHTS
