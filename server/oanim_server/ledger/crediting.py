"""What comes into a wallet and what is taken back, and what may be spent of it, applied to the working set.

Each function is one kind of journal row. Whatever comes in pays the debt first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oanim_server.ledger import journal, rules
from oanim_server.ledger.values import Account, Credit, Kind, Limit, Lot, Note, Origin, Outcome, Part, Wallet
from oanim_server.ledger.working import CLOCK

if TYPE_CHECKING:
    from collections.abc import Iterable

    from oanim_server.ledger.reversals import Reversed
    from oanim_server.ledger.windows import Period
    from oanim_server.ledger.working import Attempt, WorkingSet

# The lots of a purchase.
_BOUGHT = (Origin.PURCHASE, Origin.BONUS)


def credit(
    working: WorkingSet,
    wallet: Wallet,
    kind: Kind,
    origin: Origin,
    amount_micros: int,
    *,
    priority: int = 0,
    lifetime: int | None = None,
    attempt: Attempt,
    note: Note | None = None,
) -> Outcome:
    """Put a new lot into a wallet; it pays the debt first. Nothing is no lot and no row."""
    if not amount_micros:
        return working.unchanged(wallet)
    lot = _new_lot(working, wallet, origin, amount_micros, priority=priority, lifetime=lifetime)
    return working.record(
        wallet,
        kind,
        lot.created_at,
        attempt,
        lots=_came_in(lot),
        entries={origin.source: -amount_micros, Account.WALLET: amount_micros},
        seal=journal.seal_of_made([lot], note or ()),
        note=note,
    )


def purchase(
    working: WorkingSet,
    wallet: Wallet,
    purchase_id: str,
    *,
    amount_micros: int,
    bonus_micros: int,
    lifetime: int | None,
    attempt: Attempt,
) -> tuple[Credit, Outcome]:
    """Put what was bought into a wallet, and the bonus, each a lot of its own. The bonus pays debt first."""
    lots = []
    entries = {Account.STRIPE: -amount_micros, Account.WALLET: amount_micros + bonus_micros}
    if bonus_micros:
        entries[Account.PROMOTIONS] = -bonus_micros
        lots.append(_new_lot(working, wallet, Origin.BONUS, bonus_micros, lifetime=lifetime))
    paid = _new_lot(working, wallet, Origin.PURCHASE, amount_micros, lifetime=lifetime)
    lots.append(paid)
    made = Credit(
        wallet_id=wallet.wallet_id,
        number=wallet.seq + 1,
        purchase_id=purchase_id,
        paid_lot=paid.number,
        bonus_lot=lots[0].number if bonus_micros else 0,
    )
    working.credits[made.wallet_id, made.number] = made
    working.new_credits[made.wallet_id, made.number] = made
    outcome = working.record(
        wallet,
        Kind.PURCHASE,
        paid.created_at,
        attempt,
        lots=_came_in(*lots),
        entries=entries,
        seal=journal.seal_of_made(lots, [purchase_id]),
    )
    return made, outcome


def reverse(
    working: WorkingSet, wallet: Wallet, credit: Credit, decided: Reversed, attempt: Attempt
) -> Outcome:
    """Take back of what a purchase credited, or give back what had been taken."""
    now = working.time(wallet)
    lots = _give_up(working, wallet, decided.taken, decided.owed_micros)
    made = []
    if decided.given_micros:
        lot = _new_lot(working, wallet, Origin.REINSTATED, decided.given_micros)
        lots |= _came_in(lot)
        made.append(lot)
    credit.stripe_micros += decided.booked.stripe_micros
    credit.promotions_micros += decided.booked.promotions_micros
    credit.disputes_micros += decided.booked.disputes_micros
    credit.covered_paid_micros += decided.covered_paid_micros
    credit.covered_bonus_micros += decided.covered_bonus_micros
    credit.elsewhere_micros += decided.elsewhere_micros
    _changed(working, credit)
    return working.record(
        wallet,
        Kind.REINSTATEMENT if sum(decided.booked) < 0 else Kind.REVERSAL,
        now,
        attempt,
        lots=lots,
        entries=decided.entries,
        seal=journal.seal_of_made(made, [credit.purchase_id]),
    )


def taken_after_all(working: WorkingSet, wallet: Wallet, paid: Iterable[Part]) -> None:
    """Note that a purchase's own parts have paid what was owed in their place while they were held."""
    for number, micros in paid:
        if wallet.lots[number].origin in _BOUGHT:
            credit = working.credit_of(wallet, number)
            credit.elsewhere_micros -= min(micros, credit.elsewhere_micros)
            _changed(working, credit)


