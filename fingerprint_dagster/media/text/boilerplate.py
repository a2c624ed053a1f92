"""Text that everybody has: licences and their notices, the preambles of common tools.

`boilerplate.npy` holds the winnowing tokens of such texts, uint64, ascending, as `benchmarks/text_boilerplate.py` makes
them. A shared passage of this kind says nothing about where a text comes from, so it does not count as a copied one.
How often a passage is found in one's own collection is another matter: the index counts a rare token more.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from fingerprint_dagster.media.text.winnowing import WINDOW
from fingerprint_dagster.media.text.words import SHINGLE_WORDS, Numbers

BOILERPLATE = "text_boilerplate_v1"


@cache
def boilerplate_tokens() -> Numbers:
    """The tokens of the texts that everybody has: uint64, ascending."""
    with files(__package__).joinpath("boilerplate.npy").open("rb") as file:
        return np.asarray(np.load(file, allow_pickle=False), np.uint64)


def is_boilerplate(tokens: Numbers) -> npt.NDArray[np.bool_]:
    """Which of `tokens` are of texts that everybody has: bool [n]."""
    known = boilerplate_tokens()
    places = np.minimum(np.searchsorted(known, tokens), len(known) - 1)
    return np.asarray(known[places] == tokens)


def boilerplate_v1(shingles: Numbers, tokens: Numbers) -> npt.NDArray[np.int32]:
    """The ranges of words that are text that everybody has: int32 [n, 2], first word and the one behind the last.

    shingles: all of the text (`words.shingles_v1`); tokens: those of its winnowing that are boilerplate. Where they
    follow each other as closely as winnowing makes them, everything between them belongs to it, and half a window
    before the first and behind the last.
    """
    if len(tokens) < 2:
        return np.empty((0, 2), np.int32)
    places = np.flatnonzero(np.isin(shingles, tokens))
    breaks = np.flatnonzero(np.diff(places) > WINDOW) + 1
    firsts, lasts = places[np.r_[0, breaks]], places[np.r_[breaks - 1, len(places) - 1]]
    several = firsts < lasts
    starts = np.maximum(firsts[several] - WINDOW // 2, 0)
    ends = np.minimum(lasts[several] + SHINGLE_WORDS + WINDOW // 2, len(shingles) + SHINGLE_WORDS - 1)
    return np.stack([starts, ends], axis=1).astype(np.int32)
