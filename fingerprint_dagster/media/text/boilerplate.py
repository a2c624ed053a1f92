"""Text that everybody has: licences and their notices, the preambles of common tools, and what a user adds to them.

`boilerplate.npy` holds the winnowing tokens of such texts, uint64, ascending, as `benchmarks/text_boilerplate.py` makes
them. A shared passage of this kind says nothing about where a text comes from, so it does not count as a copied one.
How often a passage is found in one's own collection is another matter: the index counts a rare token more.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fingerprint_dagster.errors import ContentError, UsageError
from fingerprint_dagster.media.text import decode
from fingerprint_dagster.media.text.normalize import normalize_v2
from fingerprint_dagster.media.text.winnowing import WINDOW, winnow_v1
from fingerprint_dagster.media.text.words import SHINGLE_WORDS, Numbers, shingles_v1, words_v1

BOILERPLATE = "text_boilerplate_v1"


@cache
def boilerplate_tokens() -> Numbers:
    """The tokens of the texts that everybody has: uint64, ascending."""
    with files(__package__).joinpath("boilerplate.npy").open("rb") as file:
        return np.asarray(np.load(file, allow_pickle=False), np.uint64)


def with_own(folder: Path | None) -> Numbers:
    """The shipped tokens and those of the texts in `folder`, in any format that is read: uint64, ascending.

    Raises `UsageError` for a folder that is not there or a file in it that is no text.
    """
    if folder is None:
        return boilerplate_tokens()
    if not folder.is_dir():
        raise UsageError(f"text_boilerplate: {folder} is no folder")
    known = [boilerplate_tokens()]
    for path in sorted(folder.iterdir()):
        try:
            text = decode.text_of(decode.decode(path)) if path.is_file() else ""
        except ContentError as error:
            raise UsageError(f"text_boilerplate: {path}: {error.reason}") from None
        known.append(winnow_v1(shingles_v1(words_v1(normalize_v2(text)))))
    return np.unique(np.concatenate(known))


def is_boilerplate(tokens: Numbers, known: Numbers) -> npt.NDArray[np.bool_]:
    """Which of `tokens` are among the known ones (uint64, ascending): bool [n]."""
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
