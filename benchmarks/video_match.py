"""How well edited copies of videos are found, and where, beside vPDQ in the same run.

    python benchmarks/video_match.py FOLDER MANIFEST [--cache FOLDER] [--quick] [--write FILE]

FOLDER holds real videos; MANIFEST (tab-separated, with the columns path, sha256, kind, seconds or size, group, primary)
says what they are. Those longer than half a minute are cut into pieces of 20 s. Two thirds are references and stored;
the others are distractors: backgrounds, hosts of excerpts, and sources of edits for which there is nothing to find.
The queries are made by ffmpeg, without their sound but for the class `soundtrack`, and kept in the cache. Each goes the
whole way: its bytes through the plugin's decode, embed and hash, then through the index (`ExactStore`, `find_copies`).

Per class of edit: uAP (micro average precision over all pairs of a query and a reference, by the score of the best
match; each class with all distractors); recall at zero false positives among all queries of the run; and of the
segments: the share found (half of it or more, at the right place to 2 s), precision and recall in seconds, the median
IoU of the ranges (the worse of the two sides), the median error of starts and ends in seconds, and the share of those
found whose starts and ends are right to 1 s on both sides. Matches by the soundtrack count in the class `soundtrack`
only. vPDQ as published: every frame decoded, one a second hashed at full size (`pdqhash`), those of quality 50 or more
compared, two the same at 31 bits or less; a pair scores by the share of the query's frames that the reference has.
Pieces of one video, and videos known to show the same, count neither way. Needs the `bench` extra and ffmpeg.

--write compares all videos of the run that show one source and nothing else, edited or not, with each other, and keeps
what those of different sources have of each evidence as the noise of videos in the calibration FILE (see
`fingerprint_dagster.calibration`): fingerprint_dagster/calibration/shipped.json is the one of the package. Videos of
one maker count, who may have drawn them all with one hand: harder to tell apart than those of a collection.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pdqhash
from numpy.typing import NDArray
from processor_time import added, through_stages

from fingerprint_dagster.calibration import Calibration
from fingerprint_dagster.calibration.measure import measure
from fingerprint_dagster.content import Content, Fingerprint, Match
from fingerprint_dagster.index.exact import ExactStore
from fingerprint_dagster.media.video import VideoPlugin
from fingerprint_dagster.models import ModelRuntime
from fingerprint_dagster.search import find_copies

F64 = NDArray[np.float64]
Range = tuple[float, float]

LEAST_SECONDS, CUT_FROM, PIECE = 5.0, 30.6, 20.0
EDITED = 12.0  # the most seconds of a video that an edit shows
EXCERPT, HOST_PART, SUPERCUT_PART = 10.0, 8.0, 5.0
# Videos that show the same, found by eye: the beginnings of the file names.
SAME = ({"04bfff3868", "137ca34b34"}, {"4c98787103", "67ce5fdf73"})
SPEEDS = {"fast10": 1.1, "slow10": 0.9}
NOISE_PAIRS = 20_000
_LIGHT = "x264-params=sync-lookahead=0:rc-lookahead=10"


# ---- the videos


@dataclass(frozen=True)
class Video:
    """A piece of a video of the corpus. name: unique. origin: the file it is from. seconds: its length."""

    name: str
    origin: str
    path: Path
    start: float
    seconds: float


def videos(folder: Path, manifest: Path) -> list[Video]:
    """One of each group of near-copies, at least LEAST_SECONDS long, in pieces, in a fixed shuffled order."""
    with manifest.open(newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["kind"] == "video"]
    chosen: list[Video] = []
    for row in sorted(rows, key=lambda row: row["sha256"]):
        seconds = float(row["size"].split()[0])
        if row["primary"] != "1" or seconds < LEAST_SECONDS:
            continue
        path, origin = folder / row["path"], Path(row["path"]).name[:10]
        count = 1 if seconds <= CUT_FROM else int(seconds / PIECE)
        length = seconds if count == 1 else PIECE
        chosen += [Video(f"{origin}-{part}", origin, path, part * PIECE, length) for part in range(count)]
    return chosen


def is_distractor(video: Video) -> bool:
    """Whether a video is no reference: a third of them, all pieces of a file alike."""
    return int(video.origin[:6], 16) % 3 == 0


def same(one: str, other: str) -> bool:
    """Whether videos of these two origins show the same or may: such a pair counts neither way."""
    return one == other or {one, other} in SAME


# ---- the edits


@dataclass(frozen=True)
class Part:
    """Where a reference is in a query, in seconds on both sides."""

    reference: str
    query: Range
    original: Range


@dataclass(frozen=True)
class Query:
    """An edited video: its class, its file, all the videos that are seen in it, and where each of them is."""

    edit: str
    path: Path
    shown: tuple[Video, ...]
    parts: tuple[Part, ...]


FIT = (
    "scale=480:270:force_original_aspect_ratio=decrease,pad=480:270:(ow-iw)/2:(oh-ih)/2,setsar=1,fps=25,format=yuv420p"
)
FILTERS = {
    "low_bitrate": "null",
    "240p": "scale=-2:240",
    "360p": "scale=-2:360",
    "letterbox": "pad=iw:trunc(ih*1.33/2)*2:0:(oh-ih)/2",
    "crop80": "crop=trunc(iw*0.8/2)*2:trunc(ih*0.8/2)*2:iw*{x}*0.2:ih*{y}*0.2",
    "logo": "drawbox=iw*0.78:ih*0.06:iw*0.17:ih*0.17:red@0.9:fill,drawbox=iw*0.81:ih*0.1:iw*0.11:ih*0.09:white:fill",
    "text": "drawtext=text='breaking news, see it all here':font=Sans:fontsize=h/9:fontcolor=yellow:"
    "box=1:boxcolor=black@0.7:x=(w-tw)/2:y=h*0.8",
    "flip": "hflip",
    "fast10": "setpts=PTS/1.1",
    "slow10": "setpts=PTS/0.9",
    "15fps": "fps=15",
    "grey": "hue=s=0",
    "camera": "perspective=x0=W*0.05:y0=H*0.03:x1=W*0.97:y1=H*0.08:x2=W*0.02:y2=H*0.97:x3=W*0.95:y3=H*0.92"
    ":sense=destination,eq=brightness=0.06:contrast=0.85,gblur=1.1,noise=alls=14:allf=t",
}
OVERLAID = (".logo.mkv", ".text.mkv")
PLAIN = ("low_bitrate", "240p", "360p", "letterbox", "crop80", "logo", "text", *SPEEDS, "15fps", "grey")
HARD = ("flip", "camera", "picture_in_picture")
EDITS = (*PLAIN, *HARD, "excerpt", "supercut", "soundtrack")


def ffmpeg(target: Path, *arguments: str) -> Path:
    """Make a file with ffmpeg, unless it is there."""
    if not target.exists():
        unfinished = target.with_suffix(".part.mkv")
        command = ["ffmpeg", "-v", "error", "-nostdin", "-y", *arguments, "-threads", "1", str(unfinished)]
        subprocess.run(command, check=True)
        unfinished.rename(target)
    return target


def base(video: Video, cache: Path) -> Path:
    """The piece itself, at most 480 pixels wide and with its sound: what is stored, and what the edits are made of."""
    return ffmpeg(
        cache / f"{video.name}.mkv",
        *("-ss", str(video.start), "-t", str(video.seconds), "-i", str(video.path)),
        *("-vf", "scale='trunc(min(480,iw)/2)*2':-2,setsar=1", "-c:v", "libx264", "-preset", "superfast", "-crf", "18"),
        *("-pix_fmt", "yuv420p", "-ac", "2", "-c:a", "aac", "-b:a", "96k"),
    )


def length(path: Path) -> float:
    """Seconds of the video stream, as it was written."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.pts is not None]
        return float(max(((packet.pts or 0) + (packet.duration or 0)) * packet.time_base for packet in packets))


