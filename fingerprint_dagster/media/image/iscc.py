"""The Image-Code of the International Standard Content Code (ISO 24138:2024), version 0, 64 bits.

The standard turns a picture upright, puts it on white, trims a border of one colour, and makes it grey and 32 x 32
pixels: `grey32`. What those pixels become is `iscc-lib`'s work, whose conformance test runs in ours.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

U8 = NDArray[np.uint8]

ALGORITHM = "iscc_image_v0"

_SIDE = 32
_GAP = 6.0  # Pillow's reducing gap: the box filter leaves at least six times the pixels wanted
_PREFIX = "ISCC:"
_HEADER_BYTES = 2


def iscc_image_v0(grey: U8) -> tuple[U8, str]:
    """The Image-Code of `grey32`'s uint8 [32, 32]: its 64 bits, uint8 [8], and its text (`ISCC:EEA4GQZQTY6J5DTH`)."""
    import iscc_lib

    if grey.shape != (_SIDE, _SIDE) or grey.dtype != np.uint8:
        raise ValueError(f"the Image-Code is of uint8 [32, 32], not {grey.dtype} {list(grey.shape)}")
    text = iscc_lib.gen_image_code_v0(grey.tobytes(), 64).iscc
    letters = text.removeprefix(_PREFIX)
    code = base64.b32decode(letters + "=" * (-len(letters) % 8))[_HEADER_BYTES:]
    return np.frombuffer(code, np.uint8).copy(), text


def grey32(image: Image, *, exact: bool = True) -> U8:
    """The pixels the Image-Code is made of: a picture, upright and without transparency -> uint8 [32, 32].

    exact: by the standard's filter alone. Otherwise after a box filter, in a third of the time: for pictures that have
    lost pixels already. Of 157 photographs shrunk by libjpeg, 92 % then have the code of the full picture, and 94 %
    with the standard's filter alone; the others differ by 2 bits.
    """
    from PIL import Image

    grey = _trim(image).convert("L")
    return np.array(grey.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC, reducing_gap=None if exact else _GAP))


def _trim(image: Image) -> Image:
    """The picture without a border of the colour of its upper left pixel; as it is where it has only that colour."""
    from PIL import Image, ImageChops

    width, height = image.size
    colour = image.getpixel((0, 0))
    # Few pictures have such a border; the four outermost lines tell at once.
    lines = ((0, 0, width, 1), (0, height - 1, width, height), (0, 0, 1, height), (width - 1, 0, width, height))
    if not any(_has_only(image.crop(line), colour) for line in lines):
        return image
    box = ImageChops.difference(image, Image.new(image.mode, image.size, colour)).getbbox()
    return image if box is None else image.crop(box)


def _has_only(image: Image, colour: object) -> bool:
    colours = image.getcolors(1)
    return colours is not None and colours[0][1] == colour
