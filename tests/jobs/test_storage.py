"""Dagster's records, kept through connections that stay open."""

import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage

from fingerprint_dagster.assets.batches import add_partitions
from fingerprint_dagster.jobs.instance import open_instance
from fingerprint_dagster.settings import get_settings


@pytest.fixture
def instance(home):
    with open_instance(get_settings()) as opened:
        assert opened.event_log_storage.__class__.__module__ == "fingerprint_dagster.jobs.storage"
        yield opened


def say(instance: dg.DagsterInstance, number: int) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization("hash", partition=f"image-{number}"))


def said(instance: dg.DagsterInstance) -> set[str]:
    return set(instance.get_materialized_partitions(dg.AssetKey("hash")))


def test_an_index_that_is_written_to_stays_open(instance, home: Path, monkeypatch: pytest.MonkeyPatch):
    say(instance, 0)
    opened: list[str] = []
    connect = sqlite3.dbapi2.connect
    monkeypatch.setattr(
        sqlite3.dbapi2, "connect", lambda path, *rest, **named: opened.append(path) or connect(path, *rest, **named)
    )
    for number in range(1, 5):
        say(instance, number)
    assert said(instance) == {f"image-{number}" for number in range(5)}
    assert not [path for path in opened if path.endswith("index.db")]


def test_the_file_of_a_run_changes_with_every_event(instance, home: Path):
    """By that the UI sees that there is something new to show."""
    runs = [instance.create_run_for_job(dg.GraphDefinition("nothing").to_job()) for _ in range(2)]
    seen = set()
    for run in [*runs, *runs]:
        instance.report_engine_event("something happened", run)
        seen.add((home / "dagster" / "history" / "runs" / f"{run.run_id}.db").stat().st_mtime_ns)
    assert len(seen) == 4
    assert [len(instance.all_logs(run.run_id)) for run in runs] == [2, 2]


def test_any_number_of_batches_become_partitions_at_once(instance):
    names = [f"image-{number}" for number in range(35_000)]  # SQLite takes no 32,767 values in a statement.
    add_partitions(instance, names[:20_000])
    add_partitions(instance, names)
    assert set(instance.get_dynamic_partitions("batches")) == set(names)


def test_other_programs_of_dagster_read_the_same_files(instance, home: Path):
    say(instance, 1)
    (home / "plain").mkdir()
    (home / "plain" / "dagster.yaml").write_text(f"storage: {{sqlite: {{base_dir: '{home / 'dagster'}'}}}}\n")
    with dg.DagsterInstance.from_config(str(home / "plain")) as plain:
        assert type(plain.event_log_storage) is SqliteEventLogStorage
        assert said(plain) == {"image-1"}
        say(plain, 2)
    assert said(instance) == {"image-1", "image-2"}


def test_threads_and_forks_have_connections_of_their_own(instance, home: Path):
    say(instance, 0)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: say(instance, number), range(1, 9)))
    child = os.fork()
    if child == 0:
        say(instance, 9)
        os._exit(0 if len(said(instance)) == 10 else 1)
    assert os.waitpid(child, 0)[1] == 0
    say(instance, 10)
    assert len(said(instance)) == 11
    with sqlite3.connect(home / "dagster" / "history" / "runs" / "index.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
