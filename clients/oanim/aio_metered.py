"""Meters a block of work, for asyncio: what metered.py does, with a task in place of the renewal thread.

A cancelled task leaves no hold behind: what opens and what settles a block runs to its end, and the task is
cancelled after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.message import Message

from oanim.block import SETTLING_S, Block, Readings
from oanim.errors import OanimError
from oanim.retries import Attempts, Deadline, backoff_s, is_repeatable

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType
    from typing import Self

    from oanim.aio_connection import AsyncConnection
    from oanim.calls.call import Call

Answer = TypeVar("Answer", bound=Message)


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Await work that must not stop halfway; a cancellation waits for it."""
    task = asyncio.ensure_future(work)
    interruption: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as cancelled:
            interruption = cancelled
    if interruption is None:
        task.result()
        return
    failure = None if task.cancelled() else task.exception()
    if failure is not None:
        interruption.add_note(f"oanim: {failure}")
    raise interruption


class AsyncMeter(Readings):
    """A metered block; made by `AsyncClient.metered`, to be entered once."""

    def __init__(self, connection: AsyncConnection, block: Block) -> None:
        self._connection = connection
        self._block = block
        self._using = asyncio.Lock()
        self._renewal: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        try:
            await _to_the_end(self._reserve())
        except OanimError as error:
            raise error.repeatable_with(self.key) from None
        except asyncio.CancelledError:
            if self.reservation.reservation_id:
                await _to_the_end(self._abandon())
            raise
        self._renewal = asyncio.create_task(self._renew(), name="oanim-meter")
        return self

    async def used(self, units: int = 1) -> None:
        """Count what is used, on top of what was counted before; a hold that is too small is extended first.

        Raises what Extend raises, InsufficientCredits above all, and then counts nothing.
        """
        async with self._using:
            missing_micros = self._block.missing_micros(units)
            if missing_micros:
                call = self._block.extend_call(missing_micros)
                self._block.extended(await self._patiently(call, self._connection.timeout_s))
            self._block.total += units

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
        try:
            await _to_the_end(self._settle())
        except OanimError as failure:
            if error is None:
                raise
            error.add_note(self._block.not_settled(failure))

    async def _reserve(self) -> None:
        answer = await self._connection.unary(self._block.reserve_call())
        self._block.reserved(answer)
        if answer.replayed:
            found = await self._connection.unary(self._block.look_again_call())
            self._block.found(found.reservation)

    async def _abandon(self) -> None:
        """Give back what an interrupted entry set aside; its ttl does where this cannot."""
        with contextlib.suppress(OanimError):
            await self._connection.unary(self._block.release_call())

    async def _settle(self) -> None:
        async with self._using:
            self._block.ended = True
            if self.total:
                charged = await self._patiently(self._block.commit_call(), SETTLING_S)
                self._block.settled(charged)
            else:
                given_back = await self._patiently(self._block.release_call(), SETTLING_S)
                self._block.settled(given_back)

    async def _patiently(self, call: Call[Answer], patience_s: float) -> Answer:
        """Make a call until it is answered, always under the same key."""
        attempts = Attempts(Deadline(patience_s))
        while True:
            try:
                return await self._connection.unary(call)
            except OanimError as error:
                pause_s = attempts.pause_before_repeating_s(error)
                if pause_s is None:
                    raise
            await asyncio.sleep(pause_s)

    async def _renew(self) -> None:
        """Add time until the block ends; a hold that is lost all the same is settled late."""
        for number in itertools.count(1):
            await asyncio.sleep(self._block.renew_every_s)
            if not await self._renewed(number):
                return

    async def _renewed(self, number: int) -> bool:
        call = self._block.renew_call(number)
        for failures in itertools.count(1):
            try:
                await self._connection.unary(call)
            except OanimError as error:
                if not is_repeatable(error):
                    return False
                await asyncio.sleep(backoff_s(failures))
            else:
                break
        return True
