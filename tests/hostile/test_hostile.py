"""Hostile inputs cost one content each: no request, no file elsewhere, no crash of the run, always a reason.

All classes of inputs, the large ones too, go through the whole pipeline in `benchmarks/hostile.py`.
"""

import contextlib
import io
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import fuzz
import hostile_inputs as hostile
import pytest
import seeds
from attempts import Attempt, Canary, Writes, outcome_of, straight_into_decoders, through_pipeline
from hostile_inputs import Hostile

from fingerprint_dagster.errors import ContentError, UsageError
from fingerprint_dagster.media.audio.decode import decode_audio
from fingerprint_dagster.media.text import decode as text
from fingerprint_dagster.media.video.decode import decode as decode_video
from fingerprint_dagster.settings import Settings
from fingerprint_dagster.sources import expand, to_uri
from fingerprint_dagster.sources.archive import Archive


@pytest.fixture(scope="module")
def canary() -> Iterator[Canary]:
    server = Canary()
    yield server
    server.close()


def harmless(inputs: list[Hostile], folder: Path, canary: Canary) -> Attempt:
    """Decode them, and check what must hold for all."""
    settings = Settings(home=folder / "home", timeout_seconds=20, workers=2, decode_memory_bytes=2 << 30)
    with Writes([folder, Path(tempfile.gettempdir())]) as writes:
        attempt = through_pipeline(inputs[0].kind, inputs, folder / "inputs", settings, whole=False)
    assert attempt.tried == len(inputs)
    assert not canary.requests
    assert not writes.outside
    assert {path.name for path in folder.iterdir()} == {"home", "inputs"}
    assert not Path(hostile.OUTSIDE).exists()
    assert not attempt.unrefused
    assert attempt.outcomes["escape"] == 0, attempt.bad
    return attempt


QUICK: dict[str, Callable[[str], Iterator[Hostile]]] = {
    "picture bombs": lambda _: hostile.picture_bombs(large=False),
    "false lengths of sound and video": lambda _: hostile.false_durations(large=False),
    "nested and cyclic containers": lambda _: hostile.broken_containers(),
    "playlists that point inwards": hostile.playlists,
    "references inside media": hostile.references,
    "polyglots": lambda _: hostile.polyglots(),
    "rich text": lambda _: hostile.rich_texts(large=False),
    "subtitles": lambda _: hostile.subtitles(large=False),
    "XML bombs and references": lambda address: islice(hostile.xml_bombs(address), 24),
}
SLOW: dict[str, Callable[[str], Iterator[Hostile]]] = {
    "compressed blocks in pictures": lambda _: hostile.compressed_profiles(),
    "endless animations": lambda _: hostile.endless_animations(large=False),
    "ZIP bombs": lambda _: hostile.zip_bombs(large=False),
    "XML bombs and references": hostile.xml_bombs,
    "PDF bombs and actions": lambda address: hostile.pdfs(address, large=False),
    "web pages": lambda address: hostile.web_pages(address, large=False),
    "odd texts": lambda _: hostile.odd_texts(large=False),
    "mislabelled": lambda _: hostile.mislabelled(),
    "damaged": lambda _: hostile.damaged(large=False),
}


@pytest.mark.parametrize("kind", QUICK)
def test_hostile_inputs_end_in_quarantine_or_are_read(kind: str, tmp_path: Path, canary: Canary) -> None:
    attempt = harmless([*QUICK[kind](canary.address)], tmp_path, canary)
    assert attempt.outcomes["read"] + attempt.outcomes["refused"] == attempt.tried, attempt.bad


@pytest.mark.slow
@pytest.mark.parametrize("kind", SLOW)
def test_heavy_hostile_inputs_cost_one_content_each(kind: str, tmp_path: Path, canary: Canary) -> None:
    harmless([*SLOW[kind](canary.address)], tmp_path, canary)


def test_decoders_follow_no_reference_even_where_nothing_confines_them(tmp_path: Path, canary: Canary) -> None:
    inputs = [*hostile.playlists(canary.address), *hostile.references(canary.address)]
    attempt = straight_into_decoders("references", inputs, tmp_path / "inputs", sandbox=False)
    assert attempt.tried == len(inputs)
    assert not canary.requests
    assert attempt.outcomes["read"] + attempt.outcomes["refused"] == attempt.tried, attempt.bad


