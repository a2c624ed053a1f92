"""The job that takes one batch through the five stages, and how its steps are executed."""

from __future__ import annotations

import dagster as dg

from fingerprint_dagster.assets import STAGE_ASSETS

JOB = "fingerprint"
WARM_MODULE = "fingerprint_dagster.jobs.warm"

fingerprint_job = dg.define_asset_job(
    JOB,
    selection=dg.AssetSelection.assets(*STAGE_ASSETS),
    description="Fingerprint one batch: download, decode, embed, hash, store.",
)

# Steps run in processes forked from a server that has imported everything: 0.2 s a step instead of 1.4 to 2.9 s.
executor = dg.multiprocess_executor.configured(
    {"start_method": {"forkserver": {"preload_modules": [WARM_MODULE]}}}, name="warm_forkserver"
)
