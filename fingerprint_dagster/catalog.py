"""The catalog: what was registered, the immutable batches it was split into, and the quarantine. One SQLite file."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from fingerprint_dagster.content import Content, Failure
from fingerprint_dagster.database import HomeDatabase
from fingerprint_dagster.errors import ContentError, UsageError
from fingerprint_dagster.media.plugin import ContentTypePlugin
from fingerprint_dagster.media.registry import claiming, content_type, content_types
from fingerprint_dagster.sources import Fetcher, Listed, absolute, expand
from fingerprint_dagster.sources.uri import file_path, is_uri, path_uri, scheme_of

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sources (source TEXT PRIMARY KEY, added REAL NOT NULL);
CREATE TABLE IF NOT EXISTS batches (
    number INTEGER PRIMARY KEY AUTOINCREMENT, batch TEXT NOT NULL UNIQUE, content_type TEXT NOT NULL,
    size INTEGER NOT NULL, added REAL NOT NULL, recipe TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS members (
    batch TEXT NOT NULL, position INTEGER NOT NULL, content_id TEXT NOT NULL, uri TEXT NOT NULL, metadata TEXT NOT NULL,
    PRIMARY KEY (batch, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS contents (
    content_id TEXT PRIMARY KEY, uri TEXT NOT NULL, revision TEXT NOT NULL, batch TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS quarantine (
    batch TEXT NOT NULL, content_id TEXT NOT NULL, uri TEXT NOT NULL, stage TEXT NOT NULL, reason TEXT NOT NULL,
    retryable INTEGER NOT NULL, since REAL NOT NULL, PRIMARY KEY (batch, content_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS quarantine_by_content ON quarantine (content_id);
CREATE TABLE IF NOT EXISTS listed (
    source TEXT NOT NULL, content_id TEXT NOT NULL, seen REAL NOT NULL, PRIMARY KEY (source, content_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS removed (
    content_id TEXT PRIMARY KEY, uri TEXT NOT NULL, source TEXT NOT NULL, since REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS versions (
    content_id TEXT NOT NULL, version INTEGER NOT NULL, digest TEXT NOT NULL, batch TEXT NOT NULL, since REAL NOT NULL,
    PRIMARY KEY (content_id, version)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS wanted (number INTEGER PRIMARY KEY AUTOINCREMENT, batch TEXT NOT NULL);
"""
_LISTINGS_AT_ONCE = 500

Found = TypeVar("Found")


@dataclass(frozen=True)
class Batch:
    """An immutable list of content of one content type; its name is the Dagster partition key.

    recipe: the stage versions it was last stored under; empty while it has never been stored.
    """

    name: str
    content_type: str
    size: int
    recipe: str = ""


@dataclass(frozen=True)
class Registration:
    """What `register` did.

    new: contents put into new batches, those that changed among them. unchanged: contents that were there already, as
    they are now. removed: contents that their source listed before and does not any more, or files that are gone.
    batches: every batch that holds one of the contents, old or new, in order.
    unrecognised: contents of no content type there is; they are in quarantine under the stage "register".
    """

    new: int = 0
    unchanged: int = 0
    batches: tuple[Batch, ...] = ()
    unrecognised: tuple[Failure, ...] = ()
    changed: int = 0
    removed: int = 0

    def __add__(self, other: Registration) -> Registration:
        """What both did."""
        batches = {batch.name: batch for batch in (*self.batches, *other.batches)}
        return Registration(
            self.new + other.new,
            self.unchanged + other.unchanged,
            tuple(batches.values()),
            self.unrecognised + other.unrecognised,
            self.changed + other.changed,
            self.removed + other.removed,
        )


@dataclass(frozen=True)
class Change:
    """A content whose bytes are not those it was first stored with, or that its source lists no more.

    version: 1 for the first bytes that were stored. removed: whether it is gone. since: seconds since 1970.
    """

    content_id: str
    uri: str
    version: int
    removed: bool
    since: float


