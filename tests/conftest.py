"""Fixtures that tests of several folders share."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from fingerprint_dagster.media.registry import content_types
from fingerprint_dagster.settings import get_settings

TESTS = Path(__file__).resolve().parent

_waveform_servers: set[int | None] = {None}
"""The processes of fork servers that were started while the content type `waveform` was there."""

# What an example may take depends on the machine and what else it does.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files with slow tests first: of several processes none is left alone with them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder as the home of every setting read in the test."""
    folder = tmp_path / "home"
    monkeypatch.setenv("FINGERPRINT_HOME", str(folder))
    get_settings.cache_clear()
    yield folder
    get_settings.cache_clear()


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of published test vectors of the algorithms."""
    folder = Path(os.environ.get("FINGERPRINT_VECTORS") or TESTS.parents[1] / "shared" / "vectors")
    if not folder.is_dir():
        pytest.skip(f"no test vectors in {folder}: name their folder in FINGERPRINT_VECTORS")
    return folder


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of a real S3 server (moto), on loopback."""
    moto = pytest.importorskip("moto.server")
    running = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    yield "http://{}:{}".format(*running.get_host_and_port())
    running.stop()


@pytest.fixture
def s3_bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The empty bucket `bucket`, as boto3 gives it, on the server that the environment names."""
    boto3 = pytest.importorskip("boto3")
    values = {"ACCESS_KEY_ID": "me", "SECRET_ACCESS_KEY": "secret", "REGION": "us-east-1", "ENDPOINT_URL": s3_server}
    for name, value in values.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.delenv("AWS_SKIP_SIGNATURE", raising=False)
    bucket = boto3.resource("s3", region_name="us-east-1", endpoint_url=s3_server).create_bucket(Bucket="bucket")
    yield bucket
    bucket.objects.all().delete()
    bucket.delete()


@dataclass(frozen=True)
class Waveform:
    """The installed content type `waveform`; `calls` is the file its calls are written to."""

    site: Path
    calls: Path

    def count(self, stage: str) -> int:
        """How often that stage was called since the test began or `forget` was called."""
        return sum(line.startswith(f"{stage} ") for line in self.calls.read_text().splitlines())

    def counts(self) -> dict[str, int]:
        """The calls of the three stages."""
        return {stage: self.count(stage) for stage in ("decode", "embed", "hash")}

    def warm(self, stage: str) -> list[bool]:
        """For each call of that stage, whether its process had the warm module when it began."""
        lines = [line.split() for line in self.calls.read_text().splitlines()]
        return [words[-1] == "warm" for words in lines if words[0] == stage]

    def forget(self) -> None:
        """Count from zero."""
        self.calls.write_text("")


@pytest.fixture(scope="session")
def waveform_package(tmp_path_factory: pytest.TempPathFactory) -> Waveform:
    """The package of the content type `waveform`, installed by pip into a folder of its own."""
    folder = tmp_path_factory.mktemp("waveform")
    shutil.copytree(TESTS / "packages" / "waveform_plugin", folder / "source")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", folder / "site", folder / "source"]
    subprocess.run(command, check=True)
    return Waveform(folder / "site", folder / "calls")


@pytest.fixture
def waveform(waveform_package: Waveform, monkeypatch: pytest.MonkeyPatch) -> Iterator[Waveform]:
    """The content type `waveform`, there in this process and in those it starts, for the time of the test."""
    monkeypatch.setenv("WAVEFORM_CALLS", str(waveform_package.calls))
    monkeypatch.setenv("FINGERPRINT_DECODER_FOLDERS", str(waveform_package.calls.parent))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(waveform_package.site), str(TESTS.parent)]))
    monkeypatch.syspath_prepend(waveform_package.site)
    content_types.cache_clear()
    server = forkserver._forkserver  # type: ignore[attr-defined]
    if server._forkserver_pid not in _waveform_servers:
        # Worker processes have the environment that their fork server was started with; let it start anew.
        # It ends when they have ended.
        engine = sys.modules.get("fingerprint_dagster.resources.engine")
        if engine is not None:
            engine.close_engine()
        server._stop()
    waveform_package.forget()
    yield waveform_package
    _waveform_servers.add(server._forkserver_pid)
    content_types.cache_clear()
