"""Payment methods, setup intents, and what the ones that Stripe made for tests do when they are charged.

The names, tokens and account numbers, and what each leads to, are Stripe's own:
https://docs.stripe.com/testing
"""

from __future__ import annotations

import copy
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oanim_server.sandbox.stripe_forms import BadParameter, Params, Refused, Thing
from oanim_server.sandbox.stripe_objects import change, merge_metadata

if TYPE_CHECKING:
    from oanim_server.sandbox.stripe_objects import Objects


@dataclass(slots=True, frozen=True)
class Behaviour:
    """What charging a method leads to.

    `decline` refuses the charge with this code; `asks` wants its owner first; `settles_s` leaves the payment
    processing for so long (None: until it is told), and `fails` is how that ends. `dispute` is opened by the
    owner at once. `refund` is the state that refunds begin in, and `refund_fails` how they end.
    """

    kind: str = "card"
    decline: str | None = None
    asks: bool = False
    processes: bool = False
    settles_s: float | None = None
    fails: bool = False
    dispute: str | None = None
    refund: str = "succeeded"
    refund_fails: bool = False


# A customer at the pay page who pays later: settled by a control call.
PAYS_LATER = Behaviour("sepa_debit", processes=True)
# Half a second is what Stripe's test mode calls shortly.
_SHORTLY_S = 0.2
_SEPA = Behaviour("sepa_debit", processes=True, settles_s=_SHORTLY_S)
_VISA = Behaviour()
_ASKS = Behaviour(asks=True)
_DECLINED = Behaviour(decline="generic_decline")
_METHODS = {
    "pm_card_amex": _VISA,
    "pm_card_authenticationRequired": _ASKS,
    "pm_card_bypassPending": _VISA,
    "pm_card_chargeCustomerFail": _DECLINED,
    "pm_card_chargeDeclined": _DECLINED,
    "pm_card_chargeDeclinedInsufficientFunds": Behaviour(decline="insufficient_funds"),
    "pm_card_createDispute": Behaviour(dispute="dispute"),
    "pm_card_createDisputeInquiry": Behaviour(dispute="inquiry"),
    "pm_card_mastercard": _VISA,
    "pm_card_pendingRefund": Behaviour(refund="pending"),
    "pm_card_refundFail": Behaviour(refund_fails=True),
    "pm_card_threeDSecure2Required": _ASKS,
    "pm_card_visa": _VISA,
    "pm_card_visa_chargeDeclined": _DECLINED,
}
# This one can be kept, and is declined only when it is charged.
_KEEPABLE = {"pm_card_chargeCustomerFail"}
_TOKENS = {"tok_visa": _VISA, "tok_mastercard": _VISA, "tok_chargeDeclined": _DECLINED}
_IBANS = {
    "AT321904300235473204": Behaviour("sepa_debit", processes=True, settles_s=180),
    "AT861904300235473202": Behaviour("sepa_debit", processes=True, settles_s=_SHORTLY_S, fails=True),
    "IT60X0542811101000000123456": Behaviour("sepa_debit", processes=True, settles_s=_SHORTLY_S, fails=True),
}
_BILLING = ("address", "email", "name", "phone")
_SETUP = (
    "automatic_payment_methods",
    "confirm",
    "customer",
    "description",
    "metadata",
    "payment_method",
    "payment_method_types",
    "return_url",
    "usage",
)


