"""The HTTP API as a program in another language meets it."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from api.conftest import Server
from media_files import picture, sample
from running import fingerprint
from sources.servers import Handler, serving

from fingerprint_dagster import Content, Pipeline
from fingerprint_dagster.settings import Settings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def media() -> Iterator[str]:
    """A web server with pictures and texts under their names; `/slow/...` takes a second."""

    def answer(request: Handler) -> None:
        name = request.path.split("?")[0].removeprefix("/slow").lstrip("/")
        if request.path.startswith("/slow"):
            time.sleep(1)
        path = sample(f"text/{name}") if name.endswith(".txt") else picture(name)
        request.send(path.read_bytes()) if path.is_file() else request.send(b"not here", 404)

    with serving(answer) as web:
        yield web.base


def post(server: Server, path: str, **body: object) -> httpx.Response:
    return server.ask.post(path, json=body)


def test_a_url_is_fingerprinted_as_from_python(server: Server, media: str, tmp_path: Path) -> None:
    answer = post(server, "/v1/fingerprints", url=f"{media}/coffee.png", record=True)
    assert answer.status_code == 200
    told = answer.json()
    assert told["content_type"] == "image"
    assert told["cached"] is False
    assert told["error"] is None
    content = Content("coffee", picture("coffee.png").as_uri(), "image")
    with Pipeline.from_settings(Settings(home=tmp_path)) as pipeline:
        (ours,) = pipeline.fingerprints([content])
    assert told["record"]["digest"] == ours.digest
    assert told["codes"]["pdq"] == ours.component("pdq_v1").values[0].tobytes().hex()
    again = post(server, "/v1/fingerprints", url=f"{media}/coffee.png").json()
    assert again["cached"] is True
    assert again["fingerprint"] == told["fingerprint"]
    assert again["record"] is None


def test_an_upload_is_found_as_a_copy(server: Server, media: str) -> None:
    post(server, "/v1/fingerprints", url=f"{media}/chelsea.png", content_id="the cat").raise_for_status()
    upload = {"file": ("a cat.png", picture("chelsea.png").read_bytes())}
    told = server.ask.post("/v1/fingerprints/upload", files=upload, data={"store": "false"}).json()
    assert told["content_type"] == "image"
    found = server.ask.post("/v1/search/upload", files=upload, data={"top": "1"}).json()
    (match,) = found["matches"]
    assert match["content_id"] == "the cat"
    assert match["evidence"] == "sha256"
    by_url = post(server, "/v1/search", url=f"{media}/chelsea.png?again", content_type="image").json()
    assert by_url["matches"][0]["content_id"] == "the cat"


def test_a_batch_keeps_its_order_and_explains_what_failed(server: Server, media: str) -> None:
    urls = [f"{media}/rocket.jpg", f"{media}/missing.jpg", f"{media}/demo.txt", "no-such-scheme://x"]
    told = post(server, "/v1/fingerprints/batch", items=[{"url": url} for url in urls]).json()
    assert [result["content_type"] for result in told["results"]] == ["image", None, "text", None]
    assert told["failed"] == 2
    assert "404" in told["results"][1]["error"]["reason"]
    assert told["results"][1]["error"]["stage"] == "download"
    assert "scheme" in told["results"][3]["error"]["reason"]
    lines = server.ask.post(
        "/v1/fingerprints/batch",
        json={"items": [{"url": url} for url in urls]},
        headers={"accept": "application/x-ndjson"},
    )
    assert lines.headers["content-type"] == "application/x-ndjson"
    results = [json.loads(line) for line in lines.text.splitlines()]
    assert [each["fingerprint"] for each in results] == [each["fingerprint"] for each in told["results"]]


@pytest.mark.parametrize("url", ["/etc/passwd", "file:///etc/passwd", "zip:file:///tmp/x.zip!a", "http://127.0.0.1:1/"])
def test_what_the_server_may_not_fetch_is_refused(server: Server, url: str) -> None:
    answer = post(server, "/v1/fingerprints", url=url)
    assert answer.status_code in (400, 422)
    assert answer.json()["error"]["reason"]
    batch = post(server, "/v1/fingerprints/batch", items=[{"url": url}]).json()
    assert batch["failed"] == 1
    assert batch["results"][0]["fingerprint"] is None


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/fingerprints", {}, 422, "url: Field required"),
        ("/v1/fingerprints", {"url": "https://example.org/", "content_typ": "image"}, 422, "content_typ: Extra inputs"),
        ("/v1/fingerprints", {"url": "data:,x", "content_type": "painting"}, 400, "unknown content type 'painting'"),
        ("/v1/fingerprints", {"url": "data:,%00%01%02"}, 422, ""),
        ("/v1/search", {"url": "data:,some text", "top": 0}, 422, "top: Input should be greater"),
        ("/v1/fingerprints/batch", {"items": []}, 422, "items: List should have at least 1 item"),
        ("/v1/no-such-route", {}, 404, "Not Found"),
    ],
)
def test_a_wrong_request_says_what_is_wrong(server: Server, path: str, body: object, status: int, said: str) -> None:
    answer = server.ask.post(path, json=body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert said in error["reason"]
    assert error["retryable"] is False


def test_the_cache_can_be_looked_at_and_emptied(server: Server) -> None:
    for _ in range(2):
        post(server, "/v1/fingerprints", url="data:,a text of the cache's test, of some words").raise_for_status()
    stats = server.ask.get("/v1/cache").json()
    assert stats["cache_size"] > 0
    assert stats["memory_hits"] > 0
    assert server.ask.delete("/v1/cache").json()["removed"] == stats["cache_size"]
    assert server.ask.get("/v1/cache").json()["cache_size"] == 0


def test_health_metrics_and_pages(server: Server) -> None:
    assert server.ask.get("/health").json()["status"] == "alive"
    assert server.ask.get("/ready").json() == {"status": "ready", "device": "cpu"}
    post(server, "/v1/fingerprints", url="data:,one more text for the metrics").raise_for_status()
    text = server.ask.get("/metrics").text
    assert 'fingerprint_http_requests_total{route="/v1/fingerprints",status="200"}' in text
    assert 'fingerprint_http_seconds_bucket{le="0.1",route="/v1/fingerprints"}' in text
    assert "fingerprint_store_pending" in text
    assert server.ask.get("/docs").status_code == 200
    assert "/v1/search/upload" in server.ask.get("/openapi.json").json()["paths"]


def test_many_at_once_are_all_answered(server: Server, media: str) -> None:
    urls = [f"{media}/rocket.jpg?{number % 20}" for number in range(100)]
    urls += [f"{media}/missing.jpg?{number}" for number in range(10)]
    limits = httpx.Limits(max_connections=len(urls))
    with (
        httpx.Client(base_url=server.url, timeout=120, limits=limits) as client,
        ThreadPoolExecutor(len(urls)) as threads,
    ):
        answers = list(threads.map(lambda url: client.post("/v1/fingerprints", json={"url": url}), urls))
    assert [answer.status_code for answer in answers] == [200] * 100 + [422] * 10
    assert len({answer.json()["fingerprint"] for answer in answers[:100]}) == 1


def test_keys_open_and_nothing_else(serve: Callable[..., Server]) -> None:
    server = serve(FINGERPRINT_API_KEYS="first key,second", FINGERPRINT_MAX_UPLOAD_BYTES="100000")
    assert server.ask.get("/health").status_code == 200
    for headers in ({}, {"x-api-key": "first"}, {"authorization": "Basic second"}, {"authorization": "Bearer"}):
        for path in ("/v1/cache", "/metrics", "/docs", "/openapi.json"):
            refused = server.ask.get(path, headers=headers)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
    for headers in ({"x-api-key": "first key"}, {"authorization": "Bearer second"}):
        assert server.ask.get("/v1/cache", headers=headers).status_code == 200
    key = {"x-api-key": "second"}
    evil = server.ask.get("/v1/cache", headers=key | {"origin": "https://evil.example"})
    assert evil.status_code == 403
    # More bytes than are taken: declared, and sent in chunks without a declaration.
    large = {"file": ("x.png", b"\x89PNG" + bytes(200_000))}
    assert server.ask.post("/v1/fingerprints/upload", files=large, headers=key).status_code == 413

    def chunks() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.png"\r\n\r\n'
        for _ in range(200):
            yield bytes(1000)

    sent = server.ask.post(
        "/v1/fingerprints/upload",
        content=chunks(),
        headers=key | {"content-type": "multipart/form-data; boundary=b"},
    )
    assert sent.status_code == 413


def test_without_keys_only_this_machine_is_answered(server: Server, home: Path) -> None:
    assert server.ask.get("/v1/cache", headers={"host": "rebound.example"}).status_code == 403
    assert server.ask.get("/v1/cache", headers={"host": "localhost:8000"}).status_code == 200
    done = fingerprint(home, "serve", "--host", "0.0.0.0")
    assert done.returncode == 2
    assert "FINGERPRINT_API_KEYS" in done.stderr


def test_more_than_may_wait_are_told_to_come_back(serve: Callable[..., Server], media: str) -> None:
    server = serve(FINGERPRINT_MAX_WAITING="4")
    with ThreadPoolExecutor(12) as threads:
        urls = [f"{media}/slow/rocket.jpg?{number}" for number in range(12)]
        answers = list(threads.map(lambda url: post(server, "/v1/fingerprints", url=url), urls))
    codes = sorted(answer.status_code for answer in answers)
    assert codes.count(200) >= 4
    busy = [answer for answer in answers if answer.status_code == 503]
    assert len(busy) == len(answers) - codes.count(200) > 0
    assert all(answer.json()["error"]["retryable"] and int(answer.headers["retry-after"]) for answer in busy)


def test_told_to_stop_it_answers_what_it_was_asked_and_stores_it(
    serve: Callable[..., Server], media: str, tmp_path: Path
) -> None:
    server = serve()
    answers: list[httpx.Response] = []
    ask = threading.Thread(
        target=lambda: answers.append(
            post(server, "/v1/fingerprints", url=f"{media}/slow/coffee.png", content_id="asked last")
        )
    )
    ask.start()
    time.sleep(0.5)
    os.kill(server.process.pid, signal.SIGTERM)
    ask.join(60)
    assert server.process.wait(60) == 0, server.log.read_text()[-2000:]
    assert answers[0].status_code == 200
    shown = fingerprint(tmp_path / "home", "show", "asked last")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["content_id"] == "asked last"
    assert list((tmp_path / "home" / "journal").glob("*.journal")) == [] or "replayed" not in server.log.read_text()


def test_every_route_keeps_what_its_schema_promises(server: Server) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings

    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    tested = []
    for result in schema.get_all_operations():
        operation = result.ok()
        tested.append(operation.label)

        @settings(
            max_examples=15,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def check(case):  # type: ignore[no-untyped-def]
            # A text that may be an address need not be one that answers.
            case.call_and_validate(timeout=60, excluded_checks=[schemathesis.checks.positive_data_acceptance])

        check()
    assert len(tested) == 10
