"""The engine's parts as Dagster resources with typed, documented config."""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
from pydantic import Field

from fingerprint_dagster.catalog import Catalog
from fingerprint_dagster.index.store import Store, open_store
from fingerprint_dagster.memo import Memo, open_memo
from fingerprint_dagster.models import ModelRuntime
from fingerprint_dagster.pipeline import Limits, Pipeline
from fingerprint_dagster.settings import available_cores
from fingerprint_dagster.share import Share, turn
from fingerprint_dagster.sources import Fetcher, Guard


class CatalogResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """What was registered, its batches, and the quarantine."""

    home: str = Field(description="The home folder; the catalog is the file catalog.sqlite in it.")

    def open(self) -> Catalog:
        """The catalog, made on first use."""
        return Catalog(Path(self.home))


class FetcherResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Turns uris into bytes on local disk."""

    blobs: str = Field(description="Folder of downloaded files, named by their SHA-256. Local files are not copied.")
    blobs_max_bytes: int = Field(description="Size cap of that folder; the least recently used files go first.")
    timeout_seconds: float = Field(description="Time limit of fetching one content.")
    max_content_bytes: int = Field(description="Larger contents are refused.")
    ipfs_gateways: list[str] = Field(description="HTTP gateways for ipfs:// and ipns:// uris, tried in order.")
    allowed_schemes: list[str] = Field(description="The schemes of uris that may be fetched.")
    allowed_hosts: list[str] = Field(default=[], description="Hosts to fetch from; empty means all that are public.")
    denied_hosts: list[str] = Field(default=[], description="Hosts never to fetch from.")
    allowed_networks: list[str] = Field(default=[], description="Networks and hosts that may be private.")
    allowed_folders: list[str] = Field(default=[], description="Folders files must lie in; empty means anywhere.")
    downloads_per_host: int = Field(default=8, description="Downloads from one host at once.")
    shares: str = Field(default="", description="Folder through which runs share that; empty means they do not.")
    requests_per_second: float = Field(default=0.0, description="To one host; 0 means any number.")
    proxy: str = Field(default="", description="HTTP proxy of all downloads; empty means none.")

    def open(self) -> Fetcher:
        """A fetcher, for this process."""
        return Fetcher(
            Path(self.blobs),
            timeout_seconds=self.timeout_seconds,
            max_bytes=self.max_content_bytes,
            guard=Guard(
                frozenset(self.allowed_schemes),
                tuple(self.allowed_hosts),
                tuple(self.denied_hosts),
                tuple(self.allowed_networks),
                tuple(Path(folder) for folder in self.allowed_folders),
            ),
            ipfs_gateways=self.ipfs_gateways,
            downloads_per_host=Share(Path(self.shares) / "downloads", self.downloads_per_host)
            if self.shares
            else self.downloads_per_host,
            requests_per_second=self.requests_per_second,
            proxy=self.proxy,
        )


class MemoResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The content-addressed store of stage results."""

    uri: str = Field(description="A folder, file:///folder or memory://.")
    max_bytes: int = Field(description="Size cap; the least recently used results go first and are computed again.")
    ttl_seconds: float = Field(description="Results older than this are computed again.")

    def open(self) -> Memo:
        """The memo, for this process."""
        return open_memo(self.uri, max_bytes=self.max_bytes, ttl_seconds=self.ttl_seconds)


class GpuModelResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where models run. A model is loaded once per process and batched across contents."""

    device: str = Field(default="auto", description="auto (CUDA if there is one), cpu, cuda, or cuda:<n>.")
    precision: str = Field(
        default="auto", description="auto (FP16 on CUDA, bf16 on CPUs that have it), fp32, fp16, bf16."
    )
    batch_size: int | None = Field(
        default=None, description="Inputs in one model call; empty means by device. Halved when memory runs out."
    )

    threads: int | None = Field(default=None, description="Forward passes at once on a CPU; empty means one a core.")
    runtime: str = Field(default="torch", description="torch, or on the CPU onnxruntime or openvino.")

    def open(self) -> ModelRuntime:
        """The model runtime, for this process."""
        return ModelRuntime(self.device, self.precision, self.batch_size, self.threads, self.runtime)


class StoreResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where fingerprints live and copies are found."""

    uri: str = Field(description="A LanceDB folder.")

    def open(self) -> Store:
        """The store, made on first use."""
        return open_store(self.uri)


class PipelineResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The engine: memoised stages over a batch, with decoding in worker processes."""

    fetcher: FetcherResource
    memo: MemoResource
    models: GpuModelResource
    workers: int = Field(description="Decoding processes, or embedding threads, in one step.")
    timeout_seconds: float = Field(description="Time limit of decoding one content.")
    decode_memory_bytes: int = Field(description="Memory that one decoding process may take.")
    sandbox: bool = Field(default=True, description="Confine decoding processes: no network, hardly any writing.")
    decoder_folders: list[str] = Field(default=[], description="Folders decoding processes may write to all the same.")
    shares: str = Field(default="", description="Folder through which runs share the cores; empty means they do not.")

    @contextlib.contextmanager
    def open(self, *, retry: bool = False) -> Iterator[Pipeline]:
        """The pipeline of this process, for one step. retry: try again what failed for good before."""
        engine = self.engine()
        engine.retry = retry
        yield engine

    def gpu(self) -> contextlib.AbstractContextManager[None]:
        """Wait for the GPU that the models run on, if they do, until no other run of this machine embeds there."""
        device = self.models.device
        if not self.shares or not gpu_count(device):
            return contextlib.nullcontext()
        _, _, number = device.partition(":")
        return turn(Path(self.shares) / f"gpu-{number or 0}")

    def engine(self) -> Pipeline:
        """The pipeline of this process: its worker processes, its models and its memo serve one step after another."""
        global _engine
        config = (os.getpid(), repr(self))
        if _engine is None or _engine[0] != config:
            close_engine()
            _engine = (config, self._new_engine())
        return _engine[1]

    def _new_engine(self) -> Pipeline:
        return Pipeline(
            self.fetcher.open(),
            self.memo.open(),
            self.models.open(),
            workers=self.workers,
            limits=Limits(
                self.timeout_seconds,
                self.decode_memory_bytes,
                self.sandbox,
                tuple(Path(folder) for folder in self.decoder_folders),
            ),
            cores=Share(Path(self.shares) / "cores", available_cores()) if self.shares else None,
        )


def gpu_count(device: str) -> int:
    """NVIDIA GPUs that may be used, counted without loading torch."""
    if device.startswith("cpu"):
        return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return present if visible is None else min(present, len([each for each in visible.split(",") if each.strip()]))


_engine: tuple[tuple[int, str], Pipeline] | None = None
"""The process it was made in and its configuration, and the pipeline itself. Another configuration replaces it."""


@atexit.register
def close_engine() -> None:
    """End the worker processes of this process's pipeline, if it has one."""
    global _engine
    if _engine is not None and _engine[0][0] == os.getpid():
        _engine[1].close()
    _engine = None
