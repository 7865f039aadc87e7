"""What may be bought, what comes on top, and what refunds and disputes come to."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oanim_server.checkout import rules
from oanim_server.checkout.values import Dispute, Purchase, Refund, SessionWord, State, Terms
from oanim_server.ledger.refusals import InvalidField
from oanim_server.ledger.reversals import Targets
from oanim_server.ledger.values import DAY
from tests.checkout.house import TERMS, USD, micros_of

SOLD = Purchase(
    wallet_id=1,
    token="t" * 24,
    api_key_id="k",
    idem_key="i",
    state=State.OPEN,
    amount_micros=50 * USD,
    bonus_micros=5 * USD,
    lifetime=None,
    created_at=0,
    expires_at=DAY,
    session_id="cs_1",
)
PAID = SOLD._replace(state=State.PAID, paid_micros=50 * USD, credit=2)
SMALL = PAID._replace(amount_micros=10 * USD, bonus_micros=0, paid_micros=10 * USD)
# With a tax of ten percent.
TAXED = PAID._replace(paid_micros=55 * USD, tax_micros=5 * USD)
WORD = SessionWord(
    session_id="cs_1",
    reference="",
    status="complete",
    paid=True,
    failed=False,
    payment_intent="pi_1",
    subtotal_micros=50 * USD,
    total_micros=50 * USD,
    tax_micros=0,
    currency="usd",
    mode="payment",
    livemode=False,
)


@pytest.mark.parametrize(
    ("dollars", "bonus"), [(5, 0), (49.99, 0), (50, 5), (50.01, 5.001), (100, 10), (10_000, 1_000)]
)
def test_ten_percent_of_the_whole_comes_on_top_from_fifty_dollars_on(dollars: float, bonus: float) -> None:
    assert rules.bonus_micros(TERMS, micros_of(dollars)) == round(bonus * USD)


@pytest.mark.parametrize(
    "micros", [5 * USD - 10_000, 10_000 * USD + 10_000, 5 * USD + 5_000, 50 * USD + 1, 0, -10 * USD]
)
def test_what_is_too_little_too_much_or_no_whole_cents_cannot_be_bought(micros: int) -> None:
    with pytest.raises(InvalidField) as refused:
        rules.bonus_micros(TERMS, micros)
    assert refused.value.field == "amount_micros"


def test_a_bonus_is_rounded_down_and_never_leads_beyond_the_largest_amount() -> None:
    terms = Terms(10_000, 10**12, 0, 33)
    assert rules.bonus_micros(terms, 10_000) == 3_300
    assert rules.bonus_micros(terms._replace(bonus_percent=1), 30_000) == 300
    with pytest.raises(InvalidField) as refused:
        rules.bonus_micros(terms, 10**12)
    assert "bonus" in refused.value.description


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"session_id": "cs_2"}, "session is cs_2 and must be cs_1"),
        ({"livemode": True}, "livemode is True and must be False"),
        ({"mode": "subscription"}, "mode is subscription and must be payment"),
        ({"currency": "eur"}, "currency is eur and must be usd"),
        (
            {"subtotal_micros": 5 * USD, "total_micros": 5 * USD},
            (
                "amount in micro-USD is 5000000 and must be 50000000; "
                "amount with tax in micro-USD is 5000000 and must be 50000000"
            ),
        ),
        ({"total_micros": 45 * USD}, "amount with tax in micro-USD is 45000000 and must be 50000000"),
    ],
)
def test_what_is_not_as_it_was_sold_is_said(wrong: dict[str, Any], problem: str) -> None:
    assert rules.mismatch(SOLD, WORD._replace(**wrong), livemode=False) == problem


def test_a_session_is_as_it_was_sold_with_tax_and_when_its_page_was_not_kept() -> None:
    taxed = WORD._replace(total_micros=55 * USD, tax_micros=5 * USD)
    assert rules.mismatch(SOLD, WORD, livemode=False) == ""
    assert rules.mismatch(SOLD, taxed, livemode=False) == ""
    assert rules.mismatch(SOLD._replace(session_id=""), WORD, livemode=False) == ""
    assert rules.mismatch(SOLD, WORD._replace(livemode=True), livemode=True) == ""


PAID_WORD = WORD
UNPAID_WORD = WORD._replace(paid=False)
FAILED_WORD = UNPAID_WORD._replace(failed=True)
EXPIRED_WORD = UNPAID_WORD._replace(status="expired")
OPEN_WORD = UNPAID_WORD._replace(status="open")


@pytest.mark.parametrize(
    ("word", "after"),
    [
        (PAID_WORD, "PAID PAID PAID PAID PAID PAID"),
        (UNPAID_WORD, "PROCESSING PROCESSING PROCESSING PAID EXPIRED FAILED"),
        (FAILED_WORD, "FAILED FAILED FAILED PAID EXPIRED FAILED"),
        (EXPIRED_WORD, "EXPIRED EXPIRED EXPIRED PAID EXPIRED FAILED"),
        (OPEN_WORD, "OPEN OPEN PROCESSING PAID EXPIRED FAILED"),
    ],
)
def test_what_was_paid_stays_paid_and_what_ended_may_only_be_paid_late(word: SessionWord, after: str) -> None:
    found = [rules.state_after(SOLD._replace(state=state), word).name for state in State]
    assert found == after.split()


@pytest.mark.parametrize(
    ("known", "state", "after"),
    [
        ("", "pending", "pending"),
        ("pending", "requires_action", "pending"),
        ("pending", "succeeded", "succeeded"),
        ("succeeded", "pending", "succeeded"),
        ("succeeded", "failed", "failed"),
        ("pending", "canceled", "canceled"),
        ("failed", "succeeded", "failed"),
        ("failed", "canceled", "failed"),
        ("canceled", "pending", "canceled"),
    ],
)
def test_a_refund_only_moves_forward(known: str, state: str, after: str) -> None:
    former = Refund("re_1", 7, known, 0) if known else None
    assert rules.refund_after(former, 7, state) == (7, after)


@pytest.mark.parametrize(
    ("known", "state", "after"),
    [
        ("", "needs_response", "needs_response"),
        ("needs_response", "under_review", "under_review"),
        ("under_review", "needs_response", "under_review"),
        ("under_review", "lost", "lost"),
        ("lost", "needs_response", "lost"),
        ("won", "under_review", "won"),
        ("warning_needs_response", "warning_under_review", "warning_under_review"),
        ("warning_under_review", "needs_response", "needs_response"),
        ("needs_response", "warning_needs_response", "needs_response"),
        ("warning_closed", "warning_needs_response", "warning_closed"),
    ],
)
def test_a_dispute_only_moves_forward(known: str, state: str, after: str) -> None:
    former = Dispute("du_1", 7, known, withdrawn=False, reinstated=False, first_seen_at=0) if known else None
    assert rules.dispute_after(former, 7, state) == (7, after)


# In dollars: what was refunded, disputed, reinstated; and what that comes to in stripe, promotions, disputes.
@pytest.mark.parametrize(
    ("purchase", "refunded", "disputed", "reinstated", "expected"),
    [
        (PAID, 0, 0, 0, (0, 0, 0)),
        (PAID, 25, 0, 0, (25, 2.5, 0)),
        (PAID, 50, 0, 0, (50, 5, 0)),
        (PAID, 0, 50, 0, (0, 0, 55)),
        (PAID, 50, 50, 0, (50, 5, 0)),
        (PAID, 20, 50, 0, (20, 2, 33)),
        (PAID, 20, 50, 50, (20, 2, 0)),
        (PAID, 0, 50, 50, (0, 0, 0)),
        (PAID, 60, 0, 0, (50, 5, 0)),
        (TAXED, 27.5, 0, 0, (25, 2.5, 0)),
        (TAXED, 55, 0, 0, (50, 5, 0)),
        (TAXED, 0, 55, 0, (0, 0, 55)),
        (TAXED, 11, 55, 0, (10, 1, 44)),
        (TAXED, 0.01, 0, 0, (0.00909, 0.00091, 0)),
        (SMALL, 3.33, 0, 0, (3.33, 0, 0)),
        (SOLD, 50, 50, 0, (0, 0, 0)),
    ],
)
def test_what_goes_back_is_the_credits_share_of_what_was_refunded_and_disputed(
    purchase: Purchase, refunded: float, disputed: float, reinstated: float, expected: tuple[float, ...]
) -> None:
    refunds = [Refund("re_1", micros_of(refunded), "succeeded", 0)] if refunded else []
    disputes = [
        Dispute("du_1", micros_of(disputed), "", withdrawn=True, reinstated=bool(reinstated), first_seen_at=0)
    ]
    found = rules.targets(purchase, refunds, disputes if disputed else [])
    assert found == Targets(*(round(dollars * USD) for dollars in expected))


def test_what_came_to_nothing_and_what_was_only_asked_counts_nothing() -> None:
    refunds = [Refund("re_1", USD, "failed", 0), Refund("re_2", USD, "canceled", 0)]
    inquiry = Dispute("du_1", USD, "warning_closed", withdrawn=False, reinstated=False, first_seen_at=0)
    won_at_once = inquiry._replace(state="won", reinstated=True)
    assert rules.targets(PAID, refunds, [inquiry, won_at_once]) == Targets(0, 0, 0)
    waiting = [Refund("re_3", 10 * USD, "pending", 0), Refund("re_4", 10 * USD, "requires_action", 0)]
    assert rules.targets(PAID, waiting, []) == Targets(20 * USD, 2 * USD, 0)


cents = st.integers(1, 20_000).map(lambda number: number * 10_000)


@given(
    cents,
    st.integers(0, 50),
    st.integers(0, 5_000),
    st.lists(st.tuples(cents, st.sampled_from(["pending", "succeeded", "failed", "canceled"])), max_size=4),
    st.lists(st.tuples(cents, st.booleans(), st.booleans()), max_size=3),
)
def test_targets_are_what_i8_defines(
    amount: int,
    percent: int,
    tax_cents: int,
    refunds: list[tuple[int, str]],
    disputes: list[tuple[int, bool, bool]],
) -> None:
    paid = amount + tax_cents * 10_000
    credited = amount + amount * percent // 100
    purchase = PAID._replace(amount_micros=amount, bonus_micros=credited - amount, paid_micros=paid)
    refunded = sum(micros for micros, state in refunds if state in ("pending", "succeeded"))
    disputed = sum(micros for micros, withdrawn, _ in disputes if withdrawn)
    reinstated = sum(micros for micros, withdrawn, back in disputes if withdrawn and back)
    found = rules.targets(
        purchase,
        [Refund(str(number), *refund, 0) for number, refund in enumerate(refunds)],
        [
            Dispute(str(number), micros, "", withdrawn=withdrawn, reinstated=back, first_seen_at=0)
            for number, (micros, withdrawn, back) in enumerate(disputes)
        ],
    )
    share = Fraction(min(paid, refunded + disputed - reinstated), paid)
    assert sum(found) == floor(credited * share)
    assert found.stripe_micros == floor(amount * Fraction(min(paid, refunded), paid))
    assert min(found) >= 0
    # What the audit holds a refund to.
    of_bonus = found.promotions_micros * amount - found.stripe_micros * (credited - amount)
    assert abs(of_bonus) < credited
