"""Where the assets are materialised in the tests of this folder."""

from pathlib import Path

import dagster as dg
import pytest

from fingerprint_dagster.settings import Settings, get_settings


@pytest.fixture
def settings(home: Path) -> Settings:
    """Those of an empty home."""
    return get_settings()


@pytest.fixture
def instance() -> dg.DagsterInstance:
    """Dagster's records, in memory."""
    return dg.DagsterInstance.ephemeral()
