"""Picture files to RGB arrays, one way for every format, colour mode and orientation."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from fingerprint_dagster.content import Value
from fingerprint_dagster.errors import ContentError

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = "image_rgb_thumbnail512_v1"
# The pre-shrink `thumbnail512`: Pillow's bicubic `thumbnail`, as in PDQ's reference implementation in Python, but with
# a reducing gap of 1.5 where Pillow's default is 2: libjpeg then decodes at half size or less from 1,536 pixels on, not
# only from 2,048, which halves the time of a 1080p JPEG. PDQ moves by 0.15 bits in the mean and 4 at most (80
# photographs), and its published hashes of shrunk pictures come out the same.
MAX_SIDE = 512
REDUCING_GAP = 1.5
# As many as the largest camera sensors have. Pillow holds them in 0.8 GB, twice that where they are transparent.
MAX_PIXELS = 200_000_000
MAX_BYTES = 1_000_000_000

# Formats that are only pictures: none that runs a program (EPS, PS), holds drawings (WMF) or documents (PDF).
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "ICO", "PPM", "QOI")
_READABLE = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, JPEG 2000, ICO, PPM or QOI"

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"}
    | {".avif", ".heic", ".heif", ".jp2", ".j2k", ".jpx", ".ico", ".ppm", ".pgm", ".pbm", ".pnm", ".qoi"}
)

_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"II+\x00", "image/tiff"),
    (b"MM\x00+", "image/tiff"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "image/jp2"),
    (b"\xff\x4f\xff\x51", "image/jp2"),
    (b"qoif", "image/qoi"),
)
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})

_OPENING = threading.Lock()


def sniff(head: bytes) -> str | None:
    """The media type of the picture that begins with `head`, or None. HEIC is recognised, though not decoded."""
    for magic, media_type in _MAGIC:
        if head.startswith(magic):
            return media_type
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head[4:8] == b"ftyp":
        size = int.from_bytes(head[:4], "big")
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, min(size, len(head)), 4))}
        if brands & _AVIF_BRANDS:
            return "image/avif"
        return "image/heic" if brands & _HEIF_BRANDS else None
    # Two letters say little: a BMP's header also has one of a few sizes, and reserved zeros.
    if head[:2] == b"BM" and head[6:10] == bytes(4) and head[14:18] in _BMP_HEADERS:
        return "image/bmp"
    if head[:4] == b"\x00\x00\x01\x00" and len(head) >= 22 and head[4:6] != bytes(2) and head[9] == 0:
        return "image/x-icon"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in (b" ", b"\t", b"\r", b"\n"):
        return "image/x-portable-anymap"
    return None


_BMP_HEADERS = frozenset(size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124))


def decode(path: Path) -> Value:
    """The picture in `path`: arrays {"rgb": uint8 [h, w, 3], no side above 512}, info {"width", "height", "format"}.

    The first frame of an animation, upright (EXIF), on white where it is transparent. Width and height are those of the
    upright original. Raises `ContentError` for what is empty, damaged, too large or no picture of a known format.
    """
    with path.open("rb") as file:
        head = file.read(4096)
        size = file.seek(0, 2)
        file.seek(0)
        if size == 0:
            raise ContentError("the file is empty")
        if size > MAX_BYTES:
            raise ContentError(f"the file has {size:,} bytes; pictures of up to {MAX_BYTES:,} are decoded")
        if sniff(head) == "image/heic":
            raise ContentError("HEIC pictures cannot be decoded here: convert it to JPEG, PNG or AVIF")
        try:
            return _decode(file)
        except ContentError:
            raise
        except MemoryError as error:
            raise ContentError("the picture needs more memory to decode than there is") from error
        # Whatever hostile bytes make a decoder raise (struct.error, IndexError, KeyError, zlib.error, ...) is a
        # property of this content, not a fault of the pipeline.
        except Exception as error:
            from PIL import UnidentifiedImageError

            if isinstance(error, UnidentifiedImageError):
                raise ContentError(f"not a picture that can be read ({_READABLE}), or its header is damaged") from error
            raise ContentError(f"the picture is damaged or cut short: {error or type(error).__name__}") from error


def _decode(file: BinaryIO) -> Value:
    with _open(file) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ContentError(
                f"the picture has {width} x {height} pixels; at most {MAX_PIXELS // 1_000_000} million are decoded"
            )
        name = str(image.format)
        if image.mode in ("RGB", "L", "CMYK", "YCbCr") and not image.has_transparency_data:
            _shrink(image)  # before the conversion, so that a JPEG is shrunk while it is decoded
            small = to_rgb(image)
        else:
            small = to_rgb(image)
            _shrink(small)
        upright, on_its_side = _upright(small)
    if on_its_side:
        width, height = height, width
    return Value({"rgb": np.array(upright)}, {"width": width, "height": height, "format": name})


def _open(file: BinaryIO) -> Image:
    """The file with its header read, without Pillow's own pixel limit: it is lower than ours, and warns at its half."""
    from PIL import Image

    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]  # AVIF came with Pillow 11.3
    with _OPENING:  # the limit is a global of Pillow's
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _shrink(image: Image) -> None:
    image.thumbnail((MAX_SIDE, MAX_SIDE), reducing_gap=REDUCING_GAP)


def to_rgb(image: Image) -> Image:
    """The picture in mode RGB: transparency on white, deep samples scaled to 8 bits.

    16-bit samples keep their scale (65,535 is white). The 32-bit modes do not say what white is: their darkest sample
    becomes 0 and their brightest 255.
    """
    from PIL import Image, ImageCms

    if image.mode.startswith("I;16"):
        deep = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((deep + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        samples = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0, neginf=0)
        low, high = float(samples.min()), float(samples.max())
        scaled = (samples - low) * (255 / (high - low) if high > low else 0)
        return Image.fromarray(np.rint(scaled).astype(np.uint8)).convert("RGB")
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(lab, srgb, "LAB", "RGB").apply(image)
    if image.has_transparency_data:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", rgba.size, "white")
        white.paste(rgba, mask=rgba)
        return white
    return image.convert("RGB")


def _upright(image: Image) -> tuple[Image, bool]:
    """The picture as its EXIF orientation wants it seen, and whether that exchanged its width and height."""
    from PIL import ExifTags, ImageOps

    try:
        on_its_side = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        return ImageOps.exif_transpose(image), on_its_side
    except Exception:  # a picture whose EXIF block is damaged is shown as it is stored, everywhere else too
        return image, False
