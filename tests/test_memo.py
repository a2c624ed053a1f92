"""What every memo must do, run on those in memory, on disk, in a Redis server and in an S3 bucket; then the rest.

The Redis server is a real one, started here where the machine has it; S3 is moto's HTTP server.
"""

import multiprocessing
import os
import pickle
import shutil
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from running import free_port

from fingerprint_dagster.errors import FingerprintError, UsageError
from fingerprint_dagster.memo import Memo, StageUsage, open_memo
from fingerprint_dagster.memo.disk import INLINE_BYTES, TOUCH_SECONDS, DiskMemo
from fingerprint_dagster.memo.envelope import HEADER_BYTES, seal, unseal
from fingerprint_dagster.memo.memory import MemoryMemo
from fingerprint_dagster.memo.object_store import ObjectMemo

GIB = 1 << 30
DAY = 86400.0
SMALL = b"small"
LARGE = bytes(range(256)) * (INLINE_BYTES // 128)
assert len(LARGE) > INLINE_BYTES


def key(number: int) -> str:
    return f"{number:032x}"


class Clock:
    """The time of day, which stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Redis server of our own."""
    redis = pytest.importorskip("redis")
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("there is no redis-server on this machine")
    port, folder = free_port(), tmp_path_factory.mktemp("redis")
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port)
    for _ in range(200):
        try:
            client.ping()
            break
        except redis.ConnectionError:
            time.sleep(0.05)
    yield f"redis://127.0.0.1:{port}"
    process.terminate()
    process.wait()


@pytest.fixture
def redis_uri(redis_server: str) -> str:
    import redis

    redis.Redis.from_url(redis_server).flushall()
    return f"{redis_server}/0"


@pytest.fixture
def s3_uri(s3_bucket: Any) -> str:
    pytest.importorskip("obstore")
    return f"s3://{s3_bucket.name}/of a/team"


@pytest.fixture
def disk_uri(tmp_path: Path) -> str:
    return str(tmp_path / "new" / "memo")


@pytest.fixture
def memory_uri() -> str:
    return "memory://"


@pytest.fixture(params=["memory", "disk", "redis"])
def memo_uri(request: pytest.FixtureRequest) -> str:
    """Where a memo is that knows when its entries were used, and what they weigh."""
    return str(request.getfixturevalue(f"{request.param}_uri"))


@pytest.fixture(params=["memory", "disk", "redis", "s3"])
def memo(request: pytest.FixtureRequest) -> Memo:
    return open_memo(request.getfixturevalue(f"{request.param}_uri"), max_bytes=GIB, ttl_seconds=DAY)


@pytest.fixture
def aging_memo(memo_uri: str) -> Memo:
    return open_memo(memo_uri, max_bytes=GIB, ttl_seconds=DAY)


# ---------------------------------------------------------------------- the conformance kit


@pytest.mark.parametrize("value", [b"", SMALL, LARGE[:INLINE_BYTES], LARGE[: INLINE_BYTES + 1], LARGE])
def test_what_was_put_is_got(memo: Memo, value: bytes) -> None:
    memo.put_many("decode", [(key(1), value)])
    assert memo.get_many([key(1)]) == {key(1): value}
    assert memo.contains([key(1)]) == {key(1)}


def test_what_was_not_put_is_missing(memo: Memo) -> None:
    assert memo.get_many([key(1)]) == {}
    assert memo.contains([key(1)]) == set()
    memo.put_many("decode", [(key(1), SMALL)])
    assert memo.get_many([key(2), key(1), key(2), key(1)]) == {key(1): SMALL}
    assert memo.contains([key(2), key(1)]) == {key(1)}


def test_no_keys_are_no_work(memo: Memo) -> None:
    memo.put_many("decode", [])
    memo.delete([])
    assert memo.get_many([]) == {}
    assert memo.contains([]) == set()
    assert memo.usage() == {}


@pytest.mark.parametrize(("first", "second"), [(SMALL, b"other"), (SMALL, LARGE), (LARGE, SMALL), (LARGE, LARGE[::-1])])
def test_the_latest_value_of_a_key_counts(memo: Memo, first: bytes, second: bytes) -> None:
    memo.put_many("decode", [(key(1), first)])
    memo.put_many("decode", [(key(1), second)])
    assert memo.get_many([key(1)]) == {key(1): second}
    assert memo.usage() == {"decode": StageUsage(1, len(second))}


