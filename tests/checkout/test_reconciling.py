"""What no webhook brought is asked for: open sessions, missed events, and what waits for something here."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from oanim_server.checkout import reconciling
from oanim_server.checkout.refusals import PaymentsAway
from oanim_server.checkout.values import Standing, State
from oanim_server.ledger.refusals import Faulty
from oanim_server.sandbox import stripe_objects
from tests.checkout.house import USD, House, Rest, Till, event

if TYPE_CHECKING:
    from oanim_server.checkout.values import Purchase
    from tests.checkout.conftest import OpenHouse

CREDITED = Rest(55 * USD, 0, 0, [])
NOTHING = Rest(0, 0, 0, [])
DAY_S = 86_400
MARK = "SELECT value FROM marks WHERE name = 'stripe_events_until'"


def mark(house: House) -> list[int]:
    """Until when events are known to be applied."""
    return [int(value) for (value,) in house.select(MARK)]


def days_ago(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    """What happens at Stripe from now on happened so long ago."""
    then = SimpleNamespace(time=lambda: time.time() - days * DAY_S)
    monkeypatch.setattr(stripe_objects, "time", then)


# Events -----------------------------------------------------------------------------------------------


def test_after_four_days_without_webhooks_everything_is_credited_once(
    house: House, till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = house.account()
    purchases = [house.buy(account, dollars) for dollars in (50, 60, 70)]
    assert house.reconcile() == 0
    house.sql("UPDATE marks SET value = :then", then=str(int(time.time()) - 4 * DAY_S))
    till.deliver(drop=1_000)
    for days, purchase in zip((4, 2.5, 0.1), purchases, strict=True):
        days_ago(monkeypatch, days)
        till.pay(purchase)
    till.tell("refunds", of=purchases[0].session_id, amount=2_500)
    house.delivered()
    assert house.rest(account) == NOTHING
    # Three purchases; a refund is told twice.
    assert house.reconcile() == 5
    assert house.rest(account) == Rest((55 + 66 + 77) * USD - 27_500_000, 0, 0, [])
    assert house.reconcile() == 0
    house.poll()
    assert house.rest(account).balance_micros == 170_500_000


def test_what_happened_before_the_last_round_is_not_asked_for_again(
    house: House, till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = house.account()
    purchase = house.buy(account)
    assert house.reconcile() == 0
    till.deliver(drop=1_000)
    days_ago(monkeypatch, 0.5)
    till.pay(purchase)
    assert house.reconcile() == 0
    house.poll()
    assert house.rest(account) == CREDITED


def test_a_first_round_goes_back_thirty_days(
    house: House, till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = house.account()
    old, new = house.buy(account, 50), house.buy(account, 60)
    till.deliver(drop=1_000)
    days_ago(monkeypatch, 30.1)
    till.pay(old)
    days_ago(monkeypatch, 29.9)
    till.pay(new)
    assert house.reconcile() == 1
    assert house.balance(account) == 66 * USD


def test_more_events_than_a_page_are_applied_in_their_order(house: House, till: Till) -> None:
    account = house.account()
    purchase = house.buy(account)
    till.deliver(drop=1_000)
    till.pay(purchase)
    for _ in range(50):
        till.tell("refunds", of=purchase.session_id, amount=10)
    assert house.reconcile() == 1 + 2 * 50
    assert house.balance(account) == 55 * USD - 5_500_000
    assert "PARKED" not in house.standings()
    assert house.shop.counts.parked == 0


def test_the_mark_moves_after_a_whole_round_alone(house: House, till: Till) -> None:
    account = house.account()
    till.deliver(drop=1_000)
    till.pay(house.buy(account))
    till.fault("drop_before", "GET /v1/events", times=None)
    with pytest.raises(PaymentsAway):
        house.reconcile()
    assert (mark(house), house.rest(account)) == ([], NOTHING)
    till.forgive()
    began = int(time.time())
    assert house.reconcile() == 1
    [until] = mark(house)
    assert began <= until <= time.time()
    assert house.shop.counts.reconciled == 1


def test_an_event_that_fails_stops_none_of_the_others_and_is_tried_again(house: House, till: Till) -> None:
    unlucky, account = house.account(), house.account()
    purchases = [house.buy(unlucky), house.buy(account, 60), house.buy(account, 70)]
    till.deliver(drop=1_000)
    for purchase in purchases:
        till.pay(purchase)
    # The database refuses what is to be written of the first.
    house.sql("INSERT INTO purchase_credits VALUES (:w, 1, 'x', 1, 0, 0, 0, 0, 0, 0, 0)", w=unlucky)
    with pytest.raises(Faulty):
        house.reconcile()
    assert (house.balance(unlucky), house.balance(account), mark(house)) == (0, 143 * USD, [])
    house.poll()
    house.sql("DELETE FROM purchase_credits WHERE wallet_id = :w", w=unlucky)
    assert house.reconcile() == 1
    assert (house.rest(unlucky), house.balance(account), len(mark(house))) == (CREDITED, 143 * USD, 1)


def test_what_is_sold_to_others_with_the_same_account_stops_nothing(house: House, till: Till) -> None:
    account = house.account()
    purchase = house.bought(account)
    till.deliver(drop=1_000)
    line = "line_items[0]"
    mug = {
        "mode": "payment",
        "success_url": "https://mugs.example",
        f"{line}[quantity]": "1",
        f"{line}[price_data][currency]": "usd",
        f"{line}[price_data][unit_amount]": "1000",
        f"{line}[price_data][product_data][name]": "a mug",
    }
    session = till.call("checkout/sessions", **mug)
    sold = till.tell(f"sessions/{session['id']}/pay", fx_rate="1.0345")
    assert sold["currency_conversion"]["fx_rate"] == "1.0345"
    till.tell("refunds", of=purchase.session_id, amount=2_500)
    house.reconcile()
    assert house.rest(account) == Rest(27_500_000, 0, 0, [])
    assert house.reconcile() == 0


# Sessions ---------------------------------------------------------------------------------------------


def test_a_session_is_credited_without_any_webhook(house: House, till: Till) -> None:
    account = house.account()
    paid, later, left = (house.buy(account) for _ in range(3))
    till.deliver(drop=1_000)
    till.pay(paid)
    till.tell(f"sessions/{later.session_id}/pay-later")
    till.tell(f"sessions/{left.session_id}/expire-in", seconds=0)
    house.until(lambda: till.all("sessions")[2]["status"] == "expired")
    house.poll()
    assert house.rest(account) == CREDITED
    assert [house.now(one).state.name for one in (paid, later, left)] == ["PAID", "PROCESSING", "EXPIRED"]
    assert house.now(paid).charge == till.all("charges")[0]["id"]
    before = house.now(later)
    house.poll()
    assert house.now(later) == before
    till.tell(f"payments/{later.session_id}/settle", paid=True)
    house.poll()
    assert house.rest(account) == Rest(110 * USD, 0, 0, [])
    polled = house.shop.counts.polled
    house.poll()
    assert house.shop.counts.polled == polled


def test_the_webhook_that_comes_after_the_poller_changes_nothing(house: House, till: Till) -> None:
    account = house.account()
    purchase = house.buy(account)
    till.deliver(paused=True)
    till.pay(purchase)
    house.poll()
    found = house.now(purchase)
    till.deliver()
    house.delivered()
    assert (house.rest(account), house.now(purchase)) == (CREDITED, found)


def test_a_fresh_purchase_is_left_alone_for_a_minute(
    house: House, till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciling, "POLL_SECONDS", 60)
    house.buy(house.account())
    house.poll()
    assert house.shop.counts.polled == 0


@pytest.mark.parametrize("fault", ["unknown", "500", "429"])
def test_a_session_that_cannot_be_asked_about_stops_none_of_the_others(
    house: House, till: Till, fault: str
) -> None:
    account = house.account()
    first, second = house.buy(account, 50), house.buy(account, 60)
    house.sql("UPDATE purchases SET created_at = created_at - 1 WHERE token = :token", token=first.token)
    till.deliver(drop=1_000)
    till.pay(second)
    if fault == "unknown":
        house.sql("UPDATE purchases SET session_id = 'cs_unknown' WHERE token = :token", token=first.token)
    else:
        till.fault(fault, f"GET /v1/checkout/sessions/{first.session_id}", times=None)
    house.poll()
    assert house.rest(account) == Rest(66 * USD, 0, 0, [])
    assert house.now(first).state is State.OPEN


def test_every_purchase_of_one_instant_is_asked_about(
    house: House, till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciling, "SESSIONS", 3)
    accounts = [house.account() for _ in range(2)]
    purchases = [house.buy(account) for account in accounts for _ in range(4)]
    house.sql("UPDATE purchases SET created_at = :now", now=purchases[0].created_at)
    till.deliver(drop=1_000)
    for purchase in purchases:
        till.pay(purchase)
    house.poll()
    assert [house.balance(account) for account in accounts] == [4 * 55 * USD] * 2


def test_what_was_parked_and_forgotten_is_looked_at_by_the_poller(house: House, till: Till) -> None:
    account = house.account()
    purchase = house.bought(account)
    till.deliver(paused=True)
    till.tell("refunds", of=purchase.session_id, amount=1_000)
    house.receive(*till.events("refund.created"))
    assert house.balance(account) == 44 * USD
    # As a server leaves it that is killed between the credit and what waited for it; or another replica.
    house.sql("DELETE FROM inbox WHERE type = 'refund.created'")
    [told] = till.events("charge.refunded")
    house.sql("UPDATE purchases SET payment_intent = 'pi_later', charge = ''")
    assert house.receive(told) == [Standing.PARKED]
    house.sql("UPDATE purchases SET payment_intent = :pi", pi=purchase.payment_intent)
    house.poll()
    assert house.rest(account) == Rest(44 * USD, 0, 0, [])
    assert house.standings() == ["APPLIED", "APPLIED"]


def test_what_can_never_be_found_is_not_parked(house: House) -> None:
    house.bought(house.account())
    about = {"id": "re_1", "amount": 5, "status": "pending", "currency": "usd"}
    assert house.receive(event("refund.created", about)) == [Standing.OF_NO_CONCERN]
    theirs = about | {"payment_intent": "pi_of_others"}
    assert house.receive(event("refund.created", theirs)) == [Standing.PARKED]
    house.poll()
    assert house.standings() == ["APPLIED", "OF_NO_CONCERN", "PARKED"]


# As a server runs -------------------------------------------------------------------------------------


async def watched(house: House, purchase: Purchase) -> list[Any]:
    """How a purchase stands, to its end; each with the wallet's balance then."""
    states = house.checkouts.watch(purchase.wallet_id, purchase.token)
    async with aclosing(states):
        return [
            (one.state.name, (await house.shop.ledger.wallet(purchase.wallet_id)).balance_micros)
            async for one in states
        ]


