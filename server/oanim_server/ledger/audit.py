"""The audit: everything that is stored about money, recomputed from the journal, in one snapshot.

It reads wallet by wallet, so that its memory does not grow with the ledger, and it believes nothing but
the journal's rows: links (I13), entries (I1), and from them balances, lots, reservations, spend counters
and usage (I2, I7). A row that was edited or removed breaks the chain unless every later link was written
anew; against that, the heads of an earlier audit are kept in a file elsewhere and compared.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import Table, select

from oanim_server.database.tables import lots, reservations, spend_counters, transactions, usage_days, wallets
from oanim_server.ledger import ids, journal, rows
from oanim_server.ledger.values import DAY, Account, Kind, Reservation, State, Wallet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from oanim_server.database.engine import Database

BATCH = 10_000


@dataclass(slots=True)
class Report:
    """What was looked at, and what was found to be off; all is well when `problems` is empty."""

    wallets: int = 0
    transactions: int = 0
    entries: int = 0
    lots: int = 0
    reservations: int = 0
    balance_micros: int = 0
    held_micros: int = 0
    anchored: int = 0
    problems: list[str] = field(default_factory=list)
    heads: dict[str, tuple[int, str]] = field(default_factory=dict)


@dataclass(slots=True)
class _Made:
    """What the journal says of one reservation."""

    created_at: int
    seal: bytes | None
    latest: journal.Row
    uncollected_micros: int = 0
    # (UTC day, micros) of each charge
    charges: list[tuple[int, int]] = field(default_factory=list)


@dataclass(slots=True)
class _Replay:
    """What the journal of one wallet says: built row by row."""

    link: bytes = journal.GENESIS
    seq: int = 0
    at: int = 0
    balance_micros: int = 0
    debt_micros: int = 0
    held_micros: int = 0
    remaining_micros: int = 0
    lots: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    seals: dict[int, bytes | None] = field(default_factory=dict)
    reservations: dict[int, _Made] = field(default_factory=dict)


def audit(database: Database, anchor: Path | None = None) -> Report:
    """Check a whole ledger, and compare with and then renew the heads in `anchor`."""
    report = Report()
    former = _read_anchor(anchor)
    database.read_now(lambda connection: _audit(connection, report, former))
    if anchor is not None and not report.problems:
        _write_anchor(anchor, report.heads)
    return report


def _audit(connection: Connection, report: Report, former: dict[str, tuple[int, str]]) -> None:
    journals = _by_wallet(connection, transactions, transactions.c.seq)
    lots_of = _by_wallet(connection, lots, lots.c.lot)
    reservations_of = _by_wallet(connection, reservations, reservations.c.number)
    counters_of = _by_wallet(connection, spend_counters, spend_counters.c.subject)
    usage_of = _by_wallet(connection, usage_days, usage_days.c.day)
    for row in _stream(connection, wallets, wallets.c.wallet_id):
        wallet = rows.wallet_of(row)
        name = ids.account_text(wallet.wallet_id)
        check = _Check(report, name, wallet, former.pop(name, None))
        replay = check.replay(journals.of(wallet.wallet_id))
        check.lots(lots_of.of(wallet.wallet_id), replay)
        check.reservations(reservations_of.of(wallet.wallet_id), replay)
        check.counters(counters_of.of(wallet.wallet_id))
        check.usage(usage_of.of(wallet.wallet_id))
        report.wallets += 1
        report.balance_micros += wallet.balance_micros
        report.held_micros += wallet.held_micros
        report.heads[name] = (wallet.seq, wallet.link.hex())
    report.problems += [f"{name}: it was in the anchor and is gone" for name in former]
    for rest in (journals, lots_of, reservations_of, counters_of, usage_of):
        report.problems += [
            f"{rest.table}: rows of a wallet that is not there: {orphan}" for orphan in rest.orphans()
        ]


class _Check:
    """The checks of one wallet."""

    def __init__(self, report: Report, name: str, wallet: Wallet, anchored: tuple[int, str] | None) -> None:
        self._report = report
        self._name = name
        self._wallet = wallet
        self._anchored = anchored
        self._held_by_lot: defaultdict[int, int] = defaultdict(int)
        self._counters: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
        self._usage: defaultdict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0])
        self._due: list[int] = []

    def replay(self, found: Iterator[Any]) -> _Replay:
        """I1 and I13: entries, running balances, gapless numbers, links."""
        replay = _Replay()
        for values in found:
            self._report.transactions += 1
            self._row(journal.Row(*values), replay)
        wallet = self._wallet
        self._same("rows in the journal", replay.seq, wallet.seq)
        self._same("the head of the chain", replay.link.hex(), wallet.link.hex())
        self._same("balance", replay.balance_micros, wallet.balance_micros)
        self._same("debt", replay.debt_micros, wallet.debt_micros)
        self._same("time of the last row", replay.at, wallet.at)
        if self._anchored is not None and self._anchored[0] > replay.seq:
            self._off(f"the anchor knows {self._anchored[0]} rows, the journal {replay.seq}")
        return replay

    def _row(self, row: journal.Row, replay: _Replay) -> None:
        where = f"row {row.seq}: "
        self._same(where + "number", row.seq, replay.seq + 1)
        if row.at < replay.at:
            self._off(f"{where}it is earlier than the row before it")
        self._entries(where, row, replay)
        self._lot_movements(where, row, replay)
        self._of_reservation(row, replay)
        replay.link = journal.link_of(replay.link, tuple(row[:-1]))
        if replay.link != bytes(row.link):
            self._off(f"{where}the chain is broken: this row or one before it was changed or removed")
            replay.link = bytes(row.link)
        if self._anchored == (row.seq, replay.link.hex()):
            self._report.anchored += 1
        elif self._anchored is not None and self._anchored[0] == row.seq:
            self._off(f"{where}its link is not the one in the anchor: the journal was written anew")
        replay.seq = row.seq
        replay.at = row.at
        replay.debt_micros = row.debt_micros

    def _entries(self, where: str, row: journal.Row, replay: _Replay) -> None:
        entries = self._numbers(where + "its entries", row.entries, 2)
        self._report.entries += len(entries)
        self._same(where + "sum of its entries", sum(micros for _, micros in entries), 0)
        replay.balance_micros += sum(micros for account, micros in entries if account == Account.WALLET)
        self._same(where + "balance", row.balance_micros, replay.balance_micros)

    def _lot_movements(self, where: str, row: journal.Row, replay: _Replay) -> None:
        moved = self._numbers(where + "its lots", row.lots, 3)
        for number, remaining, held in moved:
            replay.lots[number][0] += remaining
            replay.lots[number][1] += held
            replay.remaining_micros += remaining
            replay.held_micros += held
        if row.kind == Kind.SIGN_UP_GRANT and moved:
            replay.seals[moved[0][0]] = row.seal
        self._same(where + "held", row.held_micros, replay.held_micros)
        self._same(where + "lots less debt", replay.remaining_micros - row.debt_micros, replay.balance_micros)

    def _of_reservation(self, row: journal.Row, replay: _Replay) -> None:
        if not row.reservation:
            return
        made = replay.reservations.get(row.reservation)
        if made is None:
            made = replay.reservations[row.reservation] = _Made(row.at, row.seal, row)
        made.latest = row
        made.uncollected_micros += row.uncollected_micros
        if row.charged_micros:
            made.charges.append((row.at // DAY, row.charged_micros))

    def lots(self, found: Iterator[Any], replay: _Replay) -> None:
        """I2: lots as the journal made and moved them."""
        made = 0
        for values in found:
            _, lot = rows.lot_of(values)
            where = f"lot {lot.number}: "
            self._report.lots += 1
            made = lot.number
            remaining, held = replay.lots.pop(lot.number, [0, 0])
            self._same(where + "remaining", remaining, lot.remaining_micros)
            self._same(where + "held", held, lot.held_micros)
            self._sealed(where, replay.seals.get(lot.number), journal.seal_of_lot(lot))
            self._held_by_lot[lot.number] = lot.held_micros
            if lot.expires_at is not None and lot.free_micros:
                self._due.append(lot.expires_at)
        for number in replay.lots:
            self._off(f"lot {number}: the journal knows it, the table does not")
        self._same("held by its lots", sum(self._held_by_lot.values()), self._wallet.held_micros)
        self._same("lots that were made", made, self._wallet.lots_made)

    def reservations(self, found: Iterator[Any], replay: _Replay) -> None:
        """I2 and I7: reservations as their latest rows leave them, and the parts they keep."""
        parts: defaultdict[int, int] = defaultdict(int)
        for values in found:
            reservation = rows.reservation_of(values)
            self._report.reservations += 1
            self._reservation(reservation, replay.reservations.pop(reservation.number, None))
            for number, micros in reservation.parts:
                parts[number] += micros
            for subject, _ in reservation.scopes:
                self._counters[subject][0] += reservation.captured_micros
                self._counters[subject][1] += reservation.held_micros
        for number in replay.reservations:
            self._off(f"reservation {number}: the journal knows it, the table does not")
        for number, held in self._held_by_lot.items():
            self._same(f"lot {number}: kept by reservations", parts[number], held)
        next_due_at = self._wallet.next_due_at
        if self._due and (next_due_at is None or next_due_at > min(self._due)):
            self._off(f"next due: {next_due_at} is stored, something is due at {min(self._due)}")

    def _reservation(self, reservation: Reservation, made: _Made | None) -> None:
        where = f"reservation {reservation.number}: "
        if made is None:
            self._off(f"{where}the table knows it, the journal does not")
            return
        row, active = made.latest, reservation.state is State.ACTIVE
        for what, expected, stored in (
            ("state", row.state, reservation.state.value),
            ("reserved", row.reserved_micros, reservation.reserved_micros),
            ("captured", row.captured_micros, reservation.captured_micros),
            ("charged in all", sum(micros for _, micros in made.charges), reservation.captured_micros),
            ("uncollected", made.uncollected_micros, reservation.uncollected_micros),
            ("captures", row.captures, reservation.captures),
            ("captured quantity", row.captured_quantity, reservation.captured_quantity),
            ("expiry", row.expires_at, reservation.expires_at),
            ("start", made.created_at, reservation.created_at),
            ("end", None if active else row.at, reservation.ended_at),
            ("latest row", row.seq, reservation.last_seq),
            ("parts", sum(micros for _, micros in reservation.parts), reservation.held_micros),
        ):
            self._same(where + what, expected, stored)
        self._sealed(where, made.seal, journal.seal_of_reservation(reservation))
        if active and reservation.expires_at is not None:
            self._due.append(reservation.expires_at)
        line = reservation.line
        work = (line.model, line.category) if line else ("", "")
        project = reservation.labels.get("project", "")
        for day, micros in made.charges:
            total = self._usage[day, *work, reservation.api_key_id, project]
            total[0] += 1
            total[1] += micros

    def counters(self, found: Iterator[Any]) -> None:
        """What spend scopes count, from the reservations that count under them."""
        for _, subject, charged, held in found:
            expected = self._counters.pop(subject, [0, 0])
            self._same(f"scope {subject!r}: charged", expected[0], charged)
            self._same(f"scope {subject!r}: held", expected[1], held)
        for subject in self._counters:
            self._off(f"scope {subject!r}: reservations count under it, the table does not know it")

    def usage(self, found: Iterator[Any]) -> None:
        """What usage adds up, from the charges."""
        for _, *group, charges, charged in found:
            expected = self._usage.pop(tuple(group), [0, 0])
            self._same(f"usage: charges under {group}", expected[0], charges)
            self._same(f"usage: charged under {group}", expected[1], charged)
        for group in self._usage:
            self._off(f"usage: work was charged under {list(group)}, the table does not know it")

    def _numbers(self, what: str, text: str, width: int) -> list[list[int]]:
        """A list of lists of so many integers; anything else is a problem, and nothing."""
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if isinstance(found, list) and all(
            isinstance(item, list) and len(item) == width and all(type(number) is int for number in item)
            for item in found
        ):
            return found
        self._off(f"{what} cannot be read")
        return []

    def _sealed(self, where: str, sealed: bytes | None, found: bytes) -> None:
        if sealed is None or bytes(sealed) != found:
            self._off(f"{where}what never changes was changed")

    def _same(self, what: str, expected: object, found: object) -> None:
        if expected != found:
            self._off(f"{what}: {found} is stored, {expected} is right")

    def _off(self, problem: str) -> None:
        self._report.problems.append(f"{self._name}: {problem}")


class _ByWallet:
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


def _by_wallet(connection: Connection, table: Table, order: Any) -> _ByWallet:
    return _ByWallet(table.name, _stream(connection, table, table.c.wallet_id, order))


def _stream(connection: Connection, table: Table, *order: Any) -> Iterator[Any]:
    query = select(table).order_by(*order)
    yield from connection.execute(query, execution_options={"yield_per": BATCH})


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
