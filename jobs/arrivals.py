"""How new content gets in without a person: two sensors and a schedule, which register it and ask for runs."""

import hashlib
import logging
import stat
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import dagster as dg

from fingerprint_dagster.assets.batches import BATCHES, priority_tags
from fingerprint_dagster.catalog import Batch
from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.jobs.fingerprint import fingerprint_job
from fingerprint_dagster.resources import CatalogResource, FetcherResource
from fingerprint_dagster.settings import get_settings

_SENSOR_SECONDS = 30
_SETTLE_SECONDS = 2.0


def requests_for(batches: Iterable[Batch]) -> list[dg.RunRequest]:
    """A run for each batch. The run key is the batch, so no batch is requested twice."""
    return [
        dg.RunRequest(
            run_key=batch.name,
            partition_key=batch.name,
            tags={"fingerprint/content_type": batch.content_type, **priority_tags(batch.size)},
        )
        for batch in batches
    ]


def _register(
    log: logging.Logger, sources: Sequence[str], catalog: CatalogResource, fetcher: FetcherResource
) -> tuple[list[dg.RunRequest], list[str]]:
    """Register the sources; the runs to request for batches that were never stored, and the names of those batches.

    A source that is gone or wrong is logged and does not keep the others from being looked at.
    """
    fresh: dict[str, Batch] = {}
    for source in sources:
        try:
            registration = catalog.open().register([source], fetcher.open())
        except UsageError as error:
            log.warning("%s was not looked at: %s", source, error)
            continue
        fresh |= {batch.name: batch for batch in registration.batches if not batch.recipe}
        for failure in registration.unrecognised:
            log.warning("%s: %s", failure.uri, failure.reason)
    return requests_for(fresh.values()), list(fresh)


def _arrivals(
    context: dg.SensorEvaluationContext,
    source: str,
    state: str,
    catalog: CatalogResource,
    fetcher: FetcherResource,
) -> dg.SensorResult | dg.SkipReason:
    """Requests for what is new in the source; it is not looked into while its state, the cursor, is as it was."""
    if context.cursor == state:
        return dg.SkipReason("nothing has changed")
    requests, names = _register(context.log, [source], catalog, fetcher)
    return dg.SensorResult(
        run_requests=requests,
        dynamic_partitions_requests=[BATCHES.build_add_request(names)] if names else [],
        cursor=state,
    )


@dg.sensor(
    job=fingerprint_job,
    minimum_interval_seconds=_SENSOR_SECONDS,
    description="New or changed files of the inbox folder become batches and runs.",
)
def inbox_sensor(
    context: dg.SensorEvaluationContext, catalog: CatalogResource, fetcher: FetcherResource
) -> dg.SensorResult | dg.SkipReason:
    """Watches the folder FINGERPRINT_INBOX (default: `inbox` in the home). While files are being written, it waits."""
    settings = get_settings()
    inbox = settings.inbox or settings.home / "inbox"
    if not inbox.is_dir():
        return dg.SkipReason(f"there is no folder {inbox}")
    state, newest = _folder_state(inbox)
    if time.time() - newest < _SETTLE_SECONDS:
        return dg.SkipReason("files are still being written")
    return _arrivals(context, str(inbox), state, catalog, fetcher)


@dg.sensor(
    job=fingerprint_job,
    minimum_interval_seconds=_SENSOR_SECONDS,
    description="New or changed rows of the watched list become batches and runs.",
)
def list_sensor(
    context: dg.SensorEvaluationContext, catalog: CatalogResource, fetcher: FetcherResource
) -> dg.SensorResult | dg.SkipReason:
    """Watches the file FINGERPRINT_WATCH_LIST: CSV, JSONL or Parquet with a column `uri`."""
    watched = get_settings().watch_list
    if watched is None or not watched.is_file():
        return dg.SkipReason("FINGERPRINT_WATCH_LIST names no file")
    status = watched.stat()
    return _arrivals(context, str(watched), f"{watched}:{status.st_size}:{status.st_mtime_ns}", catalog, fetcher)


@dg.schedule(
    job=fingerprint_job,
    cron_schedule="0 3 * * *",
    description="Every night, new or changed content of all registered sources becomes batches and runs.",
)
def rescan_schedule(
    context: dg.ScheduleEvaluationContext, catalog: CatalogResource, fetcher: FetcherResource
) -> list[dg.RunRequest] | dg.SkipReason:
    """Looks again at every source that was ever registered."""
    requests, names = _register(context.log, catalog.open().sources(), catalog, fetcher)
    context.instance.add_dynamic_partitions(BATCHES.name or "", names)
    return requests or dg.SkipReason("nothing is new in the registered sources")


def _folder_state(folder: Path) -> tuple[str, float]:
    """A digest of every file's name, size and time of change, and the newest such time in seconds."""
    digest = hashlib.blake2b(digest_size=16)
    newest = 0.0
    for path in sorted(folder.rglob("*")):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(status.st_mode):
            continue
        digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
        newest = max(newest, status.st_mtime)
    return digest.hexdigest(), newest
