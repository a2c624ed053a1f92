"""What the guards cost: `python benchmarks/guards.py [--files 1000] [--repeats 7]`.

Many small text files from a web server on this machine, the worst case: nothing else takes time. Once fetched only, and
once all the way to the fingerprint; with the guards as they are, and with guards that check nothing but look names up
and connect just the same. Another name for every eighth file, so that connections are made again and again. The two
take turns, and the least of all repeats counts: CPU time of this process and of the decoders, not of the server. What
is fetched only takes turns every 40 files, and the least times of all these parts are added.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path

from fingerprint_dagster.content import Content
from fingerprint_dagster.memo import open_memo
from fingerprint_dagster.models import ModelRuntime
from fingerprint_dagster.pipeline import Limits, Pipeline
from fingerprint_dagster.sources import Fetcher, Guard
from fingerprint_dagster.sources.uri import scheme_of

FILES_PER_NAME = 8
FILES_AT_ONCE = 40


def loopback(name: str, port: int) -> list[str]:
    """Every name is this machine: no name server's speed is measured."""
    return ["127.0.0.1"]


class Unguarded(Guard):
    """Looks names up and checks nothing."""

    def check_scheme(self, uri: str) -> str:
        """The scheme, whatever it is."""
        return scheme_of(uri)

    def check_host(self, host: str) -> None:
        """Any host will do."""

    def addresses(self, host: str, port: int) -> list[str]:
        """The addresses, wherever they lead."""
        return list(self.resolve(host, port))

    def check_file(self, path: Path) -> Path:
        """Any file will do."""
        return path


GUARDS = {
    "on": Guard(
        allowed_hosts=("*.test",), denied_hosts=("bad.test",), allowed_networks=("127.0.0.0/8",), resolve=loopback
    ),
    "off": Unguarded(resolve=loopback),
}


def main() -> None:
    """Print one line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    port = ours.recv()
    contents = [
        Content(f"{n}", f"http://host{n // FILES_PER_NAME}.test:{port}/{n}.txt", "text") for n in range(options.files)
    ]
    print(f"{options.files} files, least of {options.repeats} repeats")
    print(f"{'way':<24}{'guards':<8}{'wall s':>8}{'files/s':>9}{'CPU s':>8}{'CPU ms/file':>13}")
    for way, run, size in (("fetch", fetch, FILES_AT_ONCE), ("fetch to fingerprint", fingerprint, len(contents))):
        total = {name: [0.0, 0.0] for name in GUARDS}
        for start in range(0, len(contents), size):
            part = contents[start : start + size]
            times: dict[str, list[tuple[float, float]]] = {name: [] for name in GUARDS}
            for _ in range(options.repeats):
                for name, guard in GUARDS.items():
                    times[name].append(clock(run, part, guard))
            for name, (wall, cpu) in ((name, map(min, zip(*each, strict=True))) for name, each in times.items()):
                total[name] = [total[name][0] + wall, total[name][1] + cpu]
        for name, (wall, cpu) in total.items():
            rate = len(contents) / wall
            print(f"{way:<24}{name:<8}{wall:>8.2f}{rate:>9.0f}{cpu:>8.2f}{1000 * cpu / len(contents):>13.3f}")
        print(f"{'':<24}guards cost {100 * (total['on'][1] / total['off'][1] - 1):+.1f} % of the CPU time")
    server.terminate()


def clock(
    run: Callable[[Sequence[Content], Guard, Path], None], contents: Sequence[Content], guard: Guard
) -> tuple[float, float]:
    """Seconds of wall and of CPU time, with an empty home."""
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = time.perf_counter(), cpu_seconds()
        run(contents, guard, Path(folder))
        return time.perf_counter() - wall, cpu_seconds() - cpu


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, whose))


def fetch(contents: Sequence[Content], guard: Guard, home: Path) -> None:
    """One after the other: threads would add their own noise."""
    fetcher = Fetcher(home / "blobs", guard=guard)
    for content in contents:
        fetcher.fetch(content.uri)


def fingerprint(contents: Sequence[Content], guard: Guard, home: Path) -> None:
    """The pipeline, from the address to the fingerprint."""
    memo = open_memo(str(home / "memo"), max_bytes=1 << 30, ttl_seconds=86400.0)
    fetcher = Fetcher(home / "blobs", guard=guard)
    with Pipeline(fetcher, memo, ModelRuntime("cpu"), workers=1, limits=Limits()) as pipeline:
        failed = [found for found in pipeline.fingerprints(contents) if hasattr(found, "reason")]
    assert not failed, failed[0]


def serve(pipe: Connection) -> None:
    """A web server with a text of 4 kB under every path."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            text = " ".join(f"word{hash((self.path, n)) % 5000}" for n in range(500)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        pipe.send(server.server_port)
        server.serve_forever()


if __name__ == "__main__":
    main()
