"""How well copies of sound are found, kind of change by kind of change, beside Chromaprint with a fair matcher.

    python benchmarks/audio_match.py FOLDER [--manifest TSV] [--references 20] [--fillers 20] [--strangers 10]
                                     [--whole 5] [--kinds TEXT,...] [--cache DIR]

FOLDER holds music of any formats. The catalogue is `references` + `fillers` tracks of at least 45 s. From each
reference 10 s are cut (the 5-s queries are their first half), changed in every way of the table, and searched. So are
10 s of `strangers`, tracks that are not in the catalogue, changed in the same ways: whatever is found for them is a
false match. Of `whole` references and half as many strangers the first 90 s are a query too: the "whole tracks". With a
manifest (columns path and group) only tracks without near-duplicates take part, and only those it
lists.

A hit is the right reference with the best score, above every score that a wrong reference got for any query. The place
is right where it is not far off: the table gives the error in the middle of the match, median and 95th percentile.
Music made of loops has the excerpt at many places, equally well: the error is that of the nearest place among all that
were returned, and in brackets that of the first one returned. A peer returns one place.

Needs the ffmpeg command (with librubberband). Speech and babble are by espeak-ng; without it those kinds are left out.
Peers: fpcalc's fingerprint, compared with every reference at every shift by its bit errors; and audfprint, as its fork
on the package index has it (`pip install audfprint2`: MIT), with its own settings for matching (density 20, queries at
four shifts), only that the table sets the least score. What is not installed is left out. Panako (AGPL, Java) is not on
the package index.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import tempfile
import time
import wave
import zlib
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fingerprint_dagster.content import Content, Fingerprint, Value
from fingerprint_dagster.index.exact import ExactStore
from fingerprint_dagster.media.audio import AudioPlugin
from fingerprint_dagster.media.audio.chromaprint import ITEM_SECONDS, SAMPLE_RATE
from fingerprint_dagster.media.audio.decode import decode_audio
from fingerprint_dagster.models import ModelRuntime
from fingerprint_dagster.search import find_copies

RATE = 44100
LEAST_SECONDS = 45
CUT_SECONDS = 10
SPARE_SECONDS = 2  # cut beyond the query: faster copies use it up
TEXTS = (
    "The quick brown fox jumps over the lazy dog, and nobody in the house has the faintest idea why it should do so.",
    "Good evening. Here is the news. In the harbour of the old town a ship has arrived with barrels of oil.",
    "If you look to the left you can see the tower; it was built by the same people who later designed the bridge.",
    "We interrupt this programme to bring you a short message about the weather of the coming days.",
    "My grandmother used to say that soup must be eaten slowly, while it is hot, and with a good piece of dark bread.",
    "One, two, three, four, five. Once I caught a fish alive. Six, seven, eight, nine, ten. Then I let it go again.",
)
Edit = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def seeded(name: str) -> np.random.Generator:
    """Random numbers that depend on the name only."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def filtered(sound: np.ndarray, filters: str) -> np.ndarray:
    """The sound (float32 [n], at RATE) through ffmpeg's audio filters."""
    command = ["ffmpeg", "-v", "error", "-f", "f32le", "-ar", str(RATE), "-ac", "1", "-i", "-"]
    command += ["-af", filters, "-f", "f32le", "-ar", str(RATE), "-ac", "1", "-"]
    done = subprocess.run(command, input=sound.astype("<f4").tobytes(), capture_output=True, check=True)
    return np.frombuffer(done.stdout, "<f4")


