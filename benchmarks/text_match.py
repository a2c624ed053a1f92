"""How well copies of texts are found: known edits and natural near-duplicates, beside datasketch and SimHash.

    python benchmarks/text_match.py FOLDER [REFERENCES] [BASES]

Of the texts below FOLDER a random part (default: 1,000) is stored. BASES of them (default: 50) are edited in known
ways or quoted inside unrelated texts that are not stored, written to files, fingerprinted like any other, and looked up
with `find_copies`. What matches at the default threshold counts; suggestions by meaning do not.

What is right: the text the query was made from, any other stored text that has a run of 12 words in common with that
text, by brute force over the words themselves, and any match whose two ranges are the same text for half of their words
at least, as difflib compares them (revisions and templates that have no long run in common). All else is a false match.
Precision is counted over all matches, recall over the texts that the queries were made from.

The peers: MinHash(128) and MinHashLSH(threshold=0.5) of datasketch over lower-case word triples, its candidates
verified by the estimated similarity; and SimHash over the same triples at 3 of 64 bits, the usual threshold. Times are
CPU milliseconds of one thread for a query, without making its fingerprint.
"""

from __future__ import annotations

import itertools
import math
import random
import re
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fingerprint_dagster.content import Content, Fingerprint, Match
from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.index.exact import ExactStore
from fingerprint_dagster.media.text import TextPlugin
from fingerprint_dagster.media.text.boilerplate import BOILERPLATE
from fingerprint_dagster.media.text.decode import text_of
from fingerprint_dagster.media.text.words import LONG_WORDS, WORDS, word_places_v1
from fingerprint_dagster.search import find_copies

MIN_WORDS = 100
TOP = 100
SAME_TEXT = 0.5
RELATED_RUN = 12
NATURAL_JACCARD = 0.5
PASSAGES = (50, 200, 1000)
IDEOGRAPH = "\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f"
WORD = re.compile(rf"[{IDEOGRAPH}]|[^\W{IDEOGRAPH}]+")
PIECE = re.compile(rf"[{IDEOGRAPH}]|[^\s{IDEOGRAPH}]+|\s+")
LATIN = dict(zip("aceopxyiABCEHKMOPTX", "асеорхуіАВСЕНКМОРТХ", strict=True))
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"
UNDISGUISED = {ord(cyrillic): latin for latin, cyrillic in LATIN.items()} | dict.fromkeys(map(ord, INVISIBLE))
MISREAD = {
    "rn": "m",
    "m": "rn",
    "l": "1",
    "I": "l",
    "O": "0",
    "o": "0",
    "e": "c",
    "c": "e",
    "h": "b",
    "S": "5",
    "cl": "d",
}

Edit = Callable[[str, random.Random, Sequence[str]], str]


# --- edits


def white_space(text: str, rng: random.Random, _: Sequence[str]) -> str:
    """Other line breaks and runs of spaces."""
    return "".join(rng.choice((" ", "  ", "\n", "\t")) if piece.isspace() else piece for piece in PIECE.findall(text))


def case_and_punctuation(text: str, rng: random.Random, _: Sequence[str]) -> str:
    """Words in capitals, half of the punctuation left out, some added."""
    pieces = []
    for piece in PIECE.findall(text):
        piece = rng.choice((piece, piece.upper(), piece.title()))
        piece = "".join(c for c in piece if c.isalnum() or c.isspace() or rng.random() < 0.5)
        pieces.append(piece + rng.choice(",;!") if piece.isalpha() and rng.random() < 0.1 else piece)
    return "".join(pieces)


def word_edits(share: float) -> Edit:
    """Replaces, leaves out or adds a word at `share` of the places."""

    def edit(text: str, rng: random.Random, vocabulary: Sequence[str]) -> str:
        pieces = []
        for piece in PIECE.findall(text):
            if piece.isspace() or rng.random() >= share:
                pieces.append(piece)
                continue
            kind = rng.randrange(3)
            pieces += (
                [] if kind == 0 else [rng.choice(vocabulary)] if kind == 1 else [piece, " ", rng.choice(vocabulary)]
            )
        return "".join(pieces)

    return edit


