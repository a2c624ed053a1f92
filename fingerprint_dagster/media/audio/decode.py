"""Any sound file, or the soundtrack of a video, as mono PCM at 11,025 Hz; and what kind of file it is, by its magic.

FFmpeg (through PyAV) reads the containers and codecs. It is given an open file without a name and no protocol, so
that a playlist or a reference inside the bytes cannot make it open anything else.
"""

from __future__ import annotations

import errno
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
MIN_SOURCE_RATE, MAX_SOURCE_RATE = 1000, 768_000  # Hz; a file that claims 1 Hz would grow ten thousand times
MIN_PARTIAL_SECONDS = 3.0  # of a damaged file: less is not worth keeping

_READ_BYTES = 1 << 18
_BLOCK = 1 << 16  # samples of the source that are resampled at once: a quarter of a MB a channel, for the cache
_TO_MONO = "out_chlayout=mono:out_sample_fmt=fltp:rematrix_maxval=1"  # weights that sum to 1: never louder than 1
# The filter of fpcalc: 16 taps (times the ratio), 2**8 phases. Its low cut-off spares half of the default's work.
_TO_RATE = f"{SAMPLE_RATE}:internal_sample_fmt=fltp:filter_size=16:phase_shift=8:cutoff=0.8"
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
        self._read, self.tell, self._seek = file.read, file.tell, file.seek

    def read(self, size: int) -> bytes:
        """At most a quarter of a MB: damaged bytes name gigabytes, and Python makes room for all it is asked for."""
        return self._read(min(size, _READ_BYTES))

    def seek(self, offset: int, whence: int = 0) -> int:
        """Where it now stands; a negative number for a place that damaged bytes name and no file has."""
        try:
            return self._seek(offset, whence)
        except (OSError, ValueError):
            return -errno.EINVAL


def decode_audio(path: Path) -> Value:
    """The sound in a file: arrays {"pcm": int16 [n]}, mono at 11,025 Hz, in the band below 4.4 kHz.

    Channels are mixed and resampled by FFmpeg just as fpcalc has it done, so that Chromaprints agree to the bit.
    info: duration (seconds of pcm), and of the source codec, sample_rate (Hz) and channels; partial is there, and is
    True, where the file is damaged and only a part of it could be decoded.
    Memory is bounded by the result and a few seconds of source.
    Raises ContentError for what is empty, has no sound, cannot be decoded, or is longer than MAX_SECONDS.
    """
    value = decode_soundtrack(path)
    if value is None:
        raise ContentError("no audio stream in this file: register a silent video as video, a picture as image")
    return value


def decode_soundtrack(path: Path) -> Value | None:
    """As `decode_audio`; None for a file that FFmpeg can open but that has no audio stream, such as a silent video."""
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
            stream = container.streams.best("audio")
            if stream is None:
                return None
            try:
                return _decode(container, stream)
            except av.FFmpegError as error:
                raise ContentError(f"its sound cannot be decoded: {_text(error)}") from error


def _decode(container: InputContainer, stream: Any) -> Value:
    source: Any = stream.codec_context
    if source is None:
        raise ContentError("its sound is in a codec that FFmpeg has no decoder for")
    sample_rate, channels = source.sample_rate, source.channels  # as it begins: they may change on the way
    _check_source(sample_rate, channels)

    packets = _Packets(container, stream)
    resampler = _Resampler()
    for frame in packets.frames():
        resampler.write(frame)
        if len(resampler.pcm) > 2 * SAMPLE_RATE * MAX_SECONDS:
            raise ContentError(f"longer than {MAX_SECONDS // 3600} hours: split it and register the parts")
    resampler.flush()

    samples = np.frombuffer(resampler.pcm, np.int16)
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
        "sample_rate": sample_rate,
        "channels": channels,
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
            yield from demuxed(self._container, self._stream)
        except _ffmpeg_error() as error:
            self._cut = True
            self.reason = self.reason or _text(error)


def demuxed(container: InputContainer, stream: Any) -> Iterator[Any]:
    """The packets of a stream. Raises av.FFmpegError."""
    while True:
        try:
            yield from container.demux(stream)
            return
        except IndexError:  # PyAV met a packet of a stream that turned up later than the file's beginning: read on
            continue


class _Resampler:
    """Frames of any format to int16 mono at 11,025 Hz, in `pcm`. The format may change from one frame to the next.

    Frames are gathered into large blocks: for small ones FFmpeg's filters and the calls cost more than resampling.
    """

    def __init__(self) -> None:
        self.pcm = bytearray()
        self._layout: av.AudioLayout | None = None
        self._fifo: Any = None
        self._graph: Any = None

    def write(self, frame: AudioFrame) -> None:
        """Take the samples of `frame`; most of them reach `pcm` later."""
        frame.pts = None  # positions count samples: jumps in the time stamps are of no interest
        if frame.layout != self._layout:  # which the queue does not look at
            self._begin(frame)
        try:
            self._fifo.write(frame)
        except ValueError:  # another sample format or rate than before
            self._begin(frame)
            self._fifo.write(frame)
        if self._fifo.samples >= _BLOCK:
            self._resample(self._fifo.read())

    def flush(self) -> None:
        """Bring what is held back into `pcm`."""
        if self._fifo is not None:
            block = self._fifo.read()
            if block is not None:
                self._resample(block)
            self._resample(None)
            self._fifo = None

    def _begin(self, frame: AudioFrame) -> None:
        import av

        _check_source(frame.sample_rate, frame.layout.nb_channels)
        self.flush()
        self._layout = frame.layout
        self._fifo = av.AudioFifo()
        self._graph = _resampling_graph(frame)

    def _resample(self, block: AudioFrame | None) -> None:
        import av

        self._graph.push(block)
        while True:
            try:
                resampled = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            self.pcm += resampled.to_ndarray().data


def _resampling_graph(frame: AudioFrame) -> Any:
    """FFmpeg filters from the format of `frame` to int16 mono at 11,025 Hz."""
    import av

    try:
        return _graph(frame, "aresample", _TO_MONO)
    except av.FFmpegError:  # it knows no weights for channels at unknown places, if 9, 11, 13 or so: take their mean
        channels = frame.layout.nb_channels
        return _graph(frame, "pan", "mono|c0=" + "+".join(f"{1 / channels}*c{each}" for each in range(channels)))


def _graph(frame: AudioFrame, mixer: str, weights: str) -> Any:
    import av

    graph = av.filter.Graph()
    filters = (
        graph.add_abuffer(sample_rate=frame.sample_rate, format=frame.format.name, layout=frame.layout.name),
        graph.add(mixer, weights),
        graph.add("aresample", _TO_RATE),
        graph.add("aformat", f"sample_fmts=s16:channel_layouts=mono:sample_rates={SAMPLE_RATE}"),
        graph.add("abuffersink"),
    )
    graph.link_nodes(*filters).configure()
    return graph


def _check_source(sample_rate: int, channels: int) -> None:
    if not MIN_SOURCE_RATE <= sample_rate <= MAX_SOURCE_RATE:
        raise ContentError(
            f"a sample rate of {sample_rate} Hz: between {MIN_SOURCE_RATE} and {MAX_SOURCE_RATE} Hz can be decoded"
        )
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
