"""The engine as an asynchronous service, for an application, a notebook or an HTTP server."""

from fingerprint_dagster.service.result import FingerprintResult, SearchResult, fingerprint_text
from fingerprint_dagster.service.service import FingerprintService

__all__ = ["FingerprintResult", "FingerprintService", "SearchResult", "fingerprint_text"]
