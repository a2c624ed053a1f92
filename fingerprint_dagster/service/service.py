"""`FingerprintService`: the engine for an application that has an event loop."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import tempfile
import threading
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from fingerprint_dagster.content import Content, Fingerprint
from fingerprint_dagster.errors import ContentError, FingerprintError, UsageError
from fingerprint_dagster.service.result import FingerprintResult, SearchResult
from fingerprint_dagster.settings import Settings, get_settings

if TYPE_CHECKING:
    from fingerprint_dagster.index.store import Store
    from fingerprint_dagster.models import ModelRuntime
    from fingerprint_dagster.service.cache import Answer
    from fingerprint_dagster.service.engine import Engine, Found, Request
    from fingerprint_dagster.service.writer import StoreWriter

log = logging.getLogger("fingerprint_dagster.service")

Item = str | tuple[str, str | None]
"""One content of a batch: its address, or its address and content type."""

# Store keys of what this process has handed to the store; what is forgotten is only looked up again.
_KNOWN_STORED = 200_000
# So often `close` looks whether the last call has ended.
_LOOK_SECONDS = 0.005
_CLOSED = "the service is closed: make a new one"

T = TypeVar("T")


class FingerprintService:
    """Fingerprints contents and finds their copies, for many callers at once.

        async with FingerprintService() as service:
            result = await service.generate_fingerprint(content_url="photo.jpg", content_type=ContentType.IMAGE)
            copies = await service.search(result)

    settings: by default those of the process (`get_settings()`). What they say when the service is first used holds.
    models: a model runtime to share; by default one of its own.

    Contents are fetched by threads, decoded and hashed by worker processes, embedded by one thread in batches over all
    requests, and stored in the background. Equal requests in flight share one answer, and equal bytes one computation.
    What was answered is in the store after `close`; where the process dies before, the next service of the same home
    puts it there. Its methods may be called from any event loop, from several too. A script needs
    `if __name__ == "__main__":` around what it runs, as always where Python starts processes.
    """

    def __init__(self, settings: Settings | None = None, *, models: ModelRuntime | None = None) -> None:
        self.settings = settings or get_settings()
        self._models = models
        self._engine: Engine | None = None
        self._writer: StoreWriter | None = None
        self._store: Store | None = None
        self._threads = ThreadPoolExecutor(max(4, self.settings.worker_count), "fingerprint-service")
        self._stored: OrderedDict[str, None] = OrderedDict()
        self._starting = threading.Lock()
        self._calls = 0
        self._warm = False
        self._closed = False

    async def __aenter__(self) -> FingerprintService:
        await self._ready()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # ------------------------------------------------------------------ life

    async def load_models(self) -> dict[str, Any]:
        """Load the models and start the worker processes, so that the first answer need not wait for it.

        Returns what runs the models: runtime, device, precision, batch_size. Raises `UsageError` for a device or a
        package that is not there.
        """
        engine, _ = await self._ready()
        if not self._warm:
            await self._in_thread(engine.warm)
            self._warm = True
        return await self._in_thread(engine.models.describe)

    async def flush(self) -> None:
        """Wait until everything that was answered is in the store. Raises `StoreError` where it cannot be put there."""
        _, writer = await self._ready()
        await self._in_thread(writer.flush)

    async def close(self) -> None:
        """Finish what is in hand, store it, and end threads and processes. Closing again does nothing.

        Raises `StoreError` where something could not be stored; it stays in the journal.
        """
        if self._closed:
            return
        self._closed = True
        while self._calls:  # From whatever event loops they came.
            await asyncio.sleep(_LOOK_SECONDS)
        engine, writer = await self._in_thread(self._started)
        try:
            if engine is not None:
                await self._in_thread(engine.close)
            if writer is not None:
                await self._in_thread(writer.close)
        finally:
            self._threads.shutdown(wait=False)

    # ------------------------------------------------------------------ fingerprints

    async def generate_fingerprint(
        self,
        content_url: str,
        content_type: str | None = None,
        use_cache: bool = True,
        *,
        data: bytes | None = None,
        store: bool = True,
        content_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> FingerprintResult:
        """The fingerprint of one content.

        content_url: a path or a uri of any scheme that the settings allow. content_type: a `ContentType` or the name of
        a plugin's; None lets the bytes decide. use_cache: False fetches, decodes and computes anew.
        data: the bytes themselves, if they are not to be fetched; content_url is then only a name for them, from which
            the uri is made: `upload:<digest>/<name>`.
        store: put the fingerprint into the store, where searches find it, under `content_id` (by default derived from
        the uri) and with `metadata`.

        Raises `ContentError` where this content cannot be fingerprinted (its `stage`, `reason` and `retryable` say
        more), `UsageError` for an unknown content type or a wrong address, `StoreError` where the journal is full.
        """
        started = time.perf_counter()
        engine, writer = await self._ready()
        self._calls += 1
        try:
            found, uri = await self._found(engine, content_url, content_type, use_cache, data)
            record = _as(found.answer, content_id, metadata)
            if store and record.key not in self._stored:
                await self._in_thread(writer.add, record)
                self._remember_stored(record.key)
        finally:
            self._calls -= 1
        took = (time.perf_counter() - started) * 1000
        kind = record.content.content_type
        return FingerprintResult(uri, kind, found.answer.text, took, found.layer is not None, found.layer, record)

    async def batch_generate_fingerprints(
        self,
        items: Iterable[Item] | AsyncIterable[Item],
        use_cache: bool = True,
        *,
        store: bool = True,
        records: bool = True,
    ) -> list[FingerprintResult]:
        """The results of many contents, in their order. What fails has its `error`, and never fails the others.

        items: `(content_url, content_type)`, or content_url alone. records: False leaves the whole records out, of
        which each picture's takes some 20 KB. Of very many contents, see `stream_fingerprints`.
        """
        return [each async for each in self.stream_fingerprints(items, use_cache, store=store, records=records)]

    async def stream_fingerprints(
        self,
        items: Iterable[Item] | AsyncIterable[Item],
        use_cache: bool = True,
        *,
        store: bool = True,
        records: bool = True,
    ) -> AsyncIterator[FingerprintResult]:
        """Like `batch_generate_fingerprints`, one result after the other, as they are ready.

        Items are drawn only as fast as results are taken: at most twice `max_in_flight` of them are on their way.
        """
        window = 2 * self.settings.max_in_flight
        waiting: deque[asyncio.Task[FingerprintResult]] = deque()
        try:
            async for item in _each(items):
                waiting.append(asyncio.ensure_future(self._result(item, use_cache, store, records)))
                while len(waiting) >= window or (waiting and waiting[0].done()):
                    yield await waiting.popleft()
            while waiting:
                yield await waiting.popleft()
        finally:
            for task in waiting:
                task.cancel()

    # ------------------------------------------------------------------ copies

    async def search(
        self,
        query: str | Fingerprint | FingerprintResult,
        content_type: str | None = None,
        top: int = 10,
        *,
        data: bytes | None = None,
        include_self: bool = False,
    ) -> SearchResult:
        """What the query is a copy of, among all that is stored: the matches with the `top` best references.

        query: a path or a uri, which is fingerprinted but not stored, or a fingerprint. data: as for
        `generate_fingerprint`. What this service has answered before is found. include_self: also match the query with
        itself where it is stored. Raises like `generate_fingerprint`.
        """
        started = time.perf_counter()
        _, writer = await self._ready()
        if isinstance(query, str):
            query = await self.generate_fingerprint(query, content_type, data=data, store=False)
        record = query.record if isinstance(query, FingerprintResult) else query
        if record is None:
            raise UsageError("the query has no fingerprint to search with")
        if writer.pending:
            await self._in_thread(writer.flush)
        matches = await self._in_thread(self._find_copies, record, top, include_self)
        return SearchResult(record, tuple(matches), (time.perf_counter() - started) * 1000)

    # ------------------------------------------------------------------ the cache

    def get_cache_stats(self) -> dict[str, Any]:
        """What the caches hold and how often they helped, where models run, and how the store is doing.

        cache_size, bytes, max_bytes, evictions, expired, ttl_seconds: of the memory. hits, misses, hit_rate: answers
        without and with decoding; memory_hits, memo_hits: from where. shared: requests that waited for an equal one.
        failed: requests that ended in an error. in_flight: requests now. batches, batched: model calls, and the
        contents in them. device, precision: of the models; "auto" until they are loaded. memo, memo_problem: its
        address, and why it cannot be used. store: fingerprints pending, written, and replayed from the journal of a
        process that died; failures of writing, and the last of them.
        """
        engine, writer, settings = self._engine, self._writer, self.settings
        memory = engine.hits["memory"] if engine else 0
        memo = engine.hits["memo"] if engine else 0
        misses = engine.misses if engine else 0
        asked = memory + memo + misses
        loaded = self._warm and engine is not None
        batches, batched = engine.batches if engine else (0, 0)
        return {
            "cache_size": len(engine.cache) if engine else 0,
            "bytes": engine.cache.bytes if engine else 0,
            "max_bytes": settings.cache_max_bytes,
            "ttl_seconds": settings.cache_ttl_seconds,
            "hits": memory + memo,
            "memory_hits": memory,
            "memo_hits": memo,
            "misses": misses,
            "hit_rate": (memory + memo) / asked if asked else 0.0,
            "evictions": engine.cache.evictions if engine else 0,
            "expired": engine.cache.expired if engine else 0,
            "shared": engine.shared if engine else 0,
            "failed": engine.failed if engine else 0,
            "in_flight": engine.in_flight if engine else 0,
            "batches": batches,
            "batched": batched,
            "device": str(engine.models.device) if loaded and engine else settings.device,
            "precision": engine.models.precision if loaded and engine else settings.precision,
            "memo": settings.memo_uri,
            "memo_problem": engine.memo.problem if engine else None,
            "store": writer.facts() if writer else {},
        }

    def clear_cache(self, *, memo: bool = False) -> int:
        """Forget the answers in memory; returns how many. Fingerprints in the store stay.

        memo: also forget what the memo knows of downloads and fingerprints, which Dagster's runs share.
        """
        if self._engine is None:
            return 0
        count = self._engine.cache.clear()
        if memo:
            count += self._engine.memo.clear("download", "hash")
        return count

    # ------------------------------------------------------------------ inside

    async def _ready(self) -> tuple[Engine, StoreWriter]:
        """The engine and the writer, made on first use. Raises `UsageError` when the service is closed."""
        if self._closed:
            raise UsageError(_CLOSED)
        if self._engine is None or self._writer is None:
            await self._in_thread(self._start)
        assert self._engine is not None
        assert self._writer is not None
        return self._engine, self._writer

    def _start(self) -> None:
        from fingerprint_dagster.index.store import open_store
        from fingerprint_dagster.service.engine import Engine
        from fingerprint_dagster.service.journal import Journal
        from fingerprint_dagster.service.writer import StoreWriter

        with self._starting:
            if self._closed:
                raise UsageError(_CLOSED)
            if self._engine is not None:
                return
            settings = self.settings
            self._store = store = open_store(settings.store_uri)
            lasting = not settings.store_uri.startswith("memory:")
            journal = Journal(settings.home / "journal", settings.store_uri) if lasting else None
            self._writer = StoreWriter(store, journal, sync_seconds=settings.journal_sync_seconds)
            self._engine = Engine(settings, self._models)

    def _started(self) -> tuple[Engine | None, StoreWriter | None]:
        """What there is to close, once nobody is starting it."""
        with self._starting:
            return self._engine, self._writer

    async def _found(
        self, engine: Engine, content_url: str, content_type: str | None, use_cache: bool, data: bytes | None
    ) -> tuple[Found, str]:
        """The engine's answer, and the normalised uri."""
        from fingerprint_dagster.media.registry import content_type as plugin_of
        from fingerprint_dagster.service.engine import Request
        from fingerprint_dagster.sources import to_uri

        kind = None if content_type is None else plugin_of(str(content_type)).name
        if data is None:
            request = Request(to_uri(content_url), kind, use_cache)
            return await self._flown(engine, request), request.uri
        digest, file = await self._in_thread(_written, data, engine.temporary.path)
        try:
            uri = f"upload:{digest[:16]}/{quote(content_url, safe='/.~-_')}"
            return await self._flown(engine, Request(uri, kind, use_cache, Path(file.name), digest)), uri
        finally:
            file.close()

    async def _flown(self, engine: Engine, request: Request) -> Found:
        found = engine.glance(request)
        if found is not None:
            return found
        flight = asyncio.wrap_future(engine.submit(request))
        # Who stops waiting must not stop the others, nor be told of an error later.
        flight.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(flight)

    async def _result(self, item: Item, use_cache: bool, store: bool, records: bool) -> FingerprintResult:
        url, content_type = (item, None) if isinstance(item, str) else item
        started = time.perf_counter()
        try:
            result = await self.generate_fingerprint(url, content_type, use_cache, store=store)
            return result if records else replace(result, record=None)
        except ContentError as error:
            reason, stage, retryable = error.reason, error.stage, error.retryable
        except UsageError as error:
            reason, stage, retryable = str(error), "request", False
        except FingerprintError as error:
            reason, stage, retryable = str(error), "service", True
        except Exception as error:
            log.exception("an unexpected failure with %s", url)
            reason, stage, retryable = f"{type(error).__name__}: {error}", "service", True
        took = (time.perf_counter() - started) * 1000
        kind = None if content_type is None else str(content_type)
        return FingerprintResult(url, kind, processing_time_ms=took, error=reason, stage=stage, retryable=retryable)

    def _find_copies(self, record: Fingerprint, top: int, include_self: bool) -> list[Any]:
        from fingerprint_dagster import calibration
        from fingerprint_dagster.duplicates import decisions
        from fingerprint_dagster.media.registry import content_type
        from fingerprint_dagster.search import find_copies

        assert self._store is not None
        home = self.settings.home
        # Another process may calibrate or decide at any time; who only searches leaves nothing in the home.
        decided = decisions.Decisions(home) if (home / decisions.FILE).exists() else None
        return find_copies(
            self._store,
            content_type(record.content.content_type),
            record,
            top,
            include_self=include_self,
            calibration=calibration.load(home),
            decisions=decided,
        )

    def _remember_stored(self, key: str) -> None:
        self._stored[key] = None
        while len(self._stored) > _KNOWN_STORED:
            self._stored.popitem(last=False)

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


def _as(answer: Answer, content_id: str | None, metadata: Mapping[str, Any] | None) -> Fingerprint:
    """The answer's record, under the id and with the metadata that the caller gave."""
    from fingerprint_dagster.pipeline import store_key
    from fingerprint_dagster.stages import Entry

    record = answer.record
    if content_id is None and not metadata:
        return record
    known = record.content
    content = Content(content_id or known.content_id, known.uri, known.content_type, dict(metadata or {}))
    key = store_key(Entry(content, answer.text.rpartition(":")[2]))
    return replace(record, content=content, key=key)


def _written(data: bytes, folder: Path) -> tuple[str, IO[bytes]]:
    """The SHA-256 of bytes, and a file in the folder that holds them until it is closed."""
    file = tempfile.NamedTemporaryFile(dir=folder)  # noqa: SIM115 - the caller closes it
    file.write(data)
    file.flush()
    return hashlib.sha256(data).hexdigest(), file


async def _each(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
