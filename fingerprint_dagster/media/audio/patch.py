"""Window vectors of sound, "sound_patch_v1": the two-dimensional spectrum of a piece of the spectrogram.

The magnitudes of a two-dimensional Fourier transform do not depend on where in the window, and at which pitch, the
music is; and little on its speed (so P. Seetharaman and Z. Rafii, "Cover song identification with 2D Fourier
transform sequences", ICASSP 2017). Their principal components are scaled to equal variance, and the signs of these are
stored. The components were learned from music: `python -m fingerprint_dagster.media.audio.train`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fingerprint_dagster.media.audio.windows import ROWS
from fingerprint_dagster.models import weights
from fingerprint_dagster.models.runtime import ModelSpec

DIMENSIONS = 256
TIME_WAVES, PITCH_WAVES = 24, 40  # kept of the transform: the lowest
WAVES = TIME_WAVES * (2 * PITCH_WAVES - 1)
DEPTH = 7.0  # nepers below the loudest (61 dB): what is fainter counts as so faint

WEIGHTS = Path(weights.__file__).parent / "weights" / "sound_patch_v1.safetensors"
WEIGHTS_DIGEST = "4e62a37817c38c3e45b5db0ad224b73da27ae221092351085e9ce2a4e0594c1b"


class Waves(torch.nn.Module):
    """Windows to the square roots of the magnitudes of their two-dimensional spectra."""

    taper: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("taper", torch.from_numpy(np.hanning(ROWS).astype(np.float32))[:, None], persistent=False)

    def forward(self, cuts: torch.Tensor) -> torch.Tensor:
        """float [..., ROWS, COLUMNS], levels in nepers -> float32 [..., WAVES], length 1."""
        cuts = cuts.float()
        cuts = torch.maximum(cuts, cuts.amax(dim=(-2, -1), keepdim=True) - DEPTH)
        cuts = (cuts - cuts.mean(dim=-2, keepdim=True)) * self.taper
        waves = torch.fft.fft(torch.fft.rfft(cuts, dim=-1)[..., :PITCH_WAVES], dim=-2)
        falling = waves[..., 1 : TIME_WAVES + 1, :]
        rising = waves[..., -TIME_WAVES:, 1:].flip(-2)
        strength = torch.cat((falling, rising), dim=-1).abs().sqrt().flatten(-2)
        return torch.nn.functional.normalize(strength, dim=-1)


class SoundPatch(torch.nn.Module):
    """Windows to vectors. Needs float32."""

    mean: torch.Tensor
    projection: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.waves = Waves()
        stored = weights.read(WEIGHTS, WEIGHTS_DIGEST)
        self.register_buffer("mean", stored["mean"].float(), persistent=False)
        self.register_buffer("projection", stored["projection"].float(), persistent=False)

    def forward(self, cuts: torch.Tensor) -> torch.Tensor:
        """float [..., ROWS, COLUMNS] -> float32 [..., DIMENSIONS]."""
        vectors: torch.Tensor = (self.waves(cuts) - self.mean) @ self.projection
        return vectors


MODEL = ModelSpec("sound_patch_v1", SoundPatch, fp32=True)
