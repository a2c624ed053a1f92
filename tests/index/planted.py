"""Fingerprints for the tests of the stores: random rows, and rows at a known distance from them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fingerprint_dagster.content import Component, Content, Fingerprint, Sketch
from fingerprint_dagster.index.store import Store


def found(store: Store, query: Fingerprint, limit: int, content_type: str | None = None) -> list[str]:
    """The content_ids of the candidates, best first."""
    return [candidate.content_id for candidate in store.candidates(query, limit, content_type)]


def fingerprint(
    content_id: str,
    *components: Component,
    content_type: str = "image",
    digest: str | None = None,
    key: str = "key",
    metadata: Mapping[str, Any] | None = None,
) -> Fingerprint:
    content = Content(content_id, f"file:///{content_id}", content_type, metadata or {})
    return Fingerprint(content, digest or f"sha of {content_id}", 1234, "image/png", key, Sketch(components, {"w": 1}))


def hamming(
    *rows: np.ndarray,
    algorithm: str = "pdq_v1",
    searchable: list[bool] | None = None,
    asked: list[bool] | None = None,
) -> Component:
    found, looked_up = (None if flags is None else np.array(flags) for flags in (searchable, asked))
    return Component(algorithm, "hamming", np.stack(rows), searchable=found, asked=looked_up)


def signs(*vectors: np.ndarray, algorithm: str = "signs_v1") -> Component:
    return Component(algorithm, "signs", np.packbits(np.stack(vectors) > 0, axis=1))


def cosine(*rows: np.ndarray, algorithm: str = "net_v1") -> Component:
    return Component(algorithm, "cosine", np.stack(rows).astype(np.float32))


def tokens(values: np.ndarray, algorithm: str = "words_v1") -> Component:
    return Component(algorithm, "tokens", values.astype(np.uint64))


def bits(rng: np.random.Generator, width: int = 32) -> np.ndarray:
    return rng.integers(0, 256, width, dtype=np.uint8)


def flipped(row: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`row` with `count` bits changed."""
    unpacked = np.unpackbits(row)
    unpacked[rng.choice(len(unpacked), count, replace=False)] ^= 1
    return np.packbits(unpacked)


def unit(rng: np.random.Generator, width: int = 64) -> np.ndarray:
    row = rng.standard_normal(width)
    return row / np.linalg.norm(row)


def at_cosine(row: np.ndarray, wanted: float, rng: np.random.Generator) -> np.ndarray:
    """A unit vector whose cosine with `row` is `wanted`."""
    other = unit(rng, len(row))
    other -= (other @ row) * row
    other /= np.linalg.norm(other)
    return np.asarray(wanted * row + np.sqrt(1 - wanted**2) * other)
