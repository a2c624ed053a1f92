"""Video: decoding of real files and of edits made here, published vPDQ hashes, alignment, and what goes wrong."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import iscc_samples
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerprint_dagster import codec
from fingerprint_dagster.content import Component, Content, Fingerprint, Sketch, Value
from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.media.image.pdq import pdq_frames_v1
from fingerprint_dagster.media.video import VideoPlugin
from fingerprint_dagster.media.video.decode import FRAME_SIDE, MAX_FRAMES, Outline, decode, plan
from fingerprint_dagster.media.video.match import Frames, align, find_pairs
from fingerprint_dagster.media.video.sketch import EMBEDDING, PDQ, PDQ_QUALITY, first_of_runs
from fingerprint_dagster.models import ModelRuntime

PLUGIN = VideoPlugin()
VECTORS = Path(os.environ.get("FINGERPRINT_VECTORS", Path(__file__).parents[2] / "../shared/vectors")) / "vpdq"
SAMPLES = {path.name: path for path in iscc_samples.videos()}
DEMO = SAMPLES["demo.mp4"]
DEMO_SECONDS = 60.04
MILLISECOND = Fraction(1, 1000)


# Making and reading videos


def record(
    path: Path,
    timed: Iterable[tuple[float, np.ndarray]],
    *,
    size: tuple[int, int] | None = None,
    codec_name: str = "libx264",
    rotation: int = 0,
    **options: str,
) -> Path:
    """Encode RGB pictures at the given seconds, the first at 0."""
    movflags = {"movflags": options.pop("movflags")} if "movflags" in options else {}
    with av.open(str(path), "w", options=movflags) as container:
        stream = None
        for seconds, rgb in timed:
            if stream is None:
                start = seconds
                stream = container.add_stream(codec_name, rate=24, options=options)
                stream.width, stream.height = size or (rgb.shape[1], rgb.shape[0])
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = Fraction(1, 24) if codec_name == "mpeg4" else MILLISECOND
                if rotation:
                    stream.set_display_rotation(rotation)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24")
            frame = frame.reformat(stream.width, stream.height, "yuv420p", interpolation="BICUBIC")
            frame.time_base = stream.codec_context.time_base
            frame.pts = round((seconds - start) / frame.time_base)
            container.mux(stream.encode(frame))
        assert stream is not None
        container.mux(stream.encode(None))
    return path


def pictures(path: Path, start: float = 0.0, end: float = 1e9) -> Iterator[tuple[float, np.ndarray]]:
    """Every frame of a video from `start` to `end` seconds."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if frame.time >= end:
                return
            if frame.time >= start:
                yield frame.time, frame.to_ndarray(format="rgb24")


def scenes(count: int, seed: int = 0) -> list[np.ndarray]:
    """Pictures that differ, with enough features for PDQ: blurred noise, uint8 [120, 160, 3]."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 12, 16, 3), dtype=np.uint8)
    frames = [av.VideoFrame.from_ndarray(picture, "rgb24") for picture in small]
    return [frame.reformat(160, 120, "rgb24", interpolation="BICUBIC").to_ndarray() for frame in frames]


def sketch_by_pdq(decoded: Value) -> Sketch:
    """A sketch whose vectors have no columns: only PDQ can find anything by it."""
    return PLUGIN.hash(decoded, Value({"vectors": np.zeros((len(decoded.arrays["times"]), 0), np.float32)}))


def fingerprint(path: Path, models: ModelRuntime | None = None) -> Fingerprint:
    """The fingerprint of a file; without models only by PDQ."""
    decoded = PLUGIN.decode(path)
    sketch = sketch_by_pdq(decoded) if models is None else PLUGIN.hash(decoded, PLUGIN.embed([decoded], models)[0])
    return of_sketch(path.name, sketch)


def of_sketch(name: str, sketch: Sketch) -> Fingerprint:
    return Fingerprint(Content(name, f"file:///{name}", "video"), name, 1, "video/mp4", name, sketch)


@pytest.fixture(scope="module")
def models() -> ModelRuntime:
    return ModelRuntime("cpu")


@pytest.fixture(scope="module")
def demo(models: ModelRuntime) -> Fingerprint:
    return fingerprint(DEMO, models)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 seconds of the demo in an MP4 whose index stands first, a keyframe every second."""
    path = tmp_path_factory.mktemp("short") / "short.mp4"
    return record(path, pictures(DEMO, 20, 32), g="24", movflags="faststart")


