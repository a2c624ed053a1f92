"""Speed of text fingerprints: one document of 10,000 words by stage, and all texts below a folder.

    python benchmarks/text.py [FOLDER]

FOLDER defaults to the folder of the installed packages. Times are CPU milliseconds of one thread, the best of
several runs. Beside ours stand, where they are installed, datasketch's MinHash(128) over the same word triples, fed one
at a time as its documentation shows and in one batch, rensa's RMinHash(128), both given the words already split, and
iscc-lib's Text-Code, which is part of ours.
"""

from __future__ import annotations

import random
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from processor_time import milliseconds

from fingerprint_dagster.codec import encode, sketch_to_value
from fingerprint_dagster.content import Value
from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.media.text import TextPlugin
from fingerprint_dagster.media.text.iscc import text_code_v0
from fingerprint_dagster.media.text.minhash import lsh_tokens_v2, minhash_v2
from fingerprint_dagster.media.text.normalize import normalize_v2
from fingerprint_dagster.media.text.semantic import semantic_version
from fingerprint_dagster.media.text.simhash import simhash_v1
from fingerprint_dagster.media.text.winnowing import winnow_v1
from fingerprint_dagster.media.text.words import packed_words_v1, shingles_v1, words_v1

WORDS = 10_000
MAX_FILES = 2000


def document(rng: random.Random, alphabet: str) -> str:
    """Random words, their frequencies falling as in natural language (Zipf)."""
    vocabulary = ["".join(rng.choices(alphabet, k=rng.randint(2, 10))) for _ in range(5000)]
    weights = [1 / rank for rank in range(1, len(vocabulary) + 1)]
    words = rng.choices(vocabulary, weights, k=WORDS)
    return "".join(word + (", " if rng.random() < 0.1 else ".\n" if rng.random() < 0.05 else " ") for word in words)


def embed(plugin: TextPlugin, decoded: Value) -> Value:
    """The embed stage of one text: its model needs no runtime."""
    return plugin.embed([decoded], None)[0]  # type: ignore[arg-type]


def stages(text: str, path: Path) -> dict[str, Callable[[], Any]]:
    """What is timed, by its name."""
    plugin = TextPlugin()
    path.write_text(text, encoding="utf-8")
    decoded = plugin.decode(path)
    embedded = embed(plugin, decoded)
    sketch = plugin.hash(decoded, embedded)
    normalised = normalize_v2(text)
    words = words_v1(normalised)
    shingles = shingles_v1(words)
    split = normalised.text.split()

    def all_stages() -> bytes:
        value = plugin.decode(path)
        return encode(sketch_to_value(plugin.hash(value, embed(plugin, value))))

    rows: dict[str, Callable[[], Any]] = {
        "decode stage": lambda: plugin.decode(path),
        "embed stage" + ("" if semantic_version() else " (no model)"): lambda: embed(plugin, decoded),
        "hash stage": lambda: plugin.hash(decoded, embedded),
        "  normalising": lambda: normalize_v2(text),
        "  words and shingles": lambda: shingles_v1(words_v1(normalised)),
        "  MinHash and its tokens": lambda: lsh_tokens_v2(minhash_v2(shingles)),
        "  SimHash": lambda: simhash_v1(shingles),
        "  winnowing": lambda: winnow_v1(shingles),
        "  record of the words": lambda: packed_words_v1(words),
        "  ISCC Text-Code (iscc-lib)": lambda: text_code_v0(text),
        "to bytes": lambda: encode(sketch_to_value(sketch)),
        "file to stored fingerprint": all_stages,
    }
    return rows | peers(split)


def peers(words: list[str]) -> dict[str, Callable[[], Any]]:
    """The same for those that are installed."""
    rows: dict[str, Callable[[], Any]] = {}

    def triples() -> list[str]:
        return [" ".join(triple) for triple in zip(words, words[1:], words[2:], strict=False)]

    try:
        from datasketch import MinHash
    except ImportError:
        print("(datasketch is not installed)")
    else:

        def one_at_a_time() -> None:
            signature = MinHash(128)
            for triple in triples():
                signature.update(triple.encode())

        rows["datasketch MinHash(128), one at a time"] = one_at_a_time
        rows["datasketch MinHash(128), batch"] = lambda: MinHash(128).update_batch([t.encode() for t in triples()])
    try:
        from rensa import RMinHash
    except ImportError:
        print("(rensa is not installed)")
    else:

        def rensa() -> Any:
            signature = RMinHash(128, 1)
            signature.update(triples())
            return signature.digest()

        rows["rensa RMinHash(128)"] = rensa
    return rows


def one_document() -> None:
    """Print the table for one document."""
    rng = random.Random(1)
    texts = [document(rng, "abcdefghijklmnopqrstuvwxyz"), document(rng, "абвгдежзийклмнопрстуфхцчшщыьэюя")]
    with tempfile.TemporaryDirectory() as folder:
        columns = [stages(text, Path(folder) / f"{number}.txt") for number, text in enumerate(texts)]
        print(f"one document of {WORDS} words, CPU ms      ASCII  Cyrillic")
        for name in columns[0]:
            runs = 5 if "one at a time" in name else 20
            print(f"  {name:40}" + "".join(f"{min(milliseconds(column[name], runs)):8.1f}" for column in columns))
        stored = [len(column["file to stored fingerprint"]()) for column in columns]
    sizes = ", ".join(f"{kept} of {len(text.encode())}" for kept, text in zip(stored, texts, strict=True))
    print(f"  bytes stored of bytes of text: {sizes}")


def all_texts(folder: Path) -> None:
    """Print how fast the texts below `folder` go from file to stored fingerprint, and how long that is."""
    plugin = TextPlugin()
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in plugin.extensions]
    files = random.Random(2).sample(files, min(MAX_FILES, len(files)))
    done = size = words = stored = 0
    start = time.process_time()
    for path in files:
        try:
            decoded = plugin.decode(path)
        except ContentError:
            continue
        sketch = plugin.hash(decoded, embed(plugin, decoded))
        stored += len(encode(sketch_to_value(sketch)))
        done, size, words = done + 1, size + len(decoded.arrays["text"]), words + sketch.info["words"]
    seconds = time.process_time() - start
    print(f"\n{done} texts of {len(files)} files below {folder}: {size / 1e6:.1f} MB of text, {words} words")
    print(f"  file to stored fingerprint: {done / seconds:.0f} texts/s, {size / 1e6 / seconds:.1f} MB/s on one thread")
    print(f"  stored: {stored / max(done, 1):.0f} bytes a text, {stored / max(size, 1):.0%} of the texts")


if __name__ == "__main__":
    one_document()
    all_texts(Path(sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_path("purelib")))
