"""The command line: `fingerprint`, or `python -m fingerprint_dagster`."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fingerprint_dagster.errors import FingerprintError, UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from fingerprint_dagster.catalog import Batch, Catalog, Registration
    from fingerprint_dagster.content import Box, Failure, Match, Range
    from fingerprint_dagster.jobs.launch import RunReport
    from fingerprint_dagster.settings import Settings


_WIDTH_OF_A_FILE = 250
_QUERIES_AT_ONCE = 64


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


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fingerprint-dagster", prog_name="fingerprint")
def command() -> None:
    """Find copies of images, audio, video and text. All state lies in FINGERPRINT_HOME."""


# ---------------------------------------------------------------------- run


@command.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "--batch-size", "sizes", multiple=True, metavar="[TYPE=]N", help="Contents in a batch, for one type or all."
)
@click.option("--again", is_flag=True, help="Run batches that are up to date too (the memo still spares the work).")
def run(sources: tuple[str, ...], sizes: tuple[str, ...], again: bool) -> None:
    """Register and fingerprint files, folders, URIs and lists (CSV, JSONL, Parquet with a column `uri`, or @LIST)."""
    from fingerprint_dagster.pipeline import fetcher_of

    settings = _settings()
    catalog = _catalog(settings)
    started = time.monotonic()
    registration = catalog.register(sources, fetcher_of(settings), batch_sizes=_batch_sizes(sizes))
    _say_registered(registration)
    todo = registration.batches if again else _not_up_to_date(settings, catalog, registration.batches)
    reports = _run_with_bars(settings, todo)
    _summary(catalog, registration, reports, time.monotonic() - started)
    if not all(report.success for report in reports):
        sys.exit(1)


def _batch_sizes(options: Sequence[str]) -> dict[str, int]:
    from fingerprint_dagster.media.registry import content_type, content_types

    sizes: dict[str, int] = {}
    for option in options:
        name, _, number = option.rpartition("=")
        if not number.isdigit() or int(number) < 1:
            raise UsageError(f"--batch-size {option!r}: give a number from 1, or TYPE=NUMBER such as image=500")
        for each in [content_type(name).name] if name else content_types():
            sizes[each] = int(number)
    return sizes


def _not_up_to_date(settings: Settings, catalog: Catalog, batches: Sequence[Batch]) -> list[Batch]:
    """The batches that are not stored under today's stage versions, or have contents that a retry can help."""
    if not settings.store and not Path(settings.store_uri).exists():
        return list(batches)
    waiting = {batch for batch, failure in catalog.quarantined() if failure.retryable}
    return [batch for batch in batches if batch.name in waiting or not _is_current(batch)]


def _is_current(batch: Batch) -> bool:
    """Whether the batch was stored under today's stage versions."""
    from fingerprint_dagster.media.registry import content_type
    from fingerprint_dagster.stages import recipe

    return batch.recipe == recipe(content_type(batch.content_type))


def _say_registered(registration: Registration) -> None:
    console = _console()
    console.print(f"registered {registration.new} new contents, {registration.unchanged} were known")
    if registration.unrecognised:
        console.print(f"{len(registration.unrecognised)} are of no known content type (see `fingerprint quarantine`)")


def _run_with_bars(settings: Settings, batches: Sequence[Batch], *, retry: bool = False) -> list[RunReport]:
    """Run the batches on Dagster while one bar for each stage shows how far they are."""
    if not batches:
        return []
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from fingerprint_dagster.jobs.launch import run_batches
    from fingerprint_dagster.media.registry import content_type
    from fingerprint_dagster.stages import STAGES

    total = sum(batch.size for batch in batches)
    columns = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_console()) as bars:
        tasks = {stage: bars.add_task(stage, total=total, start=False) for stage in STAGES}
        done: dict[tuple[str, str], int] = {}

        def show(batch: str, stage: str, count: int) -> None:
            bars.start_task(tasks[stage])
            done[batch, stage] = count
            bars.update(tasks[stage], completed=sum(n for (_, name), n in done.items() if name == stage))

        plugins = [content_type(batch.content_type) for batch in batches if not _is_current(batch)]
        return run_batches(
            settings,
            [batch.name for batch in batches],
            retry=retry,
            warm_models=any(plugin.has_model for plugin in plugins),
            on_progress=show,
        )


