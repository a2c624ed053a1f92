"""Pictures as networks trained on ImageNet in PyTorch take them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Of ImageNet's pixels, for each of R, G, B, in 0..1: what torchvision's models and SSCD were trained with.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


class Normalised(nn.Module):
    """uint8 RGB [n, 3, h, w] -> what `network` makes of the normalised pictures, flattened: [n, dim]."""

    fp32 = True
    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        mean, deviation = torch.tensor(MEAN)[:, None, None], torch.tensor(DEVIATION)[:, None, None]
        self.register_buffer("scale", 1 / (255 * deviation), persistent=False)
        self.register_buffer("shift", -mean / deviation, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """See the class. The normalisation is in float32, the network in the precision of its weights."""
        pixels = images.to(torch.float32, memory_format=torch.channels_last) * self.scale + self.shift
        weight = next(self.network.parameters(), self.scale)
        features: Tensor = self.network(pixels.to(weight.dtype))
        return features.flatten(1)
