from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx
import pytest
import stripe

from tests.sandbox.test_stripe_checkout import types

if TYPE_CHECKING:
    from tests.sandbox.conftest import Tell


@pytest.fixture
def charge(client: stripe.StripeClient, tell: Tell, session: stripe.checkout.Session) -> stripe.Charge:
    """Fifty dollars that were paid."""
    tell(f"sessions/{session.id}/pay")
    [charge] = client.v1.charges.list().data
    return charge


def news(client: stripe.StripeClient) -> list[str]:
    """What happened after the payment."""
    return types(client)[4:]


def test_a_charge_is_given_back_in_parts_and_never_more_than_it_was(
    client: stripe.StripeClient, charge: stripe.Charge
) -> None:
    part = client.v1.refunds.create(
        {
            "charge": charge.id,
            "amount": 2_000,
            "metadata": {"purchase": "1"},
            "reason": "requested_by_customer",
        }
    )
    assert (part.status, part.amount, part.payment_intent) == ("succeeded", 2_000, charge.payment_intent)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.refunds.create({"charge": charge.id, "amount": 3_001})
    assert refused.value.param == "amount"
    rest = client.v1.refunds.create({"payment_intent": str(charge.payment_intent)})
    assert rest.amount == 3_000
    now = client.v1.charges.retrieve(charge.id, {"expand": ["refunds"]})
    assert (now.amount_refunded, now.refunded) == (5_000, True)
    assert now.refunds
    assert [refund.id for refund in now.refunds.data] == [rest.id, part.id]
    assert [refund.id for refund in client.v1.refunds.list({"charge": charge.id}).data] == [rest.id, part.id]
    listed = client.v1.refunds.list({"payment_intent": str(charge.payment_intent), "limit": 1})
    assert [refund.id for refund in listed.auto_paging_iter()] == [rest.id, part.id]
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.refunds.create({"charge": charge.id})
    assert refused.value.code == "charge_already_refunded"
    assert news(client) == ["refund.created", "charge.refunded"] * 2


def test_a_refund_can_fail_long_after_and_is_then_left_to_give_back(
    client: stripe.StripeClient, tell: Tell, charge: stripe.Charge
) -> None:
    refund = tell("refunds", of=charge.payment_intent, amount=2_000)
    assert tell(f"refunds/{refund['id']}", status="failed")["failure_reason"] == "lost_or_stolen_card"
    assert client.v1.refunds.retrieve(refund["id"]).status == "failed"
    now = client.v1.charges.retrieve(charge.id)
    assert (now.amount_refunded, now.refunded) == (0, False)
    assert news(client)[2:] == ["refund.failed", "refund.updated", "charge.refund.updated"]
    assert client.v1.refunds.create({"charge": charge.id}).amount == 5_000


@pytest.mark.parametrize(("status", "left"), [("succeeded", 3_000), ("failed", 5_000), ("canceled", 5_000)])
def test_a_pending_refund_ends_once(
    client: stripe.StripeClient, tell: Tell, charge: stripe.Charge, status: str, left: int
) -> None:
    refund = tell("refunds", of=charge.id, amount=2_000, status="pending")
    assert client.v1.charges.retrieve(charge.id).amount_refunded == 2_000
    tell(f"refunds/{refund['id']}", status=status)
    assert client.v1.refunds.retrieve(refund["id"]).status == status
    assert 5_000 - client.v1.charges.retrieve(charge.id).amount_refunded == left
    with pytest.raises(httpx.HTTPStatusError, match="400"):
        tell(f"refunds/{refund['id']}", status="canceled")


def test_stripe_s_own_cards_make_refunds_that_wait_and_that_fail(
    client: stripe.StripeClient, tell: Tell
) -> None:
    for method, ends in {"pm_card_pendingRefund": "succeeded", "pm_card_refundFail": "failed"}.items():
        intent = client.v1.payment_intents.create(
            {"amount": 500, "currency": "usd", "payment_method": method, "confirm": True}
        )
        refund = client.v1.refunds.create({"payment_intent": intent.id})
        begins = refund.status
        while (now := client.v1.refunds.retrieve(refund.id).status) == begins:
            time.sleep(0.01)
        assert now == ends