def test_the_canary_notes_a_request(canary: Canary) -> None:
    import urllib.request

    server = Canary()
    with pytest.raises(OSError):  # noqa: PT011  # it closes the connection
        urllib.request.urlopen(f"{server.address}/x", timeout=5)
    assert server.requests == ["GET /x HTTP/1.1"]
    server.close()


def test_writes_elsewhere_are_noted(tmp_path: Path) -> None:
    (tmp_path / "allowed").mkdir()
    with Writes([tmp_path / "allowed"]) as writes:
        (tmp_path / "allowed" / "a").write_text("a")
        (tmp_path / "b").write_text("b")
    assert writes.outside == [f"open {(tmp_path / 'b').resolve()}"]


def test_members_of_archives_stay_in_them(tmp_path: Path, canary: Canary) -> None:
    (tmp_path / "archives").mkdir()
    with Writes([tmp_path, Path(tempfile.gettempdir())]) as writes:
        for name, data in hostile.archives(large=False).items():
            path = tmp_path / "archives" / name
            path.write_bytes(data)
            with contextlib.suppress(ContentError):
                archive = Archive(path, "zip" if name.endswith(".zip") else "tar")
                for member in islice(archive.members(), 50):
                    with contextlib.suppress(ContentError):
                        assert sum(map(len, archive.read(member.name, 1 << 20))) <= 1 << 20
    assert not writes.outside
    assert not Path(hostile.OUTSIDE).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["archives"]


# -------------------- fuzzing


def test_mutated_inputs_do_not_escape(tmp_path: Path) -> None:
    tally = fuzz.run(0, 4000, tmp_path / "escapes")
    assert tally.inputs == 4000
    assert not tally.escapes, (tmp_path / "escapes" / "escapes.txt").read_text()
    names = {name for name, _ in tally.outcomes}
    assert {"image", "audio", "video", "text", "zip members", "tar members", "car", "unixfs", "value"} <= names
    assert all(tally.outcomes[name, "read"] for name in ("image", "audio", "video", "text"))


def test_input_of_a_number_is_always_the_same() -> None:
    data = bytes(range(200))
    once = [fuzz.mutated(data, data, (b"token",), fuzz.random.Random(number)) for number in range(200)]
    again = [fuzz.mutated(data, data, (b"token",), fuzz.random.Random(number)) for number in range(200)]
    assert once == again
    assert len(set(once)) > 190


def _fails(path: Path) -> object:
    first = path.read_bytes()[0]
    if first == ord("c"):
        fuzz.os.abort()
    if first == ord("m"):
        return bytearray(8 << 30)
    while first == ord("h"):
        pass
    raise (KeyError if first == ord("k") else ContentError)("x")


def test_escapes_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = {
        name: fuzz.Target(_fails, {name: name.encode()}, ()) for name in ("crash", "memory", "hang", "key", "good")
    }
    monkeypatch.setattr(fuzz, "targets", lambda: targets)
    monkeypatch.setattr(fuzz, "CPU_SECONDS", 0.2)
    monkeypatch.setattr(fuzz.Inputs, "of", lambda self, n: ([*targets][n], [*targets][n], [*targets][n].encode()))
    tally = fuzz.run(0, 5, tmp_path)
    assert {escape.target: escape.what.partition(":")[0] for escape in tally.escapes} == {
        "crash": "SIGABRT",
        "memory": "memory",
        "hang": "hang",
        "key": "KeyError",
    }
    assert (tmp_path / "3-key-key").read_bytes() == b"key"


# -------------------- what was found this way


def test_a_member_without_a_name_is_left_out(tmp_path: Path) -> None:
    data = seeds.packed({"a": b"text", "b.txt": b"text"}, zipfile.ZIP_STORED)
    at = data.index(b"PK\1\2")
    nameless = data[: at + 28] + b"\0\0" + data[at + 30 : at + 46] + data[at + 47 :]
    end = nameless.rindex(b"PK\5\6")
    size = int.from_bytes(nameless[end + 12 : end + 16], "little") - 1
    (tmp_path / "a.zip").write_bytes(nameless[: end + 12] + struct.pack("<I", size) + nameless[end + 16 :])
    assert [member.name for member in Archive(tmp_path / "a.zip", "zip").members()] == ["b.txt"]


