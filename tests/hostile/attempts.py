"""Hostile inputs through the real pipeline, and what came of it: who was asked, what was written, how much it took."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hostile_inputs import Hostile

from fingerprint_dagster.content import Content, Failure, Fingerprint
from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.pipeline import Pipeline
from fingerprint_dagster.settings import Settings

OUTCOMES = ("read", "refused", "time-out", "memory", "crash", "escape")


class Canary:
    """A server on loopback that notes every connection: nobody has a reason to make one."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(1)
                try:
                    said = connection.recv(200).decode("latin-1")
                except OSError:
                    said = "nothing"
                self.requests.append(said.partition("\r\n")[0])

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


class Peak:
    """The most memory (bytes) that any process below this one had, looked at every few milliseconds (Linux only)."""

    def __init__(self) -> None:
        self.bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            for process in _below(os.getpid()):
                try:
                    status = Path(f"/proc/{process}/status").read_text()
                except OSError:
                    continue
                at = status.find("VmHWM:")
                if at >= 0:
                    self.bytes = max(self.bytes, 1024 * int(status[at + 6 :].split(None, 1)[0]))


def _below(process: int) -> list[int]:
    found: list[int] = []
    todo = [process]
    while todo:
        try:
            tasks = list(Path(f"/proc/{todo.pop()}/task").iterdir())
            children = [int(word) for task in tasks for word in (task / "children").read_text().split()]
        except (OSError, ValueError):
            continue
        found += children
        todo += children
    return found


class Writes:
    """What this process itself opens for writing, makes, moves or links outside the folders named, while it is watched.

    What its confined children may write to is the kernel's business; see `fingerprint_dagster.sandbox`.
    """

    _watching: Writes | None = None
    _hooked = False

    def __init__(self, allowed: Iterable[Path]) -> None:
        self.outside: list[str] = []
        self._allowed = tuple(str(folder.resolve()) for folder in allowed)

    def __enter__(self) -> Writes:
        if not Writes._hooked:
            sys.addaudithook(_audit)
            Writes._hooked = True
        Writes._watching = self
        return self

    def __exit__(self, *_: object) -> None:
        Writes._watching = None

    def note(self, event: str, arguments: Sequence[object]) -> None:
        """An event of Python's audit hooks."""
        if event == "open":
            path, _, flags = arguments[:3]
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in ("os.mkdir", "os.truncate", "os.remove", "os.rmdir"):
            path = arguments[0]
        elif event in ("os.rename", "os.link", "os.symlink"):
            path = arguments[1]
        else:
            return
        if isinstance(path, int):  # an open file
            return
        text = os.path.realpath(os.fsdecode(path))  # type: ignore[arg-type]
        if not text.startswith((*self._allowed, "/dev/")) and "__pycache__" not in text:
            self.outside.append(f"{event} {text}")


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if Writes._watching is not None and (event == "open" or event.startswith("os.")):
        Writes._watching.note(event, arguments)


@dataclass
class Attempt:
    """What became of the inputs of one class. unrefused: inputs that were read but had to be refused."""

    kind: str
    tried: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    unrefused: list[str] = field(default_factory=list)
    seconds: float = 0.0
    peak_bytes: int = 0

    def add(self, hostile: Hostile, reason: str | None) -> None:
        """reason: why it was refused, None where it was read."""
        self.tried += 1
        outcome = "read" if reason is None else outcome_of(reason)
        self.outcomes[outcome] += 1
        self.reasons[reason or ""] += 1
        if outcome in ("crash", "escape") or reason == "":
            self.bad.append(f"{hostile.type} {hostile.name}: {reason}")
        if outcome == "time-out" or outcome == "memory":
            self.bad.append(f"({hostile.type} {hostile.name}: {reason})")
        if hostile.refused and reason is None:
            self.unrefused.append(f"{hostile.type} {hostile.name}")


def outcome_of(reason: str) -> str:
    """Which of OUTCOMES the reason of a failure tells of."""
    if reason.startswith("took longer than"):
        return "time-out"
    if reason.startswith(("needs more than the", "the decoder was ended by")):
        return "memory"
    if reason.startswith("the decoder crashed"):
        return "crash"
    return "escape" if reason.startswith("the decoder failed:") else "refused"


def _written(inputs: Sequence[Hostile], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, hostile in enumerate(inputs):
        place = folder / f"{number}"
        place.mkdir(exist_ok=True)
        path = place / hostile.name
        path.write_bytes(hostile.data)
        paths.append(path)
    return paths


def through_pipeline(
    kind: str, inputs: Sequence[Hostile], folder: Path, settings: Settings, *, whole: bool = True
) -> Attempt:
    """The inputs through the stages. folder: where they are written. whole: to the fingerprint, else to the arrays."""
    paths = _written(inputs, folder)
    contents = [
        Content(str(n), path.as_uri(), each.type) for n, (path, each) in enumerate(zip(paths, inputs, strict=True))
    ]
    attempt = Attempt(kind)
    began = time.monotonic()
    with Peak() as peak, Pipeline.from_settings(settings) as pipeline:
        reasons: dict[str, str | None] = {}
        if whole:
            for content, result in zip(contents, pipeline.fingerprints(contents), strict=True):
                assert isinstance(result, Fingerprint | Failure)
                reasons[content.content_id] = result.reason if isinstance(result, Failure) else None
        else:
            for type_ in dict.fromkeys(content.content_type for content in contents):
                mine = [content for content in contents if content.content_type == type_]
                for entry in pipeline.run("decode", pipeline.download(mine).entries).entries:
                    reasons[entry.content.content_id] = entry.failure.reason if entry.failure else None
    attempt.seconds, attempt.peak_bytes = time.monotonic() - began, peak.bytes
    for content, hostile in zip(contents, inputs, strict=True):
        attempt.add(hostile, reasons[content.content_id])
    return attempt


def decoder() -> Callable[[tuple[str, Path]], None]:
    """The work of a process that decodes whatever it is given, unseen by any check before."""
    from fingerprint_dagster.media.registry import content_type

    def do(task: tuple[str, Path]) -> None:
        content_type(task[0]).decode(task[1])

    return do


def straight_into_decoders(kind: str, inputs: Sequence[Hostile], folder: Path, *, sandbox: bool) -> Attempt:
    """The inputs into their decoders without the check of what they are; sandbox: in confined processes."""
    from fingerprint_dagster.workers import WorkerPool

    paths = _written(inputs, folder)
    attempt = Attempt(kind)
    by_task = {(each.type, path): each for each, path in zip(inputs, paths, strict=True)}
    began = time.monotonic()
    pool: WorkerPool[tuple[str, Path], None] = WorkerPool(
        decoder, (), count=2, timeout_seconds=60, memory_bytes=8 << 30, sandbox=sandbox
    )
    with Peak() as peak, pool:
        for task, answer in pool.map(by_task):
            attempt.add(by_task[task], answer.reason if isinstance(answer, ContentError) else None)
    attempt.seconds, attempt.peak_bytes = time.monotonic() - began, peak.bytes
    return attempt
