"""Landmarks, "landmarks_v1": the peaks of the spectrogram, which stay where they are when noise is added.

A landmark is a point that is louder than all around it: within 0.19 s and 1.7 semitones, on a logarithmic frequency
axis, where a change of speed or pitch is a shift. Three strong ones make a token, "landmark_triples_v1", by which noisy
copies are looked up. Peaks in pairs: A. Wang, "An industrial-strength audio search algorithm" (ISMIR 2003); in triples,
on such an axis: J. Six and M. Leman, "Panako" (ISMIR 2014).
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np

from fingerprint_dagster.media.audio.chromaprint import SAMPLE_RATE

FRAME = 2048  # samples of one spectrum
HOP = 512
LOWEST_HZ = 150.0
BANDS_PER_OCTAVE = 36
BANDS = 177  # up to 4,500 Hz
CONSTANT = 8.0  # in the last column of the spectrogram, so that it survives the runtime's scaling of rows

TIME_UNIT = 128 / SAMPLE_RATE  # seconds: 11.6 ms
PITCH_UNIT = 1 / 8  # semitones
_TIME_BITS, _PITCH_BITS = 22, 9

_NEAR_FRAMES, _NEAR_BANDS = 4, 5  # around a landmark nothing is louder
_FARTHER_FRAMES, _FARTHER_BANDS = 2, 2  # nor within so much more around a strong one
_QUIETEST = -5.0  # natural logarithm of the amplitude: 98 dB below a full-scale tone
MARGIN_FRAMES = 16
_STEADY_FRAMES = 8  # before and after: a landmark is louder than their mean
_STEADY = 0.1  # by more than this (0.9 dB): a steady tone has no landmarks

_TARGETS = 5  # followers that one landmark is joined with: the loudest
_TARGET_SECONDS = 2.0
_TARGET_SEMITONES = 14.0
_LOOKED_AT = 40  # next landmarks among which they are chosen
_APART_SECONDS = 0.08  # between two landmarks of a triple
TRIPLES_PER_SECOND = 16


class Landmarks(NamedTuple):
    """Landmarks in the order of their times.

    time: seconds, float64 [n]. pitch: semitones above LOWEST_HZ, float64 [n].
    strong: bool [n], the loudest ones, about a third of all.
    """

    time: np.ndarray
    pitch: np.ndarray
    strong: np.ndarray


def find_landmarks(levels: np.ndarray, first: int = 0, end: int | None = None) -> tuple[np.ndarray, ...]:
    """The landmarks of a spectrogram, or of its frames from `first` to `end`, seen in those around them.

    levels: float32 [frames, BANDS], logarithms of amplitudes, as `spectrum.LogSpectrum` makes them.
    Returns time in seconds (float64 [n]), pitch in semitones above LOWEST_HZ (float64 [n]), whether it is a strong one
    (bool [n]), and the level (float32 [n]), frame by frame. With MARGIN_FRAMES on both sides a part has the landmarks
    that it has in the whole.
    """
    if len(levels) < 3:
        return np.zeros(0), np.zeros(0), np.zeros(0, bool), np.zeros(0, np.float32)
    around = _greatest(_greatest(levels, _NEAR_FRAMES, 0), _NEAR_BANDS, 1)
    found = (levels == around) & (levels > _QUIETEST)
    found[0] = found[-1] = False
    found[:, 0] = found[:, -1] = False
    found[:first] = False
    found[len(levels) if end is None else end :] = False
    frame, band = np.nonzero(found)
    level = levels[frame, band]

    nearby = np.clip(frame[:, None] + np.arange(-_STEADY_FRAMES, _STEADY_FRAMES + 1), 0, len(levels) - 1)
    changing = level - levels[nearby, band[:, None]].mean(axis=1) > _STEADY
    frame, band, level = frame[changing], band[changing], level[changing]

    # The greatest around four points beside it are the greatest within all that these reach.
    earlier, later = np.maximum(frame - _FARTHER_FRAMES, 0), np.minimum(frame + _FARTHER_FRAMES, len(levels) - 1)
    lower, higher = np.maximum(band - _FARTHER_BANDS, 0), np.minimum(band + _FARTHER_BANDS, BANDS - 1)
    strong = np.ones(len(frame), bool)
    for at in (earlier, later):
        for beside in (lower, higher):
            strong &= level >= around[at, beside]
    time = (frame + _vertex(levels[frame - 1, band], level, levels[frame + 1, band])) * (HOP / SAMPLE_RATE)
    pitch = (band + _vertex(levels[frame, band - 1], level, levels[frame, band + 1])) * (12 / BANDS_PER_OCTAVE)
    return time, pitch, strong, level


def pack(time: np.ndarray, pitch: np.ndarray, strong: np.ndarray) -> np.ndarray:
    """Landmarks as uint32 [n]: 22 bits of TIME_UNIT, 9 bits of PITCH_UNIT, and the lowest bit for strong ones."""
    units = np.clip(np.round(time / TIME_UNIT), 0, (1 << _TIME_BITS) - 1).astype(np.uint32)
    steps = np.clip(np.round(pitch / PITCH_UNIT), 0, (1 << _PITCH_BITS) - 1).astype(np.uint32)
    return units << np.uint32(_PITCH_BITS + 1) | steps << np.uint32(1) | strong.astype(np.uint32)


def unpack(packed: np.ndarray) -> Landmarks:
    """What `pack` was given, rounded to its units."""
    time = (packed >> np.uint32(_PITCH_BITS + 1)) * TIME_UNIT
    pitch = (packed >> np.uint32(1) & np.uint32((1 << _PITCH_BITS) - 1)) * PITCH_UNIT
    return Landmarks(time, pitch, (packed & np.uint32(1)).astype(bool))


def triples_v1(landmarks: Landmarks, level: np.ndarray) -> np.ndarray:
    """Tokens of three strong landmarks each, for copies of the same speed and pitch: uint64 [m], in order of time.

    level: float32 [n], the loudness of each landmark. A token holds the pitch of the first in half semitones, the
    intervals to the others, the length (in steps of 30 %), and when the second comes in it (in twelfths).
    """
    time, pitch, triple = _triples(landmarks, level)
    a, b, c = triple.T
    length = time[c] - time[a]
    parts = (
        (np.floor(pitch[a] * 2), 128),
        (np.round((pitch[b] - pitch[a]) * 2) + 32, 64),
        (np.round((pitch[c] - pitch[a]) * 2) + 32, 64),
        (np.floor((time[b] - time[a]) / length * 12), 16),
        (np.floor(np.log(length / 0.1) / np.log(1.3)), 16),
    )
    token = np.zeros(len(a), np.uint64)
    for part, size in parts:
        token = token * np.uint64(size) + np.clip(part, 0, size - 1).astype(np.uint64)
    return token


def _triples(landmarks: Landmarks, level: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times and pitches of the strong landmarks, and three of them a row: int64 [m, 3], in order of time.

    A triple is a landmark and two of the loudest that follow it; of each second the loudest TRIPLES_PER_SECOND stay, a
    triple being as loud as its softest landmark.
    """
    time, pitch, level = (each[landmarks.strong] for each in (landmarks.time, landmarks.pitch, level))
    targets = _targets(time, pitch, level)
    triples = []
    for one, other in combinations(range(_TARGETS), 2):
        first = np.flatnonzero(targets[:, other] >= 0)
        triples.append(np.stack((first, targets[first, one], targets[first, other]), axis=1))
    triple = np.concatenate(triples)
    triple = triple[time[triple[:, 2]] - time[triple[:, 1]] >= _APART_SECONDS]
    second = time[triple[:, 0]].astype(np.int64)
    order = np.lexsort((*triple.T[::-1], -level[triple].min(axis=1), second))
    kept = order[_rank_in_run(second[order]) < TRIPLES_PER_SECOND]
    triple = triple[kept]
    return time, pitch, triple[np.lexsort(triple.T[::-1])]


