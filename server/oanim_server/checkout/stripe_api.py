"""Stripe, as far as it is asked: pages, sessions, payments, refunds, events. The only caller of its SDK.

Requests are repeated by the SDK under their idempotency key; what then has no answer is PaymentsAway.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import stripe

from oanim_server.checkout import words
from oanim_server.checkout.refusals import PaymentsAway
from oanim_server.checkout.rows import reference
from oanim_server.checkout.values import MICROS_PER_CENT
from oanim_server.ledger.refusals import InvalidField
from oanim_server.ledger.values import SECOND

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from stripe.params import RefundCreateParams, RefundListParams

    from oanim_server.checkout.values import Event, Purchase, RefundRequest, RefundWord, SessionWord

T = TypeVar("T")

log = logging.getLogger(__name__)

ANSWER_SECONDS = 20.0
RETRIES = 2
# What its clock and ours may differ by.
SKEW_SECONDS = 300


class Page(NamedTuple):
    """Where a purchase is paid."""

    session_id: str
    url: str
    expires_at: int


class PageOptions(NamedTuple):
    """What goes with every page. `return_url` is where the customer comes back to."""

    return_url: Callable[[], str]
    invoices: bool
    automatic_tax: bool
    receipt_mail: bool


class Stripe:
    """Stripe with a key. `livemode` is what every event of this key's must say."""

    def __init__(self, key: str, *, url: str, options: PageOptions) -> None:
        self.livemode = "_live_" in key[:8]
        self._options = options
        self._http = stripe.HTTPXClient(timeout=ANSWER_SECONDS)
        self._client = stripe.StripeClient(
            key,
            base_addresses={"api": url},
            max_network_retries=RETRIES,
            http_client=self._http,
        )

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self._http.close_async()  # type: ignore[no-untyped-call]

    async def open_page(self, purchase: Purchase, email: str) -> Page:
        """Have a page made; the same purchase again has the same page."""
        purchase_id = reference(purchase.wallet_id, purchase.token)
        sessions = self._client.v1.checkout.sessions
        page = self._page(purchase, purchase_id, email)
        try:
            session = await _answered_once(sessions.create_async(page, {"idempotency_key": purchase_id}))
        except _SpentKeyError:
            since = purchase.created_at // SECOND - SKEW_SECONDS
            made = await _answered(sessions.list_async({"created": {"gte": since}, "limit": 100}))
            async for session in made.auto_paging_iter():
                if session.client_reference_id == purchase_id:
                    break
            else:
                raise PaymentsAway from None
        return Page(session.id, session.url or "", session.expires_at * SECOND)

    async def session(self, session_id: str) -> SessionWord:
        """How a session stands; what it was paid with, too, once it was."""
        session = await _answered(self._client.v1.checkout.sessions.retrieve_async(session_id))
        return await self.with_charge(words.session_word(session.to_dict()))

    async def with_charge(self, word: SessionWord) -> SessionWord:
        """The same with its charge and Stripe's receipt. A payment does not wait for them."""
        if not (word.paid and word.payment_intent):
            return word
        try:
            payment = await _answered(
                self._client.v1.payment_intents.retrieve_async(
                    word.payment_intent, {"expand": ["latest_charge"]}
                )
            )
        except (PaymentsAway, InvalidField):
            return word
        charge = payment.latest_charge
        if charge is None or isinstance(charge, str):
            return word._replace(charge=charge or "")
        return word._replace(charge=charge.id, receipt_url=charge.receipt_url or "")

    async def refunds(self, payment: str) -> list[RefundWord]:
        """The refunds of a payment intent or of a charge."""
        params: RefundListParams = {"limit": 100}
        if payment.startswith("pi_"):
            params["payment_intent"] = payment
        else:
            params["charge"] = payment
        found = await _answered(self._client.v1.refunds.list_async(params))
        return [words.refund_word(refund.to_dict()) async for refund in found.auto_paging_iter()]

    async def refund(self, request: RefundRequest, payment_intent: str) -> tuple[str, str]:
        """Have money given back; the same request again is one refund. Its id and how it stands."""
        wanted: RefundCreateParams = {
            "payment_intent": payment_intent,
            "amount": request.amount_micros // MICROS_PER_CENT,
            "metadata": {"request_id": request.request_id},
        }
        refunds = self._client.v1.refunds
        try:
            made = refunds.create_async(wanted, {"idempotency_key": request.request_id})
            refund = await _answered_once(made)
        except _SpentKeyError:
            found = await self.refund_made(request, payment_intent)
            if found is None:
                raise PaymentsAway from None
            return found
        return refund.id, refund.status or "pending"

    async def refund_made(self, request: RefundRequest, payment_intent: str) -> tuple[str, str] | None:
        """The refund that a request came to, if it was made: its id and how it stands."""
        found = await _answered(
            self._client.v1.refunds.list_async({"payment_intent": payment_intent, "limit": 100})
        )
        async for refund in found.auto_paging_iter():
            if refund.metadata and refund.metadata.to_dict().get("request_id") == request.request_id:
                return refund.id, refund.status or "pending"
        return None

    async def events(self, since_seconds: int) -> AsyncIterator[Event]:
        """The events of concern since a time, oldest first."""
        found = await _answered(
            self._client.v1.events.list_async(
                {"created": {"gte": since_seconds}, "types": list(words.TYPES), "limit": 100}
            )
        )
        # Newest first, as Stripe lists them: all are there before the first is applied.
        listed = [event async for event in found.auto_paging_iter()]
        for event in reversed(listed):
            try:
                # Not as the SDK has it: a rate of exchange would be a Decimal.
                yield words.event_of(event.to_dict(for_json=True))
            except ValueError:
                log.exception("an event of Stripe's cannot be read")

    def _page(self, purchase: Purchase, purchase_id: str, email: str) -> Any:
        options = self._options
        back = f"{options.return_url()}/checkout/{purchase_id}"
        payment: dict[str, Any] = {"metadata": {"purchase_id": purchase_id}}
        if options.receipt_mail and email:
            payment["receipt_email"] = email
        page: dict[str, Any] = {
            "mode": "payment",
            "client_reference_id": purchase_id,
            "line_items": [
                {
                    "quantity": 1,
                    "price_data": {
                        "currency": "usd",
                        "unit_amount": purchase.amount_micros // MICROS_PER_CENT,
                        "product_data": {"name": "Open Animate credits"},
                    },
                }
            ],
            "success_url": back,
            "cancel_url": f"{back}?cancelled=1",
            "expires_at": purchase.expires_at // SECOND,
            "adaptive_pricing": {"enabled": False},
            "payment_intent_data": payment,
            "metadata": {"purchase_id": purchase_id},
        }
        if email:
            page["customer_email"] = email
        if options.invoices:
            page["invoice_creation"] = {"enabled": True}
        if options.automatic_tax:
            page["automatic_tax"] = {"enabled": True}
            # The tax comes on top, whatever the account's default is: the credits are what the price buys.
            page["line_items"][0]["price_data"]["tax_behavior"] = "exclusive"
        return page


