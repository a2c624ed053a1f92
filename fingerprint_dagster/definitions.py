"""The Dagster code location: assets, resources, jobs, schedule and sensors, put together from the settings."""

from __future__ import annotations

from functools import lru_cache

import dagster as dg

from fingerprint_dagster import resources
from fingerprint_dagster.assets import STAGE_ASSETS
from fingerprint_dagster.assets.duplicates import duplicates
from fingerprint_dagster.assets.matches import matches
from fingerprint_dagster.assets.sources import sources
from fingerprint_dagster.jobs.arrivals import inbox_sensor, list_sensor, objects_sensor
from fingerprint_dagster.jobs.duplicates import duplicates_job, matches_job
from fingerprint_dagster.jobs.fingerprint import JOB, executor, fingerprint_job
from fingerprint_dagster.jobs.maintenance import (
    follow_sensor,
    maintenance_job,
    maintenance_schedule,
    nothing_waits,
    rescan_job,
    rescan_runs_sensor,
    rescan_schedule,
)
from fingerprint_dagster.jobs.watch import watch_sensor
from fingerprint_dagster.settings import Settings, get_settings


def build_resources(settings: Settings) -> dict[str, object]:
    """Every resource, configured from the settings. Their config can be changed for a run in Dagster's launchpad."""
    memo = resources.MemoResource(
        uri=settings.memo_uri, max_bytes=settings.memo_max_bytes, ttl_seconds=settings.memo_ttl_seconds
    )
    fetcher = resources.FetcherResource(
        blobs=str(settings.home / "blobs"),
        blobs_max_bytes=settings.blobs_max_bytes,
        timeout_seconds=settings.timeout_seconds,
        max_content_bytes=settings.max_content_bytes,
        ipfs_gateways=list(settings.ipfs_gateway),
        allowed_schemes=list(settings.allowed_schemes),
        allowed_hosts=list(settings.allowed_hosts),
        denied_hosts=list(settings.denied_hosts),
        allowed_networks=list(settings.allowed_networks),
        allowed_folders=[str(folder) for folder in settings.allowed_folders],
        downloads_per_host=settings.downloads_per_host,
        shares=str(settings.home / "shares"),
        requests_per_second=settings.requests_per_second,
        proxy=settings.proxy,
    )
    models = resources.GpuModelResource(
        device=settings.device,
        precision=settings.precision,
        batch_size=settings.batch_size,
        threads=settings.worker_count,
        runtime=settings.runtime,
    )
    return {
        "catalog": resources.CatalogResource(home=str(settings.home)),
        "fetcher": fetcher,
        "memo": memo,
        "memo_io_manager": resources.MemoIOManager(memo=memo, results=str(settings.home / "results")),
        "models": models,
        "pipeline": resources.PipelineResource(
            fetcher=fetcher,
            memo=memo,
            models=models,
            workers=settings.worker_count,
            timeout_seconds=settings.timeout_seconds,
            decode_memory_bytes=settings.decode_memory_bytes,
            sandbox=settings.sandbox,
            decoder_folders=[str(folder) for folder in settings.decoder_folders],
            shares=str(settings.home / "shares"),
        ),
        "fingerprints": resources.StoreResource(uri=settings.store_uri),
    }


def build_definitions(settings: Settings) -> dg.Definitions:
    """Everything Dagster is told, for these settings. Tests and notebooks call it with their own."""
    return dg.Definitions(
        assets=[sources, *STAGE_ASSETS, matches, duplicates],
        asset_checks=[nothing_waits],
        resources=build_resources(settings),
        jobs=[fingerprint_job, matches_job, duplicates_job, rescan_job, maintenance_job],
        sensors=[inbox_sensor, list_sensor, objects_sensor, rescan_runs_sensor, follow_sensor, watch_sensor],
        schedules=[rescan_schedule, maintenance_schedule],
        executor=executor,
    )


defs = build_definitions(get_settings())


def resolved_job() -> dg.JobDefinition:
    """The fingerprint job with its resources: what run and step processes rebuild by name."""
    return _resolved_job()


@lru_cache(maxsize=1)
def _resolved_job() -> dg.JobDefinition:
    return defs.resolve_job_def(JOB)
