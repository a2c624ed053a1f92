"""How the projection of "sound_patch_v1" was learned: `python -m fingerprint_dagster.media.audio.train FILE ... OUT`.

FILE: music, any formats; a few hundred tracks of many kinds (what the package has was made from 128). OUT: the
safetensors file. Principal components of the windows' waves, scaled to equal variance and turned at random (seeded), so
that every bit of the signs tells equally much. The same files in the same order give the same bytes on one machine.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fingerprint_dagster.models import ModelRuntime

LEAST_VARIANCE = 1e-4  # of the greatest, added to each: directions of noise are not blown up
WINDOWS_OF_EACH = 40  # spread evenly over a track
SEED = 1


def waves_of(path: Path, models: ModelRuntime) -> np.ndarray:
    """float32 [k, patch.WAVES] of windows of one file."""
    import torch

    from fingerprint_dagster.media.audio.decode import decode_audio
    from fingerprint_dagster.media.audio.patch import Waves
    from fingerprint_dagster.media.audio.sketch import spectrogram
    from fingerprint_dagster.media.audio.windows import mean_rows, windows

    cuts, starts = windows(mean_rows(spectrogram(decode_audio(path).arrays["pcm"], models)))
    chosen = starts[np.linspace(0, len(starts) - 1, min(len(starts), WINDOWS_OF_EACH)).round().astype(np.int64)]
    with torch.inference_mode():
        waves: np.ndarray = Waves()(torch.from_numpy(np.ascontiguousarray(cuts[chosen]))).numpy()
    return waves


def projection(waves: np.ndarray, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (float32 [width]) and projection (float16 [width, dimensions]) of float32 [n, width]."""
    mean = waves.mean(axis=0, dtype=np.float64)
    variance, direction = np.linalg.eigh(np.cov((waves - mean).T))
    variance, direction = variance[::-1][:dimensions], direction[:, ::-1][:, :dimensions]
    direction = direction * np.sign(direction[np.abs(direction).argmax(axis=0), np.arange(dimensions)])
    turn = np.linalg.qr(np.random.default_rng(SEED).normal(size=(dimensions, dimensions)))[0]
    scaled = direction / np.sqrt(variance + LEAST_VARIANCE * variance[0])
    return mean.astype(np.float32), (scaled @ turn).astype(np.float16)


def main(arguments: Sequence[str]) -> None:
    """Learn from the files and write the projection."""
    from safetensors.numpy import save_file

    from fingerprint_dagster.media.audio.patch import DIMENSIONS

    if len(arguments) < 2:
        sys.exit("usage: python -m fingerprint_dagster.media.audio.train FILE ... OUT")
    models = ModelRuntime(device="cpu", threads=1)
    waves = np.concatenate([waves_of(Path(name), models) for name in arguments[:-1]])
    mean, matrix = projection(waves, DIMENSIONS)
    save_file({"mean": mean, "projection": matrix}, arguments[-1])
    sys.stdout.write(f"{len(waves)} windows of {len(arguments) - 1} tracks; {arguments[-1]} written\n")


if __name__ == "__main__":
    main(sys.argv[1:])
