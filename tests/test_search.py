from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerprint_dagster.calibration import Calibration, Noise
from fingerprint_dagster.content import Component, Content, Fingerprint, Match, Sketch, Value
from fingerprint_dagster.duplicates.decisions import Decision, Decisions
from fingerprint_dagster.index.exact import ExactStore
from fingerprint_dagster.index.ranking import MAX_QUERY_ROWS, THINNED, stretches
from fingerprint_dagster.media.plugin import ContentTypePlugin
from fingerprint_dagster.search import UNSURE, comparable, find_copies


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
                if distance <= 5:
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
    store.put([of("d", [0b111]), of("c", [0b1]), of("b", [0b10]), of("a", [0b111111])])
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


# ---- looking no further


def test_after_many_refused_the_rest_is_not_looked_at(store: ExactStore, plugin: Rows) -> None:
    store.put([of(f"far {n:02}", [0b111111 << n]) for n in range(40)])  # six bits: near enough to be candidates
    assert find_copies(store, plugin, of("q", [0]), 10, patience=7) == []
    assert len(plugin.asked) == 7
    plugin.asked.clear()
    assert find_copies(store, plugin, of("q", [0]), 10, patience=100) == []
    assert len(plugin.asked) == 40


def test_a_copy_that_is_found_renews_the_patience(store: ExactStore, plugin: Rows) -> None:
    store.put([of(f"copy {n}", [0b1 << n]) for n in range(20)])
    assert len(find_copies(store, plugin, of("q", [0]), 20, patience=1)) == 20


# ---- how sure


BITS = Noise(("rows",), "bits_v1", 100, 1_000_000, 0, tuple(1 - n / 6400 for n in range(200, 500)))
"""Scores of unrelated rows: those with two bits or more differing, the rarer the fewer."""


def test_confidence_is_by_the_calibration_given(store: ExactStore, plugin: Rows) -> None:
    store.put([of("b", [0b1]), of("c", [0b11111])])
    calibration = Calibration((BITS,))
    assert [match.confidence for match in find_copies(store, plugin, of("q", [0]), 10)] == [None, None]
    near, far = find_copies(store, plugin, of("q", [0]), 10, calibration=calibration)
    assert near.confidence == pytest.approx(1 / (1 + 10_000 * BITS.rate(1 - 1 / 64)))
    assert near.confidence > 0.9
    assert far.confidence == pytest.approx(1 / (1 + 10_000 * BITS.rate(1 - 5 / 64)))
    assert far.confidence < 0.5


def test_the_surer_match_ranks_before_the_more_similar_one(store: ExactStore, plugin: Rows) -> None:
    class Fewer(Rows):
        def match(self, query: Fingerprint, reference: Fingerprint) -> list[Match]:
            found = super().match(query, reference)
            return [replace(match, confidence=0.3 if match.score > 0.97 else 0.9) for match in found]

    store.put([of("alike", [0b1]), of("sure", [0b111])])
    assert names(find_copies(store, Fewer(), of("q", [0]), 10)) == ["sure", "alike"]


@pytest.mark.parametrize(("rate", "found"), [(None, "bcd"), (1e-2, "bcd"), (2e-4, "bc"), (1e-9, "")])
def test_what_too_many_unrelated_pairs_reach_is_left_out(
    store: ExactStore, plugin: Rows, rate: float | None, found: str
) -> None:
    store.put([of("b", [0b1]), of("c", [0b111]), of("d", [0b11111])])
    calibration = Calibration((BITS,))
    matches = find_copies(store, plugin, of("q", [0]), 10, calibration=calibration, false_positives=rate)
    assert "".join(names(matches)) == found


def test_evidence_nobody_has_measured_is_left_out_where_a_rate_is_asked(store: ExactStore, plugin: Rows) -> None:
    store.put([of("b", [0b1]), of("same", [0], "bytes")])
    matches = find_copies(store, plugin, of("q", [0], "bytes"), 10, false_positives=0.1)
    assert names(matches) == ["same"]


def low(fingerprint: Fingerprint) -> Fingerprint:
    """The fingerprint, of content that is flat, silent or nearly empty."""
    return replace(fingerprint, sketch=replace(fingerprint.sketch, info={"low_information": True}))


@pytest.mark.parametrize("side", ["query", "reference"])
@pytest.mark.parametrize("digest", ["bytes", "other bytes"])
def test_content_of_low_information_is_found_but_never_with_confidence(
    store: ExactStore, plugin: Rows, side: str, digest: str
) -> None:
    query, reference = of("q", [0], "bytes"), of("r", [0], digest)
    store.put([low(reference) if side == "reference" else reference])
    asked = low(query) if side == "query" else query
    (match,) = find_copies(store, plugin, asked, 10, calibration=Calibration((BITS,)))
    assert match.score == 1
    assert match.confidence is not None
    assert match.confidence <= UNSURE
    assert match.details["low_information"] is True


def test_a_suggestion_is_never_sure_and_comes_last(store: ExactStore) -> None:
    class Suggesting(Rows):
        def match(self, query: Fingerprint, reference: Fingerprint) -> list[Match]:
            found = super().match(query, reference)
            return [replace(match, details={"suggestion": match.score == 1}, confidence=0.9) for match in found]

    store.put([of("a suggestion", [0]), of("copy", [0b1])])
    copy, suggestion = find_copies(store, Suggesting(), of("q", [0]), 10)
    assert copy.reference.content_id == "copy"
    assert (copy.confidence, suggestion.confidence) == (0.9, UNSURE)


