"""MinHash signatures: a fixed-size sketch of a text from which its Jaccard similarity to another is estimated.

A. Broder, "On the resemblance and containment of documents" (1997). The set is that of the text's shingles: each
sequence of 3 successive words, or of 6 where it begins with a character of a script without spaces. The length is
chosen at each place by that place's own word, so that an edit changes only the shingles around it.

Of each of 128 random functions the signature keeps the smallest value over all shingles; two texts agree in one
place with a probability equal to their Jaccard similarity J, so the share of equal places estimates J with a
standard deviation of sqrt(J (1 - J) / 128), at most 0.044.

The functions are h(x) = ((a x + b) mod 2^64) >> 32 with a and b random 64-bit numbers, a odd: the strongly universal
multiply-add-shift scheme for 32-bit x (M. Dietzfelbinger, "Universal hashing and k-wise independent random variables
via integer arithmetic without primes", 1996). Unlike (a x + b) mod (2^61 - 1), it is exact in the 64-bit arithmetic
that numpy has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from fingerprint_dagster.media.text.normalize import UNSPACED

MINHASH = "minhash_v1"
LSH = "minhash_lsh_v1"
SIZE = 128
BANDS = 32

_WORDS = 3
_UNSPACED_CHARACTERS = 6
_UNSPACED_WORD = re.compile(f"[{UNSPACED}]")

_BLOCK_CHARACTERS = 1 << 20  # of text turned into words at once: bounds the memory that a text of any length takes
_BLOCK_SHINGLES = 256  # hashed at once: 128 x 256 numbers of 8 bytes stay in a processor's second-level cache

Numbers = npt.NDArray[np.uint64]


def _stream(seed: int, count: int) -> Numbers:
    """`count` numbers of the SplitMix64 generator (Steele, Lea, Flood 2014) from `seed`: the same everywhere."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return _mix(np.uint64(seed) + steps)


def _mix(numbers: Numbers) -> Numbers:
    """SplitMix64's finaliser: every bit of the result depends on every bit of the number."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


_SEED = 0x66696E676572  # "finger" in ASCII
_A = _stream(_SEED, 2 * SIZE)[:SIZE] | np.uint64(1)
_B = _stream(_SEED, 2 * SIZE)[SIZE:]


def minhash_v1(normalised: str) -> npt.NDArray[np.uint32]:
    """The signature of a text that `normalize_v1` has made: uint32 [128].

    A text shorter than its first shingle is one shingle; that of no text at all is 2^32 - 1 throughout.
    """
    smallest = np.full(SIZE, np.iinfo(np.uint64).max, np.uint64)
    for shingles in shingles_v1(normalised):
        for start in range(0, len(shingles), _BLOCK_SHINGLES):
            values = shingles[start : start + _BLOCK_SHINGLES, None] * _A
            values += _B
            np.minimum(smallest, values.min(axis=0), out=smallest)
    return (smallest >> np.uint64(32)).astype(np.uint32)


def lsh_tokens_v1(signature: npt.NDArray[np.uint32]) -> Numbers:
    """The look-up tokens of a signature: uint64 [32], each the XXH3 hash of 4 successive places, seeded by its number.

    Two texts share at least one token with a probability of 1 - (1 - J^4)^32: 0.05 at J = 0.2, 0.23 at 0.3, 0.56 at
    0.4, 0.87 at 0.5, 0.99 at 0.6 and over 0.999 from 0.7 on.
    """
    rows = np.ascontiguousarray(signature, "<u4").reshape(BANDS, -1)
    return np.array([xxhash.xxh3_64_intdigest(row.tobytes(), seed=band) for band, row in enumerate(rows)], np.uint64)


def jaccard(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """The Jaccard similarity that two signatures estimate, 0..1."""
    return float(np.mean(one == other))


def shingles_v1(normalised: str) -> Iterator[Numbers]:
    """The shingles of a normalised text as 32-bit hashes, uint64 [n] in each block, in order and with repetitions."""
    longest = _UNSPACED_CHARACTERS
    waiting = np.empty(0, np.uint64)  # hashes of words, and below the lengths of the shingles that begin with them
    lengths = np.empty(0, np.intp)
    found = False
    for block, last in _blocks(normalised):
        words = block.encode().split()
        waiting = np.concatenate([waiting, np.fromiter(map(xxhash.xxh3_64_intdigest, words), np.uint64, len(words))])
        lengths = np.concatenate([lengths, _lengths(block, len(words))])
        # Only the first words are known to have all that follows them; the rest waits for the next block.
        count = len(waiting) if last else max(0, len(waiting) - longest + 1)
        shingles = _combine(waiting, lengths, count)
        if len(shingles):
            found = True
            yield shingles
        waiting, lengths = waiting[count:], lengths[count:]
    if not found and normalised:
        yield _mix(np.array([xxhash.xxh3_64_intdigest(normalised.encode())], np.uint64)) >> np.uint64(32)


def _blocks(text: str) -> Iterator[tuple[str, bool]]:
    """`text` in pieces cut at spaces, each with whether it is the last."""
    start = 0
    while True:
        end = text.find(" ", start + _BLOCK_CHARACTERS)
        if end < 0:
            yield text[start:], True
            return
        yield text[start:end], False
        start = end


def _lengths(block: str, count: int) -> npt.NDArray[np.intp]:
    """How many words the shingle that begins with each of the `count` words of `block` has."""
    if not _UNSPACED_WORD.search(block):
        return np.full(count, _WORDS)
    lengths = (_UNSPACED_CHARACTERS if _UNSPACED_WORD.match(word) else _WORDS for word in block.split())
    return np.fromiter(lengths, np.intp, count)


def _combine(words: Numbers, lengths: npt.NDArray[np.intp], count: int) -> Numbers:
    """The hashes of the shingles that begin at the first `count` words and are complete."""
    starts = np.flatnonzero(np.arange(count) + lengths[:count] <= len(words))
    hashes, wanted = words[starts], lengths[starts]
    for place in range(1, int(wanted.max(initial=1))):
        longer = np.flatnonzero(wanted > place)
        hashes[longer] = _mix(hashes[longer]) + words[starts[longer] + place]
    return _mix(hashes) >> np.uint64(32)