# Recognising


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_every_sample_container_is_recognised(name: str) -> None:
    media_type = PLUGIN.sniff(SAMPLES[name].read_bytes()[:4096])
    if name.endswith(".gif"):
        assert media_type is None  # a picture to the image type
    else:
        assert media_type is not None
        assert media_type.startswith(("video/", "application/"))


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


@pytest.fixture(scope="module")
def demo_by_pdq() -> Fingerprint:
    return fingerprint(DEMO)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_every_sample_container_decodes_and_aligns_with_the_demo(demo_by_pdq: Fingerprint, name: str) -> None:
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

    matches = PLUGIN.match(of_sketch(name, sketch_by_pdq(value)), demo_by_pdq)
    assert matches
    for match in matches:
        assert match.query_range is not None
        assert match.reference_range is not None
        assert match.query_range[0] == pytest.approx(match.reference_range[0], abs=0.6)
        assert match.query_range[1] == pytest.approx(match.reference_range[1], abs=0.6)


def test_decoding_is_deterministic_and_can_be_stored() -> None:
    first = codec.encode(decode(DEMO))
    assert codec.encode(decode(DEMO)) == first
    stored = codec.decode(first)
    assert stored.info["codec"] == "h264"
    np.testing.assert_array_equal(stored.arrays["times"], decode(DEMO).arrays["times"])


def test_frames_hash_as_those_of_a_decoder_that_decodes_everything() -> None:
    """Neither the frames left out nor the loop filter switched off change what is kept by more than a few bits."""
    value = decode(DEMO)
    times = value.arrays["times"]
    small = {}
    with av.open(str(DEMO)) as container:
        for frame in container.decode(video=0):
            if np.abs(times - frame.time).min() < 1e-3:
                picture = frame.reformat(FRAME_SIDE, FRAME_SIDE, "rgb24", interpolation="BICUBIC")
                small[frame.time] = picture.to_ndarray()
    assert len(small) == len(times)
    expected, quality = pdq_frames_v1(np.stack([small[time] for time in sorted(small)]))
    hashes, _ = pdq_frames_v1(value.arrays["frames"])
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


def test_near_keyframes_are_thinned_and_far_ones_filled() -> None:
    keys = [0.0, 0.1, 0.5, 1.0, 3.0, 3.2, 9.0, 9.6]
    result = plan(Outline(list(enumerate(keys)), packets=300, end=10.0))
    assert result.times == [0.0, 0.5, 1.0, 3.0, 9.0, 9.6]
    assert result.keys == {0: -1, 2: -1, 3: -1, 4: 8.5, 6: -1, 7: -1}
    assert result.fill_first == -1


def test_without_keyframes_everything_is_decoded() -> None:
    assert plan(Outline([], packets=100, end=10.0)).fill_first == np.inf
    result = plan(Outline([(50, 5.0)], packets=100, end=10.0))
    assert result.fill_first == 4.5
    assert result.keys == {50: np.inf}


@settings(max_examples=20, deadline=None)
@given(hours=st.floats(0.01, 12))
def test_a_long_video_is_sampled_within_the_cap(hours: float) -> None:
    end = hours * 3600
    times = np.arange(0, end, 0.25)
    result = plan(Outline(list(enumerate(times.tolist())), packets=len(times), end=end))
    assert len(result.times) <= MAX_FRAMES + 1
    assert np.diff(result.times).max() <= max(0.75, end / MAX_FRAMES + 0.25)


# Hashes


