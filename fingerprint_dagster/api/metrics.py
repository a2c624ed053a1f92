"""What Prometheus scrapes: answers by content type and outcome, their times, and the state of caches and store."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fingerprint_dagster.service import FingerprintService

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_GAUGES = {
    "cache_size": "Answers in memory.",
    "bytes": "Bytes of the answers in memory.",
    "in_flight": "Requests that are worked on.",
}
_COUNTERS = {
    "memory_hits": "Answers from memory.",
    "memo_hits": "Answers from the memo.",
    "misses": "Answers that were decoded and computed.",
    "evictions": "Answers put out of memory for others.",
    "shared": "Requests that waited for an equal one.",
    "failed": "Requests that ended in an error.",
    "batches": "Calls of the models.",
    "batched": "Contents in the calls of the models.",
}


class Metrics:
    """The metrics of one server."""

    def __init__(self, service: FingerprintService) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "fingerprint_http_requests", "Answers by route and status.", ("route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "fingerprint_http_seconds",
            "Seconds from request to answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.registry.register(_ServiceState(service))

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)


class _ServiceState(Collector):
    """The service's own counts, read when they are asked for."""

    def __init__(self, service: FingerprintService) -> None:
        self.service = service

    def collect(self) -> Iterator[Metric]:
        stats = self.service.get_cache_stats()
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(f"fingerprint_{name}", text, value=stats[name])
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"fingerprint_{name}", text, value=stats[name])
        for name, value in stats["store"].items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield GaugeMetricFamily(f"fingerprint_store_{name}", "Of the store's writer.", value=value)
