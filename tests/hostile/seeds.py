"""Tiny real files of every format: 16 x 16 pictures, a quarter of a second of sound, three frames, a few sentences."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

SENTENCES = (
    "The ferry left the harbour at dawn, and nobody on board knew that the bridge upstream had been closed. "
    "Später fährt sie über die Brücke nach Köln. 春天来了，公园里的花都开了。\n"
)


@lru_cache(maxsize=1)
def pictures() -> Mapping[str, bytes]:
    """Name -> the bytes of a 16 x 16 picture."""
    from PIL import Image, ImageCms, features

    rows, columns = np.mgrid[0:16, 0:16].astype(np.uint8)
    rgb = Image.fromarray(np.stack([rows * 16, columns * 16, rows * columns], -1))
    rgba = rgb.copy()
    rgba.putalpha(Image.fromarray(columns * 16))
    exif = Image.Exif()
    exif[274] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    made: dict[str, bytes] = {}

    def add(name: str, image: Image.Image, format_: str, **options: Any) -> None:
        file = io.BytesIO()
        image.save(file, format_, **options)
        made[name] = file.getvalue()

    add("rgb.png", rgb, "PNG", icc_profile=profile, exif=exif)
    add("palette.png", rgb.quantize(16), "PNG", transparency=3)
    add("one_bit.png", rgb.convert("1"), "PNG")
    add("grey16.png", Image.fromarray(rows.astype(np.uint16) * 4000), "PNG")
    add("animated.png", rgb, "PNG", save_all=True, append_images=[rgb.rotate(90), rgba])
    add("plain.jpg", rgb, "JPEG", exif=exif, icc_profile=profile)
    add("progressive.jpg", rgb, "JPEG", progressive=True, restart_marker_rows=1)
    add("cmyk.jpg", rgb.convert("CMYK"), "JPEG")
    add("two.mpo", rgb, "MPO", save_all=True, append_images=[rgb.rotate(180)])
    add("animated.gif", rgb, "GIF", save_all=True, append_images=[rgb.rotate(90), rgb.rotate(180)])
    add("lossy.webp", rgb, "WEBP", exif=exif)
    add("lossless.webp", rgba, "WEBP", lossless=True)
    add("animated.webp", rgb, "WEBP", save_all=True, append_images=[rgb.rotate(90)])
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits", "zstd", "lzma"):
        add(f"{compression}.tif", rgb, "TIFF", compression=compression)
    add("fax.tif", rgb.convert("1"), "TIFF", compression="group4")
    add("float.tif", Image.fromarray(rows.astype(np.float32)), "TIFF")
    add("lab.tif", rgb.convert("LAB"), "TIFF")
    add("big.tif", rgb, "TIFF", big_tiff=True)
    add("rgb.bmp", rgb, "BMP")
    add("palette.bmp", rgb.quantize(16), "BMP")
    made["rle.bmp"] = _rle_bitmap()
    if features.check("avif"):
        add("rgb.avif", rgb, "AVIF", exif=exif)
    with contextlib.suppress(ImportError):
        import pillow_jxl  # noqa: F401  # registers itself

        add("rgb.jxl", rgb, "JXL")
        add("lossless.jxl", rgba, "JXL", lossless=True, exif=exif.tobytes())
    add("rgb.jp2", rgb, "JPEG2000")
    add("stream.j2k", rgb, "JPEG2000", no_jp2=True)
    add("two.ico", rgba, "ICO", sizes=[(16, 16), (8, 8)])
    add("old.ico", rgba, "ICO", sizes=[(16, 16)], bitmap_format="bmp")
    add("rgb.ppm", rgb, "PPM")
    add("grey.pgm", rgb.convert("L"), "PPM")
    add("bits.pbm", rgb.convert("1"), "PPM")
    made["text.ppm"] = b"P3\n# c\n4 4\n255\n" + b"12 200 7 " * 16
    made["text.pbm"] = b"P1 8 8 " + b"01" * 32
    add("rgb.qoi", rgb, "QOI")
    with contextlib.suppress(ImportError):
        import pillow_heif

        file = io.BytesIO()
        pillow_heif.from_pillow(rgb).save(file, quality=50)
        made["rgb.heic"] = file.getvalue()
    return made


def _rle_bitmap() -> bytes:
    pixels = b"".join(bytes([16, row]) + b"\0\0" for row in range(16)) + b"\0\1"
    palette = bytes(range(256)) * 4
    header = struct.pack("<IiiHHIIiiII", 40, 16, 16, 1, 8, 1, len(pixels), 2835, 2835, 256, 0)
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + palette + pixels


@lru_cache(maxsize=1)
def sounds() -> Mapping[str, bytes]:
    """Name -> the bytes of 0.25 s of a tone."""
    kinds = (  # name, container, codec, sample rate, layout
        ("plain.wav", "wav", "pcm_s16le", 8000, "mono"),
        ("float.wav", "wav", "pcm_f32le", 8000, "stereo"),
        ("alaw.wav", "wav", "pcm_alaw", 8000, "mono"),
        ("adpcm.wav", "wav", "adpcm_ima_wav", 11025, "mono"),
        ("plain.flac", "flac", "flac", 8000, "stereo"),
        ("plain.mp3", "mp3", "libmp3lame", 16000, "mono"),
        ("vorbis.ogg", "ogg", "libvorbis", 16000, "mono"),
        ("opus.ogg", "ogg", "libopus", 16000, "mono"),
        ("flac.ogg", "ogg", "flac", 8000, "mono"),
        ("aac.m4a", "mp4", "aac", 16000, "stereo"),
        ("alac.m4a", "mp4", "alac", 8000, "mono"),
        ("plain.aac", "adts", "aac", 16000, "mono"),
        ("plain.aiff", "aiff", "pcm_s16be", 8000, "mono"),
        ("plain.wv", "wv", "wavpack", 8000, "mono"),
        ("plain.ac3", "ac3", "ac3", 32000, "5.1"),
        ("plain.eac3", "eac3", "eac3", 32000, "stereo"),
        ("plain.tta", "tta", "tta", 8000, "mono"),
        ("plain.caf", "caf", "pcm_s16le", 8000, "mono"),
        ("plain.w64", "w64", "pcm_s16le", 8000, "mono"),
        ("plain.au", "au", "pcm_s16be", 8000, "mono"),
        ("opus.mka", "matroska", "libopus", 16000, "mono"),
        ("plain.wma", "asf", "wmav2", 44100, "stereo"),
        ("plain.mp2", "mp2", "mp2", 16000, "mono"),
        ("plain.amr", "amr", "libopencore_amrnb", 8000, "mono"),
        ("plain.ra", "rm", "ac3", 32000, "mono"),
    )
    return {name: sound(*how) for name, *how in kinds if _encodes(how[1])}


def _encodes(codec: str) -> bool:
    import av

    try:
        av.codec.Codec(codec, "w")
    except ValueError:
        return False
    return True


def sound(container: str, codec: str, rate: int, layout: str, seconds: float = 0.25) -> bytes:
    """A tone of 440 Hz in that container and codec."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream: Any = out.add_stream(codec, rate=rate, layout=layout)
        if codec == "wmav2":  # its default is a rate that it refuses
            stream.bit_rate, stream.codec_context.format = 32_000, "fltp"
        channels = stream.codec_context.layout.nb_channels
        tone = (8000 * np.sin(np.arange(int(seconds * rate)) * 2 * np.pi * 440 / rate)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.repeat(tone, channels).reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)
    return file.getvalue()


