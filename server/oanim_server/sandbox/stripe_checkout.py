"""Checkout Sessions: made, paid once, expired by themselves.

A session is complete when the customer is done; whether it is paid is another field. Its payment intent
is made by the first attempt and shown when the session completes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from oanim_server.sandbox.stripe_catalog import subtotal
from oanim_server.sandbox.stripe_forms import BadParameter, Params, Refused, Thing
from oanim_server.sandbox.stripe_methods import PAYS_LATER
from oanim_server.sandbox.stripe_objects import change, listed, merge_metadata
from oanim_server.sandbox.stripe_payments import INTENT_DATA

if TYPE_CHECKING:
    from collections.abc import Callable

    from oanim_server.sandbox.stripe_catalog import Catalog
    from oanim_server.sandbox.stripe_methods import Methods
    from oanim_server.sandbox.stripe_objects import Objects
    from oanim_server.sandbox.stripe_payments import Payments

_SESSION = (
    "adaptive_pricing",
    "allow_promotion_codes",
    "automatic_tax",
    "billing_address_collection",
    "cancel_url",
    "client_reference_id",
    "currency",
    "customer",
    "customer_creation",
    "customer_email",
    "expires_at",
    "invoice_creation",
    "line_items",
    "locale",
    "metadata",
    "mode",
    "payment_intent_data",
    "payment_method_types",
    "submit_type",
    "success_url",
    "ui_mode",
)
_LONGEST_S = 24 * 3600
_SHORTEST_S = 30 * 60
# A client's clock, and the way here.
_LEEWAY_S = 60


class Checkout:
    """`later` runs something in so many seconds."""

    def __init__(
        self,
        objects: Objects,
        catalog: Catalog,
        methods: Methods,
        payments: Payments,
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._objects = objects
        self._catalog = catalog
        self._methods = methods
        self._payments = payments
        self._later = later
        # By session: what the intent will be made of, and the intent, once there was an attempt.
        self._intent_data: dict[str, Params] = {}
        self._intents: dict[str, Thing] = {}

    def create(self, params: Params) -> Thing:
        params.only(_SESSION)
        if params.needed("mode") != "payment":
            raise BadParameter("This sandbox only has sessions of mode payment.", param="mode")
        data = params.inside("payment_intent_data")
        data.only(INTENT_DATA)
        customer = params.text("customer")
        if customer and "customer_email" in params:
            raise BadParameter("You may only specify one of these parameters: customer, customer_email.")
        if customer:
            self._objects.get("customer", customer, "customer")
        success_url = params.url("success_url") or params.needed("success_url")
        reference = params.text("client_reference_id")
        if reference and len(reference) > 200:
            raise BadParameter("Too long: 200 characters", param="client_reference_id")
        expires_at = _expiry(params)
        lines = [self._catalog.line(line) for line in params.each("line_items")]
        amount = subtotal(lines)
        taxed = params.inside("automatic_tax").flag("enabled")
        session = self._objects.add(
            "checkout.session",
            {
                "adaptive_pricing": {
                    "enabled": params.inside("adaptive_pricing").flag("enabled", default=True)
                },
                "allow_promotion_codes": params.flag("allow_promotion_codes"),
                "amount_subtotal": amount,
                "amount_total": amount,
                "automatic_tax": {
                    "enabled": taxed,
                    "liability": {"type": "self"} if taxed else None,
                    "provider": "stripe" if taxed else None,
                    # The place decides about tax, and nobody knows it before the customer types it in.
                    "status": "requires_location_inputs" if taxed else None,
                },
                "billing_address_collection": params.text("billing_address_collection"),
                "cancel_url": params.url("cancel_url"),
                "client_reference_id": reference,
                "client_secret": None,
                "currency": lines[0]["currency"],
                "currency_conversion": None,
                "custom_fields": [],
                "customer": customer,
                "customer_creation": params.choice(
                    "customer_creation", ("always", "if_required"), "if_required"
                ),
                "customer_details": None,
                "customer_email": params.text("customer_email"),
                "discounts": [],
                "expires_at": expires_at,
                "invoice": None,
                "invoice_creation": {
                    "enabled": params.inside("invoice_creation").flag("enabled"),
                    "invoice_data": params.inside("invoice_creation").inside("invoice_data").raw(),
                },
                "locale": params.text("locale"),
                "metadata": params.metadata(),
                "mode": "payment",
                "payment_intent": None,
                "payment_link": None,
                "payment_method_collection": "if_required",
                "payment_method_types": params.texts("payment_method_types") or ["card"],
                "payment_status": "unpaid",
                "presentment_details": None,
                "setup_intent": None,
                "shipping_options": [],
                "status": "open",
                "submit_type": params.text("submit_type"),
                "subscription": None,
                "success_url": success_url,
                "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
                "ui_mode": params.choice("ui_mode", ("hosted_page",), "hosted_page"),
            },
        )
        session["url"] = f"{self._objects.url}/pay/{session['id']}"
        self._intent_data[session["id"]] = data
        where = f"/v1/checkout/sessions/{session['id']}/line_items"
        self._objects.hide(session, "line_items", lambda: listed(lines, where))
        self._expire_in(session, expires_at - time.time())
        return session

    def get(self, identity: str) -> Thing:
        return self._objects.get("checkout.session", identity)

    def update(self, params: Params, identity: str) -> Thing:
        params.only(("metadata",))
        session = self.get(identity)
        merge_metadata(session, params)
        return session

    def lines(self, identity: str) -> list[Thing]:
        found: list[Thing] = self._objects.shown(self.get(identity), ["line_items"])["line_items"]["data"]
        return found

    def expire(self, _params: Params, identity: str) -> Thing:
        session = self._open(identity)
        self._expire(session)
        return session

    def expire_in(self, identity: str, seconds: float) -> Thing:
        """Move the end of an open session."""
        session = self._open(identity)
        session["expires_at"] = int(time.time() + seconds)
        self._expire_in(session, seconds)
        return session

    def pay(
        self, identity: str, method: Thing, email: str | None = None, fx_rate: str | None = None
    ) -> Thing:
        """The customer pays with this method. Raises `Refused` when it is declined.

        With `fx_rate` in a currency of their own at that rate, where the session lets them.
        """
        session = self._open(identity)
        tax = self.tax(session)
        details = {"address": None, "email": email or session["customer_email"], "name": "Jenny Rosen"}
        if session["customer"]:
            details["email"] = self._objects.get("customer", session["customer"])["email"]
        details["email"] = details["email"] or "jenny.rosen@example.com"
        method["billing_details"] |= {"email": details["email"], "name": details["name"]}
        intent = self._intent(session, session["amount_subtotal"] + tax)
        self._payments.attempt(intent, method)
        if intent["status"] == "requires_action":
            self._payments.settle(intent, paid=True)
        session["total_details"]["amount_tax"] = tax
        if session["automatic_tax"]["enabled"]:
            session["automatic_tax"]["status"] = "complete"
        change(session, status="complete", url=None, payment_intent=intent["id"], customer=intent["customer"])
        change(session, customer_details=details, amount_total=intent["amount"])
        if fx_rate is not None and session["adaptive_pricing"]["enabled"]:
            session["currency_conversion"] = {
                "amount_subtotal": session["amount_subtotal"],
                "amount_total": session["amount_total"],
                "fx_rate": fx_rate,
                "source_currency": session["currency"],
            }
        self._note_payment(session, intent)
        self._objects.emit("checkout.session.completed", session)
        return session

    def pay_later(self, identity: str, email: str | None = None) -> Thing:
        """The customer pays with something that takes days."""
        return self.pay(identity, self._methods.make(PAYS_LATER, {}), email)

    def tax(self, session: Thing) -> int:
        """10 %, rounded down, of what is taxed."""
        return session["amount_subtotal"] // 10 if session["automatic_tax"]["enabled"] else 0

    def settled(self, intent: Thing, paid: bool) -> None:  # noqa: FBT001 - a hook of `Payments`
        """Tell a session that is complete how its payment ended."""
        for session in self._objects.all("checkout.session"):
            if session["payment_intent"] == intent["id"]:
                self._note_payment(session, intent)
                name = "async_payment_succeeded" if paid else "async_payment_failed"
                self._objects.emit(f"checkout.session.{name}", session)

    def _open(self, identity: str) -> Thing:
        session = self.get(identity)
        if session["status"] != "open":
            raise Refused(
                'Only Checkout Sessions with a status in ["open"] can be paid or expired. '
                f"This Checkout Session has a status of {session['status']}."
            )
        return session

    def _intent(self, session: Thing, amount: int) -> Thing:
        intent = self._intents.get(session["id"])
        if intent is None:
            customer = session["customer"]
            if customer is None and session["customer_creation"] == "always":
                made = self._catalog.create_customer(Params({"email": session["customer_email"]}))
                customer = made["id"]
            data = self._intent_data[session["id"]]
            kinds = session["payment_method_types"]
            intent = self._payments.open(amount, session["currency"], data, customer=customer, kinds=kinds)
            self._intents[session["id"]] = intent
            self._objects.emit("payment_intent.created", intent)
        return intent

    def _note_payment(self, session: Thing, intent: Thing) -> None:
        if intent["status"] != "succeeded":
            return
        session["payment_status"] = "paid"
        if session["invoice_creation"]["enabled"]:
            session["invoice"] = self._invoice(session)["id"]

    def _invoice(self, session: Thing) -> Thing:
        where = f"{self._objects.url}/receipts/{self._intents[session['id']]['latest_charge']}"
        data = session["invoice_creation"]["invoice_data"]
        total = session["amount_total"]
        invoice = self._objects.add(
            "invoice",
            {
                "amount_due": total,
                "amount_paid": total,
                "amount_remaining": 0,
                "currency": session["currency"],
                "customer": session["customer"],
                "customer_email": session["customer_details"]["email"],
                "description": data.get("description"),
                "hosted_invoice_url": where,
                "invoice_pdf": where,
                "metadata": data.get("metadata", {}),
                "number": f"SANDBOX-{len(self._objects.all('invoice')) + 1:04}",
                "status": "paid",
                "subtotal": session["amount_subtotal"],
                "total": total,
            },
        )
        self._objects.emit("invoice.paid", invoice)
        return invoice

    def _expire_in(self, session: Thing, seconds: float) -> None:
        due = session["expires_at"]

        def expire() -> None:
            if session["status"] == "open" and session["expires_at"] == due:
                self._expire(session)

        self._later(seconds, expire)

    def _expire(self, session: Thing) -> None:
        change(session, status="expired", url=None)
        self._objects.emit("checkout.session.expired", session)


def _expiry(params: Params) -> int:
    now = int(time.time())
    expires_at = params.integer("expires_at", now + _LONGEST_S, most=2**40)
    if not now + _SHORTEST_S - _LEEWAY_S <= expires_at <= now + _LONGEST_S + _LEEWAY_S:
        raise BadParameter(
            "The `expires_at` timestamp must be between 30 minutes and 24 hours from now.",
            param="expires_at",
        )
    return expires_at
