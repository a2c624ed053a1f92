"""`fingerprint bench`: how fast the service is on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from fingerprint_dagster.cli.group import command
from fingerprint_dagster.cli.output import current_settings


@command.command(short_help="Measure how fast this machine is.")
@click.option("--iterations", default=20, show_default=True, type=click.IntRange(1), help="Requests of each kind.")
@click.option("--cold/--no-cold", default=True, show_default=True, help="Also start a new process for each content.")
@click.option("--media", type=click.Path(path_type=Path, file_okay=False), help="Keep the generated media here.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Also write a JSON file.")
def bench(iterations: int, cold: bool, media: Path | None, json_file: Path | None) -> None:
    """Measure pictures, sound, video and text: cold, warm and cached, then batches. The home is not touched."""
    from fingerprint_dagster.service.bench import print_report, run_bench, write_json

    report = run_bench(current_settings(), iterations, media, cold=cold)
    print_report(report)
    if json_file is not None:
        write_json(report, json_file)
