"""What was answered is stored, whatever happens to the process or to the store, and a failure is never silent."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from running import environment, free_port

from fingerprint_dagster import FingerprintService
from fingerprint_dagster.content import Component, Content, Fingerprint, Sketch
from fingerprint_dagster.index.exact import ExactStore
from fingerprint_dagster.index.store import open_store
from fingerprint_dagster.service.journal import Journal, read_segment
from fingerprint_dagster.service.writer import StoreError, StoreWriter


def fingerprint(number: int, key: str = "k") -> Fingerprint:
    tokens = Component("tokens_v1", "tokens", np.arange(number, number + 5, dtype=np.uint64))
    content = Content(f"id{number}", f"file:///{number}", "text", {"number": number})
    return Fingerprint(content, "d" * 64, 10, "text/plain", f"{key}{number}", Sketch((tokens,), {"words": 5}))


def ids(records: list[Fingerprint]) -> list[str]:
    return [record.content.content_id for record in records]


def taken_over(folder: Path, store: str = "s") -> list[str]:
    """The ids of what dead services left, taken over and put away."""
    found = []
    for segment, records in Journal(folder, store).abandoned():
        found += ids(records)
        segment.unlink()
    return found


def die(journal: Journal) -> None:
    """What the system does for a process that is killed: its lock is gone, its files stay as they are."""
    journal._lock_file.release()


# ---------------------------------------------------------------------- the journal


def test_records_come_back_from_the_journal_of_a_dead_service(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "s")
    for number in range(3):
        journal.append(fingerprint(number))
    assert taken_over(tmp_path) == []  # It lives.
    die(journal)
    ((_, records),) = Journal(tmp_path, "s").abandoned()
    assert [dict(record.content.metadata) for record in records] == [{"number": number} for number in range(3)]
    assert records[2].sketch.components[0].values.tolist() == [2, 3, 4, 5, 6]
    assert taken_over(tmp_path) == ["id0", "id1", "id2"]
    assert list(tmp_path.iterdir()) == []


def test_a_journal_is_for_one_store_only(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "s")
    journal.append(fingerprint(0))
    die(journal)
    assert taken_over(tmp_path, "another") == []
    assert taken_over(tmp_path, "s") == ["id0"]


@pytest.mark.parametrize("cut", [1, 8, 13, 200])
def test_a_record_that_was_cut_short_ends_its_segment(cut: int, tmp_path: Path) -> None:
    journal = Journal(tmp_path, "s")
    journal.append(fingerprint(0))
    size = journal.append(fingerprint(1))
    path = journal.seal()
    assert path is not None
    assert size > 200
    path.write_bytes(path.read_bytes()[:-cut])
    assert ids(read_segment(path)[1]) == ["id0"]


def test_a_damaged_record_is_not_believed(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "s")
    journal.append(fingerprint(0))
    path = journal.seal()
    assert path is not None
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    assert read_segment(path) == ("s", [])


def test_a_journal_that_was_stored_leaves_nothing_behind(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "s")
    journal.append(fingerprint(0))
    journal.sync()
    path = journal.seal()
    assert path is not None
    path.unlink()
    journal.close()
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------- the writer


class Unsteady(ExactStore):
    """A store that fails as long as it is `down`. puts: how many fingerprints each put had."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.puts: list[int] = []

    def put(self, fingerprints: Any) -> None:
        if self.down:
            raise OSError("the disk is full")
        self.puts.append(len(fingerprints))
        super().put(fingerprints)


