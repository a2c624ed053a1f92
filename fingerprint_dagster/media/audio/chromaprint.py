"""Chromaprint "TEST2", the acoustic fingerprint of AcoustID: sound as one 32-bit item every 0.124 seconds.

Algorithm: L. Lalinsky, "How does Chromaprint work?" (2011) and the Chromaprint library, whose published test vectors
this reproduces. In short: spectrum -> energy of the 12 notes of the octave -> smoothed and normalised -> sixteen
box filters over 16 rows of notes, each quantised to two bits.
"""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple

import numpy as np

SAMPLE_RATE = 11025  # Hz, mono; every figure below belongs to it
FRAME = 4096  # samples in one spectrum
HOP = 1365  # samples from one spectrum, and so from one item, to the next
ITEM_SECONDS = HOP / SAMPLE_RATE
ITEMS_PER_SECOND = SAMPLE_RATE / HOP

_LOWEST_HZ, _HIGHEST_HZ = 28, 3520
_SMOOTHING = (0.25, 0.75, 1.0, 0.75, 0.25)  # over successive rows of notes
_ROWS = 16  # smoothed rows that one item looks at
_ITEM_FRAMES = _ROWS + len(_SMOOTHING) - 1
ITEM_SAMPLES = FRAME + (_ITEM_FRAMES - 1) * HOP  # samples that one item depends on
ITEM_SPAN_SECONDS = ITEM_SAMPLES / SAMPLE_RATE  # 2.72
_FRAMES_AT_ONCE = 32  # 1 MB of float64 samples: stays in the cache

SILENT_ITEM = 627964279  # the item of digital silence

_TEST2 = 1  # the algorithm's number in the first byte of the compressed form
_MOST_ITEMS = 2**24 - 1  # what its three-byte count can hold


class _Classifier(NamedTuple):
    """A box filter on 16 rows of notes, and the three thresholds that make two bits of its value."""

    shape: int
    note: int
    notes: int
    rows: int
    thresholds: tuple[float, float, float]


_CLASSIFIERS = (
    _Classifier(0, 4, 3, 15, (1.98215, 2.35817, 2.63523)),
    _Classifier(4, 4, 6, 15, (-1.03809, -0.651211, -0.282167)),
    _Classifier(1, 0, 4, 16, (-0.298702, 0.119262, 0.558497)),
    _Classifier(3, 8, 2, 12, (-0.105439, 0.0153946, 0.135898)),
    _Classifier(3, 4, 4, 8, (-0.142891, 0.0258736, 0.200632)),
    _Classifier(4, 0, 3, 5, (-0.826319, -0.590612, -0.368214)),
    _Classifier(1, 2, 2, 9, (-0.557409, -0.233035, 0.0534525)),
    _Classifier(2, 7, 3, 4, (-0.0646826, 0.00620476, 0.0784847)),
    _Classifier(2, 6, 2, 16, (-0.192387, -0.029699, 0.215855)),
    _Classifier(2, 1, 3, 2, (-0.0397818, -0.00568076, 0.0292026)),
    _Classifier(5, 10, 1, 15, (-0.53823, -0.369934, -0.190235)),
    _Classifier(3, 6, 2, 10, (-0.124877, 0.0296483, 0.139239)),
    _Classifier(2, 1, 1, 14, (-0.101475, 0.0225617, 0.231971)),
    _Classifier(3, 5, 6, 4, (-0.0799915, -0.00729616, 0.063262)),
    _Classifier(1, 9, 2, 12, (-0.272556, 0.019424, 0.302559)),
    _Classifier(3, 4, 2, 14, (-0.164292, -0.0321188, 0.0846339)),
)
_GRAY_CODE = np.array([0, 1, 3, 2], np.uint32)


def chromaprint_v1(pcm: np.ndarray, *, frames_at_once: int = _FRAMES_AT_ONCE) -> np.ndarray:
    """The Chromaprint items of a sound.

    pcm: int16 [n], mono at 11,025 Hz.
    Returns uint32 [m]; item i depends on samples i * HOP to i * HOP + ITEM_SAMPLES, and m is 0 below ITEM_SAMPLES.
    Needs about 100 bytes per item beside a fixed working set. frames_at_once does not change the result.
    """
    rows = _normalised(_smoothed(_note_energies(pcm, frames_at_once)))
    count = len(rows) - _ROWS + 1
    if count <= 0:
        return np.zeros(0, np.uint32)
    # sums[t, k] is the sum over all rows before t and all notes before k: any box is four look-ups.
    sums = np.zeros((len(rows) + 1, 13))
    np.cumsum(np.cumsum(rows, axis=0), axis=1, out=sums[1:, 1:])
    items = np.zeros(count, np.uint32)
    for classifier in _CLASSIFIERS:
        level = np.searchsorted(classifier.thresholds, _filtered(sums, count, classifier), side="right")
        items = items << np.uint32(2) | _GRAY_CODE[level]
    return items


