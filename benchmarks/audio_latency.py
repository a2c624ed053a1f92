"""How long a question about 10 s of sound takes in a catalogue of 1,000 or 100,000 tracks.

    python benchmarks/audio_latency.py FOLDER [--tracks 1000] [--seconds 180] [--queries 20] [--store FOLDER]

FOLDER holds music of any formats, of which a few dozen files are read. Half of these are asked about; they are in the
catalogue, cut to `seconds`. All other tracks of it are synthetic, made from the other half: tokens whose parts (pitch,
intervals, times) come from different real tokens, rows of signs that are half of one real row and half of another
with one bit in ten flipped, landmarks and Chromaprint items of a real track, moved in pitch and scrambled. How often a
token of one track is in another is printed for real and synthetic tracks, as it is what the cost depends on. A
question is a 10-s excerpt of a real track with white noise 10 dB below it; its fingerprint is made beforehand.

Latency is wall time: of `Store.candidates` alone, and of all of `find_copies`, with 100 candidates read and compared.
A catalogue that --store kept from an earlier run is not made again.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from fingerprint_dagster.content import Component, Content, Fingerprint, Sketch, Value
from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.index.store import open_store
from fingerprint_dagster.media.audio import AudioPlugin
from fingerprint_dagster.media.audio.chromaprint import SAMPLE_RATE
from fingerprint_dagster.media.audio.decode import decode_audio
from fingerprint_dagster.models import ModelRuntime
from fingerprint_dagster.search import CANDIDATES, find_copies

BATCH = 5000  # of one put: few large ones write few files
EXCERPT_SECONDS = 10
TOKEN_PARTS = (4, 4, 6, 6, 7)  # bits, from the lowest: how long, when, the two intervals, the pitch
FLIPPED = 0.1  # of the bits of a row of signs
PLUGIN = AudioPlugin()


def fingerprint(pcm: np.ndarray, name: str, models: ModelRuntime) -> Fingerprint:
    """Of mono sound at SAMPLE_RATE."""
    value = Value({"pcm": pcm}, {"duration": len(pcm) / SAMPLE_RATE})
    sketch = PLUGIN.hash(value, PLUGIN.embed([value], models)[0])
    return Fingerprint(Content(name, f"file:///{name}", "audio"), name, 0, "audio/wav", name, sketch)


def sounds(folder: Path, count: int, seconds: int) -> list[np.ndarray]:
    """int16 [n] each: the first `seconds` of so many files, of those that last so long."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            with path.open("rb") as file:
                pcm = decode_audio(path).arrays["pcm"] if PLUGIN.sniff(file.read(4096)) else np.zeros(0, np.int16)
        except ContentError:
            continue
        if len(pcm) >= seconds * SAMPLE_RATE:
            found.append(pcm[: seconds * SAMPLE_RATE])
        if len(found) == count:
            break
    return found


