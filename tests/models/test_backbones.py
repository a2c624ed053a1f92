"""Networks of the user's: chosen by name and weights file, with vectors that never pass for another's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from skimage import data

from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.models import ModelRuntime
from fingerprint_dagster.models.backbones import EFFICIENTNET_LITE0_GEM_W512_V1, image_model
from fingerprint_dagster.models.efficientnet_lite import model_input
from fingerprint_dagster.settings import Settings

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def settings(model: str, weights: Path | None = None) -> Settings:
    return Settings(image_model=model, image_weights=weights)


def network(seed: int = 0) -> torchvision.models.MobileNetV3:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torchvision.models.mobilenet_v3_small(weights=None).eval()


def picture(side: int) -> np.ndarray:
    return model_input(data.coffee(), side)[np.newaxis]


def normalised(picture: np.ndarray) -> torch.Tensor:
    from torchvision.transforms.functional import normalize

    return normalize(torch.from_numpy(picture) / 255, MEAN, DEVIATION)


def test_built_in_network_needs_no_file() -> None:
    model = image_model(Settings())
    assert model.spec is EFFICIENTNET_LITE0_GEM_W512_V1
    assert model.side == 224


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_torchvision_network_with_weights_of_the_users(suffix: str, tmp_path: Path) -> None:
    path, net = tmp_path / f"weights{suffix}", network()
    save_file(net.state_dict(), path) if suffix == ".safetensors" else torch.save(net.state_dict(), path)
    model = image_model(settings("mobilenet_v3_small", path))
    vectors = ModelRuntime("cpu", "fp32").embed(model.spec, picture(model.side))
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(net.avgpool(net.features(normalised(picture(224)))).flatten(1))
    assert vectors.shape == (1, 576)
    np.testing.assert_allclose(vectors, expected.numpy(), atol=1e-5)


def test_half_precision_gives_nearly_the_same(tmp_path: Path) -> None:
    save_file(network().state_dict(), tmp_path / "weights.safetensors")
    spec = image_model(settings("mobilenet_v3_small", tmp_path / "weights.safetensors")).spec
    exact, short = (ModelRuntime("cpu", precision).embed(spec, picture(224)) for precision in ("fp32", "bf16"))
    assert (exact * short).sum() > 0.99


def test_other_weights_give_vectors_of_another_name(tmp_path: Path) -> None:
    specs = []
    for seed in (0, 1):
        save_file(network(seed).state_dict(), tmp_path / "weights.safetensors")
        specs.append(image_model(settings("mobilenet_v3_small", tmp_path / "weights.safetensors")).spec)
    assert specs[0].name != specs[1].name
    assert specs[0].digest[:12] in specs[0].name
    assert specs[0].name.startswith("mobilenet_v3_small_")


@pytest.mark.parametrize(("name", "side"), [("sscd", 320), ("sscd_288", 288)])
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_torchscript_file_in_the_place_of_sscd(name: str, side: int, tmp_path: Path) -> None:
    class Tiny(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = torch.nn.Conv2d(3, 512, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.normalize(self.convolution(x).clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3))

    tiny = Tiny().eval()
    torch.jit.trace(tiny, torch.zeros(1, 3, 8, 8)).save(str(tmp_path / "sscd.torchscript.pt"))
    model = image_model(settings(name, tmp_path / "sscd.torchscript.pt"))
    assert model.side == side
    vectors = ModelRuntime("cpu").embed(model.spec, picture(side))
    with torch.inference_mode():
        expected = tiny(normalised(picture(side)))
    assert vectors.shape == (1, 512)
    np.testing.assert_allclose(vectors, expected.numpy(), atol=1e-4)
    assert model.spec.name.startswith(f"{name}_{model.spec.digest[:12]}_")


def test_choosing_a_network_does_not_import_torch(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"anything")
    code = f"""
import sys
from fingerprint_dagster.models.backbones import image_model
from fingerprint_dagster.settings import Settings
image_model(Settings())
image_model(Settings(image_model="resnet50", image_weights={str(tmp_path / "weights.pth")!r}))
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet18", None, "needs a weights file: set image_weights"),
        ("sscd", None, "needs a weights file"),
        ("resnet18", "missing.pth", "cannot be read"),
        ("efficientnet_lite0", "good.pth", "brings its own"),
    ],
)
def test_wrong_choice_is_refused_at_once(name: str, weights: str | None, message: str, tmp_path: Path) -> None:
    (tmp_path / "good.pth").write_bytes(b"")
    with pytest.raises(UsageError, match=message):
        image_model(settings(name, tmp_path / weights if weights else None))


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("no_such_network", "good.pth", "unknown image_model 'no_such_network'"),
        ("resnet18", "good.pth", "holds no weights of resnet18"),
        ("mobilenet_v3_small", "noise.pth", "no weights file that can be read"),
        ("mobilenet_v3_small", "noise.safetensors", "no weights file that can be read"),
        ("mobilenet_v3_small", "list.pth", "holds no state dict"),
        ("sscd", "noise.pth", "no TorchScript file"),
        ("sscd", "good.pth", "no TorchScript file"),
    ],
)
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_wrong_file_is_refused_when_it_is_loaded(name: str, file: str, message: str, tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "good.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    for suffix in ("pth", "safetensors"):
        (tmp_path / f"noise.{suffix}").write_bytes(bytes(range(256)) * 8)
    model = image_model(settings(name, tmp_path / file))
    with pytest.raises(UsageError, match=message):
        ModelRuntime("cpu").embed(model.spec, picture(model.side))
