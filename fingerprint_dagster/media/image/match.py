"""Are two pictures copies of each other, where, and how sure is it? By hash, by geometry, then by descriptor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fingerprint_dagster.content import Box, Fingerprint, Match
from fingerprint_dagster.media.image import geometry, local_features
from fingerprint_dagster.media.image.pdq import ALGORITHM as PDQ
from fingerprint_dagster.media.image.pdq import MAX_DISTANCE, MIN_QUALITY

# Measured on 305,804 pairs of unrelated pictures (photographs and art, edited ones on one side): the hashes of none are
# 80 bits apart or less, in the nearest of eight orientations; those of 16 are 88 or less, and of these no descriptors
# have a cosine above 0.51.
MAX_DISTANCE_ALIKE = 88
MIN_COSINE = 0.7
# Of 253,454 such pairs about 110 have local features with a support of 5 or more, 11 of 8, three of 10, one (two
# portraits in front of black) of 11.6 and none of 12.
MIN_SUPPORT = 12.0
# A picture with fewer features than this is not looked up by their words.
MIN_FEATURES = 12
# Where of this many features in the middle of what two pictures share hardly any agree, by this share as many as of
# those around it, only the frames around two pictures are the same. None of 515 edited copies is like that.
MIN_MIDDLE_FEATURES = 8
MAX_FRAME_SHARE = 0.1
_MIDDLE = (0.2, 0.8)  # of either side


def match(query: Fingerprint, reference: Fingerprint) -> list[Match]:
    """The reference, if it or a part of it is seen in the query, also turned or mirrored; otherwise an empty list.

    Evidence "pdq_v1": the hashes of the whole pictures, the query's in its nearest of eight orientations; the score is
    1 - distance / 256. Evidence "local_features_v1": a transform of the reference that enough local features agree
    with, and the boxes that follow from it; if these features are all around the middle, which is another in each, as
    in two pictures in one frame or with a sticker on one, it is a suggestion, and {"frame": True}. Evidence of the
    descriptor: the cosine of the whole pictures' vectors.
    Pictures with little in them resemble each other in hash and descriptor, so only features can prove them copies.
    """
    both_detailed = min(_quality(query), _quality(reference)) >= MIN_QUALITY
    distance = hash_distance(query, reference) if both_detailed else None
    if distance is not None and distance <= MAX_DISTANCE:
        return [Match(reference.content, 1 - distance / 256, PDQ)]
    found = by_features(query, reference)
    if found is not None:
        return [found]
    # Textures of one kind have one descriptor; only where the hash does not contradict does it prove anything.
    alike = distance is not None and distance <= MAX_DISTANCE_ALIKE
    model, similarity = cosine(query, reference) if alike else ("", 0.0)
    if similarity >= MIN_COSINE:
        return [Match(reference.content, similarity, model)]
    return []


def strengths(query: Fingerprint, reference: Fingerprint) -> dict[str, float]:
    """What each evidence of `match` has to say of two pictures, copies or not: see `ContentTypePlugin.strengths`."""
    both_detailed = min(_quality(query), _quality(reference)) >= MIN_QUALITY
    distance = hash_distance(query, reference) if both_detailed else None
    found = {} if distance is None else {PDQ: 1 - distance / 256}
    if distance is not None and distance <= MAX_DISTANCE_ALIKE:
        model, similarity = cosine(query, reference)
        found |= {model: similarity} if model else {}
    features = by_features(query, reference, least=0.0)
    return found if features is None or features.strength is None else found | {features.evidence: features.strength}


def by_features(query: Fingerprint, reference: Fingerprint, least: float = MIN_SUPPORT) -> Match | None:
    """The match that local features prove with a support of at least that, its strength; otherwise None."""
    ours, theirs = query.component(local_features.ALGORITHM), reference.component(local_features.ALGORITHM)
    if ours is None or theirs is None:
        return None
    here, there = local_features.unpack(ours.values), local_features.unpack(theirs.values)
    found = geometry.align(here, there, least)
    if found is None:
        return None
    where = geometry.boxes(found.matrix, _shape(query), _shape(reference))
    if where is None:
        return None
    query_box, reference_box = where
    details = {"inliers": found.inliers, "mirrored": found.mirrored}
    if only_frame(here, there, found, reference_box, _shape(reference)):
        details |= {"frame": True, "suggestion": True}
    return Match(
        reference.content,
        found.support / (found.support + 6),
        local_features.ALGORITHM,
        strength=found.support,
        query_box=query_box,
        reference_box=reference_box,
        details=details,
    )


def only_frame(
    query: local_features.LocalFeatures,
    reference: local_features.LocalFeatures,
    found: geometry.Alignment,
    box: Box,
    shape: geometry.Shape,
) -> bool:
    """Whether features agree around the middle of the part they share, and in the middle hardly any of many do.

    box: that part of the reference, in fractions of its sides, whose lengths are `shape`.
    """
    low, high = np.array(box[:2]) * shape, np.array(box[2:]) * shape
    back = np.linalg.inv(found.matrix).astype(np.float64)

    def counted(points: NDArray[np.float64]) -> tuple[int, int]:
        """Of points in the reference, how many are in the middle, and how many around it."""
        along = (points - low) / np.maximum(high - low, 1e-9)
        middle = ((along > _MIDDLE[0]) & (along < _MIDDLE[1])).all(axis=1)
        return int(middle.sum()), int((((along >= 0) & (along <= 1)).all(axis=1) & ~middle).sum())

    ours = counted(geometry.project(back, query.points.astype(np.float64)))
    theirs = counted(reference.points.astype(np.float64))
    agreeing, agreeing_around = counted(found.agreeing)
    middle, around = (min(pair) for pair in zip(ours, theirs, strict=True))
    share = MAX_FRAME_SHARE * agreeing_around / max(around, 1)
    return middle >= MIN_MIDDLE_FEATURES and agreeing <= share * middle


def hash_distance(query: Fingerprint, reference: Fingerprint) -> int | None:
    """The fewest bits, 0..256, between one of the query's eight hashes and the reference's own; None without both."""
    turned, stored = query.component(PDQ), reference.component(PDQ)
    if turned is None or stored is None:
        return None
    return int(np.bitwise_count(turned.values ^ stored.values[:1]).sum(axis=1, dtype=np.int64).min())


def cosine(query: Fingerprint, reference: Fingerprint) -> tuple[str, float]:
    """The network that described both pictures, and the cosine of its vectors, -1..1; "" and 0 where none did both."""
    for component in query.sketch.components:
        ours, theirs = (f.component(exact(component.algorithm)) for f in (query, reference))
        if component.kind == "signs" and ours is not None and theirs is not None:
            one, other = (side.values[0].astype(np.float64) for side in (ours, theirs))
            return component.algorithm, float(one @ other / max(np.linalg.norm(one) * np.linalg.norm(other), 1e-9))
    return "", 0.0


def exact(model: str) -> str:
    """The name of the component that holds a network's vectors themselves, to 8 bits."""
    return f"{model}_int8"


def as_int8(vectors: NDArray[np.float32]) -> NDArray[np.int8]:
    """Each row scaled so that its greatest number becomes 127: [n, dim]."""
    most = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), np.float32(1e-9))
    scaled: NDArray[np.int8] = np.rint(vectors / most * 127).astype(np.int8)
    return scaled


def _quality(fingerprint: Fingerprint) -> int:
    return int(fingerprint.sketch.info.get("quality", 0))


def _shape(fingerprint: Fingerprint) -> tuple[float, float]:
    """Width and height in units of the longer side."""
    width, height = (float(fingerprint.sketch.info.get(side, 1)) for side in ("width", "height"))
    longer = max(width, height, 1.0)
    return width / longer, height / longer
