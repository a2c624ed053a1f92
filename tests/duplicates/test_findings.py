"""Clusters with the best copy first, and both clusters and pairs as tables."""

import csv
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from made_texts import edited, text, words

from fingerprint_dagster.content import Fingerprint, Sketch
from fingerprint_dagster.duplicates.findings import Findings, find
from fingerprint_dagster.duplicates.join import join
from fingerprint_dagster.duplicates.keep import best_first, keep_of
from fingerprint_dagster.duplicates.pairs import Pairs
from fingerprint_dagster.duplicates.rows import (
    CLUSTER_COLUMNS,
    PAIR_COLUMNS,
    cluster_json,
    cluster_rows,
    pair_json,
    pair_rows,
    write_csv,
    write_rows,
)
from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.index.exact import ExactStore

NOVEL = words(1, 400)


def findings_of(contents: list[Fingerprint], home: Path, **rule) -> Findings:
    store, pairs = ExactStore(), Pairs(home, "store")
    store.put(contents)
    join(store, pairs)
    return find(store, pairs, [], best_first(rule.pop("keep", "largest"), **rule))


def members(findings: Findings) -> list[list[str]]:
    return [[each.content.content_id for each in cluster.members] for cluster in findings.clusters]


def test_a_chain_of_edits_is_no_cluster(tmp_path):
    """Each is a copy of the next, but the last shares too little with the first."""
    chain = [NOVEL]
    for seed in range(6):
        chain.append(edited(chain[-1], seed, 0.15))
    contents = [text(f"{number}", each) for number, each in enumerate(chain)]
    findings = findings_of(contents, tmp_path)
    linked = {finding.pair.ids for finding in findings if finding.pair.relation == "copy"}
    assert {("0", "1"), ("1", "2"), ("2", "3"), ("3", "4"), ("4", "5"), ("5", "6")} <= linked
    assert ("0", "6") not in linked
    assert not any({"0", "6"} <= set(cluster) for cluster in members(findings))


def test_an_excerpt_is_in_no_cluster_with_the_whole(tmp_path):
    findings = findings_of([text("whole", NOVEL), text("excerpt", NOVEL[:50])], tmp_path)
    assert members(findings) == []
    assert [finding.pair.relation for finding in findings] in (["part_of"], ["contains"])


def copies() -> list[Fingerprint]:
    return [
        text("small", NOVEL[20:], created="2021-05-01"),
        text("large", [*NOVEL, *words(2, 20)], created="2020-05-01T10:00:00+02:00"),
        text("middle", NOVEL, "file:///masters/middle.txt"),
    ]


@pytest.mark.parametrize(
    ("rule", "order"),
    [
        ({"keep": "largest"}, ["large", "middle", "small"]),
        ({"keep": "smallest"}, ["small", "middle", "large"]),
        ({"keep": "earliest"}, ["large", "small", "middle"]),
        ({"keep": "latest"}, ["small", "large", "middle"]),
        ({"keep": "first", "registered": {"small": 2, "large": 1, "middle": 0}}, ["middle", "large", "small"]),
        ({"keep": "first"}, ["large", "middle", "small"]),
        ({"keep": "smallest", "prefer": ["/masters/*"]}, ["middle", "small", "large"]),
    ],
)
def test_the_best_copy_comes_first(rule, order, tmp_path):
    assert members(findings_of(copies(), tmp_path, **rule)) == [order]


def test_pictures_are_large_by_their_pixels_and_films_by_pixels_then_seconds():
    def of(name: str, size: int, **info: float) -> Fingerprint:
        made = text(name, "words")
        return replace(made, size=size, sketch=Sketch((), info))

    rank = best_first("largest")
    pictures = [of("heavy", 900, width=10, height=10), of("wide", 100, width=20, height=20)]
    assert min(pictures, key=rank).content.content_id == "wide"
    films = [of("short", 900, width=20, height=20, duration=5.0), of("long", 100, width=20, height=20, duration=9.0)]
    assert min(films, key=rank).content.content_id == "long"


def test_the_date_of_a_file_counts_where_its_list_gives_none(tmp_path):
    for name, moment in (("old", 1_000_000), ("new", 2_000_000)):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (moment, moment))
    files = [text(name, "words", (tmp_path / name).as_uri()) for name in ("new", "old")]
    listed = text("listed", "words", created="1970-01-02")
    ranked = sorted([*files, listed, text("gone", "words")], key=best_first("earliest"))
    assert [each.content.content_id for each in ranked] == ["listed", "old", "new", "gone"]


def test_an_unknown_rule_is_named():
    with pytest.raises(UsageError, match="there are: largest, smallest"):
        keep_of("prettiest")


def test_clusters_and_pairs_as_rows(tmp_path):
    findings = findings_of([*copies(), text("excerpt", NOVEL[100:150])], tmp_path)
    rows = list(cluster_rows(findings.clusters))
    assert [(row["cluster"], row["keep"], row["content_id"]) for row in rows] == [
        (1, True, "large"),
        (1, False, "middle"),
        (1, False, "small"),
    ]
    assert all(tuple(row) == CLUSTER_COLUMNS for row in rows)
    told = list(pair_rows(findings))
    assert all(tuple(row) == PAIR_COLUMNS for row in told)
    of_excerpt = [row for row in told if "excerpt" in (row["one_id"], row["other_id"])]
    assert {row["relation"] for row in of_excerpt} <= {"part_of", "contains"}
    assert {(row["one_cluster"] or row["other_cluster"]) for row in of_excerpt} == {1}
    assert cluster_json(findings.clusters[0])["keep"]["content_id"] == "large"
    assert pair_json(next(iter(findings)))["matches"][0]["evidence"].startswith("text_")


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_pairs_as_files(ending, tmp_path):
    findings = findings_of(copies(), tmp_path)
    out = tmp_path / f"pairs.{ending}"
    assert write_rows(pair_rows(findings), PAIR_COLUMNS, out) == 3
    if ending == "parquet":
        rows = pq.read_table(out).to_pylist()
    elif ending == "csv":
        rows = list(csv.DictReader(out.open(newline="")))
    else:
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["one_id"] for row in rows] == [finding.pair.one.content.content_id for finding in findings]
    assert {row["relation"] for row in rows} == {"copy"}
    assert list(rows[0]) == list(PAIR_COLUMNS)


def test_no_pairs_are_a_table_without_rows(tmp_path):
    assert write_rows([], PAIR_COLUMNS, tmp_path / "none.parquet") == 0
    assert pq.read_table(tmp_path / "none.parquet").column_names == list(PAIR_COLUMNS)


def test_what_a_spreadsheet_would_take_for_a_formula_is_text(tmp_path):
    hostile = [text("=1+1", NOVEL), text("plain", edited(NOVEL, 1))]
    out = io.StringIO()
    write_csv(cluster_rows(findings_of(hostile, tmp_path).clusters), CLUSTER_COLUMNS, out)
    assert "'=1+1" in out.getvalue()


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(UsageError, match="unknown ending"):
        write_rows([], PAIR_COLUMNS, tmp_path / "pairs.xls")
    with pytest.raises(UsageError, match="cannot be written"):
        write_rows([], PAIR_COLUMNS, tmp_path / "no folder" / "pairs.csv")
