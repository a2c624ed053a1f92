"""Speed of the way from a picture file to its stored fingerprint, beside the usual tools, in one run on one machine.

    python benchmarks/images.py [--rounds 20] [PICTURE ...]

Each picture (without one, an enlarged photograph with noise) is written as a JPEG of 1920 x 1080 and one of 12
megapixels, both of quality 90, and as a PNG and a WebP of 1920 x 1080. For each file it prints the milliseconds of
processor time a stage takes on one core (the least of the rounds; embed in batches of 16, store in batches of 100), the
same for `pdqhash` and for `imagehash.phash` after decoding by Pillow, and how many such files a second all cores
fingerprint, up to the store. With a GPU also how many decoded pictures a second its model and its PDQ take. Needs the
`bench` extra.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", OPENCV_FOR_THREADS_NUM="1")

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import imagehash
import numpy as np
import pdqhash
import torch
from PIL import Image, ImageOps
from processor_time import milliseconds
from skimage import data

from fingerprint_dagster.content import Content, Fingerprint, Sketch
from fingerprint_dagster.index.lance import LanceStore
from fingerprint_dagster.media.image import ImagePlugin
from fingerprint_dagster.media.image.iscc import iscc_image_v0
from fingerprint_dagster.media.image.pdq import pdq_dihedral_v1, pdq_frames_torch_v1
from fingerprint_dagster.media.image.phash import phash64_v1
from fingerprint_dagster.models import ModelRuntime
from fingerprint_dagster.settings import available_cores

EMBEDDED_AT_ONCE = 16
STORED_AT_ONCE = 100
KINDS: dict[str, tuple[tuple[int, int], str, dict[str, int]]] = {
    "1080p JPEG": ((1920, 1080), "jpg", {"quality": 90}),
    "12 MP JPEG": ((4000, 3000), "jpg", {"quality": 90}),
    "1080p PNG": ((1920, 1080), "png", {}),
    "1080p WebP": ((1920, 1080), "webp", {"quality": 85}),
}


def main() -> None:
    """Measure, and print a table for each kind of file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", type=Path, metavar="PICTURE")
    parser.add_argument("--rounds", type=int, default=20, help="calls of each stage and each tool")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pictures = [Image.open(path).convert("RGB") for path in arguments.pictures] or [enlarged()]
    with tempfile.TemporaryDirectory() as folder:
        for kind, (size, ending, options) in KINDS.items():
            files = [Path(folder) / f"{number}-{size[0]}.{ending}" for number in range(len(pictures))]
            for picture, file in zip(pictures, files, strict=True):
                ImageOps.fit(picture, size, Image.Resampling.LANCZOS).save(file, **options)
            mean_size = sum(file.stat().st_size for file in files) / len(files)
            print(f"\n{kind}, {mean_size / 1000:,.0f} kB\n")
            measure(files, arguments.rounds, Path(folder) / f"store-{kind}")
        if torch.cuda.is_available():
            on_gpu(files)


def enlarged() -> Image.Image:
    """A photograph of 512 pixels made 4,000 x 3,000, with a little noise: no easier than a real one."""
    photo = Image.fromarray(data.astronaut()).resize((4000, 3000), Image.Resampling.BICUBIC, (0, 60, 512, 444))
    noise = np.random.default_rng(0).normal(0, 1.5, (3000, 4000, 3))
    return Image.fromarray(np.clip(np.asarray(photo, np.int16) + noise, 0, 255).astype(np.uint8))


