"""Writes the account's statement: every row of its journal, with the balance after it."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from oanim.cli.messages import plain, time, word
from oanim.cli.money import dollars, usd
from oanim.cli.paging import pages
from oanim.cli.showing import Answer, clean, table
from openanimate.metering.v1.wallet_service_pb2 import (
    LedgerAccount,
    ListTransactionsResponse,
    TransactionKind,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from oanim.client import Client
    from openanimate.metering.v1.wallet_service_pb2 import Transaction

_TITLES = ("Row", "Time (UTC)", "What", "Amount", "Balance", "Held", "For")
_COLUMNS = (
    "row",
    "time_utc",
    "kind",
    "amount_usd",
    "balance_usd",
    "held_usd",
    "reservation_id",
    "model",
    "reason",
)


def statement(client: Client, *, as_of: datetime | None, limit: int) -> Answer:
    """Show the newest rows, and the wallet and its lots as they stood then."""
    first = ListTransactionsResponse()
    rows: list[Transaction] = []
    for number, page in enumerate(pages(client.list_transactions, "transactions", limit=limit, as_of=as_of)):
        first = first if number else page
        rows += page.transactions
    wallet = first.wallet
    when = f"As of {as_of:%Y-%m-%d %H:%M:%S} (UTC)" if as_of else "Now"
    lines = [f"{when}: balance {dollars(wallet.balance_micros)}, held {dollars(wallet.held_micros)}."]
    if rows:
        lines += table(_TITLES, [_row(row) for row in rows], right=(0, 3, 4, 5))
        if (older := rows[-1].wallet_seq - 1) > 0:
            lines.append(f"{older} older: oanim billing statement -l {limit + older}, or --csv for all")
    else:
        lines.append("Nothing had happened yet.")
    return Answer(
        data={
            "as_of": as_of.isoformat().replace("+00:00", "Z") if as_of else None,
            "wallet": plain(wallet),
            "lots": [plain(lot) for lot in first.lots],
            "transactions": [plain(row) for row in rows],
        },
        lines=lines,
    )


def spreadsheet(client: Client, *, as_of: datetime | None, limit: int | None) -> Answer:
    """Write all rows as RFC 4180 has it: UTF-8, commas, a line of titles, CRLF at the end of each line."""
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(_COLUMNS)
    # Page by page: a long statement is small as text, and large as messages.
    for page in pages(client.list_transactions, "transactions", limit=limit, as_of=as_of):
        writer.writerows(_cells(page.transactions))
    return Answer(data={}, lines=[], content=written.getvalue().encode())


def _row(row: Transaction) -> tuple[str, ...]:
    moved = _moved_micros(row)
    return (
        str(row.wallet_seq),
        time(row.at),
        _kind(row).replace("_", " "),
        f"{'+' if moved > 0 else ''}{dollars(moved)}" if moved else "-",
        dollars(row.balance_micros),
        dollars(row.held_micros),
        "  ".join(filter(None, (row.reservation_id, row.model, row.reason))),
    )


def _cells(rows: Iterable[Transaction]) -> Iterable[tuple[str, ...]]:
    for row in rows:
        yield (
            str(row.wallet_seq),
            row.at.ToJsonString(),
            _kind(row),
            usd(_moved_micros(row)),
            usd(row.balance_micros),
            usd(row.held_micros),
            row.reservation_id,
            clean(row.model),
            clean(row.reason),
        )


def _kind(row: Transaction) -> str:
    return word(TransactionKind.DESCRIPTOR, row.kind)


def _moved_micros(row: Transaction) -> int:
    """Add up what a row did to the balance."""
    wallet = LedgerAccount.LEDGER_ACCOUNT_WALLET
    return sum(entry.amount_micros for entry in row.entries if entry.account == wallet)
