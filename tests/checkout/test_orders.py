"""Every order of what Stripe tells, each word twice, comes to the balance that I8 defines."""

from __future__ import annotations

import asyncio
import random
import secrets
from itertools import permutations
from typing import TYPE_CHECKING, NamedTuple

import pytest

from oanim_server.checkout.values import State
from oanim_server.ledger.operations import Release
from oanim_server.ledger.refusals import InsufficientCredits
from oanim_server.ledger.values import Origin
from tests.checkout import house as at
from tests.checkout.history import CREDITED, History, sold, told
from tests.checkout.house import USD, House, Rest, Till, now_clock

if TYPE_CHECKING:
    from tests.checkout.conftest import OpenHouse

SETS = {
    "the refund fails": ["completed", "succeeded", "expired", "refund 11 pending", "refund 11 failed"],
    "a part and the rest": [
        "completed",
        "succeeded",
        "refund 10 succeeded",
        "refund 11 pending",
        "refund 11 succeeded",
        "refund 40 succeeded",
    ],
    "refunded and lost": [
        "succeeded",
        "expired",
        "refund 10 succeeded",
        "dispute 50 created",
        "dispute 50 withdrawn",
        "dispute 50 lost",
    ],
    "won": [
        "completed",
        "succeeded",
        "dispute 20 created",
        "dispute 20 withdrawn",
        "dispute 20 won",
        "dispute 20 reinstated",
    ],
    "refunded and won": [
        "succeeded",
        "refund 40 succeeded",
        "dispute 20 withdrawn",
        "dispute 20 reinstated",
        "inquiry closed",
    ],
    "refunded, and still disputed": [
        "succeeded",
        "refund 10 succeeded",
        "dispute 20 withdrawn",
        "inquiry created",
        "refund 11 pending",
        "refund 11 failed",
    ],
    "never paid": ["completed", "expired", "refund 10 succeeded", "dispute 50 lost", "inquiry created"],
}
EVERYTHING = [
    "completed",
    "succeeded",
    "expired",
    "refund 11 pending",
    "refund 11 succeeded",
    "refund 11 failed",
    "refund 10 succeeded",
    "dispute 20 created",
    "dispute 20 withdrawn",
    "dispute 20 won",
    "dispute 20 reinstated",
    "inquiry created",
    "inquiry closed",
]
GRANT = 7 * USD
# What the customer does as soon as the credits are there, in dollars, and what is charged of it in the end.
DOING = [(0, 0), (20, 20), (30, 0), (30, 12), (55, 0), (55, 55), (62, 40)]
TOGETHER = 24


class Case(NamedTuple):
    """An order of events, and what the customer does meanwhile."""

    order: tuple[str, ...]
    reserved: int
    captured: int


def cases(orders: list[tuple[str, ...]]) -> list[Case]:
    """Each order with the next thing that a customer does."""
    return [Case(order, *DOING[number % len(DOING)]) for number, order in enumerate(orders)]


async def lived(house: House, history: History, case: Case) -> tuple[Rest, Rest]:
    """One purchase's life; what is left of it, and what should be."""
    shop = house.shop
    account = await at.account(shop.ledger, GRANT)
    purchase = await sold(shop, account, secrets.token_hex(12))
    events = [history.event(purchase, name) for name in case.order]
    held = taken = 0
    for one in [*(again for event in events for again in (event, event)), *reversed(events)]:
        # Whatever an event said, another one under an id of its own says the same.
        await shop.checkouts.receive(one)
        await shop.checkouts.receive(one._replace(event_id=f"{one.event_id} again"))
        stands = await shop.checkouts.get(account, purchase.token)
        if stands.credit and case.reserved and not held:
            try:
                held = await at.hold(shop.ledger, account, case.reserved * USD)
            except InsufficientCredits:
                held = -1
    facts = await shop.ledger.wallet(account)
    assert facts.held_micros == (case.reserved * USD if held > 0 else 0)
    if held > 0 and case.captured:
        taken = case.captured * USD
        await shop.ledger.submit(at.captured(account, held, taken))
    elif held > 0:
        attempt = {"wallet_id": account, "caller": account, "idempotency_key": "release"}
        await shop.ledger.submit(Release(**attempt, reservation=held))  # type: ignore[arg-type]
    facts = await shop.ledger.wallet(account)
    expected = told(list(case.order))
    stands = await shop.checkouts.get(account, purchase.token)
    assert stands.reversed_micros == (CREDITED - expected.left_micros if expected.paid else 0)
    assert (stands.state is State.PAID) == expected.paid
    left = GRANT + expected.left_micros - taken
    return (
        Rest(facts.balance_micros, facts.held_micros, facts.debt_micros, []),
        Rest(left, 0, max(0, -left), []),
    )