def has_sound(path: Path) -> bool:
    """Whether a file has a soundtrack."""
    with av.open(str(path)) as container:
        return bool(container.streams.audio)


def make_query(edit: str, source: Video, spare: Sequence[Video], others: Sequence[Video], cache: Path) -> Query | None:
    """One edit of one video. spare: hosts and backgrounds; others: what a supercut takes its other parts from."""
    random = np.random.default_rng([int(source.origin, 16), int(source.start), EDITS.index(edit)])
    path = cache / f"{source.name}.{edit}.mkv"
    original = base(source, cache)
    encode = ("-an", "-c:v", "libx264", "-preset", "ultrafast", "-crf", "26", "-pix_fmt", "yuv420p")
    whole = min(length(original), EDITED)
    hosts = [video for video in spare if not same(video.origin, source.origin)]
    first, second = (hosts[index] for index in random.choice(len(hosts), 2, replace=False))
    name, mine = source.name, ("-t", str(whole), "-i", str(original))
    if edit in FILTERS:
        x, y = random.random(2).round(3)
        filters = FILTERS[edit].format(x=x, y=y)
        if edit == "low_bitrate":
            encode = (*encode[:4], "ultrafast", "-crf", "40", "-pix_fmt", "yuv420p")
        ffmpeg(path, *mine, "-vf", filters, *encode)
        return Query(edit, path, (source,), (Part(name, (0, whole / SPEEDS.get(edit, 1)), (0, whole)),))
    if edit == "soundtrack":
        if not has_sound(original):
            return None
        looped = ("-stream_loop", "-1", "-i", str(base(first, cache)))
        sound = ("-map", "0:v", "-map", "1:a", "-t", str(whole), *encode[1:], "-c:a", "libopus", "-b:a", "48k")
        ffmpeg(path, *looped, *mine, "-vf", FIT, *sound)
        return Query(edit, path, (source, first), (Part(name, (0, whole), (0, whole)),))
    if edit == "picture_in_picture":
        left, top = random.random(2).round(3)
        graph = (
            f"[0:v]{FIT}[back];[1:v]scale=216:-2,setsar=1,fps=25[small];"
            f"[back][small]overlay=x=(W-w)*{left}:y=(H-h)*{top}:shortest=1"
        )
        back = ("-stream_loop", "-1", "-i", str(base(first, cache)))
        ffmpeg(path, *back, *mine, "-filter_complex", graph, "-t", str(whole), *encode)
        return Query(edit, path, (source, first), (Part(name, (0, whole), (0, whole)),))
    if edit == "excerpt":
        seconds = min(EXCERPT, length(original))
        start = round(float(random.random()) * (length(original) - seconds), 2)
        cuts = [(first, 0.0, HOST_PART), (source, start, seconds), (second, 0.0, HOST_PART)]
    else:
        pool = [video for video in others if not same(video.origin, source.origin)]
        chosen = [source, *(pool[index] for index in random.choice(len(pool), 2, replace=False))]
        cuts = [
            (video, round(float(random.random()) * max(0, video.seconds - 6), 2), SUPERCUT_PART) for video in chosen
        ]
    cuts = [(video, start, min(seconds, length(base(video, cache)) - start)) for video, start, seconds in cuts]
    inputs, graph, parts, now = [], "", [], 0.0
    for number, (video, start, seconds) in enumerate(cuts):
        inputs += ["-ss", str(start), "-t", str(seconds), "-i", str(base(video, cache))]
        graph += f"[{number}:v]{FIT}[v{number}];"
        if edit == "supercut" or video is source:
            parts.append(Part(video.name, (now, now + seconds), (start, start + seconds)))
        now += seconds
    graph += "".join(f"[v{number}]" for number in range(len(cuts))) + f"concat=n={len(cuts)}:v=1:a=0"
    ffmpeg(path, *inputs, "-filter_complex", graph, *encode)
    return Query(edit, path, tuple(video for video, _, _ in cuts), tuple(parts))


