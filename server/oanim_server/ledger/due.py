"""What time does to a wallet: reservations and lots whose instant has come.

Each is written with its own instant, oldest first, before any operation on the wallet is decided, so that
`at` never falls along wallet_seq and a hold or a lot ends exactly when it was said to, sweeper or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from oanim_server.ledger import movements, rows, rules
from oanim_server.ledger.values import Reservation, State, Wallet
from oanim_server.ledger.working import CLOCK, WorkingSet

if TYPE_CHECKING:
    from oanim_server.database.engine import Statements

# How many reservations expire in one group.
PORTION = 1_000


class Due(NamedTuple):
    """What is due on a wallet: reservations, oldest first, and whether that is all of them.

    `next_expiry` is when the first of the other active ones expires.
    """

    wallet: Wallet
    reservations: list[Reservation]
    complete: bool
    next_expiry: int | None


def due_on(statements: Statements, driver: Any, working: WorkingSet, wallet: Wallet, limit: int) -> Due:
    """Load what is due on a wallet, so many reservations at the most."""
    now = working.time(wallet)
    due = []
    for found in statements.due_reservations(driver, wallet.wallet_id, now, limit + 1):
        loaded = rows.reservation_of(found)
        due.append(working.reservations.setdefault((loaded.wallet_id, loaded.number), loaded))
    next_expiry = statements.next_expiry(driver, wallet.wallet_id, now)
    return Due(wallet, due[:limit], len(due) <= limit, next_expiry)


def write_due(working: WorkingSet, due: Due) -> None:
    """Expire what is due on a wallet, lots up to the last of the reservations when there are more."""
    wallet, reservations = due.wallet, due.reservations
    now = working.time(wallet)
    working.changed_wallets.setdefault(wallet.wallet_id, wallet.seq)
    until = now if due.complete else reservations[-1].expires_at or now
    # A lot goes before a hold of the same instant: the held part then lapses as it returns.
    events: list[tuple[int, int, int]] = [
        (lot.expires_at, 0, lot.number)
        for lot in wallet.lots.values()
        if lot.expires_at is not None and lot.expires_at <= until
    ]
    events += [(reservation.expires_at or now, 1, reservation.number) for reservation in reservations]
    for instant, is_hold, number in sorted(events):
        at = max(instant, wallet.at)
        if is_hold:
            reservation = working.reservations[wallet.wallet_id, number]
            ended = rules.run_out(wallet, reservation, State.EXPIRED, at)
            movements.capture(working, wallet, reservation, ended, CLOCK, at=at)
        elif wallet.lots[number].free_micros:
            movements.lapse(working, wallet, wallet.lots[number], at)
    wallet.next_due_at = _next_due(wallet, due.next_expiry, now) if due.complete else until


def _next_due(wallet: Wallet, next_expiry: int | None, now: int) -> int | None:
    coming = [
        lot.expires_at
        for lot in wallet.lots.values()
        if lot.expires_at is not None and lot.expires_at > now and lot.remaining_micros
    ]
    if next_expiry is not None:
        coming.append(next_expiry)
    return min(coming, default=None)
