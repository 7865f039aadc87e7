"""Runs the HTTP pages on the event loop that the gRPC server runs on; the signals are not uvicorn's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.applications import Starlette

STOP_SECONDS = 2


class WebServer:
    """An HTTP server as a task."""

    def __init__(self, application: Starlette, host: str, port: int) -> None:
        """Take the port. Raises OSError when it cannot be had."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family)
        self.port: int = self._socket.getsockname()[1]
        self._server = _Quiet(
            uvicorn.Config(
                application,
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Serve."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="web")
        await self._server.began.wait()

    async def stop(self) -> None:
        """Stop; requests in flight have a moment to finish."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task

    def close(self) -> None:
        """Let go of the port."""
        self._socket.close()


class _Quiet(uvicorn.Server):
    """A uvicorn that leaves the signals alone and tells when it has begun."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.began = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.began.set()
