"""The five stage assets, one per stage, thin: each calls the engine's stage for its batch."""

from fingerprint_dagster.assets.decode import decode
from fingerprint_dagster.assets.download import download
from fingerprint_dagster.assets.embed import embed
from fingerprint_dagster.assets.hash import hash_
from fingerprint_dagster.assets.store import store

STAGE_ASSETS = [download, decode, embed, hash_, store]

__all__ = ["STAGE_ASSETS"]
