"""Decoding of videos: which frames and what of them, from real files, edits made here, and files that are damaged."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import iscc_samples
import media_files
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from videos import DEMO, DEMO_SECONDS, SAMPLES, pictures, record, scenes

from fingerprint_dagster import codec
from fingerprint_dagster.content import Value
from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.media.image.pdq import pdq_frames_v1
from fingerprint_dagster.media.registry import content_types
from fingerprint_dagster.media.video import VideoPlugin, borders
from fingerprint_dagster.media.video.decode import decode
from fingerprint_dagster.media.video.outline import FILL_PIXELS, MAX_FRAMES, MAX_KEY_PIXELS, Outline, plan
from fingerprint_dagster.media.video.reel import FRAME_SIDE

PLUGIN = VideoPlugin()


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 seconds of the demo in an MP4 whose index stands first, a keyframe every second."""
    path = tmp_path_factory.mktemp("short") / "short.mp4"
    return record(path, pictures(DEMO, 20, 32), g="24", movflags="faststart")


@pytest.fixture(scope="module")
def whole() -> Value:
    """The demo, decoded."""
    return decode(DEMO)


# Recognising


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_every_sample_container_is_recognised(name: str) -> None:
    media_type = PLUGIN.sniff(SAMPLES[name].read_bytes()[:4096])
    assert media_type is not None
    assert media_type == "image/gif" if name == "demo.gif" else media_type.startswith(("video/", "application/"))


def test_media_types() -> None:
    expected = {
        "demo.mp4": "video/mp4",
        "demo.mov": "video/quicktime",
        "demo.3gp": "video/3gpp",
        "demo.3g2": "video/3gpp2",
        "demo.mkv": "video/x-matroska",
        "demo.webm": "video/webm",
        "demo.avi": "video/x-msvideo",
        "demo.mpg": "video/mpeg",
        "demo.m1v": "video/mpeg",
        "demo.flv": "video/x-flv",
        "demo.wmv": "video/x-ms-asf",
        "demo.ogv": "video/ogg",
    }
    assert {name: PLUGIN.sniff(SAMPLES[name].read_bytes()[:4096]) for name in expected} == expected


def test_a_transport_stream_is_recognised(tmp_path: Path) -> None:
    path = record(tmp_path / "a.ts", enumerate(scenes(3)))
    assert PLUGIN.sniff(path.read_bytes()[:4096]) == "video/mp2t"
    assert PLUGIN.sniff(b"G" * 188) is None  # one sync byte is no evidence


def test_other_types_are_not_video() -> None:
    others = [*iscc_samples.audios(), *iscc_samples.images(), *iscc_samples.texts()]
    assert len(others) > 20
    assert [path.name for path in others if PLUGIN.sniff(path.read_bytes()[:4096])] == []


