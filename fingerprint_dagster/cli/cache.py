"""`fingerprint cache`: the memo of stage results."""

from __future__ import annotations

import json

import click

from fingerprint_dagster.cli.group import command
from fingerprint_dagster.cli.output import current_settings, new_console, new_table
from fingerprint_dagster.errors import UsageError


@command.group()
def cache() -> None:
    """The memo of stage results: what it holds, and how to empty it."""


@cache.command("stats")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def cache_stats(as_json: bool) -> None:
    """Show entries and bytes of each stage."""
    from fingerprint_dagster.pipeline import memo_of

    settings = current_settings()
    usage = memo_of(settings).usage()
    if as_json:
        click.echo(json.dumps({stage: vars(each) for stage, each in usage.items()}))
        return
    table = new_table("stage", "entries", "MB")
    for stage, each in usage.items():
        table.add_row(stage, str(each.entries), f"{each.bytes / 1e6:.1f}")
    total = sum(each.bytes for each in usage.values())
    table.add_row("total", str(sum(each.entries for each in usage.values())), f"{total / 1e6:.1f}")
    console = new_console()
    console.print(table)
    console.print(
        f"cap {settings.memo_max_bytes / 1e6:.0f} MB, entries live {settings.memo_ttl_seconds / 86400:g} days"
    )


@cache.command("evict")
def cache_evict() -> None:
    """Drop what is too old or over the size cap. A memo in an object store is not evicted while it is written to."""
    from fingerprint_dagster.pipeline import memo_of

    click.echo(f"{memo_of(current_settings()).evict()} entries removed")


@cache.command("clear")
@click.option("--stage", help="Only this stage: download, decode, embed or hash.")
def cache_clear(stage: str | None) -> None:
    """Forget stage results. Fingerprints in the store stay."""
    from fingerprint_dagster.pipeline import memo_of
    from fingerprint_dagster.stages import STAGES

    if stage is not None and stage not in STAGES:
        raise UsageError(f"--stage {stage!r}: there are {', '.join(STAGES)}")
    click.echo(f"{memo_of(current_settings()).clear(stage)} entries removed")
