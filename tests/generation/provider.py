"""A provider that answers what a test says, and keeps every byte that it was sent."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class Answer(NamedTuple):
    """What a path answers; with `when`, not before that is set."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    when: threading.Event | None = None


class Provider:
    """Answers by path; anything else is 404. `sent` are the headers and bodies of POSTs."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: dict[str, Answer] = {}
        self.sent: list[tuple[dict[str, str], bytes]] = []
        # For tests that hold an answer back.
        self.answered = threading.Event()

    def makes(self, result: object, *, model: str, status: object = None) -> None:
        """Take any submit to a model; its result is there at once, unless `status` says otherwise."""
        job = f"/{model}/requests/r1"
        urls = {"status_url": f"{self.url}{job}/status", "response_url": f"{self.url}{job}"}
        self.answers[f"/{model}"] = answered({"request_id": "r1", **urls})
        self.answers[f"{job}/status?logs=1"] = answered(status or {"status": "COMPLETED"})
        self.answers[job] = answered(result)


def answered(content: object) -> Answer:
    """An answer in JSON."""
    return Answer(200, {"content-type": "application/json"}, json.dumps(content).encode())


@contextmanager
def provider() -> Iterator[Provider]:
    """One on loopback, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", "0")))
            one.sent.append((headers, body))
            self._answer()

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self) -> None:
            answer = one.answers.get(self.path, Answer(404, {}))
            if answer.when is not None:
                answer.when.wait(60)
            self.send_response(answer.status)
            for name, value in {"content-length": str(len(answer.body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    one = Provider(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield one
    server.shutdown()
    server.server_close()
    thread.join()
