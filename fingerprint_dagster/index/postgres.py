"""The store in PostgreSQL: one table, shared by any number of processes on any number of machines.

A row for each content, as in `lance`: a deleted content leaves a row without payload, and every change has a number
greater than those committed before it, for which writers take turns (an advisory lock, held for the transaction). The
row of content_id "" has what no other table has (its digest), and the number up to which deleted rows were dropped.

Looking up is done by each machine's `SearchIndex`, not by the database: a picture has hundreds of tokens, and an
inverted list of them costs PostgreSQL ten times the room, and its build hours instead of minutes. So any server of
version 12 or newer will do, and no extension is needed.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from fingerprint_dagster.content import Fingerprint
from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.index.record import from_record, to_record
from fingerprint_dagster.index.search_index import Change, Searched, SearchIndex

_COLUMNS = ("content_id", "uri", "content_type", "digest", "size", "media_type", "key", "metadata", "payload", "seq")
_TABLE = """
CREATE TABLE IF NOT EXISTS records (
    content_id text COLLATE "C" PRIMARY KEY, uri text NOT NULL, content_type text NOT NULL, digest text NOT NULL,
    size bigint NOT NULL, media_type text NOT NULL, key text NOT NULL, metadata text NOT NULL, payload bytea,
    seq bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS records_digest ON records (digest);
CREATE INDEX IF NOT EXISTS records_seq ON records (seq);
"""
_FIND = f"SELECT {', '.join(_COLUMNS)} FROM records WHERE content_id = ANY(%s) AND content_type <> ''"
_PUT = f"""
INSERT INTO records ({", ".join(_COLUMNS)}) VALUES ({", ".join(f"%({name})s" for name in _COLUMNS)})
ON CONFLICT (content_id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])}
"""
_DELETE = """
UPDATE records SET uri = '', content_type = '', digest = '', size = 0, media_type = '', key = '', metadata = '',
    payload = NULL, seq = %s WHERE content_id = ANY(%s) AND content_id <> ''
