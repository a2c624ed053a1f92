"""The store in memory, which compares everything with everything: for small jobs, and the oracle of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from fingerprint_dagster.content import Component, Fingerprint
from fingerprint_dagster.index import ranking
from fingerprint_dagster.index.record import from_record, to_record


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

    def scan(self, batch_size: int = 1000) -> Iterator[list[Fingerprint]]:
        """See `Store.scan`."""
        everything = list(self._stored.values())
        for start in range(0, len(everything), batch_size):
            yield everything[start : start + batch_size]

    def candidates(self, query: Fingerprint, limit: int) -> list[str]:
        """See `Store.candidates`."""
        same_type = [f for f in self._stored.values() if f.content.content_type == query.content.content_type]
        rankings = []
        for component in query.sketch.components:
            stored = {
                f.content.content_id: other
                for f in same_type
                if (other := f.component(component.algorithm)) is not None and other.kind == component.kind != "data"
            }
            values = ranking.query_values(component)
            if stored and len(values):
                rankings.append(_rank(stored, component.kind, values, limit))
        return ranking.merge(rankings, limit)

    def by_digest(self, digest: str) -> list[str]:
        """See `Store.by_digest`."""
        return sorted(content_id for content_id, f in self._stored.items() if f.digest == digest)

    def compact(self) -> None:
        """See `Store.compact`."""


def _rank(stored: dict[str, Component], kind: str, queries: np.ndarray, limit: int) -> list[str]:
    rows = [component.values[ranking.searchable_rows(component)] for component in stored.values()]
    owners = np.repeat(np.arange(len(rows)), [len(values) for values in rows])
    values = np.concatenate(rows)
    if kind == "tokens":
        asked = np.isin(values, queries)
        return ranking.rank_tokens(np.array(list(stored), dtype=object)[owners[asked]], values[asked], limit)
    near = ranking.nearness(kind, queries.shape[1], ranking.distances(kind, values, queries))
    return ranking.rank_rows(list(stored), owners, near, limit)
