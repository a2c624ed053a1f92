"""What of a video is found in another, where, and what is not: real copies made here, and frames made up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import cv2
import iscc_samples
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from videos import DEMO, DEMO_SECONDS, SAMPLES, pictures, record, scenes

from fingerprint_dagster import codec
from fingerprint_dagster.content import Content, Fingerprint, Match, Sketch
from fingerprint_dagster.media.audio import AudioPlugin
from fingerprint_dagster.media.image import ImagePlugin
from fingerprint_dagster.media.image.pdq import MAX_DISTANCE
from fingerprint_dagster.media.plugin import ContentTypePlugin
from fingerprint_dagster.media.video import VideoPlugin, alignment, sketch
from fingerprint_dagster.media.video.alignment import align
from fingerprint_dagster.media.video.frames import Frames, evidence, news
from fingerprint_dagster.media.video.match import FRAMES, REGIONS
from fingerprint_dagster.models import ModelRuntime

PLUGIN = VideoPlugin()
MODEL = "efficientnet_lite0_gem_w512_v1"


@pytest.fixture(scope="module")
def models() -> ModelRuntime:
    return ModelRuntime("cpu")


def fingerprint(path: Path, models: ModelRuntime, plugin: ContentTypePlugin = PLUGIN) -> Fingerprint:
    decoded = plugin.decode(path)
    (embedded,) = plugin.embed([decoded], models)
    return of_sketch(path.name, plugin.hash(decoded, embedded), plugin.name)


def of_sketch(name: str, sketch: Sketch, content_type: str = "video") -> Fingerprint:
    return Fingerprint(Content(name, f"file:///{name}", content_type), name, 1, "", name, sketch)


@pytest.fixture(scope="module")
def demo(models: ModelRuntime) -> Fingerprint:
    return fingerprint(DEMO, models)


@pytest.fixture(scope="module")
def film() -> list[tuple[float, np.ndarray]]:
    """12 seconds of the demo, 352 x 288, at a quarter of its frames."""
    large = (
        (time - 20, cv2.resize(picture, (352, 288), interpolation=cv2.INTER_CUBIC))
        for time, picture in pictures(DEMO, 20, 32)
    )
    return [each for number, each in enumerate(large) if number % 4 == 0]


@pytest.fixture(scope="module")
def silent_film(
    film: list[tuple[float, np.ndarray]], models: ModelRuntime, tmp_path_factory: pytest.TempPathFactory
) -> Fingerprint:
    return fingerprint(record(tmp_path_factory.mktemp("film") / "film.mp4", film), models)


def seen(query: Fingerprint, reference: Fingerprint) -> list[Match]:
    """The matches by pictures."""
    return [match for match in PLUGIN.match(query, reference) if not match.evidence.startswith("soundtrack_")]


# The fingerprint


def test_the_components_of_the_demo(demo: Fingerprint) -> None:
    n = demo.sketch.info["frames"]
    pdq, quality, signs, exact, mean = (
        demo.component(name) for name in ("pdq_v1", "pdq_quality_v1", MODEL, f"{MODEL}_int8", f"{MODEL}_mean")
    )
    assert pdq is not None
    assert quality is not None
    assert signs is not None
    assert exact is not None
    assert mean is not None
    assert (pdq.kind, signs.kind, mean.kind) == ("hamming", "signs", "signs")
    assert (pdq.values.shape, signs.values.shape, exact.values.shape) == ((2 * n, 32), (n, 64), (n, 512))
    assert (quality.values.shape, mean.values.shape) == ((n,), (1, 64))
    assert pdq.positions is not None
    assert pdq.searchable is not None
    assert pdq.asked is not None
    np.testing.assert_array_equal(pdq.positions[1:n, 0], pdq.positions[: n - 1, 1])
    assert pdq.positions[n - 1, 1] == demo.sketch.info["duration"] == pytest.approx(DEMO_SECONDS, abs=0.01)
    # Others find the upright hashes only; a query asks for the mirrored ones too.
    assert pdq.searchable[:n].sum() > 0.8 * n
    assert not pdq.searchable[n:].any()
    np.testing.assert_array_equal(pdq.asked, np.tile(pdq.searchable[:n], 2))
    # Sound and pictures are named as in fingerprints of sound and pictures.
    assert {"chromaprint_v1", "landmark_triples_v1", "local_words_v1", MODEL} <= {
        c.algorithm for c in demo.sketch.components
    }
    assert demo.sketch.info["low_information"] is False
    restored = codec.value_to_sketch(codec.decode(codec.encode(codec.sketch_to_value(demo.sketch))))
    assert restored.info == demo.sketch.info


def test_vectors_come_back_in_the_order_of_the_videos(tmp_path: Path, models: ModelRuntime) -> None:
    counts = (3, 1, 2)
    values = [PLUGIN.decode(record(tmp_path / f"{n}.mp4", enumerate(scenes(n, seed=n)), g="1")) for n in counts]
    together = [value.arrays[MODEL] for value in PLUGIN.embed(values, models)]
    assert [len(vectors) for vectors in together] == [3, 1, 2]
    for value, vectors in zip(values, together, strict=True):
        alone = PLUGIN.embed([value], models)[0].arrays[MODEL]
        np.testing.assert_allclose((alone * vectors).sum(axis=1), 1, atol=1e-2)
    assert float(together[0][0] @ together[2][0]) < 0.9
    assert PLUGIN.embed([], models) == []


def test_black_video_has_low_information_and_matches_nothing(tmp_path: Path, models: ModelRuntime) -> None:
    black = [(float(second), np.zeros((120, 160, 3), np.uint8)) for second in range(8)]
    one = fingerprint(record(tmp_path / "a.mp4", black), models)
    two = fingerprint(record(tmp_path / "b.mp4", black, crf="40"), models)
    assert one.sketch.info["low_information"] is True
    assert not any(c.searchable.any() for c in one.sketch.components if c.searchable is not None)
    assert PLUGIN.match(one, two) == []
    assert PLUGIN.match(one, one) == []


def test_repeats_are_compared_with_the_last_frame_kept() -> None:
    """A picture that changes by one bit a frame is looked up again once it has moved on by more than two."""
    hashes = np.zeros((7, 32), np.uint8)
    for row in range(7):
        hashes[row, 0] = (1 << row) - 1
    usable = np.array([True, True, True, True, False, True, True])
    assert sketch.first_of_runs(hashes, usable).tolist() == [True, False, False, True, False, False, True]


@given(st.lists(st.floats(0.05, 30), min_size=1, max_size=2000), st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_local_features_are_of_a_bounded_number_of_frames(steps: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = np.cumsum(steps)
    shots = np.cumsum(rng.random(len(steps)) < 0.1).astype(np.int32)
    usable = rng.random(len(steps)) < 0.9
    chosen = sketch.feature_frames(times, shots, usable)
    assert len(chosen) == len(set(chosen)) <= sketch.MAX_FEATURE_FRAMES
    assert all(usable[chosen])
    if len(chosen) < sketch.MAX_FEATURE_FRAMES:
        assert set(shots[usable]) == set(shots[chosen])


# Copies


@pytest.mark.parametrize("name", ["demo.webm", "demo.3gp", "demo.ogv"])
def test_another_container_matches_over_its_whole_duration(demo: Fingerprint, models: ModelRuntime, name: str) -> None:
    copy = fingerprint(SAMPLES[name], models)
    for query, reference in ((demo, copy), (copy, demo)):
        found = PLUGIN.match(query, reference)
        match = found[0]
        assert match.evidence == FRAMES
        assert match.reference == reference.content
        assert match.score > 0.7
        # The demo fades in from black.
        assert match.query_range == pytest.approx((0.8, 60), abs=1.3)
        assert match.reference_range == pytest.approx((0.8, 60), abs=1.3)
        assert match.details == {"speed": 1.0, "mirrored": False}
        assert [m.evidence for m in seen(query, reference)] == [FRAMES]
        sound = next(m for m in found if m.evidence == "soundtrack_chromaprint_v1")
        assert sound.query_range == pytest.approx((0, 60), abs=1)


@pytest.mark.parametrize(
    ("start", "seconds", "size", "codec_name", "options"),
    [
        (10.3, 5, (320, 240), "libx264", {}),
        (33.1, 10, (426, 240), "libx264", {"b": "100k", "g": "48"}),
        (52.5, 7, (352, 288), "mpeg4", {}),
        (38.8, 5, (128, 96), "libx264", {"crf": "36"}),
    ],
)
def test_an_excerpt_is_found_where_it_was_cut(
    demo: Fingerprint,
    models: ModelRuntime,
    tmp_path: Path,
    start: float,
    seconds: float,
    size: tuple[int, int],
    codec_name: str,
    options: dict[str, str],
) -> None:
    path = tmp_path / ("excerpt.avi" if codec_name == "mpeg4" else "excerpt.mp4")
    record(path, pictures(DEMO, start, start + seconds), size=size, codec_name=codec_name, **options)
    excerpt = fingerprint(path, models)
    (match,) = PLUGIN.match(excerpt, demo)
    assert match.query_range == pytest.approx((0, seconds), abs=1.5)
    assert match.reference_range == pytest.approx((start, start + seconds), abs=1.5)
    # The shot goes on before and after the cut and hardly moves, so a border can be one of the film's keyframes off.
    (back,) = PLUGIN.match(demo, excerpt)
    assert back.query_range == pytest.approx((start, start + seconds), abs=2.5)
    assert back.reference_range == pytest.approx((0, seconds), abs=1.5)
    assert PLUGIN.match(excerpt, demo) == [match]


def letterboxed(picture: np.ndarray) -> np.ndarray:
    return np.pad(picture, ((48, 48), (0, 0), (0, 0)))


def cropped(picture: np.ndarray) -> np.ndarray:
    return picture[30:260, 40:320]


def written_on(picture: np.ndarray) -> np.ndarray:
    return cv2.putText(picture.copy(), "SEEN ON TV", (20, 250), cv2.FONT_HERSHEY_SIMPLEX, 1.7, (255, 255, 0), 5)


def grey(picture: np.ndarray) -> np.ndarray:
    return np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)


def filmed(picture: np.ndarray) -> np.ndarray:
    """Off a screen: in perspective, soft and noisy."""
    corners = np.array([[0, 0], [352, 0], [352, 288], [0, 288]], np.float32)
    seen_at = np.array([[8, 4], [346, 10], [342, 280], [4, 284]], np.float32)
    warped = cv2.warpPerspective(picture, cv2.getPerspectiveTransform(corners, seen_at), (352, 288))
    noise = np.random.default_rng(0).normal(0, 4, warped.shape)
    return np.clip(cv2.GaussianBlur(warped, (3, 3), 0) * 0.9 + 10 + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("edit", [letterboxed, cropped, written_on, grey, filmed, np.fliplr])
def test_an_edited_copy_is_found(
    edit: Callable[[np.ndarray], np.ndarray],
    film: list[tuple[float, np.ndarray]],
    silent_film: Fingerprint,
    models: ModelRuntime,
    tmp_path: Path,
) -> None:
    copy = fingerprint(
        record(tmp_path / "copy.mp4", [(time, edit(picture)) for time, picture in film], crf="30"), models
    )
    (match,) = PLUGIN.match(copy, silent_film)
    assert match.evidence in ((FRAMES, REGIONS) if edit is cropped else (FRAMES,))
    assert match.query_range == pytest.approx((0, 12), abs=1.5)
    assert match.reference_range == pytest.approx((0, 12), abs=1.5)
    assert match.details["mirrored"] == (edit is np.fliplr)
    assert match.details.get("speed", 1) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("speed", [0.85, 1.15])
def test_a_copy_at_another_speed_is_one_segment(
    speed: float, film: list[tuple[float, np.ndarray]], silent_film: Fingerprint, models: ModelRuntime, tmp_path: Path
) -> None:
    copy = fingerprint(record(tmp_path / "copy.mp4", [(time / speed, picture) for time, picture in film]), models)
    (match,) = PLUGIN.match(copy, silent_film)
    assert match.details["speed"] == pytest.approx(speed, abs=0.06)
    assert match.query_range == pytest.approx((0, 12 / speed), abs=1.2)
    assert match.reference_range == pytest.approx((0, 12), abs=1.2)


def test_a_picture_in_a_picture_is_found_with_its_box(
    film: list[tuple[float, np.ndarray]], silent_film: Fingerprint, models: ModelRuntime, tmp_path: Path
) -> None:
    backs = [cv2.resize(picture, (704, 576), interpolation=cv2.INTER_CUBIC) for picture in scenes(2, seed=3)]

    def inset(time: float, picture: np.ndarray) -> np.ndarray:
        frame = backs[int(time > 6)].copy()
        frame[260:548, 330:682] = picture
        return frame

    path = record(tmp_path / "inset.mp4", [(time, inset(time, picture)) for time, picture in film])
    (match,) = PLUGIN.match(fingerprint(path, models), silent_film)
    assert match.evidence == REGIONS
    # The film itself is letterboxed, and what is found is what lies between its bars.
    assert match.query_box is not None
    assert match.reference_box is not None
    left, top, right, bottom = match.reference_box
    assert (left, top, right, bottom) == pytest.approx((0, 0.16, 1, 0.84), abs=0.04)
    expected = (
        (330 + 352 * left) / 704,
        (260 + 288 * top) / 576,
        (330 + 352 * right) / 704,
        (260 + 288 * bottom) / 576,
    )
    assert match.query_box == pytest.approx(expected, abs=0.02)
    assert match.query_range is not None
    assert match.reference_range is not None
    assert match.query_range[0] == pytest.approx(match.reference_range[0], abs=1.2)
    assert match.query_range[1] - match.query_range[0] > 6


def test_parts_in_another_order_are_told_one_by_one(
    film: list[tuple[float, np.ndarray]], silent_film: Fingerprint, models: ModelRuntime, tmp_path: Path
) -> None:
    other = [(12 + number / 2, picture) for number, picture in enumerate(scenes(8, seed=4))]
    late = [(time - 6, picture) for time, picture in film if time >= 6]
    early = [(time + 10, picture) for time, picture in film if time < 6]
    between = [(time - 6, cv2.resize(picture, (352, 288))) for time, picture in other]
    path = record(tmp_path / "cut.mp4", [*late, *between, *early])
    found = sorted(PLUGIN.match(fingerprint(path, models), silent_film), key=lambda m: m.query_range or (0, 0))
    assert [m.evidence for m in found] == [FRAMES, FRAMES]
    assert found[0].query_range == pytest.approx((0, 6), abs=1.2)
    assert found[0].reference_range == pytest.approx((6, 12), abs=1.2)
    assert found[1].query_range == pytest.approx((10, 16), abs=1.2)
    assert found[1].reference_range == pytest.approx((0, 6), abs=1.2)


# What is no copy


def part(whole: Fingerprint, start: float, end: float) -> Fingerprint:
    """The fingerprint of a stretch of a video's frames, as if it had been cut there, without sound and features."""
    pdq = whole.component("pdq_v1")
    assert pdq is not None
    assert pdq.positions is not None
    count = len(pdq.values) // 2
    chosen = np.flatnonzero((pdq.positions[:count, 0] >= start) & (pdq.positions[:count, 0] < end))
    components = []
    for component in whole.sketch.components:
        rows = np.concatenate([chosen, chosen + count]) if component.algorithm == "pdq_v1" else chosen
        if component.algorithm in ("pdq_v1", "pdq_quality_v1", MODEL, f"{MODEL}_int8"):
            positions = (
                None if component.positions is None else (component.positions[rows] - start).clip(0, end - start)
            )
            components.append(
                replace(component, values=component.values[rows], positions=positions, searchable=None, asked=None)
            )
    return of_sketch(f"{start}-{end}", Sketch(tuple(components), {"duration": end - start}))


