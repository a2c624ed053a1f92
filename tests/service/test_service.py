"""What the service promises: answers, caches, one computation for equal requests, failures that stay alone."""

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from media_files import picture, sample
from running import wait_until
from sources.servers import Handler, serving

from fingerprint_dagster import (
    ContentError,
    ContentType,
    FingerprintResult,
    FingerprintService,
    UsageError,
    calibration,
)
from fingerprint_dagster.calibration import Calibration, Noise
from fingerprint_dagster.duplicates.decisions import Decision, Decisions
from fingerprint_dagster.index.store import open_store
from fingerprint_dagster.models import ModelRuntime
from fingerprint_dagster.pipeline import Pipeline
from fingerprint_dagster.service import fingerprint_text


def run(work: Any) -> Any:
    """The result of a coroutine, within a minute."""
    return asyncio.run(asyncio.wait_for(work, 60))


# ---------------------------------------------------------------------- one answer


def test_an_answer_has_an_identity_a_record_and_its_time(service: Any, write: Any) -> None:
    async def ask() -> FingerprintResult:
        async with service() as it:
            return await it.generate_fingerprint(content_url=write("1 2 3")[0], content_type="waveform")

    result = run(ask())
    assert re.fullmatch(r"fp1:waveform:[0-9a-f]{32}", result.fingerprint)
    assert (result.ok, result.cached, result.layer, result.content_type) == (True, False, None, "waveform")
    assert result.processing_time_ms > 0
    assert result.record.component("waveform_tokens_v1").values.tolist() == [1000, 2000, 3000]
    assert result.to_dict()["record"]["info"] == {"samples": 3, "low_information": False}


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (picture("coffee.png"), ContentType.IMAGE),
        (sample("audio/demo.mp3"), ContentType.AUDIO),
        (sample("text/demo.txt"), ContentType.TEXT),
    ],
)
def test_its_fingerprints_are_those_of_the_pipeline(path: Path, kind: ContentType, service: Any, settings: Any) -> None:
    """Equal to the last bit, so that what either has computed serves the other."""

    async def ask() -> FingerprintResult:
        async with service() as it:
            return await it.generate_fingerprint(str(path), kind)

    result = run(ask())
    with Pipeline.from_settings(settings(memo="memory://")) as pipeline:
        (expected,) = pipeline.fingerprints([result.record.content])
    assert result.record.key == expected.key
    for one, other in zip(result.record.sketch.components, expected.sketch.components, strict=True):
        assert (one.algorithm, one.kind) == (other.algorithm, other.kind)
        assert one.values.tobytes() == other.values.tobytes()
    assert dict(result.record.sketch.info) == dict(expected.sketch.info)


def test_the_content_type_may_be_left_to_the_bytes(service: Any, tmp_path: Path) -> None:
    async def ask() -> list[str | None]:
        async with service() as it:
            results = await it.batch_generate_fingerprints([str(tmp_path / name) for name in names])
            return [each.content_type for each in results]

    names = ["picture", "sound.dat", "text.unknown", "picture.txt"]
    for name, source in zip(
        names, ["image/demo.png", "audio/demo.mp3", "text/demo.txt", "image/demo.jpg"], strict=True
    ):
        (tmp_path / name).write_bytes(sample(source).read_bytes())
    assert run(ask()) == ["image", "audio", "text", "image"]


