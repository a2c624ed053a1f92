"""Asset `store`: fingerprints into the index."""

from collections.abc import Iterator

import dagster as dg

from fingerprint_dagster import progress
from fingerprint_dagster.assets.batches import quarantine_checks, report, stage_asset
from fingerprint_dagster.assets.previews import changed_table, stored_table
from fingerprint_dagster.media.registry import content_type
from fingerprint_dagster.resources import CatalogResource, PipelineResource, StoreResource
from fingerprint_dagster.settings import get_settings
from fingerprint_dagster.sources.uri import without_password
from fingerprint_dagster.stages import StageResult, recipe


@stage_asset(
    "store",
    kinds={"python", "lancedb"},
    check_specs=[
        dg.AssetCheckSpec(
            "all_stored_or_quarantined",
            asset="store",
            description="Fails where a content of the batch that ran last is neither in the store nor in quarantine.",
        ),
        dg.AssetCheckSpec(
            "nothing_in_quarantine",
            asset="store",
            description="Warns while any batch has contents in quarantine.",
        ),
        dg.AssetCheckSpec(
            "quarantine_rate",
            asset="store",
            description="Warns while more of any batch is in quarantine than FINGERPRINT_QUARANTINE_ALERT says.",
        ),
    ],
)
def store(
    context: dg.AssetExecutionContext,
    hash: StageResult,
    pipeline: PipelineResource,
    fingerprints: StoreResource,
    catalog: CatalogResource,
) -> Iterator[dg.Output[StageResult] | dg.AssetCheckResult]:
    """Puts the fingerprints into the store, where copies are found.

    An upsert by content_id: storing a batch again changes nothing.
    """
    batch = context.partition_key
    index = fingerprints.open()
    register = catalog.open()
    with pipeline.open() as engine:
        result = engine.store(index, hash.entries, progress.reporter(batch, "store", len(hash.entries)))
    register.record(batch, result.failures)
    changed = register.note(batch, {entry.content.content_id: entry.digest for entry in result.passed}, result.failures)
    yield report(
        context,
        result,
        {
            "store": without_password(fingerprints.uri),
            "changed": len(changed),
            **changed_table(result, changed),
            **stored_table(result),
        },
    )

    registered = {content.content_id: content.content_type for content in register.members(batch)}
    stored = index.keys(list(registered))
    quarantined = {failure.content_id for failure in result.failures}
    lost = [content_id for content_id in registered if content_id not in stored and content_id not in quarantined]
    if not lost and registered:
        register.stored(batch, recipe(content_type(next(iter(registered.values())))))
    yield dg.AssetCheckResult(
        check_name="all_stored_or_quarantined",
        passed=not lost,
        metadata={
            "batch": batch,
            "registered": len(registered),
            "stored": len(stored),
            "quarantined": len(quarantined),
            **({"lost": lost[:20]} if lost else {}),
        },
    )
    yield from quarantine_checks(batch, result, register.in_quarantine(), get_settings().quarantine_alert)
