"""Broken transfers that go on, headers and bodies without an end, and consideration for busy servers."""

import hashlib
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from servers import Handler, serving

from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.sources import Fetcher, Guard

BODY = bytes(range(256)) * 2000
DIGEST = hashlib.sha256(BODY).hexdigest()


def fetcher(folder: Path, **options: object) -> Fetcher:
    given = {"timeout_seconds": 10.0, "retries": 2, "backoff_seconds": 0.01, "max_bytes": 1_000_000} | options
    return Fetcher(folder / "blobs", guard=Guard(allowed_networks=("127.0.0.1",)), **given)  # type: ignore[arg-type]


def breaking(etag: str, resume: Callable[[Handler, int], None]) -> Callable[[Handler], None]:
    """A server that breaks off in the middle; `resume(handler, start)` answers a request for the rest."""

    def answer(handler: Handler) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        if wanted:
            assert handler.headers["If-Range"] == etag
            resume(handler, int(wanted[1]))
        elif len(handler.server.asked) == 1:
            handler.send(BODY[:300_000], ETag=etag, Content_Length=len(BODY))
            handler.close_connection = True
        else:
            handler.send(BODY, ETag=etag)

    return answer


def rest(handler: Handler, start: int, **headers: object) -> None:
    place = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
    handler.send(BODY[start:], 206, **{"Content_Range": place, "ETag": '"one"', **headers})


def test_a_broken_transfer_goes_on_where_it_stopped(tmp_path):
    with serving(breaking('"one"', rest)) as server:
        got = fetcher(tmp_path).fetch(server.base + "/x")
    assert (got.digest, got.size, got.head) == (DIGEST, len(BODY), BODY[:4096])
    assert got.path.read_bytes() == BODY
    assert [bool(headers.get("Range")) for headers in server.headers] == [False, True]


def test_it_breaks_and_is_busy_and_still_goes_on(tmp_path):
    def resume(handler: Handler, start: int) -> None:
        handler.send(b"", 503) if len(handler.server.asked) == 2 else rest(handler, start)

    with serving(breaking('"one"', resume)) as server:
        got = fetcher(tmp_path).fetch(server.base + "/x")
    assert got.digest == DIGEST
    assert server.headers[1]["Range"] == server.headers[2]["Range"] != "bytes=0-"


def test_changed_content_is_fetched_from_its_beginning(tmp_path):
    with serving(breaking('"one"', lambda handler, _: handler.send(b"new" * 9, ETag='"two"'))) as server:
        got = fetcher(tmp_path).fetch(server.base + "/x")
    assert got.path.read_bytes() == b"new" * 9
    assert (got.size, got.head, got.validator) == (27, b"new" * 9, 'ETag: "two"')


@pytest.mark.parametrize(
    "wrong",
    [
        {"Content_Range": f"bytes 0-{len(BODY) - 1}/{len(BODY)}"},
        {"Content_Range": f"bytes 7-{len(BODY) - 1}/{len(BODY)}"},
        {"Content_Range": None},
        {"ETag": '"two"'},
    ],
)
def test_another_part_than_the_rest_is_not_taken(tmp_path, wrong):
    with serving(breaking('"one"', lambda handler, start: rest(handler, start, **wrong))) as server:
        assert fetcher(tmp_path).fetch(server.base + "/x").digest == DIGEST
    assert [bool(headers.get("Range")) for headers in server.headers] == [False, True, False]


@pytest.mark.parametrize("etag", ['W/"one"', "none"])
def test_only_a_strong_validator_promises_the_same_bytes(tmp_path, etag):
    with serving(breaking(etag, rest)) as server:
        assert fetcher(tmp_path).fetch(server.base + "/x").digest == DIGEST
    assert [headers.get("Range") for headers in server.headers] == [None, None]


def test_the_rest_counts_towards_the_limit(tmp_path):
    def resume(handler: Handler, start: int) -> None:
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
        handler.end_headers()
        handler.close_connection = True
        while True:
            handler.wfile.write(b"x" * 65536)

    with serving(breaking('"one"', resume)) as server, pytest.raises(ContentError, match="too large"):
        fetcher(tmp_path).fetch(server.base + "/x")


