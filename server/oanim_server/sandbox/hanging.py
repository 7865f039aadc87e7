"""What a client of a provider must live with: answers that come late, never, or as a closed connection."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request

_NO_LINGER = struct.pack("ii", 1, 0)


class Patience:
    """The waits of one stand-in, all of which end when it stops."""

    def __init__(self) -> None:
        self._stopping = asyncio.Event()

    def end(self) -> None:
        self._stopping.set()

    async def until_gone(self, request: Request) -> None:
        """Wait, without an answer, until the client gives up or the stand-in stops."""
        waits = [asyncio.ensure_future(gone(request)), asyncio.ensure_future(self._stopping.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        await hang_up(request)

    async def rest(self, seconds: float | None) -> None:
        """Wait; None is one second."""
        try:
            async with asyncio.timeout(1.0 if seconds is None else seconds):
                await self._stopping.wait()
        except TimeoutError:
            return


async def gone(request: Request) -> None:
    """Wait until the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def hang_up(request: Request) -> None:
    """Close the connection as a crash does, with a reset and no byte of an answer, if its client has not."""
    transport = request.state.transport
    if transport.is_closing():
        return
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()
    # The server must have seen it before the empty answer is given to it.
    await gone(request)
