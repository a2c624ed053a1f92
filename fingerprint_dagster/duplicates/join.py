"""A collection joined with itself: what is new is compared with everything, in bounded memory.

Candidates come from the store for many queries at once; each pair is verified once by its content type. As a query's
candidates share less and less with it, the rest of them are left alone after some in a row that were none (the content
type's `patience`). Contents with equal bytes stand for each other: they are pairs without any comparison, and only the
first of them is compared with the rest. The join can be stopped at any time and goes on where it was.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fingerprint_dagster.content import Fingerprint, Match
from fingerprint_dagster.duplicates.pairs import Pair, Pairs, facts_of
from fingerprint_dagster.duplicates.relation import relation_of
from fingerprint_dagster.index.store import Store
from fingerprint_dagster.media.plugin import ContentTypePlugin
from fingerprint_dagster.media.registry import content_types
from fingerprint_dagster.search import CANDIDATES, EXACT, FEW, comparable

JOIN_VERSION = "join_v1"
QUERIES = 2000
"""The most queries whose candidates are looked up together; fewer of a content type with smaller batches."""
BLOCK = 256
"""Fingerprints that are held besides the queries while pairs are verified."""

Progress = Callable[[int, int], None]
"""Called with the contents compared so far, and those to be compared."""


def no_progress(done: int, total: int) -> None:
    """For callers that do not watch."""


@dataclass(frozen=True)
class Joined:
    """What a join did: contents compared, pairs verified, and pairs found, also those of equal bytes."""

    compared: int = 0
    verified: int = 0
    found: int = 0


def join(
    store: Store,
    pairs: Pairs,
    *,
    among: Sequence[str] | None = None,
    limit: int = CANDIDATES,
    progress: Progress = no_progress,
) -> Joined:
    """Compare everything in `store` that was not compared before with everything in it; `pairs` keeps what is found.

    among: only these content_ids are compared with everything, instead of all that is new; then only these are read
    from the store, with what may be a copy of them, and what is gone from it is not noticed.
    limit: the most candidates of each content, of each content type that it is compared with.
    """
    if among is None:
        total = pairs.take_in([facts_of(each) for each in part] for part in store.scan())
        chunks = _new(store, pairs)
    else:
        total, chunks = len(among), _chosen(store, pairs, among)
    done = verified = found = 0
    for queries in chunks:
        counts = _compare(store, pairs, queries, limit)
        done, verified, found = done + len(queries), verified + counts[0], found + counts[1]
        progress(done, total)
    if done and not pairs.waiting_types():
        pairs.forget_refused()
    return Joined(done, verified, found)


def _new(store: Store, pairs: Pairs) -> Iterator[list[Fingerprint]]:
    """Everything that is to be compared, in lists of one content type."""
    for name in pairs.waiting_types():
        plugin = content_types().get(name)
        together = min(QUERIES, 2 * plugin.batch_size) if plugin else QUERIES
        last = 0
        while chunk := pairs.waiting(name, last, together):
            last = chunk[-1][0]
            if queries := store.get([content_id for _, content_id in chunk]):
                yield queries


def _chosen(store: Store, pairs: Pairs, content_ids: Sequence[str]) -> Iterator[list[Fingerprint]]:
    """What is to be compared of these contents, in lists of one content type."""
    for start in range(0, len(content_ids), QUERIES):
        chunk = store.get(content_ids[start : start + QUERIES])
        equal = {content_id for digest in {each.digest for each in chunk} for content_id in store.by_digest(digest)}
        equal -= {each.content.content_id for each in chunk}
        pairs.learn([facts_of(each) for each in [*chunk, *store.get(sorted(equal))]])
        new = set(pairs.to_be_compared([each.content.content_id for each in chunk]))
        by_type: defaultdict[str, list[Fingerprint]] = defaultdict(list)
        for fingerprint in chunk:
            if fingerprint.content.content_id in new:
                by_type[str(fingerprint.content.content_type)].append(fingerprint)
        yield from by_type.values()


def _compare(store: Store, pairs: Pairs, queries: Sequence[Fingerprint], limit: int) -> tuple[int, int]:
    """Compare these with everything; the numbers of pairs that were verified and found."""
    numbers = pairs.numbers([query.content.content_id for query in queries])
    queries = [query for query in queries if query.content.content_id in numbers]
    found = list(_equal(pairs, queries, numbers))
    outcomes: dict[tuple[int, int], bool] = {}
    verified = 0
    asking = [query for query in queries if _is_first(numbers[query.content.content_id])]
    for most in sorted({min(FEW, limit), limit}):
        searches = _searches(store, pairs, asking, most)
        unfinished: dict[str, Fingerprint] = {}
        while searches:
            outcomes |= pairs.settled([pair for search in searches for pair in search.pairs() if pair not in outcomes])
            new = _verified(store, pairs, searches, outcomes)
            found += [pair for pair in new.values() if pair is not None]
            verified += len(new)
            pairs.record(refused=[numbers for numbers, pair in new.items() if pair is None])
            outcomes |= {numbers: pair is not None for numbers, pair in new.items()}
            searches = [search for search in searches if search.goes_on(outcomes)]
            unfinished |= {each.query.content.content_id: each.query for each in searches if not each.candidates}
            searches = [search for search in searches if search.candidates]
        asking = list(unfinished.values())
    pairs.record(queries, found)
    return verified, len(found)


def _verified(
    store: Store, pairs: Pairs, searches: Sequence[_Search], settled: Container[tuple[int, int]]
) -> dict[tuple[int, int], Pair | None]:
    """The outcome of comparing each search's query with its next candidates, but for pairs that are settled."""
    wanted: defaultdict[int, list[_Search]] = defaultdict(list)
    for search in searches:
        for number in search.next:
            if _ordered(search.number, number) not in settled:
                wanted[number].append(search)
    outcomes: dict[tuple[int, int], Pair | None] = {}
    numbers = sorted(wanted)
    for start in range(0, len(numbers), BLOCK):
        content_ids = pairs.content_ids(numbers[start : start + BLOCK])
        by_id = {each.content.content_id: each for each in store.get(list(content_ids.values()))}
        for number, content_id in content_ids.items():
            if content_id not in by_id:
                continue  # deleted a moment ago
            reference = by_id[content_id]
            for search in wanted[number]:
                numbered = _ordered(search.number, number)
                if numbered not in outcomes:
                    outcomes[numbered] = pair_of(search.query, reference)
    return outcomes


