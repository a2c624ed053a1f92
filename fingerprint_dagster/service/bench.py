"""How fast the service is: every content type cold, warm and cached, then batches, against the promises made for it.

The media are generated: a picture of 1920 x 1080 pixels, three minutes of stereo sound, a minute of video with sound,
and a text of 10,000 words, all with the detail and the redundancy that real ones have.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fingerprint_dagster.service.service import FingerprintService
from fingerprint_dagster.settings import Settings, available_cores

REQUIRED_SECONDS = 30.0
CACHED_SECONDS = {"memory": 0.001, "disk": 0.010, "Redis": 0.010}
BATCH = 10
# What such a service is usually promised to take, in seconds on a CPU, and how many times faster ours must be.
PROMISED = {"image": (2.0, 5.0, 20), "audio": (3.0, 6.0, 5), "video": (8.0, 15.0, 5), "text": (1.0, 2.0, 20)}
PROMISED_SPEED_UP = "3-4x on 4 workers"
WHAT = {
    "image": "1920x1080 JPEG",
    "audio": "3 minutes of MP3",
    "video": "1 minute of 1280x720 H.264 with sound",
    "text": "10,000 words",
}
RATE = 44_100


@dataclass(frozen=True)
class Row:
    """Seconds of one kind of request. required: what every request must meet; of cached ones, what the median must."""

    content_type: str
    mode: str
    iterations: int
    average: float
    median: float
    min: float
    max: float
    stdev: float
    required: float

    @property
    def passed(self) -> bool:
        """Whether the requirement is met."""
        return (self.median if self.mode.startswith("cached") else self.max) <= self.required


@dataclass(frozen=True)
class BatchRow:
    """Seconds of a batch, one after the other and together."""

    batch: str
    contents: int
    sequential: float
    parallel: float

    @property
    def speed_up(self) -> float:
        """How many times faster together."""
        return self.sequential / self.parallel


# ---------------------------------------------------------------------- the media


def write_media(folder: Path) -> dict[str, list[Path]]:
    """Generate what is not there yet: content type -> files, the first of which is the one that is timed alone."""
    folder.mkdir(parents=True, exist_ok=True)
    media: dict[str, list[Path]] = {
        "image": [folder / f"picture{number}.jpg" for number in range(BATCH)],
        "audio": [folder / f"sound{number}.mp3" for number in range(BATCH)],
        "video": [folder / "film.mp4"],
        "text": [folder / f"text{number}.txt" for number in range(BATCH)],
    }
    for number, path in enumerate(media["image"]):
        if not path.exists():
            _write_picture(path, number)
    for number, path in enumerate(media["text"]):
        if not path.exists():
            path.write_text(_text(number), encoding="utf-8")
    sound = media["audio"][0]
    if not sound.exists():
        _write_sound(sound)
    for number, path in enumerate(media["audio"][1:]):
        # The same sound under another title: other bytes, which must be worked on like any others.
        path.write_bytes(sound.read_bytes() + b"TAG" + f"title {number}".encode().ljust(125, b"\0"))
    if not media["video"][0].exists():
        _write_film(media["video"][0])
    return media


def _landscape(seed: int, width: int, height: int) -> NDArray[np.uint8]:
    """RGB [height, width, 3]: detail at every scale, as natural pictures have, and some hard edges."""
    import cv2

    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), np.float32)
    for octave in range(2, 10):
        cells = rng.normal(size=(max(2, (1 << octave) * height // width), 1 << octave, 3)).astype(np.float32)
        larger: NDArray[np.float32] = cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)  # type: ignore[assignment]
        picture += larger / np.float32(1.6**octave)
    low, high = np.percentile(picture, (1, 99))
    rgb: NDArray[np.uint8] = np.clip((picture - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    for _ in range(25):
        x, y, size = rng.integers(0, width), rng.integers(0, height), rng.integers(height // 30, height // 5)
        colour = [int(each) for each in rng.integers(0, 256, 3)]
        cv2.ellipse(rgb, (int(x), int(y)), (int(size), int(size) // 2), int(rng.integers(0, 180)), 0, 360, colour, -1)
    return rgb


def _write_picture(path: Path, seed: int) -> None:
    from PIL import Image

    Image.fromarray(_landscape(seed, 1920, 1080)).save(path, quality=88)


def _text(seed: int) -> str:
    """10,000 words whose frequencies fall as in natural language (Zipf), in sentences and paragraphs."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("eeeetttaaaooiinnsshhrrdlucmwfgypbvk"))
    vocabulary = ["".join(rng.choice(letters, rng.integers(1, 11))) for _ in range(6000)]
    weights = 1 / np.arange(1, len(vocabulary) + 1)
    words = rng.choice(np.array(vocabulary), 10_000, p=weights / weights.sum())
    ends = rng.choice(np.array([" "] * 17 + [", "] * 2 + [". "] * 2 + [".\n\n"]), 10_000)
    return "".join(word + end for word, end in zip(words, ends, strict=True))


