"""Limits by day, week and month: what counts under them, when, and what they refuse."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest

from oanim_server.database.engine import Database
from oanim_server.ledger.refusals import (
    BlockedLimit,
    BlockedScope,
    InsufficientCredits,
    LimitExceeded,
    SpendLimitExceeded,
)
from oanim_server.ledger.values import DAY, MICROS_PER_USD, SECOND, Outcome, Scope, State, WalletFacts
from oanim_server.ledger.windows import Period
from tests.ledger.driving import START, Driven, in_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from oanim_server.ledger.operations import Operation

NOON = DAY // 2
# The driven clock starts on a Tuesday, the first of a month and of a year.
TOMORROW = (START + DAY) // SECOND


def blocked(ledger: Driven, operation: Operation) -> list[BlockedLimit]:
    """The limits that an operation is refused for."""
    refused = ledger.refused(operation)
    assert isinstance(refused, LimitExceeded), refused
    return refused.limits


def used(ledger: Driven, wallet_id: int) -> list[tuple[str, str, int, int, int]]:
    """What each limit has in its present window: key, window, limit, charged, held."""
    return [
        (facts.limit.api_key_id, facts.window.name, facts.limit.limit_micros, *facts[1:3])
        for facts in ledger.limits(wallet_id)
    ]


# Never passed ---------------------------------------------------------------------------------------


def never_passed(answers: Sequence[object]) -> None:
    """Of 64 that each wanted a twentieth of the limit."""
    assert Counter(type(answer).__name__ for answer in answers) == {"Outcome": 20, "LimitExceeded": 44}
    assert {repr(answer.facts()) for answer in answers if isinstance(answer, LimitExceeded)} == {
        repr(
            LimitExceeded(
                [BlockedLimit("k", "day", MICROS_PER_USD, 0, MICROS_PER_USD, 50_000, 0, TOMORROW)], []
            ).facts()
        )
    }


def test_a_daily_limit_of_a_dollar_is_never_passed_by_64_at_once(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(50 * MICROS_PER_USD)
    ledger.set_limit(wallet_id, MICROS_PER_USD)
    never_passed(in_threads([partial(ledger.run, ledger.reserve(wallet_id, 50_000)) for _ in range(64)]))
    assert used(ledger, wallet_id) == [("k", "day 2030-01-01", MICROS_PER_USD, 0, MICROS_PER_USD)]
    assert ledger.problems() == []


@pytest.fixture
def replicas(postgresql_url: str) -> Iterator[tuple[Driven, Driven]]:
    """Two servers' ledgers on one PostgreSQL, with one clock."""
    first = Driven(Database.open_postgresql(postgresql_url, unsafe=True)).start()
    second = Driven(Database.open_postgresql(postgresql_url, unsafe=True), clock=first.clock).start()
    yield first, second
    second.close()
    first.close()


def test_a_daily_limit_of_a_dollar_is_never_passed_at_two_replicas(replicas: tuple[Driven, Driven]) -> None:
    wallet_id = replicas[0].open_wallet(50 * MICROS_PER_USD)
    replicas[0].set_limit(wallet_id, MICROS_PER_USD)
    never_passed(
        in_threads(
            [
                partial(replica.run, replica.reserve(wallet_id, 50_000, key=f"{name}-{number}"))
                for number in range(32)
                for name, replica in zip(("first", "second"), replicas, strict=True)
            ]
        )
    )
    assert used(replicas[1], wallet_id) == [("k", "day 2030-01-01", MICROS_PER_USD, 0, MICROS_PER_USD)]
    assert replicas[0].problems() == []


def test_a_limit_that_is_set_at_one_replica_while_the_other_works_is_never_passed_from_then_on(
    replicas: tuple[Driven, Driven],
) -> None:
    first, second = replicas
    wallet_id = first.open_wallet(1_000_000)

    def work(name: str) -> None:
        for number in range(20):
            held = second.run(second.reserve(wallet_id, 100, key=f"{name}-{number}")).reservation
            assert held is not None
            second.run(second.commit(wallet_id, held.number, 70, key=f"{name}-{number}"))

    calls: list[Callable[[], object]] = [partial(work, str(name)) for name in range(8)]
    calls.append(partial(first.set_limit, wallet_id, 5_000))
    answers = in_threads(calls)
    assert isinstance(answers[-1], Outcome)
    assert all(answer is None or isinstance(answer, LimitExceeded) for answer in answers[:-1]), answers
    # What was spent before it was set may be more; since then nothing was let through that passes it.
    set_at = answers[-1].wallet.seq
    spent = 0
    for row in first.journal(wallet_id):
        spent += row.charged_micros
        if row.seq > set_at and row.charged_micros == 0:
            assert spent + row.held_micros <= 5_000
    assert used(first, wallet_id) == [("k", "day 2030-01-01", 5_000, spent, 0)]
    assert first.problems() == []


