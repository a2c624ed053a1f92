"""`fingerprint quarantine`: what failed, and another try."""

from __future__ import annotations

import json
import sys
import time

import click

from fingerprint_dagster.cli.group import command
from fingerprint_dagster.cli.output import current_settings, new_console, new_table, open_catalog, readable
from fingerprint_dagster.cli.run import run_with_bars


@command.command(short_help="List what failed and why, or try it again.")
@click.option("--retry", is_flag=True, help="Run the batches of what is in quarantine again.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line for each content.")
def quarantine(retry: bool, as_json: bool) -> None:
    """List the contents that failed: stage, reason, and whether a retry can help."""
    from fingerprint_dagster.pipeline import fetcher_of

    settings = current_settings()
    catalog = open_catalog(settings)
    failures = catalog.quarantined()
    if retry:
        started = time.monotonic()
        names = list(dict.fromkeys(batch for batch, _ in failures if batch))
        lost = [failure.uri for batch, failure in failures if not batch]
        registration = catalog.register(lost, fetcher_of(settings), remember=False)
        batches = list(registration.batches) + catalog.batches(names)
        reports = run_with_bars(settings, batches, retry=True)
        left = catalog.quarantined()
        click.echo(
            f"{len(failures) - len(left)} of {len(failures)} left the quarantine in {time.monotonic() - started:.1f} s"
        )
        if not all(report.success for report in reports):
            sys.exit(1)
        failures = left
    if as_json:
        for batch, failure in failures:
            click.echo(json.dumps({"batch": batch or None, **vars(failure)}, ensure_ascii=False))
        return
    console = new_console()
    if not failures:
        console.print("the quarantine is empty")
        return
    table = new_table("content", "stage", "reason", "retry can help")
    for _, failure in failures:
        table.add_row(readable(failure.uri), failure.stage, failure.reason, "yes" if failure.retryable else "no")
    console.print(table)