def shuffled(text: str, rng: random.Random, _: Sequence[str]) -> str:
    """Paragraphs in another order; parts of some 60 words where there are fewer than four."""
    parts = [part for part in re.split(r"\n\s*\n", text) if part.strip()]
    if len(parts) < 4:
        pieces = PIECE.findall(text)
        parts = ["".join(pieces[start : start + 120]) for start in range(0, len(pieces), 120)]
    rng.shuffle(parts)
    return "\n\n".join(parts)


def misread(text: str, rng: random.Random, _: Sequence[str]) -> str:
    """Letters as a scanner misreads them, 2 % of those that look alike, and some lost spaces."""
    text = re.sub("|".join(MISREAD), lambda m: MISREAD[m[0]] if rng.random() < 0.02 else m[0], text)
    return re.sub(" ", lambda m: "" if rng.random() < 0.01 else " ", text)


def homoglyphs(text: str, rng: random.Random, _: Sequence[str]) -> str:
    """Latin letters replaced by Cyrillic ones of the same shape."""
    return "".join(LATIN.get(c, c) if rng.random() < 0.5 else c for c in text)


def zero_width(text: str, rng: random.Random, _: Sequence[str]) -> str:
    """Invisible characters inside the words."""
    return "".join(c + rng.choice(INVISIBLE) if c.isalnum() and rng.random() < 0.3 else c for c in text)


EDITS: dict[str, Edit] = {
    "nothing but the name": lambda text, *_: text,
    "white space": white_space,
    "case and punctuation": case_and_punctuation,
    "5 % of words edited": word_edits(0.05),
    "15 % of words edited": word_edits(0.15),
    "30 % of words edited": word_edits(0.30),
    "paragraphs shuffled": shuffled,
    "misread letters (OCR)": misread,
    "homoglyphs": homoglyphs,
    "zero-width characters": zero_width,
}


# --- the truth


def words_of(text: str) -> list[str]:
    """The words of a text, for the truth and the peers: lower case, ideographs one by one."""
    return WORD.findall(text.lower())


