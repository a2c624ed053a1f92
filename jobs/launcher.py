"""Dagster's run launcher for one machine: runs start in a moment, and one whose process was killed is found out."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any, Self

from dagster import DagsterRun
from dagster._core.errors import DagsterLaunchFailedError
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._serdes import ConfigurableClassData, serialize_value

from fingerprint_dagster.jobs.instance import RUNNER_TAG, is_running
from fingerprint_dagster.jobs.launch import workers_of_each
from fingerprint_dagster.settings import get_settings

_OUR_MODULE = "fingerprint_dagster.definitions"
# Imports take seconds, and many more on a machine that is busy.
_PATIENCE_SECONDS = 120.0


class WarmRunLauncher(DefaultRunLauncher):
    """Forks each run from a process that has imported everything (`jobs.run_server`), started when first needed.

    Runs outlive the daemon that launched them. Dagster's run monitoring can tell whether they still work: the process
    of each is named in a tag. Runs of other code locations are launched as Dagster does it by default.
    """

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(inst_data=inst_data)
        self._lock = threading.Lock()
        self._server: subprocess.Popen[str] | None = None

    @classmethod
    def config_type(cls) -> Any:
        """No options."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """The launcher that dagster.yaml names."""
        return cls(inst_data=inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the process of a run. Raises `DagsterLaunchFailedError` where none can be started."""
        run = context.dagster_run
        origin = context.job_code_origin
        if os.name != "posix" or origin is None or _OUR_MODULE not in origin.repository_origin.code_pointer.describe():
            super().launch_run(context)
            return
        if RUNNER_TAG in run.tags:  # Of the dead process of the run that this one tries again.
            self._instance.add_run_tags(run.run_id, {RUNNER_TAG: ""})
        order = json.dumps({"run_id": run.run_id, "instance": serialize_value(self._instance.get_ref())})
        with self._lock:
            runner = self._ask(order) or self._ask(order)  # It ends when idle, and may just have done so.
        if not runner:
            raise DagsterLaunchFailedError(  # type: ignore[no-untyped-call]
                "the process that runs are forked from does not start; its error is in the log"
            )
        self._instance.add_run_tags(run.run_id, {RUNNER_TAG: runner})
        self._run_ids.add(run.run_id)

    def _ask(self, order: str) -> str:
        """The identity of the process that was forked for the order; empty if there is no answer."""
        if self._server is None or self._server.poll() is not None:
            command = [sys.executable, "-m", "fingerprint_dagster.jobs.run_server"]
            pipe = subprocess.PIPE
            settings = get_settings()
            self._server = subprocess.Popen(
                command,
                stdin=pipe,
                stdout=pipe,
                env=os.environ | workers_of_each(settings, settings.run_count),
                text=True,
                start_new_session=True,
            )
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        try:
            self._server.stdin.write(order + "\n")
            self._server.stdin.flush()
        except OSError:
            self._server.wait()
            return ""
        with selectors.DefaultSelector() as selector:
            selector.register(self._server.stdout, selectors.EVENT_READ)
            answered = selector.select(_PATIENCE_SECONDS)
        answer = self._server.stdout.readline().strip() if answered else ""
        if not answer:
            self._server.kill()
            self._server.wait()
        return answer

    def terminate(self, run_id: str) -> bool:
        """Interrupt a run. False where it is not there any more."""
        run = self._instance.get_run_by_id(run_id) if self.has_instance else None
        if run is None or run.is_finished:
            return False
        runner = run.tags.get(RUNNER_TAG, "")
        if not _of_this_machine(runner):
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]
        self._instance.report_run_canceling(run)
        if not is_running(runner):
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(runner.split("/")[1]), signal.SIGINT)
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Runs whose process is gone are marked as failed by Dagster's run monitoring."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the process of a run still works; of another machine's processes nothing is known."""
        runner = run.tags.get(RUNNER_TAG, "")
        if _of_this_machine(runner) and not is_running(runner):
            return CheckRunHealthResult(WorkerStatus.FAILED, f"the process of this run is gone ({runner})")
        return CheckRunHealthResult(WorkerStatus.RUNNING)

    def dispose(self) -> None:
        """Let the process that runs are forked from end; runs go on."""
        if self._server is not None and self._server.stdin is not None:
            with contextlib.suppress(OSError):
                self._server.stdin.close()


def _of_this_machine(runner: str) -> bool:
    return runner.startswith(f"{socket.gethostname()}/")
