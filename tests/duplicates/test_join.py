"""A collection joined with itself: the pairs that comparing everything with everything gives, at a part of the cost."""

import json
import tempfile
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_texts import edited, text, words

from fingerprint_dagster import search
from fingerprint_dagster.content import Fingerprint
from fingerprint_dagster.duplicates import join as joining
from fingerprint_dagster.duplicates.join import join, verify
from fingerprint_dagster.duplicates.pairs import Pairs
from fingerprint_dagster.index import ranking
from fingerprint_dagster.index.exact import ExactStore
from fingerprint_dagster.index.lance import LanceStore
from fingerprint_dagster.index.store import Candidate
from fingerprint_dagster.media.text import TextPlugin


@pytest.fixture
def pairs(tmp_path: Path) -> Pairs:
    return Pairs(tmp_path / "home", "store")


@pytest.fixture
def store() -> ExactStore:
    return ExactStore()


def collection() -> list[Fingerprint]:
    """Two groups of copies, an excerpt, a text that shares a passage, and two that stand alone."""
    novel, essay = words(1), words(2)
    return [
        text("novel", novel),
        text("novel, edited", edited(novel, 1)),
        text("novel, edited again", edited(novel, 2)),
        text("essay", essay),
        text("essay, edited", edited(essay, 3)),
        text("excerpt of the novel", novel[100:160]),
        text("review that quotes", [*words(3, 100), *novel[20:60], *words(4, 100)]),
        text("alone", words(5)),
        text("alone too", words(6)),
    ]


def found(pairs: Pairs) -> dict[tuple[str, str], str]:
    """Pair of ids in alphabetical order -> what the first is to the second."""
    swapped = {"part_of": "contains", "contains": "part_of"}
    result = {}
    for pair in pairs.pairs():
        in_order = pair.ids == (pair.one.content.content_id, pair.other.content.content_id)
        result[pair.ids] = pair.relation if in_order else swapped.get(pair.relation, pair.relation)
    return result


def everything_with_everything(contents: list[Fingerprint]) -> set[tuple[str, str]]:
    return {
        tuple(sorted((one.content.content_id, other.content.content_id)))  # type: ignore[misc]
        for one, other in combinations(contents, 2)
        if one.digest == other.digest or verify(one, other)
    }


@pytest.mark.parametrize("kind", [ExactStore, LanceStore])
def test_copies_parts_and_overlaps_are_found(kind, tmp_path, pairs):
    store = kind() if kind is ExactStore else kind(tmp_path / "index")
    contents = collection()
    store.put(contents)
    done = join(store, pairs)
    assert found(pairs) == {
        ("novel", "novel, edited"): "copy",
        ("novel", "novel, edited again"): "copy",
        ("novel, edited", "novel, edited again"): "copy",
        ("essay", "essay, edited"): "copy",
        ("excerpt of the novel", "novel"): "part_of",
        ("excerpt of the novel", "novel, edited"): "part_of",
        ("excerpt of the novel", "novel, edited again"): "part_of",
        ("novel", "review that quotes"): "overlap",
        ("novel, edited", "review that quotes"): "overlap",
        ("novel, edited again", "review that quotes"): "overlap",
    }
    assert set(found(pairs)) == everything_with_everything(contents)
    assert (done.compared, done.found) == (len(contents), 10)


def test_each_pair_is_verified_once(store, pairs, monkeypatch):
    store.put(collection())
    seen: list[frozenset[str]] = []

    def counted(query: Fingerprint, reference: Fingerprint) -> list:
        seen.append(frozenset((query.content.content_id, reference.content.content_id)))
        return verify(query, reference)

    monkeypatch.setattr(joining, "verify", counted)
    monkeypatch.setattr(joining, "QUERIES", 2)
    monkeypatch.setattr(joining, "BLOCK", 2)
    done = join(store, pairs)
    assert len(seen) == len(set(seen)) == done.verified
    assert set(found(pairs)) == everything_with_everything(collection())


def test_nothing_is_compared_twice(store, pairs):
    store.put(collection())
    join(store, pairs)
    again = join(store, pairs)
    assert (again.compared, again.verified, again.found) == (0, 0, 0)