# ---- what people decided


def test_pairs_that_are_different_are_dropped_and_those_that_are_the_same_confirmed(
    store: ExactStore, plugin: Rows, tmp_path: Path
) -> None:
    query, twin, other, undecided = of("q", [0]), of("b", [0b11111]), of("c", [0]), of("d", [0b1])
    equal = of("equal", [0], query.digest)
    store.put([twin, other, undecided, equal])
    decisions = Decisions(tmp_path)
    decisions.record(
        [
            Decision.of("same", twin, query),
            Decision.of("different", query, other),
            Decision.of("different", query, equal),
        ]
    )
    confirmed, undecided_match = find_copies(
        store, plugin, query, 10, calibration=Calibration((BITS,)), decisions=decisions, false_positives=2e-4
    )
    assert names([confirmed, undecided_match]) == ["b", "d"]
    assert (confirmed.confidence, confirmed.details) == (1.0, {"decision": "same"})
    assert undecided_match.details == {}


# ---- many candidates


def test_of_many_candidates_those_that_do_not_stand_out_are_mostly_left_alone(store: ExactStore, plugin: Rows) -> None:
    """Six bits of 64 are near, but not so near as not to be there by chance."""
    store.put([of(f"chance {n:02}", [0b111111 << n]) for n in range(30)])
    assert find_copies(store, plugin, of("q", [0]), 10) == []
    assert len(plugin.asked) == plugin.patience
    plugin.asked.clear()
    plugin.looked_at = 1  # type: ignore[misc]
    assert find_copies(store, plugin, of("q", [0]), 10) == []
    assert plugin.asked == ["chance 00"]
    plugin.asked.clear()
    store.put([of("copy", [0b1]), of("other copy", [0b11111])])
    assert names(find_copies(store, plugin, of("q", [0]), 10)) == ["copy", "other copy"]
    assert plugin.asked == ["copy", "other copy", "chance 00"]
    plugin.asked.clear()
    find_copies(store, plugin, of("q", [0]), 10, patience=20)
    assert len(plugin.asked) == 22


# ---- long queries


@given(start=st.integers(0, 25 * MAX_QUERY_ROWS - THINNED - 1))
@settings(max_examples=20)
def test_of_a_long_query_every_few_successive_rows_are_found(start: int) -> None:
    rows = np.random.default_rng(1).integers(0, 2**63, 25 * MAX_QUERY_ROWS).tolist()
    store = ExactStore()
    store.put([of("clip", rows[start : start + THINNED + 1])])
    assert set(names(find_copies(store, Rows(), of("film", rows), 10))) == {"clip"}


def test_a_long_query_is_asked_as_a_whole_and_stretch_by_stretch() -> None:
    count = 2 * THINNED * MAX_QUERY_ROWS
    seconds = np.column_stack([np.arange(count), np.arange(count) + 1]).astype(np.float64)
    components = (
        # Upright and mirrored hashes of every frame, the latter only asked; the first frame of each is black.
        Component(
            "b_v1",
            "hamming",
            np.zeros((2 * count, 8), np.uint8),
            np.concatenate([seconds, seconds]),
            np.arange(2 * count) < count,
            np.arange(2 * count) % count > 0,
        ),
        Component("mean_v1", "signs", np.zeros((1, 8), np.uint8)),
        Component("all_v1", "data", np.zeros((count, 3), np.uint8)),
    )
    query = replace(of("film", [0]), sketch=Sketch(components))
    whole, *parts = stretches(query)
    assert whole is query
    assert len(parts) == 4
    asked = [part.sketch.components[0].asked for part in parts]
    assert all(each is not None for each in asked)
    assert np.array_equal(np.sum(asked, axis=0), components[0].asked)  # every row in one stretch
    for each in asked:
        frames = np.flatnonzero(each) % count
        assert np.ptp(frames) < count / 3  # a frame and its mirror image in one stretch of the film
    assert not any(part.sketch.components[1].asked.any() for part in parts)  # type: ignore[union-attr]
    assert all(part.sketch.components[2] is components[2] for part in parts)


def test_a_query_that_is_not_long_is_asked_once() -> None:
    query = of("clip", range(THINNED * MAX_QUERY_ROWS))
    assert stretches(query) == [query]


# ---- across content types


class Film(Rows):
    """Rows of which every one is also a picture's: compares both."""

    name = "film"
    also_matches = frozenset({"rows"})


def test_a_type_that_compares_another_finds_it_and_is_found_by_it(
    store: ExactStore, plugin: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = Film()
    types = {"rows": plugin, "film": film}
    monkeypatch.setattr("fingerprint_dagster.search.content_types", lambda: types)
    still = of("still", [0b11])
    shown = replace(of("shown", [FAR, 0b1]), content=Content("shown", "file:///shown", "film"))
    other = replace(of("other", [FAR]), content=Content("other", "file:///other", "film"))
    store.put([still, shown, other])
    assert names(find_copies(store, plugin, of("q", [0]), 10)) == ["shown", "still"]
    assert film.asked == ["shown"]  # its own plugin compares a picture with a film, whichever is the query
    asked = replace(of("q", [0]), content=Content("q", "file:///q", "film"))
    assert names(find_copies(store, film, asked, 10)) == ["shown", "still"]
    assert set(comparable(plugin)) == set(comparable(film)) == {"rows", "film"}
    assert comparable(plugin)["film"] is comparable(film)["rows"] is film
