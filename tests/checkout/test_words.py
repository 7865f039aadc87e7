"""Stripe's JSON as words; whatever is malformed is said to be so, and nothing is guessed."""

from __future__ import annotations

import copy
import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from oanim_server.checkout import words
from oanim_server.checkout.values import DisputeWord, RefundWord, SessionWord
from tests.checkout.house import USD, House, event, reference

if TYPE_CHECKING:
    from tests.checkout.house import Till

SESSION = {
    "id": "cs_1",
    "client_reference_id": "a-b",
    "status": "complete",
    "payment_status": "paid",
    "payment_intent": "pi_1",
    "amount_subtotal": 5_000,
    "amount_total": 5_500,
    "total_details": {"amount_tax": 500},
    "currency": "usd",
    "mode": "payment",
    "livemode": False,
}
REFUND = {
    "id": "re_1",
    "payment_intent": "pi_1",
    "charge": "ch_1",
    "amount": 5,
    "status": "pending",
    "currency": "usd",
}
DISPUTE = {**REFUND, "id": "du_1", "status": "needs_response"}


def test_a_session_is_read_with_its_tax() -> None:
    assert words.session_word(SESSION) == SessionWord(
        session_id="cs_1",
        reference="a-b",
        status="complete",
        paid=True,
        failed=False,
        payment_intent="pi_1",
        subtotal_micros=50 * USD,
        total_micros=55 * USD,
        tax_micros=5 * USD,
        currency="usd",
        mode="payment",
        livemode=False,
    )


def test_what_came_expanded_is_read_as_its_id() -> None:
    assert words.session_word({**SESSION, "payment_intent": {"id": "pi_2"}}).payment_intent == "pi_2"
    assert words.refund_word({**REFUND, "charge": {"id": "ch_2"}, "payment_intent": None}) == RefundWord(
        "re_1", "", "ch_2", 50_000, "pending", "usd"
    )


def test_a_session_without_details_or_amounts_has_none() -> None:
    setup = {**SESSION, "mode": "setup", "amount_subtotal": None, "amount_total": None, "total_details": None}
    word = words.session_word(setup)
    assert (word.subtotal_micros, word.total_micros, word.tax_micros) == (0, 0, 0)


@pytest.mark.parametrize(
    ("kind", "state", "withdrawn", "reinstated"),
    [
        ("created", "needs_response", False, False),
        ("updated", "under_review", False, False),
        ("funds_withdrawn", "needs_response", True, False),
        ("funds_reinstated", "won", False, True),
        ("closed", "lost", True, False),
        ("closed", "won", False, True),
        ("created", "warning_needs_response", False, False),
        ("funds_withdrawn", "warning_under_review", False, False),
        ("closed", "warning_closed", False, False),
    ],
)
def test_a_dispute_s_money_moves_with_its_funds_or_its_end_and_an_inquiry_s_never(
    kind: str, state: str, *, withdrawn: bool, reinstated: bool
) -> None:
    word = words.dispute_word({**DISPUTE, "status": state}, f"charge.dispute.{kind}")
    assert word == DisputeWord("du_1", "pi_1", "ch_1", 50_000, state, withdrawn, reinstated, "usd")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"id": "evt_1", "type": "x"},
        {"id": "evt_1", "type": "x", "data": []},
        {"id": "evt_1", "type": "x", "data": {"object": "cs_1"}},
        {"id": "", "type": "x", "data": {"object": {}}},
        {"id": 7, "type": "x", "data": {"object": {}}},
        {"id": "evt_1", "type": None, "data": {"object": {}}},
        {"id": "evt\0", "type": "x", "data": {"object": {}}},
        {"id": "\ud800", "type": "x", "data": {"object": {}}},
        {"id": "e" * 256, "type": "x", "data": {"object": {}}},
        {"id": "evt_1", "type": "x", "data": {"object": {"id": "\0"}}},
        {"id": "evt_1", "type": "x", "data": {"object": {"id": "\ud800"}}},
        {"id": "evt_1", "type": "x", "data": {"object": {"id": ["cs_1"]}}},
    ],
)
def test_what_is_no_event_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"missing|no object|no text"):
        words.event_of(content)