def test_thousands_of_keys_at_once(memo: Memo) -> None:
    count = 300 if isinstance(memo, ObjectMemo) else 3000  # a request each, and the server is slow
    items = {key(number): str(number).encode() for number in range(count)}
    memo.put_many("hash", items.items())
    assert memo.get_many(list(items)) == items
    assert memo.contains([key(number) for number in range(count - 10, count + 10)]) == set(list(items)[-10:])


@pytest.mark.parametrize("value", [SMALL, LARGE])
def test_deleted_keys_are_missing_and_can_be_put_again(memo: Memo, value: bytes) -> None:
    memo.put_many("decode", [(key(1), value), (key(2), value)])
    memo.delete([key(1), key(3)])
    assert memo.get_many([key(1), key(2)]) == {key(2): value}
    memo.put_many("decode", [(key(1), value)])
    assert memo.contains([key(1), key(2)]) == {key(1), key(2)}


def test_usage_counts_entries_and_bytes_of_each_stage(memo: Memo) -> None:
    memo.put_many("decode", [(key(1), LARGE), (key(2), SMALL)])
    memo.put_many("hash", [(key(3), SMALL)])
    assert memo.usage() == {"decode": StageUsage(2, len(LARGE) + len(SMALL)), "hash": StageUsage(1, len(SMALL))}


def test_clear_forgets_one_stage_or_all(memo: Memo) -> None:
    memo.put_many("decode", [(key(1), LARGE), (key(2), SMALL)])
    memo.put_many("hash", [(key(3), SMALL)])
    memo.put_many("embed", [(key(4), SMALL)])
    assert memo.clear("decode") == 2
    assert memo.contains([key(number) for number in range(5)]) == {key(3), key(4)}
    assert memo.clear("decode") == 0
    assert memo.clear() == 2
    assert memo.usage() == {}


def test_older_entries_than_the_time_to_live_are_missing(memo: Memo, clock: Clock) -> None:
    memo.put_many("decode", [(key(1), SMALL)])
    clock.forward(DAY - 1)
    memo.put_many("decode", [(key(2), SMALL)])
    assert memo.get_many([key(1), key(2)]).keys() == {key(1), key(2)}
    clock.forward(2)
    assert memo.get_many([key(1), key(2)]).keys() == {key(2)}
    assert memo.contains([key(1), key(2)]) == {key(2)}


def test_reading_does_not_make_an_entry_younger_but_putting_does(memo: Memo, clock: Clock) -> None:
    memo.put_many("decode", [(key(1), SMALL), (key(2), SMALL)])
    clock.forward(DAY - 1)
    memo.get_many([key(1)])
    memo.put_many("decode", [(key(2), SMALL)])
    clock.forward(2)
    assert memo.contains([key(1), key(2)]) == {key(2)}


def test_evict_drops_what_is_too_old_and_nothing_else(aging_memo: Memo, clock: Clock) -> None:
    memo = aging_memo
    memo.put_many("decode", [(key(1), SMALL), (key(2), LARGE)])
    clock.forward(DAY - 1)
    memo.put_many("decode", [(key(3), SMALL)])
    assert memo.evict() == 0
    clock.forward(2)
    assert memo.evict() == 2
    assert memo.usage() == {"decode": StageUsage(1, len(SMALL))}


@pytest.mark.parametrize("size", [100, INLINE_BYTES + 1])
def test_over_the_size_cap_the_least_recently_used_goes_first(memo_uri: str, clock: Clock, size: int) -> None:
    memo = open_memo(memo_uri, max_bytes=10 * size, ttl_seconds=365 * DAY)
    for number in range(10):
        memo.put_many("decode", [(key(number), bytes(size))])
        clock.forward(2 * TOUCH_SECONDS)
    memo.get_many([key(0)])
    clock.forward(2 * TOUCH_SECONDS)
    memo.put_many("decode", [(key(10), bytes(size))])
    left = memo.contains([key(number) for number in range(11)])
    assert key(0) in left
    assert key(1) not in left
    assert key(10) in left
    assert sum(usage.bytes for usage in memo.usage().values()) <= 10 * size


def test_the_size_cap_is_kept_whatever_is_put(memo_uri: str) -> None:
    memo = open_memo(memo_uri, max_bytes=INLINE_BYTES * 4, ttl_seconds=DAY)
    for number in range(40):
        memo.put_many("decode", [(key(number), LARGE[: 1000 + 5000 * number])])
        assert sum(usage.bytes for usage in memo.usage().values()) <= INLINE_BYTES * 4


