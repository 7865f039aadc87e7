"""Why a checkout, or a refund, cannot be."""

from __future__ import annotations

from oanim_server.ledger.refusals import Refusal


class PurchasesNotConfigured(Refusal):
    """This server has no key for Stripe."""


class PaymentsAway(Refusal):
    """Stripe does not answer, or not as it should. The same again, under the same key, is safe."""