def test_a_refund_s_metadata_can_be_added_to(client: stripe.StripeClient, charge: stripe.Charge) -> None:
    refund = client.v1.refunds.create({"charge": charge.id, "metadata": {"a": "1"}})
    changed = client.v1.refunds.update(refund.id, {"metadata": {"b": "2"}})
    assert changed.metadata
    assert changed.metadata.to_dict() == {"a": "1", "b": "2"}
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.refunds.cancel(refund.id)


def test_a_dispute_takes_the_money_and_is_lost(
    client: stripe.StripeClient, tell: Tell, session: stripe.checkout.Session, charge: stripe.Charge
) -> None:
    opened = tell("disputes", of=session.id, amount=4_000)
    dispute = client.v1.disputes.retrieve(opened["id"])
    assert (dispute.status, dispute.amount, dispute.charge) == ("needs_response", 4_000, charge.id)
    assert [booked.amount for booked in dispute.balance_transactions] == [-4_000]
    assert client.v1.charges.retrieve(charge.id).disputed
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.refunds.create({"charge": charge.id})
    assert refused.value.code == "charge_disputed"
    assert tell(f"disputes/{dispute.id}/close", status="lost")["status"] == "lost"
    assert news(client) == [
        "charge.dispute.created",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.closed",
    ]
    with pytest.raises(httpx.HTTPStatusError, match="400"):
        tell(f"disputes/{dispute.id}/close", status="won")


def test_a_dispute_that_is_won_gives_back_once(
    client: stripe.StripeClient, tell: Tell, charge: stripe.Charge
) -> None:
    dispute = tell("disputes", of=charge.id, withdraw=False)
    assert news(client) == ["charge.dispute.created"]
    tell(f"disputes/{dispute['id']}/withdraw")
    client.v1.disputes.update(
        dispute["id"], {"evidence": {"uncategorized_text": "delivered"}, "submit": True}
    )
    tell(f"disputes/{dispute['id']}/close", status="won", reinstate=False)
    tell(f"disputes/{dispute['id']}/reinstate")
    with pytest.raises(httpx.HTTPStatusError, match="400"):
        tell(f"disputes/{dispute['id']}/reinstate")
    assert news(client)[1:] == [
        "charge.dispute.funds_withdrawn",
        "charge.dispute.updated",
        "charge.dispute.closed",
        "charge.dispute.funds_reinstated",
    ]
    [won] = client.v1.disputes.list({"payment_intent": str(charge.payment_intent)}).data
    assert (won.status, [booked.amount for booked in won.balance_transactions]) == ("won", [-5_000, 5_000])
    assert client.v1.refunds.create({"charge": charge.id}).status == "succeeded"


def test_an_inquiry_takes_nothing_until_it_becomes_a_dispute(
    client: stripe.StripeClient, tell: Tell, charge: stripe.Charge
) -> None:
    first = tell("disputes", of=charge.id, inquiry=True)
    assert (first["status"], first["balance_transactions"]) == ("warning_needs_response", [])
    client.v1.refunds.create({"charge": charge.id, "amount": 100})
    assert tell(f"disputes/{first['id']}/close", status="warning_closed")["status"] == "warning_closed"
    second = tell("disputes", of=charge.id, inquiry=True)
    assert tell(f"disputes/{second['id']}/withdraw")["status"] == "needs_response"
    assert client.v1.disputes.close(second["id"]).status == "lost"
    assert [name for name in news(client) if "dispute" in name] == [
        "charge.dispute.created",
        "charge.dispute.closed",
        "charge.dispute.created",
        "charge.dispute.updated",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.closed",
    ]
