"""Which parts of two sounds are the same, at which speed and pitch, from their landmarks.

Landmarks of a copy lie where those of the original are, on an axis that is stretched (tempo) and shifted (pitch). So
each pair of a query landmark and a reference landmark votes for a place at each of 11 speeds and 21 pitches; what gets
most votes is looked at closely: speed, place and pitch are fitted to the landmarks that fall together, and each query
landmark then speaks for the alignment, or against it, by the logarithm of how much likelier it is to meet one of the
reference so closely in a copy than by chance. Chance meets more where the reference has many landmarks of that pitch
about that time, and landmarks of one moment tell less than as many that come one after the other. The stretch with the
greatest sum is the match, its sum (in nats) the evidence. Where it is not quite enough, another feature of the sound
may add to it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fingerprint_dagster.media.audio.chromaprint import SAMPLE_RATE
from fingerprint_dagster.media.audio.landmarks import HOP, PITCH_UNIT, Landmarks

SPEED_STEP = 0.0225  # at 5 s from the middle of a part, half a step is 56 ms
SPEEDS = np.exp(SPEED_STEP * np.arange(-5, 6))  # 0.89 to 1.12
MOST_SEMITONES = 2.6

PART_SECONDS = 10.0  # of the query, looked at together
MOST_PARTS = 6  # of a long query, those that share most tokens with the reference

TIME_BOX = 0.08  # seconds; votes of two neighbouring boxes count together
PITCH_BOX = 0.25  # semitones, likewise
FINE_TIME_BOX = 0.035  # where neither speed nor pitch is changed
FINE_PITCH = 0.2

TIME_TOLERANCE = 0.04  # seconds between two landmarks that fall together
PITCH_TOLERANCE = 0.22  # semitones
MET_IN_GOOD_COPY = 0.35  # share of the landmarks that meet one of the original, by which places are voted for
MET_IN_COPY = 0.2  # in the worst copy that is still found: half of its landmarks are those of the noise
# How far apart landmarks that meet in a copy are: normal, but for a part that is anywhere within the tolerance.
TIME_DEVIATION, PITCH_DEVIATION, ASTRAY = 0.014, 0.09, 0.15
# Landmarks of one moment are met or missed together: n of them are taken for n / (1 + 0.3 (n - 1)).
ALIKE_TOGETHER = 0.3
# Of 3,500 pairs of unrelated tracks, 1 % gave more than 11 nats, 0.1 % more than 15, the best 19; of 10,000 pairs of 5
# or 10 s (changed in 36 ways) and a track they are not from, 1 % more than 8, 0.1 % more than 11, the best 17.
LEAST_EVIDENCE = 24.0
MOST_ADDED = 12.0  # nats that another feature adds at most: landmarks alone must give the rest
UNCHANGED_SPEED, UNCHANGED_PITCH = 0.005, 0.15  # off by less, the sound is compared as if at the same speed and pitch


# Votes below these multiples of the square root of the number of landmarks asked are not looked at: nine tenths of what
# unrelated sounds give lies below, and of 504 true pairs the lowest that led to an alignment had 3.1 and 3.4.
CHANGED_VOTES, UNCHANGED_VOTES = 3.3, 3.0
_PLACES = 3  # looked at closely, of each kind of vote
MOST_REPEATS = 40  # of one part of the query in one reference: loops of game music come 20 times
SAME_PLACE_SECONDS = 0.5
_STEPS = 512  # of PITCH_UNIT
_BLOCK_SECONDS, _BLOCKS_AROUND = 2.0, 3  # in which landmarks are counted, to see how close they lie
_EXTENSION_SECONDS = 10.0
COVERED_SHARE = 0.7  # of both sides of an alignment: explained by better ones, it is an echo of them
MAX_ALIGNMENTS = 100


# Nats of further evidence for a range of the query and an offset in the reference, at the same speed and pitch.
Agreement = Callable[[tuple[float, float], float], float]


@dataclass(frozen=True)
class Alignment:
    """A stretch of the query that is in the reference: reference time = speed * query time + offset.

    speed: seconds of the reference that one second of the query lasts: above 1 where the query is faster.
    pitch: semitones by which the query is higher. share: of the query's landmarks in the stretch, those that the
    reference has. evidence: nats.
    """

    query_range: tuple[float, float]
    speed: float
    offset: float
    pitch: float
    share: float
    evidence: float

    @property
    def reference_range(self) -> tuple[float, float]:
        """Start and end in seconds."""
        start, end = (self.speed * time + self.offset for time in self.query_range)
        return start, end

    @property
    def score(self) -> float:
        """0..1: the share of the query's landmarks that the reference has; clean copies have about 0.9."""
        return min(1.0, self.share)


