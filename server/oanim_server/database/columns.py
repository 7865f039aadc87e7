"""The columns that the hot statements read and write, in the one order that both databases use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from oanim_server.database import tables
from oanim_server.database.tables.schema import is_sqlites

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Table


def _names(table: Table) -> tuple[str, ...]:
    return tuple(column.name for column in table.columns if not is_sqlites(column))


WALLET_COLUMNS = _names(tables.wallets)
LOT_COLUMNS = _names(tables.lots)
RESERVATION_COLUMNS = _names(tables.reservations)
TRANSACTION_COLUMNS = _names(tables.transactions)
USAGE_ITEM_COLUMNS = _names(tables.usage_items)


# What names an attempt: the key, the wallet, the caller, the method.
Identity = tuple[str, int, int, int]
_BINARY = {"fingerprint", "link", "seal"}


class Asked(NamedTuple):
    """What a group needs of what is stored, besides what few operations ask for.

    `starting` are the attempts whose refusals are remembered. Reservations are (wallet, number), or named by
    the Reserves that made them.
    """

    wallet_ids: Sequence[int]
    identities: Sequence[Identity]
    starting: Sequence[Identity]
    reservations: Sequence[tuple[int, int]]
    reserves: Sequence[Identity]


class Loaded(NamedTuple):
    """What was found, as rows in the order of the columns.

    `now` was read when the wallets were locked. `made` are reservations that were named by their Reserves,
    which stand before them. There may be more than was asked for of `known`, `refusals` and `made`: what has
    the key and the wallet of an attempt, and another caller or method. `last_place` is SQLite's: where it
    keeps the latest row of the journal, of whatever wallet.
    """

    now: int
    wallets: Sequence[Sequence[Any]]
    known: Sequence[Sequence[Any]]
    refusals: Sequence[Sequence[Any]]
    reservations: Sequence[Sequence[Any]]
    made: Sequence[Sequence[Any]]
    last_place: int | None


def loaded(now: int, found: Sequence[str], last_place: int | None = None) -> Loaded:
    """Read what the one statement that loads a group answers: a JSON text for each kind of rows.

    JSON has no bytes: those columns come as hex.
    """
    wallets, known, refusals, reservations, made = map(orjson.loads, found)
    for rows, places in ((wallets, _WALLET_BYTES), (known, _TRANSACTION_BYTES), (refusals, _REFUSAL_BYTES)):
        for row in rows:
            for place in places:
                if row[place] is not None:
                    row[place] = bytes.fromhex(row[place])
    return Loaded(now, wallets, known, refusals, reservations, made, last_place)


def _bytes_among(columns: Sequence[str]) -> tuple[int, ...]:
    return tuple(place for place, column in enumerate(columns) if column in _BINARY)


REFUSAL_COLUMNS = ("idem_key", "wallet_id", "caller", "method", "fingerprint", "reason", "facts", "at")
_WALLET_BYTES = _bytes_among(WALLET_COLUMNS)
_TRANSACTION_BYTES = _bytes_among(TRANSACTION_COLUMNS)
_REFUSAL_BYTES = _bytes_among(REFUSAL_COLUMNS)


def in_json(alias: str, columns: Sequence[str], hexed: str) -> str:
    """The columns of one table as JSON takes them; `hexed` writes bytes as hex."""
    named = [f"{alias}.{column}" for column in columns]
    return ", ".join(
        hexed.format(name) if column in _BINARY else name for name, column in zip(named, columns, strict=True)
    )


def listed(columns: tuple[str, ...]) -> str:
    """The columns, as a statement lists them."""
    return ", ".join(columns)


def prefixed(alias: str, columns: Sequence[str]) -> str:
    """The columns of one table of a join."""
    return ", ".join(f"{alias}.{column}" for column in columns)


def marks(columns: tuple[str, ...]) -> str:
    """One placeholder a column."""
    return ", ".join("?" * len(columns))