def _summary(catalog: Catalog, registration: Registration, reports: Sequence[RunReport], seconds: float) -> None:
    console = _console()
    failed = [report for report in reports if not report.success]
    names = [batch.name for batch in registration.batches]
    contents = sum(batch.size for batch in registration.batches)
    quarantined = [failure for _, failure in catalog.quarantined(names)] + list(registration.unrecognised)
    if not reports:
        console.print(f"nothing to do: {contents} contents in {len(names)} batches are up to date")
    else:
        table = _table("stage", "computed", "reused")
        for stage in reports[0].stages or {}:
            counts = [report.stages[stage] for report in reports if stage in report.stages]
            table.add_row(
                stage, str(sum(each["computed"] for each in counts)), str(sum(each["reused"] for each in counts))
            )
        console.print(table)
        count = sum(batch.size for batch in registration.batches if batch.name in {report.batch for report in reports})
        console.print(
            f"{count} contents in {len(reports)} batches, {seconds:.1f} s, {count / seconds:.1f} contents a second"
        )
    if quarantined:
        console.print(f"{len(quarantined)} in quarantine:")
        for (stage, reason), number in Counter((each.stage, each.reason) for each in quarantined).most_common(10):
            console.print(f"  {number} x {stage}: {reason}", highlight=False)
    for report in failed:
        console.print(f"batch {report.batch}: run {report.run_id} failed", style="red")
        console.print(report.error.strip()[-2000:], highlight=False, markup=False)


# ---------------------------------------------------------------------- query


@command.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--top", default=10, show_default=True, type=click.IntRange(1), help="References in an answer at most.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line for each query.")
def query(files: tuple[str, ...], top: int, as_json: bool) -> None:
    """Find what FILE... (files, folders, URIs, lists) are copies of."""
    from fingerprint_dagster.catalog import content_of
    from fingerprint_dagster.content import Failure
    from fingerprint_dagster.index.store import open_store
    from fingerprint_dagster.media.registry import content_type
    from fingerprint_dagster.pipeline import Pipeline
    from fingerprint_dagster.search import find_copies
    from fingerprint_dagster.sources import expand

    settings = _settings()
    _catalog(settings)
    store = open_store(settings.store_uri)
    failed = 0
    with Pipeline.from_settings(settings) as pipeline:
        listings = (listed for file in files for listed in expand(file, pipeline.fetcher))
        while chunk := list(islice(listings, _QUERIES_AT_ONCE)):
            contents = [content_of(listed, pipeline.fetcher) for listed in chunk]
            answers = iter(pipeline.fingerprints([each for each in contents if not isinstance(each, Failure)]))
            for content in contents:
                found = content if isinstance(content, Failure) else next(answers)
                if isinstance(found, Failure):
                    failed += 1
                    _say_failed_query(found, as_json)
                else:
                    matches = find_copies(store, content_type(found.content.content_type), found, top)
                    _say_matches(found.content.uri, matches, as_json)
    if failed:
        sys.exit(1)


def _say_failed_query(failure: Failure, as_json: bool) -> None:
    if as_json:
        error = {"stage": failure.stage, "reason": failure.reason, "retryable": failure.retryable}
        click.echo(json.dumps({"query": failure.uri, "error": error, "matches": []}, ensure_ascii=False))
    else:
        click.echo(f"{_short(failure.uri)}: {failure.stage} failed: {failure.reason}", err=True)


