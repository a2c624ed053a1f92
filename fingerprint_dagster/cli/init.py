"""`fingerprint init`: the files of a Dagster instance."""

from __future__ import annotations

from pathlib import Path

import click

from fingerprint_dagster.cli.group import command
from fingerprint_dagster.cli.output import current_settings
from fingerprint_dagster.errors import UsageError

_PROFILES = ("local", "postgres", "production")  # jobs.profiles.PROFILES, which would import Dagster


@command.command(short_help="Write the files of a Dagster instance.")
@click.argument("folder", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option("--profile", type=click.Choice(_PROFILES), default="local", show_default=True)
@click.option("--force", is_flag=True, help="Replace files that are there.")
def init(folder: Path | None, profile: str, force: bool) -> None:
    """Write dagster.yaml and workspace.yaml into FOLDER: by default where `fingerprint run` and `ui` look for them.

    \b
    local       SQLite files in FOLDER: what is made by itself on first use
    postgres    one machine, Dagster's records in the database DAGSTER_POSTGRES_URL
    production  services of their own, as in deploy/compose.yaml
    """
    from fingerprint_dagster.jobs.instance import dagster_home
    from fingerprint_dagster.jobs.profiles import POSTGRES_VARIABLE, instance_files

    settings = current_settings()
    folder = folder or dagster_home(settings)
    files = instance_files(profile, settings)  # type: ignore[arg-type]
    there = [name for name in files if (folder / name).exists()]
    if there and not force:
        raise UsageError(f"{folder} holds {' and '.join(there)} already: --force replaces them")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    click.echo(f"{' and '.join(files)} written to {folder}")
    if profile != "local":
        click.echo(
            f"set {POSTGRES_VARIABLE}=postgresql+psycopg2://user:password@host/database, and install the driver: "
            "pip install 'fingerprint-dagster[postgres]'"
        )
