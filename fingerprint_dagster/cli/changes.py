"""`fingerprint changes`: what has changed behind the same address, and what is gone."""

from __future__ import annotations

import json
import time
from datetime import datetime

import click

from fingerprint_dagster.cli.group import command
from fingerprint_dagster.cli.output import current_settings, new_console, new_table, open_catalog, readable


@command.command(short_help="List what has changed behind its address, or is gone.")
@click.option(
    "--since", type=click.DateTime(), metavar="DATE", help="Only what was noticed since that day (2026-01-31) or time."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON line for each content.")
def changes(since: datetime | None, as_json: bool) -> None:
    """List contents that were stored with other bytes before, or that their source has no more.

    Run their sources again, or switch on the schedule `rescan_schedule`, to look for changes. The fingerprint of a
    changed content replaces the old one; that of a removed content stays.
    """
    found = open_catalog(current_settings()).changes(since.timestamp() if since else 0.0)
    if as_json:
        for change in found:
            click.echo(json.dumps(vars(change), ensure_ascii=False))
        return
    console = new_console()
    if not found:
        console.print("nothing has changed")
        return
    table = new_table("content", "what", "noticed")
    for change in found:
        what = "removed" if change.removed else f"version {change.version}"
        table.add_row(readable(change.uri), what, time.strftime("%Y-%m-%d %H:%M", time.localtime(change.since)))
    console.print(table)