def test_a_member_that_needs_too_much_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.zip").write_bytes(seeds.packed({"a.txt": b"text"}))
    archive = Archive(tmp_path / "a.zip", "zip")

    def no_memory(*_: object) -> Any:
        raise MemoryError

    monkeypatch.setattr(archive._open, "open", no_memory)
    with pytest.raises(ContentError, match="cannot be read"):
        [*archive.read("a.txt", 100)]


def test_a_document_packed_in_damaged_lzma_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        for name, content in seeds.docx_entries().items():
            archive.writestr(name, content)
    data = bytearray(file.getvalue())
    at = data.index(b"word/document.xml") + 17 + 9
    data[at : at + 20] = b"\xff" * 20
    (tmp_path / "a.docx").write_bytes(data)
    with pytest.raises(ContentError, match="damaged document"):
        text.documents.docx_text(tmp_path / "a.docx")


@pytest.mark.parametrize("address", ["file://[/a", "file://]/a", "FILE://[::1/a"])
def test_brackets_in_the_address_of_a_file(address: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="local file"):
        to_uri(address)
    (tmp_path / "a.lst").write_text(f"{address}\n")
    with pytest.raises(UsageError, match="line 1"):
        [*expand(f"@{tmp_path / 'a.lst'}")]


def test_numbers_that_are_too_large_for_rich_text(tmp_path: Path) -> None:
    (tmp_path / "a.rtf").write_bytes(b"{\\rtf1 text \\u99999999999999999999 }")
    with pytest.raises(ContentError, match="damaged RTF"):
        text.decode(tmp_path / "a.rtf")


def test_a_sound_is_read_in_small_pieces_whatever_it_says(tmp_path: Path) -> None:
    from fingerprint_dagster.media.audio.decode import _READ_BYTES, _Nameless

    (tmp_path / "a").write_bytes(bytes(2 * _READ_BYTES))
    with (tmp_path / "a").open("rb") as file:
        assert len(_Nameless(file).read(2**31 - 1)) == _READ_BYTES
    block = b"wvpk" + struct.pack("<IHBBIIIII", 2**31 - 1, 0x410, 0, 0, 8000, 0, 8000, 0x04800001, 0)
    (tmp_path / "a.wv").write_bytes(block + bytes(100))
    with pytest.raises(ContentError):
        decode_audio(tmp_path / "a.wv")


def test_a_stream_may_turn_up_in_the_middle_of_a_file(tmp_path: Path) -> None:
    video, sound = seeds.video("flv", "flv", 300), seeds.sound("flv", "libmp3lame", 44100, "mono", 4.0)
    late = bytearray(video + sound[13:])  # its tags, without the header of a file
    late[4] = 0x01  # which says that there is only video
    (tmp_path / "a.flv").write_bytes(late)
    value = decode_video(tmp_path / "a.flv")
    assert value.info["duration"] == pytest.approx(12, abs=0.2)
    assert len(value.arrays["times"]) > 10


def test_ligatures_count_as_what_they_stand_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "MAX_CHARACTERS", 1000)
    (tmp_path / "a.txt").write_text("\ufdfa" * 55, encoding="utf-8")
    assert text.decode(tmp_path / "a.txt").info["characters"] == 55
    (tmp_path / "b.txt").write_text("\ufdfa" * 56, encoding="utf-8")
    with pytest.raises(ContentError, match="too long: 1008 characters"):
        text.decode(tmp_path / "b.txt")
    (tmp_path / "c.txt").write_text("가" * 900, encoding="utf-8")
    assert text.decode(tmp_path / "c.txt").info["characters"] == 900


def test_reasons_are_told_apart() -> None:
    reasons = ("took longer than 60 s", "needs more than the 8192 MiB of memory", "the decoder crashed (SIGSEGV)")
    assert [outcome_of(reason) for reason in reasons] == ["time-out", "memory", "crash"]
    assert outcome_of("the decoder failed: KeyError: 1") == "escape"
    assert outcome_of("the file is empty") == "refused"