@lru_cache(maxsize=1)
def videos() -> Mapping[str, bytes]:
    """Name -> the bytes of three frames of 32 x 32 pixels (of 176 x 144 where the codec has no less)."""
    kinds = (  # name, container, codec
        ("h264.mp4", "mp4", "libx264"),
        ("mpeg4.mp4", "mp4", "mpeg4"),
        ("h265.mp4", "mp4", "libx265"),
        ("av1.mp4", "mp4", "libsvtav1"),
        ("vp8.webm", "webm", "libvpx"),
        ("vp9.webm", "webm", "libvpx-vp9"),
        ("h264.mkv", "matroska", "libx264"),
        ("ffv1.mkv", "matroska", "ffv1"),
        ("mpeg4.avi", "avi", "mpeg4"),
        ("mjpeg.avi", "avi", "mjpeg"),
        ("huffyuv.avi", "avi", "huffyuv"),
        ("cinepak.avi", "avi", "cinepak"),
        ("h264.mov", "mov", "libx264"),
        ("prores.mov", "mov", "prores"),
        ("qtrle.mov", "mov", "qtrle"),
        ("svq1.mov", "mov", "svq1"),
        ("flv1.flv", "flv", "flv"),
        ("h264.ts", "mpegts", "libx264"),
        ("mpeg2.mpg", "mpeg", "mpeg2video"),
        ("mpeg1.m1v", "mpeg1video", "mpeg1video"),
        ("wmv2.wmv", "asf", "wmv2"),
        ("h263.3gp", "3gp", "h263"),
        ("vp8.ivf", "ivf", "libvpx"),
        ("raw.y4m", "yuv4mpegpipe", "rawvideo"),
        ("mpeg4.nut", "nut", "mpeg4"),
        ("mpeg2.mxf", "mxf", "mpeg2video"),
        ("bare.h264", "h264", "libx264"),
        ("moving.gif", "gif", "gif"),
    )
    talking = (
        ("talking.mp4", "mp4", "libx264", "aac"),
        ("talking.mkv", "matroska", "mpeg4", "flac"),
        ("talking.webm", "webm", "libvpx", "libopus"),
        ("talking.flv", "flv", "flv", "libmp3lame"),
        ("talking.ts", "mpegts", "mpeg2video", "mp2"),
        ("talking.mpg", "mpeg", "mpeg1video", "mp2"),
        ("talking.avi", "avi", "mpeg4", "pcm_s16le"),
        ("talking.wmv", "asf", "wmv2", "mp2"),
    )
    made = {name: video(*how) for name, *how in kinds if _encodes(how[1])}
    for name, container, codec, speech in talking:
        if _encodes(codec) and _encodes(speech):
            made[name] = video(container, codec, speech=speech)
    return made


