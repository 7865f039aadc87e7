"""The versions of the price table in memory: they never change, so only new ones are read.

Which one is in force is decided by the database's clock, as it was read with the latest versions.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import OrderedDict
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from oanim_server.database.engine import driver_of
from oanim_server.ledger.refusals import NotFound
from oanim_server.ledger.values import SECOND
from oanim_server.pricing import rows, rules

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from oanim_server.database.engine import Database
    from oanim_server.pricing.values import PriceTable, Version

# How old the knowledge of what other replicas published may be.
REFRESH_SECONDS = 1.0
REMEMBERED_TABLES = 16


class Versions:
    """Finds the version in force at an instant. All of it runs on one event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: list[Version] = []
        self._highest = 0
        self._tables: OrderedDict[int, PriceTable] = OrderedDict()
        self._reading = asyncio.Lock()
        self._read_at = float("-inf")
        # What the database's clock said then.
        self._then = 0

    async def at(self, instant: int | None) -> PriceTable:
        """The prices at an instant, None being now.

        :raises NotFound: before there were any.
        """
        if monotonic() - self._read_at >= REFRESH_SECONDS:
            async with self._reading:
                if monotonic() - self._read_at >= REFRESH_SECONDS:
                    await self._refresh()
        if instant is None:
            instant = self._then + int((monotonic() - self._read_at) * SECOND)
        version = rules.in_force(self._known, instant)
        if version is None:
            raise NotFound("price version")
        return await self._table(version)

    async def learn(self) -> None:
        """Read what was published until now: the next question is answered by it."""
        async with self._reading:
            await self._refresh()

    async def _refresh(self) -> None:
        now, found = await self._database.read(self._news)
        for version in found:
            insort(self._known, version)
            self._highest = max(self._highest, version.number)
        # After the read: a version comes into force a moment late rather than early.
        self._then, self._read_at = now, monotonic()

    def _news(self, connection: Connection) -> tuple[int, list[Version]]:
        found = rows.versions_after(connection, self._highest)
        return self._database.statements.clock(driver_of(connection)), found

    async def _table(self, version: Version) -> PriceTable:
        if version.number not in self._tables:
            async with self._reading:
                if version.number not in self._tables:
                    await self._load(version)
        self._tables.move_to_end(version.number)
        return self._tables[version.number]

    async def _load(self, version: Version) -> None:
        prices = await self._database.read(partial(rows.prices_of, number=version.number))
        self._tables[version.number] = rules.table(version, rules.in_order(prices))
        if len(self._tables) > REMEMBERED_TABLES:
            self._tables.popitem(last=False)
