"""What evidence is worth: how often contents that have nothing to do with each other give as much of it by chance.

Each algorithm that proves copies (an "evidence") tells the strength of its evidence: bits that agree, features that
fall together, different words in common. Noise is what strengths it finds between contents that are no copies. From it
follow the false-positive rate of a strength (the share of unrelated pairs that reach it), the threshold for a wanted
rate, and the confidence of a match.

Confidence is the share of copies among matches of that strength or more, where a query is as likely as not to have one
copy in a collection of `collection` contents, all others being unrelated to it: 1 / (1 + collection * rate). So it
means the same for all algorithms and content types. It is a number for a person: where hardly any query has a copy, or
the collection is much larger, multiply the odds.

Rates that enough pairs of the noise reach are counted, with the exact interval of Clopper and Pearson ("The use of
confidence or fiducial limits illustrated in the case of the binomial", 1934). Smaller ones are extrapolated with the
distribution that the excesses over a high threshold tend to (Pickands, "Statistical inference using extreme order
statistics", 1975), fitted by L-moments (Hosking and Wallis, "Parameter and quantile estimation for the generalized
Pareto distribution", 1987) and never taken to fall faster than exponentially; its interval is that of the parametric
bootstrap. Both take pairs as independent, though they share contents; and no noise tells of likenesses it does not
have in it. Intervals are of 95 %.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fingerprint_dagster.content import Match
from fingerprint_dagster.errors import UsageError

FORMAT = 1
FILE = "calibration.json"
COLLECTION = 10_000
KEPT = 500
"""The strongest noise that is kept: what thresholds are found by."""
SOUNDTRACK = "soundtrack_"
"""What evidence by the sound of a video begins with. Sound is as often alike by chance as outside of a video: where its
noise was not measured, that of sounds is taken."""

COUNTED = 10
"""Pairs of the noise that must reach a rate for it to be counted; below it is extrapolated."""
FITTED = 200
"""The most strengths that the extrapolation is fitted to, and ..."""
LEAST_FITTED = 20
"""... the fewest."""

_TAILS = (0.025, 0.975)
_RESAMPLED = 1000


@dataclass(frozen=True)
class Estimate:
    """A rate or a threshold, with its 95 % interval. extrapolated: it lies beyond what was observed."""

    value: float
    low: float
    high: float
    extrapolated: bool


@dataclass(frozen=True)
class Noise:
    """The strengths of one evidence between unrelated contents.

    content_types: the types of the two sides, sorted: one where both are of it. evidence: the algorithm's name.
    contents: how many contents were paired. pairs: how many pairs. matched: how many of these the evidence takes for
    copies with its own threshold. strongest: the greatest strengths, descending, at most `KEPT`, none of 0.
    """

    content_types: tuple[str, ...]
    evidence: str
    contents: int
    pairs: int
    matched: int
    strongest: tuple[float, ...]

    def rate(self, strength: float) -> float:
        """The share of unrelated pairs that reach this strength, 0..1; never 0, and never more for more strength."""
        tail = self._tail
        if tail is not None and strength > tail.start:
            return tail.share * tail.survival(strength)
        reached = self._reaching(strength)
        # Where nothing can be fitted: as if the next pair of them did.
        return reached / self.pairs if tail is not None else min(1.0, (reached + 1) / (self.pairs + 1))

    def estimate(self, strength: float) -> Estimate:
        """`rate` with its interval."""
        reached, tail = self._reaching(strength), self._tail
        if tail is None or reached >= COUNTED:
            value = reached / self.pairs if reached >= COUNTED else self.rate(strength)
            return Estimate(value, *clopper_pearson(reached, self.pairs), extrapolated=False)
        low, high = np.quantile([each.survival(strength) * each.share for each in tail.resampled(self.pairs)], _TAILS)
        return Estimate(self.rate(strength), float(low), float(high), extrapolated=True)

    @property
    def accepted(self) -> Estimate:
        """The share of unrelated pairs that the evidence takes for copies with its own threshold."""
        return Estimate(self.matched / self.pairs, *clopper_pearson(self.matched, self.pairs), extrapolated=False)

    def threshold(self, rate: float) -> Estimate | None:
        """The strength that this share of unrelated pairs reaches, 0 where fewer have any; None where none can be told.

        The interval of a counted one runs between the strengths whose own rates have `rate` at the ends of theirs.
        """
        counted = int(rate * self.pairs)
        if COUNTED <= counted <= len(self.strongest):
            most = next((k for k in range(counted, -1, -1) if clopper_pearson(k, self.pairs)[1] <= rate), 0)
            least = next(
                (k for k in range(counted, len(self.strongest)) if clopper_pearson(k, self.pairs)[0] >= rate),
                len(self.strongest),
            )
            low, value, high = (self.strongest[max(k, 1) - 1] for k in (least, counted, most))
            return Estimate(value, low, high, extrapolated=False)
        if counted > len(self.strongest):
            return None if len(self.strongest) == KEPT else Estimate(0.0, 0.0, 0.0, extrapolated=False)
        tail = self._tail
        if tail is None:
            return None
        low, high = np.quantile([each.strength(rate) for each in tail.resampled(self.pairs)], _TAILS)
        return Estimate(tail.strength(rate), float(low), float(high), extrapolated=True)

    def _reaching(self, strength: float) -> int:
        """How many of the strongest are at least this strong."""
        return int(np.searchsorted(-self._descending, -strength, side="right"))

    @cached_property
    def _descending(self) -> np.ndarray:
        return np.array(self.strongest, np.float64)

    @cached_property
    def _tail(self) -> _Tail | None:
        fitted = min(FITTED, len(self.strongest) - 1)
        if fitted < LEAST_FITTED:
            return None
        start = self.strongest[fitted]
        excesses = self._descending[self._descending > start] - start
        return _Tail.fitted(start, len(excesses) / self.pairs, excesses) if len(excesses) >= LEAST_FITTED else None


@dataclass(frozen=True)
class _Tail:
    """The generalised Pareto distribution of the strengths above `start`, which the share `share` of pairs reach.

    number: strengths it was fitted to. shape: 0 (exponential) or more.
    """

    start: float
    share: float
    number: int
    scale: float
    shape: float

    @classmethod
    def fitted(cls, start: float, share: float, excesses: np.ndarray) -> _Tail:
        scale, shape = _l_moments(np.sort(excesses)[np.newaxis])
        return cls(start, share, len(excesses), float(scale[0]), float(shape[0]))

    def survival(self, strength: float) -> float:
        """The share of the strengths above `start` that reach this one."""
        excess = (strength - self.start) / self.scale
        return math.exp(-excess) if self.shape < 1e-6 else (1 + self.shape * excess) ** (-1 / self.shape)

    def strength(self, rate: float) -> float:
        """The strength that the share `rate` of all pairs reach."""
        odds = math.log(self.share / rate)
        return self.start + self.scale * (odds if self.shape < 1e-6 else math.expm1(self.shape * odds) / self.shape)

    def resampled(self, pairs: int) -> list[_Tail]:
        """Tails fitted to samples of this one: what it might have been as well."""
        random = np.random.default_rng(0)
        odds = random.exponential(size=(_RESAMPLED, self.number))
        excesses = self.scale * (odds if self.shape < 1e-6 else np.expm1(self.shape * odds) / self.shape)
        shares = random.beta(self.number + 0.5, pairs - self.number + 0.5, _RESAMPLED)
        scales, shapes = _l_moments(np.sort(excesses, axis=1))
        return [
            replace(self, share=share, scale=scale, shape=shape)
            for share, scale, shape in zip(shares.tolist(), scales.tolist(), shapes.tolist(), strict=True)
        ]


def _l_moments(excesses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shape of each row of excesses, sorted ascending."""
    number = excesses.shape[1]
    mean = excesses.mean(axis=1)
    weighted = (excesses * ((number - 1 - np.arange(number)) / (number - 1))).mean(axis=1)
    shape = np.clip(2 - mean / np.maximum(mean - 2 * weighted, 1e-12), 0, 0.9)
    return mean * (1 - shape), shape