class Catalog(HomeDatabase):
    """The catalog in a home folder."""

    file = "catalog.sqlite"
    schema = _SCHEMA

    # ------------------------------------------------------------------ registering

    def register(
        self,
        sources: Sequence[str],
        fetcher: Fetcher,
        *,
        batch_sizes: Mapping[str, int] | None = None,
        remember: bool = True,
    ) -> Registration:
        """Register everything the sources list: files, folders, URIs and lists (see `sources.expand`).

        New content, and content whose bytes or list row changed since it was registered, is split into new batches of
        one content type. The same again changes nothing.
        batch_sizes: content type -> contents in a batch, where it should differ from the plugin's default.
        remember: look at these sources again in scheduled re-scans.
        Raises `UsageError` for a source that cannot be read or a wrong list.
        """
        result = Registration()
        for source in sources:
            started = time.time()
            listings = expand(source, fetcher)
            result += self.register_listed(source, listings, fetcher, seen=started, batch_sizes=batch_sizes)
            result += Registration(removed=self.end_pass(source, started))
        if remember:
            self.remember(sources)
        return result

    def remember(self, sources: Sequence[str]) -> None:
        """Look at these sources again in scheduled re-scans."""
        with self._db() as db:
            rows = [(absolute(source), time.time()) for source in sources]
            db.executemany("INSERT INTO sources VALUES (?, ?) ON CONFLICT DO NOTHING", rows)

    def register_listed(
        self,
        source: str,
        listings: Iterable[Listed],
        fetcher: Fetcher,
        *,
        seen: float,
        batch_sizes: Mapping[str, int] | None = None,
    ) -> Registration:
        """Register a part of what a source lists, as `register` does.

        seen: when the pass over the source began, in seconds since 1970. When all of it was listed, `end_pass` marks
        what was there before and was not listed now.
        """
        source = absolute(source)
        sizes = {name: plugin.batch_size for name, plugin in content_types().items()} | dict(batch_sizes or {})
        new = unchanged = changed = grouped = 0
        touched: dict[str, None] = {}
        unrecognised: list[Failure] = []
        waiting: dict[str, dict[str, tuple[Content, str]]] = {}
        for found in _chunks((content_of(listed, fetcher), listed.validator) for listed in listings):
            unrecognised += [each for each, _ in found if isinstance(each, Failure)]
            contents = [
                (each, _revision(each, validator, fetcher)) for each, validator in found if isinstance(each, Content)
            ]
            with self._db() as db:
                known = _known(db, [content.content_id for content, _ in contents])
                contents = [
                    (each, revision)
                    for each, revision in contents
                    if each.content_id not in known or _is_known(known, each, revision) or not _is_no_file(each.uri)
                ]
                _see(db, source, seen, [content.content_id for content, _ in contents])
            full: list[list[tuple[Content, str]]] = []
            for content, revision in contents:
                name = content.content_type
                if _is_known(known, content, revision):
                    unchanged += 1
                    touched[known[content.content_id][0]] = None
                    continue
                changed += content.content_id in known
                group = waiting.setdefault(name, {})
                group[content.content_id] = (content, revision)
                if len(group) >= sizes[name]:
                    full.append(list(waiting.pop(name).values()))
            new += self._add_batches(full, touched)
            grouped += sum(map(len, full))
        rest = [list(group.values()) for group in waiting.values()]
        new += self._add_batches(rest, touched)
        unchanged += grouped + sum(map(len, rest)) - new  # The rest of them another process was faster with.
        with self._db() as db:
            _insert_failures(db, "", unrecognised)
        return Registration(new, unchanged, tuple(self.batches(list(touched))), tuple(unrecognised), changed)

    def end_pass(self, source: str, started: float) -> int:
        """Mark as removed what the source listed before and not since `started`; returns the number of contents.

        Nothing else happens to them: their fingerprints stay. What another source still lists is not marked, nor a
        file in a folder that is there all the same. The mark goes when a source lists the content again.
        """
        source, now = absolute(source), time.time()
        with self._db() as db:
            db.execute("BEGIN IMMEDIATE")
            rows = db.execute(
                "SELECT listed.content_id, contents.uri FROM listed JOIN contents USING (content_id)"
                " WHERE source = ? AND seen < ? AND NOT EXISTS"
                " (SELECT 1 FROM listed AS other WHERE other.content_id = listed.content_id AND other.source != ?)",
                (source, started, source),
            ).fetchall()
            folder = Path(source).is_dir()
            gone = [(content_id, uri, source, now) for content_id, uri in rows if not folder or _is_no_file(uri)]
            db.executemany("INSERT OR REPLACE INTO removed VALUES (?, ?, ?, ?)", gone)
            db.execute("DELETE FROM listed WHERE source = ? AND seen < ?", (source, started))
        return len(gone)

    def _add_batches(self, groups: Sequence[Sequence[tuple[Content, str]]], touched: dict[str, None]) -> int:
        """Put each group of (content, revision) of one content type into a new batch, all in one transaction.

        Without those that another process was faster with. Adds the batches that hold the members to `touched`;
        returns the number of contents in the new ones.
        """
        if not groups:
            return 0
        with self._db() as db:
            db.execute("BEGIN IMMEDIATE")
            return sum(_add_batch(db, members, touched) for members in groups)

    # ------------------------------------------------------------------ reading

    def batches(self, names: Sequence[str] | None = None) -> list[Batch]:
        """The batches of those names in order, or all of them in the order they were made."""
        with self._db() as db:
            rows = db.execute("SELECT batch, content_type, size, recipe FROM batches ORDER BY number").fetchall()
        found = {row[0]: Batch(*row) for row in rows}
        return list(found.values()) if names is None else [found[name] for name in names if name in found]

    def members(self, batch: str) -> list[Content]:
        """The contents of a batch, in order, without those that a newer batch has taken over.

        Raises `UsageError` for a batch that does not exist.
        """
        with self._db() as db:
            row = db.execute("SELECT content_type FROM batches WHERE batch = ?", (batch,)).fetchone()
            if row is None:
                raise UsageError(f"there is no batch {batch!r} in {self.path}")
            rows = db.execute(
                "SELECT members.content_id, members.uri, metadata FROM members"
                " JOIN contents ON contents.content_id = members.content_id AND contents.batch = members.batch"
                " WHERE members.batch = ? ORDER BY position",
                (batch,),
            ).fetchall()
        return [Content(content_id, uri, row[0], json.loads(metadata)) for content_id, uri, metadata in rows]

    def select(
        self,
        *,
        content_type: str | None = None,
        collection: str | None = None,
        since: float | None = None,
        until: float | None = None,
        failed: bool = False,
    ) -> list[Batch]:
        """The batches of that content type, made in that time (seconds since 1970), that hold content of a collection.

        collection: a source that was registered, or the beginning of the contents' uris or paths. failed: only
        batches with contents in quarantine, or that were never stored in full.
        """
        where, values = ["1"], list[object]()
        for clause, value in (("content_type = ?", content_type), ("added >= ?", since), ("added < ?", until)):
            if value is not None:
                where.append(clause)
                values.append(value)
        if collection is not None:
            where.append(
                "batch IN (SELECT batch FROM contents WHERE substr(uri, 1, ?) = ? OR content_id IN"
                " (SELECT content_id FROM listed WHERE source = ?))"
            )
            prefix = collection if is_uri(collection) else path_uri(Path(collection))
            values += [len(prefix), prefix, absolute(collection)]
        if failed:
            where.append("(recipe = '' OR batch IN (SELECT batch FROM quarantine))")
        query = f"SELECT batch, content_type, size, recipe FROM batches WHERE {' AND '.join(where)} ORDER BY number"
        with self._db() as db:
            return [Batch(*row) for row in db.execute(query, values)]

    def changes(self, since: float = 0.0) -> list[Change]:
        """The contents that were stored with other bytes before, or whose source lists them no more; newest last."""
        with self._db() as db:
            rows = db.execute(
                "SELECT content_id, uri, version, 0, since FROM versions JOIN contents USING (content_id)"
                " WHERE version > 1 AND since >= ? UNION ALL"
                " SELECT content_id, uri,"
                " (SELECT count(*) FROM versions WHERE versions.content_id = removed.content_id), 1, since"
                " FROM removed WHERE since >= ? ORDER BY 5, 1, 4",
                (since, since),
            ).fetchall()
        return [Change(row[0], row[1], row[2], bool(row[3]), row[4]) for row in rows]

    def remote_batches(self) -> list[str]:
        """The batches with contents that only their source can say whether they changed: those on the web."""
        here = ("file:", "ipfs:", "data:", "zip+file:", "tar+file:", "zip+ipfs:", "tar+ipfs:")
        other = " AND ".join(["substr(uri, 1, ?) != ?"] * len(here))
        values = [value for each in here for value in (len(each), each)]
        query = (
            f"SELECT DISTINCT batch FROM contents WHERE {other}"
            " AND content_id NOT IN (SELECT content_id FROM removed WHERE source != '')"
        )
        with self._db() as db:
            return sorted(batch for (batch,) in db.execute(query, values))

    def waiting(self, before: float) -> list[Batch]:
        """The batches that were made before that time, in seconds since 1970, and never stored in full."""
        return [batch for batch in self.select(until=before) if not batch.recipe]

    def wanted(self, after: int, limit: int) -> list[tuple[int, Batch]]:
        """The oldest requests for runs (see `want`) with numbers above that one."""
        with self._db() as db:
            rows = db.execute(
                "SELECT wanted.number, batch, content_type, size, recipe FROM wanted JOIN batches USING (batch)"
                " WHERE wanted.number > ? ORDER BY wanted.number LIMIT ?",
                (after, limit),
            ).fetchall()
        return [(row[0], Batch(*row[1:])) for row in rows]

    def sources(self) -> list[str]:
        """Every source that was registered, for the scheduled re-scan."""
        with self._db() as db:
            return [source for (source,) in db.execute("SELECT source FROM sources ORDER BY added, source")]

    def quarantined(self, batches: Sequence[str] | None = None) -> list[tuple[str, Failure]]:
        """(batch, failure) of every content in quarantine; the batch is empty for unrecognised content."""
        with self._db() as db:
            rows = db.execute(
                "SELECT batch, content_id, uri, stage, reason, retryable FROM quarantine ORDER BY batch, content_id"
            ).fetchall()
        found = [(row[0], Failure(row[1], row[2], row[3], row[4], bool(row[5]))) for row in rows]
        return found if batches is None else [each for each in found if each[0] in batches]

    def in_quarantine(self) -> list[tuple[Batch, int]]:
        """The batches with contents in quarantine, and how many; those with the greatest part of them come first."""
        with self._db() as db:
            rows = db.execute(
                "SELECT count(*), batch, content_type, size, recipe FROM quarantine JOIN batches USING (batch)"
                " GROUP BY batch ORDER BY 1.0 * count(*) / size DESC, number"
            ).fetchall()
        return [(Batch(*row[1:]), row[0]) for row in rows]

    # ------------------------------------------------------------------ what the stages report

    def record(self, batch: str, failures: Sequence[Failure]) -> None:
        """Make the quarantine say of this batch just what `failures` say."""
        with self._db() as db:
            db.execute("DELETE FROM quarantine WHERE batch = ?", (batch,))
            _insert_failures(db, batch, failures)

    def stored(self, batch: str, recipe: str) -> None:
        """Note that the batch is stored in full (but for its quarantine) under these stage versions."""
        with self._db() as db:
            db.execute("UPDATE batches SET recipe = ? WHERE batch = ?", (recipe, batch))

    def note(self, batch: str, digests: Mapping[str, str], failures: Sequence[Failure]) -> list[str]:
        """Note the SHA-256 that each stored content has now; returns the contents that had another one before.

        What was stored once, and now cannot be had for good (404, say), is marked as removed until it can.
        """
        lost = [each for each in failures if each.stage == "download" and not each.retryable]
        with self._db() as db:
            db.execute("BEGIN IMMEDIATE")
            latest: dict[str, tuple[int, str]] = {}
            for part in _parts(list(digests)):
                marks = ",".join("?" * len(part))
                query = (
                    f"SELECT content_id, version, digest FROM versions WHERE content_id IN ({marks}) ORDER BY version"
                )
                latest |= {row[0]: (row[1], row[2]) for row in db.execute(query, part)}
            fresh = [each for each, digest in digests.items() if latest.get(each, (0, ""))[1] != digest]
            db.executemany(
                "INSERT INTO versions VALUES (?, ?, ?, ?, ?)",
                [(each, latest.get(each, (0, ""))[0] + 1, digests[each], batch, time.time()) for each in fresh],
            )
            db.executemany("DELETE FROM removed WHERE content_id = ? AND source = ''", [(each,) for each in digests])
            db.executemany(
                "INSERT INTO removed SELECT ?, ?, '', ? WHERE EXISTS (SELECT 1 FROM versions WHERE content_id = ?)"
                " ON CONFLICT DO NOTHING",
                [(each.content_id, each.uri, time.time(), each.content_id) for each in lost],
            )
        return [each for each in fresh if each in latest]

    def want(self, batches: Sequence[str]) -> None:
        """Ask for a run of each of these batches; a sensor sees to it."""
        with self._db() as db:
            db.executemany("INSERT INTO wanted (batch) VALUES (?)", [(batch,) for batch in batches])

    def prune(self, before: float) -> int:
        """Forget what is in quarantine since before that time and cannot be retried: content that no source lists any
        more, or that a newer batch has taken over. Returns the number of records."""
        with self._db() as db:
            return db.execute(
                "DELETE FROM quarantine WHERE since < ? AND (content_id IN (SELECT content_id FROM removed)"
                " OR batch = '' OR NOT EXISTS (SELECT 1 FROM contents"
                " WHERE contents.content_id = quarantine.content_id AND contents.batch = quarantine.batch))",
                (before,),
            ).rowcount


