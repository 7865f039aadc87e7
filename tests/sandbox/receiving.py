"""A seller's webhook: a real HTTP server that keeps what it is sent, and refuses when told to."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self

import stripe

if TYPE_CHECKING:
    from types import TracebackType

SECRET = "whsec_test"


class Inbox:
    """What arrived, in order: bodies with their signatures. `answers` are used up first; then it is 200."""

    def __init__(self) -> None:
        self.arrived: list[tuple[bytes, str]] = []
        self.answers: list[int] = []
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                inbox.arrived.append((body, self.headers["stripe-signature"]))
                self.send_response(inbox.answers.pop(0) if inbox.answers else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's
                """Nobody reads it."""

        class Server(ThreadingHTTPServer):
            # Fifty at once wait to be let in.
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self._server.server_port}/webhook"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def events(self, secret: str = SECRET) -> list[stripe.Event]:
        """Everything that arrived, verified."""
        return [stripe.Webhook.construct_event(body, header, secret) for body, header in self.arrived]

    def types(self) -> list[str]:
        return [event.type for event in self.events()]
