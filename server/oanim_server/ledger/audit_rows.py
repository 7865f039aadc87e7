"""Tables as the audit reads them: in the order of their wallets, a batch at a time, handed out by wallet."""

from __future__ import annotations

import json
import secrets
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import Table, func, null, select

from oanim_server.database.columns import TRANSACTION_COLUMNS, WALLET_COLUMNS
from oanim_server.database.engine import driver_of
from oanim_server.database.tables import journal_runs, transactions, wallets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Select

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


@contextmanager
def any_text(connection: Connection) -> Iterator[None]:
    """Read what SQLite calls text and is no UTF-8, too: as a text that nobody can have written."""
    driver: Any = driver_of(connection)
    if not has_places(connection):
        yield
        return
    unlike_any = secrets.token_hex(8)

    def text(stored: bytes) -> str:
        try:
            return stored.decode()
        except UnicodeDecodeError:
            return f"{stored.decode(errors='backslashreplace')} is no UTF-8 {unlike_any}"

    former = driver.text_factory
    driver.text_factory = text
    try:
        yield
    finally:
        driver.text_factory = former


def by_wallet(connection: Connection, table: Table, order: Any) -> ByWallet:
    query = select(table).order_by(table.c.wallet_id, order)
    return ByWallet(table.name, _streamed(connection, query))


def journals(connection: Connection) -> ByWallet:
    """The journal; after the columns of a row stands where SQLite keeps it, or None."""
    t = transactions.c
    columns = [t[name] for name in TRANSACTION_COLUMNS]
    order = (t.wallet_id, t.seq)
    if has_places(connection):
        found = _by_places(connection, select(*columns, t.place), select(t.place).order_by(*order))
    else:
        found = _streamed(connection, select(*columns, null()).order_by(*order))
    return ByWallet(transactions.name, found)


def runs(connection: Connection) -> ByWallet:
    """What SQLite's wallets have filed of the places of their rows."""
    if not has_places(connection):
        return ByWallet(journal_runs.name, iter(()))
    return by_wallet(connection, journal_runs, journal_runs.c.run)


def heads(connection: Connection) -> Iterator[Any]:
    """The wallets, in order; after the columns of each stand its latest places, or None."""
    latest = wallets.c.places if has_places(connection) else null()
    columns = [wallets.c[name] for name in WALLET_COLUMNS]
    return _streamed(connection, select(*columns, latest).order_by(wallets.c.wallet_id))


def has_places(connection: Connection) -> bool:
    """Whether it is SQLite: PostgreSQL finds rows by their keys."""
    return connection.dialect.name == "sqlite"


def _by_places(connection: Connection, rows: Select[Any], places: Select[Any]) -> Iterator[Any]:
    """Rows in the order of their places: what SQLite has to sort is small."""
    in_order = connection.execute(places, execution_options={"yield_per": BATCH}).scalars()
    for batch in in_order.partitions():
        asked = select(func.json_each(json.dumps(batch)).table_valued("value").c.value)
        found = {row.place: row for row in connection.execute(rows.where(transactions.c.place.in_(asked)))}
        yield from map(found.__getitem__, batch)


def _streamed(connection: Connection, query: Select[Any]) -> Iterator[Any]:
    yield from connection.execute(query, execution_options={"yield_per": BATCH})
