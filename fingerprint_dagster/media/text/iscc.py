"""The ISCC Text-Code of ISO 24138:2024, as iscc-lib computes it: interoperable with every other ISCC implementation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

ISCC = "iscc_text_v0"
BITS = 256


def text_code_v0(text: str) -> npt.NDArray[np.uint8]:
    """The body of the 256-bit Text-Code of the original text: uint8 [32]. The standard normalises it its own way."""
    import iscc_lib

    code = iscc_lib.gen_text_code_v0(text, BITS)["iscc"]
    return np.frombuffer(iscc_lib.iscc_decode(code)[-1], np.uint8)


def text_of_code_v0(body: npt.NDArray[np.uint8]) -> str:
    """The Text-Code of 64 bits as people write it (`ISCC:EAA...`): a shorter code begins a longer one's body."""
    import iscc_lib

    short = body[:8].tobytes()
    unit: str = iscc_lib.encode_component(iscc_lib.MT.CONTENT, iscc_lib.ST.NONE, iscc_lib.VS.V0, 64, short)
    return f"ISCC:{unit}"
