"""The networks that describe pictures: the built-in one, and others by name and weights file.

Importing this module and choosing a network is cheap: torch is imported when it is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.models import weights
from fingerprint_dagster.models.runtime import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fingerprint_dagster.settings import Settings

BUILT_IN = "efficientnet_lite0"
# Meta's copy detector, for pictures squashed to a square of 320 pixels, as its authors advise, or cheaper of 288.
SSCD_SIDES = {"sscd": 320, "sscd_288": 288}
SIDE = 224
# torchvision's names for the part of a network that turns features into classes.
_CLASSIFIERS = ("fc", "classifier", "heads", "head")


@dataclass(frozen=True)
class ImageModel:
    """A network that describes pictures.

    spec: takes uint8 RGB [n, 3, side, side]; gives [n, dim], or [n, rows, dim] with the whole picture's vector first.
        Its name holds the version and, for a weights file of the user's, the first 12 digits of its SHA-256.
    """

    spec: ModelSpec
    side: int


def image_model(settings: Settings) -> ImageModel:
    """The network the settings name in `image_model`, with the weights file `image_weights`.

    "efficientnet_lite0" is built in. "sscd" is Meta's TorchScript file (Pizzi et al., "A Self-Supervised Descriptor for
    Image Copy Detection", CVPR 2022): `sscd_disc_mixup.torchscript.pt` or one of its sisters. Every other name is
    torchvision's, with its state dict as .safetensors or .pth; the vectors are the features before the classifier.
    Raises `UsageError` for a missing file. Whether the name exists, and the weights fit, shows when it is built.
    """
    name, path = settings.image_model, settings.image_weights
    if name == BUILT_IN:
        if path is not None:
            raise UsageError(f"image_weights is set, but the image_model {BUILT_IN} brings its own: unset it")
        return ImageModel(EFFICIENTNET_LITE0_GEM_W512_V1, SIDE)
    if path is None:
        raise UsageError(f"the image_model {name} needs a weights file: set image_weights to its path")
    digest = weights.digest_of(path)
    algorithm = f"{name}_{digest[:12]}_v1"
    if name in SSCD_SIDES:
        return ImageModel(ModelSpec(algorithm, partial(_sscd, path), fp32=True, digest=digest), SSCD_SIDES[name])
    return ImageModel(ModelSpec(algorithm, partial(_torchvision, name, path), graph=True, digest=digest), SIDE)


def _whitened() -> nn.Module:
    from fingerprint_dagster.models import efficientnet_lite

    return efficientnet_lite.whitened()


EFFICIENTNET_LITE0_GEM_W512_V1 = ModelSpec(
    "efficientnet_lite0_gem_w512_v1",
    _whitened,
    graph=True,
    digest=weights.combined(weights.EFFICIENTNET_LITE0_DIGEST, weights.WHITENING_DIGEST),
)


def _sscd(path: Path) -> nn.Module:
    """The TorchScript file behind ImageNet's normalisation. How it pools is its own affair, so it stays in float32."""
    import torch

    from fingerprint_dagster.models.imagenet import Normalised

    try:
        module: nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise UsageError(
            f"{path} is no TorchScript file (sscd_disc_mixup.torchscript.pt, say): {_line(error)}"
        ) from None
    return Normalised(module)


def _torchvision(name: str, path: Path) -> nn.Module:
    """A torchvision network with the weights of the file, without its classifier."""
    from torch import nn
    from torchvision.models import get_model

    from fingerprint_dagster.models.imagenet import Normalised

    try:
        network = get_model(name, weights=None)
    except ValueError:
        raise UsageError(
            f"unknown image_model {name!r}: use {BUILT_IN}, {', '.join(SSCD_SIDES)}, or a name that "
            "torchvision.models.list_models() gives"
        ) from None
    head = next((each for each in _CLASSIFIERS if hasattr(network, each)), None)
    if head is None:
        raise UsageError(f"the image_model {name} has no classifier at its end, so it makes no vectors; use another")
    setattr(network, head, nn.Identity())
    state = {key: tensor for key, tensor in _state_dict(path).items() if not key.startswith(f"{head}.")}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise UsageError(f"{path} holds no weights of {name}: {_line(error)}") from None
    return Normalised(network)


def _state_dict(path: Path) -> Mapping[str, Tensor]:
    from pickle import UnpicklingError

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, OSError, ValueError, EOFError, KeyError) as error:
        raise UsageError(f"{path} is no weights file that can be read: {_line(error)}") from None
    if not isinstance(state, Mapping) or not all(isinstance(each, torch.Tensor) for each in state.values()):
        raise UsageError(f"{path} holds no state dict: save model.state_dict() alone")
    return state


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
