"""What of one video is in another, where on both sides, and by which evidence: frames, regions of frames, sound."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fingerprint_dagster.content import Fingerprint, Match
from fingerprint_dagster.media.audio.sketch import match_audio
from fingerprint_dagster.media.video import alignment, crossing, regions
from fingerprint_dagster.media.video.frames import Frames, distances, frames_of
from fingerprint_dagster.media.video.sketch import FEATURES

FRAMES = "frame_sequence_v1"
REGIONS = FEATURES
SOUNDTRACK = "soundtrack_"

# Where frames explain that much of the query, no one looks for regions.
_EXPLAINED = 0.9
# Bits by which the mirrored hashes must be nearer to call a segment mirrored.
_MIRRORED = 8


def match(query: Fingerprint, reference: Fingerprint) -> list[Match]:
    """Everything of the query that the reference contains, best first; one of them is a video, the other may be a
    picture or sound.

    Evidence "frame_sequence_v1": frames that are alike and follow one another as in the reference; the score is their
    mean likeness (see `frames`), the strength is in nats (see `alignment`); details: speed (above 1 where the query is
    faster), mirrored. Evidence "local_features_v1": parts of frames that show the
    reference smaller, cropped or turned, with boxes. Evidence "soundtrack_...": the sound, apart from the pictures.
    Pictures: see `crossing`.
    """
    types = {str(side.content.content_type) for side in (query, reference)}
    found = [] if "audio" in types else crossing.match(query, reference) if "image" in types else seen(query, reference)
    if "image" not in types:
        found += heard(query, reference)
    return sorted(found, key=lambda m: (m.evidence.startswith(SOUNDTRACK), -m.score))


def seen(query: Fingerprint, reference: Fingerprint) -> list[Match]:
    """The matches of two videos by their pictures."""
    ours, theirs = frames_of(query), frames_of(reference)
    segments = alignment.align(ours, theirs) if ours and theirs else []
    found = [by_frames(ours, theirs, reference, segment) for segment in segments] if ours and theirs else []
    known = sum(segment.query[1] - segment.query[0] for segment in segments)
    if ours is None or known < _EXPLAINED * (ours.ends[-1] - ours.starts[0]):
        inset = by_regions(query, reference)
        if inset is not None and not any(_explains(match, inset) for match in found):
            found.append(inset)
    return found


def by_frames(query: Frames, reference: Frames, fingerprint: Fingerprint, segment: alignment.Segment) -> Match:
    """The match that a segment is."""
    rows, others = segment.frames.T
    apart = distances(query.of(rows), reference.of(others))
    upright, mirrored = (float(np.median(np.diagonal(bits))) for bits in (apart[0], apart[-1]))
    return Match(
        fingerprint.content,
        max(0.0, min(1.0, segment.similarity)),
        FRAMES,
        segment.query,
        segment.reference,
        strength=segment.evidence,
        details={
            "speed": round(segment.speed, 3),
            "mirrored": mirrored < upright - _MIRRORED,
        },
    )


def by_regions(query: Fingerprint, reference: Fingerprint) -> Match | None:
    """The match by local features of some frames, or None."""
    ours, theirs = regions.pictures_of(query), regions.pictures_of(reference)
    if ours is None or theirs is None:
        return None
    proven = regions.agreeing(ours, theirs, regions.sights(ours, theirs, regions.MIN_SIGHT))
    support = sum(sight.support for sight in proven)
    # One picture that both show may be a title card, unless one of them is nothing else.
    different = min(len({s.query for s in proven}), len({s.reference for s in proven}))
    if not proven or proven[0].support < regions.MIN_BEST or support < regions.MIN_PROOF:
        return None
    if different < min(2, len(ours), len(theirs)):
        return None
    inset = regions.follow(ours, theirs, proven)
    sight = inset.sight
    return Match(
        reference.content,
        sight.support / (sight.support + 6),
        REGIONS,
        inset.query,
        inset.reference,
        sight.query_box,
        sight.reference_box,
        strength=support,
        details={"mirrored": sight.mirrored},
    )


def heard(query: Fingerprint, reference: Fingerprint) -> list[Match]:
    """The matches by sound, of which at least one side is a soundtrack."""
    return [replace(match, evidence=SOUNDTRACK + match.evidence) for match in match_audio(query, reference)]


def strengths(query: Fingerprint, reference: Fingerprint) -> dict[str, float]:
    """What each evidence of `match` has to say of two contents, copies or not: see `ContentTypePlugin.strengths`."""
    types = {str(side.content.content_type) for side in (query, reference)}
    told: dict[str, float] = {}
    if types == {"video"}:
        ours, theirs = frames_of(query), frames_of(reference)
        segments = alignment.align(ours, theirs, least=0.0) if ours and theirs else []
        told |= {FRAMES: max(segment.evidence for segment in segments)} if segments else {}
    if "audio" not in types:
        one, other = regions.pictures_of(query), regions.pictures_of(reference)
        sights = regions.sights(one, other, 0.0) if one and other else []
        if sights and one and other:
            proof = sights[:1] if "image" in types else regions.agreeing(one, other, sights)
            told[REGIONS] = sum(sight.support for sight in proof)
    if "image" in types:
        return told | crossing.strengths(query, reference)
    for match in heard(query, reference):
        strength = match.score if match.strength is None else match.strength
        told[match.evidence] = max(strength, told.get(match.evidence, 0.0))
    return told


def _explains(match: Match, inset: Match) -> bool:
    """Whether a match by frames already says what an inset says: both ranges overlap."""
    sides = ((match.query_range, inset.query_range), (match.reference_range, inset.reference_range))
    return all(one and other and min(one[1], other[1]) > max(one[0], other[0]) for one, other in sides)
