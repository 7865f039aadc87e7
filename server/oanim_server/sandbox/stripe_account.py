"""One seller's account at the sandbox of Stripe: its parts, and who tells whom."""

from __future__ import annotations

import asyncio

from oanim_server.sandbox.stripe_catalog import Catalog
from oanim_server.sandbox.stripe_checkout import Checkout
from oanim_server.sandbox.stripe_forms import Refused, Thing
from oanim_server.sandbox.stripe_methods import Methods
from oanim_server.sandbox.stripe_objects import Objects
from oanim_server.sandbox.stripe_payments import Payments
from oanim_server.sandbox.stripe_reversals import Reversals
from oanim_server.sandbox.stripe_webhooks import Webhooks


class Account:
    """Made inside the loop that serves it: payments settle and sessions expire by its timers."""

    def __init__(self, url: str) -> None:
        later = asyncio.get_running_loop().call_later
        self.objects = Objects(url)
        self.catalog = Catalog(self.objects)
        self.methods = Methods(self.objects)
        self.payments = Payments(self.objects, self.methods, later)
        self.checkout = Checkout(self.objects, self.catalog, self.methods, self.payments, later)
        self.reversals = Reversals(self.objects, self.methods, self.payments, later)
        self.webhooks = Webhooks(self.objects)
        self.objects.heard = self.webhooks.heard
        self.payments.charged = self.reversals.charged
        self.payments.settled = self.checkout.settled

    def charge_of(self, identity: str) -> Thing:
        """Find the charge that a session, a payment intent or a charge was paid with."""
        if identity.startswith("ch_"):
            return self.objects.get("charge", identity)
        intent = self.intent_of(identity)
        if intent["latest_charge"] is None:
            raise Refused(f"Nothing was charged for {identity}.")
        return self.objects.get("charge", intent["latest_charge"])

    def intent_of(self, identity: str) -> Thing:
        """Find the intent of a session that is complete, or the intent itself."""
        if identity.startswith("cs_"):
            session = self.checkout.get(identity)
            if session["payment_intent"] is None:
                raise Refused(f"{identity} has no payment.")
            identity = session["payment_intent"]
        return self.objects.get("payment_intent", identity)
