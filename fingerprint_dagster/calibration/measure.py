"""Measuring noise: what evidence contents give that are no copies of each other."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from fingerprint_dagster.calibration import Calibration, Noise, strongest
from fingerprint_dagster.content import Fingerprint, Match
from fingerprint_dagster.media.plugin import ContentTypePlugin
from fingerprint_dagster.media.registry import content_type

PAIRS = 100_000
"""Pairs of each two content types that are compared, unless another number is given."""


class Verdicts(Protocol):
    """What people decided about pairs of contents."""

    def verdict(self, one: Fingerprint, other: Fingerprint) -> str | None:
        """ "same", "different", or None where nobody decided."""


@dataclass(frozen=True)
class Matched:
    """Two contents of the noise that their plugin takes for copies, with its best match."""

    query: Fingerprint
    match: Match


@dataclass(frozen=True)
class Measured:
    """The noise, and the pairs that match: false positives, or copies that were left out of the noise."""

    calibration: Calibration
    matched: tuple[Matched, ...]


def measure(
    fingerprints: Sequence[Fingerprint],
    *,
    source: str,
    pairs: int = PAIRS,
    leave_out: Callable[[Fingerprint, Fingerprint], bool] = lambda query, reference: False,
    unrelated: bool = False,
    verdicts: Verdicts | None = None,
    progress: Callable[[int], None] = lambda compared: None,
) -> Measured:
    """The noise of every evidence between these contents.

    source: what they are, for a person. pairs: the most of each two content types that are compared, spread evenly over
    the contents. leave_out: pairs that are known to be related; equal bytes always are.
    unrelated: whether all others are known to have nothing to do with each other. If not, pairs that match are taken
    for copies and left out, unless people decided that they are "different" (verdicts).
    """
    by_type: defaultdict[str, list[Fingerprint]] = defaultdict(list)
    for fingerprint in fingerprints:
        by_type[fingerprint.content.content_type].append(fingerprint)
    noise: list[Noise] = []
    matched: list[Matched] = []
    for one in sorted(by_type):
        for other in sorted(by_type):
            plugin = comparing(one, other)
            if one > other or plugin is None:
                continue
            counted, contents = 0, set()
            strengths: defaultdict[str, list[float]] = defaultdict(list)
            hits: defaultdict[str, int] = defaultdict(int)
            for query, reference in pairs_of(by_type[one], by_type[other]):
                decided = None if verdicts is None else verdicts.verdict(query, reference)
                if query.digest == reference.digest or decided == "same" or leave_out(query, reference):
                    continue
                found = plugin.strengths(query, reference)
                matches = plugin.match(query, reference) if _may_match(plugin, found) else []
                proved = [match for match in matches if not match.details.get("suggestion")]
                if proved:
                    matched.append(Matched(query, proved[0]))
                if proved and not unrelated and decided != "different":
                    continue
                for evidence, strength in found.items():
                    strengths[evidence].append(strength)
                for evidence in {match.evidence for match in matches}:
                    hits[evidence] += 1
                contents |= {query.content.content_id, reference.content.content_id}
                counted += 1
                progress(1)
                if counted >= pairs:
                    break
            # What no pair had any of was looked for in all of them too; in those of two types, not all of it.
            known = plugin.thresholds if one == other else ()
            for evidence in sorted({*strengths, *known} if counted else ()):
                noise.append(
                    Noise(
                        tuple(sorted({one, other})),
                        evidence,
                        len(contents),
                        counted,
                        hits[evidence],
                        strongest(strengths[evidence]),
                    )
                )
    return Measured(Calibration(tuple(noise), source), tuple(matched))


def comparing(one: str, other: str) -> ContentTypePlugin | None:
    """The plugin that compares contents of these two types; None where none does."""
    if one == other:
        return content_type(one)
    return next((content_type(a) for a, b in ((one, other), (other, one)) if b in content_type(a).also_matches), None)


def pairs_of(ones: Sequence[Fingerprint], others: Sequence[Fingerprint]) -> Iterator[tuple[Fingerprint, Fingerprint]]:
    """Every pair of different contents once, in an order that asks each of them equally often, whatever their order."""
    same = ones is others
    ones, others = _shuffled(ones), _shuffled(others)
    for step in range(1 if same else 0, len(others)):
        for number, query in enumerate(ones):
            if not same or step < len(ones) / 2 or (2 * step == len(ones) and number < step):
                yield query, others[(number + step) % len(others)]


def _shuffled(fingerprints: Sequence[Fingerprint]) -> list[Fingerprint]:
    return sorted(fingerprints, key=lambda f: hashlib.blake2b(f"{f.digest} {f.content.content_id}".encode()).digest())


def _may_match(plugin: ContentTypePlugin, strengths: dict[str, float]) -> bool:
    return any(strength >= plugin.thresholds.get(evidence, 0.0) for evidence, strength in strengths.items())
