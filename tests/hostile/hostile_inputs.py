"""Hostile inputs of every kind, made anew each time: `python tests/hostile/hostile_inputs.py FOLDER` writes them all.

Nothing here is a real attack on a known flaw of a library; each input is what a limit or a guard is there for.
"""

from __future__ import annotations

import io
import random
import re
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import iscc_samples
import seeds
import skimage

CANARY = "http://127.0.0.1:9"
"""Where inputs point to if no other address is given; nothing listens there."""
OUTSIDE = "/tmp/fingerprint-hostile-outside"
"""The path that archives try to write to."""


@dataclass(frozen=True)
class Hostile:
    """One input. kind: its class. type: the content type it is registered as. name: its file's name.

    refused: whether it must end in quarantine; a truncated picture, say, may also be read.
    """

    kind: str
    type: str
    name: str
    data: bytes
    refused: bool = True


Made = Iterator[Hostile]


def every(canary: str = CANARY, *, large: bool = True) -> Made:
    """All of them. canary: the address that inputs which refer to something refer to. large: the slow ones, too."""
    yield from picture_bombs(large)
    yield from compressed_profiles()
    yield from endless_animations(large)
    yield from false_durations(large)
    yield from broken_containers()
    yield from zip_bombs(large)
    yield from xml_bombs(canary)
    yield from pdfs(canary, large)
    yield from rich_texts(large)
    yield from web_pages(canary, large)
    yield from subtitles(large)
    yield from odd_texts(large)
    yield from playlists(canary)
    yield from references(canary)
    yield from polyglots()
    yield from mislabelled()
    yield from damaged(large)


# -------------------- pictures


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(width: int, height: int, *chunks: bytes, colour: int = 0) -> bytes:
    header = _png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + _png_chunk(b"IEND", b"")


def _replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    if old not in data:
        raise ValueError(f"the seed has no {old!r}")
    return data.replace(old, new)


def picture_bombs(large: bool) -> Made:
    """A few bytes whose header says that they are millions by millions of pixels."""
    pictures = seeds.pictures()
    small = struct.pack(">II", 16, 16)
    jpeg = pictures["plain.jpg"]
    at = jpeg.index(b"\xff\xc0") + 5
    bombs = {
        "bomb.png": _png(100_000, 100_000, _png_chunk(b"IDAT", zlib.compress(bytes(1000)))),
        "most.png": _png(2**31 - 1, 2**31 - 1, _png_chunk(b"IDAT", zlib.compress(bytes(1000)))),
        "line.png": _png(2**31 - 1, 1, _png_chunk(b"IDAT", zlib.compress(bytes(1000)))),
        "bomb.gif": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6)
        + b"\x2c" + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02\x44\x01\0\x3b",
        "bomb.webp": b"RIFF\x1c\0\0\0WEBPVP8L\x0f\0\0\0\x2f" + (16382 | 16382 << 14).to_bytes(4, "little") + bytes(11),
        "canvas.webp": b"RIFF\x28\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff" + bytes(18),
        "bomb.bmp": pictures["rgb.bmp"][:18] + struct.pack("<ii", 2**31 - 1, 2**31 - 1) + pictures["rgb.bmp"][26:],
        "upside.bmp": pictures["rgb.bmp"][:18] + struct.pack("<ii", 2**31 - 1, -(2**31)) + pictures["rgb.bmp"][26:],
        "bomb.jpg": jpeg[:at] + struct.pack(">HH", 65500, 65500) + jpeg[at + 4 :],
        "bomb.jp2": _replaced(pictures["rgb.jp2"], small, struct.pack(">II", 2**31 - 1, 2**31 - 1)),
        "bomb.j2k": _replaced(pictures["stream.j2k"], small, struct.pack(">II", 100_000, 100_000)),
        "bomb.qoi": b"qoif" + struct.pack(">IIBB", 2**31, 2**31, 4, 0) + b"\xfd" * 100,
        "bomb.ppm": b"P6 999999999 999999999 255\n" + bytes(100),
        "bomb.pbm": b"P4 400000 400000\n" + bytes(100),
        # all ones: the largest sizes that the header can name
        "bomb.jxl": b"\xff\x0a" + b"\xfe" + b"\xff" * 16,
        "bomb.tif": _tiff(2**31 - 1, 2**31 - 1),
        "tall.tif": _tiff(1, 2**32 - 1),
        "icon.ico": b"\0\0\1\0\1\0" + bytes([0, 0, 0, 0, 1, 0, 32, 0]) + struct.pack("<II", 200, 22)
        + _png(50_000, 50_000, _png_chunk(b"IDAT", zlib.compress(bytes(1000)))),
    }  # fmt: skip
    for name in ("rgb.heic", "rgb.avif"):
        if name in pictures:
            wide = struct.pack(">II", 60_000, 60_000)
            bombs[f"bomb.{name[4:]}"] = re.sub(rb"(?s)(ispe\0{4}).{8}", rb"\1" + wide, pictures[name])
    for name, data in bombs.items():
        yield Hostile("picture bombs", "image", name, data)
    yield Hostile("picture bombs", "image", "loop.tif", _tiff_loop(), refused=False)
    if large:  # as large as is allowed: it costs memory, and no more than that
        rows = zlib.compressobj(9)
        line = bytes(14_001)
        body = b"".join(rows.compress(line) for _ in range(14_000)) + rows.flush()
        yield Hostile("picture bombs", "image", "allowed.png", _png(14_000, 14_000, _png_chunk(b"IDAT", body)), False)
        yield Hostile("picture bombs", "image", "alpha.png", _alpha(7_000), refused=False)


def _alpha(side: int) -> bytes:
    rows = zlib.compressobj(9)
    body = b"".join(rows.compress(bytes(4 * side + 1)) for _ in range(side)) + rows.flush()
    return _png(side, side, _png_chunk(b"IDAT", body), colour=6)


def _tiff(width: int, height: int) -> bytes:
    tags = ((256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8))
    tags += ((277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, 2**32 - 1))
    body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0\x08\0\0\0" + body + bytes(4)


def _tiff_loop() -> bytes:
    """A directory that says it follows itself."""
    tags = ((256, 4, 1, 4), (257, 4, 1, 4), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8))
    tags += ((277, 3, 1, 1), (278, 4, 1, 4), (279, 4, 1, 16))
    body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0\x08\0\0\0" + body + struct.pack("<I", 8)


def compressed_profiles() -> Made:
    """Pictures with blocks of text and colour profiles that unpack to 200 MB."""
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()
    pixels = _png_chunk(b"IDAT", zlib.compress(bytes(17 * 16)))
    blocks = {
        "iccp.png": _png_chunk(b"iCCP", b"a\0\0" + bomb),
        "ztxt.png": _png_chunk(b"zTXt", b"a\0\0" + bomb),
        "itxt.png": _png_chunk(b"iTXt", b"a\0\1\0\0\0" + bomb),
        "many.png": b"".join(_png_chunk(b"zTXt", b"%d\0\0" % n + zlib.compress(bytes(60_000))) for n in range(5_000)),
        "exif.png": _png_chunk(b"eXIf", b"MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03\xff\xff\xff\xff\0\0\0\0" * 100),
    }
    for name, block in blocks.items():
        yield Hostile("compressed blocks in pictures", "image", name, _png(16, 16, block, pixels), refused=False)
    wide = b"".join(zlib.compress(bytes(50 << 20), 9) for _ in range(1))
    yield Hostile("compressed blocks in pictures", "image", "idat.png", _png(16, 16, _png_chunk(b"IDAT", wide)), False)
    packer = zlib.compressobj(9, wbits=31)
    gz = packer.compress(bytes(100 << 20)) + packer.flush()
    yield Hostile("compressed blocks in pictures", "image", "drawing.svgz", gz)


