"""The process that runs are forked from: `python -m fingerprint_dagster.jobs.run_server`. See `jobs.launcher`.

It imports everything once, reads an order a line from standard input (JSON: `run_id`, and `instance`, Dagster's own
reference to its instance), forks a process that executes that run, and answers with the identity of this process. It
ends with its input, and when for ten minutes no run was asked for: then its memory is free, and the next one starts
with the code as it is then.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import sys

from fingerprint_dagster.jobs.warm import leave  # first: it sets variables, and loads what a fork may find loaded

from dagster import DagsterInstance  # isort: skip
from dagster._cli.api import execute_run_command
from dagster._core.instance import InstanceRef
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import deserialize_value, serialize_value

from fingerprint_dagster.definitions import build_resources
from fingerprint_dagster.jobs.instance import RUNNER_TAG, identity_of, runner_identity
from fingerprint_dagster.settings import get_settings
from fingerprint_dagster.workers import keep_freed_memory

_IDLE_SECONDS = 600.0


def _execute(order: str) -> None:
    """Execute one run in this process, which was forked for it."""
    keep_freed_memory()
    # While this process has one thread: then the decoders are forked from it.
    build_resources(get_settings())["pipeline"].engine().start()  # type: ignore[attr-defined]
    told = json.loads(order)
    with DagsterInstance.from_ref(deserialize_value(told["instance"], InstanceRef)) as instance:
        run = instance.get_run_by_id(told["run_id"])
        assert run is not None
        if not run.tags.get(RUNNER_TAG):  # The daemon that should add it may have been killed a moment ago.
            instance.add_run_tags(run.run_id, {RUNNER_TAG: runner_identity()})
        arguments = ExecuteRunArgs(run.job_code_origin, told["run_id"], instance.get_ref())  # type: ignore[arg-type]
    execute_run_command.main([serialize_value(arguments)], standalone_mode=False)


def main() -> int:
    """Serve until the input closes or nothing has been asked for long."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ended = signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Nobody waits for the runs: the system clears them away.
    orders = sys.stdin.buffer.raw if hasattr(sys.stdin.buffer, "raw") else sys.stdin.buffer
    waiting = b""
    while True:
        with selectors.DefaultSelector() as selector:
            selector.register(orders, selectors.EVENT_READ)
            if not selector.select(_IDLE_SECONDS):
                return 0
        data = orders.read(65536)
        if not data:
            return 0
        *lines, waiting = (waiting + data).split(b"\n")
        for line in lines:
            child = os.fork()
            if child == 0:
                signal.signal(signal.SIGCHLD, ended)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, 0)
                os.dup2(null, 1)
                os.setsid()
                _execute(line.decode())
                leave(0)
            sys.stdout.write(identity_of(child) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
