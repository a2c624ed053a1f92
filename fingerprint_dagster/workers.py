"""Processes for work that may crash, hang or eat memory: what is lost is one content, never the batch."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import multiprocessing.process
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from fingerprint_dagster.errors import ContentError, FingerprintError
from fingerprint_dagster.sandbox import confine
from fingerprint_dagster.temporary import TemporaryFolder

Task = TypeVar("Task")
Result = TypeVar("Result")

# How many threads numpy, torch and OpenCV compute with is read from these when they are loaded.
THREADS_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
# Imported once by the fork server, so that a worker starts in milliseconds.
PRELOAD = ["fingerprint_dagster.pipeline", "numpy", "PIL.Image", "av", "cv2", "safetensors.numpy", "xxhash"]
_START_SECONDS = 120.0
# The kernel ends a worker whose parent is gone and whose task does not end.
_ORPHAN_GRACE_SECONDS = 5.0
# An idle worker looks this often whether its parent is still there.
_PARENT_CHECK_SECONDS = 1.0
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
# What the system or a person sends, no content's fault.
_FROM_OUTSIDE = ("SIGKILL", "SIGTERM", "SIGHUP")


class WorkerError(FingerprintError):
    """The workers themselves cannot run: not the fault of any content."""


class OutOfMemory(ContentError):
    """A task that needs more memory than its process may take."""

    def __reduce__(self) -> tuple[object, ...]:
        return OutOfMemory, (self.reason,)


class _Worker(Generic[Task]):
    """One process, its pipe, and the task it has in hand."""

    def __init__(self, start: Callable[[multiprocessing.connection.Connection], multiprocessing.process.BaseProcess]):
        ours, theirs = multiprocessing.Pipe()
        self.pipe = ours
        self.process = start(theirs)
        theirs.close()
        self.task: Task | None = None
        self.ready = False
        self.deadline = time.monotonic() + _START_SECONDS

    def give(self, task: Task, seconds: float) -> bool:
        """Whether the process is there to take it: an idle one may have been killed."""
        if not self.process.is_alive():  # The pipe alone tells it late where the fork server still has the other end.
            return False
        try:
            self.pipe.send(task)
        except OSError:
            return False
        self.task = task
        self.deadline = time.monotonic() + seconds
        return True

    def end(self) -> int | None:
        self.pipe.close()
        self.process.kill()
        self.process.join()
        return self.process.exitcode


class WorkerPool(Generic[Task, Result]):
    """A fixed number of processes that each do one task at a time.

    work: a module-level factory; each process calls `work(*arguments)` once and gets the function that does a task.
        That function returns a result, or raises `ContentError` for a task that is at fault. Any other
        `FingerprintError` (a full disk, a wrong setting) is no task's fault, and raised by whoever waits for results.
    count: processes. timeout_seconds: time limit of one task. memory_bytes: what one process may add to its address
        space, and the largest file it may write.
    sandbox: confine the processes: no network, no programs, and no writing but to a folder for temporary files and to
        those of `writable`, which are made where they are missing. See the module `sandbox`.
    at_once: asked again and again how many of the processes may work now; at least one. By default all.
    Tasks and results travel through a pipe, so they should be small. Use as a context manager, from one thread.
    """

    def __init__(
        self,
        work: Callable[..., Callable[[Task], Result]],
        arguments: tuple[Any, ...],
        *,
        count: int,
        timeout_seconds: float,
        memory_bytes: int,
        sandbox: bool = True,
        writable: Sequence[Path] = (),
        at_once: Callable[[], int] | None = None,
    ) -> None:
        self.count = count
        self._at_once = at_once or (lambda: count)
        self.timeout_seconds = timeout_seconds
        self._limit = timeout_seconds  # of the tasks in hand
        self._target = (work, arguments, timeout_seconds, memory_bytes)
        self._sandbox = sandbox
        self._writable = list(writable)
        self._temporary: TemporaryFolder | None = None
        self._workers: list[_Worker[Task]] = []

    def __enter__(self) -> WorkerPool[Task, Result]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start every process now, not when there is work for it."""
        while len(self._workers) < self.count:
            self._workers.append(_Worker(self._start))

    def close(self) -> None:
        """End every process at once."""
        while self._workers:
            self._workers.pop().end()
        if self._temporary is not None:
            self._temporary.close()
            self._temporary = None

    def wait_ready(self) -> None:
        """Start the processes that are not there, and wait until they are ready. Raises `WorkerError` if one cannot."""
        self.start()
        while not all(worker.ready for worker in self._workers):
            list(self._collect())

    def do(self, task: Task, seconds: float | None = None) -> Result:
        """The result of one task. Raises `ContentError` where it ends in one, `WorkerError` if no process can start.

        seconds: the time limit of this task, where it is shorter than that of the pool.
        """
        self._limit = min(self.timeout_seconds if seconds is None else seconds, self.timeout_seconds)
        try:
            ((_, outcome),) = self.map([task])
        finally:
            self._limit = self.timeout_seconds
        if isinstance(outcome, ContentError):
            raise outcome
        return outcome

    def map(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Result | ContentError]]:
        """Every task with its result or the error it ended in, in the order of completion.

        Tasks are drawn from the iterable only when a process is free. A crash, a time-out and a result that could
        not be sent end in a `ContentError` for that task alone. Raises `WorkerError` if processes cannot start.
        """
        try:
            yield from self._map(iter(tasks))
        finally:
            # Where the caller left early, what is in hand must not come out of the next map.
            for worker in [worker for worker in self._workers if worker.task is not None]:
                self._workers.remove(worker)
                worker.end()

    def _map(self, source: Iterator[Task]) -> Iterator[tuple[Task, Result | ContentError]]:
        waiting: deque[Task] = deque()
        busy = True
        while busy:
            for worker in list(self._workers):
                if worker.ready and worker.task is None and self._in_hand() < self._at_once():
                    task = waiting.popleft() if waiting else next(source, None)
                    if task is not None and not worker.give(task, self._limit):
                        waiting.appendleft(task)
                        self._workers.remove(worker)
                        worker.end()
            if len(self._workers) < min(self.count, self._at_once()):
                starting = sum(not worker.ready for worker in self._workers)
                if len(waiting) <= starting and (task := next(source, None)) is not None:
                    waiting.append(task)
                if len(waiting) > starting:
                    self._workers.append(_Worker(self._start))
                    continue
            yield from self._collect()
            busy = bool(waiting) or any(worker.task is not None for worker in self._workers)
            if not busy and (task := next(source, None)) is not None:
                waiting.append(task)
                busy = True

    def _in_hand(self) -> int:
        return sum(worker.task is not None for worker in self._workers)

    def _collect(self) -> Iterator[tuple[Task, Result | ContentError]]:
        """Wait until some worker reports, dies or overruns its time, and yield what came of it."""
        active = [worker for worker in self._workers if worker.task is not None or not worker.ready]
        if not active:
            return
        pause = max(0.0, min(worker.deadline for worker in active) - time.monotonic())
        reported = multiprocessing.connection.wait([worker.pipe for worker in active], pause)
        for worker in active:
            if worker.pipe in reported:
                try:
                    message = worker.pipe.recv()
                except (EOFError, OSError):
                    yield from self._lost(worker, overrun=False)
                    continue
                if not worker.ready:
                    worker.ready = True
                elif worker.task is not None:
                    task, worker.task = worker.task, None
                    if isinstance(message, FingerprintError) and not isinstance(message, ContentError):
                        raise message
                    yield task, message
            # It may have reported in time, while the caller was busy with another's result.
            elif time.monotonic() >= worker.deadline and not worker.pipe.poll():
                yield from self._lost(worker, overrun=True)

    def _lost(self, worker: _Worker[Task], *, overrun: bool) -> Iterator[tuple[Task, ContentError]]:
        self._workers.remove(worker)
        code = worker.end()
        if worker.task is None:
            raise WorkerError(f"a worker process could not start (exit code {code}); its error is printed above")
        cause = _describe(code)
        if overrun or cause in ("SIGALRM", "SIGXCPU"):
            yield worker.task, ContentError(f"took longer than {self._limit:.3g} s", retryable=True)
        elif cause in _FROM_OUTSIDE:
            reason = f"the decoder was ended by {cause}: short of memory, or shut down"
            yield worker.task, ContentError(reason, retryable=True)
        else:
            yield worker.task, ContentError(f"the decoder crashed ({cause})")

    def _start(self, pipe: multiprocessing.connection.Connection) -> multiprocessing.process.BaseProcess:
        if self._temporary is None:
            self._temporary = TemporaryFolder()
        for folder in self._writable:
            folder.mkdir(parents=True, exist_ok=True)
        context: Any = multiprocessing.get_context(_start_method())
        process: multiprocessing.process.BaseProcess = context.Process(
            target=_serve,
            args=(pipe, *self._target, self._writable, self._temporary.path if self._sandbox else None),
            daemon=True,
        )
        process.start()
        return process


