"""The warm module, which runs are forked from."""

import subprocess
import sys

import pytest
from running import environment

SAFE = """
import threading
import fingerprint_dagster.jobs.warm
import torch

assert threading.active_count() == 1, threading.enumerate()
assert not torch.cuda.is_initialized()
assert torch.get_num_threads() == 1
"""
LIGHT = """
import sys
import fingerprint_dagster.jobs.warm

assert "torch" not in sys.modules
assert "lancedb" not in sys.modules
assert "fingerprint_dagster.definitions" in sys.modules
"""


@pytest.mark.parametrize(("code", "models"), [(SAFE, "1"), (LIGHT, "0")])
def test_what_is_loaded_can_be_forked(home, code, models):
    variables = environment(home, FINGERPRINT_WARM_MODELS=models)
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
