"""The operator's refunds, each once at Stripe; the event books them. With and without tax."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from oanim_server.checkout.refunding import KEY_LIFETIME, REFUSED
from oanim_server.checkout.refusals import PaymentsAway
from oanim_server.ledger.refusals import IdempotencyKeyReused, InvalidField, NotFound
from tests.checkout.house import NOTE, USD, House, Rest, Till, wanted

if TYPE_CHECKING:
    from tests.checkout.conftest import OpenHouse

REFUNDS = "POST /v1/refunds"


def test_a_refund_is_written_down_asked_for_and_booked_by_its_event(house: House, till: Till) -> None:
    account = house.account()
    purchase = house.bought(account)
    till.deliver(paused=True)
    request, replayed = house.refund(purchase, 20)
    [refund] = till.all("refunds")
    assert (request.refund_id, request.state, replayed) == (refund["id"], "succeeded", False)
    assert (request.amount_micros, request.actor, request.reason) == (20 * USD, *NOTE)
    assert (refund["amount"], refund["metadata"]) == (2_000, {"request_id": request.request_id})
    assert house.balance(account) == 55 * USD
    till.deliver()
    house.delivered()
    assert house.rest(account) == Rest(33 * USD, 0, 0, [])
    assert house.now(purchase).reversed_micros == 22 * USD
    receipt, _ = house.do(house.checkouts.receipt(account, purchase.token))
    assert [(one.refund_id, one.amount_micros, one.state) for one in receipt.refunds] == [
        (refund["id"], 20 * USD, "succeeded")
    ]


def test_the_same_key_is_one_refund_and_another_amount_under_it_is_refused(house: House, till: Till) -> None:
    purchase = house.bought(house.account())
    request, _ = house.refund(purchase, 20, "key")
    assert house.refund(purchase, 20, "key") == (request, True)
    assert isinstance(house.refund_refused(purchase, 21, "key"), IdempotencyKeyReused)
    assert isinstance(house.refund_refused(purchase, 0, "key"), IdempotencyKeyReused)
    assert len(till.all("refunds")) == 1


def test_a_part_then_the_rest_then_nothing_is_left(house: House, till: Till) -> None:
    account = house.account()
    purchase = house.bought(account)
    assert isinstance(house.refund_refused(purchase, 50.01), InvalidField)
    house.refund(purchase, 20)
    # What was asked for is not left, whether or not its event has come.
    assert isinstance(house.refund_refused(purchase, 30.01), InvalidField)
    house.delivered()
    assert isinstance(house.refund_refused(purchase, 30.01), InvalidField)
    rest, _ = house.refund(purchase, 0, "rest")
    assert (rest.asked_micros, rest.amount_micros) == (0, 30 * USD)
    assert house.refund(purchase, 0, "rest")[0] == rest
    house.delivered()
    assert house.rest(account) == Rest(0, 0, 0, [])
    assert isinstance(house.refund_refused(purchase, 0), InvalidField)
    assert isinstance(house.refund_refused(purchase, 0.01), InvalidField)
    assert [refund["amount"] for refund in till.all("refunds")] == [2_000, 3_000]


def test_a_refund_that_fails_is_left_to_give_back_again(house: House, till: Till) -> None:
    account = house.account()
    purchase = house.bought(account)
    house.refund(purchase)
    house.delivered()
    [refund] = till.all("refunds")
    till.tell(f"refunds/{refund['id']}", status="failed")
    house.delivered()
    assert house.rest(account) == Rest(55 * USD, 0, 0, [])
    house.refund(purchase)
    house.delivered()
    assert house.rest(account) == Rest(0, 0, 0, [])


def test_half_cents_and_purchases_that_were_not_paid_cannot_be_refunded(house: House, till: Till) -> None:
    account = house.account()
    unpaid = house.buy(account)
    assert isinstance(house.refund_refused(unpaid, 1), NotFound)
    assert isinstance(house.refund_refused(unpaid._replace(token="x" * 24), 1), NotFound)
    purchase = house.bought(account)
    half = wanted(purchase)
    object.__setattr__(half, "amount_micros", 5_000)
    with pytest.raises(InvalidField):
        house.do(house.checkouts.refunds.ask(half))
    assert isinstance(house.refund_refused(purchase, -1), InvalidField)
    assert till.all("refunds") == []


def test_what_stripe_refuses_is_refused_for_good_and_is_left_again(house: House, till: Till) -> None:
    account = house.account()
    purchase = house.bought(account)
    dispute = till.tell("disputes", of=purchase.session_id, inquiry=False, withdraw=False)
    assert isinstance(house.refund_refused(purchase, 20, "key"), InvalidField)
    assert isinstance(house.refund_refused(purchase, 20, "key"), InvalidField)
    assert house.select("SELECT state, refund_id FROM refund_requests") == [(REFUSED, "")]
    till.tell(f"disputes/{dispute['id']}/close", status="won")
    house.refund(purchase, 50)
    house.delivered()
    assert house.rest(account) == Rest(0, 0, 0, [])


def test_callers_at_once_never_refund_more_than_was_paid(house: House, till: Till) -> None:
    account = house.account()
    purchase = house.bought(account)

    async def at_once() -> list[object]:
        calls = [house.checkouts.refunds.ask(wanted(purchase, 20)) for _ in range(5)]
        return list(await asyncio.gather(*calls, return_exceptions=True))

    answers = house.do(at_once())
    assert sorted(type(answer).__name__ for answer in answers) == ["InvalidField"] * 3 + ["tuple"] * 2
    house.delivered()
    assert house.rest(account) == Rest(11 * USD, 0, 0, [])


@pytest.mark.parametrize(("do", "made"), [("drop_before", 0), ("429", 0), ("500", 0), ("drop_after", 1)])
def test_while_stripe_is_away_a_refund_waits_and_the_same_key_goes_on(
    house: House, till: Till, do: str, made: int
) -> None:
    account = house.account()
    purchase = house.bought(account)
    till.fault(do, REFUNDS, times=None)
    assert isinstance(house.refund_refused(purchase, 20, "key"), PaymentsAway)
    assert len(till.all("refunds")) == made
    till.forgive()
    # It is written down: what it is about is not left for another.
    assert isinstance(house.refund_refused(purchase, 31), InvalidField)
    request, replayed = house.refund(purchase, 20, "key")
    assert (request.state, replayed) == ("succeeded", True)
    house.delivered()
    assert (len(till.all("refunds")), house.rest(account)) == (1, Rest(33 * USD, 0, 0, []))


@pytest.mark.parametrize("do", ["drop_before", "drop_after", "500"])
def test_the_poller_goes_on_with_a_refund_that_nobody_asks_for_again(
    house: House, till: Till, do: str
) -> None:
    account = house.account()
    purchase = house.bought(account)
    other = house.bought(account, 60)
    for one in (purchase, other):
        till.fault(do, REFUNDS, times=None)
        house.refund_refused(one, 20)
        till.forgive()
    # One that fails stops none of the others.
    till.fault("429", f'{REFUNDS} {{"payment_intent": "{purchase.payment_intent}', times=1)
    house.poll()
    house.poll()
    house.poll()
    house.delivered()
    assert len(till.all("refunds")) == 2
    assert house.rest(account) == Rest((55 + 66 - 22 - 22) * USD, 0, 0, [])
    assert house.select("SELECT DISTINCT state FROM refund_requests") == [("succeeded",)]


def test_an_error_that_stripe_keeps_for_the_key_hides_no_refund(house: House, till: Till) -> None:
    account = house.account()
    purchase = house.bought(account)
    till.fault("500_after", REFUNDS)
    request, _ = house.refund(purchase, 20)
    assert [refund["id"] for refund in till.all("refunds")] == [request.refund_id]
    house.delivered()
    assert house.rest(account) == Rest(33 * USD, 0, 0, [])


@pytest.mark.parametrize("by", ["the operator", "the poller"])
@pytest.mark.parametrize("made", [True, False])
def test_a_key_that_stripe_may_have_forgotten_is_never_sent_again(
    house: House, till: Till, by: str, *, made: bool
) -> None:
    account = house.account()
    purchase = house.bought(account)
    till.fault("drop_after" if made else "drop_before", REFUNDS, times=None)
    house.refund_refused(purchase, 20, "key")
    till.forgive()
    house.sql("UPDATE refund_requests SET created_at = created_at - :age", age=KEY_LIFETIME)
    # As Stripe answers it then: another refund, were it asked for.
    till.fault("500", REFUNDS, times=None)
    if by == "the poller":
        house.poll()
    elif made:
        assert house.refund(purchase, 20, "key")[0].refund_id
    else:
        assert isinstance(house.refund_refused(purchase, 20, "key"), InvalidField)
    till.forgive()
    [(state, refund_id)] = house.select("SELECT state, refund_id FROM refund_requests")
    assert (state, bool(refund_id)) == (("succeeded", True) if made else (REFUSED, False))
    house.delivered()
    assert len(till.all("refunds")) == made
    assert house.rest(account) == Rest((33 if made else 55) * USD, 0, 0, [])
    # What came to nothing is left for another.
    house.refund(purchase)
    house.delivered()
    assert house.rest(account) == Rest(0, 0, 0, [])


def test_a_refund_that_somebody_makes_at_stripe_itself_is_booked_like_any(house: House, till: Till) -> None:
    account = house.account()
    purchase = house.bought(account)
    till.tell("refunds", of=purchase.session_id, amount=2_000)
    house.delivered()
    assert house.rest(account) == Rest(33 * USD, 0, 0, [])
    assert isinstance(house.refund_refused(purchase, 30.01), InvalidField)
    assert house.refund(purchase, 0)[0].amount_micros == 30 * USD


# Tax --------------------------------------------------------------------------------------------------


def test_tax_is_paid_on_top_and_credits_nothing(open_house: OpenHouse, till: Till) -> None:
    house = open_house(tax=True)
    account = house.account()
    purchase = house.bought(account)
    [session] = till.all("sessions")
    assert (session["amount_subtotal"], session["amount_total"]) == (5_000, 5_500)
    assert (purchase.paid_micros, purchase.tax_micros) == (55 * USD, 5 * USD)
    assert house.rest(account) == Rest(55 * USD, 0, 0, [])
    # Whatever the account at Stripe is set to.
    [line] = till.look(f"checkout/sessions/{session['id']}/line_items")["data"]
    assert line["price"]["tax_behavior"] == "exclusive"


def test_half_of_what_was_paid_with_tax_takes_half_of_the_credits(open_house: OpenHouse, till: Till) -> None:
    house = open_house(tax=True)
    account = house.account()
    purchase = house.bought(account)
    house.refund(purchase, 27.50)
    house.delivered()
    assert house.rest(account) == Rest(27_500_000, 0, 0, [])
    assert isinstance(house.refund_refused(purchase, 27.51), InvalidField)
    assert house.refund(purchase, 0)[0].amount_micros == 27_500_000
    house.delivered()
    assert house.rest(account) == Rest(0, 0, 0, [])
    assert [refund["amount"] for refund in till.all("refunds")] == [2_750, 2_750]


def test_a_dispute_of_what_was_paid_with_tax_takes_the_credits_and_no_more(
    open_house: OpenHouse, till: Till
) -> None:
    house = open_house(tax=True)
    account = house.account()
    purchase = house.bought(account)
    house.refund(purchase, 11)
    house.delivered()
    dispute = till.tell("disputes", of=purchase.session_id)
    till.tell(f"disputes/{dispute['id']}/close", status="lost")
    house.delivered()
    assert house.rest(account) == Rest(0, 0, 0, [])
    assert house.now(purchase).reversed_micros == 55 * USD
