"""Any sound file, or the soundtrack of a video, as mono PCM at 11,025 Hz; and what kind of file it is, by its magic.

FFmpeg (through PyAV) reads the containers and codecs. It is given an open file without a name and no protocol, so
that a playlist or a reference inside the bytes cannot make it open anything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from fingerprint_dagster.content import Value
from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.media.audio.chromaprint import SAMPLE_RATE

if TYPE_CHECKING:
    import av
    from av.audio.frame import AudioFrame
    from av.container import InputContainer

MAX_SECONDS = 12 * 3600  # 0.95 GB of samples
MAX_CHANNELS = 64
MAX_SOURCE_RATE = 768_000  # Hz
MIN_PARTIAL_SECONDS = 3.0  # of a damaged file: less is not worth keeping

_READ_BYTES = 1 << 18
_RESAMPLED_FRAME = 65536  # samples; small frames cost more than the resampling itself (0.35 s against 0.22 s in 3 min)
_DAMAGED_SHARE = 0.01  # of packets: above it the result is called partial. A stray tag among the packets is common
_MISSING_SECONDS = 2.0  # an end missing by more than this and by more than 2 % is a truncated file
_MISSING_SHARE = 0.02
# Containers that state how long they are. For others (AAC, AC-3, AMR streams) FFmpeg guesses it from the bit rate.
_STATES_DURATION = frozenset(
    {"mov,mp4,m4a,3gp,3g2,mj2", "mp3", "wav", "w64", "flac", "aiff", "wv", "ape", "tta", "caf"}
)


class _Nameless:
    """An open file without its name, from which FFmpeg would guess a format and resolve references."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def decode_audio(path: Path) -> Value:
    """The sound in a file: arrays {"pcm": int16 [n]}, mono (the mean of the channels) at 11,025 Hz.

    info: duration (seconds of pcm), and of the source codec, sample_rate (Hz) and channels; partial is there, and
    True, where the file is damaged and only a part of it could be decoded.
    Memory is bounded by the result and one packet.
    Raises ContentError for what is empty, has no sound, cannot be decoded, or is longer than MAX_SECONDS.
    """
    import av

    if path.stat().st_size == 0:
        raise ContentError("the file is empty")
    with path.open("rb") as file:
        try:
            container = av.open(  # an odd byte in a title is no reason to fail
                _Nameless(file),
                "r",
                container_options={"protocol_whitelist": "none"},
                metadata_errors="replace",
                buffer_size=_READ_BYTES,
            )
        except (av.FFmpegError, ValueError) as error:
            raise ContentError(f"not a sound or video file that FFmpeg can open: {_text(error)}") from error
        with container:
            try:
                return _decode(container)
            except av.FFmpegError as error:
                raise ContentError(f"its sound cannot be decoded: {_text(error)}") from error


def _decode(container: InputContainer) -> Value:
    stream = container.streams.best("audio")
    if stream is None:
        raise ContentError("no audio stream in this file: register a silent video as video, a picture as image")
    source: Any = stream.codec_context
    if source is None:
        raise ContentError("its sound is in a codec that FFmpeg has no decoder for")
    _check_source(source.sample_rate, source.channels)

    packets = _Packets(container, stream)
    resampler = _Resampler()
    pcm = bytearray()
    for frame in packets.frames():
        pcm += resampler.resample(frame)
        if len(pcm) > 2 * SAMPLE_RATE * MAX_SECONDS:
            raise ContentError(f"longer than {MAX_SECONDS // 3600} hours: split it and register the parts")
    pcm += resampler.flush()

    samples = np.frombuffer(pcm, np.int16)
    duration = len(samples) / SAMPLE_RATE
    stated = _stated_seconds(container, stream)
    partial = packets.damaged or stated - duration > max(_MISSING_SECONDS, _MISSING_SHARE * stated)
    if len(samples) == 0:
        raise ContentError(f"no sound could be decoded from its {source.name} stream: {packets.reason or 'no samples'}")
    if partial and duration < MIN_PARTIAL_SECONDS:
        of = f" of {stated:.1f} s" if stated else ""
        raise ContentError(f"damaged or truncated: only {duration:.1f} s{of} could be decoded; fetch the file again")
    info = {
        "duration": duration,
        "codec": source.codec.canonical_name,
        "sample_rate": source.sample_rate,
        "channels": source.channels,
    }
    return Value({"pcm": samples}, {**info, "partial": True} if partial else info)


