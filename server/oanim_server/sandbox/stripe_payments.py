"""Payment intents and the charges they make: paid at once, declined, asked about, or processing for a while.

One attempt makes one charge; a payment that is processing keeps its charge when it ends.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from oanim_server.sandbox.stripe_forms import BadParameter, Params, Refused, Thing
from oanim_server.sandbox.stripe_methods import declined, unexpected
from oanim_server.sandbox.stripe_objects import change, merge_metadata

if TYPE_CHECKING:
    from collections.abc import Callable

    from oanim_server.sandbox.stripe_methods import Behaviour, Methods
    from oanim_server.sandbox.stripe_objects import Objects

_LEAST = 50
_PASSED_ON = ("description", "receipt_email", "statement_descriptor", "statement_descriptor_suffix")
INTENT_DATA = (*_PASSED_ON, "capture_method", "metadata", "setup_future_usage", "shipping")
_INTENT = (
    *INTENT_DATA,
    "amount",
    "automatic_payment_methods",
    "confirm",
    "confirmation_method",
    "currency",
    "customer",
    "error_on_requires_action",
    "mandate_data",
    "off_session",
    "payment_method",
    "payment_method_types",
    "return_url",
)


class Payments:
    """`later` runs something in so many seconds.

    `charged` is told of each charge that succeeded, and `settled` of each intent that was processing, and
    whether it was paid.
    """

    def __init__(
        self, objects: Objects, methods: Methods, later: Callable[[float, Callable[[], None]], object]
    ) -> None:
        self._objects = objects
        self._methods = methods
        self._later = later
        self.charged: Callable[[Thing, Behaviour], None] = lambda _charge, _behaviour: None
        self.settled: Callable[[Thing, bool], None] = lambda _intent, _paid: None

    def create(self, params: Params) -> Thing:
        params.only(_INTENT)
        customer = params.text("customer")
        if customer:
            self._objects.get("customer", customer, "customer")
        currency, amount = params.currency(), params.integer("amount", least=1)
        kinds = params.texts("payment_method_types")
        if "payment_method" in params:
            method = self._methods.find(params.needed("payment_method"))
            kinds = kinds or [method["type"]]
            if method["type"] not in kinds:
                raise Refused("The payment method's type is not allowed here.", param="payment_method")
        else:
            method = None
            if params.flag("confirm"):
                raise _no_method()
        intent = self.open(amount, currency, params, customer=customer, kinds=kinds)
        if method:
            change(intent, payment_method=method["id"], status="requires_confirmation")
        self._objects.emit("payment_intent.created", intent)
        if params.flag("confirm"):
            self._confirm(intent, params)
        return intent

    def confirm(self, params: Params, identity: str) -> Thing:
        params.only(("mandate_data", "off_session", "payment_method", "return_url", "receipt_email"))
        intent = self._objects.get("payment_intent", identity)
        if intent["status"] not in ("requires_payment_method", "requires_confirmation"):
            raise unexpected("PaymentIntent", intent)
        if "payment_method" in params:
            intent["payment_method"] = self._methods.find(params.needed("payment_method"))["id"]
        self._confirm(intent, params)
        return intent

    def update(self, params: Params, identity: str) -> Thing:
        params.only(("metadata", *_PASSED_ON))
        intent = self._objects.get("payment_intent", identity)
        change(intent, **{name: params.text(name) for name in _PASSED_ON if name in params.raw()})
        merge_metadata(intent, params)
        return intent

    def cancel(self, params: Params, identity: str) -> Thing:
        params.only(("cancellation_reason",))
        intent = self._objects.get("payment_intent", identity)
        if intent["status"] in ("succeeded", "canceled", "processing"):
            raise unexpected("PaymentIntent", intent)
        change(intent, status="canceled", cancellation_reason=params.text("cancellation_reason"))
        change(intent, canceled_at=intent["created"], amount_capturable=0)
        self._objects.emit("payment_intent.canceled", intent)
        return intent

    def capture(self, params: Params, identity: str) -> Thing:
        params.only(())
        intent = self._objects.get("payment_intent", identity)
        if intent["status"] != "requires_capture":
            raise unexpected("PaymentIntent", intent)
        charge = self._objects.get("charge", intent["latest_charge"])
        self._paid(intent, charge, "charge.captured")
        return intent

    def open(
        self, amount: int, currency: str, params: Params, *, customer: str | None, kinds: list[str]
    ) -> Thing:
        """Make an intent, and tell nobody yet."""
        if amount < _LEAST:
            raise Refused("Amount must be at least $0.50 usd", code="amount_too_small", param="amount")
        fields: Thing = {
            "amount": amount,
            "amount_capturable": 0,
            "amount_received": 0,
            "cancellation_reason": None,
            "canceled_at": None,
            "capture_method": params.choice(
                "capture_method", ("automatic", "automatic_async", "manual"), "automatic_async"
            ),
            "client_secret": f"pi_secret_{secrets.token_hex(12)}",
            "confirmation_method": "automatic",
            "currency": currency,
            "customer": customer,
            "last_payment_error": None,
            "latest_charge": None,
            "metadata": params.metadata(),
            "next_action": None,
            "payment_method": None,
            "payment_method_types": kinds or ["card"],
            "processing": None,
            "setup_future_usage": params.text("setup_future_usage"),
            "shipping": params.inside("shipping").raw() or None,
            "status": "requires_payment_method",
        }
        return self._objects.add("payment_intent", fields | {name: params.text(name) for name in _PASSED_ON})

    def attempt(self, intent: Thing, method: Thing, *, off_session: bool = False) -> None:
        """Charge the method. Raises `Refused` when it is declined."""
        behaviour = self._methods.behaviour(method)
        change(intent, payment_method=method["id"], last_payment_error=None, next_action=None)
        decline = behaviour.decline
        if behaviour.asks and off_session:
            decline = "authentication_required"
        if decline:
            self._fail(intent, self._charge(intent, method), decline)
            raise declined(decline, payment_intent=intent, charge=intent["latest_charge"])
        if behaviour.asks:
            change(intent, status="requires_action", next_action={"type": "use_stripe_sdk"})
            self._objects.emit("payment_intent.requires_action", intent)
        elif behaviour.processes:
            charge = self._charge(intent, method)
            change(intent, status="processing")
            self._objects.emit("payment_intent.processing", intent)
            self._objects.emit("charge.pending", charge)
            if behaviour.settles_s is not None:
                self._later(behaviour.settles_s, lambda: self._settle_if_open(intent, behaviour))
        elif intent["capture_method"] == "manual":
            charge = self._charge(intent, method)
            change(charge, status="succeeded", paid=True, amount_captured=0)
            change(intent, status="requires_capture", amount_capturable=intent["amount"])
            self._objects.emit("charge.succeeded", charge)
            self._objects.emit("payment_intent.amount_capturable_updated", intent)
        else:
            self._paid(intent, self._charge(intent, method), "charge.succeeded")

    def settle(self, intent: Thing, *, paid: bool) -> None:
        """End a payment that is processing, or one whose owner was asked."""
        if intent["status"] not in ("processing", "requires_action"):
            raise unexpected("PaymentIntent", intent)
        method = self._objects.get("payment_method", intent["payment_method"])
        if intent["latest_charge"]:
            charge = self._objects.get("charge", intent["latest_charge"])
        else:
            charge = self._charge(intent, method)
        if paid:
            self._paid(intent, charge, "charge.succeeded")
        else:
            self._fail(intent, charge, "generic_decline")
        self.settled(intent, paid)

    def balance(self, source: Thing, kind: str, amount: int, fee: int) -> Thing:
        """Book what a charge, a refund or a dispute did to the seller's balance at Stripe."""
        return self._objects.add(
            "balance_transaction",
            {
                "amount": amount,
                "currency": source["currency"],
                "fee": fee,
                "net": amount - fee,
                "source": source["id"],
                "status": "available",
                "type": kind,
            },
        )

    def _confirm(self, intent: Thing, params: Params) -> None:
        if intent["payment_method"] is None:
            raise _no_method()
        method = self._objects.get("payment_method", intent["payment_method"])
        if method["customer"] and method["customer"] != intent["customer"]:
            raise Refused("The payment method belongs to a customer: include the customer.")
        self.attempt(intent, method, off_session=params.flag("off_session"))

    def _charge(self, intent: Thing, method: Thing) -> Thing:
        charge = self._objects.add(
            "charge",
            {
                "amount": intent["amount"],
                "amount_captured": 0,
                "amount_refunded": 0,
                "balance_transaction": None,
                "billing_details": method["billing_details"],
                "captured": False,
                "currency": intent["currency"],
                "customer": intent["customer"],
                "description": intent["description"],
                "disputed": False,
                "failure_code": None,
                "failure_message": None,
                "metadata": dict(intent["metadata"]),
                "outcome": None,
                "paid": False,
                "payment_intent": intent["id"],
                "payment_method": method["id"],
                "payment_method_details": {"type": method["type"], method["type"]: method[method["type"]]},
                "receipt_email": intent["receipt_email"],
                "receipt_number": None,
                "receipt_url": None,
                "refunded": False,
                "shipping": intent["shipping"],
                "status": "pending",
            },
        )
        intent["latest_charge"] = charge["id"]
        return charge

    def _paid(self, intent: Thing, charge: Thing, name: str) -> None:
        amount = charge["amount"]
        # Stripe's published fee for cards: 2.9 % and 30 cents.
        booked = self.balance(charge, "charge", amount, -(-amount * 29 // 1000) + 30)
        outcome = {"network_status": "approved_by_network", "type": "authorized", "risk_level": "normal"}
        change(charge, status="succeeded", paid=True, captured=True, amount_captured=amount, outcome=outcome)
        change(charge, balance_transaction=booked["id"])
        change(charge, receipt_url=f"{self._objects.url}/receipts/{charge['id']}")
        change(intent, status="succeeded", amount_received=amount, amount_capturable=0, next_action=None)
        if intent["customer"] and intent["setup_future_usage"]:
            method = self._objects.get("payment_method", intent["payment_method"])
            self._methods.keep(method, intent["customer"])
        self._objects.emit(name, charge)
        self._objects.emit("payment_intent.succeeded", intent)
        self.charged(
            charge, self._methods.behaviour(self._objects.get("payment_method", charge["payment_method"]))
        )

    def _fail(self, intent: Thing, charge: Thing, decline: str) -> None:
        error = declined(decline).body["error"]
        outcome = {"network_status": "declined_by_network", "reason": decline, "type": "issuer_declined"}
        change(charge, status="failed", failure_code=error["code"], failure_message=error["message"])
        change(charge, outcome=outcome)
        change(intent, status="requires_payment_method", payment_method=None, next_action=None)
        change(intent, last_payment_error={**error, "charge": charge["id"]})
        self._objects.emit("charge.failed", charge)
        self._objects.emit("payment_intent.payment_failed", intent)

    def _settle_if_open(self, intent: Thing, behaviour: Behaviour) -> None:
        if intent["status"] == "processing":
            self.settle(intent, paid=not behaviour.fails)


def _no_method() -> BadParameter:
    message = "You cannot confirm this PaymentIntent because it's missing a payment method."
    return BadParameter(message, code="parameter_missing", param="payment_method")