"""
# Of the advisory lock by which writers take turns, with the table's own number.
_LOCK = 0x46505354
# Rows sent in one message.
_ROWS = 500


class PostgresStore(Searched):
    """A `Store` in the database `uri`; the table is made when the first fingerprint is put.

    Safe to share between threads, and opened anew in a forked child.
    """

    def __init__(self, uri: str, search_folder: Path) -> None:
        """uri: `postgresql://user@host/database?schema=name`, the rest as libpq takes it.

        The password comes from PGPASSWORD or a password file, since the address is shown in Dagster's UI.
        """
        try:
            import psycopg  # noqa: F401
        except ImportError:
            raise UsageError(
                "PostgreSQL needs the extra postgres: pip install 'fingerprint-dagster[postgres]'"
            ) from None
        parts = urlsplit(uri)
        query = dict(parse_qsl(parts.query))
        self._schema = query.pop("schema", "")
        if self._schema and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self._schema):
            raise UsageError(f"{self._schema!r} is no name for a schema: give letters, digits and _")
        self._uri = urlunsplit(parts._replace(query=urlencode(query)))
        self.search = SearchIndex(self, search_folder)
        self._lock = threading.Lock()
        self._pid: int | None = None
        self._connection: Any = None

    def put(self, fingerprints: Sequence[Fingerprint]) -> None:
        """See `Store.put`."""
        latest = {fingerprint.content.content_id: fingerprint for fingerprint in fingerprints}
        if latest:
            records = [to_record(fingerprint) for fingerprint in latest.values()]
            with self._lock, self._connected().transaction():
                seq = self._next_seq()
                with self._connected().cursor() as cursor:
                    cursor.executemany(_PUT, [record | {"seq": seq} for record in records])

    def get(self, content_ids: Sequence[str]) -> list[Fingerprint]:
        """See `Store.get`."""
        rows = self._rows(_FIND, [list(content_ids)])
        found = {row[0]: from_record(dict(zip(_COLUMNS, row, strict=True))) for row in rows}
        return [found[content_id] for content_id in content_ids if content_id in found]

    def keys(self, content_ids: Sequence[str]) -> dict[str, str]:
        """See `Store.keys`."""
        sql = "SELECT content_id, key FROM records WHERE content_id = ANY(%s) AND content_type <> ''"
        return dict(self._rows(sql, [list(content_ids)]))

    def delete(self, content_ids: Sequence[str]) -> None:
        """See `Store.delete`."""
        if content_ids and self._is_there():
            with self._lock, self._connected().transaction():
                self._connected().execute(_DELETE, [self._next_seq(), list(content_ids)])

    def count(self) -> dict[str, int]:
        """See `Store.count`."""
        sql = "SELECT content_type, count(*) FROM records WHERE content_type <> '' GROUP BY content_type"
        return dict(self._rows(sql))

    def scan(self, batch_size: int = 1000, *, sketches: bool = True) -> Iterator[list[Fingerprint]]:
        """See `Store.scan`."""
        columns = [name for name in _COLUMNS if sketches or name != "payload"]
        sql = f"SELECT {', '.join(columns)} FROM records WHERE content_type <> ''"
        for rows in self._stream(sql, [], batch_size):
            yield [from_record(dict(zip(columns, row, strict=True))) for row in rows]

    def by_digest(self, digest: str) -> list[str]:
        """See `Store.by_digest`."""
        sql = "SELECT content_id FROM records WHERE digest = %s AND content_type <> '' ORDER BY content_id"
        return [row[0] for row in self._rows(sql, [digest])]

    def compact(self) -> None:
        """Forget what was deleted, let the database reclaim its room, and search anew."""
        if not self._is_there():
            return
        with self._lock:
            with self._connected().transaction():
                self._connected().execute("UPDATE records SET seq = %s WHERE content_id = ''", [self._next_seq()])
                self._connected().execute("DELETE FROM records WHERE content_type = '' AND content_id <> ''")
            self._connected().execute("VACUUM ANALYZE records")
        self.search.rebuild()

    def identity(self) -> str:
        """See `Records.identity`."""
        return "".join(row[0] for row in self._rows("SELECT digest FROM records WHERE content_id = ''"))

    def latest(self) -> int:
        """See `Records.latest`."""
        return max((row[0] for row in self._rows("SELECT coalesce(max(seq), -1) FROM records")), default=-1)

    def changes(self, after: int) -> Iterator[list[Change]]:
        """See `Records.changes`."""
        sql = "SELECT content_id, seq, content_type, digest, payload FROM records WHERE seq > %s"
        for rows in self._stream(sql, [after], _ROWS):
            yield [Change(*row) for row in rows]

    def _connected(self) -> Any:
        """The connection of this process; a broken one is made anew."""
        if self._pid != os.getpid() or self._connection.closed:
            self._connection = self._connect()
            self._pid = os.getpid()
        return self._connection

    def _connect(self) -> Any:
        import psycopg

        try:
            connection = psycopg.connect(self._uri, autocommit=True)
        except psycopg.OperationalError as error:
            parts = urlsplit(self._uri)
            place = f"{parts.hostname or 'this machine'}{parts.path}"
            raise UsageError(f"PostgreSQL at {place} does not answer: {str(error).strip()}") from None
        if self._schema:
            connection.execute(f'SET search_path = "{self._schema}"')
        return connection

    def _is_there(self) -> bool:
        with self._lock:
            row = self._connected().execute("SELECT to_regclass('records')").fetchone()
        return row is not None and row[0] is not None

    def _rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows of a question; none where there is no table yet."""
        import psycopg

        try:
            with self._lock:
                rows: list[tuple[Any, ...]] = self._connected().execute(sql, values).fetchall()
            return rows
        except psycopg.errors.UndefinedTable:
            return []

    def _stream(self, sql: str, values: Sequence[object], batch_size: int) -> Iterator[list[tuple[Any, ...]]]:
        """The rows in batches, as of one moment, on a connection of their own."""
        if not self._is_there():
            return
        with (
            closing(self._connect()) as connection,
            connection.transaction(),
            connection.cursor("stream") as cursor,
        ):
            cursor.execute(sql, values)
            while rows := cursor.fetchmany(batch_size):
                yield rows

    def _next_seq(self) -> int:
        """The number of a change, in the transaction that makes it; makes the table where there is none."""
        connection = self._connected()
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        if connection.execute("SELECT to_regclass('records')").fetchone()[0] is None:
            if self._schema:
                connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{self._schema}"')
            connection.execute(_TABLE)
            about = dict.fromkeys(_COLUMNS, "") | {
                "digest": secrets.token_hex(16),
                "size": 0,
                "payload": None,
                "seq": 0,
            }
            connection.execute(_PUT, about)
        return int(connection.execute("SELECT max(seq) + 1 FROM records").fetchone()[0])
