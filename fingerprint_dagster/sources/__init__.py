"""Sources: from what a user writes (path, folder, list, URI) to uris, and from a uri to bytes on local disk."""

from fingerprint_dagster.sources.fetcher import Fetched, Fetcher
from fingerprint_dagster.sources.guard import Guard
from fingerprint_dagster.sources.listing import Listed, absolute, expand
from fingerprint_dagster.sources.uri import to_uri

__all__ = ["Fetched", "Fetcher", "Guard", "Listed", "absolute", "expand", "to_uri"]
