"""The one settings object: environment variables `FINGERPRINT_*`, or Python assignment, validated either way."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.sources.fetcher import PUBLIC_GATEWAYS
from fingerprint_dagster.sources.guard import Guard, check_patterns
from fingerprint_dagster.sources.uri import SCHEMES

GIB = 1 << 30

Listed = Annotated[tuple[str, ...], NoDecode]
"""Several texts; in an environment variable separated by commas."""


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
    sandbox: bool = Field(
        default=True, description="Confine decoding processes: no network, no programs, hardly any writing."
    )
    decoder_folders: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(), description="Folders that decoding processes may write to, for plugins that need one."
    )
    max_content_bytes: int = Field(default=8 * GIB, gt=0, description="Larger contents are refused.")
    device: str = Field(default="auto", description="Where models run: auto, cpu, cuda, or cuda:<n>.")
    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field(
        default="auto", description="Arithmetic of the models; auto is FP16 on CUDA, bf16 on CPUs that have it."
    )
    batch_size: int | None = Field(default=None, gt=0, description="Inputs in one model call; empty means by device.")
    runtime: Literal["torch", "onnxruntime", "openvino"] = Field(
        default="torch", description="What runs the models; the others run on the CPU, each with the extra of its name."
    )
    image_model: str = Field(
        default="efficientnet_lite0",
        description="The network that describes pictures: efficientnet_lite0, sscd, sscd_288, or a torchvision model.",
    )
    image_weights: Path | None = Field(
        default=None, description="Weights file of that network; efficientnet_lite0 brings its own."
    )
    text_boilerplate: Path | None = Field(
        default=None, description="Folder of texts (notices, footers) whose passages do not count as copied."
    )
    ipfs_gateway: Listed = Field(
        default=PUBLIC_GATEWAYS,
        description="HTTP gateways or local nodes for ipfs:// and ipns:// uris, tried in order.",
    )
    allowed_schemes: Listed = Field(default=SCHEMES, description="The schemes of uris that may be fetched.")
    allowed_hosts: Listed = Field(
        default=(), description="Hosts, *.domains, networks and buckets to fetch from; empty means all that are public."
    )
    denied_hosts: Listed = Field(default=(), description="Hosts, *.domains, networks and buckets never to fetch from.")
    allowed_networks: Listed = Field(
        default=(), description="Networks, addresses and hosts to fetch from although they are not public; * means all."
    )
    allowed_folders: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(), description="Folders that file:// uris and paths must lie in; empty means anywhere."
    )
    downloads_per_host: int = Field(default=8, gt=0, description="Downloads from one host at once, in one step.")
    requests_per_second: float = Field(
        default=0.0, ge=0, description="Requests to one host in a second, in one step; 0 means any number."
    )
    proxy: str = Field(
        default="", description="HTTP proxy of all downloads, http://host:port; those of the environment are not used."
    )
    inbox: Path | None = Field(
        default=None, description="Folder the inbox sensor watches; empty means `inbox` in the home."
    )
    watch_list: Path | None = Field(
        default=None, description="List file (CSV, JSONL, Parquet) the list sensor watches."
    )

    @field_validator("home", "inbox", "watch_list", "image_weights", "text_boilerplate", mode="after")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @field_validator("store", "memo", mode="after")
    @classmethod
    def _absolute_folder(cls, value: str) -> str:
        return value if not value or "://" in value else str(Path(value).expanduser().absolute())

    @field_validator(
        "ipfs_gateway",
        "allowed_schemes",
        "allowed_hosts",
        "denied_hosts",
        "allowed_networks",
        "allowed_folders",
        "decoder_folders",
        mode="before",
    )
    @classmethod
    def _listed(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("allowed_schemes", mode="after")
    @classmethod
    def _known_schemes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [scheme for scheme in value if scheme not in SCHEMES]
        if unknown:
            raise ValueError(f"unknown scheme {unknown[0]}; known are {', '.join(SCHEMES)}")
        return value

    @field_validator("allowed_hosts", "denied_hosts", "allowed_networks", mode="after")
    @classmethod
    def _host_patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            check_patterns(value)
        except UsageError as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("ipfs_gateway", mode="after")
    @classmethod
    def _web_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for address in value:
            if not address.startswith(("http://", "https://")):
                raise ValueError(f"{address} is no address of a gateway; write https://host")
        return value

    @field_validator("proxy", mode="after")
    @classmethod
    def _proxy_address(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("no address of a proxy; write http://host:port")
        return value

    @field_validator("allowed_folders", "decoder_folders", mode="after")
    @classmethod
    def _absolute_folders(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        return tuple(folder.expanduser().absolute() for folder in value)

    @property
    def guard(self) -> Guard:
        """What may be fetched, and from where."""
        return Guard(
            frozenset(self.allowed_schemes),
            self.allowed_hosts,
            self.denied_hosts,
            self.allowed_networks,
            self.allowed_folders,
        )

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
        names = ("home", "store", "memo", "inbox", "watch_list", "image_weights", "text_boilerplate")
        paths = {name: str(getattr(self, name) or "") for name in names}
        for name in ("allowed_folders", "decoder_folders"):
            paths[name] = ",".join(map(str, getattr(self, name)))
        return {f"FINGERPRINT_{name.upper()}": value for name, value in paths.items() if value}

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
