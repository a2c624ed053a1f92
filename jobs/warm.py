"""What the process that runners are forked from imports once, so that each of them is ready in a moment.

It loads libraries and nothing else: no CUDA call, no inference, no thread - a fork of a process that has used them
hangs or fails. LanceDB itself starts a thread when it is imported, so it is left to the runner that first needs it;
what makes its import slow is loaded here. It also serves as what Dagster's own fork server loads for its steps.
"""

# ruff: noqa: E402 - the variables must be set before numpy and torch are loaded.
import contextlib
import gc
import importlib
import logging
import os
import sys
from typing import NoReturn

from fingerprint_dagster.workers import THREADS_VARIABLES

gc.disable()  # While modules are loaded there is nothing to collect, and looking for it takes a quarter of the time.

# A step runs as many processes or threads as it may use cores; each of them computes on one.
for variable in THREADS_VARIABLES:
    os.environ.setdefault(variable, "1")

from fingerprint_dagster.definitions import resolved_job
from fingerprint_dagster.media.registry import content_types
from fingerprint_dagster.resources.engine import close_engine

# Set to 0 by whoever knows that no model will be needed: torch takes more than a second.
MODELS_VARIABLE = "FINGERPRINT_WARM_MODELS"

# What a run imports on its way to our code, and in the hash and store stages. Names that are not ours may vanish in
# another release; then a run starts half a second later, and nothing else happens.
LATER_IMPORTS = (
    "alembic.config",
    "cv2",
    "dagster._core.execution.backfill",
    "dagster._core.executor.child_process_executor",
    "dagster._core.executor.multiprocess",
    "dagster._core.instance.factory",
    "dagster._core.remote_representation.external",
    "dagster._core.scheduler",
    "dagster._core.storage.event_log.sqlite",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.storage.sqlite_storage",
    "dagster._core.storage.root",
    "fsspec.implementations.local",
    "iscc_lib",
    "lance_namespace",
    "multiprocessing.popen_forkserver",
    "pyarrow.dataset",
    "rich.traceback",
    "sqlalchemy.dialects.sqlite",
    "structlog",
    "upath",
)
for name in LATER_IMPORTS:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)

content_types()
resolved_job()
if os.environ.get(MODELS_VARIABLE) != "0":
    import torch
    from PIL import Image

    Image.init()  # Its decoders, which every process that decodes would load for itself.
    torch.set_num_threads(1)  # Whatever the variable said: threads of the fork server would not survive the fork.


def leave(code: int) -> NoReturn:
    """End this process, a fork of one that has loaded all this, with its worker processes.

    The way Python ends takes everything apart that was loaded: half a second, most of it to copy the memory that the
    forks have in common.
    """
    close_engine()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


gc.freeze()  # What is loaded now is never looked at again, nor copied in the forked processes because of it.
gc.enable()