def simhash32_v1(items: np.ndarray) -> int:
    """One 32-bit hash of all items (uint32 [m]): each bit is what the majority of the items has; a tie gives 0."""
    ones = _bits(items).sum(axis=0, dtype=np.int64)
    majority = 2 * ones > len(items)
    return int.from_bytes(np.packbits(majority, bitorder="little").tobytes(), "little")


def compress_v1(items: np.ndarray, *, algorithm: int = _TEST2) -> str:
    """The text form of Chromaprint and AcoustID: items (uint32 [m]) as URL-safe base64 without padding.

    Each item is the exclusive-or with the one before it, written as the gaps between its one-bits: three bits a gap,
    where 7 means that a five-bit number is to be added, and 0 ends the item. All three-bit numbers come first.
    Raises ValueError for more than 2**24 - 1 items.
    """
    if len(items) > _MOST_ITEMS:
        raise ValueError(f"{len(items)} items: the compressed form holds at most {_MOST_ITEMS}")
    items = items.astype(np.uint32, copy=False)
    changes = items.copy()
    changes[1:] ^= items[:-1]
    item, bit = np.nonzero(_bits(changes))
    first_of_item = np.diff(item, prepend=-1) != 0
    gaps = np.where(first_of_item, bit + 1, np.diff(bit, prepend=0))
    small = np.zeros(len(gaps) + len(items), np.uint8)
    small[np.arange(len(gaps)) + item] = np.minimum(gaps, 7)
    large = (gaps[gaps >= 7] - 7).astype(np.uint8)
    data = bytes([algorithm]) + len(items).to_bytes(3, "big") + _pack(small, 3) + _pack(large, 5)
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def decompress_v1(text: str) -> np.ndarray:
    """The items (uint32 [m]) that `compress_v1` was given. Raises ValueError for text that is not its work."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not a compressed Chromaprint: {error}") from error
    if len(data) < 4:
        raise ValueError("not a compressed Chromaprint: shorter than its header")
    count = int.from_bytes(data[1:4], "big")
    body = np.frombuffer(data, np.uint8, offset=4)
    small = _unpack(body, 3)
    ends = np.flatnonzero(small == 0)[:count]
    if len(ends) < count:
        raise ValueError(f"not a compressed Chromaprint: {len(ends)} of {count} items are there")
    small = small[: ends[-1] + 1] if count else small[:0]
    escapes = np.flatnonzero(small == 7)
    large = _unpack(body[-(-len(small) * 3 // 8) :], 5)[: len(escapes)]
    if len(large) < len(escapes):
        raise ValueError("not a compressed Chromaprint: its end is missing")
    gaps = small.astype(np.int64)
    gaps[escapes] += large
    # Positions are running sums of the gaps, begun anew in each item.
    total = np.cumsum(gaps)
    item = np.cumsum(small == 0) - (small == 0)
    before_item = np.concatenate(([0], total[ends]))
    is_gap = small > 0
    item = item[is_gap]
    bit = total[is_gap] - before_item[item] - 1
    if len(bit) and bit.max() > 31:
        raise ValueError("not a compressed Chromaprint: an item of more than 32 bits")
    changes = np.zeros((count, 32), bool)
    changes[item, bit] = True
    packed = np.packbits(changes, axis=1, bitorder="little").reshape(count, 4).view("<u4").reshape(count)
    return np.bitwise_xor.accumulate(packed.astype(np.uint32)) if count else np.zeros(0, np.uint32)


def _note_energies(pcm: np.ndarray, frames_at_once: int) -> np.ndarray:
    """Energy of the 12 notes, A first, in each frame: int16 [n] -> float64 [frames, 12]."""
    if len(pcm) < FRAME:
        return np.zeros((0, 12))
    frames = np.lib.stride_tricks.sliding_window_view(pcm, FRAME)[::HOP]
    window = np.hamming(FRAME) / 32767
    bins, starts, note = _bins_of_notes()
    notes = np.eye(12)[note]
    energies = np.empty((len(frames), 12))
    # The same memory for every block: fresh pages cost as much as the arithmetic.
    block = np.empty((min(frames_at_once, len(frames)), FRAME))
    spectrum = np.empty((len(block), FRAME // 2 + 1), np.complex128)
    power = np.empty((len(block), 2 * (bins.stop - bins.start)))  # of real and imaginary parts, in turn
    for start in range(0, len(frames), frames_at_once):
        count = min(frames_at_once, len(frames) - start)
        np.multiply(frames[start : start + count], window, out=block[:count])
        np.fft.rfft(block[:count], axis=1, out=spectrum[:count])
        np.square(spectrum.view(np.float64)[:count, 2 * bins.start : 2 * bins.stop], out=power[:count])
        # Summed run by run: a product with one large matrix would go to the BLAS threads, four times the CPU time.
        energies[start : start + count] = np.add.reduceat(power[:count], 2 * starts, axis=1) @ notes
    return energies


def _bins_of_notes() -> tuple[slice, np.ndarray, np.ndarray]:
    """The bins of the spectrum that count; where in them each run of bins of one note starts; the note of each run."""
    first, end = (round(hertz * FRAME / SAMPLE_RATE) for hertz in (_LOWEST_HZ, _HIGHEST_HZ))
    octave = np.log2(np.arange(first, end) * SAMPLE_RATE / FRAME / 27.5)
    note = (12 * (octave % 1)).astype(int)
    starts = np.flatnonzero(np.diff(note, prepend=-1))
    return slice(first, end), starts, note[starts]


def _smoothed(energies: np.ndarray) -> np.ndarray:
    """Every full weighted sum of five successive rows."""
    count = max(0, len(energies) - len(_SMOOTHING) + 1)
    total = np.zeros((count, 12))
    for offset, weight in enumerate(_SMOOTHING):
        total += weight * energies[offset : offset + count]
    return total


def _normalised(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1; nearly silent ones become zero."""
    length = np.sqrt((rows**2).sum(axis=1, keepdims=True))
    return np.where(length < 0.01, 0.0, rows / np.maximum(length, 0.01))


