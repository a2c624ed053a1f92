"""The click group that every command joins."""

from __future__ import annotations

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fingerprint-dagster", prog_name="fingerprint")
def command() -> None:
    """Find copies of images, audio, video and text. All state lies in FINGERPRINT_HOME."""