def coded(sound: np.ndarray, codec: str, kilobits: int, ending: str) -> np.ndarray:
    """The sound as a lossy file and back."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/it.{ending}"
        command = ["ffmpeg", "-v", "error", "-f", "f32le", "-ar", str(RATE), "-ac", "1", "-i", "-"]
        command += ["-c:a", codec, "-b:a", f"{kilobits}k", path]
        subprocess.run(command, input=sound.astype("<f4").tobytes(), capture_output=True, check=True)
        return read(Path(path), 0, None)


def read(path: Path, start: float, seconds: float | None) -> np.ndarray:
    """A part of a file as float32 [n], mono at RATE."""
    command = ["ffmpeg", "-v", "error", "-ss", str(start)] + (["-t", str(seconds)] if seconds else [])
    command += ["-i", str(path), "-vn", "-f", "f32le", "-ar", str(RATE), "-ac", "1", "-"]
    return np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, "<f4")


_SPOKEN: dict[str, np.ndarray] = {}


def spoken() -> dict[str, np.ndarray]:
    """Several minutes of speech by espeak-ng in several voices, and eight of them at once; empty without espeak-ng."""
    if not _SPOKEN and shutil.which("espeak-ng"):
        voices = ["en-gb", "en-us", "en-gb+f2", "en-us+f4", "en-gb+m3", "en-us+m7", "en-gb+f5", "en-gb+m5"]
        lines = []
        with tempfile.TemporaryDirectory() as folder:
            for number, voice in enumerate(voices):
                texts = TEXTS[number % len(TEXTS) :] + TEXTS[: number % len(TEXTS)]
                path = f"{folder}/{number}.wav"
                command = ["espeak-ng", "-v", voice, "-s", str(140 + 9 * number), "-p", str(30 + 6 * number)]
                subprocess.run([*command, "-w", path, " ".join(texts)], check=True, capture_output=True)
                lines.append(read(Path(path), 0, None))
        _SPOKEN["speech"] = np.concatenate([line / line.std() for line in lines])
        shortest = min(map(len, lines))
        _SPOKEN["babble"] = sum(line[:shortest] / line.std() for line in lines)
    return _SPOKEN


def noise(kind: str, count: int, random: np.random.Generator) -> np.ndarray:
    """float32 [count]: "white", "pink" (power falls with the frequency), "speech" or "babble"."""
    if kind in ("speech", "babble"):
        voice = spoken()[kind]
        return np.take(voice, random.integers(len(voice)) + np.arange(count), mode="wrap")
    white = random.normal(0, 1, count)
    if kind == "white":
        return white.astype(np.float32)
    spectrum = np.fft.rfft(white)
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 20 * count / RATE))
    pink: np.ndarray = np.fft.irfft(spectrum, count).astype(np.float32)
    return pink


def with_noise(kind: str, decibels: float) -> Edit:
    """Noise mixed under (over, below 0 dB) the sound, both measured over the whole cut."""

    def edit(sound: np.ndarray, random: np.random.Generator) -> np.ndarray:
        other = noise(kind, len(sound), random)
        mixed: np.ndarray = sound + other * (sound.std() / other.std() * 10 ** (-decibels / 20))
        return mixed

    return edit


def reverb(sound: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A hall: reverberation time 1 s, as loud as the direct sound, after 15 ms."""
    time = np.arange(RATE) / RATE
    tail = random.normal(0, 1, RATE) * 10 ** (-3 * time) * (time > 0.015)
    tail /= np.sqrt((tail**2).sum())
    tail[0] = 1
    size = len(sound) + RATE
    wet: np.ndarray = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(tail, size), size)[: len(sound)]
    return wet


