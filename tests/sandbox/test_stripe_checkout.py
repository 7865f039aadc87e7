from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
import stripe

if TYPE_CHECKING:
    from oanim_server.sandbox import StripeSandbox
    from tests.sandbox.conftest import Tell


def types(client: stripe.StripeClient) -> list[str]:
    """What happened, oldest first."""
    return [str(event.type) for event in client.v1.events.list({"limit": 100}).auto_paging_iter()][::-1]


def asked(**more: Any) -> stripe.params.checkout.SessionCreateParams:
    line = {
        "price_data": {"currency": "usd", "unit_amount": 999, "product_data": {"name": "x"}},
        "quantity": 5,
    }
    made: Any = {"mode": "payment", "line_items": [line], "success_url": "https://example.com/", **more}
    params: stripe.params.checkout.SessionCreateParams = made
    return params


def test_a_new_session_is_open_and_unpaid(
    client: stripe.StripeClient, sandbox: StripeSandbox, session: stripe.checkout.Session
) -> None:
    assert (session.id[:8], session.object, session.livemode) == ("cs_test_", "checkout.session", False)
    assert (session.status, session.payment_status, session.payment_intent) == ("open", "unpaid", None)
    assert (session.amount_subtotal, session.amount_total, session.currency) == (5_000, 5_000, "usd")
    assert (session.client_reference_id, session.metadata["account"]) == ("purchase-1", "a")  # type: ignore[index]
    assert session.url == f"{sandbox.url}/pay/{session.id}"
    assert session.expires_at == pytest.approx(time.time() + 24 * 3600, abs=5)
    assert client.v1.checkout.sessions.retrieve(session.id).to_dict() == session.to_dict()


def test_a_paid_session_shows_its_payment_and_tells_it_in_order(
    client: stripe.StripeClient, tell: Tell, session: stripe.checkout.Session
) -> None:
    tell(f"sessions/{session.id}/pay", email="jo@example.com")
    paid = client.v1.checkout.sessions.retrieve(
        session.id, {"expand": ["payment_intent.latest_charge.balance_transaction", "line_items"]}
    )
    assert (paid.status, paid.payment_status, paid.url) == ("complete", "paid", None)
    assert paid.customer_details
    assert paid.customer_details.email == "jo@example.com"
    assert isinstance(paid.payment_intent, stripe.PaymentIntent)
    charge = paid.payment_intent.latest_charge
    assert isinstance(charge, stripe.Charge)
    assert (charge.amount, charge.paid, charge.payment_intent) == (5_000, True, paid.payment_intent.id)
    assert isinstance(charge.balance_transaction, stripe.BalanceTransaction)
    assert (charge.balance_transaction.net, charge.balance_transaction.fee) == (4_825, 175)
    assert paid.line_items
    assert [line.description for line in paid.line_items.data] == ["Credits"]
    assert types(client) == [
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.succeeded",
        "checkout.session.completed",
    ]


def test_an_event_keeps_the_session_as_it_stood(
    client: stripe.StripeClient, tell: Tell, session: stripe.checkout.Session
) -> None:
    tell(f"sessions/{session.id}/pay-later")
    tell(f"payments/{session.id}/settle", paid=True)
    seen = [
        (event.type.rpartition(".")[2], event.data.object["payment_status"])
        for event in client.v1.events.list({"type": "checkout.session.*"}).data
    ]
    assert seen == [("async_payment_succeeded", "paid"), ("completed", "unpaid")]


