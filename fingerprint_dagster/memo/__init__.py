"""The memo: stage results by content address, in memory, on disk, or shared by machines, chosen by URI."""

from __future__ import annotations

from pathlib import Path

from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.memo.base import Memo, StageUsage
from fingerprint_dagster.sources.uri import file_path

__all__ = ["Memo", "StageUsage", "open_memo"]


def open_memo(uri: str, *, max_bytes: int, ttl_seconds: float) -> Memo:
    """The memo at `uri`.

    A folder's path or `file:///folder`; `memory://`; shared by several machines, `s3://bucket/prefix` (also `gs:` and
    `az:`) or `redis://host:port/database` (also `rediss:`).
    max_bytes: size cap; the least recently used entries go first. ttl_seconds: older entries count as missing.
    Raises `UsageError` for an address of another kind.
    """
    scheme = uri.partition("://")[0] if "://" in uri else ""
    if scheme == "memory":
        from fingerprint_dagster.memo.memory import MemoryMemo

        return MemoryMemo(max_bytes, ttl_seconds)
    if scheme in ("", "file"):
        from fingerprint_dagster.memo.disk import DiskMemo

        return DiskMemo(file_path(uri) if scheme else Path(uri), max_bytes, ttl_seconds)
    if scheme in ("s3", "gs", "az"):
        from fingerprint_dagster.memo.object_store import ObjectMemo

        return ObjectMemo(uri, max_bytes, ttl_seconds)
    if scheme in ("redis", "rediss"):
        from fingerprint_dagster.memo.redis_server import RedisMemo

        return RedisMemo(uri, max_bytes, ttl_seconds)
    raise UsageError(
        f"memo {uri!r}: unknown kind {scheme!r}; use a folder, file:///folder, memory://, s3://bucket/prefix or "
        "redis://host:port/database"
    )
