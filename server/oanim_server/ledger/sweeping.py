"""The sweeper: writes what is due on wallets that nobody touches, and forgets refusals that are old.

It changes nothing that can be seen but wallet_seq. A wallet that has very much due, or cannot be settled,
keeps no other one waiting: not those beside it, not those behind it, and not the next sweep.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import delete, or_, select

from oanim_server.database.engine import driver_of
from oanim_server.database.tables import refusals, wallets
from oanim_server.ledger.operations import SettleDue
from oanim_server.ledger.refusals import Refusal
from oanim_server.ledger.values import REFUSAL_MEMORY, SERVER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import Connection

    from oanim_server.database.engine import Database
    from oanim_server.ledger.committer import Committer

log = logging.getLogger(__name__)

SWEEP_SECONDS = 10.0
PAGE = 1_000
# Few enough that the calls of others find room between them.
TOGETHER = 50

# When something is due, and on which wallet.
Place = tuple[int, int]


class Sweeper:
    """Sweeps one ledger. All of it runs on one event loop."""

    def __init__(self, database: Database, committer: Committer) -> None:
        self._database = database
        self._committer = committer
        # Wallets that a sweep has in hand: a later one leaves them to it.
        self._settling: set[int] = set()
        self._sweeps: set[asyncio.Task[None]] = set()
        self._clock: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to sweep every ten seconds."""
        self._clock = asyncio.get_running_loop().create_task(self._keep_sweeping(), name="sweeper")

    async def stop(self) -> None:
        """Sweep no more; what was not begun is left to the next start."""
        tasks = [*self._sweeps, *([self._clock] if self._clock is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def sweep(self) -> int:
        """Write what is due now; how many wallets were settled."""
        await self._committer.submit(_forget)
        turns = asyncio.Semaphore(TOGETHER)
        begun: set[asyncio.Task[Exception | None]] = set()
        try:
            async for wallet_id in self._due():
                await turns.acquire()
                if wallet_id in self._settling:
                    turns.release()
                    continue
                settling = asyncio.create_task(self._settle(wallet_id))
                begun.add(settling)
                settling.add_done_callback(lambda _: turns.release())
            failed = [error for error in await asyncio.gather(*begun) if error is not None]
        finally:
            for settling in begun:
                settling.cancel()
        if failed:
            log.warning(
                "wallets could not be swept and are tried again",
                extra={"wallets": len(failed), "error": type(failed[0]).__name__},
            )
        return len(begun) - len(failed)

    async def _settle(self, wallet_id: int) -> Exception | None:
        self._settling.add(wallet_id)
        try:
            await self._committer.submit(SettleDue(wallet_id=wallet_id, caller=SERVER, idempotency_key=""))
        except Exception as error:  # noqa: BLE001 - whatever it is, the other wallets are swept
            return error
        finally:
            self._settling.discard(wallet_id)
        return None

    async def _due(self) -> AsyncIterator[int]:
        """The wallets on which something is due, the longest first, whatever becomes of them meanwhile."""
        last: Place = (0, 0)
        while True:
            page = await self._database.read(partial(self._page, last=last))
            for _, wallet_id in page:
                yield wallet_id
            if len(page) < PAGE:
                return
            last = page[-1]

    def _page(self, connection: Connection, last: Place) -> list[Place]:
        due_at, wallet_id = wallets.c.next_due_at, wallets.c.wallet_id
        query = (
            select(due_at, wallet_id)
            .where(due_at.is_not(None))
            .where(due_at <= self._database.statements.clock(driver_of(connection)))
            .where(due_at >= last[0], or_(due_at > last[0], wallet_id > last[1]))
            .order_by(due_at, wallet_id)
            .limit(PAGE)
        )
        return [(row[0], row[1]) for row in connection.execute(query)]

    async def _keep_sweeping(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            sweep = asyncio.create_task(self._sweep())
            self._sweeps.add(sweep)
            sweep.add_done_callback(self._sweeps.discard)

    async def _sweep(self) -> None:
        try:
            await self.sweep()
        except (Refusal, OSError) as error:
            log.warning("the sweep failed and is tried again", extra={"error": type(error).__name__})
        except Exception:
            log.exception("the sweep failed and is tried again")


def _forget(connection: Connection, now: int) -> None:
    """Remembered refusals end after 30 days; at most a thousand a sweep, so that no group waits long."""
    oldest = (
        select(refusals.c.at)
        .where(refusals.c.at <= now - REFUSAL_MEMORY)
        .order_by(refusals.c.at)
        .limit(1_000)
    )
    reached = connection.execute(oldest).scalars().all()
    if reached:
        connection.execute(delete(refusals).where(refusals.c.at <= reached[-1]))
