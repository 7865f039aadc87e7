"""What is bought, refunded and disputed, one by one, and what becomes of a wallet by it."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest

from oanim_server.database.engine import Database
from oanim_server.ledger.refusals import InsufficientCredits
from oanim_server.ledger.values import (
    DAY,
    SECOND,
    Account,
    Kind,
    Origin,
    Outcome,
    WalletFacts,
)
from tests.ledger.driving import Driven, batch, in_threads
from tests.ledger.selling import Disputed, Paid, Purchase, Refunded, Shop

if TYPE_CHECKING:
    from collections.abc import Sequence

FIFTY = Purchase("p", 50, 5)


def books(ledger: Driven, wallet_id: int) -> dict[str, int]:
    """What each system account has of a wallet, by all rows of its journal."""
    sums: Counter[str] = Counter()
    for row in ledger.journal(wallet_id):
        for account, micros in json.loads(row.entries):
            sums[Account(account).name.lower()] += micros
    return {name: micros for name, micros in sums.items() if micros and name != "wallet"}


def test_a_purchase_is_a_paid_lot_and_a_bonus_that_is_drawn_first(ledger: Driven) -> None:
    wallet_id, shop = ledger.open_wallet(0), Shop(ledger)
    outcome = shop.sell(wallet_id, FIFTY._replace(lifetime=DAY))
    assert outcome.wallet == WalletFacts(wallet_id, 55, 0, 0, 1, frozen=False)
    assert [
        (lot.number, lot.origin, lot.remaining_micros, lot.expires_at) for lot in ledger.lots(wallet_id)
    ] == [
        (1, Origin.BONUS, 5, ledger.clock.now + DAY),
        (2, Origin.PURCHASE, 50, ledger.clock.now + DAY),
    ]
    row = ledger.journal(wallet_id)[0]
    assert (row.kind, row.entries) == (Kind.PURCHASE, "[[6,-50],[1,55],[2,-5]]")
    assert ledger.problems() == []


@pytest.mark.parametrize(
    ("events", "reversed_micros", "at_the_end"),
    [
        # The examples of I8, in dollars: paid 50, credited 55.
        ([Refunded("a", 25)], [27], {"stripe": -50 + 25, "promotions": -5 + 2}),
        ([Refunded("a", 50)], [55], {}),
        ([Refunded("a", 50), Disputed("d", 50)], [55, 55], {}),
        ([Disputed("d", 50), Refunded("a", 50)], [55, 55], {}),
        ([Disputed("d", 50)], [55], {"stripe": -50, "promotions": -5, "disputes": 55}),
        ([Disputed("d", 50), Disputed("d", 50, reinstated=True)], [55, 0], {"stripe": -50, "promotions": -5}),
        (
            [Refunded("a", 50), Refunded("a", 50, failed=True)],
            [55, 0],
            {"stripe": -50, "promotions": -5},
        ),
        (
            [Refunded("a", 20), Disputed("d", 50), Disputed("d", 50, reinstated=True), Refunded("b", 30)],
            [22, 55, 22, 55],
            {},
        ),
        # A word that nothing follows from.
        (
            [Refunded("a", 20, failed=True), Disputed("d", 9, reinstated=True)],
            [0, 0],
            {"stripe": -50, "promotions": -5},
        ),
    ],
)
def test_refunds_and_disputes_take_back_what_i8_says(
    ledger: Driven,
    events: Sequence[Refunded | Disputed],
    reversed_micros: Sequence[int],
    at_the_end: dict[str, int],
) -> None:
    wallet_id, shop = ledger.open_wallet(0), Shop(ledger)
    shop.sell(wallet_id, FIFTY)
    for event, micros in zip(events, reversed_micros, strict=True):
        assert shop.tell(wallet_id, FIFTY, event).wallet.balance_micros == 55 - micros
        assert ledger.problems() == []
    assert books(ledger, wallet_id) == at_the_end
    assert ledger.wallet(wallet_id)[2:4] == (0, 0)


def test_what_is_owed_blocks_work_and_not_the_work_that_is_done(ledger: Driven) -> None:
    wallet_id, shop = ledger.open_wallet(0), Shop(ledger)
    shop.sell(wallet_id, FIFTY)
    charged, held = ledger.hold(wallet_id, 30), ledger.hold(wallet_id, 20)
    ledger.run(ledger.commit(wallet_id, charged, 30))
    outcome = shop.tell(wallet_id, FIFTY, Refunded("a", 50))
    # 5 were free; the bonus and 25 of what was paid are spent, 20 are held.
    assert outcome.wallet == WalletFacts(wallet_id, -30, 20, 50, 5, frozen=False)
    refused = ledger.refused(ledger.reserve(wallet_id, 1))
    assert (type(refused), refused.facts()) == (
        InsufficientCredits,
        {"required_micros": 1, "available_micros": -50},
    )
    assert isinstance(ledger.refused(ledger.extend(wallet_id, held, amount_micros=1)), InsufficientCredits)
    assert ledger.run(ledger.commit(wallet_id, held, 15)).wallet == WalletFacts(
        wallet_id, -45, 0, 45, 6, frozen=False
    )
    assert ledger.problems() == []


def test_a_top_up_pays_what_is_owed_first_and_its_bonus_before_what_was_paid(ledger: Driven) -> None:
    wallet_id, shop = ledger.open_wallet(0), Shop(ledger)
    shop.sell(wallet_id, FIFTY)
    ledger.run(ledger.commit(wallet_id, ledger.hold(wallet_id, 55), 55))
    shop.tell(wallet_id, FIFTY, Disputed("d", 50))
    assert ledger.wallet(wallet_id) == WalletFacts(wallet_id, -55, 0, 55, 4, frozen=False)
    shop.sell(wallet_id, Purchase("q", 30))
    assert ledger.wallet(wallet_id) == WalletFacts(wallet_id, -25, 0, 25, 5, frozen=False)
    assert isinstance(ledger.refused(ledger.reserve(wallet_id, 1)), InsufficientCredits)
    shop.sell(wallet_id, Purchase("r", 50, 10))
    assert ledger.wallet(wallet_id) == WalletFacts(wallet_id, 35, 0, 0, 6, frozen=False)
    assert [(lot.origin, lot.remaining_micros) for lot in ledger.lots(wallet_id)] == [(Origin.PURCHASE, 35)]
    # What was reinstated pays nothing any more: it is a paid lot without expiry.
    ledger.clock.forward(DAY)
    shop.tell(wallet_id, FIFTY, Disputed("d", 50, reinstated=True))
    assert [
        (lot.origin, lot.remaining_micros, lot.expires_at, lot.created_at) for lot in ledger.lots(wallet_id)
    ] == [
        (Origin.PURCHASE, 35, None, ledger.clock.now - DAY),
        (Origin.REINSTATED, 55, None, ledger.clock.now),
    ]
    assert ledger.problems() == []


def test_what_is_reinstated_pays_what_is_owed_first(ledger: Driven) -> None:
    wallet_id, shop = ledger.open_wallet(0), Shop(ledger)
    bought = FIFTY._replace(lifetime=DAY)
    shop.sell(wallet_id, bought)
    ledger.run(ledger.commit(wallet_id, ledger.hold(wallet_id, 40), 40))
    shop.tell(wallet_id, bought, Disputed("d", 50))
    assert ledger.wallet(wallet_id) == WalletFacts(wallet_id, -40, 0, 40, 4, frozen=False)
    shop.tell(wallet_id, bought, Disputed("d", 50, reinstated=True))
    assert ledger.wallet(wallet_id) == WalletFacts(wallet_id, 15, 0, 0, 5, frozen=False)
    ledger.clock.forward(2 * DAY)
    assert [(lot.origin, lot.remaining_micros) for lot in ledger.lots(wallet_id)] == [(Origin.REINSTATED, 15)]
    assert ledger.problems() == []


def test_what_becomes_free_pays_what_is_owed_before_it_is_free_or_expires(ledger: Driven) -> None:
    wallet_id, shop = ledger.open_wallet(0), Shop(ledger)
    bought = FIFTY._replace(lifetime=DAY)
    shop.sell(wallet_id, bought)
    kept = ledger.hold(wallet_id, 20)
    ledger.hold(wallet_id, 35, ttl=DAY)
    shop.tell(wallet_id, bought, Refunded("a", 30))
    assert ledger.wallet(wallet_id) == WalletFacts(wallet_id, 22, 55, 33, 4, frozen=False)
    ledger.run(ledger.release(wallet_id, kept))
    assert ledger.wallet(wallet_id) == WalletFacts(wallet_id, 22, 35, 13, 5, frozen=False)
    ledger.clock.forward(DAY)
    assert ledger.wallet(wallet_id)[1:4] == (0, 0, 0)
    ledger.settle(wallet_id)
    # 13 of the 35 were owed, and 22 have expired.
    assert books(ledger, wallet_id) == {"stripe": -50 + 30, "promotions": -5 + 3, "breakage": 22}
    shop.tell(wallet_id, bought, Refunded("b", 20))
    assert ledger.wallet(wallet_id)[1:4] == (0, 0, 0)
    assert books(ledger, wallet_id) == {}
    assert ledger.problems() == []


@pytest.mark.parametrize("released", [False, True])
def test_what_expires_of_a_purchase_after_others_paid_for_it_comes_back(
    ledger: Driven, *, released: bool
) -> None:
    wallet_id, shop = ledger.open_wallet(100), Shop(ledger)
    bought = Purchase("p", 50, lifetime=DAY)
    shop.sell(wallet_id, bought)
    kept = ledger.hold(wallet_id, 50, ttl=DAY)
    shop.tell(wallet_id, bought, Refunded("a", 50))
    # Its own 50 are held, so others are taken; by the time they are free they have expired, or do so next.
    assert ledger.wallet(wallet_id)[1:4] == (100, 50, 0)
    if released:
        ledger.run(ledger.release(wallet_id, kept))
    ledger.clock.forward(DAY)
    seen = ledger.wallet(wallet_id)
    ledger.settle(wallet_id)
    assert ledger.wallet(wallet_id)[1:4] == seen[1:4] == (100, 0, 0)
    assert books(ledger, wallet_id)["promotions"] == -100
    assert {lot.expires_at for lot in ledger.lots(wallet_id)} == {None}
    # Neither a refund that failed nor the same word again gives it twice.
    shop.tell(wallet_id, bought, Refunded("a", 50, failed=True))
    assert ledger.wallet(wallet_id)[1:4] == (100, 0, 0)
    assert ledger.problems() == []


def test_bought_credits_that_expire_at_noon_cannot_be_reserved_at_noon(ledger: Driven) -> None:
    wallet_id, shop = ledger.open_wallet(0), Shop(ledger)
    midnight = ledger.clock.now
    noon, minute = midnight + DAY // 2, 60_000_000
    shop.sell(wallet_id, Purchase("p", 50, 5, lifetime=DAY // 2))
    ledger.clock.now = noon - 1
    kept = ledger.hold(wallet_id, 5)
    ledger.clock.now = noon
    assert isinstance(ledger.refused(ledger.reserve(wallet_id, 1)), InsufficientCredits)
    ledger.clock.now = noon + 2 * minute
    times = (noon - minute, noon + minute)
    asked = [ledger.statement(wallet_id, as_of=time) for time in times]
    assert [statement.wallet[1:3] for statement in asked] == [(55, 0), (5, 5)]
    ledger.run(ledger.commit(wallet_id, kept, 5))
    ledger.clock.forward(DAY)
    ledger.settle(wallet_id)
    assert [ledger.statement(wallet_id, as_of=time) for time in times] == asked
    assert ledger.problems() == []


def test_the_same_event_has_one_effect_under_its_key_and_under_another(ledger: Driven) -> None:
    wallet_id, shop = ledger.open_wallet(0), Shop(ledger)
    for event in (Paid(), Refunded("a", 25), Disputed("d", 10), Disputed("d", 10, reinstated=True)):
        first = shop.tell(wallet_id, FIFTY, event, key=f"{event}")
        assert shop.tell(wallet_id, FIFTY, event, key=f"{event}") == first._replace(replayed=True)
        again = shop.tell(wallet_id, FIFTY, event, key=f"{event} again")
        assert (again.wallet, again.replayed) == (first.wallet, False)
    assert [row.kind for row in ledger.journal(wallet_id)] == [
        Kind.PURCHASE,
        Kind.REVERSAL,
        Kind.REVERSAL,
        Kind.REINSTATEMENT,
    ]
    assert ledger.problems() == []


def one_credit(ledger: Driven, wallet_id: int, answers: Sequence[object]) -> None:
    assert all(isinstance(answer, Outcome) for answer in answers), answers
    assert ledger.wallet(wallet_id) == WalletFacts(wallet_id, 55, 0, 0, 1, frozen=False)
    assert ledger.count("purchase_credits") == 1
    assert ledger.problems() == []


def test_fifty_words_of_one_payment_at_once_are_one_credit(ledger: Driven) -> None:
    wallet_id, shop = ledger.open_wallet(0), Shop(ledger)
    tell = [partial(shop.tell, wallet_id, FIFTY, Paid(), f"event-{number}") for number in range(50)]
    one_credit(ledger, wallet_id, in_threads(tell))


def test_fifty_words_of_one_payment_in_one_group_are_one_credit(ledger: Driven) -> None:
    wallet_id, shop = ledger.open_wallet(0), Shop(ledger)
    one_credit(
        ledger, wallet_id, batch(ledger.ledger, [shop.word(wallet_id, FIFTY, Paid()) for _ in range(50)])
    )


def test_fifty_words_of_one_payment_at_two_replicas_are_one_credit(postgresql_url: str) -> None:
    first = Driven(Database.open_postgresql(postgresql_url, unsafe=True)).start()
    second = Driven(Database.open_postgresql(postgresql_url, unsafe=True), clock=first.clock).start()
    wallet_id, shop = first.open_wallet(0), Shop(first)
    words = [shop.word(wallet_id, FIFTY, Paid(), f"event-{number}") for number in range(50)]
    answers = in_threads(
        [partial(ledger.run, word) for ledger, word in zip([first, second] * 25, words, strict=True)]
    )
    one_credit(second, wallet_id, answers)
    second.close()
    first.close()


def test_a_payment_is_credited_and_taken_back_on_a_frozen_account(ledger: Driven) -> None:
    wallet_id, shop = ledger.open_wallet(0), Shop(ledger)
    ledger.freeze(wallet_id)
    shop.sell(wallet_id, FIFTY)
    shop.tell(wallet_id, FIFTY, Refunded("a", 25))
    assert ledger.wallet(wallet_id) == WalletFacts(wallet_id, 28, 0, 0, 3, frozen=True)


def test_a_purchase_and_what_takes_it_back_may_be_in_one_group(ledger: Driven) -> None:
    wallet_id, shop = ledger.open_wallet(10), Shop(ledger)
    works = [
        shop.word(wallet_id, FIFTY, Refunded("a", 25)),
        shop.word(wallet_id, FIFTY, Paid()),
        ledger.reserve(wallet_id, 65),
        shop.word(wallet_id, FIFTY, Disputed("d", 9)),
        shop.word(wallet_id, FIFTY, Disputed("d", 9, reinstated=True)),
        shop.word(wallet_id, FIFTY, Refunded("a", 25, failed=True)),
    ]
    answers = batch(ledger.ledger, works)
    assert [answer.wallet.balance_micros for answer in answers] == [10, 65, 65, 28, 38, 65]
    assert [answer.wallet.debt_micros for answer in answers] == [0, 0, 0, 37, 27, 0]
    assert ledger.problems() == []


def test_a_statement_of_any_time_shows_what_was_owed_then(ledger: Driven) -> None:
    wallet_id, shop = ledger.open_wallet(0), Shop(ledger)
    seen = []
    for event in (Paid(), Refunded("a", 25), Refunded("a", 25, failed=True), Disputed("d", 50)):
        shop.tell(wallet_id, FIFTY, event)
        if isinstance(event, Paid):
            ledger.run(ledger.commit(wallet_id, ledger.hold(wallet_id, 40), 40))
        statement = ledger.statement(wallet_id)
        seen.append((ledger.clock.now, statement.wallet, statement.lots))
        ledger.clock.forward(SECOND)
    assert [facts.debt_micros for _, facts, _ in seen] == [0, 12, 0, 40]
    for at, facts, lots in seen:
        statement = ledger.statement(wallet_id, as_of=at)
        assert (statement.wallet, statement.lots) == (facts, lots)
