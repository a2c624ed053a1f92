"""The pairs that were found, and what has been compared already. One SQLite file in the home, derived from the store.

It can be deleted at any time: the next join then compares everything anew. Of each content it knows under which key of
its fingerprint it was compared with everything that was stored at that time, so only what is new or changed since has
to be compared. Nothing here grows with the collection in memory.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fingerprint_dagster.calibration import Calibration, load
from fingerprint_dagster.content import Content, Fingerprint, Match, Sketch
from fingerprint_dagster.database import HomeDatabase
from fingerprint_dagster.duplicates.relation import Relation
from fingerprint_dagster.search import EXACT, judged

_SCHEMA = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS contents (
    number INTEGER PRIMARY KEY AUTOINCREMENT, content_id TEXT NOT NULL UNIQUE, uri TEXT NOT NULL,
    content_type TEXT NOT NULL, metadata TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
    media_type TEXT NOT NULL, key TEXT NOT NULL, info TEXT NOT NULL, compared INTEGER NOT NULL DEFAULT 0,
    listing INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS contents_by_digest ON contents (digest, content_type);
CREATE INDEX IF NOT EXISTS contents_waiting ON contents (content_type, number) WHERE compared = 0;
CREATE TABLE IF NOT EXISTS pairs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, one INTEGER NOT NULL, other INTEGER NOT NULL, relation TEXT NOT NULL,
    score REAL NOT NULL, confidence REAL, evidence TEXT NOT NULL, matches TEXT NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS pairs_once ON pairs (min(one, other), max(one, other));
CREATE INDEX IF NOT EXISTS pairs_by_one ON pairs (one);
CREATE INDEX IF NOT EXISTS pairs_by_other ON pairs (other);
CREATE TABLE IF NOT EXISTS refused (one INTEGER, other INTEGER, PRIMARY KEY (one, other)) WITHOUT ROWID;
"""
_SIDE = "number, content_id, uri, content_type, metadata, digest, size, media_type, key, info"
_ENDS = frozenset(("query_range", "reference_range", "query_box", "reference_box"))
_CHUNK = 500
_CHANGED = -1  # in the column `compared`: 1 is compared, 0 to be compared


@dataclass(frozen=True)
class Pair:
    """Two contents of which one copies the other, or a part of it.

    one, other: their fingerprints without components: what a person wants to know of them.
    relation: what `one` is to `other`. matches: where, best first; the query's side of each is `one`, the reference's
    `other`. number: ascending in the order the pairs were found; 0 for a pair that is not stored yet.
    """

    one: Fingerprint
    other: Fingerprint
    relation: Relation
    matches: tuple[Match, ...]
    number: int = 0

    @property
    def best(self) -> Match:
        """The first match, whose score, confidence and evidence are the pair's."""
        return self.matches[0]

    @property
    def ids(self) -> tuple[str, str]:
        """The two content_ids in a fixed order."""
        one, other = sorted((self.one.content.content_id, self.other.content.content_id))
        return one, other


def facts_of(fingerprint: Fingerprint) -> Fingerprint:
    """The fingerprint without its components."""
    return replace(fingerprint, sketch=Sketch((), fingerprint.sketch.info))