def excerpt(pcm: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A part of the sound, in noise."""
    start = random.integers(len(pcm) - EXCERPT_SECONDS * SAMPLE_RATE)
    cut = pcm[start : start + EXCERPT_SECONDS * SAMPLE_RATE].astype(np.float64)
    noisy: np.ndarray = cut + random.normal(0, cut.std() * 10**-0.5, len(cut))
    return (0.7 * noisy).clip(-32768, 32767).astype(np.int16)


class Pool:
    """What synthetic tracks are made of: the fingerprints of real ones."""

    def __init__(self, real: list[Fingerprint]) -> None:
        self.real = real
        tokens, rows = (np.concatenate([_values(f, kind) for f in real]) for kind in ("tokens", "signs"))
        self.parts, shift = [], 0
        for bits in TOKEN_PARTS:
            self.parts.append((tokens >> np.uint64(shift) & np.uint64((1 << bits) - 1)) << np.uint64(shift))
            shift += bits
        self.rows = rows

    def track(self, number: int) -> Fingerprint:
        """A synthetic track; the same number gives the same."""
        random = np.random.default_rng(number)
        template = self.real[number % len(self.real)]
        components = tuple(
            replace(component, values=self._values(component, random)) for component in template.sketch.components
        )
        name = f"synthetic-{number:07d}"
        content = Content(name, f"file:///{name}", "audio")
        return Fingerprint(content, name, 0, "audio/wav", name, Sketch(components, template.sketch.info))

    def _values(self, component: Component, random: np.random.Generator) -> np.ndarray:
        values, count = component.values, len(component.values)
        if component.kind == "tokens":
            mixed = [random.choice(part, count) for part in self.parts]
            tokens: np.ndarray = np.bitwise_or.reduce(np.stack(mixed), axis=0)
            return tokens
        if component.kind == "signs":
            one, other = (self.rows[random.integers(len(self.rows), size=count)] for _ in range(2))
            half = values.shape[1] // 2
            flips = np.packbits(random.random((count, 8 * values.shape[1])) < FLIPPED, axis=1)
            return np.concatenate((one[:, :half], other[:, half:]), axis=1) ^ flips
        if component.algorithm.startswith("landmarks"):
            # Each landmark gets the pitch of another: bits 1 to 9 of the packed value.
            pitch = random.permutation(values) & np.uint32(0x3FE)
            return np.sort(values & ~np.uint32(0x3FE) | pitch)
        return np.roll(values, int(random.integers(count))) ^ np.uint32(random.integers(2**32))


def _values(fingerprint: Fingerprint, kind: str) -> np.ndarray:
    return np.concatenate([c.values for c in fingerprint.sketch.components if c.kind == kind])


def shared(one: list[Fingerprint], other: list[Fingerprint]) -> float:
    """How often a token of a track of the one list is in a track of the other."""
    tokens = [[np.unique(_values(f, "tokens")) for f in part] for part in (one, other)]
    return float(np.mean([np.isin(a, b).mean() for a in tokens[0] for b in tokens[1]]))


def batches(pool: Pool, count: int) -> Iterator[list[Fingerprint]]:
    """So many synthetic tracks, BATCH at a time."""
    for first in range(0, count, BATCH):
        yield [pool.track(number) for number in range(first, min(first + BATCH, count))]


def seconds_of(action: Callable[..., object], *arguments: object) -> float:
    """Wall time that `action` takes."""
    started = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - started


def main() -> None:
    """Make the catalogue and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tracks", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=180, help="of each track")
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--store", type=Path, help="where the catalogue is kept")
    options = parser.parse_args()
    models = ModelRuntime(device="cpu", threads=1)
    heard = sounds(options.folder, 2 * options.queries, options.seconds)
    real = [fingerprint(pcm, f"real-{number:03d}", models) for number, pcm in enumerate(heard)]
    asked, pool = real[: len(real) // 2], Pool(real[len(real) // 2 :])
    some = [pool.track(number) for number in range(10)]
    rows = {kind: len(_values(some[0], kind)) for kind in ("tokens", "signs")}
    print(
        f"a track: {options.seconds} s, {rows['tokens']:,} tokens, {rows['signs']} rows of signs; a token is in another"
        f" track, real {shared(asked[:10], pool.real[:10]):.2%}, synthetic {shared(asked[:10], some):.2%}"
    )
    queries = [
        fingerprint(excerpt(pcm, np.random.default_rng(number)), f"query-{number}", models)
        for number, pcm in enumerate(heard[: len(asked)])
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = options.store or Path(folder) / "store"
        store = open_store(path)
        if sum(store.count().values()) < options.tracks:
            put = seconds_of(store.put, asked)
            for batch in batches(pool, options.tracks - len(asked)):
                put += seconds_of(store.put, batch)
            built = seconds_of(store.candidates, queries[0], CANDIDATES)
            print(f"put: {put:.0f} s; made searchable: {built:.0f} s", flush=True)
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        print(f"{sum(store.count().values()):,} tracks, {size / 1e6:,.0f} MB")
        first = seconds_of(store.candidates, queries[0], CANDIDATES)
        print(f"{'the first question of a process':34s}{1000 * first:8.0f} ms")
        for name, ask in {
            "candidates": lambda query: store.candidates(query, CANDIDATES),
            "find_copies": lambda query: find_copies(store, PLUGIN, query, 10),
        }.items():
            times = [1000 * seconds_of(ask, query) for query in queries]
            middle, most = np.percentile(times, (50, 95))
            print(f"{name:34s}{middle:8.0f} ms, 95 % below {most:.0f} ms")
        right = [find_copies(store, PLUGIN, query, 1) for query in queries]
        hits = sum(
            bool(found) and found[0].reference == track.content for found, track in zip(right, asked, strict=True)
        )
        print(f"found at the first place: {hits} of {len(queries)}")


if __name__ == "__main__":
    main()
