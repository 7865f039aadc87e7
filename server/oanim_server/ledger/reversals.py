"""What refunds and disputes take back of a purchase, and give back again, as a pure decision.

Who wants it says what each account is to have in all, not what has changed: so any number of events, in any
order, comes to the same. What has expired in the purchase's own lots counts as taken already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from oanim_server.ledger.rules import take
from oanim_server.ledger.values import Account

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oanim_server.ledger.values import Credit, Lot, Part, Wallet


class Targets(NamedTuple):
    """What of a purchase's credits is to be booked back in all, by account."""

    stripe_micros: int
    promotions_micros: int
    disputes_micros: int


class Reversed(NamedTuple):
    """Take these parts and owe the rest, or give so much to the wallet; and what the books say of it.

    `booked` and the last three are changes of the credit's.
    """

    booked: Targets
    entries: dict[Account, int]
    taken: list[Part]
    owed_micros: int
    given_micros: int
    covered_paid_micros: int
    covered_bonus_micros: int
    elsewhere_micros: int


def reverse(wallet: Wallet, credit: Credit, lots: Mapping[int, Lot], targets: Targets) -> Reversed | None:
    """Decide how the books come from where they are to where they should be; None if they are there.

    :param lots: the purchase's own lots, whatever is left of them.
    """
    change = Targets(
        targets.stripe_micros - credit.stripe_micros,
        targets.promotions_micros - credit.promotions_micros,
        targets.disputes_micros - credit.disputes_micros,
    )
    if not any(change):
        return None
    if sum(change) >= 0:
        return _take(wallet, credit, lots, change)
    return _give(credit, change)


def _take(wallet: Wallet, credit: Credit, lots: Mapping[int, Lot], change: Targets) -> Reversed:
    micros = sum(change)
    paid = min(micros, lots[credit.paid_lot].lapsed_micros - credit.covered_paid_micros)
    bonus = 0
    if credit.bonus_lot:
        bonus = min(micros - paid, lots[credit.bonus_lot].lapsed_micros - credit.covered_bonus_micros)
    micros -= paid + bonus
    taken, owed_micros = take(wallet, credit.lots, micros)
    entries = _entries(change, wallet_micros=-micros, breakage_micros=-paid, promotions_micros=-bonus)
    own_micros = sum(part for number, part in taken if number in credit.lots)
    return Reversed(change, entries, taken, owed_micros, 0, paid, bonus, micros - own_micros)


def _give(credit: Credit, change: Targets) -> Reversed:
    """The wallet has its own first; what had expired goes back to where expired credits are."""
    micros = -sum(change)
    given_micros = min(micros, credit.from_wallet_micros)
    bonus = min(micros - given_micros, credit.covered_bonus_micros)
    paid = micros - given_micros - bonus
    entries = _entries(change, wallet_micros=given_micros, breakage_micros=paid, promotions_micros=bonus)
    elsewhere_micros = min(credit.elsewhere_micros, credit.from_wallet_micros - given_micros)
    return Reversed(
        change, entries, [], 0, given_micros, -paid, -bonus, elsewhere_micros - credit.elsewhere_micros
    )


def _entries(
    change: Targets, *, wallet_micros: int, breakage_micros: int, promotions_micros: int
) -> dict[Account, int]:
    return {
        Account.WALLET: wallet_micros,
        Account.STRIPE: change.stripe_micros,
        Account.PROMOTIONS: change.promotions_micros + promotions_micros,
        Account.DISPUTES: change.disputes_micros,
        Account.BREAKAGE: breakage_micros,
    }
