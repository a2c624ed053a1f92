"""Real web servers on loopback addresses, whose answers a test chooses."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

Answer = Callable[["Handler"], None]
Running = TypeVar("Running", bound=ThreadingHTTPServer)


class Handler(BaseHTTPRequestHandler):
    """Hands each request to the server's `answer` after writing it down."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Server"

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.asked.append(self.path)
            self.server.headers.append(dict(self.headers))
            self.server.busy += 1
            self.server.busiest = max(self.server.busiest, self.server.busy)
        try:
            self.server.answer(self)
        except OSError:  # the client has gone
            self.close_connection = True
        finally:
            with self.server.lock:
                self.server.busy -= 1

    def send(self, body: bytes = b"", status: int = 200, **headers: object) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": len(body), **headers}.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """asked: the paths of all requests; headers: theirs; busiest: the most requests that ran at once."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: str, port: int, answer: Answer) -> None:
        super().__init__((address, port), Handler)
        self.answer = answer
        self.lock = threading.Lock()
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.busy = self.busiest = 0
        self.base = f"http://{address}:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        pass


@contextmanager
def running(server: Running) -> Iterator[Running]:
    """The server, answering for the time of the block."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def serving(answer: Answer, address: str = "127.0.0.1", port: int = 0) -> Iterator[Server]:
    """A server that answers every request by `answer`, for the time of the block."""
    with running(Server(address, port, answer)) as server:
        yield server
