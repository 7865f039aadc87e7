"""One Meter stream of the load generator: a closed loop of messages, or messages at their times."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import grpc
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from benchmarks.taken import retry_seconds
from oanim.pipeline import MOST_OPERATIONS, MOST_UNDER_WAY
from openanimate.metering.v1.error_reason_pb2 import ErrorReason
from openanimate.metering.v1.wallet_service_pb2 import MeterResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.requests import Metered
    from benchmarks.taken import Taken

# What overload refuses, and what then is not there to be charged.
OVERLOAD = {ErrorReason.ERROR_REASON_OVERLOADED, ErrorReason.ERROR_REASON_NOT_FOUND}


def under_way(size: int) -> int:
    """How many messages of so many operations are sent before one is answered.

    As many as the SDK has, and no more than the server reads: what one message may have, and a message more.
    """
    return min(MOST_UNDER_WAY, 1 + MOST_OPERATIONS // size)


class MeterStream:
    """A stream, its messages, and where what became of them is noted."""

    def __init__(self, stream: Any, messages: Metered, taken: Taken) -> None:
        self._stream = stream
        self._messages = messages
        self._taken = taken
        self._sent: asyncio.Queue[float | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(under_way(messages.size))
        self._waits = 0.0

    async def loop(self, until: float) -> None:
        """Send the next message as soon as there is room for it."""

        async def due() -> AsyncIterator[float]:
            await self._room.acquire()
            while (now := time.perf_counter()) < until:
                yield now
                await self._room.acquire()
                await asyncio.sleep(min(self._waits, max(0.0, until - time.perf_counter())))

        await self._converse(due())

    async def paced(self, began: float, until: float, every: float) -> None:
        """Send a message at each of its times, or as soon after it as the server takes it."""

        async def due() -> AsyncIterator[float]:
            at = began
            while max(at, time.perf_counter()) < until:
                await asyncio.sleep(max(0.0, at - time.perf_counter()))
                yield at
                at += every

        await self._converse(due())

    async def _converse(self, due: AsyncIterator[float]) -> None:
        both = [asyncio.create_task(self._write(due)), asyncio.create_task(self._read())]
        try:
            await asyncio.gather(*both)
        except grpc.aio.AioRpcError as error:
            self._taken.failed.append(f"{error.code()}: {error.details()}")
        finally:
            for one in both:
                one.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _write(self, due: AsyncIterator[float]) -> None:
        async for at in due:
            self._sent.put_nowait(at)
            await self._stream.write(self._messages.message())
        await self._stream.done_writing()
        self._sent.put_nowait(None)

    async def _read(self) -> None:
        while (at := await self._sent.get()) is not None:
            answer = await self._stream.read()
            if not isinstance(answer, bytes):
                self._taken.failed.append("a stream has ended by itself")
                return
            self._waits = self._note(answer, time.perf_counter() - at)
            self._room.release()

    def _note(self, answer: bytes, took: float) -> float:
        """Note what became of a message; for how many seconds to pause after it."""
        outcomes = MeterResponse.FromString(answer).outcomes
        refused = [one.refused for one in outcomes if one.HasField("refused")]
        self._taken.answered.append(took)
        self._taken.operations += len(outcomes) - len(refused)
        for refusal in refused:
            if refusal.reason in OVERLOAD:
                self._taken.refused.append(took)
            else:
                self._taken.failed.append(f"{ErrorReason.Name(refusal.reason)}: {refusal.message}")
        return retry_seconds(Status.FromString(refused[0].status)) if refused else 0.0
