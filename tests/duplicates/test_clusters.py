"""Clusters hold only what is a copy of everything else in them."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from fingerprint_dagster.duplicates.clusters import CHECKS, clusters


def test_copies_of_each_other_are_one_cluster():
    assert clusters([("a", "b", 0.9), ("b", "c", 0.9), ("a", "c", 0.8)]) == [["a", "b", "c"]]


def test_two_copies_of_a_third_are_not_put_together_without_being_compared():
    assert clusters([("a", "b", 0.9), ("b", "c", 0.8)]) == [["a", "b"]]


def test_a_comparison_that_was_not_made_is_made_before_clusters_merge():
    asked = []

    def verify(one: str, other: str) -> bool:
        asked.append({one, other})
        return True

    assert clusters([("a", "b", 0.9), ("b", "c", 0.8)], verify=verify) == [["a", "b", "c"]]
    assert asked == [{"a", "c"}]


def test_the_better_pair_decides_where_a_content_belongs():
    assert clusters([("a", "b", 0.7), ("b", "c", 0.9)]) == [["b", "c"]]


def test_what_people_call_the_same_stays_together():
    assert clusters([("b", "c", 0.9)], same=[("a", "b")]) == [["a", "b", "c"]]
    assert clusters([], same=[("a", "b"), ("b", "c")]) == [["a", "b", "c"]]


def test_what_people_call_different_stays_apart():
    links = [("a", "b", 0.9), ("b", "c", 0.9), ("a", "c", 0.9)]
    assert clusters(links[1:], different=[("a", "b")], verify=lambda one, other: True) == [["a", "c"]]
    assert clusters([], same=[("a", "b"), ("b", "c")], different=[("a", "c")]) == [["a", "b"]]


def test_a_pair_alone_is_no_cluster_without_a_link():
    assert clusters([], different=[("a", "b")]) == []


def test_large_clusters_merge_after_a_bounded_number_of_comparisons():
    asked = []

    def verify(one: str, other: str) -> bool:
        asked.append((one, other))
        return True

    names = [f"{number:03}" for number in range(300)]
    assert clusters([(names[0], each, 1.0) for each in names[1:]], verify=verify) == [names]
    assert len(asked) < CHECKS * len(names)


NAMES = st.sampled_from("abcdefgh")
PAIRS = st.lists(st.tuples(NAMES, NAMES).filter(lambda pair: pair[0] != pair[1]), max_size=20)


@given(PAIRS, PAIRS, PAIRS, st.randoms())
def test_every_two_of_a_cluster_are_linked_or_called_the_same(linked, same, different, chance):
    links = {frozenset(pair): chance.random() for pair in linked}
    apart = {frozenset(pair) for pair in different}
    listed = [(*sorted(pair), score) for pair, score in links.items()]
    found = clusters(listed, same=same, different=different)
    chance.shuffle(listed)
    assert clusters(listed, same=same, different=different) == found
    assert len({member for each in found for member in each}) == sum(map(len, found))
    for cluster in found:
        for pair in combinations(cluster, 2):
            assert frozenset(pair) not in apart
            if not same:
                assert frozenset(pair) in links