def test_a_value_larger_than_the_cap_is_not_kept_and_no_error(memo_uri: str) -> None:
    memo = open_memo(memo_uri, max_bytes=1000, ttl_seconds=DAY)
    memo.put_many("decode", [(key(1), LARGE)])
    assert memo.get_many([key(1)]) == {}
    assert memo.usage() == {}


def test_many_threads_at_once(memo: Memo) -> None:
    errors: list[BaseException] = []
    rounds = 3 if isinstance(memo, ObjectMemo) else 20

    def work(start: int) -> None:
        try:
            for number in range(start, start + rounds):
                memo.put_many("decode", [(key(number), str(number).encode())])
                assert memo.get_many([key(number)]) == {key(number): str(number).encode()}
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(100 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert memo.usage()["decode"].entries == 8 * rounds


# ---------------------------------------------------------------------- against a model

keys = st.integers(0, 5).map(key)
stages = st.sampled_from(["decode", "embed", "hash"])
values = st.binary(max_size=30) | st.sampled_from([0, 1, 2]).map(lambda n: LARGE[n:])


class MemoModel(RuleBasedStateMachine):
    """A memo under its cap is a dictionary, whatever is done to it in whatever order."""

    make: Callable[[Path], Memo]

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.memo = type(self).make(Path(self.folder.name))
        self.model: dict[str, tuple[str, bytes]] = {}

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    @rule(stage=stages, items=st.lists(st.tuples(keys, values), max_size=4))
    def put(self, stage: str, items: list[tuple[str, bytes]]) -> None:
        # A key belongs to one stage: it is a digest over the stage's name, too.
        items = [(f"{stage}-{name}", value) for name, value in items]
        self.memo.put_many(stage, items)
        self.model |= {name: (stage, value) for name, value in items}

    @rule(stage=stages, names=st.lists(keys, max_size=4))
    def get(self, stage: str, names: list[str]) -> None:
        names = [f"{stage}-{name}" for name in names]
        assert self.memo.get_many(names) == {name: self.model[name][1] for name in names if name in self.model}

    @rule(stage=stages, names=st.lists(keys, max_size=4))
    def delete(self, stage: str, names: list[str]) -> None:
        self.memo.delete([f"{stage}-{name}" for name in names])
        for name in names:
            self.model.pop(f"{stage}-{name}", None)

    @rule(stage=st.none() | stages)
    def clear(self, stage: str | None) -> None:
        doomed = [name for name, (of, _) in self.model.items() if stage in (None, of)]
        assert self.memo.clear(stage) == len(doomed)
        for name in doomed:
            del self.model[name]

    @rule()
    def evict(self) -> None:
        assert self.memo.evict() == 0

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        if not hasattr(self, "model"):
            return
        assert self.memo.contains(list(self.model)) == set(self.model)
        expected: dict[str, list[int]] = {}
        for stage, value in self.model.values():
            expected.setdefault(stage, []).append(len(value))
        assert self.memo.usage() == {stage: StageUsage(len(each), sum(each)) for stage, each in expected.items()}


class DiskMemoModel(MemoModel):
    make = staticmethod(lambda folder: DiskMemo(folder / "memo", GIB, DAY))


class MemoryMemoModel(MemoModel):
    make = staticmethod(lambda _: MemoryMemo(GIB, DAY))


_budget = settings(max_examples=25, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck))
TestDiskMemoModel = DiskMemoModel.TestCase
TestDiskMemoModel.settings = _budget
TestMemoryMemoModel = MemoryMemoModel.TestCase
TestMemoryMemoModel.settings = _budget


# ---------------------------------------------------------------------- on disk


@pytest.fixture
def disk(tmp_path: Path) -> DiskMemo:
    return DiskMemo(tmp_path / "memo", GIB, DAY)


def files(memo: DiskMemo) -> list[Path]:
    return [path for path in memo.root.rglob("*") if path.is_file() and not path.name.startswith("index.sqlite")]


def test_another_memo_on_the_same_folder_sees_the_same_entries(disk: DiskMemo) -> None:
    disk.put_many("decode", [(key(1), SMALL), (key(2), LARGE)])
    other = DiskMemo(disk.root, GIB, DAY)
    assert other.get_many([key(1), key(2)]) == {key(1): SMALL, key(2): LARGE}
    other.delete([key(1)])
    assert disk.contains([key(1), key(2)]) == {key(2)}


