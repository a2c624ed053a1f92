"""The search structure: derived from a store's records, in a folder of its own, brought up to date when it is asked.

A log-structured merge tree. Changes of records become segments (`segment`), immutable files that are mapped, not
read; several of about one size are merged into a larger one. A content that was replaced or deleted is marked dead in
the segment that holds its old rows, until a merge drops it. The last changes, up to FRESH, are kept in memory only. So
a look-up reads what it touches, memory stays small whatever the collection's size, and a change costs its own size
times the logarithm of the collection's.

`manifest.json` names the segments and the change up to which they are complete; it is replaced in one step, so a
process that is killed leaves the old state. Everything here can be deleted at any time: it is made again.
"""

from __future__ import annotations

import json
import mmap
import os
import secrets
import shutil
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from filelock import FileLock

from fingerprint_dagster.content import Fingerprint
from fingerprint_dagster.durable import Immutable, write_durably
from fingerprint_dagster.index import ranking
from fingerprint_dagster.index.record import found_by
from fingerprint_dagster.index.segment import (
    Hits,
    Key,
    Rows,
    Segment,
    contents_arrays,
    digest_keys,
    entries,
    index_rows,
    joined,
    merge_segments,
    open_segment,
    write_segment,
)
from fingerprint_dagster.index.store import Candidate

# Changes kept in memory; more are written as a segment.
FRESH = 1000
# A new segment has at most this many contents, and about this many bytes of rows.
SEGMENT_CONTENTS = 50_000
SEGMENT_BYTES = 256 << 20
# So many segments of one size (within a factor of as many) are merged, up to a size whose merging takes some minutes.
FAN = 4
LARGEST = 1 << 20
# When look-ups have mapped so many bytes more, they are given back: to the system they count as this process's memory.
RESIDENT_BYTES = 1 << 30
# Queries looked up together, in one thread.
QUERIES = 256
FORMAT = 2


class Change(NamedTuple):
    """The last change of one content.

    payload: the sketch as `record` writes it; None: it was deleted. place: a number by which the store finds the record
    faster than by the content_id; -1 where it has none.
    """

    content_id: str
    seq: int
    content_type: str
    digest: str
    payload: bytes | None
    place: int = -1


class Records(Protocol):
    """What the structure is derived from. Every change has a number, greater than that of any made before it."""

    def identity(self) -> str:
        """A text that no other collection has, and this one has for ever; "" while nothing was ever put."""

    def latest(self) -> int:
        """A number that grows with every change. Must be quick: it is asked for at each look-up."""

    def changes(self, after: int) -> Iterator[list[Change]]:
        """For every content whose last change has a number above `after`, that change; in lists of some hundred.

        A Change of content_id "" says: deletions up to its number have been forgotten.
        """


@dataclass(frozen=True)
class _State:
    """What is known: nothing in it is changed, so that threads look up while another brings it up to date."""

    seq: int = -1
    segments: tuple[Segment, ...] = ()
    dead: tuple[np.ndarray, ...] = ()
    fresh: Mapping[str, Change] = field(default_factory=dict)

    @cached_property
    def first(self) -> np.ndarray:
        """Int64 [segments + 1]: the number of the first content of each."""
        return np.cumsum([0, *map(len, self.segments)])

    @cached_property
    def _alive(self) -> dict[str, list[np.ndarray]]:
        return {}

    def alive(self, content_type: str) -> list[np.ndarray]:
        """For each segment, bool [contents]: those of the type that are stored."""
        if content_type not in self._alive:
            self._alive[content_type] = [
                segment.of_type(content_type) & ~dead for segment, dead in zip(self.segments, self.dead, strict=True)
            ]
        return self._alive[content_type]

    @cached_property
    def _counts(self) -> dict[str, int]:
        return {}

    def count(self, content_type: str) -> int:
        """How many contents of the type are stored."""
        if content_type not in self._counts:
            self._counts[content_type] = sum(int(live.sum()) for live in self.alive(content_type))
        return self._counts[content_type]

    @cached_property
    def _whole(self) -> dict[str, list[bool]]:
        return {}

    def whole(self, content_type: str) -> list[bool]:
        """For each segment, whether all its contents are of the type and stored."""
        if content_type not in self._whole:
            self._whole[content_type] = [bool(live.all()) for live in self.alive(content_type)]
        return self._whole[content_type]

    def ids(self, numbers: np.ndarray) -> list[str]:
        """The content_ids of contents, by their numbers in all segments."""
        at = np.searchsorted(self.first, numbers, side="right") - 1
        names = np.empty(len(numbers), object)
        for number in np.unique(at):
            chosen = at == number
            names[chosen] = self.segments[number].ids(numbers[chosen] - self.first[number])
        return names.tolist()


