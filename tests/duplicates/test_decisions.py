"""What people decide is remembered for the bytes that they looked at, and respected everywhere."""

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
from made_texts import edited, text, words

from fingerprint_dagster.duplicates.decisions import FORMAT, Decision, Decisions, read_decisions
from fingerprint_dagster.duplicates.findings import Findings, Wanted, find
from fingerprint_dagster.duplicates.join import join
from fingerprint_dagster.duplicates.keep import best_first
from fingerprint_dagster.duplicates.pairs import Pairs
from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.index.exact import ExactStore

NOVEL = words(1)
A, B, C = text("a", NOVEL), text("b", edited(NOVEL, 1)), text("c", edited(NOVEL, 2))
FAR = text("far", words(9))


@pytest.fixture
def decisions(tmp_path: Path) -> Decisions:
    return Decisions(tmp_path / "home")


@pytest.fixture
def store() -> ExactStore:
    store = ExactStore()
    store.put([A, B, C, FAR])
    return store


@pytest.fixture
def findings(tmp_path, store, decisions):
    """What is found now, with what is decided now."""
    pairs = Pairs(tmp_path / "home", "store")

    def look(**wanted) -> Findings:
        join(store, pairs)
        return find(store, pairs, decisions.all(), best_first("first"), Wanted(**wanted))

    return look


def ids(findings: Findings) -> tuple[set[tuple[str, str]], list[list[str]]]:
    clusters = [sorted(each.content.content_id for each in cluster.members) for cluster in findings.clusters]
    return {finding.pair.ids for finding in findings}, clusters


def test_undecided_pairs_are_found(findings):
    assert ids(findings()) == ({("a", "b"), ("a", "c"), ("b", "c")}, [["a", "b", "c"]])


def test_different_pairs_are_left_out_and_counted_and_their_contents_kept_apart(decisions, findings):
    decisions.record([Decision.of("different", B, A)])
    now = findings()
    found, clusters = ids(now)
    assert found == {("a", "c"), ("b", "c")}
    assert not any({"a", "b"} <= set(cluster) for cluster in clusters)
    assert now.different == 1


def test_the_same_stays_together_whatever_was_found(decisions, findings):
    decisions.record([Decision.of("same", A, FAR)])
    _, clusters = ids(findings())
    assert clusters == [["a", "b", "c", "far"]]


def test_the_verdict_of_a_pair_is_told(decisions, findings):
    decisions.record([Decision.of("same", C, A)])
    assert {f.pair.ids: f.verdict for f in findings()} == {("a", "b"): None, ("a", "c"): "same", ("b", "c"): None}


def test_a_content_that_changed_is_undecided_again(decisions, findings, store):
    decisions.record([Decision.of("different", A, B)])
    changed = text("b", edited(NOVEL, 3))
    store.put([changed])
    assert ids(findings())[1] == [["a", "b", "c"]]
    assert decisions.verdict(A, changed) is None
    assert decisions.verdict(A, B) == "different"


def test_a_decision_counts_in_either_order_and_the_last_one_counts(decisions):
    decisions.record([Decision.of("same", A, B)])
    assert decisions.verdict(B, A) == decisions.verdict(A, B) == "same"
    decisions.record([Decision.of("different", B, A)])
    assert decisions.verdict(A, B) == "different"
    assert len(decisions.all()) == 1
    assert decisions.forget("b", "a")
    assert decisions.verdict(A, B) is None
    assert not decisions.forget("a", "b")


def test_pairs_and_clusters_of_what_is_asked_for(findings):
    assert ids(findings(content_types=frozenset({"image"}))) == (set(), [])
    least = max(finding.pair.best.score for finding in findings())
    assert len(ids(findings(least_score=least))[0]) == 1
    assert ids(findings(relations=frozenset({"overlap"})))[0] == set()


def _decide(home: Path, number: int) -> None:
    Decisions(home).record([Decision(f"{number}", f"{number} too", "x", "y", "same", float(number))])


def test_many_processes_decide_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_decide, args=(tmp_path / "home", number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(Decisions(tmp_path / "home").all()) == 3


# ---------------------------------------------------------------- files of decisions


def written(tmp_path: Path, *entries: object, **more: object) -> Path:
    path = tmp_path / "decisions.json"
    path.write_text(json.dumps({"format": FORMAT, "decisions": list(entries)} | more))
    return path


ENTRY = {"one": "b", "other": "a", "one_digest": "db", "other_digest": "da", "verdict": "different"}


def test_a_file_of_decisions_is_read(tmp_path):
    (decision,), taken_back = read_decisions(written(tmp_path, ENTRY, ENTRY | {"verdict": "undecided"}))
    assert taken_back == [("a", "b")]
    assert replace(decision, since=0.0) == Decision("a", "b", "da", "db", "different")


@pytest.mark.parametrize(
    "entry",
    [
        "text",
        {},
        ENTRY | {"verdict": "maybe"},
        ENTRY | {"one": 7},
        ENTRY | {"one": "a"},
        {name: value for name, value in ENTRY.items() if name != "one_digest"},
    ],
)
def test_a_wrong_entry_is_named(tmp_path, entry):
    with pytest.raises(UsageError, match="decision 2 must name"):
        read_decisions(written(tmp_path, ENTRY, entry))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "another"}', '{"decisions": []}'])
def test_another_file_is_refused(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UsageError, match=r"x\.json"):
        read_decisions(tmp_path / "x.json")
