"""How far the stages are, told by many processes and read by one."""

import multiprocessing
import time
from pathlib import Path

import pytest

from fingerprint_dagster.progress import VARIABLE, ProgressReader, reporter


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "progress"))
    return tmp_path / "progress"


def test_what_is_reported_is_read_once(path: Path) -> None:
    reader = ProgressReader(path)
    assert list(reader.news()) == []
    reporter("image-000001", "decode", 3)(3)
    reporter("größe", "hash", 7)(7)
    assert list(reader.news()) == [("image-000001", "decode", 3), ("größe", "hash", 7)]
    assert list(reader.news()) == []
    reporter("image-000001", "embed", 3)(3)
    assert list(reader.news()) == [("image-000001", "embed", 3)]


def test_a_line_that_is_half_written_is_read_when_it_is_whole(path: Path) -> None:
    reader = ProgressReader(path)
    path.write_text('["b", "decode", 1]\n["b", "dec')
    assert list(reader.news()) == [("b", "decode", 1)]
    with path.open("a") as file:
        file.write('ode", 2]\n')
    assert list(reader.news()) == [("b", "decode", 2)]


def test_a_fast_stage_reports_seldom_but_always_its_end(path: Path) -> None:
    report = reporter("b", "hash", 10_000)
    for done in range(1, 10_001):
        report(done)
    news = list(ProgressReader(path).news())
    assert news[-1] == ("b", "hash", 10_000)
    assert len(news) < 1000


def test_a_slow_stage_reports_every_content(path: Path) -> None:
    report = reporter("b", "decode", 3)
    for done in (1, 2, 3):
        report(done)
        time.sleep(0.11)
    assert [done for *_, done in ProgressReader(path).news()] == [1, 2, 3]


def test_where_nobody_watches_nothing_is_written(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE)
    reporter("b", "decode", 1)(1)
    assert list(tmp_path.iterdir()) == []


def _report(batch: str) -> None:
    for done in range(200):
        reporter(batch, "decode", done)(done)


def test_lines_of_many_processes_do_not_mix(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_report, args=(f"batch {number}",)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    news = list(ProgressReader(path).news())
    for number in range(3):
        assert [done for batch, _, done in news if batch == f"batch {number}"] == list(range(200))