class SearchIndex:
    """The structure over `records`, in `folder`, which all processes of a machine may share. Safe between threads."""

    def __init__(self, records: Records, folder: Path) -> None:
        self._records = records
        self.folder = folder
        self._files = Immutable(folder)
        self._lock = threading.Lock()
        self._latest: int | None = None
        self._mapped = 0
        self._base = _State()
        self._state = _State()

    def candidates_many(
        self, queries: Sequence[Fingerprint], limit: int, content_type: str | None
    ) -> list[list[Candidate]]:
        """See `Store.candidates_many`."""
        state = self.refresh()
        self._mapped = self._mapped or _mapped_bytes()
        answers: list[list[Candidate]] = [[] for _ in queries]
        by_type = defaultdict(list)
        for number, query in enumerate(queries):
            by_type[str(content_type or query.content.content_type)].append(number)
        for wanted, numbers in by_type.items():
            state.count(wanted)  # once, not in every thread
            parts = [numbers[start : start + QUERIES] for start in range(0, len(numbers), QUERIES)]

            def look_up(part: list[int], wanted: str = wanted) -> list[list[Candidate]]:
                return _candidates(state, [queries[n] for n in part], limit, wanted)

            # Most of the time is spent in numpy, which lets other threads run.
            with ThreadPoolExecutor(max(1, min(len(parts), _cores()))) as threads:
                for part, found in zip(
                    parts, threads.map(look_up, parts) if parts[1:] else map(look_up, parts), strict=True
                ):
                    for number, answer in zip(part, found, strict=True):
                        answers[number] = answer
        self._release(state)
        return answers

    def _release(self, state: _State) -> None:
        """Keep the memory of mapped files bounded."""
        if _mapped_bytes() - self._mapped > RESIDENT_BYTES:
            for segment in state.segments:
                segment.release()

    def may_have_digest(self, digest: str) -> bool:
        """Whether anything stored may have this digest: never False where something has."""
        return any(len(segment.with_digest(digest)) for segment in self.refresh().segments)

    def places(self, content_ids: Sequence[str]) -> list[int]:
        """Where the records of these contents were when they were last looked at: see `Change`. Costs next to nothing.

        What has not been looked at yet is left out, and what a place names may have changed since.
        """
        found = [segment.arrays["place"][segment.find(content_ids)] for segment in self._state.segments]
        return [place for some in found for place in some.tolist() if place >= 0]

    def refresh(self) -> _State:
        """Bring it up to date with the records."""
        with self._lock:
            latest = self._records.latest()
            if latest != self._latest:
                self._catch_up()
                self._latest = latest
            return self._state

    def rebuild(self) -> None:
        """Make it anew from the records: see `Store.compact`."""
        with self._lock:
            self._latest = self._records.latest()
            self._write(anew=True)

    def _catch_up(self) -> None:
        if self._latest is None:
            self._base = self._state = self._load() or _State()
        fresh = dict(self._state.fresh)
        seq = self._state.seq
        for changes in self._records.changes(seq):
            fresh |= {change.content_id: change for change in changes}
            if len(fresh) > FRESH or _forgotten(changes, seq):
                # Another process may have done it meanwhile; then little is left to do.
                return self._write()
        self._state = _with_fresh(self._base, fresh)
        return None

    def _write(self, *, anew: bool = False) -> None:
        """Write all changes as segments, merge, and replace the manifest."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "lock"):
            state = (None if anew else self._load()) or _State()
            written = self._written(state) or self._written(_State())
            assert written is not None
            self._save(written)
            self._base = self._state = written

    def _written(self, state: _State) -> _State | None:
        """`state` with all changes since, in files; None where some were forgotten, so that it must be made anew."""
        segments, dead = list(state.segments), list(state.dead)
        seq = state.seq
        for batch in _batches(self._records.changes(state.seq)):
            if _forgotten(batch, state.seq):
                return None
            seq = max(seq, *(change.seq for change in batch))
            _bury(segments, dead, [change.content_id for change in batch])
            made = _segment([change for change in batch if change.payload is not None])
            if len(made):
                segments.append(write_segment(made, self.folder / secrets.token_hex(8)))
                dead.append(np.zeros(len(made), bool))
        segments, dead = self._merged(segments, dead)
        return _State(seq, tuple(segments), tuple(dead))

    def _merged(self, segments: list[Segment], dead: list[np.ndarray]) -> tuple[list[Segment], list[np.ndarray]]:
        """The segments after all merges that are due."""
        while due := _due(dead):
            alive = [~dead[number] for number in due]
            keep = [number for number in range(len(segments)) if number not in due]
            merged = []
            if any(each.any() for each in alive):
                merged = [merge_segments([segments[n] for n in due], alive, self.folder / secrets.token_hex(8))]
            segments = [segments[n] for n in keep] + merged
            dead = [dead[n] for n in keep] + [np.zeros(len(each), bool) for each in merged]
        return segments, dead

    def _load(self) -> _State | None:
        """What the manifest names; None where there is none of these records."""
        for _ in range(5):
            try:
                manifest = json.loads((self.folder / "manifest.json").read_text())
            except (FileNotFoundError, json.JSONDecodeError):
                return None
            if (manifest["format"], manifest["identity"]) != (FORMAT, self._records.identity()):
                return None
            try:
                segments = tuple(open_segment(self.folder / name) for name, _ in manifest["segments"])
                dead = []
                for segment, (_, file) in zip(segments, manifest["segments"], strict=True):
                    packed = np.fromfile(self.folder / file, np.uint8)
                    dead.append(np.unpackbits(packed, count=len(segment)).astype(bool))
                return _State(manifest["seq"], segments, tuple(dead))
            except FileNotFoundError:
                continue  # Replaced between reading the manifest and opening what it names.
            except (ValueError, KeyError):
                return None  # Damaged.
        return None

    def _save(self, state: _State) -> None:
        named = []
        for segment, dead in zip(state.segments, state.dead, strict=True):
            file = f"{segment.name}-{secrets.token_hex(4)}.dead"
            np.packbits(dead).tofile(self.folder / file)
            named.append((segment.name, file))
        manifest = {"format": FORMAT, "identity": self._records.identity(), "seq": state.seq, "segments": named}
        self._files.sync()  # Or a power cut could leave the manifest without what it names.
        write_durably(self.folder / "manifest.json", json.dumps(manifest))
        wanted = {"manifest.json", "lock", *(name for pair in named for name in pair)}
        for path in self.folder.iterdir():
            if path.name not in wanted:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _mapped_bytes() -> int:
    """The bytes of mapped files that are in this process's memory; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[2]) * mmap.PAGESIZE
    except OSError:
        return 0


