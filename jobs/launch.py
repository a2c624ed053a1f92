"""Drives Dagster runs for batches from a plain process: a few runner processes, each executing run after run."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fingerprint_dagster.errors import FingerprintError
from fingerprint_dagster.progress import VARIABLE, ProgressReader
from fingerprint_dagster.settings import Settings

_LOOK_SECONDS = 0.1
_STOP_SECONDS = 30.0


@dataclass(frozen=True)
class RunReport:
    """One finished run. stages: stage -> {"computed", "reused", "quarantined"}, numbers of contents."""

    batch: str
    run_id: str
    success: bool
    error: str
    stages: dict[str, dict[str, int]]


class _Runner:
    """A runner process and the batch it has in hand."""

    def __init__(self, environment: dict[str, str], log: Path, retry: bool) -> None:
        command = [sys.executable, "-m", "fingerprint_dagster.jobs.runner", *(["--retry"] if retry else [])]
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,  # An interrupt reaches it from us, once, and not from the terminal too.
                text=True,
            )
        self.batch: str | None = None

    def give(self, batch: str) -> None:
        assert self.process.stdin is not None
        self.batch = batch
        self.process.stdin.write(batch + "\n")
        self.process.stdin.flush()


def run_batches(
    settings: Settings,
    batches: Sequence[str],
    *,
    retry: bool = False,
    warm_models: bool = True,
    on_progress: Callable[[str, str, int], None] = lambda batch, stage, done: None,
) -> list[RunReport]:
    """Execute the fingerprint job for every batch, `settings.run_count` at once, and report each run.

    retry: try again what is in quarantine for good. warm_models: have torch ready in every step; without it the runs
    start three seconds sooner, and a step that needs a model after all loads it itself.
    on_progress: called with (batch, stage, contents done) as the stages go on. An interrupt stops the runs cleanly
    before it is raised. Raises `FingerprintError` where a runner process dies; its log says why.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    log = settings.home / "runner.log"
    log.write_bytes(b"")
    progress = settings.home / f"progress.{os.getpid()}"
    count = min(settings.run_count, len(batches))
    environment = os.environ | settings.environment() | {VARIABLE: str(progress)}
    if not warm_models:
        environment["FINGERPRINT_WARM_MODELS"] = "0"
    if not settings.workers and count > 1:
        # Runs share the cores: all of them for one run, a part for each of several.
        environment["FINGERPRINT_WORKERS"] = str(max(1, -(-settings.worker_count // count)))
    runners: list[_Runner] = []
    reports: list[RunReport] = []
    waiting = deque(batches)
    reader = ProgressReader(progress)
    try:
        with selectors.DefaultSelector() as selector:
            for _ in range(count):
                runner = _Runner(environment, log, retry)
                runners.append(runner)
                assert runner.process.stdout is not None
                selector.register(runner.process.stdout, selectors.EVENT_READ, runner)
                runner.give(waiting.popleft())
            while len(reports) < len(batches):
                ready = selector.select(_LOOK_SECONDS)
                for news in reader.news():
                    on_progress(*news)
                for key, _ in ready:
                    runner = key.data
                    line = key.fileobj.readline()  # type: ignore[union-attr]
                    if not line:
                        raise FingerprintError(_obituary(runner, log))
                    reports.append(RunReport(**json.loads(line)))
                    runner.batch = None
                    if waiting:
                        runner.give(waiting.popleft())
            for news in reader.news():
                on_progress(*news)
    finally:
        _stop(runners)
        progress.unlink(missing_ok=True)
    return reports


def _stop(runners: Sequence[_Runner]) -> None:
    """Interrupt the runs that still go on and wait for their end; idle runners end by themselves, without an input."""
    busy = [runner for runner in runners if runner.batch is not None and runner.process.poll() is None]
    for runner in busy:
        runner.process.send_signal(signal.SIGINT)
    for runner in runners:
        assert runner.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            runner.process.stdin.close()
    deadline = time.monotonic() + _STOP_SECONDS
    for runner in busy:
        try:
            runner.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(runner.process.pid, signal.SIGKILL)
            runner.process.wait()


def _obituary(runner: _Runner, log: Path) -> str:
    code = runner.process.wait()
    tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = tail[-1] if tail else "it wrote nothing"
    return f"the process that ran batch {runner.batch} ended with exit code {code}: {last} (more in {log})"