def test_a_memo_can_be_sent_to_another_process(disk: DiskMemo) -> None:
    disk.put_many("decode", [(key(1), LARGE)])
    assert pickle.loads(pickle.dumps(disk)).get_many([key(1)]) == {key(1): LARGE}


def test_the_files_and_rows_hold_exactly_the_bytes_that_were_put(disk: DiskMemo) -> None:
    disk.put_many("decode", [(key(1), SMALL), (key(2), LARGE)])
    assert [path.read_bytes() for path in files(disk)] == [LARGE]
    with sqlite3.connect(disk.root / "index.sqlite") as db:
        rows = db.execute("SELECT key, size, value FROM entries ORDER BY key").fetchall()
    assert rows == [(key(1), len(SMALL), SMALL), (key(2), len(LARGE), None)]


def test_a_memo_of_an_earlier_release_goes_on_working(disk: DiskMemo) -> None:
    """Its entries were in a table sorted by key."""
    disk.put_many("decode", [(key(1), SMALL), (key(2), LARGE)])
    with sqlite3.connect(disk.root / "index.sqlite") as db:
        (schema,) = db.execute("SELECT sql FROM sqlite_master WHERE name = 'entries'").fetchone()
        rows = db.execute("SELECT * FROM entries").fetchall()
        db.execute("DROP TABLE entries")
        db.execute(f"{schema} WITHOUT ROWID")
        db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    old = DiskMemo(disk.root, GIB, DAY)
    assert old.get_many([key(1), key(2)]) == {key(1): SMALL, key(2): LARGE}
    old.put_many("decode", [(key(2), SMALL), (key(3), LARGE)])
    old.delete([key(1)])
    assert old.get_many([key(1), key(2), key(3)]) == {key(2): SMALL, key(3): LARGE}
    assert old.usage() == {"decode": StageUsage(2, len(SMALL) + len(LARGE))}
    assert old.clear() == 2


def test_deleting_evicting_and_clearing_remove_the_files(disk: DiskMemo, clock: Clock) -> None:
    disk.put_many("decode", [(key(number), LARGE) for number in range(4)])
    disk.delete([key(0)])
    assert len(files(disk)) == 3
    disk.clear("decode")
    assert files(disk) == []
    disk.put_many("decode", [(key(1), LARGE)])
    clock.forward(2 * DAY)
    disk.evict()
    assert files(disk) == []


@pytest.mark.parametrize("damage", [LARGE[:-1], LARGE[:-1] + b"!", b"", None])
def test_a_damaged_file_counts_as_missing_and_is_replaced(disk: DiskMemo, damage: bytes | None) -> None:
    disk.put_many("decode", [(key(1), LARGE)])
    (file,) = files(disk)
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage)
    assert disk.get_many([key(1)]) == {}
    assert disk.contains([key(1)]) == set()
    disk.put_many("decode", [(key(1), LARGE)])
    assert disk.get_many([key(1)]) == {key(1): LARGE}
    assert disk.usage() == {"decode": StageUsage(1, len(LARGE))}


@pytest.mark.parametrize("column", ["value", "checksum"])
def test_a_damaged_row_counts_as_missing_and_is_replaced(disk: DiskMemo, column: str) -> None:
    disk.put_many("decode", [(key(1), SMALL)])
    with sqlite3.connect(disk.root / "index.sqlite") as db:
        db.execute(f"UPDATE entries SET {column} = ?", (b"smell",))
    assert disk.get_many([key(1)]) == {}
    assert disk.contains([key(1)]) == set()
    disk.put_many("decode", [(key(1), SMALL)])
    assert disk.get_many([key(1)]) == {key(1): SMALL}


def test_what_a_crash_left_half_written_is_not_there_and_goes_when_all_is_cleared(disk: DiskMemo) -> None:
    disk.put_many("decode", [(key(1), LARGE)])
    (file,) = files(disk)
    orphan = file.with_name(key(2))
    orphan.write_bytes(LARGE[:1000])
    assert disk.contains([key(2)]) == set()
    assert disk.get_many([key(2)]) == {}
    disk.clear()
    assert files(disk) == [orphan], "another process may be writing it just now"
    an_hour_ago = time.time() - 3600
    os.utime(orphan, (an_hour_ago, an_hour_ago))
    disk.clear()
    assert files(disk) == []