def endless_animations(large: bool) -> Made:
    """Animations of 100,000 frames and more, as pictures and as videos."""
    count = 100_000 if large else 20_000
    gif = seeds.pictures()["animated.gif"]
    frame = b"\x21\xf9\x04\0\1\0\0\0\x2c" + struct.pack("<HHHHB", 0, 0, 16, 16, 0) + b"\x02\x02\x44\x01\0"
    start = gif.index(b"\x21\xf9") if b"\x21\xf9" in gif else gif.index(b"\x2c")
    frames = gif[:start] + frame * count + b"\x3b"
    yield Hostile("endless animations", "image", "endless.gif", frames, refused=False)
    yield Hostile("endless animations", "video", "endless_video.gif", frames, refused=False)
    body = zlib.compress(bytes(17 * 16))
    control = _png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 16, 16, 0, 0, 1, 100, 0, 0))
    chunks = [_png_chunk(b"acTL", struct.pack(">II", count, 0)), control, _png_chunk(b"IDAT", body)]
    chunks += [control + _png_chunk(b"fdAT", struct.pack(">I", 1) + body)] * count
    yield Hostile("endless animations", "image", "endless.png", _png(16, 16, *chunks), refused=False)
    y4m = b"YUV4MPEG2 W2 H2 F25:1 Ip A1:1 C420\n" + (b"FRAME\n" + bytes(6)) * (10 * count)
    yield Hostile("endless animations", "video", "endless.y4m", y4m, refused=False)


# -------------------- sound and video