def _targets(time: np.ndarray, pitch: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Of each landmark the numbers of its loudest followers, rising, -1 where there are fewer; int64 [n, _TARGETS]."""
    last = len(time) - 1
    number = np.arange(last + 1)[:, None] + np.arange(1, _LOOKED_AT + 1)
    inside = np.minimum(number, last)
    later = time[inside] - time[:, None]
    fits = (number <= last) & (later >= _APART_SECONDS) & (later <= _TARGET_SECONDS)
    fits &= np.abs(pitch[inside] - pitch[:, None]) <= _TARGET_SEMITONES
    loudness = np.where(fits, level[inside], -np.inf)
    best = np.argsort(-loudness, axis=1, kind="stable")[:, :_TARGETS]
    chosen = np.where(np.take_along_axis(fits, best, axis=1), np.take_along_axis(number, best, axis=1), last + 1)
    chosen.sort(axis=1)
    chosen[chosen > last] = -1
    return chosen


def _rank_in_run(keys: np.ndarray) -> np.ndarray:
    """The place of each in its run of equal keys: [7, 7, 9] -> [0, 1, 0]."""
    starts = np.flatnonzero(np.diff(keys, prepend=keys[0] - 1)) if len(keys) else np.zeros(0, np.int64)
    lengths = np.diff(np.append(starts, len(keys)))
    ranks: np.ndarray = np.arange(len(keys)) - np.repeat(starts, lengths)
    return ranks


def _greatest(values: np.ndarray, reach: int, axis: int) -> np.ndarray:
    """The greatest within `reach` before and after each value (of float32 [n, m]) along an axis."""
    count, width = values.shape[axis], 2 * reach + 1
    run = np.pad(values, [(reach, reach) if each == axis else (0, 0) for each in (0, 1)], constant_values=-np.inf)

    def cut(first: int, end: int) -> np.ndarray:
        return run[first:end] if axis == 0 else run[:, first:end]

    size = 1
    while 2 * size <= width:  # run[i] is the greatest of i to i + size
        run = np.maximum(cut(0, run.shape[axis] - size), cut(size, run.shape[axis]))
        size *= 2
    rest = width - size
    greatest: np.ndarray = np.maximum(cut(0, count), cut(rest, rest + count))
    return greatest


def _vertex(before: np.ndarray, here: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Where between -0.5 and 0.5 the parabola through three values has its top."""
    bend = before - 2 * here + after
    with np.errstate(divide="ignore", invalid="ignore"):
        place = np.where(bend < 0, 0.5 * (before - after) / bend, 0.0)
    clipped: np.ndarray = np.clip(np.nan_to_num(place), -0.5, 0.5)
    return clipped