# ---- finding


class Ours:
    """The video fingerprint, the index and the verification, as a user's query goes through them."""

    name = "ours"

    def __init__(self) -> None:
        self.plugin, self.models, self.store = VideoPlugin(), ModelRuntime("cpu"), ExactStore()
        self.cpu = dict.fromkeys(("decode", "embed", "hash", "find"), 0.0)
        self.seconds = 0.0
        self.alone: list[Fingerprint] = []  # of what shows one source and nothing else

    def fingerprint(self, path: Path, name: str, shown: Sequence[Video]) -> Fingerprint:
        """The fingerprint of a file."""
        decoded, sketch = through_stages(self.plugin, path, self.models, self.cpu)
        self.seconds += decoded.info["duration"]
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        content = Content(name, f"file:///{name}", "video", {"origin": shown[0].origin})
        made = Fingerprint(content, digest, path.stat().st_size, "", digest, sketch)
        if len(shown) == 1 and not name.endswith(OVERLAID):
            self.alone.append(made)
        return made

    def add(self, video: Video, path: Path) -> None:
        """Store a reference."""
        self.store.put([self.fingerprint(path, video.name, [video])])

    def find(self, query: Query) -> list[Match]:
        """Every match; those by the soundtrack in the class `soundtrack` only."""
        fingerprint = self.fingerprint(query.path, query.path.name, query.shown)
        with added(self.cpu, "find"):
            found = find_copies(self.store, self.plugin, fingerprint, 20)
        return [match for match in found if match.evidence.startswith("soundtrack") == (query.edit == "soundtrack")]


