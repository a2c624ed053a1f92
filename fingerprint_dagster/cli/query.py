"""`fingerprint query`: what is this a copy of, where, and how sure."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

import click

from fingerprint_dagster.cli.group import command
from fingerprint_dagster.cli.output import current_settings, new_console, new_table, open_catalog, readable

if TYPE_CHECKING:
    from fingerprint_dagster.content import Content, Failure, Match

_QUERIES_AT_ONCE = 64


@command.command(short_help="Find what files, folders or URIs are copies of.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--top", default=10, show_default=True, type=click.IntRange(1), help="References in an answer at most.")
@click.option(
    "--false-positives",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="RATE",
    help="Leave out matches with evidence that more than this share of unrelated pairs give; see `calibrate`.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON line for each query.")
def query(files: tuple[str, ...], top: int, false_positives: float | None, as_json: bool) -> None:
    """Find what FILE... (files, folders, URIs, lists) are copies of.

    Pairs that were marked as different (`fingerprint review`) are left out.
    """
    from fingerprint_dagster import calibration
    from fingerprint_dagster.catalog import content_of
    from fingerprint_dagster.content import Failure
    from fingerprint_dagster.duplicates.decisions import Decisions
    from fingerprint_dagster.index.store import open_store
    from fingerprint_dagster.media.registry import content_type
    from fingerprint_dagster.pipeline import Pipeline
    from fingerprint_dagster.search import find_copies
    from fingerprint_dagster.sources import expand

    settings = current_settings()
    open_catalog(settings)
    store = open_store(settings.store_uri)
    noise, decisions = calibration.load(settings.home), Decisions(settings.home)
    failed = 0
    with Pipeline.from_settings(settings) as pipeline:
        listings = (listed for file in files for listed in expand(file, pipeline.fetcher))
        while chunk := list(islice(listings, _QUERIES_AT_ONCE)):
            contents = [content_of(listed, pipeline.fetcher) for listed in chunk]
            answers = iter(pipeline.fingerprints([each for each in contents if not isinstance(each, Failure)]))
            for content in contents:
                found = content if isinstance(content, Failure) else next(answers)
                if isinstance(found, Failure):
                    failed += 1
                    _say_failed_query(found, as_json)
                else:
                    matches = find_copies(
                        store,
                        content_type(found.content.content_type),
                        found,
                        top,
                        calibration=noise,
                        false_positives=false_positives,
                        decisions=decisions,
                    )
                    _say_matches(found.content, matches, as_json)
    if failed:
        sys.exit(1)


def _say_failed_query(failure: Failure, as_json: bool) -> None:
    if as_json:
        error = {"stage": failure.stage, "reason": failure.reason, "retryable": failure.retryable}
        click.echo(json.dumps({"query": failure.uri, "error": error, "matches": []}, ensure_ascii=False))
    else:
        click.echo(f"{readable(failure.uri)}: {failure.stage} failed: {failure.reason}", err=True)


def _say_matches(asked: Content, matches: Sequence[Match], as_json: bool) -> None:
    from fingerprint_dagster.export import describe_match, place_text

    if as_json:
        rows = [describe_match(match) for match in matches]
        line = {"query": asked.uri, "content_type": asked.content_type, "matches": rows}
        click.echo(json.dumps(line, ensure_ascii=False))
        return
    console = new_console()
    if not matches:
        console.print(f"{readable(asked.uri)}: no copy found", highlight=False)
        return
    table = new_table("score", "sure", "copy of", "where in the query", "where in the reference", "evidence")
    table.title, table.title_justify = readable(asked.uri), "left"
    for match in matches:
        table.add_row(
            f"{match.score:.3f}",
            "" if match.confidence is None else f"{match.confidence:.3f}",
            readable(match.reference.uri),
            place_text(match.query_range, match.query_box, asked.content_type),
            place_text(match.reference_range, match.reference_box, match.reference.content_type),
            match.evidence,
        )
    console.print(table)
