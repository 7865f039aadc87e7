"""Messages of one stream: decided together, no more at once than one may have, answered in their order."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import pytest

from oanim_server.ledger.refusals import Draining
from oanim_server.ledger.values import Outcome
from oanim_server.rpc.streams import MOST, in_turn
from tests.ledger.driving import Driven, busy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from oanim_server.rpc.streams import Answer, Work


class Sent:
    """The messages of a stream: of so many operations each, without end; how many were read."""

    def __init__(self, ledger: Driven, size: int) -> None:
        self._ledger = ledger
        self._size = size
        self.wallet_id = ledger.open_wallet(1_000_000)
        self.read = 0

    async def all(self, times: int | None = None) -> AsyncIterator[int]:
        """The messages, or so many of them."""
        while self.read != times:
            await asyncio.sleep(0)
            self.read += 1
            yield self.read

    async def works(self, number: int) -> list[Work]:
        """The operations of a message: holds of one micro each."""
        return [
            self._ledger.reserve(self.wallet_id, 1, key=f"{number}-{place}") for place in range(self._size)
        ]

    def decided(self, times: int | None = None) -> AsyncGenerator[tuple[list[Work], list[Answer]]]:
        """What becomes of them."""
        return in_turn(self.all(times), self.works, self._ledger.ledger)

    async def still_read(self) -> int:
        """How many were read once it stands still."""
        before = -1
        while before != self.read:
            before = self.read
            await asyncio.sleep(0.1)
        return before


def test_small_messages_that_come_together_are_one_group(ledger: Driven) -> None:
    sent, groups = Sent(ledger, 10), []

    async def ask() -> list[Any]:
        with busy(ledger):
            taking = asyncio.create_task(taken())
            assert await sent.still_read() == 50
            ledger.ledger.tally.observe = lambda operations, _seconds: groups.append(operations)
        return await taking

    async def taken() -> list[Any]:
        return [answer async for _, answers in sent.decided(50) for answer in answers]

    answers = asyncio.run(ask())
    assert [answer.wallet.held_micros for answer in answers] == list(range(1, 501))
    # A group is told of after its answers.
    ledger.ledger.run_write(lambda _connection, _now: None)
    assert max(groups) == 500


@pytest.mark.parametrize("size", [1, 100, 300, 1_000])
def test_no_more_of_a_stream_waits_than_one_message_may_have(ledger: Driven, size: int) -> None:
    """And one that is read and made ready."""
    sent = Sent(ledger, size)
    fit = MOST // size

    async def ask() -> None:
        async with aclosing(sent.decided()) as decided:
            with busy(ledger):
                first = asyncio.create_task(anext(decided))
                assert await sent.still_read() == fit + 1
                assert ledger.ledger.queued == fit * size
            await first
            # Nobody takes the answers of the others: their room is not given to more.
            assert await sent.still_read() == fit + 2

    asyncio.run(ask())
    assert ledger.problems() == []


def test_messages_without_operations_are_not_read_without_end(ledger: Driven) -> None:
    sent = Sent(ledger, 0)

    async def ask() -> None:
        async with aclosing(sent.decided()) as decided:
            assert await anext(decided) == ([], [])
            assert await sent.still_read() == MOST + 2

    asyncio.run(ask())


def test_what_was_queued_is_answered_before_a_server_that_stops_says_so(ledger: Driven) -> None:
    sent = Sent(ledger, 400)

    async def ask() -> list[Any]:
        answers: list[Any] = []
        async with aclosing(sent.decided(3)) as decided:
            with busy(ledger):
                first = asyncio.create_task(anext(decided))
                assert await sent.still_read() == 3
                assert ledger.ledger.queued == 800
                stopping = threading.Thread(target=ledger.ledger.stop_now)
                stopping.start()
            answers += (await first)[1]
            answers += (await anext(decided))[1]
            with pytest.raises(Draining):
                await anext(decided)
            await asyncio.to_thread(stopping.join)
        return answers

    answers = asyncio.run(ask())
    assert [type(answer) for answer in answers] == [Outcome] * 800
    assert ledger.problems() == []


def test_of_a_stream_that_is_left_no_reserve_is_begun(ledger: Driven) -> None:
    sent = Sent(ledger, 100)

    async def ask() -> None:
        with busy(ledger):
            async with aclosing(sent.decided()) as decided:
                first = asyncio.create_task(anext(decided))
                await sent.still_read()
                first.cancel()
                with suppress(asyncio.CancelledError):
                    await first

    asyncio.run(ask())
    assert ledger.wallet(sent.wallet_id).held_micros == 0
    assert ledger.ledger.queued == 0