WRONG: list[Any] = [None, "", "7", 7, -1, 1.5, True, [], {}, {"id": 7}, "\0", "\ud800", "x" * 300, 10**13]
COMPLETED = "checkout.session.completed"
TELLING = [(COMPLETED, SESSION), ("refund.updated", REFUND), ("charge.dispute.closed", DISPUTE)]


@pytest.mark.parametrize(("kind", "good"), TELLING)
def test_a_malformed_object_is_a_word_or_a_value_error_and_never_anything_else(
    kind: str, good: dict[str, Any]
) -> None:
    for name in good:
        for wrong in [*WRONG, ...]:
            about = {key: value for key, value in good.items() if key != name or wrong is not ...}
            if wrong is not ...:
                about[name] = wrong
            try:
                word = words.word_of(event(kind, about))
            except ValueError:
                continue
            assert word is not None
            for value in word:
                assert type(value) in (str, int, bool)
                if isinstance(value, str):
                    assert len(value) <= 255
                    assert "\0" not in value
                    value.encode()


@pytest.mark.parametrize("name", ["amount_subtotal", "amount_total"])
@pytest.mark.parametrize("wrong", ["5000", 50.0, -1, True, 10**13])
def test_an_amount_that_is_none_is_refused(name: str, wrong: object) -> None:
    with pytest.raises(ValueError, match=name):
        words.session_word({**SESSION, name: wrong})
    with pytest.raises(ValueError, match="amount"):
        words.refund_word({**REFUND, "amount": wrong})


def test_what_is_told_of_nothing_we_know_is_of_no_concern() -> None:
    assert words.word_of(event("charge.refunded", {"id": "ch_1", "payment_intent": None})) is None
    assert words.payment_of(event("charge.refunded", {"id": "ch_1", "payment_intent": None})) == "ch_1"
    assert words.payment_of(event("charge.refunded", {"id": "ch_1", "payment_intent": "pi_1"})) == "pi_1"


def test_malformed_events_are_kept_for_the_operator_and_nothing_moves(house: House, till: Till) -> None:
    account = house.account()
    purchase = house.buy(account)
    till.deliver(paused=True)
    session = till.pay(purchase)
    paid_with = {"payment_intent": session["payment_intent"]}
    good_ones = [session, {**REFUND, **paid_with}, {**DISPUTE, **paid_with}]
    chance = random.Random(5)
    before = house.now(purchase)
    for turn in range(120):
        which = chance.randrange(3)
        kind, good = TELLING[which][0], good_ones[which]
        about = copy.deepcopy(good)
        for _ in range(chance.randint(1, 3)):
            about[chance.choice(sorted(about))] = chance.choice(WRONG)
        if kind == COMPLETED:
            # What is wrong is said of this purchase, and never that it was paid as it was sold.
            about |= {"client_reference_id": reference(purchase), "amount_total": 1}
        try:
            told = event(kind, about, f"evt_{turn}")
        except ValueError:
            continue
        assert house.receive(told) != [None]
    assert house.now(purchase) == before
    assert house.rest(account) == (0, 0, 0, [])
    assert {standing for (standing,) in house.inbox("standing")} <= {2, 3, 4}


def test_what_an_event_carries_is_kept_as_it_came(house: House) -> None:
    about = {"id": "re_x", "payment_intent": "pi_x", "amount": 5, "status": "pending", "currency": "usd"}
    told = event("refund.created", {**about, "reason": "ümläut \0 \ud800 🎬"})
    assert house.receive(told)[0] is not None
    [(payload,)] = house.inbox("payload")
    assert json.loads(payload) == json.loads(told.payload)
