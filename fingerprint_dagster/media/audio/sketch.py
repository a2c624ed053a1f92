"""The embed, hash and match stages of sound: from arrays to components, and from two fingerprints to matches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fingerprint_dagster.content import Component, Fingerprint, Match, Sketch, Value
from fingerprint_dagster.media.audio.chromaprint import ITEM_SECONDS, ITEM_SPAN_SECONDS, chromaprint_v1
from fingerprint_dagster.media.audio.match import align, informative
from fingerprint_dagster.media.audio.windows import window_positions, windows

if TYPE_CHECKING:
    from fingerprint_dagster.models import ModelRuntime

CHROMAPRINT = "chromaprint_v1"
TOKENS = "chromaprint_tokens_v1"
LOGMEL = "logmel_v1"

LOOKED_UP_BITS = np.uint32(0xFFFFFFF0)  # of an item, as AcoustID does: the lowest bits flip first in a copy
LOW_INFORMATION_ITEMS = 3  # fewer informative ones than 3 s of music have

_WINDOWS_AT_ONCE = 256  # 23 MB of samples


def embed_audio(decoded: Sequence[Value], models: ModelRuntime) -> list[Value]:
    """Vectors of the windows of each sound, all sounds in common batches: arrays {"logmel": float32 [k, 256]} each."""
    from fingerprint_dagster.media.audio import logmel

    cuts = [windows(value.arrays["pcm"]) for value in decoded]
    every = [cut for of_one in cuts for cut in of_one]
    vectors = [np.zeros((0, logmel.DIMENSIONS), np.float32)]
    for start in range(0, len(every), _WINDOWS_AT_ONCE):
        vectors.append(models.embed(logmel.MODEL, np.stack(every[start : start + _WINDOWS_AT_ONCE])))
    ends = np.cumsum([len(of_one) for of_one in cuts])
    return [Value({"logmel": part}) for part in np.split(np.concatenate(vectors), ends)[:-1]]


def sketch_audio(decoded: Value, embedded: Value) -> Sketch:
    """The fingerprint of one sound.

    Components: chromaprint_v1 (data, uint32 [m]; item i begins at i * ITEM_SECONDS; searchable: the informative ones),
    chromaprint_tokens_v1 (tokens, positions in seconds, equal neighbours once), logmel_v1 (cosine, positions).
    info: that of the decoded sound and low_information, True for silence, a steady tone, plain noise and what is
    shorter than 3 s.
    """
    items = chromaprint_v1(decoded.arrays["pcm"])
    useful = informative(items)
    vectors = embedded.arrays["logmel"]
    positions = window_positions(len(vectors), decoded.info["duration"])
    components = (
        Component(CHROMAPRINT, "data", items, searchable=useful),
        _tokens(items, useful),
        Component(LOGMEL, "cosine", vectors, positions, _useful_windows(positions, useful)),
    )
    return Sketch(components, {**decoded.info, "low_information": bool(useful.sum() < LOW_INFORMATION_ITEMS)})


def match_audio(query: Fingerprint, reference: Fingerprint) -> list[Match]:
    """Every part of the query that the reference contains, by their Chromaprints; best first."""
    items = []
    for fingerprint in (query, reference):
        component = fingerprint.component(CHROMAPRINT)
        if component is None:
            return []
        items.append(component.values)
    return [
        Match(reference.content, segment.score, CHROMAPRINT, segment.query_range, segment.reference_range)
        for segment in align(*items)
    ]


def _tokens(items: np.ndarray, useful: np.ndarray) -> Component:
    """The looked-up bits of each item, with its time; a run of equal ones is one row."""
    codes = (items & LOOKED_UP_BITS).astype(np.uint64)
    first = np.flatnonzero(np.concatenate((np.ones(min(len(codes), 1), bool), codes[1:] != codes[:-1])))
    last = np.append(first[1:], len(codes))[: len(first)] - 1
    positions = np.stack((first * ITEM_SECONDS, last * ITEM_SECONDS + ITEM_SPAN_SECONDS), axis=1)
    searchable = np.logical_or.reduceat(useful, first) if len(first) else np.zeros(0, bool)
    return Component(TOKENS, "tokens", codes[first], positions, searchable)


def _useful_windows(positions: np.ndarray, useful: np.ndarray) -> np.ndarray:
    """Whether at least half of the Chromaprint items that lie in a window are informative; bool [k]."""
    first = np.ceil(positions[:, 0] / ITEM_SECONDS).astype(int)
    last = np.floor((positions[:, 1] - ITEM_SPAN_SECONDS) / ITEM_SECONDS).astype(int)
    first, last = (np.clip(index, 0, max(len(useful) - 1, 0)) for index in (first, np.maximum(first, last)))
    total = np.concatenate(([0], np.cumsum(useful)))
    end = np.minimum(last + 1, len(useful))
    inside = total[end] - total[np.minimum(first, len(useful))]
    result: np.ndarray = (inside > 0) & (2 * inside >= end - first)
    return result
