"""CheckoutService over a real channel, on both databases, against the sandbox of Stripe."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest

from openanimate.metering.v1 import admin_service_pb2 as admin
from openanimate.metering.v1 import checkout_service_pb2 as pb
from openanimate.metering.v1 import pricing_service_pb2 as pricing
from openanimate.metering.v1.role_pb2 import ROLE_ADMIN
from tests import loopback
from tests.rpc.asking import assert_roles, invalid, not_found, refused_stream, reused, stream
from tests.selling import FIFTY, FIFTY_FIVE, FREE, now, selling, session_of, wallet_of
from tests.server import Calls, Refused, new_key

if TYPE_CHECKING:
    from pathlib import Path

    from tests.selling import RunningShop

UNKNOWN = "000000000000-abcdefghijklmnopqrstuvwx"
HOUR = 3_600_000_000


def test_owners_buy_and_admins_look(shop: RunningShop) -> None:
    looking = {"user", "admin"}
    assert_roles(
        shop.server,
        {
            "CheckoutService/CreateCheckout": {"user"},
            "CheckoutService/GetCheckout": looking,
            "CheckoutService/WatchCheckout": looking,
            "CheckoutService/ListPurchases": looking,
            "CheckoutService/GetReceipt": looking,
        },
    )


# Beginning -------------------------------------------------------------------------------------------


def test_a_checkout_says_what_is_bought_where_it_is_paid_and_until_when(
    shop: RunningShop, buyer: Calls
) -> None:
    request = pb.CreateCheckoutRequest(amount_micros=FIFTY, idempotency_key=new_key())
    answer = buyer(buyer.checkout.CreateCheckout, request)
    made = answer.checkout
    account, _, token = made.checkout_id.partition("-")
    assert (account, len(token), token.isalnum()) == (buyer.user.account_id, 24, True)
    assert made.url.startswith(f"{shop.stripe.sandbox.url}/pay/cs_test_")
    # Stripe's times are whole seconds.
    lasts = made.expires_at.ToMicroseconds() - made.created_at.ToMicroseconds()
    assert 23 * HOUR - 1_000_000 <= lasts <= 23 * HOUR
    expected = pb.Checkout(
        checkout_id=made.checkout_id,
        account_id=account,
        state=pb.CHECKOUT_STATE_OPEN,
        amount_micros=FIFTY,
        bonus_micros=5_000_000,
        credits_micros=FIFTY_FIVE,
        url=made.url,
        created_at=made.created_at,
        expires_at=made.expires_at,
    )
    assert answer == pb.CreateCheckoutResponse(checkout=expected)
    get = pb.GetCheckoutRequest(checkout_id=made.checkout_id)
    assert buyer(buyer.checkout.GetCheckout, get) == pb.GetCheckoutResponse(
        checkout=expected, wallet=wallet_of(buyer)
    )


@pytest.mark.parametrize(
    ("amount", "bonus"),
    [
        (5_000_000, 0),
        (49_990_000, 0),
        (FIFTY, 5_000_000),
        (50_010_000, 5_001_000),
        (100_000_000, 10_000_000),
        (10_000_000_000, 1_000_000_000),
    ],
)
def test_from_fifty_dollars_on_ten_percent_of_all_of_it_comes_on_top(
    shop: RunningShop, buyer: Calls, amount: int, bonus: int
) -> None:
    begun = shop.begin(buyer, amount)
    assert (begun.bonus_micros, begun.credits_micros) == (bonus, amount + bonus)


def test_the_terms_are_published(buyer: Calls) -> None:
    listed = buyer(buyer.pricing.ListPrices, pricing.ListPricesRequest(category="image"))
    assert listed.purchase_terms == pricing.PurchaseTerms(
        minimum_micros=5_000_000,
        maximum_micros=10_000_000_000,
        bonus_threshold_micros=FIFTY,
        bonus_percent=10,
    )


@pytest.mark.parametrize(
    ("amount", "key", "field"),
    [
        (0, "a", "amount_micros"),
        (-5_000_000, "a", "amount_micros"),
        (4_990_000, "a", "amount_micros"),
        (5_000_001, "a", "amount_micros"),
        (5_009_999, "a", "amount_micros"),
        (10_000_010_000, "a", "amount_micros"),
        (10**12 + 10_000, "a", "amount_micros"),
        (2**63 - 1, "a", "amount_micros"),
        (-(2**63), "a", "amount_micros"),
        (FIFTY, "", "idempotency_key"),
        (FIFTY, "k" * 256, "idempotency_key"),
        (FIFTY, "k\0", "idempotency_key"),
    ],
)
def test_bad_input_names_its_field(buyer: Calls, amount: int, key: str, field: str) -> None:
    request = pb.CreateCheckoutRequest(amount_micros=amount, idempotency_key=key)
    assert buyer.refused(buyer.checkout.CreateCheckout, request) == invalid(field)


def test_the_same_key_is_the_same_checkout(shop: RunningShop, buyer: Calls) -> None:
    request = pb.CreateCheckoutRequest(amount_micros=FIFTY, idempotency_key="once")
    first = buyer(buyer.checkout.CreateCheckout, request)
    again = buyer(buyer.checkout.CreateCheckout, request)
    assert again == pb.CreateCheckoutResponse(checkout=first.checkout, replayed=True)
    for amount in (100_000_000, 4_990_000, 5_000_001):
        other = pb.CreateCheckoutRequest(amount_micros=amount, idempotency_key="once")
        assert buyer.refused(buyer.checkout.CreateCheckout, other) == reused("once")
    somebody = Calls(shop.server.channel, shop.server.sign_up())
    assert not somebody(somebody.checkout.CreateCheckout, request).replayed
    # Paid, too: it is said how it stands now.
    shop.stripe.told(f"sessions/{session_of(first.checkout)}/pay")
    paid = buyer(buyer.checkout.CreateCheckout, request)
    assert (paid.checkout, paid.replayed) == (now(buyer, first.checkout), True)
    assert (paid.checkout.state, paid.checkout.url) == (pb.CHECKOUT_STATE_PAID, "")


def test_the_same_key_at_once_is_one_checkout_with_one_page(shop: RunningShop, buyer: Calls) -> None:
    request = pb.CreateCheckoutRequest(amount_micros=FIFTY, idempotency_key=new_key())
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: buyer(buyer.checkout.CreateCheckout, request), range(16)))
    assert len({answer.checkout.checkout_id for answer in answers}) == 1
    assert len({answer.checkout.url for answer in answers}) == 1
    assert sum(not answer.replayed for answer in answers) == 1


def test_a_frozen_account_buys(shop: RunningShop, buyer: Calls) -> None:
    operator = Calls(shop.server.channel, shop.server.create_key(ROLE_ADMIN))
    freeze = admin.FreezeAccountRequest(
        account_id=buyer.user.account_id, frozen=True, reason="a look", idempotency_key=new_key()
    )
    operator(operator.admin.FreezeAccount, freeze)
    shop.buy(buyer)
    assert (wallet_of(buyer).balance_micros, wallet_of(buyer).frozen) == (FREE + FIFTY_FIVE, True)


@pytest.mark.parametrize("fault", ["500", "drop_after", "429"])
def test_while_stripe_is_away_the_same_key_goes_on_later(shop: RunningShop, buyer: Calls, fault: str) -> None:
    request = pb.CreateCheckoutRequest(amount_micros=FIFTY, idempotency_key=new_key())
    shop.stripe.tell("faults", at="api", do=fault, times=None, seconds=0, match="POST /v1/checkout")
    try:
        refused = buyer.refused(buyer.checkout.CreateCheckout, request)
    finally:
        shop.stripe.forget_faults()
    assert refused == Refused(grpc.StatusCode.UNAVAILABLE, "PAYMENTS_AWAY")
    assert refused.retry_seconds is not None
    answer = buyer(buyer.checkout.CreateCheckout, request)
    assert answer.replayed
    shop.stripe.told(f"sessions/{session_of(answer.checkout)}/pay")
    assert wallet_of(buyer).balance_micros == FREE + FIFTY_FIVE


# Whose it is -----------------------------------------------------------------------------------------


def test_somebody_else_s_checkout_looks_like_none(shop: RunningShop, buyer: Calls) -> None:
    bought, begun = shop.buy(buyer), shop.begin(buyer)
    stranger = Calls(shop.server.channel, shop.server.sign_up())
    for named in (bought.checkout_id, begun.checkout_id, UNKNOWN, "", "nonsense", f"{UNKNOWN}x", "-"):
        get, watch = pb.GetCheckoutRequest(checkout_id=named), pb.WatchCheckoutRequest(checkout_id=named)
        receipt = pb.GetReceiptRequest(checkout_id=named)
        answers = [
            stranger.refused(stranger.checkout.GetCheckout, get),
            refused_stream(stranger, stranger.checkout.WatchCheckout, watch),
            stranger.refused(stranger.checkout.GetReceipt, receipt),
        ]
        assert answers == [not_found("checkout")] * 3, named
        assert len({answer.message for answer in answers}) == 1
    for named in (buyer.user.account_id, "000000000000", "nonsense"):
        purchases = pb.ListPurchasesRequest(account_id=named)
        assert stranger.refused(stranger.checkout.ListPurchases, purchases) == not_found("account")


def test_an_admin_looks_at_every_account_s(shop: RunningShop, buyer: Calls) -> None:
    bought = shop.buy(buyer)
    operator = Calls(shop.server.channel, shop.server.create_key(ROLE_ADMIN))
    get = pb.GetCheckoutRequest(checkout_id=bought.checkout_id)
    watch = pb.WatchCheckoutRequest(checkout_id=bought.checkout_id)
    receipt = pb.GetReceiptRequest(checkout_id=bought.checkout_id)
    purchases = pb.ListPurchasesRequest(account_id=buyer.user.account_id)
    for calls in (buyer, operator):
        assert calls(calls.checkout.GetCheckout, get).checkout == bought
        assert [one.checkout for one in stream(calls, calls.checkout.WatchCheckout, watch)] == [bought]
        assert calls(calls.checkout.GetReceipt, receipt).receipt.purchase == bought
        assert list(calls(calls.checkout.ListPurchases, purchases).purchases) == [bought]
    unknown = pb.ListPurchasesRequest(account_id="000000000000")
    assert operator.refused(operator.checkout.ListPurchases, unknown) == not_found("account")


# Watching --------------------------------------------------------------------------------------------


def test_a_watch_ends_with_the_credits(shop: RunningShop, buyer: Calls) -> None:
    begun = shop.begin(buyer)
    watch = stream(
        buyer, buyer.checkout.WatchCheckout, pb.WatchCheckoutRequest(checkout_id=begun.checkout_id)
    )
    first = next(watch)
    assert first == pb.WatchCheckoutResponse(checkout=begun, wallet=wallet_of(buyer))
    shop.stripe.told(f"sessions/{session_of(begun)}/pay")
    *_, last = watch
    assert last.checkout == now(buyer, begun)
    assert (last.checkout.state, last.wallet.balance_micros) == (pb.CHECKOUT_STATE_PAID, FREE + FIFTY_FIVE)
    assert last.checkout.HasField("credited_at")


def test_a_watch_tells_of_a_slow_payment_and_ends_when_it_fails(shop: RunningShop, buyer: Calls) -> None:
    begun = shop.begin(buyer)
    watch = stream(
        buyer, buyer.checkout.WatchCheckout, pb.WatchCheckoutRequest(checkout_id=begun.checkout_id)
    )
    assert next(watch).checkout.state == pb.CHECKOUT_STATE_OPEN
    shop.stripe.told(f"sessions/{session_of(begun)}/pay-later")
    assert next(watch).checkout.state == pb.CHECKOUT_STATE_PROCESSING
    shop.stripe.told(f"payments/{session_of(begun)}/settle", paid=False)
    assert [one.checkout.state for one in watch] == [pb.CHECKOUT_STATE_FAILED]
    assert wallet_of(buyer).balance_micros == FREE


def test_a_watch_ends_when_the_page_has_closed(shop: RunningShop, buyer: Calls) -> None:
    begun = shop.begin(buyer)
    watch = stream(
        buyer, buyer.checkout.WatchCheckout, pb.WatchCheckoutRequest(checkout_id=begun.checkout_id)
    )
    next(watch)
    path = f"{shop.stripe.sandbox.url}/v1/checkout/sessions/{session_of(begun)}/expire"
    loopback.post(path, headers={"authorization": "Bearer sk_test_sandbox"}).raise_for_status()
    *_, last = watch
    assert (last.checkout.state, last.checkout.url) == (pb.CHECKOUT_STATE_EXPIRED, "")


def test_whoever_watches_is_told_though_no_webhook_comes(shop: RunningShop, buyer: Calls) -> None:
    begun = shop.begin(buyer)
    shop.stripe.tell("delivering", paused=True)
    try:
        watch = stream(
            buyer, buyer.checkout.WatchCheckout, pb.WatchCheckoutRequest(checkout_id=begun.checkout_id)
        )
        next(watch)
        shop.stripe.tell(f"sessions/{session_of(begun)}/pay")
        *_, last = watch
        assert (last.checkout.state, last.wallet.balance_micros) == (
            pb.CHECKOUT_STATE_PAID,
            FREE + FIFTY_FIVE,
        )
    finally:
        shop.stripe.told("delivering")
    assert wallet_of(buyer).balance_micros == FREE + FIFTY_FIVE


def test_a_server_that_stops_does_not_wait_for_who_watches(tmp_path: Path) -> None:
    with selling({"OANIM_DATA": str(tmp_path)}) as shop:
        calls = Calls(shop.server.channel, shop.server.sign_up())
        begun = shop.begin(calls)
        watch = stream(
            calls, calls.checkout.WatchCheckout, pb.WatchCheckoutRequest(checkout_id=begun.checkout_id)
        )
        next(watch)
        began = time.monotonic()
        shop.server.on_loop(shop.server.app.stop())
        assert time.monotonic() - began < 5
        with pytest.raises(grpc.RpcError) as caught:
            next(watch)
        assert Refused.of(caught.value) == Refused(grpc.StatusCode.UNAVAILABLE, "DRAINING")


# What was bought -------------------------------------------------------------------------------------


def test_purchases_are_listed_newest_first_and_page(shop: RunningShop, buyer: Calls) -> None:
    shop.begin(buyer)  # not paid: no purchase
    bought = [shop.buy(buyer, micros) for micros in (5_000_000, 6_000_000, 7_000_000, 8_000_000, 9_000_000)]
    found: list[pb.Checkout] = []
    token, pages = "", 0
    while pages == 0 or token:
        request = pb.ListPurchasesRequest(page_size=2, page_token=token)
        page = buyer(buyer.checkout.ListPurchases, request)
        found += page.purchases
        token, pages = page.next_page_token, pages + 1
    assert (found, pages) == (bought[::-1], 3)
    everything = buyer(buyer.checkout.ListPurchases, pb.ListPurchasesRequest())
    assert everything == pb.ListPurchasesResponse(purchases=found)


@pytest.mark.parametrize(
    ("size", "token", "field"),
    [
        (-1, "", "page_size"),
        (1_001, "", "page_size"),
        (0, "nonsense", "page_token"),
        (0, "MA==", "page_token"),
        # A number beyond every database's.
        (0, "OTk5OTk5OTk5OTk5OTk5OTk5OTk", "page_token"),
    ],
)
def test_a_page_that_is_none_names_its_field(buyer: Calls, size: int, token: str, field: str) -> None:
    request = pb.ListPurchasesRequest(page_size=size, page_token=token)
    assert buyer.refused(buyer.checkout.ListPurchases, request) == invalid(field)


def test_a_receipt_says_what_was_paid_and_what_came_back(shop: RunningShop, buyer: Calls) -> None:
    begun = shop.begin(buyer)
    session = session_of(begun)
    receipt = pb.GetReceiptRequest(checkout_id=begun.checkout_id)
    assert buyer.refused(buyer.checkout.GetReceipt, receipt) == not_found("purchase")
    shop.stripe.told(f"sessions/{session}/pay")
    found = buyer(buyer.checkout.GetReceipt, receipt).receipt
    assert found == pb.Receipt(
        purchase=now(buyer, begun), email=found.email, paid_micros=FIFTY, receipt_url=found.receipt_url
    )
    assert "@" in found.email
    assert found.receipt_url.startswith(f"{shop.stripe.sandbox.url}/receipts/ch_")
    refund = shop.stripe.tell("refunds", of=session, amount=1_000)["id"]
    failed = shop.stripe.tell("refunds", of=session, amount=2_000, status="pending")["id"]
    shop.stripe.told(f"refunds/{failed}", status="failed")
    dispute = shop.stripe.tell("disputes", of=session, amount=500)["id"]
    shop.stripe.told("delivering")
    back = buyer(buyer.checkout.GetReceipt, receipt).receipt
    assert list(back.reversals) == [
        pb.Reversal(
            kind=pb.REVERSAL_KIND_REFUND,
            provider_id=refund,
            amount_micros=10_000_000,
            state="succeeded",
            counts=True,
        ),
        pb.Reversal(
            kind=pb.REVERSAL_KIND_REFUND, provider_id=failed, amount_micros=20_000_000, state="failed"
        ),
        pb.Reversal(
            kind=pb.REVERSAL_KIND_DISPUTE,
            provider_id=dispute,
            amount_micros=5_000_000,
            state="needs_response",
            counts=True,
        ),
    ]
    assert back.purchase.reversed_micros == 16_500_000
    assert wallet_of(buyer).balance_micros == FREE + FIFTY_FIVE - 16_500_000


def test_what_the_payments_came_to_is_counted(shop: RunningShop, buyer: Calls) -> None:
    def counted() -> dict[str, float]:
        names = {"credited", "applied", "repeated", "parked", "quarantined", "rejected"}
        metrics = shop.metrics()
        return {name: metrics[f'oanim_payment_events_total{{standing="{name}"}}'] for name in names}

    before = counted()
    begun = shop.begin(buyer)
    shop.stripe.told("delivering", copies=1)
    try:
        shop.stripe.told(f"sessions/{session_of(begun)}/pay")
    finally:
        shop.stripe.told("delivering")
    shop.stripe.told("refunds", of=session_of(begun), amount=100)
    shop.deliver(b"{}", "t=1,v1=0")
    grown = {name: count - before[name] for name, count in counted().items()}
    assert (grown["credited"], grown["rejected"], grown["quarantined"], grown["parked"]) == (1, 1, 0, 0)
    assert grown["repeated"] >= 1
    assert grown["applied"] >= 1
    metrics = shop.metrics()
    assert metrics["oanim_payment_reconciliations_total"] >= 1
    assert "oanim_payment_polls_total" in metrics
    assert buyer.user.account_id not in shop.page("/metrics").text
