"""Speed of the image fingerprint beside the usual tools, in one run on one machine.

    python benchmarks/pdq.py [rounds]

Prints the median milliseconds of processor time for a 1920 x 1080 JPEG file and for a picture of 512 pixels in memory,
and how far the hashes lie from those of the pdqhash package (the C++ reference). Needs the `bench` extra.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import imagehash
import numpy as np
import pdqhash
from PIL import Image
from processor_time import milliseconds
from skimage import data

from fingerprint_dagster.media.image.decode import decode
from fingerprint_dagster.media.image.pdq import pdq_dihedral_v1, pdq_frames_v1, pdq_v1


def full_hd_jpeg() -> bytes:
    """A photograph as a 1920 x 1080 JPEG of quality 90, with a little noise: no easier than a real one."""
    photo = np.asarray(Image.fromarray(data.astronaut()).crop((0, 60, 512, 348)).resize((1920, 1080)), np.int16)
    noise = np.random.default_rng(0).normal(0, 1.5, photo.shape)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(photo + noise, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def thumbnail(content: bytes) -> Image.Image:
    """The picture as our decoder shrinks it, for a comparison of the hashes alone."""
    image = Image.open(io.BytesIO(content))
    image.thumbnail((512, 512))
    return image


def main() -> None:
    """Measure, and print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    content = full_hd_jpeg()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "photo.jpg")
        path.write_bytes(content)
        small = thumbnail(content)
        rgb = np.array(small)
        frames = np.repeat(rgb[np.newaxis], 16, axis=0)
        rows: list[tuple[str, Callable[[], object], int]] = [
            ("1080p JPEG: decode + pdq, ours", lambda: pdq_v1(decode(path).arrays["rgb"]), 1),
            (
                "1080p JPEG: decode + pdq in 8 orientations, ours",
                lambda: pdq_dihedral_v1(decode(path).arrays["rgb"]),
                1,
            ),
            ("1080p JPEG: PIL + pdqhash", lambda: pdqhash.compute(np.asarray(Image.open(path).convert("RGB"))), 1),
            ("1080p JPEG: PIL thumbnail + pdqhash", lambda: pdqhash.compute(np.asarray(thumbnail(content))), 1),
            ("1080p JPEG: PIL + imagehash.phash", lambda: imagehash.phash(Image.open(path)), 1),
            ("512 px: pdq, ours", lambda: pdq_v1(rgb), 1),
            ("512 px: pdq of 16 frames, ours, each", lambda: pdq_frames_v1(frames), 16),
            ("512 px: pdq in 8 orientations, ours", lambda: pdq_dihedral_v1(rgb), 1),
            ("512 px: pdqhash", lambda: pdqhash.compute(rgb), 1),
            ("512 px: pdqhash in 8 orientations", lambda: pdqhash.compute_dihedral(rgb), 1),
            ("512 px: imagehash.phash", lambda: imagehash.phash(small), 1),
        ]
        for name, run, items in rows:
            print(f"{name:52s} {np.median(milliseconds(run, rounds)) / items:8.2f} ms")
    names = ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "moon", "page", "rocket")
    worst = 0
    for name in names:
        picture = np.asarray(Image.fromarray(getattr(data, name)()).convert("RGB"))
        theirs, quality = pdqhash.compute(picture)
        ours, our_quality = pdq_v1(picture)
        worst = max(worst, int((np.unpackbits(ours) != theirs).sum()), abs(quality - our_quality))
    print(f"largest difference from pdqhash in {len(names)} pictures, bits or points of quality: {worst}")


if __name__ == "__main__":
    main()
