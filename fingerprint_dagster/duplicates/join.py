"""A collection joined with itself: what is new is compared with everything, in bounded memory.

Candidates come from the store for many queries at once; each pair is verified once by its content type. Most contents
have no copy, and candidates by chance. So only some that stand out are looked at first (the content type's `patience`);
where one of them is a copy, there may be many, and the others are looked at until some in a row are none. Contents with
equal bytes stand for each other: they are pairs without any comparison, and only the first of them is compared with the
rest. The join can be stopped at any time and goes on where it was.

The queries are independent of each other: a pair is always compared in the order in which its contents became known,
whichever of them asks. So several processes find what one finds.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Container, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from fingerprint_dagster.content import Fingerprint, Match
from fingerprint_dagster.duplicates.pairs import Pair, Pairs, facts_of
from fingerprint_dagster.duplicates.relation import relation_of
from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.index.ranking import stretches
from fingerprint_dagster.index.store import Store, open_store, shareable
from fingerprint_dagster.media.plugin import ContentTypePlugin
from fingerprint_dagster.media.registry import content_types
from fingerprint_dagster.search import CANDIDATES, EXACT, FEW, comparable, outstanding
from fingerprint_dagster.workers import WorkerError, WorkerPool

JOIN_VERSION = "join_v2"
QUERIES = 256
"""The most queries whose candidates are looked up together; fewer of a content type with smaller batches. Each process
does so in one thread: two processes with two threads each take an eighth longer."""
BLOCK = 256
"""Fingerprints that are held besides the queries while pairs are verified."""
FIRST = 2
"""Candidates that are looked at whether or not they stand out from the others of the query (`search.outstanding`). Of
384 edited pictures among 100,000 (made up but for 2,908), the originals of 341 are among the first five that are looked
at, which are 2.4 of a picture without copies; of 330 among the first five of all."""
LISTS = 4
"""Where there are fewer lists of queries for each process, one alone is done before the others have started."""
# A list of long films may take hours, and the search structure of a large collection is mapped as a whole.
_SECONDS, _MEMORY = 7 * 86_400.0, 1 << 46

Progress = Callable[[int, int], None]
"""Called with the contents compared so far, and those to be compared."""


def no_progress(done: int, total: int) -> None:
    """For callers that do not watch."""


@dataclass(frozen=True)
class Joined:
    """What a join did: contents compared, pairs verified, and new pairs, also those of equal bytes.

    Several processes at once may verify a few pairs twice.
    """

    compared: int = 0
    verified: int = 0
    found: int = 0

    def __add__(self, other: Joined) -> Joined:
        return Joined(self.compared + other.compared, self.verified + other.verified, self.found + other.found)


def join(
    store: Store,
    pairs: Pairs,
    *,
    among: Sequence[str] | None = None,
    limit: int = CANDIDATES,
    workers: int = 1,
    progress: Progress = no_progress,
) -> Joined:
    """Compare everything in `store` that was not compared before with everything in it; `pairs` keeps what is found.

    among: only these content_ids are compared with everything, instead of all that is new; then only these are read
    from the store, with what may be a copy of them, and what is gone from it is not noticed.
    limit: the most candidates of each content, of each content type that it is compared with.
    workers: processes, where there is enough to do for several. They open the store anew, by the address that `pairs`
    was made for; a program that asks for them needs `if __name__ == "__main__":` around what it runs, as always where
    Python starts processes. Raises `WorkerError` where one of them fails; what was compared till then is kept.
    """
    if among is None:
        total = pairs.take_in(store.scan(sketches=False))
        lists = _new(pairs)
    else:
        total, lists = len(among), _chosen(store, pairs, among)
    done = Joined()
    with closing(_compared(store, pairs, lists, limit, workers)) as parts:
        for part in parts:
            done += part
            progress(done.compared, total)
    if done.compared and not pairs.waiting_types():
        pairs.forget_refused()
    return done


def _compared(
    store: Store, pairs: Pairs, lists: Iterator[list[str]], limit: int, workers: int
) -> Generator[Joined, None, None]:
    """What came of comparing each of the lists of content_ids."""
    at_first = list(itertools.islice(lists, LISTS * workers))
    lists = itertools.chain(at_first, lists)
    if workers < 2 or len(at_first) < LISTS * workers or not shareable(pairs.store_uri):
        yield from map(_Comparison(store, pairs, limit), lists)
        return
    pool: WorkerPool[list[str], Joined] = WorkerPool(
        _comparison,
        (pairs.path.parent, pairs.store_uri, limit),
        count=workers,
        timeout_seconds=_SECONDS,
        memory_bytes=_MEMORY,
        sandbox=False,
    )
    with pool:
        for _, part in pool.map(lists):
            if isinstance(part, ContentError):
                raise WorkerError(f"a process that compares has failed: {part}; the next time it goes on from here")
            yield part


def _comparison(home: Path, store_uri: str, limit: int) -> _Comparison:
    """What a process of its own compares with."""
    return _Comparison(open_store(store_uri), Pairs(home, store_uri), limit)


@dataclass(frozen=True)
class _Comparison:
    """Compares some contents, of one content type and named by their content_ids, with everything."""

    store: Store
    pairs: Pairs
    limit: int

    def __call__(self, content_ids: list[str]) -> Joined:
        queries = self.store.get(content_ids)
        verified, found = _compare(self.store, self.pairs, queries, self.limit)
        return Joined(len(queries), verified, found)


def _new(pairs: Pairs) -> Iterator[list[str]]:
    """Everything that is to be compared, in lists of one content type."""
    for name in pairs.waiting_types():
        plugin = content_types().get(name)
        together = min(QUERIES, 2 * plugin.batch_size) if plugin else QUERIES
        last = 0
        while chunk := pairs.waiting(name, last, together):
            last = chunk[-1][0]
            yield [content_id for _, content_id in chunk]


def _chosen(store: Store, pairs: Pairs, content_ids: Sequence[str]) -> Iterator[list[str]]:
    """What is to be compared of these contents, in lists of one content type."""
    for start in range(0, len(content_ids), QUERIES):
        chunk = store.get(content_ids[start : start + QUERIES])
        equal = {content_id for digest in {each.digest for each in chunk} for content_id in store.by_digest(digest)}
        equal -= {each.content.content_id for each in chunk}
        pairs.learn([facts_of(each) for each in [*chunk, *store.get(sorted(equal))]])
        new = set(pairs.to_be_compared([each.content.content_id for each in chunk]))
        by_type: defaultdict[str, list[str]] = defaultdict(list)
        for fingerprint in chunk:
            if fingerprint.content.content_id in new:
                by_type[str(fingerprint.content.content_type)].append(fingerprint.content.content_id)
        yield from by_type.values()


def _compare(store: Store, pairs: Pairs, queries: Sequence[Fingerprint], limit: int) -> tuple[int, int]:
    """Compare these with everything; the numbers of pairs that were verified, and that are new."""
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
            unfinished |= {each.query.content.content_id: each.query for each in searches if not each.next}
            searches = [search for search in searches if search.next]
        asking = list(unfinished.values())
    return verified, pairs.record(queries, found)


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
                    both = (search.query, reference) if search.number < number else (reference, search.query)
                    outcomes[numbered] = pair_of(*both)
    return outcomes


def pair_of(one: Fingerprint, other: Fingerprint) -> Pair | None:
    """The two compared by the content type that can; None where none can or nothing matches.

    one: what became known first: some content types find a little more or less the other way round.
    """
    matches = verify(one, other)
    if not matches:
        return None
    return Pair(facts_of(one), facts_of(other), relation_of(one, other, matches), tuple(matches))


@dataclass
class _Search:
    """A query, and the numbers of the candidates that are compared with it next and perhaps later, likeliest first."""

    query: Fingerprint
    number: int
    next: list[int]
    later: list[int]

    def pairs(self) -> list[tuple[int, int]]:
        """The query's number with that of each of the next candidates, the lower first."""
        return [_ordered(self.number, each) for each in self.next]

    def goes_on(self, outcomes: Mapping[tuple[int, int], bool]) -> bool:
        """Whether, with these outcomes of the next candidates, those that follow are worth a look; they are next."""
        any_found = any(outcomes.get(pair) for pair in self.pairs())
        together = 2 * _patience(self.query)
        self.next, self.later = self.later[:together], self.later[together:]
        return any_found


