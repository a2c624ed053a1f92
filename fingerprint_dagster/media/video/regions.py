"""Where a video or a picture is shown inside another one: a proof by local features of some of their frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fingerprint_dagster.content import Box, Fingerprint
from fingerprint_dagster.media.image import geometry, local_features
from fingerprint_dagster.media.image.local_features import LocalFeatures
from fingerprint_dagster.media.video.sketch import CONTENT_BOX, FEATURE_FRAMES, FEATURES, PDQ, WORDS

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Pictures:
    """The frames of a video that have local features, or one picture.

    starts, ends: float64 [m], seconds. features: of each. words: uint64 [k], and owners: int64 [k], which has it.
    shapes: width and height in units of the longer side. boxes: float64 [m, 4], what of the whole frame each is.
    """

    starts: F64
    ends: F64
    features: tuple[LocalFeatures, ...]
    words: NDArray[np.uint64]
    owners: I64
    shapes: tuple[tuple[float, float], ...]
    boxes: F64

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True)
class Sight:
    """One picture of the reference seen in one of the query: their numbers, the support, and where on both sides."""

    query: int
    reference: int
    support: float
    mirrored: bool
    query_box: Box
    reference_box: Box


def pictures_of(fingerprint: Fingerprint) -> Pictures | None:
    """The pictures of a video or a picture, or None where there are no local features."""
    packed, words = fingerprint.component(FEATURES), fingerprint.component(WORDS)
    if packed is None or words is None or not len(packed.values):
        return None
    width, height = (float(fingerprint.sketch.info.get(side, 1)) for side in ("width", "height"))
    numbers, pdq = fingerprint.component(FEATURE_FRAMES), fingerprint.component(PDQ)
    if numbers is None or pdq is None or pdq.positions is None:  # a picture
        owners, chosen = np.zeros(len(packed.values), np.int64), np.zeros(1, np.int64)
        positions, boxes = np.zeros((1, 2)), np.array([[0.0, 0, 1, 1]])
    else:
        chosen, owners = np.unique(numbers.values.astype(np.int64), return_inverse=True)
        positions = pdq.positions[chosen]
        content = fingerprint.component(CONTENT_BOX)
        boxes = (
            np.tile([0.0, 0, 1, 1], (len(chosen), 1)) if content is None else content.values[chosen].astype(np.float64)
        )
    shapes = []
    for left, top, right, bottom in boxes.tolist():
        across, down = max((right - left) * width, 1.0), max((bottom - top) * height, 1.0)
        shapes.append((across / max(across, down), down / max(across, down)))
    features = tuple(local_features.unpack(packed.values[owners == index]) for index in range(len(chosen)))
    return Pictures(positions[:, 0], positions[:, 1], features, words.values, owners, tuple(shapes), boxes)


def shared_words(query: Pictures, reference: Pictures) -> I64:
    """How many different words each two pictures have in common, int64 [m, l]."""
    known, ours = np.unique(query.words, return_inverse=True)
    where = np.minimum(np.searchsorted(known, reference.words), len(known) - 1)
    common = known[where] == reference.words
    has = np.zeros((len(query), len(known)), np.float32)
    has[query.owners, ours] = 1
    theirs = np.zeros((len(reference), len(known)), np.float32)
    theirs[reference.owners[common], where[common]] = 1
    return np.asarray(np.rint(has @ theirs.T), np.int64)


def see(query: Pictures, reference: Pictures, one: int, other: int, least: float) -> Sight | None:
    """Whether a picture of the reference is seen in one of the query, with at least that support."""
    found = geometry.align(query.features[one], reference.features[other], least)
    if found is None:
        return None
    where = geometry.boxes(found.matrix, query.shapes[one], reference.shapes[other])
    if where is None:
        return None
    return Sight(
        one,
        other,
        found.support,
        found.mirrored,
        whole(where[0], query.boxes[one]),
        whole(where[1], reference.boxes[other]),
    )


def whole(box: Box, content: F64) -> Box:
    """A box within the content of a frame as a box of the whole frame."""
    left, top, right, bottom = content.tolist()
    across, down = right - left, bottom - top
    return left + box[0] * across, top + box[1] * down, left + box[2] * across, top + box[3] * down


# Pairs of pictures that are looked at, those that share most words; fewer than MIN_WORDS words are chance.
MOST_TRIED = 12
TRIED_EACH = 2  # of one picture of the query
MIN_WORDS = 2
# Drawings of one hand share figures: of videos that have nothing else in common one pair of pictures reached 15. What
# proves a stretch is the sum of the pairs that agree on when it is, each of at least MIN_SIGHT.
MIN_PROOF = 20.0
MIN_BEST = 12.0  # of the best of them: what proves two pictures
MIN_SIGHT = 8.0
AGREED = 1.5  # seconds
# Along the line that a proven pair gives, others need less to be seen.
MIN_AGAIN = 6.0
MAX_LATE = 2.5  # seconds between the moment that is asked and the picture that is compared


@dataclass(frozen=True)
class Inset:
    """A stretch of the query that shows the reference, in seconds on both sides, and the clearest sight of it."""

    query: tuple[float, float]
    reference: tuple[float, float]
    sight: Sight


def sights(query: Pictures, reference: Pictures, least: float, most: int = MOST_TRIED) -> list[Sight]:
    """What is seen in the `most` pairs of pictures that share most words, most support first."""
    common = shared_words(query, reference)
    # What stands still shares as many words at every moment: no picture of the query takes up more than its share.
    rank = np.argsort(np.argsort(-common, axis=1, kind="stable"), axis=1, kind="stable")
    share = -(-most // len(query)) if len(query) < most // TRIED_EACH else TRIED_EACH
    likely = np.argsort(np.where(rank < share, -common, 0), axis=None, kind="stable")[:most]
    pairs = [divmod(int(flat), common.shape[1]) for flat in likely]
    tried = [pair for pair in pairs if common[pair] >= MIN_WORDS and rank[pair] < share]
    seen = [see(query, reference, one, other, least) for one, other in tried]
    return sorted((sight for sight in seen if sight is not None), key=lambda s: (-s.support, s.query, s.reference))


def agreeing(query: Pictures, reference: Pictures, found: list[Sight]) -> list[Sight]:
    """Of all sights those that agree on when the reference is shown, most support first; the group of most support."""
    if not found:
        return []
    shift = np.array([reference.starts[s.reference] - query.starts[s.query] for s in found])
    support = np.array([s.support for s in found])
    near = np.abs(shift - shift[:, np.newaxis]) <= AGREED
    best = int((near @ support).argmax())
    return [sight for sight, agrees in zip(found, near[best], strict=True) if agrees]


def follow(query: Pictures, reference: Pictures, proven: list[Sight]) -> Inset:
    """How far the reference is shown, at its own speed, before and after the pictures that agree it is shown."""
    shift = np.array([reference.starts[s.reference] - query.starts[s.query] for s in proven])
    # Of an alike pair the support is the greater, the nearer the moments are.
    offset = float(np.average(shift, weights=np.array([s.support for s in proven]) ** 2))
    best = proven[0]
    known = {s.query for s in proven}
    first = last = best.query
    for step, beyond in ((-1, -1), (1, len(query))):
        missed = 0
        for one in range(best.query + step, beyond, step):
            late = np.abs(reference.starts - query.starts[one] - offset)
            other = int(late.argmin())
            if one in known or (late[other] <= MAX_LATE and see(query, reference, one, other, MIN_AGAIN) is not None):
                first, last, missed = min(first, one), max(last, one), 0
            else:
                missed += 1
                if missed > 2:
                    break
    end = float(query.starts[last + 1]) if last + 1 < len(query) else float(query.ends[last])
    start = max(float(query.starts[first]), -offset)
    end = max(min(end, float(reference.ends[-1]) - offset), start)
    return Inset((start, end), (start + offset, end + offset), best)