def test_who_watches_sees_the_credits_come_by_webhook(house: House, till: Till) -> None:
    purchase = house.buy(house.account())

    async def pay() -> list[Any]:
        watching = asyncio.create_task(watched(house, purchase))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(till.pay, purchase)
        return await watching

    assert house.do(pay()) == [("OPEN", 0), ("PAID", 55 * USD)]
    assert house.do(watched(house, purchase)) == [("PAID", 55 * USD)]


def test_who_watches_sees_the_credits_come_without_any_webhook(
    house: House, till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciling, "POLL_SECONDS", 3_600)
    unknown, purchase = house.buy(house.account()), house.buy(house.account())
    house.sql("UPDATE purchases SET session_id = 'cs_unknown' WHERE token = :token", token=unknown.token)
    till.deliver(drop=1_000)

    async def pay() -> list[Any]:
        house.checkouts.start()
        stuck = asyncio.create_task(watched(house, unknown))
        watching = asyncio.create_task(watched(house, purchase))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(till.pay, purchase)
        found = await watching
        stuck.cancel()
        await asyncio.gather(stuck, return_exceptions=True)
        return found

    assert house.do(pay()) == [("OPEN", 0), ("PAID", 55 * USD)]


def test_who_watches_at_another_replica_sees_it(replicas: House, till: Till) -> None:
    purchase = replicas.buy(replicas.account())
    other = replicas.shops[1].checkouts.watch(purchase.wallet_id, purchase.token)
    [session] = till.all("sessions")
    till.deliver(drop=1_000)
    till.pay(purchase)
    [told] = till.events("checkout.session.completed")
    assert session["id"] == told.object_id

    async def both() -> list[str]:
        seen = []
        async with aclosing(other):
            async for one in other:
                seen.append(one.state.name)
                if len(seen) == 1:
                    await replicas.checkouts.receive(told)
        return seen

    assert replicas.do(both()) == ["OPEN", "PAID"]


def test_a_server_that_starts_finds_what_it_missed(house: House, till: Till) -> None:
    account = house.account()
    purchase = house.buy(account)
    till.deliver(drop=1_000)
    till.pay(purchase)
    till.tell("refunds", of=purchase.session_id, amount=2_500)

    async def run() -> None:
        house.checkouts.start()
        while (await house.shop.ledger.wallet(account)).balance_micros != 27_500_000:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    house.do(run())
    assert house.problems() == []


def test_a_server_whose_stripe_is_away_keeps_asking(
    open_house: OpenHouse, till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciling, "RETRY_SECONDS", 0.05)
    house = open_house()
    account = house.account()
    purchase = house.buy(account)
    till.deliver(drop=1_000)
    till.pay(purchase)
    till.fault("drop_before", "GET", times=20)

    async def run() -> None:
        house.checkouts.start()
        while not house.shop.counts.reconciled:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    house.do(run())
    assert house.rest(account) == CREDITED