def _equal(pairs: Pairs, queries: Sequence[Fingerprint], numbers: Mapping[str, tuple[int, int]]) -> Iterator[Pair]:
    """The first of each group of equal bytes with each of the others."""
    equal = [(first, number) for number, first in numbers.values() if first != number]
    equal += pairs.later_equals([number for number, first in numbers.values() if first == number])
    content_ids = pairs.content_ids(list({number for pair in equal for number in pair}))
    facts = pairs.facts(list(content_ids.values())) | {each.content.content_id: facts_of(each) for each in queries}
    for numbered in dict.fromkeys(equal):
        if all(number in content_ids for number in numbered):
            one, other = (facts[content_ids[number]] for number in numbered)
            yield Pair(one, other, "copy", (Match(other.content, 1.0, EXACT, confidence=1.0),))


def _searches(store: Store, pairs: Pairs, queries: Sequence[Fingerprint], limit: int) -> list[_Search]:
    """The candidates of each of the queries, which are of one content type.

    One search for each stretch of a query and each type that its candidates may be of. Of contents with equal bytes
    only the first is a candidate.
    """
    numbers = pairs.numbers([query.content.content_id for query in queries])
    whole, asked = [], []
    for query in queries:
        for stretch in stretches(query):
            whole.append(query)
            asked.append(stretch)
    found = []
    for other_type in comparing(str(queries[0].content.content_type)) if queries else ():
        answers = store.candidates_many(asked, limit, other_type)
        named = list(dict.fromkeys(each.content_id for answer in answers for each in answer))
        known = pairs.numbers(named)
        if unknown := [content_id for content_id in named if content_id not in known]:
            for start in range(0, len(unknown), BLOCK):
                pairs.learn([facts_of(each) for each in store.get(unknown[start : start + BLOCK])])
            known |= pairs.numbers(unknown)
        for query, answer in zip(whole, answers, strict=True):
            number = numbers[query.content.content_id][0]
            likely = outstanding(query, answer, FIRST) if len(answer) == limit else answer
            first, every = (
                [n for n in dict.fromkeys(known[e.content_id][1] for e in some if e.content_id in known) if n != number]
                for some in (likely, answer)
            )
            first = first[: _patience(query)]
            found.append(_Search(query, number, first, [each for each in every if each not in first]))
    return found


def _patience(query: Fingerprint) -> int:
    return content_types()[str(query.content.content_type)].patience


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
