from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import stripe

from tests.sandbox.test_stripe_checkout import types

if TYPE_CHECKING:
    from tests.sandbox.conftest import Tell


def pay(client: stripe.StripeClient, method: str = "pm_card_visa", **more: Any) -> stripe.PaymentIntent:
    asked: Any = {"amount": 2_000, "currency": "usd", "payment_method": method, "confirm": True, **more}
    return client.v1.payment_intents.create(asked)


def test_a_card_is_charged_at_once(client: stripe.StripeClient) -> None:
    intent = pay(client, metadata={"purchase": "1"})
    assert (intent.status, intent.amount_received) == ("succeeded", 2_000)
    charge = client.v1.charges.retrieve(str(intent.latest_charge))
    assert (charge.status, charge.paid, charge.captured, charge.metadata["purchase"]) == (
        "succeeded",
        True,
        True,
        "1",
    )
    assert charge.receipt_url
    assert types(client) == ["payment_intent.created", "charge.succeeded", "payment_intent.succeeded"]


def test_a_declined_card_is_a_card_error_with_the_intent(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.CardError) as refused:
        pay(client, "pm_card_chargeDeclinedInsufficientFunds")
    assert (refused.value.http_status, refused.value.code) == (402, "card_declined")
    error = refused.value.error
    assert error
    assert (error.decline_code, error.payment_intent.status) == (  # type: ignore[union-attr]
        "insufficient_funds",
        "requires_payment_method",
    )
    assert types(client) == ["payment_intent.created", "charge.failed", "payment_intent.payment_failed"]


def test_a_card_that_asks_its_owner_pays_when_the_owner_agrees(
    client: stripe.StripeClient, tell: Tell
) -> None:
    intent = pay(client, "pm_card_authenticationRequired")
    assert intent.status == "requires_action"
    tell(f"payments/{intent.id}/settle", paid=True)
    assert client.v1.payment_intents.retrieve(intent.id).status == "succeeded"
    with pytest.raises(stripe.CardError) as refused:
        pay(client, "pm_card_authenticationRequired", off_session=True)
    assert refused.value.code == "authentication_required"


def test_an_intent_is_confirmed_updated_captured_or_cancelled(client: stripe.StripeClient) -> None:
    intents = client.v1.payment_intents
    intent = intents.create({"amount": 2_000, "currency": "usd", "capture_method": "manual"})
    assert intent.status == "requires_payment_method"
    assert intents.update(intent.id, {"metadata": {"a": "b"}}).metadata["a"] == "b"
    assert intents.confirm(intent.id, {"payment_method": "pm_card_visa"}).status == "requires_capture"
    assert intents.capture(intent.id).status == "succeeded"
    with pytest.raises(stripe.InvalidRequestError) as refused:
        intents.cancel(intent.id)
    assert refused.value.code == "payment_intent_unexpected_state"
    other = intents.create({"amount": 2_000, "currency": "usd"})
    assert intents.cancel(other.id).status == "canceled"
    assert [listed.id for listed in intents.list().data] == [other.id, intent.id]


@pytest.mark.parametrize(
    ("iban", "status"),
    [("AT611904300234573201", "succeeded"), ("AT861904300235473202", "requires_payment_method")],
)
def test_a_direct_debit_is_processing_and_then_ends_by_itself(
    client: stripe.StripeClient, iban: str, status: str
) -> None:
    method = client.v1.payment_methods.create(
        {"type": "sepa_debit", "sepa_debit": {"iban": iban}, "billing_details": {"name": "Jo"}}
    )
    intent = pay(client, method.id, currency="eur", payment_method_types=["sepa_debit"])
    assert intent.status == "processing"
    while (now := client.v1.payment_intents.retrieve(intent.id)).status == "processing":
        time.sleep(0.01)
    assert now.status == status


def test_a_card_that_was_set_up_pays_without_its_owner(client: stripe.StripeClient) -> None:
    customer = client.v1.customers.create({"email": "jo@example.com"})
    setup = client.v1.setup_intents.create(
        {"customer": customer.id, "payment_method": "pm_card_visa", "confirm": True}
    )
    assert setup.status == "succeeded"
    assert types(client)[-2:] == ["payment_method.attached", "setup_intent.succeeded"]
    [kept] = client.v1.payment_methods.list({"customer": customer.id}).data
    assert pay(client, kept.id, customer=customer.id, off_session=True).status == "succeeded"
    with pytest.raises(stripe.InvalidRequestError, match="include the customer"):
        pay(client, kept.id)
    assert client.v1.payment_methods.detach(kept.id).customer is None
    assert client.v1.payment_methods.list({"customer": customer.id}).data == []


def test_a_card_that_is_kept_may_be_declined_when_it_is_charged(client: stripe.StripeClient) -> None:
    customer = client.v1.customers.create({})
    kept = client.v1.payment_methods.attach("pm_card_chargeCustomerFail", {"customer": customer.id})
    with pytest.raises(stripe.CardError):
        pay(client, kept.id, customer=customer.id, off_session=True)
    with pytest.raises(stripe.CardError):
        client.v1.payment_methods.attach("pm_card_chargeDeclined", {"customer": customer.id})


def test_nothing_is_made_that_cannot_be_confirmed(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="missing a payment method"):
        client.v1.payment_intents.create({"amount": 100, "currency": "usd", "confirm": True})
    with pytest.raises(stripe.InvalidRequestError, match="missing a payment method"):
        client.v1.setup_intents.create({"confirm": True})
    setup = client.v1.setup_intents.create({})
    with pytest.raises(stripe.InvalidRequestError, match="missing a payment method"):
        client.v1.setup_intents.confirm(setup.id)
    assert client.v1.setup_intents.confirm(setup.id, {"payment_method": "pm_card_visa"}).status == "succeeded"
    assert types(client) == ["setup_intent.created", "setup_intent.succeeded"]


def test_customers_products_and_prices_are_kept_changed_and_deleted(client: stripe.StripeClient) -> None:
    customer = client.v1.customers.create({"email": "jo@example.com", "metadata": {"a": "1", "b": "2"}})
    changed = client.v1.customers.update(customer.id, {"name": "Jo", "metadata": {"a": ""}})
    assert (changed.name, changed.metadata.to_dict() if changed.metadata else None) == ("Jo", {"b": "2"})
    event = client.v1.events.list({"type": "customer.updated"}).data[0]
    before = event.data.previous_attributes
    assert before
    assert before.to_dict() == {"name": None, "metadata": {"a": "1", "b": "2"}}
    client.v1.customers.delete(customer.id)
    assert client.v1.customers.retrieve(customer.id).deleted
    assert client.v1.customers.list().data == []
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.customers.update(customer.id, {"name": "Al"})
    assert (refused.value.http_status, refused.value.code) == (404, "resource_missing")
    product = client.v1.products.create({"name": "Credits"})
    price = client.v1.prices.create({"product": product.id, "unit_amount": 100, "currency": "USD"})
    assert client.v1.prices.update(price.id, {"active": False}).active is False
    assert [listed.currency for listed in client.v1.prices.list({"product": product.id}).data] == ["usd"]
