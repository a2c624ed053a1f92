from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fingerprint_dagster.content import Component, Content, Fingerprint, Match, Sketch, Value
from fingerprint_dagster.index.exact import ExactStore
from fingerprint_dagster.media.plugin import ContentTypePlugin
from fingerprint_dagster.search import find_copies


class Rows(ContentTypePlugin):
    """Every row of the query that is near a row of the reference is a match; the score falls with the distance."""

    name = "rows"
    extensions = frozenset({".rows"})
    batch_size = 1
    versions = {"decode": "1", "embed": "1", "hash": "1"}  # noqa: RUF012 - the interface says ClassVar

    def __init__(self) -> None:
        self.asked: list[str] = []

    def sniff(self, head: bytes) -> str | None:
        raise AssertionError("not for search")

    def decode(self, path: Path) -> Value:
        raise AssertionError("not for search")

    def hash(self, decoded: Value, embedded: Value) -> Sketch:
        raise AssertionError("not for search")

    def match(self, query: Fingerprint, reference: Fingerprint) -> list[Match]:
        self.asked.append(reference.content.content_id)
        found = []
        for q, one in enumerate(query.sketch.components[0].values):
            for r, other in enumerate(reference.sketch.components[0].values):
                distance = int(np.bitwise_count(one ^ other).sum())
                if distance <= 8:
                    score = 1 - distance / 64
                    found.append(Match(reference.content, score, "bits_v1", (q, q + 1), (r, r + 1)))
        return sorted(found, key=lambda match: -match.score)


def of(content_id: str, rows: Sequence[int], digest: str | None = None, uri: str | None = None) -> Fingerprint:
    values = np.array(rows, np.uint64)[:, None].view(np.uint8)
    content = Content(content_id, uri or f"file:///{content_id}", "rows")
    return Fingerprint(
        content, digest or f"sha {content_id}", 8, "x/y", "k", Sketch((Component("b_v1", "hamming", values),))
    )


def names(matches: list[Match]) -> list[str]:
    return [match.reference.content_id for match in matches]


@pytest.fixture
def plugin() -> Rows:
    return Rows()


@pytest.fixture
def store() -> ExactStore:
    return ExactStore()


FAR = 0x5A5A5A5A5A5A5A5A


def test_exact_copies_come_first_without_verification(store: ExactStore, plugin: Rows) -> None:
    store.put([of("a like", [0]), of("b same", [0], "bytes"), of("c same", [0], "bytes"), of("far", [FAR])])
    matches = find_copies(store, plugin, of("q", [0], "bytes"), 10)
    assert names(matches) == ["b same", "c same", "a like"]
    assert matches[0] == Match(store.get(["b same"])[0].content, 1.0, "sha256", confidence=1.0)
    assert plugin.asked == ["a like"]


def test_verified_matches_are_sorted_by_score_then_id(store: ExactStore, plugin: Rows) -> None:
    store.put([of("d", [0b111]), of("c", [0b1]), of("b", [0b10]), of("a", [0xFFF])])
    matches = find_copies(store, plugin, of("q", [0]), 10)
    assert [(match.reference.content_id, match.score) for match in matches] == [
        ("b", 1 - 1 / 64),
        ("c", 1 - 1 / 64),
        ("d", 1 - 3 / 64),
    ]
    assert "a" in plugin.asked  # a candidate that verification refused


def test_top_counts_references_whose_parts_stay_together(store: ExactStore, plugin: Rows) -> None:
    store.put([of("film", [0b1, FAR]), of("clip", [0b11]), of("last", [0b111])])
    matches = find_copies(store, plugin, of("q", [0, FAR]), 2)
    assert names(matches) == ["film", "film", "clip"]
    assert [match.query_range for match in matches] == [(1, 2), (0, 1), (0, 1)]


def test_top_limits_exact_copies_too(store: ExactStore, plugin: Rows) -> None:
    store.put([of(f"{n}", [0], "bytes") for n in range(5)])
    assert names(find_copies(store, plugin, of("0", [0], "bytes"), 3)) == ["1", "2", "3"]
    assert plugin.asked == []


@pytest.mark.parametrize(("digest", "uri"), [("bytes", "file:///moved"), ("changed", "file:///me")])
def test_the_query_itself_is_no_match(store: ExactStore, plugin: Rows, digest: str, uri: str) -> None:
    store.put([of("me", [0], "bytes"), of("other", [0b1])])
    query = of("me", [0], digest, uri)
    assert names(find_copies(store, plugin, query, 10)) == ["other"]
    assert names(find_copies(store, plugin, query, 10, include_self=True)) == ["me", "other"]


def test_the_query_registered_under_an_id_of_its_own_is_no_match(store: ExactStore, plugin: Rows) -> None:
    store.put([of("an id from a list", [0], "bytes", "file:///me"), of("other", [0])])
    query = of("derived from the uri", [0], "bytes", "file:///me")
    assert names(find_copies(store, plugin, query, 10)) == ["other"]


def test_another_content_under_the_same_id_is_a_match(store: ExactStore, plugin: Rows) -> None:
    store.put([of("me", [0b1], "bytes")])
    assert names(find_copies(store, plugin, of("me", [0], "changed", "file:///elsewhere"), 10)) == ["me"]


def test_nothing_stored_nothing_found(store: ExactStore, plugin: Rows) -> None:
    assert find_copies(store, plugin, of("q", [0]), 10) == []


def test_more_results_than_the_usual_candidates(store: ExactStore, plugin: Rows) -> None:
    store.put([of(f"{n:03}", [n]) for n in range(256)])
    assert len(find_copies(store, plugin, of("q", [0]), 150)) == 150
