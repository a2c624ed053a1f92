"""What the fork server of a run imports once, so that every step process starts in a moment.

Steps are forked from it. So it loads libraries and nothing else: no CUDA call, no inference, no thread of torch's own -
a fork of a process that has used them hangs or fails.
"""

import alembic.config  # noqa: F401 - Dagster imports these lazily, in every step, to write its events.
import dagster  # noqa: F401
import lancedb  # noqa: F401
import librosa  # noqa: F401
import sqlalchemy.dialects.sqlite  # noqa: F401
import torch
import torchvision.transforms.v2.functional  # noqa: F401

import fingerprint_dagster.definitions  # noqa: F401
from fingerprint_dagster.media.registry import content_types

torch.set_num_threads(1)
content_types()
READY = True