class _Packets:
    """The decoded frames of a stream, over damaged packets; and how much was damaged."""

    def __init__(self, container: InputContainer, stream: Any) -> None:
        self._container, self._stream = container, stream
        self._good = self._bad = 0
        self._cut = False
        self.reason = ""

    @property
    def damaged(self) -> bool:
        return self._cut or self._bad > max(1, _DAMAGED_SHARE * self._good)

    def frames(self) -> Iterator[AudioFrame]:
        for packet in self._demuxed():
            try:
                yield from packet.decode()
            except _ffmpeg_error() as error:
                self._bad += 1
                self.reason = self.reason or _text(error)
            else:
                self._good += 1

    def _demuxed(self) -> Iterator[Any]:
        try:
            yield from self._container.demux(self._stream)
        except _ffmpeg_error() as error:
            self._cut = True
            self.reason = self.reason or _text(error)


class _Resampler:
    """Frames of any format to int16 mono at 11,025 Hz. The format may change from one frame to the next."""

    def __init__(self) -> None:
        self._resampler: av.AudioResampler | None = None

    def resample(self, frame: AudioFrame) -> bytes:
        """The samples that are ready after `frame`, as int16 bytes."""
        frame.pts = None  # positions count samples; a jump in the time stamps must not reach the resampler
        if self._resampler is not None:
            try:
                return _bytes(self._resampler.resample(frame))
            except ValueError:  # another format than the frames before: asking each one costs a tenth of the decoding
                pass
        import av

        _check_source(frame.sample_rate, frame.layout.nb_channels)
        held_back = self.flush()
        self._resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE, frame_size=_RESAMPLED_FRAME)
        return held_back + _bytes(self._resampler.resample(frame))

    def flush(self) -> bytes:
        """The samples still held back."""
        return _bytes(self._resampler.resample(None)) if self._resampler else b""


def _bytes(frames: list[AudioFrame]) -> bytes:
    return b"".join(frame.to_ndarray().tobytes() for frame in frames)


def _check_source(sample_rate: int, channels: int) -> None:
    if not 0 < sample_rate <= MAX_SOURCE_RATE:
        raise ContentError(f"a sample rate of {sample_rate} Hz: between 1 and {MAX_SOURCE_RATE} Hz can be decoded")
    if not 0 < channels <= MAX_CHANNELS:
        raise ContentError(f"{channels} channels: between 1 and {MAX_CHANNELS} can be decoded")


def _stated_seconds(container: InputContainer, stream: Any) -> float:
    """How long the file says its sound is; 0 where it does not say."""
    if container.format.name not in _STATES_DURATION or stream.duration is None:
        return 0.0
    return float(stream.duration * stream.time_base)


def _ffmpeg_error() -> type[Exception]:
    import av

    return av.FFmpegError


def _text(error: Exception) -> str:
    """FFmpeg's own words, without the number and the name of the file."""
    return str(getattr(error, "strerror", None) or error)


_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_VIDEO_STREAM = bytes.fromhex("c0ef19bc4d5bcf11a8fd00805f5c442b")
_W64 = bytes.fromhex("726966662e91cf11a5d628db04c10000")

