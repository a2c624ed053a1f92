"""The five stage assets, one per stage, thin: each calls the engine's stage for its batch."""

import warnings

import dagster as dg

# Backfill policies and explicit data versions are what this is built on; that Dagster still calls them beta is
# known, and Dagster's version is pinned to a minor release for it.
warnings.filterwarnings("ignore", message="Parameter `(backfill_policy|data_version)`", category=dg.BetaWarning)

from fingerprint_dagster.assets.decode import decode  # noqa: E402
from fingerprint_dagster.assets.download import download  # noqa: E402
from fingerprint_dagster.assets.embed import embed  # noqa: E402
from fingerprint_dagster.assets.hash import hash_  # noqa: E402
from fingerprint_dagster.assets.store import store  # noqa: E402

STAGE_ASSETS = [download, decode, embed, hash_, store]

__all__ = ["STAGE_ASSETS"]
