"""The standard hashes of pictures against what their authors published: PDQ, pHash and the ISCC Image-Code."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from skimage import data

from fingerprint_dagster.media.image.decode import decode
from fingerprint_dagster.media.image.iscc import grey32, iscc_image_v0
from fingerprint_dagster.media.image.pdq import pdq_dihedral_v1, pdq_frames_torch_v1, pdq_frames_v1, pdq_v1
from fingerprint_dagster.media.image.phash import phash64_v1

VECTORS = Path(os.environ.get("FINGERPRINT_VECTORS", Path(__file__).parents[2] / "../shared/vectors"))
EXPECTED = json.loads((VECTORS / "pdq/expected.json").read_text()) if VECTORS.is_dir() else {}


def photo(name: str) -> np.ndarray:
    return np.asarray(Image.fromarray(getattr(data, name)()).convert("RGB"))


PHOTOS = ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "moon", "page", "rocket")


def png_of(image: Image.Image, folder: Path, **options: object) -> Path:
    path = folder / "picture.png"
    image.save(path, **options)
    return path


# ---- PDQ


@pytest.mark.parametrize("name", EXPECTED.get("python_reference_thumbnail512", {}))
def test_decoder_and_pdq_together_give_the_published_hash(name: str, vectors: Path, tmp_path: Path) -> None:
    path = vectors / "pdq" / name
    if not path.exists():
        pytest.skip("this picture is not among the published files")
    published = np.frombuffer(bytes.fromhex(EXPECTED["python_reference_thumbnail512"][name]), np.uint8)

    def distance(file: Path) -> tuple[int, int]:
        hash_, quality = pdq_v1(decode(file).arrays["rgb"])
        return int(np.bitwise_count(hash_ ^ published).sum()), quality

    bits, quality = distance(path)
    if name.endswith("q0003.jpg"):  # nearly flat, so its bits are rounding noise
        assert quality < 5
        assert bits <= 10
    elif name.endswith("c.png"):  # has the profile of a display, which the reference implementation does not look at
        assert bits <= 2
        with Image.open(path) as image:
            assert distance(png_of(image, tmp_path, icc_profile=None)) == (0, quality)
    else:
        assert bits == 0


def test_decoder_and_pdq_together_give_the_hash_of_threatexchange(vectors: Path) -> None:
    """For a small picture in RGB. Its other two are noise that it reads otherwise: it leaves out the alpha of LA.png,
    and cuts the 16-bit samples of I16.png at 255. `test_pdq.py` has their hashes from those readings.
    """
    expected = EXPECTED["pytx_hasher_tests"]["pytx-resources/rgb.jpeg"]
    hash_, quality = pdq_v1(decode(vectors / "pdq/pytx-resources/rgb.jpeg").arrays["rgb"])
    assert (hash_.tobytes().hex(), quality) == (expected["pdq"], expected["quality"])


@pytest.mark.parametrize("turn", range(8))
def test_each_of_the_eight_hashes_is_that_of_the_turned_file(turn: int, tmp_path: Path) -> None:
    upright = Image.fromarray(photo("coffee"))
    transpose = Image.Transpose
    turns = (
        None,
        transpose.ROTATE_90,
        transpose.ROTATE_180,
        transpose.ROTATE_270,
        transpose.FLIP_TOP_BOTTOM,
        transpose.FLIP_LEFT_RIGHT,
        transpose.TRANSPOSE,
        transpose.TRANSVERSE,
    )
    step = turns[turn]
    turned = png_of(upright if step is None else upright.transpose(step), tmp_path)
    of_the_file, _ = pdq_v1(decode(turned).arrays["rgb"])
    from_the_picture, _ = pdq_dihedral_v1(decode(png_of(upright, tmp_path)).arrays["rgb"])
    assert np.bitwise_count(of_the_file ^ from_the_picture[turn]).sum() == 0


def test_pdq_in_torch_is_pdq() -> None:
    torch = pytest.importorskip("torch")
    for name in PHOTOS:
        frames = np.stack([photo(name), 255 - photo(name), photo(name)[::-1], np.zeros_like(photo(name))])
        hashes, qualities = pdq_frames_v1(frames)
        in_torch = pdq_frames_torch_v1(torch.from_numpy(frames))
        assert (in_torch[0].numpy()[:3] == hashes[:3]).all()
        assert (in_torch[1].numpy() == qualities).all()


@pytest.mark.parametrize("shape", [(2, 4, 100, 3), (0, 64, 64, 3), (1, 5, 5, 3)])
def test_pdq_in_torch_has_the_same_shapes(shape: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    hashes, qualities = pdq_frames_torch_v1(torch.zeros(shape, dtype=torch.uint8))
    assert (hashes.shape, hashes.dtype) == ((shape[0], 32), torch.uint8)
    assert (qualities.shape, qualities.dtype) == ((shape[0],), torch.uint8)
    assert not qualities.any()


def test_pdq_in_torch_says_what_it_takes() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match="uint8"):
        pdq_frames_torch_v1(torch.zeros((1, 64, 64, 3)))


# ---- pHash


def test_phash_is_the_published_one(vectors: Path) -> None:
    expected = json.loads((vectors / "imagehash/expected.json").read_text())
    for name, hashes in expected.items():
        assert phash64_v1(decode(vectors / "imagehash" / name).arrays["rgb"]).tobytes().hex() == hashes["phash"]
        with Image.open(vectors / "imagehash" / name) as image:  # as it is, without our decoder
            assert phash64_v1(np.asarray(image.convert("RGB"))).tobytes().hex() == hashes["phash"]


@pytest.mark.parametrize("name", PHOTOS)
def test_phash_is_that_of_imagehash(name: str) -> None:
    imagehash = pytest.importorskip("imagehash")
    rgb = photo(name)
    assert phash64_v1(rgb).tobytes().hex() == str(imagehash.phash(Image.fromarray(rgb)))


@given(st.integers(0, 255), st.integers(1, 80), st.integers(1, 80))
@settings(max_examples=30)
def test_phash_of_one_colour_is_its_constant_term(level: int, height: int, width: int) -> None:
    hash_ = phash64_v1(np.full((height, width, 3), level, np.uint8)).tobytes().hex()
    assert hash_ == ("8000000000000000" if level else "0000000000000000")


# ---- ISCC


def test_iscc_library_conforms_to_the_standard() -> None:
    import iscc_lib

    assert iscc_lib.conformance_selftest()


def test_image_codes_of_the_standard_library(vectors: Path) -> None:
    cases = json.loads((vectors / "iscc-core/data.json").read_text())["gen_image_code_v0"]
    checked = 0
    for case in cases.values():
        pixels, bits = case["inputs"]
        if bits != 64:
            continue
        _, text = iscc_image_v0(np.array(pixels, np.uint8).reshape(32, 32))
        assert text == case["outputs"]["iscc"]
        checked += 1
    assert checked or cases


@pytest.mark.parametrize("name", ["demo.jpg", "demo.png", "demo.gif", "demo.bmp", "demo.tif"])
def test_image_code_of_the_published_picture(name: str, vectors: Path) -> None:
    value = decode(vectors / "iscc-sdk/image" / name)
    code, text = iscc_image_v0(value.arrays["iscc_grey"])
    assert text == "ISCC:EEA4GQZQTY6J5DTH"
    assert code.tobytes().hex() == "c343309e3c9e8e67"
    assert value.info["iscc_exact"]


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_image_code_of_a_large_file_is_of_all_its_pixels(name: str, tmp_path: Path) -> None:
    large = Image.fromarray(photo(name)).resize((1700, 1300), Image.Resampling.BICUBIC)
    value = decode(png_of(large, tmp_path))
    assert value.info["iscc_exact"]
    assert (value.arrays["iscc_grey"] == grey32(large)).all()


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_image_code_of_a_jpeg_that_is_shrunk_while_decoded_is_marked_and_near(name: str, tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    Image.fromarray(photo(name)).resize((1800, 1350), Image.Resampling.BICUBIC).save(path, quality=90)
    value = decode(path)
    assert not value.info["iscc_exact"]
    with Image.open(path) as image:
        exact, _ = iscc_image_v0(grey32(image))
    code, _ = iscc_image_v0(value.arrays["iscc_grey"])
    assert np.bitwise_count(code ^ exact).sum() <= 2


@pytest.mark.parametrize("colour", ["white", "black", "#336699"])
def test_a_border_of_one_colour_does_not_count(colour: str, tmp_path: Path) -> None:
    inside = Image.fromarray(photo("coffee"))
    framed = Image.new("RGB", (700, 480), colour)
    framed.paste(inside, (60, 30))
    assert (decode(png_of(framed, tmp_path)).arrays["iscc_grey"] == grey32(inside)).all()


def test_a_border_is_trimmed_where_it_is_and_no_further() -> None:
    inside = photo("coffee").copy()
    inside[:, :] = np.maximum(inside, 1)
    left_only = np.zeros((400, 650, 3), np.uint8)
    left_only[:, 50:] = inside
    assert (grey32(Image.fromarray(left_only)) == grey32(Image.fromarray(inside))).all()


def test_transparency_is_white_and_a_white_border_is_trimmed(tmp_path: Path) -> None:
    inside = Image.fromarray(np.minimum(photo("coffee"), 254))
    clear = Image.new("RGBA", (700, 480), (9, 9, 9, 0))
    clear.paste(inside, (60, 30))
    assert (decode(png_of(clear, tmp_path)).arrays["iscc_grey"] == grey32(inside)).all()


def test_profiles_do_not_count_as_in_the_standard(tmp_path: Path) -> None:
    from PIL import ImageCms

    picture = Image.fromarray(photo("coffee"))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    with_profile = decode(png_of(picture, tmp_path, icc_profile=profile)).arrays["iscc_grey"]
    assert (with_profile == grey32(picture)).all()


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))))
@settings(max_examples=60, deadline=None)
def test_every_picture_has_an_image_code(rgb: np.ndarray) -> None:
    code, text = iscc_image_v0(grey32(Image.fromarray(rgb)))
    assert code.shape == (8,)
    assert text.startswith("ISCC:EEA")
    assert len(text) == len("ISCC:EEA4GQZQTY6J5DTH")


@pytest.mark.parametrize("level", [0, 128, 255])
def test_one_colour_has_an_image_code(level: int) -> None:
    assert grey32(Image.new("RGB", (300, 200), (level,) * 3)).tolist() == [[level] * 32] * 32


def test_image_code_says_what_it_takes() -> None:
    with pytest.raises(ValueError, match=r"uint8 \[32, 32\]"):
        iscc_image_v0(np.zeros((64, 64), np.uint8))


def test_orientation_of_the_file_counts(tmp_path: Path) -> None:
    upright = Image.fromarray(photo("coffee"))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(buffer, "PNG", exif=exif)
    path = tmp_path / "turned.png"
    path.write_bytes(buffer.getvalue())
    assert (decode(path).arrays["iscc_grey"] == grey32(upright)).all()
