import json
import os
import tracemalloc
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.sources import Listed, expand
from fingerprint_dagster.sources.uri import file_path, path_uri


def uris(source):
    return [listed.uri for listed in expand(str(source))]


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_and_a_uri_are_one_content(tmp_path):
    file = write(tmp_path / "a b.txt", "x")
    assert list(expand(str(file))) == [Listed(path_uri(file))]
    assert uris("https://Example.org") == ["https://example.org/"]


def test_a_folder_is_listed_in_order_without_hidden_files(tmp_path):
    for name in ("b/2.jpg", "b/1.jpg", "a.txt", "list.csv", "c/.git/x", ".hidden", "c/d/e/f.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / name, "x")
    found = [file_path(uri).relative_to(tmp_path).as_posix() for uri in uris(tmp_path)]
    assert found == ["a.txt", "b/1.jpg", "b/2.jpg", "c/d/e/f.png", "list.csv"]


def test_symbolic_links_neither_loop_nor_multiply(tmp_path):
    real = tmp_path / "real"
    real.mkdir()
    write(real / "x.jpg", "x")
    (real / "loop").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(real)
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "gone")
    (tmp_path / "linked.jpg").symlink_to(real / "x.jpg")
    found = [file_path(uri).relative_to(tmp_path).as_posix() for uri in uris(tmp_path)]
    assert found == ["again/x.jpg", "broken.jpg", "linked.jpg"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_are_left_out(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert uris(tmp_path) == []


def test_names_of_any_bytes_are_listed(tmp_path):
    name = os.fsdecode(b"\xff\xfe.jpg")
    try:
        write(tmp_path / name, "x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert [file_path(uri) for uri in uris(tmp_path)] == [tmp_path / name]


def test_a_deep_folder_does_not_exhaust_the_stack(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(1200):
        os.mkdir("d")  # noqa: PTH102
        os.chdir("d")
    try:
        assert uris(tmp_path) == []
    finally:  # pytest itself could not remove it
        for _ in range(1200):
            os.chdir("..")
            os.rmdir("d")  # noqa: PTH106


def test_csv_cells_stay_what_they_are(tmp_path):
    text = 'uri,content_id,content_type,title,note\nimg/1.jpg,007,image,"ein ü",NA\nhttps://Example.org/2.mp3,,,,\n'
    expected = [
        Listed(path_uri(tmp_path / "img/1.jpg"), "007", "image", {"title": "ein ü", "note": "NA"}),
        Listed("https://example.org/2.mp3"),
    ]
    assert list(expand(str(write(tmp_path / "l.csv", text)))) == expected
    assert list(expand(str(write(tmp_path / "bom.CSV", "\ufeff" + text)))) == expected
    assert list(expand("@" + str(tmp_path / "l.csv"))) == expected
    assert list(expand(str(write(tmp_path / "l.tsv", text.replace(",", "\t"))))) == expected


def test_a_short_csv_row_has_empty_cells(tmp_path):
    path = write(tmp_path / "l.csv", "uri,content_id,x\na.jpg\nb.jpg,1,2\n")
    assert [(row.content_id, row.metadata) for row in expand(str(path))] == [(None, {}), ("1", {"x": "2"})]


def test_jsonl_keeps_types_and_drops_nothing_but_empty(tmp_path):
    rows = [
        {"uri": "a.jpg", "content_id": 7, "n": 5, "big": 2**60 + 1, "nested": {"a": [1, None]}, "no": None},
        {"uri": "b.jpg", "x": 0.5, "bad": float("nan"), "flag": False, "zero": 0},
    ]
    path = write(tmp_path / "l.jsonl", "\n\n".join(map(json.dumps, rows)) + "\n")
    first, second = expand(str(path))
    assert (first.uri, first.content_id) == (path_uri(tmp_path / "a.jpg"), "7")
    assert first.metadata == {"n": 5, "big": 2**60 + 1, "nested": {"a": [1, None]}}
    assert second.metadata == {"x": 0.5, "flag": False, "zero": 0}


def test_parquet_cells_become_json(tmp_path):
    columns = {
        "uri": ["a.jpg", "b.jpg"],
        "content_id": [1, None],
        "score": [0.5, float("nan")],
        "when": [datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC), None],
        "price": [Decimal("1.50"), None],
        "raw": [b"\x01\xff", None],
        "tags": [["x", None], []],
        "box": [{"x": 1, "y": float("inf")}, None],
    }
    pq.write_table(pa.table(columns), tmp_path / "l.parquet")
    first, second = expand(str(tmp_path / "l.parquet"))
    assert first.content_id == "1"
    assert first.metadata == {
        "score": 0.5,
        "when": "2024-01-02T03:04:05+00:00",
        "price": "1.50",
        "raw": "01ff",
        "tags": ["x", None],
        "box": {"x": 1, "y": None},
    }
    assert second == Listed(path_uri(tmp_path / "b.jpg"), None, None, {"tags": []})
    json.dumps(first.metadata, allow_nan=False)


def test_a_text_list_needs_the_at_sign(tmp_path):
    path = write(tmp_path / "list.txt", "# mine\n\n a b.jpg \r\nhttps://example.org/x\nsub/ü.png\n")
    assert uris(path) == [path_uri(path)]
    expected = [path_uri(tmp_path / "a b.jpg"), "https://example.org/x", path_uri(tmp_path / "sub/ü.png")]
    assert uris(f"@{path}") == expected


def test_a_table_without_uris_can_still_be_a_content(tmp_path):
    path = write(tmp_path / "sales.csv", "day,amount\n1,2\n")
    with pytest.raises(UsageError, match=r"no column uri \(columns found: day, amount\).*file:///") as caught:
        list(expand(str(path)))
    cure = next(word for word in str(caught.value).split() if word.startswith("file:///"))
    assert list(expand(cure)) == [Listed(path_uri(path))]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("l.csv", "uri,x\na.jpg,1\n,2\n", "l.csv, row 2: the uri is empty"),
        ("l.csv", "uri,x\na.jpg,1\n  ,2\n", "l.csv, row 2: the uri is empty"),
        ("l.csv", "uri,x\nftp://b/k,1\n", "l.csv, row 1: unknown scheme ftp"),
        ("l.csv", "", "l.csv: the list is empty"),
        ("l.csv", "path\n", r"no column uri \(columns found: path\)"),
        ("l.csv", "uri,x\na,1\nb,2,3\n", "line 3"),
        ("l.csv", "uri,x\na,1,2\nb,2,3\n", "more cells than the header"),
        ("l.csv", "uri,content_id\na.jpg,1\nb.jpg,1\n", "row 2: content_id '1' stands for another uri"),
        ("l.jsonl", '{"uri": "a"}\n{"uri": }\n', "l.jsonl, line 2: not JSON"),
        ("l.jsonl", '{"uri": "a"}\n[1]\n', "line 2: not an object"),
        ("l.jsonl", '{"uri": "a"}\n{"url": "b"}\n', r"line 2: no column uri \(columns found: url\)"),
        ("l.jsonl", '{"uri": ""}\n', "line 1: the uri is empty"),
        ("l.jsonl", '{"uri": null}\n', "line 1: the uri is empty"),
        ("l.jsonl", '{"uri": "\\ud800"}\n', "line 1: .*cannot be encoded"),
        ("l.jsonl", "[" * 100_000 + "\n", "line 1: not JSON"),
        ("l.parquet", "PAR1 no", "not a readable Parquet file"),
    ],
)
def test_wrong_lists_are_refused_with_place_and_cure(tmp_path, name, text, says):
    with pytest.raises(UsageError, match=says):
        list(expand(str(write(tmp_path / name, text))))


def test_the_same_row_twice_is_no_error(tmp_path):
    path = write(tmp_path / "l.csv", "uri,content_id\na.jpg,1\n./a.jpg,1\n")
    assert len(list(expand(str(path)))) == 2


def test_a_list_in_another_encoding_is_refused(tmp_path):
    for name in ("l.csv", "l.jsonl"):
        (tmp_path / name).write_bytes('uri,x\n"ü",1\n'.encode("latin-1"))
        with pytest.raises(UsageError, match="UTF-8"):
            list(expand(str(tmp_path / name)))


def test_sources_that_do_not_exist(tmp_path):
    for source in (f"{tmp_path}/gone", f"@{tmp_path}/gone.txt", "", "@", "a\0b"):
        with pytest.raises(UsageError, match="no such file or folder"):
            list(expand(source))
    with pytest.raises(UsageError, match="a folder, not a list"):
        list(expand(f"@{tmp_path}"))


def test_a_long_list_is_streamed(tmp_path, monkeypatch):
    monkeypatch.setattr("fingerprint_dagster.sources.listing._CHUNK_ROWS", 1000)
    path = tmp_path / "long.csv"
    with path.open("w") as file:
        file.write("uri,note\n")
        file.writelines(f"https://example.org/{number:07}.jpg,{'x' * 400}\n" for number in range(20_000))
    rows = expand(str(path))
    next(rows)
    tracemalloc.start()
    count = 1 + sum(1 for _ in rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000
    assert peak < path.stat().st_size / 2
