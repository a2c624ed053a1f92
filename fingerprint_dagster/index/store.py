"""Where fingerprints live: the interface of every store, and how a URI opens one."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fingerprint_dagster.content import Fingerprint
from fingerprint_dagster.errors import UsageError


@dataclass(frozen=True)
class Candidate:
    """A stored content that may be a copy: what it shares with the query, before anything is verified.

    scores: for each algorithm by which it was found, how much it shares.
        "hamming", "signs", "cosine": the nearness of its nearest row to one of the query's, 0..1: 1 is the same, 0
            where it ceases to be near (32 of 256 bits, a cosine of 0.3 estimated from signs, a cosine of 0.4).
        "tokens": bits of surprise, above 0: the sum of log2((contents + 1) / holders) over the shared tokens. An
            unrelated content reaches log2(contents) or somewhat more by chance.
    """

    content_id: str
    scores: Mapping[str, float]


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

    def scan(self, batch_size: int = 1000, *, sketches: bool = True) -> Iterator[list[Fingerprint]]:
        """Everything that is stored now, in lists of at most `batch_size`, in no particular order.

        sketches: False leaves the sketches empty, and reads a small part of the bytes.
        Of what is put or deleted meanwhile nothing is seen (in Qdrant, which has no versions, something may be).
        """

    def candidates(self, query: Fingerprint, limit: int, content_type: str | None = None) -> list[Candidate]:
        """Contents of `content_type` (None: the query's own) that share a near row with it in any component.

        At most `limit`, each once, the best in all components first. Rows are near only in components of the same
        algorithm and kind. What is near: `ranking`. Rows of hashes ("hamming") with fewer than one bit in eight
        different (31 of 256) and equal tokens are always found; of a large collection, vectors ("signs", "cosine") are
        found with a recall that is stated in `segment`. For a query with very many rows or tokens, an evenly
        spread part of them is looked up. The query's own content_id is among them if it is stored. An id that is being
        deleted may be named; `get` leaves it out.
        """

    def candidates_many(
        self, queries: Sequence[Fingerprint], limit: int, content_type: str | None = None
    ) -> list[list[Candidate]]:
        """`candidates` of each of the queries, in order: for many at once much faster than one by one.

        Give it some thousand at a time; content_type None means the type of each query.
        """

    def by_digest(self, digest: str) -> list[str]:
        """content_ids of everything whose bytes have this SHA-256, sorted."""

    def compact(self) -> None:
        """Maintenance: reclaim space and make look-ups fast again after many puts and deletes."""


def shareable(uri: str | Path) -> bool:
    """Whether several processes may open the store at `uri` at once, and see the same: see `open_store`."""
    return not str(uri).startswith(("memory://", "qdrant+local://"))


def open_store(uri: str | Path) -> Store:
    """The store at `uri`, which is made when the first fingerprint is put:

    - a folder or `lance:///folder`: LanceDB, shared by the processes of one machine;
    - `s3://bucket/prefix`, `gs://...`, `az://...`: LanceDB in an object store, shared by several machines, of which one
      writes at a time. Credentials and endpoint as for sources: `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, ...;
    - `postgresql://user@host/database` (extra `postgres`), with the schema to use as `?schema=name`;
    - `qdrant://host:6333/collection`, `qdrants://...` with TLS, and `qdrant+local:///folder`, for one process alone
      (extra `qdrant`; the key of its API in `QDRANT_API_KEY`);
    - `memory://`: new, empty, and gone with the process.

    Where the records are not in a folder, the search structure lies in the folder `search` of the home.
    Raises UsageError for any other scheme, and where an extra is missing.
    """
    text = str(uri)
    scheme, rest = re.fullmatch(r"(?s)(?:([A-Za-z][A-Za-z0-9+.-]*)://)?(.*)", text).groups()  # type: ignore[union-attr]
    if scheme is None or (scheme == "lance" and rest):
        from fingerprint_dagster.index.lance import LanceStore

        return LanceStore(Path(rest).expanduser())
    if scheme in _OBJECT_STORES and rest:
        from fingerprint_dagster.index.lance import LanceStore

        return LanceStore(text.rstrip("/"), _search_folder(text), _object_store_options(scheme))
    if scheme in ("postgres", "postgresql") and rest:
        from fingerprint_dagster.index.postgres import PostgresStore

        return PostgresStore(text, _search_folder(text))
    if scheme in ("qdrant", "qdrants", "qdrant+local") and rest.strip("/"):
        from fingerprint_dagster.index.qdrant import QdrantStore

        return QdrantStore(text, _search_folder(text))
    if scheme == "memory" and not rest:
        from fingerprint_dagster.index.exact import ExactStore

        return ExactStore()
    raise UsageError(
        f"cannot open the store {text!r}: give a folder, lance:///folder, s3://bucket/prefix, "
        "postgresql://host/database, qdrant://host:6333/collection or memory://"
    )


def _search_folder(uri: str) -> Path:
    """Where this machine keeps the search structure of records that are elsewhere."""
    from fingerprint_dagster.settings import get_settings

    return get_settings().home / "search" / hashlib.blake2b(uri.rstrip("/").encode(), digest_size=8).hexdigest()


_OBJECT_STORES = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}


def _object_store_options(scheme: str) -> dict[str, str]:
    """LanceDB's names for the environment variables of the object store: `aws_endpoint_url`, ..."""
    options = {
        name.lower(): value for name, value in os.environ.items() if name.startswith(_OBJECT_STORES[scheme]) and value
    }
    plain = any(value.startswith("http://") for name, value in options.items() if name.endswith("endpoint_url"))
    return options | ({"allow_http": "true"} if plain else {})
