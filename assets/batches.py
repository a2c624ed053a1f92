"""What the five stage assets share: their partitions, and how a stage's result is reported to Dagster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from fingerprint_dagster.assets.retries import retried
from fingerprint_dagster.catalog import Batch
from fingerprint_dagster.sources.uri import readable
from fingerprint_dagster.stages import STAGES, StageResult, asset_version

BATCHES = dg.DynamicPartitionsDefinition(name="batches")
# One batch a run: a run of several partitions can report neither their data versions nor their failures apart.
ONE_BATCH_A_RUN = dg.BackfillPolicy.multi_run(max_partitions_per_run=1)
PARTITIONS_AT_ONCE = 5000  # What one statement of SQLite takes.
EMBED_POOL = "embed"
RETRY_TAG = "fingerprint/retry"
SMALL_BATCH = 100
BACKFILL_TAGS = {"dagster/priority": "-1"}  # Others have 0 or more, see `priority_tags`.
# A batch for which something above is new: not merely made again, but with another result. It waits while anything
# above it is missing or on its way. (`eager()` would follow whatever is made again, the same or not.)
FOLLOW = (
    (
        dg.AutomationCondition.missing()
        | dg.AutomationCondition.any_deps_match(
            dg.AutomationCondition.data_version_changed() | dg.AutomationCondition.will_be_requested()
        )
    ).since_last_handled()
    & ~dg.AutomationCondition.any_deps_missing()
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
)
# What each stage asset says of every batch, among other metadata: metadata name -> our word for it.
COUNTS = {"cache_misses": "computed", "cache_hits": "reused", "quarantined": "quarantined"}


def stage_asset(
    stage: str,
    *,
    kinds: set[str],
    deps: Sequence[dg.AssetsDefinition] = (),
    pool: str | None = None,
    check_specs: Sequence[dg.AssetCheckSpec] = (),
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Makes a function the asset of that stage: partitioned by batch, with the stage's version as its code version."""
    asset = dg.asset(
        name=stage,
        partitions_def=BATCHES,
        backfill_policy=ONE_BATCH_A_RUN,
        code_version=asset_version(stage),
        io_manager_key="memo_io_manager",
        group_name="fingerprint",
        owners=["team:fingerprint"],
        kinds=kinds,
        deps=deps,
        pool=pool,
        check_specs=check_specs,
        automation_condition=None if stage == STAGES[0] else FOLLOW,
    )
    return lambda work: asset(retried(work))


def add_partitions(instance: dg.DagsterInstance, batches: Sequence[str]) -> None:
    """Make the batches partitions; those that are ones already stay so."""
    for start in range(0, len(batches), PARTITIONS_AT_ONCE):
        instance.add_dynamic_partitions(BATCHES.name or "", list(batches[start : start + PARTITIONS_AT_ONCE]))


def priority_tags(contents: int) -> dict[str, str]:
    """The tags of a run for a batch of that size: what has just arrived overtakes the waiting runs of a backfill."""
    return {"dagster/priority": "1"} if contents <= SMALL_BATCH else {}


def retrying(context: dg.AssetExecutionContext) -> bool:
    """Whether this run was started to try quarantined contents again."""
    return context.run.tags.get(RETRY_TAG) == "true"


def report(
    context: dg.AssetExecutionContext, result: StageResult, extra: Mapping[str, Any] | None = None
) -> dg.Output[StageResult]:
    """The result as an asset's output: its data version, and the metadata a person wants to see."""
    contents = len(result.entries)
    failures = result.failures
    fresh = [failure for failure in failures if failure.stage == result.stage]
    if fresh:
        context.log.warning(f"{len(fresh)} contents failed, the first is {readable(fresh[0].uri)}: {fresh[0].reason}")
    metadata: dict[str, Any] = {
        "contents": contents,
        "cache_misses": result.computed,
        "cache_hits": result.reused,
        "quarantined": len(failures),
        "seconds": round(result.seconds, 3),
        "contents_per_second": round(contents / result.seconds, 1) if result.seconds > 0 else 0.0,
        **(extra or {}),
    }
    if failures:
        counts = Counter((failure.stage, failure.reason, failure.retryable) for failure in failures)
        metadata["quarantine_reasons"] = dg.MetadataValue.table(
            [
                dg.TableRecord({"stage": stage, "reason": reason, "retry can help": retryable, "contents": count})
                for (stage, reason, retryable), count in counts.most_common(20)
            ],
        )
    return dg.Output(result, data_version=dg.DataVersion(result.data_version), metadata=metadata)


def quarantine_checks(
    batch: str, result: StageResult, in_quarantine: Sequence[tuple[Batch, int]], alert: float
) -> Iterator[dg.AssetCheckResult]:
    """The checks that warn while any batch has contents in quarantine, and while more than that part of one are.

    Dagster shows what the last run said. So each run says it of all batches: none is forgotten because another is well.
    in_quarantine: what the catalog says of all batches, the worst first.
    """
    of_batch: dict[str, Any] = {
        "batch": batch,
        "batch_contents": len(result.entries),
        "batch_quarantined": len(result.failures),
        "batch_percent": round(100 * len(result.failures) / max(1, len(result.entries)), 2),
    }
    unusual = [(each, count) for each, count in in_quarantine if count > alert * each.size]
    for name, found, what in (
        ("nothing_in_quarantine", in_quarantine, "has contents in quarantine"),
        ("quarantine_rate", unusual, f"has more than {alert:.1%} of its contents in quarantine"),
    ):
        metadata = of_batch | {"warned_batches": len(found), "warned_contents": sum(count for _, count in found)}
        if found:
            metadata["worst_batches"] = _quarantine_table(found)
        yield dg.AssetCheckResult(
            check_name=name,
            passed=not found,
            severity=dg.AssetCheckSeverity.WARN,
            metadata=metadata,
            description=f"Of all batches, {len(found)} {what}; the worst is {found[0][0].name}" if found else None,
        )


def _quarantine_table(found: Sequence[tuple[Batch, int]]) -> dg.MetadataValue[Any]:
    records = [
        dg.TableRecord(
            {
                "batch": batch.name,
                "contents": batch.size,
                "in quarantine": count,
                "percent": round(100 * count / batch.size, 2),
            }
        )
        for batch, count in found[:20]
    ]
    return dg.MetadataValue.table(records)
