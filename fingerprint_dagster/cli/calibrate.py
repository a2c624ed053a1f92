"""`fingerprint calibrate`: what a score is worth, measured on contents that are no copies of each other."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING

import click

from fingerprint_dagster.cli.group import command
from fingerprint_dagster.cli.output import current_settings, new_console, new_table, open_catalog, readable
from fingerprint_dagster.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fingerprint_dagster.calibration import Calibration, Estimate
    from fingerprint_dagster.calibration.measure import Measured
    from fingerprint_dagster.content import Fingerprint
    from fingerprint_dagster.settings import Settings

_RATES = (1e-4, 1e-6)
_CONTENTS = 1000
_PAIRS = 50_000
_AT_ONCE = 64
_SHOWN = 20


@command.command(short_help="Show or measure what a score is worth.")
@click.argument("sources", nargs=-1, metavar="[SOURCE...]")
@click.option("--stored", is_flag=True, help="Measure on what is stored already.")
@click.option(
    "--rate",
    "rates",
    multiple=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Show the threshold for this false-positive rate; may be repeated.  [default: 0.0001, 0.000001]",
)
@click.option("--contents", default=_CONTENTS, show_default=True, type=click.IntRange(2), help="Of each type, at most.")
@click.option("--pairs", default=_PAIRS, show_default=True, type=click.IntRange(1), help="Of each two types, at most.")
@click.option(
    "--unrelated",
    is_flag=True,
    help="The contents are known to hold no copies of each other: count matching pairs as false.",
)
@click.option("--reset", is_flag=True, help="Go back to the calibration that comes with the package.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def calibrate(
    sources: tuple[str, ...],
    stored: bool,
    rates: tuple[float, ...],
    contents: int,
    pairs: int,
    unrelated: bool,
    reset: bool,
    as_json: bool,
) -> None:
    """Measure how much evidence unrelated contents give by chance, on SOURCE... or on what is stored.

    The result is kept in the home; confidences and `query --false-positives` go by it from then on. Without SOURCE and
    --stored the calibration in force is shown. Equal bytes are left out, and so are pairs that match, as copies, unless
    --unrelated says there are none or somebody marked them as different (`fingerprint review`).
    """
    from fingerprint_dagster import calibration

    settings = current_settings()
    open_catalog(settings)
    if sum((bool(sources), stored, reset)) > 1:
        raise UsageError("give either SOURCE..., or --stored, or --reset")
    if reset:
        (settings.home / calibration.FILE).unlink(missing_ok=True)
    elif sources or stored:
        named = "the stored contents" if stored else ", ".join(sources)
        found = _stored(settings, contents) if stored else _fingerprints(settings, sources, contents)
        measured = _measured(settings, found, named, pairs, unrelated)
        calibration.save(settings.home, measured.calibration)
        _say_matched(measured, unrelated)
    _say(calibration.load(settings.home), rates or _RATES, as_json)


def _stored(settings: Settings, most: int) -> list[Fingerprint]:
    """Stored fingerprints, at most so many of each content type."""
    from fingerprint_dagster.index.store import open_store

    store = open_store(settings.store_uri)
    wanted = {name: min(count, most) for name, count in store.count().items()}
    found = []
    for batch in store.scan():
        for fingerprint in batch:
            if wanted[fingerprint.content.content_type] > 0:
                wanted[fingerprint.content.content_type] -= 1
                found.append(fingerprint)
        if not any(wanted.values()):
            break
    return found


def _fingerprints(settings: Settings, sources: Iterable[str], most: int) -> list[Fingerprint]:
    """Fingerprints of what the sources list, at most so many of each content type; nothing is stored."""
    from fingerprint_dagster.catalog import content_of
    from fingerprint_dagster.content import Failure
    from fingerprint_dagster.pipeline import Pipeline
    from fingerprint_dagster.sources import expand

    found: list[Fingerprint] = []
    left: dict[str, int] = {}
    with Pipeline.from_settings(settings) as pipeline:
        listings = (listed for source in sources for listed in expand(source, pipeline.fetcher))
        contents = (content_of(listed, pipeline.fetcher) for listed in listings)
        while chunk := list(islice(contents, _AT_ONCE)):
            wanted = []
            for content in chunk:
                if not isinstance(content, Failure) and left.setdefault(content.content_type, most) > 0:
                    left[content.content_type] -= 1
                    wanted.append(content)
            made = pipeline.fingerprints(wanted)
            found += [each for each in made if not isinstance(each, Failure)]
            for failure in made:
                if isinstance(failure, Failure):
                    click.echo(f"left out: {readable(failure.uri)}: {failure.reason}", err=True)
    return found


def _measured(settings: Settings, found: Sequence[Fingerprint], source: str, pairs: int, unrelated: bool) -> Measured:
    from rich.progress import Progress

    from fingerprint_dagster.calibration.measure import measure
    from fingerprint_dagster.duplicates.decisions import Decisions

    with Progress(console=new_console(), transient=True, disable=not sys.stderr.isatty()) as bars:
        task = bars.add_task("comparing", total=None)
        measured = measure(
            found,
            source=f"{len(found)} contents of {source}",
            pairs=pairs,
            unrelated=unrelated,
            verdicts=Decisions(settings.home),
            progress=lambda compared: bars.advance(task, compared),
        )
    if not measured.calibration.noise:
        raise UsageError("there are no two contents to compare: give more, and others than copies of each other")
    return measured


def _say_matched(measured: Measured, unrelated: bool) -> None:
    """Tell which pairs matched, on the standard error stream."""
    if not measured.matched:
        return
    told = "counted as false" if unrelated else "taken for copies and left out"
    click.echo(f"{len(measured.matched)} pairs match and were {told}:", err=True)
    for each in list(_lines(measured))[:_SHOWN]:
        click.echo(f"  {each}", err=True)
    if len(measured.matched) > _SHOWN:
        click.echo(f"  and {len(measured.matched) - _SHOWN} more", err=True)


def _lines(measured: Measured) -> Iterator[str]:
    for each in measured.matched:
        query, reference = readable(each.query.content.uri), readable(each.match.reference.uri)
        yield f"{query} | {reference} ({each.match.evidence}, {each.match.score:.3f})"


def _say(calibration: Calibration, rates: Sequence[float], as_json: bool) -> None:
    if as_json:
        rows = [
            {
                "content_types": each.content_types,
                "evidence": each.evidence,
                "contents": each.contents,
                "pairs": each.pairs,
                "accepted": asdict(each.accepted),
                "thresholds": [
                    {"rate": rate, "threshold": None if found is None else asdict(found)}
                    for rate, found in ((rate, each.threshold(rate)) for rate in rates)
                ],
            }
            for each in calibration.noise
        ]
        head = {"source": calibration.source, "collection": calibration.collection}
        click.echo(json.dumps(head | {"evidence": rows}, ensure_ascii=False))
        return
    console = new_console()
    table = new_table("content", "evidence", "pairs", "false now", *(f"strength for {rate:.0e}" for rate in rates))
    table.title, table.title_justify = f"measured on {calibration.source}", "left"
    for each in calibration.noise:
        table.add_row(
            " and ".join(each.content_types),
            each.evidence,
            str(each.pairs),
            f"{each.accepted.value:.1e} (to {each.accepted.high:.1e})",
            *(_told(each.threshold(rate)) for rate in rates),
        )
    console.print(table)
    console.print(
        f"confidence: the share of copies where every second query has one among {calibration.collection} contents; "
        "in brackets 95 % intervals; ~ is extrapolated",
        highlight=False,
        soft_wrap=True,
    )


def _told(threshold: Estimate | None) -> str:
    if threshold is None:
        return "not enough pairs"
    if threshold.value == 0:
        return "any"
    about = "~" if threshold.extrapolated else ""
    return f"{about}{threshold.value:.4g} ({threshold.low:.4g} to {threshold.high:.4g})"
