"""The working set of one group: what was loaded, what the rules decided on it, and what is to be written.

Each operation sees the effects of the ones before it. Nothing here talks to the database; the committer
fills it and writes it out.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from oanim_server.ledger import journal
from oanim_server.ledger.refusals import NotFound
from oanim_server.ledger.values import (
    DAY,
    Account,
    Cap,
    Counter,
    Credit,
    Kind,
    Limit,
    LimitFacts,
    Lot,
    Note,
    Outcome,
    Part,
    Reservation,
    Scope,
    State,
    UsageItem,
    Wallet,
    maker,
)
from oanim_server.ledger.windows import Window, window_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from oanim_server.ledger.windows import Period

# Whose attempt it was: (idempotency key, wallet, caller, method).
Identity = tuple[str, int, int, int]
# (wallet, day, model, category, API key, project)
UsageKey = tuple[int, int, str, str, str, str]
# The wallet, the subject and the window.
CounterKey = tuple[int, str, str]


class Attempt(Struct, frozen=True):
    """What a journal row records of the call that made it. Rows of the clock have none."""

    caller: int
    method: int
    key: str | None
    fingerprint: bytes | None


_outcome = maker(Outcome)
CLOCK = Attempt(0, 0, None, None)
_CAPTURES = (Kind.CAPTURE, Kind.LATE_SETTLEMENT)
# What a counter may still hear of: an expired reservation may be settled late.
_COUNTING = (State.ACTIVE, State.EXPIRED)


class Fetch(Protocol):
    """What few operations need of what is stored: it is fetched at their turn, under the wallet's lock."""

    def capture(self, reservation: Reservation, capture: int) -> journal.Row:
        """The row of a capture that was made before this group."""

    def credit(self, wallet_id: int, number: int) -> Credit:
        """What a purchase credited."""

    def credit_of(self, wallet_id: int, lot: int) -> Credit:
        """What the purchase of a lot credited."""

    def lot(self, wallet_id: int, number: int) -> Lot:
        """A lot that has closed, and so was not loaded."""

    def spent(
        self, wallet: Wallet, api_key_id: str, window: Window, without: Collection[int]
    ) -> tuple[int, int]:
        """What a window's usage items and reservations, but some, were charged and hold; no key is any."""


