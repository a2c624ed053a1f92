"""A video file to a few small RGB frames with their exact times, and its soundtrack.

Most of the cost of a video is decoding it, and most of its frames add nothing to a fingerprint. Keyframes stand alone,
so only they are decoded, and the frames between two of them only where those are far apart. Two passes over the file:
the first reads packet headers and decodes nothing (`outline`), the second decodes what the first found worth it. The
pictures that come of it go through `reel`, which keeps the different ones.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Discard, Disposition

from fingerprint_dagster.content import Value
from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.media.video import soundtrack
from fingerprint_dagster.media.video.animation import decode_animation
from fingerprint_dagster.media.video.colour import ToRgb, quarter_turns
from fingerprint_dagster.media.video.outline import (
    FAILURES,
    MAX_FRAMES,
    SLACK,
    Outline,
    Plan,
    packets,
    plan,
    read_outline,
    start_of,
)
from fingerprint_dagster.media.video.reel import FRAME_SIDE, Reel
from fingerprint_dagster.media.video.sniff import sniff

MAX_PIXELS = 1 << 26  # of one frame: 8,192 x 8,192
# Below this many frames a second every frame matters; above it those that no other frame refers to can be left out.
_SLOW = 10.0
# Of frames with more pixels the loop filter, a fifth of the cost of decoding, is left out. It smooths the edges of
# blocks, which vanish in the shrinking; but what is missing adds up from frame to frame, so small ones have it.
_LARGE = 640 * 480

# A file is data. None of these formats is a playlist, manifest or script, and no protocol is allowed: nothing inside a
# file can make the decoder open another one.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,m4v,h263,h264,hevc,av1,obu,ivf,vc1,flv,live_flv,"
    "asf,ogg,swf,rm,mxf,nut,dv,wtv,yuv4mpegpipe,mp3,wav,flac,aac"  # the last four only to say what they are
)
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "none"}


def decode(path: Path) -> Value:
    """Sample a video file, or an animated picture, at about one frame a second.

    Arrays, for n frames in order of time:
        frames: uint8 [n, FRAME_SIDE, FRAME_SIDE, 3], sRGB, upright, the content between black borders squashed to a
            square. So a letterboxed copy has the frames of its original.
        times: float64 [n], seconds from the start of the file, ascending: when the frame is shown. A frame that looks
            like the last one kept is dropped, so frame i stands for all of the video from times[i] to times[i + 1],
            and the last one for all up to `duration`: a picture that stands still for a minute is one frame.
        shots: int32 [n], the number of the shot that the frame belongs to, from 0, ascending.
        borders: float64 [n, 4], the content box that the frame was cut to: left, top, right, bottom as fractions of
            the upright picture; 0, 0, 1, 1 where there are no borders. The same for all frames of a shot.
        flat: bool [n], black or of one colour.
        samples: int16 [m], the soundtrack, mono at 11,025 Hz; absent where there is none (see `soundtrack.soundtrack`).
    The info holds `width` and `height` in pixels, upright; `duration` in seconds; `codec`; `fps`, the mean frame rate;
    `partial`, True where a part of the file could not be read or decoded; `broken_times`, there and True where time
    stamps jumped and were put right; and `soundtrack`: `present`, False with the `reason`, or True with the info of
    audio's decode stage.

    A soundtrack that cannot be decoded does not fail the video. Raises ContentError where it is no video file, has no
    video stream, or not one frame of it can be decoded.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    if (sniff(head) or "").startswith("image/"):
        return decode_animation(path)
    with _video(path) as (container, stream):
        outline = read_outline(container, stream)
    if not outline.packets:
        raise ContentError("the video stream is empty: it holds no frame")
    with _video(path) as (container, stream):
        sampler = _Sampler(stream, outline, plan(outline))
        sampler.run(container)
        if not sampler.reel.sampled:
            raise ContentError("not one frame of the video could be decoded: the file is damaged")
        width, height = stream.width, stream.height
        codec = stream.codec_context.name
    if sampler.quarter_turns % 2:
        width, height = height, width
    samples, sound = soundtrack.read(path)
    is_missing = outline.is_missing(max(outline.end, sound.get("duration", 0.0)))  # sound may be longer than pictures
    info = {
        "width": width,
        "height": height,
        "duration": round(max(outline.end, sampler.last), 6),
        "codec": codec,
        "fps": round(outline.packets / outline.end, 3) if outline.end else 0.0,
        "partial": sampler.damaged or not outline.complete or is_missing,
        "soundtrack": sound,
    }
    return Value({**sampler.reel.arrays(), **samples}, {**info, "broken_times": True} if outline.jumps else info)


