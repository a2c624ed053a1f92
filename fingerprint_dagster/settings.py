"""The one settings object: environment variables, the file `.env`, or Python assignment, validated whichever way.

Each setting is read from `FINGERPRINT_<NAME>`, or from another name of it in `OTHER_NAMES`. Where several say
something, the first of these holds: `FINGERPRINT_<NAME>` in the environment, then in `.env` of the current folder, the
other names in the environment, then in `.env`. In Python, this module stands for the settings of the process:

    from fingerprint_dagster import settings

    settings.max_workers = 8
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.sources.fetcher import PUBLIC_GATEWAYS
from fingerprint_dagster.sources.guard import Guard, check_patterns
from fingerprint_dagster.sources.uri import SCHEMES

GIB = 1 << 30
SERVICE_TIMEOUT_SECONDS = 30.0
PREFIX = "FINGERPRINT_"
ENV_FILE = ".env"
OTHER_NAMES = {
    "FINGERPRINT_MAX_WORKERS": "workers",
    "FINGERPRINT_CACHE_TTL": "cache_ttl_seconds",
    "MAX_WORKERS": "workers",
    "BATCH_SIZE": "batch_size",
    "TIMEOUT_SECONDS": "timeout_seconds",
    "CACHE_TTL": "cache_ttl_seconds",
    "CUDA_VISIBLE_DEVICES": "cuda_visible_devices",
}
"""Variables that also set a setting, and its name."""

Listed = Annotated[tuple[str, ...], NoDecode]
"""Several texts; in an environment variable separated by commas."""


def available_cores() -> int:
    """The processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _default_home() -> Path:
    from platformdirs import user_data_path

    return user_data_path("fingerprint_dagster", appauthor=False)


def _variables() -> dict[str, str]:
    """The variables of `.env`, and over them those of the environment, without the empty ones."""
    from dotenv import dotenv_values

    found = {**dotenv_values(ENV_FILE, encoding="utf-8"), **os.environ}
    return {name: value for name, value in found.items() if value}


class _OtherNames(PydanticBaseSettingsSource):
    """The settings that are given under one of `OTHER_NAMES`."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Of one setting: what was given, its name, and that it is text as it stands."""
        names = [other for other, name in OTHER_NAMES.items() if name == field_name]
        return next((self._found[other] for other in names if other in self._found), None), field_name, False

    def __call__(self) -> dict[str, Any]:
        """The settings that are given so."""
        self._found = _variables()
        values = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in values.items() if value is not None}


