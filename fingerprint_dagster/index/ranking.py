"""What "near" means and how candidates are ranked: shared by every store, so that all of them answer alike.

A row of the query and a stored row have a nearness of 0 (not near) to 1 (the same). A content's score in one
component is, summed over the query's rows, the cube of the nearness of its nearest row: one frame that is nearly the
same counts for more than many that are vaguely alike. Tokens score by the bits of surprise of the distinct tokens
shared, each log2((contents + 1) / holders), where both count the stored contents of the type asked for: what many share
says little. Components are merged by how far a content stands out in each from what is found there by chance.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from fingerprint_dagster.content import Component, Fingerprint
from fingerprint_dagster.index.store import Candidate

# The cosine above which a row is near. Low: the plugin verifies, and the limit on candidates bounds the work.
NEAR_COSINE = 0.4
# The same for sign bits, of which only the whitened vectors of unrelated contents are made: their cosine is near 0, and
# four standard deviations of the estimate from 512 bits below this.
NEAR_SIGNS = 0.3
# A query has at most this many rows and tokens looked up in one component, spread evenly over the content.
MAX_QUERY_ROWS = 64
MAX_QUERY_TOKENS = 2000
# A stretch of a long query has at most so many times the rows or tokens that are looked up of it: two minutes of film,
# four of sound.
THINNED = 4
# Tokens are looked up rarest first, until so many postings (a token and a content that has it) have been met for each
# content stored, and within these bounds: the rest are of tokens so common that they say little. Of pictures cropped to
# 70 %, among a million, words find .58 with 16,384 postings and .88 with four times as many, which take 3 ms more.
POSTINGS_PER_CONTENT = 1 / 16
POSTINGS = (1 << 14, 1 << 16)
# Of a score below this nothing is known but that it is small: one row, and that not a tenth of the way from not near to
# the same.
LEAST_SCORE = 1e-3

# Best first: content_id, score, and what is told of it (`Candidate.scores`).
Ranking = list[tuple[str, float, float]]


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
    rows, most = _asked_rows(component), _most_asked(component)
    if len(rows) > most:
        rows = rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]
    return np.take(component.values, rows, axis=0)


def stretches(query: Fingerprint) -> list[Fingerprint]:
    """The query, and where it is too long for all of it to be looked up closely, each stretch of it by itself.

    Of hours of film a clip of seconds could be left out when rows are spread over the whole. A stretch is the query, of
    which only some successive rows are asked: the same share of them in each component that is long.
    """
    rows = {c.algorithm: _asked_rows(c) for c in query.sketch.components if c.kind != "data"}
    long = {c.algorithm: c for c in query.sketch.components if len(rows.get(c.algorithm, ())) > _most_asked(c)}
    count = max((-(-len(rows[name]) // (THINNED * _most_asked(c))) for name, c in long.items()), default=1)
    if count == 1:
        return [query]
    found = [query]
    parts = {name: np.array_split(_in_order(c, rows[name]), count) for name, c in long.items()}
    for number in range(count):
        components = []
        for component in query.sketch.components:
            asked = np.zeros(len(component.values), bool)
            if component.algorithm in parts:
                asked[parts[component.algorithm][number]] = True
            components.append(component if component.kind == "data" else replace(component, asked=asked))
        found.append(replace(query, sketch=replace(query.sketch, components=tuple(components))))
    return found


def _asked_rows(component: Component) -> np.ndarray:
    """The numbers of the rows that are looked up when the content is the query, before they are thinned out."""
    return searchable_rows(component if component.asked is None else replace(component, searchable=component.asked))


def _most_asked(component: Component) -> int:
    return MAX_QUERY_TOKENS if component.kind == "tokens" else MAX_QUERY_ROWS


def _in_order(component: Component, rows: np.ndarray) -> np.ndarray:
    """These rows in the order in which they come in the content, as far as that is known."""
    if component.positions is None:
        return rows
    return rows[np.argsort(component.positions[rows, 0], kind="stable")]


def farthest(kind: str, width: int) -> float:
    """The distance at which a row of `width` columns is no longer near: bits, or 1 - cosine."""
    if kind == "cosine":
        return 1 - NEAR_COSINE
    # One bit in eight is what buckets of 16 bits find for certain (`buckets`), and PDQ's threshold: 31 of 256 bits.
    return width if kind == "hamming" else int(width * 8 * np.arccos(NEAR_SIGNS) / np.pi) + 1


def distances(kind: str, values: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Float32 [values, queries]: bits that differ for "hamming" and "signs", 1 - cosine for "cosine"."""
    if kind == "cosine":
        return np.asarray(1 - values.astype(np.float32) @ queries.T.astype(np.float32))
    if values.shape[1] % 8 == 0:
        values, queries = (np.ascontiguousarray(array).view(np.uint64) for array in (values, queries))
    different = np.zeros((len(queries), len(values)), np.uint16)
    for ours, theirs in zip(queries.T, np.ascontiguousarray(values.T), strict=True):
        different += np.bitwise_count(ours[:, None] ^ theirs)
    return different.T.astype(np.float32)


