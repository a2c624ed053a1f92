"""Which stretches of two videos are the same, at which speed, from how alike their frames are.

Three steps. Pairs of frames that are alike and follow one another in both videos at about the same pace are linked to
chains, and the chain with most evidence is taken: the temporal network of Tan et al., "Scalable Detection of Partial
Near-Duplicate Videos by Visual-Temporal Consistency" (2009), solved by dynamic programming. A copy runs at one speed,
so a line is laid through the chain. Along it each frame of the query speaks for the copy or against it, by what the
likest frame of the reference near that moment is worth; the stretch with the greatest sum is the segment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fingerprint_dagster.content import Range
from fingerprint_dagster.media.video.frames import Frames, Likeness, evidence, likeness

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

# Of 11,115 pairs of an edited video and a reference that is not in it, none had more than 9 nats. Parts of one concert
# on one stage, filmed by the same cameras, had up to 24 in 2 of 30 pairs of 10 s and less than 15 in the others.
MIN_EVIDENCE = 15.0
# Two frames that are news must agree: one alone may be a title card or a stock shot. A video of only one picture can
# offer no more than that one; there it must be as like as this.
MIN_NEWS = 1.8
ONE_PICTURE = 0.65

MIN_LINKED = 2.0  # nats of a pair in a chain
NEAREST = 12  # pairs for each frame of the query
MAX_GAP = 8.0  # seconds of the query without a pair that a chain bridges
SPEEDS = (0.8, 1.25)  # slowest and fastest: seconds of the reference to one of the query
SLACK = 1.0  # seconds by which a pair may be off, because the two sides are sampled at different instants
MAX_LATE = 2.0  # seconds from the moment that is asked to the frame that is compared, where there is none nearer
_OFF_COST = 0.7  # nats for each second off
_GAP_COST = 0.5  # nats for each second without a pair
_LATE_COST = 0.1  # of likeness, for each second between the moment that is asked and that of the frame
UNCHANGED = 0.012  # of likeness for each frame: what must be gained for a speed other than 1
FEW = 5  # pairs do not tell a speed
MAX_SEGMENTS = 32
FAR = 2.5  # seconds from the line, where frames tell how alike the two videos are anyway
LEAST_FAR = 3
# A stretch that another segment explains already must be about as like as it is there: the views of one camera are all
# alike, and only one of them is the copy.
_ECHO, _ECHO_DENSITY = 0.02, 0.95
_COVERED = 0.5


@dataclass(frozen=True)
class Segment:
    """A stretch of the query that is in the reference, in seconds on both sides: reference = speed * query + offset.

    evidence: nats. similarity: the mean likeness of the frames within it, -1..1. frames: of the query, their numbers,
    and those of the reference that they are like: int [k, 2].
    """

    query: Range
    reference: Range
    speed: float
    offset: float
    evidence: float
    similarity: float
    frames: I64

    @property
    def density(self) -> float:
        """Evidence for each second of the query."""
        return self.evidence / max(self.query[1] - self.query[0], 1e-9)


def align(query: Frames, reference: Frames, least: float = MIN_EVIDENCE) -> list[Segment]:
    """The segments with at least that evidence, most first."""
    like = likeness(query, reference)
    worth = evidence(like.same, like.alike)
    free = np.ones(worth.shape, bool)
    segments: list[Segment] = []
    for _ in range(2 * MAX_SEGMENTS):
        chain = longest_chain(query, reference, np.where(free, worth, -1))
        if not len(chain) or len(segments) == MAX_SEGMENTS:
            break
        segment = _segment(query, reference, like, worth, chain)
        free[chain[:, 0], chain[:, 1]] = False
        if segment is None:
            continue
        free[np.ix_(_within(query.starts, segment.query), _within(reference.starts, segment.reference))] = False
        if segment.evidence >= least and not _is_echo(segment, segments):
            segments.append(segment)
    return sorted(segments, key=lambda s: (-s.evidence, s.query, s.reference))


def longest_chain(query: Frames, reference: Frames, worth: F32) -> I64:
    """Frame numbers of the pairs, int [k, 2], that follow one another and are worth most together.

    worth: nats of each pair, float32 [n, m].
    """
    most = min(NEAREST, worth.shape[1])
    nearest = np.argpartition(-worth, most - 1, axis=1)[:, :most]
    value = np.take_along_axis(worth, nearest, axis=1)
    ours, rank = np.nonzero(value >= MIN_LINKED)
    if not len(ours):
        return np.zeros((0, 2), np.int64)
    theirs, value = nearest[ours, rank], value[ours, rank]
    here, there = query.starts[ours], reference.starts[theirs]
    stood = query.stood[ours] + reference.stood[theirs]
    total = value.astype(np.float64)
    previous = np.full(len(ours), -1)
    starts = np.flatnonzero(np.diff(ours, prepend=-1))
    oldest = np.searchsorted(query.ends[ours], here[starts] - MAX_GAP, "left")
    for first, end, old in zip(starts, [*starts[1:], len(ours)], oldest, strict=True):
        if old >= first:
            continue
        passed = here[first] - here[old:first]
        moved = there[first:end, np.newaxis] - there[old:first]
        slack = SLACK + stood[old:first]
        allowed = (moved >= 0) & (moved >= SPEEDS[0] * passed - slack) & (moved <= SPEEDS[1] * passed + slack)
        missed = np.maximum(here[first] - query.ends[ours[old:first]], 0)
        cost = _OFF_COST * np.maximum(np.abs(moved - passed) - 0.1 * passed, 0) + _GAP_COST * missed
        linked = np.where(allowed, total[old:first] - cost, 0)
        best = linked.argmax(axis=1)
        gain = linked[np.arange(end - first), best]
        total[first:end] += np.maximum(gain, 0)
        previous[first:end] = np.where(gain > 0, best + old, -1)
    chain = [int(total.argmax())]
    while previous[chain[-1]] >= 0:
        chain.append(int(previous[chain[-1]]))
    chain.reverse()
    return np.column_stack([ours[chain], theirs[chain]])


def _segment(query: Frames, reference: Frames, like: Likeness, worth: F32, chain: I64) -> Segment | None:
    """The best stretch along the line through a chain."""
    # The chain may run on into what is only somewhat alike: the line is laid again through what the stretch leaves.
    for _ in range(2):
        speed, offset = fit(query, reference, like.alike, worth, chain)
        asked = speed * query.starts + offset
        inside = np.flatnonzero((asked > reference.starts[0] - SLACK) & (asked < reference.duration))
        nearest, best, _ = _along(query, reference, like.alike, speed, offset, inside)
        met = nearest >= 0
        if not met.any():
            return None
        inside, nearest, best = inside[met], nearest[met], best[met]
        usual = background(query, reference, like.alike, speed, offset, inside, nearest)
        value = evidence(like.same[inside, nearest], best, usual).astype(np.float64)
        first, last = best_stretch(value)
        rows, others, value = inside[first : last + 1], nearest[first : last + 1], value[first : last + 1]
        similarity = float(best[first : last + 1].mean())
        good = value > 0
        if not good.any():
            return None
        chain = np.column_stack([rows[good], others[good]])
    ours, theirs = _news(query.news, rows[good]), _news(reference.news, np.unique(others[good]))
    shares = query.news[rows].copy()
    shares[0] = 1.0
    total = float((value * shares).sum()) * min(1.0, theirs / ours)
    if min(ours, theirs) < MIN_NEWS:
        one_picture = min(_news(side.news, np.arange(len(side))) for side in (query, reference)) < MIN_NEWS
        if not (one_picture and similarity >= ONE_PICTURE):
            return None
        total = max(total, MIN_EVIDENCE * similarity / ONE_PICTURE)
    start = max(float(query.starts[rows[0]]), -offset / speed)
    end = min(float(query.ends[rows[-1]]), (reference.duration - offset) / speed)
    if end <= start:
        return None
    where = (speed * start + offset, speed * end + offset)
    return Segment((start, end), where, speed, offset, total, similarity, np.column_stack([rows, others]))


def background(
    query: Frames, reference: Frames, alike: F32, speed: float, offset: float, rows: I64, nearest: I64
) -> F64:
    """How alike frames of the two videos are that are not at the same moment: for each of the query's frames, 0..1.

    A tenth of the likenesses of the frame itself, or of its nearest one in the reference, with all that are FAR from
    the line are greater. 0 where fewer than LEAST_FAR are.
    """
    late = np.abs(reference.starts - (speed * query.starts + offset)[:, np.newaxis]) > FAR
    across = _most(np.where(late[rows], alike[rows], -np.inf))
    down = _most(np.where(late[:, nearest], alike[:, nearest], -np.inf).T)
    return np.clip(np.maximum(across, down), 0, 0.95)


def _most(values: F32) -> F64:
    """Of each row the value that a tenth of the finite ones exceed; 0 where fewer than LEAST_FAR are finite."""
    known = np.isfinite(values).sum(axis=1)
    place = known // 10
    most = int(place.max(initial=0))
    top = -np.sort(np.partition(-values, most, axis=1)[:, : most + 1], axis=1)
    chosen = np.take_along_axis(top, place[:, np.newaxis], axis=1)[:, 0]
    return np.where(known >= LEAST_FAR, chosen, 0.0).astype(np.float64)


def _news(news: F64, rows: I64) -> float:
    """How many different pictures these frames show; the first is one."""
    return float(1 + news[rows[1:]].sum()) if len(rows) else 0.0


def fit(query: Frames, reference: Frames, alike: F32, worth: F32, chain: I64) -> tuple[float, float]:
    """Speed and offset of the line through a chain along which the frames are most alike."""
    here, there = query.starts[chain[:, 0]], reference.starts[chain[:, 1]]
    weight = worth[chain[:, 0], chain[:, 1]].astype(np.float64)
    middle = float(np.average(here, weights=weight))
    base = float(np.average(there, weights=weight))
    spread = float((weight * (here - middle) ** 2).sum())
    # Towards 1, as if it were known from pairs over two seconds: few pairs do not tell a speed.
    prior = 2.0 * float(weight.max())
    slope = (float((weight * (here - middle) * (there - base)).sum()) + prior) / (spread + prior)
    slope = float(np.clip(slope, *SPEEDS))
    rows = np.arange(chain[0, 0], chain[-1, 0] + 1)
    shifts = np.arange(-6, 7) * 0.25
    ratios = [*np.clip(slope * np.array([0.96, 0.98, 1, 1.02, 1.04]), *SPEEDS).tolist(), 1.0]
    if len(chain) < FEW:
        ratios = [1.0]

    def alikeness(speed: float, offset: float) -> float:
        _, best, late = _along(query, reference, alike, speed, offset, rows)
        return float((best - _LATE_COST * np.abs(late)).sum())

    found = [
        (alikeness(s, base - s * middle + shift), s, base - s * middle + shift) for s in ratios for shift in shifts
    ]
    most = max(found)
    steady = max(each for each in found if each[1] == 1.0)
    best = steady if steady[0] >= most[0] - UNCHANGED * len(rows) else most
    return _settled(query, reference, alike, best[1], best[2], rows)


def _settled(
    query: Frames, reference: Frames, alike: F32, speed: float, offset: float, rows: I64
) -> tuple[float, float]:
    """The offset moved to where most of the pairs along the line say."""
    nearest, best, late = _along(query, reference, alike, speed, offset, rows)
    good = (nearest >= 0) & (best >= np.quantile(best, 0.5))
    return float(speed), float(offset + (np.median(late[good]) if good.any() else 0.0))


def _along(
    query: Frames, reference: Frames, alike: F32, speed: float, offset: float, rows: I64
) -> tuple[I64, F64, F64]:
    """For each of the query's frames `rows` the likest of the reference's that are near its moment.

    Near are the two around the moment, if at most MAX_LATE seconds away, and those within SLACK of it. Returns their
    numbers, how like they are, and by how many seconds they are late; -1, 0 and 0 where there is none.
    """
    asked = speed * query.starts[rows] + offset
    after = np.searchsorted(reference.starts, asked, "left")
    first = np.minimum(np.searchsorted(reference.starts, asked - SLACK, "left"), np.maximum(after - 1, 0))
    end = np.maximum(np.searchsorted(reference.starts, asked + SLACK, "right"), np.minimum(after + 1, len(reference)))
    others = first[:, np.newaxis] + np.arange(int((end - first).max(initial=1)))
    valid = others < end[:, np.newaxis]
    others = np.minimum(others, len(reference) - 1)
    late = reference.starts[others] - asked[:, np.newaxis]
    # What stands still is not late while it stands.
    late = np.where(late < 0, np.minimum(late + reference.stood[others], 0), late)
    valid &= np.abs(late) <= MAX_LATE
    value = np.where(valid, alike[rows[:, np.newaxis], others] - _LATE_COST * np.abs(late), -np.inf)
    best = value.argmax(axis=1)
    here = np.arange(len(rows))
    chosen, has = others[here, best], valid.any(axis=1)
    return (
        np.where(has, chosen, -1),
        np.where(has, alike[rows, chosen], 0).astype(np.float64),
        np.where(has, late[here, best], 0.0),
    )


def best_stretch(value: F64) -> tuple[int, int]:
    """The first and the last of the neighbours whose sum is greatest (Kadane)."""
    total = np.concatenate([[0.0], np.cumsum(value)])
    lowest = np.minimum.accumulate(total[:-1])
    last = int((total[1:] - lowest).argmax())
    return int(total[: last + 1].argmin()), last


def _within(times: F64, where: Range) -> I64:
    return np.flatnonzero((times >= where[0] - 1e-6) & (times < where[1] + 1e-6))


def _is_echo(segment: Segment, known: list[Segment]) -> bool:
    """Whether another segment explains it: lies on both its sides, or on one of them with better likeness."""
    for each in known:
        here, there = _overlap(segment.query, each.query), _overlap(segment.reference, each.reference)
        if min(here, there) >= _COVERED:
            return True
        if max(here, there) >= _COVERED and (
            segment.similarity < each.similarity - _ECHO or segment.density < _ECHO_DENSITY * each.density
        ):
            return True
    return False


def _overlap(one: Range, other: Range) -> float:
    """The share of one range that lies in the other."""
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0])) / max(one[1] - one[0], 1e-9)