class Settings(BaseSettings):
    """Every setting, with its environment variable `FINGERPRINT_<NAME>`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=ENV_FILE,
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        validate_assignment=True,
        extra="ignore",
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
    timeout_seconds: float = Field(
        default=60.0,
        gt=0,
        description="Time limit of fetching, and of decoding, one content; not set, 30 for an answer of the service.",
    )
    decode_memory_bytes: int = Field(default=8 * GIB, ge=GIB, description="Memory that one decoding process may take.")
    sandbox: bool = Field(
        default=True, description="Confine decoding processes: no network, no programs, hardly any writing."
    )
    decoder_folders: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(), description="Folders that decoding processes may write to, for plugins that need one."
    )
    max_content_bytes: int = Field(default=8 * GIB, gt=0, description="Larger contents are refused.")
    device: str = Field(default="auto", description="Where models run: auto, cpu, cuda, or cuda:<n>.")
    cuda_visible_devices: str | None = Field(
        default=None, description="The GPUs that CUDA shows to this process, by number; empty means all."
    )
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
    cache_ttl_seconds: float = Field(
        default=3600.0, gt=0, description="Answers that the service holds in memory live this long."
    )
    cache_max_bytes: int = Field(
        default=256 << 20, gt=0, description="Size cap of the answers that the service holds in memory."
    )
    cache_fresh_seconds: float = Field(
        default=0.0,
        ge=0,
        description="For so long the service gives an answer without asking the web server whether it has changed.",
    )
    max_in_flight: int = Field(default=64, gt=0, description="Contents that the service works on at once.")
    batch_wait_ms: float = Field(
        default=5.0,
        ge=0,
        description="How long a model call of the service waits for more inputs, while some are coming.",
    )
    journal_sync_seconds: float = Field(
        default=1.0,
        ge=0,
        description="How often the service's journal is synced to the disk; 0 means before every answer.",
    )
    api_keys: Listed = Field(default=(), description="Keys of the HTTP API; without one it answers this machine alone.")
    max_upload_bytes: int = Field(default=256 << 20, gt=0, description="Larger requests of the HTTP API are refused.")
    max_uploads_in_memory: int = Field(default=8, gt=0, description="Uploads that the HTTP API reads at once.")
    max_batch_items: int = Field(default=10_000, gt=0, description="Items of one batch of the HTTP API.")
    max_waiting: int = Field(default=4096, gt=0, description="Requests of the HTTP API at once; more are told to wait.")
    drain_seconds: float = Field(
        default=60.0, gt=0, description="How long the HTTP API, told to stop, may take to finish what it was asked."
    )
    inbox: Path | None = Field(
        default=None, description="Folder the inbox sensor watches; empty means `inbox` in the home."
    )
    watch_list: str = Field(
        default="",
        description="List (CSV, TSV, JSONL, Parquet) the list sensor watches: a file, or an http, ipfs or s3 address.",
    )
    watch_objects: str = Field(
        default="", description="Prefix of an object store the objects sensor watches: s3://bucket/prefix/ (gs, az)."
    )
    quarantine_alert: float = Field(
        default=0.05, ge=0, le=1, description="A check warns of a batch with a larger part of it in quarantine."
    )
    quarantine_keep_days: float = Field(
        default=90.0, gt=0, description="Records of the quarantine that no retry can help live this long."
    )
    watched: Listed = Field(
        default=(),
        description="Contents that nothing else may copy, by folder, file, uri prefix, or column=value of a list.",
    )
    watch_webhook: str = Field(default="", description="Address that matches with protected contents are posted to.")
    watch_file: Path | None = Field(
        default=None, description="File of JSON lines that matches with protected contents are written to."
    )

    @field_validator("home", "inbox", "watch_file", "image_weights", "text_boilerplate", mode="after")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @field_validator("store", "memo", "watch_list", mode="after")
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
        "watched",
        "api_keys",
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
    def service_timeout_seconds(self) -> float:
        """The time limit of an answer of the service: `timeout_seconds` where that was set, else 30."""
        return self.timeout_seconds if "timeout_seconds" in self.model_fields_set else SERVICE_TIMEOUT_SECONDS

    @field_validator("watched", mode="after")
    @classmethod
    def _absolute_places(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(text if "=" in text or "://" in text else str(Path(text).absolute()) for text in value)

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

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Where settings come from, the first that says something first."""
        return init_settings, env_settings, dotenv_settings, _OtherNames(settings_cls)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__("workers" if name == "max_workers" else name, value)

    @property
    def max_workers(self) -> int:
        """Another name of `workers`; reads as `worker_count`."""
        return self.worker_count

    def environment(self) -> dict[str, str]:
        """The variables that give a process in another folder the same settings.

        The paths, made absolute, and all that was set in Python or in `.env`.
        """
        given = {name: value for name, value in _as_text(self).items() if name in self.model_fields_set}
        elsewhere = {name: value for name, value in given.items() if not os.environ.get(f"{PREFIX}{name.upper()}")}
        names = ("home", "store", "memo", "inbox", "watch_list", "watch_file", "image_weights", "text_boilerplate")
        paths = {name: str(getattr(self, name) or "") for name in names}
        for name in ("allowed_folders", "decoder_folders", "watched"):
            paths[name] = ",".join(map(str, getattr(self, name)))
        return {f"{PREFIX}{name.upper()}": value for name, value in {**elsewhere, **paths}.items() if value}

    @property
    def worker_count(self) -> int:
        """Decoding processes, or embedding threads, in one step."""
        return self.workers or available_cores()

    @property
    def run_count(self) -> int:
        """Batches fingerprinted at once."""
        return self.runs or min(8, max(2, available_cores() // 2))  # Each takes about a gigabyte of memory.


def _as_text(settings: Settings) -> dict[str, str]:
    """Every setting as its variable would say it; None as the empty text."""
    texts = {}
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if isinstance(value, tuple):
            texts[name] = ",".join(map(str, value))
        else:
            texts[name] = "" if value is None else str(value)
    return texts


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The process's settings, read once from the environment.

    Raises `UsageError` that names the variable and what is wrong with it.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        variable = _variable("_".join(str(part) for part in first["loc"]), _variables())
        raise UsageError(f"{variable}={first['input']!r}: {first['msg']}") from None


def _variable(name: str, found: Mapping[str, str]) -> str:
    """The variable that a setting was read from."""
    proper = f"{PREFIX}{name.upper()}"
    names = [proper, *(other for other, setting in OTHER_NAMES.items() if setting == name)]
    return next((each for each in names if each in found), proper)


class _Module(ModuleType):
    """This module, whose attributes with the names of settings are the settings of the process."""

    def __getattr__(self, name: str) -> Any:
        if name in Settings.model_fields or name == "max_workers":
            return getattr(get_settings(), name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}, and there is no such setting")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in Settings.model_fields or name == "max_workers":
            setattr(get_settings(), name, value)
        else:
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Module
