"""The store in Qdrant: one collection, whose points are records; on a server, or in a local folder for one process.

As in `lance`: a deleted content leaves a point without sketch, and every change has a number greater than those before
it. Qdrant has no transactions: any number of processes read, and one may write at a time. The point of content_id ""
has what no other collection has (its digest), and the number up to which deleted points were dropped.

Looking up is done by each machine's `SearchIndex`: Qdrant has neither Hamming distance nor exact look-ups of hashes.
"""

from __future__ import annotations

import base64
import os
import secrets
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fingerprint_dagster.content import Fingerprint
from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.index.record import from_record, to_record
from fingerprint_dagster.index.search_index import Change, Searched, SearchIndex

# Points in one message: some have a megabyte, and a server takes 32 of them.
_POINTS = 16
_READ = 256
_NAMES = uuid.UUID("5bb0c3ad-9a5c-4f2e-8f0f-0c5d5f2f7a31")
_DEFAULT = "fingerprints"


class QdrantStore(Searched):
    """A `Store` in the collection that `uri` names, made when the first fingerprint is put. Safe between threads."""

    def __init__(self, uri: str, search_folder: Path) -> None:
        """uri: `qdrant://host:6333/collection`, `qdrants://...` with TLS, or `qdrant+local:///folder`."""
        try:
            import qdrant_client
        except ImportError:
            raise UsageError("Qdrant needs the extra qdrant: pip install 'fingerprint-dagster[qdrant]'") from None
        parts = urlsplit(uri)
        self._client: Any
        self._local = parts.scheme == "qdrant+local"
        if self._local:
            self._client = qdrant_client.QdrantClient(path=str(Path(parts.netloc + parts.path).expanduser()))
            self._collection = _DEFAULT
        else:
            scheme = "https" if parts.scheme == "qdrants" else "http"
            address = f"{scheme}://{parts.hostname}:{parts.port or 6333}"
            key = os.environ.get("QDRANT_API_KEY") or None
            self._client = qdrant_client.QdrantClient(address, api_key=key, timeout=60, check_compatibility=False)
            self._collection = parts.path.strip("/") or _DEFAULT
        self.search = SearchIndex(self, search_folder)
        self._lock = threading.RLock()

    def put(self, fingerprints: Sequence[Fingerprint]) -> None:
        """See `Store.put`."""
        latest = {fingerprint.content.content_id: fingerprint for fingerprint in fingerprints}
        if latest:
            self._upsert([to_record(fingerprint) for fingerprint in latest.values()])

    def get(self, content_ids: Sequence[str]) -> list[Fingerprint]:
        """See `Store.get`."""
        found = {record["content_id"]: _fingerprint(record) for record in self._found(content_ids)}
        return [found[content_id] for content_id in content_ids if content_id in found]

    def keys(self, content_ids: Sequence[str]) -> dict[str, str]:
        """See `Store.keys`."""
        found = self._found(content_ids, ["content_id", "content_type", "key"])
        return {record["content_id"]: record["key"] for record in found}

    def delete(self, content_ids: Sequence[str]) -> None:
        """See `Store.delete`."""
        stored = self.keys([content_id for content_id in content_ids if content_id])
        if stored:
            self._upsert([_nothing(content_id) for content_id in stored])

    def count(self) -> dict[str, int]:
        """See `Store.count`."""
        if not self._is_there():
            return {}
        with self._lock:
            found = self._client.facet(self._collection, "content_type", limit=1000, exact=True).hits
        return {str(hit.value): hit.count for hit in found if hit.value}

    def scan(self, batch_size: int = 1000, *, sketches: bool = True) -> Iterator[list[Fingerprint]]:
        """See `Store.scan`. What is put or deleted meanwhile may be there or not."""
        from qdrant_client import models

        fields = True if sketches else models.PayloadSelectorExclude(exclude=["payload"])
        for records in self._matching(_stored(), fields, batch_size):
            yield [_fingerprint(record) for record in records]

    def by_digest(self, digest: str) -> list[str]:
        """See `Store.by_digest`."""
        matching = self._matching(_stored(digest=digest), ["content_id"], _READ)
        return sorted(record["content_id"] for records in matching for record in records)

    def compact(self) -> None:
        """Forget what was deleted, and search anew."""
        if not self._is_there():
            return
        from qdrant_client import models

        with self._lock:
            self._upsert([_nothing("") | {"digest": self.identity()}])
            gone = models.FieldCondition(key="content_type", match=models.MatchValue(value=""))
            about = models.FieldCondition(key="content_id", match=models.MatchValue(value=""))
            chosen = models.FilterSelector(filter=models.Filter(must=[gone], must_not=[about]))
            self._client.delete(self._collection, chosen, wait=True)
        self.search.rebuild()

    def identity(self) -> str:
        """See `Records.identity`."""
        if not self._is_there():
            return ""
        with self._lock:
            (point,) = self._client.retrieve(self._collection, [_point_id("")], with_payload=["digest"])
        return str(point.payload["digest"])

    def latest(self) -> int:
        """See `Records.latest`."""
        from qdrant_client import models

        if not self._is_there():
            return -1
        order = models.OrderBy(key="seq", direction=models.Direction.DESC)
        with self._lock:
            points, _ = self._client.scroll(self._collection, limit=1, order_by=order, with_payload=["seq"])
        return int(points[0].payload["seq"]) if points else -1

    def changes(self, after: int) -> Iterator[list[Change]]:
        """See `Records.changes`."""
        from qdrant_client import models

        wanted = models.Filter(must=[models.FieldCondition(key="seq", range=models.Range(gt=after))])
        for records in self._matching(wanted, ["content_id", "seq", "content_type", "digest", "payload"], _READ):
            yield [
                Change(r["content_id"], r["seq"], r["content_type"], r["digest"], _bytes(r["payload"])) for r in records
            ]

    def _is_there(self) -> bool:
        from qdrant_client.http.exceptions import ResponseHandlingException

        with self._lock:
            try:
                return bool(self._client.collection_exists(self._collection))
            except ResponseHandlingException as error:
                raise UsageError(f"Qdrant does not answer: {error}") from None

    def _found(self, content_ids: Sequence[str], fields: bool | list[str] = True) -> Iterator[Mapping[str, Any]]:
        """The records of those that are stored."""
        if not self._is_there():
            return
        for start in range(0, len(content_ids), _READ):
            numbers = [_point_id(content_id) for content_id in content_ids[start : start + _READ]]
            with self._lock:
                points = self._client.retrieve(self._collection, numbers, with_payload=fields)
            yield from (point.payload for point in points if point.payload["content_type"])

    def _matching(self, wanted: Any, fields: Any, size: int) -> Iterator[list[Mapping[str, Any]]]:
        """The records that match, in lists of at most `size`."""
        offset: Any = None
        while self._is_there():
            with self._lock:
                points, offset = self._client.scroll(
                    self._collection, wanted, limit=size, offset=offset, with_payload=fields
                )
            if points:
                yield [point.payload for point in points]
            if offset is None:
                return

    def _upsert(self, records: Sequence[dict[str, Any]]) -> None:
        """Put records, some at a time."""
        from qdrant_client import models

        with self._lock:
            if not self._is_there():
                self._client.create_collection(self._collection, vectors_config={})
                for field in () if self._local else ("content_id", "content_type", "digest", "seq"):
                    kind = models.PayloadSchemaType.INTEGER if field == "seq" else models.PayloadSchemaType.KEYWORD
                    self._client.create_payload_index(self._collection, field, kind)
                self._send([_nothing("") | {"digest": secrets.token_hex(16), "seq": 0}])
            # A change of its own for each message: a reader may see some of them before the others.
            for seq, start in enumerate(range(0, len(records), _POINTS), self.latest() + 1):
                self._send([record | {"seq": seq} for record in records[start : start + _POINTS]])

    def _send(self, records: Sequence[dict[str, Any]]) -> None:
        from qdrant_client import models

        points = []
        for record in records:
            sketch = None if record["payload"] is None else base64.b64encode(record["payload"]).decode()
            points.append(
                models.PointStruct(id=_point_id(record["content_id"]), vector={}, payload=record | {"payload": sketch})
            )
        self._client.upsert(self._collection, points, wait=True)


def _point_id(content_id: str) -> str:
    """The point of a content: a UUID made of its id, as Qdrant takes no text."""
    return str(uuid.uuid5(_NAMES, content_id))


def _nothing(content_id: str) -> dict[str, Any]:
    """The record of a deleted content."""
    texts = dict.fromkeys(("uri", "content_type", "digest", "media_type", "key", "metadata"), "")
    return {"content_id": content_id, **texts, "size": 0, "payload": None}


def _stored(digest: str | None = None) -> Any:
    """The filter for what is stored, with this digest if one is given."""
    from qdrant_client import models

    gone = models.FieldCondition(key="content_type", match=models.MatchValue(value=""))
    same: Any = [] if digest is None else [models.FieldCondition(key="digest", match=models.MatchValue(value=digest))]
    return models.Filter(must=same, must_not=[gone])


def _bytes(payload: str | None) -> bytes | None:
    return None if payload is None else base64.b64decode(payload)


def _fingerprint(record: Mapping[str, Any]) -> Fingerprint:
    return from_record({**record, "payload": _bytes(record["payload"])} if "payload" in record else record)
