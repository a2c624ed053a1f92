"""Weight files, and the digests they are known by."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from fingerprint_dagster.errors import FingerprintError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

# The files that come with the package, and their SHA-256. Vectors made with other bytes need another name.
_FOLDER = Path(__file__).parent / "weights"
EFFICIENTNET_LITE0 = _FOLDER / "efficientnet_lite0.safetensors"
EFFICIENTNET_LITE0_DIGEST = "06a4248e61f69195dae91c2a10b1503640efff7d4db1fc32aed2fe30b44e7eb2"
WHITENING = _FOLDER / "efficientnet_lite0_whitening.safetensors"
WHITENING_DIGEST = "3f70b2ad78f3266f6f2bbc31b35f8d63205481af29b2e41befb04579d9ccb72e"


def read(path: Path, digest: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file whose SHA-256 is `digest`. Raises `FingerprintError` for any other file.

    All of it is read, to be compared: vectors made with other weights must not pass for those of these.
    """
    from safetensors.torch import load

    try:
        data = path.read_bytes()
    except OSError as error:
        raise FingerprintError(
            f"the weights {path} cannot be read: {error.strerror}; install the package again"
        ) from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise FingerprintError(f"the weights {path} are damaged or of another version: install the package again")
    return load(data)


def digest_of(path: Path) -> str:
    """The SHA-256 of a weights file of the user's, in hexadecimal. Raises `UsageError` where it cannot be read."""
    try:
        status = path.stat()
        return _digest(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise UsageError(f"the weights {path} cannot be read: {error.strerror}") from None


@lru_cache(maxsize=8)
def _digest(path: Path, _modified: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def combined(*digests: str) -> str:
    """One digest for several files."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()
