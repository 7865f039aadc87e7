"""The columns that the hot statements read and write, in the one order that both databases use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oanim_server.database import tables

if TYPE_CHECKING:
    from sqlalchemy import Table


def _names(table: Table) -> tuple[str, ...]:
    return tuple(column.name for column in table.columns)


WALLET_COLUMNS = _names(tables.wallets)
LOT_COLUMNS = _names(tables.lots)
RESERVATION_COLUMNS = _names(tables.reservations)
TRANSACTION_COLUMNS = _names(tables.transactions)


def listed(columns: tuple[str, ...]) -> str:
    """The columns, as a statement lists them."""
    return ", ".join(columns)


def prefixed(alias: str, columns: tuple[str, ...]) -> str:
    """The columns of one table of a join."""
    return ", ".join(f"{alias}.{column}" for column in columns)


def marks(columns: tuple[str, ...]) -> str:
    """One placeholder a column."""
    return ", ".join("?" * len(columns))
