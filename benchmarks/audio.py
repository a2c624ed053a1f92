"""Time to fingerprint three minutes of MP3, stage by stage, beside fpcalc where it is installed, and to match two.

python benchmarks/audio.py [FILE ...]      any sound files; without one, three minutes of made music as 128 kbit/s MP3
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fingerprint_dagster.content import Value
from fingerprint_dagster.media.audio import AudioPlugin
from fingerprint_dagster.media.audio.chromaprint import SAMPLE_RATE, chromaprint_v1
from fingerprint_dagster.media.audio.decode import decode_audio
from fingerprint_dagster.media.audio.match import align
from fingerprint_dagster.models import ModelRuntime

RUNS = 7


class Cost(NamedTuple):
    """Milliseconds: by the clock and of all CPUs together, each the best of several runs."""

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.wall:8.1f} ms wall {self.cpu:8.1f} ms CPU"


def cost(work: Callable[[], object]) -> Cost:
    """What `work` costs when nothing disturbs it."""
    work()
    walls, cpus = [], []
    for _ in range(RUNS):
        wall, cpu = time.perf_counter(), cpu_seconds()
        work()
        walls.append(time.perf_counter() - wall)
        cpus.append(cpu_seconds() - cpu)
    return Cost(1000 * min(walls), 1000 * min(cpus))


def cpu_seconds() -> float:
    """CPU time of this process and of the commands it ran."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def write_music(path: Path, seconds: int, seed: int, rate: int = 44100) -> None:
    """Stereo MP3 of random chords, four a second, over a little noise."""
    import av

    random = np.random.default_rng(seed)
    hertz = np.repeat(110 * 2 ** (random.integers(0, 48, (4 * seconds, 4)) / 12), rate // 4, axis=0)
    voices = np.sin(2 * np.pi * np.cumsum(hertz, axis=0) / rate)
    stereo = np.stack((voices[:, :3].sum(1), voices[:, 1:].sum(1))) + random.normal(0, 0.05, (2, len(hertz)))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libmp3lame", rate=rate, layout="stereo")
        stream.bit_rate = 128_000
        frame = av.AudioFrame.from_ndarray((6000 * stereo.T).astype(np.int16).reshape(1, -1), "s16", "stereo")
        frame.sample_rate = rate
        resampler = av.AudioResampler(stream.format.name, "stereo", rate, frame_size=1152)
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(part))


def report(path: Path, models: ModelRuntime) -> np.ndarray:
    """Print the times of one file; its Chromaprint."""
    plugin = AudioPlugin()
    decoded: Value = decode_audio(path)
    pcm = decoded.arrays["pcm"]
    items = chromaprint_v1(pcm)
    embedded = plugin.embed([decoded], models)[0]
    rows = {
        "decode": cost(lambda: decode_audio(path)),
        "chromaprint": cost(lambda: chromaprint_v1(pcm)),
        "logmel": cost(lambda: plugin.embed([decoded], models)),
    }
    rows["total"] = Cost(sum(row.wall for row in rows.values()), sum(row.cpu for row in rows.values()))
    rows["hash stage (chromaprint, components)"] = cost(lambda: plugin.hash(decoded, embedded))
    if shutil.which("fpcalc"):
        # Version 1.5.1 ends with status 3 at the end of every MP3.
        command = ["fpcalc", "-raw", "-length", "0", str(path)]
        rows["fpcalc -length 0 (decode, chromaprint)"] = cost(
            lambda: subprocess.run(command, check=False, capture_output=True)
        )
        output = subprocess.run(command, check=False, capture_output=True, text=True).stdout
        theirs = np.array(output.split("FINGERPRINT=")[1].split(","), np.uint32)
        count = min(len(items), len(theirs))
        flipped = int(np.bitwise_count(items[:count] ^ theirs[:count]).sum())
        note = f"; {flipped} of {32 * count} bits differ from fpcalc, which resamples otherwise"
    else:
        note = "; fpcalc is not installed (Debian: libchromaprint-tools)"
    print(f"{path.name}: {len(pcm) / SAMPLE_RATE:.0f} s, {len(items)} items{note}")
    for name, value in rows.items():
        print(f"  {name:40s} {value}")
    return items


def main() -> None:
    """Print the table."""
    models = ModelRuntime()
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(name) for name in sys.argv[1:]]
        if not paths:
            paths = [Path(folder) / "one.mp3", Path(folder) / "two.mp3"]
            for seed, path in enumerate(paths):
                write_music(path, 180, seed)
        items = [report(path, models) for path in paths]
    print(f"logmel ran on {models.describe()}")
    print(f"match with itself              {cost(lambda: align(items[0], items[0]))}")
    print(f"match with a 10 s excerpt      {cost(lambda: align(items[0][400:460], items[0]))}")
    if len(items) > 1:
        print(f"match of two different tracks  {cost(lambda: align(items[0], items[1]))}")


if __name__ == "__main__":
    main()