_PREFIXES = (
    (b"fLaC", "audio/flac"),
    (b"#!AMR", "audio/amr"),
    (b"wvpk", "audio/x-wavpack"),
    (b"MAC ", "audio/x-ape"),
    (b"TTA1", "audio/x-tta"),
    (b"MPCK", "audio/x-musepack"),
    (b"MP+", "audio/x-musepack"),
    (b"caff", "audio/x-caf"),
    (b".snd\0\0\0", "audio/basic"),
    (b"DSD ", "audio/x-dsf"),
    (b"\x7f\xfe\x80\x01", "audio/vnd.dts"),
    (b".ra\xfd", "audio/x-realaudio"),
    (_W64, "audio/x-w64"),
    (b".RMF", "video/x-realmedia"),
    (b"FLV\x01", "video/x-flv"),
    (b"\x00\x00\x01\xba", "video/mpeg"),
)
_RIFF = {b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}
_ISO_BRANDS = {
    b"M4A": "audio/mp4",
    b"M4B": "audio/mp4",
    b"qt ": "video/quicktime",
    b"3gp": "video/3gpp",
    b"3g2": "video/3gpp2",
}
_ISO_PICTURES = (b"avi", b"hei", b"hev", b"mif", b"msf", b"jxl", b"jp2", b"jpx", b"crx")
_MP3_KBPS = {  # by layer (1, 2, 3) for MPEG 1, then for MPEG 2 and 2.5
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def sniff_audio(head: bytes) -> str | None:
    """The media type of a sound file, or of a video container, since its soundtrack counts; None for anything else.

    head: the first 4,096 bytes or fewer.
    """
    for prefix, media_type in _PREFIXES:
        if head.startswith(prefix):
            return media_type
    if head[:3] == b"ID3":
        return _sniff_after_id3(head)
    if head[:4] in (b"RIFF", b"RF64", b"BW64"):
        return _RIFF.get(head[8:12])
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "audio/aiff"
    if head[:4] == b"OggS":
        return "video/ogg" if b"\x80theora" in head else "audio/ogg"
    if head[:16] == _ASF:
        return "video/x-ms-asf" if _ASF_VIDEO_STREAM in head else "audio/x-ms-wma"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return _sniff_matroska(head)
    if head[4:8] == b"ftyp":
        brand = head[8:11]
        return None if brand in _ISO_PICTURES else _ISO_BRANDS.get(brand, "video/mp4")
    if head[4:8] in (b"moov", b"mdat", b"wide"):
        return "video/quicktime"
    if len(head) > 2 * 188 and head[0] == head[188] == head[376] == 0x47:
        return "video/mp2t"
    return _sniff_stream(head)


def _sniff_after_id3(head: bytes) -> str:
    """An ID3 tag stands before MP3, but also before AAC and FLAC: look behind it where `head` reaches that far."""
    size = sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False))
    rest = head[10 + size :]
    if rest.startswith(b"fLaC"):
        return "audio/flac"
    return _sniff_stream(rest) or "audio/mpeg"


def _sniff_matroska(head: bytes) -> str | None:
    if b"webm" in head[:64]:
        kind = "webm"
    elif b"matroska" in head[:64]:
        kind = "x-matroska"
    else:
        return None
    sound_only = b"A_" in head and b"V_" not in head  # the codec ids of its tracks
    return f"{'audio' if sound_only else 'video'}/{kind}"


def _sniff_stream(head: bytes) -> str | None:
    """A bare stream has no magic but a sync word of two bytes: a second frame must begin where the first one ends."""
    if head[:2] == b"\x0b\x77":
        return "audio/ac3" if b"\x0b\x77" in head[64:] else None
    for frame_bytes, media_type in ((_adts_bytes, "audio/aac"), (_mpeg_bytes, "audio/mpeg")):
        length = frame_bytes(head)
        if length and frame_bytes(head[length:]):
            return media_type
    return None


def _adts_bytes(head: bytes) -> int:
    """Length of the AAC frame that begins here, or 0 where none does."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:
        return 0
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length > 7 else 0


def _mpeg_bytes(head: bytes) -> int:
    """Length of the MPEG audio frame (layer I, II, III) that begins here, or 0 where none does."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return 0
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)  # version: 0 is MPEG 2.5, 2 is 2, 3 is 1
    rate, hertz = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or rate in (0, 15) or hertz == 3:
        return 0
    bits = 1000 * _MP3_KBPS[1 if version == 3 else 2, layer][rate - 1]
    sample_rate = (44100, 48000, 32000)[hertz] // {3: 1, 2: 2, 0: 4}[version]
    padding = head[2] >> 1 & 1
    if layer == 1:
        return (12 * bits // sample_rate + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // sample_rate + padding
