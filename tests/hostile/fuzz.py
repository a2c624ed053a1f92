"""A mutational fuzzer of every decoder and parser: `python tests/hostile/fuzz.py [--mutations 20000]`.

Input number n is always the same: a tiny real file (see `seeds`), changed by a generator that n alone seeds. Inputs
run in a forked process that is confined like a decoding one, with a limit of memory, and of CPU time for each input.
Escapes, that is any exception but the one that a parser promises, a crash, a hang or too much memory, are written to a
folder.

Checksums would make most changes harmless, so the members of a document are changed before they are packed, and the
chunks of a PNG get right checksums. To be quick, pictures and frames of over 4 million pixels are refused here.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import multiprocessing
import os
import random
import re
import resource
import select
import signal
import struct
import sys
import tempfile
import time
import traceback
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import seeds

from fingerprint_dagster.errors import ContentError, UsageError

CPU_SECONDS = 10.0
MEMORY_BYTES = 2 << 30
_LIFE = 5_000  # inputs until a process is replaced: what decoders leak does not add up
_MAX_INPUT = 64 << 10


# -------------------- mutations

_INTERESTING = (0, 1, 2, 7, 8, 16, 32, 64, 100, 127, 128, 255, 256, 512, 1000, 1024, 4096, 32767, 32768, 65535, 65536)
_INTERESTING += (2**20, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 2, 2**63 - 1, 2**64 - 1)
# fmt: off
TOKENS: Mapping[str, tuple[bytes, ...]] = {
    "image": (
        b"IHDR", b"PLTE", b"IDAT", b"iCCP", b"zTXt", b"iTXt", b"acTL", b"fcTL", b"fdAT", b"tRNS", b"eXIf", b"IEND",
        b"\xff\xd8", b"\xff\xc0", b"\xff\xc2", b"\xff\xc4", b"\xff\xda", b"\xff\xdb", b"\xff\xdd", b"\xff\xe1",
        b"\xff\xe2", b"\xff\xd9", b"Exif\0\0", b"ICC_PROFILE\0", b"MPF\0", b"GIF89a", b"\x21\xf9\x04", b"\x21\xfe",
        b"VP8 ", b"VP8L", b"VP8X", b"ANMF", b"ALPH", b"II*\0", b"MM\0*", b"meta", b"iloc", b"iinf", b"ipco", b"ispe",
        b"irot", b"mdat", b"grid", b"jxlc", b"jxlp", b"\xff\x4f", b"\xff\x51", b"\xff\x52", b"\xff\x90", b"P3\n",
        b"\x01\x01", b"\x00\x01\x03\x00", b"\x01\x11\x04\x00",
    ),
    "audio": (
        b"RIFF", b"WAVE", b"fmt ", b"data", b"LIST", b"fact", b"fLaC", b"OggS", b"ID3\x04", b"TAG", b"APIC",
        b"\xff\xfb", b"\xff\xf1", b"\x0bw", b"ftyp", b"moov", b"trak", b"stsz", b"stsc", b"stco", b"esds", b"mdat",
        b"FORM", b"SSND", b"COMM", b"wvpk", b"TTA1", b"caff", b"#!AMR\n", b"\x1aE\xdf\xa3", b"OpusHead",
        b"\x01vorbis", b"RF64", b"ds64", b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n", b"Xing",
    ),
    "video": (
        b"ftyp", b"moov", b"mvhd", b"trak", b"tkhd", b"mdia", b"minf", b"dinf", b"dref", b"url ", b"stbl", b"stsd",
        b"stts", b"stss", b"stsc", b"stsz", b"stco", b"co64", b"ctts", b"elst", b"moof", b"traf", b"trun", b"sidx",
        b"cmov", b"mdat", b"\x1aE\xdf\xa3", b"\x18S\x80g", b"\x1fC\xb6u", b"\x16T\xaek", b"\xa3", b"\xec",
        b"\x1aA\xa0i", b"RIFF", b"AVI ", b"LIST", b"movi", b"idx1", b"strh", b"strf", b"00dc", b"FLV\x01", b"G@",
        b"\0\0\1\xba", b"\0\0\1\xb3", b"\0\0\1\0", b"\0\0\0\1g", b"\0\0\0\1h", b"\0\0\0\1e", b"DKIF",
        b"YUV4MPEG2 W1 H1", b"FRAME\n", b"\xff\xff\xff\xff\xff\xff\xff\xff", b"hvc1", b"av01", b"avc1", b"text",
        b"rtp ", b"#EXTM3U\n",
    ),
    "text": (
        b"<", b">", b"&", b"</", b"/>", b"<!--", b"-->", b"<![CDATA[", b"]]>", b"<!DOCTYPE", b'<!ENTITY a "b">',
        b"&a;", b"&#x0;", b"&#xD800;", b"&#99999999;", b"<script>", b"</body>", b"<table>", b"<svg", b"<math>",
        b"<template>", b"<plaintext>", b"<xmp>", b"<select>", b"xmlns=", b"charset=utf-7", b"encoding='utf-16'",
        b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80",
        b"\xe2\x80\xae", b" --> ", b"99:99:99,999", b"WEBVTT", b"STYLE", b"{\\rtf", b"{\\*", b"\\u-1 ", b"\\uc99",
        b"\\bin999999999 ", b"\\ansicpg65001", b"\\'", b"\\pict", b"%PDF-", b"obj", b"endobj", b"stream",
        b"endstream", b"/Kids", b"/Parent", b"/Count -1", b"/Length 99999", b"/FlateDecode", b"/LZWDecode",
        b"/ASCII85Decode", b"/ObjStm", b"/XRef", b"/Type", b"/Encrypt", b"1 0 R", b"3 0 R", b"[", b"]", b"<<", b">>",
        b"/ToUnicode", b"/CMap", b"/JBIG2Decode", b"Do", b"w:t", b"w:p", b"w:del", b"text:p", b"text:s", b"full-path",
        b"itemref", b"../../../etc/passwd", b"idref",
    ),
    "": (
        b"PK\3\4", b"PK\1\2", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"\1\0\x10\0", b"ustar\0", b"../../x", b"/x",
        b"GNU.sparse", b"x" * 200, b"\x1f\x8b", b"BZh", b"\x12\x20", b"\xff\xff\xff\xff\x0f",
        b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\1", b"PAR1", b'"', b"'", b",", b"\n", b"\r", b"\t", b"{", b"}",
        b"[[[[[[[[", b"null", b"NaN", b"1e999", b"\\ud800", b"uri", b"content_id", b"://", b"@", b"#", b"?", b"%00",
        b"%ff", b"%", b"!/", b"..", b"\\", b"[::", b"]", b"xn--", b"base64,", b";", b"=", b"BOOL", b"F64", b"BF16",
        b"shape", b"dtype", b"data_offsets", b"__metadata__", "ß".encode(), "İ".encode(), "\u2028".encode(), b"\xff",
        b"\xed\xa0\x80", b"123456789" * 30,
    ),
}
# fmt: on


def mutated(data: bytes, other: bytes, tokens: tuple[bytes, ...], chance: random.Random) -> bytes:
    """`data` with one to eight changes. other: a file to take pieces from."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 8))):
        size = len(out)
        if not size:
            out += chance.choice(tokens)
            continue
        # Headers, where the sizes are, more often than what follows them.
        at = chance.randrange(min(size, 128)) if chance.random() < 0.4 else chance.randrange(size)
        how = chance.randrange(12)
        if how == 0:
            out[at] ^= 1 << chance.randrange(8)
        elif how == 1:
            out[at] = chance.randrange(256)
        elif how == 2:  # a piece less
            del out[at : at + (1 << chance.randrange(10))]
        elif how == 3:  # a piece twice, or many times
            out[at:at] = out[at : at + (1 << chance.randrange(8))] * chance.choice((1, 1, 1, 2, 16, 100))
        elif how == 4:  # a piece of another file
            start = chance.randrange(len(other)) if other else 0
            out[at : at + chance.choice((0, 4, 64))] = other[start : start + (1 << chance.randrange(10))]
        elif how in (5, 6):  # a number
            width, order = chance.choice((1, 2, 4, 4, 8)), chance.choice(("little", "big"))
            number = chance.choice(_INTERESTING) if how == 5 else -chance.choice(_INTERESTING)
            out[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, order)
        elif how == 7:  # a length: a number there now, a little or much changed
            width, order = chance.choice((2, 4, 8)), chance.choice(("little", "big"))
            number = int.from_bytes(out[at : at + width], order)
            number = chance.choice((number + 1, number - 1, number * 2, number // 2, number << 16, size - at, size))
            out[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, order)
        elif how == 8:
            token = chance.choice(tokens)
            out[at : at + chance.choice((0, len(token)))] = token
        elif how == 9:
            del out[at:]
        elif how == 10:  # two pieces change places
            length, to = 1 << chance.randrange(7), chance.randrange(size)
            piece = out[at : at + length]
            del out[at : at + length]
            out[to:to] = piece
        else:  # one byte over and over
            out[at : at + (1 << chance.randrange(8))] = bytes([chance.choice((0, 255, out[at]))]) * (
                1 << chance.randrange(8)
            )
    return bytes(out[:_MAX_INPUT])


def _repacked(data: bytes, other: bytes, tokens: tuple[bytes, ...], chance: random.Random) -> bytes:
    """A ZIP archive of which one member is changed and packed anew."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    name = chance.choice(list(entries))
    entries[name] = mutated(entries[name], other, tokens, chance)
    return seeds.packed(entries)


def _with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what is in them now."""
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        length = int.from_bytes(out[at : at + 4], "big")
        if at + 12 + length > len(out):
            break
        out[at + 8 + length : at + 12 + length] = struct.pack(">I", zlib.crc32(out[at + 4 : at + 8 + length]))
        at += 12 + length
    return bytes(out)


# -------------------- targets


@dataclass(frozen=True)
class Target:
    """A decoder or parser. run: takes the path of an input. promised: what it may raise. seeds: name -> bytes."""

    run: Callable[[Path], object]
    seeds: Mapping[str, bytes]
    tokens: tuple[bytes, ...]
    promised: tuple[type[Exception], ...] = (ContentError,)
    share: int = 1


def targets() -> dict[str, Target]:
    """Name -> every decoder and parser of foreign bytes there is."""
    from fingerprint_dagster import codec
    from fingerprint_dagster.content import Value
    from fingerprint_dagster.media.registry import content_types
    from fingerprint_dagster.sources import archive, car, data_uri, ipfs, ipns, listing, unixfs, uri

    plugins = content_types()
    talking = {name: data for name, data in seeds.videos().items() if name.startswith("talking")}
    media = {
        "image": (seeds.pictures(), 12),
        "audio": ({**seeds.sounds(), **talking}, 10),
        "video": (seeds.videos(), 10),
        "text": (seeds.texts(), 10),
    }
    found: dict[str, Target] = {}
    for name, (files, share) in media.items():

        def decode(path: Path, plugin=plugins[name]) -> object:  # type: ignore[no-untyped-def]
            with path.open("rb") as file:
                head = file.read(4096)
            for each in plugins.values():
                each.sniff(head)
            value = plugin.decode(path)
            codec.encode(value)  # as the worker process does
            return plugin.hash(value, Value()) if plugin.name == "text" else value

        found[name] = Target(decode, files, TOKENS[name], share=share)

    def members(kind: str) -> Callable[[Path], object]:
        def run(path: Path) -> object:
            opened = archive.Archive(path, kind)
            for member in [*opened.members()][:8]:
                for _ in opened.read(member.name, 1 << 20):
                    pass
            return None

        return run

    def tree(path: Path) -> object:
        data = path.read_bytes()
        root = ipfs.Cid(1, ipfs.DAG_PB, 0x12, b"r" * 32)

        def blocks(cid: ipfs.Cid) -> bytes:
            return data if cid.codec == ipfs.DAG_PB else b"leaf"

        for what in (lambda: unixfs.resolve(root, ["a"], blocks), lambda: [*unixfs.read_file(root, blocks, 1 << 20)]):
            with contextlib.suppress(ContentError):
                what()
        return unixfs.read_node(root, data)

    def blocks_of(path: Path) -> object:
        with path.open("rb") as file:
            return car.index(file)

    def record(path: Path) -> object:
        key = ipfs.Cid(1, ipfs.LIBP2P_KEY, ipfs.IDENTITY, b"\x08\x01\x12\x20" + bytes(32))
        return ipns.read_record(key, path.read_bytes(), "gateway")

    def parsed_cid(path: Path) -> object:
        text = path.read_bytes().decode("utf-8", "surrogateescape").partition(":")[2].strip("/").partition("/")[0]
        return ipfs.parse_cid(text)

    def address(path: Path) -> object:
        text = uri.to_uri(path.read_bytes().decode("utf-8", "surrogateescape"))
        again = uri.to_uri(text)
        assert again == text, f"{text!r} becomes {again!r}"
        scheme = uri.scheme_of(text)
        if scheme == "data":
            return data_uri.read(text, 1 << 20)
        if scheme == "file":
            return uri.file_path(text)
        return uri.host_of(text) if scheme in ("http", "https") else uri.member_of(text)

    def rows(ending: str) -> Callable[[Path], object]:
        def run(path: Path) -> object:
            named = path.with_suffix(ending)
            path.rename(named)
            try:
                return sum(1 for _ in listing.expand(f"@{named}"))
            finally:
                named.rename(path)

        return run

    files = seeds.archives()
    zips = {name: data for name, data in files.items() if name.endswith(".zip")}
    plain = TOKENS[""]
    found["zip members"] = Target(members("zip"), zips, plain, share=3)
    found["tar members"] = Target(members("tar"), {"pax.tar": files["pax.tar"]}, plain, share=2)
    found["car"] = Target(blocks_of, seeds.cars(), plain)
    found["unixfs"] = Target(tree, seeds.nodes(), plain, share=2)
    found["ipns"] = Target(record, seeds.records(), plain)
    cids = {name: data for name, data in seeds.addresses().items() if data.startswith(b"ip")}
    found["cid"] = Target(parsed_cid, cids, plain, (ValueError,))
    found["address"] = Target(address, seeds.addresses(), plain, (UsageError, ContentError), share=3)
    found["value"] = Target(lambda path: codec.decode(path.read_bytes()), seeds.values(), plain, (ValueError,), share=2)
    for name, data in seeds.lists().items():
        ending = Path(name).suffix
        found[f"list {ending}"] = Target(rows(ending), {name: data}, plain, (UsageError,))
    return found


def small_limits() -> None:
    """Pictures and frames of at most 4 million pixels, 10 minutes of sound."""
    from fingerprint_dagster.media.audio import decode as audio
    from fingerprint_dagster.media.image import decode as image
    from fingerprint_dagster.media.video import decode as video

    image.MAX_PIXELS = video.MAX_PIXELS = 4_000_000
    audio.MAX_SECONDS = 600


@dataclass(frozen=True)
class Inputs:
    """Every input there is, by its number."""

    targets: Mapping[str, Target]

    def of(self, number: int) -> tuple[str, str, bytes]:
        """(target, seed, bytes) of input `number`."""
        chance = random.Random(number)
        names = [name for name, target in self.targets.items() for _ in range(target.share)]
        name = names[number % len(names)]
        target = self.targets[name]
        files = list(target.seeds)
        seed, other = chance.choice(files), target.seeds[chance.choice(files)]
        data = target.seeds[seed]
        if data.startswith(b"PK") and name == "text" and chance.random() < 0.7:
            return name, seed, _repacked(data, other, target.tokens, chance)
        out = mutated(data, other, target.tokens, chance)
        if seed.endswith(".png") and chance.random() < 0.8:
            out = _with_checksums(out)
        return name, seed, out


# -------------------- processes


@dataclass
class Escape:
    """An input that did what none may. what: the exception, the signal, `hang` or `memory`."""

    number: int
    target: str
    seed: str
    what: str
    trace: str = ""


@dataclass
class Tally:
    """What a run came to. outcomes: (target, outcome) -> inputs."""

    inputs: int = 0
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    cpu: Counter[str] = field(default_factory=Counter)
    escapes: list[Escape] = field(default_factory=list)
    slowest: list[tuple[float, int, str]] = field(default_factory=list)
    peak_bytes: int = 0


def _child(inputs: Inputs, first: int, last: int, report: int, folder: Path) -> None:
    """Try inputs first..last; a line for each: its number when it begins, and its outcome when it ends."""
    from fingerprint_dagster.sandbox import confine

    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    sys.stdout = sys.stderr = os.fdopen(quiet, "w")
    with open("/proc/self/statm") as statm:
        mapped = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_BYTES,) * 2)
    confine((), folder, MEMORY_BYTES)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    faulthandler.disable()
    small_limits()
    path = folder / "input"
    for number in range(first, last):
        name, seed, data = inputs.of(number)
        path.write_bytes(data)
        os.write(report, f"{number}\t{name}\t{seed}\n".encode())
        target = inputs.targets[name]
        began = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        trace = ""
        try:
            target.run(path)
            outcome = "read"
        except target.promised as error:
            outcome = "refused: " + " ".join(re.sub(r"\d[\d,.]*", "N", str(error)).split())[:60]
        except MemoryError:
            outcome = "! memory"
        except BaseException as error:
            outcome = f"! {type(error).__name__}: {error}"
            trace = traceback.format_exc()
        signal.setitimer(signal.ITIMER_PROF, 0)
        spent = time.process_time() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        line = [outcome.replace("\t", " ").replace("\n", " ")[:200], f"{spent:.6f}", str(peak), repr(trace)[:3000]]
        os.write(report, ("=" + "\t".join(line) + "\n").encode("utf-8", "replace"))


