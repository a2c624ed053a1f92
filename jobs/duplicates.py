"""The jobs that look for copies: apart from the one that fingerprints, so that it need not wait for them."""

from __future__ import annotations

import dagster as dg

from fingerprint_dagster.assets.duplicates import duplicates
from fingerprint_dagster.assets.matches import matches

matches_job = dg.define_asset_job(
    "match_batches",
    selection=dg.AssetSelection.assets(matches),
    description="Compare a stored batch with everything that is stored.",
)
duplicates_job = dg.define_asset_job(
    "find_duplicates",
    selection=dg.AssetSelection.assets(duplicates),
    description="Join the whole collection with itself, and write a report.",
)
