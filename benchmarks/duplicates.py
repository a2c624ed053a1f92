"""A collection joined with itself: `python benchmarks/duplicates.py STORE FOLDER [--contents 100000] [--copies 5000]`.

STORE holds fingerprints of real pictures (what `fingerprint run` made). They are extended synthetically to the number
of contents, as `benchmarks/index.py` tells: what is made up is somewhat like the picture it was made of, and a copy of
nothing, as most pictures in the collections of people have no copy there. COPIES more are as of edited copies: half of
their words are others and one in seven signs, and of the hash up to 31 bits, or in every second one, as of a crop, a
third of the bits. The collection in FOLDER is kept and used again; the pairs are found anew. Peer: FAISS comparing the
hashes of all with each other, in memory and with as many threads: it verifies nothing, and sees no turned or mirrored
copies, for which it would take eight times as long.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from index import HASH, arrays, clock, edited, noise, row, told, write

from fingerprint_dagster.content import Fingerprint
from fingerprint_dagster.duplicates.join import Joined, join
from fingerprint_dagster.duplicates.pairs import Pairs
from fingerprint_dagster.index.lance import LanceStore
from fingerprint_dagster.index.store import open_store
from fingerprint_dagster.settings import available_cores

COPY = "copy of "
"""What the content_id of a planted copy begins with; that of its original follows."""


def main() -> None:
    """Print one line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--contents", type=int, default=100_000)
    parser.add_argument("--copies", type=int, default=5_000)
    parser.add_argument("--workers", type=int, default=available_cores())
    options = parser.parse_args()
    store = LanceStore(options.folder)
    if not store.count():
        make(store, options.store, options.contents, options.copies)
    store.search.refresh()
    told(store, options.folder)
    with tempfile.TemporaryDirectory(dir=options.folder) as home:
        pairs = Pairs(Path(home), str(options.folder))
        done: list[Joined] = []
        for name in (f"join with itself, {options.workers} processes", "again, with nothing new"):
            row(name, clock(lambda: done.append(join(store, pairs, workers=options.workers))))
        found = {pair.ids for pair in pairs.pairs()}
    print(f"{'  pairs verified, and found':44}{done[0].verified:10,} {done[0].found:10,}")
    planted = sorted(
        f.content.content_id
        for part in store.scan(sketches=False)
        for f in part
        if f.content.content_id.startswith(COPY)
    )
    hit = sum(tuple(sorted((each, each.removeprefix(COPY)))) in found for each in planted)
    print(f"{'  planted copies found':44}{hit:10,} of {len(planted):,}")
    told(store, options.folder)
    faiss_join(arrays(store)["hamming"], options.workers)


def make(store: LanceStore, real: str, contents: int, copies: int) -> None:
    """Put the real pictures, made-up ones, and the copies into the store: as many as `contents`."""
    pictures = [f for batch in open_store(real).scan() for f in batch if f.content.content_type == "image"]
    write(store, sorted(pictures, key=lambda f: f.content.content_id), contents - copies)
    rng = np.random.default_rng(2)
    numbers = rng.choice(np.arange(len(pictures), contents - copies), copies, replace=False)
    for part in np.array_split(numbers, max(1, copies // 1000)):
        originals = store.get([f"image-{number:08}" for number in part])
        store.put([copy_of(original, rng, cropped=bool(n % 2)) for n, original in enumerate(originals)])
    store.compact()


def copy_of(original: Fingerprint, rng: np.random.Generator, *, cropped: bool) -> Fingerprint:
    """As of an edited copy under an address of its own."""
    copy = edited(original, rng)
    if cropped:
        components = [
            replace(c, values=c.values ^ noise(rng, c.values.shape, 1 / 3)) if c.algorithm == HASH else c
            for c in copy.sketch.components
        ]
        copy = replace(copy, sketch=replace(copy.sketch, components=tuple(components)))
    name = COPY + original.content.content_id
    content = replace(original.content, content_id=name, uri=f"file:///copies/{original.content.content_id}.jpg")
    return replace(copy, content=content, digest=rng.bytes(32).hex())


def faiss_join(hashes: np.ndarray, threads: int) -> None:
    """All pairs of upright hashes with 31 bits or less between them."""
    import faiss

    faiss.omp_set_num_threads(threads)
    flat = faiss.IndexBinaryFlat(8 * hashes.shape[1])
    flat.add(np.ascontiguousarray(hashes))
    counts: list[int] = []

    def compare() -> None:
        for start in range(0, len(hashes), 10_000):
            limits, _, _ = flat.range_search(np.ascontiguousarray(hashes[start : start + 10_000]), 32)
            counts.append(int(limits[-1]))

    row(f"FAISS flat: {HASH} with itself, {threads} threads", clock(compare))
    print(f"{'  pairs found':44}{(sum(counts) - len(hashes)) // 2:10,}")


if __name__ == "__main__":
    main()
