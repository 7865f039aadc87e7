"""Tables as the audit reads them: in the order of their wallets, a batch at a time, handed out by wallet."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import Table, select

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

BATCH = 10_000


class ByWallet:
    """Rows in the order of their wallets, handed out wallet by wallet in the same order."""

    def __init__(self, table: str, found: Iterator[Any]) -> None:
        self.table = table
        self._groups = groupby(found, key=itemgetter(0))
        self._next = next(self._groups, None)
        self._orphans: list[int] = []

    def of(self, wallet_id: int) -> Iterator[Any]:
        """The rows of one wallet; those of smaller ids that nobody asked for are orphans."""
        while self._next is not None and self._next[0] < wallet_id:
            self._orphans.append(self._next[0])
            self._next = next(self._groups, None)
        if self._next is not None and self._next[0] == wallet_id:
            yield from self._next[1]
            self._next = next(self._groups, None)

    def orphans(self) -> list[int]:
        """The wallets of rows that belong to none, after the last wallet."""
        while self._next is not None:
            self._orphans.append(self._next[0])
            self._next = next(self._groups, None)
        return self._orphans


def by_wallet(connection: Connection, table: Table, order: Any) -> ByWallet:
    return ByWallet(table.name, stream(connection, table, table.c.wallet_id, order))


def stream(connection: Connection, table: Table, *order: Any) -> Iterator[Any]:
    query = select(table).order_by(*order)
    yield from connection.execute(query, execution_options={"yield_per": BATCH})
