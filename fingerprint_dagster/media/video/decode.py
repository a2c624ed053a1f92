"""A video file to a few small RGB frames with their exact times.

Most of the cost of a video is decoding it, and most of its frames add nothing to a fingerprint. Keyframes stand alone,
so only they are decoded, and the frames between two of them only where those are far apart. Two passes over the file:
the first reads packet headers and decodes nothing, the second decodes what the first found worth it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from fingerprint_dagster.content import Value
from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.media.audio.decode import demuxed

# Every frame is stored at this one size, whatever the size and shape of the video: PDQ's sampling grid depends on the
# size it is given. Measured on the vPDQ samples: a 240p copy of a 1080p video lies 34 bits away when both are hashed as
# they are (31 is the limit), and 3 bits away when both are first brought to one size. 272 is the smallest of the sizes
# tried whose hashes also stay near those of the full-size frames: 8 to 11 bits on average, 20 at most.
FRAME_SIDE = 272

KEY_STEP = 0.5  # seconds: a keyframe nearer than this to the frame before adds nothing
FILL_STEP = 1.0  # seconds from frame to frame where keyframes are far apart
FAR_APART = 2.5  # in fill steps: a longer way from keyframe to keyframe is filled (many encoders place one every 2 s)
FEW_KEYS = 4  # a video with fewer keyframes is filled everywhere
# 400 MB of frames. A longer video than 15 minutes takes longer steps (1 s at half an hour, 4 s at two hours).
MAX_FRAMES = 1_800
MAX_DURATION = 12 * 3600.0  # seconds: what lies beyond is not looked at
MAX_PIXELS = 1 << 26  # of one frame: 8,192 x 8,192
# Below this many frames a second every frame matters; above it those that no other frame refers to can be left out.
_SLOW = 10.0

# A file is data. None of these formats is a playlist, manifest or script, and no protocol is allowed: nothing inside a
# file can make the decoder open another one.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,m4v,h263,h264,hevc,av1,obu,ivf,vc1,flv,live_flv,"
    "asf,ogg,swf,rm,mxf,gif,nut,dv,wtv,yuv4mpegpipe,mp3,wav,flac,aac"  # the last four only to say what they are
)
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "none"}

# What PyAV raises for a damaged file: FFmpeg's errors, and Python's own from the file object (a seek before its start).
_FAILURES = (av.FFmpegError, OSError, ValueError)
_SLACK = 1e-3  # seconds: time stamps are rounded


@dataclass
class Outline:
    """What the packet headers of a video stream say, in decoding order. Times are seconds from the start of the file.

    keys: number (in decoding order) and time of each keyframe. packets: how many frames there are.
    end: where the last frame ends. complete: False where reading stopped at an error, at MAX_DURATION, or well before
    the length that the header declares.
    """

    keys: list[tuple[int, float]] = field(default_factory=list)
    packets: int = 0
    end: float = 0.0
    complete: bool = True


@dataclass(frozen=True)
class Plan:
    """Which frames to decode.

    keys: the number of each keyframe to decode -> the time until which what follows it is decoded too, -1 for nothing.
    times: the times of these keyframes, ascending. fill_first: until when the frames before the first of them are
    decoded, or -1. key_step, fill_step: seconds from frame to frame.
    """

    keys: dict[int, float]
    times: list[float]
    fill_first: float
    key_step: float
    fill_step: float


def plan(outline: Outline) -> Plan:
    """Keyframes at least a step apart, and the gaps between them that are too long to leave empty."""
    key_step = max(KEY_STEP, outline.end / MAX_FRAMES)
    fill_step = max(FILL_STEP, key_step)
    chosen: list[tuple[int, float]] = []
    for number, time in sorted(outline.keys, key=lambda key: key[1]):
        if not chosen or time - chosen[-1][1] >= key_step - _SLACK:
            chosen.append((number, time))
    times = [time for _, time in chosen]
    far = 0.0 if len(chosen) < FEW_KEYS else FAR_APART * fill_step
    ends = [*times, np.inf]  # of what comes before each keyframe, and after the last one
    # Within a key step of the next keyframe nothing is wanted.
    fills = [end - key_step if min(end, outline.end) - start > far else -1.0 for start, end in pairwise([0.0, *ends])]
    keys = {number: fill for (number, _), fill in zip(chosen, fills[1:], strict=True)}
    return Plan(keys, times, fills[0], key_step, fill_step)


def decode(path: Path) -> Value:
    """Sample a video file at about one frame a second.

    Returns the arrays `frames`, uint8 [n, FRAME_SIDE, FRAME_SIDE, 3], RGB, upright, squashed to a square; and `times`,
    float64 [n], seconds from the start of the file, ascending. The info holds `width` and `height` in pixels, upright;
    `duration` in seconds; `codec`; `fps`, the mean frame rate; and `partial`, True where a part of the file could not
    be read or decoded.

    Raises ContentError where it is no video file, has no video stream, or not one frame of it can be decoded.
    """
    with _video(path) as (container, stream):
        outline = _read_outline(container, stream)
    if not outline.packets:
        raise ContentError("the video stream is empty: it holds no frame")
    with _video(path) as (container, stream):
        sampler = _Sampler(stream, outline, plan(outline))
        sampler.run(container)
        if not sampler.times:
            raise ContentError("not one frame of the video could be decoded: the file is damaged")
        width, height = stream.width, stream.height
        codec = stream.codec_context.name
    if sampler.quarter_turns % 2:
        width, height = height, width
    return Value(
        {"frames": sampler.frames[: len(sampler.times)], "times": np.array(sampler.times)},
        {
            "width": width,
            "height": height,
            "duration": round(max(outline.end, sampler.times[-1]), 6),
            "codec": codec,
            "fps": round(outline.packets / outline.end, 3) if outline.end else 0.0,
            "partial": sampler.damaged or not outline.complete,
        },
    )


class _Sampler:
    """Decodes the packets that a plan asks for and keeps the frames it wants. Holds one decoded frame at a time."""

    def __init__(self, stream: Any, outline: Outline, plan: Plan) -> None:
        self.times: list[float] = []
        # Every two frames are a key step apart; memory that is never written costs nothing.
        room = min(MAX_FRAMES, int(outline.end / plan.key_step)) + 2
        self.frames: NDArray[np.uint8] = np.empty((room, FRAME_SIDE, FRAME_SIDE, 3), np.uint8)
        self.quarter_turns = 0
        self.damaged = False
        self._missing_keys = 0
        self._stream = stream
        self._outline = outline
        self._plan = plan
        self._reformatter = VideoReformatter()
        self._skip = "NONREF" if outline.packets > _SLOW * outline.end else "DEFAULT"
        context = stream.codec_context
        context.thread_count = 1  # one video per worker process: more threads only add delay and memory
        context.options = {"skip_loop_filter": "all"}  # smooths block edges, which vanish at FRAME_SIDE

    def run(self, container: Any) -> None:
        """Fill `times` and `frames`."""
        context = self._stream.codec_context
        until = self._plan.fill_first
        try:
            for number, time, packet in _packets(container, self._stream):
                if number == self._outline.packets:
                    break
                is_planned = number in self._plan.keys
                if is_planned:
                    self._missing_keys += 1
                    until = self._plan.keys[number]
                elif time > until:
                    until = -1.0  # for good, up to the next planned keyframe: what follows may refer to this frame
                    continue
                context.skip_frame = self._skip if until >= 0 else "DEFAULT"
                self._decode(packet)
        except _FAILURES:
            self.damaged = True
        self._decode(None)
        self.damaged = self.damaged or self._missing_keys > 0

    def _decode(self, packet: Any) -> None:
        try:
            for frame in self._stream.codec_context.decode(packet):
                self._take(frame)
        except _FAILURES:
            # Theora's header packets are refused before the first frame, and nothing is lost by it.
            self.damaged = self.damaged or bool(self.times)

    def _take(self, frame: Any) -> None:
        if frame.is_corrupt:
            self.damaged = True
            return
        self._missing_keys -= frame.key_frame
        if frame.pts is None or len(self.times) == len(self.frames):
            return
        time = max(0.0, float(frame.pts * self._stream.time_base) - _start(self._stream))
        if not self._wanted(time, frame.key_frame):
            return
        small = self._reformatter.reformat(frame, FRAME_SIDE, FRAME_SIDE, "rgb24", interpolation="BICUBIC", threads=1)
        self.quarter_turns = round(frame.rotation / 90) % 4
        self.frames[len(self.times)] = np.rot90(small.to_ndarray(), self.quarter_turns)
        self.times.append(time)

    def _wanted(self, time: float, is_key: bool) -> bool:
        """A keyframe, at a key step; another frame at a fill step, unless a keyframe of the plan follows at once.

        Keyframes come first because encoders place them where the picture changes, at the same frames in every copy.
        """
        since = time - self.times[-1] if self.times else np.inf
        if is_key:
            return bool(since >= self._plan.key_step - _SLACK)
        following = bisect_right(self._plan.times, time)
        near = following < len(self._plan.times) and self._plan.times[following] - time < self._plan.key_step
        return bool(since >= self._plan.fill_step - _SLACK and not near)


@contextmanager
def _video(path: Path) -> Iterator[tuple[Any, Any]]:
    """The open container and its main video stream."""
    # A file object, not a name: names can be read as addresses.
    with path.open("rb") as file:
        try:
            container = av.open(file, mode="r", container_options=_OPTIONS, metadata_errors="replace")
        except _FAILURES as error:
            reason = getattr(error, "strerror", None) or error
            raise ContentError(f"not a readable video file ({reason})") from error
        with container:
            yield container, _main_stream(container.streams)


def _main_stream(streams: Any) -> Any:
    """The video stream with the largest picture. Cover art and thumbnails are not video."""
    still = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
    videos = [stream for stream in streams.video if not stream.disposition & still]
    if not videos and streams.audio:
        raise ContentError("it holds sound and no video: register it as audio")
    if not videos:
        raise ContentError("it holds no video stream")
    known = [stream for stream in videos if stream.codec_context is not None and stream.width and stream.height]
    if not known:
        raise ContentError("its video stream cannot be decoded: the codec is unknown or its header is damaged")
    stream = max(known, key=lambda stream: stream.width * stream.height)
    if stream.width * stream.height > MAX_PIXELS:
        raise ContentError(f"its frames are too large: {stream.width} x {stream.height} pixels")
    return stream


def _start(stream: Any) -> float:
    """Where time 0 of the file lies on its own clock, in seconds: where its first stream starts, as players count."""
    if stream.container.start_time is not None:
        return float(stream.container.start_time) / 1e6
    return float((stream.start_time or 0) * stream.time_base)


def _packets(container: Any, stream: Any) -> Iterator[tuple[int, float, Any]]:
    """Number, time in seconds and packet of each frame, in decoding order. Raises _FAILURES where reading fails."""
    start, base, tick = _start(stream), stream.time_base, _tick(stream)
    number = 0
    for packet in demuxed(container, stream):
        if not packet.size:
            continue
        if packet.pts is None and packet.dts is None:  # bare elementary streams carry no clock
            packet.pts = packet.dts = round(number * tick / base)
        stamp = packet.dts if packet.pts is None else packet.pts
        yield number, max(0.0, float(stamp * base) - start), packet
        number += 1


def _tick(stream: Any) -> Fraction:
    """The time from frame to frame that the header declares, in seconds."""
    return 1 / Fraction(stream.average_rate or stream.guessed_rate or 25)


def _read_outline(container: Any, stream: Any) -> Outline:
    outline = Outline()
    base = stream.time_base
    try:
        for number, time, packet in _packets(container, stream):
            if time > MAX_DURATION:
                outline.complete = False
                break
            if packet.is_keyframe:
                outline.keys.append((number, time))
            length = packet.duration * base if packet.duration else _tick(stream)
            outline.end = max(outline.end, time + float(length))
            outline.packets = number + 1
    except _FAILURES:
        outline.complete = False
    declared = float(stream.duration * base) if stream.duration else 0.0
    if outline.end < declared - max(2.0, 0.02 * declared):
        outline.complete = False
    return outline
