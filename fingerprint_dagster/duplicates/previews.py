"""What a person sees of a content in the report: a small picture, or the words of a passage.

A picture is shown as it is, a film as a strip of frames and a sound as its spectrogram: in both, left to right is the
time from beginning to end, so that a range of seconds can be drawn on it.
"""

from __future__ import annotations

import base64
import difflib
import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fingerprint_dagster.content import Range, Value

SIDE = 176
"""The longer side of a picture's preview, in pixels."""
STRIP = (360, 54)
"""Width and height of a strip of frames, and of a spectrogram, in pixels."""
QUALITY = 35
"""Of the WebP files: about 2 to 4 kB each."""
PASSAGE, CONTEXT = 420, 60
"""Characters of a passage, and around it, that are shown."""
_FRAMES = 4
_WINDOW = 1024
_FREQUENCIES = (60.0, 5000.0)  # Hz
_RANGE_DB = 60.0

PASSAGES = 3
"""Passages of one pair that are shown."""

Cut = tuple[str, str, str]
"""What comes before a passage, the passage, and what comes after it."""
Words = list[tuple[str, int]]
"""Pieces of text, each with what it is."""
AROUND, SAME, CHANGED = 0, 1, 2
_CUT = " …"  # what follows a passage that is cut short
_SPACE = re.compile(r"\s+")
# A word with the space around it; a letter of a script without spaces is a word.
_UNSPACED = r"\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"\s*(?:[{_UNSPACED}]|[^\s{_UNSPACED}]+)\s*")


def picture(decoded: Value) -> str | None:
    """A preview of decoded pixels or sound as a WebP data URI; None of anything else."""
    arrays = decoded.arrays
    if "rgb" in arrays and arrays["rgb"].size:
        return _webp(_shrunk(arrays["rgb"], (SIDE, SIDE)))
    if "frames" in arrays and len(arrays["frames"]):
        return _webp(_strip(arrays["frames"], arrays.get("times"), decoded.info))
    if "pcm" in arrays and arrays["pcm"].size:
        seconds = float(decoded.info.get("duration") or 0)
        return _webp(spectrogram(arrays["pcm"], len(arrays["pcm"]) / seconds)) if seconds > 0 else None
    return None


def spectrogram(samples: npt.NDArray[np.generic], rate: float) -> npt.NDArray[np.uint8]:
    """Uint8 [54, 360, 3]: loudness by time (left to right) and pitch (low below), 60 dB from black to white.

    samples: mono [n], any scale. rate: of them, in Hz. Each column is the loudest of some moments of its time.
    """
    width, height = STRIP
    edges = np.geomspace(*_FREQUENCIES, height + 1) * _WINDOW / rate
    low = np.minimum(edges[:-1].astype(int), _WINDOW // 2)
    high = np.minimum(np.maximum(edges[1:].astype(int), low + 1), _WINDOW // 2 + 1)
    window = np.hanning(_WINDOW).astype(np.float32)
    moments = np.linspace(0, max(0, len(samples) - _WINDOW), 3 * width).astype(int)
    frames = np.zeros((len(moments), _WINDOW), np.float32)
    for frame, start in zip(frames, moments, strict=True):
        part = samples[start : start + _WINDOW]
        frame[: len(part)] = part
    power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
    total = np.concatenate([np.zeros((len(power), 1)), np.cumsum(power, axis=1)], axis=1)
    bands = (total[:, high] - total[:, low]) / (high - low)
    bands = bands.reshape(width, 3, height).max(axis=1)
    level = 10 * np.log10(bands + 1e-12)
    top = max(float(level.max()), -60.0)
    grey = np.clip((level - top + _RANGE_DB) / _RANGE_DB, 0, 1) * 255
    return np.repeat(grey.T[::-1, :, None].astype(np.uint8), 3, axis=2)


def cut(text: str, span: Range | None) -> Cut:
    """The end of what comes before a passage, the passage, and the beginning of what follows, each on one line.

    A range of None is the whole text. A long passage is cut short.
    """
    start, end = (0, len(text)) if span is None else (int(span[0]), int(span[1]))
    shown = min(end, start + PASSAGE)
    before = ("… " if start > CONTEXT else "") + text[max(0, start - CONTEXT) : start]
    after = _CUT if shown < end else text[end : end + CONTEXT] + (" …" if end + CONTEXT < len(text) else "")
    before, passage, after = (_SPACE.sub(" ", part) for part in (before, text[start:shown], after))
    return before, passage, after


def compared(one: Cut, other: Cut) -> tuple[Words, Words]:
    """Two passages with their words marked: the same in both, changed, or around the passage.

    Where a passage was cut short, what the other has beyond that is not called changed.
    """
    words, other_words = _WORD.findall(one[1]), _WORD.findall(other[1])
    blocks = difflib.SequenceMatcher(None, [w.strip() for w in words], [w.strip() for w in other_words], False)
    marked: Words = [(one[0], AROUND)]
    other_marked: Words = [(other[0], AROUND)]
    for tag, a, b, c, d in blocks.get_opcodes():
        beyond = (b, d) == (len(words), len(other_words)) and _CUT in (one[2], other[2])
        kind = SAME if tag == "equal" else AROUND if beyond else CHANGED
        marked.append(("".join(words[a:b]), kind))
        other_marked.append(("".join(other_words[c:d]), kind))
    marked.append((one[2], AROUND))
    other_marked.append((other[2], AROUND))
    return [each for each in marked if each[0]], [each for each in other_marked if each[0]]


def plain(one: Cut, other: Cut) -> tuple[Words, Words]:
    """Two passages of which nothing is known word by word."""
    return [("".join(one), AROUND)], [("".join(other), AROUND)]


def _strip(
    frames: npt.NDArray[np.uint8], times: npt.NDArray[np.float64] | None, info: Mapping[str, Any]
) -> npt.NDArray[np.uint8]:
    """Frames side by side, each that of the middle of its part of the time, with the sides the film has."""
    from PIL import Image

    width, height = STRIP[0] // _FRAMES, STRIP[1]
    if times is None or len(times) != len(frames):
        times = np.arange(len(frames), dtype=np.float64)
    end = float(info.get("duration") or times[-1] or 1.0)
    shape = info.get("width") or frames.shape[2], info.get("height") or frames.shape[1]
    scale = min(width / shape[0], height / shape[1])
    size = max(1, int(shape[0] * scale)), max(1, int(shape[1] * scale))
    strip = np.zeros((height, width * _FRAMES, 3), np.uint8)
    for number in range(_FRAMES):
        middle = (number + 0.5) * end / _FRAMES
        small = np.asarray(Image.fromarray(frames[int(np.abs(times - middle).argmin())]).resize(size))
        top, left = (height - small.shape[0]) // 2, number * width + (width - small.shape[1]) // 2
        strip[top : top + small.shape[0], left : left + small.shape[1]] = small
    return strip


def _shrunk(pixels: npt.NDArray[np.uint8], most: tuple[int, int]) -> npt.NDArray[np.uint8]:
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail(most, Image.Resampling.BILINEAR)
    return np.asarray(image)


def _webp(pixels: npt.NDArray[np.uint8]) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def text_of(decoded: Value) -> str | None:
    """The decoded text; None of anything that is no text."""
    text = decoded.arrays.get("text")
    return None if text is None else text.tobytes().decode("utf-8", "replace")