@pytest.mark.parametrize(("paid", "status"), [(True, "paid"), (False, "unpaid")])
def test_a_payment_that_takes_days_completes_its_session_first(
    client: stripe.StripeClient, tell: Tell, session: stripe.checkout.Session, *, paid: bool, status: str
) -> None:
    tell(f"sessions/{session.id}/pay-later")
    pending = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["payment_intent"]})
    assert (pending.status, pending.payment_status) == ("complete", "unpaid")
    assert isinstance(pending.payment_intent, stripe.PaymentIntent)
    assert pending.payment_intent.status == "processing"
    tell(f"payments/{session.id}/settle", paid=paid)
    ended = client.v1.checkout.sessions.retrieve(session.id)
    assert (ended.status, ended.payment_status) == ("complete", status)
    word = "succeeded" if paid else "failed"
    assert types(client)[-3:] == [
        f"charge.{word}",
        "payment_intent.succeeded" if paid else "payment_intent.payment_failed",
        f"checkout.session.async_payment_{word}",
    ]
    with pytest.raises(Exception, match="400"):
        tell(f"payments/{session.id}/settle", paid=True)


def test_a_declined_card_leaves_the_session_open_and_the_next_one_pays_the_same_intent(
    client: stripe.StripeClient, tell: Tell, session: stripe.checkout.Session
) -> None:
    declined = tell(f"sessions/{session.id}/decline")
    assert (declined["status"], declined["payment_intent"]) == ("open", None)
    paid = tell(f"sessions/{session.id}/pay")
    assert (paid["status"], paid["payment_status"]) == ("complete", "paid")
    charges = client.v1.charges.list({"payment_intent": paid["payment_intent"]}).data
    assert [charge.status for charge in charges] == ["succeeded", "failed"]
    assert types(client).count("payment_intent.created") == 1


def test_abandoning_changes_nothing(
    client: stripe.StripeClient, tell: Tell, session: stripe.checkout.Session
) -> None:
    assert tell(f"sessions/{session.id}/abandon")["status"] == "open"
    assert types(client) == []


def test_tax_comes_on_top_once_the_customer_s_place_is_known(client: stripe.StripeClient, tell: Tell) -> None:
    session = client.v1.checkout.sessions.create(asked(automatic_tax={"enabled": True}))
    assert (session.amount_subtotal, session.amount_total) == (4_995, 4_995)
    assert session.automatic_tax.status == "requires_location_inputs"
    tell(f"sessions/{session.id}/pay")
    paid = client.v1.checkout.sessions.retrieve(session.id)
    assert paid.total_details
    assert (paid.amount_subtotal, paid.total_details.amount_tax, paid.amount_total) == (4_995, 499, 5_494)
    assert paid.automatic_tax.status == "complete"


def test_a_session_of_an_existing_price_makes_an_invoice_and_keeps_what_its_intent_was_given(
    client: stripe.StripeClient, tell: Tell
) -> None:
    product = client.v1.products.create({"name": "Credits"})
    price = client.v1.prices.create({"product": product.id, "unit_amount": 1_500, "currency": "usd"})
    session = client.v1.checkout.sessions.create(
        asked(
            line_items=[{"price": price.id, "quantity": 2}],
            invoice_creation={"enabled": True},
            adaptive_pricing={"enabled": False},
            customer_email="jo@example.com",
            customer_creation="always",
            payment_intent_data={"metadata": {"purchase": "1"}, "setup_future_usage": "off_session"},
        )
    )
    assert session.adaptive_pricing
    assert (session.amount_total, session.adaptive_pricing.enabled) == (3_000, False)
    [line] = client.v1.checkout.sessions.line_items.list(session.id).data
    assert (line.quantity, line.amount_total, line.description) == (2, 3_000, "Credits")
    tell(f"sessions/{session.id}/pay")
    paid = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["invoice", "payment_intent"]})
    assert isinstance(paid.invoice, stripe.Invoice)
    assert (paid.invoice.status, paid.invoice.amount_paid) == ("paid", 3_000)
    assert isinstance(paid.payment_intent, stripe.PaymentIntent)
    assert paid.payment_intent.metadata["purchase"] == "1"
    # The card was kept, and pays again without its owner.
    [kept] = client.v1.customers.payment_methods.list(str(paid.customer)).data
    again = client.v1.payment_intents.create(
        {
            "amount": 1_000,
            "currency": "usd",
            "customer": str(paid.customer),
            "payment_method": kept.id,
            "off_session": True,
            "confirm": True,
        }
    )
    assert again.status == "succeeded"


