"""The windows of sound that one vector stands for: four seconds, one every two seconds."""

from __future__ import annotations

import numpy as np

from fingerprint_dagster.media.audio.chromaprint import SAMPLE_RATE

WINDOW_SECONDS = 4.0
HOP_SECONDS = 2.0
WINDOW_SAMPLES = int(WINDOW_SECONDS * SAMPLE_RATE)
HOP_SAMPLES = int(HOP_SECONDS * SAMPLE_RATE)


def windows(pcm: np.ndarray) -> list[np.ndarray]:
    """The windows of a sound: int16 [n] -> int16 [WINDOW_SAMPLES] each, one every HOP_SAMPLES, views where possible.

    The last one reaches the end and is filled up with silence; no sound at all gives no window.
    """
    starts = range(0, max(len(pcm) - (WINDOW_SAMPLES - HOP_SAMPLES), min(len(pcm), 1)), HOP_SAMPLES)
    cuts = [pcm[start : start + WINDOW_SAMPLES] for start in starts]
    return [cut if len(cut) == WINDOW_SAMPLES else np.pad(cut, (0, WINDOW_SAMPLES - len(cut))) for cut in cuts]


def window_positions(count: int, duration: float) -> np.ndarray:
    """Start and end of the first `count` windows of a sound of `duration` seconds; float64 [count, 2]."""
    start = np.arange(count) * HOP_SECONDS
    return np.stack((start, np.minimum(start + WINDOW_SECONDS, duration)), axis=1)
