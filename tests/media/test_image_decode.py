"""Picture files: what is recognised, how each format, colour mode and orientation comes out, and what is refused."""

from __future__ import annotations

import io
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
from PIL import Image, ImageCms
from skimage import data

from fingerprint_dagster.content import Value
from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.media.image import decode as decoder
from fingerprint_dagster.media.image.decode import decode, sniff
from fingerprint_dagster.media.image.pdq import MIN_QUALITY, pdq_v1

VECTORS = Path(os.environ.get("FINGERPRINT_VECTORS", Path(__file__).parents[2] / "../shared/vectors")) / "pdq"
needs_vectors = pytest.mark.skipif(not VECTORS.is_dir(), reason=f"no PDQ test vectors in {VECTORS}")


def picture(name: str = "astronaut") -> Image.Image:
    return Image.fromarray(getattr(data, name)())


def encoded(image: Image.Image, format_: str, **options: object) -> bytes:
    if format_ == "HEIF":
        image = pytest.importorskip("pillow_heif").from_pillow(image)
    if format_ == "JXL":
        pytest.importorskip("pillow_jxl")
    if format_ == "AVIF":
        options["speed"] = 10
    buffer = io.BytesIO()
    if format_ == "HEIF":
        image.save(buffer, **options)
    else:
        image.save(buffer, format_, **options)
    return buffer.getvalue()


def decode_bytes(content: bytes, folder: Path) -> Value:
    path = folder / "content"
    path.write_bytes(content)
    return decode(path)


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
    "HEIF": "image/heic",
    "JXL": "image/jxl",
    "JPEG2000": "image/jp2",
    "ICO": "image/x-icon",
    "PPM": "image/x-portable-anymap",
    "QOI": "image/qoi",
}


@pytest.mark.parametrize("format_", MEDIA_TYPES)
def test_each_format_is_recognised_and_decoded(format_: str, tmp_path: Path) -> None:
    original = picture().resize((256, 256))
    content = encoded(original, format_)
    assert sniff(content[:4096]) == MEDIA_TYPES[format_]
    value = decode_bytes(content, tmp_path)
    assert value.info == {"width": 256, "height": 256, "format": format_, "iscc_exact": True}
    assert value.arrays["rgb"].dtype == np.uint8
    assert value.arrays["rgb"].shape == (256, 256, 3)
    assert value.arrays["rgb"].flags.writeable
    assert value.arrays["iscc_grey"].dtype == np.uint8
    assert value.arrays["iscc_grey"].shape == (32, 32)
    assert bits_apart(value.arrays["rgb"], np.array(original)) <= 6


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"B",
        b"BM is how this text begins, and it goes on",
        b"P4ssword",
        b"GIF",
        b"\xff",
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
    assert sniff(head) is None


@given(st.binary(max_size=200))
def test_sniffing_never_raises(head: bytes) -> None:
    assert sniff(head) is None or head


def test_file_names_of_every_format_are_claimed() -> None:
    claimed = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jxl"}
    assert claimed <= decoder.EXTENSIONS
    assert not {".pdf", ".eps", ".svg", ".mp4"} & decoder.EXTENSIONS


