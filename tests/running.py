"""The real command line and the real Dagster services, started by tests and surely stopped again."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
PATIENCE_SECONDS = 180.0
HANGING_SECONDS = 600.0


def environment(home: Path, **more: str) -> dict[str, str]:
    """This process's environment with that home and no Dagster home of the developer's own."""
    path = os.pathsep.join(each for each in (os.environ.get("PYTHONPATH"), str(CHECKOUT)) if each)
    kept = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    return kept | {"FINGERPRINT_HOME": str(home), "PYTHONPATH": path, "DAGSTER_DISABLE_TELEMETRY": "1"} | more


def fingerprint(home: Path, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end; a command that never ends fails the test."""
    command = [sys.executable, "-m", "fingerprint_dagster", *map(str, arguments)]
    env = environment(home, **more)
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=HANGING_SECONDS)


def start(command: list[str], env: Mapping[str, str], cwd: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a service in a session of its own, with the signal handling of a terminal's foreground."""

    def foreground() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    with log.open("wb") as out:
        return subprocess.Popen(
            command, env=env, cwd=cwd, stdout=out, stderr=out, start_new_session=True, preexec_fn=foreground
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Webserver:
    """A running Dagster webserver and its GraphQL API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            data = json.load(answer)
        assert "errors" not in data, data["errors"]
        return dict(data["data"])


@contextmanager
def webserver(command: list[str], env: Mapping[str, str], cwd: Path, port: int, log: Path) -> Iterator[Webserver]:
    """The service that `command` starts, once it answers; interrupted at the end, killed if that does not help."""
    process = start(command, env, cwd, log)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _answers(url, process, log), "the webserver to answer")
        yield Webserver(url)
    finally:
        stop(process, signal.SIGINT)


def stop(process: subprocess.Popen[bytes], by: signal.Signals, seconds: float = 30) -> None:
    """End a process that `start` started, with a signal and then, with all its children, by killing them."""
    process.send_signal(by)
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _answers(url: str, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()[-3000:]
    try:
        with urllib.request.urlopen(f"{url}/server_info", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def wait_until(done: Any, what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Look again and again until `done()` is true; fail after a long time."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.3)