def video(container: str, codec: str, frames: int = 3, speech: str = "") -> bytes:
    """A moving edge in that container and codec. speech: the codec of a silent soundtrack."""
    import av

    formats = {"gif": "rgb8", "mjpeg": "yuvj420p", "huffyuv": "yuv422p", "cinepak": "rgb24", "qtrle": "rgb24"}
    formats |= {"prores": "yuv422p10le", "svq1": "yuv410p"}
    width, height = (176, 144) if codec in ("h263", "mpeg2video", "libsvtav1") else (32, 32)
    options = {"preset": "ultrafast"} if codec in ("libx264", "libx265") else {}
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream: Any = out.add_stream(codec, rate=25, options=options)
        stream.width, stream.height = width, height
        stream.pix_fmt = formats.get(codec, "yuv420p")
        rate = 48_000 if speech == "libopus" else 44_100
        sound: Any = out.add_stream(speech, rate=rate, layout="mono") if speech else None
        for number in range(frames):
            picture = np.zeros((height, width, 3), np.uint8)
            picture[:, : (number + 1) * width // 4] = 200, 80, number * 40 % 256
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
        if sound is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, rate * frames // 25), np.int16), "s16", "mono")
            silence.sample_rate, silence.pts = rate, 0
            out.mux([*sound.encode(silence), *sound.encode(None)])
    return file.getvalue()


def packed(entries: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A ZIP archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            archive.writestr(info, content, zipfile.ZIP_STORED if name == "mimetype" else method)
    return file.getvalue()


WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
DOCX_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
ODT_TYPE = "application/vnd.oasis.opendocument.text"


def docx_entries(document: str = "") -> dict[str, bytes]:
    """The entries of a Word document. document: the whole of word/document.xml."""
    body = f"<w:p><w:r><w:t>{SENTENCES}</w:t></w:r></w:p>"
    document = document or f'<?xml version="1.0"?><w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'
    types = f'<Types><Override ContentType="{DOCX_TYPE}.main+xml"/></Types>'
    return {"[Content_Types].xml": types.encode(), "word/document.xml": document.encode()}


def odt_entries(content: str = "") -> dict[str, bytes]:
    """The entries of an OpenDocument text. content: the whole of content.xml."""
    spaces = " ".join(f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in ("office", "text"))
    body = f"<office:body><office:text><text:p>{SENTENCES}</text:p></office:text></office:body>"
    content = content or f"<office:document-content {spaces}>{body}</office:document-content>"
    return {"mimetype": ODT_TYPE.encode(), "content.xml": content.encode()}


def epub_entries(chapter: str = "") -> dict[str, bytes]:
    """The entries of an EPUB book. chapter: the whole of its one chapter."""
    chapter = chapter or f'<html xmlns="http://www.w3.org/1999/xhtml"><body><p>{SENTENCES}</p></body></html>'
    container = '<container><rootfiles><rootfile full-path="book/book.opf"/></rootfiles></container>'
    item = '<item id="c1" href="c1.xhtml" media-type="application/xhtml+xml"/>'
    package = f'<package><manifest>{item}</manifest><spine><itemref idref="c1"/></spine></package>'
    return {
        "mimetype": b"application/epub+zip",
        "META-INF/container.xml": container.encode(),
        "book/book.opf": package.encode(),
        "book/c1.xhtml": chapter.encode(),
    }


def pdf(objects: Mapping[int, bytes] | None = None, root: int = 1) -> bytes:
    """A PDF of these objects, with a right table of references. Default: one page of text."""
    drawn = zlib.compress(b"BT /F1 12 Tf 20 100 Td (The ferry left the harbour at dawn) Tj ET")
    objects = objects or {
        1: b"<</Type/Catalog/Pages 2 0 R>>",
        2: b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        3: b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 200]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        4: b"<</Filter/FlateDecode/Length %d>>stream\n%s\nendstream" % (len(drawn), drawn),
        5: b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    }
    out = bytearray(b"%PDF-1.7\n")
    places = {}
    for number, body in objects.items():
        places[number] = len(out)
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start, size = len(out), max(objects) + 1
    out += b"xref\n0 %d\n0000000000 65535 f \n" % size
    for number in range(1, size):
        out += b"%010d 00000 n \n" % places[number] if number in places else b"0000000000 65535 f \n"
    out += b"trailer\n<</Size %d/Root %d 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (size, root, start)
    return bytes(out)


@lru_cache(maxsize=1)
def texts() -> Mapping[str, bytes]:
    """Name -> the bytes of a text or document of a few sentences."""
    page = f"<p>{SENTENCES}</p>" * 2
    times = "00:00:01{0}000 --> 00:00:03{0}500\n<i>The ferry left</i>\n\n"
    return {
        "plain.txt": SENTENCES.encode(),
        "utf16.txt": SENTENCES.encode("utf-16"),
        "utf32.txt": SENTENCES.encode("utf-32-be"),
        "western.txt": ("Während die Bäckerei früh öffnet, übt die Schülerin. " * 3).encode("cp1252"),
        "russian.txt": ("Утром мальчик вышел из дома и увидел на дороге лошадь. " * 3).encode("koi8-r"),
        "page.html": f'<!DOCTYPE html><html><head><meta charset="utf-8"><title>T</title></head><body><nav><a href="/">M'
        f"</a></nav><main><h1>Ferry</h1>{page}<table><tr><td>x</td></tr></table></main></body></html>".encode(),
        "page.xhtml": f'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><body><div/><pre>{page}</pre>'
        "</body></html>".encode(),
        "cues.srt": ("1\n" + times.format(",") + "2\n" + times.format(",")).encode(),
        "cues.vtt": ("WEBVTT\n\n" + times.format(".") + "NOTE x\n\n" + times.format(".")).encode(),
        "rich.rtf": rb"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0 Arial;}}\f0\fs20 The ferry \b left\b0\par at \u228?dawn\'e4"
        rb" {\*\x y}}",
        "page.pdf": pdf(),
        "word.docx": packed(docx_entries()),
        "open.odt": packed(odt_entries()),
        "book.epub": packed(epub_entries()),
    }


@lru_cache(maxsize=1)
def archives() -> Mapping[str, bytes]:
    """Name -> the bytes of an archive of two members, and of IPFS's archives and nodes."""
    members = {"a.txt": SENTENCES.encode(), "sub/b.png": pictures()["one_bit.png"]}
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name + "é" * 60)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return {
        "stored.zip": packed(members, zipfile.ZIP_STORED),
        "deflated.zip": packed(members),
        "lzma.zip": packed(members, zipfile.ZIP_LZMA),
        "bzip2.zip": packed(members, zipfile.ZIP_BZIP2),
        "pax.tar": tar.getvalue(),
    }


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def dag_node(data: bytes = b"", links: Mapping[str, bytes] | None = None, kind: int = 2) -> bytes:
    """A UnixFS node in dag-pb. links: name -> binary CID."""
    out = b""
    for name, cid in (links or {}).items():
        out += _field(2, _field(1, cid) + _field(2, name.encode()) + _field(3, 9))
    return out + _field(1, _field(1, kind) + (_field(2, data) if data else b"") + _field(3, len(data)))


