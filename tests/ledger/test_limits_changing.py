"""Limits as they are set, changed and taken away, by whom, and how they read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oanim_server.ledger.refusals import IdempotencyKeyReused, LimitedKey, LimitExceeded, NotFound
from oanim_server.ledger.values import DAY, SECOND, Kind, Limit, LimitFacts, Outcome, WalletFacts
from oanim_server.ledger.windows import Period, window_named
from tests.ledger.driving import START, Driven, batch

if TYPE_CHECKING:
    from oanim_server.ledger.operations import Operation

COUNTERS = "SELECT subject, window_name, charged_micros, held_micros FROM spend_counters ORDER BY 1, 2"


def facts(limit: Limit, window: str, charged: int, held: int) -> LimitFacts:
    return LimitFacts(limit, charged, held, window_named(window))


def accepted(ledger: Driven, *works: Operation) -> list[Outcome]:
    """What operations in one group are answered, none of them a refusal."""
    answers = batch(ledger.ledger, works)
    assert all(isinstance(answer, Outcome) for answer in answers), answers
    return answers


# Changing -------------------------------------------------------------------------------------------


def test_to_set_a_limit_is_a_row_without_entries(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    outcome = ledger.set_limit(wallet_id, 100)
    assert outcome == Outcome(
        WalletFacts(wallet_id, 1_000, 0, 0, 2, frozen=False), None, 0, 0, 0, replayed=False
    )
    assert ledger.set_limit(wallet_id, None).wallet.seq == 3
    assert [(row.kind, row.lots, row.entries) for row in ledger.journal(wallet_id)[1:]] == [
        (Kind.LIMIT, "[]", "[]")
    ] * 2
    assert ledger.rows("SELECT limits FROM wallets") == [(0,)]
    assert ledger.count("limits") == 0
    assert ledger.problems() == []


def test_what_is_so_already_is_a_row_and_keeps_its_key(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    nothing, hundred = ledger.limit(wallet_id, None, key="one"), ledger.limit(wallet_id, 100, key="two")
    assert ledger.run(nothing).wallet.seq == 2
    ledger.set_limit(wallet_id, 100)
    assert ledger.run(hundred).wallet.seq == 4
    ledger.set_limit(wallet_id, 7)
    for again in (nothing, hundred):
        assert ledger.run(again).replayed
    assert isinstance(ledger.refused(ledger.limit(wallet_id, 101, key="two")), IdempotencyKeyReused)
    assert ledger.limits(wallet_id) == [facts(Limit("k", Period.DAY, 7), "day 2030-01-01", 0, 0)]
    assert ledger.problems() == []


def test_a_replay_changes_nothing_whatever_was_set_since(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    set_it, delete_it = ledger.limit(wallet_id, 100, key="one"), ledger.limit(wallet_id, None, key="one")
    first = ledger.run(set_it)
    ledger.set_limit(wallet_id, 50)
    assert ledger.run(set_it) == first._replace(replayed=True)
    deleted = ledger.run(delete_it)
    ledger.set_limit(wallet_id, 7)
    assert ledger.run(delete_it) == deleted._replace(replayed=True)
    assert ledger.limits(wallet_id) == [facts(Limit("k", Period.DAY, 7), "day 2030-01-01", 0, 0)]
    for other in (
        ledger.limit(wallet_id, 101, key="one"),
        ledger.limit(wallet_id, 100, key="one", key_id=""),
        ledger.limit(wallet_id, 100, key="one", period=Period.WEEK),
        ledger.limit(wallet_id, None, key="one", key_id=""),
        ledger.limit(wallet_id, None, key="one", period=Period.WEEK),
    ):
        assert isinstance(ledger.refused(other), IdempotencyKeyReused)
    assert ledger.problems() == []


def test_a_limit_that_is_set_anew_goes_on_with_what_was_counted(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    ledger.set_limit(wallet_id, 100)
    ledger.run(ledger.commit(wallet_id, ledger.hold(wallet_id, 60), 60))
    ledger.set_limit(wallet_id, 50)
    assert isinstance(ledger.refused(ledger.reserve(wallet_id, 1)), LimitExceeded)
    ledger.set_limit(wallet_id, 70)
    ledger.hold(wallet_id, 10)
    assert ledger.rows(COUNTERS) == [("k", "day 2030-01-01", 60, 10)]
    assert ledger.problems() == []


def test_what_happens_while_there_is_no_limit_counts_when_it_is_set_again(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    ledger.set_limit(wallet_id, 100)
    charged, held = ledger.hold(wallet_id, 40, ttl=DAY), ledger.hold(wallet_id, 20, ttl=DAY)
    ledger.clock.forward(DAY)
    ledger.set_limit(wallet_id, None)
    assert ledger.rows(COUNTERS) == []
    ledger.run(ledger.commit(wallet_id, charged, 30))
    ledger.hold(wallet_id, 500)
    ledger.set_limit(wallet_id, 600)
    assert ledger.limits(wallet_id) == [facts(Limit("k", Period.DAY, 600), "day 2030-01-02", 0, 500)]
    ledger.run(ledger.commit(wallet_id, held, 15))
    # Of today it is counted when somebody needs it.
    assert ledger.rows(COUNTERS) == [("k", "day 2030-01-01", 45, 0)]
    ledger.hold(wallet_id, 100)
    assert isinstance(ledger.refused(ledger.reserve(wallet_id, 1)), LimitExceeded)
    assert ledger.rows(COUNTERS) == [("k", "day 2030-01-01", 45, 0), ("k", "day 2030-01-02", 0, 600)]
    assert ledger.problems() == []


def test_taking_one_limit_away_leaves_what_the_others_count(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    for period in Period:
        for key_id in ("", "k", "other"):
            ledger.set_limit(wallet_id, 100, key_id=key_id, period=period)
    ledger.hold(wallet_id, 10)
    ledger.set_limit(wallet_id, None, period=Period.WEEK)
    ledger.hold(wallet_id, 10)
    held = {(subject, window.partition(" ")[0]): held for subject, window, _, held in ledger.rows(COUNTERS)}
    assert held == {
        **{("", period): 20 for period in ("day", "week", "month")},
        **{("k", period): 20 for period in ("day", "month")},
    }
    assert ledger.rows("SELECT limits FROM wallets") == [(8,)]
    assert ledger.problems() == []


def test_within_one_group_each_operation_sees_the_limits_that_were_set_before_it(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    before = ledger.hold(wallet_id, 30)
    answers = batch(
        ledger.ledger,
        [
            ledger.reserve(wallet_id, 40),
            ledger.commit(wallet_id, before, 25),
            ledger.limit(wallet_id, 100),
            ledger.reserve(wallet_id, 36),
            ledger.reserve(wallet_id, 35),
            ledger.limit(wallet_id, None),
            ledger.reserve(wallet_id, 500),
            ledger.limit(wallet_id, 601),
            ledger.reserve(wallet_id, 2),
            ledger.reserve(wallet_id, 1),
        ],
    )
    assert [type(answer) for answer in answers] == [
        *(Outcome, Outcome, Outcome, LimitExceeded, Outcome),
        *(Outcome, Outcome, Outcome, LimitExceeded, Outcome),
    ]
    assert ledger.rows(COUNTERS) == [("k", "day 2030-01-01", 25, 576)]
    assert ledger.problems() == []


def test_what_is_stored_of_a_limit_does_not_outlive_it_within_a_group(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    ledger.set_limit(wallet_id, 100)
    yesterdays, other = ledger.hold(wallet_id, 40, ttl=DAY), ledger.hold(wallet_id, 5, ttl=None)
    ledger.clock.forward(DAY - 1)
    ledger.run(ledger.release(wallet_id, ledger.hold(wallet_id, 10)))
    ledger.clock.forward(1)
    todays = ledger.hold(wallet_id, 50)
    accepted(
        ledger,
        ledger.limit(wallet_id, None),
        ledger.commit(wallet_id, yesterdays, 30),
        ledger.commit(wallet_id, todays, 45),
        ledger.limit(wallet_id, 200),
    )
    assert ledger.limits(wallet_id) == [facts(Limit("k", Period.DAY, 200), "day 2030-01-02", 45, 0)]
    assert ledger.problems() == []
    ledger.hold(wallet_id, 155)
    assert isinstance(ledger.refused(ledger.reserve(wallet_id, 1)), LimitExceeded)
    ledger.run(ledger.commit(wallet_id, other, 5))
    assert ledger.rows(COUNTERS) == [("k", "day 2030-01-01", 35, 0), ("k", "day 2030-01-02", 45, 155)]
    assert ledger.problems() == []


def test_a_limit_that_comes_and_goes_within_a_group_leaves_nothing(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    accepted(
        ledger, ledger.limit(wallet_id, 100), ledger.reserve(wallet_id, 50), ledger.limit(wallet_id, None)
    )
    assert ledger.rows(COUNTERS) == []
    assert (ledger.count("limits"), ledger.limits(wallet_id)) == (0, [])
    assert ledger.problems() == []


def test_a_limit_that_is_set_after_midnight_counts_what_expired_before_it(ledger: Driven) -> None:
    """What is due is written in the group that sets it: rows of before and after midnight."""
    wallet_id = ledger.open_wallet(1_000)
    ledger.clock.forward(DAY - 2 * SECOND)
    first, second = ledger.hold(wallet_id, 60, ttl=SECOND), ledger.hold(wallet_id, 70, ttl=3 * SECOND)
    ledger.clock.forward(2 * SECOND)
    today = ledger.hold(wallet_id, 9)
    ledger.clock.forward(2 * SECOND)
    accepted(
        ledger,
        ledger.limit(wallet_id, 100),
        ledger.limit(wallet_id, 100, period=Period.MONTH),
        ledger.commit(wallet_id, first, 50),
        ledger.commit(wallet_id, today, 8),
    )
    assert ledger.limits(wallet_id) == [
        facts(Limit("k", Period.DAY, 100), "day 2030-01-02", 8, 0),
        facts(Limit("k", Period.MONTH, 100), "month 2030-01-01", 58, 0),
    ]
    ledger.run(ledger.commit(wallet_id, second, 1))
    assert ledger.limits(wallet_id)[1].charged_micros == 59
    assert ledger.problems() == []


# Who may --------------------------------------------------------------------------------------------


def test_a_key_that_has_a_limit_changes_none(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    ledger.set_limit(wallet_id, 100, period=Period.MONTH)
    ledger.set_limit(wallet_id, 100, key_id="")
    for asked in (
        ledger.limit(wallet_id, 1_000, asking="k", period=Period.MONTH),
        ledger.limit(wallet_id, None, asking="k", period=Period.MONTH),
        ledger.limit(wallet_id, None, asking="k", key_id=""),
        ledger.limit(wallet_id, None, asking="k", period=Period.WEEK),
        ledger.limit(wallet_id, 10, asking="k", key_id="other"),
    ):
        refused = ledger.refused(asked)
        assert (type(refused), refused.wallet_seq) == (LimitedKey, 3)
    # The account's limit is everybody's: who has no other may change it, and the server may.
    ledger.set_limit(wallet_id, 99, key_id="", asking="owner")
    ledger.set_limit(wallet_id, 98, key_id="", asking="")
    answers = batch(
        ledger.ledger,
        [
            ledger.limit(wallet_id, 5, key_id="other", asking="owner"),
            ledger.limit(wallet_id, 10, key_id="other", asking="other"),
            ledger.limit(wallet_id, None, key_id="other", asking="owner"),
            ledger.limit(wallet_id, 10, key_id="third", asking="other"),
        ],
    )
    assert [type(answer) for answer in answers] == [Outcome, LimitedKey, Outcome, Outcome]
    assert ledger.problems() == []


def test_a_limit_of_a_wallet_that_is_not_there_is_not_found(ledger: Driven) -> None:
    for limit_micros in (1, None):
        assert isinstance(ledger.refused(ledger.limit(12345, limit_micros)), NotFound)
    with pytest.raises(NotFound):
        ledger.limits(12345)


# Reading --------------------------------------------------------------------------------------------


def test_limits_read_the_same_before_and_after_the_sweep(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    ledger.set_limit(wallet_id, 500, key_id="", period=Period.MONTH)
    ledger.set_limit(wallet_id, 300)
    ledger.clock.forward(DAY - 10 * SECOND)
    ledger.hold(wallet_id, 100, ttl=5 * SECOND)
    ledger.hold(wallet_id, 20, ttl=30 * SECOND)
    ledger.run(ledger.commit(wallet_id, ledger.hold(wallet_id, 50), 40))
    moments = []
    for step in (0, 5 * SECOND - 1, 1, 5 * SECOND, 20 * SECOND, DAY):
        ledger.clock.forward(step)
        moments.append((ledger.clock.now, ledger.limits(wallet_id)))
        seq = ledger.wallet(wallet_id).seq
        assert seq == 7, "a read writes nothing"
    account, key = Limit("", Period.MONTH, 500), Limit("k", Period.DAY, 300)
    month, day, after, last = "month 2030-01-01", "day 2030-01-01", "day 2030-01-02", "day 2030-01-03"
    assert [limits for _, limits in moments] == [
        [facts(account, month, 40, 120), facts(key, day, 40, 120)],
        [facts(account, month, 40, 120), facts(key, day, 40, 120)],
        [facts(account, month, 40, 20), facts(key, day, 40, 20)],
        [facts(account, month, 40, 20), facts(key, after, 0, 0)],
        [facts(account, month, 40, 0), facts(key, after, 0, 0)],
        [facts(account, month, 40, 0), facts(key, last, 0, 0)],
    ]
    ledger.settle(wallet_id)
    assert ledger.limits(wallet_id) == moments[-1][1]
    assert ledger.rows(COUNTERS) == [
        ("", month, 40, 0),
        ("k", day, 40, 0),
    ]
    assert ledger.problems() == []


def test_limits_are_read_at_the_time_of_the_wallet_when_the_clock_is_set_back(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    ledger.clock.forward(DAY)
    ledger.set_limit(wallet_id, 100)
    ledger.hold(wallet_id, 10)
    ledger.clock.now = START
    ledger.hold(wallet_id, 10)
    assert ledger.limits(wallet_id) == [facts(Limit("k", Period.DAY, 100), "day 2030-01-02", 0, 20)]
    assert ledger.problems() == []
