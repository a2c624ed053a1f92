"""Sensors: what arrives becomes batches and run requests, once, a bounded part of it in each tick."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
from sources.servers import Handler, serving

from fingerprint_dagster.catalog import Catalog
from fingerprint_dagster.definitions import build_definitions, build_resources
from fingerprint_dagster.jobs import arrivals
from fingerprint_dagster.jobs.arrivals import Pass, inbox_sensor, list_sensor, objects_sensor
from fingerprint_dagster.settings import get_settings
from fingerprint_dagster.sources import Listed

Tick = Callable[..., "dg.SensorResult | dg.SkipReason"]
LONG_AGO = time.time() - 60


def write(path: Path, text: str, *, changed: float = LONG_AGO) -> None:
    """A text file that was last changed at that time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (changed, changed))


@pytest.fixture
def instance() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


@pytest.fixture
def tick(home: Path, instance: dg.DagsterInstance) -> Tick:
    """One evaluation of a sensor with a cursor, the way the daemon does it."""

    def look(sensor: dg.SensorDefinition, cursor: str | None = None) -> dg.SensorResult | dg.SkipReason:
        resources = {name: build_resources(get_settings())[name] for name in ("catalog", "fetcher")}
        context = dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources)
        return sensor(context)  # type: ignore[return-value]

    return look


def requested(result: dg.SensorResult | dg.SkipReason) -> list[str]:
    assert isinstance(result, dg.SensorResult), result
    added = [key for request in result.dynamic_partitions_requests or [] for key in request.partition_keys]
    runs = [request.partition_key for request in result.run_requests or []]
    assert runs == added
    assert [request.run_key for request in result.run_requests or []] == runs
    return [run for run in runs if run is not None]


def test_files_in_the_inbox_become_one_run_for_each_batch(home, tick):
    write(home / "inbox" / "a.txt", "some words")
    write(home / "inbox" / "deeper" / "b.txt", "other words")
    assert requested(tick(inbox_sensor)) == ["text-000001"]
    assert {Path(each.uri).name for each in Catalog(home).members("text-000001")} == {"a.txt", "b.txt"}


def test_an_inbox_that_did_not_change_is_not_looked_into(home, tick):
    write(home / "inbox" / "a.txt", "some words")
    first = tick(inbox_sensor)
    assert isinstance(tick(inbox_sensor, first.cursor), dg.SkipReason)


def test_new_and_changed_files_become_a_new_batch(home, tick):
    write(home / "inbox" / "same.txt", "these words stay")
    write(home / "inbox" / "old.txt", "some words")
    first = tick(inbox_sensor)
    Catalog(home).stored("text-000001", "any")
    write(home / "inbox" / "old.txt", "some words, changed", changed=LONG_AGO + 5)
    write(home / "inbox" / "new.txt", "more words")
    second = tick(inbox_sensor, first.cursor)
    assert requested(second) == ["text-000002"]
    assert {Path(each.uri).name for each in Catalog(home).members("text-000002")} == {"old.txt", "new.txt"}
    assert {Path(each.uri).name for each in Catalog(home).members("text-000001")} == {"same.txt"}


def test_a_tick_that_was_lost_is_repeated_with_the_same_run_keys(home, tick):
    """The daemon stores the cursor only when the tick ends well; what it asks again has the same keys."""
    write(home / "inbox" / "a.txt", "some words")
    assert requested(tick(inbox_sensor)) == requested(tick(inbox_sensor)) == ["text-000001"]


def test_files_that_are_being_written_are_waited_for(home, tick):
    write(home / "inbox" / "a.txt", "half of", changed=time.time() + 5)
    result = tick(inbox_sensor)
    assert isinstance(result, dg.SkipReason)
    assert "being written" in (result.skip_message or "")


def test_no_inbox_is_no_error(home, tick):
    assert isinstance(tick(inbox_sensor), dg.SkipReason)


def test_rows_of_the_watched_list_become_batches(home, tick, tmp_path, monkeypatch):
    watched = tmp_path / "list.csv"
    monkeypatch.setenv("FINGERPRINT_WATCH_LIST", str(watched))
    get_settings.cache_clear()
    assert isinstance(tick(list_sensor), dg.SkipReason)
    write(tmp_path / "a.txt", "some words")
    pd.DataFrame({"uri": ["a.txt"], "owner": ["me"]}).to_csv(watched, index=False)
    first = tick(list_sensor)
    assert requested(first) == ["text-000001"]
    assert Catalog(home).members("text-000001")[0].metadata == {"owner": "me"}
    assert isinstance(tick(list_sensor, first.cursor), dg.SkipReason)
    write(tmp_path / "b.txt", "other words")
    pd.DataFrame({"uri": ["a.txt", "b.txt"], "owner": ["me", "me"]}).to_csv(watched, index=False)
    assert "text-000002" in requested(tick(list_sensor, first.cursor))