def _add_batch(db: sqlite3.Connection, members: Sequence[tuple[Content, str]], touched: dict[str, None]) -> int:
    """One of `Catalog._add_batches`."""
    known = _known(db, [content.content_id for content, _ in members])
    touched |= {known[each.content_id][0]: None for each, revision in members if _is_known(known, each, revision)}
    members = [(each, revision) for each, revision in members if not _is_known(known, each, revision)]
    if not members:
        return 0
    name = members[0][0].content_type
    cursor = db.execute(
        "INSERT INTO batches (batch, content_type, size, added) VALUES (?, ?, ?, ?)",
        (f"new-{time.time_ns()}", name, len(members), time.time()),
    )
    batch = f"{name}-{cursor.lastrowid:06d}"
    db.execute("UPDATE batches SET batch = ? WHERE number = ?", (batch, cursor.lastrowid))
    db.executemany(
        "INSERT INTO members VALUES (?, ?, ?, ?, ?)",
        [
            (batch, position, content.content_id, content.uri, json.dumps(dict(content.metadata)))
            for position, (content, _) in enumerate(members)
        ],
    )
    # What an older batch said about these contents is no longer true.
    db.executemany("DELETE FROM quarantine WHERE content_id = ?", [(each.content_id,) for each, _ in members])
    db.executemany(
        "INSERT INTO contents VALUES (?, ?, ?, ?) ON CONFLICT (content_id) DO UPDATE SET"
        " uri = excluded.uri, revision = excluded.revision, batch = excluded.batch",
        [(content.content_id, content.uri, revision, batch) for content, revision in members],
    )
    touched[batch] = None
    return len(members)


