"""What only the store on disk must do: survive kills, serve several processes, stay fast."""

import itertools
import multiprocessing
import os
import random
import signal
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import lancedb
import lancedb.merge
import lancedb.table
import numpy as np
import pytest
from planted import bits, cosine, fingerprint, hamming, tokens, unit

from fingerprint_dagster.content import Fingerprint
from fingerprint_dagster.index import lance
from fingerprint_dagster.index.lance import LanceStore

spawn = multiprocessing.get_context("spawn")


def corpus(version: int, count: int = 40) -> list[Fingerprint]:
    """The same contents in every version, with other rows in each; some lack a component in odd versions."""
    rng = np.random.default_rng(version)
    made = []
    for n in range(count):
        parts = [hamming(*[bits(rng) for _ in range(1 + n % 3)]), cosine(unit(rng)), tokens(rng.integers(0, 2**60, 20))]
        made.append(fingerprint(f"c{n}", *parts[: 1 if version % 2 and n % 4 == 0 else 3], key=f"v{version}"))
    return made


def dump(path: Path) -> dict[str, list[str]]:
    """Every row of every table, in a fixed order, without the number that marks the put."""
    connection = lancedb.connect(path)
    state = {}
    for name in connection.list_tables().tables:
        rows = connection.open_table(name).search().limit(None).to_list()
        state[name] = sorted(repr({k: v for k, v in row.items() if k != "put"}) for row in rows)
    return {name: rows for name, rows in state.items() if rows}


def fresh(path: Path, fingerprints: list[Fingerprint]) -> dict[str, list[str]]:
    """What a store holds into which nothing else was ever put."""
    LanceStore(path).put(fingerprints)
    return dump(path)


def put_for_ever(path: Path) -> None:
    for version in itertools.cycle(range(2, 8)):
        LanceStore(path).put(corpus(version))


def writers(pipe: Connection) -> None:
    """One process after another that puts for ever: forked, because importing LanceDB takes a second."""
    while path := pipe.recv():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            child = os.fork()
        if not child:
            put_for_ever(path)
        pipe.send(child)
        os.waitpid(child, 0)


def test_a_put_killed_at_any_moment_is_completed_by_repeating_it(tmp_path: Path) -> None:
    expected = fresh(tmp_path / "fresh", corpus(1))
    pipe, theirs = spawn.Pipe()
    parent = spawn.Process(target=writers, args=(theirs,))
    parent.start()
    for n in range(12):
        path = tmp_path / str(n)
        pipe.send(path)
        child = pipe.recv()
        # Every other kill falls into the first puts, which also make the tables.
        while n % 2 and not (path / "fingerprints.lance").exists():
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.2))
        os.kill(child, signal.SIGKILL)
        store = LanceStore(path)
        keys = store.keys([f"c{i}" for i in range(40)])
        assert len(keys) in (0, 40)  # a put is there or it is not
        assert len(set(keys.values())) <= 1
        store.put(corpus(1))
        assert dump(path) == expected
    pipe.send(None)
    parent.join()


