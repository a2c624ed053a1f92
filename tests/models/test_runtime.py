"""The model runtime: where it runs, in what precision, how it batches, and what it does when the memory runs out."""

from __future__ import annotations

import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerprint_dagster.errors import FingerprintError, UsageError
from fingerprint_dagster.models import ModelRuntime, ModelSpec
from fingerprint_dagster.models.efficientnet_lite import EFFICIENTNET_LITE0_GEM_V2
from fingerprint_dagster.models.runtime import cpu_has_bf16

no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU")


class Recorder(torch.nn.Module):
    """Gives its input back, doubled; remembers the batch sizes and dtypes, and takes at most `room` inputs at once."""

    def __init__(self, room: int = 1000, error: Callable[[], Exception] = torch.OutOfMemoryError) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(2.0))
        self.room = room
        self.error = error
        self.sizes: list[int] = []
        self.input_dtype: torch.dtype | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.room:
            raise self.error()
        self.sizes.append(len(x))
        self.input_dtype = x.dtype
        return x.flatten(1).to(self.factor.dtype) * self.factor


def spec(module: torch.nn.Module, *, fp32: bool = False) -> ModelSpec:
    return ModelSpec(f"test_{uuid.uuid4().hex}", lambda: module, fp32)


def rows(count: int, width: int = 5) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, width)).astype(np.float32)


def normalised(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 40), batch_size=st.integers(1, 12), room=st.integers(1, 12))
def test_vectors_do_not_depend_on_the_batches(count: int, batch_size: int, room: int) -> None:
    runtime = ModelRuntime("cpu", "fp32", batch_size=batch_size)
    vectors = runtime.embed(spec(Recorder(room)), rows(count))
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, normalised(rows(count)), atol=1e-6)


def test_inputs_go_through_in_micro_batches() -> None:
    module = Recorder()
    ModelRuntime("cpu", "fp32", batch_size=4).embed(spec(module), rows(10))
    assert module.sizes == [4, 4, 2]


def test_batches_on_a_cpu_are_small_by_default() -> None:
    assert ModelRuntime("cpu", "bf16").describe()["batch_size"] == 8
    assert ModelRuntime("cpu", "fp32").describe()["batch_size"] == 4


def test_a_model_may_give_several_vectors_for_one_input() -> None:
    class Rows(Recorder):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x, 3 * x, 0 * x], dim=1)

    vectors = ModelRuntime("cpu", "fp32").embed(spec(Rows()), rows(10))
    assert vectors.shape == (10, 3, 5)
    np.testing.assert_allclose(vectors[:, 0], normalised(rows(10)), atol=1e-6)
    np.testing.assert_allclose(vectors[:, 1], normalised(rows(10)), atol=1e-6)
    assert not vectors[:, 2].any()
    assert ModelRuntime("cpu", "fp32").embed(spec(Rows()), rows(0)).shape == (0, 3, 5)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError,
        lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
    ],
    ids=["torch", "CPU allocator"],
)
def test_out_of_memory_halves_the_batch_and_goes_on(error: Callable[[], Exception]) -> None:
    runtime = ModelRuntime("cpu", "fp32", batch_size=16)
    module = Recorder(room=6, error=error)
    vectors = runtime.embed(spec(module), rows(10))
    np.testing.assert_allclose(vectors, normalised(rows(10)), atol=1e-6)
    assert module.sizes == [5, 5]  # 10 fail, 5 pass
    assert runtime.describe()["batch_size"] == 5, "the smaller batch is remembered"
    runtime.embed(spec(other := Recorder(room=5)), rows(10))
    assert other.sizes == [5, 5]


def test_real_out_of_memory_of_the_cpu_allocator_is_recognised() -> None:
    class Greedy(Recorder):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > 1:
                torch.empty(2**60, dtype=torch.uint8)
            return super().forward(x)

    module = Greedy()
    vectors = ModelRuntime("cpu", "fp32", batch_size=4).embed(spec(module), rows(3))
    assert vectors.shape == (3, 5)
    assert module.sizes == [1, 1, 1]


def test_one_input_too_many_for_the_memory_fails_with_a_reason() -> None:
    with pytest.raises(FingerprintError, match="does not fit into the memory of cpu"):
        ModelRuntime("cpu", "fp32").embed(spec(Recorder(room=0)), rows(3))


def test_other_errors_of_a_model_are_not_swallowed() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"):
        ModelRuntime("cpu", "fp32").embed(spec(Recorder(0, lambda: RuntimeError("shapes differ"))), rows(3))


def test_no_inputs_give_no_vectors() -> None:
    assert ModelRuntime("cpu", "fp32").embed(spec(Recorder()), rows(0)).shape == (0, 5)


