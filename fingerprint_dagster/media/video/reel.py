"""Sampled pictures, in order of time, to what a decoded video holds of them: different ones, without their borders."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fingerprint_dagster.media.video import borders, shots

U8 = NDArray[np.uint8]

# Every frame is stored at this one size, whatever the size and shape of the video: PDQ's sampling grid depends on the
# size it is given. Measured on the vPDQ samples: a 240p copy of a 1080p video lies 34 bits away when both are hashed as
# they are (31 is the limit), and 3 bits away when both are first brought to one size. 272 is the smallest of the sizes
# tried whose hashes also stay near those of the full-size frames: 8 to 11 bits on average, 20 at most.
FRAME_SIDE = 272
FLAT_LEVELS = 5.0  # of 255: the standard deviation of every colour in a frame that is flat


class Reel:
    """Gathers the frames of one video: those that differ from the one before, with their shots and borders."""

    def __init__(self, room: int) -> None:
        """room: the most frames there can be. Memory that is never written costs nothing."""
        self.sampled = 0
        self._frames: U8 = np.empty((room, FRAME_SIDE, FRAME_SIDE, 3), np.uint8)
        self._times: list[float] = []
        self._shots: list[int] = []
        self._bars: list[tuple[float, float]] = []
        self._blocks: U8 | None = None  # of the last frame kept

    @property
    def is_full(self) -> bool:
        """Whether no more can be added."""
        return len(self._times) == len(self._frames)

    def add(self, time: float, picture: U8) -> None:
        """Take a picture, uint8 [FRAME_SIDE, FRAME_SIDE, 3], upright, that is later than those before."""
        self.sampled += 1
        blocks = shots.blocks(picture)
        if self._blocks is None:
            self._shots.append(0)
        elif shots.is_still(self._blocks, blocks):
            return
        else:
            self._shots.append(self._shots[-1] + shots.is_cut(self._blocks, blocks))
        self._blocks = blocks
        self._frames[len(self._times)] = picture
        self._times.append(time)
        self._bars.append(borders.bars(picture))

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays `frames`, `times`, `shots`, `borders` and `flat` of a decoded video. To be asked for once."""
        count = len(self._times)
        frames, numbers = self._frames[:count], np.array(self._shots, np.int32)
        boxes = borders.content_boxes(np.array(self._bars).reshape(-1, 2), numbers)
        for row in np.flatnonzero((boxes != (0, 0, 1, 1)).any(axis=1)):
            frames[row] = borders.crop(frames[row], boxes[row])
        flat = [bool((frame.std(axis=(0, 1)) < FLAT_LEVELS).all()) for frame in frames]
        return {
            "frames": frames,
            "times": np.array(self._times, np.float64),
            "shots": numbers,
            "borders": boxes,
            "flat": np.array(flat, bool),
        }
