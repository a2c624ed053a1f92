"""CPU seconds to fingerprint a minute of 1080p H.264, beside decoding every frame and vPDQ at one frame a second.

    python benchmarks/video.py

Two videos are made from the ISCC demo (176 x 144) and kept in the temporary folder: scaled to 1920 x 1080, with film
grain so that 5 Mbit/s are needed; one with a keyframe every two seconds, as streaming services encode, one with the
encoder's default of up to ten. vPDQ is done as its authors do it: every frame decoded, one a second hashed at full
size, here by the `pdqhash` package. The figures are CPU seconds of this process, all its threads together; decoding is
on one thread everywhere. Needs the `bench` extra.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import av
import iscc_samples
import numpy as np
import pdqhash

from fingerprint_dagster.content import Content, Fingerprint
from fingerprint_dagster.media.video import VideoPlugin
from fingerprint_dagster.media.video.decode import FRAME_SIDE
from fingerprint_dagster.models import ModelRuntime

SIZE = (1920, 1080)
DEMO = next(path for path in iscc_samples.videos() if path.name == "demo.mp4")
T = TypeVar("T")


def make_video(keyframe_interval: int) -> Path:
    """60 s of 1080p24 H.264 at 5 Mbit/s, at most `keyframe_interval` frames from keyframe to keyframe."""
    path = Path(tempfile.gettempdir()) / f"fingerprint-dagster-benchmark-1080p-{keyframe_interval}.mp4"
    if path.exists():
        return path
    grain = np.random.default_rng(0).normal(0, 6, (8, SIZE[1], SIZE[0])).astype(np.int16)
    unfinished = path.with_suffix(".part")
    with av.open(str(DEMO)) as source, av.open(str(unfinished), "w", format="mp4") as target:
        options = {"preset": "veryfast", "b": "5M", "g": str(keyframe_interval)}
        stream = target.add_stream("libx264", rate=24, options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number, frame in enumerate(source.decode(video=0)):
            planes = frame.reformat(*SIZE, "yuv420p").to_ndarray()
            luma = planes[: SIZE[1]]
            luma[:] = np.clip(luma + grain[number % len(grain)], 16, 235)
            noisy = av.VideoFrame.from_ndarray(planes, "yuv420p")
            noisy.pts, noisy.time_base = number, Fraction(1, 24)
            target.mux(stream.encode(noisy))
        target.mux(stream.encode(None))
    unfinished.rename(path)
    return path


def one_a_second(path: Path) -> Iterator[av.VideoFrame]:
    """Every frame decoded, the first of each second given."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        due = 0.0
        for frame in container.decode(stream):
            if frame.time >= due:
                due += 1
                yield frame


def every_frame(path: Path) -> int:
    """One frame a second brought to the plugin's size; how many there are."""
    small = [
        frame.reformat(FRAME_SIDE, FRAME_SIDE, "rgb24", interpolation="BICUBIC", threads=1).to_ndarray()
        for frame in one_a_second(path)
    ]
    return len(small)


def vpdq(path: Path) -> int:
    """One frame a second hashed at full size; how many there are."""
    return len([pdqhash.compute(frame.to_ndarray(format="rgb24")) for frame in one_a_second(path)])


def cpu_seconds(work: Callable[[], T]) -> tuple[float, T]:
    """What the work takes, and what it gives."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def measure(path: Path, plugin: VideoPlugin, models: ModelRuntime) -> None:
    """Print the table for one video."""
    rows: list[tuple[str, float, int]] = []
    seconds, decoded = cpu_seconds(lambda: plugin.decode(path))
    count = len(decoded.arrays["times"])
    rows.append(("decode", seconds, count))
    seconds, (embedded,) = cpu_seconds(lambda: plugin.embed([decoded], models))
    rows.append(("embed", seconds, count))
    seconds, sketch = cpu_seconds(lambda: plugin.hash(decoded, embedded))
    rows.append(("hash", seconds, count))
    fingerprint = Fingerprint(Content("a", "file:///a", "video"), "", 0, "video/mp4", "", sketch)
    seconds, _ = cpu_seconds(lambda: plugin.match(fingerprint, fingerprint))
    rows.append(("match with itself", seconds, count))
    rows.append(("every frame decoded, 1 a second kept", *cpu_seconds(lambda: every_frame(path))))
    rows.append(("vPDQ at 1 a second: decode and hash", *cpu_seconds(lambda: vpdq(path))))

    info = decoded.info
    shape = f"{info['duration']:.0f} s of {info['width']} x {info['height']} {info['codec']}"
    print(f"\n{path.name}: {shape}, {path.stat().st_size * 8e-6 / info['duration']:.1f} Mbit/s")
    print(f"{'':38}{'CPU-s':>8}{'frames':>8}")
    for name, seconds, frames in rows:
        print(f"{name:38}{seconds:8.2f}{frames:8}")


def main() -> None:
    """Print the tables."""
    plugin, models = VideoPlugin(), ModelRuntime("cpu")
    # Imports, weights and the first pass of every shape are not what is measured here.
    warm = plugin.decode(DEMO)
    plugin.hash(warm, plugin.embed([warm], models)[0])
    print(f"model: {models.describe()}")
    for keyframe_interval in (48, 250):
        measure(make_video(keyframe_interval), plugin, models)


if __name__ == "__main__":
    main()
