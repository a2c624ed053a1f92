"""A memo in a Redis server, for many machines: quick for small values, as large as the server's memory.

`<prefix>:v:<key>` holds a value, sealed (see `envelope`) and with Redis' own time to live. Beside the values stand a
hash of their stages, one of their sizes, the sum of these, and two sorted sets by time of creation and of last use.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit, urlunsplit

from fingerprint_dagster.errors import Unavailable, UsageError
from fingerprint_dagster.memo.base import StageUsage
from fingerprint_dagster.memo.envelope import seal, unseal
from fingerprint_dagster.sources.uri import without_password

EVICT_TO = 0.9
# A value's time of last use is written at most this often, so that reading stays free of writes.
TOUCH_SECONDS = 3600.0
# What one command carries: a string of Redis holds 512 MB, and a command blocks the server for all others.
COMMAND_BYTES = 8 << 20
VALUE_BYTES = 500 << 20
KEYS_AT_ONCE = 500
DEFAULT_PREFIX = "fingerprint"

# Values go in together with what is known of them, or not at all.
_PUT = """
for i = 6, #ARGV, 2 do
    local key, size = ARGV[i], string.len(ARGV[i + 1]) - tonumber(ARGV[5])
    local before = redis.call('HGET', KEYS[2], key) or 0
    redis.call('SET', ARGV[1] .. key, ARGV[i + 1], 'PX', ARGV[4])
    redis.call('HSET', KEYS[1], key, ARGV[2])
    redis.call('HSET', KEYS[2], key, size)
    redis.call('INCRBY', KEYS[3], size - before)
    redis.call('ZADD', KEYS[4], ARGV[3], key)
    redis.call('ZADD', KEYS[5], ARGV[3], key)
end
return redis.call('GET', KEYS[3])
"""
_DELETE = """
for i = 2, #ARGV do
    local key = ARGV[i]
    redis.call('DECRBY', KEYS[3], redis.call('HGET', KEYS[2], key) or 0)
    redis.call('UNLINK', ARGV[1] .. key)
    redis.call('HDEL', KEYS[1], key)
    redis.call('HDEL', KEYS[2], key)
    redis.call('ZREM', KEYS[4], key)
    redis.call('ZREM', KEYS[5], key)
