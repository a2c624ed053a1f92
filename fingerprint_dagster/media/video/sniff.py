"""What kind of video file or animated picture some bytes begin, by their magic numbers alone."""

from __future__ import annotations

# ISO base media brands that name another content type: audio-only MP4, and pictures in the same box structure.
_AUDIO_BRANDS = (b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B ")
_IMAGE_BRANDS = (b"avif", b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"crx ", b"jxl ")
_BRANDS = {b"avis": "image/avif", b"qt  ": "video/quicktime", b"M4V ": "video/x-m4v", b"f4v ": "video/x-f4v"}
_QUICKTIME_BOXES = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_WEBP_ANIMATION = 0x02  # in the flags of the VP8X chunk
# The stream types of ASF's stream properties object.
_ASF_VIDEO = bytes.fromhex("c0ef19bc4d5bcf11a8fd00805f5c442b")
_ASF_AUDIO = bytes.fromhex("409e69f84d5bcf11a8fd00805f5c442b")
# The first bytes of the first packet of each video codec found in Ogg: Theora, OGM, VP8, Dirac.
_OGG_VIDEO = (b"\x80theora", b"\x01video\0\0\0", b"OVP80", b"BBCD\0")
_PREFIXES = (
    (b"FLV\x01", "video/x-flv"),
    (b".RMF", "application/vnd.rn-realmedia"),
    (b"FWS", "application/x-shockwave-flash"),
    (b"CWS", "application/x-shockwave-flash"),
    (b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01\x02", "application/mxf"),
    (b"DKIF\0\0 \0", "video/x-ivf"),
    (b"YUV4MPEG2 ", "video/x-yuv4mpeg2"),
    (b"\0\0\x01\xba", "video/mpeg"),  # program stream
    (b"\0\0\x01\xb3", "video/mpeg"),  # MPEG-1 and MPEG-2 elementary stream
    (b"\0\0\x01\xb0", "video/mpeg"),  # MPEG-4 part 2 elementary stream
    (b"\0\0\0\x01\x67", "video/h264"),
    (b"\0\0\0\x01\x09", "video/h264"),
    (b"\0\0\0\x01\x40\x01", "video/h265"),
)


def sniff(head: bytes) -> str | None:
    """The media type of the video file that begins with `head` (up to 4,096 bytes), or None if it is not one.

    Files of other types get None: still pictures, text, and audio-only formats. A container that can hold either (MP4,
    Matroska) counts as video: only its index, anywhere in the file, tells what is inside. Animated pictures (GIF, WebP,
    PNG, AVIF) are pictures to those who ask for the first content type that knows the bytes; as videos they can be
    registered by name.
    """
    if head[4:8] == b"ftyp":
        return _of_brand(head[8:12])
    if head[4:8] in _QUICKTIME_BOXES and head[:2] == b"\0\0":
        return "video/quicktime"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        if b"webm" in head[:64]:
            return "video/webm"
        return "video/x-matroska" if b"matroska" in head[:64] else None
    if head.startswith(b"RIFF"):
        if head[8:16] == b"WEBPVP8X":
            return "image/webp" if len(head) > 20 and head[20] & _WEBP_ANIMATION else None
        return "video/x-msvideo" if head[8:11] == b"AVI" else None
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png" if _is_animated_png(head) else None
    if head.startswith(b"GIF8"):
        return "image/gif" if _is_animated_gif(head) else None
    if head.startswith(b"OggS"):
        return "video/ogg" if any(mark in head for mark in _OGG_VIDEO) else None
    if head.startswith(_ASF):
        return None if _ASF_AUDIO in head and _ASF_VIDEO not in head else "video/x-ms-asf"
    if _is_transport_stream(head):
        return "video/mp2t"
    return next((media_type for prefix, media_type in _PREFIXES if head.startswith(prefix)), None)


def _of_brand(brand: bytes) -> str | None:
    if brand in _AUDIO_BRANDS or brand in _IMAGE_BRANDS:
        return None
    if brand.startswith(b"3g2"):
        return "video/3gpp2"
    if brand.startswith(b"3gp"):
        return "video/3gpp"
    return _BRANDS.get(brand, "video/mp4")


def _is_animated_png(head: bytes) -> bool:
    """Whether an animation control chunk comes before the picture's data (PNG third edition, 11.3.3.1)."""
    at = 8
    while at + 8 <= len(head) and head[at + 4 : at + 8] != b"IDAT":
        if head[at + 4 : at + 8] == b"acTL":
            return True
        at += 12 + int.from_bytes(head[at : at + 4], "big")
    return False


def _is_animated_gif(head: bytes) -> bool:
    """Whether it says how often to repeat, waits after its first picture, or begins a second one (GIF89a, 17 to 26)."""
    if len(head) < 13:
        return False
    at = 13 + _colour_table(head[10])
    pictures = 0
    while at < len(head):
        if head[at] == 0x2C:  # a picture
            pictures += 1
            if pictures == 2:
                return True
            at += 10 + (_colour_table(head[at + 9]) if at + 9 < len(head) else 0) + 1
        elif head[at] == 0x21:  # an extension
            if head[at + 1 : at + 14] in (b"\xff\x0bNETSCAPE2.0", b"\xff\x0bANIMEXTS1.0"):
                return True
            if head[at + 1 : at + 3] == b"\xf9\x04" and head[at + 4 : at + 6].strip(b"\0"):
                return True
            at += 2
        else:
            return False
        while at < len(head) and head[at]:  # its blocks, up to an empty one
            at += 1 + head[at]
        at += 1
    return False


def _colour_table(flags: int) -> int:
    """The bytes of the colour table that the flags of a GIF's screen or picture announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _is_transport_stream(head: bytes) -> bool:
    """Whether a sync byte stands at three packet starts: packets of 188 bytes, or of 192 with a 4-byte time before."""
    return any(
        len(head) > first + 2 * size and all(head[first + k * size] == 0x47 for k in range(3))
        for first, size in ((0, 188), (4, 192))
    )