class Methods:
    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._behaviours: dict[str, Behaviour] = {}
        self._keepable: set[str] = set()

    def create(self, params: Params) -> Thing:
        params.only(("billing_details", "card", "metadata", "sepa_debit", "type"))
        if params.choice("type", ("card", "sepa_debit"), "card") == "card":
            token = params.inside("card").needed("token")
            if token not in _TOKENS:
                raise BadParameter(f"No such token: '{token}'", code="resource_missing", param="card[token]")
            behaviour = _TOKENS[token]
        else:
            behaviour = _IBANS.get(params.inside("sepa_debit").needed("iban"), _SEPA)
        return self.make(behaviour, params.inside("billing_details").raw(), params.metadata())

    def make(self, behaviour: Behaviour, billing: Thing, metadata: Thing | None = None) -> Thing:
        """Make a method that behaves like this."""
        details = (
            {"brand": "visa", "country": "US", "exp_month": 12, "exp_year": 2040, "funding": "credit"}
            | {"last4": "4242"}
            if behaviour.kind == "card"
            else {"bank_code": "19043", "country": "AT", "last4": "3201"}
        )
        method = self._objects.add(
            "payment_method",
            {
                "billing_details": {name: billing.get(name) for name in _BILLING},
                "customer": None,
                "metadata": metadata or {},
                "type": behaviour.kind,
                behaviour.kind: details,
            },
        )
        self._behaviours[method["id"]] = behaviour
        return method

    def find(self, identity: str, param: str = "payment_method") -> Thing:
        """Find a method; naming one of Stripe's test methods makes one of its kind."""
        if identity not in _METHODS:
            return self._objects.get("payment_method", identity, param)
        method = self.make(_METHODS[identity], {})
        if identity in _KEEPABLE:
            self._keepable.add(method["id"])
        return method

    def behaviour(self, method: Thing) -> Behaviour:
        return self._behaviours[method["id"]]

    def attach(self, params: Params, identity: str) -> Thing:
        params.only(("customer",))
        customer = self._objects.get("customer", params.needed("customer"), "customer")
        method = self.find(identity, "id")
        decline = self.behaviour(method).decline
        if decline and method["id"] not in self._keepable:
            raise declined(decline)
        self.keep(method, customer["id"])
        return method

    def keep(self, method: Thing, customer_id: str) -> None:
        """Let a customer pay with this again."""
        if method["customer"] != customer_id:
            method["customer"] = customer_id
            self._objects.emit("payment_method.attached", method)

    def detach(self, _params: Params, identity: str) -> Thing:
        method = self._objects.get("payment_method", identity)
        if method["customer"] is None:
            raise Refused("The payment method is not attached to a customer, so detachment is impossible.")
        before = change(method, customer=None)
        self._objects.emit("payment_method.detached", method, before)
        return method

    def update(self, params: Params, identity: str) -> Thing:
        params.only(("metadata",))
        method = self._objects.get("payment_method", identity)
        self._objects.emit("payment_method.updated", method, merge_metadata(method, params))
        return method

    # Setup intents: a method that is kept without a payment.

    def create_setup(self, params: Params) -> Thing:
        params.only(_SETUP)
        customer = params.text("customer")
        if customer:
            self._objects.get("customer", customer, "customer")
        method = self.find(params.needed("payment_method")) if "payment_method" in params else None
        if method is None and params.flag("confirm"):
            raise _no_method()
        intent = self._objects.add(
            "setup_intent",
            {
                "cancellation_reason": None,
                "client_secret": f"seti_secret_{secrets.token_hex(12)}",
                "customer": customer,
                "description": params.text("description"),
                "last_setup_error": None,
                "latest_attempt": None,
                "metadata": params.metadata(),
                "next_action": None,
                "payment_method": None,
                "payment_method_types": params.texts("payment_method_types") or ["card"],
                "status": "requires_payment_method",
                "usage": params.choice("usage", ("off_session", "on_session"), "off_session"),
            },
        )
        if method:
            change(intent, payment_method=method["id"], status="requires_confirmation")
        self._objects.emit("setup_intent.created", intent)
        return self._set_up(intent, method) if method and params.flag("confirm") else intent

    def confirm_setup(self, params: Params, identity: str) -> Thing:
        params.only(("payment_method", "return_url"))
        intent = self._objects.get("setup_intent", identity)
        if intent["status"] not in ("requires_payment_method", "requires_confirmation"):
            raise unexpected("SetupIntent", intent)
        named = params.text("payment_method") or intent["payment_method"]
        if named is None:
            raise _no_method()
        return self._set_up(intent, self.find(named))

    def cancel_setup(self, params: Params, identity: str) -> Thing:
        params.only(("cancellation_reason",))
        intent = self._objects.get("setup_intent", identity)
        if intent["status"] in ("succeeded", "canceled"):
            raise unexpected("SetupIntent", intent)
        change(intent, status="canceled", cancellation_reason=params.text("cancellation_reason"))
        self._objects.emit("setup_intent.canceled", intent)
        return intent

    def finish_setup(self, intent: Thing) -> Thing:
        """The method's owner agreed."""
        change(intent, status="succeeded", next_action=None)
        if intent["customer"]:
            self.keep(self._objects.get("payment_method", intent["payment_method"]), intent["customer"])
        self._objects.emit("setup_intent.succeeded", intent)
        return intent

    def _set_up(self, intent: Thing, method: Thing) -> Thing:
        behaviour = self.behaviour(method)
        change(intent, payment_method=method["id"])
        if behaviour.decline and method["id"] not in self._keepable:
            refusal = declined(behaviour.decline)
            change(
                intent,
                status="requires_payment_method",
                payment_method=None,
                last_setup_error=refusal.body["error"],
            )
            self._objects.emit("setup_intent.setup_failed", intent)
            raise declined(behaviour.decline, setup_intent=intent)
        if behaviour.asks:
            change(intent, status="requires_action", next_action={"type": "use_stripe_sdk"})
            self._objects.emit("setup_intent.requires_action", intent)
            return intent
        return self.finish_setup(intent)


def declined(decline: str, **about: Thing | str) -> Refused:
    """The bank refused. `about` is what Stripe shows beside: the intent as it is now, the charge."""
    code = "authentication_required" if decline == "authentication_required" else "card_declined"
    messages = {
        "authentication_required": "Your card was declined. This transaction requires authentication.",
        "insufficient_funds": "Your card has insufficient funds.",
    }
    return Refused(
        messages.get(decline, "Your card was declined."),
        status=402,
        kind="card_error",
        code=code,
        more={"decline_code": decline, **copy.deepcopy(about)},
    )


def unexpected(kind: str, intent: Thing) -> Refused:
    code = f"{intent['object']}_unexpected_state"
    return Refused(
        f"You cannot do this to a {kind} whose status is {intent['status']}.",
        code=code,
        more={intent["object"]: copy.deepcopy(intent)},
    )


def _no_method() -> BadParameter:
    message = "You cannot confirm this SetupIntent because it's missing a payment method."
    return BadParameter(message, code="parameter_missing", param="payment_method")
