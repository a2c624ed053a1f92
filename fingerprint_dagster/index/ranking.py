"""What "near" means and how candidates are ranked: shared by every store, so that all of them answer alike.

A row of the query and a stored row have a nearness of 0 (not near) to 1 (the same). A content's score in one
component is, summed over the query's rows, the cube of the nearness of its nearest row: one frame that is nearly the
same counts for more than many that are vaguely alike. Tokens score by the distinct tokens shared, each divided by the
number of stored contents that have it: what many share says little. Components are merged by reciprocal rank.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from fingerprint_dagster.content import Component

# Bits that may differ in a near row: 48 of 256. PDQ calls 31 a copy; the rest is slack for the verifying stage,
# and still ten standard deviations away from two random hashes.
NEAR_BITS = 3 / 16
# The cosine above which a row is near. Low: the plugin verifies, and the limit on candidates bounds the work.
NEAR_COSINE = 0.4
# The same for sign bits, of which only the whitened vectors of unrelated contents are made: their cosine is near 0, and
# four standard deviations of the estimate from 512 bits below this.
NEAR_SIGNS = 0.3
# A query has at most this many rows and tokens looked up in one component, spread evenly over the content.
MAX_QUERY_ROWS = 64
MAX_QUERY_TOKENS = 2000
# The usual constant of reciprocal rank fusion: being first in one component does not outweigh being good in two.
RANK_OFFSET = 60


def searchable_rows(component: Component) -> np.ndarray:
    """The numbers of the rows that others may find, int64; of equal tokens only the first."""
    rows = np.arange(len(component.values))
    if component.searchable is not None:
        rows = rows[component.searchable]
    if component.kind == "tokens":
        first = np.unique(component.values[rows], return_index=True)[1]
        rows = rows[np.sort(first)]
    return rows


def query_values(component: Component) -> np.ndarray:
    """The values to look up: the rows asked, thinned out evenly to a bounded number."""
    rows = searchable_rows(component if component.asked is None else replace(component, searchable=component.asked))
    most = MAX_QUERY_TOKENS if component.kind == "tokens" else MAX_QUERY_ROWS
    if len(rows) > most:
        rows = rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]
    return np.take(component.values, rows, axis=0)


def farthest(kind: str, width: int) -> float:
    """The distance at which a row of `width` columns is no longer near: bits, or 1 - cosine."""
    if kind == "cosine":
        return 1 - NEAR_COSINE
    share = NEAR_BITS if kind == "hamming" else np.arccos(NEAR_SIGNS) / np.pi
    return int(width * 8 * share) + 1


def distances(kind: str, values: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Float32 [values, queries]: bits that differ for "hamming" and "signs", 1 - cosine for "cosine"."""
    if kind == "cosine":
        return np.asarray(1 - values.astype(np.float32) @ queries.T.astype(np.float32))
    if values.shape[1] % 8 == 0:
        values, queries = (np.ascontiguousarray(array).view(np.uint64) for array in (values, queries))
    different = [np.bitwise_count(values ^ query).sum(axis=1, dtype=np.float32) for query in queries]
    return np.stack(different, axis=1)


def nearness(kind: str, width: int, distance: np.ndarray) -> np.ndarray:
    """Float32, shaped like `distance`: 1 at distance 0, 0 from `farthest` on."""
    if kind == "signs":
        estimate = np.cos(np.float32(np.pi / (8 * width)) * distance)
        return np.clip((estimate - NEAR_SIGNS) / (1 - NEAR_SIGNS), 0, 1).astype(np.float32)
    return np.clip(1 - distance / np.float32(farthest(kind, width)), 0, 1).astype(np.float32)


def rank_rows(content_ids: Sequence[str], owners: np.ndarray, near: np.ndarray, limit: int) -> list[str]:
    """The contents with the best rows, best first, at most `limit`.

    content_ids: the contents. owners: int [n], for each row the index of its content. near: float32 [n, queries].
    """
    if not len(owners):
        return []
    order = np.argsort(owners, kind="stable")
    starts = np.flatnonzero(np.diff(owners[order], prepend=-1))
    nearest = np.maximum.reduceat(near[order], starts, axis=0).astype(np.float64)
    # Rounded, because the last bits of a sum depend on how the rows were read, and ties are broken by content_id.
    scores = np.round((nearest**3).sum(axis=1), 9)
    owner_of_score = owners[order][starts]
    return rank_scores(zip((content_ids[i] for i in owner_of_score), scores.tolist(), strict=True), limit)


def rank_tokens(content_ids: np.ndarray, tokens: np.ndarray, limit: int) -> list[str]:
    """The contents that share the most telling tokens with the query, best first, at most `limit`.

    content_ids: str [n], tokens: uint64 [n]: one entry for each token that a stored content has and the query asks for,
    each pair once.
    """
    if not len(tokens):
        return []
    owners, owner = np.unique(content_ids, return_inverse=True)
    _, token, holders = np.unique(tokens, return_inverse=True, return_counts=True)
    scores = np.bincount(owner, weights=1 / holders[token])
    return rank_scores(zip(owners.tolist(), np.round(scores, 9).tolist(), strict=True), limit)


def rank_scores(scores: Iterable[tuple[str, float]], limit: int) -> list[str]:
    """The content_ids with the greatest scores above 0, ties by content_id, at most `limit`."""
    return [content_id for _, content_id in heapq.nsmallest(limit, ((-s, c) for c, s in scores if s > 0))]


def merge(rankings: Iterable[Sequence[str]], limit: int) -> list[str]:
    """One ranking out of one for each component: each content once, the best in all of them first."""
    scores: defaultdict[str, float] = defaultdict(float)
    for ranking in rankings:
        for rank, content_id in enumerate(ranking):
            scores[content_id] += 1 / (RANK_OFFSET + rank)
    return rank_scores(scores.items(), limit)
