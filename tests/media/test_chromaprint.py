"""Chromaprint: the published vectors to the bit, its text form, and alignment of synthetic items."""

import base64
import json
import os
import shutil
import subprocess
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fingerprint_dagster.media.audio.chromaprint import (
    HOP,
    ITEM_SAMPLES,
    ITEM_SECONDS,
    ITEM_SPAN_SECONDS,
    SAMPLE_RATE,
    SILENT_ITEM,
    chromaprint_v1,
    compress_v1,
    decompress_v1,
    simhash32_v1,
)
from fingerprint_dagster.media.audio.match import agreement, align, informative

VECTORS = Path(os.environ.get("FINGERPRINT_VECTORS") or Path(__file__).parents[2] / "../shared/vectors")
NEEDS_VECTORS = pytest.mark.skipif(
    not (VECTORS / "chromaprint/expected.json").exists(), reason=f"no Chromaprint test vectors in {VECTORS}"
)

# What fpcalc 1.5.1 says of `melody(8)` as an 11,025 Hz mono WAV file.
MELODY_TEXT = (
    "AQAAK0p0hcmWBFSdLUH0XEgeXEKzUNVRWhXuLMePPw-arw1KJVKGJw38HLl5JNmDi8bzJKikHUyS5MSDExN_olmSdXhjDXuUwD94Y34U"
    "XOGVIMxxIlIeFl1LMFEz4j6uiE0yfDSxPfNxJVKQ3xD7EM8BQQxCADCBgAGICKIIogghwJ0wCDHBBBCMASSIAQAKQBQD"
)

ITEMS = hnp.arrays(np.uint32, st.integers(0, 80))


def melody(seconds: int, seed: int = 1) -> np.ndarray:
    """Three sawtooth voices that change pitch four times a second, in whole-number arithmetic: int16 at 11,025 Hz."""
    state, pitches = seed, []
    for _ in range(3 * 4 * seconds):
        state = (1103515245 * state + 12345) % 2**31
        pitches.append(110 + state % 1500)
    hertz = np.repeat(np.array(pitches).reshape(-1, 3), SAMPLE_RATE // 4, axis=0)
    time = np.arange(len(hertz))[:, None]
    saw = time * hertz * 65536 // SAMPLE_RATE % 65536 - 32768
    return (saw.sum(axis=1) // 12).astype(np.int16)


def expected() -> dict:
    return json.loads((VECTORS / "chromaprint/expected.json").read_text())


def decoded(path: Path) -> np.ndarray:
    from fingerprint_dagster.media.audio.decode import decode_audio

    return decode_audio(path).arrays["pcm"]


def fpcalc_fields(output: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)


def bit_errors(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.bitwise_count(a ^ b).sum())


def random_items(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**32, count, dtype=np.uint32)


# --- the items


def test_same_bits_as_fpcalc_on_the_same_samples() -> None:
    items = chromaprint_v1(melody(8))
    assert items.dtype == np.uint32
    assert items.tolist() == decompress_v1(MELODY_TEXT).tolist()
    assert compress_v1(items) == MELODY_TEXT


def test_silence_gives_the_published_item() -> None:
    assert chromaprint_v1(np.zeros(130 * 1024 // 4, np.int16)).tolist() == [SILENT_ITEM] * 3


@pytest.mark.parametrize(
    ("samples", "items"), [(0, 0), (1, 0), (ITEM_SAMPLES - 1, 0), (ITEM_SAMPLES, 1), (ITEM_SAMPLES + HOP, 2)]
)
def test_how_many_items(samples: int, items: int) -> None:
    assert len(chromaprint_v1(np.ones(samples, np.int16))) == items


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 60), st.integers(0, 2**31))
def test_result_does_not_depend_on_the_block_size(frames_at_once: int, seed: int) -> None:
    pcm = melody(5, seed)
    assert chromaprint_v1(pcm, frames_at_once=frames_at_once).tolist() == chromaprint_v1(pcm).tolist()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 20), st.integers(0, 2**31))
def test_an_item_depends_only_on_its_own_samples(start: int, seed: int) -> None:
    pcm = melody(6, seed)
    whole, alone = chromaprint_v1(pcm), chromaprint_v1(pcm[start * HOP : start * HOP + ITEM_SAMPLES])
    assert alone.tolist() == [whole[start]]


@NEEDS_VECTORS
def test_published_vector_of_the_chromaprint_library_is_exact() -> None:
    items = chromaprint_v1(decoded(VECTORS / "chromaprint/test.mp3"))
    assert items.tolist() == expected()["test.mp3 raw uint32 (fpcalc -raw)"]


