"""What a power cut leaves of a store: every put that has returned, and nothing of the one it fell into.

`tests/recovery` cuts the power of real file systems. Here the remains are made by hand, so that each kind is met.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from planted import bits, fingerprint, hamming, tokens

from fingerprint_dagster.content import Fingerprint
from fingerprint_dagster.index import search_index
from fingerprint_dagster.index.lance import TABLE, LanceStore


def corpus(version: int, count: int = 20) -> list[Fingerprint]:
    """The same contents in every version, with other rows in each."""
    rng = np.random.default_rng(version)
    return [
        fingerprint(f"c{n}", hamming(bits(rng)), tokens(rng.integers(0, 2**60, 20)), key=f"v{version}")
        for n in range(count)
    ]


ANOTHER_START = "00000000-0000-0000-0000-000000000000"


def newest(folder: Path) -> Path:
    """The manifest of the newest version: LanceDB names them so that it comes first."""
    return min((folder / f"{TABLE}.lance" / "_versions").glob("*.manifest"))


def torn_manifest(folder: Path) -> None:
    """Its name is there, its bytes are not."""
    newest(folder).write_bytes(b"")


def lost_data(folder: Path) -> None:
    """The manifest is there, what it names is not."""
    data = sorted((folder / f"{TABLE}.lance" / "data").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    data[-1].write_bytes(b"")


def torn_hint(folder: Path) -> None:
    lost_data(folder)
    (folder / f"{TABLE}.lance" / "_versions" / "latest_version_hint.json").write_bytes(b"")


def cut(folder: Path, version: int, damage: Callable[[Path], None]) -> None:
    """Make the put after `version` one that the power cut fell into."""
    (folder / "unfinished").write_text(f"{version} {ANOTHER_START}".ljust(128))
    damage(folder)


@pytest.mark.parametrize("damage", [torn_manifest, lost_data, torn_hint])
@pytest.mark.parametrize("reads_first", [True, False])
def test_a_put_that_was_cut_short_is_undone_and_can_be_repeated(tmp_path: Path, damage, reads_first: bool) -> None:
    first, second = corpus(1)[:5], corpus(1)[5:10]
    store = LanceStore(tmp_path)
    store.put(first)
    version = store._table().version
    store.put(second)
    cut(tmp_path, version, damage)

    store = LanceStore(tmp_path)
    if reads_first:
        assert set(store.keys([each.content.content_id for each in (*first, *second)])) == {
            each.content.content_id for each in first
        }
        assert store.candidates(first[0], 5)[0].content_id == first[0].content.content_id
    store.put(second)
    assert sum(LanceStore(tmp_path).count().values()) == 10
    for each in (*first, *second):
        assert each.content.content_id in [found.content_id for found in store.candidates(each, 10)]


def test_the_very_first_put_may_be_the_one(tmp_path: Path) -> None:
    store = LanceStore(tmp_path)
    store.put(corpus(1))
    cut(tmp_path, -1, torn_manifest)
    store = LanceStore(tmp_path)
    assert store.count() == {}
    store.put(corpus(1))
    assert sum(LanceStore(tmp_path).count().values()) == len(corpus(1))


def test_what_a_killed_process_put_stays(tmp_path: Path) -> None:
    """The system still runs: all that it wrote will reach the disk."""
    store = LanceStore(tmp_path)
    store.put(corpus(1))
    store._unfinished.begin(1)
    store = LanceStore(tmp_path)
    store.put(corpus(2)[:1])
    assert sum(store.count().values()) == len(corpus(1))
    assert store._unfinished.read() is None


def test_a_torn_search_structure_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_index, "FRESH", 5)  # so that there are files
    store = LanceStore(tmp_path)
    store.put(corpus(1))
    expected = store.candidates(corpus(1)[0], 5)
    for file in (tmp_path / "search").rglob("*"):
        if file.is_file() and file.name not in ("manifest.json", "lock"):
            file.write_bytes(b"")
    assert LanceStore(tmp_path).candidates(corpus(1)[0], 5) == expected
    (tmp_path / "search" / "manifest.json").write_bytes(b"")
    assert LanceStore(tmp_path).candidates(corpus(1)[0], 5) == expected


def test_a_table_that_could_not_be_made_is_made_by_the_next_put(tmp_path: Path) -> None:
    (tmp_path / f"{TABLE}.lance" / "data").mkdir(parents=True)
    (tmp_path / f"{TABLE}.lance" / "data" / "half").write_bytes(b"half")
    store = LanceStore(tmp_path)
    assert store.count() == {}
    store.put(corpus(1))
    assert sum(LanceStore(tmp_path).count().values()) == len(corpus(1))
