"""Dagster's records in SQLite files under the home folder, through connections that stay open."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.sql import create_engine
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Connection, Engine
from sqlalchemy.pool import NullPool, QueuePool

from fingerprint_dagster.jobs.instance import dagster_home
from fingerprint_dagster.settings import get_settings


class HomeStorage(DagsterSqliteStorage):
    """SQLite storage under the home folder, whatever folder the instance itself was made from.

    So a plain `dagster dev -w workspace.yaml` in the checkout opens the same instance as `fingerprint ui`. The files
    are those of Dagster's own SQLite storage. That one connects for every event anew, some hundred times in a run, and
    each time has SQLite write its log back when it is done: a third of what a run of small contents takes.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        self._run_storage = _Runs(self._run_storage._conn_string)
        self._event_log_storage = _Events(self._event_log_storage._base_dir)

    @classmethod
    def config_type(cls) -> Any:
        """No options: the settings say where the home is."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Self:
        """The storage of the home that the settings name."""
        home = dagster_home(get_settings())
        home.mkdir(parents=True, exist_ok=True)
        return cls.from_local(str(home), inst_data=inst_data)


class _Kept:
    """This process's way to one database: what SQLAlchemy has prepared for it, and with `stay_open` a connection.

    A forked process makes its own. prepare: done once, at first.
    """

    def __init__(
        self, address: str, prepare: Callable[[Engine], None] = lambda engine: None, *, stay_open: bool
    ) -> None:
        self._address = address
        self._prepare = prepare
        # One stays open; there are more while as many threads want one at once.
        self._pool: dict[str, Any] = (
            {"poolclass": QueuePool, "pool_size": 1, "max_overflow": -1} if stay_open else {"poolclass": NullPool}
        )
        self._opened: tuple[int, Engine] | None = None

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        if self._opened is None or self._opened[0] != os.getpid():
            engine = create_engine(self._address, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS}, **self._pool)
            self._prepare(engine)
            self._opened = (os.getpid(), engine)
        with self._opened[1].connect() as connection, connection.begin():
            yield connection

    def close(self) -> None:
        if self._opened is not None and self._opened[0] == os.getpid():
            self._opened[1].dispose()


class _Runs(SqliteRunStorage):
    def __init__(self, conn_string: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(conn_string, inst_data)
        self._kept = _Kept(conn_string, stay_open=True)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with self._kept.transaction() as connection:
            yield connection

    def dispose(self) -> None:
        self._kept.close()


class _Events(SqliteEventLogStorage):
    """Each run has a file of its own beside the index. The UI sees by its time of change that something happened, so
    that one is closed after every event; only what SQLAlchemy has prepared for the latest run is kept."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        self._index = _Kept(self.conn_string_for_shard(INDEX_SHARD_NAME), self._initdb, stay_open=True)
        self._run: tuple[str, _Kept] | None = None

    def has_table(self, table_name: str) -> bool:
        with self._index.transaction() as connection:
            return connection.dialect.has_table(connection, table_name)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock, self._kept(shard).transaction() as connection:
            yield connection

    def _kept(self, shard: str) -> _Kept:
        if shard == INDEX_SHARD_NAME:
            return self._index
        if self._run is None or self._run[0] != shard:
            address = self.conn_string_for_shard(shard)
            self._run = shard, _Kept(address, lambda engine: self._make(shard, engine), stay_open=False)
        return self._run[1]

    def _make(self, shard: str, engine: Engine) -> None:
        """Make the tables of a run's file, the first time this process sees it."""
        if shard not in self._initialized_dbs:
            self._initdb(engine)
            self._initialized_dbs.add(shard)

    def dispose(self) -> None:
        super().dispose()
        self._index.close()