def test_other_parts_of_the_same_concert_do_not_match(demo: Fingerprint) -> None:
    """Hard negatives: one stage, one band, the same cameras, other moments."""
    parts = [part(demo, start, start + 20) for start in range(0, 60, 20)]
    assert all(PLUGIN.match(a, a) for a in parts)
    assert [(a.key, b.key) for a in parts for b in parts if a is not b and PLUGIN.match(a, b)] == []


def test_fingerprints_without_the_components_do_not_match(demo: Fingerprint) -> None:
    empty = of_sketch("empty", Sketch(()))
    for content_type in ("video", "image", "audio"):
        other = replace(empty, content=replace(empty.content, content_type=content_type))
        assert PLUGIN.match(other, demo) == []
        assert PLUGIN.match(demo, other) == []


def test_a_single_picture_is_found_in_a_video_and_two_videos_need_two(tmp_path: Path, models: ModelRuntime) -> None:
    film = scenes(10)
    reference = fingerprint(record(tmp_path / "film.mp4", enumerate(film), g="1"), models)
    single = fingerprint(record(tmp_path / "single.mp4", [(0.0, film[6])]), models)
    (match,) = PLUGIN.match(single, reference)
    assert match.reference_range is not None
    assert match.reference_range[0] == pytest.approx(6, abs=0.1)
    other = scenes(10, seed=5)
    other[4:6] = film[7:9]
    shared = fingerprint(record(tmp_path / "shared.mp4", enumerate(other), g="1"), models)
    (match,) = PLUGIN.match(shared, reference)
    assert match.query_range == pytest.approx((4, 6), abs=0.2)
    assert match.reference_range == pytest.approx((7, 9), abs=0.2)


