"""What others can read: the forms in which a fingerprint leaves for another program."""

from pathlib import Path

import pytest
from media_files import picture, sample

from fingerprint_dagster.media.conformance import fingerprint_of
from fingerprint_dagster.media.registry import content_type
from fingerprint_dagster.models import ModelRuntime


@pytest.fixture(scope="module")
def models() -> ModelRuntime:
    return ModelRuntime(device="cpu")


def forms(name: str, path: Path, models: ModelRuntime) -> dict[str, str]:
    plugin = content_type(name)
    return plugin.interchange(fingerprint_of(plugin, path, models))


def test_a_picture_has_pdq_phash_and_iscc(models: ModelRuntime) -> None:
    told = forms("image", picture("coffee.png"), models)
    assert set(told) == {"pdq", "phash", "iscc"}
    assert (len(told["pdq"]), len(told["phash"])) == (64, 16)
    assert told["iscc"].startswith("ISCC:EEA")


def test_a_song_has_what_fpcalc_prints_and_its_iscc(models: ModelRuntime) -> None:
    told = forms("audio", sample("audio/demo.mp3"), models)
    assert told["iscc"] == "ISCC:EIAWUJFCEZZOJYVD"
    assert told["chromaprint"].startswith("AQAA")


def test_a_text_has_its_iscc(models: ModelRuntime) -> None:
    from iscc_lib import gen_text_code_v0

    path = sample("text/demo.txt")
    assert forms("text", path, models) == {"iscc": gen_text_code_v0(path.read_text(encoding="utf-8"))["iscc"]}


def test_a_film_has_vpdqs_text(models: ModelRuntime) -> None:
    told = forms("video", sample("video/demo.3gp"), models)
    assert set(told) == {"vpdq"}
    lines = [line.split(",") for line in told["vpdq"].splitlines()]
    assert [int(number) for number, *_ in lines] == list(range(len(lines)))
    assert all(len(code) == 64 and 0 <= int(quality) <= 100 for _, quality, code, _ in lines)
    times = [float(time) for *_, time in lines]
    assert times == sorted(times)
    assert 59 < times[-1] < 61
