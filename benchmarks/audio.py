"""CPU time from a sound file to its stored fingerprint, by stage, beside `fpcalc -length 0`; and memory for hours.

    python benchmarks/audio.py [FILE ...] [--runs 9] [--hours 6]

Without files: three minutes of made music as MP3, FLAC, M4A, Opus and WAV. Stages and fpcalc take turns, so that what
else the machine does meets all alike; the figures are the least and the median of the runs, in CPU milliseconds of all
threads and of the commands that were run. fpcalc decodes and makes the Chromaprint; it stores nothing.

Then the stages work on a file of many hours, each in a process of its own, as in the pipeline: what one hands to the
next is encoded, written, read and decoded. --runs 0 does only this; --hours 0 leaves it out.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fingerprint_dagster import codec
from fingerprint_dagster.content import Content, Fingerprint, Sketch
from fingerprint_dagster.index.store import Store, open_store
from fingerprint_dagster.media.audio import AudioPlugin
from fingerprint_dagster.media.audio.chromaprint import SAMPLE_RATE, chromaprint_v1
from fingerprint_dagster.media.audio.decode import decode_audio
from fingerprint_dagster.models import ModelRuntime

SECONDS = 180
RATE = 48000
FORMATS = {
    "music.mp3": ("libmp3lame", "mp3"),
    "music.flac": ("flac", "flac"),
    "music.m4a": ("aac", "ipod"),
    "music.opus": ("libopus", "ogg"),
    "music.wav": ("pcm_s16le", "wav"),
}
STORED_AT_ONCE = 50  # fingerprints: a batch of the pipeline holds 200
FPCALC = "fpcalc -length 0 (decode, chromaprint)"
TOTAL = "sound file to stored fingerprint"

MEMORY_PROGRAM = """
import sys, time
from pathlib import Path
from fingerprint_dagster import codec
from fingerprint_dagster.media.audio import AudioPlugin

stage, folder, plugin = sys.argv[1], Path(sys.argv[2]), AudioPlugin()

def before(stage):
    return codec.decode((folder / stage).read_bytes())

def peak():  # of this program alone: getrusage counts what it was forked from
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

if stage == "decode":
    value = plugin.decode(folder / "hours.mp3")
elif stage == "embed":
    from fingerprint_dagster.models import ModelRuntime

    value = plugin.embed([before("decode")], ModelRuntime(device="cpu", threads=1))[0]
else:
    value = codec.sketch_to_value(plugin.hash(before("decode"), before("embed")))
