"""The audit: everything that is stored about money, recomputed from the journal, in one snapshot.

It reads wallet by wallet, and a wallet's reservations and usage items beside its journal, so that its
memory grows neither with the ledger nor with what one wallet has held and used; of a wallet's lots, rows
that made some, purchases and days of use it keeps a little each. A row that cannot be read is a problem
like any other. It believes nothing but the journal's rows: links (I13), entries (I1), and from them
balances, lots, reservations, usage items, what was taken elsewhere in place of a purchase's own parts,
spend counters and usage (I2, I7); and sees that each job has its hold while it runs, and not longer (I12).
What is reported of a hold that is active is in no row yet: it is checked once it was charged. A row that
was edited or removed breaks the chain unless every later link was written anew; against that, the heads of
an earlier audit are kept in a file elsewhere and compared.
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
    usage_days,
    usage_items,
)
from oanim_server.ledger import ids, rows
from oanim_server.ledger.audit_jobs import job_problems
from oanim_server.ledger.audit_rows import any_text, by_wallet, heads, journals, runs
from oanim_server.ledger.audit_wallet import Check, Report

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from oanim_server.database.engine import Database


class AnchorError(Exception):
    """The file for the heads cannot be used. The message says what to do."""


def audit(database: Database, anchor: Path | None = None) -> Report:
    """Check a whole ledger, and compare with and then renew the heads in `anchor`.

    :raises AnchorError: when `anchor` is there and has no heads, or cannot be written.
    """
    report = Report()
    former: dict[str, tuple[int, str]] = {}
    if anchor is not None and anchor.exists():
        former = _read_anchor(anchor)
        report.anchor_was_there = True

    def check(connection: Connection) -> None:
        with any_text(connection):
            _audit(connection, report, former)

    database.read_patiently(check)
    if anchor is not None and not report.problems:
        _write_anchor(anchor, report.heads)
    return report


def _audit(connection: Connection, report: Report, former: dict[str, tuple[int, str]]) -> None:
    rows_of, runs_of = journals(connection), runs(connection)
    lots_of = by_wallet(connection, lots, lots.c.lot)
    reservations_of = by_wallet(connection, reservations, reservations.c.number)
    items_of = by_wallet(connection, usage_items, usage_items.c.number)
    counters_of = by_wallet(connection, spend_counters, spend_counters.c.subject)
    usage_of = by_wallet(connection, usage_days, usage_days.c.day)
    credits_of = by_wallet(connection, purchase_credits, purchase_credits.c.number)
    limits_of = by_wallet(connection, limits, limits.c.api_key_id)
    notes_of = by_wallet(connection, notes, notes.c.seq)
    for row in heads(connection):
        # Without its lots and places: where they cannot be read, that is a finding.
        *fields, open_lots, latest_places = row
        wallet = rows.wallet_of((*fields, "[]"))
        name = ids.account_text(wallet.wallet_id)
        check = Check(report, name, wallet, former.pop(name, None))
        check.counted(counters_of.of(wallet.wallet_id))
        holds = check.holds(reservations_of.of(wallet.wallet_id))
        items = check.items(items_of.of(wallet.wallet_id))
        places = check.places(runs_of.of(wallet.wallet_id), latest_places)
        bought = check.bought(credits_of.of(wallet.wallet_id))
        replay = check.replay(rows_of.of(wallet.wallet_id), holds, items, places, bought)
        check.lots(open_lots, lots_of.of(wallet.wallet_id), replay, holds)
        check.counters()
        check.credits(bought)
        check.limits(limits_of.of(wallet.wallet_id), replay)
        check.seals(notes_of.of(wallet.wallet_id), replay, bought)
        check.usage(usage_of.of(wallet.wallet_id))
        report.wallets += 1
        report.balance_micros += wallet.balance_micros
        report.held_micros += wallet.held_micros
        report.heads[name] = (wallet.seq, wallet.link.hex())
    report.problems += [f"{name}: it was in the anchor and is gone" for name in former]
    for rest in (
        rows_of,
        runs_of,
        lots_of,
        reservations_of,
        items_of,
        counters_of,
        usage_of,
        credits_of,
        limits_of,
        notes_of,
    ):
        report.problems += [
            f"{rest.table}: rows of a wallet that is not there: {orphan}" for orphan in rest.orphans()
        ]
    report.problems += job_problems(connection)


# The anchor: heads that were written down elsewhere ------------------------------------------------


def _read_anchor(anchor: Path) -> dict[str, tuple[int, str]]:
    try:
        heads = json.loads(anchor.read_text())
        return {name: (int(seq), bytes.fromhex(link).hex()) for name, (seq, link) in heads.items()}
    except OSError as error:
        raise AnchorError(f"{anchor} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, AttributeError):
        raise AnchorError(
            f"{anchor} has no heads that an audit wrote: name another file, or move it away to begin anew"
        ) from None


def _write_anchor(anchor: Path, heads: dict[str, tuple[int, str]]) -> None:
    written = anchor.with_name(anchor.name + ".new")
    try:
        with written.open("w") as file:
            json.dump(heads, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        written.replace(anchor)
    except OSError as error:
        raise AnchorError(f"{anchor} cannot be written: {error.strerror}") from None
