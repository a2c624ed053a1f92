"""What goes on by itself at night: the re-scan of all sources, and keeping the home tidy."""

import time
from typing import Any

import dagster as dg

from fingerprint_dagster.assets.batches import BATCHES, priority_tags
from fingerprint_dagster.assets.sources import sources
from fingerprint_dagster.assets.store import store
from fingerprint_dagster.jobs.fingerprint import fingerprint_job
from fingerprint_dagster.resources import CatalogResource, MemoResource, StoreResource
from fingerprint_dagster.settings import get_settings

_SENSOR_SECONDS = 30
_REQUESTS_A_TICK = 50
_DAY = 86400.0

rescan_job = dg.define_asset_job(
    "rescan",
    selection=dg.AssetSelection.assets(sources),
    description="Look again at every registered source: new, changed and removed content.",
)
rescan_schedule = dg.ScheduleDefinition(
    name="rescan_schedule",
    job=rescan_job,
    cron_schedule="0 3 * * *",
    description="Every night, new, changed and removed content of all registered sources is noticed.",
)


@dg.sensor(
    job=fingerprint_job,
    minimum_interval_seconds=_SENSOR_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Requests the runs that a re-scan found to be needed.",
)
def rescan_runs_sensor(
    context: dg.SensorEvaluationContext, catalog: CatalogResource
) -> dg.SensorResult | dg.SkipReason:
    """Asks for the runs in the order in which they were wanted, some in each tick."""
    last = int(context.cursor or 0)
    wanted = catalog.open().wanted(last, _REQUESTS_A_TICK)
    if not wanted:
        return dg.SkipReason("no run is wanted")
    batches = {batch.name: batch for _, batch in wanted}
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                run_key=f"{batch.name}:{number}",
                partition_key=batch.name,
                tags={"fingerprint/content_type": batch.content_type, **priority_tags(batch.size)},
            )
            for number, batch in wanted
        ],
        dynamic_partitions_requests=[BATCHES.build_add_request(list(batches))],
        cursor=str(wanted[-1][0]),
    )


follow_sensor = dg.AutomationConditionSensorDefinition(
    "follow_sensor",
    target=dg.AssetSelection.all(),
    description="Where a stage made something new of a batch, the assets after it follow; at night, duplicates.",
)


@dg.op
def compact_store(context: dg.OpExecutionContext, fingerprints: StoreResource) -> None:
    """Makes one table of the many small parts that batches leave in the store, and forgets old versions of it."""
    index = fingerprints.open()
    seconds = _seconds(index.compact)
    context.add_output_metadata({"seconds": seconds, **{f"stored_{name}": n for name, n in index.count().items()}})


@dg.op
def evict_memo(context: dg.OpExecutionContext, memo: MemoResource) -> None:
    """Drops what is too old in the memo, or over its size cap. A later run computes it again if it needs it."""
    opened = memo.open()
    removed = opened.evict()
    usage = opened.usage()
    context.add_output_metadata(
        {
            "entries_removed": removed,
            **{f"{stage}_entries": each.entries for stage, each in usage.items()},
            **{f"{stage}_bytes": each.bytes for stage, each in usage.items()},
        }
    )


@dg.op
def prune_quarantine(context: dg.OpExecutionContext, catalog: CatalogResource) -> None:
    """Forgets old records of the quarantine that no retry can help: content that is gone, or of no known type."""
    register = catalog.open()
    removed = register.prune(time.time() - get_settings().quarantine_keep_days * _DAY)
    context.add_output_metadata({"records_removed": removed, "records_left": len(register.quarantined())})


@dg.job(name="maintenance", description="Compact the store, evict the memo, prune the quarantine.")
def maintenance_job() -> None:
    """Three steps that need nothing of each other."""
    compact_store()
    evict_memo()
    prune_quarantine()


maintenance_schedule = dg.ScheduleDefinition(
    name="maintenance_schedule",
    job=maintenance_job,
    cron_schedule="30 4 * * *",
    description="Every night, the store is compacted, and the memo and the quarantine lose what is too old.",
)


@dg.asset_check(
    asset=store,
    name="nothing_waits",
    description="Warns while a batch has waited for longer than a day to be stored in full.",
)
def nothing_waits(catalog: CatalogResource) -> dg.AssetCheckResult:
    """The freshness of the store: it holds all that was registered until a day ago."""
    now = time.time()
    waiting = catalog.open().waiting(now - _DAY)
    metadata: dict[str, Any] = {"batches": len(waiting), "contents": sum(batch.size for batch in waiting)}
    if waiting:
        metadata["oldest"] = waiting[0].name
    return dg.AssetCheckResult(passed=not waiting, severity=dg.AssetCheckSeverity.WARN, metadata=metadata)


def _seconds(do: Any) -> float:
    started = time.monotonic()
    do()
    return round(time.monotonic() - started, 3)
