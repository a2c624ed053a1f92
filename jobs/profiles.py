"""The files of a Dagster instance for three ways of running it: on SQLite, on PostgreSQL, and as services."""

from __future__ import annotations

from typing import Literal, get_args

from fingerprint_dagster.jobs.instance import DAGSTER_YAML, SQLITE, WORKSPACE_YAML
from fingerprint_dagster.settings import Settings

Profile = Literal["local", "postgres", "production"]
PROFILES: tuple[Profile, ...] = get_args(Profile)

POSTGRES_VARIABLE = "DAGSTER_POSTGRES_URL"
_POSTGRES = f"""\
storage:
  postgres:
    postgres_url: {{env: {POSTGRES_VARIABLE}}}
"""
# A run belongs to the service of the code location, so that starting the daemon anew ends none.
PRODUCTION_YAML = f"""\
# Made by fingerprint_dagster; yours to change. https://docs.dagster.io/deployment/oss/dagster-yaml
telemetry: {{enabled: false}}
nux: {{enabled: false}}
{_POSTGRES}concurrency:
  runs: {{max_concurrent_runs: 4}}
  pools: {{granularity: op}}
run_queue: {{dequeue_interval_seconds: 1}}
run_monitoring:
  enabled: true
  poll_interval_seconds: 15
  start_timeout_seconds: 180
  cancel_timeout_seconds: 60
  max_runtime_seconds: 86400
  free_slots_after_run_end_seconds: 30
run_retries: {{enabled: true, max_retries: 2, retry_on_asset_or_op_failure: false}}
retention:
  schedule: {{purge_after_days: 30}}
  sensor: {{purge_after_days: {{skipped: 3, success: 30, failure: 30}}}}
"""
PRODUCTION_WORKSPACE = """\
load_from:
  - grpc_server: {host: code, port: 4000, location_name: fingerprint_dagster}
"""


def instance_files(profile: Profile, settings: Settings) -> dict[str, str]:
    """The texts of dagster.yaml and workspace.yaml, by these names.

    "local" keeps Dagster's records in SQLite files beside them. "postgres" keeps them in the database that the variable
    DAGSTER_POSTGRES_URL names, on one machine: from a few runs at once, or some thousand batches. "production" is for
    services of their own: it expects the code location at `code:4000`, as in deploy/compose.yaml.
    """
    if profile == "production":
        return {"dagster.yaml": PRODUCTION_YAML, "workspace.yaml": PRODUCTION_WORKSPACE}
    text = DAGSTER_YAML % {"runs": settings.run_count}
    return {"dagster.yaml": text + (_POSTGRES if profile == "postgres" else SQLITE), "workspace.yaml": WORKSPACE_YAML}
