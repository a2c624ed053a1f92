"""The command line as a user meets it: what it prints, and with which exit code it ends."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
from media_files import picture, sample
from running import fingerprint

from fingerprint_dagster.catalog import Catalog
from fingerprint_dagster.index.store import open_store
from fingerprint_dagster.pipeline import Pipeline, fetcher_of
from fingerprint_dagster.settings import get_settings


@pytest.fixture
def filled(home: Path, tmp_path: Path) -> Path:
    """A home with two fingerprinted texts and a broken picture in quarantine; made without Dagster, which is faster."""
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    catalog = Catalog(home)
    settings = get_settings()
    sources = [str(sample("text/demo.txt")), str(sample("text/demo.html")), str(tmp_path / "broken.jpg")]
    registration = catalog.register(sources, fetcher_of(settings))
    store = open_store(settings.store_uri)
    with Pipeline.from_settings(settings) as pipeline:
        for batch in registration.batches:
            result = pipeline.download(catalog.members(batch.name))
            for stage in ("decode", "embed", "hash"):
                result = pipeline.run(stage, result.entries)
            catalog.record(batch.name, pipeline.store(store, result.entries).failures)
    return home


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run",), "Missing argument"),
        (("run", "no-such-folder"), "no-such-folder: no such file or folder"),
        (("run", "ftp://host/file.jpg"), "scheme"),
        (("run", "--batch-size", "many", "."), "--batch-size 'many'"),
        (("run", "--batch-size", "picture=3", "."), "unknown content type 'picture'"),
        (("query", "no-such-folder"), "no such file or folder"),
        (("query", "--top", "0", "x"), "--top"),
        (("show", "nobody"), "no fingerprint of 'nobody'"),
        (("export", "out.xlsx"), "unknown ending '.xlsx'"),
        (("cache", "clear", "--stage", "dekode"), "--stage 'dekode'"),
        (("no-such-command",), "No such command"),
    ],
)
def test_a_mistake_is_one_clear_line_and_exit_code_2(home, arguments, said):
    done = fingerprint(home, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    hints = ("Usage", "Try")
    assert len([line for line in done.stderr.splitlines() if line and not line.startswith(hints)]) == 1


def test_a_wrong_list_names_its_row(home, tmp_path):
    wrong = tmp_path / "list.csv"
    wrong.write_text("uri,owner\na.jpg,me\n,you\n")
    done = fingerprint(home, "run", wrong)
    assert done.returncode == 2
    assert "row 2" in done.stderr


def test_a_home_that_cannot_be_used_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = fingerprint(blocked / "home", "quarantine")
    assert done.returncode == 2
    assert "FINGERPRINT_HOME" in done.stderr


def test_a_wrong_setting_is_named(home):
    done = fingerprint(home, "doctor", FINGERPRINT_MEMO_MAX_BYTES="much")
    assert done.returncode == 2
    assert "FINGERPRINT_MEMO_MAX_BYTES='much'" in done.stderr


def test_a_query_in_json_is_one_line_for_each_file(filled):
    done = fingerprint(filled, "query", sample("text/demo.txt"), picture("coffee.png"), "--json")
    assert done.returncode == 0
    text, image = map(json.loads, done.stdout.splitlines())
    (match,) = text["matches"]
    assert match["uri"].endswith("demo.html")
    assert match["content_type"] == "text"
    assert match["score"] == 1.0
    assert match["query_range"] == [0, 6059]  # to the end of the last word
    assert match["evidence"] == "text_similarity_v1"
    assert match["confidence"] > 0.99
    assert image["matches"] == []


def test_a_query_for_people_is_a_table(filled):
    done = fingerprint(filled, "query", sample("text/demo.md"), sample("text/demo.txt"))
    assert "demo.md: no copy found" in done.stdout
    assert "demo.html" in done.stdout
    assert "characters 0-6059" in done.stdout


def test_a_query_that_cannot_be_fingerprinted_says_why_and_exits_with_1(filled, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    done = fingerprint(filled, "query", empty, sample("text/demo.txt"), "--json")
    assert done.returncode == 1
    failed, found = map(json.loads, done.stdout.splitlines())
    assert failed["error"] == {"stage": "download", "reason": "the file is empty", "retryable": False}
    assert len(found["matches"]) == 1


def test_show_takes_the_id_or_the_path(filled):
    path = sample("text/demo.txt")
    by_path = json.loads(fingerprint(filled, "show", path).stdout)
    assert by_path["media_type"] == "text/plain"
    assert by_path["components"][0]["algorithm"] == "minhash_v2"
    assert json.loads(fingerprint(filled, "show", by_path["content_id"]).stdout) == by_path


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_export_writes_what_pandas_reads(filled, tmp_path, ending):
    out = tmp_path / f"out.{ending}"
    done = fingerprint(filled, "export", out)
    assert done.stdout == f"2 fingerprints written to {out}\n"
    read = {"parquet": pd.read_parquet, "csv": pd.read_csv, "jsonl": lambda path: pd.read_json(path, lines=True)}
    frame = read[ending](out)
    assert sorted(Path(uri).name for uri in frame["uri"]) == ["demo.html", "demo.txt"]
    assert {"content_id", "digest", "minhash_v2"} <= set(frame.columns)


def test_the_quarantine_is_listed_with_reasons(filled):
    assert "the picture is damaged" in fingerprint(filled, "quarantine").stdout
    (failure,) = map(json.loads, fingerprint(filled, "quarantine", "--json").stdout.splitlines())
    assert failure["stage"] == "decode"
    assert failure["retryable"] is False
    assert failure["uri"].endswith("broken.jpg")


def test_the_cache_shows_and_forgets_stages(filled):
    usage = json.loads(fingerprint(filled, "cache", "stats", "--json").stdout)
    assert usage["decode"]["entries"] == 3  # Two texts, and why the picture cannot be decoded.
    assert "3 entries removed" in fingerprint(filled, "cache", "clear", "--stage", "decode").stdout
    assert "decode" not in json.loads(fingerprint(filled, "cache", "stats", "--json").stdout)
    fingerprint(filled, "cache", "clear")
    assert json.loads(fingerprint(filled, "cache", "stats", "--json").stdout) == {}


def test_doctor_finds_this_installation_in_order(filled):
    done = fingerprint(filled, "doctor")
    assert done.returncode == 0, done.stdout
    for expected in ("torch ", "models run on: runtime torch", "content type video", "2 text", "1 contents; see"):
        assert expected in done.stdout


def test_version_and_help(home):
    assert fingerprint(home, "--help").returncode == 0
    assert "Find copies" in fingerprint(home, "--help").stdout


def test_import_of_the_command_line_is_light():
    code = (
        "import sys, fingerprint_dagster.cli;"
        "print([name for name in ('torch', 'av', 'librosa', 'lancedb', 'dagster', 'pandas') if name in sys.modules])"
    )
    import subprocess

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
