"""What a decoding process can no longer do, each tried in a worker process that was confined."""

import ctypes
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.sandbox import PROTECTIONS, protections
from fingerprint_dagster.workers import WorkerPool

MIB = 1 << 20
LIMIT = 64 * MIB


def needs(protection: str) -> None:
    if protection not in protections():
        pytest.skip(f"this system cannot confine {protection}")


def doer() -> Callable[[Any], Any]:
    return lambda task: TASKS[task[0]](*task[1:])


def _write(path: str) -> str:
    Path(path).write_text("new")
    return "written"


def _grow(path: str, mebibytes: int) -> str:
    with open(path, "wb") as file:
        for _ in range(mebibytes):
            file.write(bytes(MIB))
            file.flush()
    return "written"


def _rename(source: str, target: str) -> str:
    Path(source).rename(target)
    return "renamed"


def _temporary(_: Any = None) -> str:
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"x")
        return file.name


def _thread() -> str:
    ran: list[str] = []
    thread = threading.Thread(target=ran.append, args=("ran",))
    thread.start()
    thread.join()
    return ran[0]


def _open_many(count: int) -> int:
    return len([open(os.devnull) for _ in range(count)])


TASKS: dict[str, Callable[..., Any]] = {
    "socket": lambda family, kind: socket.socket(family, kind).close() or "opened",
    "resolve": lambda name: socket.getaddrinfo(name, 80),
    "write": _write,
    "grow": _grow,
    "read": lambda path: Path(path).read_text(),
    "rename": _rename,
    "unlink": lambda path: Path(path).unlink() or "removed",
    "run": lambda *command: subprocess.run(command, check=True).returncode,
    "temporary": _temporary,
    "chmod": os.chmod,
    "utime": os.utime,
    "new user namespace": lambda: ctypes.CDLL(None).unshare(0x10000000),
    "prlimit": lambda pid: resource.prlimit(pid, resource.RLIMIT_NOFILE, (10, 10)),
    "thread": _thread,
    "fork": lambda: os.waitstatus_to_exitcode(os.waitpid(os.fork() or os._exit(0), 0)[1]),
    "open": _open_many,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("writable")


@pytest.fixture(scope="module")
def confined(folder: Path) -> Iterator[WorkerPool[Any, Any]]:
    with WorkerPool(doer, (), count=1, timeout_seconds=20, memory_bytes=LIMIT * 32, writable=[folder]) as pool:
        yield pool


def answer(pool: WorkerPool[Any, Any], *task: Any) -> Any:
    ((_, outcome),) = pool.map([task])
    return outcome.reason if isinstance(outcome, ContentError) else outcome


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_no_socket_to_the_network(confined: WorkerPool[Any, Any], family: int, kind: int) -> None:
    needs("network")
    assert "PermissionError" in answer(confined, "socket", family, kind)


def test_no_name_is_looked_up(confined: WorkerPool[Any, Any]) -> None:
    needs("network")
    assert "gaierror" in answer(confined, "resolve", "example.org")


def test_no_socket_to_other_processes(confined: WorkerPool[Any, Any]) -> None:
    needs("network")
    assert "PermissionError" in answer(confined, "socket", socket.AF_UNIX, socket.SOCK_STREAM)


def test_files_of_others_keep_their_modes_and_times(confined: WorkerPool[Any, Any], tmp_path: Path) -> None:
    needs("network")
    before = tmp_path.stat()
    assert "PermissionError" in answer(confined, "chmod", str(tmp_path), 0o777)
    assert "PermissionError" in answer(confined, "utime", str(tmp_path))
    assert (tmp_path.stat().st_mode, tmp_path.stat().st_mtime) == (before.st_mode, before.st_mtime)


def test_no_namespace_and_no_limit_of_another_process(confined: WorkerPool[Any, Any]) -> None:
    needs("network")
    assert answer(confined, "new user namespace") == -1
    assert "PermissionError" in answer(confined, "prlimit", os.getpid())


def test_threads_and_forks_stay(confined: WorkerPool[Any, Any]) -> None:
    assert answer(confined, "thread") == "ran"
    assert answer(confined, "fork") == 0


def test_files_are_written_only_where_allowed(confined: WorkerPool[Any, Any], folder: Path, tmp_path: Path) -> None:
    needs("files")
    mine = tmp_path / "mine.txt"
    mine.write_text("as it was")
    assert answer(confined, "write", str(folder / "a")) == "written"
    assert answer(confined, "rename", str(folder / "a"), str(folder / "b")) == "renamed"
    assert "PermissionError" in answer(confined, "write", str(tmp_path / "new"))
    assert "PermissionError" in answer(confined, "write", str(mine))
    assert "PermissionError" in answer(confined, "unlink", str(mine))
    assert "Error" in answer(confined, "rename", str(mine), str(folder / "stolen"))
    assert answer(confined, "read", str(mine)) == "as it was"
    assert list(tmp_path.iterdir()) == [mine]


def test_no_program_is_started(confined: WorkerPool[Any, Any]) -> None:
    needs("files")
    assert "PermissionError" in answer(confined, "run", sys.executable, "-c", "print(1)")


def test_temporary_files_lie_in_a_folder_of_its_own_that_goes_with_the_pool() -> None:
    with WorkerPool(doer, (), count=1, timeout_seconds=20, memory_bytes=LIMIT * 32) as pool:
        place = Path(answer(pool, "temporary")).parent
        assert place != Path(tempfile.gettempdir())
        assert place.is_dir()
    assert not place.exists()


def test_a_file_cannot_grow_without_end(folder: Path) -> None:
    needs("limits")
    with WorkerPool(doer, (), count=1, timeout_seconds=20, memory_bytes=LIMIT, writable=[folder]) as pool:
        assert answer(pool, "grow", str(folder / "small"), 8) == "written"
        assert "File too large" in answer(pool, "grow", str(folder / "huge"), 80)


def test_open_files_are_limited(confined: WorkerPool[Any, Any]) -> None:
    needs("limits")
    assert answer(confined, "open", 50) == 50
    assert "Too many open files" in answer(confined, "open", 5000)


def test_the_protections_are_told(confined: WorkerPool[Any, Any]) -> None:
    assert protections() <= set(PROTECTIONS)
    if sys.platform == "linux":
        assert "limits" in protections()
