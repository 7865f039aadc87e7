"""The SDK and the server together: credits that are bought, limited, given and taken back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx
import pytest

from oanim import errors
from oanim.client import Client
from oanim.keys import new_key
from openanimate.metering.v1.account_service_pb2 import LimitPeriod
from openanimate.metering.v1.checkout_service_pb2 import CheckoutState, ReversalKind
from openanimate.metering.v1.wallet_service_pb2 import TransactionKind
from tests import loopback
from tests.sdk.driving import Tasks, Threads
from tests.sdk.serving import RealServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openanimate.metering.v1.checkout_service_pb2 import WatchCheckoutResponse

FREE_MICROS = 5_000_000
PRICE_MICROS, CREDITS_MICROS = 50_000_000, 55_000_000
DAY = LimitPeriod.LIMIT_PERIOD_DAY


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """A server that no test harms."""
    with RealServer(tmp_path_factory.mktemp("server")) as running:
        yield running


def new_account(server: RealServer) -> str:
    """Open an account with the free credits; answers its key."""
    with Client("", url=server.url) as client:
        return client.sign_up(email=f"{new_key()}@example.com").secret


@pytest.fixture
def customer(real: RealServer) -> Iterator[Client]:
    """The client of a new account."""
    with Client(new_account(real), url=real.url) as client:
        yield client


@pytest.fixture(params=[Threads, Tasks], ids=["threads", "asyncio"])
def driving(request: pytest.FixtureRequest, real: RealServer) -> Iterator[Threads | Tasks]:
    """Either client of a new account."""
    with request.param(real.url, api_key=new_account(real)) as driver:
        yield driver


@pytest.fixture
def operator(real: RealServer) -> Iterator[Client]:
    """The client of the operator."""
    with Client(real.keys["admin"], url=real.url) as client:
        yield client


def pay(url: str, how: str = "pay") -> None:
    """Press a button of the sandbox's page."""
    response = loopback.post(url, data={"action": how, "email": "me@example.com"})
    assert response.status_code == httpx.codes.SEE_OTHER, response.text


def bought(client: Client) -> str:
    """Buy, and wait for the credits; answers the purchase's id."""
    checkout = client.create_checkout(amount_micros=PRICE_MICROS).checkout
    pay(checkout.url)
    *_, last = client.watch_checkout(checkout_id=checkout.checkout_id, timeout_s=30)
    assert last.checkout.state == CheckoutState.CHECKOUT_STATE_PAID
    return checkout.checkout_id


def test_a_purchase_is_watched_until_its_credits_are_in(driving: Threads | Tasks) -> None:
    begun = driving.call("create_checkout", amount_micros=PRICE_MICROS)

    def pay_once_seen(told: WatchCheckoutResponse) -> None:
        if told.checkout.state == CheckoutState.CHECKOUT_STATE_OPEN:
            pay(told.checkout.url)

    told = driving.collect(
        "watch_checkout", seen=pay_once_seen, checkout_id=begun.checkout.checkout_id, timeout_s=30
    )

    assert (begun.checkout.credits_micros, begun.replayed) == (CREDITS_MICROS, False)
    assert told[0].checkout.state == CheckoutState.CHECKOUT_STATE_OPEN
    assert told[-1].checkout.state == CheckoutState.CHECKOUT_STATE_PAID
    assert told[-1].wallet.balance_micros == FREE_MICROS + CREDITS_MICROS
    assert driving.call("get_wallet").wallet == told[-1].wallet
    assert driving.call("list_purchases").purchases == [told[-1].checkout]


def test_a_purchase_begun_again_with_its_key_is_the_same_one(customer: Client) -> None:
    first = customer.create_checkout(amount_micros=PRICE_MICROS, idempotency_key="k")
    again = customer.create_checkout(amount_micros=PRICE_MICROS, idempotency_key="k")

    assert (again.replayed, again.checkout) == (True, first.checkout)
    with pytest.raises(errors.IdempotencyKeyReused):
        customer.create_checkout(amount_micros=2 * PRICE_MICROS, idempotency_key="k")


def test_an_amount_that_cannot_be_bought_is_a_bad_field(customer: Client) -> None:
    terms = customer.list_prices().purchase_terms
    for amount_micros in (terms.minimum_micros - 10_000, terms.maximum_micros + 10_000, 5_000_001):
        with pytest.raises(errors.InvalidField) as refused:
            customer.create_checkout(amount_micros=amount_micros)
        assert refused.value.field == "amount_micros"


def test_a_foreign_checkout_is_not_found(customer: Client, real: RealServer) -> None:
    foreign = customer.create_checkout(amount_micros=PRICE_MICROS).checkout.checkout_id

    with Client(new_account(real), url=real.url) as other:
        for call in (other.get_checkout, other.get_receipt):
            with pytest.raises(errors.NotFound):
                call(checkout_id=foreign)
        with pytest.raises(errors.NotFound):
            list(other.watch_checkout(checkout_id=foreign))


