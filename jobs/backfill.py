"""A Dagster backfill over batches, made from a plain process and carried out by the daemon."""

from __future__ import annotations

import time
from collections.abc import Sequence

from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.utils import make_new_backfill_id

from fingerprint_dagster.assets import STAGE_ASSETS
from fingerprint_dagster.assets.batches import BACKFILL_TAGS, RETRY_TAG, add_partitions
from fingerprint_dagster.definitions import defs
from fingerprint_dagster.jobs.instance import open_instance
from fingerprint_dagster.settings import Settings


def queue_backfill(settings: Settings, batches: Sequence[str], *, retry: bool = False) -> str:
    """Ask the instance's daemon for a run of each batch through all stages; returns the id of the backfill.

    It shows in the UI under Runs > Backfills. What arrives meanwhile overtakes it. retry: try again what
    is in quarantine for good.
    """
    with open_instance(settings) as instance:
        add_partitions(instance, batches)
        backfill_id = str(make_new_backfill_id())
        instance.add_backfill(
            PartitionBackfill.from_asset_partitions(
                backfill_id=backfill_id,
                asset_graph=defs.resolve_asset_graph(),
                partition_names=list(batches),
                asset_selection=[asset.key for asset in STAGE_ASSETS],
                backfill_timestamp=time.time(),
                tags=BACKFILL_TAGS | ({RETRY_TAG: "true"} if retry else {}),
                dynamic_partitions_store=instance,
                all_partitions=False,
                title=f"fingerprint backfill of {len(batches)} batches",
                description=None,
                run_config=None,
            )
        )
    return backfill_id