def _lines(pipe: int, seconds: float) -> Iterator[str]:
    """The lines that come through a pipe, to its end. Raises TimeoutError where none comes for so long."""
    rest = b""
    while True:
        if not select.select([pipe], [], [], seconds)[0]:  # a process may wait for ever, and use no CPU time
            raise TimeoutError
        data = os.read(pipe, 1 << 16)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace")


def run(
    first: int,
    count: int,
    escapes: Path | None = None,
    *,
    only: str = "",
    each: Callable[[Tally], None] | None = None,
) -> Tally:
    """Try inputs first .. first + count - 1. escapes: a folder that what escapes is written to.

    only: skip the inputs of other targets. each: called now and then with what there is so far.
    """
    from fingerprint_dagster.media.registry import content_types
    from fingerprint_dagster.workers import PRELOAD

    for module in (*PRELOAD, "cv2", "pypdfium2", "resiliparse.extract.html2text", "striprtf.striprtf", "pandas"):
        with contextlib.suppress(ImportError):
            __import__(module)
    assert content_types()
    every = targets()
    inputs = Inputs({name: target for name, target in every.items() if name.startswith(only)})
    tally = Tally()
    context = multiprocessing.get_context("fork")
    at, end = first, first + count
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        while at < end:
            ours, theirs = os.pipe()
            begun = at
            last = min(at + _LIFE, end)
            process = context.Process(target=_child, args=(inputs, at, last, theirs, Path(folder)), daemon=True)
            process.start()
            os.close(theirs)
            open_one: Escape | None = None
            stuck = False
            try:
                for line in _lines(ours, 20 * CPU_SECONDS):
                    if not line.startswith("="):
                        number, name, seed = line.split("\t")
                        open_one = Escape(int(number), name, seed, "")
                        continue
                    assert open_one is not None
                    outcome, spent, peak, trace = line[1:].split("\t", 3)
                    tally.inputs += 1
                    tally.outcomes[open_one.target, outcome] += 1
                    tally.cpu[open_one.target] += float(spent)  # type: ignore[assignment]
                    tally.peak_bytes = max(tally.peak_bytes, int(peak) * 1024)
                    if float(spent) > 1:
                        tally.slowest.append((float(spent), open_one.number, f"{open_one.target} {open_one.seed}"))
                    at = open_one.number + 1
                    if outcome.startswith("!"):
                        open_one.what, open_one.trace = outcome[2:], trace
                        _keep(open_one, inputs, escapes, tally)
                    open_one = None
            except TimeoutError:
                stuck = True
            except KeyboardInterrupt:
                process.kill()
                return tally
            finally:
                os.close(ours)
            process.join(1 if not stuck else 0)
            if process.is_alive():
                process.kill()
                process.join()
            if open_one is not None:
                code = process.exitcode or 0
                if stuck or code == -signal.SIGPROF:
                    open_one.what = "hang"
                else:
                    open_one.what = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                tally.inputs += 1
                tally.outcomes[open_one.target, f"! {open_one.what}"] += 1
                at = open_one.number + 1
                _keep(open_one, inputs, escapes, tally)
            elif at == begun:
                raise RuntimeError(f"the process ended before it tried an input (exit code {process.exitcode})")
            if each:
                each(tally)
    return tally


