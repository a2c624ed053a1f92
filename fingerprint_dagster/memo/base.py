"""The interface of the memo: the content-addressed store of stage results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class StageUsage:
    """What the memo holds of one stage."""

    entries: int
    bytes: int


class Memo(Protocol):
    """A cache of stage results. Any entry may vanish at any time; a missing value is computed again.

    Keys are hexadecimal text from `stages.memo_key`; values are bytes. What is returned is what was put:
    an entry that was damaged or only half written is reported as missing.

    shared: whether worker processes, which have no network, see the same entries when they open the same address.
    folders: the folders on this machine that it writes to.
    """

    shared: bool
    folders: Sequence[Path]

    def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        """The values of those keys that are there."""

    def contains(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys that are there (without reading the values)."""

    def put_many(self, stage: str, items: Iterable[tuple[str, bytes]]) -> None:
        """Add values of one stage; a key that is there already gets the new value."""

    def delete(self, keys: Sequence[str]) -> None:
        """Forget these keys."""

    def clear(self, stage: str | None = None) -> int:
        """Forget one stage, or everything; returns the number of entries."""

    def usage(self) -> dict[str, StageUsage]:
        """Stage -> what is held of it."""

    def evict(self) -> int:
        """Drop what is too old or over the size cap, the least recently used first; returns the number of entries."""
