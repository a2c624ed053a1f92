"""File systems of their own for a home: they can be filled up, and the power can be cut.

Each is a small ext4 in a file, mounted through a loop device. Its dirty pages are the kernel's and its journal is the
real one, so what a power cut leaves is what ext4 leaves: metadata of complete journal transactions, data that was
synced or that the kernel happened to write back. The cut is the ioctl that file system developers test recovery with
(EXT4_IOC_SHUTDOWN without flushing the log): from one moment to the next nothing reaches the device any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import sys
import time
import uuid
from pathlib import Path

SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32), include/uapi/linux/ext4.h
WITHOUT_LOG_FLUSH = 2
MIB = 1 << 20


BOOT = Path("/proc/sys/kernel/random/boot_id")


def missing() -> str:
    """Why file systems cannot be made here; empty where they can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "only root can mount file systems"
    lacking = [name for name in ("mkfs.ext4", "mount", "umount", "unshare") if shutil.which(name) is None]
    if lacking:
        return f"{lacking[0]} is not installed"
    if not Path("/dev/loop-control").exists():
        return "there are no loop devices"
    return ""


def live_apart() -> None:
    """Start this program again, once, where its mounts are its own and vanish with it."""
    if "RECOVERY_LIVES_APART" not in os.environ:
        os.environ["RECOVERY_LIVES_APART"] = "1"
        os.execvp("unshare", ["unshare", "--mount", sys.executable, *sys.argv])


def can_start_anew(folder: Path) -> None:
    """From now on `start_anew` works, for what lives apart."""
    boot = folder / "boot_id"
    boot.write_text(BOOT.read_text())
    subprocess.run(["mount", "--bind", boot, BOOT], check=True)


def start_anew() -> None:
    """Let the system seem to have been started anew."""
    BOOT.write_text(f"{uuid.uuid4()}\n")


class Disk:
    """An ext4 file system at `place`, mounted from `image`. options: mount options."""

    def __init__(self, image: Path, place: Path, mebibytes: int, options: str = "") -> None:
        self.image, self.place = image, place
        self.options = ",".join(filter(None, ["loop", options]))
        with image.open("wb") as file:
            file.truncate(mebibytes * MIB)
        # No blocks are kept back for root: a full disk is full.
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
        place.mkdir(parents=True, exist_ok=True)
        self.mount()

    def mount(self) -> None:
        """Mount it; what the journal holds is replayed."""
        subprocess.run(["mount", "-o", self.options, self.image, self.place], check=True)

    def unmount(self) -> None:
        """Unmount it. Processes that were killed a moment ago may still be leaving."""
        for _ in range(200):
            done = subprocess.run(["umount", self.place], capture_output=True, text=True, check=False)
            if not done.returncode:
                return
            time.sleep(0.05)
        raise RuntimeError(done.stderr)

    def cut(self) -> None:
        """Cut the power: nothing that is not on the device yet will ever be, until it is mounted again."""
        descriptor = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", WITHOUT_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def fill(self, spare: int) -> None:
        """Leave about `spare` bytes of free space."""
        with self._ballast.open("wb") as file:
            while True:
                free = os.statvfs(self.place)
                size = free.f_bavail * free.f_frsize - spare
                if size <= 0:
                    return
                # What is found free may be promised to others' writes, and some of it is needed for the ballast's map.
                with contextlib.suppress(OSError):
                    os.posix_fallocate(file.fileno(), 0, file.seek(0, os.SEEK_END) + size)
                    return
                spare += max(4096, size // 50)

    def free(self) -> None:
        """Give the space of `fill` back."""
        self._ballast.unlink(missing_ok=True)

    def remove(self) -> None:
        """Unmount it and remove its image."""
        self.unmount()
        self.image.unlink()

    @property
    def _ballast(self) -> Path:
        return self.place / "ballast"
