"""Asset `hash`: arrays and vectors to the fingerprint."""

from collections.abc import Iterator

import dagster as dg

from fingerprint_dagster import progress
from fingerprint_dagster.assets.batches import report, retrying, stage_asset
from fingerprint_dagster.assets.decode import decode
from fingerprint_dagster.assets.previews import EXAMPLES, example_table, thumbnail_strip
from fingerprint_dagster.content import Sketch
from fingerprint_dagster.resources import PipelineResource
from fingerprint_dagster.sources.uri import readable
from fingerprint_dagster.stages import Entry, StageResult


@stage_asset(
    "hash",
    deps=[decode],
    kinds={"python", "numpy"},
    check_specs=[
        dg.AssetCheckSpec(
            "no_empty_fingerprints",
            asset="hash",
            description="Fails where a fingerprint of the batch that ran last has nothing that can be looked up.",
        )
    ],
)
def hash_(
    context: dg.AssetExecutionContext, embed: StageResult, pipeline: PipelineResource
) -> Iterator[dg.Output[StageResult] | dg.AssetCheckResult]:
    """Makes the fingerprint: hashes and tokens from the arrays, with the vectors of the embed stage.

    Each part carries its position in the content, so that a match can say where it is.
    """
    batch = context.partition_key
    with pipeline.open(retry=retrying(context)) as engine:
        result = engine.run("hash", embed.entries, progress.reporter(batch, "hash", len(embed.entries)))
        examples: list[tuple[Entry, Sketch]] = []
        empty: list[str] = []
        flat = 0
        for entry, sketch in engine.sketches(result.passed):
            if isinstance(sketch, Sketch):
                if len(examples) < EXAMPLES:
                    examples.append((entry, sketch))
                if not any(len(component.values) for component in sketch.components):
                    empty.append(readable(entry.content.uri))
                flat += bool(sketch.info.get("low_information"))
        extra = thumbnail_strip(engine, [entry for entry, _ in examples])
        extra |= {"examples": example_table(examples)} if examples else {}
    yield report(context, result, extra)
    yield dg.AssetCheckResult(
        check_name="no_empty_fingerprints",
        passed=not empty,
        metadata={
            "batch": batch,
            "fingerprints": len(result.passed),
            "empty": len(empty),
            "low_information": flat,
            "examples": empty[:5],
        },
    )
