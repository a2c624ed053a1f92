"""The frames and the soundtrack of a video to the components of its fingerprint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fingerprint_dagster.content import Component, Sketch, Value
from fingerprint_dagster.media.audio import sketch as sound
from fingerprint_dagster.media.image import local_features, pdq
from fingerprint_dagster.media.image.match import as_int8, exact

if TYPE_CHECKING:
    from fingerprint_dagster.models import ModelRuntime
    from fingerprint_dagster.models.backbones import ImageModel

U8 = NDArray[np.uint8]
F64 = NDArray[np.float64]

PDQ = pdq.ALGORITHM
PDQ_QUALITY = "pdq_quality_v1"
CONTENT_BOX = "content_box_v1"
WORDS = local_features.WORDS_ALGORITHM
FEATURES = local_features.ALGORITHM
FEATURE_FRAMES = "local_feature_frames_v1"

REPEAT_DISTANCE = 2  # bits: what re-encoding alone changes in a picture that stands still
# Local features prove picture-in-picture, crops and pictures used in a video. They cost as much as hash and descriptor
# together, so a frame has them where the shot changes, or this many seconds after the last that has.
FEATURES_STEP = 2.0
MAX_FEATURE_FRAMES = 480  # of a longer video than 16 minutes fewer: 3 MB
FEATURES_PER_FRAME = 128
_CHUNK = 256  # frames handed to the model at once: 39 MB
_SOUND = "sound_"  # what the arrays of the soundtrack are called among those of the frames


def embed(decoded: Sequence[Value], models: ModelRuntime, model: ImageModel) -> list[Value]:
    """Vectors of every frame, and what the sound is embedded to.

    For each video the array named like the model, float32 [n, dim], rows of length 1; and where there is a soundtrack
    those of `audio.sketch.embed_audio`, with "sound_" before their names.
    The frames of all videos fill the model's batches together, so short videos do not leave them half empty.
    """
    from fingerprint_dagster.media.video.soundtrack import soundtrack

    counts = [len(value.arrays["times"]) for value in decoded]
    chunks = [models.embed(model.spec, inputs) for inputs in _model_inputs(decoded, model.side)]
    rows = [each.reshape(len(each), -1, each.shape[-1])[:, 0] for each in chunks]
    parts = (
        np.split(np.concatenate(rows), np.cumsum(counts)[:-1]) if rows else [np.zeros((0, 0), np.float32)] * len(counts)
    )
    tracks = [soundtrack(value) for value in decoded]
    heard = iter(sound.embed_audio([track for track in tracks if track is not None], models))
    return [
        Value(
            {model.spec.name: part}
            | ({_SOUND + name: a for name, a in next(heard).arrays.items()} if track is not None else {})
        )
        for part, track in zip(parts, tracks, strict=True)
    ]


def _model_inputs(decoded: Sequence[Value], side: int) -> Iterator[U8]:
    from fingerprint_dagster.models.efficientnet_lite import model_input

    chunk: list[U8] = []
    for value in decoded:
        for frame in value.arrays["frames"]:
            chunk.append(model_input(frame, side))
            if len(chunk) == _CHUNK:
                yield np.stack(chunk)
                chunk = []
    if chunk:
        yield np.stack(chunk)


def sketch(decoded: Value, embedded: Value) -> Sketch:
    """The components of one video. n frames, of which m have local features.

    "pdq_v1" (hamming, uint8 [2 n, 32]): the hashes of all frames, then of all mirrored ones, with their times; asked
        are both, found only the first.
    MODEL (signs, uint8 [n, dim / 8]) and MODEL_int8 (data, int8 [n, dim]): the descriptors.
    MODEL_mean (signs, uint8 [1, dim / 8]): the mean of those that are found: the whole video.
    "local_words_v1" (tokens, uint64 [k]) and "local_features_v1" (data, uint8 [k, 38]), as those of pictures, and
        "local_feature_frames_v1" (data, uint16 [k]): the number of the frame that each is in.
    "pdq_quality_v1" (data, uint8 [n]): 0..100, 0 where the frame is flat.
    "content_box_v1" (data, float32 [n, 4]): what of the frame is not border: left, top, right, bottom as fractions.
    Those of the soundtrack, named as in the fingerprints of sound (see `audio.sketch.sketch_audio`).

    A frame's position runs from its time to the next frame's; the last one's to the end of the video. Found are frames
    with enough features for PDQ (quality 50 or more), not flat, that do not repeat the one before. `low_information`
    in the info: there is no such frame, and no sound that says more.
    """
    from fingerprint_dagster.media.video.soundtrack import soundtrack

    times, info = decoded.arrays["times"], dict(decoded.info)
    count = len(times)
    frames, boxes = decoded.arrays["frames"], decoded.arrays["borders"]
    ((model, vectors),) = ((name, a) for name, a in embedded.arrays.items() if not name.startswith(_SOUND))
    hashes, qualities = pdq.pdq_frames_v1(frames)
    mirrored, _ = pdq.pdq_frames_v1(frames[:, :, ::-1])
    qualities[decoded.arrays["flat"]] = 0
    positions = np.column_stack([times, [*times[1:], max(info["duration"], times[-1])]])
    firsts = first_of_runs(hashes, qualities >= pdq.MIN_QUALITY)
    nothing = np.zeros(count, bool)
    numbers, features, words = _local_features(decoded, qualities > 0)
    track = soundtrack(decoded)
    heard = {name.removeprefix(_SOUND): a for name, a in embedded.arrays.items() if name.startswith(_SOUND)}
    sounds = sound.sketch_audio(track, Value(heard)) if track is not None else None
    mean = vectors[firsts].mean(axis=0, keepdims=True) if firsts.any() else np.zeros((1, vectors.shape[1]), np.float32)
    components = (
        Component(
            PDQ,
            "hamming",
            np.concatenate([hashes, mirrored]),
            np.concatenate([positions, positions]),
            np.concatenate([firsts, nothing]),
            np.concatenate([firsts, firsts]),
        ),
        Component(PDQ_QUALITY, "data", qualities),
        Component(model, "signs", np.packbits(vectors > 0, axis=1), positions, firsts),
        Component(exact(model), "data", as_int8(vectors)),
        Component(f"{model}_mean", "signs", np.packbits(mean > 0, axis=1), searchable=np.array([firsts.any()])),
        Component(WORDS, "tokens", words),
        Component(FEATURES, "data", features),
        Component(FEATURE_FRAMES, "data", numbers),
        Component(CONTENT_BOX, "data", np.asarray(boxes, np.float32)),
        *(sounds.components if sounds else ()),
    )
    silent = sounds is None or sounds.info["low_information"]
    info |= {"frames": count, "low_information": bool(silent and not firsts.any())}
    return Sketch(components, info)


def _local_features(decoded: Value, usable: NDArray[np.bool_]) -> tuple[NDArray[np.uint16], U8, NDArray[np.uint64]]:
    """Frame numbers, packed local features and their words, of some of the usable frames."""
    import cv2

    frames, boxes = decoded.arrays["frames"], decoded.arrays["borders"]
    numbers, packed, words = [np.zeros(0, np.uint16)], [np.zeros((0, 38), np.uint8)], [np.zeros(0, np.uint64)]
    for number in feature_frames(decoded.arrays["times"], decoded.arrays["shots"], usable):
        left, top, right, bottom = boxes[number]
        width, height = decoded.info["width"] * (right - left), decoded.info["height"] * (bottom - top)
        # As wide and high as it is shown: squashed shapes do not look like those of a copy in another shape.
        scale = len(frames[number]) / max(width, height, 1)
        size = (max(round(width * scale), 8), max(round(height * scale), 8))
        shown: Any = cv2.resize(frames[number], size, interpolation=cv2.INTER_AREA)
        found, its_words = local_features.local_features_v1(np.asarray(shown, np.uint8))
        rows = local_features.pack(found)[:FEATURES_PER_FRAME]
        numbers.append(np.full(len(rows), number, np.uint16))
        packed.append(rows)
        words.append(its_words[: len(rows)])
    return np.concatenate(numbers), np.concatenate(packed), np.concatenate(words)


def feature_frames(times: F64, shots: NDArray[np.int32], usable: NDArray[np.bool_]) -> list[int]:
    """The numbers of the frames that get local features, at most MAX_FEATURE_FRAMES."""
    chosen: list[int] = []
    for number in np.flatnonzero(usable).tolist():
        if (
            not chosen
            or times[number] - times[chosen[-1]] >= FEATURES_STEP - 1e-3
            or shots[number] != shots[chosen[-1]]
        ):
            chosen.append(number)
    if len(chosen) > MAX_FEATURE_FRAMES:
        chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, MAX_FEATURE_FRAMES).round().astype(int)]
    return chosen


def first_of_runs(hashes: U8, usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Of the usable rows, those that differ from the marked one before. hashes: uint8 [n, 32]; returns bool [n].

    Each is compared with the last one marked, not with its neighbour: a slow pan differs little from frame to frame.
    """
    marked = np.zeros(len(hashes), bool)
    last: U8 | None = None
    for row in np.flatnonzero(usable):
        if last is None or np.bitwise_count(hashes[row] ^ last).sum() > REPEAT_DISTANCE:
            marked[row] = True
            last = hashes[row]
    return marked
