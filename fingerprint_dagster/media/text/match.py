"""When two texts are the same text, and which passages one has from the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fingerprint_dagster.content import Component, Fingerprint, Match
from fingerprint_dagster.media.text.alignment import Passage, passages
from fingerprint_dagster.media.text.boilerplate import BOILERPLATE
from fingerprint_dagster.media.text.minhash import MINHASH, jaccard
from fingerprint_dagster.media.text.semantic import SEMANTIC, cosine
from fingerprint_dagster.media.text.words import LONG_WORDS, UNSPACED_BIT, WORDS, word_places_v1

SIMILARITY = "text_similarity_v1"
"""Evidence of a match of two whole texts: the share of their words that is the same, in passages of the same order."""
CONTAINMENT = "text_containment_v1"
"""Evidence of a shared passage: the share of a text that lies in it, of the text of which that is more."""

MIN_SIMILARITY = 0.5
"""From this share of equal words on two texts match as a whole."""
MIN_JACCARD = 0.5
"""From this estimate on two texts match that repeat themselves too much to be aligned."""
MIN_SHORT_SIMILARITY = 0.8
"""What texts of too few words for `MIN_DISTINCT` must have in common."""
MIN_DISTINCT = 16
"""The different words a passage must have in common with another; a character of a script without spaces is half one.

Measured on 45,986 pairs of unrelated documents (manuals, policies, kernel documents of different projects, 50 to 30,000
words each): 1.6 % share a passage of 5 different words, 0.3 % one of 6, 0.1 % one of 8; from 9 on each passage that was
looked at is one text in two places, the short ones stock sentences: 0.05 % share one of 16, 0.004 % one of 25.
"""
MIN_DENSITY = 0.5
"""The share of a passage's words that must be the same: in tables of the same form, few are."""
MIN_COSINE = 0.75
"""From this cosine on a text is suggested that shares no words but may share the meaning.

Measured on 190 pages of a manual in English against the same in German, French and Spanish: 67 % to 79 % of the
translations reach it, 0.05 % of the other pages of the manual, and none of 72,000 pairs of documents of other projects.
"""
MAX_PASSAGES = 50
"""The passages reported for one pair, the longest first."""

_OVERLAP = 0.5  # of a passage lying in longer ones of the query: from there on it is the same passage found elsewhere


def match(query: Fingerprint, reference: Fingerprint) -> list[Match]:
    """What the query has from the reference, best first; ranges are in characters of the original texts.

    Whole texts with at least half of their words in common are one match (`SIMILARITY`), from the first common word
    to the last, followed by its passages where these are several, as after a change of order. Otherwise each common
    passage is a match (`CONTAINMENT`). Texts that cannot be aligned well, because they are very short or repeat the
    same few words, are compared by their MinHash signatures.

    strength is the number of different words in common. details: `words` that are the same, `passages` of a match of
    whole texts. With {"suggestion": True} (`SEMANTIC`) nothing more is known than that the
    texts begin alike in meaning.
    """
    ours, theirs = query.component(WORDS), reference.component(WORDS)
    if ours is None or theirs is None or not len(ours.values) or not len(theirs.values):
        return []
    found = _aligned(query, reference, ours, theirs)
    if found and found[0].score >= MIN_JACCARD:
        return found
    return _by_signature(query, reference) or found or _suggested(query, reference)


def strengths(query: Fingerprint, reference: Fingerprint) -> dict[str, float]:
    """What each evidence of `match` has to say of two texts, copies or not: see `ContentTypePlugin.strengths`.

    For texts that are alike as a whole it is told what the best passage has, whatever share of the texts that is:
    unrelated ones have no more in common.
    """
    found: dict[str, float] = {}
    ours, theirs = query.component(WORDS), reference.component(WORDS)
    if ours is not None and theirs is not None and len(ours.values) and len(theirs.values):
        kept = _common_passages(query, reference, ours, theirs, 1.0)
        if kept:
            found = dict.fromkeys((SIMILARITY, CONTAINMENT), max(distinct for _, distinct in kept))
    for algorithm, likeness in ((MINHASH, jaccard), (SEMANTIC, cosine)):
        one, other = query.component(algorithm), reference.component(algorithm)
        if one is not None and other is not None:
            found[algorithm] = max(0.0, likeness(one.values, other.values))
    return found


