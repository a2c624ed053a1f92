"""The audio plugin on real and broken files: decode, sniff, vectors, components, matches."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerprint_dagster.codec import sketch_to_value, value_to_sketch
from fingerprint_dagster.content import Content, Fingerprint, Match, Sketch, Value
from fingerprint_dagster.media.audio import AudioPlugin
from fingerprint_dagster.media.audio import sketch as sketch_module
from fingerprint_dagster.media.audio.chromaprint import SAMPLE_RATE
from fingerprint_dagster.media.audio.decode import decode_audio
from fingerprint_dagster.media.audio.landmarks import BANDS, BANDS_PER_OCTAVE, FRAME, HOP, LOWEST_HZ, unpack
from fingerprint_dagster.media.audio.sketch import spectrogram
from fingerprint_dagster.media.audio.windows import (
    CLOSE_STEP_ROWS,
    COLUMNS,
    MOST_CLOSE,
    ROWS,
    STEP_ROWS,
    mean_rows,
    window_positions,
    windows,
)
from fingerprint_dagster.models import ModelRuntime

iscc_samples = pytest.importorskip("iscc_samples", reason="the demo media (pip install fingerprint-dagster[demo])")

AUDIO = {Path(path).name: Path(path) for path in iscc_samples.audios()}
VIDEO = {Path(path).name: Path(path) for path in iscc_samples.videos()}
PLUGIN = AudioPlugin()


def tone(seconds: float, hertz: float = 440.0, rate: int = SAMPLE_RATE) -> np.ndarray:
    return np.round(8000 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.int16)


def noise(seconds: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3000, int(seconds * SAMPLE_RATE)).astype(np.int16)


def sketch(pcm: np.ndarray) -> Sketch:
    decoded = Value({"pcm": pcm}, {"duration": len(pcm) / SAMPLE_RATE})
    return PLUGIN.hash(decoded, PLUGIN.embed([decoded], ModelRuntime(device="cpu"))[0])


def fingerprint(pcm: np.ndarray, name: str = "it") -> Fingerprint:
    return Fingerprint(Content(name, f"file:///{name}", "audio"), "", 0, "audio/wav", "", sketch(pcm))


def match(query: np.ndarray, reference: np.ndarray) -> list[Match]:
    return PLUGIN.match(fingerprint(query, "query"), fingerprint(reference, "reference"))


@pytest.fixture(scope="module")
def song() -> np.ndarray:
    """15.5 s of music."""
    return decode_audio(AUDIO["demo.mp3"]).arrays["pcm"]


@pytest.fixture(scope="module")
def soundtrack() -> np.ndarray:
    """60 s of speech over sounds."""
    return decode_audio(VIDEO["demo.mp4"]).arrays["pcm"]


# --- vectors


@given(st.integers(0, 6000))
def test_windows_cover_every_row(frames: int) -> None:
    levels = np.repeat(np.arange(frames, dtype=np.float32)[:, None], BANDS, axis=1)
    cuts, starts = windows(mean_rows(levels))
    assert cuts.shape[1:] == (ROWS, COLUMNS)
    assert (len(starts) > 0) == (frames >= 2)
    for cut, start in zip(cuts[starts], starts, strict=True):
        rows = min(ROWS, frames // 2)
        assert np.array_equal(cut[:rows, 0], 2 * np.arange(start, start + rows, dtype=np.float32) + np.float32(0.5))
        assert (cut[rows:] == 0.5).all()
    if frames >= 2 * ROWS:
        spare = frames // 2 - ROWS
        step = CLOSE_STEP_ROWS if spare // CLOSE_STEP_ROWS < MOST_CLOSE else STEP_ROWS
        assert np.array_equal(starts, np.arange(0, spare + 1, step))
    places = window_positions(starts, frames * HOP / SAMPLE_RATE)
    assert (places[:, 1] > places[:, 0]).all()


def test_spectrogram_agrees_with_librosa(song: np.ndarray) -> None:
    librosa = pytest.importorskip("librosa")
    ours = spectrogram(song, ModelRuntime(device="cpu"))
    theirs = np.abs(librosa.stft(song / np.float32(32768), n_fft=FRAME, hop_length=HOP, center=False)).T
    assert ours.shape == (len(theirs), BANDS)
    for band in (0, 20, 60, 120, BANDS - 1):  # the loudest bin in the band, or between the two around its middle
        places = LOWEST_HZ * 2 ** ((band + np.array([-0.5, 0.0, 0.5])) / BANDS_PER_OCTAVE) * FRAME / SAMPLE_RATE
        low, middle, high = np.ceil(places[0]), int(places[1]), np.ceil(places[2])
        inside = theirs[:, int(low) : max(int(high), int(low) + 1)].max(axis=1)
        between = np.sqrt((theirs[:, [middle, middle + 1]] ** 2) @ [1 - places[1] % 1, places[1] % 1])
        expected = np.maximum(inside, between) if band >= 60 else between
        assert np.allclose(ours[:, band], np.log(expected + 1e-5), atol=0.01)


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 7))
def test_spectrogram_does_not_depend_on_how_it_is_batched(size: int) -> None:
    pcm = noise(31.7, 5)
    alone = spectrogram(pcm, ModelRuntime(device="cpu", batch_size=1))
    assert np.allclose(spectrogram(pcm, ModelRuntime(device="cpu", batch_size=size)), alone, atol=1e-4)


def test_landmarks_and_patches_do_not_depend_on_how_much_is_in_memory(
    soundtrack: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = embed(soundtrack).arrays
    for frames, cuts in ((128, 7), (190, 16), (1000, 1)):
        monkeypatch.setattr(sketch_module, "_FRAMES_AT_ONCE", frames)
        monkeypatch.setattr(sketch_module, "_WINDOWS_AT_ONCE", cuts)
        parts = embed(soundtrack).arrays
        assert all(np.array_equal(parts[name], array) for name, array in whole.items())


def patches(pcm: np.ndarray, **runtime: str) -> np.ndarray:
    """bool [k, 256]."""
    return np.unpackbits(embed(pcm, **runtime).arrays["patches"], axis=1).astype(bool)


def embed(pcm: np.ndarray, **runtime: str) -> Value:
    return PLUGIN.embed([Value({"pcm": pcm})], ModelRuntime(device="cpu", **runtime))[0]


def test_patches_tell_windows_apart(soundtrack: np.ndarray) -> None:
    ours = patches(soundtrack)
    assert ours.shape == (59, 256)
    later = patches(soundtrack[SAMPLE_RATE // 2 :])[:58]
    differing = (later[:, None] != ours).mean(axis=2)
    assert np.mean(np.abs(differing.argmin(axis=1) - np.arange(58)) <= 1) > 0.85


def test_patches_do_not_depend_on_loudness_or_precision(soundtrack: np.ndarray) -> None:
    ours = patches(soundtrack)
    assert (patches(soundtrack // 2) != ours).mean() < 0.05
    assert (patches(soundtrack, precision="bf16") != ours).mean() < 0.001


def test_a_batch_gives_each_sound_its_own(song: np.ndarray) -> None:
    sounds = [song, np.zeros(0, np.int16), tone(0.5), song[:70_000]]
    together = PLUGIN.embed([Value({"pcm": pcm}) for pcm in sounds], ModelRuntime(device="cpu"))
    assert [len(value.arrays["patches"]) for value in together] == [34, 0, 1, 1]
    for pcm, value in zip(sounds, together, strict=True):
        alone = embed(pcm)
        assert value.arrays.keys() == alone.arrays.keys()
        for name, array in alone.arrays.items():
            assert np.array_equal(value.arrays[name], array)


# --- components


def test_components_of_a_song(song: np.ndarray) -> None:
    made = sketch(song)
    assert [(c.algorithm, c.kind) for c in made.components] == [
        ("chromaprint_v1", "data"),
        ("landmarks_v1", "data"),
        ("landmark_triples_v1", "tokens"),
        ("sound_patch_v1", "signs"),
    ]
    data, landmarks, triples, patch = made.components
    assert (data.values.dtype, landmarks.values.dtype, triples.values.dtype) == (np.uint32, np.uint32, np.uint64)
    assert patch.values.shape == (34, 32)
    assert patch.positions is not None
    assert patch.positions[-1, 1] == pytest.approx(made.info["duration"], abs=0.5)
    assert patch.searchable is not None
    assert patch.asked is not None
    assert (patch.asked | ~patch.searchable).all()
    assert patch.searchable.mean() > 0.8
    assert made.info["low_information"] is False
    again = value_to_sketch(sketch_to_value(made))
    assert np.array_equal(again.components[2].values, triples.values)


@pytest.mark.parametrize(
    "pcm",
    [
        np.zeros(0, np.int16),
        np.zeros(20 * SAMPLE_RATE, np.int16),
        np.full(20 * SAMPLE_RATE, 5000, np.int16),
        tone(20),
        tone(20) // 2 + tone(20, 660) // 2 + noise(20, 1) // 100,
        noise(20, 1),
        tone(0.5),
        noise(2.9, 1),
    ],
    ids=["nothing", "silence", "constant", "tone", "chord", "noise", "half a second", "under three seconds"],
)
def test_what_has_no_information_says_so_and_no_patch_of_it_is_found(pcm: np.ndarray) -> None:
    made = sketch(pcm)
    assert made.info["low_information"] is True
    patch = made.component("sound_patch_v1")
    assert patch is not None
    assert patch.searchable is not None
    assert not patch.searchable.any()


@pytest.mark.parametrize("pcm", [np.zeros(220_500, np.int16), tone(20), tone(20) // 2 + tone(20, 660) // 2])
def test_silence_and_steady_tones_have_no_landmarks(pcm: np.ndarray) -> None:
    triples = sketch(pcm).component("landmark_triples_v1")
    assert triples is not None
    assert len(triples.values) == 0


def test_silent_part_of_a_song_is_not_looked_up(song: np.ndarray) -> None:
    made = sketch(np.concatenate((song, np.zeros(30 * SAMPLE_RATE, np.int16))))
    patch, landmarks = made.component("sound_patch_v1"), made.component("landmarks_v1")
    assert patch is not None
    assert landmarks is not None
    assert patch.positions is not None
    assert patch.searchable is not None
    assert not patch.searchable[patch.positions[:, 0] > 18].any()
    assert patch.searchable[patch.positions[:, 1] < 14].any()
    assert unpack(landmarks.values).time.max() < 16


# --- matches


@pytest.mark.parametrize("name", ["demo.aac", "demo.ogg", "demo.opus", "demo.wav", "demo.ac3"])
def test_transcodes_match_over_their_whole_length(name: str, song: np.ndarray) -> None:
    (found,) = match(decode_audio(AUDIO[name]).arrays["pcm"], song)
    assert found.evidence == "chromaprint_v1"
    assert found.reference.content_id == "reference"
    assert found.score > 0.9
    assert found.query_range is not None
    assert found.reference_range is not None
    for start, end in (found.query_range, found.reference_range):
        assert start <= 0.3
        assert end >= 15.2


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 49 * SAMPLE_RATE))
def test_ten_seconds_are_found_at_their_place(start: int) -> None:
    whole = decode_audio(VIDEO["demo.mp4"]).arrays["pcm"]
    found = match(whole[start : start + 10 * SAMPLE_RATE], whole)[0]
    assert found.query_range is not None
    assert found.reference_range is not None
    assert abs(found.reference_range[0] - found.query_range[0] - start / SAMPLE_RATE) <= 0.2
    assert found.query_range[0] <= 1
    assert found.query_range[1] >= 9


def test_part_inside_another_sound_is_found_at_its_edges(song: np.ndarray, soundtrack: np.ndarray) -> None:
    mixed = np.concatenate((soundtrack[: 20 * SAMPLE_RATE], song, soundtrack[20 * SAMPLE_RATE :]))
    found = match(song, mixed)
    assert len(found) == 1
    assert found[0].reference_range == pytest.approx((20, 35.5), abs=0.8)


def test_repeated_song_is_found_twice(song: np.ndarray, soundtrack: np.ndarray) -> None:
    twice = np.concatenate((song, soundtrack[: 20 * SAMPLE_RATE], song))
    starts = sorted(m.reference_range[0] for m in match(song, twice) if m.reference_range)
    assert starts == pytest.approx([0, len(song) / SAMPLE_RATE + 20], abs=0.5)


def test_loudness_and_noise_still_match(soundtrack: np.ndarray) -> None:
    random = np.random.default_rng(1).normal(0, 0.3 * soundtrack.std(), len(soundtrack))  # 10 dB below
    louder = np.clip(1.8 * (soundtrack + random), -32768, 32767).astype(np.int16)
    (found,) = match(louder, soundtrack)
    assert found.score > 0.8
    assert found.reference_range == pytest.approx(
        (0, 60), abs=2
    )  # it begins in silence, where the noise is all there is


def test_unrelated_sounds_do_not_match(song: np.ndarray, soundtrack: np.ndarray) -> None:
    assert match(song, soundtrack) == []
    assert match(soundtrack, song) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.zeros(60 * SAMPLE_RATE, np.int16), np.zeros(60 * SAMPLE_RATE, np.int16)),
        (tone(60), tone(60)),
        (tone(60), tone(60, 441)),
        (noise(120, 1), noise(120, 2)),
        (tone(1), tone(1)),
    ],
    ids=["silence", "tone", "two tones", "noise", "short"],
)
def test_silence_tones_and_noise_never_match(one: np.ndarray, other: np.ndarray) -> None:
    assert match(one, other) == []


def test_fingerprints_without_chromaprint_do_not_match(song: np.ndarray) -> None:
    bare = Fingerprint(Content("bare", "file:///bare", "audio"), "", 0, "audio/wav", "", Sketch(()))
    assert PLUGIN.match(bare, fingerprint(song)) == []
    assert PLUGIN.match(fingerprint(song), bare) == []


# --- the plugin


def test_importing_and_hashing_load_no_torch() -> None:
    program = (
        "import sys, numpy as np\n"
        "from fingerprint_dagster.media.audio import AudioPlugin\n"
        "heavy = {'torch', 'av', 'librosa', 'numba', 'scipy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "from fingerprint_dagster.content import Value\n"
        "pcm = Value({'pcm': np.zeros(99999, np.int16)}, {'duration': 9.07})\n"
        "rows = np.arange(4) * 10\n"
        "AudioPlugin().hash(pcm, Value({'landmarks': np.arange(9, dtype=np.uint32) << 15, "
        "'levels': np.zeros(9, np.float32), 'patches': np.zeros((4, 32), np.uint8), 'rows': rows, "
        "'changing': rows > 0}))\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr


def test_plugin_claims_sound_files_and_versions_every_stage() -> None:
    assert {".mp3", ".flac", ".ogg", ".opus", ".wav", ".m4a", ".wma"} <= PLUGIN.extensions
    assert all(end == end.lower() and end.startswith(".") for end in PLUGIN.extensions)
    assert set(PLUGIN.versions) == {"decode", "embed", "hash"}
