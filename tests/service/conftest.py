"""Services on a home of their own, closed after the test."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fingerprint_dagster import FingerprintService
from fingerprint_dagster.settings import Settings


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., list[str]]:
    """Write waveforms and name their files: `write("1 2", "3 crash")`."""
    folder = tmp_path / "files"
    folder.mkdir()

    def write(*words: str) -> list[str]:
        paths = []
        for each in words:
            paths.append(folder / f"{len(list(folder.iterdir())):03d}.wfm")
            paths[-1].write_text(f"WAVEFORM\n{each}\n")
        return [str(path) for path in paths]

    return write


Make = Callable[..., Any]


@pytest.fixture
def settings(home: Path) -> Callable[..., Settings]:
    """Settings on the test's home: one worker, web servers on this machine allowed; others can be given."""

    def make(**given: Any) -> Settings:
        return Settings(**{"home": home, "workers": 1, "device": "cpu", "allowed_networks": ("127.0.0.0/8",), **given})

    return make


@pytest.fixture
def service(settings: Callable[..., Settings], waveform: Any) -> Make:
    """`async with service(workers=2) as it:` a service of the content type `waveform` and the built-in ones."""

    @asynccontextmanager
    async def make(**given: Any) -> AsyncIterator[FingerprintService]:
        async with FingerprintService(settings(**given)) as it:
            yield it

    return make


Test = Callable[..., Coroutine[Any, Any, None]]
