"""The model as a file: it agrees with torch, or it is not written."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from fingerprint_dagster.cli import model as command
from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.models import ModelSpec
from fingerprint_dagster.models.efficientnet_lite import EFFICIENTNET_LITE0_GEM_W512_V1, model_input
from fingerprint_dagster.models.export import FORMS, MIN_CALIBRATION, export_model

SCENES = (data.chelsea(), data.coffee(), data.rocket(), data.astronaut(), data.retina(), data.hubble_deep_field())


def pictures(count: int) -> np.ndarray:
    """Windows of different pictures at different places: uint8 [count, 3, 224, 224]."""
    windows = []
    for number in range(count):
        scene = SCENES[number % len(SCENES)]
        step, side = number // len(SCENES), min(scene.shape[:2]) * 2 // 3
        top, left = (step * 37) % (scene.shape[0] - side), (step * 53) % (scene.shape[1] - side)
        windows.append(model_input(scene[top : top + side, left : left + side]))
    return np.stack(windows)


def test_the_command_offers_every_form() -> None:
    assert command._FORMS == FORMS


@pytest.mark.slow
def test_torch_export_gives_what_torch_gives(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    agreement = export_model(EFFICIENTNET_LITE0_GEM_W512_V1, "torch-export", path, pictures(6))
    assert agreement.lowest > 0.9999
    program = torch.export.load(path).module()
    assert program(torch.zeros(5, 3, 224, 224, dtype=torch.uint8)).shape == (5, 1, 512)  # any number of pictures


@pytest.mark.slow
def test_int8_keeps_its_distance_to_torch(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    whole, small = tmp_path / "model.onnx", tmp_path / "small.onnx"
    inputs = pictures(2 * MIN_CALIBRATION)
    assert export_model(EFFICIENTNET_LITE0_GEM_W512_V1, "onnx", whole, inputs).lowest > 0.9999
    agreement = export_model(EFFICIENTNET_LITE0_GEM_W512_V1, "onnx-int8", small, inputs)
    assert agreement.lowest >= 0.98
    assert small.stat().st_size < whole.stat().st_size / 2
    session = onnxruntime.InferenceSession(str(small), providers=["CPUExecutionProvider"])
    (vectors,) = session.run(None, {session.get_inputs()[0].name: inputs[:3]})
    assert vectors.shape == (3, 1, 512)


class Loud(torch.nn.Module):
    """What 8 bits cannot hold: every input but one is thousands of times smaller than the one."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Conv2d(3, 3, 1, bias=False) for _ in range(3))
        for layer in self.layers:
            torch.nn.init.eye_(layer.weight[:, :, 0, 0].data)
        self.layers[0].weight.data *= torch.tensor([1e5, 1.0, 1.0]).reshape(3, 1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.float() - 127
        for layer in self.layers:
            x = layer(x)
        return (x / torch.tensor([1e5, 1.0, 1.0]).reshape(3, 1, 1)).mean(dim=(2, 3)).unsqueeze(1)


@pytest.mark.slow
def test_compiled_code_gives_what_torch_gives(tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler: install g++")
    from torch._inductor import aoti_load_package

    spec = ModelSpec("test_loud", Loud, graph=True)
    path = tmp_path / "model.pt2"
    inputs = np.random.default_rng(1).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8)
    assert export_model(spec, "aot-inductor", path, inputs).lowest > 0.9999
    assert aoti_load_package(str(path))(torch.from_numpy(inputs[:5])).shape == (5, 1, 3)


def test_a_file_that_disagrees_with_torch_is_refused_and_not_left_behind(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    spec = ModelSpec("test_loud", Loud, graph=True)
    inputs = np.random.default_rng(1).integers(0, 256, (2 * MIN_CALIBRATION, 3, 8, 8), dtype=np.uint8)
    with pytest.raises(UsageError, match="refused: the onnx-int8 form of test_loud agrees with torch only"):
        export_model(spec, "onnx-int8", tmp_path / "out" / "model.onnx", inputs)
    assert list((tmp_path / "out").iterdir()) == []


def test_int8_needs_enough_pictures(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"at least {2 * MIN_CALIBRATION} varied pictures, not 4"):
        export_model(EFFICIENTNET_LITE0_GEM_W512_V1, "onnx-int8", tmp_path / "model.onnx", pictures(4))


def test_a_missing_package_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UsageError, match=r"fingerprint-dagster\[onnxruntime\]"):
        export_model(EFFICIENTNET_LITE0_GEM_W512_V1, "onnx", tmp_path / "model.onnx", pictures(2))