def test_a_title_card_shared_by_two_films_is_no_sequence(tmp_path: Path, models: ModelRuntime) -> None:
    """A card that stands for six seconds is still one picture."""
    card = scenes(1, seed=9)[0]
    one = fingerprint(record(tmp_path / "one.mp4", enumerate([card] * 6 + scenes(6, seed=1)), g="1"), models)
    two = fingerprint(record(tmp_path / "two.mp4", enumerate(scenes(6, seed=2) + [card] * 6), g="1"), models)
    assert [m for m in PLUGIN.match(one, two) if m.evidence == FRAMES] == []


# Pictures and sounds


@pytest.mark.parametrize("bars", [False, True])
def test_a_picture_finds_the_frames_it_was_taken_from(
    bars: bool, demo: Fingerprint, models: ModelRuntime, tmp_path: Path
) -> None:
    """As the film is shown, with its black bars, or without them."""
    pdq = demo.component("pdq_v1")
    assert pdq is not None
    assert pdq.positions is not None
    time = float(pdq.positions[30, 0])
    _, picture = next(pictures(DEMO, time - 0.01))
    shown = picture if bars else picture[23:121]
    cv2.imwrite(str(tmp_path / "still.png"), cv2.resize(shown, None, fx=3, fy=3)[:, :, ::-1])
    still = fingerprint(tmp_path / "still.png", models, ImagePlugin())
    match = PLUGIN.match(still, demo)[0]
    assert match.evidence in (("pdq_v1", REGIONS) if bars else ("pdq_v1",))
    assert match.reference == demo.content
    assert match.query_range is None
    assert match.reference_range is not None
    assert match.reference_range[0] - 2 <= time <= match.reference_range[1] + 2
    if match.evidence == "pdq_v1":
        assert PLUGIN.strengths(still, demo)["pdq_v1"] == match.score
    back = PLUGIN.match(demo, still)[0]
    assert (back.reference, back.query_range, back.reference_range) == (still.content, match.reference_range, None)