def test_a_session_expires_by_itself_and_by_call_and_is_then_not_paid(
    client: stripe.StripeClient, tell: Tell, session: stripe.checkout.Session
) -> None:
    other = client.v1.checkout.sessions.create(asked())
    tell(f"sessions/{session.id}/expire-in", seconds=0.1)
    assert client.v1.checkout.sessions.expire(other.id).status == "expired"
    while client.v1.checkout.sessions.retrieve(session.id).status == "open":
        time.sleep(0.01)
    expired = client.v1.checkout.sessions.retrieve(session.id)
    assert (expired.status, expired.url) == ("expired", None)
    assert types(client) == ["checkout.session.expired"] * 2
    with pytest.raises(stripe.InvalidRequestError, match="expired"):
        client.v1.checkout.sessions.expire(session.id)
    with pytest.raises(Exception, match="400"):
        tell(f"sessions/{session.id}/pay")


def test_sessions_are_listed_newest_first_over_pages(client: stripe.StripeClient) -> None:
    made = [client.v1.checkout.sessions.create(asked()).id for _ in range(5)]
    listed = client.v1.checkout.sessions.list({"limit": 2, "status": "open"})
    assert ([session.id for session in listed.data], listed.has_more) == (made[:2:-1], True)
    assert [session.id for session in listed.auto_paging_iter()] == made[::-1]
    since = client.v1.checkout.sessions.list({"created": {"gte": int(time.time()) + 60}})
    assert since.data == []
    assert client.v1.checkout.sessions.list({"status": "expired"}).data == []


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"mode": "subscription"}, "mode"),
        ({"line_items": []}, "line_items"),
        ({"line_items": [{"price": "price_x", "quantity": 1}]}, "line_items[0][price]"),
        ({"success_url": "javascript:alert(1)"}, "success_url"),
        ({"success_url": ""}, "success_url"),
        ({"expires_at": 1}, "expires_at"),
        ({"customer": "cus_x"}, "customer"),
        ({"surprise": 1}, "surprise"),
        ({"metadata": {"x": "y" * 501}}, "metadata[x]"),
        ({"client_reference_id": "x" * 201}, "client_reference_id"),
    ],
)
def test_a_session_that_makes_no_sense_is_refused(
    client: stripe.StripeClient, more: dict[str, Any], param: str
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.checkout.sessions.create(asked(**more))
    assert refused.value.param == param


@pytest.mark.parametrize("cents", ["49", "100000000", "-1", "1.5", "1_000", "\u0661\u0660\u0660\u0660"])
def test_an_amount_that_stripe_would_refuse_is_refused(client: stripe.StripeClient, cents: str) -> None:
    data = {"currency": "usd", "unit_amount": cents, "product_data": {"name": "x"}}
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.checkout.sessions.create(asked(line_items=[{"price_data": data, "quantity": 1}]))


def test_the_same_through_the_asynchronous_sdk(sandbox: StripeSandbox, tell: Tell) -> None:
    async def use() -> list[str | None]:
        http = stripe.HTTPXClient()
        client = stripe.StripeClient("sk_test_sandbox", base_addresses={"api": sandbox.url}, http_client=http)
        try:
            session = await client.v1.checkout.sessions.create_async(asked())
            await asyncio.to_thread(tell, f"sessions/{session.id}/pay")
            paid = await client.v1.checkout.sessions.retrieve_async(session.id)
            refund = await client.v1.refunds.create_async({"payment_intent": str(paid.payment_intent)})
            events = [
                event async for event in (await client.v1.events.list_async({"limit": 1})).auto_paging_iter()
            ]
            return [paid.payment_status, refund.status, *sorted(event.type for event in events)]
        finally:
            await http.close_async()  # type: ignore[no-untyped-call]

    assert asyncio.run(use()) == [
        "paid",
        "succeeded",
        "charge.refunded",
        "charge.succeeded",
        "checkout.session.completed",
        "payment_intent.created",
        "payment_intent.succeeded",
        "refund.created",
    ]
