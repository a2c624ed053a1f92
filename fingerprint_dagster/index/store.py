"""Where fingerprints live: the interface of every store, and how a URI opens one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from fingerprint_dagster.content import Fingerprint
from fingerprint_dagster.errors import UsageError


class Store(Protocol):
    """Fingerprints by content_id, and which of them share a near row with a query.

    What is stored is the truth; what candidates are found by is derived from it. The metadata of a content is kept
    as JSON: what JSON does not know (a date) comes back as text.
    """

    def put(self, fingerprints: Sequence[Fingerprint]) -> None:
        """Store them, in place of what was stored under their content_ids. Putting them again changes nothing.

        Once `keys` names a fingerprint, all of it is there. A put that was cut short is completed by repeating it.
        """

    def get(self, content_ids: Sequence[str]) -> list[Fingerprint]:
        """Those that are stored, in the order of the ids given."""

    def keys(self, content_ids: Sequence[str]) -> dict[str, str]:
        """content_id -> `Fingerprint.key` of those that are stored. Cheap: reads no payload."""

    def delete(self, content_ids: Sequence[str]) -> None:
        """Forget them; ids that are not stored are ignored."""

    def count(self) -> dict[str, int]:
        """content_type -> number of fingerprints."""

    def scan(self, batch_size: int = 1000) -> Iterator[list[Fingerprint]]:
        """Everything that is stored now, in lists of at most `batch_size`, in no particular order."""

    def candidates(self, query: Fingerprint, limit: int) -> list[str]:
        """content_ids of the query's content type that share a near row with it in any component, best first.

        At most `limit`. The query's own content_id is among them if it is stored. For a query with very many rows
        an evenly spread part of them is looked up. An id of which a put or delete was cut short may be named;
        `get` leaves it out.
        """

    def by_digest(self, digest: str) -> list[str]:
        """content_ids of everything whose bytes have this SHA-256, sorted."""

    def compact(self) -> None:
        """Maintenance: reclaim space and make look-ups fast again after many puts and deletes."""


def open_store(uri: str | Path) -> Store:
    """The store at `uri`: a folder or `lance:///folder` (LanceDB; made when missing), or `memory://` (new and empty).

    Raises UsageError for any other scheme.
    """
    scheme, rest = re.fullmatch(r"(?s)(?:([A-Za-z][A-Za-z0-9+.-]*)://)?(.*)", str(uri)).groups()  # type: ignore[union-attr]
    if scheme is None or (scheme == "lance" and rest):
        from fingerprint_dagster.index.lance import LanceStore

        return LanceStore(Path(rest).expanduser())
    if scheme == "memory" and not rest:
        from fingerprint_dagster.index.exact import ExactStore

        return ExactStore()
    raise UsageError(f"cannot open the store {str(uri)!r}: give a folder, lance:///folder or memory://")
