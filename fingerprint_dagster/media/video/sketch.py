"""The frames of a video to the components of its fingerprint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fingerprint_dagster.content import Component, Sketch, Value
from fingerprint_dagster.media.image.pdq import MIN_QUALITY, pdq_frames_v1

if TYPE_CHECKING:
    from fingerprint_dagster.models import ModelRuntime

PDQ = "pdq_v1"
PDQ_QUALITY = "pdq_quality_v1"
EMBEDDING = "efficientnet_lite0_gem_v2"

REPEAT_DISTANCE = 2  # bits: what re-encoding alone changes in a picture that stands still
_CHUNK = 256  # frames handed to the model at once: 39 MB


def embed(decoded: Sequence[Value], models: ModelRuntime) -> list[Value]:
    """Vectors of every frame: for each video the array `vectors`, float32 [n, 1280], rows of length 1.

    The frames of all videos fill the model's batches together, so short videos do not leave them half empty.
    """
    from fingerprint_dagster.models.efficientnet_lite import EFFICIENTNET_LITE0_GEM_V2

    counts = [len(value.arrays["times"]) for value in decoded]
    if not sum(counts):
        return [Value() for _ in decoded]
    vectors = np.concatenate([models.embed(EFFICIENTNET_LITE0_GEM_V2, inputs) for inputs in _model_inputs(decoded)])
    return [Value({"vectors": part}) for part in np.split(vectors, np.cumsum(counts)[:-1])]


def _model_inputs(decoded: Sequence[Value]) -> Iterator[NDArray[np.uint8]]:
    from fingerprint_dagster.models.efficientnet_lite import model_input

    chunk: list[NDArray[np.uint8]] = []
    for value in decoded:
        for frame in value.arrays["frames"]:
            chunk.append(model_input(frame))
            if len(chunk) == _CHUNK:
                yield np.stack(chunk)
                chunk = []
    if chunk:
        yield np.stack(chunk)


def sketch(decoded: Value, embedded: Value) -> Sketch:
    """The components `pdq_v1`, `pdq_quality_v1` and `efficientnet_lite0_gem_v2`, one row a frame, with their times.

    A frame's position runs from its time to the next frame's; the last one's to the end of the video. Searchable are
    frames with enough features for PDQ (quality 50 or more) that do not repeat the searchable frame before them.
    `low_information` in the info: no frame is searchable.
    """
    times, info = decoded.arrays["times"], dict(decoded.info)
    hashes, qualities = pdq_frames_v1(decoded.arrays["frames"])
    positions = np.column_stack([times, [*times[1:], max(info["duration"], times[-1])]])
    searchable = first_of_runs(hashes, qualities >= MIN_QUALITY)
    info |= {"frames": len(times), "low_information": not searchable.any()}
    return Sketch(
        (
            Component(PDQ, "hamming", hashes, positions, searchable),
            Component(PDQ_QUALITY, "data", qualities),
            Component(EMBEDDING, "cosine", embedded.arrays["vectors"], positions, searchable),
        ),
        info,
    )


def first_of_runs(hashes: NDArray[np.uint8], usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Of the usable rows, those that differ from the marked one before. hashes: uint8 [n, 32]; returns bool [n].

    Each is compared with the last one marked, not with its neighbour: a slow pan differs little from frame to frame.
    """
    marked = np.zeros(len(hashes), bool)
    last: NDArray[np.uint8] | None = None
    for row in np.flatnonzero(usable):
        if last is None or np.bitwise_count(hashes[row] ^ last).sum() > REPEAT_DISTANCE:
            marked[row] = True
            last = hashes[row]
    return marked
