"""Sensors and schedule: what arrives becomes batches and run requests, once."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from fingerprint_dagster.assets.batches import BATCHES
from fingerprint_dagster.catalog import Catalog
from fingerprint_dagster.definitions import build_definitions, build_resources
from fingerprint_dagster.jobs.arrivals import inbox_sensor, list_sensor, rescan_schedule
from fingerprint_dagster.pipeline import fetcher_of
from fingerprint_dagster.settings import get_settings

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
    write(home / "inbox" / "a.txt", "half of", changed=time.time())
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


def test_the_schedule_looks_again_at_every_registered_source(home, tmp_path):
    instance = dg.DagsterInstance.local_temp(str(tmp_path))
    folder = tmp_path / "folder"
    write(folder / "a.txt", "some words")
    gone = tmp_path / "gone"
    write(gone / "x.txt", "words that go")
    settings = get_settings()
    Catalog(home).register([str(folder), str(gone)], fetcher_of(settings))
    Catalog(home).stored("text-000001", "any")
    (gone / "x.txt").unlink()
    gone.rmdir()

    def tick() -> object:
        resources = {name: build_resources(settings)[name] for name in ("catalog", "fetcher")}
        return rescan_schedule(dg.build_schedule_context(instance=instance, resources=resources))

    assert isinstance(tick(), dg.SkipReason)
    write(folder / "b.txt", "new words")
    (request,) = tick()  # type: ignore[misc]
    assert request.partition_key == "text-000002"
    assert instance.get_dynamic_partitions(BATCHES.name or "") == ["text-000002"]


def test_sensors_and_schedule_are_part_of_the_code_location(home):
    definitions = build_definitions(get_settings())
    dg.Definitions.validate_loadable(definitions)
    assert {sensor.name for sensor in definitions.sensors or []} == {"inbox_sensor", "list_sensor"}
    assert [schedule.name for schedule in definitions.schedules or []] == ["rescan_schedule"]
