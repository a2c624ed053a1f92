"""CPU seconds to fingerprint a minute of 1080p in H.264, HEVC and VP9, beside vPDQ at one frame a second; and memory.

    python benchmarks/video.py [FILE ...]

The videos are made from the ISCC demo (176 x 144, a concert, with its sound) and kept in the temporary folder: scaled
to 1920 x 1080, with film grain so that 5 Mbit/s are needed. H.264 comes twice, with a keyframe every two seconds, as
streaming services encode, and with the encoder's default of up to ten. With FILES these are measured instead.

vPDQ is done as its authors do it: every frame decoded, one a second hashed at full size, here by the `pdqhash` package;
it has no sound. The figures are CPU seconds of this process, all its threads together; decoding is on one thread
everywhere. The last table is the peak memory of a process that decodes the demo repeated for three hours, in another
process that then embeds, hashes and stores it. Needs the `bench` extra, and ffmpeg for the sound and the three hours.
"""

from __future__ import annotations

import multiprocessing
import resource
import subprocess
import sys
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

from fingerprint_dagster import codec
from fingerprint_dagster.content import Content, Fingerprint, Value
from fingerprint_dagster.index.store import open_store
from fingerprint_dagster.media.video import VideoPlugin
from fingerprint_dagster.models import ModelRuntime

SIZE = (1920, 1080)
DEMO = next(path for path in iscc_samples.videos() if path.name == "demo.mp4")
FOLDER = Path(tempfile.gettempdir()) / "fingerprint-dagster-benchmark"
ENCODERS = {
    "h264-2s.mp4": ("libx264", {"preset": "veryfast", "b": "5M", "g": "48"}),
    "h264-10s.mp4": ("libx264", {"preset": "veryfast", "b": "5M", "g": "250"}),
    "hevc.mp4": ("libx265", {"preset": "ultrafast", "b": "5M", "x265-params": "log-level=error:bitrate=5000"}),
    "vp9.mp4": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "b": "5M", "g": "128"}),
}
T = TypeVar("T")


