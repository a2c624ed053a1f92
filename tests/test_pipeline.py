"""The way of a batch through the stages, with a real content type from a package of its own."""

import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fingerprint_dagster.content import Content, Failure, Fingerprint
from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.index.exact import ExactStore
from fingerprint_dagster.media.registry import content_type
from fingerprint_dagster.memo import Memo, open_memo
from fingerprint_dagster.models import ModelRuntime
from fingerprint_dagster.pipeline import Limits, Pipeline
from fingerprint_dagster.settings import Settings, get_settings
from fingerprint_dagster.sources import Fetcher, Guard
from fingerprint_dagster.stages import StageResult, code_version, recipe

GIB = 1 << 30
STAGES = ("decode", "embed", "hash")

pytestmark = pytest.mark.usefixtures("waveform")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., list[Content]]:
    """Write waveforms and name them: `write("1 2", "3 crash")`."""
    (tmp_path / "files").mkdir()

    def write(*words: str, **metadata: Any) -> list[Content]:
        contents = []
        for each in words:
            path = tmp_path / "files" / f"{len(list((tmp_path / 'files').iterdir())):03d}.wfm"
            path.write_text(f"WAVEFORM\n{each}\n")
            contents.append(Content(path.stem, path.as_uri(), "waveform", metadata))
        return contents

    return write


def path_of(content: Content) -> Path:
    return Path(content.uri.removeprefix("file://"))


@pytest.fixture
def memo(tmp_path: Path) -> Memo:
    return open_memo(str(tmp_path / "memo"), max_bytes=GIB, ttl_seconds=86400.0)


@pytest.fixture
def make(tmp_path: Path, memo: Memo) -> Iterator[Callable[..., Pipeline]]:
    """A new pipeline on the test's memo, or on another; closed after the test."""
    made = []

    def make(memo: Memo = memo, *, timeout_seconds: float = 30.0, retry: bool = False) -> Pipeline:
        fetcher = Fetcher(tmp_path / "blobs", guard=Guard(allowed_networks=("127.0.0.0/8",)))
        limits = Limits(timeout_seconds, 2 * GIB, decoder_folders=Settings().decoder_folders)
        made.append(Pipeline(fetcher, memo, ModelRuntime("cpu"), workers=2, limits=limits, retry=retry))
        return made[-1]

    yield make
    for pipeline in made:
        pipeline.close()


@pytest.fixture
def pipeline(make: Callable[..., Pipeline]) -> Pipeline:
    return make()


def run(pipeline: Pipeline, contents: Sequence[Content]) -> dict[str, StageResult]:
    """Everything up to the hash stage."""
    results = {"download": pipeline.download(contents)}
    entries = results["download"].entries
    for stage in STAGES:
        results[stage] = pipeline.run(stage, entries)
        entries = results[stage].entries
    return results


def counts(results: dict[str, StageResult]) -> dict[str, tuple[int, int]]:
    return {stage: (result.computed, result.reused) for stage, result in results.items()}


def sketches(pipeline: Pipeline, contents: Sequence[Content]) -> list[Any]:
    """What the fingerprints hold, as plain data that can be compared; of a failure, its reason."""
    return [
        each.reason
        if isinstance(each, Failure)
        else [(c.algorithm, c.values.tolist()) for c in each.sketch.components] + [dict(each.sketch.info)]
        for each in pipeline.fingerprints(contents)
    ]


# ---------------------------------------------------------------------- what is computed, and what is not


def test_the_first_run_computes_every_stage_once(pipeline: Pipeline, write: Any, waveform: Any) -> None:
    results = run(pipeline, write("1", "2", "3"))
    assert counts(results) == dict.fromkeys(results, (3, 0))
    assert waveform.counts() == {"decode": 3, "embed": 3, "hash": 3}


def test_decoding_is_done_in_other_processes(pipeline: Pipeline, write: Any, waveform: Any) -> None:
    run(pipeline, write("1", "2"))
    pids = {line.split()[0]: line.split()[2] for line in waveform.calls.read_text().splitlines()}
    assert pids["decode"] != str(os.getpid())
    assert pids["embed"] == pids["hash"] == str(os.getpid())


