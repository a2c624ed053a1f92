"""A process in which all is imported, that forks the processes of one home: `python nursery.py`, see `campaign`.

A real `fingerprint run` imports for three seconds before it does anything that could be lost. To kill hundreds, each
command is a fork of this process, and so is the process that forks its runners (`jobs.runner`); they do all that they
would do if they had been started by name. Orders come as JSON lines, each answered with the pid of the fork.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fingerprint_dagster.jobs import runner  # isort: skip - first, as in a runner

from fingerprint_dagster.cli import command
from fingerprint_dagster.jobs import launch


class ForkedProcess:
    """A child, with the methods of `subprocess.Popen` that `jobs.launch` uses."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. Raises `subprocess.TimeoutExpired`."""
        deadline = time.monotonic() + (timeout or 1e9)
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("runner", timeout or 0)
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode


def fork(work: Callable[[], int], log: Path) -> int:
    """Fork a process that does `work` in a session of its own, with its output in `log`, and exits with its result."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    code = 1
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (descriptor, 1), (descriptor, 2)):
            os.dup2(source, target)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        code = work()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def start_runners(
    count: int, environment: dict[str, str], log: Path, retry: bool
) -> tuple[ForkedProcess, list[launch._Runner]]:
    """`launch._start_runners` with a fork in place of an exec."""
    pairs = [socket.socketpair() for _ in range(count)]

    def work() -> int:
        os.environ.update(environment)
        for ours, _ in pairs:
            ours.close()
        return runner.main([other.detach() for _, other in pairs], retry=retry)

    pid = fork(work, log)
    for _, other in pairs:
        other.close()
    return ForkedProcess(pid), [launch._Runner(ours) for ours, _ in pairs]


def run(order: dict[str, Any]) -> int:
    """`fingerprint` with the arguments of the order. steps: how the steps of a run are executed."""
    launch._start_runners = start_runners  # type: ignore[assignment]
    if order["steps"] != "in_process":
        runner._QUIET["execution"] = {"config": {"steps": order["steps"]}}  # type: ignore[assignment]
    command.main(order["arguments"], standalone_mode=False)
    return 0


def queue(order: dict[str, Any]) -> int:
    """Register what is in the folder `media`, in batches of `size`, and leave it to the daemon as a backfill."""
    from fingerprint_dagster.catalog import Catalog
    from fingerprint_dagster.jobs.backfill import queue_backfill
    from fingerprint_dagster.jobs.instance import dagster_home, open_instance
    from fingerprint_dagster.pipeline import fetcher_of
    from fingerprint_dagster.settings import get_settings

    settings = get_settings()
    with open_instance(settings):
        yaml = dagster_home(settings) / "dagster.yaml"
    patient = "poll_interval_seconds: 15,"
    yaml.write_text(yaml.read_text().replace(patient, "poll_interval_seconds: 2, start_timeout_seconds: 15,"))
    catalog = Catalog(settings.home)
    catalog.register([order["media"]], fetcher_of(settings), batch_sizes={"waveform": order["size"]})
    queue_backfill(settings, [batch.name for batch in catalog.batches() if not batch.recipe])
    return 0


def daemon(_: dict[str, Any]) -> int:
    """Become Dagster's daemon."""
    from fingerprint_dagster.jobs.instance import dagster_home
    from fingerprint_dagster.settings import get_settings

    os.environ["DAGSTER_HOME"] = str(dagster_home(get_settings()))
    os.chdir(os.environ["DAGSTER_HOME"])
    os.execv(sys.executable, [sys.executable, "-m", "dagster._daemon", "run"])


def settle(order: dict[str, Any]) -> int:
    """0 as soon as no run and no backfill is unfinished; 1 where one still is after so many seconds."""
    import dagster as dg
    from dagster._core.execution.backfill import BulkActionStatus

    from fingerprint_dagster.jobs.instance import open_instance
    from fingerprint_dagster.settings import get_settings

    finished = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
    deadline = time.monotonic() + order["seconds"]
    with open_instance(get_settings()) as instance:
        while True:
            left = [
                f"run {each.run_id} is {each.status}" for each in instance.get_runs() if each.status not in finished
            ]
            backfills = [each for each in instance.get_backfills() if each.status == BulkActionStatus.REQUESTED]
            left += [f"backfill {each.backfill_id} goes on" for each in backfills]
            if not left:
                return 0
            if time.monotonic() > deadline:
                sys.stderr.write("\n".join(left[:5]) + "\n")
                return 1
            time.sleep(0.5)


