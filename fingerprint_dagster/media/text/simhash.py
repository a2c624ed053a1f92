"""SimHash: 64 bits of which similar texts share most (M. Charikar, "Similarity estimation techniques", 2002).

Each bit is the majority, over the text's shingles, of that bit of their hashes. Web pages are called near-duplicates
when at most 3 bits differ (G. Manku, A. Jain, A. Das Sarma, "Detecting near-duplicates for web crawling", 2007).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fingerprint_dagster.media.text.words import Numbers

SIMHASH = "simhash64_v1"

_BLOCK = 1 << 16


def simhash_v1(shingles: Numbers) -> npt.NDArray[np.uint8]:
    """The SimHash of a sequence of shingles, a repeated one counting as often: uint8 [8], big-endian."""
    ones = np.zeros(64, np.int64)
    for start in range(0, len(shingles), _BLOCK):
        data = shingles[start : start + _BLOCK].astype(">u8").view(np.uint8).reshape(-1, 8)
        ones += np.unpackbits(data, axis=1).sum(axis=0, dtype=np.uint32)
    return np.packbits(2 * ones > len(shingles))
