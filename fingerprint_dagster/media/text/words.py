"""Words as numbers: a hash of each word of a normalised text, its place in the original, and hashes of word sequences.

Everything that compares texts is made of these: signatures (`minhash`, `simhash`), the tokens that find shared
passages (`winnowing`) and the compact record by which two texts are aligned (`alignment`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fingerprint_dagster.media.text.normalize import UNSPACED, Normalized

Numbers = npt.NDArray[np.uint64]

SHINGLE_WORDS = 3
SHINGLE_CHARACTERS = 6
"""Words in a shingle; characters, where it begins with one of a script without spaces."""

WORDS = "text_words_v1"
LONG_WORDS = "text_long_words_v1"

_BLOCK_CHARACTERS = 1 << 20  # hashed at once: bounds the memory that a text of any length takes
_MULTIPLIERS = 1 << 12
UNSPACED_BIT = np.uint8(0x80)
"""Set in the first byte of `packed_words_v1` for characters of scripts without spaces."""
_SPACE = 32


def stream(seed: int, count: int) -> Numbers:
    """`count` numbers of the SplitMix64 generator (Steele, Lea, Flood 2014) from `seed`: the same everywhere."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return mix(np.uint64(seed) + steps)


def mix(numbers: Numbers) -> Numbers:
    """SplitMix64's finaliser: every bit of the result depends on every bit of the number."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


_MULTIPLIER = stream(0x776F7264, _MULTIPLIERS) | np.uint64(1)  # "word" in ASCII


def _unspaced_edges() -> npt.NDArray[np.uint32]:
    """First code points of runs that are, in turn, inside and outside the scripts without spaces."""
    codes = [ord(character) for character in UNSPACED]  # first, "-", last, first, "-", last, ...
    return np.array([(first, last + 1) for first, last in zip(codes[::3], codes[2::3], strict=True)], np.uint32).ravel()


_UNSPACED_EDGES = _unspaced_edges()


@dataclass(frozen=True)
class Words:
    """The n words of a text, in order.

    hashes: uint64 [n]. starts, ends: int32 [n], their places in the original text, in characters.
    unspaced: bool [n], the words that are one character of a script without spaces.
    """

    hashes: Numbers
    starts: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int32]
    unspaced: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.hashes)


def words_v1(normalised: Normalized) -> Words:
    """The words of a normalised text.

    A word c_0 c_1 ... hashes to mix(sum of (c_i + 1) a_i mod 2^64) with fixed random odd a_i, a multilinear hash
    (Lemire and Kaser, "Strongly universal string hashing is fast", 2014). The a_i repeat after 4,096 characters.
    """
    hashes, firsts, lasts, unspaced = [], [], [], []
    for start, end in _blocks(normalised.text):
        block = normalised.text[start:end]
        if block.isascii():
            codes: npt.NDArray[Any] = np.frombuffer(block.encode("ascii"), np.uint8)
        else:
            codes = np.frombuffer(block.encode("utf-32-le", "surrogatepass"), "<u4")
        spaces = np.flatnonzero(codes == _SPACE)
        begins = np.concatenate([[0], spaces + 1])
        stops = np.append(spaces, len(codes))
        inside = np.arange(len(codes)) - np.repeat(begins, np.diff(begins, append=len(codes)))
        terms = (codes.astype(np.uint64) + np.uint64(1)) * _MULTIPLIER[inside & (_MULTIPLIERS - 1)]
        terms[spaces] = 0
        hashes.append(mix(np.add.reduceat(terms, begins)))
        firsts.append(normalised.offsets[begins + start])
        # A word of which only the last character's beginning is known ends behind that character at the earliest.
        lasts.append(np.maximum(normalised.offsets[stops + start], normalised.offsets[stops + start - 1] + 1))
        unspaced.append(np.searchsorted(_UNSPACED_EDGES, codes[begins], "right") % 2 == 1)
    if not hashes:
        none = np.empty(0, np.int32)
        return Words(np.empty(0, np.uint64), none, none, np.empty(0, np.bool_))
    return Words(*(np.concatenate(parts) for parts in (hashes, firsts, lasts, unspaced)))


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of pieces of `text`, cut at the space between two words."""
    start = 0
    while start < len(text):
        end = text.find(" ", start + _BLOCK_CHARACTERS)
        if end < 0:
            end = len(text)
        yield start, end
        start = end + 1


def shingles_v1(words: Words) -> Numbers:
    """The hashes of the text's shingles, uint64, in order and with repetitions.

    A shingle is a sequence of 3 successive words, or of 6 where it begins with a character of a script without
    spaces: its length is chosen at each place by that place's own word, so that an edit changes only the shingles
    around it. A text shorter than its first shingle is one shingle.
    """
    hashes, count = words.hashes, len(words)
    if not words.unspaced.any():
        if count >= SHINGLE_WORDS:
            return _sequences(hashes, SHINGLE_WORDS)
    else:
        short = _sequences(hashes, SHINGLE_WORDS)
        long = _sequences(hashes, SHINGLE_CHARACTERS)
        shingles = short.copy()
        shingles[: len(long)] = np.where(words.unspaced[: len(long)], long, short[: len(long)])
        complete = ~words.unspaced[: len(short)]
        complete[: len(long)] = True
        if complete.any():
            return shingles[complete]
    return _sequences(hashes, count) if count else hashes


def _sequences(hashes: Numbers, length: int) -> Numbers:
    """The hash of each sequence of `length` successive words; none where there are fewer words."""
    count = max(0, len(hashes) - length + 1)
    sequences = hashes[:count]
    for place in range(1, length):
        sequences = mix(sequences) + hashes[place : place + count]
    return mix(sequences)


def packed_words_v1(words: Words) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Two bytes for each word: what the alignment of two texts needs.

    Returns uint8 [n, 2] and int32 [m, 2]. The first byte holds 7 bits of the word's hash and, highest, whether it is
    a character of a script without spaces. The second holds the gap to the end of the word before (high 4 bits) and
    the word's length (low 4 bits), in characters; it is 0 where one of them is out of range: then both are in the
    next row of the second array.
    """
    first = (words.hashes >> np.uint64(57)).astype(np.uint8) | (words.unspaced * UNSPACED_BIT)
    gaps = words.starts - np.concatenate([[0], words.ends[:-1]])
    lengths = words.ends - words.starts
    short = (gaps >= 0) & (gaps < 16) & (lengths > 0) & (lengths < 16)
    second = np.where(short, gaps << 4 | lengths, 0).astype(np.uint8)
    return np.stack([first, second], axis=1), np.stack([gaps, lengths], axis=1)[~short].astype(np.int32)


def word_places_v1(
    packed: npt.NDArray[np.uint8], long: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Start and end of each word in the original text, in characters: int64 [n] each, from `packed_words_v1`."""
    places = packed[:, 1].astype(np.int64)
    gaps, lengths = places >> 4, places & 15
    escaped = places == 0
    gaps[escaped], lengths[escaped] = long[:, 0], long[:, 1]
    ends = np.cumsum(gaps + lengths)
    return ends - lengths, ends