def test_new_content_alone_is_compared_with_everything(store, pairs):
    contents = collection()
    store.put(contents[1:])
    join(store, pairs)
    store.put(contents[:1])
    assert join(store, pairs).compared == 1
    assert set(found(pairs)) == everything_with_everything(contents)


def test_changed_content_is_compared_again(store, pairs):
    contents = collection()
    store.put(contents)
    join(store, pairs)
    contents[4] = text("essay, edited", words(7))
    store.put([contents[4]])
    assert join(store, pairs).compared == 1
    assert set(found(pairs)) == everything_with_everything(contents)


def test_deleted_content_loses_its_pairs(store, pairs):
    contents = collection()
    store.put(contents)
    join(store, pairs)
    store.delete(["novel"])
    assert join(store, pairs).compared == 0
    assert set(found(pairs)) == everything_with_everything(contents[1:])


def test_equal_bytes_are_pairs_with_the_first_of_them_and_only_it_is_compared(store, pairs):
    novel = words(1)
    copies = [text(f"copy {number}", novel, f"file:///{number}.txt") for number in range(20)]
    store.put([*copies, text("edited", edited(novel, 1))])
    done = join(store, pairs)
    assert done.verified == 1
    exact = [pair for pair in pairs.pairs() if pair.best.evidence == "sha256"]
    assert len(exact) == 19
    assert {pair.best.score for pair in exact} == {1.0}
    assert len(found(pairs)) == 20


def test_when_the_first_of_equal_contents_goes_another_one_stands_for_them(store, pairs):
    novel = words(1)
    store.put([text(f"copy {number}", novel, f"file:///{number}.txt") for number in range(3)])
    join(store, pairs)
    store.put([text("edited", edited(novel, 1))])
    join(store, pairs)
    store.delete(["copy 0"])
    join(store, pairs)
    assert set(found(pairs)) == {("copy 1", "copy 2"), ("copy 1", "edited")}


def test_a_join_that_was_stopped_goes_on_where_it_was(store, pairs, monkeypatch):
    contents = collection()
    store.put(contents)
    monkeypatch.setattr(joining, "QUERIES", 2)

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        join(store, pairs, progress=stop)
    assert join(store, pairs).compared == len(contents) - 4
    assert set(found(pairs)) == everything_with_everything(contents)


def everything_kept(pairs: Pairs) -> set[str]:
    """All that is kept of the pairs but the order in which they were found."""
    return {repr(replace(pair, number=0)) for pair in pairs.pairs()}


@settings(max_examples=10, deadline=None)
@given(order=st.permutations([each.content.content_id for each in collection()]), together=st.integers(1, 9))
def test_what_is_found_does_not_depend_on_who_asks_first(order, together):
    store = ExactStore()
    store.put(collection())
    kept = []
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for home, among in (("one", None), ("other", order)):
            pairs = Pairs(Path(folder) / home, "store")
            pairs.take_in(store.scan())
            join(store, pairs, among=among)
            kept.append(everything_kept(pairs))
            patch.setattr(joining, "QUERIES", together)
    assert kept[0] == kept[1] != set()


def test_several_processes_find_what_one_finds_and_can_be_stopped(tmp_path, monkeypatch):
    store = LanceStore(tmp_path / "index")
    others = [text(f"alone {number}", words(number)) for number in range(10, 18)]
    store.put([*collection(), *others, text("the same bytes", words(1), "file:///again.txt")])
    alone, together = (Pairs(tmp_path / home, str(tmp_path / "index")) for home in ("alone", "together"))
    join(store, alone)
    monkeypatch.setattr(joining, "QUERIES", 1)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        join(store, together, workers=2, progress=stop)
    assert 0 < together.waiting_types()["text"] < 18
    join(store, together, workers=2)
    assert together.waiting_types() == {}
    assert everything_kept(together) == everything_kept(alone)


def test_a_store_that_only_this_process_has_is_joined_by_it(store, tmp_path, monkeypatch):
    monkeypatch.setattr(joining, "QUERIES", 1)
    store.put(collection())
    pairs = Pairs(tmp_path / "home", "memory://")
    assert join(store, pairs, workers=2).compared == 9
    assert set(found(pairs)) == everything_with_everything(collection())


