"""What people decided about pairs: "same" or "different". One SQLite file in the home; nothing else knows it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from fingerprint_dagster.content import Fingerprint
from fingerprint_dagster.database import HomeDatabase
from fingerprint_dagster.errors import UsageError

Verdict = Literal["same", "different"]
VERDICTS: tuple[Verdict, ...] = ("same", "different")
UNDECIDED = "undecided"
"""What a file says of a pair whose decision was taken back."""
FILE = "decisions.sqlite"
FORMAT = "fingerprint_dagster decisions v1"
"""What a file of decisions says it is, in its member `format`."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS decisions (
    one TEXT NOT NULL, other TEXT NOT NULL, one_digest TEXT NOT NULL, other_digest TEXT NOT NULL,
    verdict TEXT NOT NULL, since REAL NOT NULL, PRIMARY KEY (one, other)
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Decision:
    """One decision about two contents, which `one` < `other` names in a fixed order.

    It holds for the bytes that were looked at, whose SHA-256 are one_digest and other_digest: a content that has
    changed is undecided again. since: Unix time in seconds.
    """

    one: str
    other: str
    one_digest: str
    other_digest: str
    verdict: Verdict
    since: float = 0.0

    @classmethod
    def of(cls, verdict: Verdict, one: Fingerprint, other: Fingerprint) -> Decision:
        """The decision about these two, made now."""
        ends = sorted([(one.content.content_id, one.digest), (other.content.content_id, other.digest)])
        return cls(ends[0][0], ends[1][0], ends[0][1], ends[1][1], verdict, time.time())

    def holds_for(self, one_digest: str, other_digest: str) -> bool:
        """Whether the contents still have the bytes that were decided about."""
        return (self.one_digest, self.other_digest) == (one_digest, other_digest)


class Decisions(HomeDatabase):
    """The decisions in a home."""

    file = FILE
    schema = _SCHEMA

    def record(self, decisions: Sequence[Decision]) -> None:
        """Keep these, in place of what was decided about the same contents before."""
        rows = [(new.one, new.other, new.one_digest, new.other_digest, new.verdict, new.since) for new in decisions]
        with self._db() as db:
            db.executemany("INSERT OR REPLACE INTO decisions VALUES (?, ?, ?, ?, ?, ?)", rows)

    def forget(self, one: str, other: str) -> bool:
        """Make the pair of these content_ids undecided again; whether it was decided."""
        with self._db() as db:
            return db.execute("DELETE FROM decisions WHERE one = ? AND other = ?", sorted([one, other])).rowcount > 0

    def verdict(self, one: Fingerprint, other: Fingerprint) -> Verdict | None:
        """What was decided about these two, in either order, if they still have the bytes that were looked at."""
        asked = Decision.of("same", one, other)
        with self._db() as db:
            row = db.execute("SELECT * FROM decisions WHERE one = ? AND other = ?", (asked.one, asked.other)).fetchone()
        found = Decision(*row) if row else None
        return found.verdict if found and found.holds_for(asked.one_digest, asked.other_digest) else None

    def all(self) -> list[Decision]:
        """Every decision, the oldest first, whether or not it still holds."""
        with self._db() as db:
            return [Decision(*row) for row in db.execute("SELECT * FROM decisions ORDER BY since, one, other")]


def read_decisions(path: Path) -> tuple[list[Decision], list[tuple[str, str]]]:
    """The decisions in a file that a report exported, and the pairs of content_ids that it makes undecided again.

    Raises `UsageError` for a file that cannot be read or is no such file, naming the entry at fault.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT or not isinstance(data.get("decisions"), list):
        raise UsageError(f"{path}: not a file of decisions; export one with the button in a report")
    decided: list[Decision] = []
    undecided: list[tuple[str, str]] = []
    for number, entry in enumerate(data["decisions"], 1):
        one, other, one_digest, other_digest, verdict = _texts(path, number, entry)
        if one > other:
            one, other, one_digest, other_digest = other, one, other_digest, one_digest
        if verdict == UNDECIDED:
            undecided.append((one, other))
        else:
            decided.append(Decision(one, other, one_digest, other_digest, cast(Verdict, verdict), time.time()))
    return decided, undecided


def _texts(path: Path, number: int, entry: Any) -> list[str]:
    names = ("one", "other", "one_digest", "other_digest", "verdict")
    texts = [entry.get(name) if isinstance(entry, dict) else None for name in names]
    known = texts[4] in (*VERDICTS, UNDECIDED)
    if not known or not all(isinstance(text, str) and text for text in texts) or texts[0] == texts[1]:
        raise UsageError(f"{path}: decision {number} must name {', '.join(names)}, the verdict same or different")
    return cast(list[str], texts)