class _SpentKeyError(Exception):
    """An idempotency key that Stripe answers so for good, whether or not its request was carried out.

    It has answered it with an error of its own, which it keeps; or it knows it with other parameters, of when
    the settings were others; or another request under it still runs. What was made must be looked for.
    """


async def _answered(call: Awaitable[T]) -> T:
    """What Stripe answers.

    :raises InvalidField: when it refuses what the caller asked for.
    :raises PaymentsAway: when it does not answer, or refuses us.
    """
    try:
        return await _answered_once(call)
    except _SpentKeyError:
        raise PaymentsAway from None


async def _answered_once(call: Awaitable[T]) -> T:
    """The same for a call under an idempotency key of which it matters whether it may be used again.

    :raises _SpentKeyError: when it may not.
    """
    try:
        return await call
    except stripe.InvalidRequestError as error:
        extra = {"code": error.code, "param": error.param}
        log.warning("Stripe refused a request", extra=extra)
        raise InvalidField(field=str(error.param or "request"), description="Stripe refuses it") from None
    except stripe.StripeError as error:
        # Its text may name keys: the class says enough.
        status = error.http_status or 0
        log.warning("Stripe does not answer", extra={"error": type(error).__name__, "status": status})
        if isinstance(error, stripe.IdempotencyError) or status == HTTPStatus.CONFLICT or status >= 500:
            raise _SpentKeyError from None
        raise PaymentsAway from None
