"""The question everything else is for: what is this a copy of, where, and how sure."""

from __future__ import annotations

from fingerprint_dagster.content import Fingerprint, Match
from fingerprint_dagster.index.store import Store
from fingerprint_dagster.media.plugin import ContentTypePlugin

# Candidates verified for each reference asked for, and the least number: the ranking of candidates is rough.
CANDIDATES_PER_RESULT = 4
CANDIDATES = 100


def find_copies(
    store: Store, plugin: ContentTypePlugin, query: Fingerprint, top: int, *, include_self: bool = False
) -> list[Match]:
    """The matches with the `top` references in `store` that the query copies most, best reference first.

    References with the same bytes come first (score 1, evidence "sha256", no ranges), then those that `plugin.match`
    verified, by their best score, ties by content_id; mere suggestions (`details["suggestion"]`) last. A reference of
    which several parts match has several matches, best first, one after the other.
    include_self: also match the query with itself where it is stored.
    """
    copies = store.get(store.by_digest(query.digest)[: top + 1])
    copies = [copy for copy in copies if include_self or not _same(query, copy)]
    found = [[Match(copy.content, 1.0, "sha256", confidence=1.0)] for copy in copies[:top]]
    if len(found) == top:
        return [match for matches in found for match in matches]
    exact = {copy.content.content_id for copy in copies}
    candidates = store.candidates(query, max(CANDIDATES, CANDIDATES_PER_RESULT * top))
    similar = []
    for reference in store.get([content_id for content_id in candidates if content_id not in exact]):
        if include_self or not _same(query, reference):
            matches = plugin.match(query, reference)
            if matches:
                similar.append(matches)
    similar.sort(key=lambda matches: _rank(matches[0]))
    return [match for matches in (found + similar)[:top] for match in matches]


def _rank(match: Match) -> tuple[bool, float, str]:
    """What matches are sorted by: copies before suggestions, better before worse."""
    return bool(match.details.get("suggestion")), -match.score, match.reference.content_id


def _same(query: Fingerprint, stored: Fingerprint) -> bool:
    """Whether `stored` is the query itself: from the same address, whatever its id, or its id and its bytes."""
    one, other = query.content, stored.content
    return one.uri == other.uri or (one.content_id == other.content_id and query.digest == stored.digest)
