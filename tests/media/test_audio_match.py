"""Copies of sound that were sped up, stretched, transposed, drowned in noise, cut and repeated: found, and where."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerprint_dagster.content import Content, Fingerprint, Match, Value
from fingerprint_dagster.media.audio import AudioPlugin
from fingerprint_dagster.media.audio.alignment import (
    LEAST_EVIDENCE,
    PITCH_DEVIATION,
    PITCH_TOLERANCE,
    TIME_DEVIATION,
    TIME_TOLERANCE,
    align,
    closer,
    most_evidence,
)
from fingerprint_dagster.media.audio.chromaprint import SAMPLE_RATE
from fingerprint_dagster.media.audio.decode import decode_audio
from fingerprint_dagster.media.audio.landmarks import (
    BANDS,
    HOP,
    PITCH_UNIT,
    TIME_UNIT,
    TRIPLES_PER_SECOND,
    Landmarks,
    find_landmarks,
    pack,
    triples_v1,
    unpack,
)
from fingerprint_dagster.media.audio.match import Segment
from fingerprint_dagster.models import ModelRuntime
from fingerprint_dagster.search import judged

iscc_samples = pytest.importorskip("iscc_samples", reason="the demo media (pip install fingerprint-dagster[demo])")
librosa = pytest.importorskip("librosa")

PLUGIN = AudioPlugin()
NOTES = np.array([0, 2, 3, 5, 7, 8, 10])  # a minor scale


@cache
def melody(seconds: float, seed: int) -> np.ndarray:
    """int16 [n]: three voices of plucked notes of a scale, at their own times."""
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    sound = np.zeros(len(time))
    for octave in (0, 1, 2):
        at = 0.0
        while at < seconds:
            hertz = 220 * 2 ** (octave + random.choice(NOTES) / 12)
            note = slice(int(at * SAMPLE_RATE) + 1, int((at + 1.5) * SAMPLE_RATE))
            since = time[note] - at
            for partial in (1, 2, 3):
                sound[note] += np.sin(2 * np.pi * partial * hertz * since) * np.exp(-4 * since) / partial**2
            at += random.choice([0.125, 0.25, 0.25, 0.375, 0.5]) * random.uniform(0.95, 1.05)
    return np.round(5000 * sound / np.abs(sound).std()).clip(-32768, 32767).astype(np.int16)


def fingerprint(pcm: np.ndarray, name: str = "it") -> Fingerprint:
    decoded = Value({"pcm": pcm}, {"duration": len(pcm) / SAMPLE_RATE})
    sketch = PLUGIN.hash(decoded, PLUGIN.embed([decoded], ModelRuntime(device="cpu"))[0])
    return Fingerprint(Content(name, f"file:///{name}", "audio"), "", 0, "audio/wav", "", sketch)


def match(query: np.ndarray, reference: np.ndarray) -> list[Match]:
    return PLUGIN.match(fingerprint(query, "query"), fingerprint(reference, "reference"))


def to_int16(sound: np.ndarray) -> np.ndarray:
    return np.round(32767 * np.clip(sound, -1, 1)).astype(np.int16)


def faster(pcm: np.ndarray, speed: float) -> np.ndarray:
    """Tape speed: tempo and pitch together."""
    at = np.arange(0, len(pcm) - 1, speed)
    return np.interp(at, np.arange(len(pcm)), pcm).round().astype(np.int16)


def stretched(pcm: np.ndarray, tempo: float) -> np.ndarray:
    return to_int16(librosa.effects.time_stretch(pcm / np.float32(32768), rate=tempo))


def transposed(pcm: np.ndarray, semitones: float) -> np.ndarray:
    ratio = 2 ** (semitones / 12)
    return faster(stretched(pcm, 1 / ratio), ratio)


def with_noise(pcm: np.ndarray, decibels: float, seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, pcm.std() * 10 ** (-decibels / 20), len(pcm))
    return (0.5 * (pcm + noise)).clip(-32768, 32767).astype(np.int16)


def sure(found: list[Match]) -> bool:
    """Whether the best match is one for which hardly any unrelated sounds give as much evidence."""
    query = fingerprint(melody(5, 9), "query")
    confidence = judged(found, query, query)[0].confidence
    return confidence is not None and confidence > 0.99


def best(found: list[Match]) -> tuple[tuple[float, float], tuple[float, float]]:
    assert found
    assert found[0].query_range is not None
    assert found[0].reference_range is not None
    return found[0].query_range, found[0].reference_range


def place(found: list[Match], at: float) -> float:
    """Where in the reference the best match has second `at` of the query."""
    (start, end), (first, last) = best(found)
    return first + (at - start) * (last - first) / (end - start)


@pytest.fixture(scope="module")
def track() -> np.ndarray:
    """A minute of generated music."""
    return melody(60, 1)


@pytest.fixture(scope="module")
def soundtrack() -> np.ndarray:
    """60 s of speech over sounds."""
    path = next(path for path in map(Path, iscc_samples.videos()) if path.name == "demo.mp4")
    return decode_audio(path).arrays["pcm"]


# --- landmarks


@given(
    st.lists(st.tuples(st.floats(0, 43_200), st.floats(0, 63), st.booleans()), max_size=20),
)
def test_packing_keeps_landmarks_to_their_units(rows: list[tuple[float, float, bool]]) -> None:
    time, pitch, strong = (np.array([row[part] for row in rows]) for part in range(3))
    again = unpack(pack(time, pitch, strong.astype(bool)))
    assert np.abs(again.time - time).max(initial=0) <= TIME_UNIT / 2 + 1e-9
    assert np.abs(again.pitch - pitch).max(initial=0) <= PITCH_UNIT / 2 + 1e-9
    assert np.array_equal(again.strong, strong.astype(bool))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 60))
def test_landmarks_are_the_greatest_around(seed: int, frames: int) -> None:
    levels = np.random.default_rng(seed).normal(0, 1, (frames, BANDS)).astype(np.float32)
    time, pitch, is_strong, _ = find_landmarks(levels)
    frame, band = np.round(time * SAMPLE_RATE / HOP).astype(int), np.round(pitch * 3).astype(int)
    expected, strong = set(), set()
    for f in range(1, frames - 1):
        for b in range(1, BANDS - 1):
            if levels[f, b] == levels[max(f - 4, 0) : f + 5, max(b - 5, 0) : b + 6].max():
                expected.add((f, b))
                if levels[f, b] == levels[max(f - 6, 0) : f + 7, max(b - 7, 0) : b + 8].max():
                    strong.add((f, b))
    # The vertex of a parabola may round to the next frame or band.
    near = [min(expected, key=lambda p: abs(p[0] - f) + abs(p[1] - b)) for f, b in zip(frame, band, strict=True)]
    assert all(abs(p[0] - f) <= 1 and abs(p[1] - b) <= 1 for p, f, b in zip(near, frame, band, strict=True))
    assert len(set(near)) == len(near)
    assert len(expected) - len(near) <= len(expected) // 4  # all but those that hardly rise above their time
    assert {p for p, s in zip(near, is_strong, strict=True) if s} <= strong


def test_no_sound_has_no_landmarks() -> None:
    for frames in (0, 1, 2, 3, 20):
        *landmarks, level = find_landmarks(np.full((frames, BANDS), -11.5, np.float32))
        assert [len(part) for part in landmarks] == [0, 0, 0]
        assert len(triples_v1(Landmarks(*landmarks), level)) == 0


def test_triples_are_few_and_survive_noise(track: np.ndarray) -> None:
    clean, noisy = (fingerprint(pcm).component("landmark_triples_v1") for pcm in (track, with_noise(track, 5)))
    assert clean is not None
    assert noisy is not None
    assert 5 * 60 < len(clean.values) <= TRIPLES_PER_SECOND * 61
    assert np.isin(noisy.values, clean.values).mean() > 0.2
    other = fingerprint(melody(60, 2)).component("landmark_triples_v1")
    assert other is not None
    assert np.isin(other.values, clean.values).mean() < 0.1


# --- changed copies


@pytest.mark.parametrize("speed", [0.9, 0.94, 0.97, 1.03, 1.06, 1.1])
def test_other_speed(speed: float, track: np.ndarray) -> None:
    excerpt = faster(track, speed)[20 * SAMPLE_RATE : 30 * SAMPLE_RATE]
    found = match(excerpt, track)
    assert found[0].evidence == "landmarks_v1"
    assert found[0].details["speed"] == pytest.approx(speed, abs=0.004)
    assert found[0].details["pitch"] == pytest.approx(12 * np.log2(speed), abs=0.1)
    assert place(found, 5) == pytest.approx(25 * speed, abs=0.1)
    assert sure(found)


@pytest.mark.parametrize("tempo", [0.9, 1.1])
def test_other_tempo(tempo: float, track: np.ndarray) -> None:
    found = match(stretched(track[20 * SAMPLE_RATE : 32 * SAMPLE_RATE], tempo), track)
    assert found[0].details["speed"] == pytest.approx(tempo, abs=0.01)
    assert found[0].details["pitch"] == pytest.approx(0, abs=0.15)
    assert place(found, 5) == pytest.approx(20 + 5 * tempo, abs=0.2)


@pytest.mark.parametrize("semitones", [-2, -1, 1, 2])
def test_other_pitch(semitones: int, track: np.ndarray) -> None:
    found = match(transposed(track[20 * SAMPLE_RATE : 30 * SAMPLE_RATE], semitones), track)
    assert found[0].details["speed"] == pytest.approx(1, abs=0.01)
    assert found[0].details["pitch"] == pytest.approx(semitones, abs=0.15)
    assert place(found, 5) == pytest.approx(25, abs=0.2)


def test_speech_and_sounds_at_another_speed(soundtrack: np.ndarray) -> None:
    found = match(faster(soundtrack, 1.05)[20 * SAMPLE_RATE : 30 * SAMPLE_RATE], soundtrack)
    assert found[0].details["speed"] == pytest.approx(1.05, abs=0.004)
    assert place(found, 5) == pytest.approx(25 * 1.05, abs=0.1)


@pytest.mark.parametrize("decibels", [10, 5, 0])
def test_noise(decibels: float, track: np.ndarray) -> None:
    found = match(with_noise(track[20 * SAMPLE_RATE : 30 * SAMPLE_RATE], decibels), track)
    assert place(found, 5) == pytest.approx(25, abs=0.15)


def test_speech_as_loud_as_the_music(track: np.ndarray, soundtrack: np.ndarray) -> None:
    speech = soundtrack[15 * SAMPLE_RATE : 25 * SAMPLE_RATE].astype(np.float64)
    for start in (5, 20, 45):
        music = track[start * SAMPLE_RATE : (start + 10) * SAMPLE_RATE]
        both = (0.5 * (music + speech * (music.std() / speech.std()))).clip(-32768, 32767).astype(np.int16)
        found = match(both, track)
        assert place(found, 5) == pytest.approx(start + 5, abs=0.1)
        assert sure(found)
    assert match(speech.astype(np.int16), track) == []


def test_whole_track_at_another_speed_matches_over_all_of_it(track: np.ndarray) -> None:
    found = match(faster(track, 0.95), track)
    here, there = best(found)
    assert here == pytest.approx((0, 60 / 0.95), abs=1.5)
    assert there == pytest.approx((0, 60), abs=1.5)


@settings(max_examples=8, deadline=None)
@given(st.floats(0, 49), st.floats(0.9, 1.1))
def test_any_speed_at_any_place(start: float, speed: float) -> None:
    track = melody(60, 1)
    first = int(start * SAMPLE_RATE)
    excerpt = faster(track[first : first + 10 * SAMPLE_RATE], speed)
    assert place(match(excerpt, track), 3) == pytest.approx(start + 3 * speed, abs=0.15)


# --- how much evidence


@given(st.integers(16, 5000), st.floats(0, 15.9))
def test_more_items_and_fewer_errors_are_more_evidence(items: int, error: float) -> None:
    strength = Segment(0, 0, items, items, error).strength
    assert 0 < strength < Segment(0, 0, items + 1, items + 1, error).strength
    assert Segment(0, 0, items, items, min(error + 0.1, 16)).strength < strength
    assert Segment(0, 0, items, items, 16).strength == 0


def test_evidence_is_told_of_unrelated_sounds_too(track: np.ndarray) -> None:
    original, other = fingerprint(track), fingerprint(melody(60, 2)[10 * SAMPLE_RATE : 40 * SAMPLE_RATE])
    told = PLUGIN.strengths(other, original)
    assert PLUGIN.match(other, original) == []
    assert told.keys() == PLUGIN.thresholds.keys()
    assert all(0 <= told[evidence] < least for evidence, least in PLUGIN.thresholds.items())
    assert told["landmarks_v1"] > 0


@pytest.mark.parametrize("speed", [1.0, 1.05])
def test_a_copy_has_the_evidence_that_is_told(speed: float, track: np.ndarray) -> None:
    copy, original = fingerprint(faster(track[: 20 * SAMPLE_RATE], speed)), fingerprint(track)
    found = PLUGIN.match(copy, original)[0]
    assert found.strength is not None
    assert found.strength >= PLUGIN.thresholds[found.evidence]
    assert PLUGIN.strengths(copy, original)[found.evidence] == pytest.approx(found.strength, rel=0.05)
    assert sure([found])


# --- parts


def test_excerpts_of_two_tracks_at_two_speeds_in_one_sound(track: np.ndarray) -> None:
    other = melody(60, 2)
    medley = np.concatenate((faster(track[: 25 * SAMPLE_RATE], 1.04), faster(other[: 25 * SAMPLE_RATE], 0.95)))
    change = 25 / 1.04
    (start, end), there = best(match(medley, track))
    assert (start, end) == pytest.approx((0, change), abs=1.5)
    assert there == pytest.approx((0, 25), abs=1.5)
    (start, end), there = best(match(medley, other))
    assert (start, end) == pytest.approx((change, change + 25 / 0.95), abs=1.5)
    assert there == pytest.approx((0, 25), abs=1.5)


def test_repeated_section_is_found_at_both_places(track: np.ndarray) -> None:
    section = track[: 15 * SAMPLE_RATE]
    reference = np.concatenate((section, melody(20, 3), section))
    found = match(faster(section, 1.05), reference)
    starts = sorted(m.reference_range[0] for m in found if m.reference_range)
    assert starts == pytest.approx([0, 35], abs=1)


@pytest.mark.parametrize("speed", [1.0, 1.06])
def test_loop_is_found_at_every_place(speed: float) -> None:
    loop = melody(12, 1)
    reference = np.concatenate((melody(20, 3), *12 * [loop]))
    found = match(with_noise(faster(loop, speed), 0), reference)
    starts = sorted(m.reference_range[0] for m in found if m.reference_range)
    at = [min(starts, key=lambda start: abs(start - 20 - 12 * n)) for n in range(12)]
    assert at == pytest.approx([20 + 12 * n for n in range(12)], abs=1.5)


def test_excerpt_inside_a_long_sound_is_found_wherever_it_is(track: np.ndarray) -> None:
    long = np.concatenate([melody(60, seed) for seed in range(5, 9)])
    excerpt = faster(track[: 12 * SAMPLE_RATE], 1.07)
    for minutes in (0, 2, 4):
        cut = minutes * 60 * SAMPLE_RATE
        query = np.concatenate((long[:cut], excerpt, long[cut:]))
        (start, end), there = best(match(query, track))
        assert (start, end) == pytest.approx((60 * minutes, 60 * minutes + 12 / 1.07), abs=1.5)
        assert there == pytest.approx((0, 12), abs=1.5)


def test_matches_are_the_same_every_time(track: np.ndarray) -> None:
    query = with_noise(faster(track, 1.03), 10)
    assert match(query, track) == match(query, track)


# --- no copies


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_music_of_the_same_scale_and_sound_does_not_match(seed: int, track: np.ndarray) -> None:
    assert match(melody(60, seed), track) == []
    assert match(faster(melody(12, seed), 1.05), track) == []


def test_silence_tones_and_noise_do_not_match_music(track: np.ndarray) -> None:
    time = np.arange(20 * SAMPLE_RATE) / SAMPLE_RATE
    tones = (8000 * np.sin(2 * np.pi * 440 * time)).astype(np.int16)
    noise = np.random.default_rng(1).normal(0, 3000, len(time)).astype(np.int16)
    beeps = (tones * (time % 1 < 0.5)).astype(np.int16)
    for pcm in (np.zeros_like(tones), tones, noise, beeps):
        assert match(pcm, track) == []
        assert match(track, pcm) == []


def landmarks(*parts: tuple[np.ndarray, np.ndarray]) -> Landmarks:
    """All strong, of times and pitches in parts."""
    time, pitch = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.argsort(time, kind="stable")
    return Landmarks(time[order], pitch[order], np.ones(len(time), bool))


def evidence(query: Landmarks, reference: Landmarks) -> float:
    return most_evidence(query, reference, np.zeros(0), np.zeros(0), lambda part, offset: 0.0)


@pytest.mark.parametrize("seed", range(3))
def test_the_same_few_notes_at_other_times_are_no_copy(seed: int) -> None:
    random = np.random.default_rng(seed)
    notes = np.array([10.0, 12, 15, 17, 20])
    played, others = ((random.uniform(start, start + 8, 64), random.choice(notes, 64)) for start in (50, 0))
    rest = random.uniform(0, 120, 2400), random.integers(200, 440, 2400) / 8
    reference = landmarks(rest, played)
    assert evidence(landmarks(others), reference) < LEAST_EVIDENCE
    assert evidence(landmarks((played[0] - 50, played[1])), reference) > 2 * LEAST_EVIDENCE


def test_landmarks_of_one_moment_tell_less_than_as_many_of_many() -> None:
    random = np.random.default_rng(1)
    rest = random.uniform(20, 120, 2000), random.integers(40, 440, 2000) / 8
    pitch = random.integers(40, 440, 40) / 8
    chords, melody = np.repeat(np.sort(random.uniform(0, 8, 8)), 5), np.sort(random.uniform(0, 8, 40))
    told = [evidence(landmarks((time, pitch)), landmarks(rest, (time, pitch))) for time in (chords, melody)]
    assert LEAST_EVIDENCE < told[0] < 0.7 * told[1]


@pytest.mark.parametrize(
    ("deviation", "tolerance"), [(TIME_DEVIATION, TIME_TOLERANCE), (PITCH_DEVIATION, PITCH_TOLERANCE)]
)
def test_meeting_closely_is_evidence_for_a_copy_and_meeting_anywhere_is_none(
    deviation: float, tolerance: float
) -> None:
    anywhere = np.linspace(-tolerance, tolerance, 100_001)
    assert np.exp(closer(anywhere, deviation, tolerance)).mean() == pytest.approx(1, abs=0.001)  # a likelihood ratio
    assert closer(np.zeros(1), deviation, tolerance)[0] > 0.5
    assert closer(np.array([tolerance]), deviation, tolerance)[0] < -0.5


def test_nothing_is_aligned_with_nothing() -> None:
    nothing = Landmarks(np.zeros(0), np.zeros(0), np.zeros(0, bool))
    one = Landmarks(np.arange(3.0), np.zeros(3), np.ones(3, bool))
    for query, reference in ((nothing, nothing), (nothing, one), (one, nothing), (one, one)):
        assert align(query, reference, np.zeros(0), np.zeros(0), lambda part, offset: 0.0) == []