done = peak()
size = (folder / stage).write_bytes(codec.encode(value)) / 2**20
seconds = time.process_time()
print(f"  {stage:8s}{done:8.0f} MiB{peak():8.0f} MiB with its value ({size:6.1f} MiB) encoded{seconds:8.1f} s CPU")
"""


def cpu_seconds() -> float:
    """CPU time of this process and of the commands it ran."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def in_turn(works: dict[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """CPU milliseconds of each work in each of the runs, after one that does not count."""
    costs: dict[str, list[float]] = {name: [] for name in works}
    for number in range(runs + 1):
        for name, work in works.items():
            before = cpu_seconds()
            work()
            if number:
                costs[name].append(1000 * (cpu_seconds() - before))
    return costs


def music(seconds: int, seed: int) -> np.ndarray:
    """Random chords, four a second, over a little noise: int16 [n, 2] at RATE."""
    random = np.random.default_rng(seed)
    hertz = np.repeat(110 * 2 ** (random.integers(0, 48, (4 * seconds, 4)) / 12), RATE // 4, axis=0)
    voices = np.sin(2 * np.pi * np.cumsum(hertz, axis=0) / RATE)
    stereo = np.stack((voices[:, :3].sum(1), voices[:, 1:].sum(1)), axis=1) + random.normal(0, 0.05, (len(hertz), 2))
    return (6000 * stereo).astype(np.int16)


def write_music(path: Path, codec_name: str, container: str, sound: np.ndarray, rate: int, times: int = 1) -> None:
    """Write the sound `times` times over, as stereo of 128 kbit/s where the codec has a bit rate."""
    import av

    with av.open(str(path), "w", format=container) as file:
        stream: Any = file.add_stream(codec_name, rate=rate, layout="stereo")
        stream.bit_rate = 128_000
        frame = av.AudioFrame.from_ndarray(sound.reshape(1, -1), "s16", "stereo")
        frame.sample_rate = RATE
        size = stream.codec_context.frame_size or 4096
        resampler = av.AudioResampler(stream.format.name, "stereo", rate, frame_size=size)
        packets = [
            packet
            for part in [*resampler.resample(frame), *resampler.resample(None), None]
            for packet in stream.encode(part)
        ]
        length = (packets[-1].pts or 0) + (packets[-1].duration or 0) - (packets[0].pts or 0)
        for number in range(times):
            for packet in packets:
                if number:
                    packet.pts = packet.dts = (packet.pts or 0) + length
                packet.stream = stream
                file.mux(packet)


def store_batch(store: Store, sketch: Sketch, batch: int) -> None:
    """Store a batch of fingerprints that differ in their content only."""
    names = [f"{batch:032x}{each:032x}" for each in range(STORED_AT_ONCE)]
    store.put([Fingerprint(Content(name, "file:///it", "audio"), name, 1, "", "", sketch) for name in names])


def report(path: Path, models: ModelRuntime, runs: int, folder: Path) -> None:
    """Print what each stage costs for one file."""
    plugin = AudioPlugin()
    decoded = decode_audio(path)
    pcm = decoded.arrays["pcm"]
    embedded = plugin.embed([decoded], models)[0]
    sketch = plugin.hash(decoded, embedded)
    store = open_store(folder / f"{path.name}.index")
    batches = iter(range(10**9))
    works: dict[str, Callable[[], object]] = {
        "decode": lambda: decode_audio(path),
        "embed": lambda: plugin.embed([decoded], models),
        "hash": lambda: plugin.hash(decoded, embedded),
        "store": lambda: store_batch(store, sketch, next(batches)),
        "memo (values of three stages as bytes, and back)": lambda: [
            codec.decode(codec.encode(value)) for value in (decoded, embedded, codec.sketch_to_value(sketch))
        ],
        "chromaprint alone (a part of hash)": lambda: chromaprint_v1(pcm),
    }
    note = "; fpcalc is not installed (Debian: libchromaprint-tools)"
    if shutil.which("fpcalc"):
        command = ["fpcalc", "-raw", "-length", "0", str(path)]  # 1.5.1 ends with status 3 at the end of every MP3
        works[FPCALC] = lambda: subprocess.run(command, check=False, capture_output=True)
        output = subprocess.run(command, check=False, capture_output=True, text=True).stdout
        theirs = np.array(output.split("FINGERPRINT=")[1].split(","), np.uint32)
        items = chromaprint_v1(pcm)
        count = min(len(items), len(theirs))
        note = (
            f"; {int(np.bitwise_count(items[:count] ^ theirs[:count]).sum())} of {32 * count} bits differ from fpcalc's"
        )
    costs = in_turn(works, runs)
    costs["store"] = [cost / STORED_AT_ONCE for cost in costs["store"]]
    parts = list(works)[:5]
    costs = {
        **{name: costs[name] for name in parts},
        TOTAL: [sum(values) for values in zip(*(costs[name] for name in parts), strict=True)],
        **{name: costs[name] for name in list(works)[5:]},
    }
    print(f"{path.name}: {len(pcm) / SAMPLE_RATE:.0f} s{note}")
    for name, values in costs.items():
        row = f"  {name:50s} {min(values):8.1f} {statistics.median(values):8.1f}"
        if name == TOTAL and FPCALC in costs:
            ratios = [ours / theirs for ours, theirs in zip(values, costs[FPCALC], strict=True)]
            least = sum(min(costs[part]) for part in parts)
            row += f"   {least / min(costs[FPCALC]):.2f} and {statistics.median(ratios):.2f} times fpcalc"
        print(row)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--hours", type=float, default=6, help="length of the file to measure memory with; or 0")
    arguments = parser.parse_args()
    models = ModelRuntime(device="cpu", threads=1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = arguments.files
        if not paths and arguments.runs:
            sound = music(SECONDS, 0)
            for file, (codec_name, container) in FORMATS.items():
                rate = RATE if codec_name == "libopus" else 44100
                write_music(folder / file, codec_name, container, sound, rate)
            paths = [folder / file for file in FORMATS]
        if arguments.runs:
            print(f"CPU ms: the least and the median of {arguments.runs} runs; models on {models.describe()}")
        for path in paths if arguments.runs else ():
            report(path, models, arguments.runs, folder)
        if arguments.hours:
            path = folder / "hours.mp3"
            times = round(arguments.hours * 3600 / SECONDS)
            write_music(path, *FORMATS["music.mp3"], music(SECONDS, 1), 44100, times)
            megabytes = path.stat().st_size >> 20
            print(f"{times * SECONDS / 3600:.1f} hours of MP3 ({megabytes} MiB): peak memory of each stage's process")
            sys.stdout.flush()
            for stage in ("decode", "embed", "hash"):
                subprocess.run([sys.executable, "-c", MEMORY_PROGRAM, stage, str(folder)], check=True)


if __name__ == "__main__":
    main()
