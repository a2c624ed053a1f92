"""`fingerprint ui`: Dagster's web interface on the local instance."""

from __future__ import annotations

import os
import sys

import click

from fingerprint_dagster.cli.group import command
from fingerprint_dagster.cli.output import current_settings, open_catalog


@command.command(short_help="Open the Dagster UI, with its daemon.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=3000, show_default=True, type=int)
def ui(host: str, port: int) -> None:
    """Open the Dagster UI on the local instance, with the daemon that runs schedules, sensors and backfills."""
    from fingerprint_dagster.jobs.instance import dagster_home, open_instance

    settings = current_settings()
    open_catalog(settings)
    with open_instance(settings):  # Made before the services start, so that they do not race to make it.
        home = dagster_home(settings)
    os.environ.update(settings.environment(), DAGSTER_HOME=str(home))
    os.chdir(home)  # A neutral folder: no module of the user's can stand in the way of Dagster's imports.
    click.echo(f"Dagster UI: http://{host}:{port}  (home {settings.home}; Ctrl-C stops it)", err=True)
    arguments = ["-m", "dagster", "dev", "-w", str(home / "workspace.yaml"), "--host", host, "--port", str(port)]
    os.execv(sys.executable, [sys.executable, *arguments])