def make_up(working: WorkingSet, wallet: Wallet, lapsed: Iterable[Part], at: int) -> None:
    """Give back what was taken elsewhere in place of parts of a purchase that have now expired themselves.

    They were held when it was reversed. What expires of a purchase counts as taken, whichever comes first.
    """
    for number, micros in lapsed:
        origin = wallet.lots[number].origin
        if origin not in _BOUGHT:
            continue
        credit = working.credit_of(wallet, number)
        given_micros = min(micros, credit.elsewhere_micros)
        if not given_micros:
            continue
        credit.elsewhere_micros -= given_micros
        if origin is Origin.BONUS:
            credit.covered_bonus_micros += given_micros
        else:
            credit.covered_paid_micros += given_micros
        _changed(working, credit)
        lot = _new_lot(working, wallet, Origin.REINSTATED, given_micros, at=at)
        working.record(
            wallet,
            Kind.REINSTATEMENT,
            at,
            CLOCK,
            lots=_came_in(lot),
            entries={Account.WALLET: given_micros, origin.lapses_to: -given_micros},
            seal=journal.seal_of_made([lot], [credit.purchase_id]),
        )


def debit(working: WorkingSet, wallet: Wallet, amount_micros: int, attempt: Attempt, note: Note) -> Outcome:
    """Take from what is free, in draw order; what that does not cover becomes debt."""
    taken, owed_micros = rules.take(wallet, (), amount_micros)
    return working.record(
        wallet,
        Kind.ADJUSTMENT,
        working.time(wallet),
        attempt,
        lots=_give_up(working, wallet, taken, owed_micros),
        entries={Account.WALLET: -amount_micros, Account.ADJUSTMENTS: amount_micros},
        seal=journal.seal_of_made((), note),
        note=note,
    )


def freeze(working: WorkingSet, wallet: Wallet, attempt: Attempt, note: Note, *, frozen: bool) -> Outcome:
    """Stop work from starting, or let it start again: a row without entries."""
    wallet.frozen = frozen
    return working.record(
        wallet,
        Kind.FREEZE,
        working.time(wallet),
        attempt,
        lots={},
        seal=journal.seal_of_made((), note),
        note=note,
    )


def limit(
    working: WorkingSet,
    wallet: Wallet,
    *,
    api_key_id: str,
    period: Period,
    limit_micros: int | None,
    attempt: Attempt,
) -> Outcome:
    """Set a limit, or take it away (None): a row without entries."""
    wallet_id = wallet.wallet_id
    others = [
        found
        for found in working.limits.get(wallet_id, ())
        if (found.api_key_id, found.period) != (api_key_id, period)
    ]
    working.changed_limits[wallet_id, api_key_id, period] = limit_micros
    if limit_micros is None:
        # Nobody goes on counting: what is stored of it would be wrong by the time it is set again, be that
        # in this group.
        working.ended_limits.add((wallet_id, api_key_id, period))
        counting = f"{period.name.lower()} "
        for key in [k for k in working.counters if k[:2] == (wallet_id, api_key_id)]:
            if not key[2].startswith(counting):
                continue
            del working.counters[key]
            working.changed_counters.discard(key)
    else:
        others.append(Limit(api_key_id, period, limit_micros))
    working.limits[wallet_id] = sorted(others)
    working.begin_counting(wallet_id)
    wallet.limits = len(others)
    return working.record(
        wallet,
        Kind.LIMIT,
        working.time(wallet),
        attempt,
        lots={},
        # All of them, so that the latest row says which are set.
        seal=journal.seal_of_made((), [[list(found) for found in working.limits[wallet_id]]]),
    )


def _changed(working: WorkingSet, credit: Credit) -> None:
    key = (credit.wallet_id, credit.number)
    if key not in working.new_credits:
        working.changed_credits[key] = credit


def _came_in(*lots: Lot) -> dict[int, list[int]]:
    """New lots, as a row says what it did to lots."""
    return {lot.number: [lot.number, lot.remaining_micros, 0] for lot in lots}


def _new_lot(
    working: WorkingSet,
    wallet: Wallet,
    origin: Origin,
    amount_micros: int,
    *,
    priority: int = 0,
    lifetime: int | None = None,
    at: int | None = None,
) -> Lot:
    now = working.time(wallet) if at is None else at
    wallet.lots_made += 1
    paid = min(wallet.debt_micros, amount_micros)
    lot = Lot(
        number=wallet.lots_made,
        origin=origin,
        amount_micros=amount_micros,
        remaining_micros=amount_micros - paid,
        held_micros=0,
        priority=priority,
        expires_at=None if lifetime is None else now + lifetime,
        created_at=now,
    )
    wallet.lots[lot.number] = lot
    working.changed_lots[wallet.wallet_id, lot.number] = lot
    wallet.debt_micros -= paid
    wallet.balance_micros += amount_micros
    working.due_at(wallet, lot.expires_at)
    return lot


def _give_up(
    working: WorkingSet, wallet: Wallet, taken: Iterable[Part], owed_micros: int
) -> dict[int, list[int]]:
    lots: dict[int, list[int]] = {}
    for number, micros in taken:
        working.move(wallet, lots, number, remaining_micros=-micros)
        wallet.balance_micros -= micros
    wallet.balance_micros -= owed_micros
    wallet.debt_micros += owed_micros
    return lots
