"""EfficientNet-Lite0 as a descriptor of pictures: its convolutional trunk, pooled and whitened.

The network: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019), in the Lite
form of the TensorFlow TPU models (no squeeze-and-excitation, ReLU6 for Swish), trained on ImageNet by their authors
(Apache-2.0).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fingerprint_dagster.models import weights
from fingerprint_dagster.models.backbones import EFFICIENTNET_LITE0_GEM_W512_V1
from fingerprint_dagster.models.descriptor import CopyDescriptor, Window
from fingerprint_dagster.models.runtime import ModelSpec

__all__ = ["EFFICIENTNET_LITE0_GEM_V2", "EFFICIENTNET_LITE0_GEM_W512_V1", "EfficientNetLite0", "model_input"]

INPUT_SIDE = 224
MAP_SIDE = INPUT_SIDE // 32
DIM = 1280

# What is described beside the whole picture.
WINDOWS: tuple[Window, ...] = ()

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


class EfficientNetLite0(nn.Module):
    """uint8 RGB [n, 3, h, w] -> the last feature map, [n, 1280, h/32, w/32], 0..6, in the precision of the weights.

    Batch normalisation is folded into the convolutions. Made without weights: `load_state_dict(..., assign=True)`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, _STEM_CHANNELS, 3, stride=2, relu6=True)
        self.blocks = nn.ModuleList()
        channels = _STEM_CHANNELS
        for repeats, kernel, stride, expansion, out in _STAGES:
            for index in range(repeats):
                self.blocks.append(_Block(channels, out, kernel, stride if index == 0 else 1, expansion))
                channels = out
        self.head = Convolution(channels, DIM, 1, relu6=True)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        # Bytes are turned to channels_last faster than wider numbers, and fresh memory costs more than arithmetic.
        x = images.contiguous(memory_format=torch.channels_last).to(self.stem.weight.dtype)
        x = x.sub_(127).mul_(1 / 128)  # exact in bfloat16 too: whole numbers up to 128, and a power of two
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)  # type: ignore[no-any-return]


class Convolution(nn.Conv2d):
    """A convolution padded as TensorFlow's "SAME" does, with its ReLU6.

    For an even side and stride 2 that is one row more below than above. torch pads both ends alike; so one row too
    many is asked for above, and the first row of the result, which is small, is dropped.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, *, relu6: bool = False
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, device="meta")
        self.relu6 = relu6
        self._packed: Tensor | None = None

    def pack(self) -> None:
        """Lay the weights out as oneDNN computes with them, and let it do ReLU6 and addition in the same pass.

        Only for a CPU. The operators are those of torch's compiler; without them nothing changes but the speed.
        """
        if _onednn_fuses(self.weight.dtype):
            shape = ([0, 0], list(self.stride), [1, 1], self.groups)
            self._packed = torch.ops.mkldnn._reorder_convolution_weight(self.weight, *shape)

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """The convolution, `add` added to it or (there is never both) its ReLU6."""
        extra = [int(self.stride[0] == 2 and size % 2 == 0) for size in x.shape[2:]]
        padding = [self.kernel_size[0] // 2 + each for each in extra]
        if self._packed is not None:
            y = self._fused(x, padding, add)
        else:
            y = functional.conv2d(x, self.weight, self.bias, self.stride, padding, groups=self.groups)
        if any(extra):
            y = y[:, :, extra[0] :, extra[1] :].contiguous(memory_format=torch.channels_last)
        if self._packed is not None:
            return y
        if add is not None:
            return y + add
        return y.clamp_(0, 6) if self.relu6 else y

    def _fused(self, x: Tensor, padding: list[int], add: Tensor | None) -> Tensor:
        shape = (padding, list(self.stride), [1, 1], self.groups)
        convolve = torch.ops.mkldnn._convolution_pointwise
        if add is not None:
            return convolve.binary(x, add, self._packed, self.bias, *shape, "add", 1.0, None, [], None)  # type: ignore[no-any-return]
        name, limits = ("hardtanh", [0.0, 6.0]) if self.relu6 else ("none", [])
        return convolve(x, self._packed, self.bias, *shape, name, limits, "")  # type: ignore[no-any-return]


@cache
def _onednn_fuses(dtype: torch.dtype) -> bool:
    """Whether this torch has the operators `Convolution` asks for, and this CPU the instructions for the precision."""
    one, shape = torch.ones(1, 1, 1, 1, dtype=dtype), ([0, 0], [1, 1], [1, 1], 1)
    try:
        weight = torch.ops.mkldnn._reorder_convolution_weight(one, *shape)
        convolve = torch.ops.mkldnn._convolution_pointwise
        clamped = convolve(7 * one, weight, one[0, 0, 0], *shape, "hardtanh", [0.0, 6.0], "")
        added = convolve.binary(one, one, weight, one[0, 0, 0], *shape, "add", 1.0, None, [], None)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return bool(clamped == 6) and bool(added == 3)


class _Block(nn.Module):
    """An inverted residual: widen, filter each channel by itself, narrow; added to its input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = Convolution(inputs, wide, 1, relu6=True) if expansion > 1 else None
        self.depthwise = Convolution(wide, wide, kernel, stride, groups=wide, relu6=True)
        self.project = Convolution(wide, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else self.expand(x)
        narrow: Tensor = self.project(self.depthwise(wide), x if self.residual else None)
        return narrow


def trunk() -> EfficientNetLite0:
    """The network with its weights, in float32 on the CPU. Raises `FingerprintError` for a damaged weights file."""
    model = EfficientNetLite0()
    state = weights.read(weights.EFFICIENTNET_LITE0, weights.EFFICIENTNET_LITE0_DIGEST)
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    return model.eval()


def gem() -> nn.Module:
    """uint8 [n, 3, 224, 224] -> float32 [n, 1280]: the whole picture, pooled."""
    return nn.Sequential(CopyDescriptor(trunk(), MAP_SIDE), nn.Flatten(1))


def whitened() -> CopyDescriptor:
    """uint8 [n, 3, 224, 224] -> float32 [n, 1 + windows, 512]: the whole picture and each of `WINDOWS`, whitened."""
    return CopyDescriptor(trunk(), MAP_SIDE, WINDOWS, weights.read(weights.WHITENING, weights.WHITENING_DIGEST))


def model_input(rgb: NDArray[np.uint8], side: int = INPUT_SIDE) -> NDArray[np.uint8]:
    """A picture of any size as a network takes it, squashed: uint8 [h, w, 3] -> uint8 [3, side, side].

    The bytes are those of torchvision's `resize` with `antialias`, whose import takes a second.
    """
    picture = torch.from_numpy(np.array(rgb))[None].permute(0, 3, 1, 2)
    resized: NDArray[Any] = functional.interpolate(picture, (side, side), mode="bilinear", antialias=True)[0].numpy()
    return resized


EFFICIENTNET_LITE0_GEM_V2 = ModelSpec(
    "efficientnet_lite0_gem_v2", gem, graph=True, digest=weights.EFFICIENTNET_LITE0_DIGEST
)