def test_a_picture_of_something_else_finds_nothing(demo: Fingerprint, models: ModelRuntime) -> None:
    for path in iscc_samples.images():
        if path.suffix in (".jpg", ".png"):
            other = fingerprint(path, models, ImagePlugin())
            assert PLUGIN.match(other, demo) == PLUGIN.match(demo, other) == []
            # What is less than a match is told to the calibration.
            told = [PLUGIN.strengths(*pair).get("pdq_v1", 0.5) for pair in ((other, demo), (demo, other))]
            assert told[0] == told[1] < 1 - MAX_DISTANCE / 256


def test_part_of_a_frame_is_found_with_its_box(
    film: list[tuple[float, np.ndarray]], silent_film: Fingerprint, models: ModelRuntime, tmp_path: Path
) -> None:
    _, picture = film[0]
    cv2.imwrite(str(tmp_path / "part.png"), cv2.resize(picture[60:240, 80:300], (660, 540))[:, :, ::-1])
    match = PLUGIN.match(fingerprint(tmp_path / "part.png", models, ImagePlugin()), silent_film)[0]
    assert match.evidence == REGIONS
    assert match.reference_range is not None
    assert match.reference_range[0] == pytest.approx(0, abs=2.1)
    assert match.reference_box == pytest.approx((80 / 352, 60 / 288, 300 / 352, 240 / 288), abs=0.05)