# What counts ----------------------------------------------------------------------------------------


def test_what_was_spent_and_is_held_before_a_limit_is_set_counts(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    ledger.run(ledger.commit(wallet_id, ledger.hold(wallet_id, 50), 30))
    ledger.run(ledger.release(wallet_id, ledger.hold(wallet_id, 50)))
    ledger.run(ledger.commit(wallet_id, ledger.hold(wallet_id, 20), 5, keep_rest=True))
    ledger.hold(wallet_id, 7, api_key_id="other")
    ledger.set_limit(wallet_id, 100)
    ledger.set_limit(wallet_id, 200, key_id="")
    assert used(ledger, wallet_id) == [
        ("", "day 2030-01-01", 200, 35, 22),
        ("k", "day 2030-01-01", 100, 35, 15),
    ]
    assert blocked(ledger, ledger.reserve(wallet_id, 51)) == [
        BlockedLimit("k", "day", 100, 35, 15, 51, 50, TOMORROW)
    ]
    ledger.hold(wallet_id, 50)
    assert ledger.problems() == []


def test_a_hold_counts_until_it_is_given_back_and_then_as_what_it_was_charged(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    ledger.set_limit(wallet_id, 100)
    kept, freed, expiring = (ledger.hold(wallet_id, micros, ttl=SECOND * micros) for micros in (50, 30, 20))
    ledger.run(ledger.commit(wallet_id, kept, 10, keep_rest=True))
    assert used(ledger, wallet_id)[0][3:] == (10, 90)
    ledger.run(ledger.release(wallet_id, freed))
    assert used(ledger, wallet_id)[0][3:] == (10, 60)
    ledger.run(ledger.commit(wallet_id, kept, 5, capture=2))
    assert used(ledger, wallet_id)[0][3:] == (15, 20)
    ledger.clock.forward(20 * SECOND)
    assert ledger.reservation(wallet_id, expiring).state is State.EXPIRED
    assert used(ledger, wallet_id)[0][3:] == (15, 0)
    ledger.hold(wallet_id, 85)
    assert isinstance(ledger.refused(ledger.reserve(wallet_id, 1)), LimitExceeded)
    assert ledger.problems() == []


def test_another_key_does_not_count_under_a_keys_limit_and_does_under_the_accounts(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    ledger.set_limit(wallet_id, 100)
    ledger.hold(wallet_id, 101, api_key_id="other")
    ledger.hold(wallet_id, 100)
    ledger.set_limit(wallet_id, 250, key_id="")
    assert blocked(ledger, ledger.reserve(wallet_id, 50, api_key_id="other")) == [
        BlockedLimit("account", "day", 250, 0, 201, 50, 49, TOMORROW)
    ]


def test_limits_of_two_wallets_do_not_meet(ledger: Driven) -> None:
    first, second = ledger.open_wallet(1_000), ledger.open_wallet(1_000)
    ledger.set_limit(first, 100)
    ledger.hold(second, 500)
    ledger.hold(first, 100)
    assert ledger.limits(second) == []
    assert ledger.problems() == []


def test_work_that_is_settled_late_is_never_refused_and_counts(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    ledger.set_limit(wallet_id, 100)
    late = ledger.hold(wallet_id, 60, ttl=SECOND)
    ledger.clock.forward(SECOND)
    ledger.run(ledger.commit(wallet_id, ledger.hold(wallet_id, 100), 90))
    assert ledger.run(ledger.commit(wallet_id, late, 60)).charged_micros == 60
    assert used(ledger, wallet_id)[0][3:] == (150, 0)
    assert blocked(ledger, ledger.reserve(wallet_id, 1)) == [
        BlockedLimit("k", "day", 100, 150, 0, 1, 0, TOMORROW)
    ]
    assert ledger.problems() == []


def test_work_that_nobody_paid_is_never_refused_and_takes_no_room(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(100)
    ledger.set_limit(wallet_id, 100)
    late = ledger.hold(wallet_id, 60, ttl=SECOND)
    ledger.clock.forward(SECOND)
    ledger.hold(wallet_id, 50)
    outcome = ledger.run(ledger.commit(wallet_id, late, 60))
    assert (outcome.charged_micros, outcome.uncollected_micros) == (0, 60)
    assert used(ledger, wallet_id)[0][3:] == (0, 50)
    assert ledger.problems() == []


# Windows --------------------------------------------------------------------------------------------


def test_a_window_turns_at_midnight_utc_exactly(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    ledger.clock.forward(NOON)
    ledger.set_limit(wallet_id, 100)
    ledger.run(ledger.commit(wallet_id, ledger.hold(wallet_id, 100), 100))
    ledger.clock.forward(DAY - NOON - 1)
    assert blocked(ledger, ledger.reserve(wallet_id, 1)) == [
        BlockedLimit("k", "day", 100, 100, 0, 1, 0, TOMORROW)
    ]
    assert used(ledger, wallet_id) == [("k", "day 2030-01-01", 100, 100, 0)]
    ledger.clock.forward(1)
    assert used(ledger, wallet_id) == [("k", "day 2030-01-02", 100, 0, 0)]
    ledger.hold(wallet_id, 100)
    assert blocked(ledger, ledger.reserve(wallet_id, 1)) == [
        BlockedLimit("k", "day", 100, 0, 100, 1, 0, TOMORROW + DAY // SECOND)
    ]
    assert ledger.problems() == []


def test_yesterdays_hold_is_charged_to_yesterday(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    ledger.set_limit(wallet_id, 100)
    charged, freed, late = (ledger.hold(wallet_id, 30, ttl=DAY) for _ in range(3))
    ledger.clock.forward(DAY - 1)
    today = ledger.hold(wallet_id, 10, ttl=DAY)
    ledger.clock.forward(1)
    ledger.run(ledger.commit(wallet_id, charged, 20))
    ledger.run(ledger.release(wallet_id, freed))
    ledger.run(ledger.commit(wallet_id, late, 25))
    assert used(ledger, wallet_id) == [("k", "day 2030-01-02", 100, 0, 0)]
    ledger.hold(wallet_id, 100)
    ledger.run(ledger.commit(wallet_id, today, 10))
    counters = ledger.rows("SELECT window_name, charged_micros, held_micros FROM spend_counters ORDER BY 1")
    assert counters == [("day 2030-01-01", 55, 0), ("day 2030-01-02", 0, 100)]
    assert ledger.problems() == []


def test_an_extend_is_checked_in_the_window_of_its_reserve(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    ledger.set_limit(wallet_id, 100)
    number = ledger.hold(wallet_id, 60, ttl=DAY)
    extend = ledger.extend(wallet_id, number, amount_micros=41)
    assert blocked(ledger, extend) == [BlockedLimit("k", "day", 100, 0, 60, 41, 40, TOMORROW)]
    # Time alone asks no limit, and what is refused is decided anew.
    ledger.run(ledger.extend(wallet_id, number, ttl=DAY))
    ledger.run(ledger.extend(wallet_id, number, amount_micros=30))
    ledger.clock.forward(DAY - 1)
    ledger.run(ledger.extend(wallet_id, number, ttl=DAY))
    ledger.clock.forward(1)
    ledger.hold(wallet_id, 100)
    assert isinstance(ledger.refused(extend), LimitExceeded)
    ledger.run(ledger.extend(wallet_id, number, amount_micros=10))
    assert isinstance(ledger.refused(ledger.extend(wallet_id, number, amount_micros=1)), LimitExceeded)
    ledger.set_limit(wallet_id, 141)
    ledger.run(extend)
    assert ledger.problems() == []


@pytest.mark.parametrize(
    ("period", "names", "turns"),
    [
        # From Monday: the driven clock starts on a Tuesday.
        (Period.WEEK, ("week 2029-12-31", "week 2030-01-07"), START + 6 * DAY),
        (Period.MONTH, ("month 2030-01-01", "month 2030-02-01"), START + 31 * DAY),
    ],
)
def test_weeks_and_months_are_counted_as_a_whole(
    ledger: Driven, period: Period, names: tuple[str, str], turns: int
) -> None:
    wallet_id = ledger.open_wallet(1_000)
    ledger.run(ledger.commit(wallet_id, ledger.hold(wallet_id, 40), 40))
    ledger.clock.forward(2 * DAY)
    ledger.set_limit(wallet_id, 100, period=period)
    ledger.clock.now = turns - 1
    number = ledger.hold(wallet_id, 60)
    assert blocked(ledger, ledger.reserve(wallet_id, 1)) == [
        BlockedLimit("k", period.name.lower(), 100, 40, 60, 1, 0, turns // SECOND)
    ]
    ledger.clock.now = turns
    ledger.run(ledger.commit(wallet_id, number, 60))
    ledger.hold(wallet_id, 100)
    counters = ledger.rows("SELECT window_name, charged_micros, held_micros FROM spend_counters ORDER BY 1")
    assert counters == [(names[0], 100, 0), (names[1], 0, 100)]
    assert ledger.problems() == []


# The refusal ----------------------------------------------------------------------------------------


def test_every_limit_and_scope_that_blocks_is_named_with_what_is_affordable(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    scopes = (Scope("run", 70), Scope("free", None), Scope("wide", 500))
    ledger.run(ledger.commit(wallet_id, ledger.hold(wallet_id, 40, spend_scopes=scopes), 30, keep_rest=True))
    ledger.hold(wallet_id, 5, api_key_id="other")
    for limit, period, key_id in (
        (60, Period.DAY, "k"),
        (500, Period.WEEK, "k"),
        (80, Period.MONTH, "k"),
        (90, Period.DAY, ""),
        (600, Period.MONTH, ""),
        (1, Period.DAY, "other"),
    ):
        ledger.set_limit(wallet_id, limit, period=period, key_id=key_id)
    reserve = ledger.reserve(wallet_id, 50, spend_scopes=scopes, key="one")
    refused = ledger.refused(reserve)
    assert isinstance(refused, LimitExceeded)
    assert refused.limits == [
        BlockedLimit("account", "day", 90, 30, 15, 50, 20, TOMORROW),
        BlockedLimit("k", "day", 60, 30, 10, 50, 20, TOMORROW),
        BlockedLimit("k", "month", 80, 30, 10, 50, 20, (START + 31 * DAY) // SECOND),
    ]
    assert refused.blocked == [BlockedScope("run", 70, 30, 10, 50)]
    again = ledger.refused(reserve)
    assert (again.facts(), again.replayed, again.wallet_seq) == (
        refused.facts(),
        True,
        ledger.wallet(wallet_id).seq,
    )
    assert isinstance(ledger.refused(ledger.reserve(wallet_id, 21, spend_scopes=scopes)), LimitExceeded)
    ledger.hold(wallet_id, 20, spend_scopes=scopes)
    assert ledger.problems() == []


def test_a_scope_that_blocks_alone_is_told_as_a_scope(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    ledger.set_limit(wallet_id, 100)
    refused = ledger.refused(ledger.reserve(wallet_id, 11, spend_scopes=(Scope("run", 10),)))
    assert isinstance(refused, SpendLimitExceeded)
    assert refused.blocked == [BlockedScope("run", 10, 0, 0, 11)]


def test_what_is_affordable_is_never_more_than_the_wallet_has_nor_less_than_nothing(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(50)
    ledger.set_limit(wallet_id, 0)
    assert blocked(ledger, ledger.reserve(wallet_id, 1)) == [
        BlockedLimit("k", "day", 0, 0, 0, 1, 0, TOMORROW)
    ]
    ledger.hold(wallet_id, 45, api_key_id="other")
    ledger.set_limit(wallet_id, 20)
    refused = ledger.refused(ledger.reserve(wallet_id, 6))
    assert isinstance(refused, InsufficientCredits), "want of credits is told before a limit"
    ledger.set_limit(wallet_id, 3)
    ledger.set_limit(wallet_id, 4, period=Period.WEEK)
    assert [limit.affordable_micros for limit in blocked(ledger, ledger.reserve(wallet_id, 5))] == [3, 3]
    ledger.set_limit(wallet_id, 10, key_id="")
    assert [limit.affordable_micros for limit in blocked(ledger, ledger.reserve(wallet_id, 5))] == [0, 0, 0]


def test_a_limit_of_nothing_lets_nothing_through_and_charges_what_is_held(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    number = ledger.hold(wallet_id, 50)
    ledger.set_limit(wallet_id, 0)
    assert isinstance(ledger.refused(ledger.reserve(wallet_id, 1)), LimitExceeded)
    assert isinstance(ledger.refused(ledger.extend(wallet_id, number, amount_micros=1)), LimitExceeded)
    ledger.run(ledger.extend(wallet_id, number, ttl=DAY))
    ledger.run(ledger.commit(wallet_id, number, 50))
    assert used(ledger, wallet_id)[0][2:] == (0, 50, 0)
    ledger.hold(wallet_id, 1, api_key_id="other")


def test_a_refusal_is_remembered_for_30_days_whatever_becomes_of_the_limit(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    ledger.set_limit(wallet_id, 100)
    reserve = ledger.reserve(wallet_id, 101, key="one")
    first = ledger.refused(reserve)
    ledger.set_limit(wallet_id, None)
    for passing in (0, DAY, 29 * DAY - 1):
        ledger.clock.forward(passing)
        again = ledger.refused(reserve)
        assert isinstance(again, LimitExceeded)
        assert (again.facts(), again.replayed, again.wallet_seq) == (first.facts(), True, 2)
        assert again.limits == [BlockedLimit("k", "day", 100, 0, 0, 101, 100, TOMORROW)]
    ledger.clock.forward(1)
    assert not ledger.run(reserve).replayed
    assert ledger.wallet(wallet_id) == WalletFacts(wallet_id, 1_000, 101, 0, 4, frozen=False)
