"""Asset `decode`: bytes to arrays."""

import dagster as dg

from fingerprint_dagster import progress
from fingerprint_dagster.assets.batches import report, retrying, stage_asset
from fingerprint_dagster.resources import PipelineResource
from fingerprint_dagster.stages import StageResult


@stage_asset(
    "decode",
    kinds={"python", "numpy"},
)
def decode(
    context: dg.AssetExecutionContext, download: StageResult, pipeline: PipelineResource
) -> dg.Output[StageResult]:
    """Decodes every content into arrays: RGB, mono PCM, sampled frames, clean text.

    Each decoder runs in a worker process under a time and a memory limit, so a crash or a hang costs one content.
    """
    batch = context.partition_key
    with pipeline.open(retry=retrying(context)) as engine:
        result = engine.run("decode", download.entries, progress.reporter(batch, "decode", len(download.entries)))
    return report(context, result, {"decoding_processes": pipeline.workers})