def clopper_pearson(hits: int, trials: int) -> tuple[float, float]:
    """The exact 95 % interval of a share of which `hits` of `trials` were seen."""
    from scipy.special import betaincinv

    low = float(betaincinv(hits, trials - hits + 1, _TAILS[0])) if hits else 0.0
    high = float(betaincinv(hits + 1, trials - hits, _TAILS[1])) if hits < trials else 1.0
    return low, high


@dataclass(frozen=True)
class Calibration:
    """The noise of every evidence that was measured.

    collection: the number of contents that `confidence` is told for. source: what it was measured on, for a person.
    """

    noise: tuple[Noise, ...]
    source: str = ""
    collection: int = COLLECTION

    def rate(self, query_type: str, match: Match) -> float | None:
        """The share of unrelated pairs that reach the match's strength; None where that evidence was not measured."""
        noise = self._by_evidence.get((_sides(query_type, match.reference.content_type), match.evidence))
        if noise is None and match.evidence.startswith(SOUNDTRACK):
            noise = self._by_evidence.get((("audio",), match.evidence.removeprefix(SOUNDTRACK)))
        return None if noise is None else noise.rate(match.score if match.strength is None else match.strength)

    def confidence(self, query_type: str, match: Match) -> float | None:
        """See the module: 0..1; None where that evidence was not measured."""
        rate = self.rate(query_type, match)
        return None if rate is None else self.confidence_at(rate)

    def confidence_at(self, rate: float) -> float:
        """The confidence in evidence that this share of unrelated pairs reaches."""
        return 1 / (1 + self.collection * rate)

    def updated(self, other: Calibration) -> Calibration:
        """The noise of `other`, and of this one what the other does not have."""
        both = {**self._by_evidence, **other._by_evidence}
        return Calibration(tuple(both[key] for key in sorted(both)), other.source, other.collection)

    @cached_property
    def _by_evidence(self) -> Mapping[tuple[tuple[str, ...], str], Noise]:
        return {(noise.content_types, noise.evidence): noise for noise in self.noise}

    def to_json(self) -> str:
        """One JSON object, a line for each evidence."""
        lines = ",\n".join(json.dumps(asdict(noise)) for noise in self.noise)
        head = {"format": FORMAT, "source": self.source, "collection": self.collection}
        return f'{json.dumps(head)[:-1]}, "noise": [\n{lines}\n]}}\n'

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """What `to_json` wrote. Raises ValueError for anything else."""
        try:
            told: dict[str, Any] = json.loads(text)
            if told["format"] != FORMAT:
                raise ValueError(f"it has the format {told['format']}, and this version reads {FORMAT}")
            noise = (
                Noise(**each | {side: tuple(each[side]) for side in ("content_types", "strongest")})
                for each in told["noise"]
            )
            return cls(tuple(noise), told["source"], told["collection"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a calibration: {error}") from error


def _sides(one: str, other: str) -> tuple[str, ...]:
    return tuple(sorted({str(one), str(other)}))


def strongest(strengths: Iterable[float]) -> tuple[float, ...]:
    """The part of many strengths that `Noise` keeps, to six digits."""
    found: Sequence[float] = sorted((each for each in strengths if each > 0), reverse=True)[:KEPT]
    return tuple(float(f"{each:.6g}") for each in found)


@lru_cache(maxsize=1)
def shipped() -> Calibration:
    """The calibration that comes with the package: see benchmarks/false_positives.py."""
    return Calibration.from_json((Path(__file__).parent / "shipped.json").read_text())


def load(home: Path) -> Calibration:
    """The user's own calibration in the home, completed by the shipped one; the file is read again when it changes.

    Raises `UsageError` for a file that is none.
    """
    path = home / FILE
    try:
        state = path.stat()
        return _completed(path, state.st_mtime_ns, state.st_ino)
    except FileNotFoundError:
        return shipped()
    except ValueError as error:
        raise UsageError(f"{path}: {error}; remove it, or run `fingerprint calibrate` again") from error


@lru_cache(maxsize=4)
def _completed(path: Path, changed: int, inode: int) -> Calibration:
    """What is in the file of that state, completed by the shipped calibration."""
    return shipped().updated(Calibration.from_json(path.read_text()))


def save(home: Path, calibration: Calibration) -> Path:
    """Keep a calibration in the home, in place of the one there."""
    home.mkdir(parents=True, exist_ok=True)
    written = home / f"{FILE}.{os.getpid()}"
    written.write_text(calibration.to_json())
    return written.replace(home / FILE)