def _flac_silence(hours: float) -> bytes:
    """FLAC of silence: 15 bytes for each 8 seconds."""
    rate, block = 8000, 65535
    total = int(hours * 3600 * rate)
    info = (
        struct.pack(">HH", block, block)
        + bytes(6)
        + ((rate << 44 | 0 << 41 | 15 << 36 | total).to_bytes(8, "big"))
        + bytes(16)
    )
    out = bytearray(b"fLaC\x80\0\0\x22" + info)
    for number in range(total // block):
        header = b"\xff\xf8\x74\x08" + _long_utf8(number) + struct.pack(">H", block - 1)
        frame = header + bytes([_crc(header, 0x07, 8)]) + b"\0\0\0"
        out += frame + struct.pack(">H", _crc(frame, 0x8005, 16))
    return bytes(out)


def _long_utf8(number: int) -> bytes:
    return chr(number).encode("utf-8", "surrogatepass")


def _crc(data: bytes, polynomial: int, bits: int) -> int:
    crc, top, mask = 0, 1 << (bits - 1), (1 << bits) - 1
    for byte in data:
        crc ^= byte << (bits - 8)
        for _ in range(8):
            crc = (crc << 1 ^ polynomial) & mask if crc & top else crc << 1 & mask
    return crc


def _number_after(data: bytes, mark: bytes, skip: int, form: str, value: int) -> bytes:
    at = data.index(mark) + len(mark) + skip
    number = struct.pack(form, value)
    return data[:at] + number + data[at + len(number) :]


def false_durations(large: bool) -> Made:
    """Sounds and videos that claim hours, gigabytes and millions of pixels, and a few that really last so long."""
    sounds, videos = seeds.sounds(), seeds.videos()
    kind = "false lengths of sound and video"
    wav, flac = sounds["plain.wav"], sounds["plain.flac"]
    yield Hostile(kind, "audio", "4gb.wav", _number_after(wav, b"data", 0, "<I", 2**32 - 1), refused=False)
    yield Hostile(kind, "audio", "riff.wav", wav[:4] + b"\xff" * 4 + wav[8:], refused=False)
    yield Hostile(kind, "audio", "fmt.wav", _number_after(wav, b"fmt ", 0, "<I", 2**32 - 1))
    yield Hostile(kind, "audio", "rate.wav", _number_after(wav, b"fmt ", 8, "<I", 2**32 - 1))
    yield Hostile(kind, "audio", "slow.wav", _number_after(wav, b"fmt ", 8, "<I", 1))
    yield Hostile(kind, "audio", "channels.wav", _number_after(wav, b"fmt ", 6, "<H", 65535))
    info = flac.index(b"fLaC") + 18
    claim = flac[:info] + (8000 << 44 | 1 << 41 | 15 << 36 | 10 * 3600 * 8000).to_bytes(8, "big") + flac[info + 8 :]
    yield Hostile(kind, "audio", "10h.flac", claim)
    yield Hostile(kind, "audio", "block.flac", flac[:5] + b"\xff\xff\xff" + flac[8:])
    id3 = b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + bytes(1000)
    yield Hostile(kind, "audio", "id3.mp3", id3)
    yield Hostile(kind, "audio", "frame.mp3", b"ID3\x04\0\0\0\0\x08\0APIC\xff\xff\xff\xff\0\0" + bytes(1000))
    mp4 = videos["h264.mp4"]
    yield Hostile(kind, "video", "10h.mp4", _number_after(mp4, b"mvhd", 16, ">I", 10 * 3600 * 1000), refused=False)
    yield Hostile(kind, "video", "10h_track.mp4", _number_after(mp4, b"mdhd", 16, ">I", 2**32 - 1), refused=False)
    for box in (b"stts", b"stsz", b"stsc", b"stco", b"ctts", b"stss", b"elst"):
        for count in (2**32 - 1, 2**31 - 1, 2**28):
            if box in mp4:
                skip = 8 if box == b"stsz" else 4
                name = f"{box.decode()}_{count}.mp4"
                yield Hostile(kind, "video", name, _number_after(mp4, box, skip, ">I", count), refused=False)
    yield Hostile(kind, "video", "size.mp4", _number_after(mp4, b"avc1", 24, ">HH"[:2], 65535), refused=False)
    yield Hostile(kind, "video", "wide.y4m", b"YUV4MPEG2 W100000 H100000 F25:1 C420\nFRAME\n" + bytes(100))
    yield Hostile(
        kind, "video", "wide.ivf", videos["vp8.ivf"][:12] + b"\xff\xff\xff\xff" + videos["vp8.ivf"][16:], False
    )
    avi = videos["mjpeg.avi"]
    yield Hostile(kind, "video", "wide.avi", _number_after(avi, b"strf", 8, "<i", 2**31 - 1), refused=False)
    yield Hostile(kind, "video", "jpeg.avi", avi.replace(b"\0\x20\0\x20\3", b"\xff\xdc\xff\xdc\3"), refused=False)
    mkv = videos["h264.mkv"]
    yield Hostile(kind, "video", "size.mkv", mkv.replace(b"\xb0\x81\x20", b"\xb0\x81\xff"), refused=False)
    if large:
        yield Hostile(kind, "audio", "13h.flac", _flac_silence(13))
        yield Hostile(kind, "audio", "11h.flac", _flac_silence(11), refused=False)


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + kind + body


def _nested(kind: bytes, depth: int, core: bytes = b"") -> bytes:
    """A box in a box in a box: the headers first, the core last."""
    return b"".join(struct.pack(">I", 8 * (depth - level) + len(core)) + kind for level in range(depth)) + core


def broken_containers() -> Made:
    """Boxes nested 10,000 deep, boxes of no size, elements that contain themselves, pages that never end."""
    kind = "nested and cyclic containers"
    ftyp = _box(b"ftyp", b"isom\0\0\2\0isomiso2")
    for name, box in (("moov", b"moov"), ("trak", b"trak"), ("udta", b"udta"), ("meta", b"meta"), ("moof", b"moof")):
        yield Hostile(kind, "video", f"nested_{name}.mp4", ftyp + _nested(box, 10_000))
        yield Hostile(kind, "audio", f"nested_{name}.m4a", _box(b"ftyp", b"M4A \0\0\2\0") + _nested(box, 10_000))
    yield Hostile(kind, "video", "zero.mp4", ftyp + b"\0\0\0\0moov" + b"\0\0\0\0trak" * 1000)
    yield Hostile(kind, "video", "large.mp4", ftyp + b"\0\0\0\1moov" + b"\xff" * 8 + bytes(100))
    yield Hostile(kind, "video", "one.mp4", ftyp + b"\0\0\0\1moov\0\0\0\0\0\0\0\0" * 1000)
    packed = zlib.compress(_nested(b"cmov", 1000))
    cmov = _box(b"cmov", _box(b"dcom", b"zlib") + _box(b"cmvd", struct.pack(">I", 2**31 - 1) + packed))
    yield Hostile(kind, "video", "cmov.mov", _box(b"ftyp", b"qt  \0\0\2\0") + _box(b"moov", cmov))
    heic = _box(b"ftyp", b"heic\0\0\0\0mif1heic")
    yield Hostile(kind, "image", "nested.heic", heic + _box(b"meta", bytes(4) + _nested(b"iprp", 10_000)))
    yield Hostile(
        kind,
        "image",
        "nested.avif",
        heic.replace(b"heic", b"avif") + _box(b"meta", bytes(4) + _nested(b"ipco", 10_000)),
    )
    ebml = b"\x1aE\xdf\xa3\x8bB\x82\x88matroska"
    unknown = b"\x01\xff\xff\xff\xff\xff\xff\xff"
    segment = b"\x18S\x80g" + unknown
    yield Hostile(kind, "video", "nested.mkv", ebml + (b"\x18S\x80g" + unknown) * 10_000)
    yield Hostile(
        kind, "video", "tags.mkv", ebml + segment + b"\x12T\xc3g" + unknown + (b"\x67\xc8" + unknown) * 20_000
    )
    chapter = b"\x10C\xa7p" + unknown + b"\x45\xb9" + unknown + (b"\xb6" + unknown) * 20_000
    yield Hostile(kind, "video", "chapters.mkv", ebml + segment + chapter)
    # A table of contents whose every entry is the table itself.
    seek = b"\x4d\xbb\x8b\x53\xab\x84\x11\x4d\x9b\x74\x53\xac\x81\x00"
    yield Hostile(
        kind, "video", "cyclic.mkv", ebml + segment + (b"\x11M\x9bt" + bytes([0x80 | len(seek)]) + seek) * 200
    )
    lacing = seeds.videos()["h264.mkv"]
    yield Hostile(kind, "video", "lacing.mkv", lacing.replace(b"\x81\0\0\x80", b"\x81\0\0\x86\xff"), refused=False)
    page = b"OggS\0\2" + bytes(20) + b"\xff" + b"\0" * 255
    yield Hostile(kind, "audio", "pages.ogg", page * 2000)
    yield Hostile(kind, "audio", "riffs.wav", b"RIFF\xff\xff\xff\xffWAVE" + b"LIST\xff\xff\xff\xffINFO" * 10_000)
    yield Hostile(kind, "video", "lists.avi", b"RIFF\xff\xff\xff\xffAVI " + b"LIST\xff\xff\xff\xffhdrl" * 10_000)
    yield Hostile(kind, "video", "empty.ts", (b"G\x1f\xff\x10" + b"\xff" * 184) * 20_000)
    yield Hostile(kind, "video", "starts.mpg", b"\0\0\1\xba" * 100_000)
    yield Hostile(
        kind,
        "video",
        "tags.flv",
        b"FLV\x01\5\0\0\0\x09\0\0\0\0" + b"\x12\xff\xff\xff\0\0\0\0\0\0\0\x02\0\x0aonMetaData" * 1000,
    )
    amf = b"\x08\0\0\0\1\0\1a" * 10_000
    script = b"\x02\0\x0aonMetaData" + amf
    yield Hostile(
        kind,
        "video",
        "amf.flv",
        b"FLV\x01\5\0\0\0\x09\0\0\0\0\x12" + len(script).to_bytes(3, "big") + bytes(7) + script,
    )
    asf = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + struct.pack("<QIBB", 2**63, 2**32 - 1, 1, 2)
    yield Hostile(kind, "audio", "objects.wma", asf + bytes(1000))


# -------------------- documents


def _zip_of(entries: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    return seeds.packed(entries, method)


def _with_bomb(entries: Mapping[str, bytes], name: str, size: int, fill: bytes = b"a") -> bytes:
    """The archive with a member of `size` equal bytes between its beginning and its end."""
    begin, _, end = entries[name].partition(b"The ferry")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for other, content in entries.items():
            if other != name:
                archive.writestr(other, content, zipfile.ZIP_STORED if other == "mimetype" else None)
        with archive.open(name, "w") as member:
            member.write(begin)
            for _ in range(size >> 20):
                member.write(fill * (1 << 20))
            member.write(end)
    return file.getvalue()


_DOCUMENTS: Mapping[str, tuple[Callable[..., dict[str, bytes]], str]] = {
    "docx": (seeds.docx_entries, "word/document.xml"),
    "odt": (seeds.odt_entries, "content.xml"),
    "epub": (seeds.epub_entries, "book/c1.xhtml"),
}


def zip_bombs(large: bool) -> Made:
    """Documents in archives that unpack to far more than they are, or have millions of members."""
    kind = "ZIP bombs"
    for ending, (entries, name) in _DOCUMENTS.items():
        yield Hostile(kind, "text", f"ratio.{ending}", _with_bomb(entries(), name, 300 << 20 if large else 32 << 20))
        honest = _zip_of({**entries(), name: b"<a>" + b"x" * (8 << 20) + b"</a>"})
        lying = honest.replace(struct.pack("<I", (8 << 20) + 7), struct.pack("<I", 1000))
        yield Hostile(kind, "text", f"lying.{ending}", lying)
        yield Hostile(kind, "text", f"overlap.{ending}", _overlapping(entries(), name), refused=False)
        count = 1_000_000 if large else 25_000
        yield Hostile(kind, "text", f"members.{ending}", _many_members(entries(), count))
        yield Hostile(
            kind, "text", f"negative.{ending}", _patched_directory(_zip_of(entries()), 42, b"\xff\xff\xff\xff")
        )
        # A hundred members, each an archive, each of these in it again: nothing in it is ever opened.
        inner = _zip_of({f"{n}.zip": _zip_of({"x": bytes(100_000)}) for n in range(50)})
        yield Hostile(kind, "text", f"nested.{ending}", _zip_of({**entries(), "inner.zip": inner}), refused=False)
        for method, label in ((zipfile.ZIP_BZIP2, "bzip2"), (zipfile.ZIP_LZMA, "lzma")):
            bomb = _zip_of({**entries(), name: b"<a>" + bytes(64 << 20) + b"</a>"}, method)
            yield Hostile(kind, "text", f"{label}.{ending}", bomb)
    chapters = 400
    item = "".join(f'<item id="c{n}" href="c1.xhtml" media-type="application/xhtml+xml"/>' for n in range(chapters))
    spine = "".join(f'<itemref idref="c{n}"/>' for n in range(chapters))
    book = seeds.epub_entries("<html><body><p>" + "word " * 600_000 + "</p></body></html>")
    book["book/book.opf"] = f"<package><manifest>{item}</manifest><spine>{spine}</spine></package>".encode()
    yield Hostile(kind, "text", "again.epub", _zip_of(book))


def _overlapping(entries: Mapping[str, bytes], name: str) -> bytes:
    """An archive whose directory names one and the same data 1,000 times."""
    data = _zip_of({**entries, name: b"<a>" + b"x" * (1 << 20) + b"</a>"})
    end = data.rindex(b"PK\5\6")
    start = int.from_bytes(data[end + 16 : end + 20], "little")
    directory = data[start:end]
    at = directory.rindex(b"PK\1\2")
    last = directory[at:]
    names = int.from_bytes(last[28:30], "little")
    more = b"".join(last[:46] + f"{n:0{names}d}".encode()[:names] + last[46 + names :] for n in range(1000))
    count = struct.pack("<HH", *[int.from_bytes(data[end + 8 : end + 10], "little") + 1000] * 2)
    size = struct.pack("<I", len(directory) + len(more))
    return data[:start] + directory + more + b"PK\5\6\0\0\0\0" + count + size + data[end + 16 :]


def _many_members(entries: Mapping[str, bytes], count: int) -> bytes:
    """An archive with so many empty members."""
    file = io.BytesIO(_zip_of(entries))
    data = file.getvalue()
    end = data.rindex(b"PK\5\6")
    start = int.from_bytes(data[end + 16 : end + 20], "little")
    entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0)
    directory = data[start:end] + b"".join(entry + b"%08d" % n for n in range(count))
    total = len(entries) + count
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, total, total, len(directory), start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, start + len(directory), 1)
    return data[:start] + directory + record + locator + b"PK\5\6" + bytes(4) + b"\xff" * 12 + bytes(2)


