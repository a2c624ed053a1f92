"""`fingerprint run`: register content and fingerprint it."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fingerprint_dagster.cli.group import command
from fingerprint_dagster.cli.output import current_settings, new_console, new_table, open_catalog
from fingerprint_dagster.errors import UsageError

if TYPE_CHECKING:
    from fingerprint_dagster.catalog import Batch, Catalog, Registration
    from fingerprint_dagster.jobs.launch import RunReport
    from fingerprint_dagster.settings import Settings


@command.command(short_help="Register and fingerprint files, folders, URIs and lists.")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "--batch-size", "sizes", multiple=True, metavar="[TYPE=]N", help="Contents in a batch, for one type or all."
)
@click.option("--again", is_flag=True, help="Run batches that are up to date too (the memo still spares the work).")
def run(sources: tuple[str, ...], sizes: tuple[str, ...], again: bool) -> None:
    """Register and fingerprint files, folders, URIs and lists (CSV, JSONL, Parquet with a column `uri`, or @LIST)."""
    from fingerprint_dagster.pipeline import fetcher_of

    settings = current_settings()
    catalog = open_catalog(settings)
    started = time.monotonic()
    registration = catalog.register(sources, fetcher_of(settings), batch_sizes=_batch_sizes(sizes))
    _say_registered(registration)
    todo = registration.batches if again else _not_up_to_date(settings, catalog, registration.batches)
    reports = run_with_bars(settings, todo)
    _summary(catalog, registration, reports, time.monotonic() - started)
    if not all(report.success for report in reports):
        sys.exit(1)


def _batch_sizes(options: Sequence[str]) -> dict[str, int]:
    from fingerprint_dagster.media.registry import content_type, content_types

    sizes: dict[str, int] = {}
    for option in options:
        name, _, number = option.rpartition("=")
        if not number.isdigit() or int(number) < 1:
            raise UsageError(f"--batch-size {option!r}: give a number from 1, or TYPE=NUMBER such as image=500")
        for each in [content_type(name).name] if name else content_types():
            sizes[each] = int(number)
    return sizes


def _not_up_to_date(settings: Settings, catalog: Catalog, batches: Sequence[Batch]) -> list[Batch]:
    """The batches that are not stored under today's stage versions, or have contents that a retry can help."""
    if not settings.store and not Path(settings.store_uri).exists():
        return list(batches)
    waiting = {batch for batch, failure in catalog.quarantined() if failure.retryable}
    return [batch for batch in batches if batch.name in waiting or not is_current(batch)]


def is_current(batch: Batch) -> bool:
    """Whether the batch was stored under today's stage versions."""
    from fingerprint_dagster.media.registry import content_type
    from fingerprint_dagster.stages import recipe

    return batch.recipe == recipe(content_type(batch.content_type))


def _say_registered(registration: Registration) -> None:
    console = new_console()
    changed = f" ({registration.changed} of them changed)" if registration.changed else ""
    console.print(f"registered {registration.new} new contents{changed}, {registration.unchanged} were known")
    if registration.removed:
        console.print(f"{registration.removed} that were there before are gone (see `fingerprint changes`)")
    if registration.unrecognised:
        console.print(f"{len(registration.unrecognised)} are of no known content type (see `fingerprint quarantine`)")


def run_with_bars(settings: Settings, batches: Sequence[Batch], *, retry: bool = False) -> list[RunReport]:
    """Run the batches on Dagster while one bar for each stage shows how far they are."""
    from fingerprint_dagster.jobs.launch import end_killed_runs, run_batches

    if not batches:
        end_killed_runs(settings)  # Otherwise the first process that executes runs does it.
        return []
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from fingerprint_dagster.media.registry import content_type
    from fingerprint_dagster.stages import STAGES

    total = sum(batch.size for batch in batches)
    columns = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=new_console()) as bars:
        tasks = {stage: bars.add_task(stage, total=total, start=False) for stage in STAGES}
        done: dict[tuple[str, str], int] = {}

        def show(batch: str, stage: str, count: int) -> None:
            bars.start_task(tasks[stage])
            done[batch, stage] = count
            bars.update(tasks[stage], completed=sum(n for (_, name), n in done.items() if name == stage))

        plugins = [content_type(batch.content_type) for batch in batches if not is_current(batch)]
        return run_batches(
            settings,
            [batch.name for batch in batches],
            retry=retry,
            warm_models=any(plugin.has_model for plugin in plugins),
            on_progress=show,
        )


def _summary(catalog: Catalog, registration: Registration, reports: Sequence[RunReport], seconds: float) -> None:
    console = new_console()
    failed = [report for report in reports if not report.success]
    names = [batch.name for batch in registration.batches]
    contents = sum(batch.size for batch in registration.batches)
    quarantined = [failure for _, failure in catalog.quarantined(names)] + list(registration.unrecognised)
    if not reports:
        console.print(f"nothing to do: {contents} contents in {len(names)} batches are up to date")
    else:
        table = new_table("stage", "computed", "reused")
        for stage in reports[0].stages or {}:
            counts = [report.stages[stage] for report in reports if stage in report.stages]
            table.add_row(
                stage, str(sum(each["computed"] for each in counts)), str(sum(each["reused"] for each in counts))
            )
        console.print(table)
        count = sum(batch.size for batch in registration.batches if batch.name in {report.batch for report in reports})
        console.print(
            f"{count} contents in {len(reports)} batches, {seconds:.1f} s, {count / seconds:.1f} contents a second"
        )
    if quarantined:
        console.print(f"{len(quarantined)} in quarantine:")
        for (stage, reason), number in Counter((each.stage, each.reason) for each in quarantined).most_common(10):
            console.print(f"  {number} x {stage}: {reason}", highlight=False)
    for report in failed:
        console.print(f"batch {report.batch}: run {report.run_id} failed", style="red")
        console.print(report.error.strip()[-2000:], highlight=False, markup=False)