def make_video(name: str) -> Path:
    """60 s of 1080p24 at 5 Mbit/s, with sound."""
    path = FOLDER / name
    if path.exists():
        return path
    FOLDER.mkdir(exist_ok=True)
    encoder, options = ENCODERS[name]
    grain = np.random.default_rng(0).normal(0, 6, (8, SIZE[1], SIZE[0])).astype(np.int16)
    silent, unfinished = path.with_suffix(".silent"), path.with_suffix(".part")
    with av.open(str(DEMO)) as source, av.open(str(silent), "w", format="mp4") as target:
        stream = target.add_stream(encoder, rate=24, options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.bit_rate = 5_000_000
        for number, frame in enumerate(source.decode(video=0)):
            planes = frame.reformat(*SIZE, "yuv420p").to_ndarray()
            luma = planes[: SIZE[1]]
            luma[:] = np.clip(luma + grain[number % len(grain)], 16, 235)
            noisy = av.VideoFrame.from_ndarray(planes, "yuv420p")
            noisy.pts, noisy.time_base = number, Fraction(1, 24)
            target.mux(stream.encode(noisy))
        target.mux(stream.encode(None))
    inputs = ["-i", str(silent), "-i", str(DEMO), "-map", "0:v", "-map", "1:a"]
    ffmpeg(*inputs, "-c", "copy", "-f", "mp4", str(unfinished))
    silent.unlink()
    return unfinished.rename(path)


def three_hours() -> Path:
    """The demo 180 times over, packet by packet."""
    path = FOLDER / "three-hours.mp4"
    if not path.exists():
        FOLDER.mkdir(exist_ok=True)
        ffmpeg("-stream_loop", "179", "-i", str(DEMO), "-c", "copy", str(path))
    return path


def ffmpeg(*arguments: str) -> None:
    """Run ffmpeg, which overwrites."""
    subprocess.run(["ffmpeg", "-v", "error", "-y", *arguments], check=True)


def vpdq(path: Path) -> int:
    """Every frame decoded, the first of each second hashed at full size; how many those are."""
    return sum(1 for frame in one_a_second(path) if pdqhash.compute(frame.to_ndarray(format="rgb24")))


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


def cpu_seconds(work: Callable[[], T]) -> tuple[float, T]:
    """What the work takes, and what it gives."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def fingerprint_of(plugin: VideoPlugin, decoded: Value, embedded: Value) -> Fingerprint:
    """As the pipeline makes it, of a content of no importance."""
    sketch = plugin.hash(decoded, embedded)
    return Fingerprint(Content("a", "file:///a", "video"), "0" * 64, 1, "video/mp4", "", sketch)


def measure(path: Path, plugin: VideoPlugin, models: ModelRuntime) -> tuple[str, list[float], int]:
    """Of one video: what it is; CPU seconds to decode, embed, hash, store, and for vPDQ; and how many frames."""
    decode_seconds, decoded = cpu_seconds(lambda: plugin.decode(path))
    embed_seconds, (embedded,) = cpu_seconds(lambda: plugin.embed([decoded], models))
    hash_seconds, fingerprint = cpu_seconds(lambda: fingerprint_of(plugin, decoded, embedded))
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder) / "index")
        store.put([fingerprint])  # the first one makes the tables
        store_seconds, _ = cpu_seconds(lambda: store.put([fingerprint]))
    vpdq_seconds, _ = cpu_seconds(lambda: vpdq(path))
    info = decoded.info
    rate = path.stat().st_size * 8e-6 / info["duration"]
    what = f"{info['duration']:.0f} s of {info['width']} x {info['height']} {info['codec']}, {rate:.1f} Mbit/s"
    seconds = [decode_seconds, embed_seconds, hash_seconds, store_seconds, vpdq_seconds]
    return what, seconds, len(decoded.arrays["times"])


def peak_mib() -> int:
    """The most memory this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def decode_alone(path: Path, target: Path) -> tuple[int, int]:
    """Decode to a file as the memo keeps it; the peak memory in MiB before and after."""
    plugin = VideoPlugin()
    plugin.decode(DEMO)
    before = peak_mib()
    target.write_bytes(codec.encode(plugin.decode(path)))
    return before, peak_mib()


def embed_and_hash(source: Path) -> tuple[int, int]:
    """Embed and hash what was decoded; the peak memory in MiB before and after."""
    plugin, models = VideoPlugin(), ModelRuntime("cpu")
    small = plugin.decode(DEMO)
    plugin.hash(small, plugin.embed([small], models)[0])
    before = peak_mib()
    decoded = codec.decode(source.read_bytes())
    plugin.hash(decoded, plugin.embed([decoded], models)[0])
    return before, peak_mib()


def memory(path: Path) -> None:
    """Print the peak memory of the two processes."""
    with (
        tempfile.TemporaryDirectory() as folder,
        multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool,
    ):
        value = Path(folder) / "value"
        decoding = pool.apply(decode_alone, (path, value))
        embedding = pool.apply(embed_and_hash, (value,))
        decoded = codec.decode(value.read_bytes())
    hours = decoded.info["duration"] / 3600
    print(f"\n{path.name}: {hours:.1f} h, {len(decoded.arrays['times'])} frames kept; peak memory, MiB")
    print(f"{'':26}{'with one minute':>16}{'with this':>12}")
    for name, (before, after) in (("decoding process", decoding), ("embedding and hashing", embedding)):
        print(f"{name:26}{before:16}{after:12}")


def main(files: list[str]) -> None:
    """Print the tables."""
    plugin, models = VideoPlugin(), ModelRuntime("cpu")
    paths = [Path(each) for each in files] or [make_video(name) for name in ENCODERS]
    # Imports, weights and the first pass of every shape are not what is measured here.
    warm = plugin.decode(DEMO)
    plugin.hash(warm, plugin.embed([warm], models)[0])
    print(f"model: {models.describe()}")
    columns = ("decode", "embed", "hash", "store", "all", "vPDQ", "ratio")
    print(f"\nCPU-s{'':39}{'frames':>8}" + "".join(f"{name:>8}" for name in columns))
    for path in paths:
        what, (*ours, theirs), frames = measure(path, plugin, models)
        row = [*ours, sum(ours), theirs]
        print(f"{what:44}{frames:8}" + "".join(f"{each:8.2f}" for each in row) + f"{sum(ours) / theirs:8.2f}")
    if not files:
        memory(three_hours())


if __name__ == "__main__":
    main(sys.argv[1:])
