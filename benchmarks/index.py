"""Look-ups in large collections: `python benchmarks/index.py STORE FOLDER [--rows 1000000] [--hashes-only]`.

STORE holds fingerprints of real pictures (what `fingerprint run` made). They are extended synthetically to the number
of rows: of each picture, made-up ones have its hash with a third of the bits changed at random, its descriptor's signs
with a third changed, a tenth of its words and the others drawn from the words of all, and its local features with other
bits. So they are as alike as pictures of one kind, and the words are as unevenly frequent as real ones. --hashes-only
leaves out everything but hash and signs, for more rows than the disk has place for. The collection in FOLDER is kept
and used again, and added to where it was cut short. Peers: FAISS' flat index of the same hashes, in memory; Meta's HMA
states 10 M hashes in less than 8 GB and 1,000 queries a second as its goals.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from lancedb.index import BTree

from fingerprint_dagster.content import Component, Fingerprint, Sketch
from fingerprint_dagster.index import ranking
from fingerprint_dagster.index.lance import INDEXED, SCHEMA, LanceStore
from fingerprint_dagster.index.record import from_record, to_record
from fingerprint_dagster.index.store import open_store
from fingerprint_dagster.media.registry import content_type
from fingerprint_dagster.search import find_copies

BATCH = 20_000
QUERIES = 200
HASH, WORDS, FEATURES = "pdq_v1", "local_words_v1", "local_features_v1"


def main() -> None:
    """Print one line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--hashes-only", action="store_true")
    options = parser.parse_args()
    real = [f for batch in open_store(options.store).scan() for f in batch if f.content.content_type == "image"]
    real = [lean(f) if options.hashes_only else f for f in sorted(real, key=lambda f: f.content.content_id)]
    store = LanceStore(options.folder)
    missing = store.count().get("image", 0) < options.rows
    if missing:
        row("write the records", clock(lambda: write(store, real, options.rows)))
        row("compact: merge the files, make the search structure", clock(store.compact))
    row("bring the search structure up to date" + ("" if missing else ", which is there"), clock(store.search.refresh))
    told(store, options.folder)
    measure(store, real, options)
    told(store, options.folder)


def lean(fingerprint: Fingerprint) -> Fingerprint:
    """Only hash and signs."""
    kept = tuple(c for c in fingerprint.sketch.components if c.algorithm == HASH or c.kind == "signs")
    return replace(fingerprint, sketch=Sketch(kept, fingerprint.sketch.info))


def write(store: LanceStore, real: list[Fingerprint], rows: int) -> None:
    """The real fingerprints, and made-up ones up to `rows`, written as `put` writes them, many at a time."""
    if not store.count():
        store.put(real)
    maker = Maker(real)
    table = store._table_for_writing()
    for start in range(sum(store.count().values()), rows, BATCH):
        table.add(maker.records(start, min(start + BATCH, rows)))
    for column in INDEXED:
        table.create_index(column, config=BTree(), replace=True)


class Maker:
    """Makes fingerprints out of real ones, always the same one for a number."""

    def __init__(self, real: list[Fingerprint]) -> None:
        self.payloads = [np.frombuffer(to_record(f)["payload"], np.uint8) for f in real]
        self.words = np.concatenate([c.values for f in real if (c := f.component(WORDS)) is not None] or [[0]])

    def records(self, start: int, stop: int) -> pa.Table:
        """The records from `start` to `stop`."""
        payloads: list[bytes] = [b""] * (stop - start)
        of = np.arange(start, stop) % len(self.payloads)
        for base in np.unique(of):
            numbers = np.flatnonzero(of == base)
            for number, made in zip(numbers, self.payload(int(base), start, len(numbers)), strict=True):
                payloads[number] = made.tobytes()
        n = np.arange(start, stop)
        columns = {
            "content_id": [f"image-{i:08}" for i in n],
            "uri": [f"file:///pictures/image-{i:08}.jpg" for i in n],
            "content_type": ["image"] * len(n),
            "digest": [f"{i:064x}" for i in n],
            "size": np.full(len(n), 123456),
            "media_type": ["image/jpeg"] * len(n),
            "key": [f"key-{i}" for i in n],
            "metadata": ["{}"] * len(n),
            "payload": payloads,
            "seq": (1 << 20) + n,
        }
        return pa.table({name: pa.array(columns[name], SCHEMA.field(name).type) for name in SCHEMA.names}, SCHEMA)

    def payload(self, base: int, start: int, count: int) -> np.ndarray:
        """Uint8 [count, bytes]: payloads made out of that of a real picture."""
        rng = np.random.default_rng([base, start])
        made = np.tile(self.payloads[base], (count, 1))
        size = 8 + int.from_bytes(made[0, :8].tobytes(), "little")
        header = json.loads(made[0, 8:size].tobytes())
        for name, part in header.items():
            algorithm, _, what = name.partition("/")
            if what != "values":
                continue
            first, last = (size + offset for offset in part["data_offsets"])
            if algorithm == WORDS:
                kept = made[:, first:last].view(np.uint64).copy()
                new = rng.random(kept.shape) > 0.1
                kept[new] = rng.choice(self.words, int(new.sum()))
                made[:, first:last] = kept.view(np.uint8)
            elif algorithm == FEATURES:
                width = part["shape"][1]
                pattern = rng.integers(0, 256, (count, 1, width), dtype=np.uint8)
                features = made[:, first:last].reshape(count, -1, width)
                made[:, first:last] = (features ^ pattern).reshape(count, -1)
            elif part["dtype"] == "U8":
                changed = noise(rng, (count, last - first), 1 / 3)
                made[:, first:last] ^= changed
                if exact := header.get(f"{algorithm}_int8/values"):  # The vectors, of which the signs are part.
                    vectors = made[:, slice(*(size + offset for offset in exact["data_offsets"]))].view(np.int8)
                    vectors *= 1 - 2 * np.unpackbits(changed, axis=1).astype(np.int8)
        return made