def _cores() -> int:
    """The processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _due(dead: Sequence[np.ndarray]) -> list[int]:
    """The numbers of the segments to merge next: FAN or more of one size, or those of which most is dead."""
    sizes: dict[int, list[int]] = defaultdict(list)
    for number, gone in enumerate(dead):
        left = len(gone) - int(gone.sum())
        if 2 * left < len(gone):
            return [number]
        if FAN * left <= LARGEST:
            sizes[int(np.log(left) / np.log(FAN))].append(number)
    together = next((numbers for numbers in sizes.values() if len(numbers) >= FAN), [])
    total = np.cumsum([len(dead[number]) for number in together])
    return together[: max(FAN, int((total <= LARGEST).sum()))]


def _forgotten(changes: Sequence[Change], after: int) -> bool:
    """Whether deletions after the change `after` have been forgotten."""
    return any(change.content_id == "" and change.seq > after >= 0 for change in changes)


def _with_fresh(base: _State, fresh: Mapping[str, Change]) -> _State:
    """`base` with the changes that are in memory only."""
    if not fresh:
        return base
    segments, dead = list(base.segments), list(base.dead)
    _bury(segments, dead, list(fresh))
    made = _segment([change for change in fresh.values() if change.payload is not None])
    if len(made):
        segments.append(made)
        dead.append(np.zeros(len(made), bool))
    seq = max(base.seq, *(change.seq for change in fresh.values()))
    return _State(seq, tuple(segments), tuple(dead), fresh)


def _bury(segments: Sequence[Segment], dead: list[np.ndarray], content_ids: Sequence[str]) -> None:
    """Mark the old rows of contents that have changed."""
    for number, segment in enumerate(segments):
        gone = segment.find(content_ids)
        if len(gone):
            dead[number] = dead[number].copy()
            dead[number][gone] = True


def _batches(changes: Iterable[list[Change]]) -> Iterator[list[Change]]:
    """The same in lists that make a segment each."""
    batch: list[Change] = []
    size = 0
    for some in changes:
        batch += some
        size += sum(len(change.payload or b"") for change in some)
        if len(batch) >= SEGMENT_CONTENTS or size >= SEGMENT_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _segment(changes: Sequence[Change]) -> Segment:
    """A segment in memory."""
    types = sorted({change.content_type for change in changes})
    parts: defaultdict[Key, list[tuple[int, np.ndarray]]] = defaultdict(list)
    for number, change in enumerate(changes):
        assert change.payload is not None
        try:
            found = list(found_by(change.payload))
        except (KeyError, ValueError) as error:
            raise ValueError(f"the stored record of {change.content_id!r} is damaged: {error}; delete it") from error
        for kind, algorithm, values in found:
            parts[Key(kind, algorithm, 0 if kind == "tokens" else values.shape[1])].append((number, values))
    components = {}
    for key, part in parts.items():
        numbers = np.array([number for number, _ in part], np.uint32)
        owners = np.repeat(numbers, [len(values) for _, values in part])
        components[key] = index_rows(key.kind, Rows(np.concatenate([values for _, values in part]), owners))
    contents = contents_arrays(
        [change.content_id for change in changes],
        np.array([types.index(change.content_type) for change in changes], np.uint8),
        digest_keys([change.digest for change in changes]),
        np.array([change.place for change in changes], np.int64),
    )
    return Segment(types, components, contents)


class _Best(NamedTuple):
    """The best contents for the queries, in one component: query, number of the content, score, what is told. [n]."""

    query: np.ndarray
    number: np.ndarray
    score: np.ndarray
    told: np.ndarray


def _candidates(state: _State, queries: Sequence[Fingerprint], limit: int, content_type: str) -> list[list[Candidate]]:
    if not state.count(content_type):
        return [[] for _ in queries]
    alive = state.alive(content_type)
    asked: defaultdict[Key, list[tuple[int, np.ndarray]]] = defaultdict(list)
    for number, query in enumerate(queries):
        for component in query.sketch.components:
            values = ranking.query_values(component) if component.kind != "data" else component.values[:0]
            if len(values):
                width = 0 if component.kind == "tokens" else values.shape[1]
                asked[Key(component.kind, component.algorithm, width)].append((number, values))
    rankings: list[dict[str, ranking.Ranking]] = [{} for _ in queries]
    for key, parts in asked.items():
        owner = np.repeat([number for number, _ in parts], [len(values) for _, values in parts])
        values = np.concatenate([values for _, values in parts])
        if key.kind == "tokens":
            best = _by_tokens(state, alive, content_type, key, owner, values, limit)
        else:
            best = _by_rows(state, alive, key, owner, values)
        for asking, found in _best_of_each(state, best, limit):
            rankings[asking][key.algorithm] = found
    return [ranking.merge(each, limit) for each in rankings]


def _by_rows(state: _State, alive: list[np.ndarray], key: Key, owner: np.ndarray, values: np.ndarray) -> _Best:
    """See `ranking.rank_rows`: the sum, over a query's rows, of the cube of the nearness of the nearest stored row."""
    found = []
    for segment, live, first in zip(state.segments, alive, state.first, strict=False):
        hits = segment.near(key, values)
        kept = live[hits.owner]
        found.append(Hits(hits.query[kept], hits.owner[kept] + first, hits.near[kept]))
    query, number, near = joined(found)
    # The nearest row of each content to each row of the queries, then the sum of each content for each query.
    order = np.lexsort((near, number, query))
    query, number, near = query[order], number[order], near[order].astype(np.float64)
    last = np.flatnonzero(_ends(query, number))
    query, number, near = owner[query[last]], number[last], near[last]
    order = np.lexsort((number, query))
    query, number, near = query[order], number[order], near[order]
    start = np.flatnonzero(_ends(query[::-1], number[::-1])[::-1])
    if not len(start):
        return _Best(query, number, near, near)
    score = np.round(np.add.reduceat(near**3, start), 9)
    return _Best(query[start], number[start], score, np.maximum.reduceat(near, start))


