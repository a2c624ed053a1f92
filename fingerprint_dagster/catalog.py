"""The catalog: what was registered, the immutable batches it was split into, and the quarantine. One SQLite file."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from fingerprint_dagster.content import Content, Failure
from fingerprint_dagster.database import prepare
from fingerprint_dagster.errors import ContentError, UsageError
from fingerprint_dagster.media.plugin import ContentTypePlugin
from fingerprint_dagster.media.registry import claiming, content_type, content_types
from fingerprint_dagster.sources import Fetcher, Listed, absolute, expand

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
"""
_LISTINGS_AT_ONCE = 500


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

    new: contents put into new batches. unchanged: contents that were there already, as they are now.
    batches: every batch that holds one of the contents, old or new, in order.
    unrecognised: contents of no content type there is; they are in quarantine under the stage "register".
    """

    new: int = 0
    unchanged: int = 0
    batches: tuple[Batch, ...] = ()
    unrecognised: tuple[Failure, ...] = ()


class Catalog:
    """The catalog in a home folder. Safe for many processes; every change is one transaction."""

    def __init__(self, home: Path) -> None:
        """Raises `UsageError` where the home cannot be made or written."""
        self.path = home / "catalog.sqlite"
        try:
            home.mkdir(parents=True, exist_ok=True)
            with self._db() as db:
                prepare(db, _SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise UsageError(f"home {str(home)!r} cannot be used: {error}; set FINGERPRINT_HOME to another") from None

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
        sizes = {name: plugin.batch_size for name, plugin in content_types().items()} | dict(batch_sizes or {})
        new = unchanged = 0
        touched: dict[str, None] = {}
        unrecognised: list[Failure] = []
        waiting: dict[str, dict[str, tuple[Content, str]]] = {}
        for listings in _chunks(_listings(sources, fetcher)):
            found = [content_of(listed, fetcher) for listed in listings]
            unrecognised += [each for each in found if isinstance(each, Failure)]
            contents = [each for each in found if isinstance(each, Content)]
            with self._db() as db:
                known = _known(db, [content.content_id for content in contents])
            for content in contents:
                name, revision = content.content_type, _revision(content, fetcher)
                if _is_known(known, content, revision):
                    unchanged += 1
                    touched[known[content.content_id][0]] = None
                    continue
                group = waiting.setdefault(name, {})
                group[content.content_id] = (content, revision)
                if len(group) >= sizes[name]:
                    added = self._add_batch(name, list(waiting.pop(name).values()), touched)
                    new, unchanged = new + added, unchanged + len(group) - added
        for name, group in waiting.items():
            added = self._add_batch(name, list(group.values()), touched)
            new, unchanged = new + added, unchanged + len(group) - added
        with self._db() as db:
            _insert_failures(db, "", unrecognised)
            if remember:
                rows = [(absolute(source), time.time()) for source in sources]
                db.executemany("INSERT INTO sources VALUES (?, ?) ON CONFLICT DO NOTHING", rows)
        return Registration(new, unchanged, tuple(self.batches(list(touched))), tuple(unrecognised))

    def _add_batch(self, name: str, members: Sequence[tuple[Content, str]], touched: dict[str, None]) -> int:
        """Put (content, revision) into a new batch, without those that another process was faster with.

        Adds the batches that hold the members to `touched`; returns the size of the new one.
        """
        with self._db() as db:
            db.execute("BEGIN IMMEDIATE")
            known = _known(db, [content.content_id for content, _ in members])
            touched |= {
                known[each.content_id][0]: None for each, revision in members if _is_known(known, each, revision)
            }
            members = [(each, revision) for each, revision in members if not _is_known(known, each, revision)]
            if not members:
                return 0
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

    @contextmanager
    def _db(self) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction: committed at the end, rolled back on an error."""
        with closing(sqlite3.connect(self.path, timeout=60.0)) as db, db:
            yield db


def _known(db: sqlite3.Connection, content_ids: Sequence[str]) -> dict[str, tuple[str, str]]:
    """content_id -> (batch, revision) of those that are registered."""
    found: dict[str, tuple[str, str]] = {}
    for start in range(0, len(content_ids), _LISTINGS_AT_ONCE):
        part = content_ids[start : start + _LISTINGS_AT_ONCE]
        marks = ",".join("?" * len(part))
        query = f"SELECT content_id, batch, revision FROM contents WHERE content_id IN ({marks})"
        found |= {row[0]: (row[1], row[2]) for row in db.execute(query, part)}
    return found


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


def _chunks(listings: Iterator[Listed]) -> Iterator[list[Listed]]:
    while chunk := list(islice(listings, _LISTINGS_AT_ONCE)):
        yield chunk


def _listings(sources: Sequence[str], fetcher: Fetcher) -> Iterator[Listed]:
    for source in sources:
        yield from expand(source, fetcher)


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


def _revision(content: Content, fetcher: Fetcher) -> str:
    """A digest of all that makes a registered content another one: its bytes, as far as known, and its list row."""
    parts = [fetcher.validator(content.uri), content.uri, content.content_type, dict(content.metadata)]
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
