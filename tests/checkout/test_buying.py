"""From the page to the credits: once, however often it is told, and never before it is paid."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import httpx
import pytest
import stripe

from oanim_server.checkout.refusals import PaymentsAway
from oanim_server.checkout.stripe_api import PageOptions, Stripe
from oanim_server.checkout.values import Purchase, Standing, State
from oanim_server.ledger.values import Origin
from tests.checkout.house import KEY, SIGNING, USD, House, Rest, event, reference

if TYPE_CHECKING:
    from tests.checkout.house import Till

COMPLETED = "checkout.session.completed"
SUCCEEDED = "checkout.session.async_payment_succeeded"
CREDITED = Rest(55 * USD, 0, 0, [])
NOTHING = Rest(0, 0, 0, [])


def test_fifty_dollars_are_fifty_five_in_credits_with_a_receipt(house: House, till: Till) -> None:
    account = house.account()
    purchase = house.bought(account, 50)
    [charge] = till.all("charges")
    assert house.rest(account) == CREDITED
    assert (purchase.state, purchase.paid_micros, purchase.tax_micros) == (State.PAID, 50 * USD, 0)
    assert (purchase.charge, purchase.payment_intent) == (charge["id"], charge["payment_intent"])
    assert purchase.receipt_url == charge["receipt_url"]
    receipt, email = house.do(house.checkouts.receipt(account, purchase.token))
    assert (receipt.purchase, receipt.refunds, receipt.disputes) == (purchase, [], [])
    assert email == f"{account}@example.com" == charge["receipt_email"]
    lots = house.lots(account)
    assert [(lot.number, lot.origin, lot.amount_micros, lot.expires_at) for lot in lots] == [
        (1, Origin.BONUS, 5 * USD, None),
        (2, Origin.PURCHASE, 50 * USD, None),
    ]


def test_purchases_are_listed_once_they_are_paid_newest_first(house: House) -> None:
    account = house.account()
    house.buy(account)
    first, second, third = (house.bought(account, dollars) for dollars in (5, 6, 7))
    page = house.do(house.checkouts.page(account, before=None, limit=2))
    assert page == [third, second]
    assert house.do(house.checkouts.page(account, before=second.credit, limit=2)) == [first]


def test_a_payment_that_takes_days_credits_when_it_succeeds(house: House, till: Till) -> None:
    account = house.account()
    purchase = house.buy(account)
    till.tell(f"sessions/{purchase.session_id}/pay-later")
    house.delivered()
    assert (house.now(purchase).state, house.rest(account)) == (State.PROCESSING, NOTHING)
    till.tell(f"payments/{purchase.session_id}/settle", paid=True)
    house.delivered()
    assert (house.now(purchase).state, house.rest(account)) == (State.PAID, CREDITED)


def test_a_payment_that_fails_after_days_credits_nothing(house: House, till: Till) -> None:
    account = house.account()
    purchase = house.buy(account)
    till.tell(f"sessions/{purchase.session_id}/pay-later")
    till.tell(f"payments/{purchase.session_id}/settle", paid=False)
    house.delivered()
    assert (house.now(purchase).state, house.rest(account)) == (State.FAILED, NOTHING)


def test_a_declined_card_leaves_the_page_open_for_another(house: House, till: Till) -> None:
    account = house.account()
    purchase = house.buy(account)
    till.tell(f"sessions/{purchase.session_id}/decline")
    house.delivered()
    assert house.now(purchase) == purchase
    till.pay(purchase)
    house.delivered()
    assert house.rest(account) == CREDITED


@pytest.mark.parametrize("reverse", [False, True])
def test_events_that_come_in_the_wrong_order_credit_once(house: House, till: Till, *, reverse: bool) -> None:
    account = house.account()
    purchase = house.buy(account)
    till.deliver(paused=True)
    till.tell(f"sessions/{purchase.session_id}/pay-later")
    till.tell(f"payments/{purchase.session_id}/settle", paid=True)
    if reverse:
        till.tell("queue", do="reverse")
    till.deliver(at_once=10)
    house.delivered()
    assert house.rest(account) == CREDITED
    assert house.shop.counts.credited == 1


# Fifty at once ----------------------------------------------------------------------------------------


def test_one_event_delivered_fifty_times_at_once_under_different_ids_credits_once(
    house: House, till: Till
) -> None:
    account = house.account()
    purchase = house.buy(account)
    till.deliver(copies=49, new_ids=True, at_once=50)
    till.pay(purchase)
    house.delivered()
    assert house.rest(account) == CREDITED
    assert house.inbox() == [(COMPLETED, Standing.APPLIED)] * 50
    counts = house.shop.counts
    assert (counts.credited, counts.applied, counts.repeated) == (1, 49, 0)


def test_one_event_delivered_fifty_times_at_once_under_one_id_is_one_row(house: House, till: Till) -> None:
    account = house.account()
    purchase = house.buy(account)
    till.deliver(copies=49, at_once=50)
    till.pay(purchase)
    house.delivered()
    assert house.rest(account) == CREDITED
    assert house.inbox() == [(COMPLETED, Standing.APPLIED)]
    counts = house.shop.counts
    assert (counts.credited, counts.applied, counts.repeated) == (1, 0, 49)


def test_an_event_that_is_told_again_changes_nothing(house: House, till: Till) -> None:
    account = house.account()
    purchase = house.bought(account)
    told = till.events()
    assert house.receive(*told, *told) == [None] * 2 * len(told)
    # Whoever watches hears of changes alone, under whatever id the same is said.
    [completed] = till.events(COMPLETED)
    assert house.receive(completed._replace(event_id="evt_other")) == [Standing.APPLIED]
    assert house.now(purchase) == purchase
    assert house.rest(account) == CREDITED


def test_two_replicas_that_are_told_the_same_at_once_credit_once(replicas: House, till: Till) -> None:
    account = replicas.account()
    purchase = replicas.buy(account)
    till.deliver(copies=24, at_once=50)
    till.pay(purchase)
    replicas.delivered()
    assert replicas.rest(account) == CREDITED
    assert replicas.inbox() == [(COMPLETED, Standing.APPLIED)]
    assert sum(shop.counts.credited for shop in replicas.shops) == 1


def test_two_replicas_that_are_told_the_same_under_different_ids_credit_once(
    replicas: House, till: Till
) -> None:
    account = replicas.account()
    purchase = replicas.buy(account)
    till.deliver(copies=24, new_ids=True, at_once=50)
    till.pay(purchase)
    replicas.delivered()
    assert replicas.rest(account) == CREDITED
    assert replicas.inbox() == [(COMPLETED, Standing.APPLIED)] * 25
    assert sum(shop.counts.credited for shop in replicas.shops) == 1


def test_two_replicas_credit_many_purchases_of_many_accounts_and_each_is_told_half(
    replicas: House, till: Till
) -> None:
    accounts = [replicas.account() for _ in range(4)]
    purchases = [replicas.buy(account, 50) for account in accounts for _ in range(3)]
    till.deliver(paused=True)
    for purchase in purchases:
        till.pay(purchase)
        till.tell("refunds", of=purchase.session_id, amount=1_000)
    told = till.events()

    async def at_once() -> None:
        calls = [
            shop.checkouts.receive(one)
            for number, one in enumerate(told)
            for shop in replicas.shops
            if number % 3 == 2 or shop is replicas.shops[number % 3]
        ]
        await asyncio.gather(*calls)

    replicas.do(at_once())
    replicas.poll()
    assert [replicas.balance(account) for account in accounts] == [3 * 44 * USD] * 4
    assert replicas.problems() == []
    assert set(replicas.standings()) == {"APPLIED"}


# The return page --------------------------------------------------------------------------------------


def test_the_page_a_customer_comes_back_to_tells_how_the_purchase_stands(house: House, till: Till) -> None:
    account = house.account()
    purchase = house.buy(account)
    assert "Still waiting" in _seen(house, purchase)
    assert purchase.url in _seen(house, purchase, "?cancelled=1")
    till.pay(purchase)
    house.delivered()
    assert "$55.00 of credits" in _seen(house, purchase, "?cancelled=1")


def _seen(house: House, purchase: Purchase, query: str = "") -> str:
    async def got() -> str:
        where = house.shop.url.replace("/stripe/webhook", f"/checkout/{reference(purchase)}{query}")
        async with httpx.AsyncClient(trust_env=False) as http:
            return (await http.get(where)).raise_for_status().text

    return house.do(got())


# What is refused at the door, and what nobody here is concerned with ----------------------------------


def test_what_is_not_signed_is_refused_and_changes_nothing(house: House, till: Till) -> None:
    account = house.account()
    purchase = house.buy(account)
    till.deliver(paused=True)
    till.pay(purchase)
    [told] = till.events(COMPLETED)
    headers = ["", "t=1", "t=1,v1=00", stripe.WebhookSignature.generate_signature_header("x", SIGNING)]

    async def posted() -> list[int]:
        async with httpx.AsyncClient(trust_env=False) as http:
            answers = [
                await http.post(house.shop.url, content=told.payload, headers={"stripe-signature": header})
                for header in headers
            ]
        return [answer.status_code for answer in answers]

    assert house.do(posted()) == [400] * 4
    assert (house.rest(account), house.inbox()) == (NOTHING, [])
    assert house.shop.counts.rejected == 4


def test_what_others_sell_with_the_same_account_at_stripe_is_of_no_concern(house: House, till: Till) -> None:
    page = {
        "mode": "payment",
        "line_items[0][quantity]": "1",
        "line_items[0][price_data][currency]": "eur",
        "line_items[0][price_data][unit_amount]": "700",
        "line_items[0][price_data][product_data][name]": "A shirt",
        "success_url": "http://127.0.0.1:9/",
    }
    for reference_of_theirs in ("", "shirt 7 ✓", "a" * 16 + "-" + "b" * 24):
        named = {"client_reference_id": reference_of_theirs} if reference_of_theirs else {}
        session = till.call("checkout/sessions", **page, **named)
        till.tell(f"sessions/{session['id']}/pay")
    house.delivered()
    setup = {"id": "cs_setup", "mode": "setup", "status": "complete", "payment_status": "no_payment_required"}
    assert house.receive(event(COMPLETED, {**setup, "amount_total": None, "livemode": False})) == [
        Standing.OF_NO_CONCERN
    ]
    assert house.receive(event("customer.created", {"id": "cus_1"})) == [Standing.OF_NO_CONCERN]
    assert house.inbox() == [(COMPLETED, Standing.OF_NO_CONCERN)] * 4
    assert house.shop.counts.quarantined == 0


def test_no_secret_is_in_any_log(house: House, till: Till, caplog: pytest.LogCaptureFixture) -> None:
    wrong = "sk_live_secretOfAnother"
    with caplog.at_level(logging.DEBUG):
        purchase = house.bought(house.account())
        for do in ("429", "drop_before", "500"):
            till.fault(do, "POST /v1/refunds", times=None)
            house.refund_refused(purchase, 1)
            till.forgive()
        options = PageOptions(str, invoices=False, automatic_tax=False, receipt_mail=False)
        refusing = Stripe(wrong, url=till.url, options=options)
        with pytest.raises(PaymentsAway):
            house.do(refusing.session(purchase.session_id))
        house.do(refusing.aclose())
    said = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "Stripe does not answer" in said
    for secret in (KEY, SIGNING, wrong):
        assert secret.rpartition("_")[2] not in said