def examine(order: dict[str, Any]) -> int:
    """Write to the file `report` how the home differs from what it should be; see `campaign.Report`."""
    import dagster as dg
    import lancedb

    from fingerprint_dagster.catalog import Catalog, default_content_id
    from fingerprint_dagster.codec import encode, sketch_to_value
    from fingerprint_dagster.index.lance import LanceStore
    from fingerprint_dagster.jobs.instance import open_instance
    from fingerprint_dagster.media.registry import content_type
    from fingerprint_dagster.settings import get_settings
    from fingerprint_dagster.sources.uri import path_uri

    os.environ.pop("WAVEFORM_CALLS")
    settings = get_settings()
    expected = {default_content_id(path_uri(Path(path))): (path, good) for path, good in order["files"].items()}
    catalog = Catalog(settings.home)
    registered = Counter(each.content_id for batch in catalog.batches() for each in catalog.members(batch.name))
    quarantine = {failure.content_id: failure for _, failure in catalog.quarantined()}
    store = LanceStore(settings.store_uri)
    rows = lancedb.connect(settings.store_uri).open_table("records").search().limit(None)
    stored = Counter(row for row in rows.select(["content_id"]).to_arrow()["content_id"].to_pylist() if row)
    plugin = content_type("waveform")
    wrong = []
    for some in store.scan():
        for fingerprint in some:
            path = expected.get(fingerprint.content.content_id, ("", False))[0]
            decoded = plugin.decode(Path(path)) if path else None
            made = decoded and plugin.hash(decoded, plugin.embed([decoded], None)[0])  # type: ignore[arg-type]
            if not made or encode(sketch_to_value(made)) != encode(sketch_to_value(fingerprint.sketch)):
                wrong.append(f"{path or fingerprint.content.uri}: another fingerprint than its bytes have")
            found = Counter(each.content_id for each in store.candidates(fingerprint, 1000))
            if found[fingerprint.content.content_id] != 1:
                wrong.append(f"{path}: found {found[fingerprint.content.content_id]} times by its own fingerprint")
    for content_id, (path, good) in expected.items():
        failure = quarantine.get(content_id)
        if good and failure is not None:
            wrong.append(f"{path}: in quarantine for what is not its fault ({failure.stage}: {failure.reason})")
        if not good and (failure is None or failure.retryable):
            wrong.append(f"{path}: cannot be decoded, but is not in quarantine for good ({failure})")
    finished = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
    with open_instance(settings) as instance:
        stuck = [
            f"run {each.run_id} is {each.status.value}" for each in instance.get_runs() if each.status not in finished
        ]
        storage = instance.event_log_storage
        for pool in (storage.get_concurrency_info(key) for key in storage.get_concurrency_keys()):
            stuck += [f"run {each.run_id} holds a slot of a pool" for each in pool.claimed_slots]
            stuck += [f"a step of run {each.run_id} waits for a pool" for each in pool.pending_steps]
    report = {
        "lost": [
            path
            for each, (path, _) in expected.items()
            if not registered[each] or not (stored[each] or each in quarantine)
        ],
        "double": [
            f"{each}: {stored[each]} times in the store, {registered[each]} times in batches, "
            f"{'' if each in quarantine else 'not '}in quarantine"
            for each in {*stored, *registered, *expected}
            if stored[each] + (each in quarantine) > 1 or registered[each] > 1 or each not in expected
        ],
        "wrong": wrong,
        "stuck": stuck,
    }
    Path(order["report"]).write_text(json.dumps(report))
    return 0


def main() -> None:
    """Fork a process for each order until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Whatever is printed here is no answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "wait":  # For the end of a process, at most so many seconds.
            answer: Any = None
            deadline = time.monotonic() + order["seconds"]
            while answer is None and time.monotonic() < deadline:
                pid, status = os.waitpid(order["pid"], os.WNOHANG)
                if pid:
                    answer = os.waitstatus_to_exitcode(status)
                else:
                    time.sleep(0.005)
        else:
            work = {each.__name__: each for each in (run, queue, daemon, settle, examine)}[order["do"]]
            answer = fork(lambda work=work, order=order: work(order), Path(order["log"]))  # type: ignore[misc]
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