def raw_cid(block: bytes) -> bytes:
    """The binary CID, version 1, of a raw block."""
    return b"\x01\x55\x12\x20" + hashlib.sha256(block).digest()


@lru_cache(maxsize=1)
def nodes() -> Mapping[str, bytes]:
    """Name -> the bytes of an IPFS node, each in dag-pb."""
    leaf = raw_cid(b"leaf")
    shard = _field(1, 5) + _field(2, b"\xff" * 32) + _field(5, 0x22) + _field(6, 256)
    return {
        "file": dag_node(b"hello"),
        "parts": dag_node(links={"": leaf}),
        "folder": dag_node(links={"a": leaf, "b": leaf}, kind=1),
        "shard": _field(2, _field(1, leaf) + _field(2, b"07a") + _field(3, 4)) + _field(1, shard),
    }


@lru_cache(maxsize=1)
def records() -> Mapping[str, bytes]:
    """Name -> the bytes of an IPNS record with a false signature."""
    pairs = ((b"eValue", b"E/ipfs"), (b"hValidity", b"X\x1e2027-01-01T00:00:00.000000000Z"), (b"lValidityType", b"\0"))
    said = b"\xa3" + b"".join(b"%s%s" % (bytes([0x60 | len(name) - 1]) + name[1:], value) for name, value in pairs)
    return {"record": _field(8, bytes(64)) + _field(9, said)}