def _patched_directory(data: bytes, at: int, value: bytes) -> bytes:
    start = data.rindex(b"PK\1\2") + at
    return data[:start] + value + data[start + len(value) :]


def xml_bombs(canary: str) -> Made:
    """Documents whose XML multiplies itself, refers to files and servers, or is nested without end."""
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    kinds = {
        "laughs": (f'<!DOCTYPE x [<!ENTITY l0 "lol">{laughs}]>', "&l9;"),
        "quadratic": (f'<!DOCTYPE x [<!ENTITY a "{"a" * 50_000}">]>', "&a;" * 50_000),
        "file": ('<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>', "&a;"),
        "server": (f'<!DOCTYPE x [<!ENTITY a SYSTEM "{canary}/entity">]>', "&a;"),
        "dtd": (f'<!DOCTYPE x SYSTEM "{canary}/x.dtd">', "plain"),
        "public": (f'<!DOCTYPE x PUBLIC "-//W3C//DTD XHTML 1.0//EN" "{canary}/x.dtd">', "plain"),
        "parameter": (f'<!DOCTYPE x [<!ENTITY % a SYSTEM "{canary}/p.dtd">%a;]>', "&b;"),
        "include": ("", f'<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="{canary}/i" parse="text"/>'),
        "style": (f'<?xml-stylesheet type="text/xsl" href="{canary}/s.xsl"?>', "plain"),
        "deep": ("", "<a>" * 100_000 + "</a>" * 100_000),
        "attributes": ("", "<a " + " ".join(f'b{n}="c"' for n in range(50_000)) + "/>"),
        "namespaces": ("", "".join(f'<a xmlns:n{n}="u{n}">' for n in range(5_000)) + "</a>" * 5_000),
    }
    may_be_read = ("include", "style", "deep", "attributes", "namespaces", "dtd", "public")
    for label, (prologue, body) in kinds.items():
        for ending, (entries, name) in _DOCUMENTS.items():
            whole = entries()[name].decode().partition("?>")[2] if ending == "docx" else entries()[name].decode()
            text = prologue + whole.replace("The ferry", f"{body} The ferry")
            refused = ending != "epub" and label not in may_be_read
            yield Hostile("XML bombs and references", "text", f"{label}.{ending}", _zip_of(entries(text)), refused)
        page = f"{prologue}<html><body><p>{seeds.SENTENCES}{body}</p></body></html>".encode()
        yield Hostile("XML bombs and references", "text", f"{label}.xhtml", page, refused=False)
    for part in ("META-INF/container.xml", "book/book.opf"):
        book = seeds.epub_entries()
        prologue, body = kinds["laughs"]
        at = book[part].index(b">") + 1
        book[part] = prologue.encode() + book[part][:at] + body.encode() + book[part][at:]
        yield Hostile("XML bombs and references", "text", f"laughs_{Path(part).stem}.epub", _zip_of(book))
    book = seeds.epub_entries()
    book["book/book.opf"] = book["book/book.opf"].replace(b'href="c1.xhtml"', b'href="../../../../../../etc/passwd"')
    yield Hostile("XML bombs and references", "text", "climbing.epub", _zip_of(book))