def test_a_wrong_list_is_logged_and_asks_for_nothing(home, tick, tmp_path, monkeypatch):
    watched = tmp_path / "list.csv"
    watched.write_text("name\nx\n")
    monkeypatch.setenv("FINGERPRINT_WATCH_LIST", str(watched))
    get_settings.cache_clear()
    assert requested(tick(list_sensor)) == []


def test_a_busy_inbox_does_not_keep_what_is_complete_from_starting(home, tick):
    write(home / "inbox" / "done.txt", "some words")
    write(home / "inbox" / "half.txt", "half of", changed=time.time() + 60)
    first = tick(inbox_sensor)
    assert requested(first) == ["text-000001"]
    assert [Path(each.uri).name for each in Catalog(home).members("text-000001")] == ["done.txt"]
    Catalog(home).stored("text-000001", "any")
    write(home / "inbox" / "half.txt", "half of it, and the other half")
    assert requested(tick(inbox_sensor, first.cursor)) == ["text-000002"]


def test_what_is_gone_from_the_inbox_is_marked_and_comes_back(home, tick):
    write(home / "inbox" / "stays.txt", "some words")
    write(home / "inbox" / "goes.txt", "other words")
    first = tick(inbox_sensor)
    (home / "inbox" / "goes.txt").unlink()
    second = tick(inbox_sensor, first.cursor)
    (gone,) = Catalog(home).changes()
    assert gone.removed
    assert gone.uri.endswith("/goes.txt")
    write(home / "inbox" / "goes.txt", "other words")
    tick(inbox_sensor, second.cursor)
    assert Catalog(home).changes() == []


def ticks(tick: Tick, sensor: dg.SensorDefinition, most: int) -> tuple[list[str], int]:
    """Tick until the pass is over; what was requested, and the number of ticks."""
    found: list[str] = []
    cursor = None
    for number in range(1, most + 1):
        result = tick(sensor, cursor)
        found += requested(result)
        cursor = result.cursor
        if not Pass.of(cursor).started:
            return found, number
    raise AssertionError(f"the pass goes on after {most} ticks")


@pytest.mark.parametrize("source", ["folder", "list"])
def test_a_large_source_is_looked_at_in_parts(home, tick, tmp_path, monkeypatch, source):
    monkeypatch.setattr(arrivals, "_TICK_ENTRIES", 4)
    names = [f"{number:02}.txt" for number in range(10)]
    for name in names:
        write(home / "inbox" / name, f"the words of {name}")
    if source == "list":
        watched = tmp_path / "list.csv"
        pd.DataFrame({"uri": [str(home / "inbox" / name) for name in names]}).to_csv(watched, index=False)
        monkeypatch.setenv("FINGERPRINT_WATCH_LIST", str(watched))
        get_settings.cache_clear()
    found, number = ticks(tick, inbox_sensor if source == "folder" else list_sensor, 5)
    assert number == 3
    batches = [Path(each.uri).name for batch in dict.fromkeys(found) for each in Catalog(home).members(batch)]
    assert sorted(batches) == names


def test_a_tick_ends_in_time_however_long_a_listing_takes(home, tick, tmp_path, monkeypatch):
    """A hundred entries a second, of which there is no end, make a tick of half a second."""
    monkeypatch.setattr(arrivals, "_TICK_SECONDS", 0.5)

    def endless(source, fetcher=None, *, after=""):
        number = 0
        while True:
            time.sleep(0.01)
            number += 1
            yield Listed(f"s3://bucket/in/{number:09}.txt", validator="e")

    monkeypatch.setattr(arrivals, "expand", endless)
    monkeypatch.setenv("FINGERPRINT_WATCH_OBJECTS", "s3://bucket/in/")
    get_settings.cache_clear()
    started = time.monotonic()
    result = tick(objects_sensor)
    assert time.monotonic() - started < 10
    assert Pass.of(result.cursor).started
    assert 0 < Pass.of(result.cursor).at == sum(batch.size for batch in Catalog(home).batches())


