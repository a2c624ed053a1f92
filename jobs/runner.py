"""One process that executes runs, one after another: `python -m fingerprint_dagster.jobs.runner`.

It reads a batch name a line from standard input, executes the job for it on the local instance, and answers each with
one JSON line on standard output. The fork server of its first run serves all the others. An interrupt ends the run in
hand the way Dagster does it; a closed input ends the process.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import sys
from collections.abc import Mapping
from multiprocessing import forkserver
from typing import Any

if __name__ == "__main__":
    gc.disable()  # Until all is imported; see jobs/warm.py.
    # The fork server's imports take seconds. They go on beside this process's own.
    multiprocessing.set_forkserver_preload(["fingerprint_dagster.jobs.warm"])
    forkserver.ensure_running()

import dagster as dg

from fingerprint_dagster.assets.batches import BATCHES, COUNTS, RETRY_TAG
from fingerprint_dagster.definitions import resolved_job
from fingerprint_dagster.jobs.instance import RUNNER_TAG, end_dead_runs, open_instance, runner_identity
from fingerprint_dagster.settings import get_settings

_QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}


def run_batch(instance: dg.DagsterInstance, batch: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """Execute the job for one batch; the run's id, whether it succeeded, and the first error if not."""
    instance.add_dynamic_partitions(BATCHES.name or "", [batch])
    with dg.execute_job(
        dg.reconstructable(resolved_job),
        instance,
        run_config=_QUIET,
        tags={"dagster/partition": batch, **tags},
    ) as result:
        events = result.all_events
        error = next((_error_of(event) for event in events if event.is_failure), "")
        stages = {}
        for event in events:
            if event.is_step_materialization and event.asset_key is not None:
                metadata = event.materialization.metadata
                stages[event.asset_key.path[-1]] = {word: metadata[name].value for name, word in COUNTS.items()}
        return {
            "batch": batch,
            "run_id": result.run_id,
            "success": result.success,
            "error": error,
            "stages": stages,
        }


def _error_of(event: dg.DagsterEvent) -> str:
    """What a failure event says, with the stack trace of the step where there is one."""
    data = event.event_specific_data
    error = getattr(data, "error", None)
    return error.to_string() if error is not None else event.message or event.event_type_value


def main() -> int:
    """Serve until standard input closes or an interrupt comes."""
    tags = {RUNNER_TAG: runner_identity()} | ({RETRY_TAG: "true"} if "--retry" in sys.argv[1:] else {})
    try:
        with open_instance(get_settings()) as instance:
            end_dead_runs(instance)
            while line := sys.stdin.readline():
                answer = run_batch(instance, line.strip(), tags)
                sys.stdout.write(json.dumps(answer) + "\n")
                sys.stdout.flush()
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        return 130
    return 0


if __name__ == "__main__":
    gc.freeze()
    gc.enable()
    sys.exit(main())
