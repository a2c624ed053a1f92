"""Runs the HTTP API with uvicorn."""

from __future__ import annotations

from fingerprint_dagster.api.access import is_loopback
from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.settings import Settings

# How many connections the system holds that were not accepted yet.
_BACKLOG = 4096


def run(settings: Settings, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM; then take no more requests, answer those that came, and store what was answered.

    host: "127.0.0.1" for this machine alone; any other needs `api_keys`. Raises UsageError without them.
    """
    if not is_loopback(host) and not settings.api_keys:
        raise UsageError(
            f"--host {host} would let anybody ask: set FINGERPRINT_API_KEYS to one or more keys, separated by commas, "
            "or stay on 127.0.0.1"
        )
    import uvicorn

    from fingerprint_dagster.api.app import create_app

    uvicorn.run(
        create_app(settings),
        host=host,
        port=port,
        backlog=_BACKLOG,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
    )
