"""What the fork server of a run imports once, so that every step process starts in a moment.

Steps are forked from it. So it loads libraries and nothing else: no CUDA call, no inference, no thread - a fork of a
process that has used them hangs or fails. LanceDB itself starts a thread when it is imported, so it is left to the
one step that needs it; what makes its import slow is loaded here.
"""

import contextlib

import alembic.config  # noqa: F401 - Dagster imports these lazily, in every step, to write its events.
import dagster  # noqa: F401
import librosa.filters  # noqa: F401
import pyarrow.dataset  # noqa: F401
import sqlalchemy.dialects.sqlite  # noqa: F401
import torch
import torchvision.transforms.v2.functional  # noqa: F401

import fingerprint_dagster.definitions  # noqa: F401
from fingerprint_dagster.media.registry import content_types

with contextlib.suppress(ImportError):
    import lance_namespace  # noqa: F401

torch.set_num_threads(1)
content_types()
