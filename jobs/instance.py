"""The local Dagster instance: one under the home folder, made on first use, or the one that DAGSTER_HOME names."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import dagster as dg
from filelock import FileLock

from fingerprint_dagster.durable import write_durably
from fingerprint_dagster.settings import Settings

RUNNER_TAG = ".dagster/fingerprint_runner"  # The UI shows no tags that begin so.
DAGSTER_YAML = """\
# Made by fingerprint_dagster; yours to change. https://docs.dagster.io/deployment/oss/dagster-yaml
telemetry: {enabled: false}
nux: {enabled: false}
run_launcher: {module: fingerprint_dagster.jobs.launcher, class: WarmRunLauncher}
concurrency:
  runs: {max_concurrent_runs: %(runs)d}
  pools: {granularity: op}
run_queue: {dequeue_interval_seconds: 1}
run_monitoring: {enabled: true, poll_interval_seconds: 15, free_slots_after_run_end_seconds: 30}
run_retries: {enabled: true, max_retries: 2, retry_on_asset_or_op_failure: false}
"""
SQLITE = """\
storage:
  custom: {module: fingerprint_dagster.jobs.storage, class: HomeStorage}
"""

# The same as in the checkout: Dagster remembers the state of sensors and schedules under the location's name.
WORKSPACE_YAML = """\
load_from:
  - python_module: {module_name: fingerprint_dagster.definitions, location_name: fingerprint_dagster}
"""


def dagster_home(settings: Settings) -> Path:
    """The folder of the Dagster instance: DAGSTER_HOME if it is set, else `dagster` in the home."""
    return Path(os.environ.get("DAGSTER_HOME") or settings.home / "dagster")


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """The instance of these settings, made if need be."""
    home = dagster_home(settings)
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / ".lock"):  # Two processes that make Dagster's databases at once break each other's.
        return _open(home, settings)


def _open(home: Path, settings: Settings) -> dg.DagsterInstance:
    for name, text in (
        ("dagster.yaml", DAGSTER_YAML % {"runs": settings.run_count} + SQLITE),
        ("workspace.yaml", WORKSPACE_YAML),
    ):
        if not (home / name).exists():
            write_durably(home / name, text)
    return dg.DagsterInstance.from_config(str(home))


def runner_identity() -> str:
    """Which process of which machine this is; see `identity_of`."""
    return identity_of(os.getpid())


def identity_of(pid: int) -> str:
    """A process of this machine as `host/pid/start`. The start tells a pid from its next owner."""
    return f"{socket.gethostname()}/{pid}/{_start_of(pid)}"


def is_running(runner: str) -> bool:
    """Whether the process of that `runner_identity`, of this machine, still runs."""
    _, pid, start = runner.rsplit("/", 2)
    return _start_of(int(pid)) == start


def end_dead_runs(instance: dg.DagsterInstance) -> int:
    """Mark as failed the runs whose runner on this machine is gone, and free their pool slots; returns their number.

    A runner that is killed outright, or loses its power, cannot report the end of its run. Dagster would show it as
    started for ever, or as never started, and let no other run have the slot it held.
    """
    unfinished = [
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.CANCELING,
    ]
    ended = 0
    for run in instance.get_runs(dg.RunsFilter(statuses=unfinished)):
        runner = run.tags.get(RUNNER_TAG, "")
        if runner.startswith(f"{socket.gethostname()}/") and not is_running(runner):
            instance.report_run_failed(run, f"the process of this run is gone ({runner})")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            ended += 1
    return ended


def _start_of(pid: int) -> str:
    """When a process was started, in a unit of the system's own; empty where there is no such process, or only its
    name is left because nobody has asked yet how it ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        pass
    else:
        return "" if state in ("Z", "X") else fields[18]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    return "unknown"  # A system without /proc.