def _common_passages(
    query: Fingerprint, reference: Fingerprint, ours: Component, theirs: Component, least: float
) -> list[tuple[Passage, float]]:
    """Passages that do not lie in longer ones, with their different words that count, of which there are so many."""
    words, other_words = ours.values[:, 0], theirs.values[:, 0]
    counted, other_counted = _outside_boilerplate(query, len(words)), _outside_boilerplate(reference, len(other_words))
    covered = np.zeros(len(words), np.bool_)
    kept: list[tuple[Passage, float]] = []
    for passage in passages(words, other_words):
        mine, its = passage.query_words, passage.reference_words
        if covered[mine].mean() > _OVERLAP:
            continue
        length = max(passage.query[1] - passage.query[0], passage.reference[1] - passage.reference[0])
        counts = counted[mine] & other_counted[its]
        distinct = _distinct(words[mine[counts]])
        if len(mine) < MIN_DENSITY * length or distinct < least:
            continue
        kept.append((passage, distinct))
        covered[mine] = True
    return kept


def _aligned(query: Fingerprint, reference: Fingerprint, ours: Component, theirs: Component) -> list[Match]:
    words, other_words = ours.values[:, 0], theirs.values[:, 0]
    short = min(len(words), len(other_words)) < 2 * MIN_DISTINCT
    kept = _common_passages(query, reference, ours, theirs, 0.0 if short else MIN_DISTINCT)
    if not kept:
        return []
    covered, other_covered = np.zeros(len(words), np.bool_), np.zeros(len(other_words), np.bool_)
    for passage, _ in kept:
        covered[passage.query_words], other_covered[passage.reference_words] = True, True
    similarity = float(covered.sum() + other_covered.sum()) / (len(words) + len(other_words))
    distinct = _distinct(words[covered])
    places, other_places = _places(query), _places(reference)
    found = []
    if similarity >= (MIN_SIMILARITY if distinct >= MIN_DISTINCT else MIN_SHORT_SIMILARITY):
        found.append(
            Match(
                reference.content,
                similarity,
                SIMILARITY,
                _range(places, min(p.query[0] for p, _ in kept), max(p.query[1] for p, _ in kept)),
                _range(other_places, min(p.reference[0] for p, _ in kept), max(p.reference[1] for p, _ in kept)),
                strength=distinct,
                details={"words": int(covered.sum()), "passages": len(kept)},
            )
        )
        if len(kept) == 1:
            return found
    for passage, distinct in kept[:MAX_PASSAGES]:
        if distinct < MIN_DISTINCT:
            continue
        count = len(passage.query_words)
        found.append(
            Match(
                reference.content,
                count / min(len(words), len(other_words)),
                CONTAINMENT,
                _range(places, *passage.query),
                _range(other_places, *passage.reference),
                strength=distinct,
                details={"words": count},
            )
        )
    return found


def _distinct(words: npt.NDArray[np.uint8]) -> float:
    """The number of different words; a character of a script without spaces is half a word."""
    different = np.unique(words)
    unspaced = int((different >= UNSPACED_BIT).sum())
    return len(different) - unspaced / 2


def _outside_boilerplate(fingerprint: Fingerprint, count: int) -> npt.NDArray[np.bool_]:
    """The words that count: all but boilerplate, and all of a text that is little else (a licence)."""
    counted = np.ones(count, np.bool_)
    component = fingerprint.component(BOILERPLATE)
    for start, end in [] if component is None else component.values.tolist():
        counted[start:end] = False
    return counted if counted.mean() >= 0.5 else np.ones(count, np.bool_)


def _places(fingerprint: Fingerprint) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    packed, long = fingerprint.component(WORDS), fingerprint.component(LONG_WORDS)
    assert packed is not None
    return word_places_v1(packed.values, np.empty((0, 2), np.int32) if long is None else long.values)


def _range(places: tuple[npt.NDArray[Any], npt.NDArray[Any]], start: int, end: int) -> tuple[float, float]:
    """Words as characters: from the beginning of the first to the end of the last."""
    return float(places[0][start]), float(places[1][end - 1])


def _by_signature(query: Fingerprint, reference: Fingerprint) -> list[Match]:
    ours, theirs = query.component(MINHASH), reference.component(MINHASH)
    if ours is None or theirs is None:
        return []
    score = jaccard(ours.values, theirs.values)
    short = bool(query.sketch.info.get("low_information") or reference.sketch.info.get("low_information"))
    if score < (MIN_SHORT_SIMILARITY if short else MIN_JACCARD):
        return []
    whole, other_whole = ((0.0, float(each.sketch.info["characters"])) for each in (query, reference))
    return [Match(reference.content, score, MINHASH, whole, other_whole)]


def _suggested(query: Fingerprint, reference: Fingerprint) -> list[Match]:
    ours, theirs = query.component(SEMANTIC), reference.component(SEMANTIC)
    if ours is None or theirs is None:
        return []
    score = cosine(ours.values, theirs.values)
    if score < MIN_COSINE:
        return []
    return [Match(reference.content, score, SEMANTIC, details={"suggestion": True})]
