"""Copy descriptors: the feature map of a network, pooled over the picture and its regions, and whitened.

Pooling: generalised mean, p = 3 (Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", 2018).
Regions: windows of the last feature map (R-MAC; Tolias et al., "Particular object retrieval with integral max-pooling
of CNN activations", 2016). Whitening: Jégou and Chum, "Negative evidences and co-occurences in image retrieval" (2012).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

# (top, left, bottom, right) in cells of the feature map, the ends not included.
Window = tuple[int, int, int, int]


class CopyDescriptor(nn.Module):
    """Pictures -> float32 [n, rows, dim], of length 1: the whole picture's vector, then each window's.

    trunk: makes the feature map [n, channels, side, side] of the pictures, in any precision. From there on all is
    float32: a cube of 6 added 49 times is coarse in the short formats. side: of the feature map, in cells. whitening:
    "mean" [channels] and "projection" [dim, channels]; without it the vectors are the pooled channels.
    """

    fp32 = True
    pooling: Tensor
    mean: Tensor | None
    projection: Tensor | None

    def __init__(
        self,
        trunk: nn.Module,
        side: int,
        windows: Sequence[Window] = (),
        whitening: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        pooling = torch.zeros(1 + len(windows), side, side)
        for row, (top, left, bottom, right) in enumerate(((0, 0, side, side), *windows)):
            pooling[row, top:bottom, left:right] = 1 / ((bottom - top) * (right - left))
        self.register_buffer("pooling", pooling.flatten(1))
        for name in ("mean", "projection"):
            self.register_buffer(name, whitening[name].float() if whitening else None)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        cells = self.trunk(images).flatten(2).transpose(1, 2).float()  # [n, side * side, channels]
        pooled = (self.pooling @ cells.clamp(min=1e-6).pow(3)).pow(1 / 3)
        vectors = functional.normalize(pooled, dim=-1)
        if self.mean is None or self.projection is None:
            return vectors
        return functional.normalize(functional.linear(vectors - self.mean, self.projection), dim=-1)
