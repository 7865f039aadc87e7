"""Many operations over one stream, for asyncio: what callers await at the same time goes in few messages.

One task opens a stream when there is something to send, and another when that breaks; what was not answered
is sent again. What a caller cancels is not sent, or its answer is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

import grpc
from google.protobuf.message import Message
from grpc import aio

from oanim.calls import streams
from oanim.calls.described import described_by
from oanim.details import closed, error_of
from oanim.errors import OanimError
from oanim.pipeline import Asked, Pipeline, cut_off, left

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType
    from typing import Self

    from oanim.aio_connection import AsyncConnection
    from oanim.calls.streams import Piece, StreamMethod

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer", bound=Message)

# More than may be under way, so that the next message fills meanwhile.
MOST_UNANSWERED = 5_000
_LEAVING_S = 1.0
_EXPIRING_S = 0.01


class _Door:
    """Lets callers in while there is room, the others in the order in which they came."""

    def __init__(self, inside: set[Asked[Any]]) -> None:
        self._inside = inside
        self._waiting: deque[asyncio.Future[None]] = deque()
        # Let in, and not inside yet: whoever comes now comes after them.
        self._entering = 0

    def is_open(self) -> bool:
        return not self.is_busy() and len(self._inside) < MOST_UNANSWERED

    def is_busy(self) -> bool:
        return bool(self._waiting or self._entering)

    async def wait(self) -> None:
        """Return when it is the caller's turn."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        finally:
            if turn.done() and not turn.cancelled():
                self._entering -= 1
            # Where this one does not go in after all; where it does, there is room for one less by then.
            asyncio.get_running_loop().call_soon(self.let_in)

    def let_in(self) -> None:
        """Let in as many as there is room for."""
        while self._waiting and len(self._inside) + self._entering < MOST_UNANSWERED:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._entering += 1


