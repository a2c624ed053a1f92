"""Dagster resources: the GPU model resource, the fetcher, the memo and its IO manager, the store, the catalog."""

from fingerprint_dagster.resources.engine import (
    CatalogResource,
    FetcherResource,
    GpuModelResource,
    MemoResource,
    PipelineResource,
    StoreResource,
)
from fingerprint_dagster.resources.memo_io_manager import MemoIOManager

__all__ = [
    "CatalogResource",
    "FetcherResource",
    "GpuModelResource",
    "MemoIOManager",
    "MemoResource",
    "PipelineResource",
    "StoreResource",
]
