"""The ledger's front: operations in, outcomes out, and what can be read and watched."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy import select

from oanim_server.database.tables import wallets
from oanim_server.ledger.committer import Committer
from oanim_server.ledger.due import PORTION
from oanim_server.ledger.operations import SettleDue
from oanim_server.ledger.reads import (
    ChargeRecord,
    DueFirstError,
    Grouping,
    Reads,
    Statement,
    UncollectedRecord,
    UsageTotal,
)
from oanim_server.ledger.sweeping import Sweeper
from oanim_server.ledger.values import SECOND, SERVER
from oanim_server.ledger.watching import Hub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from sqlalchemy import Connection

    from oanim_server.database.engine import Database
    from oanim_server.ledger.operations import Operation
    from oanim_server.ledger.queueing import Lane
    from oanim_server.ledger.refusals import Refusal
    from oanim_server.ledger.values import LimitFacts, Outcome, ReservationFacts, WalletFacts

T = TypeVar("T")

# A watcher whose clock runs a little before the database's asks again, and not at once.
LEAST_WAIT_SECONDS = 0.05


class Ledger:
    """Every movement of money of one process. Start it on the event loop that submits to it."""

    def __init__(self, database: Database, *, queue_limit: int = 2_000, group_limit: int = 1_000) -> None:
        self._database = database
        self._reads = Reads(database.statements, most_due=PORTION)
        self._hub = Hub(self._look if database.dialect == "postgresql" else None)
        self._committer = Committer(
            database, changed=self._hub.wake, queue_limit=queue_limit, group_limit=group_limit
        )
        self._sweeper = Sweeper(database, self._committer)
        self.tally = self._committer.tally

    def start(self, *, sweep: bool = True) -> None:
        """Begin to take operations and, on a running event loop, to sweep."""
        self._committer.start()
        if sweep:
            self._sweeper.start()

    async def stop(self) -> None:
        """Stop sweeping, commit what is queued, end."""
        await self._sweeper.stop()
        await self._hub.close()
        await asyncio.to_thread(self._committer.stop)

    def stop_now(self) -> None:
        """The same for a ledger without an event loop."""
        self._committer.stop()

    @property
    def queued(self) -> int:
        """How many operations wait for a group."""
        return self._committer.queued

    # Writing --------------------------------------------------------------------------------------

    async def submit(self, operation: Operation) -> Outcome:
        """Have an operation decided and committed; raises its Refusal.

        Cancelling takes back a Reserve that has not begun, and nothing else.
        """
        return cast("Outcome", await self._committer.submit(operation))

    async def answer(self, operation: Operation, made: Callable[[Outcome], T]) -> T:
        """`submit`, and what is made of the outcome: while the commit is written, and dropped if it fails."""
        return cast("T", await self._committer.submit(operation, made))

    def submit_all(self, works: Sequence[Operation | Refusal], lane: Lane) -> asyncio.Future[list[Any]]:
        """Have operations decided in their order and committed; each one's outcome, or its refusal.

        A refusal among them keeps its place. They are decided after all that the lane has. Cancelling takes
        back the Reserves that have not begun, and nothing else.

        :raises Draining: when the ledger is about to stop.
        """
        return self._committer.submit_all(works, lane)

    async def write(self, change: Callable[[Connection, int], T]) -> T:
        """Have rows written that move no money, at their turn, in a group's database transaction.

        `change` may raise a Refusal before it has written anything. It may be run again, when its group is
        or when the answer of a commit was lost: what it writes must be the same the second time.
        """
        return cast("T", await self._committer.submit(change))

    def run(self, operation: Operation) -> Outcome:
        """`submit` for a thread without an event loop."""
        return cast("Outcome", self._committer.run(operation))

    def run_write(self, change: Callable[[Connection, int], T]) -> T:
        """`write` for a thread without an event loop."""
        return cast("T", self._committer.run(change))

    # Reading --------------------------------------------------------------------------------------

    async def wallet(self, wallet_id: int) -> WalletFacts:
        """The wallet now; NotFound."""
        return await self._read(self._reads.wallet, wallet_id=wallet_id)

    async def watch(self, wallet_id: int) -> AsyncIterator[WalletFacts]:
        """The wallet now, and the latest state after every change, at its instant when time makes it."""
        with self._hub.watching(wallet_id) as changed:
            shown: WalletFacts | None = None
            while True:
                changed.clear()
                facts, stays = await self._read(self._reads.wallet_for, wallet_id=wallet_id)
                if facts != shown:
                    shown = facts
                    yield facts
                seconds = None if stays is None else max(stays / SECOND, LEAST_WAIT_SECONDS)
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await changed.wait()

    async def reservation(self, wallet_id: int, number: int) -> ReservationFacts:
        """One reservation now; NotFound."""
        return await self._database.read(partial(self._reads.reservation, wallet_id=wallet_id, number=number))

    async def reservations(
        self, wallet_id: int, *, active: bool, before: int | None, limit: int
    ) -> list[ReservationFacts]:
        """Reservations below a number, newest first."""
        query = partial(
            self._reads.reservations, wallet_id=wallet_id, active=active, before=before, limit=limit
        )
        return await self._database.read(query)

    async def statement(
        self, wallet_id: int, *, as_of: int | None, before: int | None, limit: int
    ) -> Statement:
        """The journal's rows below a seq, newest first, with the wallet and its lots as of a time."""
        return await self._read(
            self._reads.statement, wallet_id=wallet_id, as_of=as_of, before=before, limit=limit
        )

    async def usage(
        self, wallet_id: int, *, first_day: int, last_day: int, group_by: Grouping
    ) -> list[UsageTotal]:
        """What was charged over days since 1970, both ends included."""
        return await self._read(
            self._reads.usage, wallet_id=wallet_id, first_day=first_day, last_day=last_day, group_by=group_by
        )

    async def charges(
        self, wallet_id: int, *, since: int | None, before: int | None, limit: int
    ) -> list[ChargeRecord]:
        """Charges below a seq, newest first."""
        return await self._read(
            self._reads.charges, wallet_id=wallet_id, since=since, before=before, limit=limit
        )

    async def limits(self, wallet_id: int) -> list[LimitFacts]:
        """The limits of a wallet, and what each has in its present window."""
        return await self._read(self._reads.limits, wallet_id=wallet_id)

    async def uncollected(self, wallet_id: int | None, *, offset: int, limit: int) -> list[UncollectedRecord]:
        """Work that no wallet covered, newest first; of one wallet, or of all."""
        if wallet_id is not None:
            return await self._read(self._reads.uncollected, wallet_id=wallet_id, offset=offset, limit=limit)
        query = partial(self._reads.uncollected, wallet_id=None, offset=offset, limit=limit)
        return await self._database.read(query)

    # Time -----------------------------------------------------------------------------------------

    async def sweep(self) -> int:
        """Write what is due on wallets that nobody touches; how many wallets were settled."""
        return await self._sweeper.sweep()

    async def _read(self, query: Callable[..., T], *, wallet_id: int, **asked: Any) -> T:
        """A read of a wallet as it stands; what is due is written first where the read asks for that."""
        while True:
            try:
                return await self._database.read(partial(query, wallet_id=wallet_id, **asked))
            except DueFirstError:
                await self.submit(SettleDue(wallet_id=wallet_id, caller=SERVER, idempotency_key=""))

    async def _look(self, wallet_ids: list[int]) -> list[tuple[int, int]]:
        query = select(wallets.c.wallet_id, wallets.c.seq).where(wallets.c.wallet_id.in_(wallet_ids))
        found = await self._database.read(lambda connection: connection.execute(query).all())
        return [(wallet_id, seq) for wallet_id, seq in found]
