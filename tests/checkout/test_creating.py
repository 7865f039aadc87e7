"""A purchase is begun once for each key, whatever Stripe, the network or this process does meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from oanim_server.checkout.refusals import PaymentsAway, PurchasesNotConfigured
from oanim_server.checkout.values import State
from oanim_server.ledger.corrections import Freeze
from oanim_server.ledger.refusals import AccountFrozen, IdempotencyKeyReused, InvalidField, NotFound, Refusal
from oanim_server.ledger.values import SERVER
from tests.checkout.house import NOTE, USD, House, Rest, Till, buy, hold, now_clock, reference

if TYPE_CHECKING:
    from tests.checkout.conftest import OpenHouse

SESSIONS = "POST /v1/checkout/sessions"


def test_a_purchase_has_a_page_at_stripe_that_says_what_is_sold(house: House, till: Till) -> None:
    account = house.account()
    purchase = house.buy(account, 49.99)
    [session] = till.all("sessions")
    assert (purchase.state, purchase.credits_micros) == (State.OPEN, 49_990_000)
    assert (purchase.session_id, purchase.url) == (session["id"], session["url"])
    assert purchase.expires_at // 1_000_000 == session["expires_at"]
    assert session["client_reference_id"] == reference(purchase) == session["metadata"]["purchase_id"]
    assert (session["amount_subtotal"], session["currency"], session["mode"]) == (4_999, "usd", "payment")
    assert session["customer_email"] == f"{account}@example.com"
    assert session["adaptive_pricing"] == {"enabled": False}


def test_the_same_key_has_the_same_page(house: House, till: Till) -> None:
    account = house.account()
    first, replayed = house.do(buy(house.checkouts, account, 50, "key"))
    assert not replayed
    assert house.do(buy(house.checkouts, account, 50, "key")) == (first, True)
    assert house.do(buy(house.checkouts, account, 50, "key", api_key_id="another of the account's")) == (
        first,
        True,
    )
    assert len(till.all("sessions")) == 1


def test_the_same_key_for_another_amount_is_refused_and_changes_nothing(house: House, till: Till) -> None:
    account = house.account()
    purchase = house.buy(account, 50, "key")
    assert isinstance(house.refused(account, 51, "key"), IdempotencyKeyReused)
    # The key is looked up before the amount is judged.
    assert isinstance(house.refused(account, 1, "key"), IdempotencyKeyReused)
    assert house.now(purchase) == purchase
    assert len(till.all("sessions")) == 1


def test_the_same_key_of_two_accounts_is_two_purchases(house: House, till: Till) -> None:
    first, second = house.account(), house.account()
    assert house.buy(first, 50, "key").token != house.buy(second, 60, "key").token
    assert len(till.all("sessions")) == 2


def test_an_amount_that_cannot_be_bought_leaves_no_trace(house: House, till: Till) -> None:
    account = house.account()
    assert isinstance(house.refused(account, 4.99, "key"), InvalidField)
    assert house.buy(account, 5, "key").state is State.OPEN
    assert len(till.all("sessions")) == 1


def test_many_callers_at_once_with_one_key_get_one_page(house: House, till: Till) -> None:
    _all_get_one_page(house, till)


def test_callers_of_two_replicas_at_once_with_one_key_get_one_page(replicas: House, till: Till) -> None:
    _all_get_one_page(replicas, till)


def _all_get_one_page(house: House, till: Till) -> None:
    account = house.account()

    async def at_once() -> list[object]:
        calls = [buy(shop.checkouts, account, 50, "key") for shop in house.shops for _ in range(6)]
        return list(await asyncio.gather(*calls, return_exceptions=True))

    answers = house.do(at_once())
    bought = [answer for answer in answers if isinstance(answer, tuple)]
    assert bought
    assert {type(answer) for answer in answers} <= {tuple, PaymentsAway}
    # Two calls under one key at once may be refused by Stripe, which then answers the next.
    again = house.do(buy(house.checkouts, account, 50, "key"))
    assert {purchase.token for purchase, _ in bought} == {again[0].token}
    assert {purchase.url for purchase, _ in [*bought, again]} == {again[0].url}
    assert [replayed for _, replayed in bought].count(False) <= 1
    assert len(till.all("sessions")) == 1


def test_many_callers_at_once_with_one_key_and_two_amounts_buy_one_of_them(house: House, till: Till) -> None:
    account = house.account()

    async def at_once() -> list[object]:
        calls = [buy(house.checkouts, account, 50 + number % 2, "key") for number in range(6)]
        return list(await asyncio.gather(*calls, return_exceptions=True))

    answers = house.do(at_once())
    refused = [answer for answer in answers if isinstance(answer, IdempotencyKeyReused)]
    assert len(refused) == 3
    assert len(till.all("sessions")) == 1


# What goes wrong, and whether Stripe has made the page when the first call ends.
AWAY = [("drop_before", 0), ("429", 0), ("500", 0), ("drop_after", 1)]


@pytest.mark.parametrize(("do", "made"), AWAY)
def test_while_stripe_is_away_nothing_is_lost_and_the_same_key_goes_on(
    house: House, till: Till, do: str, made: int
) -> None:
    account = house.account()
    till.fault(do, SESSIONS, times=None)
    assert isinstance(house.refused(account, 50, "key"), PaymentsAway)
    assert len(till.all("sessions")) == made
    assert house.select("SELECT state, session_id FROM purchases") == [(State.CREATING, "")]
    till.forgive()
    purchase, replayed = house.do(buy(house.checkouts, account, 50, "key"))
    assert (purchase.state, replayed) == (State.OPEN, True)
    [session] = till.all("sessions")
    assert session["id"] == purchase.session_id


@pytest.mark.parametrize("do", ["drop_before", "drop_after", "500"])
def test_a_short_fault_is_not_noticed(house: House, till: Till, do: str) -> None:
    till.fault(do, SESSIONS)
    assert house.buy(house.account()).state is State.OPEN
    assert len(till.all("sessions")) == 1


def test_an_error_that_stripe_keeps_for_the_key_hides_no_page(house: House, till: Till) -> None:
    account = house.account()
    till.fault("500_after", SESSIONS)
    purchase = house.buy(account, 50, "key")
    [session] = till.all("sessions")
    assert (purchase.session_id, purchase.url) == (session["id"], session["url"])
    till.pay(purchase)
    house.delivered()
    assert house.balance(account) == 55 * USD


def test_a_page_that_was_made_under_other_settings_is_found(open_house: OpenHouse, till: Till) -> None:
    house = open_house()
    account = house.account()
    till.fault("drop_after", SESSIONS, times=None)
    assert isinstance(house.refused(account, 50, "key"), PaymentsAway)
    till.forgive()
    house.sql("UPDATE accounts SET email = 'new@example.com'")
    purchase = house.buy(account, 50, "key")
    assert [session["id"] for session in till.all("sessions")] == [purchase.session_id]


def test_a_late_answer_is_waited_for_and_who_comes_meanwhile_gets_the_same_page(
    house: House, till: Till
) -> None:
    account = house.account()
    till.fault("late", SESSIONS, seconds=0.3)

    async def two() -> list[object]:
        first = asyncio.create_task(buy(house.checkouts, account, 50, "key"))
        await asyncio.sleep(0.1)
        second = buy(house.checkouts, account, 50, "key")
        return list(await asyncio.gather(first, second, return_exceptions=True))

    first, second = house.do(two())
    assert isinstance(first, tuple)
    assert isinstance(second, tuple | PaymentsAway)
    assert house.buy(account, 50, "key") == first[0]
    assert len(till.all("sessions")) == 1


def test_a_caller_that_goes_away_leaves_a_purchase_that_goes_on(house: House, till: Till) -> None:
    account = house.account()
    till.fault("late", SESSIONS, seconds=5)

    async def hang_up() -> None:
        calling = asyncio.create_task(buy(house.checkouts, account, 50, "key"))
        while not till.all("sessions"):  # noqa: ASYNC110 - the sandbox tells nobody
            await asyncio.sleep(0.01)
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)

    house.do(hang_up())
    house.till.forgive()
    purchase = house.buy(account, 50, "key")
    assert [session["id"] for session in till.all("sessions")] == [purchase.session_id]


def test_without_a_key_for_stripe_nothing_is_sold_and_what_was_is_still_shown(
    open_house: OpenHouse, till: Till
) -> None:
    house = open_house(url=None)
    account = house.account()
    assert isinstance(house.refused(account), PurchasesNotConfigured)
    assert not house.checkouts.configured
    with pytest.raises(PurchasesNotConfigured):
        _ = house.checkouts.refunds
    assert house.do(house.checkouts.page(account, before=None, limit=5)) == []
    assert house.select("SELECT count(*) FROM purchases") == [(0,)]


def test_a_frozen_account_buys_and_can_still_start_no_work(house: House, till: Till) -> None:
    account = house.account()
    freeze = Freeze(wallet_id=account, caller=SERVER, idempotency_key="f", frozen=True, note=NOTE)
    house.do(house.shop.ledger.submit(freeze))
    house.bought(account, 50)
    assert house.rest(account) == Rest(55 * USD, 0, 0, [])
    with pytest.raises(AccountFrozen):
        house.do(hold(house.shop.ledger, account, USD))


def test_a_page_that_nobody_pays_expires_and_sells_nothing(house: House, till: Till) -> None:
    account = house.account()
    purchase = house.buy(account, 50, "key")
    till.tell(f"sessions/{purchase.session_id}/expire-in", seconds=0)
    house.until(lambda: till.all("sessions")[0]["status"] == "expired")
    house.delivered()
    assert house.now(purchase).state is State.EXPIRED
    assert house.buy(account, 50, "key").state is State.EXPIRED
    assert house.rest(account) == Rest(0, 0, 0, [])


def test_a_purchase_that_never_got_a_page_expires_by_the_poller(open_house: OpenHouse, till: Till) -> None:
    house = open_house()
    account = house.account()
    till.fault("drop_before", SESSIONS, times=None)
    house.refused(account, 50, "key")
    till.forgive()
    house.poll()
    assert house.select("SELECT state FROM purchases") == [(State.CREATING,)]
    house.sql("UPDATE purchases SET expires_at = created_at")
    house.poll()
    purchase = house.buy(account, 50, "key")
    assert (purchase.state, purchase.url) == (State.EXPIRED, "")
    assert till.all("sessions") == []
    # If its page was made after all, and paid, the money is not lost.
    assert house.rest(account) == Rest(0, 0, 0, [])


def test_a_page_that_was_paid_although_nobody_kept_it_is_credited(house: House, till: Till) -> None:
    account = house.account()
    till.fault("drop_after", SESSIONS, times=None)
    house.refused(account, 50, "key")
    till.forgive()
    house.sql("UPDATE purchases SET expires_at = created_at")
    house.poll()
    [session] = till.all("sessions")
    till.tell(f"sessions/{session['id']}/pay")
    house.delivered()
    purchase = house.buy(account, 50, "key")
    assert (purchase.state, purchase.session_id) == (State.PAID, session["id"])
    assert house.rest(account) == Rest(55 * USD, 0, 0, [])


def test_a_purchase_is_the_account_s_own(house: House) -> None:
    account, other = house.account(), house.account()
    purchase = house.bought(account)
    for work in (house.checkouts.get, house.checkouts.receipt):
        with pytest.raises(NotFound):
            house.do(work(other, purchase.token))
    assert house.do(house.checkouts.page(other, before=None, limit=5)) == []


def test_bought_credits_last_as_long_as_a_setting_says(open_house: OpenHouse, till: Till) -> None:
    clock = now_clock()
    house = open_house(clock=clock, lifetime=3_600_000_000)
    account = house.account()
    house.bought(account, 50)
    clock.forward(3_599_999_999)
    assert house.balance(account) == 55 * USD
    clock.forward(1)
    assert house.balance(account) == 0
    with pytest.raises(Refusal):
        house.hold(account, 1)
    assert house.rest(account) == Rest(0, 0, 0, [])
