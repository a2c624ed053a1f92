"""Picture files to RGB arrays, one way for every format, colour mode, colour profile and orientation."""

from __future__ import annotations

import io
import math
import threading
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fingerprint_dagster.content import Value
from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.media.image.iscc import grey32

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageCms import ImageCmsTransform

U8 = NDArray[np.uint8]

VERSION = "image_rgb_thumbnail512_v2"
# The pre-shrink `thumbnail512`: the size is that of Pillow's `thumbnail`, as in PDQ's reference implementation in
# Python. JPEG files are first shrunk by libjpeg while it decodes them, and others in whole steps, both to no less than
# 1.5 times that size; the rest is a Gaussian blur and linear interpolation, both of OpenCV's that give the same bits on
# every machine. For a 1080p JPEG that takes 1 ms, Pillow's bicubic filter 5. Against that PDQ moves by 1.1 bits in the
# mean and by 6 at most (120 photographs), and its published hashes of shrunk pictures come out the same.
MAX_SIDE = 512
REDUCING_GAP = 1.5
# As many as the largest camera sensors have. Pillow holds them in 0.8 GB, twice that where they are transparent.
MAX_PIXELS = 200_000_000
MAX_BYTES = 1_000_000_000

# Formats that are only pictures: none that runs a program (EPS, PS), holds drawings (WMF) or documents (PDF).
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "ICO", "PPM", "QOI")
_READABLE = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC, JPEG XL, JPEG 2000, ICO, PPM or QOI"

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"}
    | {".avif", ".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpx", ".ico"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".qoi"}
)

_JXL_CODESTREAM = b"\xff\x0a"
_JXL_CONTAINER = b"\x00\x00\x00\x0cJXL \r\n\x87\n"
_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"II+\x00", "image/tiff"),
    (b"MM\x00+", "image/tiff"),
    (_JXL_CODESTREAM, "image/jxl"),
    (_JXL_CONTAINER, "image/jxl"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "image/jp2"),
    (b"\xff\x4f\xff\x51", "image/jp2"),
    (b"qoif", "image/qoi"),
)
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})

_OPENING = threading.Lock()


def sniff(head: bytes) -> str | None:
    """The media type of the picture that begins with `head`, or None."""
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
    """The picture in `path`.

    Arrays: "rgb", uint8 [h, w, 3] in sRGB, no side above 512, and "iscc_grey", uint8 [32, 32], see `iscc.grey32`.
    Info: "width" and "height" of the original, "format", and "iscc_exact": whether "iscc_grey" was made from every
    pixel. It is made from libjpeg's smaller picture where there is one: of 237 such files 95 % have the same
    Image-Code either way, and the others one that differs in 2 of its 64 bits.

    The first frame of an animation, upright (EXIF), on white where it is transparent, in the colours that its ICC
    profile means. Raises `ContentError` for what is empty, damaged, too large or no picture of a known format.
    """
    with path.open("rb") as file:
        head = file.read(4096)
        size = file.seek(0, 2)
        file.seek(0)
        if size == 0:
            raise ContentError("the file is empty")
        if size > MAX_BYTES:
            raise ContentError(f"the file has {size:,} bytes; pictures of up to {MAX_BYTES:,} are decoded")
        try:
            return _decode(file, head)
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


def _decode(file: BinaryIO, head: bytes) -> Value:
    with _open(file, head) as image:
        width, height = image.size
        _check_size(width, height)
        name, profile = str(image.format), image.info.get("icc_profile")
        if name in ("JPEG", "MPO"):  # other decoders offer what they please, such as a thumbnail stored beside it
            image.draft(None, _at_least(_thumbnail_size(width, height)))
        scaled = image.size != (width, height)
        image.load()
        orientation = _orientation(image)
        upright = _turned(opaque(image), orientation)
        if image.mode == "LAB":
            profile = None
    if orientation >= 5:
        width, height = height, width
    rgb = _to_srgb(upright, _thumbnail_size(width, height), profile)
    info = {"width": width, "height": height, "format": name, "iscc_exact": not scaled}
    return Value({"rgb": rgb, "iscc_grey": grey32(upright, exact=not scaled)}, info)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ContentError(
            f"the picture has {width} x {height} pixels; at most {MAX_PIXELS // 1_000_000} million are decoded"
        )


def _open(file: BinaryIO, head: bytes) -> Image:
    """The file with its header read, without Pillow's own pixel limit: it is lower than ours, and warns at its half."""
    from PIL import Image

    media_type = sniff(head)
    if media_type == "image/heic":
        return _open_heif(file)
    if media_type == "image/jxl":
        return _open_jxl(file, head)
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]  # AVIF came with Pillow 11.3
    with _OPENING:  # the limit is a global of Pillow's
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _open_heif(file: BinaryIO) -> Image:
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise ContentError("HEIC pictures are read by pillow-heif: pip install pillow-heif") from error
    image: Image = HeifImageFile(file)  # type: ignore[no-untyped-call]
    return image


def _open_jxl(file: BinaryIO, head: bytes) -> Image:
    """A JPEG XL picture. Its decoder decodes at once, so the header is looked at before."""
    try:
        from pillow_jxl.JpegXLImagePlugin import JXLImageFile
    except ImportError as error:
        raise ContentError("JPEG XL pictures are read by pillow-jxl-plugin: pip install pillow-jxl-plugin") from error
    _check_size(*jxl_size(head))
    image: Image = JXLImageFile(file)
    return image


