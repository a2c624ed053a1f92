"""What was registered, the batches it was split into, and the quarantine."""

import csv
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fingerprint_dagster.catalog import Batch, Catalog, Registration, default_content_id
from fingerprint_dagster.content import Failure
from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.sources import Fetcher, expand


@pytest.fixture
def fetcher(tmp_path: Path) -> Fetcher:
    return Fetcher(tmp_path / "blobs")


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "home")


@pytest.fixture
def register(catalog: Catalog, fetcher: Fetcher) -> Callable[..., Registration]:
    def register(*sources: Path | str, **options: Any) -> Registration:
        return catalog.register([str(source) for source in sources], fetcher, **options)

    return register


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


def write(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).write_text(f"the words of {name}")
    return [folder / name for name in names]


def write_list(path: Path, columns: Sequence[str], *rows: Sequence[str]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def names(catalog: Catalog, batch: str) -> list[str]:
    return [content.uri.rpartition("/")[2] for content in catalog.members(batch)]


# ---------------------------------------------------------------------- batches


def test_what_is_new_goes_into_a_new_batch_of_its_type(
    catalog: Catalog, register: Callable[..., Registration], folder: Path
) -> None:
    write(folder, "a.txt", "b.md")
    result = register(folder)
    assert result == Registration(new=2, batches=(Batch("text-000001", "text", 2),))
    assert catalog.batches() == list(result.batches)
    assert names(catalog, "text-000001") == ["a.txt", "b.md"]


def test_the_same_again_changes_nothing(catalog: Catalog, register: Callable[..., Registration], folder: Path) -> None:
    write(folder, "a.txt", "b.txt")
    first = register(folder)
    members = catalog.members("text-000001")
    assert register(folder) == Registration(unchanged=2, batches=first.batches)
    assert (catalog.batches(), catalog.members("text-000001")) == (list(first.batches), members)


def test_content_named_twice_is_registered_once(
    catalog: Catalog, register: Callable[..., Registration], folder: Path
) -> None:
    (path, *_) = write(folder, "a.txt", "b.txt", "c.txt")
    assert register(folder, path, path.as_uri(), folder, batch_sizes={"text": 2}).new == 3
    assert [batch.size for batch in catalog.batches()] == [2, 1]


def test_a_batch_holds_one_content_type(catalog: Catalog, register: Callable[..., Registration], folder: Path) -> None:
    write(folder, "a.txt", "b.jpg", "c.md", "d.wav", "e.png", "f.mp4")
    register(folder)
    assert {batch.content_type: names(catalog, batch.name) for batch in catalog.batches()} == {
        "audio": ["d.wav"],
        "image": ["b.jpg", "e.png"],
        "text": ["a.txt", "c.md"],
        "video": ["f.mp4"],
    }


def test_batches_are_no_larger_than_asked_for(
    catalog: Catalog, register: Callable[..., Registration], folder: Path
) -> None:
    write(folder, *(f"{number}.txt" for number in range(7)), "a.jpg", "b.jpg")
    result = register(folder, batch_sizes={"text": 3})
    assert [(batch.content_type, batch.size) for batch in result.batches] == [
        ("text", 3),
        ("text", 3),
        ("text", 1),
        ("image", 2),
    ]
    assert [
        name for batch in result.batches if batch.content_type == "text" for name in names(catalog, batch.name)
    ] == [f"{number}.txt" for number in range(7)]


def test_new_content_does_not_touch_the_old_batches(
    catalog: Catalog, register: Callable[..., Registration], folder: Path
) -> None:
    write(folder, "a.txt")
    (old,) = register(folder).batches
    write(folder, "b.txt")
    result = register(folder)
    assert (result.new, result.unchanged) == (1, 1)
    assert [batch.name for batch in result.batches] == ["text-000001", "text-000002"]
    assert (names(catalog, old.name), catalog.batches([old.name])) == (["a.txt"], [old])


@pytest.mark.parametrize("change", ["bytes", "time"])
def test_a_changed_file_moves_to_a_new_batch(
    catalog: Catalog, register: Callable[..., Registration], folder: Path, change: str
) -> None:
    path, _ = write(folder, "a.txt", "b.txt")
    register(folder)
    if change == "bytes":
        path.write_text("something else")
    else:
        os.utime(path, (1, 1))
    result = register(folder)
    assert (result.new, result.unchanged) == (1, 1)
    assert names(catalog, "text-000001") == ["b.txt"]
    assert names(catalog, "text-000002") == ["a.txt"]


def test_a_changed_row_of_a_list_moves_to_a_new_batch(
    catalog: Catalog, register: Callable[..., Registration], folder: Path
) -> None:
    write(folder, "a.txt", "b.txt")
    rows = write_list(folder / "list.csv", ["uri", "title"], ["a.txt", "A"], ["b.txt", "B"])
    register(rows)
    write_list(rows, ["uri", "title"], ["a.txt", "A"], ["b.txt", "Beta"])
    assert register(rows).new == 1
    assert [(content.metadata, content.uri[-5:]) for content in catalog.members("text-000002")] == [
        ({"title": "Beta"}, "b.txt")
    ]


def test_a_content_id_that_stands_for_another_file_now_moves_with_it(
    catalog: Catalog, register: Callable[..., Registration], folder: Path
) -> None:
    write(folder, "a.txt", "b.txt")
    rows = write_list(folder / "list.csv", ["uri", "content_id"], ["a.txt", "x"])
    register(rows)
    write_list(rows, ["uri", "content_id"], ["b.txt", "x"])
    register(rows)
    assert names(catalog, "text-000001") == []
    assert names(catalog, "text-000002") == ["b.txt"]


def test_a_missing_file_is_registered_and_again_when_it_has_come(
    catalog: Catalog, register: Callable[..., Registration], folder: Path
) -> None:
    rows = write_list(folder / "list.csv", ["uri"], ["a.txt"])
    assert register(rows).new == 1
    assert register(rows).unchanged == 1
    write(folder, "a.txt")
    assert register(rows).new == 1
    assert names(catalog, "text-000002") == ["a.txt"]


def test_a_batch_that_does_not_exist_is_a_usage_error(catalog: Catalog) -> None:
    with pytest.raises(UsageError, match="no batch 'text-000009'"):
        catalog.members("text-000009")
    assert catalog.batches(["text-000009"]) == []


def test_a_batch_remembers_the_versions_it_was_stored_under(
    catalog: Catalog, register: Callable[..., Registration], folder: Path
) -> None:
    write(folder, "a.txt")
    register(folder)
    catalog.stored("text-000001", "recipe 1")
    assert catalog.batches() == [Batch("text-000001", "text", 1, "recipe 1")]


# ---------------------------------------------------------------------- contents


def test_the_content_id_is_derived_from_the_uri_or_given(
    catalog: Catalog, register: Callable[..., Registration], folder: Path
) -> None:
    one, two = write(folder, "a.txt", "b.txt")
    register(write_list(folder / "list.csv", ["uri", "content_id"], ["a.txt", ""], ["b.txt", "mine"]))
    assert [(content.content_id, content.uri) for content in catalog.members("text-000001")] == [
        (default_content_id(one.as_uri()), one.as_uri()),
        ("mine", two.as_uri()),
    ]
    assert len(default_content_id(one.as_uri())) == 32


def test_the_other_columns_of_a_list_are_kept_as_metadata(
    catalog: Catalog, register: Callable[..., Registration], folder: Path
) -> None:
    write(folder, "a.txt")
    register(write_list(folder / "list.csv", ["uri", "year", "títle", "empty"], ["a.txt", "007", "Größe", ""]))
    (content,) = catalog.members("text-000001")
    assert content.metadata == {"year": "007", "títle": "Größe"}


def test_the_content_type_of_a_list_goes_before_the_name_and_the_bytes(
    catalog: Catalog, register: Callable[..., Registration], folder: Path
) -> None:
    write(folder, "a.jpg")
    register(write_list(folder / "list.csv", ["uri", "content_type"], ["a.jpg", "text"]))
    assert [batch.content_type for batch in catalog.batches()] == ["text"]


def test_without_an_ending_the_bytes_tell_the_type(
    catalog: Catalog, register: Callable[..., Registration], folder: Path
) -> None:
    (folder / "README").write_text("It was a dark and stormy night; the rain fell in torrents.")
    register(folder)
    assert [batch.content_type for batch in catalog.batches()] == ["text"]


def test_a_plugins_ending_and_batch_size_count(
    catalog: Catalog, register: Callable[..., Registration], folder: Path, waveform: Any
) -> None:
    write(folder, *(f"{number}.WFM" for number in range(101)))
    assert [(batch.name, batch.size) for batch in register(folder).batches] == [
        ("waveform-000001", 100),
        ("waveform-000002", 1),
    ]


def test_a_list_that_names_an_unknown_type_is_a_usage_error_and_registers_nothing(
    catalog: Catalog, register: Callable[..., Registration], folder: Path
) -> None:
    write(folder, "a.txt")
    rows = write_list(folder / "list.csv", ["uri", "content_type"], ["a.txt", ""], ["a.txt", "smell"])
    with pytest.raises(UsageError, match="unknown content type 'smell'"):
        register(rows)
    assert (catalog.batches(), catalog.sources()) == ([], [])


def test_a_source_that_does_not_exist_is_a_usage_error(register: Callable[..., Registration], folder: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        register(folder / "nowhere")


# ---------------------------------------------------------------------- sources


def test_sources_are_remembered_by_their_absolute_path(
    catalog: Catalog, register: Callable[..., Registration], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "a.txt")
    (folder / "names").write_text("a.txt\n")
    monkeypatch.chdir(folder)
    register("a.txt", "@names", ".", "a.txt", "https://example.org/a.txt?x=1")
    assert sorted(catalog.sources()) == sorted(
        [f"{folder}/a.txt", f"@{folder}/names", str(folder), "https://example.org/a.txt?x=1"]
    )
    monkeypatch.chdir("/")
    again = register(*catalog.sources())
    assert again.new == 0


def test_sources_need_not_be_remembered(catalog: Catalog, register: Callable[..., Registration], folder: Path) -> None:
    write(folder, "a.txt")
    assert register(folder, remember=False).new == 1
    assert catalog.sources() == []


# ---------------------------------------------------------------------- quarantine


def failure(content_id: str, reason: str = "broken") -> Failure:
    return Failure(content_id, f"file:///{content_id}", "decode", reason, False)


def test_the_quarantine_of_a_batch_is_what_was_last_recorded(catalog: Catalog) -> None:
    catalog.record("text-000001", [failure("a"), failure("b")])
    catalog.record("text-000002", [failure("c")])
    catalog.record("text-000001", [failure("b", "worse")])
    assert catalog.quarantined() == [("text-000001", failure("b", "worse")), ("text-000002", failure("c"))]
    assert catalog.quarantined(["text-000002"]) == [("text-000002", failure("c"))]
    catalog.record("text-000001", [])
    assert catalog.quarantined(["text-000001"]) == []


def test_changed_content_leaves_the_quarantine(
    catalog: Catalog, register: Callable[..., Registration], folder: Path
) -> None:
    path, _ = write(folder, "a.txt", "b.txt")
    register(folder)
    failures = [
        Failure(content.content_id, content.uri, "decode", "broken", True) for content in catalog.members("text-000001")
    ]
    catalog.record("text-000001", failures)
    path.write_text("repaired")
    register(folder)
    assert catalog.quarantined() == [("text-000001", failures[1])]


def test_content_of_no_type_is_in_quarantine_until_it_has_one(
    catalog: Catalog, register: Callable[..., Registration], folder: Path
) -> None:
    path = folder / "something"
    path.write_bytes(b"\x00\xff\x01\xfe" * 100)
    expected = Failure(
        default_content_id(path.as_uri()),
        path.as_uri(),
        "register",
        "unsupported format: no content type recognises its name or its bytes",
        False,
    )
    assert register(folder) == Registration(unrecognised=(expected,))
    assert register(folder) == Registration(unrecognised=(expected,))
    assert catalog.quarantined() == [("", expected)]
    path.write_text("It was a dark and stormy night; the rain fell in torrents.")
    assert register(folder).new == 1
    assert catalog.quarantined() == []


# ---------------------------------------------------------------------- homes, processes, large lists


def test_the_catalog_of_a_home_is_there_again(catalog: Catalog, fetcher: Fetcher, folder: Path) -> None:
    write(folder, "a.txt")
    catalog.register([str(folder)], fetcher)
    again = Catalog(catalog.path.parent)
    assert (again.batches(), again.sources()) == (catalog.batches(), [str(folder)])
    assert again.members("text-000001") == catalog.members("text-000001")


@pytest.mark.parametrize("obstacle", ["a file", "below a file", "no database"])
def test_a_wrong_home_is_a_usage_error(tmp_path: Path, obstacle: str) -> None:
    home = tmp_path / "home"
    if obstacle == "no database":
        home.mkdir()
        (home / "catalog.sqlite").write_text("This is no database at all. " * 100)
    else:
        home.touch()
    with pytest.raises(UsageError, match=r"home .* cannot be used: .*; set FINGERPRINT_HOME to another"):
        Catalog(home / "deeper" if obstacle == "below a file" else home)


def _register(barrier: threading.Barrier, home: Path, folder: Path) -> None:
    barrier.wait(60)
    Catalog(home).register([str(folder)], Fetcher(home / "blobs"), batch_sizes={"text": 50})


def test_processes_that_register_at_once_lose_nothing_and_make_nothing_twice(folder: Path, tmp_path: Path) -> None:
    write(folder, *(f"{number:03d}.txt" for number in range(230)))
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    processes = [context.Process(target=_register, args=(barrier, tmp_path / "home", folder)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    catalog = Catalog(tmp_path / "home")
    batches = catalog.batches()
    members = {batch.name: names(catalog, batch.name) for batch in batches}
    assert sorted(name for each in members.values() for name in each) == [f"{number:03d}.txt" for number in range(230)]
    assert {name: len(each) for name, each in members.items()} == {batch.name: batch.size for batch in batches}


def test_a_registration_that_another_process_was_faster_with_makes_no_batch(
    catalog: Catalog, folder: Path, fetcher: Fetcher
) -> None:
    write(folder, "a.txt", "b.txt")

    class Overtaken(Fetcher):
        """Another process registers the same while this one looks at the first file."""

        overtaken = False

        def validator(self, uri: str) -> str:
            if not self.overtaken:
                self.overtaken = True
                Catalog(catalog.path.parent).register([str(folder)], fetcher)
            return super().validator(uri)

    # In the middle of a registration, after it has looked which contents are known.
    result = catalog.register([str(folder)], Overtaken(folder.parent / "blobs"))
    assert result == Registration(unchanged=2, batches=(Batch("text-000001", "text", 2),))
    assert catalog.batches() == [Batch("text-000001", "text", 2)]


def test_a_list_of_twenty_thousand_rows(catalog: Catalog, register: Callable[..., Registration], folder: Path) -> None:
    columns, count = ["uri", "content_id", "title"], 20_000
    rows = folder / "list.csv"
    write_list(rows, columns, *([f"https://example.org/{n}.jpg", f"id {n}", f"title {n}"] for n in range(count)))
    assert register(rows, batch_sizes={"image": 5000}).new == count
    assert [batch.size for batch in catalog.batches()] == [5000] * 4
    assert register(rows).unchanged == count
    # All of them fail, and all of them change: none of this may take time that grows with the square.
    for batch in catalog.batches():
        catalog.record(batch.name, [failure(content.content_id) for content in catalog.members(batch.name)])
    write_list(rows, columns, *([f"https://example.org/{n}.jpg", f"id {n}", f"other {n}"] for n in range(count)))
    assert register(rows, batch_sizes={"image": 5000}).new == count
    assert catalog.quarantined() == []


# ---------------------------------------------------------------------- changes


def test_what_a_folder_has_no_more_is_marked_until_it_is_there_again(
    catalog: Catalog, register: Callable[..., Registration], folder: Path
) -> None:
    write(folder, "a.txt", "b.txt")
    register(folder)
    (folder / "b.txt").unlink()
    assert register(folder).removed == 1
    (gone,) = catalog.changes()
    assert (gone.uri.rpartition("/")[2], gone.removed) == ("b.txt", True)
    assert register(folder).removed == 0, "it is marked once"
    write(folder, "b.txt")
    register(folder)
    assert catalog.changes() == []


def test_what_another_source_still_lists_is_not_gone(
    catalog: Catalog, register: Callable[..., Registration], folder: Path
) -> None:
    write(folder, "a.txt", "b.txt")
    rows = write_list(folder / "list.csv", ["uri"], ["a.txt"], ["b.txt"])
    register(folder / "a.txt", folder / "b.txt", rows)
    write_list(rows, ["uri"], ["a.txt"])
    assert register(rows).removed == 0
    assert catalog.changes() == []


def test_a_part_of_a_listing_marks_nothing(catalog: Catalog, fetcher: Fetcher, folder: Path) -> None:
    write(folder, "a.txt", "b.txt")
    catalog.register([str(folder)], fetcher)
    first = next(expand(str(folder), fetcher))
    catalog.register_listed(str(folder), [first], fetcher, seen=time.time())
    assert catalog.changes() == []


def test_other_bytes_behind_the_same_address_are_another_version(
    catalog: Catalog, register: Callable[..., Registration], folder: Path
) -> None:
    (path,) = write(folder, "a.txt")
    register(path)
    (content,) = catalog.members("text-000001")
    assert catalog.note("text-000001", {content.content_id: "aa"}, []) == []
    assert catalog.note("text-000001", {content.content_id: "aa"}, []) == []
    assert catalog.note("text-000001", {content.content_id: "bb"}, []) == [content.content_id]
    assert [(each.content_id, each.version, each.removed) for each in catalog.changes()] == [
        (content.content_id, 2, False)
    ]
    path.write_text("something else, and longer")
    assert register(path).changed == 1


# ---------------------------------------------------------------------- choosing batches


def test_batches_are_chosen_by_what_they_hold_and_when_they_were_made(
    catalog: Catalog, register: Callable[..., Registration], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    write(tmp_path / "one", "a.txt", "a.jpg")
    before = time.time()
    register(tmp_path / "one")
    between = time.time()
    write(tmp_path / "two", "b.txt")
    rows = write_list(tmp_path / "rows.csv", ["uri"], ["two/b.txt"])
    register(rows)
    text, image, second = (batch.name for batch in sorted(catalog.batches(), key=lambda each: each.name[-1:]))

    def chosen(**options: Any) -> set[str]:
        return {batch.name for batch in catalog.select(**options)}

    assert chosen() == {text, image, second}
    assert chosen(content_type="image") == {batch.name for batch in catalog.batches() if batch.content_type == "image"}
    assert chosen(since=between) == chosen(collection=str(rows)) == chosen(collection=(tmp_path / "two").as_uri())
    assert chosen(until=between) == chosen(collection=str(tmp_path / "one"))
    assert len(chosen(since=between)) == 1
    assert chosen(until=before) == chosen(collection="s3://elsewhere/") == set()
    for batch in chosen():
        catalog.stored(batch, "any")
    assert chosen(failed=True) == set()
    (content,) = catalog.members(second)
    catalog.record(second, [Failure(content.content_id, content.uri, "decode", "damaged", False)])
    assert chosen(failed=True) == {second}
