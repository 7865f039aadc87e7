"""Two-phase metering, as pure decisions: hold first, then charge what was used and free the rest.

Each rule lists its refusals in order and then returns one value: what is decided. It looks at values and
at `now`, changes nothing and knows no database; the working set applies what it returns. Shape (signs,
ranges, lengths) was checked at the edge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from msgspec import Struct, structs

from oanim_server.ledger.refusals import (
    AccountFrozen,
    AlreadyCommitted,
    AlreadyReleased,
    BlockedLimit,
    BlockedScope,
    ExceedsReservation,
    InsufficientCredits,
    InvalidField,
    LimitExceeded,
    NotYourHold,
    Refusal,
    ReservationExpired,
    SpendLimitExceeded,
)
from oanim_server.ledger.values import (
    ACTIVE,
    COMMITTED,
    EXPIRED,
    LATE_SETTLEMENT_WINDOW,
    MAX_AMOUNT_MICROS,
    SECOND,
    Cap,
    Counter,
    Line,
    Lot,
    Part,
    Reservation,
    State,
    Wallet,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


# An expired one may be settled late.
_ENDED = (State.COMMITTED, State.RELEASED, State.SETTLED_LATE)


class Held(Struct, frozen=True):
    """Set these parts of lots aside."""

    parts: list[Part]


class Returned(Struct, frozen=True):
    """What becomes of parts that are no longer held: back to their lots, to the debt, or lapsed."""

    parts: list[Part]
    to_debt: list[Part]
    lapsed: list[Part]


class Captured(Struct, frozen=True):
    """Charge these parts, keep those, give back the others; what they do not cover nobody pays."""

    charged_micros: int
    quantity: int
    consumed: list[Part]
    kept: list[Part]
    returned: Returned
    state: State
    uncollected_micros: int = 0


class SettledLate(Struct, frozen=True):
    """Charge free parts of lots, or nobody: the work was done after its hold had expired."""

    charged_micros: int
    uncollected_micros: int
    quantity: int
    consumed: list[Part]


class Used(Struct, frozen=True):
    """Charge free parts of lots, and what they do not cover to nobody."""

    charged_micros: int
    uncollected_micros: int
    consumed: list[Part]


class Extended(Struct, frozen=True):
    """Set more aside, and let the hold last until then."""

    parts: list[Part]
    expires_at: int | None


class AsItEnded(Struct, frozen=True):
    """Change nothing: answer how the reservation ended."""


class AsCaptured(Struct, frozen=True):
    """Change nothing if the capture of that number was for the same charge: answer it again."""

    capture: int


class Facts(TypedDict):
    """How a reservation stands, for a refusal."""

    state: str
    reserved_micros: int
    captured_micros: int


class Charge(Struct, frozen=True):
    """What a Commit charges: an amount, or a cumulative quantity at the pinned price."""

    amount_micros: int | None
    quantity: int | None


# What is held ---------------------------------------------------------------------------------------


def reserve(
    wallet: Wallet, amount_micros: int, caps: Sequence[Cap], counters: Mapping[tuple[str, str], Counter]
) -> Held:
    """Decide which parts of which lots an amount is set aside from."""
    if wallet.frozen:
        raise AccountFrozen
    if amount_micros > wallet.available_micros:
        raise InsufficientCredits(required_micros=amount_micros, available_micros=wallet.available_micros)
    if caps:
        within_caps(wallet, amount_micros, caps, counters)
    return Held(parts=draw(wallet.lots.values(), amount_micros))


def extend(
    wallet: Wallet,
    reservation: Reservation,
    caps: Sequence[Cap],
    counters: Mapping[tuple[str, str], Counter],
    *,
    caller: int,
    amount_micros: int,
    ttl: int | None,
    now: int,
) -> Extended:
    """Decide which further parts a reservation holds, and until when."""
    if reservation.opener != caller:
        raise NotYourHold(opened_by=reservation.opener)
    if reservation.state is not ACTIVE:
        raise ended(reservation)
    if amount_micros and wallet.frozen:
        raise AccountFrozen
    if reservation.reserved_micros + amount_micros > MAX_AMOUNT_MICROS:
        raise InvalidField(field="amount_micros", description="a reservation holds at most 10^12 micro-USD")
    if amount_micros > 0 and amount_micros > wallet.available_micros:
        raise InsufficientCredits(required_micros=amount_micros, available_micros=wallet.available_micros)
    if amount_micros:
        within_caps(wallet, amount_micros, caps, counters)
    expires_at = reservation.expires_at
    if ttl is not None and expires_at is not None:
        expires_at = max(expires_at, now + ttl)
    return Extended(parts=draw(wallet.lots.values(), amount_micros), expires_at=expires_at)


# What is charged ------------------------------------------------------------------------------------


def commit(
    wallet: Wallet,
    reservation: Reservation,
    charge: Charge,
    *,
    caller: int,
    capture: int,
    keep_rest: bool,
    now: int,
) -> Captured | SettledLate | AsCaptured:
    """Decide what a capture charges, and of what; after the ttl, how it is settled late."""
    if reservation.opener != caller:
        raise NotYourHold(opened_by=reservation.opener)
    if capture <= reservation.captures:
        return AsCaptured(capture)
    if reservation.state in _ENDED:
        raise ended(reservation)
    late = reservation.state is EXPIRED
    if late and now >= (reservation.ended_at or 0) + LATE_SETTLEMENT_WINDOW:
        raise ended(reservation)
    if capture > reservation.captures + 1:
        raise InvalidField(field="capture", description=f"the next capture is {reservation.captures + 1}")
    if reservation.reported_quantity:
        return commit_reported(wallet, reservation, charge, keep_rest=keep_rest, now=now)
    amount_micros, quantity = price_of(reservation, charge)
    left = reservation.reserved_micros - reservation.captured_micros
    if amount_micros > left:
        raise ExceedsReservation(required_micros=amount_micros, held_micros=0 if late else left)
    if late:
        return settle_late(wallet, amount_micros, quantity)
    consumed, rest = split(reservation.parts, amount_micros)
    if keep_rest:
        return Captured(amount_micros, quantity, consumed, rest, Returned([], [], []), ACTIVE)
    return Captured(amount_micros, quantity, consumed, [], give_back(wallet, rest, now), COMMITTED)


def price_of(reservation: Reservation, charge: Charge) -> tuple[int, int]:
    """Price a charge: (micros, what it adds to the captured quantity)."""
    if charge.amount_micros is not None:
        return charge.amount_micros, 0
    if charge.quantity is None:
        raise InvalidField(field="charge", description="amount_micros or quantity must be given")
    line = reservation.line
    if line is None:
        raise InvalidField(
            field="quantity", description="this reservation has no pinned price: give amount_micros"
        )
    before = reservation.captured_quantity
    if charge.quantity < before:
        raise InvalidField(field="quantity", description=f"it is cumulative and {before} was charged before")
    return line.cost_micros(charge.quantity) - line.cost_micros(before), charge.quantity - before


def settle_late(wallet: Wallet, amount_micros: int, quantity: int) -> SettledLate:
    """Decide who pays for work whose hold had expired. Limits are not asked: the work was done."""
    if amount_micros > max(wallet.available_micros, 0):
        return SettledLate(charged_micros=0, uncollected_micros=amount_micros, quantity=quantity, consumed=[])
    return SettledLate(
        charged_micros=amount_micros,
        uncollected_micros=0,
        quantity=quantity,
        consumed=draw(wallet.lots.values(), amount_micros),
    )


# What is reported -----------------------------------------------------------------------------------


def report(reservation: Reservation, quantity: int, *, caller: int) -> int:
    """Decide what a reservation's counter stands at after a report: the greatest quantity wins.

    What was counted is acknowledged for ever, also after the end.
    """
    if reservation.opener != caller:
        raise NotYourHold(opened_by=reservation.opener)
    if reservation.line is None:
        raise InvalidField(field="quantity", description="this reservation has no pinned price")
    if quantity <= reservation.reported_quantity:
        return reservation.reported_quantity
    if reservation.state is not ACTIVE:
        raise ended(reservation)
    if reservation.captures:
        raise InvalidField(field="reservation_id", description="this reservation is charged by captures")
    within_one_amount(reservation.line, quantity)
    return quantity


def commit_reported(
    wallet: Wallet, reservation: Reservation, charge: Charge, *, keep_rest: bool, now: int
) -> Captured | SettledLate:
    """Decide how the Commit of a reservation with a counter charges: its quantity is the last report."""
    if charge.quantity is None:
        raise InvalidField(
            field="charge", description="usage was reported: give its final quantity, not an amount"
        )
    if keep_rest:
        raise InvalidField(
            field="keep_rest", description="usage was reported: it is charged once, at the end"
        )
    within_one_amount(_pinned(reservation), charge.quantity)
    quantity = max(charge.quantity, reservation.reported_quantity)
    if reservation.state is EXPIRED:
        return settle_reported_late(wallet, reservation, quantity)
    return charge_reported(wallet, reservation, quantity, COMMITTED, now)


def within_one_amount(line: Line, quantity: int) -> None:
    """Refuse a quantity that costs more than one amount may be."""
    cost_micros = line.cost_micros(quantity)
    if cost_micros > MAX_AMOUNT_MICROS:
        raise InvalidField(
            field="quantity",
            description=f"it would cost {cost_micros} micro-USD and one amount is at most 10^12",
        )


def charge_reported(
    wallet: Wallet, reservation: Reservation, quantity: int, state: State, now: int
) -> Captured:
    """Decide how a hold with a counter ends: what is held covers the quantity, or nobody does."""
    cost_micros = _pinned(reservation).cost_micros(quantity)
    charged_micros = min(cost_micros, reservation.reserved_micros)
    consumed, rest = split(reservation.parts, charged_micros)
    returned = give_back(wallet, rest, now)
    return Captured(charged_micros, quantity, consumed, [], returned, state, cost_micros - charged_micros)


def settle_reported_late(wallet: Wallet, reservation: Reservation, quantity: int) -> SettledLate:
    """Decide who pays for what a late Commit adds to what was charged at the expiry."""
    line = _pinned(reservation)
    added_micros = line.cost_micros(quantity) - line.cost_micros(reservation.captured_quantity)
    chargeable_micros = min(added_micros, reservation.reserved_micros - reservation.captured_micros)
    settled = settle_late(wallet, chargeable_micros, quantity - reservation.captured_quantity)
    return structs.replace(settled, uncollected_micros=added_micros - settled.charged_micros)


def _pinned(reservation: Reservation) -> Line:
    """The price of a reservation that has a counter: without one it would have none."""
    if reservation.line is None:
        raise ArithmeticError("usage was reported on a reservation without a pinned price")
    return reservation.line


def use(wallet: Wallet, amount_micros: int) -> Used:
    """Decide who pays for work that was done without a hold: the wallet, as far as something is available."""
    charged_micros = min(amount_micros, max(wallet.available_micros, 0))
    return Used(charged_micros, amount_micros - charged_micros, draw(wallet.lots.values(), charged_micros))


# What is given back ---------------------------------------------------------------------------------


def release(wallet: Wallet, reservation: Reservation, *, caller: int, now: int) -> Captured | AsItEnded:
    """Decide what becomes of all that a reservation holds: what was reported is charged."""
    if reservation.opener != caller:
        raise NotYourHold(opened_by=reservation.opener)
    if reservation.state in (State.COMMITTED, State.SETTLED_LATE):
        raise already_committed(reservation)
    if reservation.state is not ACTIVE:
        return AsItEnded()
    return run_out(wallet, reservation, State.RELEASED, now)


def run_out(wallet: Wallet, reservation: Reservation, state: State, now: int) -> Captured:
    """Decide how a hold ends without a Commit: what was reported is charged, the rest is given back."""
    if reservation.reported_quantity:
        return charge_reported(wallet, reservation, reservation.reported_quantity, state, now)
    return Captured(0, 0, [], [], give_back(wallet, reservation.parts, now), state)


def give_back(wallet: Wallet, parts: Iterable[Part], now: int) -> Returned:
    """Decide where parts go that are held no longer: to the debt, else to their lot unless it expired.

    What would lapse pays the debt first, so that what lasts is left.
    """
    debt = wallet.debt_micros
    if debt:
        parts = sorted(parts, key=lambda part: not wallet.lots[part[0]].expired(now))
    back: list[Part] = []
    to_debt: list[Part] = []
    lapsed: list[Part] = []
    for number, micros in parts:
        back.append((number, micros))
        paid = min(debt, micros)
        if paid:
            debt -= paid
            to_debt.append((number, paid))
        if micros > paid and wallet.lots[number].expired(now):
            lapsed.append((number, micros - paid))
    return Returned(back, to_debt, lapsed)


# Lots -----------------------------------------------------------------------------------------------


def draw_order(lot: Lot) -> tuple[int, bool, int, bool, int]:
    """Sort lots: by priority, soonest expiry (none last), promotional before paid, oldest first."""
    return (lot.priority, lot.expires_at is None, lot.expires_at or 0, not lot.origin.promotional, lot.number)


def draw(lots: Iterable[Lot], amount_micros: int) -> list[Part]:
    """Take an amount from what is free of lots, in draw order. The caller knows that it is there."""
    parts: list[Part] = []
    free = [lot for lot in lots if lot.remaining_micros > lot.held_micros]
    if len(free) > 1:
        free.sort(key=draw_order)
    for lot in free:
        if amount_micros == 0:
            break
        micros = min(lot.free_micros, amount_micros)
        parts.append((lot.number, micros))
        amount_micros -= micros
    if amount_micros:
        message = f"lots are {amount_micros} micros short of what the wallet says is available"
        raise ArithmeticError(message)
    return parts


def split(parts: Sequence[Part], amount_micros: int) -> tuple[list[Part], list[Part]]:
    """Cut parts in two: the first so many micros of them, and the rest."""
    first: list[Part] = []
    rest: list[Part] = []
    for number, micros in parts:
        taken = min(micros, amount_micros)
        amount_micros -= taken
        if taken:
            first.append((number, taken))
        if micros > taken:
            rest.append((number, micros - taken))
    return first, rest


def take(wallet: Wallet, own: Sequence[int], amount_micros: int) -> tuple[list[Part], int]:
    """Take an amount from what is free, of the lots named first and then of the others, in draw order.

    Answers the parts and what nothing free covers. Held parts stay where they are.
    """
    free = [lot for lot in wallet.lots.values() if lot.free_micros > 0]
    free.sort(key=lambda lot: (lot.number not in own, draw_order(lot)))
    parts: list[Part] = []
    for lot in free:
        micros = min(lot.free_micros, amount_micros)
        if micros:
            parts.append((lot.number, micros))
            amount_micros -= micros
    return parts, amount_micros


# Refusals that several rules share ------------------------------------------------------------------


def ended(reservation: Reservation) -> Refusal:
    """The refusal that tells how a reservation ended."""
    facts = _as_it_ended(reservation)
    if reservation.state is State.RELEASED:
        return AlreadyReleased(**facts)
    if reservation.state is EXPIRED:
        return ReservationExpired(**facts)
    return AlreadyCommitted(**facts)


def already_committed(reservation: Reservation) -> Refusal:
    """The refusal of a capture that was made already, for something else."""
    return AlreadyCommitted(**_as_it_ended(reservation))


def _as_it_ended(reservation: Reservation) -> Facts:
    return Facts(
        state=reservation.state.name,
        reserved_micros=reservation.reserved_micros,
        captured_micros=reservation.captured_micros,
    )


def within_caps(
    wallet: Wallet, amount_micros: int, caps: Sequence[Cap], counters: Mapping[tuple[str, str], Counter]
) -> None:
    """Refuse what would pass a limit, naming every limit and scope that blocks."""
    used = {cap: counters[cap.counted_under] for cap in caps}
    rooms = {
        cap: cap.limit_micros - used[cap].charged_micros - used[cap].held_micros
        for cap in caps
        if cap.limit_micros is not None
    }
    blocking = [cap for cap, room in rooms.items() if amount_micros > room]
    if not blocking:
        return
    affordable_micros = max(0, min(*rooms.values(), wallet.available_micros))
    limits = [
        BlockedLimit(
            cap.subject or "account",
            cap.window.name.partition(" ")[0],
            cap.limit_micros or 0,
            used[cap].charged_micros,
            used[cap].held_micros,
            amount_micros,
            affordable_micros,
            cap.window.end // SECOND,
        )
        for cap in blocking
        if cap.window is not None
    ]
    scopes = [
        BlockedScope(
            cap.subject,
            cap.limit_micros or 0,
            used[cap].charged_micros,
            used[cap].held_micros,
            amount_micros,
        )
        for cap in blocking
        if cap.window is None
    ]
    raise LimitExceeded(limits, scopes) if limits else SpendLimitExceeded(scopes)
