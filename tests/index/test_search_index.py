"""The search structure: its segments, merges and limits, against comparing everything with everything."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planted import bits, fingerprint, flipped, found, hamming, signs, tokens, unit

from fingerprint_dagster.content import Fingerprint
from fingerprint_dagster.index import ranking, search_index, segment
from fingerprint_dagster.index.exact import ExactStore
from fingerprint_dagster.index.lance import LanceStore
from fingerprint_dagster.index.segment import Key, Rows, Segment, index_rows


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes at which a few contents do what millions do: files, merges of merges, buckets, inverted files."""
    monkeypatch.setattr(search_index, "FRESH", 5)
    monkeypatch.setattr(search_index, "SEGMENT_CONTENTS", 20)
    monkeypatch.setattr(search_index, "FAN", 2)
    monkeypatch.setattr(search_index, "LARGEST", 100)
    monkeypatch.setattr(segment, "FLAT_ROWS", 8)
    monkeypatch.setattr(segment, "POSTINGS", 64)
    monkeypatch.setattr(segment, "ROWS_PER_LIST", 4)
    monkeypatch.setattr(segment, "probes_of", lambda lists: lists)  # so that vectors are found exactly, too
    monkeypatch.setattr(search_index, "RESIDENT_BYTES", 0)


def content(number: int, rng: np.random.Generator) -> Fingerprint:
    """With a hash, two vectors' signs, words that others have, too, and a type of two."""
    parts = [hamming(*[bits(rng) for _ in range(number % 3)])] if number % 3 else []
    parts.append(signs(unit(rng, 64), unit(rng, 64)))
    parts.append(tokens(rng.integers(0, 40, 12)))
    return fingerprint(
        f"c{number}", *parts, content_type="image" if number % 4 else "video", key=str(rng.integers(1e9))
    )


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    steps=st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 60), max_size=25)), min_size=1, max_size=8),
)
def test_after_any_changes_it_finds_what_the_oracle_finds(
    small: None, tmp_path_factory: pytest.TempPathFactory, seed: int, steps: list[tuple[bool, set[int]]]
) -> None:
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("s")
    store, late, oracle = LanceStore(folder), LanceStore(folder), ExactStore()
    stored: dict[int, Fingerprint] = {}
    for puts, numbers in steps:
        if puts:
            stored |= {n: content(n, rng) for n in numbers}
            changed = [stored[n] for n in sorted(numbers)]
            store.put(changed)
            oracle.put(changed)
        else:
            store.delete([f"c{n}" for n in sorted(numbers)])
            oracle.delete([f"c{n}" for n in sorted(numbers)])
        queries = list(stored.values())[:12]
        for reader in (store, late) if len(steps) % 2 else (store,):
            assert reader.candidates_many(queries, 7) == oracle.candidates_many(queries, 7)
    for reader in (store, late, LanceStore(folder)):
        for wanted in ("image", "video"):
            assert reader.candidates_many(queries, 7, wanted) == oracle.candidates_many(queries, 7, wanted)


def test_the_structure_is_made_anew_when_it_is_gone_or_of_another_collection(
    small: None, tmp_path: Path, rng: np.random.Generator
) -> None:
    made = [content(n, rng) for n in range(80)]
    one, two = LanceStore(tmp_path / "one"), LanceStore(tmp_path / "two")
    one.put(made)
    two.put(made[:40])
    expected = [one.candidates_many(made, 5), two.candidates_many(made, 5)]
    search = tmp_path / "one" / "search"
    manifest = json.loads((search / "manifest.json").read_text())
    for name, _ in manifest["segments"]:  # a file is missing
        (search / name / "segment.json").unlink()
    assert LanceStore(tmp_path / "one").candidates_many(made, 5) == expected[0]
    (tmp_path / "two" / "search" / "manifest.json").write_bytes((search / "manifest.json").read_bytes())
    assert LanceStore(tmp_path / "two").candidates_many(made, 5) == expected[1]
    # What nothing names any more is gone.
    named = {name for pair in json.loads((search / "manifest.json").read_text())["segments"] for name in pair}
    assert {path.name for path in search.iterdir()} == named | {"manifest.json", "lock"}


def test_segments_stay_few(small: None, tmp_path: Path, rng: np.random.Generator) -> None:
    store = LanceStore(tmp_path)
    for start in range(0, 400, 10):
        store.put([content(n, rng) for n in range(start, start + 10)])
        found(store, content(0, rng), 1)
    sizes = [len(each) for each in store.search.refresh().segments]
    assert sum(sizes) >= 400
    assert max(sizes) <= search_index.LARGEST
    assert len(sizes) <= 4 + 8  # full ones, and one or two of each smaller size


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def one_segment(kind: str, values: np.ndarray) -> tuple[Segment, Key]:
    key = Key(kind, "a_v1", values.shape[1])
    rows = Rows(values, np.arange(len(values), dtype=np.uint32))
    return Segment(["image"], {key: index_rows(kind, rows)}, {"type": np.zeros(len(values), np.uint8)}), key


def photographs(count: int, rng: np.random.Generator) -> np.ndarray:
    """Hashes whose bits depend on each other and are not equally frequent, as real ones' are not: uint8 [count, 32]."""
    mixed = rng.standard_normal((count, 40)) @ rng.standard_normal((40, 256)) + rng.standard_normal(256)
    return np.packbits(mixed > 0, axis=1)