def _say_matches(uri: str, matches: Sequence[Match], as_json: bool) -> None:
    if as_json:
        rows = [
            {
                "content_id": match.reference.content_id,
                "uri": match.reference.uri,
                "content_type": match.reference.content_type,
                "score": round(match.score, 6),
                "confidence": None if match.confidence is None else round(match.confidence, 6),
                "query_range": _rounded(match.query_range),
                "reference_range": _rounded(match.reference_range),
                "query_box": _rounded(match.query_box),
                "reference_box": _rounded(match.reference_box),
                "evidence": match.evidence,
                "details": dict(match.details),
            }
            for match in matches
        ]
        click.echo(json.dumps({"query": uri, "matches": rows}, ensure_ascii=False))
        return
    console = _console()
    if not matches:
        console.print(f"{_short(uri)}: no copy found", highlight=False)
        return
    table = _table("score", "sure", "copy of", "where in the query", "where in the reference", "evidence")
    table.title, table.title_justify = _short(uri), "left"
    for match in matches:
        table.add_row(
            f"{match.score:.3f}",
            "" if match.confidence is None else f"{match.confidence:.3f}",
            _short(match.reference.uri),
            _where(match.query_range, match.query_box, match.reference.content_type),
            _where(match.reference_range, match.reference_box, match.reference.content_type),
            match.evidence,
        )
    console.print(table)


def _rounded(where: Range | Box | None) -> list[float] | None:
    return None if where is None else [round(end, 3) for end in where]


def _where(span: Range | None, box: Box | None, content_type: str) -> str:
    places = []
    if span is not None:
        unit = "characters {:.0f}-{:.0f}" if content_type == "text" else "{:.1f}-{:.1f} s"
        places.append(unit.format(*span))
    if box is not None:
        left, top, right, bottom = (100 * side for side in box)
        places.append(f"{left:.0f}-{right:.0f} % across, {top:.0f}-{bottom:.0f} % down")
    return ", ".join(places) or "all"


# ---------------------------------------------------------------------- looking at what there is


@command.command()
@click.argument("content_id", metavar="ID")
def show(content_id: str) -> None:
    """Show one stored fingerprint as JSON. ID is a content_id, or the path or uri it was registered by."""
    from fingerprint_dagster.catalog import default_content_id
    from fingerprint_dagster.export import describe
    from fingerprint_dagster.index.store import open_store
    from fingerprint_dagster.media.registry import content_type
    from fingerprint_dagster.sources import to_uri

    settings = _settings()
    store = open_store(settings.store_uri)
    found = store.get([content_id])
    if not found:
        try:
            found = store.get([default_content_id(to_uri(content_id))])
        except UsageError:
            found = []
    if not found:
        raise UsageError(
            f"no fingerprint of {content_id!r} in {settings.store_uri}; `fingerprint export` lists them all"
        )
    told = content_type(found[0].content.content_type).interchange(found[0])
    click.echo(json.dumps(describe(found[0]) | {"interchange": told}, indent=2, ensure_ascii=False))


@command.command()
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
def export(out: Path) -> None:
    """Write every stored fingerprint to OUT (.parquet, .csv or .jsonl)."""
    from fingerprint_dagster.export import export_fingerprints
    from fingerprint_dagster.index.store import open_store

    settings = _settings()
    count = export_fingerprints(open_store(settings.store_uri), out)
    click.echo(f"{count} fingerprints written to {out}")


@command.command()
@click.option("--retry", is_flag=True, help="Run the batches of what is in quarantine again.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line for each content.")
def quarantine(retry: bool, as_json: bool) -> None:
    """List the contents that failed: stage, reason, and whether a retry can help."""
    from fingerprint_dagster.pipeline import fetcher_of

    settings = _settings()
    catalog = _catalog(settings)
    failures = catalog.quarantined()
    if retry:
        started = time.monotonic()
        names = list(dict.fromkeys(batch for batch, _ in failures if batch))
        lost = [failure.uri for batch, failure in failures if not batch]
        registration = catalog.register(lost, fetcher_of(settings), remember=False)
        batches = list(registration.batches) + catalog.batches(names)
        reports = _run_with_bars(settings, batches, retry=True)
        left = catalog.quarantined()
        click.echo(
            f"{len(failures) - len(left)} of {len(failures)} left the quarantine in {time.monotonic() - started:.1f} s"
        )
        if not all(report.success for report in reports):
            sys.exit(1)
        failures = left
    if as_json:
        for batch, failure in failures:
            click.echo(json.dumps({"batch": batch or None, **vars(failure)}, ensure_ascii=False))
        return
    console = _console()
    if not failures:
        console.print("the quarantine is empty")
        return
    table = _table("content", "stage", "reason", "retry can help")
    for _, failure in failures:
        table.add_row(_short(failure.uri), failure.stage, failure.reason, "yes" if failure.retryable else "no")
    console.print(table)


