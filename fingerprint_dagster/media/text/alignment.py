"""Where two texts have the same words in the same order: the passages that one has from the other.

Seeds are sequences of 4 words (8 characters of a script without spaces) that both texts have. Seeds on one diagonal,
that is at the same distance in both texts, are joined to runs, and runs that follow one another to chains, so that
replaced, added and left-out words are passed over. It is the way of BLAST (S. Altschul et al., "Basic local alignment
search tool", 1990) and of every aligner since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fingerprint_dagster.media.text.words import UNSPACED_BIT

SEED_WORDS = 4
SEED_CHARACTERS = 8
MAX_REPEATS = 16
"""A sequence of words that comes more often in a text is no seed in it."""
MAX_GAP = 64
"""Words in a row that may differ, or be there in one text only, inside a passage."""
GAP_COST = 0.25
SHIFT_COST = 0.25
"""What a gap inside a passage costs, in equal words: for each of its words, and each that one text has more."""
MAX_RUNS = 4000
"""Runs that are chained, the longest first: bounds the time that texts like tables of numbers take."""


Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Passage:
    """A part of two texts that agrees word by word, but for edits.

    query, reference: first word and the one behind the last, on both sides.
    query_words, reference_words: int64, the places of the words that agree, in order; of equal length.
    """

    query: tuple[int, int]
    reference: tuple[int, int]
    query_words: Integers
    reference_words: Integers


def passages(query: Bytes, reference: Bytes) -> list[Passage]:
    """The passages two texts share, those with most equal words first.

    query, reference: one byte for each word, as `words.packed_words_v1` gives them. Passages may overlap, where a
    text repeats itself.
    """
    starts, ends, shifts = _runs(query, reference)
    if len(starts) > MAX_RUNS:
        longest = np.sort(np.argsort(starts - ends, kind="stable")[:MAX_RUNS])
        starts, ends, shifts = starts[longest], ends[longest], shifts[longest]
    order = np.lexsort((shifts, starts))
    chains = _chains(starts[order].tolist(), ends[order].tolist(), shifts[order].tolist())
    found = [_passage(query, reference, chain) for chain in chains]
    return sorted(found, key=lambda passage: (-len(passage.query_words), passage.query, passage.reference))


def _seeds(words: Bytes) -> tuple[npt.NDArray[np.uint64], Integers]:
    """The hashes of the sequences of words that are not repeated too often, and where they begin."""
    keys = _joined(words.astype(np.uint64), (1, 2))
    places = np.arange(len(keys))
    unspaced = words[: len(keys)] >= UNSPACED_BIT
    if unspaced.any():
        longer = keys[:-SEED_WORDS] | keys[SEED_WORDS:] << np.uint64(32)
        complete = ~unspaced
        complete[: len(longer)] = True
        keys[: len(longer)] = np.where(unspaced[: len(longer)], longer, keys[: len(longer)])
        keys, places = keys[complete], places[complete]
    order = np.argsort(keys, kind="stable")
    keys, places = keys[order], places[order]
    edges = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1], [True]])) if len(keys) else np.zeros(1, int)
    counts = np.diff(edges)
    rare = np.repeat(counts <= MAX_REPEATS, counts)
    return keys[rare], places[rare]


def _joined(keys: npt.NDArray[np.uint64], widths: Sequence[int]) -> npt.NDArray[np.uint64]:
    """Sequences of bytes as one number each, doubled in length for each width."""
    for width in widths:
        keys = keys[:-width] | keys[width:] << np.uint64(8 * width) if len(keys) > width else keys[:0]
    return keys


def _runs(query: Bytes, reference: Bytes) -> tuple[Integers, Integers, Integers]:
    """Seeds joined along diagonals: first word and the one behind the last in the query, and the shift (the place in
    the query less that in the reference)."""
    keys, places = _seeds(query)
    other_keys, other_places = _seeds(reference)
    first = np.searchsorted(other_keys, keys, "left")
    counts = np.searchsorted(other_keys, keys, "right") - first
    total = int(counts.sum())
    which = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(total)
    starts = np.repeat(places, counts)
    shifts = starts - other_places[which]
    lengths = np.where(query[starts] >= UNSPACED_BIT, SEED_CHARACTERS, SEED_WORDS)
    order = np.lexsort((starts, shifts))
    starts, shifts, ends = starts[order], shifts[order], (starts + lengths)[order]
    if not total:
        return starts, ends, shifts
    breaks = np.flatnonzero((shifts[1:] != shifts[:-1]) | (starts[1:] > ends[:-1])) + 1
    firsts = np.concatenate([[0], breaks])
    return starts[firsts], np.maximum.reduceat(ends, firsts), shifts[firsts]


def _chains(starts: list[int], ends: list[int], shifts: list[int]) -> list[list[tuple[int, int, int]]]:
    """Runs, sorted by where they begin, joined to chains of which each is as long as it can be.

    Dynamic programming: a run follows the one that makes the longest chain, less the costs of the gaps. Then the
    longest chain is taken out, then the longest of what remains.
    """
    lengths = [float(end - start) for start, end in zip(starts, ends, strict=True)]
    before = [-1] * len(starts)
    near: list[int] = []  # runs that end at most MAX_GAP words before the one looked at
    for this, (start, end, shift) in enumerate(zip(starts, ends, shifts, strict=True)):
        near = [other for other in near if start - ends[other] <= MAX_GAP]
        most = lengths[this]
        for other in near:
            moved = shift - shifts[other]
            gap, other_gap = start - ends[other], start - ends[other] - moved
            overlap = max(0, -gap, -other_gap)
            if other_gap <= MAX_GAP and overlap < end - start:
                cost = overlap + GAP_COST * max(0, gap, other_gap) + SHIFT_COST * abs(moved)
                length = lengths[other] + (end - start) - cost
                if length > most:
                    most, before[this] = length, other
        lengths[this] = most
        near.append(this)
    chains = []
    taken = [False] * len(starts)
    for this in sorted(range(len(starts)), key=lambda run: (-lengths[run], run)):
        chain = []
        while this >= 0 and not taken[this]:
            taken[this] = True
            chain.append((starts[this], ends[this], shifts[this]))
            this = before[this]
        if chain:
            chains.append(chain[::-1])
    return chains


def _passage(query: Bytes, reference: Bytes, chain: list[tuple[int, int, int]]) -> Passage:
    joined: list[tuple[int, int, int]] = []
    for start, end, shift in chain:
        if joined and joined[-1][2] == shift:
            joined[-1] = (joined[-1][0], end, shift)
            continue
        if joined:  # between two runs, the words that go on as before the edit
            first, last, before = joined[-1]
            joined[-1] = (first, last + _further(query[last:start], reference[last - before : start - shift]), before)
        joined.append((start, end, shift))
    start, end, shift = joined[0]
    joined[0] = (start - _further(query[:start][::-1], reference[: start - shift][::-1]), end, shift)
    start, end, shift = joined[-1]
    joined[-1] = (start, end + _further(query[end:], reference[end - shift :]), shift)
    ours, theirs = [], []
    at = at_other = 0
    for start, end, shift in joined:
        start = max(start, at, at_other + shift)  # what two runs cover belongs to the first
        same = np.flatnonzero(query[start:end] == reference[start - shift : end - shift]) + start
        ours.append(same)
        theirs.append(same - shift)
        at, at_other = end, end - shift
    query_words, reference_words = np.concatenate(ours), np.concatenate(theirs)
    return Passage(
        (int(query_words[0]), int(query_words[-1]) + 1),
        (int(reference_words[0]), int(reference_words[-1]) + 1),
        query_words,
        reference_words,
    )


def _further(query: Bytes, reference: Bytes) -> int:
    """By how many words a passage goes on: as far as more words agree than differ."""
    count = min(len(query), len(reference), MAX_GAP)
    if not count:
        return 0
    balance = np.cumsum(np.where(query[:count] == reference[:count], 1, -1))
    return int(balance.argmax()) + 1 if balance.max() > 0 else 0