def test_a_refund_takes_back_what_it_bought_and_is_on_the_receipt(customer: Client, operator: Client) -> None:
    purchase = bought(customer)
    refund = operator.refund_purchase(
        checkout_id=purchase, amount_micros=25_000_000, reason="asked for", idempotency_key="r"
    )
    again = operator.refund_purchase(
        checkout_id=purchase, amount_micros=25_000_000, reason="asked for", idempotency_key="r"
    )
    left = FREE_MICROS + CREDITS_MICROS - 27_500_000
    for state in customer.watch_wallet(timeout_s=30):
        if state.wallet.balance_micros == left:
            break

    receipt = customer.get_receipt(checkout_id=purchase).receipt
    (reversal,) = receipt.reversals
    assert (refund.amount_micros, refund.replayed, again.replayed) == (25_000_000, False, True)
    assert (receipt.paid_micros, receipt.purchase.reversed_micros) == (PRICE_MICROS, 27_500_000)
    assert (reversal.kind, reversal.counts) == (ReversalKind.REVERSAL_KIND_REFUND, True)
    assert reversal.provider_id == refund.provider_id == again.provider_id


def test_a_limit_blocks_what_would_pass_it_and_says_what_still_fits(driving: Threads | Tasks) -> None:
    driving.call("reserve", amount_micros=300_000)
    limit = driving.call("set_limit", period=DAY, limit_micros=1_000_000).limit

    with pytest.raises(errors.LimitExceeded) as refused:
        driving.call("reserve", amount_micros=700_001)
    driving.call("reserve", amount_micros=700_000)

    error = refused.value
    assert (error.subject, error.period, error.limit_micros) == ("account", "day", 1_000_000)
    assert (error.charged_micros, error.held_micros, error.required_micros) == (0, 300_000, 700_001)
    assert error.affordable_micros == 700_000
    assert error.resets_at == limit.resets_at.ToDatetime(UTC)
    assert error.resets_at > datetime.now(UTC)
    assert [violation.reason for violation in error.violations] == ["LIMIT_EXCEEDED"]
    (listed,) = driving.call("list_limits").limits
    assert (listed.held_micros, listed.left_micros) == (1_000_000, 0)
    driving.call("delete_limit", period=DAY)
    assert driving.call("list_limits").limits == []
    driving.call("reserve", amount_micros=700_001)


def test_a_limited_key_neither_lifts_its_limit_nor_makes_a_key(customer: Client) -> None:
    key_id = customer.who_am_i().api_key.key_id
    customer.set_limit(key_id=key_id, period=DAY, limit_micros=0)

    for call in (
        lambda: customer.delete_limit(key_id=key_id, period=DAY),
        lambda: customer.set_limit(period=DAY, limit_micros=1),
        lambda: customer.create_api_key(name="second"),
    ):
        with pytest.raises(errors.WrongRole):
            call()
    with pytest.raises(errors.LimitExceeded) as refused:
        customer.reserve(amount_micros=1)
    assert (refused.value.subject, refused.value.affordable_micros) == (key_id, 0)


def test_the_operator_gives_takes_freezes_and_audits(customer: Client, operator: Client) -> None:
    account_id = customer.get_wallet().wallet.account_id
    granted = operator.grant_credits(
        account_id=account_id, amount_micros=1_000_000, reason="sorry", expires_after_days=7
    )
    operator.adjust_balance(account_id=account_id, amount_micros=-500_000, reason="too sorry")
    operator.freeze_account(account_id=account_id, frozen=True, reason="a look")
    with pytest.raises(errors.AccountFrozen):
        customer.reserve(amount_micros=1)
    thawed = operator.freeze_account(account_id=account_id, frozen=False, reason="looked")

    rows = customer.list_transactions().transactions
    email = customer.who_am_i().email
    (found,) = operator.list_accounts(email=email.upper()).accounts
    assert granted.wallet.balance_micros == FREE_MICROS + 1_000_000
    assert (thawed.wallet.balance_micros, thawed.wallet.frozen) == (FREE_MICROS + 500_000, False)
    assert [(row.kind, row.reason) for row in rows[:4]] == [
        (TransactionKind.TRANSACTION_KIND_FREEZE, "looked"),
        (TransactionKind.TRANSACTION_KIND_FREEZE, "a look"),
        (TransactionKind.TRANSACTION_KIND_ADJUSTMENT, "too sorry"),
        (TransactionKind.TRANSACTION_KIND_GRANT, "sorry"),
    ]
    assert (found.account_id, found.email) == (account_id, email)
    assert operator.list_uncollected(account_id=account_id).work == []
    assert operator.list_quarantined().events == []
    assert operator.audit().problems == []


def test_the_operators_hand_is_the_operators(customer: Client) -> None:
    with pytest.raises(errors.WrongRole):
        customer.grant_credits(account_id="", amount_micros=1, reason="please")
