"""The watch list: contents that nothing else in the collection may be a copy of, and who is told when something is."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fingerprint_dagster.content import Content
from fingerprint_dagster.duplicates.decisions import Decision
from fingerprint_dagster.duplicates.findings import verdict_of
from fingerprint_dagster.duplicates.pairs import Pair
from fingerprint_dagster.duplicates.rows import place_json
from fingerprint_dagster.errors import ContentError, UsageError
from fingerprint_dagster.sources import Guard, absolute
from fingerprint_dagster.sources.uri import to_uri

_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 30.0
_SWAPPED = {"part_of": "contains", "contains": "part_of"}


@dataclass(frozen=True)
class WatchList:
    """Which contents are watched: those in certain places, and those whose list says so.

    places: uris of files, and of folders and prefixes with a slash at the end. columns: a column of a list and the
    value that it must have in a watched content's row.
    """

    places: tuple[str, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, texts: Iterable[str]) -> WatchList:
        """From what a user writes: `/media/protected`, `s3://bucket/works/`, or `collection=protected`.

        Raises `UsageError` for anything else.
        """
        places: list[str] = []
        columns: list[tuple[str, str]] = []
        for text in texts:
            name, equals, value = text.partition("=")
            if equals and "/" not in name:
                columns.append((name.strip(), value.strip()))
            else:
                places += _places(text)
        return cls(tuple(places), tuple(columns))

    def holds(self, content: Content) -> bool:
        """Whether that content is watched."""
        if any(content.uri == each or (each.endswith("/") and content.uri.startswith(each)) for each in self.places):
            return True
        return any(str(content.metadata.get(name)) == value for name, value in self.columns)

    def __bool__(self) -> bool:
        return bool(self.places or self.columns)


def _places(text: str) -> list[str]:
    """The uri of a place, and the prefix of what is in it."""
    uri = to_uri(absolute(text))
    return [uri.rstrip("/"), f"{uri.rstrip('/')}/"]


@dataclass(frozen=True)
class Sighting:
    """A content that copies a watched one, or a part of it. pair: which of its sides is watched, `watched` says."""

    pair: Pair
    watched: Content
    content: Content


def sightings(pairs: Iterable[Pair], watch_list: WatchList, decisions: Iterable[Decision]) -> Iterator[Sighting]:
    """The pairs of which one side is watched and the other is not.

    Suggestions, and pairs that somebody called different, are left out.
    """
    verdicts = {(each.one, each.other): each for each in decisions}
    for pair in pairs:
        one, other = pair.one.content, pair.other.content
        watched = watch_list.holds(one)
        if watched == watch_list.holds(other) or pair.relation == "suggestion":
            continue
        if verdict_of(pair, verdicts) != "different":
            yield Sighting(pair, one if watched else other, other if watched else one)


def sighting_json(sighting: Sighting) -> dict[str, Any]:
    """A sighting as JSON data: the same `number` is the same sighting, should it be told twice."""
    pair = sighting.pair
    swapped = pair.one.content is sighting.watched
    relation = _SWAPPED.get(pair.relation, pair.relation) if swapped else pair.relation
    return {
        "event": "watched_content_matched",
        "number": pair.number,
        "content": _content_json(sighting.content),
        "watched": _content_json(sighting.watched),
        "relation": relation,
        "score": round(pair.best.score, 6),
        "confidence": None if pair.best.confidence is None else round(pair.best.confidence, 6),
        "evidence": pair.best.evidence,
        "matches": [_renamed(place_json(match), swapped) for match in pair.matches],
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _content_json(content: Content) -> dict[str, Any]:
    return {
        "content_id": content.content_id,
        "uri": content.uri,
        "content_type": str(content.content_type),
        "metadata": dict(content.metadata),
    }


def _renamed(place: Mapping[str, Any], swapped: bool) -> dict[str, Any]:
    """The sides of a match by what they are here."""
    sides = {"one": "watched" if swapped else "content", "other": "content" if swapped else "watched"}
    renamed = {}
    for name, value in place.items():
        side, _, rest = name.partition("_")
        renamed[f"{sides[side]}_{rest}" if side in sides else name] = value
    return renamed


def append_lines(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Append records to a file of JSON lines, in one write, so that readers see whole lines.

    Raises `ContentError`, as a webhook does, where it cannot be written.
    """
    text = "".join(json.dumps(dict(record), ensure_ascii=False) + "\n" for record in records)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, text.encode("utf-8", "replace"))
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise ContentError(f"{path} cannot be written: {error.strerror or error}", retryable=True) from None


def post(url: str, record: Mapping[str, Any], guard: Guard) -> None:
    """Send one record as JSON in a POST request; any 2xx answer is a success, redirects are not followed.

    The name is looked up once, and the connection goes to an address that the guard has checked. Raises `ContentError`
    that names the host only: an address may hold a token.
    """
    import urllib3

    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError("the webhook must be an address such as https://example.org/hook")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        address = guard.addresses(host, port)[0]
    except OSError:
        raise ContentError(f"the name of {host} cannot be resolved", retryable=True) from None
    timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=_ANSWER_SECONDS)
    pool: urllib3.HTTPConnectionPool
    if parts.scheme == "https":
        pool = urllib3.HTTPSConnectionPool(
            address, port, timeout=timeout, retries=False, server_hostname=host, assert_hostname=host
        )
    else:
        pool = urllib3.HTTPConnectionPool(address, port, timeout=timeout, retries=False)
    headers = {
        "Host": parts.netloc.rpartition("@")[2],
        "Content-Type": "application/json",
        "User-Agent": "fingerprint-dagster",
    }
    if parts.username is not None:
        headers |= urllib3.make_headers(basic_auth=f"{parts.username}:{parts.password or ''}")
    target = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    body = json.dumps(dict(record), ensure_ascii=False).encode("utf-8", "replace")
    with pool:
        try:
            answer = pool.request("POST", target, body=body, headers=headers, redirect=False, preload_content=False)
            status = answer.status
            answer.close()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ContentError(f"{host} did not take the message: {type(error).__name__}", retryable=True) from None
    if not 200 <= status < 300:
        raise ContentError(f"{host} answered {status}", retryable=True)
