"""Runs the sandbox on loopback, in a thread of its own, with its files in a folder that goes with it.

Each request is given its connection's transport (`request.state.transport`): hanging up without an
answer is something ASGI has no word for.
"""

from __future__ import annotations

import logging
import socket
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from oanim_server.sandbox.fal import FalSandbox

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType

_LOG = logging.getLogger(__name__)
_STOP_S = 10


class Sandbox:
    """A fal.ai of your own at `url`, while it is started; a context manager, too.

    `pace_s` is how long each job queues and how long it runs at least, so that there is something to see.
    """

    def __init__(self, *, port: int = 0, pace_s: float = 0.0) -> None:
        self._port = port
        self._pace_s = pace_s
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self.url = ""

    def start(self) -> str:
        """Serve on loopback, and answer the url. Raises OSError when the port is taken."""
        listening = socket.create_server(("127.0.0.1", self._port))
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        self._server = _Server(self._pace_s)
        self._thread = threading.Thread(target=self._server.run, args=([listening],), name="fal-sandbox")
        self._thread.daemon = True
        self._thread.start()
        self._server.ready.wait()
        _LOG.warning("this is a sandbox of fal.ai at %s: its files are made up and nothing is paid", self.url)
        return self.url

    def stop(self) -> None:
        """Hang up, forget every job and remove its files; nothing happens when it does not run."""
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
    def __init__(self, pace_s: float) -> None:
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
        self._pace_s = pace_s
        self._folder = tempfile.TemporaryDirectory(prefix="oanim-sandbox-", ignore_cleanup_errors=True)
        self._sandbox: FalSandbox | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._sandbox = FalSandbox(Path(self._folder.name), pace_s=self._pace_s)
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
        self.app_state = {**self.app_state, "transport": transport}
