"""The real server, `fingerprint serve`, in a process of its own."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from running import CHECKOUT, environment, start, stop, wait_until

pytest.importorskip("fastapi", reason="the extra serve is not installed")


class Server:
    """A running server. ask: a client on its address."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        self.ask = httpx.Client(base_url=self.url, timeout=120)

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            return self.ask.get("/ready").status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def serving(home: Path, log: Path, **variables: str) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {"FINGERPRINT_WORKERS": "2", "FINGERPRINT_ALLOWED_NETWORKS": "127.0.0.0/8", **variables}
    command = [sys.executable, "-m", "fingerprint_dagster", "serve", "--port", str(port)]
    process = start(command, environment(home, **given), CHECKOUT, log)
    server = Server(process, port, log)
    try:
        wait_until(server.is_ready, "the server to be ready")
        yield server
    finally:
        stop(process, signal.SIGTERM, 60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests of a module."""
    folder = tmp_path_factory.mktemp("server")
    with serving(folder / "home", folder / "log") as it:
        yield it


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start a server with settings of the test's own: `serve(FINGERPRINT_API_KEYS="secret")`."""
    with ExitStack() as stack:
        yield lambda **variables: stack.enter_context(serving(tmp_path / "home", tmp_path / "log", **variables))
