"""Where models run: device, precision, batching. torch is imported on first use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ModelSpec:
    """A model that makes vectors.

    name: the versioned name of its vectors (`efficientnet_lite0_gem_v1`), used as the component's algorithm.
    build: loads weights and returns a module whose forward takes a batch [n, ...] and returns float [n, dim].
        Called once per process.
    """

    name: str
    build: Callable[[], torch.nn.Module]


class ModelRuntime:
    """Loads each model once per process and runs it in batches (interface; see the image helper)."""

    def embed(self, spec: ModelSpec, inputs: np.ndarray) -> np.ndarray:
        """Vectors of `inputs`: [n, ...] -> float32 [n, dim], rows of length 1."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Device, precision and batch size, for asset metadata."""
        raise NotImplementedError
