"""Processor time of calls and of the stages of a content, for the other benchmarks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fingerprint_dagster.content import Sketch, Value
from fingerprint_dagster.media.plugin import ContentTypePlugin
from fingerprint_dagster.models import ModelRuntime


def milliseconds(run: Callable[[], object], rounds: int) -> list[float]:
    """What each of so many calls takes, after one that is not counted."""
    run()
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        taken.append((time.process_time() - start) * 1000)
    return taken


@contextmanager
def added(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add what the block takes to the seconds of that name."""
    start = time.process_time()
    try:
        yield
    finally:
        seconds[name] += time.process_time() - start


def through_stages(
    plugin: ContentTypePlugin, path: Path, models: ModelRuntime, seconds: dict[str, float]
) -> tuple[Value, Sketch]:
    """The decoded value and the sketch of a file; what decode, embed and hash take is added to `seconds`."""
    with added(seconds, "decode"):
        decoded = plugin.decode(path)
    with added(seconds, "embed"):
        (embedded,) = plugin.embed([decoded], models)
    with added(seconds, "hash"):
        sketch = plugin.hash(decoded, embedded)
    return decoded, sketch
