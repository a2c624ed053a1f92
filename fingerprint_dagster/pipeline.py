"""The way of one content: download, decode, embed, hash, store. Memoised stages over batches of contents."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fingerprint_dagster import codec
from fingerprint_dagster.content import Content, Failure, Fingerprint, Sketch, Value
from fingerprint_dagster.errors import ContentError, FingerprintError
from fingerprint_dagster.media.plugin import ContentTypePlugin
from fingerprint_dagster.media.registry import content_type, content_types
from fingerprint_dagster.memo import Memo, open_memo
from fingerprint_dagster.share import Share
from fingerprint_dagster.sources import Fetcher
from fingerprint_dagster.stages import STORE_VERSION, Entry, StageResult, memo_key, value_key
from fingerprint_dagster.workers import OutOfMemory, WorkerPool

if TYPE_CHECKING:
    from fingerprint_dagster.index.store import Store
    from fingerprint_dagster.models import ModelRuntime
    from fingerprint_dagster.settings import Settings

# How much is held in memory at once: values of one chunk of a stage, whatever the size of the batch.
CHUNK_CONTENTS = 64
CHUNK_BYTES = 64 << 20
# What is read of the memo at once: so many values, or as many as this many bytes hold.
READ_CONTENTS = 8
READ_BYTES = 8 << 20
# Fewer contents are hashed sooner in this process than in others that must be started first.
HASH_HERE = 16
LEAST_DECODE_BYTES = 1 << 30
DOWNLOAD_THREADS = 16

Outcome = Value | ContentError
Progress = Callable[[int], None]
Item = TypeVar("Item")


def no_progress(done: int) -> None:
    """For callers that do not watch."""


@dataclass(frozen=True)
class DecodeTask:
    """What a worker process is told of one content. `send_back`: return the value's bytes, not just keep them."""

    plugin: str
    uri: str
    digest: str
    key: str
    send_back: bool


@dataclass(frozen=True)
class HashTask:
    """Contents to hash, each with its digest and the memo keys of its arrays, its vectors and its sketch."""

    plugin: str
    contents: tuple[tuple[str, tuple[str, str, str]], ...]


Made = bytes | ContentError | None
"""An encoded value, or why there is none; None: it is in the memo, or what it is made from no longer is."""


