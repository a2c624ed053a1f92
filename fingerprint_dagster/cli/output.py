"""What the commands share: the settings, the catalog, and how tables look."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from fingerprint_dagster.catalog import Catalog
    from fingerprint_dagster.settings import Settings

_WIDTH_OF_A_FILE = 250


def current_settings() -> Settings:
    """What the environment says."""
    from fingerprint_dagster.settings import get_settings

    return get_settings()


def open_catalog(settings: Settings) -> Catalog:
    """The catalog in the home."""
    from fingerprint_dagster.catalog import Catalog

    return Catalog(settings.home)


def readable(uri: str) -> str:
    """`sources.uri.readable`, loaded when it is needed: a tenth of a second that most commands start without."""
    from fingerprint_dagster.sources import uri as addresses

    return addresses.readable(uri)


def new_console() -> Console:
    """As wide as the terminal; wide enough for any table where the output is a file."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE)


def new_table(*columns: str) -> Table:
    """A plain table with these headings."""
    from rich import box
    from rich.table import Table

    return Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
