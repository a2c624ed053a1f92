"""The ISCC Audio-Code: the conformance vectors of ISO 24138, and the codes the reference software gives its samples."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fingerprint_dagster.media.audio.chromaprint import chromaprint_v1, simhash32_v1
from fingerprint_dagster.media.audio.decode import decode_audio
from fingerprint_dagster.media.audio.iscc import iscc_audio_v0

iscc_lib = pytest.importorskip("iscc_lib", reason="the ISCC codes (pip install iscc-lib)")


def test_the_library_conforms_to_the_standard() -> None:
    assert iscc_lib.conformance_selftest()


def test_published_vectors_are_exact(vectors: Path) -> None:
    cases = json.loads((vectors / "iscc-core/data.json").read_text())["gen_audio_code_v0"]
    assert len(cases) == 5
    for case in cases.values():
        items, bits = case["inputs"]
        body, text = iscc_audio_v0(np.array(items, np.int32).view(np.uint32), bits)
        assert text == case["outputs"]["iscc"]
        assert (body.dtype, body.shape) == (np.uint8, (bits // 8,))


@pytest.mark.parametrize("name", ["demo.mp3", "demo.wav"])
def test_code_of_a_sound_file_is_that_of_the_reference_software(name: str, vectors: Path) -> None:
    published = json.loads((vectors / "iscc-sdk/expected.json").read_text())["audio/demo.mp3"]["content"]
    assert published == "ISCC:EIAWUJFCEZZOJYVD"
    items = chromaprint_v1(decode_audio(vectors / "iscc-sdk/audio" / name).arrays["pcm"])
    assert iscc_audio_v0(items)[1] == published


@given(hnp.arrays(np.uint32, st.integers(0, 60)))
def test_a_shorter_code_begins_a_longer_one(items: np.ndarray) -> None:
    whole, _ = iscc_audio_v0(items, 256)
    for bits in range(32, 256, 32):
        assert np.array_equal(iscc_audio_v0(items, bits)[0], whole[: bits // 8])


@given(hnp.arrays(np.uint32, st.integers(0, 30).map(lambda half: 2 * half + 1)))
def test_it_begins_with_chromaprints_own_hash(items: np.ndarray) -> None:
    # Of an odd number of items, where no bit can be tied.
    assert int.from_bytes(iscc_audio_v0(items, 32)[0].tobytes(), "big") == simhash32_v1(items)


@pytest.mark.parametrize("bits", [0, 8, 40, 288])
def test_lengths_that_the_standard_does_not_have_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="in steps of 32"):
        iscc_audio_v0(np.zeros(3, np.uint32), bits)


def test_other_items_are_refused() -> None:
    with pytest.raises(ValueError, match="uint32"):
        iscc_audio_v0(np.zeros(3, np.int64))
