"""The working set of one group: what was loaded, what the rules decided on it, and what is to be written.

Each operation sees the effects of the ones before it. Nothing here talks to the database; the committer
fills it and writes it out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

from oanim_server.ledger import journal
from oanim_server.ledger.refusals import NotFound
from oanim_server.ledger.values import (
    DAY,
    Account,
    Counter,
    Kind,
    Lot,
    Outcome,
    Part,
    Reservation,
    Scope,
    State,
    Wallet,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

# Whose attempt it was: (idempotency key, wallet, caller, method).
Identity = tuple[str, int, int, int]
# (wallet, day, model, category, API key, project)
UsageKey = tuple[int, int, str, str, str, str]


class Attempt:
    """What a journal row records of the call that made it. Rows of the clock have none."""

    __slots__ = ("caller", "fingerprint", "key", "method")

    def __init__(self, caller: int, method: int, key: str | None, fingerprint: bytes | None) -> None:
        self.caller = caller
        self.method = method
        self.key = key
        self.fingerprint = fingerprint


CLOCK = Attempt(0, 0, None, None)
_CAPTURES = (Kind.CAPTURE, Kind.LATE_SETTLEMENT)

# The row of a capture that was made before this group.
FetchCapture = Callable[[Reservation, int], journal.Row]


class WorkingSet:
    """Wallets, reservations and counters of one group, and the changes made to them."""

    def __init__(self, now: int, fetch_capture: FetchCapture) -> None:
        self.now = now
        self._fetch_capture = fetch_capture
        self.wallets: dict[int, Wallet] = {}
        self.reservations: dict[tuple[int, int], Reservation] = {}
        self.counters: dict[tuple[int, str], Counter] = {}
        self.known: dict[Identity, journal.Row] = {}
        self.rows: list[journal.Row] = []
        self.new_wallets: set[int] = set()
        self.changed_wallets: dict[int, int] = {}
        self.new_reservations: dict[tuple[int, int], Reservation] = {}
        self.changed_reservations: dict[tuple[int, int], int] = {}
        self.new_lots: dict[tuple[int, int], Lot] = {}
        self.changed_lots: dict[tuple[int, int], Lot] = {}
        self.changed_counters: set[tuple[int, str]] = set()
        self.usage: defaultdict[UsageKey, list[int]] = defaultdict(lambda: [0, 0])

    # Looking up -----------------------------------------------------------------------------------

    def wallet(self, wallet_id: int) -> Wallet:
        """The wallet, or NotFound."""
        wallet = self.wallets.get(wallet_id)
        if wallet is None:
            raise NotFound(what="account")
        return wallet

    def reservation(self, wallet_id: int, number: int) -> Reservation:
        """The reservation, or NotFound."""
        reservation = self.reservations.get((wallet_id, number))
        if reservation is None:
            raise NotFound(what="reservation")
        return reservation

    def counters_of(self, wallet_id: int, scopes: Iterable[Scope]) -> dict[str, Counter]:
        """The counter of each scope; new ones start at zero."""
        return {subject: self.counter(wallet_id, subject) for subject, _ in scopes}

    def counter(self, wallet_id: int, subject: str) -> Counter:
        """The counter of one subject; a new one starts at zero."""
        return self.counters.setdefault((wallet_id, subject), Counter())

    def time(self, wallet: Wallet) -> int:
        """Now, on this wallet: never before its last row."""
        return max(self.now, wallet.at)

    def capture(self, reservation: Reservation, capture: int) -> journal.Row:
        """The row of a capture that was made: in this group, or before it."""
        for row in reversed(self.rows):
            if row.wallet_id == reservation.wallet_id and row.reservation == reservation.number:
                if row.captures == capture and row.kind in _CAPTURES:
                    return row
                if row.captures < capture:
                    break
        return self._fetch_capture(reservation, capture)

    def open_wallet(self, wallet_id: int) -> Wallet:
        """A wallet that nobody knows yet."""
        wallet = Wallet(
            wallet_id, 0, 0, 0, 0, 0, journal.GENESIS, frozen=False, next_due_at=None, lots_made=0
        )
        self.wallets[wallet_id] = wallet
        self.new_wallets.add(wallet_id)
        return wallet

    def unchanged(self, wallet: Wallet) -> Outcome:
        """The answer of an operation that had nothing to do."""
        return Outcome(journal.wallet_facts(wallet), None, 0, 0, 0, replayed=False)

    # Changing -------------------------------------------------------------------------------------

    def keep(self, wallet: Wallet, parts: Iterable[Part]) -> dict[int, list[int]]:
        lots: dict[int, list[int]] = {}
        for number, micros in parts:
            self.move(wallet, lots, number, held_micros=micros)
            wallet.held_micros += micros
        return lots

    def move(
        self,
        wallet: Wallet,
        moved: dict[int, list[int]],
        number: int,
        *,
        remaining_micros: int = 0,
        held_micros: int = 0,
    ) -> None:
        lot = wallet.lots[number]
        lot.remaining_micros += remaining_micros
        lot.held_micros += held_micros
        if (wallet.wallet_id, number) not in self.new_lots:
            self.changed_lots[wallet.wallet_id, number] = lot
        change = moved.get(number)
        if change is None:
            moved[number] = [remaining_micros, held_micros]
        else:
            change[0] += remaining_micros
            change[1] += held_micros

    def count(self, reservation: Reservation, *, held_micros: int = 0, charged_micros: int = 0) -> None:
        for subject, _ in reservation.scopes:
            key = (reservation.wallet_id, subject)
            counter = self.counters[key]
            counter.held_micros += held_micros
            counter.charged_micros += charged_micros
            self.changed_counters.add(key)

    def end(self, reservation: Reservation, state: State, at: int) -> None:
        reservation.state = state
        reservation.ended_at = at

    def use(self, reservation: Reservation, at: int, charged_micros: int) -> None:
        if not charged_micros:
            return
        line = reservation.line
        model, category = (line.model, line.category) if line else ("", "")
        project = reservation.labels.get("project", "")
        total = self.usage[reservation.wallet_id, at // DAY, model, category, reservation.api_key_id, project]
        total[0] += 1
        total[1] += charged_micros

    def due_at(self, wallet: Wallet, at: int | None) -> None:
        if at is not None and (wallet.next_due_at is None or at < wallet.next_due_at):
            wallet.next_due_at = at

    def record(
        self,
        wallet: Wallet,
        kind: Kind,
        at: int,
        attempt: Attempt,
        *,
        lots: dict[int, list[int]],
        entries: dict[Account, int] | None = None,
        reservation: Reservation | None = None,
        charged_micros: int = 0,
        quantity: int = 0,
        uncollected_micros: int = 0,
        seal: bytes | None = None,
    ) -> Outcome:
        self.changed_wallets.setdefault(wallet.wallet_id, wallet.seq)
        wallet.seq += 1
        wallet.at = at
        moved = [[number, *change] for number, change in lots.items()]
        booked = [[int(account), micros] for account, micros in entries.items() if micros] if entries else []
        if reservation is None:
            standing: tuple[int | None, ...] = (0, 0, 0, 0, 0, 0, None)
        else:
            key = (reservation.wallet_id, reservation.number)
            prior = reservation.last_seq
            if prior and key not in self.new_reservations:
                self.changed_reservations.setdefault(key, prior)
            reservation.last_seq = wallet.seq
            standing = (
                reservation.number,
                int(reservation.state),
                reservation.reserved_micros,
                reservation.captured_micros,
                reservation.captures,
                reservation.captured_quantity,
                reservation.expires_at,
            )
        fields = (
            wallet.wallet_id,
            wallet.seq,
            at,
            int(kind),
            attempt.caller,
            int(attempt.method),
            attempt.key,
            attempt.fingerprint,
            *standing,
            charged_micros,
            quantity,
            uncollected_micros,
            wallet.balance_micros,
            wallet.held_micros,
            wallet.debt_micros,
            int(wallet.frozen),
            journal.compact(moved) if moved else "[]",
            journal.compact(booked) if booked else "[]",
            seal,
        )
        wallet.link = journal.link_of(wallet.link, fields)
        self.rows.append(journal.Row(*fields, wallet.link))  # type: ignore[arg-type,call-arg]
        return Outcome(
            wallet=journal.wallet_facts(wallet),
            reservation=journal.reservation_facts(reservation) if reservation is not None else None,
            charged_micros=charged_micros,
            uncollected_micros=uncollected_micros,
            released_micros=0,
            replayed=False,
        )
