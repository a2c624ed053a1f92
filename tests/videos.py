"""Videos for tests: those of iscc-samples, and others made here from their pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import iscc_samples
import numpy as np

SAMPLES = {path.name: path for path in iscc_samples.videos()}
DEMO = SAMPLES["demo.mp4"]
DEMO_SECONDS = 60.04
MILLISECOND = Fraction(1, 1000)


def record(
    path: Path,
    timed: Iterable[tuple[float, np.ndarray]],
    *,
    size: tuple[int, int] | None = None,
    codec_name: str = "libx264",
    rotation: int = 0,
    **options: str,
) -> Path:
    """Encode RGB pictures at the given seconds, the first at 0."""
    movflags = {"movflags": options.pop("movflags")} if "movflags" in options else {}
    with av.open(str(path), "w", options=movflags) as container:
        stream = None
        for seconds, rgb in timed:
            if stream is None:
                start = seconds
                stream = container.add_stream(codec_name, rate=24, options=options)
                stream.width, stream.height = size or (rgb.shape[1], rgb.shape[0])
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = Fraction(1, 24) if codec_name == "mpeg4" else MILLISECOND
                if rotation:
                    stream.set_display_rotation(rotation)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24")
            frame = frame.reformat(stream.width, stream.height, "yuv420p", interpolation="BICUBIC")
            frame.time_base = stream.codec_context.time_base
            frame.pts = round((seconds - start) / frame.time_base)
            container.mux(stream.encode(frame))
        assert stream is not None
        container.mux(stream.encode(None))
    return path


def pictures(path: Path, start: float = 0.0, end: float = 1e9) -> Iterator[tuple[float, np.ndarray]]:
    """Every frame of a video from `start` to `end` seconds."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if frame.time >= end:
                return
            if frame.time >= start:
                yield frame.time, frame.to_ndarray(format="rgb24")


def scenes(count: int, seed: int = 0) -> list[np.ndarray]:
    """Pictures that differ, with enough features for PDQ: blurred noise, uint8 [120, 160, 3]."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 12, 16, 3), dtype=np.uint8)
    frames = [av.VideoFrame.from_ndarray(picture, "rgb24") for picture in small]
    return [frame.reformat(160, 120, "rgb24", interpolation="BICUBIC").to_ndarray() for frame in frames]