# ---------------------------------------------------------------------- many processes

PROCESSES = 4


def _in_processes(target: Callable[..., None], *arguments: object) -> None:
    """Run `target(number, *arguments)` in new processes that begin together; fails where one of them does."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(PROCESSES)
    processes = [context.Process(target=_meet, args=(barrier, target, n, *arguments)) for n in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * PROCESSES


def _meet(barrier: threading.Barrier, target: Callable[..., None], *arguments: object) -> None:
    barrier.wait(60)
    target(*arguments)


def _value(number: int) -> bytes:
    return (LARGE if number % 5 == 0 else SMALL) + str(number).encode()


def _put_and_get(process: int, root: Path) -> None:
    memo = DiskMemo(root, GIB, DAY)
    for number in range(process * 50, process * 50 + 50):
        memo.put_many("decode", [(key(number), _value(number))])
        assert memo.get_many([key(number)]) == {key(number): _value(number)}
        memo.get_many([key(each) for each in range(number % 7, PROCESSES * 50, 7)])


def test_processes_that_put_and_get_at_once_lose_nothing(tmp_path: Path) -> None:
    _in_processes(_put_and_get, tmp_path / "memo")
    memo = DiskMemo(tmp_path / "memo", GIB, DAY)
    expected = {key(number): _value(number) for number in range(PROCESSES * 50)}
    assert memo.get_many(list(expected)) == expected
    assert memo.usage() == {"decode": StageUsage(len(expected), sum(map(len, expected.values())))}


def _put_the_same(process: int, root: Path) -> None:
    memo = DiskMemo(root, GIB, DAY)
    for _ in range(20):
        memo.put_many("decode", [(key(number), _value(number)) for number in range(10)])
        assert memo.get_many([key(5)]) == {key(5): _value(5)}


def test_processes_may_put_the_same_key_at_once(tmp_path: Path) -> None:
    _in_processes(_put_the_same, tmp_path / "memo")
    memo = DiskMemo(tmp_path / "memo", GIB, DAY)
    assert memo.get_many([key(number) for number in range(10)]) == {key(number): _value(number) for number in range(10)}
    assert memo.usage()["decode"].entries == 10


def _put_while_cleared(process: int, root: Path) -> None:
    memo = DiskMemo(root, 20 * len(LARGE), DAY)
    for number in range(60):
        if process == 0 and number % 3 == 0:
            memo.clear()
        memo.put_many("decode", [(key(number % 7), _value(5 * (number % 7)))])
        for name, value in memo.get_many([key(number) for number in range(7)]).items():
            assert value == _value(5 * int(name, 16))


def test_a_memo_may_be_cleared_and_evicted_while_others_put_and_get(tmp_path: Path) -> None:
    _in_processes(_put_while_cleared, tmp_path / "memo")


# ---------------------------------------------------------------------- by address


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    return tmp_path / "a folder with # ? and % in its name"


@pytest.mark.parametrize("address", [str, Path.as_uri])
def test_a_folder_may_have_any_name(folder: Path, address: Callable[[Path], str]) -> None:
    memo = open_memo(address(folder), max_bytes=GIB, ttl_seconds=DAY)
    memo.put_many("decode", [(key(1), SMALL)])
    assert (folder / "index.sqlite").is_file()


@pytest.mark.parametrize("uri", ["http://host/memo", "memo://x"])
def test_an_address_of_another_kind_is_a_usage_error(uri: str) -> None:
    with pytest.raises(UsageError, match="use a folder, file:///folder, memory://, s3://bucket/prefix or redis://"):
        open_memo(uri, max_bytes=GIB, ttl_seconds=DAY)


# ---------------------------------------------------------------------- shared by machines


@given(value=st.binary(max_size=200), position=st.integers(0), bit=st.integers(0, 7))
def test_a_sealed_value_with_a_flipped_bit_or_a_missing_end_is_found_out(value: bytes, position: int, bit: int) -> None:
    data = seal("decode", 1.5, value)
    whole = unseal(data)
    assert whole is not None
    assert (whole[0].stage, whole[0].created, whole[1]) == ("decode", 1.5, value)
    where = position % len(data)
    assert unseal(data[:where]) is None
    if not 20 <= where < HEADER_BYTES - 8:  # What is said of the value: its stage and its time.
        assert unseal(data[:where] + bytes([data[where] ^ 1 << bit]) + data[where + 1 :]) is None


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:-1] + b"!", lambda data: b"", lambda data: b"x"]
)
def test_a_damaged_object_counts_as_missing_and_is_replaced(
    s3_uri: str, s3_bucket: Any, damage: Callable[[bytes], bytes]
) -> None:
    memo = open_memo(s3_uri, max_bytes=GIB, ttl_seconds=DAY)
    memo.put_many("decode", [(key(1), LARGE)])
    (stored,) = s3_bucket.objects.all()
    assert stored.key == f"of a/team/00/{key(1)}"
    stored.put(Body=damage(stored.get()["Body"].read()))
    assert memo.get_many([key(1)]) == {}
    assert memo.contains([key(1)]) == set()
    memo.put_many("decode", [(key(1), LARGE)])
    assert memo.get_many([key(1)]) == {key(1): LARGE}


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-1] + b"!", lambda data: b"", None])
def test_a_damaged_value_in_redis_counts_as_missing_and_is_replaced(
    redis_uri: str, damage: Callable[[bytes], bytes] | None
) -> None:
    import redis

    memo = open_memo(redis_uri, max_bytes=GIB, ttl_seconds=DAY)
    memo.put_many("decode", [(key(1), LARGE)])
    client = redis.Redis.from_url(redis_uri)
    name = f"fingerprint:v:{key(1)}"
    if damage is None:
        client.delete(name)  # A server that is short of memory evicts by itself.
    else:
        client.set(name, damage(client.get(name)))  # type: ignore[arg-type]
    assert memo.get_many([key(1)]) == {}
    assert memo.contains([key(1)]) == set()
    memo.put_many("decode", [(key(1), LARGE)])
    assert memo.get_many([key(1)]) == {key(1): LARGE}
    assert memo.usage() == {"decode": StageUsage(1, len(LARGE))}


def test_over_the_size_cap_evict_drops_the_oldest_objects(s3_uri: str) -> None:
    open_memo(s3_uri, max_bytes=GIB, ttl_seconds=DAY).put_many("decode", [(key(n), bytes(1000)) for n in range(5)])
    memo = open_memo(s3_uri, max_bytes=3000, ttl_seconds=DAY)
    assert memo.evict() == 3
    assert memo.usage() == {"decode": StageUsage(2, 2000)}
    assert open_memo(s3_uri, max_bytes=3000, ttl_seconds=1e-9).evict() == 2
    assert memo.usage() == {}


@pytest.mark.parametrize("kind", ["redis", "s3"])
def test_two_machines_see_the_same_entries(kind: str, request: pytest.FixtureRequest) -> None:
    uri = request.getfixturevalue(f"{kind}_uri")
    one, other = (open_memo(uri, max_bytes=GIB, ttl_seconds=DAY) for _ in range(2))
    one.put_many("decode", [(key(1), SMALL), (key(2), LARGE)])
    assert other.get_many([key(1), key(2)]) == {key(1): SMALL, key(2): LARGE}
    assert pickle.loads(pickle.dumps(other)).contains([key(1), key(3)]) == {key(1)}
    assert other.clear("decode") == 2
    assert one.contains([key(1), key(2)]) == set()


def test_two_teams_of_one_redis_server_do_not_meet(redis_uri: str) -> None:
    one, other = (open_memo(f"{redis_uri}?prefix={name}", max_bytes=GIB, ttl_seconds=DAY) for name in ("one", "other"))
    one.put_many("decode", [(key(1), SMALL)])
    assert other.contains([key(1)]) == set()
    assert other.clear() == 0
    assert one.contains([key(1)]) == {key(1)}


def test_a_memo_that_cannot_be_reached_is_named_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("redis")
    address = f"redis://me:secret@127.0.0.1:{free_port()}/0"
    with pytest.raises(FingerprintError, match=r"the Redis server cannot be used.*FINGERPRINT_MEMO") as caught:
        open_memo(address, max_bytes=GIB, ttl_seconds=DAY).get_many([key(1)])
    assert "secret" not in str(caught.value)


def test_a_wrong_address_of_a_redis_server_is_a_usage_error() -> None:
    pytest.importorskip("redis")
    with pytest.raises(UsageError, match="redis://host:port"):
        open_memo("redis://host:port", max_bytes=GIB, ttl_seconds=DAY)