def _start_method() -> str:
    """How a worker process is started: the fastest way that is safe here.

    A fork copies one thread and every lock the others hold. A process that has just one thread, such as a step of a
    Dagster run, may fork, which takes milliseconds; any other goes through a fork server, which takes a second once.
    """
    if os.name != "posix":
        return "spawn"
    try:
        threads = len(list(Path("/proc/self/task").iterdir()))
    except OSError:
        threads = 0  # Not Linux: unknown.
    if threads == 1:
        return "fork"
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOAD)
    return "forkserver"


def _serve(
    pipe: multiprocessing.connection.Connection,
    work: Callable[..., Callable[[Any], Any]],
    arguments: tuple[Any, ...],
    timeout_seconds: float,
    memory_bytes: int,
    writable: Sequence[Path],
    temporary: Path | None,
) -> None:
    """The life of a worker process: say ready, then answer tasks until the pipe closes."""
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # A fork has the parent's handler.
    if os.name == "posix":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = _address_space() + memory_bytes
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    keep_freed_memory()
    compute_in_one_thread()
    do = work(*arguments)
    if temporary is not None:
        confine(writable, temporary, memory_bytes)
    pipe.send("ready")
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            # A fork holds the parent's end of the pipe too, so the pipe alone does not tell that the parent is gone.
            while not pipe.poll(_PARENT_CHECK_SECONDS):
                if os.getppid() != parent:
                    return
            task = pipe.recv()
            if os.name == "posix":
                signal.setitimer(signal.ITIMER_REAL, timeout_seconds + _ORPHAN_GRACE_SECONDS)
                _limit_processor_time(timeout_seconds)
            answer: Any
            try:
                answer = do(task)
            except FingerprintError as error:
                answer = error
            except MemoryError:
                answer = OutOfMemory(f"needs more than the {memory_bytes >> 20} MiB of memory a decoder may use")
            except Exception as error:
                answer = ContentError(f"the decoder failed: {type(error).__name__}: {error}")
            if os.name == "posix":
                signal.setitimer(signal.ITIMER_REAL, 0)
            pipe.send(answer)


def _limit_processor_time(seconds: float) -> None:
    """End this process when it has computed for twice as long from now on, in however many threads."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    limit = int(time.process_time() + 2 * seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def compute_in_one_thread() -> None:
    """Let libraries compute in this process with one thread: there are as many processes as cores.

    With more, they wait for each other in a busy loop: hashing pictures in two processes takes five times the time.
    """
    from threadpoolctl import threadpool_limits

    for variable in THREADS_VARIABLES:
        os.environ[variable] = "1"  # for what is loaded later
    threadpool_limits(1)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(1)


def keep_freed_memory() -> None:
    """Let the allocator reuse the memory of one picture for the next, not return it and fault it in page by page.

    glibc only. Saves 3 of 11 ms of a 1080p JPEG; 32 MiB is the largest threshold that it takes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, 256 << 20)
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)


def _address_space() -> int:
    """Bytes of address space this process has already: libraries map gigabytes that they never touch."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _describe(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}"