def test_importing_the_decoder_is_cheap_and_registers_nothing() -> None:
    code = (
        "import sys; import fingerprint_dagster.media.image.decode; "
        "loaded = {'PIL', 'cv2', 'pillow_heif', 'pillow_jxl', 'iscc_lib', 'torch'} & set(sys.modules); "
        "sys.exit(str(loaded) if loaded else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_decoding_heic_leaves_pillow_as_it_was(tmp_path: Path) -> None:
    content = tmp_path / "picture.heic"
    content.write_bytes(encoded(picture().resize((64, 64)), "HEIF"))
    code = (
        "import sys, pathlib; from fingerprint_dagster.media.image.decode import decode; from PIL import Image; "
        "decode(pathlib.Path(sys.argv[1])); sys.exit('HEIF' in Image.OPEN)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(content)], check=False).returncode == 0


@pytest.mark.parametrize("module", ["pillow_heif", "pillow_jxl.JpegXLImagePlugin"])
def test_a_missing_decoder_is_named(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(picture().resize((64, 64)), "HEIF" if module == "pillow_heif" else "JXL")
    monkeypatch.setitem(sys.modules, module, None)
    assert "pip install pillow-" in reason_of(content, tmp_path)


# ---- size


@pytest.mark.parametrize(
    ("size", "shrunk"),
    [
        ((2048, 1024), (512, 256)),
        ((300, 900), (171, 512)),
        ((512, 40), (512, 40)),
        ((1, 1), (1, 1)),
        ((3000, 1), (512, 1)),
        ((1, 3000), (1, 512)),
    ],
)
@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
def test_no_side_is_longer_than_512_and_nothing_is_enlarged(
    size: tuple[int, int], shrunk: tuple[int, int], format_: str, tmp_path: Path
) -> None:
    value = decode_bytes(encoded(picture().resize(size), format_), tmp_path)
    assert value.arrays["rgb"].shape == (shrunk[1], shrunk[0], 3)
    assert (value.info["width"], value.info["height"]) == size


@given(st.integers(1, 40_000), st.integers(1, 40_000))
def test_the_size_is_that_of_pillows_thumbnail(width: int, height: int) -> None:
    class Sized(Image.Image):
        size = (width, height)
        resized: tuple[int, int] = size

        def load(self) -> None:
            pass

        def draft(self, mode: str | None, size: tuple[int, int] | None) -> None:
            pass

        def resize(self, size: tuple[int, int], *_: object, **__: object) -> Image.Image:
            Sized.resized = size
            return Image.new("1", (1, 1))

    Sized().thumbnail((512, 512))
    assert decoder._thumbnail_size(width, height) == Sized.resized


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_shrinking_first_changes_next_to_nothing(format_: str, tmp_path: Path) -> None:
    """A large file is shrunk by its decoder and in whole steps before it is shrunk to its size."""
    large = picture("chelsea").resize((1804, 1200), Image.Resampling.LANCZOS)
    whole = large.resize((512, 341), Image.Resampling.BOX)
    rgb = rgb_of(encoded(large, format_), tmp_path)
    assert np.abs(rgb.astype(float) - np.asarray(whole)).mean() < 2
    assert bits_apart(rgb, np.asarray(whole)) <= 4


# ---- orientation

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


def stored_as(upright: Image.Image, orientation: int) -> Image.Image:
    turn = STORED[orientation]
    return upright if turn is None else upright.transpose(turn)


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_honoured_once(format_: str, orientation: int, tmp_path: Path) -> None:
    upright = picture("coffee")  # 600 x 400
    lossy = {"quality": 95} if format_ in ("JPEG", "WEBP", "AVIF", "HEIF") else {}
    content = encoded(stored_as(upright, orientation), format_, exif=exif_of(orientation), **lossy)
    value = decode_bytes(content, tmp_path)
    assert (value.info["width"], value.info["height"]) == (600, 400)
    assert value.arrays["rgb"].shape == (341, 512, 3)
    assert bits_apart(value.arrays["rgb"], rgb_of(encoded(upright, "PNG"), tmp_path)) <= 2


@pytest.mark.parametrize("orientation", STORED)
def test_a_jpeg_kept_inside_jpeg_xl_is_turned_once(orientation: int, tmp_path: Path) -> None:
    upright = picture("coffee")
    jpeg = tmp_path / "inside.jpg"
    jpeg.write_bytes(encoded(stored_as(upright, orientation), "JPEG", quality=95, exif=exif_of(orientation)))
    with Image.open(jpeg) as image:
        rgb = rgb_of(encoded(image, "JXL", lossless_jpeg=True), tmp_path)
    assert rgb.shape == (341, 512, 3)
    assert bits_apart(rgb, rgb_of(encoded(upright, "PNG"), tmp_path)) <= 2


@pytest.mark.parametrize("orientation", STORED)
def test_jpeg_xl_says_itself_how_it_is_turned(orientation: int, tmp_path: Path) -> None:
    """Its decoder turns the pixels as the codestream says; the EXIF tag beside it means nothing (ISO/IEC 18181-2)."""
    content = encoded(picture("coffee"), "JXL", lossless=True, exif=exif_of(orientation))
    assert (rgb_of(content, tmp_path) == rgb_of(encoded(picture("coffee"), "PNG"), tmp_path)).all()


@needs_vectors
def test_eight_orientations_of_a_large_photograph_have_one_hash(tmp_path: Path) -> None:
    with Image.open(VECTORS / "misc-images/modes/original.jpg") as image:
        upright = image.convert("RGB")
    values = [
        decode_bytes(encoded(stored_as(upright, o), "JPEG", quality=90, exif=exif_of(o)), tmp_path) for o in STORED
    ]
    assert {(v.info["width"], v.info["height"]) for v in values} == {(1600, 1004)}
    assert max(bits_apart(v.arrays["rgb"], values[0].arrays["rgb"]) for v in values) <= 2


def test_nearly_square_picture_on_its_side_keeps_its_exact_size(tmp_path: Path) -> None:
    value = decode_bytes(encoded(picture().resize((1001, 1000)), "JPEG", exif=exif_of(6)), tmp_path)
    assert (value.info["width"], value.info["height"]) == (1000, 1001)


@pytest.mark.parametrize("orientation", [0, 9, 60_000])
def test_an_orientation_that_does_not_exist_is_none(orientation: int, tmp_path: Path) -> None:
    content = encoded(picture("coffee"), "PNG", exif=exif_of(orientation))
    assert (rgb_of(content, tmp_path) == rgb_of(encoded(picture("coffee"), "PNG"), tmp_path)).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
def test_damaged_exif_does_not_cost_the_picture(tmp_path: Path) -> None:
    value = decode_bytes(encoded(picture(), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff"), tmp_path)
    assert value.info["width"] == 512


# ---- colour


@needs_vectors
def test_fourteen_colour_modes_of_one_picture_have_one_hash() -> None:
    modes = VECTORS / "misc-images/modes"
    original = decode(modes / "original.jpg").arrays["rgb"]
    files = [path for path in sorted(modes.iterdir()) if path.suffix != ".md"]
    assert len(files) == 14
    distances = {path.name: bits_apart(decode(path).arrays["rgb"], original) for path in files}
    assert {name: bits for name, bits in distances.items() if bits > 2} == {}


def grey16(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


def grey_float(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.float32) / 255)


def grey32(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.int32) * 65_537 - 1000)


def lab(image: Image.Image) -> Image.Image:
    srgb, profile = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.buildTransform(srgb, profile, "RGB", "LAB").apply(image)


MODES = [
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
]


@pytest.mark.parametrize(("convert", "format_", "error"), MODES)
def test_colour_modes_come_out_as_the_colours_one_sees(
    convert: Callable[[Image.Image], Image.Image], format_: str, error: float, tmp_path: Path
) -> None:
    colour = picture().resize((200, 200))
    converted = convert(colour)
    grey = converted.mode in ("L", "LA", "F", "I") or converted.mode.startswith("I;16")
    seen = np.array(colour.convert("L").convert("RGB") if grey else colour).astype(float)
    rgb = rgb_of(encoded(converted, format_), tmp_path)
    assert np.abs(rgb - seen).mean() <= error


@needs_vectors
@pytest.mark.parametrize("name", ["LA.png", "I16.png", "rgb.jpeg", "sample-b.jpg"])
def test_other_modes_of_the_published_pictures_have_their_hash(name: str, tmp_path: Path) -> None:
    path = VECTORS / "pytx-resources" / name
    original = decode(path).arrays["rgb"]
    with Image.open(path) as image:
        colour = decoder.opaque(image).convert("RGB")
    distances = {}
    for number, (convert, format_, _) in enumerate(MODES):
        converted = convert(colour)
        if converted.mode == "P" and name == "rgb.jpeg":
            continue  # 256 colours are too few for it: 10 bits, of content that is lost
        rgb = rgb_of(encoded(converted, format_, **({"quality": 95} if format_ == "JPEG" else {})), tmp_path)
        distances[number, converted.mode, format_] = bits_apart(rgb, original)
    assert {mode: bits for mode, bits in distances.items() if bits > 2} == {}


def png16(samples: np.ndarray) -> bytes:
    """A PNG with 16 bits a sample, uint16 [h, w, channels]: what Pillow reads but does not write."""
    height, width, channels = samples.shape
    colour_type = {2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in samples)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_sixteen_bits_a_sample_keep_their_scale(channels: int, tmp_path: Path) -> None:
    rgb = np.asarray(picture().resize((200, 200)))
    seen = rgb if channels > 2 else np.repeat(rgb[..., :1], 3, axis=2)
    opaque = np.full((200, 200, 1), 255, np.uint8)
    samples = {2: np.dstack([rgb[..., :1], opaque]), 3: rgb, 4: np.dstack([rgb, opaque])}[channels]
    out = rgb_of(png16(samples.astype(np.uint16) * 257), tmp_path)
    assert np.abs(out.astype(int) - seen).max() <= 1


def test_adobes_inverted_cmyk_is_not_negative(tmp_path: Path) -> None:
    """CMYK JPEGs as Adobe's programs write them: all ink is 0, no ink 255, and a marker of theirs."""
    colour = picture().resize((200, 200))
    content = encoded(colour.convert("CMYK"), "JPEG", quality=95)
    assert b"\xff\xee\x00\x0eAdobe" in content
    assert np.abs(rgb_of(content, tmp_path).astype(float) - np.asarray(colour)).mean() < 3


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_is_white(mode: str, tmp_path: Path) -> None:
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0)).convert(mode)
    assert (rgb_of(encoded(clear, "PNG"), tmp_path) == 255).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_half_transparent_black_is_grey(mode: str, tmp_path: Path) -> None:
    clear = Image.new("RGBA", (40, 40), (0, 0, 0, 128)).convert(mode)
    assert (rgb_of(encoded(clear, "PNG"), tmp_path) == 127).all()


def test_transparent_colour_of_a_palette_is_white(tmp_path: Path) -> None:
    image = Image.new("P", (40, 40), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    assert (rgb_of(encoded(image, "GIF", transparency=1), tmp_path) == 255).all()
    assert (rgb_of(encoded(image, "PNG", transparency=1), tmp_path) == 255).all()
    assert (rgb_of(encoded(image, "PNG"), tmp_path) == [255, 0, 0]).all()


# ---- colour profiles


def matrix_profile(red: bytes, gamma: float) -> bytes:
    """sRGB's ICC profile with another red and another tone curve: a display or camera space of its own."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", profile[128:132])[0]
    for tag in range(count):
        at = 132 + 12 * tag
        name, offset = profile[at : at + 4], struct.unpack(">I", profile[at + 4 : at + 8])[0]
        if name == b"rXYZ" and red:
            profile[offset + 8 : offset + 20] = red
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            profile[offset : offset + 16] = b"para" + struct.pack(">IHHi", 0, 0, 0, round(gamma * 65_536))
    return bytes(profile)


# Adobe RGB's red (0.60974, 0.31111, 0.01947 in XYZ) and its gamma.
WIDE = matrix_profile(struct.pack(">iii", 39_960, 20_389, 1_276), 563 / 256)
STEEP = matrix_profile(b"", 1.8)  # as old Macintosh displays
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def in_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """The same colours, in the numbers of another profile."""
    there = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    moved = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), there, "RGB", "RGB").apply(image)
    moved.info.clear()
    return moved


@pytest.mark.parametrize("profile", [WIDE, STEEP], ids=["wide", "steep"])
@pytest.mark.parametrize("format_", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF", "HEIF"])
def test_colours_of_another_profile_become_srgb(format_: str, profile: bytes, tmp_path: Path) -> None:
    original = picture("coffee")
    options = {"HEIF": {"quality": 95, "chroma": 444}, "PNG": {}, "TIFF": {}}.get(format_, {"quality": 95})
    other = in_profile(original, profile)
    content = encoded(other, format_, icc_profile=profile, **options)
    plain = rgb_of(encoded(original, "PNG"), tmp_path)
    rgb = rgb_of(content, tmp_path)
    ignored = rgb_of(encoded(other, "PNG"), tmp_path)
    assert bits_apart(rgb, plain) <= 2
    assert np.abs(rgb.astype(int) - plain).mean() < 0.5 * np.abs(ignored.astype(int) - plain).mean()


def test_profile_of_grey_pictures_counts_too(tmp_path: Path) -> None:
    grey = picture("coffee").convert("L")
    linear = matrix_profile(b"", 1.0)
    profile = linear[:16] + b"GRAY" + linear[20:].replace(b"rTRC", b"kTRC", 1)
    light = Image.fromarray(np.rint(((np.asarray(grey) / 255.0) ** 2.2) * 255).astype(np.uint8))
    rgb = rgb_of(encoded(light, "PNG", icc_profile=profile), tmp_path)
    plain = rgb_of(encoded(grey, "PNG"), tmp_path)
    assert np.abs(rgb.astype(int) - plain).mean() < 6
    assert (rgb[..., 0] == rgb[..., 1]).mean() > 0.9


def test_a_profile_that_is_srgb_changes_nothing(tmp_path: Path) -> None:
    original = picture("coffee")
    rgb = rgb_of(encoded(original, "PNG", icc_profile=SRGB), tmp_path)
    assert (rgb == rgb_of(encoded(original, "PNG"), tmp_path)).all()


@pytest.mark.parametrize("profile", [b"", b"no profile", SRGB[:200], bytes(5000)])
def test_a_damaged_profile_is_ignored(profile: bytes, tmp_path: Path) -> None:
    original = picture("coffee")
    rgb = rgb_of(encoded(original, "PNG", icc_profile=profile), tmp_path)
    assert (rgb == rgb_of(encoded(original, "PNG"), tmp_path)).all()


def test_a_profile_of_other_channels_is_ignored(tmp_path: Path) -> None:
    grey = picture("coffee").convert("L")
    rgb = rgb_of(encoded(grey, "PNG", icc_profile=WIDE), tmp_path)
    assert (rgb == rgb_of(encoded(grey, "PNG"), tmp_path)).all()


# ---- animations


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_first_frame_of_several_counts(format_: str, tmp_path: Path) -> None:
    first, second = picture("coffee").resize((128, 128)), picture("chelsea").resize((128, 128))
    rgb = rgb_of(encoded(first, format_, save_all=True, append_images=[second]), tmp_path)
    assert bits_apart(rgb, np.array(first)) <= 8
    assert bits_apart(rgb, np.array(second)) > 60


def test_an_animation_of_many_frames_costs_one(tmp_path: Path) -> None:
    frames = [Image.new("L", (64, 64), number % 256) for number in range(3000)]
    content = encoded(picture().resize((64, 64)).convert("L"), "GIF", save_all=True, append_images=frames)
    assert decode_bytes(content, tmp_path).arrays["rgb"].shape == (64, 64, 3)


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
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return header + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


def giant(format_: str) -> bytes:
    """A small file whose header claims 30,000 x 30,000 pixels."""
    if format_ == "PNG":
        return png_header(30_000, 30_000)
    if format_ == "BMP":
        return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 30_000, 30_000, 1, 24, 0, 0, 0, 0, 0, 0)
    if format_ == "GIF":
        return b"GIF89a" + struct.pack("<HHBBB", 30_000, 30_000, 0, 0, 0) + b"," + bytes(20)
    if format_ == "JXL":  # neither small nor of a listed ratio, each side in 18 bits
        bits = 0 | 2 << 1 | 29_999 << 3 | 0 << 21 | 2 << 24 | 29_999 << 26
        return b"\xff\x0a" + bits.to_bytes(16, "little")
    content = bytearray(encoded(picture().resize((64, 64)), format_))
    at = content.index(b"\xff\xc0") + 5  # JPEG: the frame header
    content[at : at + 4] = struct.pack(">HH", 30_000, 30_000)
    return bytes(content)


@pytest.mark.parametrize("format_", ["PNG", "BMP", "GIF", "JXL", "JPEG"])
def test_a_bomb_is_refused_by_its_header(format_: str, tmp_path: Path) -> None:
    expected = "the picture has 30000 x 30000 pixels; at most 200 million are decoded"
    assert reason_of(giant(format_), tmp_path) == expected


def test_limit_of_pixels_is_ours_and_not_pillows(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS
    assert "damaged or cut short" in reason_of(png_header(14_000, 14_000), tmp_path)
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("size", [(64, 64), (256, 128), (300, 777), (1000, 750), (40_000, 2)])
@pytest.mark.parametrize("use_container", [False, True])
def test_size_in_the_header_of_jpeg_xl(size: tuple[int, int], use_container: bool) -> None:
    content = encoded(Image.new("L", size, 9), "JXL", use_container=use_container)
    assert decoder.jxl_size(content[:4096]) == size


def test_empty_file(tmp_path: Path) -> None:
    assert reason_of(b"", tmp_path) == "the file is empty"


def test_a_file_of_more_bytes_than_any_picture_has(tmp_path: Path) -> None:
    path = tmp_path / "content"
    with path.open("wb") as file:
        file.write(b"\xff\xd8\xff")
        file.truncate(decoder.MAX_BYTES + 1)
    with pytest.raises(ContentError, match="1,000,000,001 bytes; pictures of up to"):
        decode(path)


def test_text_named_like_a_picture(tmp_path: Path) -> None:
    assert reason_of(b"This is not a picture.\n" * 100, tmp_path).startswith(
        "not a picture that can be read (JPEG, PNG"
    )


def test_a_picture_named_like_another_kind_is_read_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "really-a-png.jpg"
    path.write_bytes(encoded(picture(), "PNG"))
    assert decode(path).info["format"] == "PNG"


@pytest.mark.parametrize(
    "format_", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "JXL", "JPEG2000", "QOI"]
)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated_file(format_: str, share: float, tmp_path: Path) -> None:
    content = encoded(picture(), format_)
    assert "damaged" in reason_of(content[: int(len(content) * share)], tmp_path)


def test_memory_that_is_not_there_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    content = encoded(picture(), "BMP")
    monkeypatch.setattr(Image.Image, "load", no_memory)
    assert reason_of(content, tmp_path) == "the picture needs more memory to decode than there is"


@pytest.mark.parametrize("format_", ["EPS", "PDF"])
def test_formats_that_are_programs_or_documents_are_refused(format_: str, tmp_path: Path) -> None:
    assert reason_of(encoded(picture(), format_), tmp_path).startswith("not a picture")


def test_missing_file_is_no_fault_of_the_content(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        decode(tmp_path / "nothing")


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGB", (1, 1), "red"),
        Image.new("RGB", (30_000, 1), "red"),
        Image.new("RGB", (1, 30_000), "red"),
        Image.new("RGB", (800, 600), "white"),
        Image.new("RGB", (4000, 3000), (12, 34, 56)),
        Image.effect_noise((30_000, 1), 80),
        Image.effect_noise((3, 3), 80),
    ],
    ids=["1x1", "30000x1", "1x30000", "white", "one colour", "thread of noise", "3x3"],
)
@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
def test_pictures_without_features_have_no_quality(image: Image.Image, format_: str, tmp_path: Path) -> None:
    value = decode_bytes(encoded(image, format_), tmp_path)
    assert pdq_v1(value.arrays["rgb"])[1] < MIN_QUALITY
    assert value.arrays["iscc_grey"].shape == (32, 32)


SMALL = picture().resize((32, 32))
SAMPLES = [encoded(SMALL, format_) for format_ in MEDIA_TYPES if format_ not in ("HEIF", "JXL")] + [
    encoded(SMALL.quantize(16), "PNG"),
    encoded(SMALL, "TIFF", compression="tiff_lzw"),
    encoded(SMALL, "JPEG", exif=Image.Exif().tobytes(), progressive=True),
    encoded(SMALL, "PNG", icc_profile=WIDE),
]


def check_hostile(sample: bytes, damage: list[tuple[float, int]], kept: float, folder: Path) -> None:
    content = bytearray(sample[: int(len(sample) * kept)])
    for where, byte in damage:
        content[min(int(where * len(content)), len(content) - 1)] = byte
    try:
        rgb = rgb_of(bytes(content), folder)
    except ContentError:
        return
    assert rgb.dtype == np.uint8
    assert rgb.ndim == 3
    assert max(rgb.shape[:2]) <= 512


DAMAGE = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sample=st.sampled_from(SAMPLES), damage=DAMAGE, kept=st.floats(0.1, 1))
def test_hostile_bytes_give_a_picture_or_a_content_error(
    sample: bytes, damage: list[tuple[float, int]], kept: float, tmp_path: Path
) -> None:
    check_hostile(sample, damage, kept, tmp_path)


@pytest.mark.parametrize("format_", ["HEIF", "JXL"])
def test_hostile_bytes_of_the_added_formats(format_: str, tmp_path: Path) -> None:
    sample = encoded(SMALL, format_)

    @settings(max_examples=60, deadline=None, database=None)
    @given(damage=DAMAGE, kept=st.floats(0.1, 1))
    def check(damage: list[tuple[float, int]], kept: float) -> None:
        check_hostile(sample, damage, kept, tmp_path)

    check()


def test_version_names_what_makes_the_output() -> None:
    assert decoder.VERSION == "image_rgb_thumbnail512_v2"
    assert (decoder.MAX_SIDE, decoder.REDUCING_GAP) == (512, 1.5), "another pre-shrink needs another version"