class Vpdq:
    """vPDQ as published: see the module."""

    name = "vPDQ"

    def __init__(self) -> None:
        self._stored: dict[str, F64] = {}
        self.cpu, self.seconds = 0.0, 0.0

    def hashes(self, path: Path) -> F64:
        """Every frame decoded, one a second hashed at its own size: bits [n, 256] of those of quality 50 or more."""
        start = time.process_time()
        rows, following = [np.zeros((0, 256))], 0.0
        with av.open(str(path)) as container:
            container.streams.video[0].codec_context.thread_count = 1
            for frame in container.decode(video=0):
                if frame.time is not None and frame.time >= following - 1e-3:
                    following += 1.0
                    bits, quality = pdqhash.compute(frame.to_ndarray(format="rgb24"))
                    rows += [bits[np.newaxis].astype(np.float64)] if quality >= 50 else []
        self.cpu += time.process_time() - start
        self.seconds += following
        return np.concatenate(rows)

    def add(self, video: Video, path: Path) -> None:
        """Store a reference."""
        self._stored[video.name] = self.hashes(path)

    def find(self, query: Query) -> dict[str, float]:
        """Of each reference, the share of the query's frames that it has, if any."""
        asked = self.hashes(query.path)
        shares = {}
        for name, stored in self._stored.items():
            if len(asked) and len(stored):
                apart = asked @ (1 - stored.T) + (1 - asked) @ stored.T
                shares[name] = float((apart.min(axis=1) <= 31).mean())
        return {name: share for name, share in shares.items() if share}


# ---- the figures


@dataclass(frozen=True)
class Place:
    """How well one true part was found, on the worse side. errors: of start and end, in seconds."""

    iou: float
    errors: tuple[float, float]


def overlap(one: Range, other: Range) -> float:
    """Seconds in common."""
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0]))


def iou(one: Range, other: Range) -> float:
    """Intersection over union of two ranges."""
    shared = overlap(one, other)
    return shared / max(one[1] - one[0] + other[1] - other[0] - shared, 1e-9)


