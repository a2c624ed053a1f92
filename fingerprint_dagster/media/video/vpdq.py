"""vPDQ's text form of a video: what its tools read and write.

Source: ThreatExchange, vpdq (Meta): one line for each frame, "number,quality,hash,seconds".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fingerprint_dagster.content import Fingerprint
from fingerprint_dagster.media.video.sketch import PDQ, PDQ_QUALITY


def text(hashes: NDArray[np.uint8], qualities: NDArray[np.uint8], seconds: NDArray[np.float64]) -> str:
    """The lines. hashes: uint8 [n, 32]; qualities: uint8 [n], 0..100; seconds: float64 [n]."""
    rows = zip(qualities.tolist(), hashes, seconds.tolist(), strict=True)
    return "".join(f"{n},{quality},{row.tobytes().hex()},{time:.3f}\n" for n, (quality, row, time) in enumerate(rows))


def parse(lines: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float64]]:
    """What `text` was given: hashes, qualities and seconds. Raises ValueError for anything else."""
    rows = [line.split(",") for line in lines.splitlines() if line]
    if any(len(row) != 4 or len(row[2]) != 64 for row in rows):
        raise ValueError("not vPDQ's text: a line is number,quality,hash,seconds")
    hashes = np.array([list(bytes.fromhex(row[2])) for row in rows], np.uint8).reshape(-1, 32)
    return hashes, np.array([int(row[1]) for row in rows], np.uint8), np.array([float(row[3]) for row in rows])


def of(fingerprint: Fingerprint) -> str:
    """The frames of a video's fingerprint; numbered as they were kept, of which there are fewer than in the file."""
    pdq, quality = fingerprint.component(PDQ), fingerprint.component(PDQ_QUALITY)
    if pdq is None or quality is None or pdq.positions is None:
        return ""
    count = len(quality.values)
    return text(pdq.values[:count], quality.values, pdq.positions[:count, 0])
