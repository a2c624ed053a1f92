"""A memo in an object store (Amazon S3 and what speaks its protocol, Google Cloud Storage, Azure), for many machines.

One object for each value, `<prefix>/<first two digits>/<key>`. A put is whole or not at all, and a value counts only
when it has the digest its header promises. Requests go out side by side, many for one call.

The store tells when an object was written, not when it was last read, and counting its objects means to list them. So
nothing is evicted while values are put: `evict` (`fingerprint cache evict`, or the nightly maintenance) drops what is
too old and then, over the size cap, the oldest. A lifecycle rule of the bucket does the same without us.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from fingerprint_dagster.errors import FingerprintError, Unavailable, UsageError
from fingerprint_dagster.memo.base import StageUsage
from fingerprint_dagster.memo.envelope import HEADER_BYTES, Header, read_header, seal, unseal
from fingerprint_dagster.sources.uri import object_of

REQUESTS_AT_ONCE = 32
EVICT_TO = 0.9
_DELETED_AT_ONCE = 1000

Item = TypeVar("Item")
Result = TypeVar("Result")


class ObjectMemo:
    """See `Memo`. Safe for many threads, processes and machines. Credentials: see `sources.objects`."""

    shared = False
    folders: Sequence[Path] = ()

    def __init__(self, uri: str, max_bytes: int, ttl_seconds: float) -> None:
        self.uri = uri
        self.max_bytes = max_bytes
        self.ttl_seconds = ttl_seconds
        self._scheme, self._bucket, prefix = object_of(uri)
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._opened: tuple[int, Any, ThreadPoolExecutor] | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return ObjectMemo, (self.uri, self.max_bytes, self.ttl_seconds)

    def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        oldest = time.time() - self.ttl_seconds
        unique = list(dict.fromkeys(keys))
        found: dict[str, bytes] = {}
        damaged = []
        for key, data in zip(unique, self._each(self._get, unique), strict=True):
            if data is None:
                continue
            whole = unseal(data)
            if whole is None:
                damaged.append(key)
            elif whole[0].created > oldest:
                found[key] = whole[1]
        self.delete(damaged)
        return found

    def contains(self, keys: Sequence[str]) -> set[str]:
        oldest = time.time() - self.ttl_seconds
        unique = list(dict.fromkeys(keys))
        headers = self._each(self._header, unique)
        return {key for key, header in zip(unique, headers, strict=True) if header and header.created > oldest}

    def put_many(self, stage: str, items: Iterable[tuple[str, bytes]]) -> None:
        now = time.time()
        import obstore

        def put(item: tuple[str, bytes]) -> None:
            key, value = item
            if len(value) <= self.max_bytes:
                obstore.put(self._store(), self._path(key), seal(stage, now, value))

        # Of equal keys the last one counts, so they must not go out side by side.
        self._each(put, list(dict(items).items()))

    def delete(self, keys: Sequence[str]) -> None:
        self._delete([self._path(key) for key in keys])

    def clear(self, stage: str | None = None) -> int:
        paths = [path for path, _, _ in self._list()]
        if stage is not None:
            headers = self._each(lambda path: self._header_at(path), paths)
            paths = [path for path, header in zip(paths, headers, strict=True) if header and header.stage == stage]
        self._delete(paths)
        return len(paths)

    def usage(self) -> dict[str, StageUsage]:
        """Reads the header of every object: seconds for ten thousand of them."""
        sizes: dict[str, list[int]] = {}
        for header in self._each(self._header_at, [path for path, _, _ in self._list()]):
            if header is not None:
                sizes.setdefault(header.stage, []).append(header.size)
        return {stage: StageUsage(len(each), sum(each)) for stage, each in sorted(sizes.items())}

    def evict(self) -> int:
        objects = sorted(self._list(), key=lambda each: each[1])
        oldest = time.time() - self.ttl_seconds
        doomed = [each for each in objects if each[1] <= oldest]
        kept = objects[len(doomed) :]
        excess = sum(size for _, _, size in kept) - self.max_bytes
        if excess > 0:
            excess += int(self.max_bytes * (1 - EVICT_TO))
            for each in kept:
                if excess <= 0:
                    break
                doomed.append(each)
                excess -= each[2]
        self._delete([path for path, _, _ in doomed])
        return len(doomed)

    def _path(self, key: str) -> str:
        return f"{self._prefix}{key[:2]}/{key}"

    def _get(self, key: str) -> bytes | None:
        import obstore

        try:
            return bytes(obstore.get(self._store(), self._path(key)).bytes())
        except FileNotFoundError:
            return None

    def _header(self, key: str) -> Header | None:
        return self._header_at(self._path(key))

    def _header_at(self, path: str) -> Header | None:
        import obstore

        try:
            return read_header(bytes(obstore.get_range(self._store(), path, start=0, end=HEADER_BYTES)))
        except FileNotFoundError:
            return None

    def _list(self) -> list[tuple[str, float, int]]:
        """(path, time of writing, bytes of the value) of every object."""
        import obstore

        return self._told(
            lambda: [
                (str(about["path"]), about["last_modified"].timestamp(), max(0, int(about["size"]) - HEADER_BYTES))
                for chunk in obstore.list(self._store(), self._prefix or None, chunk_size=1000)
                for about in chunk
            ]
        )

    def _delete(self, paths: Sequence[str]) -> None:
        import obstore

        for start in range(0, len(paths), _DELETED_AT_ONCE):
            part = list(paths[start : start + _DELETED_AT_ONCE])
            self._told(lambda part=part: obstore.delete(self._store(), part))  # type: ignore[misc]

    def _each(self, do: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """The results of one request each."""
        if not items:
            return []
        self._store()
        assert self._opened is not None
        threads = self._opened[2]
        return self._told(lambda: list(threads.map(do, items)))

    def _told(self, do: Callable[[], Result]) -> Result:
        """What `do` returns. Raises `Unavailable` that says what is wrong with the memo."""
        try:
            return do()
        except FingerprintError:
            raise
        except Exception as error:
            said = str(error).splitlines()[0][:200]
            raise Unavailable(
                f"memo {self.uri}: the object store cannot be used ({type(error).__name__}: {said}); "
                "see its address and its credentials, or set FINGERPRINT_MEMO to a folder"
            ) from None

    def _store(self) -> Any:
        # The library's threads do not cross a fork.
        if self._opened is None or self._opened[0] != os.getpid():
            try:
                from obstore.store import AzureStore, GCSStore, S3Store
            except ModuleNotFoundError:
                raise UsageError(
                    f"memo {self.uri}: object stores need the package obstore: pip install obstore"
                ) from None
            make: Any = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}[self._scheme]
            store = make(
                self._bucket,
                client_options={"allow_http": True, "timeout": "120s", "connect_timeout": "5s"},
                retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=60)},
            )
            self._opened = (os.getpid(), store, ThreadPoolExecutor(REQUESTS_AT_ONCE))
        return self._opened[1]
