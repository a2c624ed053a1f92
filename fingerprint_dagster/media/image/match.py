"""Are two pictures copies of each other? First by their perceptual hashes, then by their embeddings."""

from __future__ import annotations

import numpy as np

from fingerprint_dagster.content import Fingerprint, Match
from fingerprint_dagster.media.image.pdq import ALGORITHM as PDQ
from fingerprint_dagster.media.image.pdq import DIHEDRAL_ALGORITHM, MAX_DISTANCE

EMBEDDING = "efficientnet_lite0_gem_v1"
# Measured on 1,641 pictures (photographs, drawings, textures, screenshots): of 1,273,186 pairs from unrelated sources
# one reaches 0.90, 17 reach 0.87, 51 reach 0.85 (nearly all of them two screenshots of desktop programs), 291 reach
# 0.80; the median is 0.32. Found at 0.90, by the hash or the embedding, of 100 photographs: every copy recompressed,
# scaled, blurred, made grey, mirrored or turned by 90 degrees; 95 brightened by 40 %, 86 cropped to 90 % of their
# sides, 58 turned by 5 degrees, 42 cropped to 80 %. Subtracting the mean vector first finds fewer of them at the same
# number of false pairs.
MIN_COSINE = 0.90


def match(query: Fingerprint, reference: Fingerprint) -> list[Match]:
    """The reference, if it is a copy of the query, turned or mirrored ones included; otherwise an empty list.

    Evidence "pdq_v1": the score is 1 - distance / 256, by the nearest of the query's eight orientations. Evidence
    "efficientnet_lite0_gem_v1": the score is the cosine of the two embeddings. Pictures with little in them (flat,
    empty, extremely blurred) resemble each other in both, so they never match.
    """
    if query.sketch.info.get("low_information", True) or reference.sketch.info.get("low_information", True):
        return []
    distance = hash_distance(query, reference)
    if distance is not None and distance <= MAX_DISTANCE:
        return [Match(reference.content, 1 - distance / 256, PDQ)]
    similarity = cosine(query, reference)
    if similarity is not None and similarity >= MIN_COSINE:
        return [Match(reference.content, similarity, EMBEDDING)]
    return []


def hash_distance(query: Fingerprint, reference: Fingerprint) -> int | None:
    """The fewest bits, 0..256, between one of the query's eight hashes and the reference's own; None without both."""
    turned, stored = query.component(DIHEDRAL_ALGORITHM), reference.component(PDQ)
    if turned is None or stored is None:
        return None
    return int(np.bitwise_count(turned.values ^ stored.values).sum(axis=1, dtype=np.int64).min())


def cosine(query: Fingerprint, reference: Fingerprint) -> float | None:
    """The cosine of the two embeddings, 0..1; None without both."""
    ours, theirs = query.component(EMBEDDING), reference.component(EMBEDDING)
    if ours is None or theirs is None:
        return None
    return float(np.clip(ours.values[0] @ theirs.values[0], 0.0, 1.0))
