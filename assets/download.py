"""Asset `download`: uri to bytes."""

import dagster as dg

from fingerprint_dagster import progress
from fingerprint_dagster.assets.batches import report, stage_asset
from fingerprint_dagster.resources import CatalogResource, PipelineResource
from fingerprint_dagster.stages import StageResult


@stage_asset(
    "download",
    kinds={"python", "http"},
)
def download(
    context: dg.AssetExecutionContext, catalog: CatalogResource, pipeline: PipelineResource
) -> dg.Output[StageResult]:
    """Fetches every content of the batch: SHA-256, size, and the media type its bytes really are.

    Local files stay where they are; what is downloaded is kept by its digest.
    """
    batch = context.partition_key
    contents = catalog.open().members(batch)
    with pipeline.open() as engine:
        result = engine.download(contents, progress.reporter(batch, "download", len(contents)))
        engine.fetcher.evict(pipeline.fetcher.blobs_max_bytes)
    return report(context, result, {"bytes": sum(entry.size for entry in result.entries)})
