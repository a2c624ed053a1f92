"""One immutable part of the search structure: some contents, and arrays to find them by, in memory or in mapped files.

Each kind of component has its arrays (rows: n; owners: the number, within the segment, of the content a row is of):

- hamming: multi-index hashing (Norouzi, Punjani and Fleet, "Fast Exact Search in Hamming Space with Multi-Index
  Hashing", 2014). A hash of 16 m bits is m words; of two hashes with fewer than 2 m bits different, one word differs in
  one bit or none. So the rows in the buckets of each word and its 16 neighbours hold all with fewer than one bit in
  eight different, and those are compared. `order` uint32 [m, n]: rows by word; `starts` uint32 [m, 2**16 + 1]: buckets.
- signs, cosine: an inverted file. Rows lie sorted by the nearest of some centres (`starts`, `centres`); only the lists
  of the centres nearest to a query are compared (`probes`). Below FLAT_ROWS rows everything is.
- tokens: inverted lists: the distinct `tokens`, ascending, `starts`, and the `owners` of each.
"""

from __future__ import annotations

import itertools
import json
import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash

from fingerprint_dagster.index import ranking

# Up to here every row is compared: that takes less than looking into buckets, and needs no tables.
FLAT_ROWS = 4096
# One list of an inverted file has about this many rows.
ROWS_PER_LIST = 256
# The least share found of rows whose vectors have such a cosine with the query's. Of 1,188 edited photographs among a
# million pictures, .99, .98 and .95 of the originals were found (`benchmarks/index.py` measures made-up ones).
RECALL = {0.9: 0.98, 0.7: 0.95, 0.5: 0.9}
# Below this many queries it is quicker to gather the rows of each than the queries of each list.
FEW_QUERIES = 16
# Rows that centres are fitted to, for each centre.
FIT_ROWS = 24
# Rows that are compared with all centres at once.
_TOGETHER = 8192
# Pairs of rows compared at once, and postings merged at once: some 100 MB.
PAIRS = 1 << 20
POSTINGS = 1 << 23

_WORD = 1 << 16
_NEIGHBOURS = np.array([0, *(1 << bit for bit in range(16))], np.uint16)

Arrays = dict[str, np.ndarray]


class Key(NamedTuple):
    """What rows are comparable by. width: of a row; 0 for tokens."""

    kind: str
    algorithm: str
    width: int


class Rows(NamedTuple):
    """Rows of one component: values [n, width] or tokens uint64 [n], and owners uint32 [n]."""

    values: np.ndarray
    owners: np.ndarray


class Hits(NamedTuple):
    """Near rows: the query row's number, the number of the content it was found in, the nearness float32. Each [n]."""

    query: np.ndarray
    owner: np.ndarray
    near: np.ndarray


