"""The audit's walk along what a wallet's purchases credited, beside its journal.

What of a purchase was taken elsewhere stands in no row, and decides what is given back when its own parts
expire. It follows from what each row did to lots and to the debt, as `crediting` and `reversals` have it. A
little is kept of each purchase.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from oanim_server.ledger import journal, rules
from oanim_server.ledger.values import Account, Credit, Kind, Lot, Method, Origin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from oanim_server.ledger.audit_findings import Findings

# Rows that a payment made, or that make up for what has expired.
PAID = (Kind.PURCHASE, Kind.REVERSAL, Kind.REINSTATEMENT)
# Rows that may give back parts of lots, or let them expire.
_RETURNING = (Kind.CAPTURE, Kind.RELEASE, Kind.RESERVATION_EXPIRY, Kind.LOT_EXPIRY)


@dataclass(slots=True)
class _Booked:
    """What the journal says of one credit."""

    # Its own lots; none before the row that made it.
    lots: Sequence[int] = ()
    entries: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    # What the wallet has lost of it.
    from_wallet_micros: int = 0


class Credits:
    """Checks what is stored of purchases, and recomputes what of them was taken elsewhere.

    :param stored: the wallet's rows of `purchase_credits`.
    """

    def __init__(self, stored: Iterator[Any], findings: Findings) -> None:
        self.stored = {credit.number: credit for credit in (Credit(*values) for values in stored)}
        self._findings = findings
        self._booked: defaultdict[int, _Booked] = defaultdict(_Booked)
        # The credit of each lot that was bought.
        self._credit_of: dict[int, int] = {}
        # By credit, where it is not 0: what was taken elsewhere and not from its own lots.
        self._elsewhere: dict[int, int] = {}
        # What the next rows have to make up for, one each: (credit, micros).
        self._due: list[tuple[int, int]] = []
        self._debt_micros = 0

    def row(
        self, row: journal.Row, entries: list[list[int]], moved: list[list[int]], made: Sequence[int]
    ) -> int:
        """Follow the journal by one row, which made some lots; the number of the credit that it is about.

        Where it is about none, or none that is known, that is 0.
        """
        came_micros = sum(micros for account, micros in entries if account == Account.WALLET)
        number = self._number(row, made, came_micros) if row.kind in PAID else 0
        makes_up = row.kind == Kind.REINSTATEMENT and row.method != Method.PAYMENT
        self._made_up(f"row {row.seq}", [(number, came_micros)] if makes_up else [])
        if number:
            booked = self._booked[number]
            for account, micros in entries:
                booked.entries[account] += micros
            if row.kind == Kind.PURCHASE:
                booked.lots = made
                self._credit_of |= dict.fromkeys(made, number)
            else:
                booked.from_wallet_micros -= came_micros
                self._set_elsewhere(number, self._left_elsewhere(row, number, came_micros, moved))
        elif row.kind in _RETURNING and self._elsewhere:
            self._return(row, moved)
        self._debt_micros = row.debt_micros
        return number

    def end(self) -> None:
        """The journal has no more rows."""
        self._made_up("after the last row", [])

    def compare(self, lots: Mapping[int, Lot]) -> None:
        """See that what was taken back of each credit is where it is said to be.

        :param lots: those of the wallet that can be read.
        """
        for number, booked in self._booked.items():
            if booked.lots and number not in self.stored:
                self._findings.off(f"credit {number}: the journal knows it, the table does not")
        for credit in self.stored.values():
            self._compare(credit, lots)

    def _compare(self, credit: Credit, lots: Mapping[int, Lot]) -> None:
        where = f"credit {credit.number}: "
        booked = self._booked[credit.number]
        entries, same = booked.entries, self._findings.same
        paid, bonus = lots.get(credit.paid_lot), lots.get(credit.bonus_lot)
        if (
            sorted(booked.lots) != sorted(credit.lots)
            or paid is None
            or paid.origin is not Origin.PURCHASE
            or (bonus is None) != (credit.bonus_lot == 0)
        ):
            self._findings.off(f"{where}the journal does not know it")
            return
        of_bonus, lapsed = (bonus.amount_micros, bonus.lapsed_micros) if bonus else (0, 0)
        promotions = entries[Account.PROMOTIONS] + of_bonus + credit.covered_bonus_micros
        same(where + "in stripe", entries[Account.STRIPE] + paid.amount_micros, credit.stripe_micros)
        same(where + "in promotions", promotions, credit.promotions_micros)
        same(where + "in disputes", entries[Account.DISPUTES], credit.disputes_micros)
        same(where + "from breakage", -entries[Account.BREAKAGE], credit.covered_paid_micros)
        same(where + "taken elsewhere", self._elsewhere.get(credit.number, 0), credit.elsewhere_micros)
        if credit.covered_paid_micros > paid.lapsed_micros or credit.covered_bonus_micros > lapsed:
            self._findings.off(f"{where}more than has expired counts as taken")
        # No row tells a bonus that was refunded from one that had expired: the books have the difference.
        # But a refund is of both in the proportion in which they were sold, to the micro.
        uneven = credit.promotions_micros * paid.amount_micros - credit.stripe_micros * of_bonus
        if abs(uneven) >= paid.amount_micros + of_bonus:
            self._findings.off(f"{where}more or less of its bonus than of what was paid was refunded")

    def _number(self, row: journal.Row, made: Sequence[int], came_micros: int) -> int:
        """The credit that a row of PAID made, or changed: then its seal has the purchase's id."""
        if row.kind == Kind.PURCHASE:
            return row.seq
        lots = [Lot(lot, Origin.REINSTATED, came_micros, 0, 0, 0, None, row.at) for lot in made]
        seal = row.seal and bytes(row.seal)
        for credit in self.stored.values():
            if seal == journal.seal_of_made(lots, [credit.purchase_id]):
                return credit.number
        return 0

    def _left_elsewhere(self, row: journal.Row, number: int, came_micros: int, moved: list[list[int]]) -> int:
        """What of a credit is taken elsewhere after a row that took some of it, or gave some of it back."""
        elsewhere, booked = self._elsewhere.get(number, 0), self._booked[number]
        if row.kind == Kind.REVERSAL:
            # `reversals._take`: all that its own lots did not give.
            return elsewhere - came_micros - sum(-micros for lot, micros, _ in moved if lot in booked.lots)
        if row.method == Method.PAYMENT:
            # `reversals._give`: what was taken of its own lots comes back last.
            return min(elsewhere, booked.from_wallet_micros)
        return elsewhere - came_micros

    def _return(self, row: journal.Row, moved: list[list[int]]) -> None:
        """Follow parts of lots that pay the debt, or else expire: `crediting.taken_after_all`, `make_up`.

        A row names lots in the order in which their parts were charged, and then given back. What a lot lost
        and was not charged has paid the debt, as long as there was any; the rest of that has expired.
        """
        held = [(lot, -held_micros) for lot, _, held_micros in moved]
        charged = dict(rules.split(held, row.charged_micros)[0])
        gone = [(lot, -remaining - charged.get(lot, 0)) for lot, remaining, _ in moved]
        to_debt, lapsed = rules.split(gone, self._debt_micros - row.debt_micros)
        for lot, micros in to_debt:
            number = self._credit_of.get(lot, 0)
            elsewhere = self._elsewhere.get(number, 0)
            self._set_elsewhere(number, elsewhere - min(micros, elsewhere))
        for lot, micros in lapsed:
            number = self._credit_of.get(lot, 0)
            due_micros = sum(due for of, due in self._due if of == number)
            made_up_micros = min(micros, self._elsewhere.get(number, 0) - due_micros)
            if made_up_micros > 0:
                self._due.append((number, made_up_micros))

    def _made_up(self, where: str, found: list[tuple[int, int]]) -> None:
        """See that a row makes up for what has just expired, and only for that."""
        self._findings.same(f"{where}: made up for what expired, by credit", self._due[:1], found)
        self._due = self._due[1:] if self._due[:1] == found else []

    def _set_elsewhere(self, number: int, micros: int) -> None:
        if micros:
            self._elsewhere[number] = micros
        else:
            self._elsewhere.pop(number, None)