def pdfs(canary: str, large: bool) -> Made:
    """PDF files with endless trees, streams that unpack a thousandfold, and actions."""
    kind = "PDF bombs and actions"
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 200]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>%s>>>>"
    text = b"BT /F1 12 Tf 20 100 Td (The ferry left the harbour at dawn) Tj ET"
    font = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"

    def stream(data: bytes, about: bytes = b"") -> bytes:
        return b"<<%s/Length %d>>stream\n%s\nendstream" % (about, len(data), data)

    def made(**more: bytes) -> dict[int, bytes]:
        return {
            1: b"<</Type/Catalog/Pages 2 0 R%s>>" % more.get("catalog", b""),
            2: more.get("pages", b"<</Type/Pages/Kids[3 0 R]/Count 1>>"),
            3: page % more.get("resources", b""),
            4: more.get("contents", stream(text)),
            5: font,
        }

    deep = made(pages=b"<</Type/Pages/Kids[10 0 R]/Count 1>>")
    depth = 20_000 if large else 5_000
    for n in range(10, 10 + depth):
        deep[n] = b"<</Type/Pages/Parent %d 0 R/Kids[%d 0 R]/Count 1>>" % (n - 1, n + 1)
    deep[10 + depth] = page % b""
    yield Hostile(kind, "text", "deep.pdf", seeds.pdf(deep), refused=False)
    yield Hostile(kind, "text", "cyclic.pdf", seeds.pdf(made(pages=b"<</Type/Pages/Kids[2 0 R 2 0 R]/Count 9>>")))
    yield Hostile(
        kind, "text", "count.pdf", seeds.pdf(made(pages=b"<</Type/Pages/Kids[3 0 R]/Count 2147483647>>")), False
    )
    many = b"<</Type/Pages/Kids[%s]/Count 100000>>" % (b"3 0 R " * 100_000)
    yield Hostile(kind, "text", "pages.pdf", seeds.pdf(made(pages=many)))
    packer = zlib.compressobj(9)
    size = 500 if large else 50
    bomb = b"".join(packer.compress(b" " * (1 << 20)) for _ in range(size)) + packer.flush()
    yield Hostile(kind, "text", "stream.pdf", seeds.pdf(made(contents=stream(bomb, b"/Filter/FlateDecode"))))
    twice = zlib.compress(bomb, 9)
    again = zlib.compress(twice, 9)
    filters = b"/Filter[/FlateDecode/FlateDecode/FlateDecode]"
    yield Hostile(kind, "text", "filters.pdf", seeds.pdf(made(contents=stream(again, filters))))
    form = made(resources=b"/XObject<</X 6 0 R>>", contents=stream(text + b" /X Do"))
    form[6] = stream(b"/X Do /X Do", b"/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</X 6 0 R>>>>")
    yield Hostile(kind, "text", "form.pdf", seeds.pdf(form), refused=False)
    forms = made(resources=b"/XObject<</X 10 0 R>>", contents=stream(text + b" /X Do"))
    for n in range(10, 40):  # each draws the next one twice: two to the power of thirty
        about = b"/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</X %d 0 R>>>>" % (n + 1)
        forms[n] = stream(b"/X Do /X Do", about)
    forms[40] = stream(b"0 0 m", b"/Type/XObject/Subtype/Form/BBox[0 0 9 9]")
    yield Hostile(kind, "text", "forms.pdf", seeds.pdf(forms), refused=False)
    packed = zlib.compress(b" ".join(b"%d 0" % n for n in range(100, 20_000)) + b" " * (50 << 20), 9)
    objects = made()
    objects[6] = stream(packed, b"/Type/ObjStm/N 2147483647/First 9/Filter/FlateDecode")
    yield Hostile(kind, "text", "objects.pdf", seeds.pdf(objects), refused=False)
    url = canary.encode()
    actions = {
        "script": b"<</S/JavaScript/JS(app.launchURL\\('%s/js'\\);)>>" % url,
        "launch": b"<</S/Launch/F(/bin/touch)/P(%s)>>" % OUTSIDE.encode(),
        "address": b"<</S/URI/URI(%s/uri)>>" % url,
        "form_sent": b"<</S/SubmitForm/F(%s/submit)>>" % url,
        "data": b"<</S/ImportData/F(/etc/passwd)>>",
        "remote": b"<</S/GoToR/F(%s/other.pdf)/D[0/Fit]>>" % url,
    }
    for label, action in actions.items():
        for where in (b"/OpenAction%s", b"/AA<</WC%s>>", b"/Names<</JavaScript<</Names[(a)%s]>>>>"):
            name = f"{label}_{where[1:5].decode()}.pdf"
            yield Hostile(kind, "text", name, seeds.pdf(made(catalog=where % action)), refused=False)
    external = b"<</F(%s/stream)/FFilter/FlateDecode/Length 0>>stream\n\nendstream" % url
    yield Hostile(kind, "text", "external.pdf", seeds.pdf(made(contents=external)))
    whole = seeds.pdf(made())
    looping = whole.replace(b"trailer\n<<", b"trailer\n<</Prev %d" % whole.rindex(b"xref\n0"))
    yield Hostile(kind, "text", "tables.pdf", looping, refused=False)
    nested = made(contents=b"[" * 100_000 + b"]" * 100_000)
    yield Hostile(kind, "text", "arrays.pdf", seeds.pdf(nested))
    yield Hostile(kind, "text", "box.pdf", whole.replace(b"[0 0 300 200]", b"[-9e38 0 9e38 9]"), refused=False)


def rich_texts(large: bool) -> Made:
    """Rich text nested 100,000 deep, with binary parts that never end and linked objects."""
    kind = "rich text"
    depth = 200_000 if large else 20_000
    yield Hostile(kind, "text", "deep.rtf", b"{\\rtf1 " + b"{" * depth + b"text" + b"}" * depth + b"}", refused=False)
    yield Hostile(kind, "text", "open.rtf", b"{\\rtf1 text" + b"{\\b " * depth, refused=False)
    yield Hostile(kind, "text", "bin.rtf", b"{\\rtf1 text {\\pict\\bin2147483647 " + bytes(1000), refused=False)
    yield Hostile(kind, "text", "numbers.rtf", b"{\\rtf1 text \\u" + b"9" * 5_000 + b" \\uc" + b"9" * 300 + b"}", False)
    yield Hostile(kind, "text", "words.rtf", b"{\\rtf1 text \\" + b"a" * 1_000_000 + b"}", refused=False)
    yield Hostile(kind, "text", "escapes.rtf", b"{\\rtf1 text " + b"\\'e4" * depth + b"}", refused=False)
    yield Hostile(kind, "text", "page.rtf", b"{\\rtf1\\ansicpg99999 text}", refused=False)
    linked = b'{\\rtf1 text {\\field{\\*\\fldinst INCLUDEPICTURE "http://127.0.0.1:9/x"}}{\\object\\objautlink}}'
    yield Hostile(kind, "text", "linked.rtf", linked, refused=False)


