"""Winnowing: few tokens of a text, so chosen that every passage shared with another text shares at least one.

S. Schleimer, D. Wilkerson, A. Aiken, "Winnowing: local algorithms for document fingerprinting" (2003). Of each window
of successive shingles the smallest hash is kept. Two texts with an equal window have its smallest hash in common, so
any passage as long as a window and its last shingle is found, wherever it stands in both, and however long they are. On
average 2 / (WINDOW + 1) of all shingles are kept.
"""

from __future__ import annotations

import numpy as np

from fingerprint_dagster.media.text.words import SHINGLE_CHARACTERS, SHINGLE_WORDS, Numbers

WINNOWING = "winnowing_v1"
WINDOW = 18
GUARANTEED_WORDS = WINDOW + SHINGLE_WORDS - 1
"""Any passage of so many whole words, equal in two normalised texts, gives both a common token."""
GUARANTEED_CHARACTERS = WINDOW + SHINGLE_CHARACTERS - 1
"""The same for passages in scripts without spaces, in characters."""


def winnow_v1(shingles: Numbers, window: int = WINDOW) -> Numbers:
    """The distinct smallest hashes of all windows of `window` successive shingles: uint64, ascending.

    A text with fewer shingles is one window.
    """
    if len(shingles) <= window:
        return shingles.min(keepdims=True) if len(shingles) else shingles
    smallest, width = shingles, 1
    while width < window:  # the minima of windows of `width`, doubled until two of them cover `window`
        step = min(width, window - width)
        smallest = np.minimum(smallest[:-step], smallest[step:])
        width += step
    changes = np.flatnonzero(smallest[1:] != smallest[:-1]) + 1
    return np.unique(np.concatenate([smallest[:1], smallest[changes]]))
