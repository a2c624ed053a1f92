"""When two texts are the same text."""

from __future__ import annotations

from fingerprint_dagster.content import Fingerprint, Match
from fingerprint_dagster.media.text.minhash import MINHASH, jaccard

MIN_JACCARD = 0.5
"""From this estimate on two texts are a match.

Measured on 436 licences, notices and documents, 176 package descriptions and 2,498 Python files, 3.2 million pairs:
of unrelated texts none reaches 0.3; from 0.3 on every pair that was looked at shares a template or an origin. Of 150
documents, 97 % are found again with every 20th word replaced, 87 % with every 10th, 12 % with every 7th; all with the
last 30 % cut off, 57 % with half of it.
"""


def match(query: Fingerprint, reference: Fingerprint) -> list[Match]:
    """One match of the whole of both texts where the estimated Jaccard similarity is at least `MIN_JACCARD`.

    score is that estimate; ranges are in characters. The signature stands for the whole text: a short passage
    quoted in a long text is not found.
    """
    ours, theirs = query.component(MINHASH), reference.component(MINHASH)
    if ours is None or theirs is None:
        return []
    score = jaccard(ours.values, theirs.values)
    if score < MIN_JACCARD:
        return []
    return [Match(reference.content, score, MINHASH, _whole(query), _whole(reference))]


def _whole(fingerprint: Fingerprint) -> tuple[float, float]:
    return 0.0, float(fingerprint.sketch.info["characters"])