def web_pages(canary: str, large: bool) -> Made:
    """Pages nested without end, of millions of tags, and pages that refer to servers."""
    kind = "web pages"
    depth = 200_000 if large else 20_000
    open_, close = "<html><body>", "</body></html>"
    pages = {
        "deep": "<div>" * depth + "text" + "</div>" * depth,
        "open": "<div>" * depth + "text",
        "inline": "<b><i><a href=x>" * depth + "text",
        "tables": "<table><tr><td>" * (depth // 10) + "text",
        "brackets": "text" + "<" * depth,
        "comments": "text" + "<!--" * depth,
        "declarations": "text" + "<!doctype" * depth,
        "closed": "<p xmlns=x>text" + "<a " * depth,
        "quotes": "text" + '<a b="' * depth,
        "entities": "text" + "&amp" * depth,
        "numbers": "text" + "&#x" + "f" * depth,
        "scripts": "text" + "<script>" * depth,
        "forms": "<form><p>text" * (depth // 10),
        "lists": "<ul><li>" * (depth // 10) + "text",
        "formats": "<p>" + "<font>" * 5_000 + "text" + "<p>text" * 200,
        "attributes": "<p " + " ".join(f"a{n}=b" for n in range(depth // 4)) + ">text",
    }
    for name, body in pages.items():
        for ending, start in (("html", open_), ("xhtml", f'<?xml version="1.0"?>{open_}')):
            yield Hostile(kind, "text", f"{name}.{ending}", (start + body + close).encode(), refused=False)
    loads = "".join(
        f'<{tag}="{canary}/{number}">'
        for number, tag in enumerate(
            (
                "img src",
                "link rel=stylesheet href",
                "script src",
                "iframe src",
                "object data",
                "embed src",
                "base href",
                "video src",
                "audio src",
                "source src",
                "body background",
                "input type=image src",
                "meta content",
            )
        )
    )
    refresh = f'<meta http-equiv="refresh" content="0;url={canary}/refresh">'
    yield Hostile(
        kind, "text", "loads.html", f"<html><head>{refresh}{loads}</head><body>text</body></html>".encode(), False
    )
    svg = f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{canary}/svg"/></svg>'
    yield Hostile(kind, "image", "drawing.svg", svg.encode())
    yield Hostile(kind, "image", "drawing.png", svg.encode())


def subtitles(large: bool) -> Made:
    """Subtitles with absurd times, without end and out of order."""
    kind = "subtitles"
    count = 500_000 if large else 50_000
    cue = "{0}\n{1} --> {2}\ntext\n\n"
    times = (("99:99:99,999", "00:00:00,000"), ("999:99:99,999", "999:99:99,999"), ("00:00:01,0", "00:00:00,9"))
    texts = {
        "absurd": "".join(cue.format(number, *each) for number, each in enumerate(times)),
        "many": "".join(cue.format(1, "00:00:01,000", "00:00:02,000") for _ in range(count // 10)),
        "arrows": "1\n00:00:01,000 --> 00:00:02,000\n" + "-->" * count,
        "spaces": "1\n00:00:01,000 --> 00:00:02,000\ntext\n" + " " * count + "x",
        "digits": "1\n00:00:01,000 --> 00:00:02,000\ntext\n" + "9" * count,
        "styles": "1\n00:00:01,000 --> 00:00:02,000\n" + "<i" * count + "{\\" * count,
        "blank": "1\n00:00:01,000 --> 00:00:02,000\ntext" + "\n" * count,
    }
    for name, text in texts.items():
        yield Hostile(kind, "text", f"{name}.srt", text.encode(), refused=False)
        yield Hostile(kind, "text", f"{name}.vtt", b"WEBVTT\n\n" + text.replace(",", ".").encode(), refused=False)


def odd_texts(large: bool) -> Made:
    """One line of 100 MB, bytes of no encoding, halves of characters, marks upon marks."""
    kind = "odd texts"
    size = 100 << 20 if large else 4 << 20
    yield Hostile(kind, "text", "line.txt", b"a" * size, refused=False)
    yield Hostile(kind, "text", "words.txt", b"word " * (size // 5), refused=False)
    yield Hostile(kind, "text", "too_long.txt", b"a" * ((100 << 20) + 1))
    yield Hostile(kind, "text", "foreign.txt", "Ж".encode("koi8-r") * (size // 8), refused=False)
    yield Hostile(kind, "text", "invalid.txt", b"text \xff\xfe\xfd\x80 text " * 10_000, refused=False)
    yield Hostile(kind, "text", "surrogates.txt", b"text \xed\xa0\x80\xed\xb0\x80 " * 10_000, refused=False)
    yield Hostile(kind, "text", "overlong.txt", b"text \xc0\xaf\xe0\x80\xaf\xf0\x80\x80\xaf " * 10_000, refused=False)
    yield Hostile(kind, "text", "half.txt", b"\xff\xfe" + b"\0\xd8" * 50_000, refused=False)
    yield Hostile(kind, "text", "utf7.txt", b"+ADw-script+AD4- " * 10_000, refused=False)
    yield Hostile(kind, "text", "zeros.txt", bytes(1 << 20))
    yield Hostile(kind, "text", "random.txt", random.Random(1).randbytes(1 << 20))
    yield Hostile(kind, "text", "marks.txt", ("a" + "\u0301" * 500_000).encode(), refused=False)
    yield Hostile(kind, "text", "ligature.txt", ("\ufdfa" * 300_000).encode(), refused=False)  # 18 characters each
    yield Hostile(kind, "text", "ligatures.txt", ("\ufdfa" * 2_000_000).encode())
    yield Hostile(kind, "text", "directions.txt", ("text \u202e\u2066\u200b\ufeff" * 50_000).encode(), refused=False)
    yield Hostile(kind, "text", "spaces.txt", b"text" + b" " * 4_000_000, refused=False)
    yield Hostile(kind, "text", "lines.txt", b"text" + b"\n" * 4_000_000, refused=False)
    yield Hostile(kind, "text", "escapes.txt", b"text \x1b[31m\x07\x1b]0;x\x07 " * 10_000, refused=False)
    yield Hostile(kind, "text", "formula.csv", b'=cmd|"/c calc"!A1,text\n' * 1000, refused=False)


# -------------------- what refers to something elsewhere


def _playlists(canary: str) -> dict[str, bytes]:
    entry = f"{canary}/segment.ts"
    xml = '<?xml version="1.0"?>'
    mpd = f'{xml}<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT10S"><Period>'
    mpd += f'<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{entry}</BaseURL>'
    mpd += '<SegmentBase indexRange="0-9"/></Representation></AdaptationSet></Period></MPD>'
    media = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXT-X-MEDIA-SEQUENCE:0\n"
    return {
        "m3u8": f"{media}#EXTINF:10.0,\n{entry}\n#EXT-X-ENDLIST\n".encode(),
        "file.m3u8": f"{media}#EXTINF:10.0,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n".encode(),
        "concat.m3u8": f"{media}#EXTINF:10.0,\nconcat:{entry}|file:///etc/passwd\n#EXT-X-ENDLIST\n".encode(),
        "key.m3u8": f'{media}#EXT-X-KEY:METHOD=AES-128,URI="{canary}/key"\n#EXTINF:1,\n{entry}\n'.encode(),
        "map.m3u8": f'{media}#EXT-X-MAP:URI="{canary}/map"\n#EXTINF:1,\n{entry}\n#EXT-X-ENDLIST\n'.encode(),
        "master.m3u8": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{canary}/variant.m3u8\n".encode(),
        "ffconcat": f"ffconcat version 1.0\nfile {entry}\n".encode(),
        "local.ffconcat": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "mpd": mpd.encode(),
        "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n"
        b"a=rtpmap:96 H264/90000\n",
        "xspf": f'{xml}<playlist version="1" xmlns="http://xspf.org/ns/0/"><trackList><track><location>{entry}</location>'
        "</track></trackList></playlist>".encode(),
        "asx": f'<asx version="3.0"><entry><ref href="{entry}"/></entry></asx>'.encode(),
        "pls": f"[playlist]\nFile1={entry}\nNumberOfEntries=1\nVersion=2\n".encode(),
        "smil": f'<smil><body><video src="{entry}"/></body></smil>'.encode(),
        "ram": f"{entry}\n".encode(),
        "f4m": f'{xml}<manifest xmlns="http://ns.adobe.com/f4m/1.0"><media url="{entry}"/></manifest>'.encode(),
        "ism": f'{xml}<SmoothStreamingMedia><StreamIndex Url="{entry}"/></SmoothStreamingMedia>'.encode(),
        "ffmetadata": b";FFMETADATA1\ntitle=x\n",
        "idx": b"# VobSub index file, v7 (do not modify this line!)\nid: en, index: 0\ntimestamp: 00:00:01:000, "
        b"filepos: 0\n",
        "aqt": b"-->> 1\ntext\n",
        "rtsp": f"RTSPtext\n{canary.replace('http', 'rtsp')}/x\n".encode(),
        "reference": f"[Reference]\nRef1={entry}\n".encode(),
        "iff": b"FORM\0\0\0\x20ILBMBMHD\0\0\0\x14" + bytes(20),
    }


PLAYLIST_TYPES = ("audio", "video", "image")
_ENDINGS = {
    "audio": ["mp3", "wav", "flac", "ogg", "m4a", "aac", "opus", "wma", "aiff", "amr"],
    "video": ["mp4", "mkv", "webm", "mov", "avi", "ts", "mpg", "flv", "wmv", "m4v", "3gp"],
    "image": ["jpg", "png", "gif", "webp", "heic"],
}


def playlists(canary: str) -> Made:
    """Playlists and manifests that lead to a server or a file, under every ending that we take."""
    lists = _playlists(canary)
    kind = "playlists that point inwards"
    for type_ in PLAYLIST_TYPES:
        for name, data in lists.items():
            yield Hostile(kind, type_, f"{type_}_{name}.{name.rpartition('.')[2]}", data)
        for ending in _ENDINGS[type_]:
            yield Hostile(kind, type_, f"hls.{ending}", lists["m3u8"])
            yield Hostile(kind, type_, f"concat.{ending}", lists["ffconcat"])
            yield Hostile(kind, type_, f"dash.{ending}", lists["mpd"])
    for name, data in lists.items():
        tagged = b"ID3\x04\0\0\0\0\0\x0aTIT2\0\0\0\0\0\0" + data
        yield Hostile(kind, "audio", f"tagged_{name}.mp3", tagged)


def _rewritten(data: bytes, path: tuple[bytes, ...], new: bytes) -> bytes:
    """The MP4 file with the box at `path` replaced, and the sizes of those around it made right."""
    out, at = b"", 0
    while at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        body = data[at + 8 : at + size]
        if kind == path[0]:
            out += new if len(path) == 1 else _box(kind, _rewritten(body, path[1:], new))
        else:
            out += data[at : at + size]
        at += max(size, 8)
    return out


def _gab2(playlist: bytes) -> bytes:
    """An AVI whose subtitles are a file of their own: a playlist."""
    stream = struct.pack("<4s4sIHHIIIIIIII4H", b"txts", b"DXSB", 0, 0, 0, 0, 1, 25, 0, 1, 0, 0, 0, 0, 0, 0, 0)
    strl = b"strh" + struct.pack("<I", len(stream)) + stream + b"strf\0\0\0\0"
    listed = b"LIST" + struct.pack("<I", 4 + len(strl)) + b"strl" + strl
    avih = b"avih" + struct.pack("<I14I", 56, 40_000, 0, 0, 0, 1, 0, 1, 0, 32, 32, 0, 0, 0, 0)
    hdrl = b"LIST" + struct.pack("<I", 4 + len(avih) + len(listed)) + b"hdrl" + avih + listed
    packet = b"GAB2\0\2\0" + struct.pack("<I", 0) + struct.pack("<HI", 4, len(playlist)) + playlist
    packet += bytes(len(packet) % 2)
    movi = b"00tx" + struct.pack("<I", len(packet)) + packet
    body = b"AVI " + hdrl + b"LIST" + struct.pack("<I", 4 + len(movi)) + b"movi" + movi
    return b"RIFF" + struct.pack("<I", len(body)) + body


def references(canary: str) -> Made:
    """Sounds and videos that name other files inside: data references, linked segments, attachments, covers."""
    kind = "references inside media"
    mp4, url = seeds.videos()["h264.mp4"], canary.encode()
    dref = (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref")
    alias = bytes(10) + bytes(130) + struct.pack(">hH", 2, 11) + b"/etc/passwd\0" + struct.pack(">hH", -1, 0)
    for name, entry in {
        "url": _box(b"url ", bytes(4) + url + b"/dref\0"),
        "file": _box(b"url ", bytes(4) + b"file:///etc/passwd\0"),
        "urn": _box(b"urn ", bytes(4) + b"x\0" + url + b"/urn\0"),
        "alias": _box(b"alis", bytes(4) + alias),
    }.items():
        box = _box(b"dref", struct.pack(">II", 0, 1) + entry)
        data = _rewritten(mp4, dref, box)
        for ending in ("mp4", "mov"):
            yield Hostile(kind, "video", f"dref_{name}.{ending}", data, refused=False)
        m4a = _rewritten(seeds.sounds()["aac.m4a"], dref, box)
        yield Hostile(kind, "audio", f"dref_{name}.m4a", m4a, refused=False)
    for scheme in (url + b"/movie", b"file:///etc/passwd", b"rtsp://127.0.0.1:9/x"):
        rdrf = _box(b"rdrf", bytes(4) + b"url " + struct.pack(">I", len(scheme) + 1) + scheme + b"\0")
        movie = _box(b"ftyp", b"qt  \0\0\2\0") + _box(b"moov", _box(b"rmra", _box(b"rmda", rdrf)))
        yield Hostile(kind, "video", f"movie_{len(scheme)}.mov", movie)
    for name, data in _playlists(canary).items():
        yield Hostile(kind, "video", f"subtitles_{name}.avi", _gab2(data))
        file = _element(0x466E, name.encode()) + _element(0x4660, b"x/y") + _element(0x465C, data)
        attachment = _element(0x61A7, file + _element(0x46AE, b"\1"))
        mkv = seeds.videos()["h264.mkv"]
        yield Hostile(kind, "video", f"attached_{name}.mkv", mkv + _element(0x1941A469, attachment), refused=False)
        for place, media in (("mp3", seeds.sounds()["plain.mp3"]), ("ts", seeds.videos()["h264.ts"])):
            type_ = "audio" if place == "mp3" else "video"
            yield Hostile(kind, type_, f"before_{name}.{place}", data + b"\n" + media, refused=False)
            yield Hostile(kind, type_, f"behind_{name}.{place}", media + data, refused=False)


def _element(ident: int, body: bytes) -> bytes:
    """An EBML element."""
    return ident.to_bytes((ident.bit_length() + 7) // 8, "big") + (1 << 56 | len(body)).to_bytes(8, "big") + body


# -------------------- the wrong thing in the wrong place


def polyglots() -> Made:
    """Files that are two things at once, registered as each content type."""
    pictures, sounds, videos, texts = seeds.pictures(), seeds.sounds(), seeds.videos(), seeds.texts()
    archive = seeds.archives()["stored.zip"]
    made = {
        "gif_zip": pictures["animated.gif"] + archive,
        "png_pdf": pictures["rgb.png"] + texts["page.pdf"],
        "pdf_zip": texts["page.pdf"] + archive,
        "jpg_html": pictures["plain.jpg"][:20] + b"<html><script>alert(1)</script>" + pictures["plain.jpg"][20:],
        "gif_js": b"GIF89a/*" + bytes(100) + b"*/=1;alert(1)//",
        "mp3_pdf": sounds["plain.mp3"] + texts["page.pdf"],
        "pdf_mp3": texts["page.pdf"] + sounds["plain.mp3"] * 3,
        "mp4_html": _box(b"ftyp", b"isom\0\0\2\0") + _box(b"free", texts["page.html"]) + videos["h264.mp4"],
        "zip_docx": seeds.packed({**seeds.docx_entries(), **seeds.odt_entries(), **seeds.epub_entries()}),
        "wav_jpg": sounds["plain.wav"] + pictures["plain.jpg"],
        "bmp_text": b"BM" + texts["plain.txt"],
        "html_png": texts["page.html"] + pictures["rgb.png"],
        "rtf_zip": texts["rich.rtf"] + archive,
        "tif_pdf": pictures["raw.tif"] + texts["page.pdf"],
        "heic_mp4": pictures.get("rgb.heic", b"") + videos["h264.mp4"],
        "webp_wav": pictures["lossy.webp"] + sounds["plain.wav"],
    }
    for name, data in made.items():
        for type_ in ("image", "audio", "video", "text"):
            yield Hostile("polyglots", type_, f"{name}_as_{type_}.bin", data, refused=False)


def mislabelled() -> Made:
    """Each real file registered as each other content type."""
    media = {"image": seeds.pictures(), "audio": seeds.sounds(), "video": seeds.videos(), "text": seeds.texts()}
    for true, files in media.items():
        for name, data in files.items():
            for said in media:
                if said != true:
                    stem = name.replace(".", "_")
                    # An animation is a video, too, and a video's soundtrack a sound.
                    is_text = name.endswith((".ppm", ".pbm"))
                    refused = {true, said} == {"audio", "text"} or ({true, said} == {"image", "text"} and not is_text)
                    yield Hostile("mislabelled", said, f"{stem}_as_{said}.{said[:3]}", data, refused)


def damaged(large: bool) -> Made:
    """Real files cut off at many lengths, and with bits turned over."""
    chance = random.Random(7)
    for type_, name, data in _real_files(large):
        places = [0, 1, 4, 12, 100] + [int(len(data) * share / 8) for share in range(1, 8)] + [len(data) - 1]
        for place in places if large or len(data) < 10_000 else places[::4]:
            yield Hostile("cut off", type_, f"cut_{place}_{name}", data[:place], refused=place == 0)
        for number in range(6 if large else 2):
            broken = bytearray(data)
            for _ in range(4**number):
                broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
            yield Hostile("bits turned over", type_, f"flip_{number}_{name}", bytes(broken), refused=False)


def _real_files(large: bool) -> Iterator[tuple[str, str, bytes]]:
    if not large:
        for type_, made in (("image", seeds.pictures()), ("audio", seeds.sounds()), ("text", seeds.texts())):
            for name, data in [*made.items()][:: 4 if type_ == "image" else 5]:
                yield type_, name, data
        return
    for type_, paths in (
        ("image", [*iscc_samples.images(), *_pictures()]),
        ("audio", iscc_samples.audios()),
        ("text", iscc_samples.texts()),
        ("video", iscc_samples.videos()),
    ):
        for path in paths:
            data = path.read_bytes()
            if len(data) < 3 << 20:
                yield type_, path.name, data


def _pictures() -> list[Path]:
    folder = Path(skimage.__file__).parent / "data"
    return [path for path in sorted(folder.iterdir()) if path.suffix in (".png", ".jpg", ".gif", ".tif")][:20]


# -------------------- archives


def archives(*, large: bool = True) -> dict[str, bytes]:
    """Name -> an archive whose members lead out of it, are links, or are more than anybody wants."""
    names = ("../../x.txt", "../" * 30 + OUTSIDE[1:], OUTSIDE, "..\\..\\x.txt", "C:\\x.txt", "a/../../x.txt", "./a.txt")
    names += ("a\0b.txt", "a" * 5000 + ".txt", "//x/y.txt", "con.txt", ".hidden.txt", "a\nb.txt", "é\u202ex.txt")
    text = seeds.SENTENCES.encode()
    found = {"names.zip": _zip_of(dict.fromkeys(names, text), zipfile.ZIP_STORED)}
    link = zipfile.ZipInfo("link.txt")
    link.external_attr = 0o120777 << 16
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("a.txt", text)
    found["links.zip"] = file.getvalue()

    def tar(*members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> bytes:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
            for info, content in members:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return file.getvalue()

    def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        return info

    safe = [(member(name.replace("\0", "")), text) for name in names]
    found["names.tar"] = tar(*safe)
    found["names.tar.gz"] = tar(*safe, mode="w:gz")
    kinds = {"symbolic": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "device": tarfile.CHRTYPE, "pipe": tarfile.FIFOTYPE}
    links = [(member(f"{name}.txt", kind, "/etc/passwd"), b"") for name, kind in kinds.items()]
    folder = [(member("out", tarfile.SYMTYPE, "/tmp"), b""), (member("out/fingerprint-hostile-outside"), text)]
    found["links.tar"] = tar(*links, *folder, (member("a.txt"), text))
    if large:
        found["bomb.tar.gz"] = zlib_gzip(200 << 20)
        found["bomb.zip"] = _zip_of({f"{n}.txt": b"a" * (32 << 20) for n in range(40)})
        found["members.zip"] = _many_members({"a.txt": text}, 300_000)
    found["overlap.zip"] = _overlapping({"a.txt": text, "b.txt": text}, "b.txt")
    found["inner.zip"] = _zip_of({"inner.zip": _zip_of({"a.txt": text}), "a.tar.gz": found["names.tar.gz"]})
    found["empty.zip"] = b"PK\5\6" + bytes(18)
    found["cut.zip"] = found["names.zip"][:-30]
    found["cut.tar"] = found["names.tar"][:700]
    found["nameless.zip"] = found["links.zip"].replace(b"\x05\0\0\0", b"\0\0\0\0")
    return found


def zlib_gzip(size: int) -> bytes:
    """So many zero bytes in gzip."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()


def main() -> None:
    """Write all inputs into the folder named, a folder for each class."""
    if len(sys.argv) != 2:
        sys.exit("usage: hostile_inputs.py FOLDER")
    root = Path(sys.argv[1])
    count = 0
    for hostile in every():
        path = root / hostile.kind.replace(" ", "_") / hostile.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(hostile.data)
        count += 1
    sys.stdout.write(f"{count} files in {root}\n")


if __name__ == "__main__":
    main()
