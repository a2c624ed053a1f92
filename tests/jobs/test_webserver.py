"""The real Dagster webserver and daemon on a home: what a person does in the UI, done through its GraphQL API."""

import sys
from pathlib import Path

import pytest
from running import CHECKOUT, Webserver, environment, fingerprint, free_port, wait_until, webserver

from fingerprint_dagster.catalog import Catalog
from fingerprint_dagster.index.store import open_store
from fingerprint_dagster.pipeline import fetcher_of
from fingerprint_dagster.settings import get_settings
from fingerprint_dagster.stages import STAGES

pytestmark = pytest.mark.slow

SELECTOR = {"repositoryLocationName": "fingerprint_dagster", "repositoryName": "__repository__"}
LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}"""
BACKFILL = """
mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
  }
}"""
RUNS = "query ($filter: RunsFilter) { runsOrError(filter: $filter) { ... on Runs { results { runId status } } } }"
BACKFILL_STATUS = (
    "query ($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"
)
ASSETS = """
{ assetNodes { assetKey { path } description groupName kinds isPartitioned owners { ... on TeamAssetOwner { team } }
  pools codeVersion: opVersion hasAssetChecks } }"""
START_SENSOR = """
mutation ($selector: SensorSelector!) {
  startSensor(sensorSelector: $selector) { __typename ... on PythonError { message } }
}"""
STATUS = """
query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) {
  ... on AssetNode { partitionStats { numMaterialized numPartitions numFailed } } } }"""


def paths(*stages: str) -> list[dict[str, list[str]]]:
    return [{"path": [stage]} for stage in stages]


def launch(server: Webserver, batch: str) -> str:
    """Materialize all five assets of a batch; the run's id."""
    params = {
        "selector": {**SELECTOR, "jobName": "fingerprint", "assetSelection": paths(*STAGES)},
        "mode": "default",
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": batch}]},
    }
    answer = server.ask(LAUNCH, params=params)["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return str(answer["run"]["runId"])


def statuses(server: Webserver, **run_filter: object) -> list[str]:
    found = server.ask(RUNS, filter=run_filter)["runsOrError"]["results"]
    return [run["status"] for run in found]


def write_texts(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.txt").write_text(f"text number {number}: " + f"word{number} " * 50)
    return folder


def materialized(server: Webserver, stage: str) -> int:
    return int(server.ask(STATUS, key={"path": [stage]})["assetNodeOrError"]["partitionStats"]["numMaterialized"])


def test_the_ui_materialises_backfills_and_watches_the_inbox(home: Path, tmp_path: Path):
    first = fingerprint(home, "run", write_texts(tmp_path / "first", 2))
    assert first.returncode == 0, first.stdout + first.stderr
    registered = Catalog(home).register(
        [str(write_texts(tmp_path / "more", 6))], fetcher_of(get_settings()), batch_sizes={"text": 2}
    )
    batches = [batch.name for batch in registered.batches]
    assert len(batches) == 3
    add_partitions(home, batches)
    (home / "inbox").mkdir()
    (home / "inbox" / "arrived.txt").write_text("a text that arrives by itself: " + "arrival " * 50)

    port = free_port()
    command = [sys.executable, "-m", "fingerprint_dagster", "ui", "--port", str(port)]
    with webserver(command, environment(home), tmp_path, port, tmp_path / "ui.log") as server:
        answer = server.ask(START_SENSOR, selector={**SELECTOR, "sensorName": "inbox_sensor"})["startSensor"]
        assert answer["__typename"] == "Sensor", answer

        assert materialized(server, "store") == 1  # What the command line ran shows here.
        run = launch(server, batches[0])
        wait_until(lambda: statuses(server, runIds=[run])[0] in ("SUCCESS", "FAILURE"), "the run to end")
        assert statuses(server, runIds=[run]) == ["SUCCESS"]

        params = {"assetSelection": paths(*STAGES), "partitionNames": batches[1:]}
        answer = server.ask(BACKFILL, params=params)["launchPartitionBackfill"]
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        backfill = answer["backfillId"]
        ended = ("COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED")

        def status() -> str:
            return str(server.ask(BACKFILL_STATUS, id=backfill)["partitionBackfillOrError"]["status"])

        wait_until(lambda: status() in ended, "the backfill to end")
        assert status() == "COMPLETED_SUCCESS"
        tags = [{"key": "dagster/backfill", "value": backfill}]
        assert statuses(server, tags=tags) == ["SUCCESS", "SUCCESS"]  # One run for each batch.

        # Meanwhile the sensor has found the file in the inbox, and asked for its run.
        wait_until(lambda: materialized(server, "store") == 5, "the file in the inbox to be fingerprinted")
        assert len(statuses(server, tags=[{"key": "dagster/sensor_name", "value": "inbox_sensor"}])) == 1
    assert open_store(get_settings().store_uri).count() == {"text": 9}


def test_plain_dagster_dev_in_the_checkout_opens_the_same_instance(home: Path, tmp_path: Path):
    done = fingerprint(home, "run", write_texts(tmp_path / "texts", 2))
    assert done.returncode == 0, done.stdout + done.stderr
    port = free_port()
    command = [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "--port", str(port)]
    with webserver(command, environment(home), CHECKOUT, port, tmp_path / "dev.log") as server:
        assert statuses(server) == ["SUCCESS"]
        assert materialized(server, "store") == 1


def test_the_assets_are_described_for_a_reader(home: Path, tmp_path: Path):
    fingerprint(home, "cache", "stats")
    port = free_port()
    command = [sys.executable, "-m", "fingerprint_dagster", "ui", "--port", str(port)]
    with webserver(command, environment(home), tmp_path, port, tmp_path / "ui.log") as server:
        nodes = {node["assetKey"]["path"][-1]: node for node in server.ask(ASSETS)["assetNodes"]}
    groups = dict.fromkeys(STAGES, "fingerprint") | {"matches": "duplicates", "duplicates": "duplicates"}
    assert {name: node["groupName"] for name, node in nodes.items()} == groups | {"sources": "collection"}
    for name, node in nodes.items():
        assert node["description"]
        assert node["isPartitioned"] == (name not in ("duplicates", "sources"))
        assert node["kinds"]
        assert node["owners"] == [{"team": "fingerprint"}]
    assert nodes["embed"]["pools"] == ["embed"]
    assert nodes["store"]["hasAssetChecks"]
    assert nodes["hash"]["hasAssetChecks"]
    assert nodes["matches"]["hasAssetChecks"]


def add_partitions(home: Path, batches: list[str]) -> None:
    from fingerprint_dagster.assets.batches import BATCHES
    from fingerprint_dagster.jobs.instance import open_instance

    with open_instance(get_settings()) as instance:
        instance.add_dynamic_partitions(BATCHES.name or "", batches)