def _known(db: sqlite3.Connection, content_ids: Sequence[str]) -> dict[str, tuple[str, str]]:
    """content_id -> (batch, revision) of those that are registered."""
    found: dict[str, tuple[str, str]] = {}
    for part in _parts(content_ids):
        marks = ",".join("?" * len(part))
        query = f"SELECT content_id, batch, revision FROM contents WHERE content_id IN ({marks})"
        found |= {row[0]: (row[1], row[2]) for row in db.execute(query, part)}
    return found


def _parts(content_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(content_ids), _LISTINGS_AT_ONCE):
        yield content_ids[start : start + _LISTINGS_AT_ONCE]


def _see(db: sqlite3.Connection, source: str, seen: float, content_ids: Sequence[str]) -> None:
    """Note that the source lists these contents."""
    db.executemany(
        "INSERT INTO listed VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET seen = max(seen, excluded.seen)",
        [(source, content_id, seen) for content_id in content_ids],
    )
    if db.execute("SELECT 1 FROM removed LIMIT 1").fetchone():
        rows = [(content_id,) for content_id in content_ids]
        # Where it cannot be had (see `note`), that it is still listed says nothing.
        db.executemany("DELETE FROM removed WHERE content_id = ? AND source != ''", rows)


def _is_no_file(uri: str) -> bool:
    """Whether it names a file of this machine that is not there."""
    try:
        return scheme_of(uri) == "file" and not os.path.lexists(file_path(uri))
    except UsageError:
        return False


