"""What kill -9, a power cut and a full disk leave of a run, and what the same command makes of it: see `campaign`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from disks import missing

pytestmark = pytest.mark.slow

HERE = Path(__file__).resolve().parent
# The long form takes about an hour of one core. `python tests/recovery` is the same, with more to choose.
LONG = bool(os.environ.get("FINGERPRINT_LONG_TESTS"))
TIMES = 200 if LONG else 5
ON_DISKS = 100 if LONG else 4


def hurt(folder: Path, site: Path, times: int, kinds: list[str]) -> dict[str, dict[str, int]]:
    """The counts of a campaign in which these kinds happen by turns."""
    report = folder / "counts.json"
    command = [sys.executable, str(HERE), "--times", str(times), "--site", str(site), "--json", str(report)]
    seed = ["--seed", os.environ.get("FINGERPRINT_TEST_SEED", "1"), "--in-a-row", "6" if LONG else "2"]
    done = subprocess.run(
        [*command, *seed, "--folder", str(folder / "campaign"), "--kinds", *kinds],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts: dict[str, dict[str, int]] = json.loads(report.read_text())
    return counts


def test_after_kills_every_content_is_stored_once_and_nothing_hangs(waveform_package, tmp_path: Path):
    kinds = ["everything", "run", "worker"]
    counts = hurt(tmp_path, waveform_package.site, TIMES, [*kinds * 8, "step"] if LONG else kinds)
    assert all(counts["done"][kind] for kind in kinds)


def test_after_a_kill_of_the_daemon_the_next_one_ends_its_backfill(waveform_package, tmp_path: Path):
    counts = hurt(tmp_path, waveform_package.site, 20 if LONG else 1, ["daemon"])
    assert counts["done"]["daemon"]


@pytest.mark.skipif(bool(missing()), reason=missing() or "-")
def test_after_power_cuts_and_full_disks_every_content_is_stored_once(waveform_package, tmp_path: Path):
    counts = hurt(tmp_path, waveform_package.site, ON_DISKS, ["power", "memo full", "store full", "home full"])
    assert all(counts["done"].values())