@NEEDS_VECTORS
def test_published_vector_of_the_iscc_sdk_is_exact() -> None:
    published = json.loads((VECTORS / "iscc-sdk/expected.json").read_text())["audio/demo.mp3"]["chromaprint_raw_int32"]
    items = chromaprint_v1(decoded(VECTORS / "iscc-sdk/audio/demo.mp3"))
    assert items.tolist() == np.array(published, np.int64).ravel().astype(np.uint32).tolist()


@NEEDS_VECTORS
def test_published_vector_of_raw_samples_is_exact(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "it"), "wb") as file:
        file.setparams((1, 2, 44100, 0, "NONE", ""))
        file.writeframes((VECTORS / "chromaprint/test_stereo_44100.raw").read_bytes())
    published = expected()["test_stereo_44100.raw (s16le) fed as 44100 Hz 1 channel"]
    items = chromaprint_v1(decoded(tmp_path / "it"))
    assert compress_v1(items) == published["fingerprint"]
    assert simhash32_v1(items) == published["simhash"]


@NEEDS_VECTORS
def test_published_vector_of_silence_is_exact() -> None:
    published = expected()["130*1024 zero samples, 44100 Hz 1 channel"]
    items = chromaprint_v1(np.zeros(130 * 1024 // 4, np.int16))
    assert items.tolist() == published["raw"]
    assert compress_v1(items) == published["fingerprint"]


@pytest.mark.skipif(shutil.which("fpcalc") is None, reason="fpcalc is not installed (Debian: libchromaprint-tools)")
@pytest.mark.parametrize("name", ["demo.mp3", "demo.ogg", "demo.opus", "demo.aac", "demo.wav", "demo.ac3", "demo.aif"])
def test_same_bits_as_fpcalc_on_the_same_file(name: str) -> None:
    paths = {Path(path).name: path for path in pytest.importorskip("iscc_samples").audios()}
    command = ["fpcalc", "-raw", "-length", "0", paths[name]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # 1.5.1 ends MP3 with status 3
    theirs = np.array(fpcalc_fields(done.stdout)["FINGERPRINT"].split(","), np.uint32)
    ours = chromaprint_v1(decoded(Path(paths[name])))
    assert len(ours) == len(theirs)
    assert bit_errors(ours, theirs) <= 1  # where their decoder rounds otherwise


# --- the text form and the hash of all items


@NEEDS_VECTORS
def test_published_compressed_forms() -> None:
    for case in expected()["encode"]:
        text = compress_v1(np.array(case["raw"], np.uint32), algorithm=case["alg"])
        assert text == base64.urlsafe_b64encode(bytes(case["bytes"])).decode().rstrip("=")
    case = expected()["decode"]
    items = decompress_v1(case["text"])
    assert len(items) == case["size"]
    assert items[:2].astype(np.int32).tolist() == case["first_int32"]


@NEEDS_VECTORS
def test_published_simhash() -> None:
    case = expected()["simhash"]
    assert simhash32_v1(np.array(case["raw"], np.uint32)) == case["hash"]


@given(ITEMS)
def test_compress_and_decompress_are_inverse(items: np.ndarray) -> None:
    back = decompress_v1(compress_v1(items))
    assert back.dtype == np.uint32
    assert back.tolist() == items.tolist()


@given(st.text(st.characters(codec="ascii"), max_size=60))
def test_decompress_raises_only_value_error(text: str) -> None:
    try:
        items = decompress_v1(text)
    except ValueError:
        return
    assert decompress_v1(compress_v1(items)).tolist() == items.tolist()


@pytest.mark.parametrize("text", ["", "AQ", "AQAAAg", "é" * 8, "AQAAKw" + MELODY_TEXT[6:60]])
def test_decompress_refuses_what_is_cut_or_foreign(text: str) -> None:
    with pytest.raises(ValueError, match="not a compressed Chromaprint"):
        decompress_v1(text)


def test_compress_refuses_more_than_its_count_can_hold() -> None:
    with pytest.raises(ValueError, match="at most 16777215"):
        compress_v1(np.broadcast_to(np.uint32(0), (2**24,)))


# --- alignment


def test_excerpt_is_found_with_its_place() -> None:
    whole = random_items(2000, 1)
    (found,) = align(whole[700:800], whole)
    assert (found.query_start, found.reference_start, found.items) == (0, 700, 100)
    assert (found.error, found.score) == (0.0, 1.0)
    assert found.reference_range == pytest.approx((700 * ITEM_SECONDS, 799 * ITEM_SECONDS + ITEM_SPAN_SECONDS))


def test_a_part_inside_two_others_is_found_at_its_edges() -> None:
    part = random_items(120, 1)
    query = np.concatenate((random_items(300, 2), part, random_items(200, 3)))
    reference = np.concatenate((random_items(50, 4), part, random_items(400, 5)))
    (found,) = align(query, reference)
    assert abs(found.query_start - 300) <= 4
    assert found.reference_start - found.query_start == 50 - 300
    assert abs(found.query_start + found.items - 420) <= 4


def test_repeated_part_is_found_twice() -> None:
    part = random_items(100, 1)
    reference = np.concatenate((part, random_items(150, 2), part, random_items(80, 3)))
    assert sorted(s.reference_start for s in align(part, reference)) == [0, 250]


def test_a_loop_in_noise_is_found_at_every_place() -> None:
    loop = random_items(60, 1)
    noisy = loop ^ np.bitwise_or.reduce(np.uint32(1) << np.random.default_rng(2).integers(0, 32, (4, 60), np.uint32))
    found = align(noisy, np.concatenate((random_items(200, 3), *20 * [loop])))
    assert sorted(s.reference_start for s in found if s.items == 60) == [200 + 60 * n for n in range(20)]


def test_cut_in_the_middle_gives_two_segments() -> None:
    whole = random_items(600, 1)
    found = align(np.concatenate((whole[:200], whole[400:])), whole)
    assert {s.reference_start - s.query_start for s in found} == {0, 200}


def test_a_short_excerpt_is_found_in_a_very_long_sound() -> None:
    whole = random_items(200_000, 1)  # 7 hours
    query = np.concatenate((random_items(30_000, 2), whole[150_000:150_080], random_items(30_000, 3)))
    (found,) = align(query, whole)
    assert found.reference_start - found.query_start == 120_000
    assert abs(found.items - 80) <= 8


@given(st.integers(0, 2**31), st.integers(0, 3))
def test_flipped_bits_lower_the_score_and_alignment_is_deterministic(seed: int, flips: int) -> None:
    items = random_items(150, seed)
    noisy = items.copy()
    for bit in range(flips):
        noisy ^= np.uint32(1 << bit)
    (found,) = align(items, noisy)
    assert found.score == pytest.approx(1 - flips / 16)
    assert align(items, noisy) == [found]


@settings(max_examples=30)
@given(st.integers(0, 2**31))
def test_random_items_do_not_match(seed: int) -> None:
    assert align(random_items(700, seed), random_items(900, seed + 1)) == []


@settings(deadline=None)
@given(ITEMS, ITEMS)
def test_alignment_of_any_items_stays_inside_both(query: np.ndarray, reference: np.ndarray) -> None:
    for found in align(query, reference):
        assert 0 <= found.query_start < found.query_start + found.items <= len(query)
        assert 0 <= found.reference_start < found.reference_start + found.items <= len(reference)
        assert 0 <= found.score <= 1


def test_constant_items_are_no_information_and_never_match() -> None:
    constant = np.full(500, SILENT_ITEM, np.uint32)
    assert not informative(constant).any()
    assert align(constant, constant) == []
    assert informative(random_items(500, 1)).all()


def test_shared_silence_extends_a_match_but_is_no_evidence() -> None:
    silence = np.full(100, SILENT_ITEM, np.uint32)
    sound = random_items(200, 1)
    (found,) = align(np.concatenate((silence, sound)), np.concatenate((silence, sound)))
    assert found.items == 300
    assert align(np.concatenate((silence, random_items(200, 2))), np.concatenate((silence, sound))) == []


@pytest.mark.parametrize("flips", [6, 9, 11])
def test_far_too_many_errors_for_a_match_still_speak_for_the_right_place(flips: int) -> None:
    whole = random_items(1500, 1)
    random = np.random.default_rng(2)
    wrong = np.array(
        [np.bitwise_or.reduce(np.uint32(1) << random.permutation(32)[:flips].astype(np.uint32)) for _ in range(60)]
    )
    query = whole[700:760] ^ wrong
    part, useful = (0.0, 59 * ITEM_SECONDS + ITEM_SPAN_SECONDS), np.ones(60, bool)
    assert agreement(query, useful, whole, part, 700 * ITEM_SECONDS) > 25
    elsewhere = [agreement(query, useful, whole, part, place * ITEM_SECONDS) for place in range(0, 600, 10)]
    assert np.mean(elsewhere) < 2


def test_what_is_too_short_or_says_nothing_speaks_for_no_place() -> None:
    whole = random_items(1500, 1)
    query, useful = whole[700:760], np.ones(60, bool)
    part = (0.0, 59 * ITEM_SECONDS + ITEM_SPAN_SECONDS)
    assert agreement(query, useful, whole, (0.0, 3.0), 700 * ITEM_SECONDS) == 0  # too short a part
    assert agreement(query, ~useful, whole, part, 700 * ITEM_SECONDS) == 0  # silence
    assert agreement(query, useful, whole[700:790], part, 0.0) == 0  # no other places to compare with
    assert agreement(query, useful, whole, part, -5.0) == 0  # before the reference begins
    assert agreement(query, useful, whole, part, 1e4) == 0  # after it has ended
    assert agreement(query[:0], useful[:0], whole, part, 0.0) == 0