@pytest.mark.skipif(not VECTORS.is_dir(), reason="the vPDQ sample hashes are not here: set FINGERPRINT_VECTORS")
@pytest.mark.parametrize(
    ("name", "floor", "limit"),
    [("test-padded-dimensions", 50, 6), ("pattern-sd-grey-bar", 50, 6), ("doorknob-hd-no-bar", 80, 4)],
)
def test_frames_hash_as_published_by_vpdq(name: str, floor: int, limit: int) -> None:
    """Every fifth frame at its native size; the limits are the spread between decoders."""
    rows = [line.split(",") for line in (VECTORS / f"{name}.txt").read_text().splitlines() if line]
    numbered = enumerate(pictures(VECTORS / f"{name}.mp4"))
    frames = np.stack([picture for number, (_, picture) in numbered if number % 5 == 0])
    assert len(frames) == len(rows[::5])
    hashes, quality = pdq_frames_v1(frames)
    expected = np.array([list(bytes.fromhex(row[2])) for row in rows[::5]], np.uint8)
    published = np.array([int(row[1]) for row in rows[::5]])
    distance = np.bitwise_count(hashes ^ expected).sum(axis=1)
    assert (published >= floor).sum() >= 3
    assert distance[published >= floor].max() <= limit
    assert np.abs(quality.astype(int) - published).max() <= 2


def test_the_sketch_of_the_demo(demo: Fingerprint) -> None:
    sketch = demo.sketch
    pdq, quality, vectors = sketch.components
    assert [(c.algorithm, c.kind) for c in sketch.components] == [
        (PDQ, "hamming"),
        (PDQ_QUALITY, "data"),
        (EMBEDDING, "cosine"),
    ]
    n = sketch.info["frames"]
    assert pdq.values.shape == (n, 32)
    assert quality.values.shape == (n,)
    assert vectors.values.shape == (n, 1280)
    assert vectors.values.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors.values, axis=1), 1, atol=1e-3)
    assert pdq.positions is not None
    assert pdq.searchable is not None
    np.testing.assert_array_equal(pdq.positions[1:, 0], pdq.positions[:-1, 1])
    assert pdq.positions[-1, 1] == sketch.info["duration"] == pytest.approx(DEMO_SECONDS, abs=0.01)
    assert not pdq.searchable[0]  # the demo fades in from black
    assert pdq.searchable.sum() > 0.9 * n
    assert sketch.info["low_information"] is False
    restored = codec.value_to_sketch(codec.decode(codec.encode(codec.sketch_to_value(sketch))))
    assert restored.info == sketch.info


def test_vectors_come_back_in_the_order_of_the_videos(tmp_path: Path, models: ModelRuntime) -> None:
    values = [
        decode(record(tmp_path / f"{count}.mp4", enumerate(scenes(count, seed=count)), g="1")) for count in (3, 1, 2)
    ]
    together = [value.arrays["vectors"] for value in PLUGIN.embed(values, models)]
    assert [len(vectors) for vectors in together] == [3, 1, 2]
    for value, vectors in zip(values, together, strict=True):
        alone = PLUGIN.embed([value], models)[0].arrays["vectors"]
        np.testing.assert_allclose((alone * vectors).sum(axis=1), 1, atol=5e-3)
    assert float(together[0][0] @ together[2][0]) < 0.99


def test_black_video_has_low_information_and_matches_nothing(tmp_path: Path, models: ModelRuntime) -> None:
    black = [(float(second), np.zeros((120, 160, 3), np.uint8)) for second in range(8)]
    one = fingerprint(record(tmp_path / "a.mp4", black), models)
    two = fingerprint(record(tmp_path / "b.mp4", black, crf="40"), models)
    assert one.sketch.info["low_information"] is True
    pdq = one.component(PDQ)
    assert pdq is not None
    assert pdq.searchable is not None
    assert not pdq.searchable.any()
    assert PLUGIN.match(one, two) == []
    assert PLUGIN.match(one, one) == []


def test_repeats_are_compared_with_the_last_frame_kept() -> None:
    """A picture that changes by one bit a frame is looked up again once it has moved on by more than two."""
    hashes = np.zeros((7, 32), np.uint8)
    for row in range(7):
        hashes[row, 0] = (1 << row) - 1
    usable = np.array([True, True, True, True, False, True, True])
    assert first_of_runs(hashes, usable).tolist() == [True, False, False, True, False, False, True]


