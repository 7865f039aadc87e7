"""Streams of many operations a message: they wait in a lane of the ledger's queue and are answered in order.

As many operations of a stream are under way as one message may have. The message after them is read and made
ready meanwhile, and no further one: a caller that sends faster, or does not read its answers, is held up by
the flow control of its connection.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from oanim_server.ledger.operations import Commit, Operation, Reserve
from oanim_server.ledger.queueing import Lane
from oanim_server.ledger.refusals import InvalidField, OutcomeUnknown, Refusal
from oanim_server.ledger.values import Outcome
from oanim_server.rpc import outcomes
from oanim_server.rpc.status import in_stream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence

    from oanim_server.ledger.ledger import Ledger
    from oanim_server.pricing.prices import Prices
    from oanim_server.rpc.call import Call
    from openanimate.metering.v1 import wallet_service_pb2 as pb

T = TypeVar("T")
A = TypeVar("A")
# An operation, or the refusal of what cannot be one.
Work = Operation | Refusal
Answer = Outcome | Refusal | OutcomeUnknown

MOST = 1_000
# How many are read or answered before others of the event loop have their turn: a millisecond's work.
AT_ONCE = 100


async def works(
    field: str,
    asked: Sequence[T],
    call: Call,
    prices: Prices,
    read: Callable[[T, Call, Prices], Operation | Awaitable[Operation]],
) -> list[Work]:
    """The operations of a message, at the caller's rate; one that is misshapen is refused in its place.

    :raises InvalidField: for more than one message may have.
    """
    if len(asked) > MOST:
        raise InvalidField(field=field, description=f"there are {len(asked)} and may be 1,000 at most")
    await call.paced(len(asked))
    found: list[Work] = []
    for number, each in enumerate(asked, 1):
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)
        try:
            work = read(each, call, prices)
            found.append(work if isinstance(work, Operation) else await work)
        except Refusal as refusal:
            found.append(refusal)
    return found


async def in_turn(
    requests: AsyncIterator[T], read: Callable[[T], Awaitable[list[Work]]], ledger: Ledger
) -> AsyncGenerator[tuple[list[Work], list[Answer]]]:
    """The operations of each message, with their outcomes or refusals, in the order of the messages."""
    under_way = _UnderWay(ledger)
    reading = asyncio.create_task(_read(requests, read, under_way))
    try:
        while (decided := await under_way.next()) is not None:
            yield decided
        # What ended the reading, if it was no end of the caller's.
        await reading
    finally:
        reading.cancel()
        under_way.leave()
        await asyncio.gather(reading, return_exceptions=True)


async def _read(
    requests: AsyncIterator[T], read: Callable[[T], Awaitable[list[Work]]], under_way: _UnderWay
) -> None:
    try:
        async for request in requests:
            await under_way.submit(await read(request))
    finally:
        # What came before it is answered first, however it ends.
        under_way.end()


class _UnderWay:
    """The messages of a stream that are in the queue, or decided and not given back yet."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lane = Lane()
        self._deciding: asyncio.Queue[tuple[list[Work], asyncio.Future[list[Answer]]] | None] = (
            asyncio.Queue()
        )
        self._operations = 0
        self._room = asyncio.Event()

    async def submit(self, asked: list[Work]) -> None:
        """Queue a message, when there is room for it.

        :raises Draining: when the ledger is about to stop.
        """
        while self._operations and self._operations + _size(asked) > MOST:
            self._room.clear()
            await self._room.wait()
        deciding = self._ledger.submit_all(asked, self._lane)
        self._operations += _size(asked)
        self._deciding.put_nowait((asked, deciding))

    def end(self) -> None:
        """Say that nothing more comes."""
        self._deciding.put_nowait(None)

    async def next(self) -> tuple[list[Work], list[Answer]] | None:
        """The next message that is decided; None at the end."""
        queued = await self._deciding.get()
        if queued is None:
            return None
        asked, deciding = queued
        answers = await deciding
        # More is decided while these are written, which may take their reader's time.
        self._operations -= _size(asked)
        self._room.set()
        return asked, answers

    def leave(self) -> None:
        """Wait for nothing any more."""
        while not self._deciding.empty():
            if (queued := self._deciding.get_nowait()) is not None:
                queued[1].cancel()


def _size(asked: list[Work]) -> int:
    return len(asked) or 1


async def answered(
    asked: Sequence[Work],
    answers: Sequence[Answer],
    added: Callable[[], A],
    write: Callable[[Work, Answer, A], None],
) -> None:
    """Write what became of each operation of a message into an outcome that is added to its answer."""
    for number, (work, answer) in enumerate(zip(asked, answers, strict=True), 1):
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)
        write(work, answer, added())


def metered(work: Work, answer: Answer, into: pb.MeterOutcome) -> None:
    """What became of an operation of Meter."""
    if not isinstance(answer, Outcome):
        into.refused.CopyFrom(_refused(answer))
    elif isinstance(work, Reserve):
        outcomes.reserved(answer, into.reserve)
    elif isinstance(work, Commit):
        outcomes.committed(answer, into.commit)
    else:
        outcomes.released(answer, into.release)


def used(_item: Work, answer: Answer, into: pb.UsageOutcome) -> None:
    """What became of a usage item."""
    if not isinstance(answer, Outcome):
        into.refused.CopyFrom(_refused(answer))
    else:
        outcomes.counted(answer, into.accepted)


def _refused(answer: Refusal | OutcomeUnknown) -> pb.Refusal:
    """A refusal. One outcome that is not known ends the stream: whoever repeats it is told."""
    if isinstance(answer, OutcomeUnknown):
        raise answer
    return in_stream(answer)