@dataclass(frozen=True)
class Limits:
    """What one content may cost, and what its decoder may do.

    decode_memory_bytes: what the decoder of one content may take. The decoders that work side by side get an equal
        part of three quarters of the machine's memory each, where that is less; a content that needs more is decoded
        again, alone.
    sandbox: confine decoding processes (see `sandbox`). decoder_folders: where they may write all the same.
    """

    timeout_seconds: float = 60.0
    decode_memory_bytes: int = 8 << 30
    sandbox: bool = True
    decoder_folders: tuple[Path, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """The limits that the settings name."""
        return cls(settings.timeout_seconds, settings.decode_memory_bytes, settings.sandbox, settings.decoder_folders)

    def memory_of_each(self, workers: int) -> int:
        """Bytes that one of so many decoders may take while the others do the same."""
        try:
            machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, ValueError, OSError):
            return self.decode_memory_bytes  # Not POSIX, where there are no limits either.
        return min(self.decode_memory_bytes, max(LEAST_DECODE_BYTES, machine * 3 // 4 // workers))


def fetcher_of(settings: Settings) -> Fetcher:
    """The fetcher that the settings describe."""
    return Fetcher(
        settings.home / "blobs",
        timeout_seconds=settings.timeout_seconds,
        max_bytes=settings.max_content_bytes,
        guard=settings.guard,
        ipfs_gateways=settings.ipfs_gateway,
        downloads_per_host=Share(settings.home / "shares" / "downloads", settings.downloads_per_host),
        requests_per_second=settings.requests_per_second,
        proxy=settings.proxy,
    )


def memo_of(settings: Settings) -> Memo:
    """The memo that the settings describe."""
    return open_memo(settings.memo_uri, max_bytes=settings.memo_max_bytes, ttl_seconds=settings.memo_ttl_seconds)


def cores_of(settings: Settings) -> Share:
    """The cores that all runs of a home on this machine share."""
    from fingerprint_dagster.settings import available_cores

    return Share(settings.home / "shares" / "cores", available_cores())


def stage_worker(fetcher: Fetcher, memo: Memo | None) -> Callable[[DecodeTask | HashTask], list[Made]]:
    """The work of a worker process; see `WorkerPool`. It answers with what it made of each content of a task.

    Large arrays go into the memo, not through the pipe, unless the memo is one that this process cannot see (None).
    """

    def decode(task: DecodeTask) -> bytes | None:
        data = codec.encode(content_type(task.plugin).decode(fetcher.open(task.uri, task.digest)))
        if memo is None:
            return data
        memo.put_many("decode", [(task.key, data)])
        return data if task.send_back else None

    def hash_(task: HashTask) -> list[Made]:
        assert memo is not None
        plugin = content_type(task.plugin)
        found = memo.get_many([key for _, keys in task.contents for key in keys[:2]])
        return [sketch(plugin, found.get(keys[0]), found.get(keys[1])) for _, keys in task.contents]

    def sketch(plugin: ContentTypePlugin, decoded: bytes | None, embedded: bytes | None) -> Made:
        if decoded is None or embedded is None:
            return None
        try:
            return codec.encode(codec.sketch_to_value(plugin.hash(codec.decode(decoded), codec.decode(embedded))))
        except ContentError as error:
            return error
        except MemoryError:
            raise
        except Exception as error:
            return ContentError(f"{type(error).__name__}: {error}")

    return lambda task: [decode(task)] if isinstance(task, DecodeTask) else hash_(task)


class Pipeline:
    """Runs stages over contents through the memo. The one engine behind the Dagster assets, the CLI and queries.

    Not for several threads at once. Close it (or use it as a context manager) to end its worker processes.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        memo: Memo,
        models: ModelRuntime,
        *,
        workers: int,
        limits: Limits,
        retry: bool = False,
        cores: Share | None = None,
    ) -> None:
        """workers: processes that decode and hash. retry: try again what failed for good before (`quarantine --retry`).

        cores: shared with other runs, so that all of them together have no more such processes at work than cores.
        """
        self.fetcher = fetcher
        self.memo = memo
        self.models = models
        self.workers = workers
        self.limits = limits
        self.retry = retry
        self.cores = cores
        self._pool: WorkerPool[DecodeTask | HashTask, list[Made]] | None = None

    @classmethod
    def from_settings(cls, settings: Settings, models: ModelRuntime | None = None) -> Pipeline:
        """A pipeline with the memo, the fetcher and the device that the settings name."""
        from fingerprint_dagster.models import ModelRuntime

        return cls(
            fetcher_of(settings),
            memo_of(settings),
            models or ModelRuntime.of(settings),
            workers=settings.worker_count,
            limits=Limits.of(settings),
            cores=cores_of(settings),
        )

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the worker processes. The pipeline can be used again; they start anew."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    # ------------------------------------------------------------------ the stages, over one batch

    def download(self, contents: Sequence[Content], progress: Progress = no_progress) -> StageResult:
        """Fetch every content, and check that its bytes are what its content type says.

        The memo remembers for each uri what was there, and by which validator its source knows it again. So unchanged
        content is neither fetched nor hashed again; of a web server it is asked for with a conditional request.
        Failures are never remembered: the file or the server may be back.
        """
        started = time.monotonic()
        entries: list[Entry] = []
        computed = 0
        with self.fetcher.sharing_hosts(), ThreadPoolExecutor(DOWNLOAD_THREADS) as threads:
            for chunk in _chunks(contents, CHUNK_CONTENTS * 4):
                keys = [memo_key("download", content_type(each.content_type), each.uri) for each in chunk]
                known = {key: codec.decode(data) for key, data in self.memo.get_many(keys).items()}
                before = [known.get(key) for key in keys]
                fresh = []
                for content, key, old, outcome in zip(
                    chunk, keys, before, self._downloaded(chunk, before, threads), strict=True
                ):
                    if isinstance(outcome, ContentError):
                        entries.append(_failed(Entry(content), "download", outcome))
                        continue
                    if outcome is not old and (old is None or outcome.info != old.info):
                        fresh.append((key, codec.encode(outcome)))
                    digest = outcome.info["digest"]
                    key = memo_key("download", content_type(content.content_type), digest)
                    entries.append(Entry(content, key, digest, outcome.info["size"], outcome.info["media_type"]))
                self.memo.put_many("download", fresh)
                computed += len(fresh)
                progress(len(entries))
        passed = sum(entry.failure is None for entry in entries)
        return StageResult("download", tuple(entries), computed, passed - computed, time.monotonic() - started)

    def run(self, stage: str, entries: Sequence[Entry], progress: Progress = no_progress) -> StageResult:
        """Run decode, embed or hash over the entries of the stage before. All are of one content type.

        Equal bytes are worked on once. A failure that no retry can help is remembered like a value.
        """
        started = time.monotonic()
        pending = {entry.digest: entry for entry in reversed(entries) if entry.failure is None}
        total = sum(entry.failure is None for entry in entries)
        keys: dict[str, str] = {}
        errors: dict[str, ContentError] = {}
        if pending:
            plugin = _plugin(entries)
            keys = {digest: value_key(stage, plugin, digest) for digest in pending}
            found = self.memo.contains(list(keys.values()))
            refusals = {digest: refusal_key(key) for digest, key in keys.items() if key not in found}
            if self.retry:
                self.memo.delete(list(refusals.values()))
            refused = self.memo.get_many(list(refusals.values()))
            for digest, key in refusals.items():
                if key in refused:
                    errors[digest] = ContentError(refused[key].decode())
            pending = {digest: pending[digest] for digest in refusals if digest not in errors}
            done = len(entries) - len(pending)
            for digest, outcome in self._make(stage, plugin, list(pending.values())):
                done += 1
                progress(done)
                if isinstance(outcome, ContentError):
                    errors[digest] = outcome
        progress(len(entries))
        results = []
        for entry in entries:
            if entry.failure is not None:
                results.append(entry)
            elif entry.digest in errors:
                results.append(_failed(entry, stage, errors[entry.digest]))
            else:
                results.append(replace(entry, key=keys[entry.digest]))
        return StageResult(stage, tuple(results), len(pending), total - len(pending), time.monotonic() - started)

    def store(self, store: Store, entries: Sequence[Entry], progress: Progress = no_progress) -> StageResult:
        """Put the fingerprints of the hash stage into the store; those that are there already are left alone."""
        started = time.monotonic()
        stored = store.keys([entry.content.content_id for entry in entries if entry.failure is None])
        results: list[Entry] = []
        computed = 0
        for chunk in _chunks(entries, CHUNK_CONTENTS * 4):
            keyed = [entry if entry.failure else replace(entry, key=store_key(entry)) for entry in chunk]
            todo = [
                (before, after)
                for before, after in zip(chunk, keyed, strict=True)
                if after.failure is None and stored.get(after.content.content_id) != after.key
            ]
            if todo:
                sketches = self._values("hash", _plugin(chunk), [before for before, _ in todo])
                fingerprints = []
                for _, after in todo:
                    sketch = sketches[after.digest]
                    if isinstance(sketch, ContentError):
                        keyed[keyed.index(after)] = _failed(after, "hash", sketch)
                    else:
                        fingerprints.append(_fingerprint(after, codec.value_to_sketch(sketch)))
                store.put(fingerprints)
                computed += len(fingerprints)
            results.extend(keyed)
            progress(len(results))
        passed = sum(entry.failure is None for entry in results)
        return StageResult("store", tuple(results), computed, passed - computed, time.monotonic() - started)

    # ------------------------------------------------------------------ values

    def sketches(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, Sketch | ContentError]]:
        """The sketches of entries that passed the hash stage, in order, computed again where they were evicted."""
        for chunk in _chunks(entries, CHUNK_CONTENTS):
            values = self._values("hash", _plugin(chunk), chunk)
            for entry in chunk:
                value = values[entry.digest]
                yield entry, value if isinstance(value, ContentError) else codec.value_to_sketch(value)

    def decoded(self, entries: Sequence[Entry]) -> list[Value]:
        """The decoded arrays of a few entries, as far as the memo still has them."""
        keys = [value_key("decode", _plugin(entries), entry.digest) for entry in entries]
        found = self.memo.get_many(keys)
        return [codec.decode(found[key]) for key in keys if key in found]

    def fingerprints(self, contents: Sequence[Content]) -> list[Fingerprint | Failure]:
        """Fingerprint contents of any types from download to hash, in order, without storing them."""
        results: dict[str, Fingerprint | Failure] = {}
        by_type: dict[str, list[Content]] = {}
        for content in contents:
            by_type.setdefault(content.content_type, []).append(content)
        for group in by_type.values():
            result = self.download(group)
            for stage in ("decode", "embed", "hash"):
                result = self.run(stage, result.entries)
            for failure in result.failures:
                results[failure.content_id] = failure
            for entry, sketch in self.sketches(result.passed):
                content_id = entry.content.content_id
                if isinstance(sketch, ContentError):
                    results[content_id] = Failure.of(entry.content, "hash", sketch)
                else:
                    results[content_id] = _fingerprint(replace(entry, key=store_key(entry)), sketch)
        return [results[content.content_id] for content in contents]

    def _values(self, stage: str, plugin: ContentTypePlugin, entries: Sequence[Entry]) -> dict[str, Outcome]:
        """Digest -> value, from the memo, or made again from upstream where the memo no longer has it."""
        keys = {entry.digest: value_key(stage, plugin, entry.digest) for entry in entries}
        found = self.memo.get_many(list(keys.values()))
        values: dict[str, Outcome] = {digest: codec.decode(found[key]) for digest, key in keys.items() if key in found}
        missing = {entry.digest: entry for entry in entries if entry.digest not in values}
        for digest, outcome in self._make(stage, plugin, list(missing.values()), send_back=True):
            assert outcome is not None
            values[digest] = outcome
        return values

    def _make(
        self, stage: str, plugin: ContentTypePlugin, entries: Sequence[Entry], *, send_back: bool = False
    ) -> Iterator[tuple[str, Outcome | None]]:
        """Compute the stage's value for entries of distinct digests, put it into the memo, and yield it by digest.

        With send_back False the decode stage yields None for a success: its arrays stay in the memo.
        """
        make = {"decode": self._decode, "embed": self._embed, "hash": self._hash}[stage]
        for digest, outcome in make(plugin, entries, send_back):
            if isinstance(outcome, ContentError):
                outcome.stage = outcome.stage or stage
                if not outcome.retryable and outcome.stage == stage:
                    key = value_key(stage, plugin, digest)
                    self.memo.put_many(stage, [(refusal_key(key), outcome.reason.encode())])
            yield digest, outcome

    def _decode(
        self, plugin: ContentTypePlugin, entries: Sequence[Entry], send_back: bool
    ) -> Iterator[tuple[str, Outcome | None]]:
        if not entries:
            return
        gone: list[tuple[str, ContentError]] = []
        large: list[DecodeTask | HashTask] = []
        memory = self.limits.memory_of_each(self.workers)

        def answers() -> Iterator[tuple[str, str, Made]]:
            for task, answer in self._map(self._decode_tasks(plugin, entries, send_back, gone)):
                assert isinstance(task, DecodeTask)
                if isinstance(answer, OutOfMemory) and memory < self.limits.decode_memory_bytes:
                    large.append(task)
                else:
                    yield task.digest, task.key, answer if isinstance(answer, ContentError) else answer[0]
            if large:
                with self._new_pool(1, self.limits.decode_memory_bytes) as alone:
                    for task, answer in alone.map(large):
                        assert isinstance(task, DecodeTask)
                        yield task.digest, task.key, answer if isinstance(answer, ContentError) else answer[0]

        yield from self._kept("decode", answers(), put=not self.memo.shared, send_back=send_back)
        yield from gone

    def _map(
        self, tasks: Iterable[DecodeTask | HashTask]
    ) -> Iterator[tuple[DecodeTask | HashTask, list[Made] | ContentError]]:
        """The tasks' answers from the worker processes, which are started where there are none yet."""
        with self.cores.joined() if self.cores is not None else contextlib.nullcontext():
            yield from self._the_pool().map(tasks)

    def start(self) -> None:
        """Start all worker processes now. While this process has one thread they are forked from it in no time."""
        self._the_pool().start()

    def _the_pool(self) -> WorkerPool[DecodeTask | HashTask, list[Made]]:
        if self._pool is None:
            self._pool = self._new_pool(self.workers, self.limits.memory_of_each(self.workers), self.cores)
        return self._pool

    def _new_pool(
        self, workers: int, memory_bytes: int, at_once: Callable[[], int] | None = None
    ) -> WorkerPool[DecodeTask | HashTask, list[Made]]:
        return WorkerPool(
            stage_worker,
            (self.fetcher, self.memo if self.memo.shared else None),
            count=workers,
            timeout_seconds=self.limits.timeout_seconds,
            memory_bytes=memory_bytes,
            sandbox=self.limits.sandbox,
            writable=(*self.memo.folders, *self.limits.decoder_folders),
            at_once=at_once,
        )

    def _kept(
        self, stage: str, answers: Iterable[tuple[str, str, Made]], *, put: bool, send_back: bool
    ) -> Iterator[tuple[str, Outcome | None]]:
        """Digest and outcome of each (digest, key, answer). put: the bytes go into the memo first, many at once."""
        waiting: list[tuple[str, str, bytes]] = []
        size = 0

        def keep() -> Iterator[tuple[str, Outcome | None]]:
            self.memo.put_many(stage, [(key, data) for _, key, data in waiting])
            for digest, _, data in waiting:
                yield digest, codec.decode(data) if send_back else None
            waiting.clear()

        for digest, key, answer in answers:
            if isinstance(answer, bytes) and put:
                waiting.append((digest, key, answer))
                size += len(answer)
                if len(waiting) >= CHUNK_CONTENTS or size >= CHUNK_BYTES:
                    yield from keep()
                    size = 0
            else:
                yield digest, codec.decode(answer) if isinstance(answer, bytes) else answer
        if waiting:
            yield from keep()

    def _decode_tasks(
        self,
        plugin: ContentTypePlugin,
        entries: Sequence[Entry],
        send_back: bool,
        gone: list[tuple[str, ContentError]],
    ) -> Iterator[DecodeTask]:
        """A task for each entry whose bytes are on this machine; of the others, digest and error go to `gone`.

        A download that was evicted is made again here: the process that decodes has no network.
        """
        for entry in entries:
            try:
                if not entry.content.uri.startswith("file:"):
                    self.fetcher.open(entry.content.uri, entry.digest)
            except ContentError as error:
                gone.append((entry.digest, error))
                continue
            key = value_key("decode", plugin, entry.digest)
            yield DecodeTask(plugin.name, entry.content.uri, entry.digest, key, send_back)

    def _embed(
        self, plugin: ContentTypePlugin, entries: Sequence[Entry], _: bool
    ) -> Iterator[tuple[str, Outcome | None]]:
        for values in self._chunks_of_values(plugin, entries, ("decode",)):
            good = {digest: decoded for digest, (decoded,) in values.items() if isinstance(decoded, Value)}
            outcomes = each_outcome(lambda batch: plugin.embed(batch, self.models), list(good.values()))
            yield from self._keep("embed", plugin, values, dict(zip(good, outcomes, strict=True)))

    def _hash(
        self, plugin: ContentTypePlugin, entries: Sequence[Entry], send_back: bool
    ) -> Iterator[tuple[str, Outcome | None]]:
        """In the worker processes; here where they cannot see the memo, or it has no longer what they would read."""
        if not self.memo.shared or len(entries) < HASH_HERE:
            yield from self._hash_here(plugin, entries)
            return
        by_digest = {entry.digest: entry for entry in entries}
        evicted: list[Entry] = []

        def answers(tasks: Iterable[HashTask]) -> Iterator[tuple[str, str, Made]]:
            lost: list[HashTask] = []
            for task, answer in self._map(tasks):
                assert isinstance(task, HashTask)
                if isinstance(answer, ContentError) and len(task.contents) > 1:
                    lost += [HashTask(task.plugin, (content,)) for content in task.contents]
                    continue
                each = [answer] if isinstance(answer, ContentError) else answer
                for (digest, keys), made in zip(task.contents, each, strict=True):
                    if made is None:
                        evicted.append(by_digest[digest])
                    else:
                        yield digest, keys[-1], made
            if lost:  # One of them crashed, or all took too long.
                yield from answers(lost)

        yield from self._kept("hash", answers(_hash_tasks(plugin, entries)), put=True, send_back=send_back)
        yield from self._hash_here(plugin, evicted)

    def _hash_here(self, plugin: ContentTypePlugin, entries: Sequence[Entry]) -> Iterator[tuple[str, Outcome | None]]:
        def sketches(pairs: Sequence[tuple[Value, Value]]) -> list[Value]:
            return [codec.sketch_to_value(plugin.hash(decoded, embedded)) for decoded, embedded in pairs]

        for values in self._chunks_of_values(plugin, entries, ("decode", "embed")):
            good = {
                digest: (decoded, embedded)
                for digest, (decoded, embedded) in values.items()
                if isinstance(decoded, Value) and isinstance(embedded, Value)
            }
            yield from self._keep(
                "hash", plugin, values, dict(zip(good, each_outcome(sketches, list(good.values())), strict=True))
            )

    def _keep(
        self,
        stage: str,
        plugin: ContentTypePlugin,
        values: Mapping[str, tuple[Outcome, ...]],
        outcomes: Mapping[str, Outcome],
    ) -> Iterator[tuple[str, Outcome]]:
        """Put what was made into the memo, and yield it; for the others, the error that was met upstream."""
        results: dict[str, Outcome] = {}
        items = []
        for digest, upstream in values.items():
            outcome = outcomes.get(digest) or next(each for each in upstream if isinstance(each, ContentError))
            if isinstance(outcome, Value):
                try:
                    items.append((value_key(stage, plugin, digest), codec.encode(outcome)))
                except Exception as error:  # Arrays or info that cannot be written down.
                    outcome = ContentError(f"{type(error).__name__}: {error}")
            results[digest] = outcome
        self.memo.put_many(stage, items)
        yield from results.items()

    def _chunks_of_values(
        self, plugin: ContentTypePlugin, entries: Sequence[Entry], stages: tuple[str, ...]
    ) -> Iterator[dict[str, tuple[Outcome, ...]]]:
        """Digest -> the values of `stages`, in chunks bounded in number and in bytes."""
        chunk: dict[str, tuple[Outcome, ...]] = {}
        size = start = 0
        step = READ_CONTENTS
        while start < len(entries):
            part = entries[start : start + step]
            start += len(part)
            columns = [self._values(stage, plugin, part) for stage in stages]
            read = 0
            for entry in part:
                row = tuple(column[entry.digest] for column in columns)
                chunk[entry.digest] = row
                read += sum(array.nbytes for each in row if isinstance(each, Value) for array in each.arrays.values())
            size += read
            step = min(CHUNK_CONTENTS, max(READ_CONTENTS, READ_BYTES * len(part) // max(1, read)))
            if len(chunk) >= CHUNK_CONTENTS or size >= CHUNK_BYTES:
                yield chunk
                chunk, size = {}, 0
        if chunk:
            yield chunk

    def _downloaded(
        self, contents: Sequence[Content], before: Sequence[Value | None], threads: ThreadPoolExecutor
    ) -> Iterator[Outcome]:
        """What `_download` gives for each. To look at a known file takes less time than to tell a thread to do it."""
        waiting = [
            old
            if old is not None
            and content.uri.startswith("file:")
            and self.fetcher.validator(content.uri) == old.info["validator"]
            else threads.submit(self._download, content, old)
            for content, old in zip(contents, before, strict=True)
        ]
        for each in waiting:
            yield each if isinstance(each, Value) else each.result()

    def _download(self, content: Content, before: Value | None) -> Outcome:
        try:
            fetched = self.fetcher.fetch_if_changed(content.uri, before.info["validator"] if before else "")
            if fetched is None:
                assert before is not None
                return before
            media_type = recognise(content_type(content.content_type), fetched.head)
        except ContentError as error:
            return error
        facts = {"digest": fetched.digest, "size": fetched.size, "media_type": media_type}
        return Value({}, {**facts, "validator": fetched.validator})


def recognise(plugin: ContentTypePlugin, head: bytes) -> str:
    """The media type of bytes that `plugin` takes; raises `ContentError` that says what they are instead."""
    if not head:
        raise ContentError("the file is empty")
    media_type = plugin.sniff(head)
    if media_type is not None:
        return media_type
    for other in content_types().values():
        media_type = other.sniff(head)
        if media_type is not None:
            raise ContentError(
                f"mislabelled: expected {plugin.name}, but the bytes are {media_type}; "
                f"rename it or register it with content_type={other.name}"
            )
    raise ContentError(f"unsupported format: the bytes are no {plugin.name} that can be decoded")


def _hash_tasks(plugin: ContentTypePlugin, entries: Sequence[Entry]) -> Iterator[HashTask]:
    """A few small contents a task; a large one has a task of its own."""
    task: list[tuple[str, tuple[str, str, str]]] = []
    size = 0
    for entry in entries:
        decode, embed, hash_ = (value_key(stage, plugin, entry.digest) for stage in ("decode", "embed", "hash"))
        if task and (len(task) >= READ_CONTENTS or size + entry.size > READ_BYTES):
            yield HashTask(plugin.name, tuple(task))
            task, size = [], 0
        task.append((entry.digest, (decode, embed, hash_)))
        size += entry.size
    if task:
        yield HashTask(plugin.name, tuple(task))


def _plugin(entries: Sequence[Entry]) -> ContentTypePlugin:
    return content_type(entries[0].content.content_type)


def _failed(entry: Entry, stage: str, error: ContentError) -> Entry:
    return replace(entry, key="", failure=Failure.of(entry.content, error.stage or stage, error))


def refusal_key(key: str) -> str:
    """The memo key of the reason why the value of `key` cannot be made."""
    return f"{key}!"


def store_key(entry: Entry) -> str:
    """The key of a stored fingerprint: the sketch's, and what the record says beside it."""
    parts = [STORE_VERSION, entry.key, entry.content.uri, dict(entry.content.metadata)]
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def _fingerprint(entry: Entry, sketch: Sketch) -> Fingerprint:
    return Fingerprint(entry.content, entry.digest, entry.size, entry.media_type, entry.key, sketch)


def _chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def each_outcome(make: Callable[[Sequence[Item]], list[Value]], items: Sequence[Item]) -> list[Outcome]:
    """`make(items)`; where it fails, halve until the items at fault stand alone, each with its own error."""
    if not items:
        return []
    try:
        made: list[Outcome] = [*make(items)]
        if len(made) != len(items):
            raise ValueError(f"{len(made)} values for {len(items)} contents")
        return made
    except ContentError as error:
        if len(items) == 1:
            return [error]
    except FingerprintError:
        raise  # A missing model or a wrong setting is no content's fault.
    except Exception as error:
        if len(items) == 1:
            return [ContentError(f"{type(error).__name__}: {error}")]
    middle = len(items) // 2
    return each_outcome(make, items[:middle]) + each_outcome(make, items[middle:])