def _ends(*keys: np.ndarray) -> np.ndarray:
    """Bool [n]: whether the next entry of sorted keys is another one."""
    different = np.ones(len(keys[0]), bool)
    different[:-1] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    return different


def _by_tokens(
    state: _State,
    alive: list[np.ndarray],
    content_type: str,
    key: Key,
    owner: np.ndarray,
    values: np.ndarray,
    limit: int,
) -> _Best:
    """See `ranking.rank_tokens`: the bits of surprise at the tokens shared."""
    contents = state.count(content_type)
    ranges = [segment.holders(key, values) for segment in state.segments]
    held = np.zeros(len(values), np.int64)
    for first, last in ranges:
        held += last - first
    asked = ranking.affordable(owner, held, contents)
    found = []
    for tokens in np.split(asked, np.flatnonzero(np.diff(owner[asked])) + 1) if len(asked) else ():
        shared, counts = [], []
        for segment, live, whole, base, (first, last) in zip(
            state.segments, alive, state.whole(content_type), state.first, ranges, strict=False
        ):
            if key in segment.components:
                content = entries(segment.components[key]["owners"], first[tokens], last[tokens])
                count = last[tokens] - first[tokens]
                if not whole:
                    kept = live[content]
                    token = np.repeat(np.arange(len(tokens)), count)
                    content, count = content[kept], np.bincount(token[kept], minlength=len(tokens))
                shared.append(content.astype(np.int64) + base)
                counts.append(count)
        holders = np.maximum(np.sum(counts, axis=0), 1)
        surprise = ranking.surprise(contents, holders)
        content = np.concatenate(shared)
        bits = np.concatenate([np.repeat(surprise, count) for count in counts])
        number, score = _greatest_sums(content, bits, limit)
        query = np.full(len(number), owner[tokens[0]])
        found.append(_Best(query, number, score, score))
    if not found:
        return _Best(owner[:0], owner[:0], np.empty(0), np.empty(0))
    return _Best(*(np.concatenate(part) for part in zip(*found, strict=True)))


