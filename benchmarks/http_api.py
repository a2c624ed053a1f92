"""The HTTP API under load: many requests at once, bad ones among them.

    python benchmarks/http_api.py [--requests N] [--workers N]

Starts `fingerprint serve` on a home of its own, and a web server with distinct pictures, each with a strip of noise.
First come N requests at once, each for another picture, one in ten of them for a picture that is not there; then the
same again, which is cached; last, where wrk is installed, one cached answer as fast as it can be asked for.
Prints how many were answered, latencies, and the server's memory (with its worker processes).
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import psutil
from PIL import Image
from skimage import data

BAD = 10  # one request in so many


def picture(number: int) -> bytes:
    """A JPEG of 800 x 600 that no other number has."""
    scene = (data.chelsea, data.coffee, data.rocket, data.astronaut)[number % 4]()
    image = Image.fromarray(scene).resize((800, 600))
    noise = np.random.default_rng(number).integers(0, 256, (60, 800, 3), dtype=np.uint8)
    image.paste(Image.fromarray(noise), (0, 540))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()


class Pictures(BaseHTTPRequestHandler):
    """Serves `/<number>.jpg`, and 404 for everything else."""

    protocol_version = "HTTP/1.1"
    made: dict[str, bytes]

    def do_GET(self) -> None:
        """See the class."""
        body = self.made.get(self.path, b"")
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{self.path}"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def memory(process: psutil.Process) -> int:
    """Proportional set size of a process and its children, bytes: shared pages are counted once."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            total += each.memory_full_info().pss
        except psutil.Error:
            continue
    return total


async def ask_all(url: str, urls: list[str]) -> list[tuple[int, float]]:
    """Status and seconds of each, all asked for at once."""
    limits = httpx.Limits(max_connections=len(urls), max_keepalive_connections=len(urls))
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:

        async def one(each: str) -> tuple[int, float]:
            started = time.perf_counter()
            try:
                answer = await client.post("/v1/fingerprints", json={"url": each})
                status = answer.status_code
                if status == 422 and not answer.json()["error"]["reason"]:
                    status = -1
            except httpx.HTTPError:
                status = 0
            return status, time.perf_counter() - started

        return list(await asyncio.gather(*map(one, urls)))


def say(name: str, answers: list[tuple[int, float]], seconds: float, used: int) -> None:
    """One line of the table."""
    statuses = [status for status, _ in answers]
    took = np.array([each for _, each in answers]) * 1000
    print(
        f"{name:22} {len(answers):8} {statuses.count(200):8} {statuses.count(422):10} "
        f"{len(answers) - statuses.count(200) - statuses.count(422):5} {len(answers) / seconds:10.1f} "
        f"{np.percentile(took, 50):9.0f} {np.percentile(took, 99):9.0f} {used / 1e6:9.0f}"
    )


def main() -> None:
    """Start the server, load it, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    Pictures.made = {f"/{number}.jpg": picture(number) for number in range(given.requests) if number % BAD}
    web = ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{web.server_port}"
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "fingerprint_dagster", "serve", "--port", str(port)]
        environment = os.environ | {
            "FINGERPRINT_HOME": home,
            "FINGERPRINT_WORKERS": str(given.workers),
            "FINGERPRINT_ALLOWED_NETWORKS": "127.0.0.0/8",
            "FINGERPRINT_DOWNLOADS_PER_HOST": "64",
            "FINGERPRINT_TIMEOUT_SECONDS": "600",
        }
        server = subprocess.Popen(command, env=environment)
        try:
            url = f"http://127.0.0.1:{port}"
            while not ready(url):
                time.sleep(0.2)
            process = psutil.Process(server.pid)
            print(f"{given.workers} workers; memory when ready {memory(process) / 1e6:.0f} MB")
            titles = ("requests at once", "requests", "answered", "explained", "lost", "a second", "p50 ms", "p99 ms")
            print("{:22} {:>8} {:>8} {:>10} {:>5} {:>10} {:>9} {:>9} {:>9}".format(*titles, "MB"))
            urls = [f"{base}/{number}.jpg" for number in range(given.requests)]
            for name in ("new pictures", "the same again"):
                started = time.perf_counter()
                answers = asyncio.run(ask_all(url, urls))
                say(name, answers, time.perf_counter() - started, memory(process))
            load_with_wrk(url, f"{base}/1.jpg", Path(home))
            stats = httpx.get(f"{url}/v1/cache").json()
            print(
                {name: stats[name] for name in ("memory_hits", "memo_hits", "misses", "shared", "batches", "batched")}
            )
        finally:
            server.send_signal(signal.SIGTERM)
            print(f"stopped with exit code {server.wait(120)}")
    web.shutdown()


def ready(url: str) -> bool:
    """Whether the server says it is."""
    try:
        return httpx.get(f"{url}/ready").status_code == 200
    except httpx.TransportError:
        return False


def load_with_wrk(url: str, picture_url: str, folder: Path) -> None:
    """One cached answer, asked for by 32 connections for ten seconds."""
    if shutil.which("wrk") is None:
        print("wrk is not installed: apt-get install wrk")
        return
    script = folder / "ask.lua"
    body = json.dumps({"url": picture_url})
    script.write_text(f"wrk.method = 'POST'\nwrk.body = [[{body}]]\nwrk.headers['Content-Type'] = 'application/json'\n")
    command = ["wrk", "-t1", "-c32", "-d10s", "--latency", "-s", str(script), f"{url}/v1/fingerprints"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    print("wrk, one cached answer, 32 connections:")
    for line in done.stdout.splitlines():
        if any(word in line for word in ("50%", "99%", "Requests/sec", "Non-2xx")):
            print(f"  {' '.join(line.split())}")


if __name__ == "__main__":
    main()