@pytest.mark.parametrize("brand", [b"M4A ", b"avif", b"heic", b"crx "])
def test_sound_and_pictures_in_mp4_boxes_are_not_video(brand: bytes) -> None:
    assert PLUGIN.sniff(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0") is None
    assert PLUGIN.sniff(b"\0\0\0\x18ftypmp42\0\0\0\0") == "video/mp4"


def test_windows_media_sound_is_not_video() -> None:
    head = SAMPLES["demo.wmv"].read_bytes()[:4096]
    video = bytes.fromhex("c0ef19bc4d5bcf11a8fd00805f5c442b")
    assert video in head
    assert PLUGIN.sniff(head.replace(video, bytes(16))) is None


@given(st.binary(max_size=600))
def test_sniffing_never_raises_and_noise_is_not_video(head: bytes) -> None:
    assert PLUGIN.sniff(b"\x89" + head) is None
    PLUGIN.sniff(head)


# Decoding


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_every_sample_container_gives_the_frames_of_the_demo(whole: Value, name: str) -> None:
    value = decode(SAMPLES[name])
    frames, times, info = value.arrays["frames"], value.arrays["times"], value.info
    assert frames.dtype == np.uint8
    assert frames.shape == (len(times), FRAME_SIDE, FRAME_SIDE, 3)
    assert times.dtype == np.float64
    assert (np.diff(times) > 0.49).all()
    assert np.diff(times).max() <= 2.6
    assert info["duration"] == pytest.approx(5 if name.endswith(".gif") else DEMO_SECONDS, abs=0.1)
    assert info["fps"] == pytest.approx(24, abs=0.1)
    assert (info["width"], info["height"]) == ((352, 288) if name.startswith("demo.3g") else (176, 144))
    assert info["partial"] is False
    assert times[-1] > info["duration"] - 2.6
    # Where it has a frame of the demo's time, it is the demo's frame.
    distances = []
    hashes, quality = pdq_frames_v1(frames)
    others, _ = pdq_frames_v1(whole.arrays["frames"])
    for time, hash, good in zip(times, hashes, quality >= 50, strict=True):
        nearest = np.abs(whole.arrays["times"] - time).argmin()
        if good and abs(whole.arrays["times"][nearest] - time) < 0.05:
            distances.append(np.bitwise_count(hash ^ others[nearest]).sum())
    assert len(distances) >= 2
    # Of a GIF's few colours the bars are uneven.
    assert np.median(distances) <= (52 if name == "demo.gif" else 25)


def test_decoding_is_deterministic_and_can_be_stored(whole: Value) -> None:
    first = codec.encode(whole)
    assert codec.encode(decode(DEMO)) == first
    stored = codec.decode(first)
    assert stored.info == whole.info
    np.testing.assert_array_equal(stored.arrays["times"], whole.arrays["times"])


def test_frames_hash_as_those_of_a_decoder_that_decodes_everything(whole: Value) -> None:
    """Neither the frames left out nor the shrinking change what is kept by more than a few bits."""
    times = whole.arrays["times"]
    small = {}
    with av.open(str(DEMO)) as container:
        for frame in container.decode(video=0):
            if np.abs(times - frame.time).min() < 1e-3:
                picture = frame.reformat(FRAME_SIDE, FRAME_SIDE, "rgb24", interpolation="BICUBIC")
                small[frame.time] = picture.to_ndarray()
    assert len(small) == len(times)
    cropped = [borders.crop(small[time], box) for time, box in zip(sorted(small), whole.arrays["borders"], strict=True)]
    expected, quality = pdq_frames_v1(np.stack(cropped))
    hashes, _ = pdq_frames_v1(whole.arrays["frames"])
    distance = np.bitwise_count(hashes ^ expected).sum(axis=1)[quality >= 50]
    assert distance.max() <= 16
    assert distance.mean() <= 4


def test_a_copy_of_another_size_has_the_same_hashes(tmp_path: Path) -> None:
    """The reason for one frame size: hashed as they are, such copies lie further apart than the PDQ limit."""
    source = [(time, picture) for time, picture in pictures(DEMO, 20, 23)]
    large = record(tmp_path / "large.mp4", source, size=(1280, 720), g="1", crf="18")
    small = record(tmp_path / "small.mp4", source, size=(160, 90), g="1", crf="18")
    distance = np.bitwise_count(
        pdq_frames_v1(decode(large).arrays["frames"])[0] ^ pdq_frames_v1(decode(small).arrays["frames"])[0]
    ).sum(axis=1)
    assert distance.max() <= 16


def test_variable_frame_rate_keeps_exact_times(tmp_path: Path) -> None:
    given_times = [0.0, 0.04, 0.08, 1.3, 1.333, 4.0, 4.041, 4.9, 9.75, 9.76, 9.77, 12.0]
    path = record(tmp_path / "vfr.mkv", zip(given_times, scenes(len(given_times)), strict=True), bf="0")
    value = decode(path)
    times = value.arrays["times"]
    assert times == pytest.approx([0.0, 1.3, 4.0, 9.75, 12.0], abs=0.0011)
    # The pictures are those of their times, not of some other frame.
    expected, _ = pdq_frames_v1(np.stack(scenes(len(given_times))))
    hashes, _ = pdq_frames_v1(value.arrays["frames"])
    for time, found in zip(times, hashes, strict=True):
        nearest = np.bitwise_count(expected ^ found).sum(axis=1).argmin()
        assert given_times[nearest] == pytest.approx(time, abs=0.0011)
    assert value.info["fps"] == pytest.approx(1.0, abs=0.15)


def test_times_count_from_the_start_of_the_file() -> None:
    """The clock of an MPEG program stream starts at some other time than 0."""
    with av.open(str(SAMPLES["demo.mpg"])) as container:
        assert container.start_time > 500_000
    assert decode(SAMPLES["demo.mpg"]).arrays["times"][0] < 0.1


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_metadata_is_honoured(tmp_path: Path, rotation: int) -> None:
    picture = np.zeros((96, 160, 3), np.uint8)
    picture[:24, :40] = 255  # white at the top left
    path = record(tmp_path / "turned.mp4", [(0.0, picture)], rotation=rotation)
    value = decode(path)
    expected = np.rot90(picture, rotation // 90)
    assert (value.info["width"], value.info["height"]) == (expected.shape[1], expected.shape[0])
    frame = value.arrays["frames"][0]
    for row, column in ((10, 10), (10, -10), (-10, 10), (-10, -10)):
        corner = expected[0 if row > 0 else -1, 0 if column > 0 else -1, 0]
        assert abs(int(frame[row, column, 0]) - int(corner)) < 30


def test_a_video_of_one_frame(tmp_path: Path) -> None:
    path = record(tmp_path / "one.mp4", [(0.0, scenes(1)[0])])
    value = decode(path)
    assert value.arrays["times"].tolist() == [0.0]
    assert value.info["duration"] == pytest.approx(1 / 24, abs=0.01)


def test_a_short_video_with_one_keyframe_is_filled(tmp_path: Path) -> None:
    path = record(tmp_path / "short.mp4", ((i / 24, scene) for i, scene in enumerate(scenes(50))), g="250")
    # A second later is the next frame that another one refers to.
    assert decode(path).arrays["times"] == pytest.approx([0, 1.15], abs=0.15)


def test_slow_matroska_with_b_frames_keeps_its_times(tmp_path: Path) -> None:
    """Where the first times of decoding are unknown they are no jump back from the times of showing."""
    path = record(tmp_path / "slow.mkv", ((i / 2, scene) for i, scene in enumerate(scenes(20))), g="250", bf="3")
    value = decode(path)
    assert "broken_times" not in value.info
    assert value.arrays["times"] == pytest.approx(range(10), abs=0.01)
    assert value.info["duration"] == pytest.approx(10, abs=0.5)


def test_a_truncated_video_keeps_what_there_is(short: Path, tmp_path: Path) -> None:
    whole = decode(short)
    assert whole.info["partial"] is False
    data = short.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 6 // 10])
    value = decode(tmp_path / "cut.mp4")
    assert value.info["partial"] is True
    count = len(value.arrays["times"])
    assert 4 <= count < len(whole.arrays["times"])
    np.testing.assert_array_equal(value.arrays["frames"][:3], whole.arrays["frames"][:3])


@pytest.mark.parametrize("interval", ["1", "250"])
def test_a_damaged_middle_keeps_the_rest(tmp_path: Path, interval: str) -> None:
    path = record(tmp_path / "hole.mp4", enumerate(scenes(12)), g=interval, movflags="faststart")
    assert decode(path).info["partial"] is False
    data = bytearray(path.read_bytes())
    middle = slice(len(data) * 4 // 10, len(data) * 6 // 10)
    data[middle] = bytes(len(data[middle]))
    path.write_bytes(data)
    value = decode(path)
    assert value.info["partial"] is True
    times = value.arrays["times"].round(2).tolist()
    assert times[:3] == [0, 1, 2]
    assert times[-3:] == [9, 10, 11]
    assert len(times) < 12


@settings(max_examples=15, deadline=None, derandomize=True)
@given(cut=st.floats(0, 1), noise=st.integers(0, 2**32 - 1), amount=st.integers(0, 400))
def test_damaged_files_raise_nothing_but_content_errors(
    short: Path, tmp_path_factory: pytest.TempPathFactory, cut: float, noise: int, amount: int
) -> None:
    rng = np.random.default_rng(noise)
    data = np.frombuffer(short.read_bytes(), np.uint8).copy()
    data[rng.integers(0, len(data), amount)] = rng.integers(0, 256, amount)
    path = tmp_path_factory.mktemp("damaged") / "damaged.mp4"
    path.write_bytes(data[: int(len(data) * cut)].tobytes())
    try:
        value = decode(path)
    except ContentError:
        return
    assert len(value.arrays["times"]) > 0


def sound_only(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44_100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 44_100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_sound_alone_is_refused_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(ContentError, match="register it as audio"):
        decode(sound_only(tmp_path / "sound.mp4"))


def test_cover_art_is_not_video() -> None:
    cover = next(path for path in iscc_samples.audios() if path.name == "withcover.mp3")
    with av.open(str(cover)) as container:
        assert len(container.streams.video) == 1
    with pytest.raises(ContentError, match="register it as audio"):
        decode(cover)


@pytest.mark.parametrize("content", [b"", b"This is a letter, and no film.\n" * 300, bytes(5000)])
def test_what_is_no_video_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fake.mp4"
    path.write_bytes(content)
    with pytest.raises(ContentError, match="not a readable video file"):
        decode(path)


def test_a_picture_named_mp4_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "picture.mp4"
    path.write_bytes(next(p for p in iscc_samples.images() if p.name == "demo.jpg").read_bytes())
    with pytest.raises(ContentError):
        decode(path)


def test_a_stream_without_frames_is_refused(short: Path, tmp_path: Path) -> None:
    data = short.read_bytes()
    (tmp_path / "header.mp4").write_bytes(data[: data.index(b"mdat") + 4])  # the index, and nothing that it points to
    with pytest.raises(ContentError):
        decode(tmp_path / "header.mp4")


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile '{name}'\n",
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:12\n#EXTINF:12,\n{uri}\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    ],
    ids=["concat", "hls", "sdp"],
)
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".ts"])
def test_a_file_that_points_to_another_opens_nothing(short: Path, tmp_path: Path, text: str, suffix: str) -> None:
    target = tmp_path / "target.mp4"
    target.write_bytes(short.read_bytes())
    path = tmp_path / f"list{suffix}"
    path.write_text(text.format(name=target.name, uri=target.as_uri()))
    with pytest.raises(ContentError):
        decode(path)


# Which frames


def outline(keys: list[float], end: float, pixels: int = 320 * 240) -> Outline:
    """Of a video of 30 frames a second."""
    return Outline([(round(key * 30), key) for key in keys], packets=round(end * 30), end=end, pixels=pixels)


def test_near_keyframes_are_thinned_and_far_ones_filled() -> None:
    result = plan(outline([0.0, 0.1, 0.5, 1.0, 3.0, 3.2, 9.0, 9.6], 10.0))
    assert result.times == [0.0, 0.5, 1.0, 3.0, 9.0, 9.6]
    assert result.keys == {0: -1, 15: -1, 30: -1, 90: 8.5, 270: -1, 288: -1}
    assert result.fill_first == -1
    large = plan(outline([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0], 3.5, pixels=1920 * 1080))
    assert large.times == [0.0, 1.0, 2.0, 3.0]


def test_without_keyframes_everything_is_decoded() -> None:
    assert plan(outline([], 10.0)).fill_first == 10.0 or plan(outline([], 10.0)).fill_first == np.inf
    result = plan(outline([5.0], 10.0))
    assert result.fill_first == 4.5
    assert result.keys == {150: np.inf}


def test_what_cannot_be_afforded_is_the_end_of_the_longest_gaps() -> None:
    """In two minutes of 1080p with gaps of 4, 10 and 20 s the shortest stays empty, of the others a part."""
    keys = np.concatenate([np.arange(0.0, 84, 2), [84.0, 88, 98, 118, 119]]).tolist()
    result = plan(outline(keys, 120.0, pixels=1920 * 1080))
    fills = {number / 30: until for number, until in result.keys.items() if until >= 0}
    affordable = FILL_PIXELS * 120 / (1920 * 1080 * 30 * 0.6)
    assert list(fills) == [88, 98]
    assert affordable - 2 <= sum(until - start for start, until in fills.items()) <= affordable + 0.5
    assert 98 - fills[88] == pytest.approx(118 - fills[98], abs=1)


@settings(max_examples=20, deadline=None)
@given(hours=st.floats(0.01, 12), pixels=st.sampled_from([320 * 240, 1920 * 1080, 3840 * 2160]))
def test_a_long_video_is_sampled_within_the_cap(hours: float, pixels: int) -> None:
    end = hours * 3600
    result = plan(outline(np.arange(0, end, 0.25).tolist(), end, pixels))
    assert len(result.times) <= MAX_FRAMES + 1
    assert len(result.times) * pixels <= MAX_KEY_PIXELS + pixels
    assert (
        np.diff(result.times).max()
        <= max(1.0, end * max(1 / MAX_FRAMES, pixels / (MAX_KEY_PIXELS - pixels)) + 0.25) + 1e-6
    )


@settings(max_examples=50, deadline=None)
@given(
    gaps=st.lists(st.floats(0.1, 60), min_size=1, max_size=40),
    pixels=st.sampled_from([320 * 240, 1280 * 720, 1920 * 1080, 3840 * 2160]),
)
def test_filling_stays_within_what_it_may_cost(gaps: list[float], pixels: int) -> None:
    times = np.cumsum([0.0, *gaps])
    end = float(times[-1])
    shape = outline(times[:-1].tolist(), end, pixels)
    result = plan(shape)
    ends = dict(zip([number for number, _ in sorted(shape.keys)], times[1:], strict=False))
    starts = dict(shape.keys)
    filled = sum(min(until, end) - starts[n] for n, until in result.keys.items() if until >= 0) + max(
        result.fill_first, 0
    )
    allowed = FILL_PIXELS * max(end, 60) / (pixels * 30 * 0.6)
    assert filled <= allowed + 0.25 * len(ends) + 1


# What of the frames


def letterboxed(rgb: np.ndarray, top: int = 0, left: int = 0) -> np.ndarray:
    return np.pad(rgb, ((top, top), (left, left), (0, 0)))


@pytest.mark.parametrize(("top", "left"), [(20, 0), (0, 24), (16, 16)])
def test_a_letterboxed_copy_has_the_frames_of_its_original(tmp_path: Path, top: int, left: int) -> None:
    film = scenes(8)
    original = decode(record(tmp_path / "a.mp4", enumerate(film), g="1"))
    copy = decode(record(tmp_path / "b.mp4", enumerate(letterboxed(each, top, left) for each in film), g="1"))
    assert (original.arrays["borders"] == (0, 0, 1, 1)).all()
    height, width = 120 + 2 * top, 160 + 2 * left
    box = (left / width, top / height, 1 - left / width, 1 - top / height)
    np.testing.assert_allclose(copy.arrays["borders"], np.tile(box, (8, 1)), atol=0.01)
    ours, theirs = (pdq_frames_v1(value.arrays["frames"])[0] for value in (original, copy))
    assert np.bitwise_count(ours ^ theirs).sum(axis=1).max() <= 20


def shown(name: str, width: int = 160, height: int = 120) -> np.ndarray:
    """A photograph in that size."""
    picture = Image.open(media_files.picture(name)).convert("RGB").resize((width, height))
    return np.array(picture)


def test_borders_are_those_of_the_shot(tmp_path: Path) -> None:
    """A film in two shapes; in its first part a night scene seems to have wider bars than there are."""
    night = shown("rocket.jpg")
    night[:30], night[-30:] = 0, 0
    wide = [shown("coffee.png"), night, shown("coffee.png")]
    film = [*(letterboxed(each, 20) for each in wide), shown("chelsea.png", 160, 160), shown("astronaut.png", 160, 160)]
    value = decode(record(tmp_path / "film.mp4", enumerate(film), g="1"))
    assert value.arrays["borders"][:, 1] == pytest.approx([0.125, 0.125, 0.125, 0, 0], abs=0.01)


def test_a_scene_dark_on_one_side_has_no_border(tmp_path: Path) -> None:
    film = scenes(4)
    for each in film:
        each[:, :50] = 0
    value = decode(record(tmp_path / "dark.mp4", enumerate(film), g="1"))
    assert (value.arrays["borders"] == (0, 0, 1, 1)).all()


def test_a_still_picture_is_kept_once_and_its_times_are_told(tmp_path: Path) -> None:
    film = [scenes(1, seed=seed)[0] for seed in (1, 1, 1, 1, 2, 3, 3, 3)]
    value = decode(record(tmp_path / "slides.mp4", enumerate(film), g="1", crf="20"))
    assert value.arrays["times"] == pytest.approx([0, 4, 5], abs=0.01)
    assert value.info["duration"] == pytest.approx(8, abs=1)


def test_shots_are_numbered(tmp_path: Path) -> None:
    """Three scenes of four seconds each, through which the camera moves."""
    wide = [shown(name, 240) for name in ("coffee.png", "astronaut.png", "chelsea.png")]
    film = [wide[second // 4][:, second % 4 * 20 :][:, :160] for second in range(12)]
    value = decode(record(tmp_path / "film.mp4", enumerate(film), g="1"))
    assert value.arrays["shots"].dtype == np.int32
    assert value.arrays["shots"].tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_bars_around_both_scenes_do_not_hide_the_cut(tmp_path: Path) -> None:
    """A pillarboxed excerpt between a pillarboxed host and a title card without bars keeps its own borders."""
    wide = [shown(name, 240) for name in ("coffee.png", "astronaut.png")]
    boxed = [
        np.pad(wide[second // 4][:, second % 4 * 20 :][:, :160], ((0, 0), (30, 30), (0, 0))) for second in range(8)
    ]
    card = np.full_like(boxed[0], (20, 90, 200))
    value = decode(record(tmp_path / "film.mp4", enumerate([*boxed, card]), g="1"))
    assert value.arrays["shots"].tolist() == [0] * 4 + [1] * 4 + [2]
    assert value.arrays["borders"][:, 0] == pytest.approx([30 / 220] * 8 + [0], abs=0.01)


def test_flat_frames_are_marked(tmp_path: Path) -> None:
    film = [scenes(1)[0], np.zeros((120, 160, 3), np.uint8), np.full((120, 160, 3), (20, 90, 200), np.uint8)]
    value = decode(record(tmp_path / "flat.mp4", enumerate(film), g="1"))
    assert value.arrays["flat"].tolist() == [False, True, True]


def encoded(path: Path, planes: np.ndarray, pixels: str, encoder: str, **colours: int) -> Path:
    """A video of one picture in the given pixel format."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=1)
        stream.width, stream.height, stream.pix_fmt = planes.shape[1], planes.shape[0], pixels
        for name, value in colours.items():
            setattr(stream.codec_context, name, value)
        frame = av.VideoFrame.from_ndarray(planes, "rgb48le" if planes.dtype == np.uint16 else "rgba")
        frame = frame.reformat(format=pixels, dst_colorspace=colours.get("colorspace"))
        for name, value in colours.items():
            setattr(frame, name, value)
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def pq(light: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084, written down here a second time: light in nits to the signal, 0..1."""
    power = (light / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def test_hdr_has_the_brightness_of_the_same_picture_in_sdr(tmp_path: Path) -> None:
    levels = np.repeat(np.linspace(0, 200, 16), 20)  # sRGB, below the highlights
    light = 203 * np.where(levels <= 10.31475, levels / 255 / 12.92, ((levels / 255 + 0.055) / 1.055) ** 2.4)
    picture = np.repeat(np.rint(65535 * pq(light)).astype(np.uint16)[None, :, None], 3, axis=2).repeat(240, axis=0)
    hdr = {"color_trc": 16, "color_primaries": 9, "colorspace": 9}
    value = decode(encoded(tmp_path / "hdr.mkv", picture, "yuv420p10le", "libx265", **hdr))
    row = value.arrays["frames"][0][136].astype(float)
    middles = np.arange(8, 272, 17)
    np.testing.assert_allclose(row[middles], np.linspace(0, 200, 16)[:, None].repeat(3, axis=1), atol=8)


def test_transparent_video_is_on_white(tmp_path: Path) -> None:
    picture = np.zeros((96, 128, 4), np.uint8)
    picture[:, :64] = (200, 30, 30, 255)
    frame = decode(encoded(tmp_path / "alpha.mkv", picture, "bgra", "ffv1")).arrays["frames"][0]
    assert (frame[:, :130] == (200, 30, 30)).all()
    assert (frame[:, 140:] == 255).all()


def test_interlaced_video_has_the_hashes_of_its_pictures(tmp_path: Path) -> None:
    """Two fields of different moments, as of a camera that moves by two pixels a field."""
    wide = cv2.resize(scenes(1, seed=4)[0], (800, 576), interpolation=cv2.INTER_CUBIC)
    woven = wide[:, :720].copy()
    woven[1::2] = wide[1::2, 2:722]
    path = record(tmp_path / "woven.mp4", [(0.0, woven)], flags="+ilme+ildct", crf="12")
    expected, _ = pdq_frames_v1(
        cv2.resize(wide[:, 1:721], (FRAME_SIDE, FRAME_SIDE), interpolation=cv2.INTER_AREA)[None]
    )
    found, _ = pdq_frames_v1(decode(path).arrays["frames"])
    assert np.bitwise_count(found[0] ^ expected[0]).sum() <= 12


# The soundtrack


def test_the_soundtrack_is_that_of_the_audio_type(whole: Value) -> None:
    from fingerprint_dagster.media.audio.decode import decode_audio
    from fingerprint_dagster.media.video.soundtrack import soundtrack

    alone = decode_audio(DEMO)
    sound = soundtrack(whole)
    assert sound is not None
    np.testing.assert_array_equal(sound.arrays["pcm"], alone.arrays["pcm"])
    assert sound.info == alone.info
    assert whole.info["soundtrack"] == {"present": True, **alone.info}


def test_a_silent_video_says_so(short: Path) -> None:
    from fingerprint_dagster.media.video.soundtrack import soundtrack

    value = decode(short)
    assert value.info["soundtrack"] == {"present": False, "reason": "there is no audio stream"}
    assert "samples" not in value.arrays
    assert soundtrack(value) is None


def test_a_broken_soundtrack_does_not_fail_the_video(tmp_path: Path) -> None:
    """The packets of the sound are noise; those of the pictures are whole."""
    rng = np.random.default_rng(0)
    with av.open(str(DEMO)) as source, av.open(str(tmp_path / "noise.mkv"), "w") as target:
        streams = {
            each.index: target.add_stream_from_template(each) for each in (*source.streams.video, *source.streams.audio)
        }
        for packet in source.demux(list(source.streams.video) + list(source.streams.audio)):
            if packet.dts is None:
                continue
            if packet.stream.type == "audio":
                noise = av.Packet(rng.integers(0, 256, packet.size, dtype=np.uint8).tobytes())
                noise.pts, noise.dts, noise.time_base, noise.duration = (
                    packet.pts,
                    packet.dts,
                    packet.time_base,
                    packet.duration,
                )
                noise.stream = streams[packet.stream.index]
                target.mux(noise)
            else:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    value = decode(tmp_path / "noise.mkv")
    assert value.info["partial"] is False
    assert len(value.arrays["times"]) > 50
    sound = value.info["soundtrack"]
    assert sound.get("reason") or sound.get("partial")


# Files that are not what they say


def test_a_file_that_claims_ten_hours_gives_what_it_has(short: Path, tmp_path: Path) -> None:
    """The segment of a Matroska file says 36,000 s; there are twelve."""
    path = remuxed(short, tmp_path / "long.mkv", lambda number, ticks: ticks)
    assert decode(path).info["partial"] is False
    data = bytearray(path.read_bytes())
    at = data.index(b"\x44\x89\x88") + 3  # Duration, a float of eight bytes in milliseconds
    data[at : at + 8] = struct.pack(">d", 36_000_000.0)
    path.write_bytes(data)
    value = decode(path)
    assert value.info["partial"] is True
    assert value.info["duration"] == pytest.approx(12, abs=0.1)
    np.testing.assert_allclose(value.arrays["times"], decode(short).arrays["times"], atol=0.002)


def test_a_truncated_matroska_file_is_partial(short: Path, tmp_path: Path) -> None:
    path = remuxed(short, tmp_path / "cut.mkv", lambda number, ticks: ticks)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    value = decode(path)
    assert value.info["partial"] is True
    assert 4 <= len(value.arrays["times"]) <= 9


def remuxed(source: Path, target: Path, time: Callable[[int, int], int]) -> Path:
    """The packets of a video with other time stamps: number and ticks to ticks."""
    with av.open(str(source)) as reading, av.open(str(target), "w") as writing:
        stream = writing.add_stream_from_template(reading.streams.video[0])
        for number, packet in enumerate(reading.demux(video=0)):
            if packet.dts is not None:
                shift = time(number, packet.dts) - packet.dts
                packet.dts, packet.pts = packet.dts + shift, packet.pts + shift
                packet.stream = stream
                writing.mux(packet)
    return target


def test_a_clock_that_is_set_back_or_leaps_is_put_right(tmp_path: Path) -> None:
    """Two recordings one after the other in a transport stream, whose clock starts anew, and one that leaps ahead."""
    one = record(tmp_path / "one.ts", enumerate(scenes(6)), g="1")
    two = record(tmp_path / "two.ts", enumerate(scenes(6, seed=1)), g="1")
    (tmp_path / "both.ts").write_bytes(one.read_bytes() + two.read_bytes())
    value = decode(tmp_path / "both.ts")
    assert value.info["broken_times"] is True
    assert len(value.arrays["times"]) == 12
    assert (np.diff(value.arrays["times"]) > 0).all()
    assert value.info["duration"] < 14
    assert "broken_times" not in decode(one).info


def test_one_time_stamp_beyond_all_bounds_does_not_end_the_video(tmp_path: Path) -> None:
    film = record(tmp_path / "film.mkv", enumerate(scenes(8)), g="1", bf="0")
    days = 20 * 24 * 3600 * 1000
    leap = remuxed(film, tmp_path / "leap.mkv", lambda number, ticks: ticks + days * (number >= 4))
    value = decode(leap)
    assert value.info["broken_times"] is True
    assert len(value.arrays["times"]) == 7  # the one after the leap comes one tick after that before it
    assert value.info["duration"] < 12


def test_a_picture_in_a_video_container_is_a_video_of_one_frame(tmp_path: Path) -> None:
    data = next(path for path in iscc_samples.images() if path.name == "demo.jpg").read_bytes()
    with av.open(str(tmp_path / "picture.mkv"), "w") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 200, 133, "yuvj420p"
        packet = av.Packet(data)
        packet.pts = packet.dts = 0
        packet.stream = stream
        container.mux(packet)
    value = decode(tmp_path / "picture.mkv")
    assert value.arrays["times"].tolist() == [0.0]
    assert value.info["codec"] == "mjpeg"


# Animated pictures

ANIMATIONS = {"gif": "image/gif", "webp": "image/webp", "png": "image/png", "avif": "image/avif"}


def animation(path: Path, frames: list[np.ndarray], seconds: list[float]) -> Path:
    first, *others = (Image.fromarray(frame) for frame in frames)
    options = {"save_all": True, "append_images": others, "duration": [round(1000 * each) for each in seconds]}
    first.save(path, **(options if others else {}))
    return path


@pytest.mark.parametrize("ending", sorted(ANIMATIONS))
def test_an_animated_picture_is_a_video_when_registered_as_one(tmp_path: Path, ending: str) -> None:
    film = scenes(4)
    path = animation(tmp_path / f"film.{ending}", film, [1.0, 2.5, 0.75, 1.25])
    head = path.read_bytes()[:4096]
    assert PLUGIN.sniff(head) == ANIMATIONS[ending]
    # Nobody who lets the type be found finds anything but a picture.
    assert next(name for name, plugin in content_types().items() if plugin.sniff(head)) == "image"
    still = animation(tmp_path / f"still.{ending}", film[:1], [1.0])
    assert PLUGIN.sniff(still.read_bytes()[:4096]) is None

    value = decode(path)
    assert value.arrays["times"] == pytest.approx([0, 1, 3.5, 4.25])
    assert value.info["duration"] == pytest.approx(5.5)
    assert value.info["partial"] is False
    assert (value.info["width"], value.info["height"]) == (160, 120)
    shown = np.stack([cv2.resize(each, (FRAME_SIDE, FRAME_SIDE), interpolation=cv2.INTER_CUBIC) for each in film])
    distance = np.bitwise_count(pdq_frames_v1(value.arrays["frames"])[0] ^ pdq_frames_v1(shown)[0]).sum(axis=1)
    assert distance.max() <= 24


def test_a_transparent_animation_is_on_white(tmp_path: Path) -> None:
    frames = [Image.new("RGBA", (64, 64), colour) for colour in ((0, 0, 0, 0), (200, 0, 0, 255))]
    frames[0].save(tmp_path / "clear.png", save_all=True, append_images=frames[1:], duration=[1000, 1000])
    value = decode(tmp_path / "clear.png")
    assert [frame[100, 100].tolist() for frame in value.arrays["frames"]] == [[255, 255, 255], [200, 0, 0]]


def test_frames_that_claim_no_time_have_that_which_viewers_give_them(tmp_path: Path) -> None:
    first, *others = (Image.fromarray(scene) for scene in scenes(20))
    first.save(tmp_path / "fast.gif", save_all=True, append_images=others, duration=0, loop=0)
    assert decode(tmp_path / "fast.gif").info["duration"] == pytest.approx(2.0)


@pytest.mark.parametrize("ending", ["gif", "png"])
def test_a_truncated_animation_keeps_what_there_is(tmp_path: Path, ending: str) -> None:
    path = animation(tmp_path / f"film.{ending}", scenes(6), [1.0] * 6)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    value = decode(path)
    assert value.info["partial"] is True
    assert 0 < len(value.arrays["times"]) < 6


@pytest.mark.parametrize("ending", ["webp", "avif"])
def test_an_animation_whose_decoder_wants_all_of_it_is_refused_when_truncated(tmp_path: Path, ending: str) -> None:
    path = animation(tmp_path / f"film.{ending}", scenes(6), [1.0] * 6)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(ContentError, match="damaged"):
        decode(path)


@given(
    st.sampled_from([b"GIF89a", b"RIFF\xff\0\0\0WEBPVP8X", b"\x89PNG\r\n\x1a\n", b"\0\0\0\x20ftyp"]),
    st.binary(max_size=80),
)
def test_sniffing_the_beginnings_of_pictures_never_raises(magic: bytes, rest: bytes) -> None:
    PLUGIN.sniff(magic + rest)
