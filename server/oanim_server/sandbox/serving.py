"""Runs a stand-in on loopback, in a thread of its own, with its files in a folder that goes with it.

Each request is given its connection's transport (`request.state.transport`): hanging up without an
answer is something ASGI has no word for.
"""

from __future__ import annotations

import logging
import socket
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from types import TracebackType

    from starlette.applications import Starlette

_LOG = logging.getLogger(__name__)
_STOP_S = 10


class StandIn(Protocol):
    """An application that plays a provider, and everything it remembers."""

    app: Starlette

    async def close(self) -> None:
        """Let go of every connection that waits, and end what runs."""


class Sandbox:
    """A provider of your own at `url`, while it is started; a context manager, too.

    :param provider: whom it stands in for.
    :param stand_in: makes the application inside the server's loop, of a folder for its files and the url.
    """

    def __init__(self, provider: str, stand_in: Callable[[Path, str], StandIn], *, port: int) -> None:
        self._provider = provider
        self._stand_in = stand_in
        self._port = port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self.url = ""

    def start(self) -> str:
        """Serve on loopback, and answer the url. Raises OSError when the port is taken."""
        listening = socket.create_server(("127.0.0.1", self._port))
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        self._server = _Server(self._stand_in, self.url)
        name = f"sandbox of {self._provider}"
        self._thread = threading.Thread(target=self._server.run, args=([listening],), name=name)
        self._thread.daemon = True
        self._thread.start()
        self._server.ready.wait()
        _LOG.warning("this is a %s at %s: what it answers is made up and nothing is paid", name, self.url)
        return self.url

    def stop(self) -> None:
        """Hang up, forget everything and remove its files; nothing happens when it does not run."""
        if self._server and self._thread:
            self._server.should_exit = True
            self._thread.join(_STOP_S)
            self._server = self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Server(uvicorn.Server):
    def __init__(self, stand_in: Callable[[Path, str], StandIn], url: str) -> None:
        super().__init__(
            uvicorn.Config(
                self._serve_sandbox,
                http=_Protocol,
                ws="none",
                loop="asyncio",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=1,
            )
        )
        self.ready = threading.Event()
        self._make = stand_in
        self._url = url
        self._folder = tempfile.TemporaryDirectory(prefix="oanim-sandbox-", ignore_cleanup_errors=True)
        self._sandbox: StandIn | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._sandbox = self._make(Path(self._folder.name), self._url)
        await super().startup(sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._sandbox:
            await self._sandbox.close()
        await super().shutdown(sockets)
        self._folder.cleanup()

    async def _serve_sandbox(self, scope: Any, receive: Any, send: Any) -> None:
        if self._sandbox:
            await self._sandbox.app(scope, receive, send)


class _Protocol(H11Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio does it only for sockets that name their protocol, which `create_server` makes none of;
        # without it every answer waits 40 ms for the client's delayed acknowledgement.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.app_state = {**self.app_state, "transport": transport}
