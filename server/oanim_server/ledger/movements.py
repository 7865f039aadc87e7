"""What the rules decided of holds, applied to the working set: each function is one kind of journal row."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from oanim_server.ledger import crediting, journal, rules
from oanim_server.ledger.values import (
    ACTIVE,
    Account,
    Kind,
    Line,
    Lot,
    Outcome,
    Part,
    Reservation,
    Scope,
    State,
    UsageItem,
    Wallet,
)
from oanim_server.ledger.working import CLOCK, Attempt, WorkingSet

if TYPE_CHECKING:
    from collections.abc import Iterable

# Found once: what every Reserve and Commit would look up.
_RESERVE, _CAPTURE, _RELEASE = Kind.RESERVE, Kind.CAPTURE, Kind.RELEASE
_WALLET, _REVENUE = Account.WALLET, Account.REVENUE


def hold(
    working: WorkingSet,
    wallet: Wallet,
    held: rules.Held,
    *,
    amount_micros: int,
    opener: int,
    api_key_id: str,
    line: Line | None,
    ttl: int | None,
    scopes: tuple[Scope, ...],
    labels: dict[str, str],
    attempt: Attempt,
) -> Outcome:
    """Open a reservation over parts of lots."""
    now = working.time(wallet)
    number = wallet.seq + 1
    expires_at = None if ttl is None else now + ttl
    pinned = journal.pinned(line, scopes, labels)
    # By place: names would cost as much as all of the rest of it.
    reservation = Reservation(
        wallet.wallet_id, number, ACTIVE, opener, api_key_id, amount_micros, 0, 0, 0, 0,
        held.parts, expires_at, now, None, 0, line, scopes, labels, pinned,
    )  # fmt: skip
    working.reservations[wallet.wallet_id, number] = reservation
    working.new_reservations[wallet.wallet_id, number] = reservation
    moved = working.keep(wallet, held.parts)
    working.count(reservation, held_micros=amount_micros)
    working.due_at(wallet, reservation.expires_at)
    seal = journal.seal_of_hold(opener, api_key_id, pinned)
    return working.record(wallet, _RESERVE, now, attempt, reservation=reservation, lots=moved, seal=seal)


def extend(
    working: WorkingSet, wallet: Wallet, reservation: Reservation, extended: rules.Extended, attempt: Attempt
) -> Outcome:
    """Add parts and time to a reservation."""
    added = sum(micros for _, micros in extended.parts)
    moved = working.keep(wallet, extended.parts)
    reservation.parts = _together(wallet, reservation.parts, extended.parts)
    reservation.reserved_micros += added
    reservation.expires_at = extended.expires_at
    working.count(reservation, held_micros=added)
    working.due_at(wallet, reservation.expires_at)
    return working.record(
        wallet, Kind.EXTEND, working.time(wallet), attempt, reservation=reservation, lots=moved
    )


def _together(wallet: Wallet, kept: Iterable[Part], added: Iterable[Part]) -> list[Part]:
    """One part a lot, in draw order, as one Reserve of it all would have them."""
    parts: dict[int, int] = {}
    for number, micros in (*kept, *added):
        parts[number] = parts.get(number, 0) + micros
    # A lot with a part under a hold has something left, and so is loaded.
    return sorted(parts.items(), key=lambda part: rules.draw_order(wallet.lots[part[0]]))


_KINDS = {
    State.ACTIVE: _CAPTURE,
    State.COMMITTED: _CAPTURE,
    State.RELEASED: _RELEASE,
    State.EXPIRED: Kind.RESERVATION_EXPIRY,
}


def capture(
    working: WorkingSet,
    wallet: Wallet,
    reservation: Reservation,
    captured: rules.Captured,
    attempt: Attempt,
    *,
    at: int,
) -> Outcome:
    """Charge parts of a hold, and give back what is not kept: a capture, a release or an expiry."""
    kind = _KINDS[captured.state]
    lots: dict[int, list[int]] = {}
    for number, micros in captured.consumed:
        working.move(wallet, lots, number, remaining_micros=-micros, held_micros=-micros)
    charged = captured.charged_micros
    wallet.balance_micros -= charged
    wallet.held_micros -= charged
    entries = _charged(charged, captured.uncollected_micros)
    back = _return(working, wallet, captured.returned, lots, entries)
    reservation.captured_micros += charged
    reservation.uncollected_micros += captured.uncollected_micros
    reservation.captures += 1 if kind is _CAPTURE else 0
    reservation.captured_quantity += captured.quantity
    reservation.parts = captured.kept
    working.count(reservation, held_micros=-charged - back, charged_micros=charged)
    if captured.state is not ACTIVE:
        working.end(reservation, captured.state, at)
    working.use(reservation, at, charged)
    outcome = working.record(
        wallet,
        kind,
        at,
        attempt,
        reservation=reservation,
        lots=lots,
        entries=entries,
        charged_micros=charged,
        quantity=captured.quantity,
        uncollected_micros=captured.uncollected_micros,
    )
    crediting.make_up(working, wallet, captured.returned.lapsed, at)
    return outcome._replace(released_micros=back) if kind is _RELEASE else outcome


def settle_late(
    working: WorkingSet,
    wallet: Wallet,
    reservation: Reservation,
    settled: rules.SettledLate,
    attempt: Attempt,
) -> Outcome:
    """Charge free credits, or nobody, for work whose hold had expired."""
    now = working.time(wallet)
    lots: dict[int, list[int]] = {}
    for number, micros in settled.consumed:
        working.move(wallet, lots, number, remaining_micros=-micros)
    charged = settled.charged_micros
    wallet.balance_micros -= charged
    entries = _charged(charged, settled.uncollected_micros)
    reservation.captured_micros += charged
    reservation.captures += 1
    reservation.captured_quantity += settled.quantity
    reservation.uncollected_micros += settled.uncollected_micros
    working.count(reservation, charged_micros=charged)
    working.end(reservation, State.SETTLED_LATE, now)
    working.use(reservation, now, charged)
    return working.record(
        wallet,
        Kind.LATE_SETTLEMENT,
        now,
        attempt,
        reservation=reservation,
        lots=lots,
        entries=entries,
        charged_micros=charged,
        quantity=settled.quantity,
        uncollected_micros=settled.uncollected_micros,
    )


def use(
    working: WorkingSet,
    wallet: Wallet,
    used: rules.Used,
    *,
    api_key_id: str,
    line: Line,
    labels: dict[str, str],
    attempt: Attempt,
) -> Outcome:
    """Charge work that was done without a hold. It counts under limits; none of them is asked."""
    now = working.time(wallet)
    lots: dict[int, list[int]] = {}
    for number, micros in used.consumed:
        working.move(wallet, lots, number, remaining_micros=-micros)
    charged = used.charged_micros
    wallet.balance_micros -= charged
    entries = _charged(charged, used.uncollected_micros)
    item = UsageItem(
        wallet.wallet_id, wallet.seq + 1, now, api_key_id, line, labels, charged, used.uncollected_micros
    )
    working.use_item(item)
    return working.record(
        wallet,
        Kind.USAGE,
        now,
        attempt,
        lots=lots,
        entries=entries,
        charged_micros=charged,
        quantity=line.quantity,
        uncollected_micros=used.uncollected_micros,
        seal=journal.seal_of_item(item),
    )


def lapse(working: WorkingSet, wallet: Wallet, lot: Lot, at: int) -> None:
    """Let what is free of a lot expire."""
    micros = lot.free_micros
    lots: dict[int, list[int]] = {}
    working.move(wallet, lots, lot.number, remaining_micros=-micros)
    lot.lapsed_micros += micros
    wallet.balance_micros -= micros
    working.record(
        wallet,
        Kind.LOT_EXPIRY,
        at,
        CLOCK,
        lots=lots,
        entries={Account.WALLET: -micros, lot.origin.lapses_to: micros},
    )
    crediting.make_up(working, wallet, [(lot.number, micros)], at)


def as_captured(
    working: WorkingSet,
    reservation: Reservation,
    capture: int,
    amount_micros: int | None,
    quantity: int | None,
) -> Outcome:
    """The answer of an earlier capture, if it was for the same charge; else AlreadyCommitted."""
    row = working.capture(reservation, capture)
    if quantity is None:
        same = row.charged_micros + row.uncollected_micros == amount_micros
    else:
        nothing = row.charged_micros + row.uncollected_micros == 0
        # Of a hold with a counter, the greater of the two was charged.
        asked = max(quantity, reservation.reported_quantity)
        same = row.captured_quantity == asked and (row.quantity > 0 or nothing)
    if not same:
        raise rules.already_committed(reservation)
    return journal.replay(row, reservation)


def as_it_stands(working: WorkingSet, wallet: Wallet, reservation: Reservation) -> Outcome:
    """The answer of an operation that found its work done."""
    facts = journal.reservation_facts(reservation)
    return working.unchanged(wallet)._replace(reservation=facts)


def _charged(charged_micros: int, uncollected_micros: int) -> defaultdict[Account, int]:
    """The entries of work: what the wallet pays, and what nobody does."""
    entries: defaultdict[Account, int] = defaultdict(int)
    if charged_micros:
        entries[_WALLET] = -charged_micros
        entries[_REVENUE] = charged_micros
    if uncollected_micros:
        entries[Account.UNCOLLECTED] = -uncollected_micros
        entries[_REVENUE] += uncollected_micros
    return entries


def _return(
    working: WorkingSet,
    wallet: Wallet,
    returned: rules.Returned,
    lots: dict[int, list[int]],
    entries: defaultdict[Account, int],
) -> int:
    back = 0
    for number, micros in returned.parts:
        working.move(wallet, lots, number, held_micros=-micros)
        back += micros
    wallet.held_micros -= back
    for number, micros in returned.to_debt:
        working.move(wallet, lots, number, remaining_micros=-micros)
        wallet.debt_micros -= micros
    crediting.taken_after_all(working, wallet, returned.to_debt)
    for number, micros in returned.lapsed:
        working.move(wallet, lots, number, remaining_micros=-micros)
        wallet.lots[number].lapsed_micros += micros
        wallet.balance_micros -= micros
        entries[Account.WALLET] -= micros
        entries[wallet.lots[number].origin.lapses_to] += micros
    return back
