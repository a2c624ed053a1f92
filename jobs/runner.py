"""The processes that execute runs, one after another: `python -m fingerprint_dagster.jobs.runner FD,FD,...`.

Everything is imported once; then a runner is forked for each of the connections, which are inherited sockets. A runner
reads a batch name a line, executes the job for it on the local instance, and answers each with one JSON line. Its
decoders, its models and its connections to the memo serve one run after another. An interrupt ends the run in hand the
way Dagster does it; a closed connection ends the runner.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from fingerprint_dagster.jobs.warm import leave  # first: it sets variables, and loads what a fork may find loaded

import dagster as dg  # isort: skip

from fingerprint_dagster.assets.batches import COUNTS, RETRY_TAG, add_partitions
from fingerprint_dagster.definitions import build_resources, resolved_job
from fingerprint_dagster.jobs.instance import RUNNER_TAG, end_dead_runs, open_instance, runner_identity
from fingerprint_dagster.settings import get_settings
from fingerprint_dagster.workers import keep_freed_memory

_QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}


def run_batch(instance: dg.DagsterInstance, batch: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """Execute the job for one batch; the run's id, whether it succeeded, and the first error if not."""
    add_partitions(instance, [batch])
    result = dg.execute_job(
        dg.reconstructable(resolved_job), instance, run_config=_QUIET, tags={"dagster/partition": batch, **tags}
    )
    events = result.all_events
    stages = {}
    for event in events:
        if event.is_step_materialization and event.asset_key is not None:
            metadata = event.materialization.metadata
            stages[event.asset_key.path[-1]] = {word: metadata[name].value for name, word in COUNTS.items()}
    return {
        "batch": batch,
        "run_id": result.run_id,
        "success": result.success,
        "error": next((_error_of(event) for event in events if event.is_failure), ""),
        "stages": stages,
    }


def _error_of(event: dg.DagsterEvent) -> str:
    """What a failure event says, with the stack trace of the step where there is one."""
    data = event.event_specific_data
    error = getattr(data, "error", None)
    return error.to_string() if error is not None else event.message or event.event_type_value


def _serve(connection: socket.socket, *, retry: bool, first: bool) -> int:
    """The life of a runner. first: it also ends the runs whose runner was killed."""
    settings = get_settings()
    keep_freed_memory()
    # While this process has one thread: then the decoders are forked from it.
    build_resources(settings)["pipeline"].engine().start()  # type: ignore[attr-defined]
    tags = {RUNNER_TAG: runner_identity()} | ({RETRY_TAG: "true"} if retry else {})
    try:
        with connection.makefile("rw", encoding="utf-8") as lines, open_instance(settings) as instance:
            if first:
                end_dead_runs(instance)
            while line := lines.readline():
                lines.write(json.dumps(run_batch(instance, line.strip(), tags)) + "\n")
                lines.flush()
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        return 130
    return 0


def main(connections: Sequence[int], *, retry: bool) -> int:
    """Fork a runner for each connection and wait for the end of all."""
    for number, descriptor in enumerate(connections):
        if os.fork() == 0:
            for other in set(connections) - {descriptor}:
                os.close(other)
            leave(_serve(socket.socket(fileno=descriptor), retry=retry, first=number == 0))
    for descriptor in connections:
        os.close(descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # It ends the runners, and they end this.
    codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in connections]
    return next((code if code > 0 else 128 - code for code in codes if code), 0)


if __name__ == "__main__":
    leave(main([int(each) for each in sys.argv[1].split(",")], retry="--retry" in sys.argv[2:]))