def measure(files: Sequence[Path], rounds: int, store: Path) -> None:
    """The table of one kind of file."""
    plugin, models, lance = ImagePlugin(), model_runtime(), LanceStore(store)
    decoded = [plugin.decode(file) for file in files]
    batch = [decoded[number % len(decoded)] for number in range(EMBEDDED_AT_ONCE)]
    embedded = plugin.embed(decoded, models)
    sketches = [plugin.hash(one, vectors) for one, vectors in zip(decoded, embedded, strict=True)]
    stages: dict[str, float] = {
        "decode": mean([best_ms(lambda f=file: plugin.decode(f), rounds) for file in files]),
        "embed": best_ms(lambda: plugin.embed(batch, models), max(rounds // 4, 3)) / EMBEDDED_AT_ONCE,
        "hash": mean([best_ms(lambda n=n: plugin.hash(decoded[n], embedded[n]), rounds) for n in range(len(files))]),
        "store": best_ms(lambda: lance.put(fingerprints(sketches)), 3) / STORED_AT_ONCE,
    }
    for stage, took in stages.items():
        row(stage, took)
    row("all of it, ours", sum(stages.values()))
    row("  of it: PDQ in 8 orientations", best_ms(lambda: pdq_dihedral_v1(decoded[0].arrays["rgb"]), rounds))
    row("  of it: pHash", best_ms(lambda: phash64_v1(decoded[0].arrays["rgb"]), rounds))
    row("  of it: ISCC Image-Code", best_ms(lambda: iscc_image_v0(decoded[0].arrays["iscc_grey"]), rounds))
    row("PIL + pdqhash", mean([best_ms(lambda f=file: pil_pdqhash(f), rounds) for file in files]))
    row("PIL + imagehash.phash", mean([best_ms(lambda f=file: pil_phash(f), rounds) for file in files]))
    print(f"{f'on {available_cores()} cores, wall time':38s} {per_second(files, lance, sketches, rounds):8.1f} files/s")


def row(name: str, took: float) -> None:
    """Print one line."""
    print(f"{name:38s} {took:8.2f} ms")


def pil_pdqhash(file: Path) -> object:
    """What one writes with Pillow and pdqhash."""
    return pdqhash.compute(np.asarray(Image.open(file).convert("RGB")))


def pil_phash(file: Path) -> object:
    """What one writes with Pillow and imagehash."""
    return imagehash.phash(Image.open(file))


def fingerprints(sketches: Sequence[Sketch]) -> list[Fingerprint]:
    """As many fingerprints as are stored at once, each of a content of its own."""
    blank = Fingerprint(Content("", "file:///picture", "image"), "0" * 64, 0, "image/jpeg", "", sketches[0])
    names = [f"{time.monotonic_ns()}-{number}" for number in range(STORED_AT_ONCE)]
    return [
        replace(blank, content=replace(blank.content, content_id=name), sketch=sketches[number % len(sketches)])
        for number, name in enumerate(names)
    ]


@cache
def model_runtime() -> ModelRuntime:
    """The models of this process, on its CPU."""
    torch.set_num_threads(1)
    return ModelRuntime("cpu")


def fingerprint_files(files: Sequence[Path]) -> int:
    """Decode, embed and hash, as one process does it with a batch of files."""
    plugin = ImagePlugin()
    decoded = [plugin.decode(file) for file in files]
    embedded = plugin.embed(decoded, model_runtime())
    return len([plugin.hash(one, vectors) for one, vectors in zip(decoded, embedded, strict=True)])


def per_second(files: Sequence[Path], store: LanceStore, sketches: Sequence[Sketch], rounds: int) -> float:
    """Files a second that one process on each core decodes, embeds and hashes while this one stores them."""
    cores = available_cores()
    tasks = [[files[number % len(files)] for number in range(EMBEDDED_AT_ONCE)]] * (cores * max(rounds // 4, 2))
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(fingerprint_files, tasks[:cores]))
        start = time.perf_counter()
        done = sum(pool.map(fingerprint_files, tasks))
        for _ in range(-(-done // STORED_AT_ONCE)):
            store.put(fingerprints(sketches))
        return done / (time.perf_counter() - start)


def on_gpu(files: Sequence[Path]) -> None:
    """The model and PDQ on a GPU, decoding apart."""
    models, count = ModelRuntime("cuda"), 512
    decoded = [ImagePlugin().decode(files[number % len(files)]) for number in range(count)]
    frames = torch.from_numpy(np.stack([decoded[0].arrays["rgb"]] * count)).cuda()
    print(f"\n{torch.cuda.get_device_name()}\n")

    def clock(run: Callable[[], object]) -> float:
        run()
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        return count / (time.perf_counter() - start)

    print(
        f"{'embed, with the way to the GPU':38s} {clock(lambda: ImagePlugin().embed(decoded, models)):8.0f} pictures/s"
    )
    print(f"{'PDQ, pictures on the GPU':38s} {clock(lambda: pdq_frames_torch_v1(frames)):8.0f} pictures/s")


def best_ms(run: Callable[[], object], rounds: int) -> float:
    """The least processor time of one call, in milliseconds."""
    return min(milliseconds(run, rounds))


def mean(values: Sequence[float]) -> float:
    """The mean of the files' times."""
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
