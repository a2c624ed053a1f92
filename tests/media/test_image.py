"""Pictures: what is decoded and how, what is refused and why, and which pictures are copies of each other."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps
from skimage import data

from fingerprint_dagster.codec import sketch_to_value, value_to_sketch
from fingerprint_dagster.content import Content, Fingerprint, Sketch, Value
from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.media.image import ImagePlugin
from fingerprint_dagster.media.image import decode as decoder
from fingerprint_dagster.media.image.match import MIN_COSINE
from fingerprint_dagster.media.image.pdq import pdq_v1
from fingerprint_dagster.models import ModelRuntime

VECTORS = Path(os.environ.get("FINGERPRINT_VECTORS", Path(__file__).parents[2] / "../shared/vectors")) / "pdq"
MODES = VECTORS / "misc-images/modes"
needs_vectors = pytest.mark.skipif(not VECTORS.is_dir(), reason=f"no PDQ test vectors in {VECTORS}")
EXPECTED = json.loads((VECTORS / "expected.json").read_text()) if VECTORS.is_dir() else {}
PLUGIN = ImagePlugin()


def picture(name: str = "astronaut") -> Image.Image:
    return Image.fromarray(getattr(data, name)())


def encoded(image: Image.Image, format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    if format_ == "AVIF":
        options["speed"] = 10
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def decode_bytes(content: bytes, folder: Path) -> Value:
    path = folder / "content"
    path.write_bytes(content)
    return PLUGIN.decode(path)


def rgb_of(content: bytes, folder: Path) -> np.ndarray:
    return decode_bytes(content, folder).arrays["rgb"]


def bits_apart(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.bitwise_count(pdq_v1(one)[0] ^ pdq_v1(other)[0]).sum())


# ---- recognising

MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "AVIF": "image/avif",
    "JPEG2000": "image/jp2",
    "ICO": "image/x-icon",
    "PPM": "image/x-portable-anymap",
    "QOI": "image/qoi",
}


@pytest.mark.parametrize("format_", MEDIA_TYPES)
def test_each_format_is_recognised_and_decoded(format_: str, tmp_path: Path) -> None:
    original = picture().resize((256, 256))
    content = encoded(original, format_)
    assert PLUGIN.sniff(content[:4096]) == MEDIA_TYPES[format_]
    value = decode_bytes(content, tmp_path)
    assert value.info == {"width": 256, "height": 256, "format": format_}
    assert value.arrays["rgb"].dtype == np.uint8
    assert value.arrays["rgb"].shape == (256, 256, 3)
    assert bits_apart(value.arrays["rgb"], np.array(original)) <= 6


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"B",
        b"BM is how this text begins, and it goes on",
        b"P4ssword",
        b"GIF",
        b"%PDF-1.7\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"RIFF\x00\x00\x00\x00WAVEfmt ",
        b"RIFF",
        b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41",
        b"\x00\x00\x00\x18ftyp",
        b"\x00\x00\x01\xba\x44\x00\x04",
        b"ID3\x04",
        b"<svg xmlns='http://www.w3.org/2000/svg'>",
    ],
)
def test_what_is_no_picture_is_not_recognised(head: bytes) -> None:
    assert PLUGIN.sniff(head) is None


@given(st.binary(max_size=200))
def test_sniffing_never_raises(head: bytes) -> None:
    assert PLUGIN.sniff(head) is None or head


def test_file_names_of_every_format_are_claimed() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic"} <= PLUGIN.extensions
    assert not {".pdf", ".eps", ".svg", ".mp4"} & PLUGIN.extensions


# ---- size, orientation, colour


@pytest.mark.parametrize(
    ("size", "shrunk"), [((2048, 1024), (512, 256)), ((300, 900), (171, 512)), ((512, 40), (512, 40)), ((1, 1), (1, 1))]
)
def test_no_side_is_longer_than_512_and_nothing_is_enlarged(
    size: tuple[int, int], shrunk: tuple[int, int], tmp_path: Path
) -> None:
    value = decode_bytes(encoded(picture().resize(size), "PNG"), tmp_path)
    assert value.arrays["rgb"].shape == (shrunk[1], shrunk[0], 3)
    assert (value.info["width"], value.info["height"]) == size


# The turn that, applied to an upright picture, gives the stored pixels of each EXIF orientation.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_honoured(format_: str, orientation: int, tmp_path: Path) -> None:
    upright = picture("coffee")  # 600 x 400
    turn = STORED[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright if turn is None else upright.transpose(turn)
    value = decode_bytes(encoded(stored, format_, exif=exif), tmp_path)
    assert (value.info["width"], value.info["height"]) == (600, 400)
    assert value.arrays["rgb"].shape == (341, 512, 3)
    assert bits_apart(value.arrays["rgb"], rgb_of(encoded(upright, format_), tmp_path)) <= 6


def test_nearly_square_picture_on_its_side_keeps_its_exact_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    value = decode_bytes(encoded(picture().resize((1001, 1000)), "JPEG", exif=exif), tmp_path)
    assert (value.info["width"], value.info["height"]) == (1000, 1001)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
def test_damaged_exif_does_not_cost_the_picture(tmp_path: Path) -> None:
    value = decode_bytes(encoded(picture(), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff"), tmp_path)
    assert value.info["width"] == 512


@needs_vectors
@pytest.mark.parametrize("name", EXPECTED.get("python_reference_thumbnail512", {}))
def test_decoder_and_hash_together_give_the_published_hash(name: str) -> None:
    path = VECTORS / name
    if not path.exists():
        pytest.skip("this picture is not among the published files")
    hash_, quality = pdq_v1(PLUGIN.decode(path).arrays["rgb"])
    published = np.frombuffer(bytes.fromhex(EXPECTED["python_reference_thumbnail512"][name]), np.uint8)
    nearly_flat = quality < 5 and name.endswith("q0003.jpg")  # its bits are rounding noise
    assert np.bitwise_count(hash_ ^ published).sum() <= (10 if nearly_flat else 0)


@needs_vectors
def test_fourteen_colour_modes_of_one_picture_have_one_hash() -> None:
    original = PLUGIN.decode(MODES / "original.jpg").arrays["rgb"]
    files = [path for path in sorted(MODES.iterdir()) if path.suffix != ".md"]
    assert len(files) == 14
    distances = {path.name: bits_apart(PLUGIN.decode(path).arrays["rgb"], original) for path in files}
    assert {name: bits for name, bits in distances.items() if bits > 2} == {}


def grey16(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


def grey_float(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.float32) / 255)


def grey32(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.int32) * 65_537 - 1000)


def lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    srgb, profile = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.buildTransform(srgb, profile, "RGB", "LAB").apply(image)


@pytest.mark.parametrize(
    ("convert", "format_", "error"),
    [
        (lambda i: i.convert("L"), "PNG", 0),
        (lambda i: i.convert("LA"), "PNG", 0),
        (lambda i: i.convert("RGBA"), "PNG", 0),
        (lambda i: i.convert("RGBA"), "TIFF", 0),
        (lambda i: i.convert("CMYK"), "JPEG", 3),
        (lambda i: i.convert("CMYK"), "TIFF", 0),
        (lambda i: i.quantize(256), "PNG", 8),
        (lambda i: i.quantize(256), "GIF", 8),
        (grey16, "PNG", 0),
        (grey16, "TIFF", 0),
        (grey32, "TIFF", 2),
        (grey_float, "TIFF", 2),
        (lab, "TIFF", 4),
    ],
)
def test_colour_modes_come_out_as_the_colours_one_sees(
    convert: Callable[[Image.Image], Image.Image], format_: str, error: float, tmp_path: Path
) -> None:
    colour = picture().resize((200, 200))
    converted = convert(colour)
    grey = converted.mode in ("L", "LA", "F", "I") or converted.mode.startswith("I;16")
    seen = np.array(colour.convert("L").convert("RGB") if grey else colour).astype(float)
    rgb = rgb_of(encoded(converted, format_), tmp_path)
    assert np.abs(rgb - seen).mean() <= error


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_is_white(mode: str, tmp_path: Path) -> None:
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0)).convert(mode)
    assert (rgb_of(encoded(clear, "PNG"), tmp_path) == 255).all()


def test_half_transparent_black_is_grey(tmp_path: Path) -> None:
    assert (rgb_of(encoded(Image.new("RGBA", (40, 40), (0, 0, 0, 128)), "PNG"), tmp_path) == 127).all()


def test_transparent_colour_of_a_palette_is_white(tmp_path: Path) -> None:
    image = Image.new("P", (40, 40), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    assert (rgb_of(encoded(image, "GIF", transparency=1), tmp_path) == 255).all()
    assert (rgb_of(encoded(image, "PNG", transparency=1), tmp_path) == 255).all()
    assert (rgb_of(encoded(image, "PNG"), tmp_path) == [255, 0, 0]).all()


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_first_frame_of_several_counts(format_: str, tmp_path: Path) -> None:
    first, second = picture("coffee").resize((128, 128)), picture("chelsea").resize((128, 128))
    rgb = rgb_of(encoded(first, format_, save_all=True, append_images=[second]), tmp_path)
    assert bits_apart(rgb, np.array(first)) <= 8
    assert bits_apart(rgb, np.array(second)) > 60


# ---- refusing


def reason_of(content: bytes, folder: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with pytest.raises(ContentError) as caught:
            decode_bytes(content, folder)
    assert not caught.value.retryable
    return caught.value.reason


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def test_empty_file(tmp_path: Path) -> None:
    assert reason_of(b"", tmp_path) == "the file is empty"


def test_text_named_like_a_picture(tmp_path: Path) -> None:
    assert reason_of(b"This is not a picture.\n" * 100, tmp_path).startswith(
        "not a picture that can be read (JPEG, PNG"
    )


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated_file(format_: str, share: float, tmp_path: Path) -> None:
    content = encoded(picture(), format_)
    assert "damaged" in reason_of(content[: int(len(content) * share)], tmp_path)


def test_too_many_pixels(tmp_path: Path) -> None:
    content = png_header(20_000, 20_000) + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    assert reason_of(content, tmp_path) == "the picture has 20000 x 20000 pixels; at most 200 million are decoded"


def test_limit_of_pixels_is_ours_and_not_pillows(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS
    content = png_header(14_000, 14_000) + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    assert "damaged or cut short" in reason_of(content, tmp_path)
    assert before == Image.MAX_IMAGE_PIXELS


def test_heic_names_the_cure(tmp_path: Path) -> None:
    content = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(100)
    assert PLUGIN.sniff(content) == "image/heic"
    assert "convert it to JPEG" in reason_of(content, tmp_path)


@pytest.mark.parametrize("format_", ["EPS", "PDF"])
def test_formats_that_are_programs_or_documents_are_refused(format_: str, tmp_path: Path) -> None:
    assert reason_of(encoded(picture(), format_), tmp_path).startswith("not a picture")


def test_missing_file_is_no_fault_of_the_content(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        PLUGIN.decode(tmp_path / "nothing")


SMALL = picture().resize((32, 32))
SAMPLES = [encoded(SMALL, format_) for format_ in MEDIA_TYPES] + [
    encoded(SMALL.quantize(16), "PNG"),
    encoded(SMALL, "TIFF", compression="tiff_lzw"),
    encoded(SMALL, "JPEG", exif=Image.Exif().tobytes(), progressive=True),
]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sample=st.sampled_from(SAMPLES),
    damage=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12),
    kept=st.floats(0.1, 1),
)
def test_hostile_bytes_give_a_picture_or_a_content_error(
    sample: bytes, damage: list[tuple[float, int]], kept: float, tmp_path: Path
) -> None:
    content = bytearray(sample[: int(len(sample) * kept)])
    for where, byte in damage:
        content[min(int(where * len(content)), len(content) - 1)] = byte
    try:
        rgb = rgb_of(bytes(content), tmp_path)
    except ContentError:
        return
    assert rgb.dtype == np.uint8
    assert rgb.ndim == 3
    assert max(rgb.shape[:2]) <= 512


# ---- fingerprints and matches


@pytest.fixture(scope="module")
def models() -> ModelRuntime:
    return ModelRuntime("cpu")


def fingerprints(images: list[Image.Image], models: ModelRuntime, folder: Path) -> list[Fingerprint]:
    values = [decode_bytes(encoded(image, "PNG"), folder) for image in images]
    sketches = [PLUGIN.hash(d, e) for d, e in zip(values, PLUGIN.embed(values, models), strict=True)]
    return [
        Fingerprint(Content(str(i), f"file:///{i}", "image"), "", 0, "image/png", "", sketch)
        for i, sketch in enumerate(sketches)
    ]


def test_sketch_has_the_three_components(models: ModelRuntime, tmp_path: Path) -> None:
    sketch = fingerprints([picture("chelsea")], models, tmp_path)[0].sketch
    described = {c.algorithm: (c.kind, c.values.dtype.name, c.values.shape) for c in sketch.components}
    assert described == {
        "pdq_v1": ("hamming", "uint8", (1, 32)),
        "pdq_dihedral_v1": ("data", "uint8", (8, 32)),
        "efficientnet_lite0_gem_v1": ("cosine", "float32", (1, 1280)),
    }
    assert sketch.info == {"width": 451, "height": 300, "quality": 100, "low_information": False}
    pdq = sketch.component("pdq_v1")
    assert pdq is not None
    assert pdq.searchable is not None
    assert pdq.searchable.tolist() == [True]


def test_sketch_survives_storage(models: ModelRuntime, tmp_path: Path) -> None:
    sketch = fingerprints([picture("chelsea")], models, tmp_path)[0].sketch
    stored = value_to_sketch(sketch_to_value(sketch))
    assert stored.info == sketch.info
    assert [c.algorithm for c in stored.components] == [c.algorithm for c in sketch.components]


def test_embedding_a_batch_keeps_the_order(models: ModelRuntime, tmp_path: Path) -> None:
    values = [decode_bytes(encoded(picture(n), "PNG"), tmp_path) for n in ("chelsea", "coffee", "rocket")]
    together = PLUGIN.embed(values, models)
    for value, vector in zip(values, together, strict=True):
        alone = PLUGIN.embed([value], models)[0].arrays["efficientnet_lite0_gem_v1"]
        assert float(alone[0] @ vector.arrays["efficientnet_lite0_gem_v1"][0]) > 0.999
    assert PLUGIN.embed([], models) == []


def with_text(image: Image.Image) -> Image.Image:
    image = image.copy()
    ImageDraw.Draw(image).text((20, image.height - 60), "SALE", fill="white", font_size=40)
    return image


def recompressed(image: Image.Image) -> Image.Image:
    return Image.open(io.BytesIO(encoded(image, "JPEG", quality=20)))


def cropped(image: Image.Image) -> Image.Image:
    x, y = image.width // 20, image.height // 20
    return image.crop((x, y, image.width - x, image.height - y))


@pytest.mark.parametrize(
    ("edit", "evidence"),
    [
        (recompressed, "pdq_v1"),
        (lambda i: i.resize((i.width // 3, i.height // 3)), "pdq_v1"),
        (lambda i: i.convert("L"), "pdq_v1"),
        (lambda i: i.filter(ImageFilter.GaussianBlur(1.5)), "pdq_v1"),
        (lambda i: ImageEnhance.Contrast(i).enhance(0.6), "pdq_v1"),
        (ImageOps.mirror, "pdq_v1"),
        (lambda i: i.transpose(Image.Transpose.ROTATE_90), "pdq_v1"),
        (lambda i: i.transpose(Image.Transpose.TRANSVERSE), "pdq_v1"),
        (with_text, "pdq_v1"),
        (cropped, "efficientnet_lite0_gem_v1"),
    ],
)
@pytest.mark.parametrize("name", ["astronaut", "coffee"])
def test_an_edited_copy_matches(
    name: str, edit: Callable[[Image.Image], Image.Image], evidence: str, models: ModelRuntime, tmp_path: Path
) -> None:
    original, copy = fingerprints([picture(name), edit(picture(name))], models, tmp_path)
    for query, reference in ((copy, original), (original, copy)):
        (found,) = PLUGIN.match(query, reference)
        assert found.reference == reference.content
        assert found.evidence == evidence
        assert (0.87 if evidence == "pdq_v1" else MIN_COSINE) <= found.score <= 1
        assert found.query_range is None
        assert found.reference_range is None


def test_the_same_picture_scores_one(models: ModelRuntime, tmp_path: Path) -> None:
    same, again = fingerprints([picture(), picture()], models, tmp_path)
    assert [m.score for m in PLUGIN.match(same, again)] == [1.0]


def test_different_pictures_do_not_match(models: ModelRuntime, tmp_path: Path) -> None:
    names = ["astronaut", "brick", "camera", "cell", "chelsea", "coffee", "coins", "grass", "gravel", "moon"]
    all_of_them = fingerprints(
        [picture(name) for name in [*names, "page", "retina", "rocket", "text"]], models, tmp_path
    )
    matching = [
        (query.content.content_id, reference.content.content_id)
        for query in all_of_them
        for reference in all_of_them
        if PLUGIN.match(query, reference)
    ]
    assert matching == [(f.content.content_id,) * 2 for f in all_of_them if not f.sketch.info["low_information"]]


def test_flat_pictures_never_match_and_are_not_looked_up(models: ModelRuntime, tmp_path: Path) -> None:
    gradient = Image.linear_gradient("L").resize((256, 256))
    flat = fingerprints(
        [Image.new("RGB", (300, 200), c) for c in ("white", "snow", "black")] + [gradient], models, tmp_path
    )
    detailed = fingerprints([picture()], models, tmp_path)
    for query in flat:
        assert query.sketch.info["low_information"]
        for component in query.sketch.components:
            assert component.kind == "data" or component.searchable is not None
            assert component.searchable is None or not component.searchable.any()
        for reference in [*flat, *detailed]:
            assert PLUGIN.match(query, reference) == []
            assert PLUGIN.match(reference, query) == []


@pytest.mark.parametrize(
    "fade", [lambda i: ImageEnhance.Contrast(i).enhance(0.05), lambda i: i.filter(ImageFilter.GaussianBlur(40))]
)
def test_a_copy_faded_to_almost_nothing_does_not_match_either_way(
    fade: Callable[[Image.Image], Image.Image], models: ModelRuntime, tmp_path: Path
) -> None:
    original, faded = fingerprints([picture(), fade(picture())], models, tmp_path)
    assert faded.sketch.info["low_information"]
    assert PLUGIN.match(original, faded) == []
    assert PLUGIN.match(faded, original) == []


def test_fingerprints_of_other_algorithms_are_not_compared(models: ModelRuntime, tmp_path: Path) -> None:
    (ours,) = fingerprints([picture()], models, tmp_path)
    other = Fingerprint(ours.content, "", 0, "image/png", "", Sketch((), {"low_information": False}))
    assert PLUGIN.match(ours, other) == []
    assert PLUGIN.match(other, ours) == []


# ---- the plugin


def test_importing_the_plugin_is_cheap() -> None:
    code = (
        "import sys; from fingerprint_dagster.media.image import ImagePlugin; ImagePlugin(); "
        "sys.exit(bool({'torch', 'torchvision', 'PIL'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_versions_name_what_makes_the_output() -> None:
    assert dict(PLUGIN.versions) == {
        "decode": "image_rgb_thumbnail512_v1",
        "embed": "efficientnet_lite0_gem_v1",
        "hash": "pdq_v1+pdq_dihedral_v1",
    }
    assert PLUGIN.name == "image"
    assert PLUGIN.batch_size == 1000
    assert decoder.MAX_SIDE == 512, "another pre-shrink needs another version"
