"""What the packet headers of a video say, and which of its frames are worth decoding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import numpy as np

from fingerprint_dagster.media.audio.decode import demuxed

KEY_STEP = 0.5  # seconds: a keyframe nearer than this to the one before adds nothing
LARGE_KEY_STEP, LARGE = 0.9, 1_000_000  # of frames with more pixels than that, whose keyframes cost 20 ms each
FILL_STEP = 1.0  # seconds from frame to frame where keyframes are far apart
FAR_APART = 2.5  # in fill steps: a longer way from keyframe to keyframe is filled (many encoders place one every 2 s)
FEW_KEYS = 4  # a video with fewer keyframes is filled everywhere
# 400 MB of frames. A longer video than 27 minutes takes longer steps (2 s at an hour, 6 s at three).
MAX_FRAMES = 1_800
MAX_DURATION = 12 * 3600.0  # seconds: what lies beyond is not looked at

# What filling may cost, in pixels decoded for each second of the video: 1080p then costs 1 s of processor time a
# minute, and what is smaller than about 640 x 480 is filled wholly. A shorter video than a minute has as much as one
# of a minute.
FILL_PIXELS = 5_000_000
MIN_FILL_SECONDS = 60.0
# What a whole video may cost, so that hours of it stay within the time that one content has: pixels of keyframes
# (10 ns each for H.264) and of what is filled (3 ns each).
MAX_KEY_PIXELS = 3_000_000_000
MAX_FILL_PIXELS = 3_000_000_000
# Of the frames between keyframes others refer to this share, which have to be decoded to get at a later one.
_REFERRED_TO = 0.6

JUMP_BACK, JUMP_AHEAD = 1.0, 10.0  # seconds from frame to frame that no clock would go
_DISCONTINUOUS = frozenset({"mpegts", "mpeg"})
_STATES_DURATION = frozenset({"matroska,webm", "flv", "asf"})  # for others FFmpeg guesses it from the bit rate

SLACK = 1e-3  # seconds: time stamps are rounded

# What PyAV raises for a damaged file: FFmpeg's errors, and Python's own from the file object (a seek before its start).
FAILURES = (av.FFmpegError, OSError, ValueError)


@dataclass
class Outline:
    """What the packet headers of a video stream say, in decoding order. Times are seconds from the start of the file.

    keys: number (in decoding order) and time of each keyframe. packets: how many frames there are.
    end: where the last frame ends. pixels: of one frame. jumps: how often time stamps jumped (see `packets`).
    declared: how long the header says that the video is, or all of the file where it does not tell them apart; 0 where
    it says nothing. complete: False where reading stopped at an error or at MAX_DURATION.
    """

    keys: list[tuple[int, float]] = field(default_factory=list)
    packets: int = 0
    end: float = 0.0
    pixels: int = 0
    jumps: int = 0
    declared: float = 0.0
    complete: bool = True

    def is_missing(self, end: float) -> bool:
        """Whether what ends at `end` is clearly shorter than declared."""
        return end < self.declared - max(2.0, 0.02 * self.declared)


@dataclass(frozen=True)
class Plan:
    """Which frames to decode.

    keys: the number of each keyframe to decode -> the time until which what follows it is decoded too, -1 for nothing.
    times: the times of these keyframes, ascending. fill_first: until when the frames before the first of them are
    decoded, or -1. key_step, fill_step: the least seconds from frame to frame.
    """

    keys: dict[int, float]
    times: list[float]
    fill_first: float
    key_step: float
    fill_step: float


def plan(outline: Outline) -> Plan:
    """Keyframes at least a step apart, and the gaps between them that are too long to leave empty.

    A gap is decoded from the keyframe that begins it, since every frame needs those before it. Where filling all gaps
    would cost too much, the end of each stays empty, of the same length in all of them: encoders place a keyframe where
    the picture changes, so that what is left out is mostly the rest of a shot that has been seen.
    """
    most_keys = min(MAX_FRAMES, max(1, MAX_KEY_PIXELS // max(1, outline.pixels)))
    key_step = max(LARGE_KEY_STEP if outline.pixels > LARGE else KEY_STEP, outline.end / most_keys)
    fill_step = max(FILL_STEP, outline.end / MAX_FRAMES)
    chosen: list[tuple[int, float]] = []
    for number, time in sorted(outline.keys, key=lambda key: key[1]):
        if not chosen or time - chosen[-1][1] >= key_step - SLACK:
            chosen.append((number, time))
    times = [time for _, time in chosen]
    far = 0.0 if len(chosen) < FEW_KEYS else FAR_APART * fill_step
    starts, ends = [0.0, *times], [*times, np.inf]
    lengths = [min(end, outline.end) - start for start, end in zip(starts, ends, strict=True)]
    left = _left_empty([length for length in lengths if length > far], outline)
    fills = [
        _fill(*gap, left, key_step, fill_step) if gap[2] > far else -1.0
        for gap in zip(starts, ends, lengths, strict=True)
    ]
    keys = {number: fill for (number, _), fill in zip(chosen, fills[1:], strict=True)}
    return Plan(keys, times, fills[0], key_step, fill_step)


def _fill(start: float, end: float, length: float, left: float, key_step: float, fill_step: float) -> float:
    """Until when to decode a gap of which the last `left` seconds are too expensive; -1 for not at all."""
    if left < key_step:
        return end - key_step  # within a key step of the next keyframe nothing is wanted
    # The frames that a step more than this would need are decoded for nothing; a quarter of it for times that waver.
    steps = (length - left) // fill_step
    return start + (steps + 0.25) * fill_step if steps >= 1 else -1.0


def _left_empty(gaps: list[float], outline: Outline) -> float:
    """The seconds at the end of each gap to leave out, so that the sum of what is not left out can be afforded."""
    if not gaps or not outline.pixels:
        return 0.0
    pixels = min(FILL_PIXELS * max(outline.end, MIN_FILL_SECONDS), MAX_FILL_PIXELS)
    affordable = pixels * outline.end / (outline.pixels * outline.packets * _REFERRED_TO)  # seconds
    longest = np.sort(gaps)[::-1]
    # Leaving out so much of the k longest: too little where k is too small, and where it is too large.
    return max(0.0, float(((longest.cumsum() - affordable) / np.arange(1, len(gaps) + 1)).max()))


def packets(container: Any, stream: Any, jumps: list[float] | None = None) -> Iterator[tuple[int, float, Any]]:
    """Number, time in seconds and packet of each frame, in decoding order. Raises FAILURES where reading fails.

    Time stamps that jump are put right, in the packet too: what follows continues one frame after what came before.
    A jump is more than JUMP_BACK backwards, beyond MAX_DURATION, or, in broadcast formats, whose clock may be set anew
    anywhere, more than JUMP_AHEAD. Elsewhere a long time from frame to frame is what it says.
    jumps: where given, the length of each jump in seconds is added to it.
    """
    origin, base, tick = start_of(stream), stream.time_base, _tick(stream)
    ahead = JUMP_AHEAD if container.format.name in _DISCONTINUOUS else MAX_DURATION
    number, offset = 0, 0
    before: int | None = None
    decoding = False  # whether `before` is a time of decoding
    for packet in demuxed(container, stream):
        if not packet.size:
            continue
        if packet.pts is None and packet.dts is None:  # bare elementary streams carry no clock
            packet.pts = packet.dts = round(number * tick / base)
        stamp = packet.pts if packet.dts is None else packet.dts
        # Matroska states no times of decoding; the first of those that FFmpeg works out follows a later one of showing.
        if decoding != (packet.dts is not None):
            before, decoding = None, not decoding
        if before is not None and not -JUMP_BACK <= (stamp + offset - before) * base <= ahead:
            jump = before + round(tick / base) - stamp - offset
            offset += jump
            if jumps is not None:
                jumps.append(float(jump * base))
        before = stamp + offset
        if offset:
            packet.pts = None if packet.pts is None else packet.pts + offset
            packet.dts = None if packet.dts is None else packet.dts + offset
        shown = packet.dts if packet.pts is None else packet.pts
        yield number, max(0.0, float(shown * base) - origin), packet
        number += 1


def read_outline(container: Any, stream: Any) -> Outline:
    """The outline of an open file; nothing is decoded. Does not raise for damage: `complete` tells of it."""
    outline = Outline(pixels=stream.width * stream.height)
    base = stream.time_base
    jumps: list[float] = []
    try:
        for number, time, packet in packets(container, stream, jumps):
            if time > MAX_DURATION:
                outline.complete = False
                break
            if packet.is_keyframe:
                outline.keys.append((number, time))
            length = packet.duration * base if packet.duration else _tick(stream)
            outline.end = max(outline.end, time + float(length))
            outline.packets = number + 1
    except FAILURES:
        outline.complete = False
    outline.jumps = len(jumps)
    if stream.duration:
        outline.declared = float(stream.duration * base)
    elif container.duration and container.format.name in _STATES_DURATION:
        outline.declared = container.duration / 1e6
    return outline


def start_of(stream: Any) -> float:
    """Where time 0 of the file lies on its own clock, in seconds: where its first stream starts, as players count."""
    if stream.container.start_time is not None:
        return float(stream.container.start_time) / 1e6
    return float((stream.start_time or 0) * stream.time_base)


def _tick(stream: Any) -> Fraction:
    """The time from frame to frame that the header declares, in seconds."""
    return 1 / Fraction(stream.average_rate or stream.guessed_rate or 25)
