"""How new content gets in without a person: sensors that register what arrives and ask for its runs.

A tick looks at a bounded number of entries and remembers where it stopped; the next one goes on there. So a source may
list millions.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import dagster as dg

from fingerprint_dagster.assets.batches import BATCHES, priority_tags
from fingerprint_dagster.catalog import Batch
from fingerprint_dagster.errors import ContentError, UsageError
from fingerprint_dagster.jobs.fingerprint import fingerprint_job
from fingerprint_dagster.resources import CatalogResource, FetcherResource
from fingerprint_dagster.settings import get_settings
from fingerprint_dagster.sources import Fetcher, Listed, expand, to_uri
from fingerprint_dagster.sources.listing import LIST_ENDINGS, rows_from
from fingerprint_dagster.sources.uri import OBJECT_SCHEMES, file_path, is_uri, readable, scheme_of

_SENSOR_SECONDS = 30
_SETTLE_SECONDS = 2.0
_TICK_ENTRIES = 20_000
_TICK_SECONDS = 15.0  # Dagster ends a tick after a minute.
_FETCH_SECONDS = 30.0
_LOOK_AGAIN_SECONDS = 300  # at what does not tell whether it has changed: a bucket, a folder of very many files


@dataclass(frozen=True)
class Pass:
    """A sensor's cursor: one listing of a source from its beginning to its end, over as many ticks as it takes.

    state: of the source when the pass began, equal while nothing has changed. started: seconds since 1970; 0 when the
    pass is over. at: entries that were looked at. after: uri of the last of them. validator: of a list behind an
    address; its digest is the state. whole: no entry had to be left for later.
    """

    state: str = ""
    started: float = 0.0
    at: int = 0
    after: str = ""
    validator: str = ""
    whole: bool = True

    @classmethod
    def of(cls, cursor: str | None) -> "Pass":
        """The pass that a cursor tells of; a new one where there is none, or one of another release."""
        try:
            return cls(**json.loads(cursor or "{}"))
        except (ValueError, TypeError):
            return cls()

    @property
    def cursor(self) -> str:
        """The text for Dagster."""
        return json.dumps(asdict(self))


def requests_for(batches: Sequence[Batch]) -> list[dg.RunRequest]:
    """A run for each batch. The run key is the batch, so no batch is requested twice."""
    return [
        dg.RunRequest(
            run_key=batch.name,
            partition_key=batch.name,
            tags={"fingerprint/content_type": batch.content_type, **priority_tags(batch.size)},
        )
        for batch in batches
    ]


class _Part:
    """The entries that one tick looks at. Afterwards it knows where it stopped."""

    def __init__(self, listings: Iterator[Listed], settled: Callable[[Listed], bool]) -> None:
        self._listings = listings
        self._settled = settled
        self._deadline = time.monotonic() + _TICK_SECONDS
        self.count = 0
        self.last = ""
        self.left = 0
        self.ended = False

    def __iter__(self) -> Iterator[Listed]:
        while self.count < _TICK_ENTRIES and time.monotonic() < self._deadline:
            listed = next(self._listings, None)
            if listed is None:
                self.ended = True
                return
            self.count += 1
            self.last = listed.uri
            if self._settled(listed):
                yield listed
            else:
                self.left += 1


def _look(
    log: logging.Logger,
    source: str,
    state: str,
    before: Pass,
    catalog: CatalogResource,
    fetcher: Fetcher,
    listings: Callable[[Pass], Iterator[Listed]],
    settled: Callable[[Listed], bool] = lambda listed: True,
) -> dg.SensorResult | dg.SkipReason:
    """One tick: register the next part of the source, and request runs for batches that were never stored.

    state: that of the source now. It is not looked into while it is that of the last pass. listings: what the source
    lists from where a pass stopped. settled: False for an entry that is to be left for a later pass.
    """
    if not before.started and before.state == state:
        return dg.SkipReason("nothing has changed")
    current = before if before.started else Pass(state, time.time(), validator=before.validator)
    part = _Part(listings(current), settled)
    register = catalog.open()
    register.remember([source])
    try:
        registration = register.register_listed(source, part, fetcher, seen=current.started)
    except UsageError as error:
        log.warning("%s was not looked at: %s", source, error)
        return dg.SensorResult(cursor=replace(current, started=0.0, at=0, after="").cursor)
    for failure in registration.unrecognised[:20]:
        log.warning("%s: %s", readable(failure.uri), failure.reason)
    whole = current.whole and not part.left
    if part.ended:
        # What changed in the meantime may have moved entries past the place where a tick began.
        if whole and current.state == state:
            gone = register.end_pass(source, current.started)
            if gone:
                log.warning("%d contents are gone from %s", gone, source)
        current = replace(current, started=0.0, at=0, after="", whole=True)
    else:
        current = replace(current, at=current.at + part.count, after=part.last, whole=whole)
    fresh = [batch for batch in registration.batches if not batch.recipe]
    if part.count and part.left == part.count:
        return dg.SkipReason("files are still being written")
    if not part.ended:
        log.info("%d entries of %s were looked at so far; the next tick goes on", current.at, source)
    return dg.SensorResult(
        run_requests=requests_for(fresh),
        dynamic_partitions_requests=[BATCHES.build_add_request([batch.name for batch in fresh])] if fresh else [],
        cursor=current.cursor,
    )


def _patient(fetcher: FetcherResource) -> Fetcher:
    """A fetcher whose waiting a tick has time for."""
    hasty = {"timeout_seconds": min(fetcher.timeout_seconds, _FETCH_SECONDS)}
    opened: Fetcher = fetcher.model_copy(update=hasty).open()
    return opened


@dg.sensor(
    job=fingerprint_job,
    minimum_interval_seconds=_SENSOR_SECONDS,
    description="New or changed files of the inbox folder become batches and runs.",
)
def inbox_sensor(
    context: dg.SensorEvaluationContext, catalog: CatalogResource, fetcher: FetcherResource
) -> dg.SensorResult | dg.SkipReason:
    """Watches the folder FINGERPRINT_INBOX (default: `inbox` in the home). A file that is being written has time."""
    settings = get_settings()
    inbox = settings.inbox or settings.home / "inbox"
    if not inbox.is_dir():
        return dg.SkipReason(f"there is no folder {inbox}")
    opened = fetcher.open()

    def files(current: Pass) -> Iterator[Listed]:
        return islice(expand(str(inbox), opened), current.at, None)

    def settled(listed: Listed) -> bool:
        return time.time() - _changed(file_path(listed.uri)) >= _SETTLE_SECONDS

    state = _folder_state(inbox, opened)
    return _look(context.log, str(inbox), state, Pass.of(context.cursor), catalog, opened, files, settled)


@dg.sensor(
    job=fingerprint_job,
    minimum_interval_seconds=_SENSOR_SECONDS,
    description="New or changed rows of the watched list become batches and runs.",
)
def list_sensor(
    context: dg.SensorEvaluationContext, catalog: CatalogResource, fetcher: FetcherResource
) -> dg.SensorResult | dg.SkipReason:
    """Watches the list FINGERPRINT_WATCH_LIST (CSV, TSV, JSONL, Parquet with a column `uri`): a file, or an address.

    A list behind an address is downloaded only when its server says that it has changed (ETag, Last-Modified), and
    never again behind an ipfs address. It may name no files of this machine.
    """
    watched = get_settings().watch_list
    before = Pass.of(context.cursor)
    opened = _patient(fetcher)
    if not watched or (not is_uri(watched) and not Path(watched).is_file()):
        return dg.SkipReason("FINGERPRINT_WATCH_LIST names no file and no address")
    if not is_uri(watched):
        status = Path(watched).stat()
        state = f"{watched}:{status.st_size}:{status.st_mtime_ns}"
        source = watched if Path(watched).suffix.lower() in LIST_ENDINGS else f"@{watched}"
        listings = expand(source, opened)
        return _look(
            context.log, source, state, before, catalog, opened, lambda current: islice(listings, current.at, None)
        )
    uri = to_uri(watched)
    try:
        if before.started:
            path, state = opened.open(uri, before.state), before.state
        else:
            fetched = opened.fetch_if_changed(uri, before.validator)
            if fetched is None:
                return dg.SkipReason("the list has not changed")
            path, state = fetched.path, fetched.digest
            before = replace(before, validator=fetched.validator)
    except ContentError as error:
        # Where it changed while a pass went on, the next tick begins anew.
        context.update_cursor(Pass().cursor if before.started else before.cursor)
        return dg.SkipReason(f"the list cannot be read: {error.reason}")
    return _look(
        context.log,
        f"@{uri}",
        state,
        before,
        catalog,
        opened,
        lambda current: islice(rows_from(uri, path), current.at, None),
    )


@dg.sensor(
    job=fingerprint_job,
    minimum_interval_seconds=_SENSOR_SECONDS,
    description="New or changed objects below the watched prefix of an object store become batches and runs.",
)
def objects_sensor(
    context: dg.SensorEvaluationContext, catalog: CatalogResource, fetcher: FetcherResource
) -> dg.SensorResult | dg.SkipReason:
    """Watches FINGERPRINT_WATCH_OBJECTS, such as `s3://bucket/prefix/`. Every few minutes it lists it once.

    The listing tells the ETag of every object: no object is opened to see whether it has changed.
    """
    watched = get_settings().watch_objects
    if scheme_of(watched) not in OBJECT_SCHEMES:
        return dg.SkipReason("FINGERPRINT_WATCH_OBJECTS names no prefix of an object store")
    prefix = watched if watched.endswith("/") else f"{watched}/"
    opened = _patient(fetcher)
    return _look(
        context.log,
        prefix,
        _window(prefix),
        Pass.of(context.cursor),
        catalog,
        opened,
        lambda current: expand(prefix, opened, after=current.after),
    )


def _window(source: str) -> str:
    """A state that is another one every few minutes, for what cannot tell its own."""
    return f"{source}:{int(time.time() // _LOOK_AGAIN_SECONDS)}"


def _folder_state(folder: Path, fetcher: Fetcher) -> str:
    """A digest of every settled file's name, size and time of change, where they are not too many to look at them."""
    digest = hashlib.blake2b(digest_size=16)
    for number, listed in enumerate(expand(str(folder), fetcher)):
        if number == _TICK_ENTRIES:
            return _window(str(folder))
        path = file_path(listed.uri)
        if time.time() - _changed(path) >= _SETTLE_SECONDS:
            digest.update(f"{listed.uri}\0{fetcher.validator(listed.uri)}\0".encode())
    return digest.hexdigest()


def _changed(path: Path) -> float:
    """When a file was last written to, in seconds since 1970; 0 where it is gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
