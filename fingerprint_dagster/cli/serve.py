"""`fingerprint serve`: the HTTP API."""

from __future__ import annotations

import click

from fingerprint_dagster.cli.group import command
from fingerprint_dagster.cli.output import current_settings


@command.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Any other needs FINGERPRINT_API_KEYS.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535))
def serve(host: str, port: int) -> None:
    """Answer over HTTP: fingerprints, batches, searches. Its pages: /docs, /metrics, /health."""
    from fingerprint_dagster.errors import UsageError

    try:
        from fingerprint_dagster.api import server
        from fingerprint_dagster.api.app import create_app  # noqa: F401 - says now what is not installed
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the package {error.name} is not installed: pip install 'fingerprint-dagster[serve]'"
        ) from None
    settings = current_settings()
    click.echo(f"HTTP API: http://{host}:{port}/docs  (home {settings.home}; Ctrl-C stops it)", err=True)
    server.run(settings, host, port)
