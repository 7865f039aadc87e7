"""The checks of one wallet: what is stored of it against what its journal says."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from oanim_server.ledger import journal, rows
from oanim_server.ledger.values import (
    DAY,
    Account,
    Credit,
    Kind,
    Limit,
    Lot,
    Note,
    Origin,
    Reservation,
    State,
    Wallet,
)
from oanim_server.ledger.windows import Period, window_named

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Rows that have the operator's name and reason.
_NOTED = (Kind.GRANT, Kind.ADJUSTMENT, Kind.FREEZE)
# Lots that were paid from promotions, besides the bonus of a purchase.
_GIFTS = (Origin.SIGN_UP, Origin.GRANT)
# Rows that a payment made.
_PAID = (Kind.PURCHASE, Kind.REVERSAL, Kind.REINSTATEMENT)


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
class _Sealed:
    """A row that made lots, or with which something else was said."""

    kind: int
    seal: bytes | None
    lots: list[int]


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
    sealed: dict[int, _Sealed] = field(default_factory=dict)
    # What each system account has, of the rows that payments made and of the others.
    by_payments: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    otherwise: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    reservations: dict[int, _Made] = field(default_factory=dict)


class Check:
    """The checks of one wallet."""

    def __init__(self, report: Report, name: str, wallet: Wallet, anchored: tuple[int, str] | None) -> None:
        self._report = report
        self._name = name
        self._wallet = wallet
        self._anchored = anchored
        self._held_by_lot: defaultdict[int, int] = defaultdict(int)
        self._lots: dict[int, Lot] = {}
        self._credits: dict[int, Credit] = {}
        self._counters: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        self._stored: dict[tuple[str, str], list[int]] = {}
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
        booked = replay.by_payments if row.kind in _PAID else replay.otherwise
        for account, micros in entries:
            booked[account] += micros
        self._same(where + "balance", row.balance_micros, replay.balance_micros)

    def _lot_movements(self, where: str, row: journal.Row, replay: _Replay) -> None:
        moved = self._numbers(where + "its lots", row.lots, 3)
        made = [number for number, _, _ in moved if number not in replay.lots]
        if not row.reservation and (made or row.seal is not None or row.kind in _NOTED):
            replay.sealed[row.seq] = _Sealed(row.kind, row.seal, made)
        for number, remaining, held in moved:
            replay.lots[number][0] += remaining
            replay.lots[number][1] += held
            replay.remaining_micros += remaining
            replay.held_micros += held
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
            self._lots[lot.number] = lot
            self._held_by_lot[lot.number] = lot.held_micros
            if lot.expires_at is not None and lot.free_micros:
                self._due.append(lot.expires_at)
        for number in replay.lots:
            self._off(f"lot {number}: the journal knows it, the table does not")
        self._same("held by its lots", sum(self._held_by_lot.values()), self._wallet.held_micros)
        self._same("lots that were made", made, self._wallet.lots_made)
        given = sum(lot.lapsed_micros for lot in self._lots.values() if lot.origin.promotional)
        bought = sum(lot.lapsed_micros for lot in self._lots.values() if not lot.origin.promotional)
        of_gifts = sum(lot.amount_micros for lot in self._lots.values() if lot.origin in _GIFTS)
        self._same("given credits that expired", replay.otherwise[Account.PROMOTIONS] + of_gifts, given)
        self._same("bought credits that expired", replay.otherwise[Account.BREAKAGE], bought)

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
                self._count((subject, ""), reservation)
            for subject, window in self._windows(reservation):
                self._count((subject, window), reservation)
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

    def counted(self, found: Iterator[Any]) -> None:
        """Remember what is stored of spend scopes and limits: only of those in use is anything counted."""
        for _, subject, window, charged, held in found:
            self._stored[subject, window] = [charged, held]

    def counters(self) -> None:
        """What spend scopes and limits count, from the reservations that count under them."""
        for (subject, window), (charged, held) in self._stored.items():
            name = f"{subject or 'account'} {window}".strip()
            expected = self._counters.pop((subject, window), [0, 0])
            self._same(f"scope {name!r}: charged", expected[0], charged)
            self._same(f"scope {name!r}: held", expected[1], held)
        for subject, window in self._counters:
            name = f"{subject or 'account'} {window}".strip()
            self._off(f"scope {name!r}: reservations count under it, the table does not know it")

    def _windows(self, reservation: Reservation) -> Iterator[tuple[str, str]]:
        """The counters of limits that a reservation counts under, of those that are stored."""
        for subject, name in self._stored:
            if name and subject in ("", reservation.api_key_id):
                window = window_named(name)
                if window.start <= reservation.created_at < window.end:
                    yield subject, name

    def _count(self, key: tuple[str, str], reservation: Reservation) -> None:
        self._counters[key][0] += reservation.captured_micros
        self._counters[key][1] += reservation.held_micros

    def credits(self, found: Iterator[Any], replay: _Replay) -> None:
        """What purchases credited, and that what was taken back of it is where it is said to be."""
        for values in found:
            credit = Credit(*values)
            self._credits[credit.number] = credit
            made = replay.sealed.get(credit.number)
            if made is None or made.kind != Kind.PURCHASE or set(made.lots) != set(credit.lots):
                self._off(f"credit {credit.number}: the journal does not know it")
        for number, made in replay.sealed.items():
            if made.kind == Kind.PURCHASE and number not in self._credits:
                self._off(f"credit {number}: the journal knows it, the table does not")
        lots = [self._lots[number] for credit in self._credits.values() for number in credit.lots]
        bought = sum(lot.amount_micros for lot in lots if not lot.origin.promotional)
        bonus = sum(lot.amount_micros for lot in lots if lot.origin.promotional)
        paid = sum(credit.covered_paid_micros for credit in self._credits.values())
        covered_bonus = sum(credit.covered_bonus_micros for credit in self._credits.values())
        for account, expected in (
            (Account.STRIPE, sum(credit.stripe_micros for credit in self._credits.values()) - bought),
            (
                Account.PROMOTIONS,
                sum(credit.promotions_micros for credit in self._credits.values()) - bonus - covered_bonus,
            ),
            (Account.DISPUTES, sum(credit.disputes_micros for credit in self._credits.values())),
            (Account.BREAKAGE, -paid),
        ):
            self._same(f"payments in {account.name.lower()}", replay.by_payments[account], expected)

    def limits(self, found: Iterator[Any], replay: _Replay) -> None:
        """That each limit is one that somebody set, and that the wallet knows how many there are."""
        seals = {row.seal and bytes(row.seal) for row in replay.sealed.values() if row.kind == Kind.LIMIT}
        count = 0
        for _, api_key_id, period, limit_micros in found:
            limit = Limit(api_key_id, Period(period), limit_micros)
            count += 1
            if journal.seal_of_made((), list(limit)) not in seals:
                self._off(
                    f"limit of {api_key_id or 'account'} a {limit.period.name.lower()}: nobody set it so"
                )
        self._same("limits", count, self._wallet.limits)

    def seals(self, found: Iterator[Any], replay: _Replay) -> None:
        """I13: what the rows of the journal sealed and other tables keep."""
        said = {seq: Note(actor, reason) for _, seq, actor, reason in found}
        purchase_ids = [[credit.purchase_id] for credit in self._credits.values()]
        for seq, made in replay.sealed.items():
            lots = [self._lots[number] for number in made.lots if number in self._lots]
            if made.kind == Kind.LIMIT:
                continue
            if made.kind in _NOTED:
                possible: list[Sequence[object]] = [said.pop(seq, ())]
            elif made.kind == Kind.PURCHASE:
                possible = [[self._credits[seq].purchase_id]] if seq in self._credits else []
            elif made.kind in _PAID:
                possible = list(purchase_ids)
            else:
                possible = [()]
            seal = made.seal and bytes(made.seal)
            if seal not in [journal.seal_of_made(lots, words) for words in possible]:
                self._off(f"row {seq}: what never changes of what it made was changed")
        for seq in said:
            self._off(f"row {seq}: it has a reason and needs none")

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