def test_a_soundtrack_is_found_both_ways(demo: Fingerprint, models: ModelRuntime, tmp_path: Path) -> None:
    """Ten seconds of the sound alone."""
    path = tmp_path / "sound.wav"
    with av.open(str(DEMO)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream("pcm_s16le", rate=44100)
        for frame in source.decode(audio=0):
            if 20 <= frame.time < 30:
                frame.pts = None
                target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    sound = fingerprint(path, models, AudioPlugin())
    (match,) = PLUGIN.match(sound, demo)
    assert match.evidence == "soundtrack_chromaprint_v1"
    assert match.query_range == pytest.approx((0, 10), abs=0.6)
    assert match.reference_range == pytest.approx((20, 30), abs=0.6)
    back = PLUGIN.match(demo, sound)[0]
    assert back.reference == sound.content
    assert back.query_range == pytest.approx((20, 30), abs=0.6)


# Alignment, on frames that exist only as hashes


def frames_of(hashes: np.ndarray, starts: np.ndarray) -> Frames:
    ends = np.append(starts[1:], starts[-1] + 1)
    vectors = np.zeros((len(hashes), 0), np.float32)
    return Frames(hashes[np.newaxis], vectors, starts, ends, news(hashes), float(ends[-1]))


def random_hashes(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.integers(0, 256, (n, 32), dtype=np.uint8)


def flipped(rng: np.random.Generator, hashes: np.ndarray, bits: int) -> np.ndarray:
    """Each hash with `bits` of its bits turned over."""
    flat = np.unpackbits(hashes, axis=1)
    for row in flat:
        row[rng.choice(256, bits, replace=False)] ^= 1
    return np.packbits(flat, axis=1)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    before=st.integers(0, 50),
    length=st.integers(4, 40),
    after=st.integers(0, 50),
    phase=st.floats(0, 0.5),
    bits=st.integers(0, 60),
    speed=st.sampled_from([0.8, 0.9, 1.0, 1.1, 1.25]),
)
def test_a_planted_stretch_is_found(
    seed: int, before: int, length: int, after: int, phase: float, bits: int, speed: float
) -> None:
    rng = np.random.default_rng(seed)
    film = random_hashes(rng, before + length + after)
    copy = flipped(rng, film[before : before + length], bits)
    # The excerpt stands between other pictures, and its own clock runs from another moment.
    lead, tail = int(rng.integers(0, 8)), int(rng.integers(0, 8))
    query = np.concatenate([random_hashes(rng, lead), copy, random_hashes(rng, tail)])
    ours = frames_of(query, np.arange(len(query)) / speed)
    theirs = frames_of(film, np.arange(len(film)) + phase)
    segment = align(ours, theirs)[0]
    assert segment.query == pytest.approx((lead / speed, (lead + length) / speed), abs=1.3)
    assert segment.reference == pytest.approx((before + phase, before + length + phase), abs=1.3)
    if length >= 10:
        assert segment.speed == pytest.approx(speed, abs=0.06)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_unrelated_hashes_do_not_align(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ours, theirs = (frames_of(random_hashes(rng, 300), np.arange(300.0)) for _ in range(2))
    assert align(ours, theirs) == []


def test_an_excerpt_that_occurs_twice_and_a_film_with_a_part_removed() -> None:
    rng = np.random.default_rng(1)
    film = random_hashes(rng, 60)
    twice = np.concatenate([film[10:20], film[30:40], film[10:20]])
    segments = align(frames_of(film, np.arange(60.0)), frames_of(twice, np.arange(30.0)))
    assert sorted((s.query, s.reference) for s in segments) == [
        ((10, 20), (0, 10)),
        ((10, 20), (20, 30)),
        ((30, 40), (10, 20)),
    ]


def test_frames_that_match_at_scattered_offsets_do_not_align() -> None:
    """Common frames in another order, far from each other, are no copy of a stretch."""
    rng = np.random.default_rng(2)
    film = random_hashes(rng, 40)
    shuffled = film[np.arange(40) * 7 % 40]
    assert align(frames_of(film, np.arange(40.0) * 5), frames_of(shuffled, np.arange(40.0) * 5)) == []


def test_more_likeness_is_never_less_evidence() -> None:
    alike = np.linspace(-1, 1, 201)
    for same in (-1.0, 0.5, 1.0):
        worth = evidence(np.full(201, same), np.maximum(alike, same))
        assert (np.diff(worth) >= 0).all()
        assert worth[-1] < alignment.MIN_EVIDENCE
    assert evidence(np.array([-1.0]), np.array([0.0]))[0] < 0
    # What all frames of two videos have in common is no evidence.
    assert evidence(np.array([0.0]), np.array([0.6]), 0.6)[0] < 0 < evidence(np.array([0.0]), np.array([0.6]), 0.1)[0]
