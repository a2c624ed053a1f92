"""The windows of sound that one vector stands for: 5.9 seconds of the spectrogram, about one every second."""

from __future__ import annotations

import numpy as np

from fingerprint_dagster.media.audio.chromaprint import SAMPLE_RATE
from fingerprint_dagster.media.audio.landmarks import BANDS, HOP

ROW_SECONDS = 2 * HOP / SAMPLE_RATE  # two frames of the spectrogram are one row of a window: 93 ms
ROWS, COLUMNS = 64, BANDS // 2
WINDOW_SECONDS = ROWS * ROW_SECONDS
STEP_ROWS = 10  # from one window to the next: 0.93 s
CLOSE_STEP_ROWS = 3  # in a short sound, which is most likely an excerpt that somebody asks about: 0.28 s
MOST_CLOSE = 64  # windows: what a query looks up at most

_LEAST_CHANGE = 0.1  # mean deviation of the levels over the time of a window: below are silence and steady tones


def mean_rows(levels: np.ndarray) -> np.ndarray:
    """Float32 [frames, BANDS] (`landmarks`) -> float32 [frames // 2, COLUMNS]: means of two frames and two bands."""
    even = levels[: len(levels) // 2 * 2, : 2 * COLUMNS]
    # Sums of slices: numpy's mean over two short axes takes ten times as long.
    rows: np.ndarray = even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]
    rows *= 0.25
    return rows


def windows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every window of so many rows (`mean_rows`), and the numbers of those that get a vector.

    Returns a view, float32 [places, ROWS, COLUMNS], and int64 [k]. What is shorter than a window is one, filled up with
    its faintest level.
    """
    if len(rows) == 0:
        return np.zeros((0, ROWS, COLUMNS), np.float32), np.zeros(0, np.int64)
    if len(rows) < ROWS:
        rows = np.concatenate((rows, np.full((ROWS - len(rows), COLUMNS), rows.min(), np.float32)))
    cuts = np.lib.stride_tricks.sliding_window_view(rows, ROWS, axis=0).swapaxes(1, 2)
    starts = np.arange(0, len(cuts), CLOSE_STEP_ROWS)
    if len(starts) > MOST_CLOSE:
        starts = np.arange(0, len(cuts), STEP_ROWS)
    return cuts, starts


def window_positions(starts: np.ndarray, duration: float) -> np.ndarray:
    """Start and end of the windows in a sound of `duration` seconds; float64 [k, 2]."""
    begin = starts * ROW_SECONDS
    return np.stack((begin, np.minimum(begin + WINDOW_SECONDS, duration)), axis=1)


def changing(cuts: np.ndarray) -> np.ndarray:
    """Which windows (float32 [k, ROWS, COLUMNS]) hold more than silence or steady tones; bool [k]."""
    result: np.ndarray = cuts.std(axis=1).mean(axis=1) > _LEAST_CHANGE
    return result
