"""`fingerprint backfill`: run batches again, chosen by what they hold and when they were made."""

from __future__ import annotations

import sys
import time
from datetime import datetime

import click

from fingerprint_dagster.cli.group import command
from fingerprint_dagster.cli.output import current_settings, new_console, new_table, open_catalog
from fingerprint_dagster.cli.run import is_current, run_with_bars


@command.command(short_help="Run batches again: out of date, failed, by type or date.")
@click.option("--type", "content_type", help="Only batches of this content type.")
@click.option("--collection", metavar="SOURCE", help="Only what this source listed, or whose uri or path begins so.")
@click.option("--failed", is_flag=True, help="Only batches with contents in quarantine, which are tried again.")
@click.option(
    "--since", type=click.DateTime(), metavar="DATE", help="Only batches made since that day (2026-01-31) or time."
)
@click.option(
    "--until", type=click.DateTime(), metavar="DATE", help="Only batches made before that day (2026-01-31) or time."
)
@click.option("--again", is_flag=True, help="Batches that are up to date too (the memo still spares the work).")
@click.option("--dry-run", is_flag=True, help="Only show the batches.")
@click.option("--queue", is_flag=True, help="Leave the runs to the daemon of `fingerprint ui`, as a Dagster backfill.")
def backfill(
    content_type: str | None,
    collection: str | None,
    failed: bool,
    since: datetime | None,
    until: datetime | None,
    again: bool,
    dry_run: bool,
    queue: bool,
) -> None:
    """Run registered batches: those that are not up to date, or with contents that failed.

    All conditions must hold. A new release of a model makes every batch of its content type out of date; what did
    not change with it comes from the memo.
    """
    from fingerprint_dagster.media.registry import content_type as known_type

    settings = current_settings()
    found = open_catalog(settings).select(
        content_type=known_type(content_type).name if content_type else None,
        collection=collection,
        since=since.timestamp() if since else None,
        until=until.timestamp() if until else None,
        failed=failed,
    )
    batches = [batch for batch in found if failed or again or not is_current(batch)]
    contents = sum(batch.size for batch in batches)
    if dry_run or not batches:
        if batches:
            table = new_table("batch", "content type", "contents", "up to date")
            for batch in batches:
                table.add_row(batch.name, batch.content_type, str(batch.size), "yes" if is_current(batch) else "no")
            new_console().print(table)
        click.echo(f"{contents} contents in {len(batches)} batches of {len(found)} that match")
        return
    if queue:
        from fingerprint_dagster.jobs.backfill import queue_backfill

        backfill_id = queue_backfill(settings, [batch.name for batch in batches], retry=failed)
        click.echo(f"backfill {backfill_id}: {contents} contents in {len(batches)} batches wait for the daemon")
        return
    started = time.monotonic()
    reports = run_with_bars(settings, batches, retry=failed)
    wrong = [report for report in reports if not report.success]
    click.echo(f"{contents} contents in {len(batches)} batches, {time.monotonic() - started:.1f} s")
    for report in wrong:
        click.echo(f"batch {report.batch}: run {report.run_id} failed: {report.error.strip()[-500:]}", err=True)
    if wrong:
        sys.exit(1)
