"""Who is told when content matches watched content: a sensor that posts to a webhook or writes to a file."""

import logging
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import dagster as dg

from fingerprint_dagster.duplicates.decisions import Decisions
from fingerprint_dagster.duplicates.pairs import Pairs
from fingerprint_dagster.duplicates.watch import (
    Sighting,
    WatchList,
    append_lines,
    post,
    sighting_json,
    sightings,
)
from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.resources import CatalogResource, StoreResource
from fingerprint_dagster.settings import Settings, get_settings

_SENSOR_SECONDS = 60
_AT_ONCE = 100  # in one tick, which Dagster ends after a minute


@dg.sensor(
    minimum_interval_seconds=_SENSOR_SECONDS,
    description="New matches with watched content are posted to a webhook, or written to a file.",
)
def watch_sensor(
    context: dg.SensorEvaluationContext, catalog: CatalogResource, fingerprints: StoreResource
) -> dg.SkipReason:
    """Tells FINGERPRINT_WATCH_WEBHOOK and FINGERPRINT_WATCH_FILE of matches with what FINGERPRINT_WATCHED names.

    It finds no matches itself: the assets `matches` and `duplicates` do, and `fingerprint duplicates`. Each match is
    told once, in the order in which they were found. What could not be told is told at the next tick.
    """
    settings = get_settings()
    watch_list = WatchList.of(settings.watched)
    if not watch_list:
        return dg.SkipReason("FINGERPRINT_WATCHED names no content")
    if not settings.watch_webhook and settings.watch_file is None:
        return dg.SkipReason("neither FINGERPRINT_WATCH_WEBHOOK nor FINGERPRINT_WATCH_FILE is set")
    home = Path(catalog.home)
    pairs = Pairs(home, fingerprints.uri)
    name, _, number = (context.cursor or "").partition(":")
    last = int(number) if name == pairs.name and number.isdecimal() else 0
    newest = pairs.newest()
    found = list(islice(sightings(pairs.pairs(after=last), watch_list, Decisions(home).all()), _AT_ONCE))
    told = tell(found, settings, context.log)
    # All of them told, and no more waiting: what is newer than the last of them is no match with watched content.
    done = newest if told == len(found) < _AT_ONCE else found[told - 1].pair.number if told else last
    context.update_cursor(f"{pairs.name}:{max(done, last)}")
    return dg.SkipReason(f"{told} of {len(found)} new matches with watched content were told")


def tell(found: Sequence[Sighting], settings: Settings, log: logging.Logger) -> int:
    """Tell the webhook and the file of these; returns how many were told before the first failure, which is logged."""
    for count, sighting in enumerate(found):
        record = sighting_json(sighting)
        try:
            if settings.watch_webhook:
                post(settings.watch_webhook, record, settings.guard)
            if settings.watch_file is not None:
                append_lines(settings.watch_file, [record])
        except ContentError as error:
            log.warning("a match with watched content was not told: %s", error.reason)
            return count
    return len(found)
