"""What becomes of runs when the services that launch them are killed (kill -9), all or one, and started again."""

import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from running import environment, fingerprint, free_port, wait_until, webserver
from test_launcher import launch
from test_runs import children_of_home
from test_webserver import add_partitions, statuses

from fingerprint_dagster.catalog import Catalog
from fingerprint_dagster.index.store import open_store
from fingerprint_dagster.pipeline import fetcher_of
from fingerprint_dagster.settings import get_settings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not os.environ.get("FINGERPRINT_LONG_TESTS"), reason="takes minutes; set FINGERPRINT_LONG_TESTS"
    ),
]

LIVES = int(os.environ.get("FINGERPRINT_TEST_KILLS", "6"))
BATCHES = 12
# What to kill, and by what it is known: "" is everything. What is left of the services then stops; runs go on.
ROLES = {"everything": "", "daemon": "dagster._daemon", "run server": "jobs.run_server", "code": "dagster api grpc"}


def pids(home: Path, mark: str) -> list[int]:
    """The processes of this home whose command line holds the mark."""
    return [pid for pid in children_of_home(home) if mark.encode() in command_line(pid)]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        return b"-"


def kill(home: Path, mark: str) -> None:
    for pid in pids(home, mark):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def test_no_run_is_lost_and_none_goes_on_for_ever(waveform, home: Path, tmp_path: Path):
    chance = random.Random(int(os.environ.get("FINGERPRINT_TEST_SEED", "1")))
    folder = tmp_path / "waves"
    folder.mkdir()
    for number in range(BATCHES):
        (folder / f"{number}.wfm").write_text(f"WAVEFORM\n{number} 2 3\n")
    registered = Catalog(home).register([str(folder)], fetcher_of(get_settings()), batch_sizes={"waveform": 1})
    batches = [batch.name for batch in registered.batches]
    variables = environment(home, FINGERPRINT_RUNS="2", PYTHONPATH=os.environ["PYTHONPATH"])
    add_partitions(home, batches)
    yaml = home / "dagster" / "dagster.yaml"
    yaml.write_text(yaml.read_text().replace("poll_interval_seconds: 15", "poll_interval_seconds: 2"))
    runs: list[str] = []
    killed: Counter[str] = Counter()
    for life in range(LIVES + 1):
        port = free_port()
        command = [sys.executable, "-m", "fingerprint_dagster", "ui", "--port", str(port)]
        with webserver(command, variables, tmp_path, port, tmp_path / "ui.log") as server:
            if not runs:
                runs = [launch(server, batch) for batch in batches]
            if life < LIVES:
                # While the runs start, or go on, or what the last kill left of them is found out and started again.
                time.sleep(chance.uniform(0, 15))
                role = list(ROLES)[life % len(ROLES)]
                kill(home, ROLES[role])
                killed[role] += 1
            else:
                wait_until(
                    lambda server=server: set(statuses(server)) <= {"SUCCESS", "FAILURE", "CANCELED"},
                    "every run to end",
                    seconds=600,
                )
    done = fingerprint(home, "run", folder, PYTHONPATH=os.environ["PYTHONPATH"])
    assert done.returncode == 0, done.stdout
    assert open_store(get_settings().store_uri).count() == {"waveform": BATCHES}
    assert not Catalog(home).quarantined()
    assert killed.total() == LIVES