class _Sampler:
    """Decodes the packets that a plan asks for and keeps the frames it wants. Holds one decoded frame at a time."""

    def __init__(self, stream: Any, outline: Outline, plan: Plan) -> None:
        self.reel = Reel(min(MAX_FRAMES, int(outline.end / plan.key_step)) + 2)  # every two are a key step apart
        self.last = -np.inf  # time of the last frame sampled
        self.quarter_turns = 0
        self.damaged = False
        self._missing_keys = 0
        self._stream = stream
        self._start = start_of(stream)
        self._outline = outline
        self._plan = plan
        self._to_rgb = ToRgb(FRAME_SIDE)
        self._skip = "NONREF" if outline.packets > _SLOW * outline.end else "DEFAULT"
        context = stream.codec_context
        context.thread_count = 1  # one video per worker process: more threads only add delay and memory
        if outline.pixels > _LARGE:
            context.options = {"skip_loop_filter": "all"}

    def run(self, container: Any) -> None:
        """Fill the reel."""
        context = self._stream.codec_context
        until = self._plan.fill_first
        try:
            for number, time, packet in packets(container, self._stream):
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
        except FAILURES:
            self.damaged = True
        self._decode(None)
        self.damaged = self.damaged or self._missing_keys > 0

    def _decode(self, packet: Any) -> None:
        try:
            for frame in self._stream.codec_context.decode(packet):
                self._take(frame)
        except FAILURES:
            # Theora's header packets are refused before the first frame, and nothing is lost by it.
            self.damaged = self.damaged or self.reel.sampled > 0

    def _take(self, frame: Any) -> None:
        if frame.is_corrupt:
            self.damaged = True
            return
        self._missing_keys -= frame.key_frame
        if frame.pts is None or self.reel.is_full:
            return
        time = max(0.0, float(frame.pts * self._stream.time_base) - self._start)
        if self._wanted(time, frame.key_frame):
            self.quarter_turns = quarter_turns(frame)
            self.reel.add(time, self._to_rgb(frame))
            self.last = time

    def _wanted(self, time: float, is_key: bool) -> bool:
        """A keyframe, at a key step; another frame at a fill step, unless a keyframe of the plan follows at once.

        Keyframes come first because encoders place them where the picture changes, at the same frames in every copy.
        """
        since = time - self.last
        if is_key:
            return bool(since >= self._plan.key_step - SLACK)
        following = bisect_right(self._plan.times, time)
        near = following < len(self._plan.times) and self._plan.times[following] - time < self._plan.key_step
        return bool(since >= self._plan.fill_step - SLACK and not near)


@contextmanager
def _video(path: Path) -> Iterator[tuple[Any, Any]]:
    """The open container and its main video stream."""
    # A file object, not a name: names can be read as addresses.
    with path.open("rb") as file:
        try:
            container = av.open(file, mode="r", container_options=_OPTIONS, metadata_errors="replace")
        except FAILURES as error:
            reason = getattr(error, "strerror", None) or error
            raise ContentError(f"not a readable video file ({reason})") from error
        with container:
            main = _main_stream(container.streams)
            for stream in container.streams:
                if stream.index != main.index:
                    stream.discard = Discard.all
            yield container, main


def _main_stream(streams: Any) -> Any:
    """The video stream with the largest picture. Cover art and thumbnails are not video."""
    still = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
    videos = [stream for stream in streams.video if not stream.disposition & still]
    if not videos and streams.audio:
        raise ContentError("it holds sound and no video: register it as audio")
    if not videos and streams.video:
        raise ContentError("it holds a still picture and no video: register the picture as image")
    if not videos:
        raise ContentError("it holds no video stream")
    known = [stream for stream in videos if stream.codec_context is not None and stream.width and stream.height]
    if not known:
        raise ContentError("its video stream cannot be decoded: the codec is unknown or its header is damaged")
    stream = max(known, key=lambda stream: stream.width * stream.height)
    if stream.width * stream.height > MAX_PIXELS:
        raise ContentError(f"its frames are too large: {stream.width} x {stream.height} pixels")
    return stream
