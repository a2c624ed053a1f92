"""What goes on by itself: re-scans, the runs they ask for, keeping the home tidy, and assets that follow."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sources.servers import Handler, serving

from fingerprint_dagster.assets import STAGE_ASSETS
from fingerprint_dagster.assets.batches import BATCHES, quarantine_checks
from fingerprint_dagster.assets.sources import sources
from fingerprint_dagster.catalog import Batch, Catalog
from fingerprint_dagster.content import Content, Failure
from fingerprint_dagster.definitions import build_definitions, build_resources
from fingerprint_dagster.jobs import maintenance
from fingerprint_dagster.jobs.maintenance import maintenance_job, nothing_waits, rescan_runs_sensor
from fingerprint_dagster.pipeline import fetcher_of, memo_of
from fingerprint_dagster.settings import get_settings
from fingerprint_dagster.stages import Entry, StageResult


def some(*names: str) -> dict[str, Any]:
    return {name: build_resources(get_settings())[name] for name in names}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def rescan() -> dict[str, Any]:
    """Materialize the asset; the numbers in its metadata."""
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([sources], resources=some("catalog", "fetcher"), instance=instance)
        metadata = result.asset_materializations_for_node("sources")[0].metadata
        return {name: value.value for name, value in metadata.items()}


def wanted(cursor: str | None = None) -> dg.SensorResult | dg.SkipReason:
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance, cursor=cursor, resources=some("catalog"))
        return rescan_runs_sensor(context)  # type: ignore[return-value]


def test_a_rescan_finds_what_is_new_changed_and_gone_and_asks_for_runs(home, tmp_path):
    folder = tmp_path / "folder"
    for name in ("stays", "changes", "goes"):
        write(folder / f"{name}.txt", f"the words of {name}")
    gone = write(tmp_path / "gone" / "x.txt", "words that go").parent
    register = Catalog(home)
    register.register([str(folder), str(gone)], fetcher_of(get_settings()))
    register.stored("text-000001", "any")
    register.stored("text-000002", "any")
    nothing = rescan()
    assert (nothing["new"], nothing["changed"], nothing["removed"], nothing["runs_for_new_batches"]) == (0, 0, 0, 0)
    assert isinstance(wanted(), dg.SkipReason)

    (gone / "x.txt").unlink()
    gone.rmdir()
    (folder / "goes.txt").unlink()
    write(folder / "changes.txt", "other words")
    os.utime(folder / "changes.txt", (1, 1))
    write(folder / "comes.txt", "new words")
    found = rescan()
    assert (found["new"], found["changed"], found["removed"], found["unread"]) == (1, 1, 1, 1)
    assert found["runs_for_new_batches"] == 1
    (removed,) = found["removed_contents"].records
    assert removed.data["content"] == str(folder / "goes.txt")
    result = wanted()
    assert isinstance(result, dg.SensorResult)
    (request,) = result.run_requests or []
    newest = register.batches()[-1].name
    assert request.partition_key == newest
    assert {Path(each.uri).name for each in register.members(newest)} == {"changes.txt", "comes.txt"}
    assert isinstance(wanted(result.cursor), dg.SkipReason)


def test_a_folder_that_cannot_be_read_marks_nothing_as_gone(home, tmp_path):
    """A disk that is not mounted is no reason to believe that all is gone."""
    folder = write(tmp_path / "disk" / "a.txt", "some words").parent
    Catalog(home).register([str(folder)], fetcher_of(get_settings()))
    folder.rename(tmp_path / "elsewhere")
    assert (rescan()["unread"], Catalog(home).changes()) == (1, [])


def test_runs_are_asked_for_in_parts(home, tmp_path, monkeypatch):
    monkeypatch.setattr(maintenance, "_REQUESTS_A_TICK", 2)
    for number in range(3):
        write(tmp_path / "folder" / f"{number}.txt", f"the words of {number}")
    register = Catalog(home)
    batches = register.register([str(tmp_path / "folder")], fetcher_of(get_settings()), batch_sizes={"text": 1}).batches
    names = [batch.name for batch in batches]
    register.want([*names, names[0]])
    cursor, asked = None, []
    for _ in range(2):
        result = wanted(cursor)
        assert isinstance(result, dg.SensorResult)
        asked += [(request.partition_key, request.run_key) for request in result.run_requests or []]
        cursor = result.cursor
    assert [batch for batch, _ in asked] == [*names, names[0]]
    assert len({key for _, key in asked}) == 4, "the same batch may be asked for again"


@contextmanager
def page(answer: dict[str, Any]) -> Iterator[str]:
    """A web page whose text and status the test chooses; its address."""

    def send(request: Handler) -> None:
        request.send(answer["body"].encode(), answer["status"], Content_Type="text/plain")

    with serving(send) as server:
        yield f"{server.base}/page.txt"


def test_content_on_the_web_that_changes_becomes_a_version_and_is_marked_when_it_is_gone(home, monkeypatch):
    monkeypatch.setenv("FINGERPRINT_ALLOWED_NETWORKS", "127.0.0.1")
    get_settings.cache_clear()
    answer = {"status": 200, "body": "the first words of a page that will be changed"}
    with page(answer) as uri, dg.DagsterInstance.ephemeral() as instance:
        Catalog(home).register([uri], fetcher_of(get_settings()))
        instance.add_dynamic_partitions(BATCHES.name or "", ["text-000001"])

        def run() -> dict[str, Any]:
            result = dg.materialize(
                STAGE_ASSETS, resources=build_resources(get_settings()), instance=instance, partition_key="text-000001"
            )
            metadata = result.asset_materializations_for_node("store")[0].metadata
            return {name: value.value for name, value in metadata.items()}

        assert run()["changed"] == 0
        assert rescan()["runs_to_ask_the_web"] == 1
        answer["body"] = "these are quite other words on the same page"
        again = run()
        assert (again["changed"], again["changed_contents"].records[0].data["content"]) == (1, uri)
        assert [(each.version, each.removed) for each in Catalog(home).changes()] == [(2, False)]
        answer["status"] = 404
        run()
        assert [(each.uri, each.removed) for each in Catalog(home).changes()] == [(uri, False), (uri, True)]
        assert rescan()["runs_to_ask_the_web"] == 1, "it may come back"
        assert Catalog(home).changes()[-1].removed
        answer["status"] = 200
        run()
        assert [each.removed for each in Catalog(home).changes()] == [False]


def test_maintenance_compacts_evicts_and_prunes(home, monkeypatch):
    monkeypatch.setenv("FINGERPRINT_MEMO_TTL_SECONDS", "0.001")
    monkeypatch.setenv("FINGERPRINT_QUARANTINE_KEEP_DAYS", "0.0000001")
    get_settings.cache_clear()
    memo_of(get_settings()).put_many("decode", [("0" * 32, b"a value")])
    register = Catalog(home)
    register.record("", [Failure("lost", "file:///lost.bin", "register", "no content type", False)])
    time.sleep(0.05)
    with dg.DagsterInstance.ephemeral() as instance:
        result = maintenance_job.execute_in_process(
            resources=some("fingerprints", "memo", "catalog"), instance=instance
        )
        told = {
            event.step_key: {name: value.value for name, value in event.step_output_data.metadata.items()}
            for event in result.all_events
            if event.is_successful_output
        }
    assert told["evict_memo"]["entries_removed"] == 1
    assert told["prune_quarantine"] == {"records_removed": 1, "records_left": 0}
    assert told["compact_store"]["seconds"] >= 0
    assert (
        memo_of(get_settings()).usage().get("decode") is None or not memo_of(get_settings()).usage()["decode"].entries
    )


def test_what_can_be_retried_stays_in_quarantine(home, tmp_path):
    register = Catalog(home)
    register.register([str(write(tmp_path / "a.txt", "some words"))], fetcher_of(get_settings()))
    (content,) = register.members("text-000001")
    register.record("text-000001", [Failure(content.content_id, content.uri, "decode", "damaged", False)])
    assert register.prune(time.time() + 1) == 0
    assert len(register.quarantined()) == 1


def test_a_batch_that_waits_for_a_day_fails_the_freshness_check(home, tmp_path, monkeypatch):
    register = Catalog(home)
    register.register([str(write(tmp_path / "a.txt", "some words"))], fetcher_of(get_settings()))
    catalog = some("catalog")["catalog"]
    assert nothing_waits(catalog).passed  # type: ignore[union-attr]
    now = time.time()
    monkeypatch.setattr(maintenance.time, "time", lambda: now + 90_000)
    late = nothing_waits(catalog)
    assert not late.passed  # type: ignore[union-attr]
    assert late.metadata["oldest"].value == "text-000001"  # type: ignore[union-attr]
    register.stored("text-000001", "any")
    assert nothing_waits(catalog).passed  # type: ignore[union-attr]


@pytest.mark.parametrize(("failed", "passed"), [(0, True), (1, True), (2, False)])
def test_a_warning_says_when_more_of_a_batch_fail_than_usual(failed, passed):
    entries = tuple(Entry(Content(str(number), f"file:///{number}", "text", {})) for number in range(20))
    in_quarantine = [(Batch("worst", "text", 20), failed)] if failed else []
    checks = quarantine_checks("well", StageResult("store", entries, 0, 0, 0.0), in_quarantine, 0.05)
    results = {each.check_name: each for each in checks}
    assert results["quarantine_rate"].passed is passed
    assert results["quarantine_rate"].severity == dg.AssetCheckSeverity.WARN
    assert results["nothing_in_quarantine"].passed is (failed == 0)


def test_assets_follow_a_new_result_and_not_a_repetition(home):
    """Materialized by hand: each asset reports the data version that the test gives it."""
    definitions = build_definitions(get_settings())
    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions(BATCHES.name or "", ["text-000001", "text-000002"])
    state: dict[str, Any] = {"cursor": None}

    def made(asset: str, version: str, batch: str = "text-000001") -> None:
        tags = {"dagster/data_version": version}
        instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=batch, tags=tags))

    def follow() -> set[tuple[str, str]]:
        result = dg.evaluate_automation_conditions(
            definitions,
            instance=instance,
            asset_selection=dg.AssetSelection.assets(*STAGE_ASSETS),
            cursor=state["cursor"],
        )
        state["cursor"] = result.cursor
        return {
            (asset.key.path[-1], batch)
            for asset in STAGE_ASSETS
            for batch in ("text-000001", "text-000002")
            if batch in {str(each) for each in result.get_requested_partitions(asset.key)}
        }

    for batch in ("text-000001", "text-000002"):
        for asset in STAGE_ASSETS:
            made(asset.key.path[-1], "1", batch)
    follow()
    assert follow() == set()
    made("download", "1")
    assert follow() == set(), "the same result again"
    made("download", "2")
    assert follow() == {(stage, "text-000001") for stage in ("decode", "embed", "hash", "store")}