# Matching


def test_another_container_matches_over_its_whole_duration(demo: Fingerprint, models: ModelRuntime) -> None:
    copy = fingerprint(SAMPLES["demo.webm"], models)
    for query, reference in ((demo, copy), (copy, demo)):
        (match,) = PLUGIN.match(query, reference)
        assert match.reference == reference.content
        assert match.evidence == PDQ
        assert match.score > 0.8
        # The demo fades in during its first second and a half.
        assert match.query_range == pytest.approx((0.8, 60), abs=0.8)
        assert match.reference_range == pytest.approx((0.8, 60), abs=0.8)


@pytest.mark.parametrize(
    ("start", "seconds", "size", "codec_name", "options"),
    [
        (10.3, 5, (320, 240), "libx264", {}),
        (20.7, 8, (176, 144), "libx264", {}),
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
    assert match.score > 0.7
    assert match.query_range == pytest.approx((0, seconds), abs=1.2)
    assert match.reference_range == pytest.approx((start, start + seconds), abs=1.2)
    (back,) = PLUGIN.match(demo, excerpt)
    assert back.query_range == pytest.approx((start, start + seconds), abs=1.2)
    assert back.reference_range == pytest.approx((0, seconds), abs=1.2)
    assert PLUGIN.match(excerpt, demo) == [match]


def part(whole: Fingerprint, start: float, end: float) -> Fingerprint:
    """The fingerprint of a stretch of a video, as if it had been cut there."""
    pdq = whole.component(PDQ)
    assert pdq is not None
    assert pdq.positions is not None
    rows = (pdq.positions[:, 0] >= start) & (pdq.positions[:, 0] < end)

    def cut(component: Component) -> Component:
        return replace(
            component,
            values=component.values[rows],
            positions=None if component.positions is None else (component.positions[rows] - start).clip(0, end - start),
            searchable=None if component.searchable is None else component.searchable[rows],
        )

    sketch = Sketch(tuple(cut(component) for component in whole.sketch.components), whole.sketch.info)
    return of_sketch(f"{start}-{end}", sketch)


def test_other_parts_of_the_same_concert_do_not_match(demo: Fingerprint) -> None:
    """Hard negatives: one stage, one band, the same cameras, other moments."""
    for length in (5, 10, 30):
        parts = [part(demo, start, start + length) for start in range(0, 60, length)]
        assert all(PLUGIN.match(a, a) for a in parts)
        assert [(a.key, b.key) for a in parts for b in parts if a is not b and PLUGIN.match(a, b)] == []


def test_fingerprints_without_the_components_do_not_match(demo: Fingerprint) -> None:
    empty = of_sketch("empty", Sketch(()))
    assert PLUGIN.match(empty, demo) == []
    assert PLUGIN.match(demo, empty) == []


def test_a_single_frame_is_found_in_a_video_and_two_videos_need_two(tmp_path: Path) -> None:
    film = scenes(10)
    reference = fingerprint(record(tmp_path / "film.mp4", enumerate(film), g="1"))
    single = fingerprint(record(tmp_path / "single.mp4", [(0.0, film[6])]))
    (match,) = PLUGIN.match(single, reference)
    assert match.reference_range is not None
    assert match.reference_range[0] == pytest.approx(6, abs=0.1)
    other = scenes(10, seed=5)
    other[3] = film[6]
    shared = fingerprint(record(tmp_path / "shared.mp4", enumerate(other), g="1"))
    assert PLUGIN.match(shared, reference) == []
    other[4] = film[7]
    shared = fingerprint(record(tmp_path / "shared.mp4", enumerate(other), g="1"))
    (match,) = PLUGIN.match(shared, reference)
    assert match.query_range == pytest.approx((3, 5), abs=0.2)
    assert match.reference_range == pytest.approx((6, 8), abs=0.2)


def test_a_still_picture_shared_by_two_films_is_not_a_match(tmp_path: Path) -> None:
    """A title card that stands for six seconds is still one picture."""
    card = scenes(1, seed=9)[0]
    one = fingerprint(record(tmp_path / "one.mp4", enumerate([card] * 6 + scenes(6, seed=1)), g="1"))
    two = fingerprint(record(tmp_path / "two.mp4", enumerate(scenes(6, seed=2) + [card] * 6), g="1"))
    assert PLUGIN.match(one, two) == []


# Alignment, on frames that exist only as hashes


def frames_of(hashes: np.ndarray, starts: np.ndarray) -> Frames:
    n = len(hashes)
    ends = np.append(starts[1:], starts[-1] + 1)
    return Frames(hashes, np.zeros((n, 0), np.float32), starts, ends, np.arange(n), float(ends[-1]))


def random_hashes(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.integers(0, 256, (n, 32), dtype=np.uint8)


def flipped(rng: np.random.Generator, hashes: np.ndarray, bits: int) -> np.ndarray:
    """Each hash with `bits` of its bits turned over."""
    flat = np.unpackbits(hashes, axis=1)
    for row in flat:
        row[rng.choice(256, bits, replace=False)] ^= 1
    return np.packbits(flat, axis=1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    before=st.integers(0, 50),
    length=st.integers(3, 40),
    after=st.integers(0, 50),
    phase=st.floats(0, 0.5),
    bits=st.integers(0, 31),
    step=st.sampled_from([0.5, 1.0, 3.0]),
)
def test_a_planted_offset_is_found(
    seed: int, before: int, length: int, after: int, phase: float, bits: int, step: float
) -> None:
    rng = np.random.default_rng(seed)
    film = random_hashes(rng, before + length + after)
    copy = flipped(rng, film[before : before + length], bits)
    # The excerpt stands between other pictures, and its own clock runs from another moment.
    lead, tail = int(rng.integers(0, 8)), int(rng.integers(0, 8))
    query = np.concatenate([random_hashes(rng, lead), copy, random_hashes(rng, tail)])
    ours = frames_of(query, np.arange(len(query)) * step)
    theirs = frames_of(film, np.arange(len(film)) * step + phase)
    (segment,) = align(ours, theirs, find_pairs(ours, theirs))
    assert segment.query == pytest.approx((lead * step, (lead + length) * step), abs=step + 0.01)
    assert segment.reference[0] - segment.query[0] == pytest.approx((before - lead) * step + phase, abs=1e-6)
    assert segment.score == pytest.approx(1 - bits / 256, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_unrelated_hashes_do_not_align(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ours, theirs = (frames_of(random_hashes(rng, 300), np.arange(300.0)) for _ in range(2))
    assert align(ours, theirs, find_pairs(ours, theirs)) == []


def test_an_excerpt_that_occurs_twice_and_a_film_with_a_part_removed() -> None:
    rng = np.random.default_rng(1)
    film = random_hashes(rng, 60)
    twice = np.concatenate([film[10:20], film[30:40], film[10:20]])
    ours, theirs = frames_of(film, np.arange(60.0)), frames_of(twice, np.arange(30.0))
    segments = align(ours, theirs, find_pairs(ours, theirs))
    assert sorted((s.query, s.reference) for s in segments) == [
        ((10, 20), (0, 10)),
        ((10, 20), (20, 30)),
        ((30, 40), (10, 20)),
    ]
    assert all(s.score == 1 and s.exact for s in segments)


def test_frames_that_match_at_scattered_offsets_do_not_align() -> None:
    """Common frames in another order, far from each other, are no copy of a stretch."""
    rng = np.random.default_rng(2)
    film = random_hashes(rng, 40)
    shuffled = film[np.arange(40) * 7 % 40]
    ours, theirs = frames_of(film, np.arange(40.0) * 5), frames_of(shuffled, np.arange(40.0) * 5)
    segments = align(ours, theirs, find_pairs(ours, theirs))
    assert len(find_pairs(ours, theirs).query) == 40
    assert segments == []