class WorkingSet:
    """Wallets, reservations and counters of one group, and the changes made to them."""

    def __init__(self, now: int, fetch: Fetch) -> None:
        self.now = now
        self._fetch = fetch
        self.wallets: dict[int, Wallet] = {}
        self.reservations: dict[tuple[int, int], Reservation] = {}
        self.counters: dict[CounterKey, Counter] = {}
        self.limits: dict[int, list[Limit]] = {}
        self.credits: dict[tuple[int, int], Credit] = {}
        self.known: dict[Identity, journal.Row] = {}
        self.rows: list[journal.Row] = []
        self.new_wallets: set[int] = set()
        self.changed_wallets: dict[int, int] = {}
        self.new_reservations: dict[tuple[int, int], Reservation] = {}
        self.changed_reservations: dict[tuple[int, int], int] = {}
        self.new_items: list[UsageItem] = []
        # Also those that were made.
        self.changed_lots: dict[tuple[int, int], Lot] = {}
        self.changed_counters: set[CounterKey] = set()
        self.changed_limits: dict[tuple[int, str, Period], int | None] = {}
        # Limits that were taken away in this group, also those that were set again in it.
        self.ended_limits: set[tuple[int, str, Period]] = set()
        self.new_credits: dict[tuple[int, int], Credit] = {}
        self.changed_credits: dict[tuple[int, int], Credit] = {}
        self.notes: dict[tuple[int, int], Note] = {}
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

    def caps_of(self, reservation: Reservation) -> list[Cap]:
        """All that a reservation counts under."""
        return self.caps(
            reservation.wallet_id, reservation.api_key_id, reservation.scopes, reservation.created_at
        )

    def caps(self, wallet_id: int, api_key_id: str, scopes: Sequence[Scope], at: int) -> list[Cap]:
        """All that work reserved at a time counts under: its scopes, and limits in their windows."""
        if not scopes and not self.limits:
            return []
        caps = [Cap(subject, None, limit_micros) for subject, limit_micros in scopes]
        caps += [
            Cap(limit.api_key_id, window_of(limit.period, at), limit.limit_micros)
            for limit in self.limits.get(wallet_id, ())
            if limit.api_key_id in ("", api_key_id)
        ]
        return caps

    def counters_of(self, wallet_id: int, caps: Sequence[Cap]) -> dict[tuple[str, str], Counter]:
        """The counter of each subject."""
        if not caps:
            return {}
        return {cap.counted_under: self.counter(wallet_id, cap) for cap in caps}

    def counter(self, wallet_id: int, cap: Cap) -> Counter:
        """The counter of one subject. A new one of a scope starts at zero, of a limit at what was spent."""
        key = (wallet_id, *cap.counted_under)
        counter = self.counters.get(key)
        if counter is None:
            counter = Counter()
            if cap.window is not None:
                # Kept, so that it is added up once a window and not once a call.
                counter = self._spent(wallet_id, cap.subject, cap.window)
                self.changed_counters.add(key)
            self.counters[key] = counter
        return counter

    def counting(self) -> Iterable[Reservation]:
        """The reservations that counters may still hear of, if there are any counters."""
        return [
            found
            for found in self.reservations.values()
            if (found.scopes or self.limits) and found.state in _COUNTING
        ]

    def begin_counting(self, wallet_id: int) -> None:
        """Have a counter for all that a wallet's reservations count under, before any of them changes."""
        for reservation in self.counting():
            if reservation.wallet_id == wallet_id:
                self.counters_of(wallet_id, self.caps_of(reservation))

    def limit_facts(self, wallet_id: int, limit: Limit) -> LimitFacts:
        """What a limit has in the present window."""
        window = window_of(limit.period, self.time(self.wallets[wallet_id]))
        counter = self.counter(wallet_id, Cap(limit.api_key_id, window, limit.limit_micros))
        return LimitFacts(limit, counter.charged_micros, counter.held_micros, window)

    def credit(self, wallet_id: int, number: int) -> Credit:
        """What a purchase credited."""
        credit = self.credits.get((wallet_id, number))
        if credit is None:
            credit = self.credits[wallet_id, number] = self._fetch.credit(wallet_id, number)
        return credit

    def credit_of(self, wallet: Wallet, lot: int) -> Credit:
        """What the purchase of a lot credited."""
        for credit in self.credits.values():
            if credit.wallet_id == wallet.wallet_id and lot in credit.lots:
                return credit
        credit = self._fetch.credit_of(wallet.wallet_id, lot)
        return self.credits.setdefault((credit.wallet_id, credit.number), credit)

    def lot(self, wallet: Wallet, number: int) -> Lot:
        """A lot, whatever is left of it."""
        lot = wallet.lots.get(number)
        if lot is None:
            lot = wallet.lots[number] = self._fetch.lot(wallet.wallet_id, number)
        return lot

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
        return self._fetch.capture(reservation, capture)

    def open_wallet(self, wallet_id: int) -> Wallet:
        """A wallet that nobody knows yet."""
        wallet = Wallet(
            wallet_id, 0, 0, 0, 0, 0, journal.GENESIS, frozen=False, next_due_at=None, lots_made=0, limits=0
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
        """Change a lot, and add that to `moved`: by its number, that and what remains and is held more."""
        lot = wallet.lots[number]
        lot.remaining_micros += remaining_micros
        lot.held_micros += held_micros
        self.changed_lots[wallet.wallet_id, number] = lot
        change = moved.get(number)
        if change is None:
            moved[number] = [number, remaining_micros, held_micros]
        else:
            change[1] += remaining_micros
            change[2] += held_micros

    def count(self, reservation: Reservation, *, held_micros: int = 0, charged_micros: int = 0) -> None:
        if not reservation.scopes and not self.limits:
            return
        for cap in self.caps_of(reservation):
            key = (reservation.wallet_id, *cap.counted_under)
            counter = self.counters[key]
            counter.held_micros += held_micros
            counter.charged_micros += charged_micros
            self.changed_counters.add(key)

    def end(self, reservation: Reservation, state: State, at: int) -> None:
        reservation.state = state
        reservation.ended_at = at
        if reservation.reported_quantity:
            # The quantity of its Commit is the last report.
            reservation.reported_quantity = reservation.captured_quantity

    def _spent(self, wallet_id: int, api_key_id: str, window: Window) -> Counter:
        """What was spent in a window before anybody counted, by what is stored and by this group."""
        wallet = self.wallets[wallet_id]
        here = [
            reservation for reservation in self.reservations.values() if reservation.wallet_id == wallet_id
        ]
        charged, held = self._fetch.spent(wallet, api_key_id, window, [found.number for found in here])
        for reservation in here:
            if (
                api_key_id in ("", reservation.api_key_id)
                and window.start <= reservation.created_at < window.end
            ):
                charged += reservation.captured_micros
                held += reservation.held_micros
        for item in self.new_items:
            if (
                item.wallet_id == wallet_id
                and api_key_id in ("", item.api_key_id)
                and window.start <= item.at < window.end
            ):
                charged += item.charged_micros
        return Counter(charged, held)

    def use(self, work: Reservation | UsageItem, at: int, charged_micros: int) -> None:
        """Add a charge to the usage of its day."""
        if not charged_micros:
            return
        line = work.line
        model, category = (line.model, line.category) if line else ("", "")
        project = work.labels.get("project", "")
        total = self.usage[work.wallet_id, at // DAY, model, category, work.api_key_id, project]
        total[0] += 1
        total[1] += charged_micros

    def use_item(self, item: UsageItem) -> None:
        """Count work that was done without a hold."""
        for cap in self.caps(item.wallet_id, item.api_key_id, (), item.at):
            self.counter(item.wallet_id, cap).charged_micros += item.charged_micros
            self.changed_counters.add((item.wallet_id, *cap.counted_under))
        self.new_items.append(item)
        self.use(item, item.at, item.charged_micros)

    def raise_counter(self, reservation: Reservation, quantity: int) -> None:
        """Note how much was used under a hold. It is no row of the journal: no money moves."""
        key = (reservation.wallet_id, reservation.number)
        if key not in self.new_reservations:
            self.changed_reservations.setdefault(key, reservation.last_seq)
        reservation.reported_quantity = quantity

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
        note: Note | None = None,
    ) -> Outcome:
        self.changed_wallets.setdefault(wallet.wallet_id, wallet.seq)
        wallet.seq += 1
        if note is not None:
            self.notes[wallet.wallet_id, wallet.seq] = note
        wallet.at = at
        moved = journal.compact(list(lots.values())) if lots else "[]"
        booked = [[int(account), micros] for account, micros in entries.items() if micros] if entries else ()
        if reservation is None:
            standing: tuple[int | None, ...] = (0, 0, 0, 0, 0, 0, None)
        else:
            prior = reservation.last_seq
            if prior:
                key = (reservation.wallet_id, reservation.number)
                if key not in self.new_reservations:
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
            moved,
            journal.compact(booked) if booked else "[]",
            seal,
        )
        wallet.link = journal.link_of(wallet.link, fields)
        self.rows.append(journal.row_of((*fields, wallet.link)))
        return _outcome(
            (
                journal.wallet_facts(wallet),
                journal.reservation_facts(reservation) if reservation is not None else None,
                charged_micros,
                uncollected_micros,
                0,
                False,
            )
        )