def test_a_quotation_in_a_long_text_is_found_when_the_long_text_comes_later(store, pairs, monkeypatch):
    monkeypatch.setattr(ranking, "MAX_QUERY_TOKENS", 20)
    book = words(1, 3000)
    store.put([text("quotation", book[1500:1530])])
    join(store, pairs)
    store.put([text("book", book)])
    join(store, pairs)
    assert found(pairs) == {("book", "quotation"): "contains"}


def test_of_many_candidates_those_that_stand_out_are_looked_at_first():
    query = text("query", words(1))
    tokens = next(each.algorithm for each in query.sketch.components if each.kind == "tokens")
    usual = [Candidate(f"{number}", {tokens: 10.0 + number / 10}) for number in range(18)]
    shares_more = Candidate("shares more", {tokens: 30.0, "elsewhere_v1": 0.01})
    is_near = Candidate("is near", {"frames_v1": 0.9})
    chosen = search.outstanding(query, [*usual[:9], shares_more, *usual[9:], is_near], joining.FIRST)
    assert [each.content_id for each in chosen] == ["0", "1", "shares more", "is near"]


def test_a_batch_alone_is_compared_with_everything(store, pairs):
    contents = collection()
    store.put(contents)
    assert join(store, pairs, among=["novel", "gone"]).compared == 1
    assert {pair for pair in found(pairs) if "novel" in pair} == set(found(pairs)) != set()
    assert join(store, pairs).compared == len(contents) - 1
    assert set(found(pairs)) == everything_with_everything(contents)


def test_equal_bytes_and_changes_are_noticed_where_only_a_batch_is_read(store, pairs):
    novel = words(1)
    store.put([text("old", novel, "file:///old.txt"), text("edited", edited(novel, 1)), text("alone", words(5))])
    store.put([text("new", novel, "file:///new.txt")])
    join(store, pairs, among=["new"])
    assert set(found(pairs)) == {("new", "old"), ("edited", "new")}
    store.put([text("edited", words(6))])
    join(store, pairs, among=["edited"])
    assert set(found(pairs)) == {("new", "old")}
    join(store, pairs)
    assert set(found(pairs)) == {("new", "old")}


def test_pairs_keep_their_numbers_and_are_read_from_one_on(store, pairs):
    contents = collection()
    store.put(contents[:3])
    join(store, pairs)
    newest = pairs.newest()
    store.put(contents)
    join(store, pairs)
    later = {pair.ids for pair in pairs.pairs(after=newest)}
    assert later == everything_with_everything(contents) - everything_with_everything(contents[:3])


def test_a_pair_says_what_it_was_found_by_after_it_was_read_back(store, pairs):
    contents = [text("novel", words(1), collection="books"), text("excerpt", words(1)[100:160])]
    store.put(contents)
    join(store, pairs)
    (pair,) = pairs.pairs()
    by_id = {each.content.content_id: each for each in contents}
    one, other = by_id[pair.one.content.content_id], by_id[pair.other.content.content_id]
    assert list(pair.matches) == search.verify(TextPlugin(), one, other)
    assert (pair.one.content, pair.one.digest, pair.one.size) == (one.content, one.digest, one.size)
    assert dict(pair.one.sketch.info) == json.loads(json.dumps(dict(one.sketch.info)))


def test_pairs_of_another_store_are_forgotten(store, pairs, tmp_path):
    store.put(collection())
    join(store, pairs)
    assert found(Pairs(tmp_path / "home", "store"))
    assert not found(Pairs(tmp_path / "home", "another store"))


def test_content_of_a_type_that_is_no_longer_installed_is_passed_over(store, pairs):
    odd = text("odd", words(1))
    store.put([replace(odd, content=replace(odd.content, content_type="hologram")), *collection()])
    join(store, pairs)
    assert not any("odd" in pair for pair in found(pairs))


def test_a_content_that_changed_while_it_was_compared_is_compared_again(store, pairs):
    before, after = text("a", words(1)), text("a", words(2))
    store.put([before, text("b", words(1))])
    pairs.take_in([[after, text("b", words(1))]])
    pairs.record([before], [])
    assert pairs.waiting_types() == {"text": 2}


def test_what_has_more_copies_than_are_looked_up_at_first_is_looked_up_again(store, pairs):
    novel = words(1)
    contents = [text(f"{number:02}", edited(novel, number, 0.03)) for number in range(joining.FEW + 15)]
    store.put(contents)
    join(store, pairs)
    assert set(found(pairs)) == everything_with_everything(contents)
