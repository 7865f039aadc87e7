"""What Stripe's words do to a purchase: the companion of the operation that moves the money.

Everything is read under the wallet's lock and written in its transaction: the event in the inbox, the
purchase, its refunds and disputes. So an event is applied wholly or not at all, and the same event, or
another one that says the same, changes nothing more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oanim_server.checkout import rows, rules
from oanim_server.checkout.values import (
    Dispute,
    DisputeWord,
    Event,
    Purchase,
    Refund,
    RefundWord,
    SessionWord,
    Standing,
    State,
    Word,
)
from oanim_server.ledger.payments import Bought, Reversal
from oanim_server.ledger.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from oanim_server.ledger.values import Outcome


class KnownEventError(Refusal):
    """The event is in the inbox. Never leaves checkout."""


class PaymentWords:
    """Words of Stripe's about one purchase, and the event that brought them, if one did.

    `standing` and `problem` say what became of the event, `bought` whether it was the one that paid.

    :param again: the event is in the inbox, parked or in quarantine, and is looked at once more.
    """

    _purchase: Purchase
    _stored: Purchase

    def __init__(
        self,
        wallet_id: int,
        token: str,
        words: Sequence[Word],
        *,
        event: Event | None,
        livemode: bool,
        again: bool = False,
    ) -> None:
        self._wallet_id = wallet_id
        self._token = token
        self._words = words
        self._event = event
        self._livemode = livemode
        self._again = again
        self._now = 0
        # What is stored of these, and how they stand after the words.
        self._known: set[Refund | Dispute] = set()
        self._refunds: dict[str, Refund] = {}
        self._disputes: dict[str, Dispute] = {}
        # What was written of the event; its commit may have been lost, and may be there all the same.
        self._kept: Standing | None = None
        self.standing = Standing.APPLIED
        self.problem = ""
        self.due: Bought | Reversal | None = None

    @property
    def bought(self) -> bool:
        """Whether this credits the purchase."""
        return isinstance(self.due, Bought)

    @property
    def paid_with(self) -> list[str]:
        """The payment intent and the charge of the purchase, where they are known."""
        return [key for key in (self._purchase.payment_intent, self._purchase.charge) if key]

    def load(self, connection: Connection, now: int) -> None:
        """Read how everything stands, and see what the words make of it."""
        # A group that is run again starts from what is stored.
        self._now, self.due, self.standing, self.problem = now, None, Standing.APPLIED, ""
        self._refunds, self._disputes = {}, {}
        if self._event is not None:
            known = rows.standing_of(connection, event_id=self._event.event_id)
            waiting = known in (Standing.PARKED, Standing.QUARANTINED)
            if known not in (None, self._kept) and not (self._again and waiting):
                raise KnownEventError
        found = rows.purchase(connection, wallet_id=self._wallet_id, token=self._token, lock=True)
        if found is None:
            # It was there a moment ago, and purchases are never deleted.
            raise KnownEventError
        self._purchase = self._stored = found
        for word in self._words:
            if isinstance(word, SessionWord):
                self._session(found, word)
        money = [word for word in self._words if not isinstance(word, SessionWord)]
        if money:
            self._money(connection, found, money)

    def credited(self, credit: int) -> None:
        """Learn the number of the credit."""
        self._purchase = self._purchase._replace(credit=credit, credited_at=self._now)

    def write(self, connection: Connection, outcome: Outcome) -> None:  # noqa: ARG002 - a companion is told
        """Write all of it."""
        purchase = self._purchase
        if self._event is not None:
            rows.keep(
                connection,
                self._now,
                self._event,
                self.standing,
                problem=self.problem,
                purchase_id=rows.reference(self._wallet_id, self._token),
                waits_for=rows.key_of_word(self._words[0]) if self._words else "",
            )
            self._kept = self.standing
        if self.standing is not Standing.APPLIED:
            return
        for refund in self._refunds.values():
            if refund not in self._known:
                rows.save_refund(connection, purchase, refund)
        for dispute in self._disputes.values():
            if dispute not in self._known:
                rows.save_dispute(connection, purchase, dispute)
        if purchase != self._stored:
            # Whoever watches is told of changes alone, however often the same is said.
            rows.save(connection, purchase)

    def _session(self, purchase: Purchase, word: SessionWord) -> None:
        self.problem = rules.mismatch(purchase, word, livemode=self._livemode)
        if self.problem:
            self.standing = Standing.QUARANTINED
            return
        state = rules.state_after(purchase, word)
        if state is State.PAID and purchase.state is not State.PAID:
            self.due = Bought(
                rows.reference(self._wallet_id, self._token),
                purchase.amount_micros,
                purchase.bonus_micros,
                purchase.lifetime,
            )
            purchase = purchase._replace(paid_micros=word.total_micros, tax_micros=word.tax_micros)
        self._purchase = purchase._replace(
            state=state,
            session_id=purchase.session_id or word.session_id,
            payment_intent=purchase.payment_intent or word.payment_intent,
            charge=purchase.charge or word.charge,
            receipt_url=purchase.receipt_url or word.receipt_url,
        )

    def _money(
        self, connection: Connection, purchase: Purchase, words: Sequence[RefundWord | DisputeWord]
    ) -> None:
        if not purchase.credit:
            # What is not credited yet cannot be taken back: it is looked at again once it is.
            self.standing = Standing.PARKED
            return
        refunds, disputes = rows.refunds_of(connection, purchase), rows.disputes_of(connection, purchase)
        self._known = {*refunds, *disputes}
        self._refunds = {found.refund_id: found for found in refunds}
        self._disputes = {found.dispute_id: found for found in disputes}
        for word in words:
            if word.currency != "usd" or word.amount_micros <= 0:
                self.standing = Standing.QUARANTINED
                self.problem = f"it is about {word.amount_micros} micros of {word.currency or 'no currency'}"
                return
            if isinstance(word, RefundWord):
                self._refund(word)
            else:
                self._dispute(word)
            purchase = purchase._replace(charge=purchase.charge or word.charge)
        targets = rules.targets(purchase, self._refunds.values(), self._disputes.values())
        self.due = Reversal(purchase.credit, targets)
        self._purchase = purchase._replace(reversed_micros=sum(targets))

    def _refund(self, word: RefundWord) -> None:
        known = self._refunds.get(word.refund_id)
        amount_micros, state = rules.refund_after(known, word.amount_micros, word.state)
        first_seen_at = known.first_seen_at if known is not None else self._now
        self._refunds[word.refund_id] = Refund(word.refund_id, amount_micros, state, first_seen_at)

    def _dispute(self, word: DisputeWord) -> None:
        known = self._disputes.get(word.dispute_id)
        amount_micros, state = rules.dispute_after(known, word.amount_micros, word.state)
        self._disputes[word.dispute_id] = Dispute(
            word.dispute_id,
            amount_micros,
            state,
            withdrawn=word.withdrawn or (known is not None and known.withdrawn),
            reinstated=word.reinstated or (known is not None and known.reinstated),
            first_seen_at=known.first_seen_at if known is not None else self._now,
        )
