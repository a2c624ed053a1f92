"""Drives Dagster runs for batches from a plain process: a few runner processes, each executing run after run."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
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


def workers_of_each(settings: Settings, runs: int) -> dict[str, str]:
    """The environment variable that gives each of so many runs its worker processes, unless a person has set it.

    Twice its part of the cores, so that none stands idle while the other runs load, store or end.
    """
    if settings.workers:
        return {}
    return {"FINGERPRINT_WORKERS": str(min(settings.worker_count, 2 * -(-settings.worker_count // runs)))}


class _Runner:
    """The connection to a runner, and the batch it has in hand."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.answers = connection.makefile("r", encoding="utf-8")
        self.batch: str | None = None

    def give(self, batch: str) -> None:
        self.batch = batch
        self.connection.sendall(f"{batch}\n".encode())

    def close(self) -> None:
        self.answers.close()
        self.connection.close()


def _start_runners(
    count: int, environment: dict[str, str], log: Path, retry: bool
) -> tuple[subprocess.Popen[bytes], list[_Runner]]:
    """Start the process that forks so many runners."""
    pairs = [socket.socketpair() for _ in range(count)]
    theirs = [other.fileno() for _, other in pairs]
    command = [sys.executable, "-m", "fingerprint_dagster.jobs.runner", ",".join(map(str, theirs))]
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [*command, "--retry"] if retry else command,
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            env=environment,
            pass_fds=theirs,
            start_new_session=True,  # An interrupt reaches it from us, once, and not from the terminal too.
        )
    for _, other in pairs:
        other.close()
    return process, [_Runner(ours) for ours, _ in pairs]


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
    start a second or two sooner, and a step that needs a model after all loads it itself.
    on_progress: called with (batch, stage, contents done) as the stages go on. An interrupt stops the runs cleanly
    before it is raised. Raises `FingerprintError` where a runner process dies; its log says why.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    log = settings.home / "runner.log"
    log.write_bytes(b"")
    # It stays where this command or one of its runners is killed, and tells of it: see `end_killed_runs`.
    progress = settings.home / f"progress.{os.getpid()}"
    progress.touch()
    count = min(settings.run_count, len(batches))
    environment = os.environ | settings.environment() | {VARIABLE: str(progress)} | workers_of_each(settings, count)
    if not warm_models:
        environment["FINGERPRINT_WARM_MODELS"] = "0"
    reports: list[RunReport] = []
    killed = False
    waiting = deque(batches)
    reader = ProgressReader(progress)
    process, runners = _start_runners(count, environment, log, retry)
    try:
        with selectors.DefaultSelector() as selector:
            for runner in runners:
                selector.register(runner.connection, selectors.EVENT_READ, runner)
                runner.give(waiting.popleft())
            while len(reports) < len(batches):
                ready = selector.select(_LOOK_SECONDS)
                for news in reader.news():
                    on_progress(*news)
                for key, _ in ready:
                    runner = key.data
                    line = runner.answers.readline()
                    if not line:
                        raise FingerprintError(_obituary(runner.batch, process, log))
                    reports.append(RunReport(**json.loads(line)))
                    runner.batch = None
                    if waiting:
                        runner.give(waiting.popleft())
            for news in reader.news():
                on_progress(*news)
    except (FingerprintError, OSError) as error:
        killed = True
        if isinstance(error, OSError):  # A connection broke before it could be read or written.
            raise FingerprintError(_obituary(None, process, log)) from None
        raise
    finally:
        _stop(process, runners)
        if not killed:
            progress.unlink(missing_ok=True)
    return reports


def end_killed_runs(settings: Settings) -> None:
    """Mark as failed what Dagster takes for started, where the command or a runner was killed that it belonged to."""
    left = [path for path in settings.home.glob("progress.*") if not _lives(int(path.suffix[1:]))]
    if left:
        from fingerprint_dagster.jobs.instance import end_dead_runs, open_instance

        with open_instance(settings) as instance:
            end_dead_runs(instance)
        for path in left:
            path.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # Another user's.
    return True


def _stop(process: subprocess.Popen[bytes], runners: Sequence[_Runner]) -> None:
    """Interrupt the runs that still go on; wait for the end of all runners, which end without a connection."""
    if any(runner.batch is not None for runner in runners) and process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    for runner in runners:
        runner.close()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _obituary(batch: str | None, process: subprocess.Popen[bytes], log: Path) -> str:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1.0)
    tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = tail[-1] if tail else "it wrote nothing"
    what = "a process that executes runs" if batch is None else f"the process that ran batch {batch}"
    return f"{what} has ended: {last} (more in {log})"
