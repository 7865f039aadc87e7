"""What may be bought, what comes on top, and what refunds and disputes come to: pure decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oanim_server.checkout.values import MICROS_PER_CENT, Dispute, Purchase, Refund, SessionWord, State, Terms
from oanim_server.ledger.refusals import InvalidField
from oanim_server.ledger.reversals import Targets
from oanim_server.ledger.values import MAX_AMOUNT_MICROS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# The states of refunds and of disputes, in the only direction in which they are believed. An inquiry, whose
# states begin with `warning`, may become a dispute even after it was closed.
_REFUND_RANKS = {"pending": 1, "requires_action": 1, "succeeded": 2, "failed": 3, "canceled": 3}
_DISPUTE_RANKS = {
    "warning_needs_response": 1,
    "warning_under_review": 2,
    "warning_closed": 3,
    "needs_response": 4,
    "under_review": 5,
    "won": 6,
    "lost": 6,
}
_CAME_TO_NOTHING = ("failed", "canceled")


def bonus_micros(terms: Terms, amount_micros: int) -> int:
    """What comes on top of an amount: a percentage of the whole of it, from the threshold on.

    :raises InvalidField: for an amount that cannot be bought.
    """
    if amount_micros % MICROS_PER_CENT:
        raise InvalidField(field="amount_micros", description="it must be whole cents, a multiple of 10,000")
    if not terms.minimum_micros <= amount_micros <= terms.maximum_micros:
        least, most = terms.minimum_micros // 1_000_000, terms.maximum_micros // 1_000_000
        raise InvalidField(
            field="amount_micros", description=f"it must be from {least} to {most:,} USD ({least * 10**6} on)"
        )
    if amount_micros < terms.bonus_threshold_micros:
        return 0
    bonus = amount_micros * terms.bonus_percent // 100
    if amount_micros + bonus > MAX_AMOUNT_MICROS:
        raise InvalidField(field="amount_micros", description="with its bonus it would be above 10^12")
    return bonus


def mismatch(purchase: Purchase, word: SessionWord, *, livemode: bool) -> str:
    """What of a session is not as it was sold, in a sentence; empty when all is."""
    checks = (
        ("session", word.session_id, purchase.session_id or word.session_id),
        ("livemode", word.livemode, livemode),
        ("mode", word.mode, "payment"),
        ("currency", word.currency, "usd"),
        ("amount in micro-USD", word.subtotal_micros, purchase.amount_micros),
        ("amount with tax in micro-USD", word.total_micros, purchase.amount_micros + word.tax_micros),
    )
    wrong = [f"{what} is {said} and must be {sold}" for what, said, sold in checks if said != sold]
    return "; ".join(wrong)


def state_after(purchase: Purchase, word: SessionWord) -> State:
    """Where a session's word brings its purchase. What was paid stays paid, and may be paid late."""
    if purchase.state is State.PAID or word.paid:
        return State.PAID
    if purchase.state in (State.EXPIRED, State.FAILED):
        return purchase.state
    if word.failed:
        return State.FAILED
    if word.status == "expired":
        return State.EXPIRED
    if word.status == "complete" or purchase.state is State.PROCESSING:
        return State.PROCESSING
    return State.OPEN


def refund_after(known: Refund | None, amount_micros: int, state: str) -> tuple[int, str]:
    """A refund's amount and state after another word of it: its state only moves forward."""
    return _after(_REFUND_RANKS, known, amount_micros, state)


def dispute_after(known: Dispute | None, amount_micros: int, state: str) -> tuple[int, str]:
    """A dispute's amount and state after another word of it: its state only moves forward."""
    return _after(_DISPUTE_RANKS, known, amount_micros, state)


def _after(
    ranks: Mapping[str, int], known: Refund | Dispute | None, amount_micros: int, state: str
) -> tuple[int, str]:
    if known is not None and ranks.get(state, 1) <= ranks.get(known.state, 1):
        return known.amount_micros, known.state
    return amount_micros, state


def counts(refund: Refund) -> bool:
    """Whether a refund took money, or is about to."""
    return refund.state not in _CAME_TO_NOTHING


def taken(dispute: Dispute) -> bool:
    """Whether a dispute has the money now."""
    return dispute.withdrawn and not dispute.reinstated


def targets(purchase: Purchase, refunds: Iterable[Refund], disputes: Iterable[Dispute]) -> Targets:
    """What of a purchase's credits is to be booked back in all (I8).

    Refunds come before disputes: `stripe` and, for the bonus, `promotions` carry what was refunded, and
    `disputes` the rest, all of it never more than what was paid. The audit sees that the first two are in the
    proportion in which they were sold.
    """
    paid = purchase.paid_micros
    if not paid:
        return Targets(0, 0, 0)
    refunded = min(paid, sum(refund.amount_micros for refund in refunds if counts(refund)))
    disputed = sum(dispute.amount_micros for dispute in disputes if taken(dispute))
    in_all = purchase.credits_micros * min(paid, refunded + disputed) // paid
    by_refunds = purchase.credits_micros * refunded // paid
    by_stripe = purchase.amount_micros * refunded // paid
    return Targets(by_stripe, by_refunds - by_stripe, in_all - by_refunds)
