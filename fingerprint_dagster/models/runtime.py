"""Where models run: device, precision, batching. torch is imported on first use."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fingerprint_dagster.errors import FingerprintError, UsageError
from fingerprint_dagster.settings import Settings, available_cores

if TYPE_CHECKING:
    import torch

    from fingerprint_dagster.models.engines import Model

PRECISIONS = ("auto", "fp32", "fp16", "bf16")
RUNTIMES = ("torch", "onnxruntime", "openvino")
# Larger CPU batches are slower: every layer's output falls out of the caches, and one above 32 MB is a fresh mapping,
# page by page, each time (glibc). Measured, EfficientNet-Lite0, ms a picture: bf16 5.9 at 8, 7.1 at 16; fp32 10.7 at
# 4, 13.1 at 8.
CPU_BATCH_SIZES = {"bf16": 8, "fp32": 4}
# One CUDA graph is captured for each of these; a batch goes through the smallest that holds it.
CUDA_BATCH_SIZES = (1, 8, 32, 128)


@dataclass(frozen=True)
class ModelSpec:
    """A model that makes vectors.

    name: the versioned name of its vectors (`efficientnet_lite0_gem_v2`), used as the component's algorithm. One name
        stands for one set of weights: vectors of equal names are compared.
    build: loads weights and returns a module whose forward takes a batch [n, ...] and returns float [n, dim], or
        [n, rows, dim] where one input has several vectors. Called once per process. Submodules with a true attribute
        `fp32` keep their own tensors in float32; the method `pack`, where a submodule has it, prepares it for a CPU.
    fp32: True where all of the module's mathematics needs float32 (spectra, say): it then runs so at every precision.
    graph: True where its forward is one fixed sequence of tensor operations, whatever the values: it can then be
        captured as a CUDA graph, and exported to ONNX. Others are run by torch, operation by operation.
    digest: SHA-256 of its weights, where it has any.
    """

    name: str
    build: Callable[[], torch.nn.Module]
    fp32: bool = False
    graph: bool = False
    digest: str = ""


class ModelRuntime:
    """Loads each model once per process and runs it in micro-batches.

    device: "auto" (a CUDA GPU if there is one, else the CPU), "cpu", "cuda" or "cuda:1".
    precision: "fp32", "fp16" (CUDA only), "bf16", or "auto": fp16 on CUDA, bf16 on a CPU with bfloat16 instructions,
        fp32 on others. Parameters and buffers are converted to it; the inputs are handed over as they are, and the
        module converts them where it wants to.
    batch_size: inputs per forward pass; by default 128 on CUDA, on a CPU 8 in bf16 and 4 in fp32. Made smaller for
        good when memory runs out.
    threads: forward passes at once on a CPU, each on one core; by default one for each core. (Several passes of one
        thread beat one pass of several: 4.1 against 5.1 ms a picture on two cores.)
    runtime: "torch", or what runs the models instead, on the CPU: "onnxruntime" (in fp32) or "openvino". Models that
        cannot be exported stay with torch.

    Making one is cheap: a wrong name raises `UsageError` at once, a missing device or package when it is first needed.
    """

    def __init__(
        self,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int | None = None,
        threads: int | None = None,
        runtime: str = "torch",
    ) -> None:
        kind, _, number = device.partition(":")
        if kind not in ("auto", "cpu", "cuda") or (":" in device and not (kind == "cuda" and number.isdecimal())):
            raise UsageError(f"unknown device {device!r}: use auto, cpu, cuda, or cuda:0, cuda:1, ...")
        if precision not in PRECISIONS:
            raise UsageError(f"unknown precision {precision!r}: use one of {', '.join(PRECISIONS)}")
        if runtime not in RUNTIMES:
            raise UsageError(f"unknown runtime {runtime!r}: use one of {', '.join(RUNTIMES)}")
        if runtime != "torch" and kind == "cuda":
            raise UsageError(f"runtime {runtime} runs on the CPU: use device auto or cpu, or runtime torch")
        if runtime == "onnxruntime" and precision not in ("auto", "fp32"):
            raise UsageError(f"runtime onnxruntime computes in fp32: use precision auto or fp32, not {precision}")
        for name, value in (("batch_size", batch_size), ("threads", threads)):
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}")
        self.runtime = runtime
        self._wanted = device
        self._wanted_precision = precision
        self._batch_size = batch_size
        self._threads = threads

    @classmethod
    def of(cls, settings: Settings) -> ModelRuntime:
        """The runtime that the settings name."""
        if settings.cuda_visible_devices is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = settings.cuda_visible_devices  # CUDA reads it when it is first used.
        return cls(settings.device, settings.precision, settings.batch_size, settings.worker_count, settings.runtime)

    def embed(self, spec: ModelSpec, inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Vectors of `inputs`: [n, ...] of any dtype torch knows -> float32 [n, dim] or [n, rows, dim], of length 1.

        An all-zero vector stays as it is. Raises `FingerprintError` where one input alone is too much for the memory,
        and where the model's output is not finite; `UsageError` where the runtime's package is not installed.
        """
        model = self._model(spec, inputs)
        batches: list[NDArray[np.float32]] = []
        start = 0
        while start < len(inputs):
            size = self.batch_size
            # Copies: torch warns of arrays it cannot write to, and those of a memo are such.
            wave = [np.array(inputs[at : at + size]) for at in range(start, len(inputs), size)[: self.threads]]
            done = [each for each in self._passes.map(lambda batch: _forward(model, batch), wave) if each is not None]
            if len(done) < len(wave):
                self._shrink(spec, len(wave[0]))
                continue
            batches += done
            start += sum(map(len, wave))
        if not batches:  # the width of the vectors is known only from a forward pass
            probe = _forward(model, np.zeros((1, *inputs.shape[1:]), inputs.dtype))
            return np.zeros((0, 0) if probe is None else (0, *probe.shape[1:]), np.float32)
        vectors = np.concatenate(batches)
        if not np.isfinite(vectors).all():
            raise FingerprintError(
                f"{spec.name} gave vectors that are not finite on {self.device} at {self._precision_of(spec)}: "
                "try the precision fp32"
            )
        return vectors

    @cached_property
    def threads(self) -> int:
        """Forward passes at once: 1 on a GPU, which is busy with one."""
        return 1 if self.device.type == "cuda" else self._threads or available_cores()

    @cached_property
    def _passes(self) -> ThreadPoolExecutor:
        if self.device.type == "cuda" or self.threads == 1:
            return ThreadPoolExecutor(1)
        return ThreadPoolExecutor(self.threads, initializer=_compute_alone)

    @property
    def batch_size(self) -> int:
        """Inputs per forward pass, as it is now."""
        if self._batch_size is None:
            cuda = self.device.type == "cuda"
            self._batch_size = CUDA_BATCH_SIZES[-1] if cuda else CPU_BATCH_SIZES[self.precision]
        return self._batch_size

    def describe(self) -> dict[str, Any]:
        """Runtime, device, precision and batch size in use, for asset metadata."""
        return {
            "runtime": self.runtime,
            "device": str(self.device),
            "precision": self.precision,
            "batch_size": self.batch_size,
        }

    @cached_property
    def device(self) -> torch.device:
        """The torch device. Raises `UsageError` where it is not there."""
        import torch

        wanted = "cpu" if self.runtime != "torch" else self._wanted
        if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
            return torch.device("cpu")
        if not torch.cuda.is_available():
            raise UsageError(f"device {wanted}: torch sees no CUDA GPU here; use auto or cpu")
        device = torch.device("cuda" if wanted == "auto" else wanted)
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise UsageError(f"device {wanted}: there are only {torch.cuda.device_count()} CUDA GPUs here")
        return device

    @cached_property
    def precision(self) -> str:
        """The precision in use: "fp32", "fp16" or "bf16"."""
        cuda = self.device.type == "cuda"
        if self._wanted_precision == "auto":
            return "fp16" if cuda else ("bf16" if cpu_has_bf16() and self.runtime != "onnxruntime" else "fp32")
        if self._wanted_precision == "fp16" and not cuda:
            raise UsageError("precision fp16 needs a CUDA GPU: use auto, fp32 or bf16 on a CPU")
        return self._wanted_precision

    def _precision_of(self, spec: ModelSpec) -> str:
        return "fp32" if spec.fp32 else self.precision

    def _model(self, spec: ModelSpec, inputs: NDArray[Any]) -> Model:
        from fingerprint_dagster.models import engines

        precision = self._precision_of(spec)
        runtime = self.runtime if spec.graph else "torch"
        key = (spec.name, runtime, str(self.device), precision, self.threads if runtime == "openvino" else 0)
        with _LOCK:  # held while building: two threads that want one model must not load it twice
            if key not in _MODELS:
                if runtime == "torch":
                    _MODELS[key] = engines.load_torch(spec, self.device, precision)
                elif runtime == "onnxruntime":
                    _MODELS[key] = engines.load_onnxruntime(spec, inputs)
                else:
                    _MODELS[key] = engines.load_openvino(spec, inputs, precision, self.threads)
            return _MODELS[key]

    def _shrink(self, spec: ModelSpec, failed: int) -> None:
        import torch

        if failed == 1:
            raise FingerprintError(f"{spec.name}: a batch of one does not fit into the memory of {self.device}")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            self._batch_size = max(size for size in CUDA_BATCH_SIZES if size < failed)
        else:
            self._batch_size = failed // 2


_MODELS: dict[tuple[str, str, str, str, int], Model] = {}
_LOCK = threading.Lock()


def _forward(model: Model, batch: NDArray[Any]) -> NDArray[np.float32] | None:
    """Vectors of one micro-batch, of length 1, or None where the memory does not suffice."""
    try:
        vectors = model(batch)
    except RuntimeError as error:
        if not _out_of_memory(error):
            raise
        return None
    with np.errstate(invalid="ignore"):  # infinity is met where the batches are put together
        return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)  # type: ignore[no-any-return]


def _compute_alone() -> None:
    """Let the passes of this thread use one core: the others have their own threads."""
    import torch

    torch.set_num_threads(1)


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory. The CPU allocator has no exception of its own."""
    import torch

    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text or "not enough memory" in text


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 natively (AVX512_BF16 or AMX)."""
    import torch

    # torch's own answers have no public name, and its releases differ in which of them they have.
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        supported = getattr(torch.cpu, name, None)
        if supported is not None and supported():
            return True
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
