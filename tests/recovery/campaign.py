"""Runs that are hurt at random moments, run again, and looked at: what was lost, what is there twice, what is stuck.

One round of a campaign: new files come, `fingerprint run` starts, and at a random moment one of these happens.

worker      a decoding process is killed (kill -9), up to three in one run
run         a process that executes a run is killed, and with it the step that it is in
step        the process of a step is killed, where each step has its own (the multiprocess executor)
everything  every process is killed, in no order
daemon      Dagster's daemon is killed, up to three times, while it launches the runs of a backfill; the runs go on. The
            next one must bring the backfill to its end
power       the power is cut (see `disks`): what was not synced is gone
memo full, store full, home full
            from a random moment on, the disk with the memo, the fingerprints, or all else has no space left; when the
            command has ended, it has again

What was hurt may be hurt again on its way back, several times in a row. Then the same command runs undisturbed, twice
where the first left contents that a retry can help; it must succeed. After that, of every file that ever came:

lost        neither in the store nor in quarantine
double      twice in the store, in two batches, or in store and quarantine
wrong       another fingerprint than its bytes have, not found by it, or in quarantine without its fault
stuck       a run that never ends, a pool slot that is never given back, a command that fails or does not end
again       decoded more often than once, and once more for each decoder that was killed at it
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from disks import Disk, start_anew

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
# Kind -> how often, among 100.
KINDS = {
    "worker": 14,
    "run": 20,
    "step": 3,
    "everything": 22,
    "daemon": 3,
    "power": 23,
    "memo full": 5,
    "store full": 5,
    "home full": 5,
}
ON_DISKS = ("power", "memo full", "store full", "home full")
FAULTS = ("lost", "double", "wrong", "stuck", "again")
# What happens several times in a row, before the look at what came of it.
IN_A_ROW = ("run", "everything", "power")
FILES = 12
IN_BATCH = 6
WORKERS, RUNS = 2, 2
# After so many rounds a home is given up for a new one, so that the first start of everything is hit, too.
ROUNDS_OF_A_HOME = 4
MOUNT_OPTIONS = ("", "noauto_da_alloc", "data=writeback,noauto_da_alloc", "commit=1", "nodelalloc")
HANGS_SECONDS = 600.0
# How long a daemon takes to start, to launch a few runs, and to see them end.
DAEMON_SECONDS = 20.0


@dataclass
class Counts:
    """What was done, by kind, and what was found after it: kind -> fault -> number. told: the first faults in words."""

    done: Counter[str] = field(default_factory=Counter)
    faults: dict[str, Counter[str]] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    contents: int = 0
    decoded: int = 0

    def table(self) -> str:
        """The counts as text."""
        lines = [f"{'kind':<12}{'times':>7}" + "".join(f"{fault:>8}" for fault in FAULTS)]
        for kind in KINDS:
            if self.done[kind]:
                found = self.faults.get(kind, Counter())
                lines.append(f"{kind:<12}{self.done[kind]:>7}" + "".join(f"{found[fault]:>8}" for fault in FAULTS))
        total = sum(self.faults.values(), Counter[str]())
        lines.append(f"{'all':<12}{self.done.total():>7}" + "".join(f"{total[fault]:>8}" for fault in FAULTS))
        lines.append(f"{self.contents} contents, decoded {self.decoded} times")
        return "\n".join(lines)

    @property
    def faulty(self) -> int:
        """How many faults there were."""
        return sum(found.total() for found in self.faults.values())


class Campaign:
    """One home, hurt again and again, in `folder`. Use as a context manager.

    disks: whether file systems can be made for the home (see `disks.missing`); images: where they lie. site: where the
    content type `waveform` is installed. in_a_row: how often something happens, at most, without a look at what came of
    it. Every random choice comes from the seed, but not how far a run is at a moment.
    """

    def __init__(
        self, folder: Path, site: Path, seed: int, *, disks: bool, images: Path | None = None, in_a_row: int = 6
    ) -> None:
        self.folder = folder
        self._in_a_row = in_a_row
        self.random = random.Random(seed)
        self.home, self.memo, self.store = folder / "home", folder / "memo", folder / "store"
        self.files: dict[str, bool] = {}
        self.media = folder / "media"
        self.calls = folder / "calls" / "calls"
        self.log = folder / "log"
        self.counts = Counts()
        self._codes: dict[int, int | None] = {}
        self._rounds = 0
        self._generation = 0
        self._seconds = 8.0  # How long a run takes that nothing happens to.
        self._excused = 0  # Decodings that a kill is the reason of.
        self._decoded = 0
        self._unsettled: list[str] = []
        self._with_disks = disks
        self._images = images or folder
        self._disks: dict[str, Disk] = {}
        path = os.pathsep.join([str(site), str(CHECKOUT)])
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("FINGERPRINT_", "DAGSTER_"))}
        self._environment = kept | {
            "FINGERPRINT_HOME": str(self.home / "home"),
            "FINGERPRINT_MEMO": str(self.memo / "memo"),
            "FINGERPRINT_STORE": str(self.store / "index"),
            "FINGERPRINT_DECODER_FOLDERS": str(self.calls.parent),
            "FINGERPRINT_WARM_MODELS": "0",
            "FINGERPRINT_WORKERS": str(WORKERS),
            "FINGERPRINT_RUNS": str(RUNS),
            "WAVEFORM_CALLS": str(self.calls),
            "PYTHONPATH": path,
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "COLUMNS": "200",
        }

    def __enter__(self) -> Campaign:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.calls.parent.mkdir(exist_ok=True)
        command = [sys.executable, str(HERE / "nursery.py")]
        pipe = subprocess.PIPE
        errors = (self.folder / "nursery.log").open("wb")
        self._nursery = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=errors, text=True, env=self._environment, cwd=self.folder
        )
        errors.close()
        assert self._nursery.stdout is not None
        if self._nursery.stdout.readline() != "ready\n":
            raise RuntimeError((self.folder / "nursery.log").read_text())
        self._new_home()
        return self

    def __exit__(self, *_: object) -> None:
        self._kill(self._processes())
        self._nursery.kill()
        self._nursery.wait()
        for disk in self._disks.values():
            disk.remove()

    def round(self, kind: str) -> None:
        """New files, a run that `kind` happens to, and the look at what came of it."""
        if self._rounds == ROUNDS_OF_A_HOME:
            self._new_home()
        self._rounds += 1
        self._add_files()
        times = self.random.randint(1, self._in_a_row) if kind in IN_A_ROW else 1
        happened = sum(self._hurt(kind) for _ in range(times))
        self.counts.done[kind] += happened
        faults = self._complete()
        report = self.folder / "report.json"
        report.unlink(missing_ok=True)
        code = self._wait(self._order(do="examine", files=self.files, report=str(report)), HANGS_SECONDS)
        if code == 0:
            for fault, found in json.loads(report.read_text()).items():
                faults[fault] += found
        else:
            faults["stuck"].append(f"the home cannot be read: {self._tail()}")
        faults["again"] = self._decoded_again(kind)
        faults["stuck"] += self._unsettled
        self._unsettled = []
        counted = self.counts.faults.setdefault(kind, Counter())
        for fault, found in faults.items():
            counted[fault] += len(found)
            self.counts.told += [f"{kind}, generation {self._generation}: {fault}: {each}" for each in found[:3]]
        if any(faults.values()):
            self._new_home()  # What is wrong once must not be counted again.

    def finish(self) -> None:
        """Add the files of the last home to the counts."""
        self.counts.contents += len(self.files)
        self.counts.decoded += self._decoded
        self.files, self._decoded = {}, 0

    # ------------------------------------------------------------------ what happens

    def _hurt(self, kind: str) -> int:
        """Start the command, let it happen, and wait for the end; returns how many times it happened."""
        if kind == "daemon":
            happened = self._kill_daemons(self.random.randint(1, min(3, self._in_a_row)))
            self._excused += WORKERS * RUNS * happened
            return happened
        steps = "multiprocess" if kind == "step" else "in_process"
        command = self._run(steps)
        moment = self.random.uniform(0.0, self._seconds * (1.5 if kind == "step" else 1.0))
        if kind == "worker":
            happened = sum(self._kill_one(command, moment / 2, "worker") for _ in range(self.random.randint(1, 3)))
            self._end(command)
        elif kind in ("run", "step"):
            happened = self._kill_one(command, moment, kind)
            self._end(command)
        elif kind == "everything":
            happened = self._after(command, moment)
            self._kill(self._processes())
            self._end(command)
        elif kind == "power":
            happened = self._after(command, moment)
            for disk in self._disks.values():
                disk.cut()
            self._kill(self._processes())
            self._end(command)
            for disk in self._disks.values():
                disk.unmount()
                disk.mount()
            start_anew()
        else:
            happened = self._after(command, moment)
            disk = self._disks[kind.split()[0]]
            disk.fill(self.random.choice([0, 4096, 20_000, 60_000]))
            self._end(command)
            disk.free()
        if happened:
            self._excused += WORKERS * RUNS * happened
        return happened

    def _kill_daemons(self, times: int) -> int:
        """Queue a backfill of the new files, kill so many daemons that work at it, and let another one end it."""
        queue = self._order(do="queue", media=str(self.media), size=IN_BATCH)
        if self._wait(queue, HANGS_SECONDS) != 0:
            self._unsettled.append(f"nothing could be queued: {self._tail()}")
            return 0
        happened = 0
        for _ in range(times):
            daemon = self._order(do="daemon")
            happened += self._after(daemon, self.random.uniform(0.0, DAEMON_SECONDS))
            self._kill([daemon])
            self._wait(daemon, HANGS_SECONDS)
        last = self._order(do="daemon")
        if self._wait(self._order(do="settle", seconds=HANGS_SECONDS / 2), HANGS_SECONDS) != 0:
            self._unsettled.append(f"the daemon does not come to an end: {self._tail()}")
        self._kill(self._processes())  # Its code server and those of the killed ones would wait for a minute.
        self._wait(last, HANGS_SECONDS)
        return happened

    def _after(self, command: int, seconds: float) -> int:
        """Whether the command still runs after so many seconds."""
        return int(self._wait(command, seconds) is None)

    def _kill_one(self, command: int, seconds: float, role: str) -> int:
        """Kill a process of that role, which may still have to start, after so many seconds; 0 where none was there."""
        if not self._after(command, seconds):
            return 0
        deadline = time.monotonic() + self._seconds
        while time.monotonic() < deadline and Path(f"/proc/{command}").exists():
            found = self._of_role(command, role)
            if found:
                return self._kill([self.random.choice(found)])
            time.sleep(0.02)
        return 0

    def _kill(self, pids: Sequence[int]) -> int:
        """Kill these in no order, and all that they start meanwhile."""
        killed = 0
        for pid in self.random.sample(list(pids), len(pids)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        return killed

    def _end(self, command: int) -> None:
        """Wait for the end of a command, and of all that it started."""
        self._codes[command] = self._wait(command, HANGS_SECONDS)
        deadline = time.monotonic() + 30
        while (left := self._processes()) and time.monotonic() < deadline:
            if self._codes[command] is None or self._codes[command] == -signal.SIGKILL:
                self._kill(left)
            time.sleep(0.02)
        if left and self._codes[command] is not None:
            raise AssertionError(f"processes outlive the command: {left}")

    def _complete(self) -> dict[str, list[str]]:
        """Run the command until nothing is left to do; what was stuck."""
        faults: dict[str, list[str]] = {fault: [] for fault in FAULTS}
        for attempt in range(2):
            started = time.monotonic()
            command = self._run("in_process")
            self._end(command)
            code = self._codes[command]
            if code != 0:
                faults["stuck"].append(f"the command ended with {code}: {self._tail()}")
                return faults
            if attempt == 0:
                self._seconds = 0.8 * self._seconds + 0.2 * max(2.0, 1.5 * (time.monotonic() - started))
            if not self._has_retryable():
                break
        return faults

    # ------------------------------------------------------------------ the home

    def _new_home(self) -> None:
        self._kill(self._processes())
        for disk in self._disks.values():
            disk.remove()
        self._generation += 1
        self._rounds = 0
        self.finish()
        self._excused = 0
        self.calls.write_text("")
        shutil.rmtree(self.media, ignore_errors=True)
        self.media.mkdir()
        options = self.random.choice(MOUNT_OPTIONS)
        for place in (self.home, self.memo, self.store):
            if self._with_disks:
                self._disks[place.name] = Disk(self._images / f"{place.name}.{os.getpid()}.ext4", place, 48, options)
            else:
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir()

    def _add_files(self) -> None:
        for _ in range(FILES):
            number = len(self.files)
            good = self.random.random() > 0.1
            words = " ".join(str(self.random.randint(0, 999)) for _ in range(self.random.randint(1, 2000)))
            path = self.media / f"{self._generation}-{number:04d}.wfm"
            path.write_text(f"WAVEFORM\n{number} {words}{'' if good else ' bad'}\n")
            self.files[str(path)] = good

    def _has_retryable(self) -> bool:
        with contextlib.closing(sqlite3.connect(self.home / "home" / "catalog.sqlite")) as db:
            return db.execute("SELECT 1 FROM quarantine WHERE retryable LIMIT 1").fetchone() is not None

    def _decoded_again(self, kind: str) -> list[str]:
        calls = sum(line.startswith("decode ") for line in self.calls.read_text().splitlines())
        self._decoded = calls
        if kind in ON_DISKS:
            self._excused = max(self._excused, calls - len(self.files))  # The memo has lost what was not synced.
        if calls <= len(self.files) + self._excused:
            return []
        return [f"{calls} decodings of {len(self.files)} files, {self._excused} of them excused"]

    # ------------------------------------------------------------------ processes

    def _run(self, steps: str) -> int:
        self.log.write_text("")
        arguments = ["run", str(self.media), "--batch-size", str(IN_BATCH)]
        return self._order(do="run", arguments=arguments, steps=steps)

    def _order(self, **order: Any) -> int:
        pid = int(self._ask({**order, "log": str(self.log)}))
        self._codes.pop(pid, None)  # Of an earlier process with this number.
        return pid

    def _wait(self, pid: int, seconds: float) -> int | None:
        """The exit code of a command, None where it still runs after so many seconds."""
        if pid in self._codes:
            return self._codes[pid]
        code = self._ask({"do": "wait", "pid": pid, "seconds": seconds})
        if code is not None:
            self._codes[pid] = code
        return code

    def _ask(self, order: dict[str, Any]) -> Any:
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.write(json.dumps(order) + "\n")
        self._nursery.stdin.flush()
        return json.loads(self._nursery.stdout.readline())

    def _tail(self) -> str:
        return " | ".join(self.log.read_text(errors="replace").strip().splitlines()[-6:])[-1500:]

    def _processes(self) -> list[int]:
        """Every process of this home, but for the one that all are forked from."""
        return [pid for pid in _of_home(self._environment["FINGERPRINT_HOME"]) if pid != self._nursery.pid]

    def _of_role(self, command: int, role: str) -> list[int]:
        parents = {pid: _parent(pid) for pid in self._processes()}

        def depth(pid: int) -> int:
            return 0 if pid == command else 1 + depth(parents[pid]) if pid in parents else -1000

        if role == "run":
            return [pid for pid in parents if depth(pid) == 2]
        if role == "worker":
            return [pid for pid in parents if depth(pid) == 3]
        servers = {pid for pid in parents if b"forkserver" in _read(pid, "cmdline")}
        return [pid for pid in servers if parents[pid] in servers]


def _of_home(home: str) -> Iterator[int]:
    needle = f"FINGERPRINT_HOME={home}\0".encode()
    for each in Path("/proc").glob("[0-9]*"):
        pid = int(each.name)
        if needle in _read(pid, "environ") and _parent(pid):
            yield pid


def _parent(pid: int) -> int:
    """Its parent; 0 for a process that has ended."""
    state, parent, *_ = [*_read(pid, "stat").rpartition(b")")[2].split(), b"Z", b"0"][:2]
    return 0 if state == b"Z" else int(parent)


def _read(pid: int, file: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes()
    except OSError:
        return b""


def kinds(seed: int, *, disks: bool) -> Iterator[str]:
    """What happens, one after another, without end: every kind first once, then as often as `KINDS` says."""
    choices = {kind: weight for kind, weight in KINDS.items() if disks or kind not in ON_DISKS}
    chance = random.Random(seed)
    yield from chance.sample(list(choices), len(choices))
    while True:
        yield from chance.choices(list(choices), list(choices.values()))
