"""Speed of the LanceDB store beside numpy brute force in memory: `python benchmarks/store.py [--rows 100000]`.

The fingerprints are those of images: one hash of 256 bits, one vector of 1,280 numbers, a payload of about 6 kB.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from fingerprint_dagster.content import Component, Content, Fingerprint, Sketch
from fingerprint_dagster.index.lance import LanceStore

BATCH = 1000
QUERIES = 50


def main() -> None:
    """Print one line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="fingerprints in the larger store")
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        store = LanceStore(Path(folder) / "store")
        small = min(10_000, rows)
        row(f"put {small:,} in batches of {BATCH:,}", put(store, 0, small))
        row(f"put the same {small:,} again", put(store, 0, small))
        measure(store, folder, small)
        if rows > small:
            row(f"put {rows - small:,} more", put(store, small, rows))
            measure(store, folder, rows)
        row("compact", clock(store.compact))
        measure(store, folder, rows)
        singles = batch(rows, rows + 200)
        row("put one, 200 times: each", sum(clock(store.put, [one]) for one in singles) / len(singles))
        measure(store, folder, rows)


def measure(store: LanceStore, folder: str, rows: int) -> None:
    """Look-ups in `store`, which holds `rows` fingerprints, and the same by brute force."""
    size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    print(f"\n{rows:,} fingerprints, {size / 1e6:,.0f} MB")
    rng = np.random.default_rng(1)
    picked = rng.choice(rows, 1000, replace=False)
    ids = [f"image-{n:07}" for n in picked]
    row("open and first keys()", clock(lambda: LanceStore(store.path).keys(ids[:1])))
    row("keys() of 1,000", *[clock(store.keys, ids) for _ in range(10)])
    row("get() of 100", *[clock(store.get, ids[:100]) for _ in range(5)])
    row("by_digest()", *[clock(store.by_digest, f"{picked[0]:064x}") for _ in range(10)])
    row("count()", *[clock(store.count) for _ in range(5)])

    bits, vectors = (np.concatenate(parts) for parts in zip(*map(arrays, range(0, rows, BATCH)), strict=True))
    bits, vectors = bits[:rows], vectors[:rows]
    queries = [fingerprint(int(n), bits[n], vectors[n]) for n in picked[:QUERIES]]
    found = [store.candidates(query, 100)[0] for query in queries]
    assert found == [query.content.content_id for query in queries]
    for part, name in ((0, "hash"), (1, "vector")):
        alone = [replace(q, sketch=Sketch((q.sketch.components[part],))) for q in queries]
        row(f"candidates() by the {name}", *[clock(store.candidates, q, 100) for q in alone])
    row("candidates() by both", *[clock(store.candidates, q, 100) for q in queries])
    frames = np.stack([bits[n] for n in picked[:60]])
    film = Component("pdq_v1", "hamming", frames)
    long = replace(queries[0], sketch=Sketch((film,)))
    row("candidates() by 60 hashes", *[clock(store.candidates, long, 100) for _ in range(3)])
    words = bits.view(np.uint64)
    row("numpy, in memory: hash", *[clock(nearest_bits, words, q) for q in words[picked[:QUERIES]]])
    row("numpy, in memory: vector", *[clock(nearest_cosine, vectors, q) for q in vectors[picked[:QUERIES]]])
    print()


def nearest_bits(words: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The 100 rows with the fewest different bits."""
    return nearest(-np.bitwise_count(words ^ query).sum(axis=1, dtype=np.int32))


def nearest_cosine(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The 100 rows with the greatest cosine."""
    return nearest(vectors @ query)


def nearest(scores: np.ndarray) -> np.ndarray:
    """The 100 rows with the greatest scores."""
    return np.argpartition(scores, -100)[-100:]


def put(store: LanceStore, start: int, stop: int) -> float:
    """Seconds that `store` takes to put the fingerprints from `start` to `stop`, their making not counted."""
    seconds = 0.0
    for first in range(start, stop, BATCH):
        made = batch(first, min(first + BATCH, stop))
        seconds += clock(store.put, made)
    return seconds


def arrays(start: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes uint8 [BATCH, 32] and vectors float32 [BATCH, 1280] of the fingerprints from `start` on."""
    rng = np.random.default_rng([2, start])
    vectors = rng.standard_normal((BATCH, 1280), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return rng.integers(0, 256, (BATCH, 32), dtype=np.uint8), vectors


def batch(start: int, stop: int) -> list[Fingerprint]:
    """The fingerprints from `start` to `stop`, at most BATCH."""
    bits, vectors = arrays(start)
    return [fingerprint(start + n, bits[n], vectors[n]) for n in range(stop - start)]


def fingerprint(n: int, bits: np.ndarray, vector: np.ndarray) -> Fingerprint:
    """The n-th fingerprint."""
    content = Content(f"image-{n:07}", f"file:///pictures/image-{n:07}.jpg", "image", {"title": f"Picture {n}"})
    components = (Component("pdq_v1", "hamming", bits[None]), Component("net_v1", "cosine", vector[None]))
    return Fingerprint(content, f"{n:064x}", 123_456, "image/jpeg", f"key-{n}", Sketch(components, {"width": 640}))


def clock(action: Callable[..., object], *arguments: object) -> float:
    """Seconds that `action` takes."""
    started = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - started


def row(name: str, *seconds: float) -> None:
    """Print the median of `seconds`, and the 99th percentile where there are several."""
    rest = f"   p99 {np.percentile(seconds, 99) * 1e3:10,.1f} ms" if len(seconds) > 1 else ""
    print(f"{name:40}{np.median(seconds) * 1e3:10,.1f} ms{rest}", flush=True)


if __name__ == "__main__":
    main()
