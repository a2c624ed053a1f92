"""`fingerprint run`: real Dagster runs in real processes, with the content type `waveform` that counts its calls."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from media_files import picture, sample
from running import CHECKOUT, environment, fingerprint, start, wait_until

from fingerprint_dagster.catalog import Catalog
from fingerprint_dagster.index.store import open_store
from fingerprint_dagster.jobs.instance import is_running, open_instance
from fingerprint_dagster.settings import get_settings

pytestmark = pytest.mark.slow


def waves(folder: Path, *contents: str) -> Path:
    """A folder of waveforms: numbers, or a trouble to ask for."""
    folder.mkdir(exist_ok=True)
    for number, content in enumerate(contents):
        (folder / f"{number}.wfm").write_text(f"WAVEFORM\n{content}\n")
    return folder


def run(home: Path, *arguments: object, expect: int = 0, **variables: str) -> str:
    variables = {"PYTHONPATH": os.environ["PYTHONPATH"], **variables}
    done = fingerprint(home, "run", *arguments, **variables)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout


def stored() -> dict[str, int]:
    return open_store(get_settings().store_uri).count()


def run_statuses() -> list[dg.DagsterRunStatus]:
    with open_instance(get_settings()) as instance:
        return [each.status for each in instance.get_runs()]


def test_each_stage_is_computed_once_and_never_again(waveform, home, tmp_path):
    folder = waves(tmp_path / "waves", "1 2 3", "4 5 6", "1 2 3")
    first = run(home, folder)
    assert "registered 3 new contents" in first
    assert waveform.counts() == {"decode": 2, "embed": 2, "hash": 2}  # Two of the three have the same bytes.
    assert stored() == {"waveform": 3}
    assert "nothing to do" in run(home, folder)
    assert "registered 0 new contents, 3 were known" in run(home, "--again", folder)
    assert waveform.counts() == {"decode": 2, "embed": 2, "hash": 2}
    assert run_statuses() == [dg.DagsterRunStatus.SUCCESS] * 2


def test_a_new_version_of_a_stage_runs_it_and_what_is_below_it(waveform, home, tmp_path):
    folder = waves(tmp_path / "waves", "1 2 3", "4 5 6")
    run(home, folder)
    assert set(staleness(home).values()) == {"FRESH"}
    new = {"WAVEFORM_EMBED_VERSION": "2"}
    upgraded = {"download": "FRESH", "decode": "FRESH", "embed": "STALE", "hash": "STALE", "store": "STALE"}
    assert staleness(home, **new) == upgraded
    waveform.forget()
    run(home, folder, **new)
    assert waveform.counts() == {"decode": 0, "embed": 2, "hash": 2}
    assert set(staleness(home, **new).values()) == {"FRESH"}


STALENESS = """
import json
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest
import dagster as dg
from fingerprint_dagster.definitions import defs
from fingerprint_dagster.jobs.instance import open_instance
from fingerprint_dagster.settings import get_settings
from fingerprint_dagster.stages import STAGES

