"""The embed, hash and match stages of sound: from arrays to components, and from two fingerprints to matches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fingerprint_dagster.content import Component, Fingerprint, Match, Sketch, Value
from fingerprint_dagster.media.audio import alignment
from fingerprint_dagster.media.audio.chromaprint import ITEM_SECONDS, ITEM_SPAN_SECONDS, SAMPLE_RATE, chromaprint_v1
from fingerprint_dagster.media.audio.landmarks import (
    BANDS,
    CONSTANT,
    FRAME,
    HOP,
    MARGIN_FRAMES,
    find_landmarks,
    pack,
    triples_v1,
    unpack,
)
from fingerprint_dagster.media.audio.match import Segment, agreement, align, greatest_strength, informative
from fingerprint_dagster.media.audio.windows import (
    COLUMNS,
    ROWS,
    WINDOW_SECONDS,
    changing,
    mean_rows,
    window_positions,
    windows,
)

if TYPE_CHECKING:
    from fingerprint_dagster.models import ModelRuntime

CHROMAPRINT = "chromaprint_v1"
LANDMARKS = "landmarks_v1"
TRIPLES = "landmark_triples_v1"
PATCHES = "sound_patch_v1"

LOW_INFORMATION_ITEMS = 3  # fewer informative ones than 3 s of music have
WHOLE_SHARE = 0.9  # of the query: a part that long leaves nothing to look for
MOST_COMPARED = 512  # windows of a query, when its likest part is looked for

PATCH_BYTES = 32

_WINDOWS_TOGETHER = 16  # one input of the model: one call for each window would take longer than its work
_SEGMENT_FRAMES = 32  # of a spectrogram made in one go: what it needs stays in the cache
_FRAMES_AT_ONCE = 8192  # 6.3 minutes; 6 MB of levels. An even number: rows of windows are made of two
_WINDOWS_AT_ONCE = 512  # 12 MB


def embed_audio(decoded: Sequence[Value], models: ModelRuntime) -> list[Value]:
    """Landmarks and window vectors of each sound, from one spectrogram, of which only a part is in memory.

    Arrays {"landmarks": uint32 [n], packed as in `landmarks.pack`, "levels": float32 [n], "patches": uint8 [k, 32], the
    signs of the vectors, "rows": int64 [k], where the windows begin, "changing": bool [k]} each.
    """
    return [_embedded(value.arrays["pcm"], models) for value in decoded]


def _embedded(pcm: np.ndarray, models: ModelRuntime) -> Value:
    count = max(0, 1 + (len(pcm) - FRAME) // HOP)
    found, rows = [find_landmarks(np.zeros((0, BANDS), np.float32))], [np.zeros((0, COLUMNS), np.float32)]
    for first in range(0, count, _FRAMES_AT_ONCE):
        end = min(first + _FRAMES_AT_ONCE, count)
        before, after = max(0, first - MARGIN_FRAMES), min(count, end + MARGIN_FRAMES)
        levels = spectrogram(pcm[before * HOP : (after - 1) * HOP + FRAME], models)
        time, *rest = find_landmarks(levels, first - before, end - before)
        found.append((time + before * HOP / SAMPLE_RATE, *rest))
        rows.append(mean_rows(levels[first - before : end - before]))
    time, pitch, strong, level = map(np.concatenate, zip(*found, strict=True))
    packed = pack(time, pitch, strong)
    order = np.argsort(packed, kind="stable")
    cuts, starts = windows(np.concatenate(rows))
    patches, changes = _patches(cuts, starts, models)
    return Value(
        {
            "landmarks": packed[order],
            "levels": level[order],
            "patches": patches,
            "rows": starts,
            "changing": changes,
        }
    )


def _patches(cuts: np.ndarray, starts: np.ndarray, models: ModelRuntime) -> tuple[np.ndarray, np.ndarray]:
    """Of the windows that begin at `starts`: the signs of their vectors, uint8 [k, 32]; if they change, bool [k]."""
    from fingerprint_dagster.media.audio.patch import DIMENSIONS, MODEL

    signs, changes = [np.zeros((0, DIMENSIONS // 8), np.uint8)], [np.zeros(0, bool)]
    for first in range(0, len(starts), _WINDOWS_AT_ONCE):
        some = np.ascontiguousarray(cuts[starts[first : first + _WINDOWS_AT_ONCE]])
        groups = np.zeros((-(-len(some) // _WINDOWS_TOGETHER), _WINDOWS_TOGETHER, ROWS, COLUMNS), np.float32)
        groups.reshape(-1, ROWS, COLUMNS)[: len(some)] = some
        vectors = models.embed(MODEL, groups).reshape(-1, DIMENSIONS)[: len(some)]
        signs.append(np.packbits(vectors > 0, axis=1))
        changes.append(changing(some))
    return np.concatenate(signs), np.concatenate(changes)


def spectrogram(pcm: np.ndarray, models: ModelRuntime) -> np.ndarray:
    """int16 [n] -> float32 [frames, BANDS]: see `spectrum.LogSpectrum`. A frame is whole, or there is none."""
    from fingerprint_dagster.media.audio.spectrum import MODEL

    count = max(0, 1 + (len(pcm) - FRAME) // HOP)
    if count == 0:
        return np.zeros((0, BANDS), np.float32)
    step = _SEGMENT_FRAMES * HOP
    segments = -(-count // _SEGMENT_FRAMES)
    padded = np.zeros((segments - 1) * step + FRAME + (_SEGMENT_FRAMES - 1) * HOP, np.int16)
    size = min(len(pcm), len(padded))
    padded[:size] = pcm[:size]
    cuts = np.lib.stride_tricks.sliding_window_view(padded, len(padded) - (segments - 1) * step)[::step]
    rows = models.embed(MODEL, cuts).reshape(-1, BANDS + 1)[:count]
    levels: np.ndarray = rows[:, :-1] * (CONSTANT / rows[:, -1:])
    return levels


def sketch_audio(decoded: Value, embedded: Value) -> Sketch:
    """The fingerprint of one sound.

    Components: chromaprint_v1 (data, uint32 [m]; item i begins at i * ITEM_SECONDS; searchable: the informative ones),
    landmarks_v1 (data, uint32 [n], see `landmarks.pack`), landmark_triples_v1 (tokens: what finds noisy copies),
    sound_patch_v1 (signs, 256 bits, positions in seconds: what finds copies of another speed or pitch).
    info: that of the decoded sound and low_information, True for silence, a steady tone, plain noise and what is
    shorter than 3 s.
    """
    items = chromaprint_v1(decoded.arrays["pcm"])
    useful = informative(items)
    packed = embedded.arrays["landmarks"]
    positions = window_positions(embedded.arrays["rows"], decoded.info["duration"])
    asked = embedded.arrays["changing"]
    components = (
        Component(CHROMAPRINT, "data", items, searchable=useful),
        Component(LANDMARKS, "data", packed),
        Component(TRIPLES, "tokens", triples_v1(unpack(packed), embedded.arrays["levels"])),
        Component(PATCHES, "signs", embedded.arrays["patches"], positions, asked & _useful(positions, useful), asked),
    )
    return Sketch(components, {**decoded.info, "low_information": bool(useful.sum() < LOW_INFORMATION_ITEMS)})


def match_audio(query: Fingerprint, reference: Fingerprint) -> list[Match]:
    """Every part of the query that the reference contains; best first.

    By their Chromaprints where the sound is clean, at the same speed and pitch; what these leave over, by landmarks.
    strength: nats, see `match.Segment` and `alignment`. details of a match by landmarks: speed (above 1 where the query
    is faster) and pitch (semitones by which it is higher).
    """
    matches = []
    known: list[alignment.Alignment] = []
    for segment in _segments(query, reference):
        here, there = segment.query_range, segment.reference_range
        matches.append(Match(reference.content, segment.score, CHROMAPRINT, here, there, strength=segment.strength))
        known.append(alignment.Alignment(here, 1.0, there[0] - here[0], 0.0, segment.score, segment.evidence))
    for found in [] if _all_known(query, known) else _alignments(query, reference):
        if alignment.is_new(found, known):
            details = {"speed": round(found.speed, 4), "pitch": round(found.pitch, 2)}
            here, there = found.query_range, found.reference_range
            matches.append(
                Match(reference.content, found.score, LANDMARKS, here, there, strength=found.evidence, details=details)
            )
    return sorted(matches, key=lambda m: (-m.score, m.query_range, m.reference_range))


def strengths_audio(query: Fingerprint, reference: Fingerprint) -> dict[str, float]:
    """What each evidence of `match_audio` has to say of two sounds: see `ContentTypePlugin.strengths`."""
    found: dict[str, float] = {}
    one, other = query.component(CHROMAPRINT), reference.component(CHROMAPRINT)
    if one is not None and other is not None:
        found[CHROMAPRINT] = greatest_strength(one.values, other.values)
    one, other = query.component(LANDMARKS), reference.component(LANDMARKS)
    if one is not None and other is not None:
        likest, agree = _likeness(query, reference), _agreement(query, reference)
        found[LANDMARKS] = alignment.most_evidence(unpack(one.values), unpack(other.values), *likest, agree)
    return found


def _all_known(query: Fingerprint, known: list[alignment.Alignment]) -> bool:
    """Whether one alignment has nearly all of the query."""
    seconds = query.sketch.info.get("duration", math.inf)
    return any(each.query_range[1] - each.query_range[0] >= WHOLE_SHARE * seconds for each in known)


def _segments(query: Fingerprint, reference: Fingerprint) -> list[Segment]:
    one, other = query.component(CHROMAPRINT), reference.component(CHROMAPRINT)
    return align(one.values, other.values) if one and other else []


def _alignments(query: Fingerprint, reference: Fingerprint) -> list[alignment.Alignment]:
    one, other = query.component(LANDMARKS), reference.component(LANDMARKS)
    if one is None or other is None:
        return []
    likest, agree = _likeness(query, reference), _agreement(query, reference)
    return alignment.align(unpack(one.values), unpack(other.values), *likest, agree)


def _agreement(query: Fingerprint, reference: Fingerprint) -> alignment.Agreement:
    """What the Chromaprints say about a place that the landmarks found."""
    items, there = query.component(CHROMAPRINT), reference.component(CHROMAPRINT)

    def agree(part: tuple[float, float], offset: float) -> float:
        if items is None or there is None:
            return 0.0
        return agreement(items.values, informative(items.values), there.values, part, offset)

    return agree


def _likeness(query: Fingerprint, reference: Fingerprint) -> tuple[np.ndarray, np.ndarray]:
    """Middles of the query's windows in seconds, and how many bits each shares with the likest of the reference."""
    one, other = query.component(PATCHES), reference.component(PATCHES)
    if one is None or other is None or one.positions is None or not len(one.values) or not len(other.values):
        return np.zeros(0), np.zeros(0)
    chosen = np.linspace(0, len(one.values) - 1, min(len(one.values), MOST_COMPARED)).round().astype(np.int64)
    mine, theirs = (np.ascontiguousarray(part.values).view(np.uint64) for part in (one, other))
    shared = [8.0 * PATCH_BYTES - np.bitwise_count(theirs ^ row).sum(axis=1).min() for row in mine[chosen]]
    return one.positions[chosen, 0] + WINDOW_SECONDS / 2, np.array(shared, np.float64)


def _useful(positions: np.ndarray, useful: np.ndarray) -> np.ndarray:
    """Whether at least half of the Chromaprint items that lie in a window are informative; bool [k]."""
    first = np.ceil(positions[:, 0] / ITEM_SECONDS).astype(int)
    last = np.floor((positions[:, 1] - ITEM_SPAN_SECONDS) / ITEM_SECONDS).astype(int)
    first, last = (np.clip(index, 0, max(len(useful) - 1, 0)) for index in (first, np.maximum(first, last)))
    total = np.concatenate(([0], np.cumsum(useful)))
    end = np.minimum(last + 1, len(useful))
    inside = total[end] - total[np.minimum(first, len(useful))]
    result: np.ndarray = (inside > 0) & (2 * inside >= end - first)
    return result