def live(house: House, wanted: list[Case]) -> None:
    """Live all of them, many at once; each comes to what it should, and so do the books."""
    history = History(house)

    async def some(few: list[Case]) -> list[tuple[Rest, Rest]]:
        return await asyncio.gather(*(lived(house, history, case) for case in few))

    for start in range(0, len(wanted), TOGETHER):
        few = wanted[start : start + TOGETHER]
        for case, (found, expected) in zip(few, house.do(some(few)), strict=True):
            assert found == expected, case
    assert house.problems() == []
    assert set(house.standings()) <= {"APPLIED", "PARKED"}
    assert house.shop.counts.quarantined == 0


def test_some_orders_of_every_kind_of_life_come_to_what_i8_defines(house: House) -> None:
    chance = random.Random(3)
    orders = [order for names in SETS.values() for order in chance.sample(list(permutations(names)), 9)]
    orders += [tuple(chance.sample(EVERYTHING, len(EVERYTHING))) for _ in range(9)]
    live(house, cases(orders))


@pytest.mark.torture
@pytest.mark.parametrize("name", SETS)
def test_every_order_comes_to_what_i8_defines(house: House, name: str) -> None:
    live(house, cases(list(permutations(SETS[name]))))


@pytest.mark.torture
def test_many_orders_of_everything_come_to_what_i8_defines(house: House) -> None:
    chance = random.Random(4)
    live(house, cases([tuple(chance.sample(EVERYTHING, len(EVERYTHING))) for _ in range(500)]))


def test_a_word_about_what_is_not_paid_yet_is_parked_and_looked_at_when_it_is(house: House) -> None:
    history = History(house)
    account = house.account()
    purchase = house.do(sold(house.shop, account, "t" * 24))
    names = ["refund 10 succeeded", "completed", "dispute 20 withdrawn", "refund 40 succeeded"]
    for name in names:
        house.receive(history.event(purchase, name))
    assert house.standings() == ["PARKED", "APPLIED", "PARKED", "PARKED"]
    assert house.rest(account) == Rest(0, 0, 0, [])
    house.receive(history.event(purchase, "succeeded"))
    assert house.standings() == ["APPLIED"] * 5
    assert house.rest(account) == Rest(0, 0, 0, [])
    house.receive(history.event(purchase, "dispute 20 reinstated"))
    assert house.rest(account) == Rest(0, 0, 0, [])
    assert house.select("SELECT kind, balance_micros FROM transactions ORDER BY seq") == [
        (9, 55 * USD),
        (10, 44 * USD),
        (10, 22 * USD),
        (10, 0),
    ]


# Expired ----------------------------------------------------------------------------------------------

REVERSALS = [
    "refund 10 succeeded",
    "refund 11 pending",
    "refund 11 failed",
    "dispute 20 withdrawn",
    "dispute 20 reinstated",
]
LOST = ["refund 10 succeeded", "dispute 50 created", "dispute 50 withdrawn", "dispute 50 lost"]
HOUR = 3_600_000_000


@pytest.mark.parametrize("names", [REVERSALS, LOST], ids=["won", "lost"])
@pytest.mark.parametrize("spent", [0, 20, 50])
def test_what_has_expired_counts_as_taken_already(
    open_house: OpenHouse, names: list[str], spent: int
) -> None:
    clock = now_clock()
    house = open_house(clock=clock)
    history = History(house)
    shop = house.shop
    orders = random.Random(5).sample(list(permutations(names)), 12)

    async def bought(order: tuple[str, ...]) -> tuple[int, list[object]]:
        account = await at.account(shop.ledger, GRANT)
        purchase = await sold(shop, account, secrets.token_hex(12), HOUR)
        await shop.checkouts.receive(history.event(purchase, "succeeded"))
        if spent:
            # What expires first is drawn first: the purchase's own.
            held = await at.hold(shop.ledger, account, spent * USD)
            await shop.ledger.submit(at.captured(account, held, spent * USD))
        return account, [history.event(purchase, name) for name in order]

    async def reversed_(account: int, events: list[object]) -> int:
        for one in events:
            for _ in range(2):
                await shop.checkouts.receive(one)  # type: ignore[arg-type]
        return (await shop.ledger.wallet(account)).balance_micros

    lives = [house.do(bought(order)) for order in orders]
    clock.forward(HOUR)
    assert {house.balance(account) for account, _ in lives} == {GRANT}
    own = CREDITED - spent * USD
    taken = CREDITED - told(["succeeded", *names]).left_micros
    for account, events in lives:
        assert house.do(reversed_(account, events)) == GRANT + own - max(taken, own)
    assert house.problems() == []


