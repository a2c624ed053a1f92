"""The spectrogram that landmarks and window vectors share: the level of each third of a semitone, 21.5 a second."""

from __future__ import annotations

import torch

from fingerprint_dagster.media.audio.chromaprint import SAMPLE_RATE
from fingerprint_dagster.media.audio.landmarks import BANDS, BANDS_PER_OCTAVE, CONSTANT, FRAME, HOP, LOWEST_HZ
from fingerprint_dagster.models.runtime import ModelSpec

FAINT = 1e-5  # added to every amplitude, so that silence has a logarithm: 155 dB below a full-scale tone


class LogSpectrum(torch.nn.Module):
    """Sound to logarithms of amplitudes at logarithmic frequencies. Needs float32: half precision is too coarse."""

    window: torch.Tensor
    below: torch.Tensor
    above: torch.Tensor
    part: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        bins_per_hertz = FRAME / SAMPLE_RATE
        band = torch.arange(BANDS + 1, dtype=torch.float64)
        middle = LOWEST_HZ * 2 ** (band[:-1] / BANDS_PER_OCTAVE) * bins_per_hertz
        edges = (LOWEST_HZ * 2 ** ((band - 0.5) / BANDS_PER_OCTAVE) * bins_per_hertz).ceil().long()
        self.register_buffer("window", torch.hann_window(FRAME) / 32768, persistent=False)
        self.register_buffer("below", middle.long(), persistent=False)
        self.register_buffer("above", middle.long() + 1, persistent=False)
        self.register_buffer("part", (middle - middle.floor()).float(), persistent=False)
        # The loudest bin inside each wide band, as the greater of two runs of 2**level bins that cover it.
        width = edges[1:] - edges[:-1]
        self.first_wide = int((width >= 2).long().argmax())
        self.start, self.end = int(edges[self.first_wide]), int(edges[-1])
        starts = edges[self.first_wide : -1] - self.start
        # Widths are whole numbers that grow, give or take one: of the levels after each band the least still covers it.
        levels = torch.log2(torch.clamp(width[self.first_wide :], min=1)).floor().long()
        levels = levels.flip(0).cummin(0).values.flip(0)
        self.levels = int(levels.max())
        for level in range(self.levels + 1):
            here = levels == level
            last = (edges[self.first_wide + 1 :] - self.start)[here] - (1 << level)
            self.register_buffer(f"starts{level}", starts[here], persistent=False)
            self.register_buffer(f"lasts{level}", torch.maximum(last, starts[here]), persistent=False)

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        """int16 or float [n, samples] at int16 scale -> float32 [n, frames, BANDS + 1]; the last column is CONSTANT.

        Frame i is the natural logarithm of the amplitudes in samples i * HOP to i * HOP + FRAME.
        """
        spectrum = torch.fft.rfft(sound.float().unfold(1, FRAME, HOP) * self.window)[..., : self.end + 1]
        power = spectrum.real**2 + spectrum.imag**2
        lower, upper = (power.index_select(-1, bins) for bins in (self.below, self.above))
        middle = torch.lerp(lower, upper, self.part)
        runs, run = [], power[..., self.start : self.end]
        for level in range(self.levels + 1):
            first, last = getattr(self, f"starts{level}"), getattr(self, f"lasts{level}")
            runs.append(torch.maximum(run.index_select(-1, first), run.index_select(-1, last)))
            if level < self.levels:
                run = torch.maximum(run[..., : -(1 << level)], run[..., 1 << level :])
        middle[..., self.first_wide :] = torch.maximum(middle[..., self.first_wide :], torch.cat(runs, dim=-1))
        levels = 0.5 * torch.log(middle + FAINT**2)
        return torch.nn.functional.pad(levels, (0, 1), value=CONSTANT)


MODEL = ModelSpec("log_spectrum_v1", LogSpectrum, fp32=True)
