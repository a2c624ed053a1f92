"""What only LanceDB must do: survive kills, serve several processes, stay fast, live in an object store."""

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
from planted import bits, cosine, fingerprint, found, hamming, tokens, unit

from fingerprint_dagster.content import Fingerprint
from fingerprint_dagster.index import lance
from fingerprint_dagster.index.lance import TABLE, LanceStore
from fingerprint_dagster.index.store import Store, open_store
from fingerprint_dagster.settings import get_settings

spawn = multiprocessing.get_context("spawn")
# Kills: a few each time, and as many as one likes now and then.
KILLS = int(os.environ.get("FINGERPRINT_TEST_KILLS", "5"))


def corpus(version: int, count: int = 40) -> list[Fingerprint]:
    """The same contents in every version, with other rows in each; some lack a component in odd versions."""
    rng = np.random.default_rng(version)
    made = []
    for n in range(count):
        parts = [hamming(*[bits(rng) for _ in range(1 + n % 3)]), cosine(unit(rng)), tokens(rng.integers(0, 2**60, 20))]
        made.append(fingerprint(f"c{n}", *parts[: 1 if version % 2 and n % 4 == 0 else 3], key=f"v{version}"))
    return made


def dump(path: Path) -> list[str]:
    """Every row that says something of a content, in a fixed order, without the number of its change."""
    rows = lancedb.connect(path).open_table(TABLE).search().limit(None).to_list()
    return sorted(repr({k: v for k, v in row.items() if k != "seq"}) for row in rows if row["content_type"])


def fresh(path: Path, fingerprints: list[Fingerprint]) -> list[str]:
    """What a store holds into which nothing else was ever put."""
    LanceStore(path).put(fingerprints)
    return dump(path)


def assert_found(store: Store, fingerprints: list[Fingerprint]) -> None:
    """Each is the best candidate for itself, by its own key, and nothing is found twice."""
    for query, answer in zip(fingerprints, store.candidates_many(fingerprints, 10), strict=True):
        assert answer[0].content_id == query.content.content_id
        assert len({candidate.content_id for candidate in answer}) == len(answer)
        assert [f.key for f in store.get([answer[0].content_id])] == [query.key]


def put_for_ever(path: Path) -> None:
    store = LanceStore(path)
    for version in itertools.cycle(range(2, 8)):
        store.put(corpus(version))
        store.candidates(corpus(version, 1)[0], 5)  # brings the search structure up to date


def writers(pipe: Connection) -> None:
    """One process after another that puts for ever: forked, because importing LanceDB takes a second."""
    from fingerprint_dagster.index import search_index

    search_index.FRESH = 50  # so that files of the search structure are written, too
    while path := pipe.recv():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            child = os.fork()
        if not child:
            put_for_ever(path)
        pipe.send(child)
        os.waitpid(child, 0)