@contextmanager
def listing_server(rows: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
    """A web server of one list, by whose ETag the client learns whether it has changed; its address and what it did."""
    asked: list[str] = []

    def answer(request: Handler) -> None:
        changed = request.headers.get("If-None-Match") != rows["etag"]
        status = 200 if changed else 304
        asked.append(f"{request.path} {status}")
        request.send(rows["body"].encode() if changed else b"", status, ETag=rows["etag"])

    with serving(answer) as server:
        yield server.base, asked


def test_a_list_behind_a_web_address_is_read_when_it_has_changed(home, tick, monkeypatch):
    monkeypatch.setenv("FINGERPRINT_ALLOWED_NETWORKS", "127.0.0.1")
    rows = {"etag": '"1"', "body": "uri,owner\na.txt,me\n../b.txt,you\n"}
    with listing_server(rows) as (base, asked):
        monkeypatch.setenv("FINGERPRINT_WATCH_LIST", f"{base}/lists/today.csv")
        get_settings.cache_clear()
        first = tick(list_sensor)
        assert requested(first) == ["text-000001"]
        members = Catalog(home).members("text-000001")
        assert [each.uri for each in members] == [f"{base}/lists/a.txt", f"{base}/b.txt"]
        assert members[0].metadata == {"owner": "me"}
        assert isinstance(tick(list_sensor, first.cursor), dg.SkipReason)
        Catalog(home).stored("text-000001", "any")
        rows |= {"etag": '"2"', "body": "uri,owner\na.txt,me\nc.txt,me\n"}
        assert requested(tick(list_sensor, first.cursor)) == ["text-000002"]
        assert [(each.uri, each.removed) for each in Catalog(home).changes()] == [(f"{base}/b.txt", True)]
        assert asked == [f"/lists/today.csv {status}" for status in (200, 304, 200)]


@pytest.mark.parametrize("row", ["file:///etc/passwd", "zip+file:///a.zip!/b.txt"])
def test_a_list_from_elsewhere_names_no_files_of_this_machine(home, tick, monkeypatch, row):
    monkeypatch.setenv("FINGERPRINT_ALLOWED_NETWORKS", "127.0.0.1")
    with listing_server({"etag": '"1"', "body": f"uri\n{row}\n"}) as (base, _):
        monkeypatch.setenv("FINGERPRINT_WATCH_LIST", f"{base}/lists/today.csv")
        get_settings.cache_clear()
        assert requested(tick(list_sensor)) == []
    assert Catalog(home).batches() == []


def test_objects_below_a_prefix_become_batches_and_their_etags_tell_changes(home, tick, s3_bucket, monkeypatch):
    pytest.importorskip("obstore")
    for number in range(5):
        s3_bucket.put_object(Key=f"in/{number}.txt", Body=f"the words of {number}".encode())
    monkeypatch.setenv("FINGERPRINT_WATCH_OBJECTS", "s3://bucket/in/")
    monkeypatch.setattr(arrivals, "_TICK_ENTRIES", 2)
    get_settings.cache_clear()
    found, number = ticks(tick, objects_sensor, 5)
    assert number == 3
    batches = list(dict.fromkeys(found))
    assert [each.uri for batch in batches for each in Catalog(home).members(batch)] == [
        f"s3://bucket/in/{number}.txt" for number in range(5)
    ]
    for batch in batches:
        Catalog(home).stored(batch, "any")
    s3_bucket.put_object(Key="in/3.txt", Body=b"other words")
    s3_bucket.Object("in/4.txt").delete()
    monkeypatch.setattr(arrivals, "_TICK_ENTRIES", 100)
    (changed,) = requested(tick(objects_sensor))
    assert [each.uri for each in Catalog(home).members(changed)] == ["s3://bucket/in/3.txt"]
    assert [each.uri for each in Catalog(home).changes() if each.removed] == ["s3://bucket/in/4.txt"]


def test_sensors_and_schedules_are_part_of_the_code_location(home):
    definitions = build_definitions(get_settings())
    dg.Definitions.validate_loadable(definitions)
    names = {sensor.name for sensor in definitions.sensors or []}
    assert names == {
        "follow_sensor",
        "inbox_sensor",
        "list_sensor",
        "objects_sensor",
        "rescan_runs_sensor",
        "watch_sensor",
    }
    assert {schedule.name for schedule in definitions.schedules or []} == {"rescan_schedule", "maintenance_schedule"}
