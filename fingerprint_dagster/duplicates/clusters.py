"""From pairs to clusters in which everything is a copy of everything else.

Connected components would chain: where A resembles B and B resembles C, A and C would be called copies without anybody
having compared them. So clusters merge by complete linkage, best pairs first (Defays, "An efficient algorithm for a
complete link method", 1977): two of them become one only where their members were verified against each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set

CHECKS = 64
"""The most pairs of members that are looked at before two clusters merge; of more, as many spread evenly."""


def clusters(
    links: Iterable[tuple[str, str, float]],
    *,
    same: Iterable[tuple[str, str]] = (),
    different: Iterable[tuple[str, str]] = (),
    verify: Callable[[str, str], bool] = lambda one, other: False,
) -> list[list[str]]:
    """Clusters of two or more content_ids, each sorted; the clusters by their first member.

    links: pairs that were verified to be copies, with their score. same: pairs that stay together whatever was
    verified (equal bytes, or a person said so), in order of precedence. different: pairs that never come together; they
    outweigh `same`. verify: whether two that are no pair of `links` are copies after all; asked only where both belong
    to clusters that a link would merge.
    """
    scores = {_ordered(one, other): score for one, other, score in links}
    linked, apart = _neighbours(scores), _neighbours(different)
    # What stays together is one unit: it is enough that one of its members was verified.
    units, grown = _Groups(), _Groups()
    for one, other in same:
        if not _touch(apart, units.members(one), units.members(other)):
            units.merge(one, other)
    for one, other in sorted(scores, key=lambda pair: (-scores[pair], pair)):
        first, second = units.name(one), units.name(other)
        if grown.name(first) == grown.name(second):
            continue
        if any(
            _touch(apart, units.members(unit), units.members(other_unit))
            for unit, other_unit in (_product(grown.members(first), grown.members(second)) if apart else ())
        ):
            continue
        if all(
            _touch(linked, units.members(unit), units.members(other_unit)) or verify(unit, other_unit)
            for unit, other_unit in _product(grown.members(first), grown.members(second), CHECKS)
        ):
            grown.merge(first, second)
    found: defaultdict[str, list[str]] = defaultdict(list)
    for unit in dict.fromkeys(units.name(member) for member in [*linked, *units.merged()]):
        found[grown.name(unit)] += units.members(unit)
    return sorted(sorted(members) for members in found.values() if len(members) > 1)


def _ordered(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)


def _neighbours(pairs: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for one, other in pairs:
        found[one].add(other)
        found[other].add(one)
    return dict(found)


def _touch(neighbours: Mapping[str, Set[str]], members: Sequence[str], others: Sequence[str]) -> bool:
    """Whether one of the members is a neighbour of one of the others."""
    if len(members) > len(others):
        members, others = others, members
    return any(not neighbours[each].isdisjoint(others) for each in members if each in neighbours)


def _product(members: Sequence[str], others: Sequence[str], most: int = 0) -> Iterator[tuple[str, str]]:
    """Each member with each other one; if they are more than `most`, that many, spread evenly."""
    count = len(members) * len(others)
    chosen = range(count) if not most or count <= most else (n * (count - 1) // (most - 1) for n in range(most))
    return ((members[number // len(others)], others[number % len(others)]) for number in chosen)


class _Groups:
    """Disjoint groups of names; a name that was never merged is a group of its own."""

    def __init__(self) -> None:
        self._name: dict[str, str] = {}
        self._members: dict[str, list[str]] = {}

    def name(self, member: str) -> str:
        """The same for all members of a group."""
        return self._name.get(member, member)

    def members(self, member: str) -> Sequence[str]:
        """Everything in the group of that member."""
        return self._members.get(self.name(member), [member])

    def merged(self) -> Iterable[str]:
        """Every member of a group of several."""
        return self._name

    def merge(self, one: str, other: str) -> None:
        """Make the two groups one. The smaller goes into the larger, so that many merges stay quick."""
        small, large = sorted((self.name(one), self.name(other)), key=lambda name: len(self.members(name)))
        if small == large:
            return
        moved = self._members.pop(small, [small])
        self._members.setdefault(large, [large]).extend(moved)
        self._name |= dict.fromkeys([*moved, large], large)