end
return redis.call('GET', KEYS[3])
"""

Result = TypeVar("Result")


class RedisMemo:
    """See `Memo`. Safe for many threads, processes and machines, and after a fork.

    uri: `redis://host[:port][/database][?prefix=name]`, or `rediss:` for TLS. User and password come from the variables
        REDIS_USERNAME and REDIS_PASSWORD, since the address is shown in Dagster's UI.
    Values of more than 500 MB are not kept. A server that evicts by itself (`maxmemory-policy`) does no harm.
    """

    shared = False
    folders: Sequence[Path] = ()

    def __init__(self, uri: str, max_bytes: int, ttl_seconds: float) -> None:
        self.uri = uri
        self.max_bytes = max_bytes
        self.ttl_seconds = ttl_seconds
        parts = urlsplit(uri)
        prefix = parse_qs(parts.query).get("prefix", [DEFAULT_PREFIX])[0]
        self._values = f"{prefix}:v:"
        names = ("stages", "sizes", "bytes", "created", "used")
        self._stages, self._sizes, self._bytes, self._created, self._used = (f"{prefix}:{each}" for each in names)
        try:
            import redis
        except ModuleNotFoundError:
            raise UsageError("a memo in Redis needs the package redis: pip install redis") from None
        try:
            self._client: Any = redis.Redis.from_url(
                urlunsplit(parts._replace(query="")),
                username=os.environ.get("REDIS_USERNAME"),
                password=os.environ.get("REDIS_PASSWORD"),
                socket_connect_timeout=5.0,
                socket_timeout=60.0,
            )
        except ValueError as error:
            raise UsageError(f"memo {without_password(uri)}: {error}") from None
        self._put = self._client.register_script(_PUT)
        self._delete = self._client.register_script(_DELETE)

    def __reduce__(self) -> tuple[object, ...]:
        return RedisMemo, (self.uri, self.max_bytes, self.ttl_seconds)

    def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        now = time.time()
        found: dict[str, bytes] = {}
        damaged: list[str] = []
        alive = self._alive(keys, now)
        sizes = self._of_each(alive, lambda part: self._client.hmget(self._sizes, part))
        for part in _parts([(key, int(size or 0)) for key, size in zip(alive, sizes, strict=True)]):
            values = self._told(lambda part=part: self._client.mget([self._values + key for key in part]))  # type: ignore[misc]
            for key, data in zip(part, values, strict=True):
                whole = unseal(data) if data is not None else None
                if whole is not None:
                    found[key] = whole[1]
                elif data is not None:
                    damaged.append(key)
        self.delete(damaged)
        if found:
            used = self._of_each(list(found), lambda part: self._client.zmscore(self._used, part))
            stale = {
                key: now for key, at in zip(found, used, strict=True) if at is not None and now - at > TOUCH_SECONDS
            }
            if stale:
                self._told(lambda: self._client.zadd(self._used, stale, xx=True))
        return found

    def contains(self, keys: Sequence[str]) -> set[str]:
        alive = self._alive(keys, time.time())

        def exist(part: Sequence[str]) -> list[int]:
            pipe = self._client.pipeline(transaction=False)
            for key in part:
                pipe.exists(self._values + key)
            return list(pipe.execute())

        return {key for key, there in zip(alive, self._of_each(alive, exist), strict=True) if there}

    def put_many(self, stage: str, items: Iterable[tuple[str, bytes]]) -> None:
        now = time.time()
        sealed = {
            key: seal(stage, now, value) for key, value in items if len(value) <= min(self.max_bytes, VALUE_BYTES)
        }
        total = 0
        milliseconds = max(1, int(self.ttl_seconds * 1000))
        overhead = len(seal(stage, now, b""))
        for part in _parts([(key, len(data)) for key, data in sealed.items()]):
            pairs = [each for key in part for each in (key, sealed[key])]
            arguments = [self._values, stage, now, milliseconds, overhead, *pairs]
            total = int(self._told(lambda: self._put(keys=self._names, args=arguments)))  # noqa: B023
        if total > self.max_bytes:
            self.evict()

    def delete(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), KEYS_AT_ONCE):
            part = keys[start : start + KEYS_AT_ONCE]
            self._told(lambda part=part: self._delete(keys=self._names, args=[self._values, *part]))  # type: ignore[misc]

    def clear(self, stage: str | None = None) -> int:
        stages = self._told(lambda: self._client.hgetall(self._stages))
        keys = [key.decode() for key, of in stages.items() if stage in (None, of.decode())]
        self.delete(keys)
        return len(keys)

    def usage(self) -> dict[str, StageUsage]:
        stages = self._told(lambda: self._client.hgetall(self._stages))
        sizes = self._told(lambda: self._client.hgetall(self._sizes))
        found: dict[str, list[int]] = {}
        for key, stage in stages.items():
            found.setdefault(stage.decode(), []).append(int(sizes.get(key, 0)))
        return {stage: StageUsage(len(each), sum(each)) for stage, each in sorted(found.items())}

    def evict(self) -> int:
        oldest = time.time() - self.ttl_seconds
        doomed = self._told(lambda: self._client.zrangebyscore(self._created, "-inf", oldest))
        self.delete([key.decode() for key in doomed])
        evicted = len(doomed)
        excess = int(self._told(lambda: self._client.get(self._bytes)) or 0) - self.max_bytes
        if excess > 0:
            excess += int(self.max_bytes * (1 - EVICT_TO))
            while excess > 0:
                keys = [
                    key.decode() for key in self._told(lambda: self._client.zrange(self._used, 0, KEYS_AT_ONCE - 1))
                ]
                if not keys:
                    break
                doomed = []
                for key, size in zip(keys, self._told(lambda: self._client.hmget(self._sizes, keys)), strict=True):  # noqa: B023
                    if excess > 0:
                        doomed.append(key)
                        excess -= int(size or 0)
                self.delete(doomed)
                evicted += len(doomed)
        return evicted

    @property
    def _names(self) -> list[str]:
        return [self._stages, self._sizes, self._bytes, self._created, self._used]

    def _alive(self, keys: Sequence[str], now: float) -> list[str]:
        """Those of the keys that were put and are not too old. Their values may be gone all the same."""
        unique = list(dict.fromkeys(keys))
        created = self._of_each(unique, lambda part: self._client.zmscore(self._created, part))
        oldest = now - self.ttl_seconds
        return [key for key, at in zip(unique, created, strict=True) if at is not None and at > oldest]

    def _of_each(self, keys: Sequence[str], ask: Callable[[list[str]], list[Result]]) -> list[Result]:
        """The answers of `ask` for all keys, some hundred of them at once."""
        answers: list[Result] = []
        for start in range(0, len(keys), KEYS_AT_ONCE):
            part = list(keys[start : start + KEYS_AT_ONCE])
            answers += self._told(lambda part=part: ask(part))  # type: ignore[misc]
        return answers

    def _told(self, do: Callable[[], Any]) -> Any:
        """What `do` returns. Raises `Unavailable` that says what is wrong with the memo."""
        import redis

        try:
            return do()
        except redis.RedisError as error:
            raise Unavailable(
                f"memo {without_password(self.uri)}: the Redis server cannot be used ({error}); "
                "see that it runs, or set FINGERPRINT_MEMO to a folder"
            ) from None


def _parts(sizes: Sequence[tuple[str, int]]) -> Iterable[list[str]]:
    """The keys in groups whose values one command may carry."""
    part: list[str] = []
    size = 0
    for key, each in sizes:
        if part and (size + each > COMMAND_BYTES or len(part) >= KEYS_AT_ONCE):
            yield part
            part, size = [], 0
        part.append(key)
        size += each
    if part:
        yield part
