"""Fingerprints as JSON records and as tables that other programs read."""

import ast
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fingerprint_dagster.content import Component, Content, Fingerprint, Sketch
from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.export import describe, export_fingerprints
from fingerprint_dagster.index.store import Store, open_store

BITS = np.arange(64, dtype=np.uint8).reshape(2, 32)
VECTORS = np.array([[0.6, 0.8], [1.0, 0.0]], np.float32)
TOKENS = np.array([3, 2**63 + 5, 2**64 - 1], np.uint64)
DATA = np.array([[1, -2], [3, 4]], np.int16)
BYTES = np.array([[1, 2], [3, 254]], np.uint8)


def fingerprint(content_id: str = "a", components: Sequence[Component] = (), **info: Any) -> Fingerprint:
    content = Content(content_id, f"file:///{content_id}.jpg", "image", {"title": 'Größe, "quoted"\nand more', "n": 7})
    return Fingerprint(content, f"digest {content_id}", 1 << 40, "image/jpeg", "key", Sketch(tuple(components), info))


ALL = (
    Component("bits_v1", "hamming", BITS),
    Component("vector_v1", "cosine", VECTORS, positions=np.array([[0.0, 1.23456], [1.0, 2.0]])),
    Component("tokens_v1", "tokens", TOKENS),
    Component("data_v1", "data", DATA),
    Component("bytes_v1", "data", BYTES),
)


@pytest.fixture
def store() -> Store:
    return open_store("memory://")


def read_parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return list(pq.read_table(path).to_pylist())


def read_csv(path: Path) -> list[dict[str, Any]]:
    frame = pd.read_csv(path, dtype=object, keep_default_na=False)
    rows = [{str(name): cell for name, cell in row.items()} for row in frame.to_dict("records")]
    for row in rows:
        row["size"] = int(row["size"])
        row |= {name: ast.literal_eval(row[name]) if row[name] else None for name in row if name.endswith("_v1")}
    return rows


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


READERS = {".parquet": read_parquet, ".csv": read_csv, ".jsonl": read_jsonl}


@pytest.fixture(params=READERS)
def exported(request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    """Export the store and read the file back as rows."""

    def exported() -> list[dict[str, Any]]:
        out = tmp_path / f"fingerprints{request.param}"
        count = export_fingerprints(store, out)
        rows = READERS[request.param](out)
        assert count == len(rows)
        assert [path.name for path in tmp_path.iterdir()] == [out.name]
        return rows

    return exported


def test_every_fingerprint_is_one_row_with_all_that_is_known(store: Store, exported: Any) -> None:
    store.put([fingerprint("a", ALL, words=3, title="x")])
    (row,) = exported()
    assert sorted(row) == sorted(
        [
            *("content_id", "uri", "content_type", "digest", "size", "media_type", "key", "metadata", "info"),
            *("bits_v1", "bytes_v1", "data_v1", "tokens_v1", "vector_v1"),
        ]
    )
    assert [row[name] for name in ("content_id", "uri", "content_type", "digest", "size", "media_type", "key")] == [
        "a",
        "file:///a.jpg",
        "image",
        "digest a",
        1 << 40,
        "image/jpeg",
        "key",
    ]
    assert json.loads(row["metadata"]) == {"title": 'Größe, "quoted"\nand more', "n": 7}
    assert json.loads(row["info"]) == {"words": 3, "title": "x"}


def test_bytes_are_hexadecimal_and_numbers_are_numbers(store: Store, exported: Any) -> None:
    store.put([fingerprint("a", ALL)])
    (row,) = exported()
    assert row["bits_v1"] == [line.tobytes().hex() for line in BITS]
    assert row["bytes_v1"] == ["0102", "03fe"]
    assert row["tokens_v1"] == TOKENS.tolist()
    assert row["data_v1"] == DATA.tolist()
    np.testing.assert_array_equal(np.array(row["vector_v1"], np.float32), VECTORS)


def test_vectors_lose_no_digit(store: Store, exported: Any) -> None:
    values = np.random.default_rng(1).standard_normal((3, 50)).astype(np.float32)
    store.put([fingerprint("a", [Component("vector_v1", "cosine", values)])])
    (row,) = exported()
    np.testing.assert_array_equal(np.array(row["vector_v1"], np.float32), values)


def test_a_component_that_a_fingerprint_lacks_is_empty(store: Store, exported: Any) -> None:
    store.put([fingerprint("a", ALL[:1]), fingerprint("b", ALL[2:3]), fingerprint("c")])
    rows = {row["content_id"]: row for row in exported()}
    assert rows["a"].get("tokens_v1") is None
    assert rows["b"].get("bits_v1") is None
    assert rows["b"]["tokens_v1"] == TOKENS.tolist()
    assert rows["c"].get("tokens_v1") is rows["c"].get("bits_v1") is None


def test_components_without_rows_come_back_without_rows(store: Store, exported: Any) -> None:
    store.put([fingerprint("a", [Component("tokens_v1", "tokens", TOKENS[:0])])])
    assert exported()[0]["tokens_v1"] == []


def test_a_large_store_is_written_in_parts_that_fit_together(store: Store, exported: Any) -> None:
    """The parts may hold other components than the first one, or none at all."""
    store.put([fingerprint(f"first {number}", ALL[:1]) for number in range(1000)])
    store.put(
        [fingerprint(f"empty {number}", [Component("tokens_v1", "tokens", TOKENS[:0])]) for number in range(1000)]
    )
    store.put([fingerprint(f"last {number}", ALL[1:]) for number in range(10)])
    rows = {row["content_id"]: row for row in exported()}
    assert len(rows) == 2010
    assert rows["first 999"]["bits_v1"] == [line.tobytes().hex() for line in BITS]
    assert rows["empty 0"]["tokens_v1"] == []
    assert rows["last 9"]["tokens_v1"] == TOKENS.tolist()
    assert rows["last 9"]["data_v1"] == DATA.tolist()


def test_an_empty_store_gives_a_table_without_rows(exported: Any) -> None:
    assert exported() == []


def test_an_empty_table_still_names_its_columns(store: Store, tmp_path: Path) -> None:
    for ending in (".parquet", ".csv"):
        export_fingerprints(store, tmp_path / f"x{ending}")
    assert "content_id" in pd.read_csv(tmp_path / "x.csv").columns
    assert "content_id" in pd.read_parquet(tmp_path / "x.parquet").columns


@pytest.mark.parametrize("ending", READERS)
def test_pandas_reads_the_table(store: Store, tmp_path: Path, ending: str) -> None:
    store.put([fingerprint("a", ALL), fingerprint("b", ALL[:2])])
    export_fingerprints(store, tmp_path / f"x{ending}")
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".parquet": pd.read_parquet,
        ".csv": pd.read_csv,
        ".jsonl": lambda path: pd.read_json(path, lines=True),
    }
    assert sorted(readers[ending](tmp_path / f"x{ending}")["content_id"]) == ["a", "b"]