def test_all_zero_vector_stays_and_infinity_is_an_error() -> None:
    runtime = ModelRuntime("cpu", "fp32")
    assert not runtime.embed(spec(Recorder()), np.zeros((1, 5), np.float32)).any()
    with pytest.raises(FingerprintError, match="not finite"):
        runtime.embed(spec(Recorder()), np.full((1, 5), np.inf, np.float32))


def test_a_model_is_built_once_per_process() -> None:
    builds = []
    together = threading.Barrier(4)

    def build() -> torch.nn.Module:
        builds.append(1)
        return Recorder()

    shared = ModelSpec(f"test_{uuid.uuid4().hex}", build)

    def use(_: int) -> tuple[int, ...]:
        together.wait(10)
        return ModelRuntime("cpu", "fp32").embed(shared, rows(2)).shape

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(use, range(4))) == [(2, 5)] * 4
    assert len(builds) == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_inputs_reach_the_module_as_they_are(dtype: type) -> None:
    module = Recorder()
    inputs = np.arange(1, 11).reshape(2, 5).astype(dtype)
    inputs.setflags(write=False)  # as they come out of a memo
    ModelRuntime("cpu", "bf16").embed(spec(module), inputs)
    assert module.input_dtype == torch.from_numpy(np.zeros(1, dtype)).dtype


def test_parameters_have_the_precision_unless_the_model_needs_fp32() -> None:
    short, exact = Recorder(), Recorder()
    runtime = ModelRuntime("cpu", "bf16")
    runtime.embed(spec(short), rows(1))
    runtime.embed(spec(exact, fp32=True), rows(1))
    assert short.factor.dtype == torch.bfloat16
    assert exact.factor.dtype == torch.float32


def test_auto_precision_on_a_cpu_follows_its_instructions() -> None:
    flags = Path("/proc/cpuinfo")
    if not flags.exists():
        pytest.skip("no /proc/cpuinfo to compare with")
    native = {"avx512_bf16", "amx_bf16", "amx_tile"} & set(flags.read_text().split())
    assert cpu_has_bf16() == bool(native)
    assert ModelRuntime("cpu").describe()["precision"] == ("bf16" if native else "fp32")


@no_cuda
def test_auto_device_without_a_gpu_is_the_cpu() -> None:
    assert ModelRuntime().describe()["device"] == "cpu"


@no_cuda
def test_cuda_without_a_gpu_says_so() -> None:
    with pytest.raises(UsageError, match="no CUDA GPU"):
        ModelRuntime("cuda").describe()


def test_fp16_on_a_cpu_says_so() -> None:
    with pytest.raises(UsageError, match="fp16 needs a CUDA GPU"):
        ModelRuntime("cpu", "fp16").describe()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"device": "tpu"}, "device"),
        ({"device": "cpu:0"}, "device"),
        ({"device": "cuda:x"}, "device"),
        ({"device": ""}, "device"),
        ({"precision": "int8"}, "precision"),
        ({"batch_size": 0}, "batch_size"),
        ({"threads": 0}, "threads"),
        ({"runtime": "tensorrt"}, "runtime"),
        ({"runtime": "openvino", "device": "cuda"}, "runs on the CPU"),
        ({"runtime": "onnxruntime", "precision": "bf16"}, "computes in fp32"),
    ],
)
def test_wrong_options_are_refused_at_once(options: dict[str, object], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        ModelRuntime(**options)  # type: ignore[arg-type]


def test_importing_and_making_a_runtime_does_not_import_torch() -> None:
    code = (
        "import sys; from fingerprint_dagster.models import ModelRuntime; ModelRuntime(threads=1); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_number_of_threads_does_not_change_the_vectors() -> None:
    inputs = np.random.default_rng(3).integers(0, 256, (21, 3, 224, 224), dtype=np.uint8)
    one, three = (
        ModelRuntime("cpu", threads=threads, batch_size=4).embed(EFFICIENTNET_LITE0_GEM_V2, inputs)
        for threads in (1, 3)
    )
    assert np.array_equal(one, three)


def test_torch_in_the_rest_of_the_process_keeps_its_threads() -> None:
    before = torch.get_num_threads()
    ModelRuntime("cpu", threads=2).embed(EFFICIENTNET_LITE0_GEM_V2, np.zeros((3, 3, 224, 224), np.uint8))
    assert torch.get_num_threads() == before


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_auto_on_cuda_is_fp16_in_batches_of_128() -> None:
    runtime = ModelRuntime()
    expected = {"runtime": "torch", "device": "cuda", "precision": "fp16", "batch_size": 128}
    assert runtime.describe() == expected
    vectors = runtime.embed(spec(Recorder()), rows(300))
    np.testing.assert_allclose(vectors, normalised(rows(300)), atol=2e-3)