def nearness(kind: str, width: int, distance: np.ndarray) -> np.ndarray:
    """Float32, shaped like `distance`: 1 at distance 0, 0 from `farthest` on."""
    if kind == "signs":
        estimate = np.cos(np.float32(np.pi / (8 * width)) * distance)
        return np.clip((estimate - NEAR_SIGNS) / (1 - NEAR_SIGNS), 0, 1).astype(np.float32)
    return np.clip(1 - distance / np.float32(farthest(kind, width)), 0, 1).astype(np.float32)


def rank_rows(content_ids: Sequence[str], owners: np.ndarray, near: np.ndarray, limit: int) -> Ranking:
    """The contents with the best rows, with the nearness of the nearest.

    content_ids: the contents. owners: int [n], for each row the index of its content. near: float32 [n, queries].
    """
    if not len(owners):
        return []
    order = np.argsort(owners, kind="stable")
    starts = np.flatnonzero(np.diff(owners[order], prepend=-1))
    nearest = np.maximum.reduceat(near[order], starts, axis=0).astype(np.float64)
    # Rounded, because the last bits of a sum depend on how the rows were read, and ties are broken by content_id.
    scores = np.round((nearest**3).sum(axis=1), 9)
    best = nearest.max(axis=1)
    names = [content_ids[i] for i in owners[order][starts]]
    return best_first(zip(scores.tolist(), names, best.tolist(), strict=True), limit)


def rank_tokens(content_ids: np.ndarray, tokens: np.ndarray, contents: int, limit: int) -> Ranking:
    """The contents that share the most telling tokens with the query, with the bits of surprise.

    content_ids: str [n], tokens: uint64 [n]: one entry for each token that a stored content has and the query asks for,
    each pair once. contents: how many are stored of the type asked for.
    """
    if not len(tokens):
        return []
    owners, owner = np.unique(content_ids, return_inverse=True)
    _, token, holders = np.unique(tokens, return_inverse=True, return_counts=True)
    scores = np.round(np.bincount(owner, weights=surprise(contents, holders)[token]), 9).tolist()
    return best_first(zip(scores, owners.tolist(), scores, strict=True), limit)


def affordable(owner: np.ndarray, held: np.ndarray, contents: int) -> np.ndarray:
    """The numbers, ascending, of the tokens that are looked up: for each query the rarest.

    owner: int [n], ascending, the query that each token is of. held: int [n], the stored contents that have it.
    contents: how many are stored of the type asked for.
    """
    most = np.clip(contents * POSTINGS_PER_CONTENT, *POSTINGS)
    order = np.lexsort((held, owner))
    met = np.cumsum(held[order])
    begin = np.searchsorted(owner, owner)  # of the token's query; orders and owners agree on it
    before = np.concatenate(([0], met))[begin]
    return np.sort(order[(held[order] > 0) & (met - before <= most)])


def surprise(contents: int, holders: np.ndarray) -> np.ndarray:
    """Float64: the bits of surprise at meeting tokens that so many of the contents hold."""
    return np.asarray(np.log2((contents + 1) / holders))


def best_first(scored: Iterable[tuple[float, str, float]], limit: int) -> Ranking:
    """Of (score, content_id, what is told of it): those with the greatest scores above 0, ties by content_id."""
    best = sorted((-score, content_id, told) for score, content_id, told in scored if score > 0)
    return [(content_id, -score, told) for score, content_id, told in best[:limit]]


def merge(rankings: Mapping[str, Ranking], limit: int) -> list[Candidate]:
    """One ranking out of one for each algorithm, of at most `limit` contents each: each content once, best first.

    A content's score is the sum of the logarithms of its scores as multiples of what chance finds: in a full ranking
    that is the last score, in a shorter one so much less as it is shorter. Reciprocal ranks, which know nothing of
    scores, put 289 of 498 originals of edited pictures among the first five of a million, and this 311; of the same
    among 200, 510 and 512 of 520.
    """
    merged: defaultdict[str, float] = defaultdict(float)
    told: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for algorithm, ranking in rankings.items():
        for content_id, score, nearest in ranking:
            chance = max(ranking[-1][1], LEAST_SCORE) * len(ranking) / limit
            merged[content_id] += math.log(max(score, LEAST_SCORE) / chance)
            told[content_id][algorithm] = nearest
    best = sorted((-score, content_id) for content_id, score in merged.items())
    return [Candidate(content_id, told[content_id]) for _, content_id in best[:limit]]
