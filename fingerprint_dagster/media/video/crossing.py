"""Pictures in videos and videos in pictures: the frames that a picture was taken from, or is shown in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fingerprint_dagster.content import Fingerprint, Match, Range
from fingerprint_dagster.media.image.match import MAX_DISTANCE_ALIKE, MIN_COSINE
from fingerprint_dagster.media.image.pdq import MAX_DISTANCE, MIN_QUALITY
from fingerprint_dagster.media.video import regions
from fingerprint_dagster.media.video.frames import Frames, distances, frames_of, vectors_of
from fingerprint_dagster.media.video.sketch import FEATURES, PDQ

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

MIN_SUPPORT = 16.0  # more than for two pictures: one is compared with many frames
MOST_TRIED = 12  # frames
# Stretches that are shown again after a shorter pause are one.
_PAUSE = 3.0


def match(query: Fingerprint, reference: Fingerprint) -> list[Match]:
    """Where a picture is seen in a video, best first; either may be the query, and the video's range is in seconds.

    Each stretch of the video is told by the first of these that proves it, with the thresholds of pictures: PDQ of the
    whole frames, turned and mirrored too; the descriptor, where PDQ does not contradict; local features, with boxes.
    """
    picture_asks = str(query.content.content_type) == "image"
    picture, video = (query, reference) if picture_asks else (reference, query)
    found = [*_by_hash(picture, video, reference), *_by_features(query, reference, picture_asks)]
    kept: list[tuple[Match, Range]] = []
    for match, seconds in sorted(found, key=lambda each: -each[0].score):
        if not any(seconds[0] < other[1] and other[0] < seconds[1] for _, other in kept):
            side = {"reference_range": seconds} if picture_asks else {"query_range": seconds}
            kept.append((replace(match, **side), seconds))  # type: ignore[arg-type]
    return [match for match, _ in kept]


def strengths(query: Fingerprint, reference: Fingerprint) -> dict[str, float]:
    """What hash and descriptor of the likest frame say, copies or not: see `ContentTypePlugin.strengths`."""
    picture_asks = str(query.content.content_type) == "image"
    seen = _seen(*((query, reference) if picture_asks else (reference, query)))
    if seen is None:
        return {}
    _, apart, model, cosine = seen
    usable = cosine[apart <= MAX_DISTANCE_ALIKE]
    return {PDQ: 1 - float(apart.min()) / 256} | ({model: float(usable.max())} if len(usable) else {})


def _seen(picture: Fingerprint, video: Fingerprint) -> tuple[Frames, I64, str, F64] | None:
    """The frames that can be compared, and of each the bits from the picture, and the network's name and cosine.

    bits: int64 [n], turned and mirrored as it is nearest. cosine: float64 [n], -1 where they were not described alike.
    None where either side has nothing to compare.
    """
    asked, frames = _picture(picture), frames_of(video)
    if asked is None or frames is None:
        return None
    apart = distances(asked, frames).min(axis=(0, 1)).astype(np.int64)
    model = _model(picture)
    if not model or not asked.vectors.shape[1] == frames.vectors.shape[1] != 0:
        return frames, apart, model, np.full(len(frames), -1.0)
    return frames, apart, model, np.minimum(frames.vectors @ asked.vectors.T, 1.0)[:, 0].astype(np.float64)


def _by_hash(picture: Fingerprint, video: Fingerprint, reference: Fingerprint) -> list[tuple[Match, Range]]:
    """By the hashes of whole frames, and by descriptors."""
    seen = _seen(picture, video)
    if seen is None:
        return []
    frames, apart, model, cosine = seen
    found = [
        (Match(reference.content, 1 - float(apart[rows].min()) / 256, PDQ), seconds)
        for rows, seconds in _stretches(frames, apart <= MAX_DISTANCE)
    ]
    alike = (cosine >= MIN_COSINE) & (apart > MAX_DISTANCE) & (apart <= MAX_DISTANCE_ALIKE)
    found += [
        (Match(reference.content, float(cosine[rows].max()), model), seconds)
        for rows, seconds in _stretches(frames, alike)
    ]
    return found


def _by_features(query: Fingerprint, reference: Fingerprint, picture_asks: bool) -> list[tuple[Match, Range]]:
    """By local features of some of the frames."""
    ours, theirs = regions.pictures_of(query), regions.pictures_of(reference)
    if ours is None or theirs is None:
        return []
    shown = theirs if picture_asks else ours
    found = []
    for sight in regions.sights(ours, theirs, MIN_SUPPORT, MOST_TRIED):
        number = sight.reference if picture_asks else sight.query
        end = shown.starts[number + 1] if number + 1 < len(shown) else shown.ends[number]
        made = Match(
            reference.content,
            sight.support / (sight.support + 6),
            FEATURES,
            query_box=sight.query_box,
            reference_box=sight.reference_box,
            strength=sight.support,
            details={"mirrored": sight.mirrored},
        )
        found.append((made, (float(shown.starts[number]), float(end))))
    return found


def _stretches(frames: Frames, alike: NDArray[np.bool_]) -> list[tuple[NDArray[np.int64], Range]]:
    """The frames that are alike, in stretches, and the seconds of each."""
    rows = np.flatnonzero(alike)
    if not len(rows):
        return []
    cuts = np.flatnonzero(frames.starts[rows[1:]] - frames.ends[rows[:-1]] > _PAUSE) + 1
    return [(part, (float(frames.starts[part[0]]), float(frames.ends[part[-1]]))) for part in np.split(rows, cuts)]


def _picture(fingerprint: Fingerprint) -> Frames | None:
    """A picture as a video of one frame, or None where it has too little in it."""
    pdq = fingerprint.component(PDQ)
    if pdq is None or fingerprint.sketch.info.get("quality", 0) < MIN_QUALITY:
        return None
    nothing, one = np.zeros(1), np.ones(1)
    vectors = vectors_of(fingerprint)[:1]
    vectors = vectors if len(vectors) else np.zeros((1, 0), np.float32)
    return Frames(pdq.values[:, np.newaxis], vectors, nothing, nothing, one, 0.0)


def _model(fingerprint: Fingerprint) -> str:
    """The network that described a picture."""
    return next((c.algorithm for c in fingerprint.sketch.components if c.kind == "signs"), "")
