"""The way of one content through the service, in threads: the plain and blocking inside of `FingerprintService`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from fingerprint_dagster import codec
from fingerprint_dagster.catalog import default_content_id
from fingerprint_dagster.content import Content, Fingerprint, Value
from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.media.plugin import ContentTypePlugin
from fingerprint_dagster.media.registry import claiming, content_type, content_types
from fingerprint_dagster.models import ModelRuntime
from fingerprint_dagster.pipeline import Limits, fetcher_of, memo_of, recognise, refusal_key, store_key
from fingerprint_dagster.service.batching import ModelThreads
from fingerprint_dagster.service.cache import Answer, AnswerCache, SharedMemo
from fingerprint_dagster.service.decoding import Task, Workers, service_worker
from fingerprint_dagster.service.result import CacheLayer, fingerprint_text
from fingerprint_dagster.service.samples import write_samples
from fingerprint_dagster.settings import Settings
from fingerprint_dagster.sources import Fetched
from fingerprint_dagster.stages import Entry, memo_key, value_key
from fingerprint_dagster.temporary import TemporaryFolder
from fingerprint_dagster.workers import WorkerPool

log = logging.getLogger("fingerprint_dagster.service")

# Decoded values that wait for the model or the hash stage; more are not decoded meanwhile.
MAX_HELD_BYTES = 256 << 20


@dataclass(frozen=True)
class Request:
    """One content that is asked for. Equal requests in flight share one answer.

    uri: normalised. content_type: None where the bytes are to tell. use_cache: False computes anew.
    path: the file with the bytes, where they are not to be fetched from the uri, and their SHA-256.
    """

    uri: str
    content_type: str | None
    use_cache: bool = True
    path: Path | None = None
    digest: str = ""


@dataclass(frozen=True)
class Found:
    """What came of a request. layer: where it was found without decoding, else None."""

    answer: Answer
    layer: CacheLayer | None


class Engine:
    """Answers requests from the memory, the memo, or by work. May be used by many threads at once.

    The threads for requests are the limit of what is in hand at once: each takes one content through all stages, and
    waits where a stage is busy.
    """

    def __init__(self, settings: Settings, models: ModelRuntime | None = None) -> None:
        seconds = settings.service_timeout_seconds
        # The settings of a run, but for the time limit.
        self.settings = settings.model_copy(update={"timeout_seconds": seconds})
        self.limits = Limits.of(self.settings)
        self.fetcher = fetcher_of(self.settings)
        self.memo = SharedMemo(memo_of(self.settings))
        self.models = models or ModelRuntime.of(self.settings)
        self.cache = AnswerCache(settings.cache_max_bytes, settings.cache_ttl_seconds)
        self.hits = dict.fromkeys(("memory", "memo"), 0)
        self.misses = self.failed = self.shared = 0
        self._lock = threading.Lock()
        self._flights: dict[Request, Future[Found]] = {}
        self._computing: dict[str, Future[bytes]] = {}
        self._requests = ThreadPoolExecutor(settings.max_in_flight, "fingerprint-request")
        self.temporary = TemporaryFolder()
        self._samples = write_samples(self.temporary.path)
        self.workers = Workers(settings.worker_count, self._pool, MAX_HELD_BYTES)
        self._model_threads = ModelThreads(
            self.models, settings.batch_size, settings.batch_wait_ms / 1000, lambda: self.workers.decoding > 0
        )

    def _pool(self) -> WorkerPool[Task, bytes]:
        """The pool of one process."""
        return WorkerPool(
            service_worker,
            (self.fetcher, self.settings, self._samples),
            count=1,
            timeout_seconds=self.limits.timeout_seconds,
            memory_bytes=self.limits.decode_memory_bytes,
            sandbox=self.limits.sandbox,
            writable=self.limits.decoder_folders,
        )

    def warm(self) -> None:
        """Load the models, and start the worker processes with what they import. Raises what a first request would."""
        self.workers.warm()
        for name, path in self._samples.items():
            plugin = content_type(name)
            if plugin.has_model:
                source = _Source(plugin, "", 0, "", "")
                self._compute(Request(path.as_uri(), name, path=path), source, self.limits.timeout_seconds)

    def close(self) -> None:
        """Finish what is in hand, then end threads and processes."""
        self._requests.shutdown(wait=True)
        self._model_threads.close()
        self.workers.close()
        self.temporary.close()

    @property
    def in_flight(self) -> int:
        """Requests that are waiting or being worked on."""
        return len(self._flights)

    @property
    def batches(self) -> tuple[int, int]:
        """How many model calls there were, and how many contents were in them."""
        return self._model_threads.batches, self._model_threads.contents

    # ------------------------------------------------------------------ requests

    def glance(self, request: Request) -> Found | None:
        """The answer that is in memory and certain to hold, found without any waiting; else None."""
        answer = self.cache.get(_key(request)) if request.use_cache else None
        if answer is None:
            return None
        immutable = request.path is not None or request.uri.startswith(("ipfs:", "data:"))
        if not immutable and time.monotonic() - answer.checked > self.settings.cache_fresh_seconds:
            return None
        self._count("memory")
        return Found(answer, "memory")

    def submit(self, request: Request) -> Future[Found]:
        """The answer to come: that of an equal request in flight, or a new one. Ends in a ContentError if it fails."""
        with self._lock:
            flight = self._flights.get(request)
            if flight is not None:
                self.shared += 1
                return flight
            flight = self._requests.submit(self._answer, request)
            self._flights[request] = flight
        flight.add_done_callback(lambda _: self._landed(request))
        return flight

    def _landed(self, request: Request) -> None:
        with self._lock:
            del self._flights[request]

    def _count(self, layer: CacheLayer | None) -> None:
        with self._lock:
            if layer is None:
                self.misses += 1
            else:
                self.hits[layer] += 1

    def _answer(self, request: Request) -> Found:
        try:
            found = self._found(request)
        except BaseException:
            with self._lock:
                self.failed += 1
            raise
        self._count(found.layer)
        return found

    def _found(self, request: Request) -> Found:
        remembered = self.cache.get(_key(request)) if request.use_cache else None
        if remembered is not None and self._holds(request, remembered):
            answer = replace(remembered, checked=time.monotonic())
            self.cache.touch(_key(request), answer)
            return Found(answer, "memory")
        source, took = self._source(request, remembered)
        if remembered is not None and remembered.text == fingerprint_text(source.plugin.name, source.key):
            answer = replace(remembered, validator=source.validator, checked=time.monotonic())
            self.cache.put(_key(request), answer)
            return Found(answer, "memory")
        data = self._from_memo(source) if request.use_cache else None
        layer: CacheLayer | None = None if data is None else "memo"
        if data is None:
            data = self._computed(request, source, self.limits.timeout_seconds - took)
        entry = Entry(
            Content(default_content_id(request.uri), request.uri, source.plugin.name),
            source.key,
            source.digest,
            source.size,
            source.media_type,
        )
        record = Fingerprint(
            entry.content,
            entry.digest,
            entry.size,
            entry.media_type,
            store_key(entry),
            codec.value_to_sketch(codec.decode(data)),
        )
        text = fingerprint_text(source.plugin.name, source.key)
        answer = Answer(record, text, source.validator, time.monotonic())
        self.cache.put(_key(request), answer)
        return Found(answer, layer)

    def _holds(self, request: Request, answer: Answer) -> bool:
        """Whether the content still is the one of that answer, as far as that is told without reading it."""
        if request.path is not None:
            return True
        validator = self.fetcher.validator(request.uri)
        return bool(validator) and validator == answer.validator

    # ------------------------------------------------------------------ from the uri to the bytes

    def _source(self, request: Request, remembered: Answer | None) -> tuple[_Source, float]:
        """What the bytes are now, and the seconds it took to fetch them, which is done only where they may be new."""
        try:
            if request.path is not None:
                return self._uploaded(request, request.path), 0.0
            if remembered is not None:
                record = remembered.record
                plugin = content_type(record.content.content_type)
                known: _Source | None = _Source(
                    plugin, record.digest, record.size, record.media_type, remembered.validator
                )
            else:
                known = self._known(request) if request.use_cache else None
            started = time.monotonic()
            fetched = self.fetcher.fetch_if_changed(request.uri, known.validator if known else "")
            took = time.monotonic() - started
            if fetched is None:
                assert known is not None
                return known, took
            return self._recognised(request, fetched), took
        except ContentError as error:
            error.stage = error.stage or "download"
            raise

    def _known(self, request: Request) -> _Source | None:
        """What the memo knows that was there before."""
        plugins = [content_type(request.content_type)] if request.content_type else _likely(request.uri)
        keys = {memo_key("download", plugin, request.uri): plugin for plugin in plugins}
        for key, data in self.memo.get(list(keys)).items():
            facts = codec.decode(data).info
            return _Source(keys[key], facts["digest"], facts["size"], facts["media_type"], facts["validator"])
        return None

    def _recognised(self, request: Request, fetched: Fetched) -> _Source:
        source = _sniffed(request.content_type, fetched, request.uri)
        facts = {"digest": source.digest, "size": source.size, "media_type": source.media_type}
        value = Value({}, {**facts, "validator": source.validator})
        self.memo.put("download", memo_key("download", source.plugin, request.uri), codec.encode(value))
        return source

    def _uploaded(self, request: Request, path: Path) -> _Source:
        with path.open("rb") as file:
            head = file.read(4096)
        fetched = Fetched(path, request.digest, path.stat().st_size, head, request.digest)
        return _sniffed(request.content_type, fetched, request.uri)

    # ------------------------------------------------------------------ from the bytes to the sketch

    def _from_memo(self, source: _Source) -> bytes | None:
        """The sketch's value. Raises ContentError where it is known that these bytes have none."""
        refusal = refusal_key(source.key)
        refusals = [refusal_key(value_key(stage, source.plugin, source.digest)) for stage in ("decode", "embed")]
        found = self.memo.get([source.key, refusal, *refusals])
        if source.key in found:
            return found[source.key]
        for stage, key in zip(("hash", "decode", "embed"), (refusal, *refusals), strict=True):
            if key in found:
                raise _at(stage, ContentError(found[key].decode()))
        return None

    def _computed(self, request: Request, source: _Source, seconds: float) -> bytes:
        """The sketch's value, made now, once for all requests in flight that need it."""
        with self._lock:
            future = self._computing.get(source.key)
            mine = future is None
            if future is None:
                future = self._computing[source.key] = Future()
        if not mine:
            return future.result()
        try:
            data = self._compute(request, source, seconds)
            self.memo.put("hash", source.key, data)
        except BaseException as error:
            if isinstance(error, ContentError) and not error.retryable and error.stage:
                key = value_key(error.stage, source.plugin, source.digest)
                self.memo.put(error.stage, refusal_key(key), error.reason.encode())
            future.set_exception(error)
            raise
        else:
            future.set_result(data)
            return data
        finally:
            with self._lock:
                del self._computing[source.key]

    def _compute(self, request: Request, source: _Source, seconds: float) -> bytes:
        """Decode, embed and hash. The time limit counts what processes work, which are ended there, and no waiting."""
        plugin = source.plugin
        path = request.path
        if path is None and not request.uri.startswith("file:"):
            # The process that decodes has no network; a download that was evicted is made again here.
            with _stage("decode"):
                path = self.fetcher.open(request.uri, source.digest)
        if not plugin.has_model:
            with _stage("decode"):
                return self.workers.do(Task("all", plugin.name, request.uri, source.digest, path), seconds)[0]
        with _stage("decode"):
            task = Task("decode", plugin.name, request.uri, source.digest, path)
            data, took = self.workers.do(task, seconds)
        with self.workers.held(len(data)):
            with _stage("embed"):
                embedded = self._model_threads.embed(plugin, codec.decode(data))
            with _stage("hash"):
                task = Task("hash", plugin.name, decoded=data, embedded=codec.encode(embedded))
                return self.workers.do(task, seconds - took)[0]


