"""Where two sounds are the same: every alignment of two Chromaprints, without chance.

The idea is Chromaprint's own matcher: equal items vote for the shift between the two sounds, and along a shift the
bit errors of the items are averaged. It differs in that all shifts with enough votes are looked at, not only the
best one, that nothing is random, and that items without information are no evidence.

Measured on the first four minutes of 59 tracks of game music and two demo sounds (2.5 hours), and copies of them, in
bit errors of the 32 of an item, of which two random items differ in 16:

- Copies cut at any sample, 5 to 30 s: as they are, MP3 32 and 64, AAC 24, Opus 16 kbit/s, an eighth of the loudness or
  white noise 20 and 10 dB below: 0 to 3.4 (median 1.5); clipped, or noise 5 dB below: to 4.3; noise as loud as the
  music: 4.5.
- Unrelated, the best stretch at any shift of 300 pairs: 16 items 4.8, 24 items 6.5, 40 items 8.3, 80 items 9.2, 160
  items 10.5. Of all 1,830 pairs, one matches with the thresholds below: two versions of one tune.
- 354 excerpts of 10 s: all found; 354 of 5 s: all but 6, in parts that hardly change. Offsets are right to 0.11 s.
- Bits that change from one item to the next: music 2.6 to 5.3 (5 % to 95 %), silence and steady tones 0, white noise
  1.7. Two recordings of white noise differ in only 3.4 bits, so noise must not count either.
- Not found: other speeds from about 1 % on, and a first difference (pre-emphasis) of the samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fingerprint_dagster.media.audio.chromaprint import ITEM_SECONDS, ITEM_SPAN_SECONDS

ITEM_BITS = 32
CHANCE_ERROR = 16.0  # bit errors of two independent items
INFORMATIVE_CHANGE = 2.2  # bits per item: between white noise and music
INFORMATIVE_WINDOW = 32  # items over which it is averaged

RUN_ERROR = 9.0  # an alignment holds while its smoothed bit error is below this: midway between copy and chance
RUN_WINDOW = 16  # items of the smoothing
MERGED_GAP = 24  # items (3 s): shorter interruptions of one alignment do not end it
MIN_ITEMS = 16  # informative items of evidence: 4.6 s of sound
MIN_SHARE = 0.2  # of informative items between the first and the last of them: a few in an hour of rain are no evidence
MAX_ERROR = 6.0  # mean bit error of a long segment; a short one must be better, see `_allowed_error`
MIN_AGREEING_ITEMS = 8  # of a part: 3.5 s of sound
MIN_OTHER_SHIFTS = 100  # of the reference (12 s), with which one is compared
LEAST_DEVIATION = 0.3  # bits, of the error at all shifts: less is a sound that hardly changes
MOST_COMPARED = 256  # items of a segment, when its repeats are looked for
COVERED_SHARE = 0.7  # of both sides of a segment: explained by better segments, it is an echo of them
MAX_SEGMENTS = 100

_KEY_SHIFT = np.uint32(20)  # the top 12 bits vote
_CHUNK = 1024  # query items (127 s) that vote together: more, and chance drowns a short excerpt in a long sound
_MIN_VOTES = 5
_MAX_SHIFTS = 48  # looked at for each chunk


@dataclass(frozen=True)
class Segment:
    """One stretch that is the same in both: `items` items from query_start and from reference_start on.

    compared: how many of them are informative. error: mean bit error of these.
    """

    query_start: int
    reference_start: int
    items: int
    compared: int
    error: float

    @property
    def evidence(self) -> float:
        """The bits in which the informative items agree beyond chance: what the better segment has more of."""
        return (CHANCE_ERROR - self.error) * self.compared

    @property
    def strength(self) -> float:
        """How unlikely chance is, in nats, if each bit agreed by the toss of a coin; 0 for chance, and never less.

        That is Chernoff's bound of the binomial. Bits of one item, and of the next, go together, so it says too much,
        but for copies and for noise alike: how much noise has is measured (`fingerprint_dagster.calibration`).
        """
        wrong = min(self.error / ITEM_BITS, 0.5)
        entropy = -sum(share * math.log(share) for share in (wrong, 1 - wrong) if share > 0)
        return self.compared * ITEM_BITS * (math.log(2) - entropy)

    @property
    def score(self) -> float:
        """1 for equal bits, 0 for chance."""
        return min(1.0, max(0.0, 1 - self.error / CHANCE_ERROR))

    @property
    def query_range(self) -> tuple[float, float]:
        """Start and end in seconds."""
        return _seconds(self.query_start, self.items)

    @property
    def reference_range(self) -> tuple[float, float]:
        """Start and end in seconds."""
        return _seconds(self.reference_start, self.items)


def informative(items: np.ndarray) -> np.ndarray:
    """Which items (uint32 [m]) tell one sound from another: not silence, a steady tone or plain noise; bool [m]."""
    changed = np.bitwise_count(items[1:] ^ items[:-1])
    total = np.concatenate(([0], np.cumsum(changed, dtype=np.int64)))
    here = np.arange(len(items))
    first = np.maximum(here - INFORMATIVE_WINDOW // 2, 0)
    end = np.minimum(here + INFORMATIVE_WINDOW // 2, len(changed))
    result: np.ndarray = total[end] - total[first] >= INFORMATIVE_CHANGE * np.maximum(end - first, 1)
    return result


def align(query: np.ndarray, reference: np.ndarray) -> list[Segment]:
    """Every part of the query that is also in the reference (Chromaprint items, uint32 [m] and [k]); best first.

    Best is what agrees in the most bits: long before exact. A part that occurs several times is found as often.
    """
    useful = informative(query), informative(reference)
    found: list[Segment] = []
    shifts = _shifts(query, reference, *useful)
    for shift in shifts:
        found += _copies_at(shift, query, reference, *useful)
    for shift in _repeats(max(found, key=lambda s: s.evidence), query, reference, useful[0]) if found else ():
        if shift not in shifts:
            found += _copies_at(shift, query, reference, *useful)
    found.sort(key=lambda s: (-s.evidence, s.query_start, s.reference_start))

    kept: list[Segment] = []
    query_covered, reference_covered = np.zeros(len(query), bool), np.zeros(len(reference), bool)
    for segment in found:
        q = query_covered[segment.query_start : segment.query_start + segment.items]
        r = reference_covered[segment.reference_start : segment.reference_start + segment.items]
        if min(q.mean(), r.mean()) < COVERED_SHARE:
            q[:] = r[:] = True
            kept.append(segment)
    return kept[:MAX_SEGMENTS]


def greatest_strength(query: np.ndarray, reference: np.ndarray) -> float:
    """The `Segment.strength` of the stretch that is most alike in both, copy or not; 0 where none is at all."""
    useful = informative(query), informative(reference)
    shifts = _shifts(query, reference, *useful)
    return max((s.strength for shift in shifts for s in _segments_at(shift, query, reference, *useful)), default=0.0)


def agreement(
    query: np.ndarray, useful: np.ndarray, reference: np.ndarray, part: tuple[float, float], offset: float
) -> float:
    """How much the items (uint32 [m] and [k]) of a part of the query speak for an offset in the reference, in nats.

    useful: which items of the query are informative. part: seconds. What is far too bad to be found by itself, a
    quarter of the bits wrong, is still a lot better than what the same items give at all other offsets: the result is
    half the square of by how many standard deviations. 0 where there is too little to say.
    """
    first, end = math.ceil(part[0] / ITEM_SECONDS), int((part[1] - ITEM_SPAN_SECONDS) / ITEM_SECONDS) + 2
    asked = np.flatnonzero(useful[first:end])
    count = len(reference) - (end - first) + 1
    here = first + round(offset / ITEM_SECONDS)
    if len(asked) < MIN_AGREEING_ITEMS or count < MIN_OTHER_SHIFTS or not 0 <= here < count:
        return 0.0
    mean = _mean_errors(query, reference, first, asked, count)
    best = float(mean[max(here - 1, 0) : here + 2].min())
    deviations = (float(mean.mean()) - best) / max(float(mean.std()), LEAST_DEVIATION)
    return max(0.0, deviations) ** 2 / 2


def _mean_errors(query: np.ndarray, reference: np.ndarray, first: int, asked: np.ndarray, count: int) -> np.ndarray:
    """The mean bit error of the query items first + asked at the first `count` places of the reference."""
    errors = np.zeros(count, np.int64)
    for item in asked.tolist():
        errors += np.bitwise_count(reference[item : item + count] ^ query[first + item])
    mean: np.ndarray = errors / len(asked)
    return mean


def _repeats(best: Segment, query: np.ndarray, reference: np.ndarray, useful: np.ndarray) -> list[int]:
    """The shifts at which the reference has the stretch of a segment, its own and others, those of least error first.

    In noise a loop that comes back twenty times has too few votes at most of its places.
    """
    first, count = best.query_start, len(reference) - best.items + 1
    asked = np.flatnonzero(useful[first : first + best.items])
    if count < 2 or not len(asked):
        return []
    asked = asked[np.linspace(0, len(asked) - 1, min(len(asked), MOST_COMPARED)).round().astype(np.int64)]
    error = _mean_errors(query, reference, first, asked, count)
    around = np.pad(error, 1, constant_values=CHANCE_ERROR)
    places = np.flatnonzero((error <= around[:-2]) & (error <= around[2:]) & (error <= _allowed_error(best.items) + 1))
    places = places[np.argsort(error[places], kind="stable")[:MAX_SEGMENTS]]
    return [int(place) - first for place in places]


def _shifts(
    query: np.ndarray, reference: np.ndarray, query_useful: np.ndarray, reference_useful: np.ndarray
) -> list[int]:
    """Reference index less query index of alignments worth a look: many items with equal top bits vote for them."""
    where = np.flatnonzero(reference_useful)
    keys = reference[where] >> _KEY_SHIFT
    order = np.argsort(keys, kind="stable")
    keys, where = keys[order], where[order]
    shifts: set[int] = set()
    for start in range(0, len(query), _CHUNK):
        asked = start + np.flatnonzero(query_useful[start : start + _CHUNK])
        asked_keys = query[asked] >> _KEY_SHIFT
        first, end = np.searchsorted(keys, asked_keys, "left"), np.searchsorted(keys, asked_keys, "right")
        equal = end - first
        # Every pair of an asked item and a reference item with its key, one after the other.
        pair = np.arange(equal.sum()) - np.repeat(np.cumsum(equal) - equal, equal)
        shift = where[np.repeat(first, equal) + pair] - np.repeat(asked, equal)
        lowest = -len(query)
        votes = np.bincount(shift - lowest, minlength=len(query) + len(reference) + 1)
        votes[1:-1] += votes[:-2] + votes[2:]  # a copy cut between two items votes for both neighbours
        chosen = np.flatnonzero(votes >= _MIN_VOTES)
        if len(chosen) > _MAX_SHIFTS:
            chosen = chosen[np.argsort(-votes[chosen], kind="stable")[:_MAX_SHIFTS]]
        shifts.update((chosen + lowest).tolist())
    return sorted(shifts)


def _allowed_error(items: int) -> float:
    """Chance offers better stretches the shorter they are: 3.5 bits for 16 items (4.6 s), 6 from 96 (14.5 s) on."""
    return min(MAX_ERROR, 3 + items / 32)


LEAST_STRENGTH = Segment(0, 0, MIN_ITEMS, MIN_ITEMS, _allowed_error(MIN_ITEMS)).strength
"""What the shortest copy has that errs as much as it may; all others have more."""


def _copies_at(
    shift: int, query: np.ndarray, reference: np.ndarray, query_useful: np.ndarray, reference_useful: np.ndarray
) -> list[Segment]:
    """The stretches that are the same when reference item i + shift is laid on query item i."""
    found = _segments_at(shift, query, reference, query_useful, reference_useful)
    return [segment for segment in found if segment.error <= _allowed_error(segment.compared)]


def _segments_at(
    shift: int, query: np.ndarray, reference: np.ndarray, query_useful: np.ndarray, reference_useful: np.ndarray
) -> list[Segment]:
    """The stretches that are alike when reference item i + shift is laid on query item i, too little for copies too."""
    start, end = max(0, -shift), min(len(query), len(reference) - shift)
    if end - start < MIN_ITEMS:
        return []
    errors = np.bitwise_count(query[start:end] ^ reference[start + shift : end + shift]).astype(np.int64)
    useful = query_useful[start:end] | reference_useful[start + shift : end + shift]
    segments = []
    for first, last in _runs(_moving_mean(errors, RUN_WINDOW) < RUN_ERROR):
        first, last = _trimmed(errors, first, last)
        here = np.flatnonzero(useful[first:last])
        if len(here) < MIN_ITEMS or len(here) < MIN_SHARE * (here[-1] - here[0] + 1):
            continue
        error = float(errors[first:last][here].mean())
        segments.append(Segment(start + first, start + first + shift, last - first, len(here), error))
    return segments


def _runs(below: np.ndarray) -> list[tuple[int, int]]:
    """Start and end of each stretch of True, over gaps shorter than MERGED_GAP."""
    edges = np.flatnonzero(np.diff(below.astype(np.int8), prepend=0, append=0))
    starts, ends = edges[::2], edges[1::2]
    if len(starts) == 0:
        return []
    apart = starts[1:] - ends[:-1] >= MERGED_GAP
    starts = starts[np.concatenate(([True], apart))]
    ends = ends[np.concatenate((apart, [True]))]
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _trimmed(errors: np.ndarray, first: int, last: int) -> tuple[int, int]:
    """Without the ends that look across the edge of the copy: they err more than most items of the run."""
    run = errors[first:last]
    good = np.flatnonzero(run <= np.median(run) + 2)
    return first + int(good[0]), first + int(good[-1]) + 1


def _moving_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Mean of up to `width` values around each one; at the ends, of those that exist."""
    total = np.concatenate(([0], np.cumsum(values)))
    here = np.arange(len(values))
    first, end = np.maximum(here - width // 2, 0), np.minimum(here + width // 2, len(values))
    mean: np.ndarray = (total[end] - total[first]) / (end - first)
    return mean


def _seconds(start: int, items: int) -> tuple[float, float]:
    return start * ITEM_SECONDS, (start + items - 1) * ITEM_SECONDS + ITEM_SPAN_SECONDS