class Pairs(HomeDatabase):
    """The pairs of one store."""

    file = "pairs.sqlite"
    schema = _SCHEMA
    pragmas = "PRAGMA synchronous = NORMAL"  # What a power cut takes back is compared again.

    def __init__(self, home: Path, store_uri: str) -> None:
        """What was found in another store is forgotten. Raises `UsageError` where the home cannot be used.

        The attribute `name` tells this file from one made after it was deleted: numbers of pairs begin anew with it.
        """
        self.store_uri = store_uri
        super().__init__(home)

    def _made(self, db: sqlite3.Connection) -> None:
        known = db.execute("SELECT value FROM settings WHERE name = 'store'").fetchone()
        if known is None or known[0] != self.store_uri:
            self._clear(db)
            db.execute("INSERT OR REPLACE INTO settings VALUES ('store', ?)", (self.store_uri,))
        db.execute("INSERT OR IGNORE INTO settings VALUES ('name', ?)", (secrets.token_hex(8),))
        (self.name,) = db.execute("SELECT value FROM settings WHERE name = 'name'").fetchone()

    def clear(self) -> None:
        """Forget everything, so that everything is compared anew."""
        with self._db() as db:
            self._clear(db)

    @staticmethod
    def _clear(db: sqlite3.Connection) -> None:
        for table in ("contents", "pairs", "refused"):
            db.execute(f"DELETE FROM {table}")

    # ------------------------------------------------------------------ what is stored, and what is new of it

    def take_in(self, stored: Iterable[Sequence[Fingerprint]]) -> int:
        """Know of exactly these contents, whose sketches may be empty; returns how many are to be compared.

        What is gone or has changed loses its pairs. What had equal bytes with something gone is compared again,
        since of equal contents only the first is compared with others.
        """
        with self._db() as db:
            listing = 1 + _newest_listing(db)
        for part in stored:
            with self._db() as db:
                _insert(db, part, listing)
        with self._db() as db:
            # Not what a listing that began later has seen: another process may be at it, too.
            _drop_lost(db, f"compared = {_CHANGED} OR listing < {listing}")
            db.execute("DELETE FROM contents WHERE listing < ?", (listing,))
            return int(db.execute("SELECT count(*) FROM contents WHERE compared = 0").fetchone()[0])

    def learn(self, contents: Sequence[Fingerprint]) -> None:
        """Know of these contents, too, whose sketches may be empty. What has changed of them loses its pairs."""
        with self._db() as db:
            _insert(db, contents, _newest_listing(db))
            _drop_lost(db, f"compared = {_CHANGED}")

    def waiting(self, content_type: str, after: int, most: int) -> list[tuple[int, str]]:
        """(number, content_id) of the next contents to be compared, at most that many, with a number above `after`."""
        with self._db() as db:
            return db.execute(
                "SELECT number, content_id FROM contents WHERE compared = 0 AND content_type = ? AND number > ?"
                " ORDER BY number LIMIT ?",
                (content_type, after, most),
            ).fetchall()

    def waiting_types(self) -> dict[str, int]:
        """content_type -> number of contents to be compared."""
        with self._db() as db:
            return dict(
                db.execute("SELECT content_type, count(*) FROM contents WHERE compared = 0 GROUP BY content_type")
            )

    def to_be_compared(self, content_ids: Sequence[str]) -> list[str]:
        """Those of the contents that are known and were not compared."""
        rows = self._chosen("SELECT content_id FROM contents WHERE compared = 0 AND content_id IN", content_ids)
        return [row[0] for row in rows]

    def numbers(self, content_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        """content_id -> its number, and that of the first content of its type with the same bytes: the lowest number.

        Unknown ids are left out.
        """
        first = (
            "(SELECT min(number) FROM contents AS same"
            " WHERE same.digest = contents.digest AND same.content_type = contents.content_type)"
        )
        rows = self._chosen(f"SELECT content_id, number, {first} FROM contents WHERE content_id IN", content_ids)
        return {row[0]: (row[1], row[2]) for row in rows}

    def later_equals(self, numbers: Sequence[int]) -> list[tuple[int, int]]:
        """Each of these numbers with that of every content of its type that has the same bytes and a greater number."""
        return self._chosen(
            "SELECT contents.number, same.number FROM contents JOIN contents AS same USING (digest, content_type)"
            " WHERE same.number > contents.number AND contents.number IN",
            numbers,
        )

    def content_ids(self, numbers: Sequence[int]) -> dict[int, str]:
        """Number -> content_id of those that are known."""
        rows = self._chosen("SELECT number, content_id FROM contents WHERE number IN", numbers)
        return {row[0]: row[1] for row in rows}

    # ------------------------------------------------------------------ what was found

    def record(
        self,
        compared: Sequence[Fingerprint] = (),
        found: Sequence[Pair] = (),
        refused: Sequence[tuple[int, int]] = (),
    ) -> int:
        """Note in one transaction which contents were compared with everything, what was found, and what is no pair.

        Returns how many of the pairs found are new. A pair that is there already is left as it is. A content that has
        changed in the meantime stays to be compared.
        refused: pairs of numbers, the lower first.
        """
        with self._db() as db:
            ids = {each.content.content_id for pair in found for each in (pair.one, pair.other)}
            numbers = {
                content_id: db.execute("SELECT number FROM contents WHERE content_id = ?", (content_id,)).fetchone()
                for content_id in ids
            }
            rows = []
            for pair in found:
                one, other = (numbers[each.content.content_id] for each in (pair.one, pair.other))
                if one and other:
                    best = pair.best
                    places = json.dumps([_place(match) for match in pair.matches], ensure_ascii=False)
                    rows.append((one[0], other[0], pair.relation, best.score, best.confidence, best.evidence, places))
            new = db.executemany(
                "INSERT INTO pairs (one, other, relation, score, confidence, evidence, matches)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                rows,
            ).rowcount
            db.executemany("INSERT OR IGNORE INTO refused VALUES (?, ?)", refused)
            _tell(db, [each for pair in found for each in (pair.one, pair.other)])
            _tell(db, compared)
            db.executemany(
                "UPDATE contents SET compared = 1 WHERE content_id = ? AND key = ?",
                [(each.content.content_id, each.key) for each in compared],
            )
        return max(new, 0)  # -1: there were no rows

    def settled(self, pairs: Sequence[tuple[int, int]]) -> dict[tuple[int, int], bool]:
        """Of pairs of numbers, the lower first, those that were compared -> whether they are a pair."""
        query = (
            "SELECT EXISTS (SELECT 1 FROM pairs WHERE min(one, other) = :one AND max(one, other) = :other),"
            " EXISTS (SELECT 1 FROM refused WHERE one = :one AND other = :other)"
        )
        found: dict[tuple[int, int], bool] = {}
        with self._db() as db:
            for one, other in pairs:
                is_pair, is_none = db.execute(query, {"one": one, "other": other}).fetchone()
                if is_pair or is_none:
                    found[one, other] = bool(is_pair)
        return found

    def forget_refused(self) -> None:
        """Forget what is no pair: once everything is compared, hardly any of it is asked for again."""
        with self._db() as db:
            db.execute("DELETE FROM refused")

    def pairs(self, *, after: int = 0, among: Sequence[str] | None = None) -> Iterator[Pair]:
        """The pairs with a number above `after`, in the order they were found; how sure, by today's calibration.

        among: only those of which a content has one of these content_ids.
        """
        with self._db() as db:
            chosen = ""
            if among is not None:
                db.execute("CREATE TEMP TABLE among (content_id TEXT PRIMARY KEY)")
                db.executemany("INSERT OR IGNORE INTO among VALUES (?)", [(each,) for each in among])
                chosen = " AND (a.content_id IN (SELECT * FROM among) OR b.content_id IN (SELECT * FROM among))"
            sides = ", ".join(f"{table}.{name}" for table in "ab" for name in _SIDE.split(", "))
            rows = db.execute(
                f"SELECT {sides}, pairs.number, relation, matches FROM pairs"
                " JOIN contents AS a ON a.number = pairs.one JOIN contents AS b ON b.number = pairs.other"
                f" WHERE pairs.number > ?{chosen} ORDER BY pairs.number",
                (after,),
            )
            for row in rows:
                one, other = _facts(row[:10]), _facts(row[10:20])
                matches = [_match(place, other.content) for place in json.loads(row[22])]
                yield Pair(one, other, row[21], tuple(judged(matches, one, other, self._calibration)), row[20])

    def facts(self, content_ids: Sequence[str]) -> dict[str, Fingerprint]:
        """content_id -> its fingerprint without components, of those that are known."""
        rows = self._chosen(f"SELECT {_SIDE} FROM contents WHERE content_id IN", content_ids)
        return {row[1]: _facts(row) for row in rows}

    def at(self, uri: str) -> list[str]:
        """The content_ids of what is at that uri."""
        return [row[0] for row in self._chosen("SELECT content_id FROM contents WHERE uri IN", [uri])]

    def count(self) -> dict[str, int]:
        """content_type -> number of contents that are known."""
        with self._db() as db:
            return dict(db.execute("SELECT content_type, count(*) FROM contents GROUP BY content_type ORDER BY 1"))

    def newest(self) -> int:
        """The number of the pair found last; 0 where there is none."""
        with self._db() as db:
            return int(db.execute("SELECT max(number) FROM pairs").fetchone()[0] or 0)

    def _chosen(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        with self._db() as db:
            for start in range(0, len(values), _CHUNK):
                part = values[start : start + _CHUNK]
                rows += db.execute(f"{query} ({','.join('?' * len(part))})", part).fetchall()
        return rows

    @cached_property
    def _calibration(self) -> Calibration:
        return load(self.path.parent)


def _newest_listing(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT max(listing) FROM contents").fetchone()[0] or 0)


def _insert(db: sqlite3.Connection, contents: Sequence[Fingerprint], listing: int) -> None:
    """Know of these contents, and mark those that have changed."""
    db.executemany(
        f"INSERT INTO contents ({_SIDE.removeprefix('number, ')}, listing) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (content_id) DO UPDATE SET listing = max(listing, excluded.listing),"
        f" compared = CASE WHEN key = excluded.key THEN compared ELSE {_CHANGED} END,"
        " uri = excluded.uri, content_type = excluded.content_type, metadata = excluded.metadata,"
        " digest = excluded.digest, size = excluded.size, media_type = excluded.media_type,"
        " key = excluded.key, info = CASE WHEN excluded.info != '{}' OR key != excluded.key"
        " THEN excluded.info ELSE info END",
        [(*_side(each), listing) for each in contents],
    )


def _tell(db: sqlite3.Connection, contents: Sequence[Fingerprint]) -> None:
    """Keep the info of contents whose sketches were read."""
    told = {each.content.content_id: each for each in contents if each.sketch.info}
    db.executemany(
        "UPDATE contents SET info = ? WHERE content_id = ? AND key = ?",
        [(_json(each.sketch.info), content_id, each.key) for content_id, each in told.items()],
    )


def _drop_lost(db: sqlite3.Connection, which: str) -> None:
    """Drop the pairs of contents of which that is true; what had equal bytes with them is to be compared again."""
    lost = f"SELECT number FROM contents WHERE {which}"
    db.execute(
        "UPDATE contents SET compared = 0 WHERE number IN ("
        f" SELECT other FROM pairs WHERE evidence = '{EXACT}' AND one IN ({lost}) UNION"
        f" SELECT one FROM pairs WHERE evidence = '{EXACT}' AND other IN ({lost})) AND compared != {_CHANGED}"
    )
    for table in ("pairs", "refused"):
        db.execute(f"DELETE FROM {table} WHERE one IN ({lost}) OR other IN ({lost})")
    db.execute(f"UPDATE contents SET compared = 0 WHERE compared = {_CHANGED}")


def _side(fingerprint: Fingerprint) -> tuple[Any, ...]:
    content = fingerprint.content
    return (
        content.content_id,
        content.uri,
        str(content.content_type),
        _json(content.metadata),
        fingerprint.digest,
        fingerprint.size,
        fingerprint.media_type,
        fingerprint.key,
        _json(fingerprint.sketch.info),
    )


def _facts(row: Sequence[Any]) -> Fingerprint:
    _, content_id, uri, content_type, metadata, digest, size, media_type, key, info = row
    content = Content(content_id, uri, content_type, json.loads(metadata))
    return Fingerprint(content, digest, size, media_type, key, Sketch((), json.loads(info)))


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(dict(data), ensure_ascii=False, separators=(",", ":"), default=str)


def _place(match: Match) -> dict[str, Any]:
    return {name: value for name, value in vars(match).items() if name != "reference" and value not in (None, {})}


def _match(place: Mapping[str, Any], reference: Content) -> Match:
    arguments: dict[str, Any] = {name: tuple(each) if name in _ENDS else each for name, each in place.items()}
    return Match(reference, **arguments)