def test_many_fingerprints_are_put_at_once(tmp_path: Path) -> None:
    store = Unsteady()
    writer = StoreWriter(store, Journal(tmp_path, "s"), linger_seconds=5)
    for number in range(100):
        writer.add(fingerprint(number))
    writer.flush()
    writer.add(fingerprint(0))  # Is there already.
    writer.close()
    assert (store.puts, writer.written, writer.pending) == ([100], 100, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_fails_is_told_and_the_journal_keeps_what_it_did_not_take(tmp_path: Path, caplog: Any) -> None:
    store = Unsteady()
    store.down = True
    writer = StoreWriter(store, Journal(tmp_path, "s"), linger_seconds=0.01)
    writer.add(fingerprint(0))
    with pytest.raises(StoreError, match="1 fingerprints are in the journal, not in the store: OSError: the disk is"):
        writer.flush()
    assert writer.facts()["failures"] > 0
    assert "the disk is full" in str(writer.facts()["last_error"])
    assert "the disk is full" in caplog.text
    with pytest.raises(StoreError):
        writer.close()
    store.down = False
    again = StoreWriter(store, Journal(tmp_path, "s"))
    again.flush()
    again.close()
    assert (store.count(), again.replayed) == ({"text": 1}, 1)


def test_a_store_that_is_back_gets_everything(tmp_path: Path) -> None:
    store = Unsteady()
    store.down = True
    writer = StoreWriter(store, Journal(tmp_path, "s"), linger_seconds=0.01)
    for number in range(3):
        writer.add(fingerprint(number))
        time.sleep(0.05)
    store.down = False
    writer.close()
    assert store.count() == {"text": 3}
    assert list(tmp_path.iterdir()) == []


def test_a_journal_that_cannot_be_written_promises_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    writer = StoreWriter(Unsteady(), Journal(tmp_path / "file", "s"))
    with pytest.raises(StoreError, match="the journal cannot be written"):
        writer.add(fingerprint(0))
    writer.close()


# ---------------------------------------------------------------------- real processes

KILLED = """
    import asyncio, os, signal, sys
    from fingerprint_dagster import FingerprintService

    async def main():
        async with FingerprintService() as service:
            async for result in service.stream_fingerprints(sys.argv[1:]):
                print(result.content_url, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    if __name__ == "__main__":
        asyncio.run(main())
"""


def test_after_kill_9_everything_that_was_answered_is_stored_at_the_next_start(
    home: Path, tmp_path: Path, waveform: Any, settings: Any, write: Any
) -> None:
    script = tmp_path / "killed.py"
    script.write_text(textwrap.dedent(KILLED))
    paths = write(*(str(number) for number in range(20)))
    env = environment(home, PYTHONPATH=os.environ["PYTHONPATH"])
    index = Path(settings().store_uri)
    index.mkdir(parents=True)
    with FileLock(index / "write.lock"):  # Nobody can write into the store: all there is of it is the journal.
        done = subprocess.run([sys.executable, script, *paths], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    answered = done.stdout.split()
    assert len(answered) == 20
    assert open_store(index).count() == {}

    async def start() -> None:
        async with FingerprintService(settings()) as service:
            await service.flush()

    asyncio.run(start())
    stored = {record.content.uri for records in open_store(settings().store_uri).scan() for record in records}
    assert set(answered) <= stored
    assert list((home / "journal").iterdir()) == []


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """A Redis server of the test's own."""
    redis = pytest.importorskip("redis")
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("there is no redis-server on this machine")
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    try:
        client = redis.Redis(port=port)
        for _ in range(100):
            try:
                client.ping()
                break
            except redis.ConnectionError:
                time.sleep(0.1)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait()


def test_processes_share_their_answers_through_redis(
    redis_url: str, home: Path, tmp_path: Path, waveform: Any, settings: Any, write: Any
) -> None:
    """Another process, with another home, answers from the memo what this one has computed."""
    paths = write("1 2", "3 4")

    async def ask(**given: Any) -> list[Any]:
        async with FingerprintService(settings(memo=redis_url, **given)) as service:
            return await service.batch_generate_fingerprints(paths)

    first = asyncio.run(ask())
    assert [result.layer for result in first] == [None, None]
    code = f"""
        import asyncio, json
        from fingerprint_dagster import FingerprintService

        async def main():
            async with FingerprintService() as service:
                results = await service.batch_generate_fingerprints({paths!r})
                print(json.dumps([[each.fingerprint, each.layer] for each in results]))

        if __name__ == "__main__":
            asyncio.run(main())
    """
    script = tmp_path / "other.py"
    script.write_text(textwrap.dedent(code))
    env = environment(tmp_path / "other", PYTHONPATH=os.environ["PYTHONPATH"], FINGERPRINT_MEMO=redis_url)
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[result.fingerprint, "memo"] for result in first]
    assert waveform.count("decode") == 2
