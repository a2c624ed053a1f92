"""Make the list of texts that everybody has: `fingerprint_dagster/media/text/boilerplate.npy`.

    python benchmarks/text_boilerplate.py OUT [FOLDER]

Its tokens are those of all texts in FOLDER (default: /usr/share/common-licenses, where Debian keeps the licences that
most of its packages have), and those of the licence files of the installed Python packages that at least three share.
A new list changes what is found: it needs a new name in `media/text/boilerplate.py` and a new version of the stage.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from importlib.metadata import distributions
from pathlib import Path

import numpy as np

from fingerprint_dagster.media.text.normalize import normalize_v2
from fingerprint_dagster.media.text.winnowing import winnow_v1
from fingerprint_dagster.media.text.words import shingles_v1, words_v1

SHARED_BY = 3


def tokens(text: str) -> set[int]:
    """The winnowing tokens of a text."""
    return set(winnow_v1(shingles_v1(words_v1(normalize_v2(text)))).tolist())


def main() -> None:
    """Write the list and say how long it is."""
    out, folder = Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "/usr/share/common-licenses")
    kept: set[int] = set()
    for path in sorted(folder.iterdir()):
        if path.is_file():
            kept |= tokens(path.read_text(encoding="utf-8", errors="replace"))
    shared: Counter[int] = Counter()
    for distribution in distributions():
        texts = [
            Path(str(file.locate())).read_text(encoding="utf-8", errors="replace")
            for file in distribution.files or ()
            if re.match(r"(licen[cs]e|copying|notice)", file.name, re.IGNORECASE) and Path(str(file.locate())).is_file()
        ]
        shared.update(set().union(*map(tokens, texts)))
    kept |= {token for token, count in shared.items() if count >= SHARED_BY}
    with out.open("wb") as file:
        np.save(file, np.array(sorted(kept), np.uint64))
    print(f"{len(kept)} tokens, {out.stat().st_size} bytes in {out}")


if __name__ == "__main__":
    main()