with open_instance(get_settings()) as instance:
    graph = defs.get_repository_def().asset_graph
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    found = {stage: resolver.get_status(dg.AssetKey(stage), "waveform-000001").value for stage in STAGES}
print(json.dumps(found))
"""


def staleness(home: Path, **variables: str) -> dict[str, str]:
    """Stage -> how the UI shows the asset of the first batch, by the code that Dagster's web server asks."""
    variables = environment(home, PYTHONPATH=os.environ["PYTHONPATH"], **variables)
    done = subprocess.run([sys.executable, "-c", STALENESS], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_several_batches_run_at_once_and_all_are_stored(waveform, home, tmp_path):
    folder = waves(tmp_path / "waves", *(f"{number} {number + 1}" for number in range(10)))
    out = run(home, "--batch-size", "3", folder, FINGERPRINT_RUNS="2")
    assert "10 contents in 4 batches" in out
    assert stored() == {"waveform": 10}
    with open_instance(get_settings()) as instance:
        records = instance.get_run_records()
        partitions = {record.dagster_run.tags["dagster/partition"] for record in records}
        spans = [(record.start_time, record.end_time) for record in records]
    assert partitions == {f"waveform-{number:06d}" for number in range(1, 5)}
    assert any(one is not other and one[0] < other[1] and other[0] < one[1] for one in spans for other in spans), (
        "no two runs overlapped"
    )


def test_steps_are_forked_from_the_warm_module(waveform, home, tmp_path):
    """Python ignores a preload that fails; then every step would silently take seconds to start."""
    run(home, waves(tmp_path / "waves", "1 2 3"))
    assert waveform.warm("embed") == [True]


def test_trouble_costs_one_content_and_is_explained(waveform, home, tmp_path):
    folder = waves(tmp_path / "waves", "1 2", "crash", "bad", "hang", "embed-error 1", "3 4")
    out = run(home, folder, FINGERPRINT_TIMEOUT_SECONDS="3")
    assert "4 in quarantine" in out
    assert stored() == {"waveform": 2}
    found = {failure.reason: (failure.stage, failure.retryable) for _, failure in Catalog(home).quarantined()}
    assert found == {
        "the decoder crashed (SIGSEGV)": ("decode", False),
        "the waveform is bad": ("decode", False),
        "took longer than 3 s": ("decode", True),
        "RuntimeError: the model stumbled": ("embed", False),
    }


def test_a_retry_tries_the_quarantined_again(waveform, home, tmp_path):
    folder = waves(tmp_path / "waves", "1 2", "bad")
    run(home, folder)
    waveform.forget()
    kept = {"PYTHONPATH": os.environ["PYTHONPATH"]}
    assert "nothing to do" in run(home, folder)
    assert waveform.count("decode") == 0
    fingerprint(home, "quarantine", "--retry", **kept)
    assert waveform.count("decode") == 1
    (folder / "1.wfm").write_text("WAVEFORM\n5 6 mended\n")
    run(home, folder)
    assert "the quarantine is empty" in fingerprint(home, "quarantine", **kept).stdout
    assert stored() == {"waveform": 2}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_cleanly_and_the_next_run_goes_on(waveform, home, tmp_path, number):
    folder = waves(tmp_path / "waves", "1 2", "hang", "3 4")
    variables = environment(home, PYTHONPATH=os.environ["PYTHONPATH"], FINGERPRINT_WORKERS="1")
    log = tmp_path / "log"
    process = start([sys.executable, "-m", "fingerprint_dagster", "run", str(folder)], variables, tmp_path, log)
    wait_until(lambda: waveform.count("decode") == 2, "the hanging content to be decoded")
    process.send_signal(number)
    assert process.wait(60) == 130, log.read_text()
    assert "run the same command again to go on" in log.read_text()
    assert "Traceback" not in log.read_text()
    ended = {dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.FAILURE}
    assert set(run_statuses()) <= ended, "the run is left as if it still went on"
    wait_until(lambda: not children_of_home(home), "every process of the run to end", seconds=30)

    run(home, folder, FINGERPRINT_TIMEOUT_SECONDS="3")
    assert stored() == {"waveform": 2}
    assert len(Catalog(home).quarantined()) == 1


def test_a_killed_run_is_marked_as_failed_and_holds_nothing_up(waveform, home, tmp_path):
    """The slot of the embed pool is the only one, and its holder is killed with no chance to give it back."""
    folder = waves(tmp_path / "waves", "1 2", "3 4")
    with open_instance(get_settings()) as instance:
        instance.event_log_storage.set_concurrency_slots("embed", 1)
    variables = environment(home, PYTHONPATH=os.environ["PYTHONPATH"], WAVEFORM_EMBED_HANGS="1")
    command = [sys.executable, "-m", "fingerprint_dagster", "run", str(folder)]
    process = start(command, variables, tmp_path, tmp_path / "log")
    wait_until(lambda: waveform.count("embed") > 0, "the embed step to hang")
    kill_all(home)
    process.wait(30)
    assert run_statuses() == [dg.DagsterRunStatus.STARTED]

    run(home, folder)
    assert sorted(status.value for status in run_statuses()) == ["FAILURE", "SUCCESS"]
    assert stored() == {"waveform": 2}
    assert waveform.count("decode") == 2  # What the killed run had decoded was not decoded again.


def test_a_killed_runner_that_nobody_has_waited_for_counts_as_dead(home):
    code = (
        "from fingerprint_dagster.jobs.instance import runner_identity; print(runner_identity(), flush=True); input()"
    )
    pipe = subprocess.PIPE
    runner = subprocess.Popen([sys.executable, "-c", code], env=environment(home), stdin=pipe, stdout=pipe, text=True)
    assert runner.stdout is not None
    identity = runner.stdout.readline().strip()
    assert is_running(identity)
    runner.kill()
    os.waitid(os.P_PID, runner.pid, os.WEXITED | os.WNOWAIT)  # It has ended, and stays in the list of processes.
    assert not is_running(identity)
    runner.wait()
    assert not is_running(identity)


def kill_all(home: Path) -> None:
    """What a power cut does to the processes of a run."""
    for pid in children_of_home(home):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def children_of_home(home: Path) -> list[int]:
    """Processes that run with this home, other than this one."""
    needle = f"FINGERPRINT_HOME={home}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if int(process.name) != os.getpid() and needle in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_a_run_that_fails_is_reported_with_its_error(waveform, home, tmp_path):
    folder = waves(tmp_path / "waves", "1 2")
    blocked = tmp_path / "a file, not a folder"
    blocked.write_text("")
    out = run(home, folder, expect=1, FINGERPRINT_STORE=str(blocked))
    assert "batch waveform-000001: run" in out
    assert "failed" in out


def test_real_media_of_all_types_find_their_copies(home, tmp_path):
    """The main path, as a user goes it: run a folder, then ask for each file what it is a copy of."""
    folder = tmp_path / "media"
    folder.mkdir()
    for path in (
        picture("coffee.png"),
        picture("chelsea.png"),
        sample("audio/demo.mp3"),
        sample("audio/demo.ogg"),
        sample("text/demo.txt"),
        sample("text/demo.html"),
        sample("video/demo.3gp"),
    ):
        shutil.copy(path, folder)
    from PIL import Image

    with Image.open(folder / "coffee.png") as image:
        image.convert("RGB").resize((300, 200)).save(folder / "small coffee.jpg", quality=60)
    done = fingerprint(home, "run", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    answer = fingerprint(home, "query", folder, "--json")
    assert answer.returncode == 0, answer.stderr
    best = {}
    for line in answer.stdout.splitlines():
        data = json.loads(line)
        name = Path(data["query"]).name
        best[name] = [Path(match["uri"]).name for match in data["matches"]]
        for match in data["matches"]:
            assert set(match) >= {"content_id", "uri", "content_type", "score", "query_range", "reference_range"}
            assert 0 < match["score"] <= 1
    assert best == {
        "coffee.png": ["small%20coffee.jpg"],
        "small%20coffee.jpg": ["coffee.png"],
        "chelsea.png": [],
        "demo.mp3": ["demo.ogg"],
        "demo.ogg": ["demo.mp3"],
        "demo.txt": ["demo.html"],
        "demo.html": ["demo.txt"],
        "demo.3gp": [],
    }


def test_the_code_location_validates_from_the_workspace_file(home):
    command = [sys.executable, "-m", "dagster", "definitions", "validate", "-w", "workspace.yaml"]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment(home), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
