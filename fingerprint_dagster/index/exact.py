"""The store in memory, which compares everything with everything: for small jobs, and the oracle of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from fingerprint_dagster.content import Component, Fingerprint, Sketch
from fingerprint_dagster.index import ranking
from fingerprint_dagster.index.record import from_record, to_record
from fingerprint_dagster.index.store import Candidate


class ExactStore:
    """A `Store` in a dictionary. Not shared between processes, and gone with this one."""

    def __init__(self) -> None:
        self._stored: dict[str, Fingerprint] = {}

    def put(self, fingerprints: Sequence[Fingerprint]) -> None:
        """See `Store.put`."""
        # By way of the record, so that what comes back is the same as from a store on disk.
        self._stored |= {f.content.content_id: from_record(to_record(f)) for f in fingerprints}

    def get(self, content_ids: Sequence[str]) -> list[Fingerprint]:
        """See `Store.get`."""
        return [self._stored[content_id] for content_id in content_ids if content_id in self._stored]

    def keys(self, content_ids: Sequence[str]) -> dict[str, str]:
        """See `Store.keys`."""
        return {fingerprint.content.content_id: fingerprint.key for fingerprint in self.get(content_ids)}

    def delete(self, content_ids: Sequence[str]) -> None:
        """See `Store.delete`."""
        for content_id in content_ids:
            self._stored.pop(content_id, None)

    def count(self) -> dict[str, int]:
        """See `Store.count`."""
        return dict(Counter(fingerprint.content.content_type for fingerprint in self._stored.values()))

    def scan(self, batch_size: int = 1000, *, sketches: bool = True) -> Iterator[list[Fingerprint]]:
        """See `Store.scan`."""
        stored = list(self._stored.values())
        everything = stored if sketches else [replace(each, sketch=Sketch(())) for each in stored]
        for start in range(0, len(everything), batch_size):
            yield everything[start : start + batch_size]

    def candidates(self, query: Fingerprint, limit: int, content_type: str | None = None) -> list[Candidate]:
        """See `Store.candidates`."""
        wanted = content_type or query.content.content_type
        of_type = [f for f in self._stored.values() if f.content.content_type == wanted]
        rankings = {}
        for component in query.sketch.components:
            stored = {
                f.content.content_id: other
                for f in of_type
                if (other := f.component(component.algorithm)) is not None and _comparable(component, other)
            }
            values = ranking.query_values(component)
            if stored and len(values):
                if component.kind == "tokens":
                    values = values[
                        ranking.affordable(np.zeros(len(values), int), self._holders(component, values), len(of_type))
                    ]
                rankings[component.algorithm] = _rank(stored, component.kind, values, len(of_type), limit)
        return ranking.merge(rankings, limit)

    def _holders(self, component: Component, tokens: np.ndarray) -> np.ndarray:
        """How many of all stored contents, of any type, others find by each of the tokens."""
        parts = [f.component(component.algorithm) for f in self._stored.values()]
        held = [p.values[ranking.searchable_rows(p)] for p in parts if p is not None and _comparable(component, p)]
        return np.asarray(np.sum([np.isin(tokens, each) for each in held], axis=0, dtype=np.int64))

    def candidates_many(
        self, queries: Sequence[Fingerprint], limit: int, content_type: str | None = None
    ) -> list[list[Candidate]]:
        """See `Store.candidates_many`."""
        return [self.candidates(query, limit, content_type) for query in queries]

    def by_digest(self, digest: str) -> list[str]:
        """See `Store.by_digest`."""
        return sorted(content_id for content_id, f in self._stored.items() if f.digest == digest)

    def compact(self) -> None:
        """See `Store.compact`."""


def _comparable(one: Component, other: Component) -> bool:
    """Whether rows of the two, of one algorithm, can be compared: of one kind and width."""
    return one.kind == other.kind != "data" and one.values.shape[1:] == other.values.shape[1:]


def _rank(stored: dict[str, Component], kind: str, queries: np.ndarray, contents: int, limit: int) -> ranking.Ranking:
    rows = [component.values[ranking.searchable_rows(component)] for component in stored.values()]
    owners = np.repeat(np.arange(len(rows)), [len(values) for values in rows])
    values = np.concatenate(rows)
    if kind == "tokens":
        asked = np.isin(values, queries)
        return ranking.rank_tokens(np.array(list(stored), dtype=object)[owners[asked]], values[asked], contents, limit)
    near = ranking.nearness(kind, queries.shape[1], ranking.distances(kind, values, queries))
    return ranking.rank_rows(list(stored), owners, near, limit)
