"""Worker processes for many threads: what reads a stranger's bytes can be ended, and two cores do twice the work."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fingerprint_dagster import codec
from fingerprint_dagster.content import Value
from fingerprint_dagster.errors import ContentError, FingerprintError
from fingerprint_dagster.media.plugin import ContentTypePlugin
from fingerprint_dagster.media.registry import content_type
from fingerprint_dagster.settings import Settings, get_settings
from fingerprint_dagster.sources import Fetcher
from fingerprint_dagster.workers import WorkerError, WorkerPool

_LEAST_SECONDS = 0.001


@dataclass(frozen=True)
class Task:
    """What a worker process is told.

    step: "decode" (the answer is the decoded value), "hash" (of `decoded` and `embedded`; the answer is the sketch's
        value), or "all" of them for a content type without a model. Values are bytes of `codec.encode`.
    path: the file to read, where it is not to be found by `uri` and `digest`.
    """

    step: Literal["decode", "hash", "all"]
    plugin: str
    uri: str = ""
    digest: str = ""
    path: Path | None = None
    decoded: bytes = b""
    embedded: bytes = b""


def service_worker(fetcher: Fetcher, settings: Settings, samples: Mapping[str, Path]) -> Callable[[Task], bytes]:
    """The work of a process: see `Task`. Its plugins see the settings of the process that started it.

    samples: content type -> a file, decoded at once, so that all is imported before the first task's time runs.
    """
    current = get_settings()
    for name in settings.model_fields_set:
        setattr(current, name, getattr(settings, name))

    def do(task: Task) -> bytes:
        plugin = content_type(task.plugin)
        if task.step == "hash":
            return _sketch(plugin, codec.decode(task.decoded), codec.decode(task.embedded))
        decoded = plugin.decode(task.path or fetcher.open(task.uri, task.digest))
        if task.step == "decode":
            return codec.encode(decoded)
        with _stage("embed"):
            # Only a plugin that needs no model comes here: its `embed` does not look at the runtime.
            (embedded,) = plugin.embed([decoded], None)  # type: ignore[arg-type]
            codec.encode(embedded)  # What could not be kept in a memo is refused, as in a run.
        return _sketch(plugin, decoded, embedded)

    for name, path in samples.items():
        step: Literal["decode", "all"] = "decode" if content_type(name).has_model else "all"
        with contextlib.suppress(ContentError):  # A task of that type fails as well, and says why.
            do(Task(step, name, path=path))
    return do


def _sketch(plugin: ContentTypePlugin, decoded: Value, embedded: Value) -> bytes:
    with _stage("hash"):
        return codec.encode(codec.sketch_to_value(plugin.hash(decoded, embedded)))


@contextmanager
def _stage(name: str) -> Iterator[None]:
    """Whatever goes wrong in the block is the content's failure in that stage."""
    try:
        yield
    except ContentError as error:
        error.stage = name
        raise
    except MemoryError:
        raise
    except Exception as error:
        failure = ContentError(f"{type(error).__name__}: {error}")
        failure.stage = name
        raise failure from error


class Workers:
    """`count` worker processes, each driven by a thread of its own. May be used by many threads at once.

    make_pool: makes the pool of one process. max_held_bytes: no decoding begins while the values that were decoded and
    not yet let go (see `held`) are larger than that.
    """

    def __init__(
        self,
        count: int,
        make_pool: Callable[[], WorkerPool[Task, bytes]],
        max_held_bytes: int,
    ) -> None:
        self._make_pool = make_pool
        self._warm: list[Future[None]] = [Future() for _ in range(count)]
        self._max_held_bytes = max_held_bytes
        self._held_bytes = 0
        self._decoding: deque[tuple[Task, float, Future[tuple[bytes, float]]]] = deque()
        self._hashing: deque[tuple[Task, float, Future[tuple[bytes, float]]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.decoding = 0  # waiting or at work; what the model thread may wait for
        self._threads = [
            threading.Thread(target=self._drive, args=(warm,), name="fingerprint-worker", daemon=True)
            for warm in self._warm
        ]
        for thread in self._threads:
            thread.start()

    def warm(self) -> None:
        """Wait until every process has started. Raises `WorkerError` where one cannot."""
        for warm in self._warm:
            warm.result()

    def do(self, task: Task, seconds: float) -> tuple[bytes, float]:
        """The answer to a task, and how many seconds the process took. Blocks.

        Raises what the process raised, and a `ContentError` after `seconds`, of which waiting for a free process is no
        part; the process is ended then.
        """
        future: Future[tuple[bytes, float]] = Future()
        with self._changed:
            if self._closed:
                raise FingerprintError("the service is closed")
            if task.step == "hash":
                self._hashing.append((task, seconds, future))
            else:
                self._decoding.append((task, seconds, future))
                self.decoding += 1
            self._changed.notify_all()
        return future.result()

    @contextmanager
    def held(self, size: int) -> Iterator[None]:
        """Count so many bytes of a decoded value as held for the time of the block."""
        with self._changed:
            self._held_bytes += size
        try:
            yield
        finally:
            with self._changed:
                self._held_bytes -= size
                self._changed.notify_all()

    def close(self) -> None:
        """End every process; tasks that wait fail."""
        with self._changed:
            self._closed = True
            waiting = [*self._decoding, *self._hashing]
            self._decoding.clear()
            self._hashing.clear()
            self._changed.notify_all()
        for _, _, future in waiting:
            future.set_exception(FingerprintError("the service was closed"))
        for thread in self._threads:
            thread.join()

    def _next(self) -> tuple[Task, float, Future[tuple[bytes, float]]] | None:
        """The next task, those first that let memory go; None when all is over."""
        with self._changed:
            while True:
                if self._hashing:
                    return self._hashing.popleft()
                if self._decoding and self._held_bytes <= self._max_held_bytes:
                    return self._decoding.popleft()
                if self._closed:
                    return None
                self._changed.wait()

    def _drive(self, warm: Future[None]) -> None:
        with self._make_pool() as pool:
            try:
                pool.wait_ready()
            except BaseException as error:
                warm.set_exception(error)
            else:
                warm.set_result(None)
            while (taken := self._next()) is not None:
                task, seconds, future = taken
                started = time.monotonic()
                try:
                    answer = pool.do(task, max(seconds, _LEAST_SECONDS))
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result((answer, time.monotonic() - started))
                finally:
                    if task.step != "hash":
                        with self._changed:
                            self.decoding -= 1
                if future.exception() is not None:
                    with contextlib.suppress(WorkerError):  # The next task tries again, and says it.
                        pool.wait_ready()