def _filtered(sums: np.ndarray, count: int, classifier: _Classifier) -> np.ndarray:
    """The classifier's value at each item: log((1 + a) / (1 + b)) of the sums in its boxes a and b; float64 [count]."""
    shape, note, notes, rows, _ = classifier

    def box(row: int, row_end: int, low: int, high: int) -> np.ndarray:
        earlier, later = sums[row : row + count], sums[row_end : row_end + count]
        area: np.ndarray = later[:, high] - later[:, low] - earlier[:, high] + earlier[:, low]
        return area

    top = note + notes
    whole = box(0, rows, note, top)
    if shape == 0:
        a, b = whole, np.zeros(count)
    elif shape == 1:
        a = box(0, rows, note + notes // 2, top)
        b = whole - a
    elif shape == 2:
        a = box(rows // 2, rows, note, top)
        b = whole - a
    elif shape == 3:
        middle_row, middle_note = rows // 2, note + notes // 2
        a = box(0, middle_row, middle_note, top) + box(middle_row, rows, note, middle_note)
        b = whole - a
    elif shape == 4:
        a = box(0, rows, note + notes // 3, top - notes // 3)
        b = whole - a
    else:
        a = box(rows // 3, rows - rows // 3, note, top)
        b = whole - a
    value: np.ndarray = np.log((1 + a) / (1 + b))
    return value


def _bits(items: np.ndarray) -> np.ndarray:
    """The bits of each item, lowest first: uint32 [m] -> uint8 [m, 32]."""
    data = np.ascontiguousarray(items, "<u4").view(np.uint8).reshape(-1, 4)
    return np.unpackbits(data, axis=1, bitorder="little")


def _pack(numbers: np.ndarray, width: int) -> bytes:
    """Small numbers (uint8) at `width` bits each, lowest bit first, filled up to whole bytes."""
    return np.packbits(
        np.unpackbits(numbers[:, None], axis=1, bitorder="little")[:, :width], bitorder="little"
    ).tobytes()


def _unpack(data: np.ndarray, width: int) -> np.ndarray:
    """Every whole number of `width` bits in `data`, as uint8."""
    bits = np.unpackbits(data, bitorder="little")
    numbers = bits[: len(bits) // width * width].reshape(-1, width)
    return np.packbits(numbers, axis=1, bitorder="little").reshape(-1)
