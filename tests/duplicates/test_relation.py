"""A copy, a part, the whole of a part, or an overlap: by how much of both sides matches."""

import numpy as np
import pytest

from fingerprint_dagster.content import Component, Content, Fingerprint, Match, Sketch
from fingerprint_dagster.duplicates.relation import covered, extent, relation_of


def of(content_type: str, **info: object) -> Fingerprint:
    return Fingerprint(Content("id", "file:///x", content_type), "d", 1, "x/y", "k", Sketch((), info))


SONG, EXCERPT = of("audio", duration=200.0), of("audio", duration=10.0)
FILM, PICTURE = of("video", duration=100.0), of("image", width=10, height=10)


def match(other: Fingerprint, **where: object) -> Match:
    return Match(other.content, 0.9, "any_v1", **where)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other", "where", "relation"),
    [
        (PICTURE, PICTURE, {}, "copy"),
        (PICTURE, PICTURE, {"query_box": (0, 0, 1, 1), "reference_box": (0.25, 0.25, 0.75, 0.75)}, "part_of"),
        (PICTURE, PICTURE, {"query_box": (0, 0, 0.5, 1), "reference_box": (0, 0, 1, 1)}, "contains"),
        (PICTURE, PICTURE, {"query_box": (0, 0, 0.5, 1), "reference_box": (0.5, 0, 1, 1)}, "overlap"),
        (EXCERPT, SONG, {"query_range": (0, 9.5), "reference_range": (60, 69.5)}, "part_of"),
        (SONG, EXCERPT, {"query_range": (60, 69.5), "reference_range": (0, 9.5)}, "contains"),
        (SONG, SONG, {"query_range": (0, 190), "reference_range": (5, 195)}, "copy"),
        (SONG, SONG, {"query_range": (0, 30), "reference_range": (150, 180)}, "overlap"),
        (PICTURE, FILM, {"reference_range": (40, 41)}, "part_of"),
    ],
)
def test_relations(one, other, where, relation):
    assert relation_of(one, other, [match(other, **where)]) == relation


def test_several_matches_count_together():
    halves = [
        match(SONG, query_range=(0, 100), reference_range=(100, 200)),
        match(SONG, query_range=(95, 200), reference_range=(0, 105)),
    ]
    assert relation_of(SONG, SONG, halves[:1]) == "overlap"
    assert relation_of(SONG, SONG, halves) == "copy"


def test_suggestions_prove_nothing():
    assert relation_of(SONG, SONG, [match(SONG, details={"suggestion": True})]) == "suggestion"


def test_overlapping_places_count_once():
    assert covered([((0, 6), None), ((4, 8), None)], 10) == pytest.approx(0.8)
    assert covered([(None, (0, 0, 0.5, 1)), (None, (0.25, 0, 0.75, 1))], 0) == pytest.approx(0.75, abs=0.02)
    assert covered([((0, 5), (0, 0, 0.5, 1))], 10) == pytest.approx(0.25)
    assert covered([((0, 99), None)], 10) == 1.0


def test_a_content_is_as_long_as_its_rows_reach_where_nothing_else_tells():
    rows = Component("any_v1", "tokens", np.zeros(2, np.uint64), positions=np.array([[0, 5], [5, 12.5]]))
    assert extent(Fingerprint(Content("id", "file:///x", "x"), "d", 1, "x/y", "k", Sketch((rows,)))) == 12.5
