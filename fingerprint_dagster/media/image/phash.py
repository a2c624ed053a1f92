"""pHash: the widespread 64-bit perceptual hash, as the `imagehash` package computes it.

Source: `phash` of imagehash 4 and its published constant; the method is that of N. Krawetz, "Looks Like It" (2011).
It is here for exchange with systems that hold such hashes. Copies are found by PDQ, whose 256 bits tell more pictures
apart.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]

ALGORITHM = "phash64_v1"

_SIDE = 32  # the picture the DCT sees
_COEFFICIENTS = 8  # kept along each axis, the constant term among them


def phash64_v1(rgb: U8) -> U8:
    """The pHash of one picture: uint8 [h, w, 3] -> uint8 [8], the bytes of the usual 16-digit hexadecimal form.

    Grey by Pillow's luma, 32 x 32 samples by Pillow's Lanczos filter, the 8 x 8 lowest coefficients of their DCT, one
    bit for each above their median. For a picture that the decoder left at its size this is `imagehash.phash` of it to
    the bit; for a larger one it is that of its thumbnail.
    """
    from PIL import Image

    grey = Image.fromarray(rgb).convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    basis = _basis()
    # Rounded, for the zeros of a flat picture to be equal.
    dct = np.round(basis @ np.asarray(grey, np.float64) @ basis.T, 6)
    bits: U8 = np.packbits(dct > np.median(dct))
    return bits


@lru_cache(maxsize=1)
def _basis() -> NDArray[np.float64]:
    frequency = np.arange(_COEFFICIENTS)[:, np.newaxis]
    sample = np.arange(_SIDE)[np.newaxis, :]
    basis: NDArray[np.float64] = 2 * np.cos(np.pi / (2 * _SIDE) * frequency * (2 * sample + 1))
    return basis