def _greatest_sums(content: np.ndarray, bits: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """The contents with the `limit` greatest sums of bits, with all that tie with the last, and perhaps others."""
    if len(content) > 16 * limit:
        # Most share one token, and are not among the best. So only those are summed up that are met again (or whose
        # numbers end like another's), which needs no sorting.
        slots = 1 << (len(content).bit_length() + 3)
        slot = content & (slots - 1)
        again = np.flatnonzero(np.bincount(slot, minlength=slots)[slot] > 1)
        number, sums = _sums(content[again], bits[again])
        if len(sums) >= limit and np.partition(sums, -limit)[-limit] > bits.max():
            return number, sums
    return _sums(content, bits)


def _sums(content: np.ndarray, bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Contents, and the sum of the bits of each."""
    order = np.argsort(content, kind="stable")
    content = content[order]
    first = np.flatnonzero(np.diff(content, prepend=-1))
    return content[first], np.round(np.add.reduceat(bits[order], first), 9)


def _best_of_each(state: _State, best: _Best, limit: int) -> Iterator[tuple[int, ranking.Ranking]]:
    """For each query that found something, its number and its ranking."""
    borders = np.flatnonzero(np.diff(best.query, prepend=-1, append=-1))
    chosen = []
    for first, last in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
        score = best.score[first:last]
        if last - first > limit:  # with all that tie with the last one: the order among them is by content_id
            kept = np.flatnonzero(score >= np.partition(score, -limit)[-limit])
            chosen.append(kept + first)
        else:
            chosen.append(np.arange(first, last))
    if not chosen:
        return
    numbers, inverse = np.unique(best.number[np.concatenate(chosen)], return_inverse=True)
    ids = state.ids(numbers)
    at = 0
    for each in chosen:
        names = [ids[n] for n in inverse[at : at + len(each)]]
        scored = zip(best.score[each].tolist(), names, best.told[each].tolist(), strict=True)
        at += len(each)
        yield int(best.query[each[0]]), ranking.best_first(scored, limit)


class Searched:
    """What every store has that keeps records and leaves the looking up to a `SearchIndex`."""

    search: SearchIndex

    def candidates(self, query: Fingerprint, limit: int, content_type: str | None = None) -> list[Candidate]:
        """See `Store.candidates`."""
        return self.search.candidates_many([query], limit, content_type)[0]

    def candidates_many(
        self, queries: Sequence[Fingerprint], limit: int, content_type: str | None = None
    ) -> list[list[Candidate]]:
        """See `Store.candidates_many`."""
        return self.search.candidates_many(queries, limit, content_type)