def test_equal_identities_mean_equal_bytes_and_equal_versions(
    service: Any, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, same, other = write("1 2", "1 2", "1 3")

    async def ask(*paths: str) -> list[str]:
        async with service() as it:
            return [each.fingerprint for each in await it.batch_generate_fingerprints(paths)]

    first, again, different = run(ask(one, same, other))
    assert first == again != different
    monkeypatch.setenv("WAVEFORM_HASH_VERSION", "2")
    assert run(ask(one)) != [first]


def test_bytes_can_be_given_instead_of_an_address(service: Any) -> None:
    async def ask() -> tuple[FingerprintResult, Any]:
        async with service() as it:
            result = await it.generate_fingerprint("a b.wfm", data=b"WAVEFORM\n1 2 3 4")
            return result, await it.search("c.wfm", data=b"WAVEFORM\n1 2 3")

    result, copies = run(ask())
    assert re.fullmatch(r"upload:[0-9a-f]{16}/a%20b\.wfm", result.content_url)
    assert [(match.reference.uri, match.score) for match in copies] == [(result.content_url, 0.75)]


def test_a_wrong_request_is_a_usage_error(service: Any, write: Any) -> None:
    async def ask(*arguments: Any) -> None:
        async with service() as it:
            await it.generate_fingerprint(*arguments)

    with pytest.raises(UsageError, match="unknown content type 'hologram'"):
        run(ask(write("1")[0], "hologram"))
    with pytest.raises(ContentError, match="no such file") as caught:
        run(ask("/no/such/file.wfm"))
    assert (caught.value.stage, caught.value.retryable) == ("download", False)


def test_a_closed_service_says_so(service: Any, write: Any) -> None:
    async def ask() -> None:
        async with service() as it:
            pass
        await it.close()
        with pytest.raises(UsageError, match="closed"):
            await it.generate_fingerprint(write("1")[0])

    run(ask())


def test_what_is_closed_while_it_starts_leaves_nothing_running(settings: Any) -> None:
    before = set(threading.enumerate())

    async def ask() -> None:
        it = FingerprintService(settings())
        starting = asyncio.ensure_future(it.load_models())
        await asyncio.sleep(0)  # It is in another thread now.
        starting.cancel()
        await it.close()

    run(ask())
    wait_until(lambda: set(threading.enumerate()) <= before, "the service's threads to end")


def test_it_works_from_several_event_loops_and_from_a_notebooks_running_one(service: Any, write: Any) -> None:
    """A notebook awaits in a loop that runs already; a thread may have one of its own."""
    path = write("1 2")[0]

    async def ask() -> None:
        async with service() as it:
            first = await it.generate_fingerprint(path)
            there = await asyncio.to_thread(lambda: asyncio.run(it.generate_fingerprint(path, use_cache=False)))
            assert there.fingerprint == first.fingerprint

    run(ask())


def test_loading_the_models_tells_where_they_run(service: Any) -> None:
    async def ask() -> None:
        async with service() as it:
            assert it.get_cache_stats()["device"] == "cpu"
            assert await it.load_models() == ModelRuntime("cpu", threads=1).describe()

    run(ask())


# ---------------------------------------------------------------------- the caches


def test_an_answer_is_given_from_memory_then_from_the_memo(service: Any, write: Any, waveform: Any) -> None:
    path = write("1 2")[0]

    async def ask() -> list[Any]:
        async with service() as it:
            layers = [(await it.generate_fingerprint(path)).layer for _ in range(3)]
            assert it.clear_cache() == 1
            layers.append((await it.generate_fingerprint(path)).layer)
            stats = it.get_cache_stats()
            assert (stats["cache_size"], stats["memory_hits"], stats["memo_hits"], stats["misses"]) == (1, 2, 1, 1)
            assert stats["hit_rate"] == 0.75
            assert stats["bytes"] > 0
        async with service() as it:
            layers.append((await it.generate_fingerprint(path)).layer)
            layers.append((await it.generate_fingerprint(path, use_cache=False)).layer)
            assert it.clear_cache(memo=True) > 0
            layers.append((await it.generate_fingerprint(path)).layer)
        return layers

    assert run(ask()) == [None, "memory", "memory", "memo", "memo", None, None]
    assert waveform.count("decode") == 3


def test_answers_leave_the_memory_when_their_time_is_over(service: Any, write: Any) -> None:
    path = write("1 2")[0]

    async def ask() -> None:
        async with service(cache_ttl_seconds=0.3) as it:
            await it.generate_fingerprint(path)
            await asyncio.sleep(0.4)
            assert it.get_cache_stats()["cache_size"] == 0
            assert (await it.generate_fingerprint(path)).layer == "memo"
            assert it.get_cache_stats()["expired"] == 1

    run(ask())


def test_the_memory_has_a_size_cap(service: Any, write: Any) -> None:
    paths = write(*(f"{number}" for number in range(20)))

    async def ask() -> None:
        async with service(cache_max_bytes=20_000) as it:
            await it.batch_generate_fingerprints(paths)
            stats = it.get_cache_stats()
            assert 0 < stats["bytes"] <= 20_000
            assert stats["cache_size"] + stats["evictions"] == 20
            assert stats["evictions"] > 0

    run(ask())


def test_a_changed_file_is_noticed(service: Any, write: Any) -> None:
    path = Path(write("1 2")[0])

    async def ask() -> None:
        async with service() as it:
            before = await it.generate_fingerprint(str(path))
            path.write_text("WAVEFORM\n1 2 3")
            after = await it.generate_fingerprint(str(path))
            assert (after.cached, after.record.sketch.info["samples"]) == (False, 3)
            assert after.fingerprint != before.fingerprint

    run(ask())


class Page:
    """A page of a web server: `body`, with an ETag where `tagged`. sent: how often the body was sent."""

    def __init__(self, body: bytes, tagged: bool = True) -> None:
        self.body, self.tagged, self.sent = body, tagged, 0

    def __call__(self, request: Handler) -> None:
        etag = f'"{hash(self.body)}"' if self.tagged else None
        if etag and request.headers.get("If-None-Match") == etag:
            request.send(status=304, ETag=etag, Content_Length=None)
        else:
            self.sent += 1
            request.send(self.body, ETag=etag)


@pytest.mark.parametrize("tagged", [True, False])
def test_a_web_server_is_asked_whether_its_content_has_changed(tagged: bool, service: Any) -> None:
    page = Page(b"WAVEFORM\n1 2", tagged)

    async def ask(url: str) -> None:
        async with service() as it:
            answers = [await it.generate_fingerprint(url, "waveform") for _ in range(3)]
            assert [each.layer for each in answers] == [None, "memory", "memory"]
            assert page.sent == (1 if tagged else 3)
            page.body = b"WAVEFORM\n1 2 3"
            changed = await it.generate_fingerprint(url, "waveform")
            assert (changed.cached, changed.record.sketch.info["samples"]) == (False, 3)

    with serving(page) as server:
        run(ask(f"{server.base}/a"))


def test_a_web_server_is_not_asked_for_as_long_as_an_answer_is_fresh(service: Any) -> None:
    with serving(Page(b"WAVEFORM\n1 2")) as server:

        async def ask() -> None:
            async with service(cache_fresh_seconds=60.0) as it:
                for _ in range(3):
                    await it.generate_fingerprint(f"{server.base}/a", "waveform")

        run(ask())
        assert len(server.asked) == 1


def test_a_memo_that_cannot_be_used_is_not_in_the_way(service: Any, write: Any, caplog: Any) -> None:
    pytest.importorskip("redis")

    async def ask() -> None:
        async with service(memo="redis://127.0.0.1:1/0") as it:
            results = await it.batch_generate_fingerprints(write("1 2", "3"))
            assert all(each.ok for each in results)
            assert (await it.generate_fingerprint(results[0].content_url)).layer == "memory"
            assert "127.0.0.1:1" in it.get_cache_stats()["memo_problem"]

    run(ask())
    assert len([record for record in caplog.records if "the memo is not used" in record.message]) == 1


# ---------------------------------------------------------------------- at once


def test_equal_requests_in_flight_share_one_answer(service: Any, waveform: Any) -> None:
    page = Page(b"WAVEFORM\n1 2", tagged=False)
    waiting = threading.Event()

    def slow(request: Handler) -> None:
        waiting.wait(10)
        page(request)

    async def ask(url: str) -> None:
        async with service() as it:
            asked = [asyncio.ensure_future(it.generate_fingerprint(url, "waveform")) for _ in range(50)]
            while it.get_cache_stats()["shared"] < 49:
                await asyncio.sleep(0.01)
            asked[0].cancel()  # Who stops waiting does not stop the others.
            waiting.set()
            results = await asyncio.gather(*asked[1:])
            assert len({each.fingerprint for each in results}) == 1

    with serving(slow) as server:
        run(ask(f"{server.base}/a"))
    assert page.sent == 1
    assert waveform.counts() == {"decode": 1, "embed": 1, "hash": 1}


def test_equal_bytes_under_many_addresses_are_worked_on_once(service: Any, write: Any, waveform: Any) -> None:
    paths = write(*["1 2"] * 20)

    async def ask() -> None:
        async with service(workers=2) as it:
            results = await it.batch_generate_fingerprints(paths)
            assert len({each.fingerprint for each in results}) == 1
            assert len({each.record.content.content_id for each in results}) == 20

    run(ask())
    assert waveform.count("decode") == 1


def test_pictures_go_through_the_model_together(service: Any) -> None:
    names = ["astronaut", "camera", "cell", "coffee", "coins", "moon", "page", "text"]
    paths = [str(picture(f"{name}.png")) for name in names]

    async def ask() -> None:
        async with service(workers=2, batch_size=8, batch_wait_ms=500) as it:
            results = await it.batch_generate_fingerprints([(path, ContentType.IMAGE) for path in paths])
            assert all(each.ok for each in results)
            stats = it.get_cache_stats()
            assert stats["batches"] < stats["batched"]

    run(ask())


def test_a_batch_is_drawn_no_faster_than_it_is_worked_on(service: Any, write: Any) -> None:
    """However many items there are, only some are on their way."""
    paths = write(*(str(number) for number in range(30)))
    drawn = 0

    async def endless() -> AsyncIterator[str]:
        nonlocal drawn
        while True:
            yield paths[drawn % len(paths)]
            drawn += 1

    async def ask() -> None:
        async with service(max_in_flight=4) as it:
            taken = 0
            stream = it.stream_fingerprints(endless())
            async for result in stream:
                assert result.ok
                taken += 1
                assert drawn <= taken + 2 * 4
                if taken == 100:
                    break
            await stream.aclose()

    run(ask())


# ---------------------------------------------------------------------- failures


def test_of_a_batch_with_bad_items_the_good_ones_are_answered_and_the_bad_ones_explained(
    service: Any, write: Any
) -> None:
    troubles = {
        "crash": "SIGSEGV",
        "bad": "the waveform is bad",
        "oom": "memory",
        "decode-error": "the decoder stumbled",
    }
    late = {"embed-error": "the model stumbled", "hash-error": "no hash for this"}
    words = [f"{number}" for number in range(54)]
    for position, trouble in enumerate([*troubles, *late]):
        words[9 * position + 4] += f" {trouble}"

    async def ask() -> list[FingerprintResult]:
        async with service(workers=2) as it:
            results = await it.batch_generate_fingerprints([(path, "waveform") for path in write(*words)])
            assert it.get_cache_stats()["failed"] == 6
            return list(results)

    results = run(ask())
    assert [each.record.sketch.info["samples"] for each in results if each.ok] == [1] * 48
    failed = {position: each for position, each in enumerate(results) if not each.ok}
    assert list(failed) == [4, 13, 22, 31, 40, 49]
    for each, (trouble, reason) in zip(failed.values(), (troubles | late).items(), strict=True):
        assert each.error is not None
        assert reason in each.error
        assert each.stage == (trouble.partition("-")[0] if trouble in late else "decode")
        assert (each.fingerprint, each.record) == ("", None)
        assert each.to_dict()["error"]["reason"] == each.error


def test_what_cannot_work_is_not_tried_again_until_it_is_asked_for(service: Any, write: Any, waveform: Any) -> None:
    path = write("1 bad")[0]

    async def ask() -> None:
        async with service() as it:
            for use_cache in (True, True, False):
                with pytest.raises(ContentError, match="the waveform is bad"):
                    await it.generate_fingerprint(path, use_cache=use_cache)

    run(ask())
    assert waveform.count("decode") == 2


def test_the_time_limit_ends_the_work_and_frees_the_worker(service: Any, write: Any) -> None:
    hanging, *good = write("1 hang", *(str(number) for number in range(5)))

    async def ask() -> None:
        async with service(timeout_seconds=5.0) as it:
            await it.generate_fingerprint(good[0])
            started = time.monotonic()
            results = await it.batch_generate_fingerprints([hanging, *good])
            assert time.monotonic() - started < 40
            assert [each.ok for each in results] == [False, *[True] * 5]
            assert (results[0].stage, results[0].retryable) == ("decode", True)
            assert re.fullmatch(r"took longer than (4\.\d+|5) s", results[0].error)

    run(ask())


def test_a_server_that_is_slow_is_given_up_after_the_time_limit(service: Any) -> None:
    over = threading.Event()

    async def ask(url: str) -> None:
        async with service(timeout_seconds=1.0) as it:
            started = time.monotonic()
            with pytest.raises(ContentError) as caught:
                await it.generate_fingerprint(url, "waveform")
            assert time.monotonic() - started < 10
            assert (caught.value.stage, caught.value.retryable) == ("download", True)
        over.set()

    with serving(lambda request: over.wait(30) and None) as server:
        run(ask(f"{server.base}/a"))


# ---------------------------------------------------------------------- the store


def test_what_was_answered_is_in_the_store(service: Any, settings: Any, write: Any) -> None:
    one, other = write("1 2 3", "4 5")

    async def ask() -> None:
        async with service() as it:
            await it.generate_fingerprint(one)
            await it.generate_fingerprint(other, store=False)
            await it.generate_fingerprint(other, content_id="mine", metadata={"owner": "me"})

    run(ask())
    store = open_store(settings().store_uri)
    assert store.count() == {"waveform": 2}
    (mine,) = store.get(["mine"])
    assert dict(mine.content.metadata) == {"owner": "me"}


def test_a_search_finds_what_was_just_answered(service: Any, write: Any) -> None:
    original, copy, other = write("1 2 3 4", "1 2 3 9", "7 8")

    async def ask() -> None:
        async with service() as it:
            result = await it.generate_fingerprint(original)
            await it.generate_fingerprint(other)
            found = await it.search(copy)
            assert [(match.reference.uri, match.score) for match in found] == [(Path(original).as_uri(), 0.6)]
            assert found.to_dict()["matches"][0]["score"] == 0.6
            assert len(await it.search(result)) == 0
            assert [match.score for match in await it.search(result.record, include_self=True)] == [1.0]

    run(ask())


def test_a_search_goes_by_the_calibration_and_the_decisions_in_the_home(
    service: Any, settings: Any, write: Any
) -> None:
    original, copy = write("1 2 3 4", "1 2 3 9")
    home = settings().home

    async def ask() -> None:
        async with service() as it:
            stored = await it.generate_fingerprint(original)
            asked = await it.generate_fingerprint(copy, store=False)
            (found,) = await it.search(asked)
            assert found.confidence is None
            assert not (home / "decisions.sqlite").exists()
            noise = Noise(("waveform",), found.evidence, 9, 9999, 0, ())
            calibration.save(home, Calibration((noise,), collection=100))
            assert [match.confidence for match in await it.search(asked)] == [pytest.approx(1 / 1.01)]
            Decisions(home).record([Decision.of("different", asked.record, stored.record)])
            assert len(await it.search(asked)) == 0

    run(ask())


def test_results_show_themselves_in_a_notebook(service: Any, write: Any, tmp_path: Path) -> None:
    path = tmp_path / "<b>.png"
    path.write_bytes(picture("coffee.png").read_bytes())

    async def ask() -> None:
        async with service() as it:
            good, bad = await it.batch_generate_fingerprints([str(path), write("1 bad")[0]])
            shown = good._repr_html_()
            assert good.fingerprint in shown
            assert "data:image/jpeg;base64," in shown
            assert "<b>" not in shown
            assert "the waveform is bad" in bad._repr_html_()
            found = await it.search(good, include_self=True)
            assert found._repr_html_().count("data:image/jpeg;base64,") == 2

    run(ask())


def test_the_identity_is_made_of_type_and_key() -> None:
    assert fingerprint_text("image", "0" * 32) == f"fp1:image:{'0' * 32}"
