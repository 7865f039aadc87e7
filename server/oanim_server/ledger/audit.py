"""The audit: everything that is stored about money, recomputed from the journal, in one snapshot.

It reads wallet by wallet, so that its memory does not grow with the ledger, and it believes nothing but
the journal's rows: links (I13), entries (I1), and from them balances, lots, reservations, spend counters
and usage (I2, I7). A row that was edited or removed breaks the chain unless every later link was written
anew; against that, the heads of an earlier audit are kept in a file elsewhere and compared.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from oanim_server.database.tables import (
    limits,
    lots,
    notes,
    purchase_credits,
    reservations,
    spend_counters,
    transactions,
    usage_days,
    wallets,
)
from oanim_server.ledger import ids, rows
from oanim_server.ledger.audit_rows import by_wallet, stream
from oanim_server.ledger.audit_wallet import Check, Report

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from oanim_server.database.engine import Database


def audit(database: Database, anchor: Path | None = None) -> Report:
    """Check a whole ledger, and compare with and then renew the heads in `anchor`."""
    report = Report()
    former = _read_anchor(anchor)
    database.read_now(lambda connection: _audit(connection, report, former))
    if anchor is not None and not report.problems:
        _write_anchor(anchor, report.heads)
    return report


def _audit(connection: Connection, report: Report, former: dict[str, tuple[int, str]]) -> None:
    journals = by_wallet(connection, transactions, transactions.c.seq)
    lots_of = by_wallet(connection, lots, lots.c.lot)
    reservations_of = by_wallet(connection, reservations, reservations.c.number)
    counters_of = by_wallet(connection, spend_counters, spend_counters.c.subject)
    usage_of = by_wallet(connection, usage_days, usage_days.c.day)
    credits_of = by_wallet(connection, purchase_credits, purchase_credits.c.number)
    limits_of = by_wallet(connection, limits, limits.c.api_key_id)
    notes_of = by_wallet(connection, notes, notes.c.seq)
    for row in stream(connection, wallets, wallets.c.wallet_id):
        wallet = rows.wallet_of(row)
        name = ids.account_text(wallet.wallet_id)
        check = Check(report, name, wallet, former.pop(name, None))
        replay = check.replay(journals.of(wallet.wallet_id))
        check.lots(lots_of.of(wallet.wallet_id), replay)
        check.counted(counters_of.of(wallet.wallet_id))
        check.reservations(reservations_of.of(wallet.wallet_id), replay)
        check.counters()
        check.credits(credits_of.of(wallet.wallet_id), replay)
        check.limits(limits_of.of(wallet.wallet_id), replay)
        check.seals(notes_of.of(wallet.wallet_id), replay)
        check.usage(usage_of.of(wallet.wallet_id))
        report.wallets += 1
        report.balance_micros += wallet.balance_micros
        report.held_micros += wallet.held_micros
        report.heads[name] = (wallet.seq, wallet.link.hex())
    report.problems += [f"{name}: it was in the anchor and is gone" for name in former]
    for rest in (
        journals,
        lots_of,
        reservations_of,
        counters_of,
        usage_of,
        credits_of,
        limits_of,
        notes_of,
    ):
        report.problems += [
            f"{rest.table}: rows of a wallet that is not there: {orphan}" for orphan in rest.orphans()
        ]


# The anchor: heads that were written down elsewhere ------------------------------------------------


def _read_anchor(anchor: Path | None) -> dict[str, tuple[int, str]]:
    if anchor is None or not anchor.exists():
        return {}
    return {name: (seq, link) for name, (seq, link) in json.loads(anchor.read_text()).items()}


def _write_anchor(anchor: Path, heads: dict[str, tuple[int, str]]) -> None:
    written = anchor.with_name(anchor.name + ".new")
    with written.open("w") as file:
        json.dump(heads, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    written.replace(anchor)