@dataclass(frozen=True)
class Segment:
    """Contents and what they are found by. `arrays`: see the module; `types`: the content types, by number."""

    types: list[str]
    components: Mapping[Key, Arrays]
    arrays: Arrays
    name: str = ""
    maps: tuple[mmap.mmap, ...] = ()

    def release(self) -> None:
        """Give back the memory of mapped files; what is touched again is mapped again, from the system's cache."""
        for each in self.maps:
            if hasattr(mmap, "MADV_DONTNEED"):
                each.madvise(mmap.MADV_DONTNEED)

    def __len__(self) -> int:
        return len(self.arrays["type"])

    def ids(self, numbers: np.ndarray) -> list[str]:
        """The content_ids of these contents."""
        ends, text = self.arrays["id_ends"], self.arrays["id_text"]
        starts = np.where(numbers > 0, ends[np.maximum(numbers, 1) - 1], 0)
        return [text[a:b].tobytes().decode() for a, b in zip(starts.tolist(), ends[numbers].tolist(), strict=True)]

    def find(self, content_ids: Sequence[str]) -> np.ndarray:
        """The numbers of the contents with these ids, where they are here: int64, ascending."""
        hashes, order = self.arrays["id_hash"], self.arrays["id_order"]
        wanted = id_hashes(content_ids)
        first = np.searchsorted(hashes, wanted)
        last = np.searchsorted(hashes, wanted, side="right")
        asked, numbers = expand(first, last)
        numbers = order[numbers].astype(np.int64)
        same = [content_ids[a] == b for a, b in zip(asked.tolist(), self.ids(numbers), strict=True)]
        return np.sort(numbers[np.array(same, bool)])

    def with_digest(self, digest: str) -> np.ndarray:
        """The numbers of the contents whose digest begins like this one, int64."""
        key = digest_keys([digest])[0]
        keys, order = self.arrays["digest"], self.arrays["digest_order"]
        first, last = np.searchsorted(keys, key), np.searchsorted(keys, key, side="right")
        return np.asarray(order[first:last].astype(np.int64))

    def of_type(self, content_type: str) -> np.ndarray:
        """Bool [contents]: which are of this type."""
        number = self.types.index(content_type) if content_type in self.types else 255
        return np.asarray(self.arrays["type"] == number)

    def near(self, key: Key, queries: np.ndarray) -> Hits:
        """The rows near to one of `queries` [n, width]."""
        arrays = self.components.get(key)
        if arrays is None:
            return no_hits()
        if "starts" not in arrays:
            return _near_flat(key.kind, arrays, queries)
        if key.kind == "hamming":
            return _near_in_buckets(arrays, queries)
        return _near_in_lists(key.kind, arrays, queries)

    def holders(self, key: Key, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the lists of the owners of these tokens begin and end, int64: equal where nobody has one."""
        arrays = self.components.get(key)
        if arrays is None or not len(arrays["tokens"]):
            return np.zeros(len(tokens), np.int64), np.zeros(len(tokens), np.int64)
        at, order = np.empty(len(tokens), np.int64), np.argsort(tokens)
        at[order] = np.searchsorted(arrays["tokens"], tokens[order])  # In this order each is near the one before.
        here = arrays["tokens"][np.minimum(at, len(arrays["tokens"]) - 1)] == tokens
        at = np.where(here, at, 0)
        first = arrays["starts"][at]
        return first, np.where(here, arrays["starts"][at + 1], first)


def id_hashes(content_ids: Sequence[str]) -> np.ndarray:
    """64 bits of each id, uint64."""
    return np.fromiter((xxhash.xxh3_64_intdigest(i.encode()) for i in content_ids), np.uint64, len(content_ids))


def digest_keys(digests: Sequence[str]) -> np.ndarray:
    """64 bits of each digest, uint64."""
    return np.fromiter((xxhash.xxh3_64_intdigest(d.encode()) for d in digests), np.uint64, len(digests))


def no_hits() -> Hits:
    """Nothing near."""
    return Hits(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))


def expand(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All numbers of several ranges: the number of the range, and the number in it, int64 each."""
    counts = (last - first).astype(np.int64)
    ranges = np.repeat(np.arange(len(counts)), counts)
    begins = np.cumsum(counts) - counts
    return ranges, np.arange(len(ranges)) + np.repeat(first.astype(np.int64) - begins, counts)


def entries(array: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """The entries of several ranges of an array, one after the other."""
    parts = [array[a:b] for a, b in zip(first.tolist(), last.tolist(), strict=True)]
    return np.concatenate(parts) if parts else array[:0]


def _near_flat(kind: str, arrays: Arrays, queries: np.ndarray) -> Hits:
    values, owners = arrays["values"], arrays["owners"]
    step = max(1, PAIRS // max(1, len(values)))
    parts = (np.arange(start, min(start + step, len(queries))) for start in range(0, len(queries), step))
    return joined([_compared(kind, values, owners, queries, part) for part in parts])


def _compared(kind: str, values: np.ndarray, owners: np.ndarray, queries: np.ndarray, asking: np.ndarray) -> Hits:
    """Some rows compared with each of some queries, by their numbers: those that are near."""
    distance = ranking.distances(kind, values, queries[asking])
    row, query = np.divmod(np.flatnonzero(distance < ranking.farthest(kind, queries.shape[1])), len(asking))
    near = ranking.nearness(kind, queries.shape[1], distance[row, query])
    return Hits(asking[query], owners[row].astype(np.int64), near)


def _near_in_buckets(arrays: Arrays, queries: np.ndarray) -> Hits:
    """See the module: all rows with fewer than one bit in eight different."""
    starts, order = arrays["starts"], arrays["order"]
    words = _words(queries)
    table = np.arange(words.shape[1])[:, None]
    found = []
    step = max(1, int(PAIRS / (words.shape[1] * len(_NEIGHBOURS) * (1 + order.shape[1] / _WORD))))
    for begin in range(0, len(queries), step):
        part = words[begin : begin + step]
        buckets = (part[:, :, None] ^ _NEIGHBOURS).astype(np.int64)  # [queries, words, 17]
        # Where they begin and end in all tables one after the other.
        first, last = (starts[table, at] + table * order.shape[1] for at in (buckets, buckets + 1))
        bucket, at = expand(first.ravel(), last.ravel())
        query = np.repeat(np.arange(begin, begin + len(part)), buckets[0].size)[bucket]
        found.append(_compare_pairs(arrays, queries, query, order.ravel().take(at)))
    return joined(found)


def _near_in_lists(kind: str, arrays: Arrays, queries: np.ndarray) -> Hits:
    """Each query compared with the rows in the lists whose centres are nearest to it."""
    starts, centres = arrays["starts"], arrays["centres"]
    probes = probes_of(len(centres))
    step = 4 * PAIRS // len(centres)
    found = []
    for begin in range(0, len(queries), step):
        vectors = _vectors(kind, queries[begin : begin + step])
        few = len(vectors) < FEW_QUERIES
        # For the product of a few, too, BLAS would start its threads, which then wait busily, and are in others' way.
        likeness = np.vecdot(vectors[:, None], centres) if few else vectors @ centres.T
        lists = np.argpartition(likeness, -probes, axis=1)[:, -probes:]
        if few:  # All lists of a query together.
            for query, mine in enumerate(lists, begin):
                values, owners = (
                    entries(arrays[name], starts[mine], starts[mine + 1]) for name in ("values", "owners")
                )
                found.append(_compared(kind, values, owners, queries, np.array([query])))
            continue
        order = np.argsort(lists, axis=None, kind="stable")  # All queries of a list together.
        asking, wanted = order // probes + begin, lists.ravel()[order]
        for first, last in itertools.pairwise(np.flatnonzero(np.diff(wanted, prepend=-1, append=-1)).tolist()):
            of_list = slice(starts[wanted[first]], starts[wanted[first] + 1])
            values, owners = arrays["values"][of_list], arrays["owners"][of_list]
            found.append(_compared(kind, values, owners, queries, asking[first:last]))
    return joined(found)


def probes_of(lists: int) -> int:
    """Into how many lists of so many a query row looks: more of more, but an ever smaller share."""
    return min(lists, 4 + 3 * math.isqrt(lists) // 2)


def _compare_pairs(arrays: Arrays, queries: np.ndarray, query: np.ndarray, rows: np.ndarray) -> Hits:
    """Those of the pairs of a query's hash and a stored one that are near, each once."""
    values, owners = arrays["values"], arrays["owners"]
    width = values.shape[1]
    farthest = ranking.farthest("hamming", width)
    word = np.uint64 if width % 8 == 0 else np.uint8
    one, other = (side.take(of, axis=0).view(word) for side, of in ((values, rows), (queries, query)))
    bits = np.bitwise_count(np.bitwise_xor(one, other))
    half = (bits.shape[1] + 1) // 2  # Mostly enough to see that it is far; where a byte overflows, it is seen below.
    close = np.flatnonzero(sum(bits.T[:half]) < farthest)
    different = bits[close].sum(axis=1, dtype=np.uint16)
    hit = different < farthest
    query, rows = query[close[hit]], rows[close[hit]]
    near = ranking.nearness("hamming", width, different[hit].astype(np.float32))
    _, first = np.unique(query * len(owners) + rows, return_index=True)
    return Hits(query[first], owners[rows[first]].astype(np.int64), near[first])


def joined(found: Sequence[Hits]) -> Hits:
    """Several lists of hits as one."""
    if not found:
        return no_hits()
    return found[0] if len(found) == 1 else Hits(*(np.concatenate(part) for part in zip(*found, strict=True)))


def _words(values: np.ndarray) -> np.ndarray:
    """Hashes as words of 16 bits, uint16 [n, words]; an odd last byte is a word of its own."""
    padded = np.pad(values, ((0, 0), (0, values.shape[1] % 2)))
    return np.ascontiguousarray(padded).view(np.uint16)


def _vectors(kind: str, values: np.ndarray) -> np.ndarray:
    """Rows as float32 vectors of about the same length."""
    if kind == "cosine":
        return values.astype(np.float32)
    vectors = np.unpackbits(values, axis=1).astype(np.float32)
    vectors *= 2
    vectors -= 1
    return vectors


def contents_arrays(ids: Sequence[str], types: np.ndarray, digests: np.ndarray, places: np.ndarray) -> Arrays:
    """The arrays of a segment that tell of its contents. digests: `digest_keys`; places: where the records are."""
    texts = [i.encode() for i in ids]
    hashes = id_hashes(ids)
    return _contents_arrays(
        np.frombuffer(b"".join(texts), np.uint8),
        np.cumsum([len(text) for text in texts], dtype=np.int64),
        hashes,
        types,
        digests,
        places,
    )


def _contents_arrays(
    text: np.ndarray, ends: np.ndarray, hashes: np.ndarray, types: np.ndarray, digests: np.ndarray, places: np.ndarray
) -> Arrays:
    by_id, by_digest = (np.argsort(keys, kind="stable").astype(np.uint32) for keys in (hashes, digests))
    return {
        "id_text": text,
        "id_ends": ends,
        "id_hash": hashes[by_id],
        "id_order": by_id,
        "digest": digests[by_digest],
        "digest_order": by_digest,
        "type": types.astype(np.uint8),
        "place": places.astype(np.int64),
    }


def index_rows(kind: str, rows: Rows) -> Arrays:
    """The arrays that rows of this kind are found by. The owners of tokens must ascend."""
    if kind == "tokens":
        order = np.argsort(rows.values, kind="stable")
        values, owners = rows.values[order], rows.owners[order]
        # A token counts once for a content, however often it has it.
        new = np.ones(len(values), bool)
        new[1:] = (values[1:] != values[:-1]) | (owners[1:] != owners[:-1])
        values, owners = values[new], owners[new]
        first = np.flatnonzero(np.diff(values, prepend=~values[:1]))
        return {"tokens": values[first], "starts": np.append(first, len(values)), "owners": owners}
    values = rows.values.astype(np.float16) if kind == "cosine" else np.ascontiguousarray(rows.values)
    if len(values) < FLAT_ROWS:
        return {"values": values, "owners": rows.owners}
    if kind == "hamming":
        words = _words(values)
        order = np.stack([np.argsort(column, kind="stable").astype(np.uint32) for column in words.T])
        counts = np.stack([np.bincount(column, minlength=_WORD) for column in words.T])
        starts = np.pad(np.cumsum(counts, axis=1), ((0, 0), (1, 0))).astype(np.uint32)
        return {"values": values, "owners": rows.owners, "order": order, "starts": starts}
    centres, nearest = _cluster(kind, values)
    by_list = np.argsort(nearest, kind="stable")
    starts = np.pad(np.cumsum(np.bincount(nearest, minlength=len(centres))), (1, 0))
    return {"values": values[by_list], "owners": rows.owners[by_list], "starts": starts, "centres": centres}


def _cluster(kind: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres float32 [lists, dim] and the number of the nearest one of each row, by spherical k-means on a sample."""
    rng = np.random.default_rng(len(values))
    count = 1 << int(np.log2(len(values) / ROWS_PER_LIST))
    sample = _vectors(kind, values[np.sort(rng.choice(len(values), min(len(values), FIT_ROWS * count), replace=False))])
    centres = sample[rng.choice(len(sample), count, replace=False)]
    for _ in range(3):
        centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-9)
        nearest = _nearest(sample, centres)
        order = np.argsort(nearest, kind="stable")
        met, first = np.unique(nearest[order], return_index=True)
        centres[met] = np.add.reduceat(sample[order], first, axis=0)
    centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-9)
    parts = [values[start : start + _TOGETHER] for start in range(0, len(values), _TOGETHER)]
    return centres, np.concatenate([_nearest(_vectors(kind, part), centres) for part in parts])


def _nearest(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Int32 [rows]: the number of each row's nearest centre. Some rows at a time: all their products are gigabytes."""
    nearest = np.empty(len(vectors), np.int32)
    for start in range(0, len(vectors), _TOGETHER):
        part = slice(start, start + _TOGETHER)
        nearest[part] = np.argmax(vectors[part] @ centres.T, axis=1)
    return nearest


@dataclass
class SegmentWriter:
    """Writes the arrays of a segment into the new folder `folder`, raw; `segment.json` tells what they are."""

    folder: Path
    types: list[str]
    _keys: list[Key] = field(default_factory=list)
    _shapes: dict[str, tuple[str, list[int]]] = field(default_factory=dict)

    def add(self, arrays: Arrays, key: Key | None = None) -> None:
        """Add whole arrays, or more rows of such as were added before; those of a component with its key."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if key is not None and key not in self._keys:
            self._keys.append(key)
        for name, array in arrays.items():
            full = f"{self._keys.index(key)}.{name}" if key is not None else name
            with open(self.folder / full, "ab") as file:
                np.ascontiguousarray(array).tofile(file)
            dtype, shape = self._shapes.get(full, (array.dtype.str, [0, *array.shape[1:]]))
            assert (dtype, shape[1:]) == (array.dtype.str, list(array.shape[1:]))
            self._shapes[full] = dtype, [shape[0] + len(array), *shape[1:]]

    def close(self) -> Segment:
        """Finish it, and open it."""
        told = {"types": self.types, "components": self._keys, "arrays": self._shapes}
        (self.folder / "segment.json").write_text(json.dumps(told))
        return open_segment(self.folder)


def write_segment(segment: Segment, folder: Path) -> Segment:
    """`segment` as the files of the new folder `folder`."""
    writer = SegmentWriter(folder, segment.types)
    writer.add(segment.arrays)
    for key, arrays in segment.components.items():
        writer.add(arrays, key)
    return writer.close()


def open_segment(folder: Path) -> Segment:
    """The segment in `folder`, mapped: only what look-ups touch is read. Raises FileNotFoundError where it is gone."""
    told = json.loads((folder / "segment.json").read_text())
    maps = []

    def mapped(prefix: str) -> Arrays:
        arrays = {}
        for full, (dtype, shape) in told["arrays"].items():
            before, _, name = full.rpartition(".")
            if before == prefix:
                if 0 in shape:
                    arrays[name] = np.empty(shape, dtype)
                    continue
                with open(folder / full, "rb") as file:
                    maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
                arrays[name] = np.frombuffer(maps[-1], dtype).reshape(shape)
        return arrays

    components = {Key(*key): mapped(str(number)) for number, key in enumerate(told["components"])}
    contents = mapped("")
    return Segment(told["types"], components, contents, folder.name, tuple(maps))


def merge_segments(segments: Sequence[Segment], alive: Sequence[np.ndarray], folder: Path) -> Segment:
    """One segment of those contents of several that are alive (bool [contents] each), written into `folder`."""
    types = sorted({name for segment in segments for name in segment.types})
    writer = SegmentWriter(folder, types)
    # For each segment: old number -> new number.
    numbers, count = [], 0
    for live in alive:
        numbers.append(np.where(live, np.cumsum(live) - 1 + count, -1))
        count += int(live.sum())
    ids = [_live_ids(segment, live) for segment, live in zip(segments, alive, strict=True)]
    lengths = np.concatenate([length for _, length in ids])
    hashes, digests = (
        np.concatenate([_by_number(s.arrays, key, order)[live] for s, live in zip(segments, alive, strict=True)])
        for key, order in (("id_hash", "id_order"), ("digest", "digest_order"))
    )
    kinds = [
        np.array([types.index(name) for name in segment.types] or [0], np.uint8)[segment.arrays["type"][live]]
        for segment, live in zip(segments, alive, strict=True)
    ]
    places = np.concatenate([segment.arrays["place"][live] for segment, live in zip(segments, alive, strict=True)])
    text = np.concatenate([text for text, _ in ids])
    writer.add(_contents_arrays(text, np.cumsum(lengths), hashes, np.concatenate(kinds), digests, places))
    for key in dict.fromkeys(key for segment in segments for key in segment.components):
        holding = [(s.components[key], n) for s, n in zip(segments, numbers, strict=True) if key in s.components]
        if key.kind == "tokens":
            for arrays in _merge_postings(holding):
                writer.add(arrays, key)
        else:
            parts = []
            for arrays, number in holding:
                owners = number[arrays["owners"]]
                kept = owners >= 0
                parts.append(Rows(arrays["values"][kept], owners[kept].astype(np.uint32)))
            rows = Rows(*(np.concatenate(part) for part in zip(*parts, strict=True)))
            writer.add(index_rows(key.kind, rows), key)
    return writer.close()


def _live_ids(segment: Segment, live: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The text of the ids of the contents alive, and the length of each."""
    ends = np.asarray(segment.arrays["id_ends"])
    lengths = np.diff(ends, prepend=0)
    return segment.arrays["id_text"][: ends[-1] if len(ends) else 0][np.repeat(live, lengths)], lengths[live]


def _by_number(arrays: Arrays, key: str, order: str) -> np.ndarray:
    """Sorted keys back in the order of the contents."""
    keys = np.empty_like(arrays[key])
    keys[arrays[order]] = arrays[key]
    return keys


def _merge_postings(holding: Sequence[tuple[Arrays, np.ndarray]]) -> Iterator[Arrays]:
    """The inverted lists of several segments as one, a range of tokens after the other."""
    largest = max((arrays for arrays, _ in holding), key=lambda arrays: len(arrays["owners"]))
    total = sum(len(arrays["owners"]) for arrays, _ in holding)
    cuts = np.linspace(0, len(largest["owners"]), 2 + total // POSTINGS)[1:-1].astype(np.int64)
    borders = np.unique(largest["tokens"][np.searchsorted(largest["starts"][1:], cuts)]) if len(cuts) else cuts
    where = [[0, *np.searchsorted(a["tokens"], borders.astype(np.uint64)), len(a["tokens"])] for a, _ in holding]
    written = 0
    yield {"tokens": np.empty(0, np.uint64), "starts": np.zeros(1, np.int64), "owners": np.empty(0, np.uint32)}
    for part in range(len(borders) + 1):
        tokens, owners = [], []
        for (arrays, number), at in zip(holding, where, strict=True):
            first, last = at[part], at[part + 1]
            starts = np.asarray(arrays["starts"][first : last + 1])
            new = number[arrays["owners"][starts[0] : starts[-1]]]
            kept = new >= 0
            tokens.append(np.repeat(arrays["tokens"][first:last], np.diff(starts))[kept])
            owners.append(new[kept].astype(np.uint32))
        built = index_rows("tokens", Rows(np.concatenate(tokens), np.concatenate(owners)))
        yield built | {"starts": built["starts"][1:] + written}
        written += len(built["owners"])
