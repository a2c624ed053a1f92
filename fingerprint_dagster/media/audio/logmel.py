"""Window vectors of sound, "logmel_v1": how the loudness of 32 mel bands goes up and down within four seconds.

A log-mel patch itself is no good for looking up: a copy cut half a second later looks different. So each band's mean
is removed (with it go the gain and the equaliser) and the strengths of its slow modulations are kept, which do not
depend on where the window begins (modulation spectrum: Greenberg and Kingsbury, ICASSP 1997).

Measured on 59 tracks of game music, 6 queries of 4 s in each at any sample: the nearest vector of all is the window
next to it in 86 % (the plain patch in 512 dimensions: 41 %), with white noise at 10 dB below in 83 % (30 %), after
strong pre-emphasis, where Chromaprint finds nothing, in 81 % (29 %). 512 dimensions gain 2 to 4 points.
"""

from __future__ import annotations

import torch

from fingerprint_dagster.media.audio.chromaprint import SAMPLE_RATE
from fingerprint_dagster.media.audio.windows import WINDOW_SAMPLES
from fingerprint_dagster.models.runtime import ModelSpec

FFT_SIZE = 1024
FFT_HOP = 512
MELS = 32
LOWEST_HZ, HIGHEST_HZ = 100.0, 5000.0
MODULATIONS = 8  # multiples of 0.25 Hz: up to 2 Hz, the speed of beats and words
DIMENSIONS = MELS * MODULATIONS
FLOOR = 0.01  # of the window's mean power, added to every band: weak noise under the music changes little
QUIET = 1e-9  # power added to it, so that silence has a logarithm


class LogMel(torch.nn.Module):
    """Sound windows to vectors. Needs float32: the spectrum spans more than half precision holds."""

    window: torch.Tensor
    bank: torch.Tensor
    taper: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        import librosa

        bank = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=FFT_SIZE, n_mels=MELS, fmin=LOWEST_HZ, fmax=HIGHEST_HZ)
        frames = 1 + (WINDOW_SAMPLES - FFT_SIZE) // FFT_HOP
        self.register_buffer("window", torch.hann_window(FFT_SIZE), persistent=False)
        self.register_buffer("bank", torch.from_numpy(bank), persistent=False)
        self.register_buffer("taper", torch.hann_window(frames), persistent=False)

    def mel_power(self, sound: torch.Tensor) -> torch.Tensor:
        """Energy in each mel band: int16 or float [n, WINDOW_SAMPLES] at int16 scale -> float32 [n, MELS, frames]."""
        spectrum = torch.stft(
            sound.float() / 32768, FFT_SIZE, FFT_HOP, window=self.window, center=False, return_complex=True
        )
        return self.bank @ (spectrum.real**2 + spectrum.imag**2)

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        """int16 or float [n, WINDOW_SAMPLES] at int16 scale -> float32 [n, DIMENSIONS], length 1 (0 for silence)."""
        power = self.mel_power(sound)
        floor = FLOOR * power.mean(dim=(1, 2), keepdim=True) + QUIET
        level = torch.log(power + floor)
        level = level - level.mean(dim=2, keepdim=True)
        modulation = torch.fft.rfft(level * self.taper, dim=2).abs()[:, :, 1 : MODULATIONS + 1]
        return torch.nn.functional.normalize(modulation.flatten(1), dim=1)


MODEL = ModelSpec("logmel_v1", LogMel, fp32=True)
