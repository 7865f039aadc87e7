"""Refunds that the operator asks for: the row and Stripe's key first, then Stripe; the event books it."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from oanim_server.checkout import rows, rules
from oanim_server.checkout.values import MICROS_PER_CENT, RefundRequest
from oanim_server.ledger.refusals import IdempotencyKeyReused, InvalidField, NotFound
from oanim_server.ledger.values import SECOND

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from oanim_server.checkout.stripe_api import Stripe
    from oanim_server.database.engine import Database
    from oanim_server.ledger.ledger import Ledger
    from oanim_server.ledger.values import Note

REFUSED = "refused"
# Stripe keeps an idempotency key for a day: after that a request would be a second refund.
KEY_LIFETIME = 20 * 3_600 * SECOND


@dataclass(frozen=True, slots=True)
class Wanted:
    """A refund as the operator asks for it; 0 is all that is left. `caller` is 0 on the local socket."""

    wallet_id: int
    token: str
    amount_micros: int
    note: Note
    caller: int
    idempotency_key: str


class Refunds:
    """Asks Stripe for refunds, each once."""

    def __init__(self, database: Database, ledger: Ledger, stripe: Stripe) -> None:
        self._database = database
        self._ledger = ledger
        self._stripe = stripe

    async def ask(self, wanted: Wanted) -> tuple[RefundRequest, bool]:
        """Have money given back; the same again is the same refund, and says so.

        :raises NotFound: for a purchase that is unknown or was not paid.
        :raises InvalidField: for more than is left of it.
        :raises PaymentsAway: when Stripe does not answer; the same again goes on.
        """
        request_id = f"refund-{secrets.token_hex(12)}"
        request = await self._ledger.write(partial(_request, wanted=wanted, request_id=request_id))
        replayed = request.request_id != request_id
        if request.state == REFUSED:
            raise _refused()
        if not request.refund_id:
            try:
                request = await self.go_on(request)
            except InvalidField:
                raise _refused() from None
        return request, replayed

    async def go_on(self, request: RefundRequest) -> RefundRequest:
        """Ask Stripe for a refund whose row is there; for an old one, whether it was made.

        :raises InvalidField: when it was not, and never will be.
        """
        key = {"wallet_id": request.wallet_id, "token": request.token}
        purchase = await self._database.read(lambda connection: rows.purchase(connection, **key))  # type: ignore[arg-type]
        if purchase is None:
            raise NotFound(what="purchase")
        where = {"wallet_id": request.wallet_id, "request_id": request.request_id}
        try:
            refund_id, state = await self._made(request, purchase.payment_intent)
        except InvalidField:
            # Stripe gives nothing back for it, however often it is asked.
            await self._ledger.write(partial(rows.answered, **where, refund_id="", state=REFUSED))  # type: ignore[arg-type]
            raise
        await self._ledger.write(partial(rows.answered, **where, refund_id=refund_id, state=state))  # type: ignore[arg-type]
        return request._replace(refund_id=refund_id, state=state)

    async def _made(self, request: RefundRequest, payment_intent: str) -> tuple[str, str]:
        if request.created_at > time.time_ns() // 1_000 - KEY_LIFETIME:
            return await self._stripe.refund(request, payment_intent)
        made = await self._stripe.refund_made(request, payment_intent)
        if made is None:
            raise InvalidField(
                field="idempotency_key",
                description="it is a day old and came to nothing: ask under another",
            )
        return made


def _request(connection: Connection, now: int, *, wanted: Wanted, request_id: str) -> RefundRequest:
    purchase = rows.purchase(connection, wallet_id=wanted.wallet_id, token=wanted.token, lock=True)
    if purchase is None or not purchase.credit:
        raise NotFound(what="purchase")
    known = rows.request_of_key(
        connection,
        wallet_id=wanted.wallet_id,
        caller=wanted.caller,
        idem_key=wanted.idempotency_key,
    )
    if known is not None:
        asked = (wanted.token, wanted.amount_micros, wanted.note.reason)
        if (known.token, known.asked_micros, known.reason) != asked:
            raise IdempotencyKeyReused(wanted.idempotency_key)
        return known
    counting = filter(rules.counts, rows.refunds_of(connection, purchase))
    refunded = sum(refund.amount_micros for refund in counting)
    left = purchase.paid_micros - refunded - rows.asked_for(connection, purchase)
    amount_micros = wanted.amount_micros or left
    if amount_micros % MICROS_PER_CENT or not 0 < amount_micros <= left:
        raise InvalidField(
            field="amount_micros",
            description=f"it must be whole cents, and at most the {left} micro-USD that are left",
        )
    request = RefundRequest(
        wallet_id=wanted.wallet_id,
        request_id=request_id,
        token=wanted.token,
        caller=wanted.caller,
        idem_key=wanted.idempotency_key,
        asked_micros=wanted.amount_micros,
        amount_micros=amount_micros,
        actor=wanted.note.actor,
        reason=wanted.note.reason,
        created_at=now,
    )
    rows.add_request(connection, request)
    return request


def _refused() -> InvalidField:
    """What is said each time of a request that came to nothing; Stripe's own word is for another field."""
    return InvalidField(
        field="amount_micros",
        description="Stripe gives nothing back for this request: look at the purchase, and use another key",
    )
