"""The Audio-Code of the International Standard Content Code (ISO 24138:2024), version 0.

The standard makes it of Chromaprint items: eight 32-bit SimHashes, one of all items, four of the quarters, and three
of the thirds of the items in order of their value. `iscc-lib` computes it, and its conformance test runs in ours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ALGORITHM = "iscc_audio_v0"


def iscc_audio_v0(items: NDArray[np.uint32], bits: int = 64) -> tuple[NDArray[np.uint8], str]:
    """The Audio-Code of all Chromaprint items of a sound: its bits, uint8 [bits / 8], and its text (`ISCC:EIA...`).

    items: uint32 [m]; none gives the code of zeros. bits: 32, 64, 96, ... 256; a shorter code begins a longer one.
    Raises ValueError for other items or bits.
    """
    import iscc_lib

    if items.dtype != np.uint32 or items.ndim != 1:
        raise ValueError(f"the Audio-Code is of uint32 [m], not {items.dtype} {list(items.shape)}")
    if bits not in range(32, 257, 32):
        raise ValueError(f"an Audio-Code of {bits} bits: it has 32 to 256, in steps of 32")
    text = iscc_lib.gen_audio_code_v0(items.view(np.int32).tolist(), bits).iscc
    return np.frombuffer(iscc_lib.iscc_decode(text)[-1], np.uint8).copy(), text
