"""Real media for tests: pictures of scikit-image and samples of iscc-samples."""

from pathlib import Path

import iscc_samples
import skimage

PICTURES = Path(skimage.__file__).parent / "data"
SAMPLES = Path(iscc_samples.__file__).parent / "files"


def sample(name: str) -> Path:
    """A sample such as `audio/demo.mp3`."""
    return SAMPLES / name


def picture(name: str) -> Path:
    """A picture such as `coffee.png`."""
    return PICTURES / name
