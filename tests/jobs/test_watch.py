"""The sensor that tells of matches with watched content: each of them once, whatever happens on the way."""

import json
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from made_texts import edited, text, words
from webhook import recording

from fingerprint_dagster.definitions import build_resources
from fingerprint_dagster.duplicates.join import join
from fingerprint_dagster.duplicates.pairs import Pairs
from fingerprint_dagster.index.store import open_store
from fingerprint_dagster.jobs import watch
from fingerprint_dagster.jobs.watch import watch_sensor
from fingerprint_dagster.settings import get_settings

NOVEL = words(1)
Tick = Callable[[str | None], str | None]


def put(*texts: str) -> None:
    """Store edited copies of the novel under these names, and compare them."""
    settings = get_settings()
    store = open_store(settings.store_uri)
    store.put([text(name, edited(NOVEL, seed), f"file:///uploads/{name}.txt") for seed, name in enumerate(texts, 1)])
    join(store, Pairs(settings.home, settings.store_uri))


@pytest.fixture
def tick(home: Path, monkeypatch: pytest.MonkeyPatch) -> Tick:
    """One evaluation of the sensor with a cursor, the way the daemon does it; returns the new cursor."""
    monkeypatch.setenv("FINGERPRINT_WATCHED", "/media/protected")
    monkeypatch.setenv("FINGERPRINT_WATCH_FILE", str(home / "told.jsonl"))
    monkeypatch.setenv("FINGERPRINT_ALLOWED_NETWORKS", "127.0.0.0/8")
    get_settings.cache_clear()
    settings = get_settings()
    open_store(settings.store_uri).put([text("work", NOVEL, "file:///media/protected/work.txt")])

    def look(cursor: str | None) -> str | None:
        get_settings.cache_clear()
        resources = {name: build_resources(get_settings())[name] for name in ("catalog", "fingerprints")}
        context = dg.build_sensor_context(instance=dg.DagsterInstance.ephemeral(), cursor=cursor, resources=resources)
        result = watch_sensor(context)
        assert isinstance(result, dg.SkipReason)
        return context.cursor

    return look


def told(home: Path) -> list[str]:
    path = home / "told.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["content"]["content_id"] for line in lines]


def test_each_match_is_told_once(home, tick):
    put("a")
    cursor = tick(None)
    assert told(home) == ["a"]
    cursor = tick(cursor)
    assert told(home) == ["a"]
    put("a", "b")
    cursor = tick(cursor)
    assert told(home) == ["a", "b"]
    assert tick(cursor) == cursor


def test_what_a_webhook_did_not_take_is_told_at_the_next_tick(home, tick, monkeypatch):
    put("a", "b")
    with recording(500) as server:
        monkeypatch.setenv("FINGERPRINT_WATCH_WEBHOOK", server.base)
        cursor = tick(None)
        assert (len(server.posts), told(home)) == (1, [])
        server.status = 200
        cursor = tick(cursor)
        assert told(home) == ["a", "b"]
        tick(cursor)
        assert [json.loads(body)["content"]["content_id"] for _, _, body in server.posts] == ["a", "a", "b"]


def test_many_matches_are_told_over_several_ticks(home, tick, monkeypatch):
    monkeypatch.setattr(watch, "_AT_ONCE", 2)
    put("a", "b", "c")
    cursor = None
    for count in (2, 3, 3):
        cursor = tick(cursor)
        assert len(told(home)) == count
    assert sorted(told(home)) == ["a", "b", "c"]


def test_after_the_pairs_were_made_anew_nothing_is_missed(home, tick):
    put("a")
    cursor = tick(None)
    (home / "pairs.sqlite").unlink()
    put("a", "b")
    tick(cursor)
    assert set(told(home)) == {"a", "b"}


@pytest.mark.parametrize("variable", ["FINGERPRINT_WATCHED", "FINGERPRINT_WATCH_FILE"])
def test_without_settings_nothing_is_told(home, tick, monkeypatch, variable):
    put("a")
    monkeypatch.setenv(variable, "")
    assert tick(None) is None
    assert told(home) == []