def endless(piece: bytes, start: bytes = b"HTTP/1.1 200 OK\r\n") -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.close_connection = True
        handler.wfile.write(start)
        while True:
            handler.wfile.write(piece)

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        endless(b"x" * 65536, b"HTTP/1.1 200 OK\r\nX-Long: "),
        endless(b"X-Another: one\r\n" * 100),
        endless(b"x" * 65536, b""),
        endless(b"0" * 65536, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        endless(b"x" * 65536, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;"),
        endless(b"x" * 65536, b"HTTP/1.1 302 Found\r\nLocation: http://example.org/"),
    ],
    ids=["header", "headers", "status", "chunk-size", "chunk-extension", "location"],
)
def test_headers_without_an_end_cost_neither_time_nor_memory(tmp_path, answer):
    start = time.monotonic()
    with serving(answer) as server, pytest.raises(ContentError) as caught:
        fetcher(tmp_path, timeout_seconds=60.0).fetch(server.base + "/x")
    assert time.monotonic() - start < 30
    assert f"127.0.0.1:{server.server_port}" in caught.value.reason
    assert max(len(part) for part in caught.value.reason.split()) < 100


def test_a_server_that_always_says_continue_is_cut_off(tmp_path):
    with (
        serving(endless(b"HTTP/1.1 100 Continue\r\n\r\n", b"")) as server,
        pytest.raises(ContentError, match=r"0\.5 s"),
    ):
        fetcher(tmp_path, timeout_seconds=0.5).fetch(server.base + "/x")


def test_so_many_downloads_at_once_from_one_host(tmp_path):
    def answer(handler: Handler) -> None:
        time.sleep(0.05)
        handler.send(handler.path.encode())

    with serving(answer) as server, serving(answer) as other:
        get = fetcher(tmp_path, downloads_per_host=2)
        uris = [f"{base}/{number}" for number in range(10) for base in (server.base, other.base)]
        with ThreadPoolExecutor(16) as threads:
            assert len(list(threads.map(get.fetch, uris))) == 20
        assert (server.busiest, other.busiest) == (2, 2)


def test_so_many_requests_a_second_to_one_host(tmp_path):
    with serving(lambda handler: handler.send(b"x")) as server:
        get = fetcher(tmp_path, requests_per_second=20.0)
        start = time.monotonic()
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(get.fetch, [f"{server.base}/{number}" for number in range(11)]))
        assert time.monotonic() - start >= 0.5


def test_what_a_server_asks_of_one_holds_for_all(tmp_path):
    times: list[float] = []

    def answer(handler: Handler) -> None:
        times.append(time.monotonic())
        handler.send(b"", 429, Retry_After=1) if len(times) == 1 else handler.send(b"x")

    with serving(answer) as server:
        get = fetcher(tmp_path, downloads_per_host=1)
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(get.fetch, [f"{server.base}/{number}" for number in range(4)]))
    assert times[1] - times[0] >= 1.0


def test_a_wait_that_others_were_told_of_is_a_reason(tmp_path):
    with serving(lambda handler: handler.send(b"", 503, Retry_After=3000)) as server:
        get = fetcher(tmp_path)
        for says in ("answered 503", "asks for more time than the limit of 10 s leaves"):
            with pytest.raises(ContentError, match=says) as caught:
                get.fetch(server.base + "/x")
            assert caught.value.retryable
        assert len(server.asked) == 1


def test_a_data_uri_is_its_own_content(tmp_path):
    get = fetcher(tmp_path, max_bytes=10)
    got = get.fetch("data:text/plain;base64,aGVsbG8")
    assert (got.path.read_bytes(), got.size, got.head) == (b"hello", 5, b"hello")
    assert got.digest == hashlib.sha256(b"hello").hexdigest()
    assert get.fetch("data:,a%20b").path.read_bytes() == b"a b"
    assert get.peek("data:;base64,_-8=") == b"\xff\xef"
    assert get.fetch_if_changed("data:,x", get.validator("data:,x")) is None
    for uri, says in {"data:;base64,a": "says base64 and is none", "data:,12345678901": "too large"}.items():
        with pytest.raises(ContentError, match=says):
            get.fetch(uri)


def test_a_digest_is_never_a_path(tmp_path):
    with pytest.raises(ValueError, match="SHA-256"):
        fetcher(tmp_path).open("data:,x", "../../etc/passwd")