def place_of(part: Part, matches: Sequence[Match]) -> Place | None:
    """The best match of the right reference that has half of the part, at the right place to 2 s."""
    places = []
    for match in matches:
        here, there = match.query_range, match.reference_range
        if match.reference.content_id != part.reference or here is None or there is None:
            continue
        speed = (part.original[1] - part.original[0]) / (part.query[1] - part.query[0])
        middle = (max(here[0], part.query[0]) + min(here[1], part.query[1])) / 2
        asked = part.original[0] + speed * (middle - part.query[0])
        told = there[0] + (there[1] - there[0]) * (middle - here[0]) / max(here[1] - here[0], 1e-9)
        if 2 * overlap(here, part.query) >= part.query[1] - part.query[0] and abs(asked - told) <= 2:
            sides = ((here, part.query), (there, part.original))
            starts, ends = (max(abs(found[end] - true[end]) for found, true in sides) for end in (0, 1))
            places.append(Place(min(iou(*side) for side in sides), (starts, ends)))
    return max(places, key=lambda place: place.iou, default=None)


def average_precision(scores: F64, right: NDArray[np.bool_], positives: int) -> float:
    """DISC's micro average precision: of all pairs in one ranking. Pairs that were not found (score 0) do not count."""
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > 0]
    hits = right[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / max(positives, 1))


def table(
    name: str, queries: Sequence[Query], scores: F64, right: NDArray[np.bool_], ignored: NDArray[np.bool_]
) -> None:
    """Print uAP and recall at zero false positives of one method. scores: [queries, references], 0: not found."""
    scores = np.where(ignored, 0, scores)
    false = scores[~right].max()
    none = ~right.any(axis=1)
    print(f"\n{name}: the best score of a wrong pair is {false:.3f}\n{'':20}{'uAP':>7}{'R@0FP':>7}")
    edits = np.array([query.edit for query in queries])
    for edit in EDITS:
        chosen = edits == edit
        pool = chosen | none
        flat, hits = scores[pool].ravel(), right[pool].ravel()
        positives = int(right[chosen].sum())
        found = scores[chosen][right[chosen]]
        print(f"{edit:20}{average_precision(flat, hits, positives):7.3f}{(found > false).mean():7.3f}")


def places_table(queries: Sequence[Query], found: Sequence[Sequence[Match]], stored: Collection[str]) -> None:
    """Print how well the parts of the stored references are placed."""
    heads = ("parts", "found", "precis.", "recall", "IoU", "start", "end", "to 1 s")
    print(f"\nsegments{'':12}" + "".join(f"{head:>8}" for head in heads))
    for edit in EDITS:
        places: list[Place | None] = []
        told = hit = true = 0.0
        for query, matches in zip(queries, found, strict=True):
            if query.edit != edit:
                continue
            for part in [part for part in query.parts if part.reference in stored]:
                places.append(place_of(part, matches))
                mine = [m.query_range for m in matches if m.reference.content_id == part.reference and m.query_range]
                told += sum(end - start for start, end in mine)
                hit += sum(overlap(where, part.query) for where in mine)
                true += part.query[1] - part.query[0]
        seen = [place for place in places if place is not None]
        starts, ends = (np.array([place.errors[side] for place in seen]) for side in (0, 1))
        near = ((starts <= 1) & (ends <= 1)).mean() if seen else 0.0
        row = (len(seen) / max(len(places), 1), hit / max(told, 1e-9), min(hit / max(true, 1e-9), 1.0))
        medians = [float(np.median(v)) if len(v) else np.nan for v in ([p.iou for p in seen], starts, ends)]
        print(f"{edit:20}{len(places):8}" + "".join(f"{value:8.3f}" for value in (*row, *medians, near)))