class _Side:
    """The landmarks of one sound, sorted in the ways that looking them up needs."""

    def __init__(self, landmarks: Landmarks) -> None:
        self.time, self.pitch, self.strong = landmarks
        self.step = np.round(self.pitch / PITCH_UNIT).astype(np.int64)
        self.seconds = max(float(self.time[-1] - self.time[0]), 1.0) if len(self.time) else 1.0

    @cached_property
    def _before(self) -> np.ndarray:
        """How many landmarks are before a block and below a step; int32 [blocks + 1, _STEPS + 1]."""
        blocks = math.ceil(self.seconds / _BLOCK_SECONDS)
        block = self._block(self.time, blocks)
        counts = np.bincount(block * _STEPS + self.step, minlength=blocks * _STEPS).reshape(blocks, _STEPS)
        return np.pad(counts.cumsum(axis=0, dtype=np.int32).cumsum(axis=1, dtype=np.int32), ((1, 0), (1, 0)))

    def _block(self, time: np.ndarray, blocks: int) -> np.ndarray:
        """In which of so many blocks of equal length these seconds are; int64 [n]."""
        block: np.ndarray = ((time - self.time[0]) * (blocks / self.seconds)).astype(np.int64)
        return block.clip(0, blocks - 1)

    def chance(
        self, step: np.ndarray, pitch_tolerance: float, time_tolerance: float, at: np.ndarray | None = None
    ) -> np.ndarray:
        """How likely a landmark of each pitch (in PITCH_UNIT) meets one of these at any time.

        at: seconds, for each: where landmarks of its pitch lie closer than elsewhere, it is as likely as there.
        """
        reach = pitch_tolerance / PITCH_UNIT
        low = np.clip(np.ceil(step - reach), 0, _STEPS).astype(np.int64)
        high = np.clip(np.floor(step + reach) + 1, 0, _STEPS).astype(np.int64)
        before, blocks = self._before, len(self._before) - 1
        density = (before[-1, high] - before[-1, low]) / self.seconds
        if at is not None:
            first = np.clip(self._block(at, blocks) - _BLOCKS_AROUND // 2, 0, max(blocks - _BLOCKS_AROUND, 0))
            end = np.minimum(first + _BLOCKS_AROUND, blocks)
            here = before[end, high] - before[end, low] - before[first, high] + before[first, low]
            density = np.maximum(density, here * blocks / ((end - first) * self.seconds))
        result: np.ndarray = np.clip(1 - np.exp(-2 * time_tolerance * density), 1e-3, 1)
        return result


def _pairs(query_step: np.ndarray, reference_step: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of all pairs whose pitches differ by at most `reach`; reference_step must rise."""
    first = np.searchsorted(reference_step, query_step - reach, "left")
    count = np.searchsorted(reference_step, query_step + reach, "right") - first
    query = np.repeat(np.arange(len(query_step)), count)
    reference = np.arange(len(query)) - np.repeat(np.cumsum(count) - count - first, count)
    return query, reference


def vote_changed(query: _Side, q: np.ndarray, reference: _Side, most: int) -> list[tuple[float, float, float, float]]:
    """(votes, speed, offset, pitch) of the best places at any speed and pitch, for the query's strong landmarks q."""
    r = np.flatnonzero(reference.strong)
    r = r[np.argsort(reference.step[r], kind="stable")]
    reach = round(MOST_SEMITONES / PITCH_UNIT)
    one, other = _pairs(query.step[q], reference.step[r], reach)
    if not len(one):
        return []
    box = round(PITCH_BOX / PITCH_UNIT)
    middle = float(query.time[q[0]] + query.time[q[-1]]) / 2
    half = (float(query.time[q[-1]] - query.time[q[0]]) / 2) * SPEEDS[-1] + 4 * TIME_BOX
    expected = np.bincount(reference.step[r], minlength=600).astype(np.float64)
    smooth = np.convolve(expected, np.ones(2 * box), "same") * (2 * TIME_BOX / reference.seconds)
    weight_of_step = np.clip(np.log(MET_IN_GOOD_COPY / np.maximum(1 - np.exp(-smooth), 1e-3)), 0, 4)
    weight = weight_of_step[reference.step[r]][other]
    rows = (reference.step[r][other] - query.step[q][one] + reach) // box
    row_count = 2 * reach // box + 1
    later = query.time[q][one] - middle
    start = float(reference.time[0]) - half
    columns = int((reference.seconds + 2 * half) / TIME_BOX) + 3
    place = (reference.time[r][other] - start) / TIME_BOX + rows * columns
    found = []
    for speed in SPEEDS:
        cell = (place - later * (speed / TIME_BOX)).astype(np.int64)
        votes = np.bincount(cell, weights=weight, minlength=row_count * columns)[: row_count * columns]
        votes = votes.reshape(row_count, columns)
        votes = votes[:-1] + votes[1:]
        votes = votes[:, :-1] + votes[:, 1:]
        best = votes.argmax(axis=1)
        for row in range(row_count - 1):
            column = best[row]
            offset = start + (column + 1) * TIME_BOX - speed * middle
            if votes[row, column] < CHANGED_VOTES * math.sqrt(len(q)):
                continue
            found.append(
                (float(votes[row, column]), float(speed), offset, -((row + 1) * box - reach - 0.5) * PITCH_UNIT)
            )
    found.sort(key=lambda f: -f[0])
    kept: list[tuple[float, float, float, float]] = []
    for each in found:
        at = each[1] * middle + each[2]
        if all(abs(at - (k[1] * middle + k[2])) > 0.5 or abs(each[3] - k[3]) > 1 for k in kept):
            kept.append(each)
        if len(kept) == most:
            break
    return kept


def vote_at(
    query: _Side, q: np.ndarray, reference: _Side, most: int, speed: float = 1.0, pitch: float = 0.0
) -> list[tuple[float, float, float, float]]:
    """The same for all landmarks q, at one speed and pitch."""
    order = np.argsort(reference.step, kind="stable")
    reach = int(FINE_PITCH / PITCH_UNIT)
    step = query.step[q] - round(pitch / PITCH_UNIT)
    one, other = _pairs(step, reference.step[order], reach)
    if not len(one):
        return []
    chance = reference.chance(step, FINE_PITCH, FINE_TIME_BOX)
    weight = np.clip(np.log(MET_IN_GOOD_COPY / chance), 0, 4)
    start = float(reference.time[0] - speed * query.time[q[-1]]) - FINE_TIME_BOX
    cell = ((reference.time[order][other] - speed * query.time[q][one] - start) / FINE_TIME_BOX).astype(np.int64)
    votes = np.bincount(cell, weights=weight[one])
    votes = np.append(votes, 0.0)[:-1] + np.append(votes, 0.0)[1:]
    kept: list[tuple[float, float, float, float]] = []
    for _ in range(most):
        best = int(votes.argmax())
        if votes[best] < UNCHANGED_VOTES * math.sqrt(len(q)):
            break
        kept.append((float(votes[best]), speed, start + (best + 1) * FINE_TIME_BOX, pitch))
        votes[max(0, best - 14) : best + 15] = 0
    return kept


def _meetings(
    query: _Side,
    q: np.ndarray,
    reference: _Side,
    speed: float,
    offset: float,
    pitch: float,
    time_tolerance: float,
    pitch_tolerance: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the query landmarks (of q) that meet one of the reference, and of the nearest that each meets."""
    expected = speed * query.time[q] + offset
    step = query.step[q] - pitch / PITCH_UNIT
    first = np.searchsorted(reference.time, expected - time_tolerance, "left")
    count = np.searchsorted(reference.time, expected + time_tolerance, "right") - first
    one = np.repeat(np.arange(len(q)), count)
    other = np.arange(len(one)) - np.repeat(np.cumsum(count) - count - first, count)
    away = np.abs(reference.step[other] - step[one]) * PITCH_UNIT
    near = away <= pitch_tolerance
    one, other, away = one[near], other[near], away[near]
    late = np.abs(reference.time[other] - expected[one])
    order = np.lexsort((away / pitch_tolerance + late / time_tolerance, one))
    one, other = one[order], other[order]
    nearest = np.flatnonzero(np.diff(one, prepend=-1))
    return q[one[nearest]], other[nearest]


def fit(
    query: _Side, q: np.ndarray, reference: _Side, speed: float, offset: float, pitch: float
) -> tuple[float, float, float] | None:
    """Speed, offset and pitch fitted to the landmarks that fall together; None where hardly any do."""
    unchanged = speed == 1.0 and pitch == 0.0
    for tolerance in (0.09, 0.06, TIME_TOLERANCE):
        met, other = _meetings(
            query, q, reference, speed, offset, pitch, tolerance, 0.3 if tolerance > 0.05 else PITCH_TOLERANCE
        )
        if len(met) < 6:
            return None
        x, y = query.time[met], reference.time[other]
        pitch += float(np.mean((query.step[met] - reference.step[other]) * PITCH_UNIT - pitch))
        middle = x.mean()
        spread = ((x - middle) ** 2).sum()
        # Towards the speed it began with, as if ten landmarks said so: few ones do not turn it much.
        slope = ((x - middle) * (y - y.mean())).sum() + 10.0 * speed
        speed = float(np.clip(slope / (spread + 10.0), SPEEDS[0] / 1.02, SPEEDS[-1] * 1.02))
        offset = float(y.mean() - speed * middle)
    if unchanged and abs(speed - 1) < 0.002 and abs(pitch) < 0.1:
        met, other = _meetings(
            query,
            q,
            reference,
            1.0,
            offset + (speed - 1) * float(query.time[q].mean()),
            0.0,
            TIME_TOLERANCE,
            PITCH_TOLERANCE,
        )
        if len(met):
            return 1.0, float(np.median(reference.time[other] - query.time[met])), 0.0
    return speed, offset, pitch


def stretch(
    query: _Side, q: np.ndarray, reference: _Side, speed: float, offset: float, pitch: float
) -> Alignment | None:
    """The stretch of the query landmarks q that speaks most for the alignment."""
    expected = speed * query.time[q] + offset
    inside = (expected >= reference.time[0] - 0.5) & (expected <= reference.time[-1] + 0.5)
    q = q[inside]
    if not len(q):
        return None
    met, other = _meetings(query, q, reference, speed, offset, pitch, TIME_TOLERANCE, PITCH_TOLERANCE)
    late = reference.time[other] - (speed * query.time[met] + offset)
    high = (reference.step[other] - query.step[met]) * PITCH_UNIT + pitch
    step = query.step[q] - pitch / PITCH_UNIT
    chance = reference.chance(step, PITCH_TOLERANCE, TIME_TOLERANCE, expected[inside])
    likely = np.maximum(MET_IN_COPY, chance)
    is_met = np.isin(q, met, assume_unique=True)
    speaks = np.where(is_met, np.log(likely / chance), np.log((1 - likely) / (1 - chance + 1e-9)))
    speaks[is_met] += closer(late, TIME_DEVIATION, TIME_TOLERANCE) + closer(high, PITCH_DEVIATION, PITCH_TOLERANCE)
    total = np.cumsum(speaks / (1 + ALIKE_TOGETHER * (_together(query.time[q]) - 1)))
    lowest = np.minimum.accumulate(np.concatenate(([0.0], total[:-1])))
    end = int((total - lowest).argmax())
    evidence = float(total[end] - lowest[end])
    start = int(np.concatenate(([0.0], total[:-1]))[: end + 1].argmin())
    share = float(is_met[start : end + 1].mean())
    return Alignment((float(query.time[q[start]]), float(query.time[q[end]])), speed, offset, pitch, share, evidence)


def _together(time: np.ndarray) -> np.ndarray:
    """How many landmarks lie in the same frame as each, it included; int64 [n]."""
    frame = np.round(time * (SAMPLE_RATE / HOP)).astype(np.int64)
    _, number, count = np.unique(frame, return_inverse=True, return_counts=True)
    together: np.ndarray = count[number]
    return together


def closer(away: np.ndarray, deviation: float, tolerance: float) -> np.ndarray:
    """Logarithm of how much likelier than by chance two landmarks that meet in a copy are so far apart; float64 [n]."""
    inside = math.erf(tolerance / deviation / math.sqrt(2))
    height = 2 * tolerance / (deviation * math.sqrt(2 * math.pi) * inside)
    result: np.ndarray = np.log(ASTRAY + (1 - ASTRAY) * height * np.exp(-0.5 * (away / deviation) ** 2))
    return result


def align(
    query: Landmarks,
    reference: Landmarks,
    times: np.ndarray,
    likeness: np.ndarray,
    agreement: Agreement,
) -> list[Alignment]:
    """Every part of the query that is also in the reference, at any speed and pitch; most evidence first.

    times, likeness: float64 [k] each: how much the sound around these seconds of the query is like some place of the
    reference. Of a long query the likest parts are looked at. agreement: asked where landmarks give nearly enough
    evidence.
    """
    if min(len(query.time), len(reference.time)) < 3:
        return []
    one, other = _Side(query), _Side(reference)
    found: list[Alignment] = []
    for q in _parts(query.time, times, likeness):
        if _covered(float(query.time[q[0]]), float(query.time[q[-1]]), found):
            continue
        strong = q[query.strong[q]]
        here = []
        for _, *place in vote_at(one, q, other, _PLACES) + vote_changed(one, strong, other, _PLACES):
            best = _aligned(one, q, other, agreement, *place)
            if best is not None:
                here.append(best)
        if here:
            here += _repeats(one, q, other, here, agreement)
        found += [_extended(one, best, other) for best in here]
    return without_echoes(found)[:MAX_ALIGNMENTS]


def most_evidence(
    query: Landmarks, reference: Landmarks, times: np.ndarray, likeness: np.ndarray, agreement: Agreement
) -> float:
    """The evidence of the best alignment in nats, also where it is too little for `align`; 0 where there is none."""
    if min(len(query.time), len(reference.time)) < 3:
        return 0.0
    one, other = _Side(query), _Side(reference)
    found: list[Alignment] = []
    for q in _parts(query.time, times, likeness):
        strong = q[query.strong[q]]
        for _, *place in vote_at(one, q, other, _PLACES) + vote_changed(one, strong, other, _PLACES):
            best = _near(one, q, other, agreement, *place)
            found += [] if best is None else [best]
    found.sort(key=lambda each: -each.evidence)
    extended = [each for each in found if each.evidence >= LEAST_EVIDENCE] or found[:1]
    return max((_extended(one, each, other).evidence for each in extended), default=0.0)


def _aligned(
    query: _Side, q: np.ndarray, reference: _Side, agreement: Agreement, speed: float, offset: float, pitch: float
) -> Alignment | None:
    """The alignment at or near a place, where the evidence is enough."""
    best = _near(query, q, reference, agreement, speed, offset, pitch)
    return best if best is not None and best.evidence >= LEAST_EVIDENCE else None


def _near(
    query: _Side, q: np.ndarray, reference: _Side, agreement: Agreement, speed: float, offset: float, pitch: float
) -> Alignment | None:
    """The alignment at or near a place, whatever the evidence; what is nearly enough is asked for more."""
    fitted = fit(query, q, reference, speed, offset, pitch)
    best = stretch(query, q, reference, *fitted) if fitted else None
    if best is not None and LEAST_EVIDENCE - MOST_ADDED <= best.evidence < LEAST_EVIDENCE:
        best = _with_agreement(best, (float(query.time[q[0]]), float(query.time[q[-1]])), agreement)
    return best


def _repeats(
    query: _Side, q: np.ndarray, reference: _Side, known: list[Alignment], agreement: Agreement
) -> list[Alignment]:
    """All other places of the reference that have this part of the query, at the speed and pitch of the best known."""
    best = max(known, key=lambda each: each.evidence)
    middle = float(query.time[q[0]] + query.time[q[-1]]) / 2
    places = [each.speed * middle + each.offset for each in known]
    found = []
    for _, *place in vote_at(query, q, reference, MOST_REPEATS, best.speed, best.pitch):
        if all(abs(place[0] * middle + place[1] - other) > SAME_PLACE_SECONDS for other in places):
            repeat = _aligned(query, q, reference, agreement, *place)
            if repeat is None:
                break
            found.append(repeat)
    return found


def _with_agreement(found: Alignment, part: tuple[float, float], agreement: Agreement) -> Alignment:
    """The alignment with what another feature of the part says about it."""
    if abs(found.speed - 1) >= UNCHANGED_SPEED or abs(found.pitch) >= UNCHANGED_PITCH:
        return found
    offset = found.offset + (found.speed - 1) * sum(part) / 2
    return replace(found, evidence=found.evidence + min(MOST_ADDED, agreement(part, offset)))


def without_echoes(found: list[Alignment]) -> list[Alignment]:
    """Those that better ones do not explain, most evidence first."""
    kept: list[Alignment] = []
    for each in sorted(found, key=lambda a: (-a.evidence, a.query_range, a.offset, a.speed)):
        if is_new(each, kept):
            kept.append(each)
    return kept


def is_new(found: Alignment, known: list[Alignment]) -> bool:
    """Whether no one of the known alignments explains it: covers most of both its sides."""
    return not any(
        _overlap(found.query_range, each.query_range) >= COVERED_SHARE
        and _overlap(found.reference_range, each.reference_range) >= COVERED_SHARE
        for each in known
    )


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    """The share of one range that lies in the other."""
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0])) / max(one[1] - one[0], 1e-9)


def _covered(start: float, end: float, found: list[Alignment]) -> bool:
    return any(_overlap((start, end), each.query_range) >= COVERED_SHARE for each in found)


def _parts(time: np.ndarray, times: np.ndarray, likeness: np.ndarray) -> list[np.ndarray]:
    """Numbers of the landmarks of each part of the query to look at, the likest part first."""
    count = max(1, round(float(time[-1] - time[0]) / PART_SECONDS))
    edges = np.linspace(float(time[0]), float(time[-1]) + 1e-6, count + 1)
    bounds = np.searchsorted(time, edges)
    parts = [np.arange(first, end) for first, end in itertools.pairwise(bounds)]
    best = np.zeros(count)
    np.maximum.at(best, np.clip(np.searchsorted(edges, times, "right") - 1, 0, count - 1), likeness)
    # Of equally like ones, those far apart: 0, 1/2, 1/4, 3/4, ... of the way.
    order = sorted(range(count), key=lambda n: (-best[n], _reversed_bits(n, count.bit_length()), n))
    return [parts[n] for n in order[:MOST_PARTS] if len(parts[n]) >= 3]


def _reversed_bits(number: int, bits: int) -> int:
    return int(f"{number:0{bits}b}"[::-1], 2)


def _extended(query: _Side, found: Alignment, reference: _Side) -> Alignment:
    """The alignment as far as it holds, fitted anew as it grows."""
    reach = _EXTENSION_SECONDS
    while True:
        start, end = found.query_range[0] - reach, found.query_range[1] + reach
        q = np.arange(*np.searchsorted(query.time, (start, end)))
        fitted = fit(query, q, reference, found.speed, found.offset, found.pitch)
        longer = stretch(query, q, reference, *fitted) if fitted else None
        if longer is None or longer.evidence <= found.evidence:
            return found
        if start <= query.time[0] and end >= query.time[-1]:
            return longer
        found = longer
        reach *= 2
