"""Runs that divide a number among them, each a process of its own."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from running import wait_until

from fingerprint_dagster.share import Share, turn

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the system has no locks of this kind")


def take_part(folder: Path, joined: object) -> None:
    with Share(folder, 8).joined():
        joined.set()  # type: ignore[attr-defined]
        signal.pause()


def another_run(folder: Path) -> multiprocessing.process.BaseProcess:
    context = multiprocessing.get_context("spawn")
    joined = context.Event()
    process = context.Process(target=take_part, args=(folder, joined))
    process.start()
    assert joined.wait(60)
    return process


def test_who_is_alone_has_all(tmp_path: Path) -> None:
    share = Share(tmp_path, 8)
    assert share() == 8
    with share.joined():
        assert share() == 8
    assert list(share.folder.iterdir()) == []


def test_runs_beside_each_other_have_equal_parts_and_a_killed_one_has_none(tmp_path: Path) -> None:
    share = Share(tmp_path, 8)
    with share.joined():
        others = [another_run(tmp_path) for _ in range(2)]
        wait_until(lambda: share() == 2, "three runs to have two each of eight")
        for other in others:
            other.kill()
            other.join()
        wait_until(lambda: share() == 8, "the killed runs to be forgotten")


def test_where_there_are_more_runs_than_there_is_to_divide_each_has_one(tmp_path: Path) -> None:
    shares = [Share(tmp_path, 2) for _ in range(3)]
    with shares[0].joined(), shares[1].joined(), shares[2].joined():
        assert [share() for share in shares] == [1, 1, 1]


def test_a_process_that_was_forked_in_the_meantime_does_not_keep_the_part(tmp_path: Path) -> None:
    share = Share(tmp_path, 4)
    with share.joined():
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
    other = Share(tmp_path, 4)
    with other.joined():
        assert other() == 4
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def have_turn(path: Path, joined: object) -> None:
    with turn(path):
        joined.set()  # type: ignore[attr-defined]
        signal.pause()


def test_one_process_at_a_time_has_its_turn_and_a_killed_one_loses_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    first, second = ((context.Event(), tmp_path / "gpu-0") for _ in range(2))
    processes = []
    for event, path in (first, second):
        processes.append(context.Process(target=have_turn, args=(path, event)))
        processes[-1].start()
        if event is first[0]:
            assert event.wait(60)
    assert not second[0].wait(1)
    processes[0].kill()
    assert second[0].wait(60)
    processes[1].kill()
    for process in processes:
        process.join()


def test_another_gpu_is_another_turn(tmp_path: Path) -> None:
    with turn(tmp_path / "gpu-0"), turn(tmp_path / "gpu-1"):
        pass