class AsyncStream:
    """A block of operations over streams of one method, to be entered once."""

    def __init__(self, connection: AsyncConnection, method: StreamMethod, *, timeout_s: float | None) -> None:
        self._connection = connection
        self._method = method
        self._timeout_s = connection.timeout_s if timeout_s is None else timeout_s
        self._pipeline = Pipeline()
        self._door = _Door(self._pipeline.unanswered)
        self._woken = asyncio.Event()
        self._answered = asyncio.Event()
        self._carrying: asyncio.Task[None] | None = None
        self._leaving = False
        self._expiring: asyncio.TimerHandle | None = None
        self._expire_at = math.inf

    async def __aenter__(self) -> Self:
        if self._carrying is not None:
            raise RuntimeError("a stream is entered once")
        self._carrying = asyncio.create_task(self._carry(), name=f"oanim {self._method.path}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving = True
        carrying = cast("asyncio.Task[None]", self._carrying)
        try:
            while (self._pipeline.unanswered or self._door.is_busy()) and not carrying.done():
                self._answered.clear()
                await self._answered.wait()
            self._woken.set()
            await asyncio.wait({carrying}, timeout=_LEAVING_S)
        finally:
            carrying.cancel()
            await asyncio.gather(carrying, return_exceptions=True)
            if self._expiring is not None:
                self._expiring.cancel()

    async def ask(self, piece: Piece[Answer]) -> Answer:
        """Send one operation with those that others ask for meanwhile, and answer as its call would."""
        if self._carrying is None or self._carrying.done() or self._leaving:
            raise RuntimeError("a stream is used inside of its block")
        deadline = time.monotonic() + (self._timeout_s if piece.timeout_s is None else piece.timeout_s)
        promise: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        asked = Asked(piece, promise, deadline)
        if not self._door.is_open():
            await self._enter(asked)
        self._pipeline.add(asked)
        if deadline < self._expire_at:
            self._expire_by(deadline)
        self._woken.set()
        try:
            return await promise
        except asyncio.CancelledError:
            if promise.done() and not promise.cancelled():
                promise.exception()  # nobody else looks at it
            self._pipeline.abandon(asked)
            self._went_on()
            raise

    async def _enter(self, asked: Asked[Any]) -> None:
        left_s = asked.deadline - time.monotonic()
        try:
            async with asyncio.timeout(None if math.isinf(left_s) else left_s):
                await self._door.wait()
        except TimeoutError:
            raise self._pipeline.gave_up(asked) from None

    async def _carry(self) -> None:
        """Open one stream after another, while there is something to send and until the block ends."""
        try:
            while True:
                while not self._pipeline.unanswered:
                    if self._is_done():
                        return
                    await self._until_woken(None)
                error = await self._through_one()
                if error is None:
                    return
                pause_s = self._pipeline.broke(error)
                self._went_on()
                if pause_s is not None:
                    await asyncio.sleep(pause_s)
        finally:
            self._pipeline.fail(left())
            self._went_on()

    async def _through_one(self) -> OanimError | None:
        """Open a stream and use it until it ends: why it broke, or None at the end of the block."""
        try:
            call = self._connection.both_ways(self._method.path, self._method.answer)
        except OanimError as error:
            return error
        writing = asyncio.create_task(self._write(call))
        try:
            while (response := await call.read()) is not aio.EOF:
                self._pipeline.answer(response.outcomes, time.monotonic())
                self._woken.set()
                self._went_on()
            return None if self._is_done() else cut_off()
        except grpc.RpcError as failure:
            return error_of(failure)
        except OanimError as error:
            return error
        except asyncio.CancelledError:
            task = cast("asyncio.Task[Any]", asyncio.current_task())
            if task.cancelling():
                raise
            return closed()  # the channel is, and with it every call of it
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            call.cancel()

    async def _write(self, call: Any) -> None:
        # Why a stream takes nothing any more, its reader is told.
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            while True:
                message = self._pipeline.take(time.monotonic())
                if message is not None:
                    await call.write(message)
                elif self._is_done():
                    await call.done_writing()
                    return
                else:
                    await self._until_woken(self._pipeline.next_at())

    async def _until_woken(self, at: float | None) -> None:
        if at is None:
            await self._woken.wait()
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(at - time.monotonic(), 0.0)):
                    await self._woken.wait()
        self._woken.clear()

    def _is_done(self) -> bool:
        return self._leaving and not self._pipeline.unanswered and not self._door.is_busy()

    def _went_on(self) -> None:
        """Let in those that there is room for now, and look again whether the block may end."""
        self._door.let_in()
        self._answered.set()

    def _expire_by(self, at: float) -> None:
        """Look at `at` for operations whose time is over."""
        if self._expiring is not None:
            self._expiring.cancel()
        self._expire_at = at
        # Not more often than that, however many times there are.
        pause_s = max(at - time.monotonic(), _EXPIRING_S)
        self._expiring = asyncio.get_running_loop().call_later(pause_s, self._expire)

    def _expire(self) -> None:
        now = time.monotonic()
        for asked in [asked for asked in self._pipeline.unanswered if asked.deadline <= now]:
            self._pipeline.expire(asked)
        self._expiring, self._expire_at = None, math.inf
        following = min((asked.deadline for asked in self._pipeline.unanswered), default=math.inf)
        if not math.isinf(following):
            self._expire_by(following)
        self._went_on()


def _asked(
    build: Callable[Arguments, Piece[Answer]],
) -> Callable[Concatenate[AsyncStream, Arguments], Coroutine[Any, Any, Answer]]:
    async def method(self: AsyncStream, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        return await self.ask(build(*args, **kwargs))

    return described_by(build, method, returns="{}")


class AsyncMeterStream(AsyncStream):
    """A Meter stream; made by `AsyncClient.meter`."""

    reserve = _asked(streams.reserve)
    commit = _asked(streams.commit)
    release = _asked(streams.release)


class AsyncUsageStream(AsyncStream):
    """A StreamUsage stream; made by `AsyncClient.stream_usage`."""

    report = _asked(streams.report)
    event = _asked(streams.event)