@command.group()
def cache() -> None:
    """The memo of stage results: what it holds, and how to empty it."""


@cache.command("stats")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def cache_stats(as_json: bool) -> None:
    """Show entries and bytes of each stage."""
    from fingerprint_dagster.pipeline import memo_of

    settings = _settings()
    usage = memo_of(settings).usage()
    if as_json:
        click.echo(json.dumps({stage: vars(each) for stage, each in usage.items()}))
        return
    table = _table("stage", "entries", "MB")
    for stage, each in usage.items():
        table.add_row(stage, str(each.entries), f"{each.bytes / 1e6:.1f}")
    total = sum(each.bytes for each in usage.values())
    table.add_row("total", str(sum(each.entries for each in usage.values())), f"{total / 1e6:.1f}")
    console = _console()
    console.print(table)
    console.print(
        f"cap {settings.memo_max_bytes / 1e6:.0f} MB, entries live {settings.memo_ttl_seconds / 86400:g} days"
    )


@cache.command("clear")
@click.option("--stage", help="Only this stage: download, decode, embed or hash.")
def cache_clear(stage: str | None) -> None:
    """Forget stage results. Fingerprints in the store stay."""
    from fingerprint_dagster.pipeline import memo_of
    from fingerprint_dagster.stages import STAGES

    if stage is not None and stage not in STAGES:
        raise UsageError(f"--stage {stage!r}: there are {', '.join(STAGES)}")
    click.echo(f"{memo_of(_settings()).clear(stage)} entries removed")


@command.command()
def doctor() -> None:
    """Check this installation: device, versions, decoders, home, what is missing and how to get it."""
    from fingerprint_dagster.doctor import examine

    console = _console()
    findings = examine(_settings())
    for finding in findings:
        mark = {"ok": "[green]ok     [/]", "missing": "[red]missing[/]", "note": "[yellow]note   [/]"}[finding.state]
        console.print(f"{mark} {finding.subject}: ", end="")
        console.print(finding.text, highlight=False, markup=False, soft_wrap=True)
    if any(finding.state == "missing" for finding in findings):
        sys.exit(1)


@command.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=3000, show_default=True, type=int)
def ui(host: str, port: int) -> None:
    """Open the Dagster UI on the local instance, with the daemon that runs schedules, sensors and backfills."""
    from fingerprint_dagster.jobs.instance import dagster_home, open_instance

    settings = _settings()
    _catalog(settings)
    with open_instance(settings):  # Made before the services start, so that they do not race to make it.
        home = dagster_home(settings)
    os.environ.update(settings.environment(), DAGSTER_HOME=str(home))
    os.chdir(home)  # A neutral folder: no module of the user's can stand in the way of Dagster's imports.
    click.echo(f"Dagster UI: http://{host}:{port}  (home {settings.home}; Ctrl-C stops it)", err=True)
    arguments = ["-m", "dagster", "dev", "-w", str(home / "workspace.yaml"), "--host", host, "--port", str(port)]
    os.execv(sys.executable, [sys.executable, *arguments])


# ---------------------------------------------------------------------- shared parts


def _settings() -> Settings:
    from fingerprint_dagster.settings import get_settings

    return get_settings()


def _catalog(settings: Settings) -> Catalog:
    from fingerprint_dagster.catalog import Catalog

    return Catalog(settings.home)


def _short(uri: str) -> str:
    """A local file by its path, anything else by its uri."""
    from fingerprint_dagster.sources.uri import file_path

    return str(file_path(uri)) if uri.startswith("file:") else uri


def _console() -> Console:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE)


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
