"""The job that takes one batch through the five stages, and how its steps are executed."""

from __future__ import annotations

from typing import Any

import dagster as dg

from fingerprint_dagster.assets import STAGE_ASSETS

JOB = "fingerprint"
WARM_MODULE = "fingerprint_dagster.jobs.warm"

fingerprint_job = dg.define_asset_job(
    JOB,
    selection=dg.AssetSelection.assets(*STAGE_ASSETS),
    description="Fingerprint one batch: download, decode, embed, hash, store.",
)


@dg.configured(
    dg.multi_or_in_process_executor,
    config_schema={
        "steps": dg.Field(
            dg.Enum("Steps", [dg.EnumValue("in_process"), dg.EnumValue("multiprocess")]),
            default_value="in_process",
            description="in_process: one after another in the run's process. multiprocess: each in its own.",
        )
    },
)
def executor(config: dict[str, Any]) -> dict[str, Any]:
    """How the steps of a run are executed.

    They follow each other, so a process of their own for each of them gains no time and costs 0.2 s of start, the
    loading of the model, and a poll that keeps a core busy while a step waits for its pool. Decoders have processes
    of their own either way, and runs of different batches go on side by side.
    """
    if config["steps"] == "in_process":
        return {"in_process": {}}
    return {"multiprocess": {"start_method": {"forkserver": {"preload_modules": [WARM_MODULE]}}}}
