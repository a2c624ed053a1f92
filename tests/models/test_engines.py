"""What runs the models: ONNX Runtime and OpenVINO agree with torch; CUDA graphs with plain torch."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.models import ModelRuntime, ModelSpec, engines
from fingerprint_dagster.models.efficientnet_lite import EFFICIENTNET_LITE0_GEM_W512_V1, model_input
from fingerprint_dagster.models.runtime import cpu_has_bf16

PICTURES = np.stack([model_input(p) for p in (data.chelsea(), data.coffee(), data.rocket(), data.astronaut())])


class Net(torch.nn.Module):
    """A small network of every kind of step: [n, 3, 8, 8] -> [n, 2, 6]."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.convolution = torch.nn.Conv2d(3, 12, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.convolution((x.float() / 255).to(self.convolution.weight.dtype)).relu()
        return features.float().pow(3).mean(dim=(2, 3)).reshape(-1, 2, 6)


def small() -> ModelSpec:
    return ModelSpec(f"test_{uuid.uuid4().hex}", Net, graph=True)


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=-1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's cache folder, where exported models are kept, for this module alone."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_any_batch_gives_what_torch_gives(runtime: str, cache: Path) -> None:
    pytest.importorskip(runtime)
    pytest.importorskip("onnxscript")
    spec, inputs = small(), noise(11)
    expected = ModelRuntime("cpu", "fp32").embed(spec, inputs)
    other = ModelRuntime("cpu", "fp32", batch_size=4, threads=2, runtime=runtime)
    np.testing.assert_allclose(other.embed(spec, inputs), expected, atol=1e-5)
    assert other.embed(spec, inputs[:0]).shape == (0, 2, 6)
    assert other.describe()["runtime"] == runtime


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runtime", "precision"), [("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16")]
)
def test_copy_descriptor_agrees_with_torch(runtime: str, precision: str, cache: Path) -> None:
    pytest.importorskip(runtime)
    pytest.importorskip("onnxscript")
    if precision == "bf16" and not cpu_has_bf16():
        pytest.skip("this CPU has no bfloat16")
    ours = ModelRuntime("cpu", precision).embed(EFFICIENTNET_LITE0_GEM_W512_V1, PICTURES)
    theirs = ModelRuntime("cpu", precision, runtime=runtime).embed(EFFICIENTNET_LITE0_GEM_W512_V1, PICTURES)
    assert (cosines(ours, theirs) > 0.999).all()


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "openvino"])
def test_pictures_may_lie_in_memory_pixel_by_pixel(runtime: str, cache: Path) -> None:
    pytest.importorskip(runtime)
    pytest.importorskip("onnxscript")
    spec, inputs = small(), noise(3)
    by_pixel = np.ascontiguousarray(inputs.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    model = ModelRuntime("cpu", "fp32", runtime=runtime)
    np.testing.assert_allclose(model.embed(spec, by_pixel), model.embed(spec, inputs), atol=1e-6)


def test_exported_model_is_made_once_and_found_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    spec = small()
    path = engines.exported(spec, noise(2), "onnxruntime")
    assert Path(path).is_relative_to(cache)
    assert not list(Path(path).parent.glob("*.part"))
    monkeypatch.setattr(engines, "export_onnx", None)
    assert engines.exported(spec, noise(7), "openvino") == path


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("package", ["itself", "onnxscript"])
def test_missing_package_names_the_extra(
    runtime: str, package: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if package == "onnxscript":
        pytest.importorskip(runtime)
    monkeypatch.setitem(sys.modules, runtime if package == "itself" else package, None)
    with pytest.raises(UsageError, match=rf"pip install 'fingerprint-dagster\[{runtime}\]'"):
        ModelRuntime("cpu", runtime=runtime).embed(small(), noise(1))


def test_models_that_cannot_be_exported_stay_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    spec = ModelSpec(f"test_{uuid.uuid4().hex}", Net)
    vectors = ModelRuntime("cpu", runtime="onnxruntime").embed(spec, noise(3))
    np.testing.assert_allclose(vectors, ModelRuntime("cpu", "fp32").embed(spec, noise(3)), atol=1e-6)


def test_choosing_a_runtime_imports_neither_torch_nor_it() -> None:
    code = (
        "import sys; from fingerprint_dagster.models import ModelRuntime; ModelRuntime(runtime='openvino'); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'openvino')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("count", "size"), [(1, 1), (2, 8), (8, 8), (9, 32), (32, 32), (33, 128), (128, 128), (200, 200)]
)
def test_a_batch_goes_through_the_smallest_graph_that_holds_it(count: int, size: int) -> None:
    assert engines.graph_size(count) == size


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
class TestCudaGraphs:
    @pytest.mark.parametrize("count", [1, 3, 8, 40, 128, 300])
    def test_padded_batches_give_what_single_passes_give(self, count: int) -> None:
        spec, plain = small(), ModelSpec(f"test_{uuid.uuid4().hex}", Net)
        inputs = noise(count)
        expected = ModelRuntime("cuda", "fp32").embed(plain, inputs)
        np.testing.assert_allclose(ModelRuntime("cuda", "fp32").embed(spec, inputs), expected, atol=1e-4)

    def test_graphs_do_not_disturb_each_other(self) -> None:
        runtime, spec, inputs = ModelRuntime("cuda", "fp32"), small(), noise(128)
        first = {count: runtime.embed(spec, inputs[:count]) for count in (128, 32, 8, 1)}
        for count in (1, 128, 8, 32, 128):
            np.testing.assert_array_equal(runtime.embed(spec, inputs[:count]), first[count])

    def test_out_of_memory_falls_to_a_smaller_graph(self) -> None:
        class Greedy(Net):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                if len(x) > 32:
                    torch.empty(2**50, dtype=torch.uint8, device=x.device)
                return super().forward(x)

        spec = ModelSpec(f"test_{uuid.uuid4().hex}", Greedy, graph=True)
        runtime = ModelRuntime("cuda", "fp32")
        vectors = runtime.embed(spec, noise(100))
        np.testing.assert_allclose(vectors, ModelRuntime("cpu", "fp32").embed(spec, noise(100)), atol=1e-4)
        assert runtime.batch_size == 32

    def test_copy_descriptor_in_fp16_agrees_with_the_cpu(self) -> None:
        exact = ModelRuntime("cpu", "fp32").embed(EFFICIENTNET_LITE0_GEM_W512_V1, PICTURES)
        short = ModelRuntime("cuda").embed(EFFICIENTNET_LITE0_GEM_W512_V1, PICTURES)
        assert (cosines(exact, short) > 0.99).all()
