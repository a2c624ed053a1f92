"""Animated pictures (GIF, WebP, PNG, AVIF) as short videos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fingerprint_dagster.content import Value
from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.media.image.decode import opaque
from fingerprint_dagster.media.video.outline import KEY_STEP, MAX_FILL_PIXELS, MAX_FRAMES, SLACK
from fingerprint_dagster.media.video.reel import FRAME_SIDE, Reel

if TYPE_CHECKING:
    from PIL.Image import Image

U8 = NDArray[np.uint8]

FORMATS = ("GIF", "WEBP", "PNG", "AVIF")
MAX_PIXELS = 1 << 26  # of one frame, as for videos
# Viewers show a frame that claims a hundredth of a second or less for a tenth, and so do FFmpeg's conversions.
_SHORTEST, _INSTEAD = 0.010, 0.100  # seconds


def decode_animation(path: Path) -> Value:
    """As `decode.decode`, for an animated picture; one of a single frame is a video of that frame.

    Raises ContentError where not one frame can be decoded.
    """
    from PIL import Image

    reel = Reel(MAX_FRAMES)
    frames = _Frames()
    try:
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ContentError(f"its frames are too large: {image.width} x {image.height} pixels")
            info = {"width": image.width, "height": image.height, "codec": str(image.format).lower()}
            last = -np.inf
            for time in frames.of(image):
                if time - last >= KEY_STEP - SLACK:
                    if reel.is_full:
                        frames.complete = False
                        break
                    reel.add(time, _picture(image))
                    last = time
    except ContentError:
        raise
    # Whatever hostile bytes make a decoder raise is a property of this content, not a fault of the pipeline.
    except Exception as error:
        if not reel.sampled:
            raise ContentError(f"the animated picture is damaged: {error or type(error).__name__}") from error
        frames.complete = False
    return Value(
        reel.arrays(),
        {
            **info,
            "duration": round(frames.end, 6),
            "fps": round(frames.count / frames.end, 3),
            "partial": not frames.complete,
            "soundtrack": {"present": False, "reason": "animated pictures have no sound"},
        },
    )


class _Frames:
    """The frames of an animation one after the other, and what has been seen of them: seconds, and how many."""

    def __init__(self) -> None:
        self.end = 0.0
        self.count = 0
        self.complete = True

    def of(self, image: Image) -> Iterator[float]:
        """The time of each frame in seconds, while `image` shows it."""
        while self.count * image.width * image.height < MAX_FILL_PIXELS:
            try:
                image.seek(self.count)
            except EOFError:
                return
            image.load()  # which is when some formats tell the duration
            time = self.end
            self.count += 1
            self.end += _seconds(image.info)
            yield time
        self.complete = False


def _seconds(info: dict[str | tuple[int, int], Any]) -> float:
    seconds = float(info.get("duration") or 0) / 1000
    return seconds if seconds > _SHORTEST else _INSTEAD


def _picture(image: Image) -> U8:
    """The frame at hand: uint8 [FRAME_SIDE, FRAME_SIDE, 3], on white."""
    rgb = np.asarray(opaque(image).convert("RGB"))
    filter = cv2.INTER_AREA if min(rgb.shape[:2]) >= FRAME_SIDE else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(rgb, (FRAME_SIDE, FRAME_SIDE), interpolation=filter), np.uint8)
