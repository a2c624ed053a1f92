"""`fingerprint show` and `fingerprint export`: look at what is stored."""

from __future__ import annotations

import json
from pathlib import Path

import click

from fingerprint_dagster.cli.group import command
from fingerprint_dagster.cli.output import current_settings
from fingerprint_dagster.errors import UsageError


@command.command()
@click.argument("content_id", metavar="ID")
def show(content_id: str) -> None:
    """Show one stored fingerprint as JSON. ID is a content_id, or the path or uri it was registered by."""
    from fingerprint_dagster.catalog import default_content_id
    from fingerprint_dagster.export import describe
    from fingerprint_dagster.index.store import open_store
    from fingerprint_dagster.media.registry import content_type
    from fingerprint_dagster.sources import to_uri
    from fingerprint_dagster.sources.uri import without_password

    settings = current_settings()
    store = open_store(settings.store_uri)
    found = store.get([content_id])
    if not found:
        try:
            found = store.get([default_content_id(to_uri(content_id))])
        except UsageError:
            found = []
    if not found:
        raise UsageError(
            f"no fingerprint of {content_id!r} in {without_password(settings.store_uri)}; "
            "`fingerprint export` lists them all"
        )
    told = content_type(found[0].content.content_type).interchange(found[0])
    click.echo(json.dumps(describe(found[0]) | {"interchange": told}, indent=2, ensure_ascii=False))


@command.command(short_help="Write all fingerprints as Parquet, CSV or JSON lines.")
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
def export(out: Path) -> None:
    """Write every stored fingerprint to OUT (.parquet, .csv or .jsonl)."""
    from fingerprint_dagster.export import export_fingerprints
    from fingerprint_dagster.index.store import open_store

    settings = current_settings()
    count = export_fingerprints(open_store(settings.store_uri), out)
    click.echo(f"{count} fingerprints written to {out}")
