"""What runs the models: what comes in together from many requests goes through them together."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from fingerprint_dagster.content import Value
from fingerprint_dagster.errors import ContentError, FingerprintError
from fingerprint_dagster.media.plugin import ContentTypePlugin
from fingerprint_dagster.models import ModelRuntime
from fingerprint_dagster.pipeline import each_outcome

# So often it looks whether more is still coming.
_LOOK_SECONDS = 0.001

Item = tuple[ContentTypePlugin, Value, "Future[Value]"]


class ModelThreads:
    """Embeds decoded values in dynamic batches. May be used by many threads at once.

    A batch is what waits, up to `batch_size` contents; while `more_coming()`, it waits up to `wait_seconds` for others.
    batches: how many there were; contents: how many contents were in them.
    On a GPU one thread does it. On a CPU there is one for each of the runtime's, since much of the work around a model
    is done in one core.
    """

    def __init__(
        self,
        models: ModelRuntime,
        batch_size: int | None,
        wait_seconds: float,
        more_coming: Callable[[], bool],
    ) -> None:
        self.models = models
        self.batches = self.contents = 0
        self._batch_size = batch_size
        self._wait_seconds = wait_seconds
        self._more_coming = more_coming
        self._items: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._start()

    def embed(self, plugin: ContentTypePlugin, decoded: Value) -> Value:
        """The plugin's embed stage of one decoded value. Blocks. Raises what it raised, for this content alone."""
        future: Future[Value] = Future()
        self._items.put((plugin, decoded, future))
        return future.result()

    def close(self) -> None:
        """End the thread after what waits now."""
        self._items.put(None)
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="fingerprint-models", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _start_all(self) -> None:
        """The other threads, as soon as it is known where models run."""
        # Suppressed: the device is not there, and the plugin's own call says so.
        with self._lock, contextlib.suppress(FingerprintError):
            while len(self._threads) < self.models.threads:
                self._start()

    def _run(self) -> None:
        while batch := self._next_batch():
            if len(self._threads) == 1:
                self._start_all()
            by_plugin: dict[str, list[Item]] = {}
            for item in batch:
                by_plugin.setdefault(item[0].name, []).append(item)
            for items in by_plugin.values():
                self._embed(items)

    def _next_batch(self) -> list[Item]:
        """The items of one batch; none at the end."""
        first = self._items.get()
        if first is None:
            self._items.put(None)  # for the other threads
            return []
        batch = [first]
        until = time.monotonic() + self._wait_seconds
        size = self._size()
        while len(batch) < size:
            left = until - time.monotonic() if self._more_coming() else 0.0
            try:
                item = self._items.get(timeout=min(left, _LOOK_SECONDS)) if left > 0 else self._items.get_nowait()
            except queue.Empty:
                if left <= 0:
                    break
                continue
            if item is None:
                self._items.put(None)  # for the next call
                break
            batch.append(item)
        return batch

    def _size(self) -> int:
        try:
            return self._batch_size or self.models.batch_size
        except FingerprintError:
            return 1  # The device is not there: the plugin's own call says so.

    def _embed(self, items: list[Item]) -> None:
        plugin = items[0][0]
        futures = [future for _, _, future in items]
        try:
            outcomes = each_outcome(lambda values: plugin.embed(values, self.models), [value for _, value, _ in items])
        except BaseException as error:  # A missing model: no content's fault, and the answer to each of them.
            for future in futures:
                future.set_exception(error)
            return
        with self._lock:
            self.batches += 1
            self.contents += len(items)
        for future, outcome in zip(futures, outcomes, strict=True):
            if isinstance(outcome, ContentError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
