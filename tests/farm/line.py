"""A line between a worker and the service that can be cut, in the middle of whatever is on it."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self


class Line:
    """Passes on what comes to a port of its own, as long as it is not cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._writers: set[asyncio.StreamWriter] = set()
        self.cuts = 0
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    def cut_after(self, seconds: float) -> bool:
        """Cut every connection, a while from now."""
        time.sleep(seconds)
        self._loop.call_soon_threadsafe(self._cut)
        return True

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        served = await asyncio.start_server(self._passed_on, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{served.sockets[0].getsockname()[1]}"
        self._started.set()
        await self._over.wait()
        served.close()
        self._cut()

    def _cut(self) -> None:
        self.cuts += bool(self._writers)
        for writer in list(self._writers):
            writer.transport.abort()

    async def _passed_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
            ends = {writer, far_writer}
            self._writers |= ends
            await asyncio.gather(
                _copied(reader, far_writer), _copied(far_reader, writer), return_exceptions=True
            )
            self._writers -= ends


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
    finally:
        writer.transport.abort()