def test_a_second_run_computes_nothing(make: Callable[..., Pipeline], write: Any, waveform: Any) -> None:
    contents = write("1", "2", "3")
    first = run(make(), contents)
    waveform.forget()
    second = run(make(), contents)
    assert counts(second) == dict.fromkeys(second, (0, 3))
    assert waveform.calls.read_text() == ""
    assert [each.entries for each in first.values()] == [each.entries for each in second.values()]


def test_a_second_run_in_another_process_computes_nothing(
    home: Path, write: Any, waveform: Any, tmp_path: Path
) -> None:
    write("1", "2", "3")
    script = """
        import sys
        from pathlib import Path

        from fingerprint_dagster.content import Content
        from fingerprint_dagster.pipeline import Pipeline
        from fingerprint_dagster.settings import Settings, get_settings

        contents = [Content(path.stem, path.as_uri(), "waveform") for path in sorted(Path(sys.argv[1]).iterdir())]
        with Pipeline.from_settings(get_settings()) as pipeline:
            print([fingerprint.key for fingerprint in pipeline.fingerprints(contents)])
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "files")]
    first = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert waveform.counts() == {"decode": 3, "embed": 3, "hash": 3}
    waveform.forget()
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == first
    assert waveform.calls.read_text() == ""
    assert home.is_dir()


@pytest.mark.parametrize("stage", STAGES)
def test_a_new_version_of_a_stage_recomputes_it_and_those_below_and_none_above(
    make: Callable[..., Pipeline], write: Any, waveform: Any, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    contents = write("1", "2")
    before = run(make(), contents)
    waveform.forget()
    monkeypatch.setenv(f"WAVEFORM_{stage.upper()}_VERSION", "2")
    after = run(make(), contents)
    below = STAGES[STAGES.index(stage) :]
    assert waveform.counts() == {each: 2 if each in below else 0 for each in STAGES}
    assert {each: result.computed for each, result in after.items()} == {
        each: 2 if each in below else 0 for each in after
    }
    for each in before:
        assert (before[each].data_version == after[each].data_version) == (each not in below)


def test_the_old_version_is_still_there_when_one_goes_back_to_it(
    make: Callable[..., Pipeline], write: Any, waveform: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = write("1", "2")
    run(make(), contents)
    with monkeypatch.context() as newer:
        newer.setenv("WAVEFORM_DECODE_VERSION", "2")
        run(make(), contents)
    waveform.forget()
    run(make(), contents)
    assert waveform.calls.read_text() == ""


def test_new_parameters_of_a_stage_are_like_a_new_version(
    make: Callable[..., Pipeline], write: Any, waveform: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = write("1.5", "2.5")
    before = sketches(make(), contents)
    waveform.forget()
    monkeypatch.setenv("WAVEFORM_BINS", "10")
    assert sketches(make(), contents) != before
    assert waveform.counts() == {"decode": 0, "embed": 0, "hash": 2}


@pytest.mark.parametrize("variable", ["DECODE_VERSION", "EMBED_VERSION", "HASH_VERSION", "BINS"])
def test_the_recipe_of_a_content_type_tells_all_versions_and_parameters(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    before = recipe(content_type("waveform"))
    assert before == recipe(content_type("waveform"))
    monkeypatch.setenv(f"WAVEFORM_{variable}", "2")
    assert recipe(content_type("waveform")) != before


def test_the_code_version_of_a_stage_tells_versions_and_parameters_of_all_types(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WAVEFORM_HASH_VERSION", "7")
    monkeypatch.setenv("WAVEFORM_BINS", "9")
    versions = code_version("hash").split(", ")
    assert 'waveform=7{"bins": 9}' in versions
    assert {"image", "audio", "video", "text", "waveform"} == {each.partition("=")[0] for each in versions}
    assert "waveform=1" in code_version("decode").split(", ")


def test_equal_bytes_under_two_uris_are_worked_on_once(
    make: Callable[..., Pipeline], write: Any, waveform: Any
) -> None:
    pipeline = make()
    results = run(pipeline, write("1", "1", "2", "1"))
    assert counts(results) == {"download": (4, 0), "decode": (2, 2), "embed": (2, 2), "hash": (2, 2)}
    assert waveform.counts() == {"decode": 2, "embed": 2, "hash": 2}
    keys = [entry.key for entry in results["hash"].entries]
    assert keys[0] == keys[1] == keys[3] != keys[2]
    waveform.forget()
    run(make(), write("2"))
    assert waveform.counts() == dict.fromkeys(STAGES, 0)


def test_a_file_is_read_again_only_when_its_size_or_time_changed(
    make: Callable[..., Pipeline], write: Any, waveform: Any
) -> None:
    contents = write("1", "2", "3")
    first = run(make(), contents)
    waveform.forget()
    os.utime(path_of(contents[0]), (1, 1))
    path_of(contents[1]).write_text("WAVEFORM\n22")
    second = run(make(), contents)
    assert waveform.count("sniff") == 2
    assert counts(second) == {"download": (2, 1), "decode": (1, 2), "embed": (1, 2), "hash": (1, 2)}
    changed = [
        one.digest != other.digest for one, other in zip(first["hash"].entries, second["hash"].entries, strict=True)
    ]
    assert changed == [False, True, False]


@pytest.mark.parametrize("validator", [None, "ETag", "Last-Modified"])
def test_changed_web_content_is_noticed(make: Callable[..., Pipeline], waveform: Any, validator: str | None) -> None:
    """With a validator the server is asked whether it changed; without one it is downloaded again."""
    bodies = {"1": b"WAVEFORM\n1", "2": b"WAVEFORM\n2"}
    state = {"version": "1"}
    sent: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("If-None-Match") or self.headers.get("If-Modified-Since")
            sent.append(304 if validator and asked == state["version"] else 200)
            self.send_response(sent[-1])
            if validator:
                self.send_header(validator, state["version"])
            self.end_headers()
            if sent[-1] == 200:
                self.wfile.write(bodies[state["version"]])

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        contents = [Content("a", f"http://127.0.0.1:{server.server_port}/a.wfm", "waveform")]
        first = run(make(), contents)
        again = run(make(), contents)
        state["version"] = "2"
        changed = run(make(), contents)
        server.shutdown()
    assert sent == [200, 304 if validator else 200, 200]
    assert counts(again)["download"] == (0, 1)
    assert [each.data_version for each in first.values()] == [each.data_version for each in again.values()]
    for stage in first:
        assert first[stage].data_version != changed[stage].data_version
    assert waveform.counts() == dict.fromkeys(STAGES, 2)


def test_many_contents_pass_in_order(pipeline: Pipeline, write: Any) -> None:
    contents = write(*(str(number) for number in range(150)))
    fingerprints = pipeline.fingerprints(contents)
    assert [each.content for each in fingerprints if isinstance(each, Fingerprint)] == contents
    tokens = [int(each.component("waveform_tokens_v1").values[0]) for each in fingerprints]  # type: ignore[union-attr]
    assert tokens == [number * 1000 for number in range(150)]


def test_an_empty_batch_is_no_work(pipeline: Pipeline) -> None:
    assert counts(run(pipeline, [])) == dict.fromkeys(("download", *STAGES), (0, 0))
    assert pipeline.fingerprints([]) == []


def test_progress_reaches_the_end_where_every_content_has_failed(pipeline: Pipeline, write: Any) -> None:
    told: list[int] = []
    entries = pipeline.run("decode", pipeline.download(write("bad")).entries).entries
    for stage in ("embed", "hash"):
        told.clear()
        entries = pipeline.run(stage, entries, told.append).entries
        assert told == [1]


def test_progress_is_reported_up_to_the_number_of_contents(pipeline: Pipeline, write: Any) -> None:
    told: list[int] = []
    contents = write(*(["1", "2", "3", "4", "5", "5", "bad"]))
    entries = pipeline.download(contents, told.append).entries
    assert told[-1] == 7
    for stage in STAGES:
        told.clear()
        entries = pipeline.run(stage, entries, told.append).entries
        assert told == sorted(told)
        assert told[-1] == 7


# ---------------------------------------------------------------------- the memo is a cache, not the truth


def test_values_evicted_in_mid_run_are_made_again(make: Callable[..., Pipeline], write: Any, tmp_path: Path) -> None:
    contents = write(*(f"{number} {number + 1}" for number in range(30)))
    plenty = sketches(make(), contents)
    for uri in (str(tmp_path / "tiny"), "memory://"):
        tiny = open_memo(uri, max_bytes=1500, ttl_seconds=86400.0)
        assert sketches(make(tiny), contents) == plenty
        assert sum(usage.bytes for usage in tiny.usage().values()) <= 1500


@pytest.mark.parametrize("kept", ["decode", "embed", "hash"])
def test_any_stage_may_be_cleared_between_two_stages(
    make: Callable[..., Pipeline], write: Any, memo: Memo, kept: str
) -> None:
    pipeline = make()
    contents = write("1", "2")
    results = run(pipeline, contents)
    for stage in {*STAGES} - {kept}:
        memo.clear(stage)
    store = ExactStore()
    stored = pipeline.store(store, results["hash"].entries)
    assert (stored.computed, stored.failures) == (2, [])
    assert len(store.get([content.content_id for content in contents])) == 2


def test_a_memo_in_memory_gives_the_same(make: Callable[..., Pipeline], write: Any, waveform: Any) -> None:
    contents = write("1", "2", "bad")
    on_disk = sketches(make(), contents)
    memory = open_memo("memory://", max_bytes=GIB, ttl_seconds=86400.0)
    assert sketches(make(memory), contents) == on_disk
    waveform.forget()
    assert sketches(make(memory), contents) == on_disk
    assert waveform.calls.read_text() == ""


def test_a_content_that_changed_after_its_download_fails_for_now(pipeline: Pipeline, write: Any) -> None:
    contents = write("1", "2")
    entries = pipeline.download(contents).entries
    path_of(contents[0]).write_text("WAVEFORM\n3")
    (failure,) = pipeline.run("decode", entries).failures
    assert (failure.stage, failure.reason, failure.retryable) == (
        "decode",
        "changed while it was being fingerprinted",
        True,
    )


def test_a_value_that_cannot_be_made_again_is_a_failure_of_its_own_stage(
    pipeline: Pipeline, write: Any, memo: Memo
) -> None:
    contents = write("1 moody", "2")
    entries = pipeline.run("decode", pipeline.download(contents).entries).entries
    memo.clear("decode")
    path_of(contents[0]).with_suffix(".mood").touch()
    result = pipeline.run("embed", entries)
    assert result.failures == [Failure("000", contents[0].uri, "decode", "not now, not ever", False)]
    assert len(result.passed) == 1


def test_the_memo_knows_its_decoded_arrays(pipeline: Pipeline, write: Any, memo: Memo) -> None:
    entries = run(pipeline, write("1 2", "3"))["decode"].entries
    assert [value.arrays["samples"].tolist() for value in pipeline.decoded(entries)] == [[1.0, 2.0], [3.0]]
    memo.clear("decode")
    assert pipeline.decoded(entries) == []


# ---------------------------------------------------------------------- trouble

TROUBLE = {
    "crash": ("decode", "the decoder crashed (SIGSEGV)", False),
    "hang": ("decode", "took longer than 2 s", True),
    "bad": ("decode", "the waveform is bad", False),
    "oom": ("decode", "needs more than the 2048 MiB of memory a decoder may use", False),
    "decode-error": ("decode", "the decoder failed: RuntimeError: the decoder stumbled", False),
    "embed-error": ("embed", "RuntimeError: the model stumbled", False),
    "embed-junk": ("embed", "TypeError: Object of type set is not JSON serializable", False),
    "hash-error": ("hash", "ValueError: no hash for this", False),
    "hash-junk": ("hash", "TypeError: Object of type set is not JSON serializable", False),
}


def test_every_trouble_is_one_failure_and_harms_no_other(make: Callable[..., Pipeline], write: Any) -> None:
    good = write(*(str(number) for number in range(20)))
    expected = sketches(make(), good)
    troubled = dict(zip(TROUBLE, write(*(f"7 {word}" for word in TROUBLE)), strict=True))
    batch = [*good[:10], *troubled.values(), *good[10:]]
    memory = open_memo("memory://", max_bytes=GIB, ttl_seconds=86400.0)
    pipeline = make(memory, timeout_seconds=2.0)
    failures = {failure.content_id: failure for failure in run(pipeline, batch)["hash"].failures}
    for word, content in troubled.items():
        failure = failures.pop(content.content_id)
        assert failure == Failure(content.content_id, content.uri, *TROUBLE[word])
    assert failures == {}
    assert sketches(pipeline, good) == expected


def _damaged_files(folder: Path) -> dict[str, tuple[str, bool]]:
    """File name -> (reason, retryable), for files of which no waveform can be made."""
    Image.new("RGB", (64, 64), "red").save(folder / "picture.png")
    (folder / "picture.png").rename(folder / "picture.wfm")
    (folder / "empty.wfm").touch()
    (folder / "noise.wfm").write_bytes(b"\x00\xff\x01\xfe" * 100)
    (folder / "folder.wfm").mkdir()
    return {
        "picture.wfm": (
            "mislabelled: expected waveform, but the bytes are image/png; "
            "rename it or register it with content_type=image",
            False,
        ),
        "empty.wfm": ("the file is empty", False),
        "noise.wfm": ("unsupported format: the bytes are no waveform that can be decoded", False),
        "folder.wfm": ("a folder, not a file", False),
        "missing.wfm": ("no such file", False),
    }


def test_what_is_no_waveform_fails_in_the_download_with_the_reason(pipeline: Pipeline, tmp_path: Path) -> None:
    reasons = _damaged_files(tmp_path)
    contents = [Content(name, (tmp_path / name).as_uri(), "waveform") for name in reasons]
    results = run(pipeline, contents)
    assert [(f.content_id, f.stage, f.reason, f.retryable) for f in results["download"].failures] == [
        (name, "download", *reason) for name, reason in reasons.items()
    ]
    assert results["hash"].failures == results["download"].failures
    assert counts(results) == dict.fromkeys(results, (0, 0))


def test_a_failed_download_is_tried_again(make: Callable[..., Pipeline], write: Any, tmp_path: Path) -> None:
    (content,) = write("1")
    moved = path_of(content).rename(tmp_path / "elsewhere")
    assert len(run(make(), [content])["download"].failures) == 1
    moved.rename(path_of(content))
    assert run(make(), [content])["hash"].failures == []


@pytest.mark.parametrize("word", ["bad", "crash", "embed-error", "hash-error"])
def test_a_failure_for_good_is_remembered_and_not_tried_again(
    make: Callable[..., Pipeline], write: Any, waveform: Any, word: str
) -> None:
    contents = write("1", f"2 {word}")
    first = run(make(), contents)
    waveform.forget()
    second = run(make(), contents)
    assert waveform.calls.read_text() == ""
    assert second["hash"].failures == first["hash"].failures
    assert len(second["hash"].failures) == 1


def test_a_failure_that_may_pass_is_tried_again(make: Callable[..., Pipeline], write: Any, waveform: Any) -> None:
    contents = write("hang")
    for _ in range(2):
        waveform.forget()
        assert len(run(make(timeout_seconds=1.5), contents)["decode"].failures) == 1
        assert waveform.count("decode") == 1


@pytest.mark.parametrize("word", ["bad", "embed-error", "hash-error"])
def test_a_failure_for_good_is_tried_again_where_that_is_asked_for(
    make: Callable[..., Pipeline], write: Any, waveform: Any, word: str
) -> None:
    contents = write("1", f"2 {word}")
    first = run(make(), contents)
    stage = first["hash"].failures[0].stage
    waveform.forget()
    second = run(make(retry=True), contents)
    assert waveform.counts()[stage] >= 1
    assert second["hash"].failures == first["hash"].failures
    waveform.forget()
    run(make(), contents)
    assert waveform.calls.read_text() == "", "it is remembered anew"


def test_a_retry_that_helped_is_remembered(make: Callable[..., Pipeline], write: Any, waveform: Any) -> None:
    contents = write("1 moody")
    mood = path_of(contents[0]).with_suffix(".mood")
    mood.touch()
    assert len(run(make(), contents)["decode"].failures) == 1
    mood.unlink()
    assert len(run(make(), contents)["decode"].failures) == 1, "nobody asked to try again"
    assert run(make(retry=True), contents)["hash"].failures == []
    waveform.forget()
    assert run(make(), contents)["hash"].failures == []
    assert waveform.calls.read_text() == ""


def test_a_new_version_tries_again_what_failed_for_good(
    make: Callable[..., Pipeline], write: Any, waveform: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = write("2 bad")
    run(make(), contents)
    waveform.forget()
    monkeypatch.setenv("WAVEFORM_DECODE_VERSION", "2")
    run(make(), contents)
    assert waveform.count("decode") == 1


def test_a_content_type_that_does_not_exist_is_a_usage_error(pipeline: Pipeline, write: Any) -> None:
    with pytest.raises(UsageError, match="there are: image, audio, video, text, waveform"):
        pipeline.download([replace(write("1")[0], content_type="smell")])


# ---------------------------------------------------------------------- data versions


def test_equal_results_have_equal_data_versions(make: Callable[..., Pipeline], write: Any, tmp_path: Path) -> None:
    contents = write("1", "2", "3 bad")
    first = run(make(), contents)
    elsewhere = run(make(open_memo(str(tmp_path / "other"), max_bytes=GIB, ttl_seconds=86400.0)), contents)
    assert [each.data_version for each in first.values()] == [each.data_version for each in elsewhere.values()]
    assert len({each.data_version for each in first.values()}) == len(first)


@pytest.mark.parametrize("change", ["4", "2 bad"])
def test_another_content_or_another_failure_is_another_data_version(
    make: Callable[..., Pipeline], write: Any, change: str
) -> None:
    contents = write("1", "2", "3")
    before = run(make(), contents)
    path_of(contents[1]).write_text(f"WAVEFORM\n{change}\n")
    after = run(make(), contents)
    for stage in before:
        assert before[stage].data_version != after[stage].data_version


# ---------------------------------------------------------------------- fingerprints and the store


def test_a_fingerprint_says_what_the_bytes_are(pipeline: Pipeline, write: Any) -> None:
    (content,) = write("1 2", title="a")
    (fingerprint,) = pipeline.fingerprints([content])
    assert isinstance(fingerprint, Fingerprint)
    assert fingerprint.content == content
    assert fingerprint.size == len(path_of(content).read_bytes())
    assert fingerprint.media_type == "application/x-waveform"
    assert len(fingerprint.digest) == 64
    assert fingerprint.sketch.info["samples"] == 2


def test_fingerprints_of_several_types_at_once_come_in_order(pipeline: Pipeline, write: Any, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("To be or not to be, that is the question. " * 10)
    one, bad, two = write("1", "bad", "2")
    text = Content("text", (tmp_path / "words.txt").as_uri(), "text")
    fingerprints = pipeline.fingerprints([one, text, bad, two])
    assert [type(each) for each in fingerprints] == [Fingerprint, Fingerprint, Failure, Fingerprint]
    assert [getattr(each, "media_type", "") for each in fingerprints] == [
        "application/x-waveform",
        "text/plain",
        "",
        "application/x-waveform",
    ]


def test_storing_again_changes_nothing(make: Callable[..., Pipeline], write: Any, waveform: Any) -> None:
    pipeline, store = make(), ExactStore()
    contents = write("1", "2", "bad")
    entries = run(pipeline, contents)["hash"].entries
    first = pipeline.store(store, entries)
    assert (first.computed, first.reused, len(first.failures)) == (2, 0, 1)
    keys = store.keys(["000", "001", "002"])
    assert sorted(keys) == ["000", "001"]
    waveform.forget()
    second = make().store(store, entries)
    assert (second.computed, second.reused, len(second.failures)) == (0, 2, 1)
    assert store.keys(["000", "001", "002"]) == keys
    assert second.data_version == first.data_version
    assert waveform.calls.read_text() == ""


def test_what_is_stored_is_what_was_fingerprinted(pipeline: Pipeline, write: Any) -> None:
    store = ExactStore()
    contents = write("1 2", "3")
    pipeline.store(store, run(pipeline, contents)["hash"].entries)
    for stored, made in zip(store.get(["000", "001"]), pipeline.fingerprints(contents), strict=True):
        assert isinstance(made, Fingerprint)
        assert (stored.content, stored.digest, stored.size, stored.key) == (
            made.content,
            made.digest,
            made.size,
            made.key,
        )
        for one, other in zip(stored.sketch.components, made.sketch.components, strict=True):
            np.testing.assert_array_equal(one.values, other.values)


@pytest.mark.parametrize("change", [{"metadata": {"title": "new"}}, {"uri": "file:///somewhere/else.wfm"}])
def test_a_changed_record_is_stored_again(pipeline: Pipeline, write: Any, waveform: Any, change: Any) -> None:
    store = ExactStore()
    contents = write("1", "2", title="old")
    entries = list(run(pipeline, contents)["hash"].entries)
    pipeline.store(store, entries)
    entries[0] = replace(entries[0], content=replace(contents[0], **change))
    waveform.forget()
    result = pipeline.store(store, entries)
    assert (result.computed, result.reused) == (1, 1)
    assert [each.content for each in store.get(["000", "001"])] == [entries[0].content, contents[1]]
    assert waveform.calls.read_text() == ""


def test_the_settings_make_a_pipeline(home: Path, monkeypatch: pytest.MonkeyPatch, write: Any) -> None:
    monkeypatch.setenv("FINGERPRINT_WORKERS", "1")
    monkeypatch.setenv("FINGERPRINT_TIMEOUT_SECONDS", "12.5")
    monkeypatch.setenv("FINGERPRINT_DECODE_MEMORY_BYTES", str(3 * GIB))
    monkeypatch.setenv("FINGERPRINT_SANDBOX", "false")
    settings = get_settings()
    with Pipeline.from_settings(settings) as pipeline:
        assert (pipeline.workers, pipeline.limits) == (1, Limits(12.5, 3 * GIB, False, settings.decoder_folders))
        assert isinstance(pipeline.fingerprints(write("1"))[0], Fingerprint)
    assert (home / "memo").is_dir()


def test_a_closed_pipeline_can_be_used_again(pipeline: Pipeline, write: Any) -> None:
    run(pipeline, write("1"))
    pipeline.close()
    pipeline.close()
    assert run(pipeline, write("2"))["hash"].failures == []


def test_entries_are_plain_data_that_json_can_show(pipeline: Pipeline, write: Any) -> None:
    (entry,) = run(pipeline, write("1"))["hash"].entries
    assert json.loads(json.dumps([entry.key, entry.digest, entry.size, entry.media_type]))


def test_many_contents_decoded_in_forked_processes_all_reach_the_memo(tmp_path: Path, memo: Memo) -> None:
    """SQLite spills into temporary files, whose folder it chose in the parent, where decoders may not write."""
    contents = []
    for number in range(400):
        path = tmp_path / f"{number}.txt"
        path.write_text(" ".join(f"word{number * place % 977}" for place in range(600)))
        contents.append(Content(path.stem, path.as_uri(), "text"))
    memo.contains(["00"])  # SQLite is at work in this process before the workers are forked from it
    limits = Limits(30.0, 2 * GIB)
    with Pipeline(Fetcher(tmp_path / "blobs"), memo, ModelRuntime("cpu"), workers=1, limits=limits) as pipeline:
        assert [each for each in pipeline.fingerprints(contents) if not isinstance(each, Fingerprint)] == []


# ---------------------------------------------------------------------- worker processes


def pids(waveform: Any, stage: str) -> set[int]:
    lines = [line.split() for line in waveform.calls.read_text().splitlines()]
    return {int(words[2]) for words in lines if words[0] == stage}


def test_many_contents_are_hashed_in_the_worker_processes(pipeline: Pipeline, write: Any, waveform: Any) -> None:
    contents = write(*(f"{number}" for number in range(40)))
    assert run(pipeline, contents)["hash"].failures == []
    assert waveform.count("hash") == 40
    assert os.getpid() not in pids(waveform, "hash")
    assert pids(waveform, "hash") <= pids(waveform, "decode")  # They were there already.


def test_trouble_in_hashing_is_one_failure_also_among_many(pipeline: Pipeline, write: Any) -> None:
    words = [f"{number}" for number in range(40)]
    words[7], words[8], words[30] = "7 hash-error", "8 hash-junk", "30 hash-crash"
    results = run(pipeline, write(*words))
    reasons = {failure.content_id: failure.reason for failure in results["hash"].failures}
    assert reasons.keys() == {"007", "008", "030"}
    assert reasons["007"] == "ValueError: no hash for this"
    assert reasons["008"].startswith("TypeError")
    assert reasons["030"] == "the decoder crashed (SIGSEGV)"
    assert {failure.stage for failure in results["hash"].failures} == {"hash"}


def test_what_was_evicted_before_hashing_is_made_again(make: Callable[..., Pipeline], write: Any, memo: Memo) -> None:
    pipeline = make()
    contents = write(*(f"{number}" for number in range(30)))
    entries = pipeline.run("decode", pipeline.download(contents).entries).entries
    entries = pipeline.run("embed", entries).entries
    memo.clear("decode")
    result = pipeline.run("hash", entries)
    assert (result.computed, len(result.failures)) == (30, 0)


def test_a_content_that_needs_more_memory_than_its_share_is_decoded_alone(
    tmp_path: Path, memo: Memo, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Limits, "memory_of_each", lambda self, workers: 1 << 28)
    contents = write("1 2", "3 megabytes 1000", "4", "5 megabytes 8000")
    limits = Limits(30.0, 2 * GIB, decoder_folders=Settings().decoder_folders)
    with Pipeline(Fetcher(tmp_path / "blobs"), memo, ModelRuntime("cpu"), workers=2, limits=limits) as pipeline:
        failures = run(pipeline, contents)["decode"].failures
    assert [(each.content_id, each.reason) for each in failures] == [
        ("003", "needs more than the 2048 MiB of memory a decoder may use")
    ]


@pytest.mark.parametrize(("workers", "gib"), [(1, 8), (1000, 1)])
def test_the_memory_of_all_decoders_together_is_bounded_by_the_machines(workers: int, gib: int) -> None:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Limits(decode_memory_bytes=8 * GIB).memory_of_each(workers)
    assert limit == min(gib * GIB, max(GIB, machine * 3 // 4 // workers))


def test_worker_processes_started_early_serve_the_first_batch(pipeline: Pipeline, write: Any, waveform: Any) -> None:
    pipeline.start()
    assert run(pipeline, write("1", "2"))["hash"].failures == []


# ---------------------------------------------------------------------- memos of several machines


class Counting:
    """A memo of another machine: worker processes cannot reach it. Counts its calls."""

    def __init__(self, memo: Memo) -> None:
        self.memo = memo
        self.shared = False
        self.folders: Sequence[Path] = ()
        self.calls: list[tuple[str, int]] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.memo, name)

        def counted(*arguments: Any) -> Any:
            if arguments:
                self.calls.append((name, len(arguments[-1])))
            return method(*arguments)

        return counted


def test_a_memo_that_the_workers_cannot_reach_is_asked_for_many_values_at_once(
    make: Callable[..., Pipeline], write: Any, memo: Memo
) -> None:
    counting = Counting(memo)
    contents = write(*(f"{number}" for number in range(200)))
    results = run(make(counting), contents)
    assert counts(results)["hash"] == (200, 0)
    puts = [size for name, size in counting.calls if name == "put_many"]
    assert sum(puts) == 4 * 200
    assert len(counting.calls) < 50
    assert sketches(make(), contents) == sketches(make(counting), contents)