@pytest.fixture
def fail_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make the n-th write to LanceDB from now on, and all after it, raise; -1 for none."""
    left = [-1]

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if left[0] == 0:
                raise OSError("no space left on device")
            left[0] -= 1
            return real(*args, **kwargs)

        return call

    monkeypatch.setattr(lancedb.table.LanceTable, "add", failing(lancedb.table.LanceTable.add))
    monkeypatch.setattr(lancedb.table.LanceTable, "delete", failing(lancedb.table.LanceTable.delete))
    builder = lancedb.merge.LanceMergeInsertBuilder
    monkeypatch.setattr(builder, "execute", failing(builder.execute))
    return lambda n: left.__setitem__(0, n)


def test_a_put_that_fails_at_any_step_is_completed_by_repeating_it(
    tmp_path: Path, fail_at: Callable[[int], None]
) -> None:
    expected = fresh(tmp_path / "fresh", corpus(1))
    for step in range(20):
        store = LanceStore(tmp_path / str(step))
        store.put(corpus(2))
        fail_at(step)
        try:
            store.put(corpus(1))
        except OSError:
            assert set(store.keys(["c0", "c39"]).values()) == {"v2"}  # not named before it is complete
        else:
            break
        finally:
            fail_at(-1)
        # Meanwhile the new rows, or the old ones, or both are found, and nothing that is not verified is lost.
        assert [f.key for f in store.get(["c1"])] == ["v2"]
        store.put(corpus(1))
        assert dump(store.path) == expected
    assert step == 7  # three tables added to, three cleaned, the truth: every step has failed once


def test_compact_drops_derived_rows_that_nothing_owns(tmp_path: Path, fail_at: Callable[[int], None]) -> None:
    store = LanceStore(tmp_path / "s")
    store.put(corpus(1))
    row = bits(np.random.default_rng(99))
    fail_at(2)
    with pytest.raises(OSError, match="no space"):
        store.put([fingerprint("orphan", hamming(row))])
    fail_at(-1)
    assert store.candidates(fingerprint("q", hamming(row)), 5) == ["orphan"]
    assert store.get(["orphan"]) == []
    store.compact()
    assert store.candidates(fingerprint("q", hamming(row)), 5) == []
    assert dump(store.path) == fresh(tmp_path / "fresh", corpus(1))


@pytest.mark.parametrize("cure", [LanceStore.compact, lambda store: store.delete(["c1"])])
def test_a_delete_that_fails_forgets_all_the_same(
    tmp_path: Path, fail_at: Callable[[int], None], cure: Callable[[LanceStore], None]
) -> None:
    store = LanceStore(tmp_path / "s")
    store.put(corpus(1))
    fail_at(1)
    with pytest.raises(OSError, match="no space"):
        store.delete(["c1"])
    fail_at(-1)
    assert store.get(["c1"]) == []
    cure(store)
    expected = fresh(tmp_path / "fresh", [f for f in corpus(1) if f.content.content_id != "c1"])
    assert dump(store.path) == expected


def put_many(path: Path, writer: int) -> None:
    store = LanceStore(path)
    for n in range(5):
        own = [fingerprint(f"w{writer}-{n}-{f.content.content_id}", *f.sketch.components) for f in corpus(n, 10)]
        store.put(own + corpus(1))  # and all of them the same ones


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    store = LanceStore(tmp_path / "s")
    store.put(corpus(0))
    before = store.count()
    processes = [spawn.Process(target=put_many, args=(store.path, n)) for n in range(2)]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):  # readers take no lock and never see half of it
        assert len({f.key for batch in store.scan() for f in batch if f.content.content_id in ("c0", "c39")}) == 1
        assert store.count()["image"] >= 40
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert before == {"image": 40}
    assert store.count() == {"image": 40 + 2 * 5 * 10}
    everything = [f for batch in LanceStore(store.path).scan() for f in batch]
    assert dump(store.path) == fresh(tmp_path / "fresh", everything)


def test_a_store_sees_what_another_one_writes(tmp_path: Path) -> None:
    reader, writer = LanceStore(tmp_path / "s"), LanceStore(tmp_path / "s")
    rows = [bits(np.random.default_rng(n)) for n in range(3)]
    for n, row in enumerate(rows):
        query = fingerprint("q", hamming(row))
        assert reader.candidates(query, 5) == []
        writer.put([fingerprint(f"c{n}", hamming(row), key=str(n))])
        assert reader.candidates(query, 5) == [f"c{n}"]
        assert reader.count() == {"image": n + 1}
        assert reader.keys([f"c{n}"]) == {f"c{n}": str(n)}
    writer.delete(["c1"])
    assert reader.count() == {"image": 2}


def test_many_rows_are_indexed_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lance, "UNINDEXED_ROWS", 100)
    store = LanceStore(tmp_path / "s")
    made = corpus(1, 300)
    for start in range(0, 300, 75):  # indexed, not indexed, and indexed again
        store.put(made[start : start + 75])
    tables: Any = lancedb.connect(store.path)
    for name, columns in {"fingerprints": {"content_id", "digest"}, "tokens_words_v1": {"content_id", "token"}}.items():
        table = tables.open_table(name)
        assert {index.columns[0] for index in table.list_indices()} == columns
        assert all(table.index_stats(f"{c}_idx").num_unindexed_rows <= 100 + table.count_rows() / 10 for c in columns)
    for f in made[::30]:
        words = f.component("words_v1")
        if words is not None:
            assert store.candidates(fingerprint("q", words), 5) == [f.content.content_id]
        assert store.by_digest(f.digest) == [f.content.content_id]
    store.put(corpus(2, 300))
    store.delete([f"c{n}" for n in range(100)])
    assert dump(store.path) == fresh(tmp_path / "fresh", corpus(2, 300)[100:])


def test_many_small_puts_do_not_leave_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lance, "FILES", 4)
    store = LanceStore(tmp_path / "s")
    made = corpus(1, 11)
    for f in made:
        store.put([f])
    tables: Any = lancedb.connect(store.path)
    for name in tables.list_tables().tables:
        assert tables.open_table(name).stats()["fragment_stats"]["num_fragments"] <= 4
    assert dump(store.path) == fresh(tmp_path / "fresh", made)


def test_compact_leaves_one_file_a_table(tmp_path: Path) -> None:
    store = LanceStore(tmp_path / "s")
    for f in corpus(1, 10):
        store.put([f])
    store.compact()
    tables: Any = lancedb.connect(store.path)
    for name in tables.list_tables().tables:
        assert tables.open_table(name).stats()["fragment_stats"]["num_fragments"] == 1
    assert dump(store.path) == fresh(tmp_path / "fresh", corpus(1, 10))


def test_a_conflict_with_a_writer_without_our_lock_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LanceStore(tmp_path / "s")
    errors = [RuntimeError("lance error: Retryable commit conflict for version 17: preempted")] * 2
    real = lancedb.merge.LanceMergeInsertBuilder.execute

    def execute(*args: Any, **kwargs: Any) -> Any:
        if errors:
            raise errors.pop()
        return real(*args, **kwargs)

    monkeypatch.setattr(lancedb.merge.LanceMergeInsertBuilder, "execute", execute)
    store.put(corpus(1))
    assert not errors
    assert dump(store.path) == fresh(tmp_path / "fresh", corpus(1))
    errors[:] = [RuntimeError("disk on fire")] * 2
    with pytest.raises(RuntimeError, match="disk on fire"):
        store.put(corpus(2))
    assert len(errors) == 1
