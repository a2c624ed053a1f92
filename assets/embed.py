"""Asset `embed`: arrays to vectors."""

import dagster as dg

from fingerprint_dagster import progress
from fingerprint_dagster.assets.batches import EMBED_POOL, report, retrying, stage_asset
from fingerprint_dagster.resources import PipelineResource
from fingerprint_dagster.stages import StageResult


@stage_asset(
    "embed",
    pool=EMBED_POOL,
    kinds={"python", "pytorch"},
)
def embed(context: dg.AssetExecutionContext, decode: StageResult, pipeline: PipelineResource) -> dg.Output[StageResult]:
    """Turns decoded arrays into vectors on the GPU model resource, batched across contents.

    One such step at a time uses a GPU. The pool has no limit until you set one, for runs on several machines.
    """
    batch = context.partition_key
    with pipeline.open(retry=retrying(context)) as engine, pipeline.gpu():
        result = engine.run("embed", decode.entries, progress.reporter(batch, "embed", len(decode.entries)))
        device = engine.models.describe() if result.computed else {}
    return report(context, result, device)