def noise(rng: np.random.Generator, shape: tuple[int, int], share: float) -> np.ndarray:
    """Uint8: bytes in which about this share of the bits is set."""
    bits = rng.random((*shape, 8), dtype=np.float32) < share
    return np.packbits(bits, axis=-1)[..., 0]


def edited(fingerprint: Fingerprint, rng: np.random.Generator) -> Fingerprint:
    """As of an edited copy: up to 31 bits of the hash, 15 % of the signs and half of the words are others."""
    components = []
    for c in fingerprint.sketch.components:
        values = c.values.copy()
        if c.algorithm == HASH:
            flips = np.zeros(256, np.uint8)
            flips[rng.choice(256, rng.integers(1, 32), replace=False)] = 1
            values ^= np.packbits(flips)
        elif c.kind == "signs":
            values ^= noise(rng, values.shape, 0.15)
        elif c.algorithm == WORDS:
            values[::2] = rng.integers(0, 1 << 20, len(values[::2]))
        components.append(Component(c.algorithm, c.kind, values, c.positions, c.searchable, c.asked))
    content = replace(fingerprint.content, content_id="query", uri="file:///query.jpg")
    sketch = Sketch(tuple(components), fingerprint.sketch.info)
    return replace(fingerprint, content=content, digest="0" * 63 + "q", sketch=sketch)


def measure(store: LanceStore, real: list[Fingerprint], options: argparse.Namespace) -> None:
    """Look-ups of edited copies, one by one and many at once, their recall, and what changes cost."""
    rng = np.random.default_rng(1)
    rows = store.count()["image"]
    ids = [f"image-{n:08}" for n in rng.integers(len(real), rows, QUERIES)]
    originals = store.get(ids)
    asked = [edited(f, rng) for f in originals]
    plugin = content_type("image")
    store.candidates(asked[0], 100)
    row("candidates, one query", *[clock(store.candidates, q, 100) for q in asked])
    if not options.hashes_only:
        find_copies(store, plugin, asked[0], 10)
        row("find_copies, one query", *[clock(find_copies, store, plugin, q, 10) for q in asked])
        found = [find_copies(store, plugin, q, 10) for q in asked]
        hit = [
            o.content.content_id in {m.reference.content_id for m in f} for o, f in zip(originals, found, strict=True)
        ]
        print(f"{'  found':44}{np.mean(hit):10.3f}")
        strangers = [from_record(each) for each in Maker(real).records(2 * rows, 2 * rows + QUERIES).to_pylist()]
        row("find_copies, one query without a copy", *[clock(find_copies, store, plugin, q, 10) for q in strangers])
    many = asked * 5
    seconds = clock(store.candidates_many, many, 100)
    row(f"candidates, {len(many):,} queries at once: each", seconds / len(many))
    answers = store.candidates_many(asked, 100)
    for kind in ("hamming", "signs", "tokens"):
        told_kind(kind, originals, asked, answers)
    everything = arrays(store)
    recall(store, asked, everything)
    new = [replace(f, content=replace(f.content, content_id=f"new-{n}")) for n, f in enumerate((real * 7)[:10_000])]
    row("put 10,000, 1,000 at a time", sum(clock(store.put, new[n : n + 1000]) for n in range(0, len(new), 1000)))
    row("the look-up after it", clock(store.candidates, asked[0], 100))
    row("put one", *[clock(store.put, [f]) for f in new[:10]])
    row("the look-up after it", clock(store.candidates, asked[0], 100))
    row("delete 10,000", clock(store.delete, [f.content.content_id for f in new]))
    row("the look-up after it", clock(store.candidates, asked[0], 100))
    faiss_flat(everything, asked)


