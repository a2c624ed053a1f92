"""Temporary folders go with the process that made them, however it ends."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from running import environment

from fingerprint_dagster import temporary
from fingerprint_dagster.temporary import PREFIX, TemporaryFolder

needs_locks = pytest.mark.skipif(os.name != "posix", reason="the system has no locks of this kind")

MAKE_ONE = """
import os, signal, sys
from fingerprint_dagster.temporary import TemporaryFolder
folder = TemporaryFolder()
(folder.path / "file").write_text("something")
print(folder.path, flush=True)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's temporary folders are made; they are not too young to be removed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(temporary, "_IN_THE_MAKING_SECONDS", -1.0)
    return tmp_path


def another_process(place: Path, then: str) -> "subprocess.Popen[str]":
    """A process that has made such a folder and then does that."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAKE_ONE + then],
        env=environment(place / "home", TMPDIR=str(place)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert Path(process.stdout.readline().strip()).parent == place
    return process


def folders(place: Path) -> list[Path]:
    return list(place.glob(f"{PREFIX}*"))


def test_a_folder_goes_with_its_close_and_all_that_is_in_it(place: Path) -> None:
    folder = TemporaryFolder()
    assert folder.path.stat().st_mode & 0o777 == 0o700
    (folder.path / "deeper").mkdir()
    folder.close()
    folder.close()
    assert folders(place) == []


@pytest.mark.parametrize("then", ["", "raise RuntimeError", "sys.exit(3)", "os.kill(os.getpid(), signal.SIGINT)"])
def test_a_folder_that_nobody_closes_goes_with_its_process(place: Path, then: str) -> None:
    another_process(place, then).communicate()
    assert folders(place) == []


@needs_locks
def test_what_a_killed_process_leaves_goes_when_the_next_folder_is_made(place: Path) -> None:
    killed, alive = (another_process(place, "signal.pause()") for _ in range(2))
    killed.kill()
    killed.communicate()
    assert len(folders(place)) == 2
    mine = TemporaryFolder()
    assert len(folders(place)) == 2
    alive.kill()
    alive.communicate()
    TemporaryFolder().close()
    assert folders(place) == [mine.path]
    mine.close()


@needs_locks
def test_a_folder_without_a_lock_may_be_in_the_making(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporary, "_IN_THE_MAKING_SECONDS", 60.0)
    made = Path(tempfile.mkdtemp(prefix=PREFIX))
    TemporaryFolder().close()
    assert made.exists()


@needs_locks
def test_a_process_forked_from_it_leaves_the_folder(place: Path) -> None:
    folder = TemporaryFolder()
    child = os.fork()
    if child == 0:
        folder.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert folders(place) == [folder.path]
    folder.close()
