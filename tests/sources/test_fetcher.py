import base64
import gzip
import hashlib
import os
import pickle
import socket
import struct
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.sources import Fetcher, Guard, to_uri

HERE = Guard(allowed_networks=("127.0.0.0/8", "::1"))
BODY = bytes(range(256)) * 40
DIGEST = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """A web server whose faults are chosen by the path."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with self.server.lock:
            self.server.hits[self.path] += 1
            self.server.connections.add(self.client_address)
            self.server.seen.append(self.headers)
        getattr(self, "at_" + self.path.partition("?")[0].strip("/").partition("/")[0])()

    def send(self, body=BODY, status=200, **headers):
        self.send_response(status)
        for name, value in {"Content_Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def first_time(self):
        return self.server.hits[self.path] == 1

    def at_ok(self):
        self.send()

    def at_status(self):
        self.send(b"sorry", int(self.path.partition("?")[0].rpartition("/")[2]))

    def at_flaky(self):
        self.send(b"sorry", 500) if self.first_time() else self.send()

    def at_busy(self):
        self.send(b"", 429, Retry_After=1) if self.first_time() else self.send()

    def at_closed_for_the_day(self):
        self.send(b"", 503, Retry_After=86400)

    def at_redirect(self):
        self.send(b"x" * 100_000, 302, Location="/ok")

    def at_away(self):
        self.send(b"", 307, Location=self.server.faults["away"])

    def at_loop(self):
        self.send(b"", 301, Location="/loop")

    def at_nowhere(self):
        self.send(b"", 301, Location="file:///etc/passwd")

    def at_drip(self):
        self.send_response(200)
        self.end_headers()
        self.drip(b"x")

    def at_drip_headers(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        self.drip(b"x")

    def drip(self, piece):
        try:
            for _ in range(60_000):  # Twenty minutes, unless the client goes.
                self.wfile.write(piece)
                time.sleep(0.02)
        except OSError:
            pass
        self.close_connection = True

    def at_short(self):
        self.send(BODY[:-1] if self.first_time() or "always" in self.path else BODY, Content_Length=len(BODY))
        self.close_connection = True

    def at_chunked(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(BODY), 1000):
            piece = BODY[start : start + 1000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"" if "cut" in self.path else b"0\r\n\r\n")
        self.close_connection = True

    def at_reset(self):
        if self.first_time() or "always" in self.path:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\nabc")
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())  # with no linger time: a reset, not an end
            self.close_connection = True
        else:
            self.send()

    def at_endless(self):
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        try:
            while True:
                self.wfile.write(b"x" * 65536)
        except OSError:
            pass

    def at_gzip(self):
        self.send(gzip.compress(BODY), Content_Encoding="gzip")

    def at_bomb(self):
        self.send(gzip.compress(bytes(50_000_000)), Content_Encoding="gzip")

    def at_changing(self):
        self.send(str(self.server.hits[self.path]).encode())

    def log_message(self, *args):
        pass


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        pass


@pytest.fixture
def server():
    with QuietServer(("127.0.0.1", 0), Handler) as running:
        running.lock, running.hits, running.connections = threading.Lock(), Counter(), set()
        running.seen, running.faults = [], {}
        running.base = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def blobs(tmp_path):
    return tmp_path / "blobs"


@pytest.fixture
def fetcher(blobs, server):
    return Fetcher(blobs, timeout_seconds=5, max_bytes=1_000_000, retries=2, backoff_seconds=0.01, guard=HERE)


def refused(fetcher, uri):
    with pytest.raises(ContentError) as caught:
        fetcher.fetch(uri)
    return caught.value


def files_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_local_file_is_read_where_it_is(fetcher, tmp_path, blobs):
    file = tmp_path / "ü #.bin"
    file.write_bytes(BODY)
    uri = to_uri(str(file))
    got = fetcher.fetch(uri)
    assert (got.path, got.digest, got.size, got.head) == (file, DIGEST, len(BODY), BODY[:4096])
    assert fetcher.open(uri, DIGEST) == file
    assert not blobs.exists()


def test_a_changed_file_is_noticed(fetcher, tmp_path):
    file = tmp_path / "x"
    file.write_bytes(b"one")
    uri = to_uri(str(file))
    before, digest = fetcher.validator(uri), fetcher.fetch(uri).digest
    assert fetcher.validator(uri) == before
    about = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))  # only the bytes tell
    with pytest.raises(ContentError, match="changed while it was being fingerprinted") as caught:
        fetcher.open(uri, digest)
    assert caught.value.retryable
    os.utime(file, ns=(0, about.st_mtime_ns + 1))
    assert fetcher.validator(uri) != before


def test_an_empty_file_is_fetched(fetcher, tmp_path):
    (tmp_path / "x").touch()
    got = fetcher.fetch(to_uri(str(tmp_path / "x")))
    assert (got.size, got.head, got.digest) == (0, b"", hashlib.sha256(b"").hexdigest())


def test_what_is_no_readable_file(fetcher, tmp_path):
    (tmp_path / "file").write_bytes(bytes(1_000_001))
    (tmp_path / "broken").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")
    reasons = {
        "gone": "no such file",
        "broken": "no such file",
        "file/x": "no such file",
        ".": "a folder, not a file",
        "pipe": "not a regular file",
        "file": "too large: 1000001 bytes, allowed are 1000000",
    }
    for name, reason in reasons.items():
        error = refused(fetcher, to_uri(str(tmp_path / name)))
        assert reason in error.reason
        assert not error.retryable
        assert str(tmp_path) not in error.reason
    assert "not the uri of a local file" in refused(fetcher, "file://elsewhere/x").reason
    assert "scheme" in refused(fetcher, "ftp://example.org/x").reason
    assert fetcher.validator(to_uri(str(tmp_path / "gone"))) == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(fetcher, tmp_path):
    (tmp_path / "x").touch(mode=0)
    error = refused(fetcher, to_uri(str(tmp_path / "x")))
    assert error.reason == "no permission to read the file"
    assert not error.retryable


@pytest.mark.parametrize("path", ["ok", "flaky", "redirect", "chunked", "short", "reset", "gzip"])
def test_a_download_is_whole_whatever_happens_on_the_way(fetcher, server, blobs, path):
    uri = f"{server.base}/{path}"
    got = fetcher.fetch(uri)
    assert (got.digest, got.size, got.head) == (DIGEST, len(BODY), BODY[:4096])
    assert got.path == blobs / DIGEST[:2] / DIGEST
    assert got.path.read_bytes() == BODY
    assert files_in(blobs) == [DIGEST]
    assert fetcher.validator(uri) == ""
    assert server.seen[-1]["Accept-Encoding"] == "identity"


def test_retry_after_is_honoured(fetcher, server):
    start = time.monotonic()
    assert fetcher.fetch(server.base + "/busy").digest == DIGEST
    assert time.monotonic() - start >= 1


def test_a_retry_after_beyond_the_time_limit_is_not_waited_for(fetcher, server):
    start = time.monotonic()
    error = refused(fetcher, server.base + "/closed_for_the_day")
    assert time.monotonic() - start < 30  # It was told to wait for a day.
    assert "503 Service Unavailable" in error.reason
    assert error.retryable


@pytest.mark.parametrize(
    ("path", "says", "retryable", "hits"),
    [
        ("status/404", "answered 404 Not Found", False, 1),
        ("status/410", "answered 410 Gone", False, 1),
        ("status/403", "answered 403 Forbidden", False, 1),
        ("status/206", "answered 206", False, 1),
        ("status/500", "answered 500", True, 3),
        ("status/429", "answered 429 Too Many Requests", True, 3),
        ("short/always", "fewer bytes than it announced", True, 3),
        ("chunked/cut", "", True, 3),
        ("reset/always", "broke the connection", True, 3),
        ("loop", "more than 5 redirects", False, 6),
        ("nowhere", "not http or https", False, 1),
        ("endless", "too large", False, 1),
        ("bomb", "too large", False, 1),
    ],
)
def test_failures_say_why_and_whether_to_try_again(fetcher, server, blobs, path, says, retryable, hits):
    error = refused(fetcher, f"{server.base}/{path}?token=secret")
    assert says in error.reason
    assert f"127.0.0.1:{server.server_port}" in error.reason
    assert error.retryable is retryable
    assert server.hits[f"/{path}?token=secret"] + server.hits[f"/{path}"] == hits
    assert "secret" not in error.reason
    assert files_in(blobs) == []


@pytest.mark.parametrize("path", ["drip", "drip_headers"])
def test_a_dripping_server_is_cut_off_at_the_limit(blobs, server, path):
    fetcher = Fetcher(blobs, timeout_seconds=0.5, guard=HERE)
    start = time.monotonic()
    error = refused(fetcher, f"{server.base}/{path}")
    assert time.monotonic() - start < 30  # The server would go on for twenty minutes.
    assert "longer than 0.5 s" in error.reason
    assert error.retryable
    assert files_in(blobs) == []


def test_a_silent_server_is_cut_off_too(blobs):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        start = time.monotonic()
        error = refused(
            Fetcher(blobs, timeout_seconds=0.3, guard=HERE), f"http://127.0.0.1:{listening.getsockname()[1]}/"
        )
    assert time.monotonic() - start < 30  # The server would never answer.
    assert "longer than 0.3 s" in error.reason
    assert error.retryable


def test_a_promised_length_over_the_limit_is_refused_before_reading(server, blobs):
    error = refused(Fetcher(blobs, max_bytes=len(BODY) - 1, guard=HERE), server.base + "/ok")
    assert f"allowed {len(BODY) - 1} bytes" in error.reason
    assert Fetcher(blobs, max_bytes=len(BODY), guard=HERE).fetch(server.base + "/ok").size == len(BODY)


def test_nobody_listens(fetcher):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    error = refused(fetcher, f"http://user:secret@127.0.0.1:{port}/x?token=secret")
    assert error.reason == f"127.0.0.1:{port} refused the connection"
    assert error.retryable


def test_a_name_that_does_not_resolve(fetcher):
    error = refused(fetcher, "http://user:secret@no-such-host.invalid/?token=secret")
    assert error.reason == "the name of no-such-host.invalid cannot be resolved"
    assert error.retryable


def test_plain_http_on_an_https_address(fetcher, server):
    error = refused(fetcher, server.base.replace("http", "https") + "/ok")
    assert "encrypted connection" in error.reason
    assert error.retryable


def test_a_password_goes_to_its_own_host_only(fetcher, server):
    with_password = server.base.replace("://", "://me:s%20t@")
    fetcher.fetch(with_password + "/redirect")
    basic = "Basic " + base64.b64encode(b"me:s t").decode()
    assert [headers.get("Authorization") for headers in server.seen] == [basic, basic]
    server.faults["away"] = f"http://localhost:{server.server_port}/ok"
    fetcher.fetch(with_password + "/away")
    assert [headers.get("Authorization") for headers in server.seen[2:]] == [basic, None]


def test_peeking_reads_the_beginning_only(fetcher, server, blobs, tmp_path):
    (tmp_path / "x").write_bytes(BODY)
    for uri in (to_uri(str(tmp_path / "x")), f"{server.base}/ok"):
        assert fetcher.peek(uri) == BODY[:4096]
    assert fetcher.peek(f"{server.base}/endless") == b"x" * 4096
    assert not blobs.exists()
    for uri in (to_uri(str(tmp_path / "gone")), f"{server.base}/status/404", "ipfs://nonsense"):
        with pytest.raises(ContentError):
            fetcher.peek(uri)


def test_a_fetcher_can_be_sent_to_another_process(fetcher, server):
    assert pickle.loads(pickle.dumps(fetcher)).fetch(server.base + "/ok").digest == DIGEST


def test_open_takes_the_stored_bytes_and_fetches_them_again_when_gone(fetcher, server):
    uri = server.base + "/ok"
    got = fetcher.fetch(uri)
    assert fetcher.open(uri, DIGEST) == got.path
    assert server.hits["/ok"] == 1
    got.path.unlink()
    assert fetcher.open(uri, DIGEST).read_bytes() == BODY
    assert server.hits["/ok"] == 2


def test_open_refuses_other_bytes(fetcher, server):
    uri = server.base + "/changing"
    got = fetcher.fetch(uri)
    got.path.unlink()
    with pytest.raises(ContentError, match="changed while it was being fingerprinted") as caught:
        fetcher.open(uri, got.digest)
    assert caught.value.retryable


def test_the_least_recently_used_downloads_are_evicted(fetcher, server, blobs):
    uri = server.base + "/changing"
    first, second, third = (fetcher.fetch(uri) for _ in range(3))
    assert fetcher.evict(0) == 0  # all are in use
    for age, got in ((300, first), (200, second), (100, third)):
        os.utime(got.path, (time.time() - age,) * 2)
    fetcher.open(uri, first.digest)
    assert fetcher.evict(3) == 0
    assert fetcher.evict(2) == 1
    assert files_in(blobs) == sorted([first.digest, third.digest])
    assert fetcher.evict(0) == 1
    assert files_in(blobs) == [first.digest]
    assert fetcher.evict(0, in_use_seconds=0) == 1


def test_eviction_clears_what_killed_downloads_left(fetcher, blobs):
    assert fetcher.evict(0) == 0
    blobs.mkdir()
    (blobs / "part-new").write_bytes(b"1")
    (blobs / "part-old").write_bytes(b"22")
    os.utime(blobs / "part-old", (0, 0))
    assert fetcher.evict(10) == 2
    assert files_in(blobs) == ["part-new"]


def test_a_full_disk_is_said_and_can_be_tried_again(server, tmp_path):
    (tmp_path / "blobs").write_text("a file where the folder should be")
    error = refused(Fetcher(tmp_path / "blobs"), server.base + "/ok")
    assert "cannot be stored" in error.reason
    assert error.retryable


def test_many_threads_share_one_fetcher_and_its_connections(fetcher, server, blobs):
    with ThreadPoolExecutor(8) as threads:
        digests = list(threads.map(lambda _: fetcher.fetch(server.base + "/ok").digest, range(80)))
    assert set(digests) == {DIGEST}
    assert files_in(blobs) == [DIGEST]
    assert len(server.connections) <= 16