def told_kind(kind: str, originals: list[Fingerprint], asked: list[Fingerprint], answers: list[list]) -> None:
    """How many of the originals were found by the components of this kind."""
    algorithms = {c.algorithm for f in asked for c in f.sketch.components if c.kind == kind}
    may, found = 0, 0
    for original, answer in zip(originals, answers, strict=True):
        if all(c.searchable is None or c.searchable.any() for c in original.sketch.components if c.kind == kind):
            may += 1
            by = next((c.scores for c in answer if c.content_id == original.content.content_id), {})
            found += bool(algorithms & set(by))
    if algorithms:
        print(f"{'  original found by ' + kind:44}{found / max(may, 1):10.3f}   of {may}")


def arrays(store: LanceStore) -> dict[str, np.ndarray]:
    """All hashes and signs that are stored, uint8 [n, width] by kind."""
    parts: dict[str, list[np.ndarray]] = {}
    for segment in store.search.refresh().segments:
        for key, found in segment.components.items():
            if key.kind in ("hamming", "signs"):
                parts.setdefault(key.kind, []).append(found["values"])
    return {kind: np.concatenate(part) for kind, part in parts.items()}


def recall(store: LanceStore, asked: list[Fingerprint], everything: dict[str, np.ndarray]) -> None:
    """Rows that the structure finds, of those that comparing with every row finds."""
    for segment_kind, bounds in (("hamming", (0.5, 1.0)), ("signs", (0.9, 0.7, 0.5, 0.3))):
        values = everything[segment_kind]
        some = asked[:40]
        queries = [
            c.values[c.asked if c.asked is not None else slice(None)][:1]
            for f in some
            for c in f.sketch.components
            if c.kind == segment_kind
        ]
        queries = np.concatenate(queries)
        wide = values.view(np.uint64)
        want = [np.bitwise_count(wide ^ q.view(np.uint64)).sum(axis=1, dtype=np.int64) for q in queries]
        state = store.search.refresh()
        key = next(k for s in state.segments for k in s.components if k.kind == segment_kind)
        got = [np.concatenate([s.near(key, q[None]).near for s in state.segments]) for q in queries]
        told = []
        for bound in bounds:
            if segment_kind == "hamming":
                limit = ranking.nearness("hamming", 32, np.float32(31 * bound))
            else:
                limit = (bound - ranking.NEAR_SIGNS) / (1 - ranking.NEAR_SIGNS)
            near = [ranking.nearness(segment_kind, values.shape[1], d.astype(np.float32)) for d in want]
            expected = sum(int(((n >= limit) & (n > 0)).sum()) for n in near)
            found = sum(int((g >= limit).sum()) for g in got)
            name = f"<= {31 * bound:.0f} bits" if segment_kind == "hamming" else f"cosine >= {bound}"
            told.append(f"{name}: {found}/{expected}")
        print(f"{'  rows found of those there, ' + segment_kind:44}{'   '.join(told)}")


def faiss_flat(everything: dict[str, np.ndarray], asked: list[Fingerprint]) -> None:
    """FAISS comparing with every hash, in memory: the 8 hashes of each query, 100 nearest."""
    import faiss

    faiss.omp_set_num_threads(1)
    flat = faiss.IndexBinaryFlat(256)
    hashes = everything["hamming"]
    row("FAISS flat: build", clock(flat.add, np.ascontiguousarray(hashes)))
    rows = [f.component(HASH).values for f in asked]
    row("FAISS flat: one query (8 hashes)", *[clock(flat.search, q, 100) for q in rows[:20]])
    row("FAISS flat: 100 at once, each", clock(flat.search, np.concatenate(rows[:100]), 100) / 100)


def told(store: LanceStore, folder: Path) -> None:
    """Size on disk and memory."""
    sizes = {
        p: sum(f.stat().st_size for f in (folder / p).rglob("*") if f.is_file()) for p in ("records.lance", "search")
    }
    state = store.search.refresh()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    kept = {name: int(status[name].split()[0]) / 1e6 for name in ("VmRSS", "RssAnon", "RssFile")}
    print(
        f"\n{sum(store.count().values()):,} fingerprints: records {sizes['records.lance'] / 1e9:.2f} GB, search "
        f"structure {sizes['search'] / 1e9:.2f} GB in {len(state.segments)} segments; resident {kept['VmRSS']:.2f} GB, "
        f"of it own {kept['RssAnon']:.2f}, of mapped files {kept['RssFile']:.2f}\n"
    )


def clock(action: Callable[..., object], *arguments: object) -> float:
    """Seconds that `action` takes."""
    started = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - started


def row(name: str, *seconds: float) -> None:
    """Print the median of `seconds`, and the 99th percentile where there are several."""
    rest = f"   p99 {np.percentile(seconds, 99) * 1e3:10,.1f} ms" if len(seconds) > 1 else ""
    print(f"{name:44}{np.median(seconds) * 1e3:10,.2f} ms{rest}", flush=True)


if __name__ == "__main__":
    main()