def _music(seconds: float, seed: int = 0) -> NDArray[np.int16]:
    """int16 [n, 2] at 44,100 Hz: chords with overtones that change twice a second, over a beat of noise."""
    rng = np.random.default_rng(seed)
    beat = RATE // 2
    time_ = np.arange(beat, dtype=np.float32) / RATE
    fade = np.exp(-4 * time_)
    parts = []
    for number in range(int(seconds * 2)):
        chord = 110 * 2 ** (rng.choice([0, 2, 3, 5, 7, 8, 10, 12, 14, 15], 3) / 12)
        tones = sum(np.sin(2 * np.pi * tone * part * time_) / part for tone in chord for part in (1, 2, 3, 5))
        drum = rng.normal(size=beat).astype(np.float32) * np.exp(-(30 if number % 2 else 12) * time_)
        parts.append(np.stack([tones * fade + drum, tones * fade + 0.7 * drum], axis=1))
    sound = np.concatenate(parts)
    samples: NDArray[np.int16] = (sound / np.abs(sound).max() * 30_000).astype(np.int16)
    return samples


def _write_sound(path: Path) -> None:
    import av

    samples = _music(180)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libmp3lame", rate=RATE, layout="stereo")
        stream.bit_rate = 192_000
        _encode_sound(file, stream, samples)