def test_after_a_kill_at_any_moment_nothing_is_lost_and_nothing_there_twice(tmp_path: Path) -> None:
    expected = fresh(tmp_path / "fresh", corpus(1))
    pipe, theirs = spawn.Pipe()
    parent = spawn.Process(target=writers, args=(theirs,))
    parent.start()
    for n in range(KILLS):
        path = tmp_path / str(n)
        pipe.send(path)
        child = pipe.recv()
        # Every other kill falls into the first puts, which also make the table and the search structure.
        while n % 2 and not (path / f"{TABLE}.lance").exists():
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.4))
        os.kill(child, signal.SIGKILL)
        store = LanceStore(path)
        keys = store.keys([f"c{i}" for i in range(40)])
        assert len(keys) in (0, 40)  # a put is there or it is not
        assert len(set(keys.values())) <= 1
        store.put(corpus(1))
        assert dump(path) == expected
        assert_found(store, corpus(1))
    pipe.send(None)
    parent.join()


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Make every write to LanceDB raise, or not."""
    failing = [False]
    builder = lancedb.merge.LanceMergeInsertBuilder
    real = builder.execute

    def execute(*args: Any, **kwargs: Any) -> Any:
        if failing[0]:
            raise OSError("no space left on device")
        return real(*args, **kwargs)

    monkeypatch.setattr(builder, "execute", execute)
    return lambda fails: failing.__setitem__(0, fails)


def test_a_put_that_fails_leaves_what_was_there(tmp_path: Path, fail: Callable[[bool], None]) -> None:
    store = LanceStore(tmp_path / "s")
    store.put(corpus(2))
    fail(True)
    for write in (lambda: store.put(corpus(1)), lambda: store.delete(["c1"]), store.compact):
        with pytest.raises(OSError, match="no space"):
            write()
        assert_found(store, corpus(2))
    fail(False)
    store.put(corpus(1))
    assert dump(tmp_path / "s") == fresh(tmp_path / "fresh", corpus(1))
    assert_found(store, corpus(1))


def put_many(path: Path, writer: int) -> None:
    store = LanceStore(path)
    for n in range(5):
        own = [fingerprint(f"w{writer}-{n}-{f.content.content_id}", *f.sketch.components) for f in corpus(n, 10)]
        store.put(own + corpus(1))  # and all of them the same ones
        assert len(found(store, own[9], 20)) > 0


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
    everything = [f for batch in LanceStore(tmp_path / "s").scan() for f in batch]
    assert dump(tmp_path / "s") == fresh(tmp_path / "fresh", everything)
    assert {found(store, f, 20).count(f.content.content_id) for f in everything} == {1}


def test_a_store_sees_what_another_one_writes(tmp_path: Path) -> None:
    reader, writer = LanceStore(tmp_path / "s"), LanceStore(tmp_path / "s")
    rows = [bits(np.random.default_rng(n)) for n in range(3)]
    for n, row in enumerate(rows):
        query = fingerprint("q", hamming(row))
        assert found(reader, query, 5) == []
        writer.put([fingerprint(f"c{n}", hamming(row), key=str(n), digest=str(n))])
        assert found(reader, query, 5) == [f"c{n}"]
        assert reader.by_digest(str(n)) == [f"c{n}"]
        assert reader.count() == {"image": n + 1}
        assert reader.keys([f"c{n}"]) == {f"c{n}": str(n)}
    writer.delete(["c1"])
    assert reader.count() == {"image": 2}
    assert found(reader, fingerprint("q", hamming(rows[1])), 5) == []


def test_many_rows_are_indexed_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lance, "UNINDEXED_ROWS", 100)
    store = LanceStore(tmp_path / "s")
    made = corpus(1, 300)
    for start in range(0, 300, 75):  # indexed, not indexed, and indexed again
        store.put(made[start : start + 75])
    table: Any = lancedb.connect(tmp_path / "s").open_table(TABLE)
    assert {index.columns[0] for index in table.list_indices()} == {"content_id", "digest", "seq"}
    for column in ("content_id", "digest", "seq"):
        assert table.index_stats(f"{column}_idx").num_unindexed_rows <= 100 + table.count_rows() / 10
    for f in made[::30]:
        assert store.by_digest(f.digest) == [f.content.content_id]
    store.put(corpus(2, 300))
    store.delete([f"c{n}" for n in range(100)])
    assert dump(tmp_path / "s") == fresh(tmp_path / "fresh", corpus(2, 300)[100:])
    assert_found(store, corpus(2, 300)[100:])


def test_many_small_puts_do_not_leave_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lance, "FILES", 4)
    store = LanceStore(tmp_path / "s")
    made = corpus(1, 11)
    for f in made:
        store.put([f])
    table: Any = lancedb.connect(tmp_path / "s").open_table(TABLE)
    assert table.stats()["fragment_stats"]["num_fragments"] <= 4
    assert dump(tmp_path / "s") == fresh(tmp_path / "fresh", made)
    assert_found(store, made)


def test_compact_leaves_one_file_and_no_trace_of_the_deleted(tmp_path: Path) -> None:
    store, other = LanceStore(tmp_path / "s"), LanceStore(tmp_path / "s")
    for f in corpus(1, 10):
        store.put([f])
    assert_found(other, corpus(1, 10))
    store.delete(["c3", "c4"])
    store.compact()
    table: Any = lancedb.connect(tmp_path / "s").open_table(TABLE)
    assert table.stats()["fragment_stats"]["num_fragments"] == 1
    assert table.count_rows() == 8 + 1  # and the row about the table itself
    kept = [f for f in corpus(1, 10) if f.content.content_id not in ("c3", "c4")]
    assert dump(tmp_path / "s") == fresh(tmp_path / "fresh", kept)
    for reader in (store, other, LanceStore(tmp_path / "s")):  # one has not heard of the deletion before
        assert_found(reader, kept)
        assert found(reader, corpus(1, 10)[3], 5) == []


@pytest.mark.parametrize("stable", [True, False])
def test_records_that_moved_since_they_were_looked_up_are_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stable: bool
) -> None:
    if not stable:  # as in tables of older versions
        monkeypatch.setattr(lance, "NEW_TABLE", {})
    store, other = LanceStore(tmp_path / "s"), LanceStore(tmp_path / "s")
    ids = [f"c{n}" for n in range(10)]
    for f in corpus(1, 10):
        store.put([f])
    assert_found(store, corpus(1, 10))
    assert len(store.search.places(ids)) == 10
    other.put(corpus(2, 10)[:3])
    other.delete(["c4"])
    other.compact()  # merges all files into one
    kept = [*corpus(2, 10)[:3], corpus(1, 10)[3], *corpus(1, 10)[5:]]
    assert [f.key for f in store.get(ids)] == [f.key for f in kept]
    assert store.keys(ids) == {f.content.content_id: f.key for f in kept}
    other.put([corpus(3, 10)[4]])
    assert [f.key for f in store.get(["c4", "c9"])] == [corpus(3, 10)[4].key, corpus(1, 10)[9].key]


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
    assert dump(tmp_path / "s") == fresh(tmp_path / "fresh", corpus(1))
    errors[:] = [RuntimeError("disk on fire")] * 2
    with pytest.raises(RuntimeError, match="disk on fire"):
        store.put(corpus(2))
    assert len(errors) == 1


def test_a_store_in_an_object_store_is_shared_by_several_machines(
    s3_bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = []
    for name in ("one", "two"):  # each with a home, and so a search structure, of its own
        monkeypatch.setenv("FINGERPRINT_HOME", str(tmp_path / name))
        get_settings.cache_clear()
        machines.append(open_store(f"s3://{s3_bucket.name}/collection"))
    get_settings.cache_clear()
    assert machines[1].count() == {}
    machines[0].put(corpus(1))
    for store in machines:
        assert_found(store, corpus(1))
    machines[1].delete(["c0"])
    machines[1].put(corpus(2)[1:])
    for store in machines:
        assert store.count() == {"image": 39}
        assert_found(store, corpus(2)[1:])
        assert found(store, corpus(1)[0], 5) == []
    machines[0].compact()
    assert_found(machines[1], corpus(2)[1:])
