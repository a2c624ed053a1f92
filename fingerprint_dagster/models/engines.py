"""What runs a loaded model: torch on a CPU, CUDA graphs of torch, ONNX Runtime, OpenVINO."""

from __future__ import annotations

import hashlib
import importlib
import os
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.models.runtime import CUDA_BATCH_SIZES, ModelSpec

# A batch [n, ...] -> float32 [n, dim] or [n, rows, dim]. May be called by several threads at once.
Model = Callable[[NDArray[Any]], NDArray[np.float32]]

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def load_torch(spec: ModelSpec, device: torch.device, precision: str) -> Model:
    """The model in torch: on a GPU as CUDA graphs, where the spec allows it."""
    module = spec.build().eval().requires_grad_(False).to(device)
    _convert(module, _DTYPES[precision])
    if device.type == "cuda" and spec.graph:
        return CudaGraphs(module, device)
    if device.type == "cpu":
        for part in module.modules():
            pack = getattr(part, "pack", None)
            if pack is not None:
                pack()

    def run(batch: NDArray[Any]) -> NDArray[np.float32]:
        with torch.inference_mode():
            vectors: Tensor = module(torch.from_numpy(batch).to(device))
            return vectors.float().cpu().numpy()

    return run


def _convert(module: nn.Module, dtype: torch.dtype) -> None:
    """Tensors to the precision and to channels_last, in which CPUs and tensor cores are fastest."""
    for part in module.modules():
        kept = getattr(part, "fp32", False)
        for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
            if tensor.is_floating_point():
                layout = torch.channels_last if tensor.ndim == 4 else torch.preserve_format
                tensor.data = tensor.data.to(torch.float32 if kept else dtype, memory_format=layout)


@dataclass(frozen=True)
class _Graph:
    graph: torch.cuda.CUDAGraph
    staging: Tensor  # pinned memory of the host, from which a copy does not wait for the CPU
    input: Tensor
    output: Tensor


class CudaGraphs:
    """A module as CUDA graphs, one for each batch size in use.

    A small network is bound by the launching of its kernels; a graph launches all of them at once. Its tensors have
    fixed places: a batch is copied in, the graph replayed, and the rows that were asked for copied out. What stands in
    the rows above is left over from the batch before.
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self._module = module
        self._device = device
        self._graphs: dict[int, _Graph] = {}
        self._pool: Any = None
        self._lock = threading.Lock()

    def __call__(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """See `Model`. Raises torch.OutOfMemoryError where the GPU's memory does not suffice."""
        size = graph_size(len(batch))
        with self._lock, torch.cuda.device(self._device), torch.inference_mode():
            if size not in self._graphs:
                self._graphs[size] = self._capture(size, torch.from_numpy(batch[:1]))
            graph = self._graphs[size]
            graph.staging[: len(batch)].copy_(torch.from_numpy(batch))
            graph.input.copy_(graph.staging, non_blocking=True)
            graph.graph.replay()
            return graph.output[: len(batch)].cpu().numpy()  # waits for all of it

    def _capture(self, size: int, example: Tensor) -> _Graph:
        shape = (size, *example.shape[1:])
        staging = torch.zeros(shape, dtype=example.dtype, pin_memory=True)
        images = torch.zeros(shape, dtype=example.dtype, device=self._device)
        # cuDNN and cuBLAS take their workspaces in the first passes, which must not be part of the graph.
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._module(images)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # The graphs run one after the other and read nothing of each other, so they share the memory between the
        # layers. Their outputs are held here, and not given to another graph.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            output = self._module(images).float()
        self._pool = graph.pool()
        return _Graph(graph, staging, images, output)


def graph_size(count: int) -> int:
    """The size of the graph that a batch of `count` goes through: the smallest of `CUDA_BATCH_SIZES` that holds it."""
    return next((size for size in CUDA_BATCH_SIZES if size >= count), count)


def load_onnxruntime(spec: ModelSpec, inputs: NDArray[Any]) -> Model:
    """The model in ONNX Runtime, in float32 on the CPU. inputs: what the model is for; its length does not matter."""
    onnxruntime = optional("onnxruntime", "onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        exported(spec, inputs, "onnxruntime"), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name

    def run(batch: NDArray[Any]) -> NDArray[np.float32]:
        return session.run(None, {name: batch})[0]  # type: ignore[no-any-return]

    return run


def load_openvino(spec: ModelSpec, inputs: NDArray[Any], precision: str, threads: int) -> Model:
    """The model in OpenVINO on the CPU, for `threads` callers at once, each on one core."""
    openvino = optional("openvino", "openvino")
    compiled = openvino.Core().compile_model(
        exported(spec, inputs, "openvino"),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,
            "ENABLE_CPU_PINNING": False,  # several processes would be pinned to the same cores
        },
    )
    local = threading.local()

    def run(batch: NDArray[Any]) -> NDArray[np.float32]:
        if not hasattr(local, "request"):
            local.request = compiled.create_infer_request()
        return np.array(local.request.infer([batch])[0], np.float32)

    return run


def exported(spec: ModelSpec, inputs: NDArray[Any], extra: str) -> str:
    """The path of the model as an ONNX file, made on first use and kept in the user's cache folder (XDG_CACHE_HOME).

    inputs: an array of the shape and dtype the model takes; the number of inputs in a batch stays open. Raises
    `UsageError` where the package that writes ONNX is missing, naming the extra it comes with.
    """
    from platformdirs import user_cache_path

    kind = f"{spec.name}\0{spec.digest}\0{inputs.shape[1:]}\0{inputs.dtype}\0{torch.__version__}"
    name = f"{spec.name}-{hashlib.sha256(kind.encode()).hexdigest()[:12]}.onnx"
    path = user_cache_path("fingerprint_dagster", appauthor=False) / "onnx" / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=path.parent, suffix=".part")
        os.close(handle)
        try:
            optional("onnxscript", extra)
            export_onnx(spec, inputs, Path(unfinished))
            Path(unfinished).replace(path)
        finally:
            Path(unfinished).unlink(missing_ok=True)
    return str(path)


def export_onnx(spec: ModelSpec, inputs: NDArray[Any], path: Path) -> None:
    """Write the model as one ONNX file, in float32, with an open batch size. Needs the package onnxscript."""
    # Two inputs: torch takes a batch of one for a constant.
    example = torch.zeros((2, *inputs.shape[1:]), dtype=torch.from_numpy(inputs[:0].copy()).dtype)
    program = torch.onnx.export(
        spec.build().eval().requires_grad_(False),
        (example,),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("n")},),
        verbose=False,
    )
    assert program is not None
    program.save(path, external_data=False)


def optional(module: str, extra: str) -> ModuleType:
    """The module of an optional package, or a `UsageError` that names the extra it comes with."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UsageError(
            f"the package {module} is not installed: pip install 'fingerprint-dagster[{extra}]', or use runtime torch"
        ) from None
