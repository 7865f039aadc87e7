"""The audit's walk along one wallet's reservations, beside its journal.

A reservation has the number of the row that began it, so both come in the same order; it is checked at its
latest row and forgotten then. What is kept is what lies open at one row, not all that ever was held.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from oanim_server.ledger import journal, rows
from oanim_server.ledger.values import Reservation, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oanim_server.ledger.audit_counts import Counts
    from oanim_server.ledger.audit_findings import Findings


@dataclass(slots=True)
class _Open:
    """A reservation whose latest row is still to come, and what the journal has said of it."""

    stored: Reservation | None
    first: journal.Row
    latest: journal.Row
    uncollected_micros: int = 0
    # When and what, of each charge
    charges: list[tuple[int, int]] = field(default_factory=list)


class Holds:
    """Checks reservations, adds up what they keep, and counts them and what they were charged.

    :param stored: the wallet's rows of `reservations`, in order.
    """

    def __init__(self, stored: Iterator[Any], findings: Findings, counts: Counts) -> None:
        self._stored = stored
        self._next = next(stored, None)
        self._findings = findings
        self._counts = counts
        self._open: dict[int, _Open] = {}
        self.count = 0
        # Of each lot, what active reservations keep.
        self.kept: defaultdict[int, int] = defaultdict(int)
        self.next_expiry: int | None = None

    def row(self, row: journal.Row) -> None:
        """Follow the journal by one row."""
        number = row.reservation
        if not number:
            return
        found = self._open.get(number)
        if found is None:
            if number != row.seq:
                self._findings.off(f"row {row.seq}: reservation {number} was not begun, or had ended")
                return
            found = self._open[number] = _Open(self._take(number), row, row)
        found.latest = row
        found.uncollected_micros += row.uncollected_micros
        if row.charged_micros:
            found.charges.append((row.at, row.charged_micros))
        if found.stored is not None and found.stored.last_seq == row.seq:
            del self._open[number]
            self._check(found.stored, found)

    def end(self) -> None:
        """The journal has no more rows."""
        self._skip_to(None)
        for found in self._open.values():
            if found.stored is not None:
                self._check(found.stored, found)

    def _take(self, number: int) -> Reservation | None:
        """The stored reservation of a number."""
        self._skip_to(number)
        if self._next is None or self._next[1] != number:
            self._findings.off(f"reservation {number}: the journal knows it, the table does not")
            return None
        values, self._next = self._next, next(self._stored, None)
        self.count += 1
        with self._findings.reading(f"reservation {number}"):
            return rows.reservation_of(values)
        return None

    def _skip_to(self, number: int | None) -> None:
        """Pass what is stored below a number, all of it for None: no row began it."""
        while self._next is not None and (number is None or self._next[1] < number):
            self.count += 1
            self._findings.off(f"reservation {self._next[1]}: the table knows it, the journal does not")
            self._next = next(self._stored, None)

    def _check(self, stored: Reservation, found: _Open) -> None:
        """I2 and I7: a reservation is as its latest row left it."""
        with self._findings.reading(f"reservation {stored.number}"):
            self._compare(stored, found)
            if stored.reported_quantity:
                self._compare_counter(stored)
            self._add(stored, found)

    def _compare(self, stored: Reservation, found: _Open) -> None:
        where = f"reservation {stored.number}: "
        row, active = found.latest, stored.state is State.ACTIVE
        for what, expected, kept in (
            ("state", row.state, stored.state.value),
            ("reserved", row.reserved_micros, stored.reserved_micros),
            ("captured", row.captured_micros, stored.captured_micros),
            ("charged in all", sum(micros for _, micros in found.charges), stored.captured_micros),
            ("uncollected", found.uncollected_micros, stored.uncollected_micros),
            ("captures", row.captures, stored.captures),
            ("captured quantity", row.captured_quantity, stored.captured_quantity),
            ("expiry", row.expires_at, stored.expires_at),
            ("start", found.first.at, stored.created_at),
            ("end", None if active else row.at, stored.ended_at),
            ("latest row", row.seq, stored.last_seq),
            ("parts", sum(micros for _, micros in stored.parts), stored.held_micros),
        ):
            self._findings.same(where + what, expected, kept)
        seal, right = found.first.seal, journal.seal_of_hold(stored.opener, stored.api_key_id, stored.pinned)
        if seal is None or bytes(seal) != right:
            self._findings.off(f"{where}what never changes was changed")

    def _compare_counter(self, stored: Reservation) -> None:
        """What was reported of an active reservation is in no row yet; once it has ended, all is charged."""
        where = f"reservation {stored.number}: "
        if stored.line is None:
            self._findings.off(f"{where}usage was reported and it has no price")
        elif stored.state is State.ACTIVE:
            self._findings.same(where + "captures beside a counter", 0, stored.captures)
        else:
            counted = stored.captured_quantity
            self._findings.same(where + "reported quantity", counted, stored.reported_quantity)
            paid = stored.captured_micros + stored.uncollected_micros
            self._findings.same(where + "price of what was reported", stored.line.cost_micros(counted), paid)

    def _add(self, stored: Reservation, found: _Open) -> None:
        for lot, micros in stored.parts:
            self.kept[lot] += micros
        if stored.state is State.ACTIVE and stored.expires_at is not None:
            self.next_expiry = min(stored.expires_at, self.next_expiry or stored.expires_at)
        self._counts.reservation(stored)
        for at, micros in found.charges:
            self._counts.charge(stored, at, micros)
