"""The command line: `fingerprint`, or `python -m fingerprint_dagster`. One module for each command."""

from __future__ import annotations

import os
import signal
import sys

import click

from fingerprint_dagster.cli import (  # noqa: F401 - each joins the group
    backfill,
    bench,
    cache,
    calibrate,
    changes,
    doctor,
    duplicates,
    init,
    model,
    quarantine,
    query,
    review,
    run,
    serve,
    show,
    ui,
)
from fingerprint_dagster.cli.group import command
from fingerprint_dagster.errors import FingerprintError, UsageError


def main() -> None:
    """Entry point: a mistake of the user is one line and exit code 2, any other known failure one line and 1."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = command.main(prog_name="fingerprint", standalone_mode=False)
    except click.exceptions.Exit as exit_:
        code = exit_.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped; run the same command again to go on", err=True)
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except UsageError as error:
        click.echo(f"fingerprint: {error}", err=True)
        code = 2
    except FingerprintError as error:
        click.echo(f"fingerprint: {error}", err=True)
        code = 1
    except ModuleNotFoundError as error:
        click.echo(f"fingerprint: the package {error.name!r} is not installed; pip install {error.name}", err=True)
        code = 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _interrupt(number: int, frame: object) -> None:
    """Stop as cleanly for `kill` as for Ctrl-C."""
    raise KeyboardInterrupt
