"""Money that goes back: refunds, which the seller makes, and disputes, which the customer's bank makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oanim_server.sandbox.stripe_forms import BadParameter, Params, Refused, Thing
from oanim_server.sandbox.stripe_objects import change, listed, merge_metadata

if TYPE_CHECKING:
    from collections.abc import Callable

    from oanim_server.sandbox.stripe_methods import Behaviour, Methods
    from oanim_server.sandbox.stripe_objects import Objects
    from oanim_server.sandbox.stripe_payments import Payments

_REASONS = ("duplicate", "fraudulent", "requested_by_customer")
# How a refund goes on from each state.
_AFTER = {
    "pending": ("succeeded", "failed", "canceled"),
    "succeeded": ("failed",),
}
_INQUIRY = ("warning_needs_response", "warning_under_review", "warning_closed")
_OPEN = ("needs_response", "under_review", "warning_needs_response", "warning_under_review")
_DISPUTE_FEE = 1_500
_SHORTLY_S = 0.2


class Reversals:
    """`later` runs something in so many seconds."""

    def __init__(
        self,
        objects: Objects,
        methods: Methods,
        payments: Payments,
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._objects = objects
        self._methods = methods
        self._payments = payments
        self._later = later

    # Refunds.

    def create_refund(self, params: Params) -> Thing:
        params.only(("amount", "charge", "metadata", "payment_intent", "reason"))
        if ("charge" in params) == ("payment_intent" in params):
            raise BadParameter("Name one of charge and payment_intent.", code="parameter_missing")
        if "charge" in params:
            charge = self._objects.get("charge", params.needed("charge"), "charge")
        else:
            identity = params.needed("payment_intent")
            intent = self._objects.get("payment_intent", identity, "payment_intent")
            charge = self._charge_of(intent)
        amount = params.integer("amount", least=1) if "amount" in params else None
        reason = params.choice("reason", _REASONS, "requested_by_customer") if "reason" in params else None
        return self.refund(charge, amount, metadata=params.metadata(), reason=reason)

    def refund(
        self,
        charge: Thing,
        amount: int | None,
        *,
        metadata: dict[str, str] | None = None,
        reason: str | None = None,
        status: str | None = None,
    ) -> Thing:
        """Give a charge back, or a part of it. `status` is the state to begin in."""
        left = charge["amount"] - charge["amount_refunded"]
        _refuse_refund(charge, left, amount)
        if any(dispute["is_charge_refundable"] is False for dispute in self._disputes_of(charge)):
            message = f"Charge {charge['id']} has been charged back; cannot issue a refund."
            raise Refused(message, code="charge_disputed")
        behaviour = self._methods.behaviour(self._objects.get("payment_method", charge["payment_method"]))
        refund = self._objects.add(
            "refund",
            {
                "amount": left if amount is None else amount,
                "balance_transaction": None,
                "charge": charge["id"],
                "currency": charge["currency"],
                "destination_details": {"type": "card"},
                "failure_balance_transaction": None,
                "failure_reason": None,
                "metadata": metadata or {},
                "payment_intent": charge["payment_intent"],
                "reason": reason,
                "receipt_number": None,
                "status": status or behaviour.refund,
            },
        )
        booked = self._payments.balance(refund, "refund", -refund["amount"], 0)
        refund["balance_transaction"] = booked["id"]
        self._count(charge)
        self._objects.emit("refund.created", refund)
        self._objects.emit("charge.refunded", charge)
        if behaviour.refund == "pending" and status is None:
            self._later(_SHORTLY_S, lambda: self._move_if("pending", refund, "succeeded"))
        if behaviour.refund_fails and status is None:
            self._later(_SHORTLY_S, lambda: self._move_if("succeeded", refund, "failed"))
        return refund

    def update_refund(self, params: Params, identity: str) -> Thing:
        params.only(("metadata",))
        refund = self._objects.get("refund", identity)
        self._refund_updated(refund, merge_metadata(refund, params))
        return refund

    def cancel_refund(self, _params: Params, identity: str) -> Thing:
        return self.move_refund(identity, "canceled")

    def move_refund(self, identity: str, status: str) -> Thing:
        """Let a refund end. Raises `Refused` when it cannot end so any more."""
        refund = self._objects.get("refund", identity)
        if status not in _AFTER.get(refund["status"], ()):
            raise Refused(f"A refund that is {refund['status']} cannot become {status}.")
        before = change(refund, status=status)
        if status == "failed":
            charge = self._objects.get("charge", refund["charge"])
            back = self._payments.balance(refund, "refund_failure", refund["amount"], 0)
            before |= change(
                refund, failure_reason="lost_or_stolen_card", failure_balance_transaction=back["id"]
            )
            self._count(charge)
            self._objects.emit("refund.failed", refund)
        elif status == "canceled":
            self._count(self._objects.get("charge", refund["charge"]))
        self._refund_updated(refund, before)
        return refund

    def refunds_of(self, charge: Thing) -> list[Thing]:
        """The refunds of a charge, newest first."""
        return [refund for refund in self._objects.all("refund")[::-1] if refund["charge"] == charge["id"]]

    # Disputes.

    def open_dispute(
        self,
        charge: Thing,
        amount: int | None = None,
        *,
        inquiry: bool = False,
        withdraw: bool = True,
        reason: str = "fraudulent",
    ) -> Thing:
        """The customer's bank asks (an inquiry), or takes the money back.

        `withdraw` false leaves the money for `withdraw` to take.
        """
        if charge["status"] != "succeeded":
            raise Refused(f"Charge {charge['id']} was not paid.")
        if amount is not None and not 1 <= amount <= charge["amount"]:
            raise Refused(f"A dispute is about 1 to {charge['amount']}.", param="amount")
        dispute = self._objects.add(
            "dispute",
            {
                "amount": charge["amount"] if amount is None else amount,
                "balance_transactions": [],
                "charge": charge["id"],
                "currency": charge["currency"],
                "evidence": {},
                "evidence_details": {"has_evidence": False, "past_due": False, "submission_count": 0},
                "is_charge_refundable": inquiry,
                "metadata": {},
                "network_reason_code": "10.4",
                "payment_intent": charge["payment_intent"],
                "payment_method_details": {"type": "card", "card": {"brand": "visa"}},
                "reason": reason,
                "status": "warning_needs_response" if inquiry else "needs_response",
            },
        )
        charge["disputed"] = True
        self._objects.emit("charge.dispute.created", dispute)
        if withdraw and not inquiry:
            self.withdraw(dispute["id"])
        return dispute

    def withdraw(self, identity: str) -> Thing:
        """The bank takes the money; an inquiry becomes a dispute by it."""
        dispute = self._objects.get("dispute", identity)
        if dispute["status"] not in _OPEN or dispute["balance_transactions"]:
            raise Refused("The funds of this dispute are withdrawn, or it is closed.")
        before = change(dispute, is_charge_refundable=False)
        if dispute["status"] in _INQUIRY:
            before |= change(dispute, status="needs_response")
            self._objects.emit("charge.dispute.updated", dispute, before)
        taken = self._payments.balance(dispute, "adjustment", -dispute["amount"], _DISPUTE_FEE)
        dispute["balance_transactions"].append(taken)
        self._objects.emit("charge.dispute.funds_withdrawn", dispute)
        return dispute

    def close_dispute(self, identity: str, status: str, *, reinstate: bool = True) -> Thing:
        """End a dispute as lost, won or warning_closed.

        What is won comes back; with `reinstate` false that is left for `reinstate`.
        """
        dispute = self._objects.get("dispute", identity)
        ends = ("warning_closed",) if dispute["status"] in _INQUIRY else ("won", "lost")
        if dispute["status"] not in _OPEN or status not in ends:
            raise Refused(f"A dispute that is {dispute['status']} cannot end as {status}.")
        change(dispute, status=status, is_charge_refundable=status != "lost")
        self._objects.emit("charge.dispute.closed", dispute)
        if status == "won" and reinstate and dispute["balance_transactions"]:
            self.reinstate(identity)
        return dispute

    def reinstate(self, identity: str) -> Thing:
        """The money of a dispute that was won comes back, once."""
        dispute = self._objects.get("dispute", identity)
        if dispute["status"] != "won" or len(dispute["balance_transactions"]) != 1:
            raise Refused("Only what was withdrawn and won can be reinstated, and only once.")
        back = self._payments.balance(dispute, "adjustment", dispute["amount"], 0)
        dispute["balance_transactions"].append(back)
        self._objects.emit("charge.dispute.funds_reinstated", dispute)
        return dispute

    def update_dispute(self, params: Params, identity: str) -> Thing:
        params.only(("evidence", "metadata", "submit"))
        dispute = self._objects.get("dispute", identity)
        if dispute["status"] not in _OPEN:
            raise Refused("This dispute is already closed.")
        before = merge_metadata(dispute, params)
        before |= change(dispute, evidence=dispute["evidence"] | params.inside("evidence").raw())
        if params.flag("submit", default="evidence" in params):
            under_review = dispute["status"].replace("needs_response", "under_review")
            before |= change(dispute, status=under_review)
        self._objects.emit("charge.dispute.updated", dispute, before)
        return dispute

    def accept_dispute(self, _params: Params, identity: str) -> Thing:
        """The seller gives in."""
        dispute = self._objects.get("dispute", identity)
        return self.close_dispute(identity, "warning_closed" if dispute["status"] in _INQUIRY else "lost")

    def charged(self, charge: Thing, behaviour: Behaviour) -> None:
        """A charge can be given back from now on; some of Stripe's test cards dispute what they paid."""
        where = f"/v1/charges/{charge['id']}/refunds"
        self._objects.hide(charge, "refunds", lambda: listed(self.refunds_of(charge), where))
        if behaviour.dispute:
            self.open_dispute(charge, inquiry=behaviour.dispute == "inquiry")

    def _charge_of(self, intent: Thing) -> Thing:
        if intent["latest_charge"] is None:
            raise Refused(f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund.")
        return self._objects.get("charge", intent["latest_charge"])

    def _disputes_of(self, charge: Thing) -> list[Thing]:
        return [dispute for dispute in self._objects.all("dispute") if dispute["charge"] == charge["id"]]

    def _count(self, charge: Thing) -> None:
        counted = [refund for refund in self.refunds_of(charge) if refund["status"] in _AFTER]
        amount = sum(refund["amount"] for refund in counted)
        change(charge, amount_refunded=amount, refunded=amount == charge["amount"])

    def _refund_updated(self, refund: Thing, before: Thing) -> None:
        self._objects.emit("refund.updated", refund, before)
        self._objects.emit("charge.refund.updated", refund, before)

    def _move_if(self, status: str, refund: Thing, to: str) -> None:
        if refund["status"] == status:
            self.move_refund(refund["id"], to)


def _refuse_refund(charge: Thing, left: int, amount: int | None) -> None:
    if charge["status"] != "succeeded":
        raise Refused(f"Charge {charge['id']} was not paid: it cannot be refunded.")
    if left == 0:
        message = f"Charge {charge['id']} has already been refunded."
        raise Refused(message, code="charge_already_refunded")
    if amount is not None and amount > left:
        message = f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})"
        raise Refused(message, param="amount")
