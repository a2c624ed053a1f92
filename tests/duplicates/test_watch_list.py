"""What is on the watch list, who copies it, and who is told."""

import json
from pathlib import Path

import pytest
from made_texts import edited, text, words
from webhook import recording

from fingerprint_dagster.duplicates.decisions import Decision
from fingerprint_dagster.duplicates.join import join
from fingerprint_dagster.duplicates.pairs import Pairs
from fingerprint_dagster.duplicates.watch import WatchList, append_lines, post, sighting_json, sightings
from fingerprint_dagster.errors import ContentError, UsageError
from fingerprint_dagster.index.exact import ExactStore
from fingerprint_dagster.sources import Guard

NOVEL = words(1)
WORK = text("work", NOVEL, "file:///media/protected/work.txt", collection="protected")
COPY = text("copy", edited(NOVEL, 1), "file:///uploads/copy.txt")
QUOTE = text("quote", NOVEL[100:160], "file:///uploads/quote.txt")
EDITION = text("edition", edited(NOVEL, 2), "file:///media/protected/edition.txt", collection="protected")
OTHER = text("other", words(2), "file:///uploads/other.txt")
WATCHED = WatchList.of(["collection=protected"])
LOOPBACK = Guard(allowed_networks=("127.0.0.0/8",))


@pytest.fixture
def pairs(tmp_path: Path) -> Pairs:
    store, pairs = ExactStore(), Pairs(tmp_path / "home", "store")
    store.put([WORK, COPY, QUOTE, EDITION, OTHER])
    join(store, pairs)
    return pairs


@pytest.mark.parametrize(
    ("written", "watched"),
    [
        ("/media/protected", True),
        ("/media/protected/", True),
        ("file:///media/protected/", True),
        ("/media/protected/work.txt", True),
        ("/media/prot", False),
        ("/media/protected/work", False),
        ("collection=protected", True),
        ("collection = protected", True),
        ("collection=public", False),
        ("owner=protected", False),
        ("s3://bucket/works/", False),
    ],
)
def test_content_is_watched_by_place_or_by_a_column_of_its_list(written, watched):
    watch_list = WatchList.of([written])
    assert watch_list
    assert watch_list.holds(WORK.content) == watched
    assert not watch_list.holds(OTHER.content)


def test_an_empty_watch_list_is_false_and_a_wrong_place_is_refused():
    assert not WatchList.of([])
    with pytest.raises(UsageError):
        WatchList.of(["nowhere://x"])


def test_copies_and_parts_of_watched_content_are_seen_but_not_within_it(pairs):
    seen = {(each.content.content_id, each.watched.content_id) for each in sightings(pairs.pairs(), WATCHED, [])}
    assert seen == {("copy", "work"), ("copy", "edition"), ("quote", "work"), ("quote", "edition")}


def test_pairs_that_were_called_different_are_not_seen(pairs):
    decisions = [Decision.of("different", COPY, WORK), Decision.of("same", COPY, EDITION)]
    seen = {(e.content.content_id, e.watched.content_id) for e in sightings(pairs.pairs(), WATCHED, decisions)}
    assert seen == {("copy", "edition"), ("quote", "work"), ("quote", "edition")}


def test_a_sighting_tells_what_the_content_is_to_the_watched_one_in_either_order(pairs):
    for sighting in sightings(pairs.pairs(), WATCHED, []):
        told = json.loads(json.dumps(sighting_json(sighting)))
        assert told["event"] == "watched_content_matched"
        assert told["number"] == sighting.pair.number
        assert told["watched"]["metadata"] == {"collection": "protected"}
        assert told["relation"] == {"copy": "copy", "quote": "part_of"}[told["content"]["content_id"]]
        if told["content"]["content_id"] == "quote":
            (start, end) = told["matches"][0]["content_range"]
            (watched_start, watched_end) = told["matches"][0]["watched_range"]
            assert start == 0
            assert watched_start > 500
            assert watched_end - watched_start == pytest.approx(end - start, rel=0.3)


# ---------------------------------------------------------------- telling


def test_a_webhook_gets_one_post_of_json():
    with recording() as server:
        post(f"{server.base}/hook?token=secret", {"name": "Ünïcode"}, LOOPBACK)
    ((path, headers, body),) = server.posts
    assert path == "/hook?token=secret"
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body) == {"name": "Ünïcode"}


def test_an_address_that_is_not_public_is_refused_before_anything_is_sent():
    with recording() as server, pytest.raises(ContentError, match="loopback address"):
        post(f"{server.base}/hook", {}, Guard())
    assert server.posts == []


@pytest.mark.parametrize("status", [302, 404, 500])
def test_another_answer_than_success_is_a_failure_that_does_not_tell_the_address(status):
    with recording(status) as server, pytest.raises(ContentError, match=f"answered {status}") as error:
        post(f"{server.base}/hook?token=secret", {}, LOOPBACK)
    assert "secret" not in str(error.value)
    assert len(server.posts) == 1  # a redirect is not followed


def test_a_webhook_that_is_gone_is_a_failure_that_can_be_tried_again():
    with recording() as server:
        pass
    with pytest.raises(ContentError, match=r"did not take the message") as error:
        post(server.base, {}, LOOPBACK)
    assert error.value.retryable


def test_a_webhook_must_be_an_address():
    with pytest.raises(UsageError):
        post("file:///etc/passwd", {}, LOOPBACK)


def test_lines_are_appended_whole(tmp_path):
    path = tmp_path / "folder" / "sightings.jsonl"
    append_lines(path, [{"number": 1}, {"number": 2}])
    append_lines(path, [{"number": 3}])
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [1, 2, 3]
    with pytest.raises(ContentError, match="cannot be written"):
        append_lines(tmp_path, [{}])