def write_noise(fingerprints: Sequence[Fingerprint], file: Path) -> None:
    """Put the noise between these videos in place of what a calibration has of the same evidence."""

    def related(query: Fingerprint, reference: Fingerprint) -> bool:
        return same(query.content.metadata["origin"], reference.content.metadata["origin"])

    known = Calibration.from_json(file.read_text()) if file.exists() else Calibration(())
    source = known.source or "unrelated contents of the development corpus"
    measured = measure(fingerprints, source=source, pairs=NOISE_PAIRS, leave_out=related, unrelated=True)
    file.write_text(known.updated(measured.calibration).to_json())
    print(f"\n{'noise':24}{'videos':>8}{'pairs':>8}{'matched':>9}{'any':>6}{'most':>8}   rate at the threshold")
    for noise in measured.calibration.noise:
        threshold = VideoPlugin.thresholds[noise.evidence]
        rate = noise.estimate(threshold)
        row = f"{noise.contents:8}{noise.pairs:8}{noise.matched:9}{len(noise.strongest):6}"
        most = max(noise.strongest, default=0.0)
        told = f"{threshold:.0f}: {rate.value:.2g} ({rate.low:.2g} to {rate.high:.2g})"
        print(f"{noise.evidence:24}{row}{most:8.1f}   {told}")
    for one in measured.matched:
        names = f"{one.query.content.content_id} | {one.match.reference.content_id}"
        print(f"matched: {names}: {one.match.evidence}, strength {one.match.strength or one.match.score:.1f}")


def main() -> None:
    """Make the queries, ask them all, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "fingerprint-video-match")
    parser.add_argument("--quick", action="store_true", help="few queries")
    parser.add_argument("--write", type=Path, help="keep the noise between unrelated videos in this calibration")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    everything = videos(arguments.folder, arguments.manifest)
    references = [video for video in everything if not is_distractor(video)]
    spare = [video for video in everything if is_distractor(video)]
    firsts = {video.origin: video for video in reversed(references)}  # one piece of each file is edited
    edited = list(firsts.values())[-4 if arguments.quick else 0 :]
    asked = [(video, references) for video in edited] + [
        (video, spare) for video in spare[: 2 if arguments.quick else 8]
    ]
    made = (make_query(edit, video, spare, others, arguments.cache) for video, others in asked for edit in EDITS)
    queries = [query for query in made if query is not None]
    ours, vpdq = Ours(), Vpdq()
    for video in references:
        ours.add(video, base(video, arguments.cache))
        vpdq.add(video, base(video, arguments.cache))
    names = {video.name: number for number, video in enumerate(references)}
    scores = np.zeros((2, len(queries), len(references)))
    right, ignored = (np.zeros(scores[0].shape, np.bool_) for _ in range(2))
    found: list[list[Match]] = []
    evidence = Counter[str]()
    for index, query in enumerate(queries):
        for part in query.parts:
            if part.reference in names:
                right[index, names[part.reference]] = True
        ignored[index] = [any(same(shown.origin, video.origin) for shown in query.shown) for video in references]
        ignored[index] &= ~right[index]
        found.append(ours.find(query))
        for match in reversed(found[-1]):
            number = names[match.reference.content_id]
            scores[0, index, number] = max(match.score, scores[0, index, number])
            evidence[match.evidence] += bool(right[index, number])
        for name, share in vpdq.find(query).items():
            scores[1, index, names[name]] = share
    copies = int(right.any(axis=1).sum())
    print(f"{len(references)} references; {copies} edits of {len(edited)}, {len(queries) - copies} of distractors")
    cpu = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in ours.cpu.items())
    print(f"CPU s for {ours.seconds:.0f} s of video: {cpu}; vPDQ {vpdq.cpu:.1f}")
    print("evidence of the copies found: " + ", ".join(f"{name} {count}" for name, count in evidence.most_common()))
    for row, name in enumerate((ours.name, vpdq.name)):
        table(name, queries, scores[row], right, ignored)
    places_table(queries, found, names)
    missed = [
        query.path.name for query, row, own in zip(queries, scores[0], right, strict=True) if (row[own] == 0).any()
    ]
    print("\nnot found: " + (", ".join(missed) or "nothing"))
    wrong = np.where(right | ignored, 0, scores[0])
    for index, number in zip(*np.nonzero(wrong), strict=True):
        print(f"wrong: {queries[index].path.name} | {references[number].name}: {wrong[index, number]:.3f}")
    if arguments.write:
        write_noise(ours.alone, arguments.write)


if __name__ == "__main__":
    main()
