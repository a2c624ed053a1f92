"""Frames of any pixel format, colour space and dynamic range to small upright sRGB pictures."""

from __future__ import annotations

from functools import lru_cache

import av
import numpy as np
from av.video.reformatter import ColorTrc, Interpolation, VideoReformatter
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

# ITU-R BT.2408: HDR's reference white, which white paper has, and which SDR shows at its full level.
_WHITE_NITS = 203.0
_PEAK_NITS = 1000.0  # of the display that HLG is meant for, and where highlights become white here
_KNEE = 0.8  # of SDR's full level: below it light stays as it is, above it highlights are compressed
_BEND = 94.0  # of the logarithm above the knee: it leaves it at the slope of the line below
# From BT.2020's primaries to those of BT.709 and sRGB, in linear light (ITU-R BT.2087, inverted).
_TO_709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)


class ToRgb:
    """Makes the pictures of one video; it keeps FFmpeg's scaler from frame to frame."""

    def __init__(self, side: int) -> None:
        """side: of the pictures, in pixels."""
        self._side = side
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> U8:
        """uint8 [side, side, 3], sRGB, upright, squashed to a square; on white where it is transparent.

        The two fields of an interlaced frame are blended by the shrinking: 1080 lines become a few hundred.
        HDR (PQ and HLG) is brought to SDR: its reference white of 203 nits and what is darker keep their brightness
        (BT.2408), highlights are compressed.
        """
        if frame.color_trc in (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67):
            picture = _to_sdr(self._reformat(frame, "rgb48le"), frame.color_trc == ColorTrc.SMPTE2084)
        elif frame.format.has_palette or any(part.is_alpha for part in frame.format.components):
            picture = on_white(self._reformat(frame, "rgba"))
        else:
            picture = self._reformat(frame, "rgb24")
        return np.ascontiguousarray(np.rot90(picture, quarter_turns(frame)))

    def _reformat(self, frame: av.VideoFrame, pixels: str) -> np.ndarray:
        # Pixels that are averaged must be many, or areas become blocks; the few of a small picture are interpolated.
        large = min(frame.width, frame.height) >= 2 * self._side
        filter = Interpolation.AREA if large else Interpolation.BICUBIC
        # One thread: there is one video per worker process.
        small = self._reformatter.reformat(frame, self._side, self._side, pixels, interpolation=filter, threads=1)
        return small.to_ndarray()


def quarter_turns(frame: av.VideoFrame) -> int:
    """By how many quarter turns, anticlockwise, the display matrix turns the frame."""
    return round(frame.rotation / 90) % 4


def on_white(rgba: U8) -> U8:
    """uint8 [h, w, 4] to uint8 [h, w, 3]: the picture on white."""
    alpha = rgba[..., 3:].astype(np.uint16)
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(rgba[..., :3])
    return ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _to_sdr(rgb: NDArray[np.uint16], is_pq: bool) -> U8:
    """PQ or HLG in BT.2020, uint16 [h, w, 3], to sRGB, uint8 [h, w, 3]."""
    light = _light(is_pq)[rgb >> 4]  # 1 is reference white
    if not is_pq:
        # HLG's system gamma, of the display: BT.2100. By luminance, for a peak of 1,000 nits 1.2.
        luminance = light @ np.array([0.2627, 0.6780, 0.0593], np.float32)
        light = light * np.maximum(luminance, 1e-6)[..., None] ** np.float32(0.2)
        light *= np.float32(_PEAK_NITS / _WHITE_NITS)
    light = np.maximum(light @ _TO_709.T, 0)
    # By the brightest colour of each pixel, so that hues stay.
    brightest = light.max(axis=2, keepdims=True)
    light *= _shoulder(brightest) / np.maximum(brightest, 1e-6)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-6) ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * np.clip(encoded, 0, 1)), np.uint8)


def _shoulder(light: F32) -> F32:
    """Light to light: the same up to the knee, from there to the peak ever flatter, 1 at the peak."""
    over = np.clip((light - _KNEE) / (_PEAK_NITS / _WHITE_NITS - _KNEE), 0, 1)
    bent = _KNEE + (1 - _KNEE) * np.log1p(_BEND * over) / np.log1p(_BEND)
    return np.where(light <= _KNEE, light, bent).astype(np.float32)


@lru_cache(maxsize=2)
def _light(is_pq: bool) -> F32:
    """For samples of 12 bits: PQ's light in reference whites (SMPTE ST 2084), HLG's of the scene, 0..1 (BT.2100)."""
    signal = np.arange(4096) / 4095
    if is_pq:
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        root = signal ** (1 / m2)
        nits = 10_000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
        return (nits / _WHITE_NITS).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12).astype(np.float32)
