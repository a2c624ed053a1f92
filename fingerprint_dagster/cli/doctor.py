"""`fingerprint doctor`: is this installation complete."""

from __future__ import annotations

import sys

from fingerprint_dagster.cli.group import command
from fingerprint_dagster.cli.output import current_settings, new_console


@command.command(short_help="Check this installation: what is missing, how to get it.")
def doctor() -> None:
    """Check this installation: device, versions, decoders, home, what is missing and how to get it."""
    from fingerprint_dagster.doctor import examine

    console = new_console()
    findings = examine(current_settings())
    for finding in findings:
        mark = {"ok": "[green]ok     [/]", "missing": "[red]missing[/]", "note": "[yellow]note   [/]"}[finding.state]
        console.print(f"{mark} {finding.subject}: ", end="")
        console.print(finding.text, highlight=False, markup=False, soft_wrap=True)
    if any(finding.state == "missing" for finding in findings):
        sys.exit(1)
