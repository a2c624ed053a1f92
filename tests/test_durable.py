"""What stays on the disk: files replaced in full, and the note of a write that was cut short."""

import os
from pathlib import Path

import pytest

from fingerprint_dagster.durable import Immutable, Unfinished, sync, write_durably


def test_a_file_is_replaced_in_full_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_durably(tmp_path / "file", "a long old text")
    write_durably(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_what_is_gone_needs_no_sync(tmp_path: Path) -> None:
    sync([tmp_path, tmp_path / "gone"])


def test_only_what_was_added_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of a million contents has hundreds of files, and a put adds three."""
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    if not Path("/proc/self/fd").exists():
        pytest.skip("the system does not tell what file a descriptor is of")
    monkeypatch.setattr(os, "fsync", fsync)
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "one").touch()
    files = Immutable(tmp_path / "folder")
    files.sync()
    assert {str(tmp_path / each) for each in ("folder", "folder/deep", "folder/one")} <= set(synced)
    synced.clear()
    files.sync()
    assert synced == []
    (tmp_path / "folder" / "deep" / "two").touch()
    files.sync()
    assert set(synced) == {str(tmp_path / each) for each in ("folder/deep", "folder/deep/two")}


def test_a_note_is_there_until_the_write_ends(tmp_path: Path) -> None:
    note = Unfinished(tmp_path / "note")
    assert note.read() is None
    note.begin(41)
    assert Unfinished(tmp_path / "note").read() == (41, not Path("/proc/sys/kernel/random/boot_id").exists())
    note.begin(-1)
    assert note.read()[0] == -1  # type: ignore[index]
    note.end()
    assert note.read() is None


def test_a_note_tells_that_the_system_was_started_anew(tmp_path: Path) -> None:
    note = Unfinished(tmp_path / "note")
    note.begin(7)
    another_start(tmp_path / "note")
    assert note.read() == (7, True)


def another_start(note: Path) -> None:
    """Make the note say that it was written before the system was started."""
    version = note.read_text().split()[0]
    note.write_text(f"{version} 00000000-0000-0000-0000-000000000000".ljust(128))