def pair_of(query: Fingerprint, reference: Fingerprint) -> Pair | None:
    """The two compared by the content type that can; None where none can or nothing matches."""
    matches = verify(query, reference)
    if not matches:
        return None
    return Pair(facts_of(query), facts_of(reference), relation_of(query, reference, matches), tuple(matches))


@dataclass
class _Search:
    """A query, and the numbers of the candidates that are still to be compared with it, the likeliest first."""

    query: Fingerprint
    number: int
    candidates: list[int]

    @property
    def next(self) -> list[int]:
        """Those to be compared now."""
        return self.candidates[: content_types()[self.query.content.content_type].patience]

    def pairs(self) -> list[tuple[int, int]]:
        """The query's number with that of each of the next candidates, the lower first."""
        return [_ordered(self.number, each) for each in self.next]

    def goes_on(self, outcomes: Mapping[tuple[int, int], bool]) -> bool:
        """Whether, with these outcomes of the next candidates, those that follow are worth a look; they are next."""
        any_found = any(outcomes.get(pair) for pair in self.pairs())
        self.candidates = self.candidates[len(self.next) :]
        return any_found


def _equal(pairs: Pairs, queries: Sequence[Fingerprint], numbers: Mapping[str, tuple[int, int]]) -> Iterator[Pair]:
    """The first of each group of equal bytes with each of the others."""
    for query in queries:
        number, first = numbers[query.content.content_id]
        group = [first] if number != first else pairs.equal_to(number)[1:]
        others = pairs.facts(list(pairs.content_ids(group).values()))
        for other in others.values():
            yield Pair(facts_of(query), other, "copy", (Match(other.content, 1.0, EXACT, confidence=1.0),))


def _searches(store: Store, pairs: Pairs, queries: Sequence[Fingerprint], limit: int) -> list[_Search]:
    """The candidates of each of the queries, which are of one content type; one search for each type they may be of.

    Of contents with equal bytes only the first is a candidate.
    """
    numbers = pairs.numbers([query.content.content_id for query in queries])
    found = []
    for other_type in comparing(str(queries[0].content.content_type)) if queries else ():
        answers = store.candidates_many(queries, limit, other_type)
        named = list(dict.fromkeys(each.content_id for answer in answers for each in answer))
        known = pairs.numbers(named)
        if unknown := [content_id for content_id in named if content_id not in known]:
            for start in range(0, len(unknown), BLOCK):
                pairs.learn([facts_of(each) for each in store.get(unknown[start : start + BLOCK])])
            known |= pairs.numbers(unknown)
        for query, answer in zip(queries, answers, strict=True):
            number = numbers[query.content.content_id][0]
            firsts = dict.fromkeys(known[each.content_id][1] for each in answer if each.content_id in known)
            firsts.pop(number, None)
            found.append(_Search(query, number, list(firsts)))
    return found


def comparing(content_type: str) -> dict[str, ContentTypePlugin]:
    """The content types that contents of this one can be compared with -> the plugin that does it."""
    plugin = content_types().get(content_type)
    return {} if plugin is None else comparable(plugin)


def verify(query: Fingerprint, reference: Fingerprint) -> list[Match]:
    """What the content type that compares the two finds, as it tells it; empty where none can or nothing matches."""
    plugin = comparing(str(query.content.content_type)).get(str(reference.content.content_type))
    return [] if plugin is None else plugin.match(query, reference)


def _is_first(numbers: tuple[int, int]) -> bool:
    return numbers[0] == numbers[1]


def _ordered(one: int, other: int) -> tuple[int, int]:
    return (one, other) if one < other else (other, one)
