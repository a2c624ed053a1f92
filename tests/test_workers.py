"""Work in processes that may crash, hang or eat memory: each mishap costs the task in hand and nothing else."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import wait_until
from threadpoolctl import threadpool_info

from fingerprint_dagster.errors import ContentError, UsageError
from fingerprint_dagster.workers import WorkerError, WorkerPool

GIB = 1 << 30


def doer(*arguments: Any) -> Callable[[Any], Any]:
    """The work: a task is `(name, argument)`."""
    return lambda task: TASKS[task[0]](task[1], *arguments)


def _fail(reason: str) -> None:
    raise ContentError(reason, retryable=reason == "later")


def _refuse(reason: str) -> None:
    raise UsageError(reason)


def _mark_and_sleep(path: Path) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(3600)


def _threads() -> set[int]:
    """How many threads the libraries of this process compute with, those that it loads now too."""
    import cv2
    import scipy.linalg  # noqa: F401

    return {cv2.getNumThreads(), *(library["num_threads"] for library in threadpool_info())}


TASKS: dict[str, Callable[..., Any]] = {
    "square": lambda number: number * number,
    "sleep": lambda seconds: time.sleep(seconds) or seconds,
    "pid": lambda _: os.getpid(),
    "slow pid": lambda _: time.sleep(0.1) or os.getpid(),
    "kill": lambda number: os.kill(os.getpid(), number),
    "exit": os._exit,
    "eat": lambda size: int(np.ones(size, np.uint8)[-1]),
    "fail": _fail,
    "refuse": _refuse,
    "divide": lambda number: 1 // number,
    "unsendable": lambda _: lambda: None,
    "arguments": lambda _, *arguments: arguments,
    "bytes": bytes,
    "hang": _mark_and_sleep,
    "threads": lambda _: _threads(),
}


def broken(*_: Any) -> Callable[[Any], Any]:
    raise RuntimeError("there is no codec")


def pool(
    work: Any = doer, *arguments: Any, count: int = 2, seconds: float = 30.0, writable: tuple[Path, ...] = ()
) -> WorkerPool[Any, Any]:
    return WorkerPool(work, arguments, count=count, timeout_seconds=seconds, memory_bytes=2 * GIB, writable=writable)


@pytest.fixture(scope="module")
def workers() -> Iterator[WorkerPool[Any, Any]]:
    with pool() as shared:
        yield shared


def answer(workers: WorkerPool[Any, Any], *task: Any) -> Any:
    ((_, outcome),) = workers.map([task])
    return outcome


def assert_works(workers: WorkerPool[Any, Any]) -> None:
    assert dict(workers.map(("square", number) for number in range(6))) == {
        ("square", number): number * number for number in range(6)
    }


def warm_up(workers: WorkerPool[Any, Any]) -> None:
    """Wait until every process has started and is idle."""
    pids: set[int] = set()
    while len(pids) < workers.count:
        pids |= {pid for _, pid in workers.map([("slow pid", number) for number in range(workers.count)])}


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # An ended process that its parent has not looked after yet still has its number.
    return not (Path(f"/proc/{pid}/stat").exists() and " Z " in Path(f"/proc/{pid}/stat").read_text())


def gone(pid: int, within: float) -> bool:
    deadline = time.monotonic() + within
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


def test_every_task_comes_back_with_its_result(workers: WorkerPool[Any, Any]) -> None:
    tasks = [("square", number) for number in range(200)]
    assert sorted(workers.map(tasks)) == [(task, task[1] ** 2) for task in tasks]


def test_no_tasks_are_no_work(workers: WorkerPool[Any, Any]) -> None:
    assert list(workers.map([])) == []


def test_a_slow_task_does_not_hold_up_the_others(workers: WorkerPool[Any, Any]) -> None:
    tasks = [("sleep", 0.5), *(("square", number) for number in range(20))]
    assert [task for task, _ in workers.map(tasks)][-1] == ("sleep", 0.5)


def test_tasks_are_drawn_only_when_a_process_is_free(workers: WorkerPool[Any, Any]) -> None:
    drawn = 0

    def tasks() -> Iterator[tuple[str, int]]:
        nonlocal drawn
        for drawn in range(1, 51):
            yield "square", drawn

    for done, _ in enumerate(workers.map(tasks()), 1):
        assert drawn <= done + 2 * workers.count


def test_results_of_many_megabytes_come_back(workers: WorkerPool[Any, Any]) -> None:
    assert len(answer(workers, "bytes", 50_000_000)) == 50_000_000


def test_one_pool_serves_many_maps_with_the_same_processes(workers: WorkerPool[Any, Any]) -> None:
    pids = {pid for number in range(10) for _, pid in workers.map([("pid", (number, each)) for each in range(5)])}
    assert 1 <= len(pids) <= workers.count
    assert os.getpid() not in pids


def test_the_work_is_made_from_the_arguments_of_the_pool() -> None:
    with pool(doer, 1, "two", Path("three"), count=1) as one:
        assert answer(one, "arguments", None) == (1, "two", Path("three"))


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_costs_one_task_and_names_the_signal(workers: WorkerPool[Any, Any], number: signal.Signals) -> None:
    tasks = [("square", 1), ("kill", number), *(("square", each) for each in range(2, 20))]
    outcomes = dict(workers.map(tasks))
    error = outcomes.pop(("kill", number))
    assert error.reason == f"the decoder crashed ({number.name})"
    assert not error.retryable
    assert outcomes == {("square", each): each * each for each in range(1, 20)}


def test_what_is_no_tasks_fault_is_raised_and_not_said_of_the_task() -> None:
    with pool() as own:
        with pytest.raises(UsageError, match="the disk is full"):
            list(own.map([("square", 1), ("refuse", "the disk is full"), ("sleep", 60)]))
        assert_works(own)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_being_killed_from_outside_may_be_tried_again(workers: WorkerPool[Any, Any], number: signal.Signals) -> None:
    error = answer(workers, "kill", number)
    assert error.reason == f"the decoder was ended by {number.name}: short of memory, or shut down"
    assert error.retryable


def test_a_process_that_exits_costs_one_task(workers: WorkerPool[Any, Any]) -> None:
    assert answer(workers, "exit", 3).reason == "the decoder crashed (exit code 3)"
    assert_works(workers)


def test_as_many_crashes_as_one_likes(workers: WorkerPool[Any, Any]) -> None:
    outcomes = list(workers.map([("exit", number) for number in range(6)]))
    assert sorted(task for task, _ in outcomes) == [("exit", number) for number in range(6)]
    assert all(isinstance(outcome, ContentError) for _, outcome in outcomes)


def test_a_task_that_takes_too_long_is_ended_and_its_process_replaced() -> None:
    with pool(count=1, seconds=0.5) as one:
        before = answer(one, "pid", 0)
        error = answer(one, "sleep", 3600)
        assert error.reason == "took longer than 0.5 s"
        assert error.retryable
        assert gone(before, 5)
        assert_works(one)


def test_the_time_a_consumer_takes_is_not_charged_to_the_tasks() -> None:
    with pool(seconds=1.0) as two:
        warm_up(two)
        outcomes = []
        for _, outcome in two.map([("square", 2), ("sleep", 0.1), ("sleep", 0.2)]):
            time.sleep(1.2)
            outcomes.append(outcome)
        assert sorted(outcomes) == [0.1, 0.2, 4]


def test_memory_is_limited(workers: WorkerPool[Any, Any]) -> None:
    error = answer(workers, "eat", 3 * GIB)
    assert error.reason == "needs more than the 2048 MiB of memory a decoder may use"
    assert not error.retryable
    assert answer(workers, "eat", GIB // 4) == 1


@pytest.mark.parametrize("reason", ["never", "later"])
def test_a_content_error_arrives_as_it_was_raised(workers: WorkerPool[Any, Any], reason: str) -> None:
    error = answer(workers, "fail", reason)
    assert isinstance(error, ContentError)
    assert (error.reason, error.retryable) == (reason, reason == "later")


def test_any_other_exception_is_a_content_error_that_names_it(workers: WorkerPool[Any, Any]) -> None:
    error = answer(workers, "divide", 0)
    assert isinstance(error, ContentError)
    assert error.reason.startswith("the decoder failed: ZeroDivisionError: ")


def test_a_result_that_cannot_be_sent_costs_one_task(workers: WorkerPool[Any, Any]) -> None:
    assert isinstance(answer(workers, "unsendable", None), ContentError)
    assert_works(workers)


def test_a_process_that_cannot_start_is_no_tasks_fault() -> None:
    with pool(broken) as useless, pytest.raises(WorkerError, match="could not start"):
        list(useless.map([("square", 1)]))


def test_a_process_that_died_while_idle_costs_nothing() -> None:
    with pool(count=1) as one:
        pid = answer(one, "pid", 0)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: pid not in {child.pid for child in multiprocessing.active_children()}, "it to end", 10)
        assert_works(one)


def test_a_map_that_was_left_early_leaves_nothing_to_the_next() -> None:
    with pool() as two:
        warm_up(two)
        for _ in two.map([("square", 1), ("sleep", 1), ("sleep", 2), ("square", 2)]):
            break
        assert list(two.map([("square", 3)])) == [(("square", 3), 9)]
        assert_works(two)


def test_closing_ends_the_processes_whatever_they_do(tmp_path: Path) -> None:
    with pool(writable=(tmp_path,)) as two:
        tasks = two.map([("hang", tmp_path / "one"), ("square", 2)])
        next(tasks)
        while not (tmp_path / "one").exists() or not (tmp_path / "one").read_text():
            time.sleep(0.02)
        pids = [int((tmp_path / "one").read_text()), *(worker.process.pid for worker in two._workers)]
        assert all(alive(pid) for pid in pids)
    assert all(gone(pid, 5) for pid in pids)


def test_a_closed_pool_starts_anew(workers: WorkerPool[Any, Any]) -> None:
    workers.close()
    workers.close()
    assert_works(workers)


ORPHANAGE = """
    import sys, threading, time
    from pathlib import Path

    sys.path.insert(0, {tests!r})
    from test_workers import pool

    if {threads} > 1:
        threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    with pool(seconds=1.0, writable=(Path({mark!r}).parent,)) as two:
        if {busy}:
            list(two.map([("hang", Path({mark!r}))]))
        pids = set()
        while len(pids) < 2:
            pids |= {{pid for _, pid in two.map([("slow pid", number) for number in range(2)])}}
        Path({mark!r}).with_suffix(".new").write_text(" ".join(map(str, pids)))
        Path({mark!r}).with_suffix(".new").rename({mark!r})
        time.sleep(3600)
"""


@pytest.mark.parametrize(("threads", "busy"), [(1, False), (2, False), (1, True)])
def test_no_process_outlives_a_killed_parent_for_long(tmp_path: Path, threads: int, busy: bool) -> None:
    """Nobody is left to stop a task that hangs: the system does, five seconds after its time limit."""
    mark = tmp_path / "pids"
    script = ORPHANAGE.format(tests=str(Path(__file__).parent), mark=str(mark), busy=busy, threads=threads)
    # Libraries that start threads of their own would decide how the processes are started.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], env=environment)
    try:
        while not mark.exists() or not mark.read_text():
            assert parent.poll() is None
            time.sleep(0.02)
        pids = [int(pid) for pid in mark.read_text().split()]
        assert all(alive(pid) for pid in pids)
    finally:
        parent.kill()
        parent.wait()
    assert all(gone(pid, 12 if busy else 5) for pid in pids)


def test_libraries_compute_in_one_thread_of_each_process() -> None:
    with pool(count=1) as workers:
        assert workers.do(("threads", None)) == {1}