def telephone(sound: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """300 to 3,400 Hz, 8 kHz, mu-law."""
    band = filtered(sound, "highpass=f=300:p=2,highpass=f=300:p=2,lowpass=f=3400:p=2,lowpass=f=3400:p=2,aresample=8000")
    peak = np.abs(band).max() + 1e-9
    law = np.sign(band) * np.log1p(255 * np.abs(band) / peak) / np.log(256)
    law = np.round(law * 127) / 127
    heard: np.ndarray = np.sign(law) * np.expm1(np.abs(law) * np.log(256)) / 255 * peak
    return heard


def clipped(sound: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """12 dB over the limit."""
    limit = np.abs(sound).max() / 4
    hard: np.ndarray = np.clip(sound, -limit, limit)
    return hard


def faster(percent: float) -> Edit:
    """Tape speed: tempo and pitch together."""
    ratio = 1 + percent / 100
    return lambda sound, random: filtered(sound, f"asetrate={round(RATE * ratio)},aresample={RATE}")


def chain(*edits: Edit) -> Edit:
    """One after the other."""

    def edit(sound: np.ndarray, random: np.random.Generator) -> np.ndarray:
        for each in edits:
            sound = each(sound, random)
        return sound

    return edit


def mp3(sound: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """MP3 of 64 kbit/s."""
    return coded(sound, "libmp3lame", 64, "mp3")


def opus(sound: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Opus of 32 kbit/s."""
    return coded(sound, "libopus", 32, "opus")


def tempo(percent: float) -> Edit:
    """Time-stretched at the same pitch (WSOLA)."""
    return lambda sound, random: filtered(sound, f"atempo={1 + percent / 100}")


def pitch(semitones: float) -> Edit:
    """Pitch-shifted at the same tempo (Rubber Band)."""
    return lambda sound, random: filtered(sound, f"rubberband=pitch={2 ** (semitones / 12)}")


KINDS: dict[str, tuple[Edit, float]] = {  # and how many seconds of the reference one second of the copy is
    "cut only": (lambda sound, random: sound, 1),
    "mp3 64k": (mp3, 1),
    "opus 32k": (opus, 1),
    "volume -18 dB": (lambda sound, random: sound / 8, 1),
    "clipped 12 dB": (clipped, 1),
    "telephone": (telephone, 1),
    "reverb": (reverb, 1),
    **{f"{k} {d} dB": (with_noise(k, d), 1.0) for k in ("white", "pink", "babble") for d in (10, 5, 0)},
    "speech under, 6 dB": (with_noise("speech", 6), 1),
    "voice-over, 0 dB": (with_noise("speech", 0), 1),
    **{f"speed {p:+} %": (faster(p), 1 + p / 100) for p in (-10, -6, -3, 3, 6, 10)},
    **{f"tempo {p:+} %": (tempo(p), 1 + p / 100) for p in (-10, 10)},
    **{f"pitch {s:+}": (pitch(s), 1.0) for s in (-2, -1, 1, 2)},
    "speed +3 %, pink 10 dB, mp3": (chain(faster(3), with_noise("pink", 10), mp3), 1.03),
    "speed -6 %, babble 10 dB": (chain(faster(-6), with_noise("babble", 10)), 0.94),
    "telephone, babble 5 dB": (chain(with_noise("babble", 5), telephone), 1),
    "reverb, pink 10 dB": (chain(reverb, with_noise("pink", 10)), 1),
    "tempo +10 %, pitch -2": (chain(tempo(10), pitch(-2)), 1.1),
    "pitch +2, white 10 dB": (chain(pitch(2), with_noise("white", 10)), 1),
}
SPOKEN_KINDS = ("babble", "speech", "voice")


WHOLE_SECONDS = 90
LENGTHS = ("10 s", "5 s", "whole tracks")


class Query(NamedTuple):
    """kind: the change and the length. track: of which it is an excerpt. start: where there. ratio: its speed."""

    kind: str
    track: str
    start: float
    ratio: float
    pcm: np.ndarray


class Answer(NamedTuple):
    """The best track, its score, and where in it the middle of a match lies, less where that should be.

    late: of the nearest match. first_late: of the first that was returned.
    """

    track: str
    score: float
    late: float
    first_late: float


def tracks(folder: Path, manifest: Path | None) -> list[Path]:
    """The sound files of at least LEAST_SECONDS, in an order that mixes the folders."""
    if manifest:
        with manifest.open() as file:
            rows = [row for row in csv.DictReader(file, delimiter="\t") if not row.get("group")]
        paths = [folder / row["path"] for row in rows if (folder / row["path"]).is_file()]
    else:
        paths = [path for path in folder.rglob("*") if path.is_file()]
    plugin = AudioPlugin()
    paths = [path for path in paths if plugin.sniff(path.read_bytes()[:4096])]
    return sorted(paths, key=lambda path: zlib.crc32(str(path.relative_to(folder)).encode()))


def decoded(sound: np.ndarray) -> np.ndarray:
    """What decoding a WAV file with this sound (float [n], at RATE) gives: int16 [m]."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "it.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            samples = sound / max(1.0, float(np.abs(sound).max(initial=0)))
            file.writeframes(np.round(32767 * samples).astype("<i2").tobytes())
        pcm: np.ndarray = decode_audio(path).arrays["pcm"]
    return pcm


def changed(path: Path, start: float, seconds: float, kind: str, cache: Path | None) -> np.ndarray:
    """So many seconds of a track, changed, as the decode stage gives them; read from the cache where they are there."""
    kept = cache / f"{path.name} {kind}{'' if seconds == CUT_SECONDS else f' {seconds:.0f} s'}.npy" if cache else None
    if kept and kept.exists():
        known: np.ndarray = np.load(kept)
        return known
    cut = read(path, start, seconds + SPARE_SECONDS).astype(np.float64)
    edit, _ = KINDS[kind]
    pcm = decoded(edit(cut, seeded(path.name + kind))[: int(seconds * RATE)])
    if kept:
        np.save(kept, pcm)
    return pcm


def queries(path: Path, seconds: float, kinds: Sequence[str], whole: bool, cache: Path | None) -> Iterator[Query]:
    """All changed excerpts of one track, and the changed track."""
    start = float(seeded(path.name).uniform(5, seconds - 5 - CUT_SECONDS - SPARE_SECONDS))
    for kind in kinds:
        ratio = KINDS[kind][1]
        pcm = changed(path, start, CUT_SECONDS, kind, cache)
        yield Query(f"{kind}, 10 s", str(path), start, ratio, pcm)
        yield Query(f"{kind}, 5 s", str(path), start, ratio, pcm[: len(pcm) // 2])
        if whole:
            long = changed(path, 0, min(WHOLE_SECONDS, seconds - SPARE_SECONDS), kind, cache)
            yield Query(f"{kind}, whole tracks", str(path), 0, ratio, long)


class Ours:
    """This package: an index in memory, candidates, verification."""

    def __init__(self) -> None:
        self.store, self.plugin, self.models = ExactStore(), AudioPlugin(), ModelRuntime(device="cpu", threads=1)

    def fingerprint(self, pcm: np.ndarray, name: str) -> Fingerprint:
        """Of mono sound at SAMPLE_RATE."""
        value = Value({"pcm": pcm}, {"duration": len(pcm) / SAMPLE_RATE})
        sketch = self.plugin.hash(value, self.plugin.embed([value], self.models)[0])
        return Fingerprint(Content(name, f"file:///{name}", "audio"), name, 0, "audio/wav", "", sketch)

    def add(self, track: str, pcm: np.ndarray) -> None:
        """Put a track into the catalogue."""
        self.store.put([self.fingerprint(pcm, track)])

    def answer(self, query: Query) -> Answer | None:
        """What the system says the query is from."""
        found = find_copies(self.store, self.plugin, self.fingerprint(query.pcm, "query"), 1)
        if not found:
            return None
        late = []
        for match in found:
            assert match.query_range is not None
            assert match.reference_range is not None
            expected = query.start + query.ratio * sum(match.query_range) / 2
            late.append(sum(match.reference_range) / 2 - expected)
        return Answer(found[0].reference.content_id, found[0].score, min(late, key=abs), late[0])


class Peer:
    """fpcalc, and the shift at which the bit error is least, over all references."""

    def __init__(self) -> None:
        self.items: dict[str, np.ndarray] = {}

    def fingerprint(self, pcm: np.ndarray) -> np.ndarray:
        """The items that fpcalc prints: uint32 [m]."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "it.wav"
            with wave.open(str(path), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(SAMPLE_RATE)
                file.writeframes(pcm.astype("<i2").tobytes())
            command = ["fpcalc", "-raw", "-length", "0", str(path)]
            output = subprocess.run(command, check=False, capture_output=True, text=True).stdout
        items = output.partition("FINGERPRINT=")[2].strip()
        return np.array(items.split(",") if items else [], np.uint32)

    def add(self, track: str, pcm: np.ndarray) -> None:
        """Put a track into the catalogue."""
        self.items[track] = self.fingerprint(pcm)

    def answer(self, query: Query) -> Answer | None:
        """What the system says the query is from."""
        asked = self.fingerprint(query.pcm)
        best: Answer | None = None
        for track, items in self.items.items():
            if not 0 < len(asked) <= len(items):
                continue
            every = np.lib.stride_tricks.sliding_window_view(items, len(asked))
            errors = np.bitwise_count(every ^ asked).mean(axis=1)
            shift = int(errors.argmin())
            score = 1 - float(errors[shift]) / 16
            if best is None or score > best.score:
                middle = len(query.pcm) / SAMPLE_RATE / 2
                late = shift * ITEM_SECONDS + middle - query.start - query.ratio * middle
                best = Answer(track, score, late, late)
        return best


class Landmarks:
    """audfprint's hash table. A score is the number of hashes that agree on a place."""

    def __init__(self) -> None:
        from audfprint2.core.analyzer import Analyzer
        from audfprint2.core.hash_table import HashTable
        from audfprint2.core.matcher import Matcher

        self.analyzer, self.table, self.matcher = Analyzer(), HashTable(), Matcher()
        self.matcher.threshcount = 0

    def hashes(self, pcm: np.ndarray, shifts: int) -> np.ndarray:
        """int [n, 2]: time in frames and hash, of the sound begun at so many places within a frame."""
        from audfprint2.core.analyzer import landmarks2hashes

        parts = []
        for shift in range(shifts):
            sound = pcm[shift * self.analyzer.n_hop // shifts :] / np.float32(32768)
            peaks = self.analyzer.find_peaks(sound, SAMPLE_RATE) if len(sound) else []
            parts.append(np.asarray(landmarks2hashes(self.analyzer.peaks2landmarks(peaks)), np.int32).reshape(-1, 2))
        found: np.ndarray = np.unique(np.concatenate(parts), axis=0)
        return found

    def add(self, track: str, pcm: np.ndarray) -> None:
        """Put a track into the catalogue."""
        self.table.store(track, self.hashes(pcm, 1).tolist())

    def answer(self, query: Query) -> Answer | None:
        """What the system says the query is from."""
        asked = self.hashes(query.pcm, 4)
        found: Any = self.matcher.match_hashes(self.table, asked) if len(asked) else ()
        if not len(found):
            return None
        track, score, frames = found[0][:3]
        middle = len(query.pcm) / SAMPLE_RATE / 2
        late = frames * self.analyzer.n_hop / SAMPLE_RATE + middle - query.start - query.ratio * middle
        return Answer(str(self.table.names[track]), float(score), late, late)


def main() -> None:
    """Search every query with every system and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--references", type=int, default=20)
    parser.add_argument("--fillers", type=int, default=20)
    parser.add_argument("--strangers", type=int, default=10)
    parser.add_argument("--whole", type=int, default=5, help="references of which whole tracks are searched too")
    parser.add_argument("--kinds", help="only kinds whose names contain one of these, separated by commas")
    parser.add_argument("--cache", type=Path, help="where changed excerpts are kept for the next time")
    options = parser.parse_args()
    if options.cache:
        options.cache.mkdir(parents=True, exist_ok=True)
    wanted = (options.kinds or "").split(",")
    kinds = [kind for kind in KINDS if any(part in kind for part in wanted)]
    if not spoken():
        print("espeak-ng is not installed: no kinds with speech")
        kinds = [kind for kind in kinds if not any(part in kind for part in SPOKEN_KINDS)]
    systems: dict[str, Ours | Peer | Landmarks] = {"ours": Ours()}
    if shutil.which("fpcalc"):
        systems["fpcalc"] = Peer()
    else:
        print("fpcalc is not installed (Debian: libchromaprint-tools): no peer")
    if find_spec("audfprint2"):
        systems["audfprint"] = Landmarks()
    else:
        print("audfprint is not installed (pip install audfprint2): no landmark peer")

    references: list[tuple[Path, float]] = []
    strangers: list[tuple[Path, float]] = []
    count = 0
    for path in tracks(options.folder, options.manifest):
        pcm = decode_audio(path).arrays["pcm"]
        seconds = len(pcm) / SAMPLE_RATE
        if seconds < LEAST_SECONDS:
            continue
        if len(strangers) < options.strangers:
            strangers.append((path, seconds))
            continue
        if len(references) < options.references:
            references.append((path, seconds))
        for system in systems.values():
            system.add(str(path), pcm)
        count += 1
        if count == options.references + options.fillers:
            break

    asked, unknown = (
        [
            query
            for number, (path, seconds) in enumerate(part)
            for query in queries(path, seconds, kinds, number < whole, options.cache)
        ]
        for part, whole in ((references, options.whole), (strangers, options.whole // 2))
    )
    print(f"{count} tracks, {len(asked)} queries of {len(references)}, {len(unknown)} of {len(strangers)} others")
    hits: dict[str, dict[str, list[Answer | None]]] = {}
    for name, system in systems.items():
        started = time.process_time()
        answers = [(query, system.answer(query)) for query in asked]
        wrong = [answer.score for query, answer in answers if answer and answer.track != query.track]
        wrong += [answer.score for query in unknown if (answer := system.answer(query))]
        least = max(wrong, default=0.0)
        hits[name] = {}
        for query, answer in answers:
            right = answer is not None and answer.track == query.track and answer.score > least
            hits[name].setdefault(query.kind, []).append(answer if right else None)
        cost = (time.process_time() - started) / (len(asked) + len(unknown))
        print(f"{name}: {len(wrong)} wrong answers, the best scores {least:.3f}; {1000 * cost:.0f} ms CPU a query")
    print(f"{'':42s}" + "".join(f"{name:>9s}  late by 50 %, 95 % (first) " for name in systems))
    order = [query.kind for query in asked]
    for kind in sorted(
        {query.kind for query in asked}, key=lambda k: (LENGTHS.index(k.rpartition(", ")[2]), order.index(k))
    ):
        cells = []
        for name in systems:
            found = [(abs(answer.late), abs(answer.first_late)) for answer in hits[name][kind] if answer]
            middle, most = np.percentile(found, (50, 95), axis=0) if found else np.full((2, 2), np.nan)
            share = len(found) / len(hits[name][kind])
            cells.append(f"{share:9.2f}  {middle[0]:6.3f} {most[0]:7.3f} ({most[1]:7.3f}) s")
        print(f"{kind:42s}" + "".join(cells))


if __name__ == "__main__":
    main()
