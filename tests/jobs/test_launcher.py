"""Runs that the daemon launches: forked from a warm process, by priority, interrupted, and found out when dead."""

import os
import signal
import sys
from pathlib import Path

import dagster as dg
import pytest
from running import Webserver, environment, free_port, wait_until, webserver
from test_webserver import SELECTOR, add_partitions, statuses

from fingerprint_dagster.catalog import Catalog
from fingerprint_dagster.jobs.instance import RUNNER_TAG, is_running, open_instance
from fingerprint_dagster.pipeline import fetcher_of
from fingerprint_dagster.settings import get_settings
from fingerprint_dagster.stages import STAGES

pytestmark = pytest.mark.slow

LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) { __typename ... on LaunchRunSuccess { run { runId } } }
}"""
RUNS = """
query ($filter: RunsFilter) {
  runsOrError(filter: $filter) { ... on Runs { results { runId startTime tags { key value } } } }
}"""
TERMINATE = "mutation ($id: String!) { terminateRun(runId: $id) { __typename } }"


def launch(server: Webserver, batch: str, priority: int = 0) -> str:
    tags = {"dagster/partition": batch, "dagster/priority": str(priority)}
    params = {
        "selector": {**SELECTOR, "jobName": "fingerprint", "assetSelection": [{"path": [stage]} for stage in STAGES]},
        "mode": "default",
        "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
    }
    return str(server.ask(LAUNCH, params=params)["launchRun"]["run"]["runId"])


def runner_of(run: str) -> str:
    """The process of a run, in a tag that the UI does not show."""
    with open_instance(get_settings()) as instance:
        found = instance.get_run_by_id(run)
        return found.tags.get(RUNNER_TAG, "") if found else ""


def retry_of(run: str) -> str:
    """The run that tries it again, if there is one."""
    with open_instance(get_settings()) as instance:
        found = instance.get_runs(dg.RunsFilter(tags={"dagster/parent_run_id": run}))
        return found[0].run_id if found else ""


def about(server: Webserver, run: str) -> dict[str, object]:
    (found,) = server.ask(RUNS, filter={"runIds": [run]})["runsOrError"]["results"]
    return {"start": found["startTime"], **{tag["key"]: tag["value"] for tag in found["tags"]}}


def test_an_urgent_batch_overtakes_and_runs_are_interrupted_and_found_dead(waveform, home: Path, tmp_path: Path):
    folder = tmp_path / "waves"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.wfm").write_text(f"WAVEFORM\n{number} 2 3{' hang' if number == 0 else ''}\n")
    registered = Catalog(home).register([str(folder)], fetcher_of(get_settings()), batch_sizes={"waveform": 1})
    hanging, *batches = (batch.name for batch in registered.batches)
    variables = environment(home, FINGERPRINT_RUNS="1", PYTHONPATH=os.environ["PYTHONPATH"])
    add_partitions(home, [hanging, *batches])
    yaml = home / "dagster" / "dagster.yaml"
    yaml.write_text(
        yaml.read_text()
        .replace("poll_interval_seconds: 15", "poll_interval_seconds: 2")
        .replace("max_concurrent_runs: 2", "max_concurrent_runs: 1")
        .replace("max_retries: 2", "max_retries: 1")
    )
    port = free_port()
    command = [sys.executable, "-m", "fingerprint_dagster", "ui", "--port", str(port)]
    with webserver(command, variables, tmp_path, port, tmp_path / "ui.log") as server:
        first = launch(server, hanging)
        wait_until(lambda: waveform.count("decode") == 1, "the hanging content to be decoded")
        backfill = [launch(server, batch, -10) for batch in batches[:2]]
        urgent = launch(server, batches[2], 10)
        assert statuses(server, runIds=[*backfill, urgent]) == ["QUEUED"] * 3

        assert server.ask(TERMINATE, id=first)["terminateRun"]["__typename"] == "TerminateRunSuccess"
        wait_until(lambda: statuses(server, runIds=[first]) == ["CANCELED"], "the run to be interrupted")
        for run in (*backfill, urgent):
            wait_until(lambda run=run: statuses(server, runIds=[run]) == ["SUCCESS"], "the runs to end")
        starts = [about(server, run)["start"] for run in (urgent, *backfill)]
        assert starts == sorted(starts)  # type: ignore[type-var]
        assert waveform.warm("embed") == [True] * 3

        waveform.forget()
        killed = launch(server, hanging)
        wait_until(lambda: waveform.count("decode") == 1, "the hanging content to be decoded again")
        runner = runner_of(killed)
        assert is_running(runner)
        os.kill(int(runner.split("/")[1]), signal.SIGKILL)
        wait_until(lambda: statuses(server, runIds=[killed]) == ["FAILURE"], "the dead run to be found out")
        wait_until(lambda: retry_of(killed) and waveform.count("decode") == 2, "the dead run to be tried again")
        assert runner_of(retry_of(killed)) not in ("", runner)
        assert is_running(runner_of(retry_of(killed)))
        server.ask(TERMINATE, id=retry_of(killed))
