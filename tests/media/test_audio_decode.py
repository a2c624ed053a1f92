"""Any sound file, or the soundtrack of a video, to mono PCM; what is broken gives a reason or what is left of it."""

import tempfile
import wave
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.media.audio import decode as decode_module
from fingerprint_dagster.media.audio.chromaprint import SAMPLE_RATE, chromaprint_v1
from fingerprint_dagster.media.audio.decode import decode_audio, decode_soundtrack, sniff_audio

iscc_samples = pytest.importorskip("iscc_samples", reason="the demo media (pip install fingerprint-dagster[demo])")

AUDIO = {Path(path).name: Path(path) for path in iscc_samples.audios()}
VIDEO = {Path(path).name: Path(path) for path in iscc_samples.videos()}


def write_wav(path: Path, samples: np.ndarray, rate: int = SAMPLE_RATE) -> Path:
    """samples: int16 [n] or [n, channels]."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def write_sound(
    path: Path, codec: str, samples: np.ndarray, rate: int = 44100, container: str | None = None, layout: str = "stereo"
) -> Path:
    """Encode samples, int16 [n, channels]; the container is named by the ending of the path, or by `container`."""
    import av

    with av.open(str(path), "w", format=container) as file:
        stream: Any = file.add_stream(codec, rate=rate, layout=layout)
        stream.bit_rate = 12_200 if rate == 8000 else 128_000
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples).reshape(1, -1), "s16", layout)
        frame.sample_rate = rate
        size = stream.codec_context.frame_size or 1152
        resampler = av.AudioResampler(stream.format.name, layout, rate, frame_size=size)
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            file.mux(stream.encode(part))
    return path


def write_silent_video(path: Path) -> Path:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number, np.uint8), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def tone(seconds: float, hertz: float = 440.0, rate: int = SAMPLE_RATE) -> np.ndarray:
    return np.round(8000 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.int16)


def sweep(seconds: float, rate: int = 44100) -> np.ndarray:
    """A tone that rises from 100 to 1,100 Hz and falls again, every two seconds: int16 [n, 2], both channels alike."""
    time = np.arange(int(seconds * rate)) / rate
    sound = 8000 * np.sin(2 * np.pi * (600 * time + 500 / np.pi * np.sin(np.pi * time)))
    return np.repeat(np.round(sound).astype(np.int16)[:, None], 2, axis=1)


def noise(seconds: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3000, int(seconds * SAMPLE_RATE)).astype(np.int16)


def failure(path: Path) -> ContentError:
    with pytest.raises(ContentError) as caught:
        decode_audio(path)
    assert not caught.value.retryable
    assert str(path) not in caught.value.reason
    return caught.value


@pytest.fixture(scope="module")
def song() -> np.ndarray:
    """15.5 s of music."""
    return decode_audio(AUDIO["demo.mp3"]).arrays["pcm"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """What becomes of `sweep(6)`."""
    return decode_audio(write_wav(tmp_path_factory.mktemp("swept") / "it", sweep(6), 44100)).arrays["pcm"]


# --- decode


@pytest.mark.parametrize("name", sorted(set(AUDIO) - {"short.wav"}))
def test_every_demo_format_gives_the_same_sound(name: str, song: np.ndarray) -> None:
    value = decode_audio(AUDIO[name])
    pcm = value.arrays["pcm"]
    assert pcm.dtype == np.int16
    assert value.info["duration"] == pytest.approx(15.5, abs=0.05)
    assert value.info["duration"] == len(pcm) / SAMPLE_RATE
    assert (value.info["sample_rate"], value.info["channels"]) == (48000 if name == "demo.opus" else 44100, 2)
    assert "partial" not in value.info
    # Bare AAC and AC-3 streams keep the encoder's lead-in: compare at the best shift of up to 0.1 s.
    part = song[50_000:80_000]
    likeness = [np.corrcoef(pcm[50_000 + late : 80_000 + late], part)[0, 1] for late in range(-100, 1100)]
    assert max(likeness) > 0.9


@pytest.mark.parametrize("name", sorted(set(VIDEO) - {"demo.gif", "demo.m1v"}))
def test_soundtrack_of_every_demo_video(name: str) -> None:
    value = decode_audio(VIDEO[name])
    assert value.info["duration"] == pytest.approx(60.1, abs=0.15)
    assert np.abs(value.arrays["pcm"]).max() > 6000
    assert "partial" not in value.info


FORMATS = [
    ("it.mp3", "libmp3lame", "mp3", 44100),
    ("it.mp2", "mp2", "mp2", 44100),
    ("it.m4a", "aac", "ipod", 44100),
    ("lossless.m4a", "alac", "ipod", 44100),
    ("it.aac", "aac", "adts", 44100),
    ("it.flac", "flac", "flac", 44100),
    ("it.opus", "libopus", "ogg", 48000),
    ("it.webm", "libopus", "webm", 48000),
    ("it.mka", "libmp3lame", "matroska", 44100),
    ("it.wma", "wmav2", "asf", 44100),
    ("it.aiff", "pcm_s16be", "aiff", 44100),
    ("it.amr", "libopencore_amrnb", "amr", 8000),
    ("it.ac3", "ac3", "ac3", 48000),
    ("it.eac3", "eac3", "eac3", 48000),
    ("it.wv", "wavpack", "wv", 44100),
    ("it.tta", "tta", "tta", 44100),
    ("it.w64", "pcm_s16le", "w64", 44100),
    ("it.au", "pcm_s16be", "au", 44100),
    ("it.caf", "pcm_s16le", "caf", 44100),
    ("float.wav", "pcm_f32le", "wav", 44100),
    ("24.wav", "pcm_s24le", "wav", 96000),
    ("8.wav", "pcm_u8", "wav", 44100),
    ("adpcm.wav", "adpcm_ima_wav", "wav", 44100),
    ("it.avi", "libmp3lame", "avi", 44100),
    ("it.flv", "libmp3lame", "flv", 44100),
    ("it.3gp", "libopencore_amrnb", "3gp", 8000),
]


@pytest.mark.parametrize(("name", "codec", "container", "rate"), FORMATS, ids=[row[0] for row in FORMATS])
def test_the_same_sound_from_every_format(
    name: str, codec: str, container: str, rate: int, tmp_path: Path, swept: np.ndarray
) -> None:
    mono = codec == "libopencore_amrnb"
    sound = sweep(6, rate)[:, :1] if mono else sweep(6, rate)
    path = write_sound(tmp_path / name, codec, sound, rate, container, "mono" if mono else "stereo")
    value = decode_audio(path)
    assert value.info["duration"] == pytest.approx(6, abs=0.07)
    assert (value.info["sample_rate"], value.info["channels"]) == (rate, 1 if mono else 2)
    assert "partial" not in value.info
    assert sniff_audio(path.read_bytes()[:4096])
    items = chromaprint_v1(value.arrays["pcm"])
    expected = chromaprint_v1(swept)
    assert np.bitwise_count(items[: len(expected)] ^ expected[: len(items)]).mean() < 4  # of 32; chance is 16


def test_info_names_the_codec() -> None:
    assert [decode_audio(AUDIO[n]).info["codec"] for n in ("demo.mp3", "demo.ogg", "short.wav")] == [
        "mp3",
        "vorbis",
        "pcm_s16le",
    ]


def test_cover_art_changes_nothing(song: np.ndarray) -> None:
    assert np.array_equal(decode_audio(AUDIO["withcover.mp3"]).arrays["pcm"], song)


def test_samples_at_the_target_rate_are_kept(tmp_path: Path) -> None:
    pcm = noise(2, 1)
    assert np.array_equal(decode_audio(write_wav(tmp_path / "it", pcm)).arrays["pcm"], pcm)


def test_stereo_is_the_mean_of_both_channels(tmp_path: Path) -> None:
    left, right = noise(1, 1), noise(1, 2)
    mono = decode_audio(write_wav(tmp_path / "it", np.stack((left, right), 1))).arrays["pcm"]
    assert np.abs(mono - (left.astype(int) + right) / 2).max() <= 1


def test_eight_channels(tmp_path: Path) -> None:
    value = decode_audio(write_wav(tmp_path / "it", np.repeat(noise(1, 1)[:, None], 8, axis=1)))
    assert value.info["channels"] == 8
    assert np.corrcoef(value.arrays["pcm"], noise(1, 1))[0, 1] > 0.99


def test_high_sample_rate(tmp_path: Path) -> None:
    value = decode_audio(write_wav(tmp_path / "it", tone(2, rate=192_000), 192_000))
    assert value.info["sample_rate"] == 192_000
    pcm = value.arrays["pcm"]
    assert len(pcm) == pytest.approx(2 * SAMPLE_RATE, abs=2)
    assert np.abs(np.fft.rfft(pcm)).argmax() == pytest.approx(880, abs=1)  # bins of 0.5 Hz


def test_half_a_second_is_sound_too(tmp_path: Path) -> None:
    value = decode_audio(write_wav(tmp_path / "it", tone(0.5)))
    assert value.info["duration"] == pytest.approx(0.5, abs=0.001)
    assert "partial" not in value.info


def test_format_that_changes_on_the_way(tmp_path: Path) -> None:
    # Two Ogg files one after the other are one valid, chained Ogg file.
    one, other = AUDIO["demo.opus"].read_bytes(), AUDIO["demo.ogg"].read_bytes()
    path = tmp_path / "it"
    path.write_bytes(other + other)
    assert decode_audio(path).info["duration"] == pytest.approx(31, abs=0.2)
    path.write_bytes(other + one)  # of another codec: the first part at least
    assert decode_audio(path).info["duration"] >= 15


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 200_000), st.integers(4096, 1 << 18), st.sampled_from(["demo.mp3", "demo.opus", "demo.wv"]))
def test_result_does_not_depend_on_block_sizes(block: int, read: int, name: str) -> None:
    expected = decode_audio(AUDIO[name])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode_module, "_BLOCK", block)
        patch.setattr(decode_module, "_READ_BYTES", read)
        value = decode_audio(AUDIO[name])
    assert value.info == expected.info
    assert np.array_equal(value.arrays["pcm"], expected.arrays["pcm"])


def test_result_does_not_depend_on_the_frames_of_the_file(tmp_path: Path, swept: np.ndarray) -> None:
    for codec, container in (("flac", "flac"), ("alac", "ipod"), ("pcm_s16le", "caf")):
        path = write_sound(tmp_path / "it", codec, sweep(6), container=container)
        assert np.array_equal(decode_audio(path).arrays["pcm"], swept)


def test_what_chromaprint_does_not_hear_is_filtered_out(tmp_path: Path) -> None:
    # fpcalc's filter. What lay above half the new rate must not be mirrored into the notes.
    def loudness(hertz: float) -> float:
        path = write_wav(tmp_path / "it", tone(1, hertz, 44100), 44100)
        return float(decode_audio(path).arrays["pcm"][1000:-1000].std() / tone(1).std())

    assert loudness(3500) > 0.9
    assert loudness(8000) < 0.001


def test_channels_of_unknown_places_are_averaged(tmp_path: Path) -> None:
    for channels in (9, 13, 64):
        path = write_wav(tmp_path / "it", np.repeat(noise(1, 1)[:, None], channels, axis=1))
        assert np.abs(decode_audio(path).arrays["pcm"].astype(int) - noise(1, 1)).max() <= 3


def test_more_channels_than_any_recording_has_are_refused(tmp_path: Path) -> None:
    assert "65 channels" in failure(write_wav(tmp_path / "it", np.zeros((1000, 65), np.int16))).reason


def test_loud_surround_sound_is_not_clipped_by_mixing(tmp_path: Path) -> None:
    sound = np.repeat(3 * tone(1, rate=48000)[:, None], 6, axis=1)
    pcm = decode_audio(write_sound(tmp_path / "it", "flac", sound, 48000, "flac", "5.1")).arrays["pcm"]
    assert np.abs(pcm.astype(int)).max() == pytest.approx(24_000, rel=0.01)


@pytest.mark.parametrize(("codec", "container"), [("aac", "adts"), ("libmp3lame", "mp3"), ("ac3", "ac3")])
def test_rate_and_channels_that_change_on_the_way(codec: str, container: str, tmp_path: Path) -> None:
    one = write_sound(tmp_path / "one", codec, sweep(6, 48000), 48000, container)
    rate = 32000 if codec == "ac3" else 24000
    other = write_sound(tmp_path / "other", codec, sweep(6, rate)[:, :1], rate, container, "mono")
    (tmp_path / "both").write_bytes(one.read_bytes() + other.read_bytes())
    value = decode_audio(tmp_path / "both")
    assert value.info["duration"] == pytest.approx(12, abs=0.2)
    assert (value.info["sample_rate"], value.info["channels"]) == (48000, 2)
    pcm = value.arrays["pcm"]
    for part in (pcm[: 5 * SAMPLE_RATE], pcm[-5 * SAMPLE_RATE :]):
        assert part.std() == pytest.approx(tone(1).std(), rel=0.1)


def test_time_stamps_that_jump_change_nothing(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "it"), "w", format="matroska") as file:
        stream: Any = file.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        at = 0
        for number in range(30):
            frame = av.AudioFrame.from_ndarray(noise(0.2, number)[None], "s16", "mono")
            frame.sample_rate, frame.pts = SAMPLE_RATE, at
            file.mux(stream.encode(frame))
            at += 1_000_000 if number % 7 == 3 else 100  # gaps of 90 s, and overlaps
        file.mux(stream.encode(None))
    pcm = decode_audio(tmp_path / "it").arrays["pcm"]
    assert np.array_equal(pcm, np.concatenate([noise(0.2, number) for number in range(30)]))


def claim(path: Path, place: int, claimed: bytes) -> Path:
    """A WAV file of six seconds with other bytes in its header."""
    content = bytearray(write_wav(path, tone(6)).read_bytes())
    content[place : place + len(claimed)] = claimed
    path.write_bytes(content)
    return path


def test_lengths_that_a_header_only_claims(tmp_path: Path) -> None:
    for size in (b"\xff\xff\xff\xff", b"\xf0\xff\xff\x7f", bytes(4)):  # of a stream; of 27 hours; unknown
        value = decode_audio(claim(tmp_path / "it", 40, size))
        assert np.array_equal(value.arrays["pcm"], tone(6))


def test_damaged_sizes_that_point_before_the_file(tmp_path: Path) -> None:
    content = bytearray(write_sound(tmp_path / "it", "pcm_s16le", sweep(6), container="w64").read_bytes())
    content[44] = 70  # in the name of a chunk; its size is made such that samples are taken for the next size
    content[56] = 251
    (tmp_path / "it").write_bytes(content)
    failure(tmp_path / "it")


@pytest.mark.parametrize("rate", [0, 1, 999, 768_001, 2**31 - 1, 2**32 - 1])
def test_sample_rates_that_no_recording_has(rate: int, tmp_path: Path) -> None:
    failure(claim(tmp_path / "it", 24, rate.to_bytes(4, "little")))


@pytest.mark.parametrize("channels", [0, 60_000])
def test_channel_counts_that_no_recording_has(channels: int, tmp_path: Path) -> None:
    failure(claim(tmp_path / "it", 22, channels.to_bytes(2, "little")))


def test_floats_that_are_no_sound(tmp_path: Path) -> None:
    odd = np.tile(np.array([0.1, np.nan, np.inf, -np.inf, 1e38], "<f4"), 20_000)
    header = write_wav(tmp_path / "it", np.zeros((len(odd), 2), np.int16)).read_bytes()[:44]
    content = bytearray(header + odd.tobytes())
    content[20:24] = b"\3\0\1\0"  # one channel of floats
    content[28:36] = (4 * SAMPLE_RATE).to_bytes(4, "little") + b"\4\0\x20\0"
    (tmp_path / "it").write_bytes(content)
    first, second = (decode_audio(tmp_path / "it").arrays["pcm"] for _ in range(2))
    assert len(first) == len(odd)
    assert np.array_equal(first, second)


def test_soundtrack_is_none_where_there_is_no_sound(tmp_path: Path) -> None:
    assert decode_soundtrack(write_silent_video(tmp_path / "silent.mp4")) is None
    value = decode_soundtrack(VIDEO["demo.mp4"])
    assert value is not None
    assert np.array_equal(value.arrays["pcm"], decode_audio(VIDEO["demo.mp4"]).arrays["pcm"])


def test_the_name_of_a_file_means_nothing(tmp_path: Path, song: np.ndarray) -> None:
    for name in ("it.wav", "it.txt", "it.mp4", "it"):
        (tmp_path / name).write_bytes(AUDIO["demo.mp3"].read_bytes())
        assert np.array_equal(decode_audio(tmp_path / name).arrays["pcm"], song)


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(b"")
    assert failure(tmp_path / "it").reason == "the file is empty"


def test_wav_without_samples(tmp_path: Path) -> None:
    failure(write_wav(tmp_path / "it", np.zeros(0, np.int16)))


def test_text_renamed_to_mp3(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    path.write_text("This is no music, whatever its name says.\n" * 500)
    assert "FFmpeg" in failure(path).reason


def test_random_bytes(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    path.write_bytes(np.random.default_rng(1).bytes(100_000))
    failure(path)


def test_video_without_sound_and_picture_say_so(tmp_path: Path) -> None:
    for path in (write_silent_video(tmp_path / "silent.mp4"), Path(iscc_samples.images()[0])):
        reason = failure(path).reason
        assert "no audio stream" in reason
        assert "register" in reason


@pytest.mark.parametrize("name", ["demo.mp3", "demo.wv"])
def test_truncated_file_keeps_what_is_there(name: str, tmp_path: Path, song: np.ndarray) -> None:
    data = AUDIO[name].read_bytes()
    (tmp_path / "it").write_bytes(data[: len(data) // 2])
    value = decode_audio(tmp_path / "it")
    assert value.info["partial"] is True
    pcm = value.arrays["pcm"]
    assert len(pcm) / len(song) == pytest.approx(0.5, abs=0.1)
    assert np.corrcoef(pcm[:50_000], song[:50_000])[0, 1] > 0.99


def test_nearly_nothing_left_of_a_file_is_an_error(tmp_path: Path) -> None:
    data = AUDIO["demo.mp3"].read_bytes()
    (tmp_path / "it").write_bytes(data[: len(data) // 20])
    assert "truncated" in failure(tmp_path / "it").reason


def test_mp4_without_its_index_is_an_error(tmp_path: Path) -> None:
    data = VIDEO["demo.mov"].read_bytes()
    (tmp_path / "it").write_bytes(data[:3000])
    failure(tmp_path / "it")


def test_damage_in_the_middle_costs_only_that_part(tmp_path: Path, song: np.ndarray) -> None:
    data = bytearray(AUDIO["demo.mp3"].read_bytes())
    data[100_000:110_000] = np.random.default_rng(1).bytes(10_000)
    (tmp_path / "it").write_bytes(data)
    pcm = decode_audio(tmp_path / "it").arrays["pcm"]
    assert len(pcm) / len(song) > 0.9
    assert np.array_equal(pcm[:50_000], song[:50_000])


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["demo.mp3", "demo.ogg", "demo.aac", "demo.ac3", "short.wav"]),
    st.lists(st.tuples(st.integers(0, 19_999), st.integers(0, 255)), max_size=20),
)
def test_damaged_bytes_give_a_value_or_a_content_error(name: str, damage: list[tuple[int, int]]) -> None:
    content = bytearray(AUDIO[name].read_bytes()[:20_000])
    for place, byte in damage:
        content[place] = byte
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            samples = len(decode_audio(Path(file.name)).arrays["pcm"])
        except ContentError:
            samples = None
    assert samples is None or samples > 0


def test_longer_than_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_module, "MAX_SECONDS", 10)
    assert "longer than" in failure(AUDIO["demo.mp3"]).reason


def test_playlists_open_nothing(tmp_path: Path) -> None:
    target = AUDIO["demo.mp3"].resolve()
    playlists = {
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:16\n#EXTINF:16,\n{target.as_uri()}\n#EXT-X-ENDLIST\n",
        "list.ffconcat": f"ffconcat version 1.0\nfile '{target}'\n",
        "list.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    }
    for name, text in playlists.items():
        (tmp_path / name).write_text(text)
        failure(tmp_path / name)


# --- sniff


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("demo.aac", "audio/aac"),
        ("demo.ac3", "audio/ac3"),
        ("demo.aif", "audio/aiff"),
        ("demo.mp3", "audio/mpeg"),
        ("withcover.mp3", "audio/mpeg"),
        ("demo.ogg", "audio/ogg"),
        ("demo.opus", "audio/ogg"),
        ("demo.wav", "audio/wav"),
        ("demo.wv", "audio/x-wavpack"),
    ],
)
def test_sniff_sound(name: str, media_type: str) -> None:
    assert sniff_audio(AUDIO[name].read_bytes()[:4096]) == media_type


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("demo.3gp", "video/3gpp"),
        ("demo.avi", "video/x-msvideo"),
        ("demo.flv", "video/x-flv"),
        ("demo.mkv", "video/x-matroska"),
        ("demo.mov", "video/quicktime"),
        ("demo.mp4", "video/mp4"),
        ("demo.mpg", "video/mpeg"),
        ("demo.ogv", "video/ogg"),
        ("demo.rm", "video/x-realmedia"),
        ("demo.webm", "video/webm"),
        ("demo.wmv", "video/x-ms-asf"),
    ],
)
def test_sniff_video_containers(name: str, media_type: str) -> None:
    assert sniff_audio(VIDEO[name].read_bytes()[:4096]) == media_type


def test_sniff_formats_by_their_first_bytes() -> None:
    assert sniff_audio(b"fLaC\0\0\0\x22") == "audio/flac"
    assert sniff_audio(b"ID3\x04\0\0\0\0\0\0fLaC") == "audio/flac"
    assert sniff_audio(b"#!AMR\n") == "audio/amr"
    assert sniff_audio(b"\0\0\0\x20ftypM4A ") == "audio/mp4"
    assert sniff_audio(decode_module._ASF) == "audio/x-ms-wma"
    mp3 = AUDIO["demo.mp3"].read_bytes()
    tag = 10 + sum(byte << shift for byte, shift in zip(mp3[6:10], (21, 14, 7, 0), strict=True))
    assert mp3[:3] == b"ID3"
    assert sniff_audio(mp3[tag : tag + 4096]) == "audio/mpeg"


def test_sniff_knows_what_is_no_sound() -> None:
    for path in [*iscc_samples.images(), *iscc_samples.texts(), VIDEO["demo.gif"]]:
        assert sniff_audio(Path(path).read_bytes()[:4096]) is None, path
    assert sniff_audio("\ufeffUTF-16 text".encode("utf-16-le")) is None
    assert sniff_audio(b"\0\0\0\x20ftypavif") is None


@given(st.binary(max_size=200))
def test_sniff_never_raises(head: bytes) -> None:
    for start in (b"", b"ID3", b"RIFF", b"\xff\xfb", b"\xff\xf1", b"\0\0\0\x20ftyp", b"\x1a\x45\xdf\xa3"):
        assert sniff_audio(start + head) is None or "/" in str(sniff_audio(start + head))


def test_sniff_random_bytes() -> None:
    random = np.random.default_rng(1)
    assert [s for s in (sniff_audio(random.bytes(4096)) for _ in range(3000)) if s] == []
