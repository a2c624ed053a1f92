"""`fingerprint duplicates`: what in the collection is a copy of what, and which copy is the best."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from heapq import nsmallest
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fingerprint_dagster.cli.group import command
from fingerprint_dagster.cli.output import current_settings, new_console, new_table, open_catalog, readable

if TYPE_CHECKING:
    from fingerprint_dagster.duplicates.findings import Findings
    from fingerprint_dagster.duplicates.join import Joined
    from fingerprint_dagster.duplicates.pairs import Pairs
    from fingerprint_dagster.settings import Settings

_SHOWN = 50
_WORDS = {
    "copy": "a copy of",
    "part_of": "a part of",
    "contains": "the whole of",
    "overlap": "overlapping with",
    "suggestion": "perhaps like",
}


@command.command(short_help="Find all copies within the collection.")
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Only of this content type; may be repeated.")
@click.option("--min-score", default=0.0, type=click.FloatRange(0, 1), help="Leave out pairs with a lower score.")
@click.option("--min-confidence", default=0.0, type=click.FloatRange(0, 1), help="Leave out pairs that are less sure.")
@click.option(
    "--keep",
    default="largest",
    show_default=True,
    type=click.Choice(["largest", "smallest", "earliest", "latest", "first"]),
    help="The copy of each cluster to keep.",
)
@click.option("--prefer", multiple=True, metavar="PATTERN", help="Keep what fits this pattern, such as '*/masters/*'.")
@click.option("--pairs", "as_pairs", is_flag=True, help="List the pairs instead of the clusters.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line for each cluster or pair.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV, a row for each content of a cluster, or each pair.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write all pairs to a .parquet, .csv or .jsonl file."
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write one HTML file that shows pairs.",
)
@click.option("--again", is_flag=True, help="Compare everything anew, also what was compared before.")
def duplicates(
    types: tuple[str, ...],
    min_score: float,
    min_confidence: float,
    keep: str,
    prefer: tuple[str, ...],
    as_pairs: bool,
    as_json: bool,
    as_csv: bool,
    out: Path | None,
    report: Path | None,
    again: bool,
) -> None:
    """Find all copies within the collection: clusters of copies, parts, and overlaps.

    Only what is new or changed since the last time is compared. Pairs that were marked as different are left out.
    """
    from fingerprint_dagster.duplicates.decisions import Decisions
    from fingerprint_dagster.duplicates.findings import Wanted, find, order_of_registration
    from fingerprint_dagster.duplicates.keep import best_first, keep_of
    from fingerprint_dagster.duplicates.pairs import Pairs
    from fingerprint_dagster.duplicates.relation import RELATIONS
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
    from fingerprint_dagster.index.store import open_store
    from fingerprint_dagster.media.registry import content_type

    settings = current_settings()
    wanted = Wanted(
        content_types=frozenset(content_type(name).name for name in types),
        least_score=min_score,
        least_confidence=min_confidence,
    )
    order = order_of_registration(open_catalog(settings))
    pairs = Pairs(settings.home, settings.store_uri)
    if again:
        pairs.clear()
    joined = _join(settings, pairs)
    decisions = Decisions(settings.home).all()
    rank = best_first(keep_of(keep), prefer=prefer, registered=order)
    findings = find(open_store(settings.store_uri), pairs, decisions, rank, wanted)
    if out is not None:
        click.echo(f"{write_rows(pair_rows(findings), PAIR_COLUMNS, out)} pairs written to {out}", err=True)
    if report is not None:
        _write_report(settings, findings, report)
    if as_json:
        for line in map(pair_json, findings) if as_pairs else map(cluster_json, findings.clusters):
            click.echo(json.dumps(line, ensure_ascii=False))
    elif as_csv and as_pairs:
        write_csv(pair_rows(findings), PAIR_COLUMNS, sys.stdout)
    elif as_csv:
        write_csv(cluster_rows(findings.clusters), CLUSTER_COLUMNS, sys.stdout)
    elif as_pairs:
        _say_pairs(findings, RELATIONS)
    else:
        _say_clusters(findings)
        _say_pairs(findings, [each for each in RELATIONS if each != "copy"])
    if not (as_json or as_csv):
        _summary(findings, joined, sum(pairs.count().values()))


def _join(settings: Settings, pairs: Pairs) -> Joined:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from fingerprint_dagster.duplicates.join import join
    from fingerprint_dagster.index.store import open_store

    columns = (TextColumn("comparing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=None)
        return join(
            open_store(settings.store_uri),
            pairs,
            workers=settings.worker_count,
            progress=lambda done, total: bars.update(task, completed=done, total=total),
        )


def _write_report(settings: Settings, findings: Findings, out: Path) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from fingerprint_dagster.duplicates.report import write_report
    from fingerprint_dagster.pipeline import Pipeline

    columns = (TextColumn("pictures"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        Pipeline.from_settings(settings) as pipeline,
        Progress(*columns, console=Console(stderr=True), transient=True) as bars,
    ):
        task = bars.add_task("", total=None)
        written = write_report(
            findings, pipeline, out, progress=lambda done, total: bars.update(task, completed=done, total=total)
        )
    click.echo(f"{written.pairs} pairs in {out} ({out.stat().st_size / 1e6:.1f} MB)", err=True)
    if written.left_out:
        click.echo(f"{written.left_out} less sure pairs are not in the report: --out FILE has all", err=True)


def _say_clusters(findings: Findings) -> None:
    from fingerprint_dagster.duplicates.rows import size_text

    if not findings.clusters:
        return
    table = new_table("cluster", "keep", "content", "type", "size", "bytes")
    for cluster in findings.clusters[:_SHOWN]:
        for member in cluster.members:
            first = member is cluster.keep
            table.add_row(
                str(cluster.number) if first else "",
                "keep" if first else "",
                readable(member.content.uri),
                str(member.content.content_type),
                size_text(member),
                f"{member.size:,}",
                end_section=member is cluster.members[-1],
            )
    console = new_console()
    console.print(table)
    if len(findings.clusters) > _SHOWN:
        console.print(f"and {len(findings.clusters) - _SHOWN} more clusters (--json, --csv and --report have all)")


def _say_pairs(findings: Findings, relations: Sequence[str]) -> None:
    from fingerprint_dagster.duplicates.findings import surest
    from fingerprint_dagster.export import place_text

    table = new_table("content", "is", "of", "score", "sure", "where", "where in the other", "evidence", "decision")
    wanted = sum(finding.pair.relation in relations for finding in findings)
    asked = (finding for finding in findings if finding.pair.relation in relations)
    for finding in nsmallest(_SHOWN, asked, key=lambda finding: surest(finding.pair)):
        pair = finding.pair
        one, other, best = pair.one.content, pair.other.content, pair.best
        table.add_row(
            readable(one.uri),
            _WORDS[pair.relation],
            readable(other.uri),
            f"{best.score:.3f}",
            "" if best.confidence is None else f"{best.confidence:.3f}",
            place_text(best.query_range, best.query_box, str(one.content_type)),
            place_text(best.reference_range, best.reference_box, str(other.content_type)),
            best.evidence,
            finding.verdict or "",
        )
    if table.row_count:
        console = new_console()
        console.print(table)
        if wanted > _SHOWN:
            console.print(f"and {wanted - _SHOWN} more pairs (--pairs --json and --out have all)")


def _summary(findings: Findings, joined: Joined, contents: int) -> None:
    relations = Counter(finding.pair.relation for finding in findings)
    spare = sum(cluster.spare_bytes for cluster in findings.clusters)
    copies = sum(len(cluster.members) - 1 for cluster in findings.clusters)
    words = ", ".join(f"{count} {relation}" for relation, count in relations.most_common()) or "none"
    click.echo(
        f"contents: {contents}, compared now: {joined.compared} (pairs verified: {joined.verified})\n"
        f"pairs: {sum(relations.values())} ({words})\n"
        f"clusters of copies: {len(findings.clusters)}, copies to spare: {copies} ({spare / 1e6:,.1f} MB)"
    )
    if findings.different:
        click.echo(f"left out, since they were marked as different: {findings.different}")