class Runs:
    """Which stored texts have a run of `length` words in common with another text, and how many, by brute force."""

    def __init__(self, texts: Iterable[Sequence[str]], length: int) -> None:
        self.length = length
        sets = [self.of(words) for words in texts]
        self.sizes = np.array([len(runs) for runs in sets])
        owners, runs = np.repeat(np.arange(len(sets)), self.sizes), np.concatenate(sets)
        order = np.argsort(runs, kind="stable")
        self._owners, self._runs = owners[order], runs[order]

    def of(self, words: Sequence[str]) -> npt.NDArray[np.int64]:
        """The distinct runs of a text, as hashes."""
        shifted = [words[start:] for start in range(self.length)]
        return np.unique(np.fromiter(map(hash, zip(*shifted, strict=False)), np.int64))

    def shared(self, runs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """For each stored text, how many of `runs` it has."""
        first = np.searchsorted(self._runs, runs, "left")
        counts = np.searchsorted(self._runs, runs, "right") - first
        where = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        return np.bincount(self._owners[where], minlength=len(self.sizes))


# --- the methods


@dataclass
class Found:
    """What one method found for the queries of one edit."""

    right: int = 0
    false: int = 0
    recalled: int = 0
    queries: int = 0
    seconds: float = 0.0
    falsely: list[str] = field(default_factory=list)

    def add(self, found: set[int], base: int | None, related: set[int]) -> None:
        """Count the matches of one query."""
        self.queries += 1
        self.right += len(found & related)
        self.false += len(found - related)
        self.recalled += base in found

    def __str__(self) -> str:
        precision = self.right / (self.right + self.false) if self.right + self.false else 1.0
        recall = self.recalled / self.queries
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        return f"  {precision:5.3f} {recall:5.3f} {f1:5.3f}"


class Datasketch:
    """MinHash(128) + MinHashLSH, candidates verified."""

    THRESHOLD = 0.5

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        from datasketch import MinHashLSH

        self._lsh = MinHashLSH(threshold=self.THRESHOLD, num_perm=128)
        self._stored = [self._signature(words) for words in texts]
        for number, signature in enumerate(self._stored):
            self._lsh.insert(number, signature)

    def _signature(self, words: Sequence[str]) -> Any:
        from datasketch import MinHash

        signature = MinHash(num_perm=128)
        signature.update_batch([" ".join(run).encode() for run in zip(words, words[1:], words[2:], strict=False)])
        return signature

    def find(self, words: Sequence[str]) -> Callable[[], set[int]]:
        """The look-up of one query, its signature made already."""
        signature = self._signature(words)
        return lambda: {n for n in self._lsh.query(signature) if self._stored[n].jaccard(signature) >= self.THRESHOLD}


class SimHash:
    """SimHash over word triples, compared with everything."""

    BITS = 3

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        self._stored = np.array([self._of(words) for words in texts])

    def _of(self, words: Sequence[str]) -> np.uint64:
        import xxhash

        runs = zip(words, words[1:], words[2:], strict=False)
        hashes = np.array([xxhash.xxh3_64_intdigest(" ".join(run).encode()) for run in runs] or [0], np.uint64)
        ones = np.unpackbits(hashes.view(np.uint8).reshape(-1, 8), axis=1).mean(axis=0)
        return np.uint64(np.packbits(ones > 0.5).view(np.uint64)[0])

    def find(self, words: Sequence[str]) -> Callable[[], set[int]]:
        """The look-up of one query, its hash made already."""
        value = self._of(words)
        return lambda: set(np.flatnonzero(np.bitwise_count(self._stored ^ value) <= self.BITS).tolist())


class Ours:
    """The text plug-in with the store in memory."""

    def __init__(self, paths: Sequence[Path], folder: Path) -> None:
        self.plugin, self.store, self._folder = TextPlugin(), ExactStore(), folder
        self.store.put([self.fingerprint(path, str(number)) for number, path in enumerate(paths)])

    def fingerprint(self, path: Path, name: str) -> Fingerprint:
        """All stages."""
        decoded = self.plugin.decode(path)
        (embedded,) = self.plugin.embed([decoded], None)  # type: ignore[arg-type]
        sketch = self.plugin.hash(decoded, embedded)
        return Fingerprint(Content(name, path.as_uri(), "text"), name, path.stat().st_size, "text/plain", "", sketch)

    def query(self, text: str) -> Fingerprint:
        """The fingerprint of a text, written to a file first."""
        path = self._folder / "query.txt"
        path.write_text(text, encoding="utf-8", errors="replace")
        return self.fingerprint(path, "query")

    def number(self, match: Match) -> int:
        """The number of the stored text that matches."""
        return int(match.reference.content_id)

    def find(self, query: Fingerprint) -> list[Match]:
        """Its matches."""
        return [m for m in find_copies(self.store, self.plugin, query, TOP) if not m.details.get("suggestion")]


# --- the tables


def read(folder: Path) -> list[tuple[Path, str]]:
    """The texts below a folder that have enough words, each with its text as decoded."""
    plugin, texts = TextPlugin(), []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in plugin.extensions:
            try:
                text = text_of(plugin.decode(path))
            except ContentError:
                continue
            if len(words_of(text)) >= MIN_WORDS:
                texts.append((path, text))
    return texts


def boundaries(text: str) -> list[int]:
    """Where the pieces of a text begin that are words."""
    return [match.start() for match in PIECE.finditer(text) if WORD.search(match[0])]


def words_between(text: str, one: float, other: float) -> int:
    """How many words lie between two places in a text."""
    return len(words_of(text[int(min(one, other)) : int(max(one, other))]))


def same_text(one: str, range_: Any, other: str, other_range: Any) -> bool:
    """Whether two ranges are the same text, for half of their words at least."""
    parts = [
        words_of(text[int(start) : int(end)].translate(UNDISGUISED))
        for text, (start, end) in ((one, range_), (other, other_range))
    ]
    return SequenceMatcher(None, parts[0], parts[1], autojunk=False).ratio() >= SAME_TEXT


def main() -> None:
    """Print the tables."""
    rng = random.Random(1)
    everything = read(Path(sys.argv[1]))
    rng.shuffle(everything)
    stored = everything[: int(sys.argv[2]) if len(sys.argv) > 2 else 1000]
    others = everything[len(stored) :]
    bases = rng.sample(range(len(stored)), min(int(sys.argv[3]) if len(sys.argv) > 3 else 50, len(stored)))
    words = [words_of(text) for _, text in stored]
    vocabulary = sorted({word for number in bases for word in words[number]})
    runs = Runs(words, RELATED_RUN)
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours([path for path, _ in stored], Path(folder))
        peers: dict[str, Datasketch | SimHash] = {"datasketch": Datasketch(words), "SimHash": SimHash(words)}
        print(f"{len(stored)} texts stored, {sum(map(len, words))} words; {len(bases)} of them edited")
        print(f"{'precision, recall, F1':26}{'ours':>15}" + "".join(f"{name:>20}" for name in peers))
        totals: dict[str, Found] = defaultdict(Found)

        def agrees(text: str, number: int, found: Sequence[Match]) -> bool:
            ranges = [m for m in found if ours.number(m) == number and m.query_range and m.reference_range]
            return any(same_text(text, m.query_range, stored[number][1], m.reference_range) for m in ranges)

        def all_methods(text: str, base: int | None, related: set[int]) -> dict[str, set[int]]:
            query, listed = ours.query(text), words_of(text)
            finds: dict[str, Callable[[], Any]] = {"ours": lambda: ours.find(query)}
            finds |= {name: peer.find(listed) for name, peer in peers.items()}
            result = {}
            for name, find in finds.items():
                start = time.process_time()
                found = find()
                totals[name].seconds += time.process_time() - start
                if name == "ours":
                    related |= {n for n in map(ours.number, found) if n not in related and agrees(text, n, found)}
                    found = set(map(ours.number, found))
                result[name] = found
                totals[name].add(result[name], base, related)
                for number in result[name] - related:
                    totals[name].falsely.append(f"{stored[number][0].name} <- {base and stored[base][0].name}")
            return result

        for name, edit in EDITS.items():
            rows: dict[str, Found] = defaultdict(Found)
            for base in bases:
                text = edit(stored[base][1], rng, vocabulary)
                related = {base, *np.flatnonzero(runs.shared(runs.of(words[base]))).tolist()}
                for method, found in all_methods(text, base, related).items():
                    rows[method].add(found, base, related)
            print(f"  {name:24}" + "".join(map(str, rows.values())))

        quotations(ours, stored, others, bases, 2)
        natural(all_methods, stored, others, words, runs, rng)
        for name, total in totals.items():
            milliseconds = 1000 * total.seconds / total.queries
            print(f"{name}: {total.false} false matches in {total.queries} queries; {milliseconds:.1f} ms a query")
            for line in total.falsely[:10]:
                print(f"    {line}")


def quotations(
    ours: Ours, stored: Sequence[tuple[Path, str]], others: Sequence[tuple[Path, str]], bases: Sequence[int], seed: int
) -> None:
    """Print how passages inside unrelated texts are found, and where. The peers compare whole texts: they cannot.

    Passages of texts that everybody has, licences, are left out on purpose; they are counted by themselves.
    """
    rng = random.Random(seed)
    hosts = [text for _, text in others if 300 <= len(text.split()) <= 5000]
    print("\npassages inside a text that is not stored: found; with both ranges within 5 words; largest error in words")
    for length, share in itertools.product(PASSAGES, (0.0, 0.05, 0.15)):
        errors: list[float] = []
        missed: list[str] = []
        boilerplate = 0
        for base in bases:
            text, host = stored[base][1], rng.choice(hosts)
            begins = boundaries(text)
            if len(begins) < length + 2:
                continue
            first = rng.randrange(len(begins) - length)
            start, end = begins[first], len(text[: begins[first + length]].rstrip())
            quoted = word_edits(share)(text[start:end], rng, host.split())
            cut = rng.choice(boundaries(host))
            query = f"{host[:cut]}\n\n{quoted}\n\n{host[cut:]}"
            at = (cut + 2, cut + 2 + len(quoted))
            if excluded(ours, base, text, start, end):
                boilerplate += 1
                continue
            error = math.inf
            for match in ours.find(ours.query(query)):
                mine, its = match.query_range, match.reference_range
                if ours.number(match) == base and mine and its and mine[0] < at[1] and mine[1] > at[0]:
                    one = (words_between(query, here, there) for here, there in zip(mine, at, strict=True))
                    other = (words_between(text, here, there) for here, there in zip(its, (start, end), strict=True))
                    error = min(error, max(*one, *other))
            errors.append(error)
            missed += [stored[base][0].name] if error == math.inf else []
        if not errors:
            continue
        found = [error for error in errors if error < math.inf]
        name = f"{length} words" + (f", {share:.0%} edited" if share else "")
        print(
            f"  {name:24} {len(found) / len(errors):5.3f}  {sum(e <= 5 for e in found) / len(errors):5.3f}  "
            f"median {np.median(found):.0f}, most {max(found):.0f}   of {len(errors)}"
            + (f" (and {boilerplate} of a licence)" if boilerplate else "")
            + (f"; missed: {', '.join(missed)}" if missed else "")
        )


def excluded(ours: Ours, base: int, text: str, start: int, end: int) -> bool:
    """Whether most of a passage is text that everybody has, as the fingerprint of its text says."""
    (fingerprint,) = ours.store.get([str(base)])
    words, known = fingerprint.component(WORDS), fingerprint.component(BOILERPLATE)
    long = fingerprint.component(LONG_WORDS)
    assert words is not None
    assert known is not None
    assert long is not None
    begins, _ = word_places_v1(words.values, long.values)
    first, last = np.searchsorted(begins, (start, end))
    covered = sum(max(0, min(last, b) - max(first, a)) for a, b in known.values.tolist())
    return bool(covered > (last - first) / 2)


def natural(
    all_methods: Callable[[str, int | None, set[int]], dict[str, set[int]]],
    stored: Sequence[tuple[Path, str]],
    others: Sequence[tuple[Path, str]],
    words: Sequence[Sequence[str]],
    runs: Runs,
    rng: random.Random,
) -> None:
    """Print how the natural near-duplicates of texts that are not stored are found, and how many false ones."""
    triples = Runs(words, 3)
    recalled: dict[str, list[int]] = {}
    false: dict[str, int] = defaultdict(int)
    unrelated = 0
    queries = rng.sample(list(others), min(200, len(others)))
    for _, text in queries:
        listed = words_of(text)
        mine = triples.of(listed)
        shared = triples.shared(mine)
        near = set(np.flatnonzero(shared >= NATURAL_JACCARD * (len(mine) + triples.sizes - shared)).tolist())
        related = set(np.flatnonzero(runs.shared(runs.of(listed))).tolist()) | near
        unrelated += len(stored) - len(related)
        for name, found in all_methods(text, None, related).items():
            counts = recalled.setdefault(name, [0, 0])
            counts[0] += len(found & near)
            counts[1] += len(near)
            false[name] += len(found - related)
    print(
        f"\nnatural near-duplicates (Jaccard similarity of word triples >= {NATURAL_JACCARD}) of {len(queries)} texts"
    )
    for name, (hits, total) in recalled.items():
        print(f"  {name:12} {hits / max(total, 1):5.3f} of {total} pairs; {false[name]} false of {unrelated} unrelated")


if __name__ == "__main__":
    main()
