"""Where the processor seconds of a tree of Python processes go: a sampler that each of them starts by itself.

`sampled(command, environment)` runs a command so that every Python process below it is interrupted each 5 ms of
processor time (SIGPROF), looks at its own stack, and adds what it has used since the last time to the part of the work
that stands on it. What a process did after its last sample, and what is no Python, is "process ends and others".
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
STAGES = ("download", "decode", "embed", "hash")
OVERHEAD = ("store", "memo", "IPC", "Dagster", "process start", "command line", "process ends and others")

# Runs in every process; the innermost frame that says something decides, except that an import is always an import.
SAMPLER = """
import atexit, os, signal, time

_last = 0.0
_file = -1

PARTS = (
    ("/fingerprint_dagster/memo/", "memo"),
    ("/fingerprint_dagster/codec.py", "memo"),
    ("/safetensors/", "memo"),
    ("/multiprocessing/connection.py", "IPC"),
    ("/multiprocessing/reduction.py", "IPC"),
    ("/fingerprint_dagster/workers.py", "IPC"),
    ("/fingerprint_dagster/progress.py", "command line"),
    ("/fingerprint_dagster/sandbox.py", "process start"),
    ("/multiprocessing/", "process start"),
    ("/fingerprint_dagster/index/", "store"),
    ("/fingerprint_dagster/sources/", "download"),
    ("/fingerprint_dagster/catalog.py", "command line"),
    ("/fingerprint_dagster/models/", "embed"),
    ("/fingerprint_dagster/cli/", "command line"),
    ("/jobs/launch.py", "command line"),
    ("/jobs/warm.py", "process start"),
    ("/jobs/", "Dagster"),
    ("/resources/", "Dagster"),
    ("/assets/", "Dagster"),
    ("/dagster/", "Dagster"),
    ("/dagster_shared/", "Dagster"),
    ("/sqlalchemy/", "Dagster"),
    ("/alembic/", "Dagster"),
)
FUNCTIONS = {
    "decode": "decode", "hash_": "hash", "_embed": "embed", "_hash_here": "hash", "sketches": "hash",
    "_download": "download", "download": "download",
}

def part_of(frame):
    found = None
    while frame is not None:
        code = frame.f_code
        name = code.co_filename
        if name.startswith("<frozen importlib"):
            return "process start"
        if found is None:
            if name.endswith("/fingerprint_dagster/pipeline.py"):
                found = FUNCTIONS.get(code.co_name)
            elif "/fingerprint_dagster/media/" not in name:
                for needle, part in PARTS:
                    if needle in name:
                        found = part
                        break
        frame = frame.f_back
    return found or "process start"

def sample(number, frame):
    global _last
    now = time.process_time()
    used, _last = now - _last, now
    os.write(_file, f"{part_of(frame)}\\t{used:.6f}\\n".encode())

def start():
    global _last, _file
    _last = 0.0
    _file = os.open(os.environ["PARTS_FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    signal.signal(signal.SIGPROF, sample)
    signal.siginterrupt(signal.SIGPROF, False)
    signal.setitimer(signal.ITIMER_PROF, 0.005, 0.005)

start()
os.register_at_fork(after_in_child=start)
# Python ends with the signal's default, which kills.
atexit.register(signal.setitimer, signal.ITIMER_PROF, 0)
"""


@dataclass(frozen=True)
class Parts:
    """wall: seconds. processor: seconds of the whole tree. parts: part -> processor seconds, summing to it.

    busy: the share of the cores that had something to do, from the number of processes and threads that were ready to
        run, ten times a second. On a machine that does nothing else it is the share of the processor time used; on
        one that does, it says what that share would be.
    """

    wall: float
    processor: float
    parts: dict[str, float]
    busy: float

    @property
    def overhead(self) -> float:
        """All that is no stage's own work, as a share of the stages' own work."""
        work = sum(self.parts.get(stage, 0.0) for stage in STAGES)
        return (self.processor - work) / work if work else float("inf")


def measured(command: list[str], environment: dict[str, str]) -> tuple[float, float, float]:
    """(wall seconds, processor seconds of the command and of all it started, `Parts.busy`)."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    cores = len(os.sched_getaffinity(0))
    looks: list[float] = []
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        looks.append(min(cores, _ready(process.pid)) / cores)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    wall = time.monotonic() - started
    while True:  # Those whose parents are gone are ours to wait for.
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            break
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, sum(looks) / max(1, len(looks))


def _ready(root: int) -> int:
    """Threads of the process and of its descendants that run or wait for a core."""
    states: dict[int, tuple[int, int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            ready = sum(
                (task / "stat").read_text().rpartition(")")[2].split()[0] == "R" for task in (folder / "task").iterdir()
            )
        except (OSError, IndexError):
            continue
        states[int(folder.name)] = parent, ready
    tree = {root}
    grown = True
    while grown:
        more = {pid for pid, (parent, _) in states.items() if parent in tree} - tree
        tree |= more
        grown = bool(more)
    return sum(ready for pid, (_, ready) in states.items() if pid in tree)


def sampled(command: list[str], environment: dict[str, str]) -> Parts:
    """Run the command with the sampler in each of its Python processes."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sitecustomize.py").write_text(SAMPLER)
        samples = Path(folder) / "samples"
        path = os.pathsep.join(each for each in (folder, environment.get("PYTHONPATH", "")) if each)
        wall, processor, busy = measured(command, environment | {"PYTHONPATH": path, "PARTS_FILE": str(samples)})
        parts: Counter[str] = Counter()
        for line in samples.read_text().splitlines():
            part, seconds = line.split("\t")
            parts[part] += float(seconds)
    parts["process ends and others"] = max(0.0, processor - sum(parts.values()))
    return Parts(wall, processor, dict(parts), busy)
