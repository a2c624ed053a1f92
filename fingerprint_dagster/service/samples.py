"""Tiny contents of the built-in types that need none of the user's: what a new process is warmed up with."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

_RATE = 11_025
_SECONDS = 4


def write_samples(folder: Path) -> dict[str, Path]:
    """Write a picture, a sound and a text into the folder; content type -> file."""
    from PIL import Image

    rng = np.random.default_rng(1)
    files = {"image": folder / "picture.jpg", "audio": folder / "sound.wav", "text": folder / "text.txt"}
    blocks = rng.integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(blocks).resize((256, 256), Image.Resampling.BICUBIC).save(files["image"], quality=90)
    sound = np.sin(np.cumsum(rng.uniform(0.05, 0.5, _SECONDS * _RATE))) * 20_000
    with wave.open(str(files["audio"]), "wb") as file:
        file.setparams((1, 2, _RATE, 0, "NONE", ""))
        file.writeframes(sound.astype("<i2").tobytes())
    words = ["".join(map(chr, rng.integers(97, 123, 6))) for _ in range(200)]
    files["text"].write_text(" ".join(words), encoding="utf-8")
    return files