def _is_known(known: Mapping[str, tuple[str, str]], content: Content, revision: str) -> bool:
    return known.get(content.content_id, ("", ""))[1] == revision


def _insert_failures(db: sqlite3.Connection, batch: str, failures: Iterable[Failure]) -> None:
    db.executemany(
        "INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (batch, each.content_id, each.uri, each.stage, each.reason, int(each.retryable), time.time())
            for each in failures
        ],
    )


def _chunks(found: Iterator[Found]) -> Iterator[list[Found]]:
    while chunk := list(islice(found, _LISTINGS_AT_ONCE)):
        yield chunk


def default_content_id(uri: str) -> str:
    """The content_id of content that was given none: 32 hexadecimal digits of its uri."""
    return hashlib.sha256(uri.encode()).hexdigest()[:32]


def content_of(listed: Listed, fetcher: Fetcher) -> Content | Failure:
    """The content that a listing stands for, or why it is of no content type.

    Raises `UsageError` where its list names a content type that does not exist.
    """
    content_id = listed.content_id or default_content_id(listed.uri)
    try:
        plugin = _label(listed, fetcher)
    except ContentError as error:
        return Failure(content_id, listed.uri, "register", error.reason, error.retryable)
    return Content(content_id, listed.uri, plugin.name, listed.metadata)


def _revision(content: Content, validator: str, fetcher: Fetcher) -> str:
    """A digest of all that makes a registered content another one: its bytes, as far as known, and its list row."""
    parts = [validator or fetcher.validator(content.uri), content.uri, content.content_type, dict(content.metadata)]
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def _label(listed: Listed, fetcher: Fetcher) -> ContentTypePlugin:
    """The content type of a listing: what the list says, else what its ending says, else what its bytes say.

    Raises `ContentError` where none of them tells, and `UsageError` where the list names a type there is not.
    """
    if listed.content_type:
        return content_type(listed.content_type)
    claims = claiming(Path(listed.uri.split("?")[0]).suffix)
    if len(claims) == 1:
        return claims[0]
    head = fetcher.peek(listed.uri)
    for plugin in claims or content_types().values():
        if plugin.sniff(head) is not None:
            return plugin
    raise ContentError("unsupported format: no content type recognises its name or its bytes")
