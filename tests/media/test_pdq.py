"""PDQ equals the published test vectors to the bit, one picture at a time and many at once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from fingerprint_dagster.media.image.pdq import pdq_dihedral_v1, pdq_frames_v1, pdq_v1

VECTORS = Path(os.environ.get("FINGERPRINT_VECTORS", Path(__file__).parents[2] / "../shared/vectors")) / "pdq"
needs_vectors = pytest.mark.skipif(not VECTORS.is_dir(), reason=f"no PDQ test vectors in {VECTORS}")
EXPECTED = json.loads((VECTORS / "expected.json").read_text()) if VECTORS.is_dir() else {}

# The published reference values of one picture lie 10 bits off: it is nearly flat (quality 3), so that the decoder's
# rounding decides many of its bits.
NEARLY_FLAT = "labelme-subset/q0003.jpg"


def distance(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.bitwise_count(one ^ other).sum())


def from_hex(text: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(text), np.uint8)


def read(name: str, shrink: bool = False) -> np.ndarray:
    image = Image.open(VECTORS / name).convert("RGB")
    if shrink:
        image.thumbnail((512, 512))
    return np.array(image)


@needs_vectors
@pytest.mark.parametrize("name", EXPECTED.get("pytx_full_resolution", {}))
def test_hash_of_a_full_picture_is_the_published_one(name: str) -> None:
    hash_, quality = pdq_v1(read(name))
    assert hash_.tobytes().hex() == EXPECTED["pytx_full_resolution"][name]
    assert quality == 100


@needs_vectors
@pytest.mark.parametrize("name", EXPECTED.get("python_reference_thumbnail512", {}))
def test_hash_of_a_shrunk_picture_is_the_published_one(name: str) -> None:
    if not (VECTORS / name).exists():
        pytest.skip("this picture is not among the published files")
    hash_, quality = pdq_v1(read(name, shrink=True))
    off = distance(hash_, from_hex(EXPECTED["python_reference_thumbnail512"][name]))
    if name == NEARLY_FLAT:
        assert off <= 10
        assert quality == 3
    else:
        assert off == 0


@needs_vectors
def test_quality_is_the_published_one() -> None:
    qualities = {
        name: expected["quality"] for name, expected in EXPECTED["pytx_hasher_tests"].items() if "quality" in expected
    }
    assert {name: pdq_v1(read(name))[1] for name in qualities} == qualities


@needs_vectors
@pytest.mark.parametrize("name", EXPECTED.get("pytx_hasher_tests", {}))
def test_hash_without_a_preparation_of_our_own_is_the_published_one(name: str) -> None:
    # Pillow's plain conversion drops alpha and cuts 16-bit samples at 255, as the publisher's hasher does; our decoder
    # does neither (see test_image.py).
    assert pdq_v1(read(name))[0].tobytes().hex() == EXPECTED["pytx_hasher_tests"][name]["pdq"]


# How to turn a picture into each of the eight rows of pdq_dihedral_v1.
ORIENTATIONS = {
    "as it is": lambda a: a,
    "90 degrees": lambda a: np.rot90(a, 1),
    "180 degrees": lambda a: np.rot90(a, 2),
    "270 degrees": lambda a: np.rot90(a, 3),
    "upside down": lambda a: a[::-1],
    "mirrored": lambda a: a[:, ::-1],
    "diagonal": lambda a: a.transpose(1, 0, 2),
    "other diagonal": lambda a: np.rot90(a, 2).transpose(1, 0, 2),
}


@needs_vectors
@pytest.mark.parametrize("orientation", range(8))
def test_eight_orientations_are_the_published_ones(orientation: int) -> None:
    hashes, quality = pdq_dihedral_v1(read("pytx-resources/LA.png"))
    assert hashes[orientation].tobytes().hex() == list(EXPECTED["pytx_dihedral_of_LA_png"].values())[orientation]
    assert quality == 100


@needs_vectors
def test_eight_orientations_are_near_the_published_hashes_of_turned_files() -> None:
    # Near, because each file was compressed and shrunk after it was turned.
    hashes, _ = pdq_dihedral_v1(read("dih/bridge-1-original.jpg", shrink=True))
    published = {k: v for k, v in EXPECTED["python_reference_thumbnail512"].items() if k.startswith("dih/")}
    assert len(published) == 8
    for hash_, (name, expected) in zip(hashes, published.items(), strict=True):
        assert distance(hash_, from_hex(expected)) <= 8, name


@pytest.mark.parametrize("picture", ["astronaut", "chelsea", "coffee", "rocket"])
def test_each_orientation_is_the_hash_of_the_turned_picture(picture: str) -> None:
    rgb = getattr(data, picture)()
    hashes, _ = pdq_dihedral_v1(rgb)
    for hash_, (name, turn) in zip(hashes, ORIENTATIONS.items(), strict=True):
        assert distance(hash_, pdq_v1(np.ascontiguousarray(turn(rgb)))[0]) == 0, name
    apart = np.bitwise_count(hashes[:, None] ^ hashes).sum(axis=2)[~np.eye(8, dtype=bool)]
    assert (apart > 60).all(), "no orientation is taken for another"


def test_first_orientation_is_the_hash_itself() -> None:
    hashes, quality = pdq_dihedral_v1(data.chelsea())
    hash_, same_quality = pdq_v1(data.chelsea())
    assert hashes.shape == (8, 32)
    assert (hashes[0] == hash_).all()
    assert quality == same_quality


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    count=st.integers(0, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_many_frames_give_what_each_gives_alone(height: int, width: int, count: int, seed: int) -> None:
    frames = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    hashes, qualities = pdq_frames_v1(frames)
    assert hashes.shape == (count, 32)
    assert qualities.shape == (count,)
    for frame, hash_, quality in zip(frames, hashes, qualities, strict=True):
        alone, quality_alone = pdq_v1(frame)
        assert (hash_ == alone).all()
        assert quality == quality_alone


@settings(max_examples=40, deadline=None)
@given(height=st.integers(5, 700), width=st.integers(5, 700), seed=st.integers(0, 2**32 - 1))
def test_filter_is_two_box_passes_and_a_decimation(height: int, width: int, seed: int) -> None:
    """The published chain step by step, without matrices: the same bits and quality."""

    def box(values: np.ndarray) -> np.ndarray:
        size = len(values)
        window = -(-size // 128)
        ahead = (window + 2) // 2
        out = np.empty_like(values)
        for i in range(size):
            out[i] = values[max(i + ahead - window, 0) : i + ahead].mean(axis=0)
        return out

    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    luma = rgb @ np.array([0.299, 0.587, 0.114])
    for _ in range(2):
        luma = box(box(luma).T).T
    rows, columns = (np.array([int((i + 0.5) * size / 64) for i in range(64)]) for size in (height, width))
    small = luma[np.ix_(rows, columns)]
    basis = np.array([[np.cos(np.pi / 128 * i * (2 * j + 1)) / np.sqrt(32) for j in range(64)] for i in range(1, 17)])
    dct = (basis @ small @ basis.T).ravel()
    median = np.sort(dct)[127]
    certain = np.abs(dct - median) > 1e-9  # of a picture a few lines high many are equal but for rounding
    gradient = sum(int(abs(int(d * 100 / 255))) for axis in (0, 1) for d in np.diff(small, axis=axis).ravel())
    hash_, quality = pdq_v1(rgb)
    bits = np.unpackbits(hash_)[::-1].astype(bool)
    np.testing.assert_array_equal(bits[certain], (dct > median)[certain])
    assert certain.any()
    assert quality == min(100, gradient // 90)


@pytest.mark.parametrize("shape", [(4, 500, 3), (500, 4, 3), (1, 1, 3)])
def test_a_side_below_five_pixels_gives_no_hash(shape: tuple[int, int, int]) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for hashes, quality in (pdq_v1(rgb), pdq_dihedral_v1(rgb)):
        assert not hashes.any()
        assert quality == 0


@pytest.mark.parametrize("colour", [0, 1, 127, 255])
def test_one_colour_has_quality_zero(colour: int) -> None:
    assert pdq_v1(np.full((480, 640, 3), colour, np.uint8))[1] == 0


def test_frames_must_be_bytes_of_three_channels() -> None:
    with pytest.raises(ValueError, match="uint8"):
        pdq_frames_v1(np.zeros((1, 8, 8, 3), np.float32))
    with pytest.raises(ValueError, match="uint8"):
        pdq_frames_v1(np.zeros((1, 8, 8, 4), np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        pdq_v1(np.zeros((8, 8), np.uint8))