@dataclass(frozen=True)
class _Source:
    """What the bytes behind a request are. validator: by what their source knows them again."""

    plugin: ContentTypePlugin
    digest: str
    size: int
    media_type: str
    validator: str

    @property
    def key(self) -> str:
        """The memo key of the sketch."""
        return value_key("hash", self.plugin, self.digest)


def _key(request: Request) -> tuple[str, str | None, str]:
    return request.uri, request.content_type, request.digest


def _likely(uri: str) -> list[ContentTypePlugin]:
    """The content types that the name says it may be of."""
    return claiming(Path(uri.partition("?")[0]).suffix) or list(content_types().values())


def _sniffed(wanted: str | None, fetched: Fetched, uri: str) -> _Source:
    """The source, of the content type that is wanted, or else of the one that its bytes, and then its name, tell."""
    if wanted:
        plugin = content_type(wanted)
        media_type = recognise(plugin, fetched.head)
    else:
        plugin, media_type = _type_of(fetched.head, uri)
    return _Source(plugin, fetched.digest, fetched.size, media_type, fetched.validator)


def _type_of(head: bytes, uri: str) -> tuple[ContentTypePlugin, str]:
    """The content type and the media type. Raises ContentError where nothing takes the bytes.

    Several may take them: sound is what audio and video have in common. The name decides, then the media type.
    """
    if not head:
        raise ContentError("the file is empty")
    sniffed = [(plugin, plugin.sniff(head)) for plugin in content_types().values()]
    taking = [(plugin, media_type) for plugin, media_type in sniffed if media_type is not None]
    if not taking:
        raise ContentError("unsupported format: no content type recognises the bytes")
    claims = claiming(Path(uri.partition("?")[0]).suffix)
    named = [each for each in taking if each[0] in claims]
    proper = [each for each in taking if each[1].startswith(f"{each[0].name}/")]
    return (named or proper or taking)[0]


@contextmanager
def _stage(name: str) -> Iterator[None]:
    """A ContentError raised in the block is one of that stage."""
    try:
        yield
    except ContentError as error:
        raise _at(name, error) from error.__cause__


def _at(stage: str, error: ContentError) -> ContentError:
    error.stage = error.stage or stage
    return error
