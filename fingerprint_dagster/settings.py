"""The one settings object: environment variables `FINGERPRINT_*`, or Python assignment, validated either way."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from fingerprint_dagster.errors import UsageError

GIB = 1 << 30


def available_cores() -> int:
    """The processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _default_home() -> Path:
    from platformdirs import user_data_path

    return user_data_path("fingerprint_dagster", appauthor=False)


class Settings(BaseSettings):
    """Every setting, with its environment variable `FINGERPRINT_<NAME>`."""

    model_config = SettingsConfigDict(
        env_prefix="FINGERPRINT_", env_ignore_empty=True, validate_assignment=True, extra="ignore"
    )

    home: Path = Field(default_factory=_default_home, description="The folder that holds all state.")
    store: str = Field(default="", description="Where fingerprints live; empty means the folder `index` in the home.")
    memo: str = Field(default="", description="Where stage results live; empty means the folder `memo` in the home.")
    memo_max_bytes: int = Field(default=20 * GIB, gt=0, description="The memo's size cap; the least used goes first.")
    memo_ttl_seconds: float = Field(
        default=30 * 86400.0, gt=0, description="Stage results older than this are dropped."
    )
    blobs_max_bytes: int = Field(default=20 * GIB, gt=0, description="Size cap of the downloaded files.")
    workers: int = Field(default=0, ge=0, description="Processes or threads in one step; 0 means one a core.")
    runs: int = Field(default=0, ge=0, description="Batches at once; 0 means half the cores, from 2 to 8.")
    timeout_seconds: float = Field(default=60.0, gt=0, description="Time limit of fetching or decoding one content.")
    decode_memory_bytes: int = Field(default=8 * GIB, ge=GIB, description="Memory that one decoding process may take.")
    max_content_bytes: int = Field(default=8 * GIB, gt=0, description="Larger contents are refused.")
    device: str = Field(default="auto", description="Where models run: auto, cpu, cuda, or cuda:<n>.")
    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field(
        default="auto", description="Arithmetic of the models; auto is FP16 on CUDA, bf16 on CPUs that have it."
    )
    batch_size: int | None = Field(default=None, gt=0, description="Inputs in one model call; empty means by device.")
    ipfs_gateway: str = Field(default="https://ipfs.io", description="The HTTP gateway that serves ipfs:// uris.")
    inbox: Path | None = Field(
        default=None, description="Folder the inbox sensor watches; empty means `inbox` in the home."
    )
    watch_list: Path | None = Field(
        default=None, description="List file (CSV, JSONL, Parquet) the list sensor watches."
    )

    @field_validator("home", "inbox", "watch_list", mode="after")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @field_validator("store", "memo", mode="after")
    @classmethod
    def _absolute_folder(cls, value: str) -> str:
        return value if not value or "://" in value else str(Path(value).expanduser().absolute())

    @property
    def store_uri(self) -> str:
        """The store's address."""
        return self.store or str(self.home / "index")

    @property
    def memo_uri(self) -> str:
        """The memo's address."""
        return self.memo or str(self.home / "memo")

    def environment(self) -> dict[str, str]:
        """The variables that give a process in another folder the same paths."""
        paths = {name: getattr(self, name) for name in ("home", "store", "memo", "inbox", "watch_list")}
        return {f"FINGERPRINT_{name.upper()}": str(value) for name, value in paths.items() if value}

    @property
    def worker_count(self) -> int:
        """Decoding processes, or embedding threads, in one step."""
        return self.workers or available_cores()

    @property
    def run_count(self) -> int:
        """Batches fingerprinted at once."""
        return self.runs or min(8, max(2, available_cores() // 2))  # Each takes about a gigabyte of memory.


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The process's settings, read once from the environment.

    Raises `UsageError` that names the variable and what is wrong with it.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"])
        raise UsageError(f"FINGERPRINT_{name.upper()}={first['input']!r}: {first['msg']}") from None