def jxl_size(head: bytes) -> tuple[int, int]:
    """Width and height in the header of a JPEG XL file (ISO/IEC 18181-1, SizeHeader); (0, 0) if it begins later."""
    start = 0
    if not head.startswith(_JXL_CODESTREAM):
        whole, part = head.find(b"jxlc"), head.find(b"jxlp")
        if max(whole, part) < 0:
            return 0, 0
        start = whole + 4 if whole >= 0 else part + 8
    bits = int.from_bytes(head[start + 2 : start + 18], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    small = take(1)

    def side() -> int:
        return 8 * (take(5) + 1) if small else take((9, 13, 18, 30)[take(2)]) + 1

    height, ratio = side(), take(3)
    across, down = ((0, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio]
    return height * across // down if ratio else side(), height


def _orientation(image: Image) -> int:
    """The EXIF orientation, 1..8, that the decoded pixels still have."""
    from PIL import ExifTags

    if image.format == "JXL" and not getattr(image, "jpeg", False):
        return 1  # turned by its decoder, which leaves the tag as it was
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a picture whose EXIF block is damaged is shown as it is stored, everywhere else too
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _turned(image: Image, orientation: int) -> Image:
    from PIL.Image import Transpose

    turns = (
        Transpose.FLIP_LEFT_RIGHT,
        Transpose.ROTATE_180,
        Transpose.FLIP_TOP_BOTTOM,
        Transpose.TRANSPOSE,
        Transpose.ROTATE_270,
        Transpose.TRANSVERSE,
        Transpose.ROTATE_90,
    )
    return image if orientation == 1 else image.transpose(turns[orientation - 2])


def opaque(image: Image) -> Image:
    """The picture in mode RGB, L, CMYK or YCbCr: transparency on white, deep samples scaled to 8 bits.

    16-bit samples keep their scale (65,535 is white). The 32-bit modes do not say what white is: their darkest sample
    becomes 0 and their brightest 255.
    """
    from PIL import Image, ImageCms

    if image.mode.startswith("I;16"):
        deep = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((deep + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        samples = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0, neginf=0)
        low, high = float(samples.min()), float(samples.max())
        scaled = (samples - low) * (255 / (high - low) if high > low else 0)
        return Image.fromarray(np.rint(scaled).astype(np.uint8))
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(lab, srgb, "LAB", "RGB").apply(image)
    if image.has_transparency_data:
        grey = image.mode in ("LA", "La")
        clear = image.convert("LA" if grey else "RGBA")
        white = Image.new("L" if grey else "RGB", clear.size, "white")
        white.paste(clear.convert(white.mode), mask=clear.getchannel("A"))
        return white
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("RGB", "L", "CMYK", "YCbCr") else image.convert("RGB")


def _thumbnail_size(width: int, height: int) -> tuple[int, int]:
    """The size within 512 x 512 that keeps the proportions, by the rule of Pillow's `thumbnail`."""
    if max(width, height) <= MAX_SIDE:
        return width, height
    aspect = width / height
    if aspect <= 1:
        exact = MAX_SIDE * aspect
        return max(min(int(exact), int(exact) + 1, key=lambda side: abs(aspect - side / MAX_SIDE)), 1), MAX_SIDE
    exact = MAX_SIDE / aspect
    nearest = min(int(exact), int(exact) + 1, key=lambda side: abs(aspect - MAX_SIDE / side) if side else 0)
    return MAX_SIDE, max(nearest, 1)


def _at_least(size: tuple[int, int]) -> tuple[int, int]:
    return int(size[0] * REDUCING_GAP), int(size[1] * REDUCING_GAP)


def _to_srgb(image: Image, size: tuple[int, int], profile: bytes | None) -> U8:
    """The picture, in a mode that `opaque` returns, shrunk to `size` and then brought to sRGB: uint8 [h, w, 3]."""
    import cv2
    from PIL import Image

    steps = int(min(image.width / size[0], image.height / size[1]) / REDUCING_GAP)
    if steps > 1:
        image = image.reduce(steps)
    samples = np.asarray(image)
    if image.size != size:
        # What takes a picture that is as sharp as its pixels allow to one that is so at the new size.
        sigma = math.sqrt(max((image.width / size[0]) ** 2, (image.height / size[1]) ** 2) - 1) / 2
        samples = cv2.GaussianBlur(samples, (5, 5), sigma)
        samples = cv2.resize(samples, size, interpolation=cv2.INTER_LINEAR_EXACT)
    transform = _srgb_transform(profile, image.mode) if profile else None
    if transform is None and image.mode == "RGB":
        return np.array(samples)
    small = Image.frombytes(image.mode, size, samples.tobytes())
    return np.array(transform.apply(small) if transform else small.convert("RGB"))


@lru_cache(maxsize=32)
def _srgb_transform(profile: bytes, mode: str) -> ImageCmsTransform | None:
    """From the profile's colours to sRGB; None where there is nothing to do, or the profile is damaged or of others.

    Nearly every profile in the wild is one of the many sRGBs, told by what it does to a cube of colours.
    """
    from PIL import Image, ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except Exception:  # shown without its profile, as other programs do
        return None
    if mode not in ("RGB", "L"):
        return transform
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3)
    colours = Image.fromarray(cube if mode == "RGB" else cube[..., 0].copy())
    moved = np.asarray(transform.apply(colours), np.int16) - np.asarray(colours.convert("RGB"), np.int16)
    return transform if np.abs(moved).max() > 2 else None