def _keep(escape: Escape, inputs: Inputs, folder: Path | None, tally: Tally) -> None:
    tally.escapes.append(escape)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{escape.number}-{escape.target.replace(' ', '_')}-{escape.seed.replace(' ', '_')}"
        (folder / name).write_bytes(inputs.of(escape.number)[2])
        with (folder / "escapes.txt").open("a") as file:
            file.write(f"{name}\t{escape.what}\t{escape.trace}\n")


def table(tally: Tally) -> str:
    """What each target made of its inputs."""
    lines = [f"{'target':<14}{'inputs':>9}{'read':>9}{'refused':>9}{'escapes':>9}{'CPU ms':>8}"]
    names = dict.fromkeys(name for name, _ in tally.outcomes)
    for name in sorted(names):
        mine = {outcome: n for (target, outcome), n in tally.outcomes.items() if target == name}
        escaped = sum(n for outcome, n in mine.items() if outcome.startswith("!"))
        total, read = sum(mine.values()), mine.get("read", 0)
        spent = 1000 * tally.cpu[name] / total
        lines.append(f"{name:<14}{total:>9}{read:>9}{total - read - escaped:>9}{escaped:>9}{spent:>8.2f}")
    lines.append(f"{'all':<14}{tally.inputs:>9}; peak {tally.peak_bytes >> 20} MiB; over 1 s: {len(tally.slowest)}")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--only", default="", help="the beginning of a target's name")
    parser.add_argument("--escapes", type=Path, default=Path(tempfile.gettempdir()) / "fingerprint-escapes")
    options = parser.parse_args()
    began = time.monotonic()

    def show(tally: Tally) -> None:
        seconds = time.monotonic() - began
        sys.stdout.write(f"{tally.inputs} inputs, {len(tally.escapes)} escapes, {seconds:.0f} s\n")
        sys.stdout.flush()

    tally = run(options.first, options.mutations, options.escapes, only=options.only, each=show)
    lines = [table(tally)]
    lines += [f"{escape.number} {escape.target} {escape.seed} {escape.what}" for escape in tally.escapes]
    lines += [f"{spent:.1f} s: {number} {what}" for spent, number, what in sorted(tally.slowest)[-10:]]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.exit(bool(tally.escapes))


if __name__ == "__main__":
    main()
