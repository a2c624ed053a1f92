"""What a join found, as a person wants it: clusters with the copy to keep, and every pair with what was decided."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fingerprint_dagster.content import Fingerprint
from fingerprint_dagster.duplicates.clusters import clusters
from fingerprint_dagster.duplicates.decisions import Decision, Verdict
from fingerprint_dagster.duplicates.join import pair_of
from fingerprint_dagster.duplicates.keep import Rank
from fingerprint_dagster.duplicates.pairs import Pair, Pairs
from fingerprint_dagster.search import EXACT

if TYPE_CHECKING:
    from fingerprint_dagster.catalog import Catalog
    from fingerprint_dagster.index.store import Store


@dataclass(frozen=True)
class Wanted:
    """Which pairs are asked for: of these content types and relations (empty: all), and from these values on.

    least_confidence: pairs whose confidence was not measured are asked for all the same.
    """

    content_types: frozenset[str] = frozenset()
    relations: frozenset[str] = frozenset()
    least_score: float = 0.0
    least_confidence: float = 0.0

    def holds(self, pair: Pair) -> bool:
        """Whether that pair is asked for."""
        types = {str(pair.one.content.content_type), str(pair.other.content.content_type)}
        if self.content_types and not types <= self.content_types:
            return False
        if self.relations and pair.relation not in self.relations:
            return False
        confidence = pair.best.confidence
        return pair.best.score >= self.least_score and (confidence is None or confidence >= self.least_confidence)


@dataclass(frozen=True)
class Cluster:
    """Contents that are all copies of each other. members: the one to keep first, then the others, best first."""

    number: int
    members: tuple[Fingerprint, ...]

    @property
    def keep(self) -> Fingerprint:
        """The best copy."""
        return self.members[0]

    @property
    def spare_bytes(self) -> int:
        """What the other copies take."""
        return sum(each.size for each in self.members[1:])


@dataclass(frozen=True)
class Finding:
    """One pair, the clusters its contents are in (0: in none), and what a person decided about it."""

    pair: Pair
    one_cluster: int
    other_cluster: int
    verdict: Verdict | None


class Findings:
    """The clusters, and the pairs one by one: those that somebody called different are left out and only counted."""

    def __init__(
        self, pairs: Pairs, found: Sequence[Cluster], verdicts: Mapping[tuple[str, str], Decision], wanted: Wanted
    ) -> None:
        self.clusters = found
        self._pairs = pairs
        self._verdicts = verdicts
        self._wanted = wanted
        self._cluster = {each.content.content_id: cluster.number for cluster in found for each in cluster.members}

    @property
    def different(self) -> int:
        """How many pairs are left out because somebody called them different."""
        return sum(verdict_of(pair, self._verdicts) == "different" for pair in self._pairs.pairs())

    def __iter__(self) -> Iterator[Finding]:
        """In the order they were found."""
        for pair in self._pairs.pairs():
            verdict = verdict_of(pair, self._verdicts)
            if verdict != "different" and self._wanted.holds(pair):
                one, other = (self._cluster.get(each.content.content_id, 0) for each in (pair.one, pair.other))
                yield Finding(pair, one, other, verdict)


def _joins(pair: Pair) -> bool:
    """Whether the pair makes its contents members of one cluster: not if they are flat, silent or nearly empty."""
    if pair.relation != "copy" or pair.one.content.content_type != pair.other.content.content_type:
        return False
    return not pair.best.details.get("low_information")


def surest(pair: Pair) -> tuple[Any, ...]:
    """The key by which pairs are sorted, the surest first; suggestions last."""
    confidence = 0.5 if pair.best.confidence is None else pair.best.confidence
    return pair.relation == "suggestion", -confidence, -pair.best.score, pair.number


def verdict_of(pair: Pair, decisions: Mapping[tuple[str, str], Decision]) -> Verdict | None:
    """What was decided about the pair, if both contents still have the bytes that were looked at."""
    decision = decisions.get(pair.ids)
    digests = {each.content.content_id: each.digest for each in (pair.one, pair.other)}
    if decision is None or not decision.holds_for(digests[decision.one], digests[decision.other]):
        return None
    return decision.verdict


def find(
    store: Store, pairs: Pairs, decisions: Iterable[Decision], rank: Rank, wanted: Wanted | None = None
) -> Findings:
    """The clusters and pairs of what was joined.

    Clusters are made of copies of one content type (see `relation` and `clusters`) and of what people called the same;
    two that would come together by a third, but were no candidates of each other, are verified now.
    """
    wanted = wanted or Wanted()
    verdicts = {(each.one, each.other): each for each in decisions}
    links: list[tuple[str, str, float]] = []
    equal: list[tuple[str, str]] = []
    different: list[tuple[str, str]] = []
    for pair in pairs.pairs():
        verdict = verdict_of(pair, verdicts)
        if verdict == "different":
            different.append(pair.ids)
        elif pair.best.evidence == EXACT:
            equal.append(pair.ids)
        elif _joins(pair) and wanted.holds(pair):
            links.append((*pair.ids, pair.best.score))
    same, more_different = _decided(pairs, verdicts.values())
    groups = clusters(
        links,
        same=[*same, *equal],
        different=[*different, *more_different],
        verify=lambda one, other: _are_copies(store, pairs, one, other),
    )
    found = []
    for group in groups:
        members = sorted(pairs.facts(group).values(), key=rank)
        types = {str(each.content.content_type) for each in members}
        if len(members) > 1 and (not wanted.content_types or types <= wanted.content_types):
            found.append(members)
    found.sort(key=lambda members: (-len(members), rank(members[0])))
    return Findings(
        pairs, [Cluster(number, tuple(members)) for number, members in enumerate(found, 1)], verdicts, wanted
    )


def _decided(pairs: Pairs, decisions: Iterable[Decision]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """What people called the same and different, of contents that still have the bytes that were looked at."""
    decisions = sorted(decisions, key=lambda each: each.since, reverse=True)
    known = pairs.facts([content_id for each in decisions for content_id in (each.one, each.other)])
    held = [
        each
        for each in decisions
        if each.one in known
        and each.other in known
        and each.holds_for(known[each.one].digest, known[each.other].digest)
    ]
    same, different = (
        [(each.one, each.other) for each in held if each.verdict == verdict] for verdict in ("same", "different")
    )
    return same, different


def _are_copies(store: Store, pairs: Pairs, one: str, other: str) -> bool:
    """Verify two contents that were no candidates of each other; what comes out is kept."""
    numbers = pairs.numbers([one, other])
    if len(numbers) < 2:
        return False
    ends = sorted([numbers[one][0], numbers[other][0]])
    ordered = (ends[0], ends[1])
    if pairs.settled([ordered]):
        return False  # Were they a pair of copies, they would be among the links.
    content_ids = pairs.content_ids(ordered)
    both = store.get([content_ids[number] for number in ordered if number in content_ids])
    if len(both) < 2:
        return False
    pair = pair_of(*both)
    if pair is None:
        pairs.record(refused=[ordered])
        return False
    pairs.record(found=[pair])
    return pair.relation == "copy"


def order_of_registration(catalog: Catalog) -> dict[str, int]:
    """content_id -> its place in the order in which contents were registered."""
    order: dict[str, int] = {}
    for batch in catalog.batches():
        for content in catalog.members(batch.name):
            order.setdefault(content.content_id, len(order))
    return order