def test_an_export_replaces_the_file_of_the_one_before(store: Store, tmp_path: Path) -> None:
    for content_id in ("a", "b"):
        store.put([fingerprint(content_id)])
        export_fingerprints(store, tmp_path / "x.jsonl")
    assert len(read_jsonl(tmp_path / "x.jsonl")) == 2


def test_another_ending_is_a_usage_error(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown ending '\.xlsx'; use one of \.parquet, \.csv, \.jsonl"):
        export_fingerprints(store, tmp_path / "x.xlsx")


def test_a_file_that_cannot_be_written_is_a_usage_error_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    (tmp_path / "x.csv").mkdir()
    for out in (tmp_path / "nowhere" / "x.csv", tmp_path / "x.csv"):
        with pytest.raises(UsageError, match="cannot be written"):
            export_fingerprints(store, out)
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


# ---------------------------------------------------------------------- one fingerprint for a person


def test_a_description_is_json_and_tells_everything_that_is_short() -> None:
    described = json.loads(json.dumps(describe(fingerprint("a", ALL, words=3))))
    assert described["content_id"] == "a"
    assert described["size"] == 1 << 40
    assert described["metadata"]["n"] == 7
    assert described["info"] == {"words": 3}
    bits, vector, tokens, data, _ = described["components"]
    assert bits == {
        "algorithm": "bits_v1",
        "kind": "hamming",
        "rows": 2,
        "values": [line.tobytes().hex() for line in BITS],
    }
    assert vector["positions"] == [[0.0, 1.235], [1.0, 2.0]]
    assert (vector["rows"], vector["dimensions"]) == (2, 2)
    assert tokens["values"] == TOKENS.tolist()
    assert data["values"] == DATA.tolist()


def test_a_description_shows_the_first_rows_of_a_long_component() -> None:
    many = Component("tokens_v1", "tokens", np.arange(1000, dtype=np.uint64), positions=np.zeros((1000, 2)))
    (component,) = describe(fingerprint("a", [many]))["components"]
    assert (component["rows"], component["values"], len(component["positions"])) == (1000, [0, 1, 2, 3, 4], 5)
