"""What is paid for credits, and what goes back: one operation for every word of the payment provider's.

What has happened is in the rows of whoever sells. They are read under the wallet's lock, and say whether
the purchase is to be credited now, or what of it is to be booked back in all: so the same word twice, or two
words in either order, come to the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

from oanim_server.ledger import crediting
from oanim_server.ledger.operations import Companion, Operation, fingerprint_of
from oanim_server.ledger.reversals import Targets, reverse
from oanim_server.ledger.values import Method, Outcome

if TYPE_CHECKING:
    from oanim_server.ledger.working import Attempt, WorkingSet


class Bought(NamedTuple):
    """A purchase that is to be credited. `lifetime` in microseconds, None for ever."""

    purchase_id: str
    amount_micros: int
    bonus_micros: int
    lifetime: int | None


class Reversal(NamedTuple):
    """What of a credit, which is known by the wallet_seq of its row, is to be booked back in all."""

    credit: int
    targets: Targets


class Payment(Companion, Protocol):
    """What happened to a payment. `due` is known after `load`, and `credited` is told before `write`."""

    @property
    def due(self) -> Bought | Reversal | None:
        """What is to be done to the wallet, if anything."""

    def credited(self, credit: int) -> None:
        """Learn the number of the credit that was made."""


class Settle(Operation, kw_only=True):
    """Bring a purchase to where what happened to its payment says it should be."""

    payment: Payment

    method: ClassVar[Method] = Method.PAYMENT

    def fingerprint(self) -> bytes:
        return fingerprint_of("payment", self.idempotency_key)

    def decide(self, working: WorkingSet, attempt: Attempt) -> Outcome:
        wallet = working.wallet(self.wallet_id)
        due = self.payment.due
        if isinstance(due, Bought):
            credit, outcome = crediting.purchase(
                working,
                wallet,
                due.purchase_id,
                amount_micros=due.amount_micros,
                bonus_micros=due.bonus_micros,
                lifetime=due.lifetime,
                attempt=attempt,
            )
            self.payment.credited(credit.number)
            return outcome
        if due is not None:
            credit = working.credit(self.wallet_id, due.credit)
            lots = {number: working.lot(wallet, number) for number in credit.lots}
            decided = reverse(wallet, credit, lots, due.targets)
            if decided is not None:
                return crediting.reverse(working, wallet, credit, decided, attempt)
        return working.unchanged(wallet)