@lru_cache(maxsize=1)
def cars() -> Mapping[str, bytes]:
    """Name -> the bytes of an IPFS archive of one file in two parts."""
    parts = [b"first part, ", b"second part"]
    root = dag_node(links={"": raw_cid(parts[0])})
    header = b"\xa2eroots\x80gversion\x01"
    out = _varint(len(header)) + header
    for block, cid in [(root, b"\x12\x20" + hashlib.sha256(root).digest()), *((part, raw_cid(part)) for part in parts)]:
        out += _varint(len(cid) + len(block)) + cid + block
    return {"file.car": out}


@lru_cache(maxsize=1)
def lists() -> Mapping[str, bytes]:
    """Name -> the bytes of a list of two contents."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"uri": "/a/b.png", "content_id": "7", "n": 1.5}, {"uri": "https://x.org/ä", "content_id": "8", "n": None}]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return {
        "rows.csv": b'uri,content_id,n\n/a/b.png,7,1.5\n"https://x.org/a,b",8,\n',
        "rows.tsv": b"uri\tcontent_id\n/a/b.png\t7\n",
        "rows.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode(),
        "rows.parquet": file.getvalue(),
        "rows.lst": b"# c\n/a/b.png\nfile:///c/d\nipfs://Qm\n",
    }


@lru_cache(maxsize=1)
def addresses() -> Mapping[str, bytes]:
    """Name -> an address as a user may write it."""
    raw = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
    lines = (
        "file:///a/b%20c.png",
        "https://user:pw@example.org:8443/a/../b?q=ä#f",
        "http://[::1]:80/x",
        "ipfs://QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPbdG/a/b",
        f"ipfs:{raw}",
        "ipns://k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8",
        "s3://bucket/key/ä%2F.png",
        "data:text/plain;base64,SGVsbG8gd29ybGQ=",
        "data:,hello%20world",
        "zip+file:///a.zip!/b/c.png",
        "tar+https://example.org/a.tar.gz!/x",
        "../relative/./path",
    )
    return {f"address {number}": line.encode() for number, line in enumerate(lines)}


@lru_cache(maxsize=1)
def values() -> Mapping[str, bytes]:
    """Name -> an encoded stage value, as the memo holds it."""
    from fingerprint_dagster.codec import encode
    from fingerprint_dagster.content import Value

    arrays = {"rgb": np.arange(48, dtype=np.uint8).reshape(4, 4, 3), "x": np.ones((2, 2)), "none": np.empty(0, bool)}
    return {"value": encode(Value(arrays, {"width": 4, "text": "ä", "list": [1, None]}))}