@pytest.mark.parametrize("made", ["random", "dependent"])
def test_hashes_with_up_to_31_of_256_bits_different_are_all_found(made: str, rng: np.random.Generator) -> None:
    values = photographs(20_000, rng) if made == "dependent" else rng.integers(0, 256, (20_000, 32), dtype=np.uint8)
    place, key = one_segment("hamming", values)
    assert "order" in place.components[key]
    picked = rng.integers(0, len(values), 400)
    queries = np.stack([flipped(values[n], int(d), rng) for n, d in zip(picked, np.arange(400) % 32, strict=True)])
    hits = place.near(key, queries)
    assert set(zip(range(400), picked.tolist(), strict=True)) <= set(zip(hits.query, hits.owner, strict=True))
    # And exactly what comparing with every row finds, each once.
    query, owner = np.nonzero(ranking.distances("hamming", values, queries).T < 32)
    assert sorted(zip(hits.query, hits.owner, strict=True)) == list(zip(query, owner, strict=True))


def kindred(count: int, rng: np.random.Generator) -> np.ndarray:
    """Vectors of 512 numbers in groups, with a cosine of about a third within a group, as of pictures of one kind."""
    groups = rng.standard_normal((200, 512))
    return groups[rng.integers(0, 200, count)] + 1.4 * rng.standard_normal((count, 512))


@pytest.mark.parametrize("kind", ["signs", "cosine"])
def test_vectors_are_found_with_the_recall_that_is_stated(
    kind: str, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(segment, "ROWS_PER_LIST", 8)  # so that as small a share is looked into as of a million
    vectors = kindred(12_800, rng)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    place, key = one_segment(kind, np.packbits(vectors > 0, axis=1) if kind == "signs" else vectors.astype(np.float32))
    lists = len(place.components[key]["centres"])
    assert segment.probes_of(lists) < lists / 18
    picked = rng.integers(0, len(vectors), 300)
    for wanted, recall in segment.RECALL.items():
        noise = rng.standard_normal((300, 512))
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
        asked = wanted * vectors[picked] + np.sqrt(1 - wanted**2) * noise
        hits = place.near(key, np.packbits(asked > 0, axis=1) if kind == "signs" else asked.astype(np.float32))
        hit = set(zip(hits.query.tolist(), hits.owner.tolist(), strict=True))
        assert np.mean([(n, owner) in hit for n, owner in enumerate(picked.tolist())]) >= recall


def test_the_rarest_tokens_are_looked_up_until_it_costs_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(ranking, "POSTINGS", (60, 60))
    common, rare = np.arange(5), np.arange(100, 104)
    made = [fingerprint(f"common {n:02}", tokens(common)) for n in range(50)]
    made += [fingerprint(f"rare {n}", tokens(rare)) for n in range(3)]
    query = fingerprint("q", tokens(np.concatenate([common, rare])))
    store, oracle = LanceStore(tmp_path), ExactStore()
    for each in (store, oracle):
        each.put(made)
        assert found(each, query, 60) == ["rare 0", "rare 1", "rare 2"]  # 12 postings; each of the others adds 50
    assert found(store, fingerprint("q", tokens(common[:1])), 60) == [f"common {n:02}" for n in range(50)]


def test_of_many_that_share_tokens_the_best_are_found(tmp_path: Path, rng: np.random.Generator) -> None:
    made = [fingerprint(f"c{n:04}", tokens(rng.integers(0, 300, rng.integers(1, 60)))) for n in range(3000)]
    store, oracle = LanceStore(tmp_path), ExactStore()
    for each in (store, oracle):
        each.put(made)
    for query in made[:10]:
        assert store.candidates(query, 5) == oracle.candidates(query, 5)


def test_what_stands_out_in_one_component_comes_before_what_chance_finds_in_two() -> None:
    by_chance = [(f"c{n}", 2.0 - n / 10, 0.5) for n in range(9)]
    rankings = {"first": [("copy", 40.0, 1.0), *by_chance], "second": [*by_chance, ("other", 1.0, 0.4)]}
    best = ranking.merge(rankings, 10)
    assert [each.content_id for each in best[:2]] == ["copy", "c0"]
    assert [each.scores for each in best[:2]] == [{"first": 1.0}, {"first": 0.5, "second": 0.5}]


def test_what_little_is_found_in_a_component_stands_out() -> None:
    by_chance = [(f"c{n}", 2.0 - n / 10, 0.5) for n in range(10)]
    best = ranking.merge({"hashes": [("copy", 0.3, 0.7)], "words": by_chance}, 10)
    assert best[0].content_id == "copy"


def test_digests_that_begin_alike_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "digest_keys", lambda digests: np.zeros(len(digests), np.uint64))
    monkeypatch.setattr(search_index, "digest_keys", lambda digests: np.zeros(len(digests), np.uint64))
    monkeypatch.setattr(segment, "id_hashes", lambda ids: np.zeros(len(ids), np.uint64))
    store = LanceStore(tmp_path)
    row = bits(np.random.default_rng(0))
    store.put([fingerprint(i, hamming(row), digest=f"sha {i}") for i in "abc"])
    assert [store.by_digest(f"sha {i}") for i in "abcd"] == [["a"], ["b"], ["c"], []]
    store.delete(["b"])
    assert found(store, fingerprint("q", hamming(row)), 5) == ["a", "c"]


def test_a_record_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    class Damaged:
        def identity(self) -> str:
            return "x"

        def latest(self) -> int:
            return 1

        def changes(self, after: int) -> Iterator[list[search_index.Change]]:
            yield [search_index.Change("bad one", 1, "image", "d", b"\x05\x00\x00\x00\x00\x00\x00\x00nonsense")]

    index = search_index.SearchIndex(Damaged(), tmp_path)
    with pytest.raises(ValueError, match="bad one"):
        index.refresh()
