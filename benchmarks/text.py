"""Speed of text fingerprints: one document of 10,000 words, and all texts below a folder.

    python benchmarks/text.py [FOLDER]

FOLDER defaults to the folder of the installed packages. Times are CPU milliseconds of one thread, the best of
several runs. Where datasketch is installed, its MinHash(128) over the same word triples stands beside ours; it is
given the words already split, so normalising is not in its time.
"""

from __future__ import annotations

import random
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fingerprint_dagster.content import Value
from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.media.text import TextPlugin
from fingerprint_dagster.media.text.minhash import minhash_v1
from fingerprint_dagster.media.text.normalize import normalize_v1

WORDS = 10_000
MAX_FILES = 2000


def cpu_ms(work: Callable[[], Any], runs: int = 20) -> float:
    """The least CPU time of `runs` calls, in milliseconds."""
    best = float("inf")
    for _ in range(runs):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best * 1000


def document(rng: random.Random, alphabet: str) -> str:
    """Random words, their frequencies falling as in natural language (Zipf)."""
    vocabulary = ["".join(rng.choices(alphabet, k=rng.randint(2, 10))) for _ in range(5000)]
    weights = [1 / rank for rank in range(1, len(vocabulary) + 1)]
    words = rng.choices(vocabulary, weights, k=WORDS)
    return "".join(word + (", " if rng.random() < 0.1 else ".\n" if rng.random() < 0.05 else " ") for word in words)


def one_document() -> None:
    """Print the table for one document."""
    rng = random.Random(1)
    plugin = TextPlugin()
    print(f"one document of {WORDS} words, CPU ms      ASCII  Cyrillic")
    texts = [document(rng, "abcdefghijklmnopqrstuvwxyz"), document(rng, "абвгдежзийклмнопрстуфхцчшщыьэюя")]
    rows: dict[str, Callable[[str], Any]] = {
        "normalize_v1": normalize_v1,
        "normalize_v1 + minhash_v1": lambda text: minhash_v1(normalize_v1(text)),
        "hash stage (all of it)": lambda text: plugin.hash(decoded(text), Value()),
    }
    try:
        from datasketch import MinHash
    except ImportError:
        print("  (datasketch is not installed)")
    else:

        def datasketch(text: str) -> None:
            words = text.split()
            triples = zip(words, words[1:], words[2:], strict=False)
            MinHash(128).update_batch([" ".join(triple).encode() for triple in triples])

        rows["datasketch MinHash(128), no normalising"] = datasketch
    for name, work in rows.items():
        times = [cpu_ms(lambda text=text, work=work: work(text)) for text in texts]  # type: ignore[misc]
        print(f"  {name:40}" + "".join(f"{ms:8.1f}" for ms in times))


def decoded(text: str) -> Value:
    """`text` as the decode stage would give it."""
    import numpy as np

    stored = np.frombuffer(text.encode(), np.uint8)
    return Value({"text": stored}, {"characters": len(text), "encoding": "utf-8", "media": "text/plain"})


def all_texts(folder: Path) -> None:
    """Print how fast the texts below `folder` go through sniff, decode and hash."""
    plugin = TextPlugin()
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in plugin.extensions]
    files = random.Random(2).sample(files, min(MAX_FILES, len(files)))
    done = size = words = 0
    start = time.process_time()
    for path in files:
        with path.open("rb") as file:
            head = file.read(4096)
        if plugin.sniff(head) is None:
            continue
        try:
            sketch = plugin.hash(plugin.decode(path), Value())
        except ContentError:
            continue
        done, size, words = done + 1, size + path.stat().st_size, words + sketch.info["words"]
    seconds = time.process_time() - start
    print(f"\n{done} texts of {len(files)} files below {folder}: {size / 1e6:.1f} MB, {words} words")
    print(f"  sniff + decode + hash: {done / seconds:.0f} texts/s, {size / 1e6 / seconds:.1f} MB/s on one thread")


if __name__ == "__main__":
    one_document()
    all_texts(Path(sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_path("purelib")))
