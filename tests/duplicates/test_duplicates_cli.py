"""`fingerprint duplicates` and `fingerprint review` on a small collection."""

import csv
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from made_texts import edited, text, words

from fingerprint_dagster.cli import command
from fingerprint_dagster.duplicates.decisions import FORMAT
from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.index.store import open_store
from fingerprint_dagster.settings import get_settings

NOVEL = words(1)


@pytest.fixture(autouse=True)
def collection(home: Path) -> None:
    settings = get_settings()
    open_store(settings.store_uri).put(
        [
            text("novel", NOVEL),
            text("edited", edited(NOVEL, 1)),
            text("excerpt", NOVEL[100:160]),
            text("alone", words(2)),
        ]
    )


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(command, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def lines(*arguments: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in run(*arguments).stdout.splitlines()]


def test_clusters_and_parts_as_tables():
    out = run("duplicates").stdout
    assert "/texts/edited.txt" in out
    assert "a part of" in out or "the whole of" in out
    assert "clusters of copies: 1, copies to spare: 1" in out
    assert "contents: 4, compared now: 4" in out
    assert "contents: 4, compared now: 0" in run("duplicates").stdout
    assert "contents: 4, compared now: 4" in run("duplicates", "--again").stdout


def test_clusters_and_pairs_for_programs(tmp_path):
    (cluster,) = lines("duplicates", "--json")
    assert {cluster["keep"]["content_id"], cluster["copies"][0]["content_id"]} == {"novel", "edited"}  # type: ignore[index]
    assert len(lines("duplicates", "--pairs", "--json")) == 3
    assert len(list(csv.DictReader(io.StringIO(run("duplicates", "--csv").stdout)))) == 2
    assert len(list(csv.DictReader(io.StringIO(run("duplicates", "--csv", "--pairs").stdout)))) == 3
    out = tmp_path / "pairs.parquet"
    assert f"3 pairs written to {out}" in run("duplicates", "--out", str(out)).stderr
    assert out.exists()


def test_only_what_is_asked_for():
    assert lines("duplicates", "--json", "--type", "image") == []
    assert len(lines("duplicates", "--pairs", "--json", "--min-score", "0.95")) < 3
    with pytest.raises(UsageError, match="unknown content type"):
        run("duplicates", "--type", "hologram")


def test_a_report(tmp_path):
    out = tmp_path / "report.html"
    assert "3 pairs in" in run("duplicates", "--report", str(out)).stderr
    assert "3 pairs, 1 clusters" in out.read_text()


def test_pairs_are_reviewed(tmp_path):
    run("duplicates")
    assert len(lines("review", "list", "--json")) == 3
    assert "different" in run("review", "different", "novel", "edited").stdout
    assert len(lines("review", "list", "--json")) == 2
    ((decided),) = lines("review", "list", "--decided", "--json")
    assert (decided["verdict"], decided["holds"]) == ("different", True)
    assert lines("duplicates", "--json") == []
    assert "left out, since they were marked as different: 1" in run("duplicates").stdout
    assert "undecided again" in run("review", "undecided", "edited", "novel").stdout
    assert "nothing was decided" in run("review", "undecided", "edited", "novel").stdout
    assert len(lines("duplicates", "--json")) == 1
    run("review", "same", "/texts/novel.txt", "alone")
    (cluster,) = lines("duplicates", "--json")
    assert len(cluster["copies"]) == 2  # type: ignore[arg-type]


def test_a_wrong_name_is_told():
    with pytest.raises(UsageError, match="no fingerprint of 'nobody'"):
        run("review", "same", "novel", "nobody")
    with pytest.raises(UsageError, match="one content"):
        run("review", "same", "novel", "novel")


def test_decisions_are_imported_where_they_still_hold(tmp_path):
    stored = {
        each.content.content_id: each.digest for each in open_store(get_settings().store_uri).get(["novel", "edited"])
    }
    entry = {
        "one": "edited",
        "other": "novel",
        "one_digest": stored["edited"],
        "other_digest": stored["novel"],
        "verdict": "different",
    }
    changed = entry | {"other": "excerpt", "other_digest": "another"}
    taken_back = entry | {"verdict": "undecided"}
    path = tmp_path / "decisions.json"
    path.write_text(json.dumps({"format": FORMAT, "decisions": [entry, changed]}))
    result = run("review", "import", str(path))
    assert "decisions taken over: 1 (0 same, 1 different)" in result.stdout
    assert "1 left out" in result.stderr
    assert len(lines("review", "list", "--decided", "--json")) == 1
    path.write_text(json.dumps({"format": FORMAT, "decisions": [taken_back]}))
    assert "1 undecided again" in run("review", "import", str(path)).stdout
    assert lines("review", "list", "--decided", "--json") == []