def _encode_sound(file: Any, stream: Any, samples: NDArray[np.int16]) -> None:
    import av

    for start in range(0, len(samples), RATE):
        part = np.ascontiguousarray(samples[start : start + RATE].reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(part, "s16", "stereo")
        frame.sample_rate, frame.pts = RATE, start
        file.mux(stream.encode(frame))
    file.mux(stream.encode(None))


def _write_film(path: Path, seconds: int = 60, rate: int = 25) -> None:
    """The camera moves over landscapes; a cut every six seconds, a keyframe every two."""
    import av

    width, height = 1280, 720
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "crf": "23", "g": str(2 * rate)})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        sound = file.add_stream("aac", rate=RATE, layout="stereo")
        for shot in range(seconds // 6):
            scene = _landscape(100 + shot, width + 300, height + 150)
            for number in range(6 * rate):
                x, y = 2 * number, number
                frame = av.VideoFrame.from_ndarray(
                    np.ascontiguousarray(scene[y : y + height, x : x + width]), format="rgb24"
                )
                file.mux(video.encode(frame))
        file.mux(video.encode(None))
        _encode_sound(file, sound, _music(seconds, seed=1))


# ---------------------------------------------------------------------- measuring


COLD = """
import asyncio, sys, time
started = time.perf_counter()
from fingerprint_dagster import FingerprintService

async def main():
    async with FingerprintService() as service:
        await service.generate_fingerprint(sys.argv[1], sys.argv[2])
        print(time.perf_counter() - started)

if __name__ == "__main__":
    asyncio.run(main())
"""


def measure_cold(path: Path, content_type: str, iterations: int, folder: Path) -> list[float]:
    """Seconds from the import in a new process, with an empty home, to the first answer: all is loaded in between."""
    script = folder / "cold.py"
    script.write_text(COLD)
    seconds = []
    for _ in range(iterations):
        home = Path(tempfile.mkdtemp(dir=folder))
        command = [sys.executable, str(script), str(path), content_type]
        environment = os.environ | {"FINGERPRINT_HOME": str(home)}
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        seconds.append(float(done.stdout))
    return seconds


async def _timed(ask: Callable[[], Awaitable[object]], iterations: int, before: Callable[[], object]) -> list[float]:
    seconds = []
    for _ in range(iterations):
        before()
        started = time.perf_counter()
        await ask()
        seconds.append(time.perf_counter() - started)
    return seconds


def _row(content_type: str, mode: str, seconds: Sequence[float], required: float) -> Row:
    return Row(
        content_type,
        mode,
        len(seconds),
        statistics.fmean(seconds),
        statistics.median(seconds),
        min(seconds),
        max(seconds),
        statistics.stdev(seconds) if len(seconds) > 1 else 0.0,
        required,
    )


@contextmanager
def redis_server(folder: Path) -> Iterator[str | None]:
    """A Redis server for the time of the block; None where the program or the package is not installed."""
    program = shutil.which("redis-server")
    try:
        import redis
    except ModuleNotFoundError:
        program = None
    if program is None:
        yield None
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    try:
        client = redis.Redis(port=port)
        for _ in range(100):
            with suppress(redis.ConnectionError):
                client.ping()
                break
            time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


async def _measure(
    settings: Settings, media: dict[str, list[Path]], iterations: int, redis_url: str | None
) -> tuple[list[Row], list[BatchRow], dict[str, Any]]:
    rows: list[Row] = []
    batches: list[BatchRow] = []
    async with FingerprintService(settings) as service:
        models = await service.load_models()
        for name, (path, *_) in media.items():

            async def anew(path: Path = path, name: str = name) -> None:
                await service.generate_fingerprint(str(path), name, use_cache=False)

            async def again(path: Path = path, name: str = name) -> None:
                result = await service.generate_fingerprint(str(path), name)
                assert result.cached

            await anew()
            count = max(3, iterations // 4) if name in ("audio", "video") else iterations
            rows.append(_row(name, "warm", await _timed(anew, count, lambda: None), REQUIRED_SECONDS))
            times = await _timed(again, 20 * iterations, lambda: None)
            rows.append(_row(name, "cached, memory", times, CACHED_SECONDS["memory"]))
            times = await _timed(again, iterations, service.clear_cache)
            rows.append(_row(name, "cached, disk", times, CACHED_SECONDS["disk"]))
        mixed = [*media["image"][:4], *media["audio"][:3], media["video"][0], *media["text"][:2]]
        for name, paths in (("images", media["image"]), ("audio", media["audio"]), ("mixed", mixed)):
            items = [(str(path), _type_of(path)) for path in paths]
            await service.flush()
            started = time.perf_counter()
            for url, kind in items:
                await service.generate_fingerprint(url, kind, use_cache=False)
            sequential = time.perf_counter() - started
            await service.flush()
            started = time.perf_counter()
            results = await service.batch_generate_fingerprints(items, use_cache=False)
            assert all(result.ok for result in results)
            batches.append(BatchRow(name, len(items), sequential, time.perf_counter() - started))
    if redis_url is not None:
        settings = settings.model_copy(update={"memo": redis_url})
        async with FingerprintService(settings) as service:
            for name, (path, *_) in media.items():
                await service.generate_fingerprint(str(path), name)

                async def once_more(path: Path = path, name: str = name) -> None:
                    assert (await service.generate_fingerprint(str(path), name)).layer == "memo"

                times = await _timed(once_more, iterations, service.clear_cache)
                rows.append(_row(name, "cached, Redis", times, CACHED_SECONDS["Redis"]))
    return rows, batches, models


def _type_of(path: Path) -> str:
    return {".jpg": "image", ".mp3": "audio", ".mp4": "video", ".txt": "text"}[path.suffix]


def run_bench(settings: Settings, iterations: int, media_folder: Path | None, *, cold: bool = True) -> dict[str, Any]:
    """Measure everything; the answer as JSON data: configuration, rows, batches, and what was promised.

    settings: those of the service, but for its home, which is a temporary one. media_folder: where the generated media
    are kept; by default nowhere.
    """
    with tempfile.TemporaryDirectory(prefix="fingerprint-bench-") as name, redis_server(Path(name)) as redis_url:
        folder = Path(name)
        media = write_media(media_folder or folder / "media")
        rows = []
        if cold:
            for kind, (path, *_) in media.items():
                seconds = measure_cold(path, kind, 2, folder)
                rows.append(_row(kind, "cold", seconds, REQUIRED_SECONDS))
        own = settings.model_copy(update={"home": folder / "home", "store": "", "memo": "", "allowed_folders": ()})
        measured, batches, models = asyncio.run(_measure(own, media, iterations, redis_url))
    order = {mode: place for place, mode in enumerate(("cold", "warm"))}
    kinds = list(WHAT)
    rows = sorted([*rows, *measured], key=lambda row: (kinds.index(row.content_type), order.get(row.mode, 2)))
    warm = {row.content_type: row.median for row in rows if row.mode == "warm"}
    return {
        "configuration": {
            "device": models["device"],
            "precision": models["precision"],
            "model": settings.image_model,
            "runtime": models["runtime"],
            "model_batch": models["batch_size"],
            "workers": settings.worker_count,
            "cores": available_cores(),
            "processor": _processor(),
            "cache_ttl_seconds": settings.cache_ttl_seconds,
            "timeout_seconds": settings.service_timeout_seconds,
            "redis": redis_url is not None,
            "iterations": iterations,
        },
        "rows": [{**asdict(row), "passed": row.passed} for row in rows],
        "batches": [{**asdict(batch), "speed_up": batch.speed_up} for batch in batches],
        "promises": [
            {
                "content_type": kind,
                "promised_seconds": [low, high],
                "median": warm[kind],
                "times_faster": [low / warm[kind], high / warm[kind]],
                "required": times,
                "passed": low / warm[kind] >= times,
            }
            for kind, (low, high, times) in PROMISED.items()
        ],
    }


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(": ")[2]
    return platform.processor() or platform.machine()


# ---------------------------------------------------------------------- printing


def print_report(report: dict[str, Any]) -> None:
    """The report as tables."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(width=150 if not sys.stdout.isatty() else None, highlight=False)
    about = report["configuration"]
    console.print(
        f"device {about['device']} ({about['precision']}), model {about['model']} by {about['runtime']} in batches "
        f"of {about['model_batch']}, {about['workers']} worker processes on {about['cores']} cores of "
        f"{about['processor']}, cache TTL {about['cache_ttl_seconds']:g} s, time limit {about['timeout_seconds']:g} s"
    )
    if not about["redis"]:
        console.print("no Redis figures: redis-server or the extra `redis` is not installed")
    table = Table(
        "content", "", "iterations", *(f"{each}, ms" for each in ("average", "median", "min", "max", "st. dev."))
    )
    table.add_column("required")
    table.box, table.pad_edge = box.SIMPLE_HEAD, False
    before = ""
    for row in report["rows"]:
        name = f"{row['content_type']}: {WHAT[row['content_type']]}" if row["content_type"] != before else ""
        before = row["content_type"]
        times = [_ms(row[each]) for each in ("average", "median", "min", "max", "stdev")]
        verdict = f"{'PASS' if row['passed'] else 'FAIL'} (< {row['required']:g} s)"
        table.add_row(name, row["mode"], str(row["iterations"]), *times, verdict)
    console.print(table)
    table = Table("batch", "contents", "sequential, s", "parallel, s", "speed-up", box=box.SIMPLE_HEAD, pad_edge=False)
    for batch in report["batches"]:
        figures = f"{batch['sequential']:.2f}", f"{batch['parallel']:.2f}", f"{batch['speed_up']:.1f}x"
        table.add_row(batch["batch"], str(batch["contents"]), *figures)
    console.print(table)
    table = Table("content", "promised, s", "ours (warm, median), s", "times faster", "required", "")
    table.box, table.pad_edge = box.SIMPLE_HEAD, False
    for promise in report["promises"]:
        low, high = promise["promised_seconds"]
        table.add_row(
            promise["content_type"],
            f"{low:g}-{high:g}",
            f"{promise['median']:.3f}",
            "{:.0f}-{:.0f}".format(*promise["times_faster"]),
            f"{promise['required']}",
            "PASS" if promise["passed"] else "FAIL",
        )
    console.print(table)
    console.print(f"promised besides: cached < 0.01 s; batches {PROMISED_SPEED_UP}")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g}" if seconds < 0.1 else f"{seconds * 1000:.0f}"


def write_json(report: dict[str, Any], path: Path) -> None:
    """The report as a JSON file."""
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
