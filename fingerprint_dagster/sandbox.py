"""What a decoding process may still do: read files, write to the folders named, compute. Nothing else.

A decoder parses what strangers made, so it is treated as if it could be taken over. Each protection is used where the
system has it, and `confine` says which hold:

- "limits" (POSIX): file size and open files; the caller sets memory and time, task by task.
- "files" (Linux 5.13 or later, Landlock): no writing, renaming or starting of programs outside the folders named.
- "network" (Linux, seccomp, x86-64 and ARM64): no sockets, local ones included; nor anything by which the process could
  reach others or leave its confinement (ptrace, namespaces, io_uring, kernel modules), or change what files are like
  (owners, modes, times), which Landlock does not look at.

None of them needs privileges, none can be taken back, and they hold for whatever the process starts. Reading is not
restricted: a decoder needs its libraries and the user's file, and what it reads it cannot send anywhere. A process of
root's keeps root's capabilities, since it may have to read what belongs to others.
"""

from __future__ import annotations

import ctypes
import errno
import multiprocessing
import os
import platform
import struct
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

PROTECTIONS = ("limits", "files", "network")

_OPEN_FILES = 256

# linux/audit.h: the architecture a system call is made for; and, for each, the numbers of the calls that are refused.
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# fmt: off
_REFUSED = {
    "x86_64": (
        41,  # socket
        101, 310, 311, 438,  # ptrace, process_vm_readv, process_vm_writev, pidfd_getfd
        165, 166, 155, 161, 428, 429, 430, 431, 432, 442,  # mount, umount2, pivot_root, chroot, and the newer ways
        272, 308,  # unshare, setns
        250, 248, 249, 321, 298, 323, 425,  # keyctl, add_key, request_key, bpf, perf_event_open, userfaultfd, io_uring
        175, 313, 246, 169,  # init_module, finit_module, kexec_load, reboot
        90, 91, 268, 452, 92, 93, 94, 260,  # chmod and chown
        188, 189, 190, 463, 132, 235, 261, 280,  # setxattr, utime
        29,  # shmget
    ),
    "aarch64": (
        198, 117, 270, 271, 438, 40, 39, 41, 51, 428, 429, 430, 431, 432, 442, 97, 268, 219, 217, 218, 280, 241, 282,
        425, 105, 273, 104, 142, 52, 53, 452, 54, 55, 5, 6, 7, 463, 88, 194,
    ),
}
# fmt: on
_CLONE, _CLONE3 = {"x86_64": 56, "aarch64": 220}, 435
_PRLIMIT = {"x86_64": 302, "aarch64": 261}
_NEW_NAMESPACES = 0x7E020080 | 0x10000000  # of clone's flags: mount, cgroup, UTS, IPC, user, PID, network, time
_X32 = 0x40000000  # x86-64's second numbering of the same calls starts here
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
# Of the filter's little machine (BPF).
_LOAD, _EQUAL, _GREATER_EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16  # offsets in struct seccomp_data
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2


def confine(writable: Sequence[Path], folder: Path, file_bytes: int) -> frozenset[str]:
    """Give up, for good, all that decoding does not need. Returns the protections that hold (see the module's text).

    writable: existing folders that may be written to. folder: an existing one for temporary files, written to, too.
    file_bytes: the largest file that may be written. To be called in the process's only thread.
    """
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    holding = set()
    if os.name == "posix":
        _limit(file_bytes)
        holding.add("limits")
    if sys.platform == "linux":
        if _confine_files([*writable, folder]):
            holding.add("files")
        if _refuse_network():
            holding.add("network")
    return frozenset(holding)


def protections() -> frozenset[str]:
    """The protections that hold on this machine, tried out in a process of its own."""
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as one:
        return one.submit(confine, (), Path(folder), 1 << 30).result()


def _limit(file_bytes: int) -> None:
    import resource

    open_files = max(_OPEN_FILES, _highest_open_file() + 64)
    for limit, wanted in ((resource.RLIMIT_FSIZE, file_bytes), (resource.RLIMIT_NOFILE, open_files)):
        _, hard = resource.getrlimit(limit)
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(limit, (value, value))


def _highest_open_file() -> int:
    """The greatest file descriptor in use: a limit below it would stop the next open, whatever is closed before."""
    try:
        return max(int(entry.name) for entry in Path("/dev/fd").iterdir())
    except OSError:
        return _OPEN_FILES


def _confine_files(writable: Sequence[Path]) -> bool:
    from py_landlock import AccessFs, Landlock, LandlockDisabledError, LandlockNotAvailableError

    rules = Landlock(strict=False)
    try:
        rules.allow_read("/")
        for path in writable:
            rules.allow_read_write(path)
            rules.add_path_rule(path, access=AccessFs.REFER)  # renaming from one of its folders into another
        rules.add_path_rule("/dev/null", access=AccessFs.READ_FILE | AccessFs.WRITE_FILE)
        rules.apply()
    except (LandlockNotAvailableError, LandlockDisabledError):
        return False
    return True


def _refuse_network() -> bool:
    """Install the seccomp filter. False where the kernel has none or the processor is another."""
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        return False
    program = _filter(machine)
    code = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))

    filter_program = Program(len(program) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return False
    return bool(libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(filter_program), 0, 0) == 0)


def _filter(machine: str) -> bytes:
    """The BPF program (struct sock_filter[]): refused calls fail with EPERM, everything else is allowed.

    Refused, too, are calls by another architecture's numbers (32-bit), clone(2) with new namespaces, and prlimit(2) on
    another process. clone3(2), whose flags a filter cannot see, is not there (ENOSYS): libraries then use clone.
    """
    refuse = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    allow = (_RETURN, 0, 0, _ALLOW)
    first_argument = (_LOAD, 0, 0, _FIRST_ARGUMENT_AT)
    steps: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, _ARCHITECTURES[machine]),
        refuse,
        (_LOAD, 0, 0, _NUMBER_AT),
        (_GREATER_EQUAL, 0, 1, _X32),
        refuse,
    ]
    for number in _REFUSED[machine]:
        steps += [(_EQUAL, 0, 1, number), refuse]
    steps += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    steps += [(_EQUAL, 0, 4, _CLONE[machine]), first_argument, (_ANY_BIT, 0, 1, _NEW_NAMESPACES), refuse, allow]
    steps += [(_EQUAL, 0, 4, _PRLIMIT[machine]), first_argument, (_EQUAL, 1, 0, 0), refuse, allow, allow]
    return b"".join(struct.pack("HBBI", *step) for step in steps)