def test_what_is_held_over_the_end_pays_the_debt_before_it_expires(open_house: OpenHouse) -> None:
    clock = now_clock()
    house = open_house(clock=clock, lifetime=HOUR)
    account = house.account()
    purchase = house.bought(account)
    held = house.hold(account, 30 * USD, ttl=2 * HOUR)
    clock.forward(HOUR)
    assert house.rest(account) == Rest(30 * USD, 30 * USD, 0, [])
    house.till.tell("refunds", of=purchase.session_id)
    house.delivered()
    # 25 had expired; of the 30 under the hold nothing is taken.
    assert house.rest(account) == Rest(0, 30 * USD, 30 * USD, [])
    house.release(account, held)
    assert house.rest(account) == Rest(0, 0, 0, [])


def test_what_comes_back_after_the_end_lasts_for_ever(open_house: OpenHouse) -> None:
    clock = now_clock()
    house = open_house(clock=clock, lifetime=HOUR)
    account = house.account()
    purchase = house.bought(account)
    dispute = house.till.tell("disputes", of=purchase.session_id)
    house.delivered()
    assert house.rest(account) == Rest(0, 0, 0, [])
    clock.forward(HOUR)
    house.till.tell(f"disputes/{dispute['id']}/close", status="won")
    house.delivered()
    clock.forward(HOUR)
    assert house.rest(account) == Rest(55 * USD, 0, 0, [])


# In debt ----------------------------------------------------------------------------------------------


def test_what_was_spent_and_is_taken_back_is_owed_and_paid_by_what_is_bought_next(house: House) -> None:
    account = house.account()
    purchase = house.bought(account)
    house.spend(account, 40 * USD)
    house.till.tell("disputes", of=purchase.session_id)
    house.delivered()
    assert house.rest(account) == Rest(-40 * USD, 0, 40 * USD, [])
    with pytest.raises(InsufficientCredits):
        house.hold(account, 1)
    house.bought(account, 50)
    assert house.rest(account) == Rest(15 * USD, 0, 0, [])
    house.hold(account, 15 * USD)


def test_a_purchase_takes_back_of_its_own_lots_first(house: House) -> None:
    account = house.account(GRANT)
    first, second = house.bought(account, 50), house.bought(account, 60)
    house.till.tell("refunds", of=first.session_id, amount=2_500)
    house.delivered()
    assert [(lot.origin, lot.remaining_micros) for lot in house.lots(account)] == [
        (Origin.SIGN_UP, GRANT),
        (Origin.BONUS, 0),
        (Origin.PURCHASE, 27_500_000),
        (Origin.BONUS, 6 * USD),
        (Origin.PURCHASE, 60 * USD),
    ]
    assert house.now(second).reversed_micros == 0


# As the sandbox sends it ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_what_the_sandbox_sends_in_disorder_and_twice_comes_to_the_same(
    house: House, till: Till, seed: int
) -> None:
    account = house.account()
    purchase = house.buy(account)
    paid = purchase.session_id
    till.deliver(paused=True, copies=1, new_ids=seed == 1)
    till.tell(f"sessions/{paid}/pay-later")
    till.tell(f"payments/{paid}/settle", paid=True)
    failing = till.tell("refunds", of=paid, amount=500)["id"]
    till.tell(f"refunds/{failing}", status="failed")
    till.tell("refunds", of=paid, amount=1_000)
    lost = till.tell("disputes", of=paid, amount=1_500)["id"]
    till.tell(f"disputes/{lost}/close", status="lost")
    won = till.tell("disputes", of=paid, amount=2_000)["id"]
    till.tell(f"disputes/{won}/close", status="won")
    till.tell("queue", do="shuffle", seed=seed)
    till.deliver(at_once=1 + 9 * (seed == 2))
    house.delivered()
    house.poll()
    assert house.rest(account) == Rest(55 * USD - 27_500_000, 0, 0, [])
    assert set(house.standings()) == {"APPLIED"}
    receipt, _ = house.do(house.checkouts.receipt(account, purchase.token))
    assert {(one.amount_micros // 10_000, one.state) for one in receipt.refunds} == {
        (500, "failed"),
        (1_000, "succeeded"),
    }
    assert {(one.amount_micros // 10_000, one.state) for one in receipt.disputes} == {
        (1_500, "lost"),
        (2_000, "won"),
    }
