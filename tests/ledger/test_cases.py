"""The decided cases of the guarantees, one by one: what each answers, and what is stored then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oanim_server.ledger.group import Group, GuardError
from oanim_server.ledger.operations import Commit, Refused
from oanim_server.ledger.refusals import (
    AccountFrozen,
    AlreadyCommitted,
    AlreadyReleased,
    ExceedsReservation,
    Faulty,
    IdempotencyKeyReused,
    InsufficientCredits,
    InvalidField,
    NotFound,
    NotYourHold,
    Refusal,
    ReservationExpired,
    SpendLimitExceeded,
)
from oanim_server.ledger.values import DAY, SECOND, SERVER, Line, Method, Outcome, Scope, State, WalletFacts
from tests.ledger.driving import batch, of_lots, unchecked

if TYPE_CHECKING:
    from oanim_server.ledger.values import ReservationFacts
    from tests.ledger.driving import Driven

HOUR = 3_600 * SECOND
LINE = Line(1, "flux", "image", "fal", "image", 10, 1, 5)


def hold_of(outcome: Outcome) -> ReservationFacts:
    assert outcome.reservation is not None
    return outcome.reservation


def told(refusal: Refusal) -> tuple[type[Refusal], dict[str, object], int | None, bool]:
    return type(refusal), refusal.facts(), refusal.wallet_seq, refusal.replayed


# Lots -----------------------------------------------------------------------------------------------


def test_a_capture_consumes_the_parts_of_its_own_hold_whatever_came_later(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(100)
    number = ledger.hold(wallet_id, 60)
    ledger.credit(wallet_id, 50, priority=-1)
    ledger.run(ledger.commit(wallet_id, number, 60))
    assert [(lot.number, lot.remaining_micros) for lot in ledger.lots(wallet_id)] == [(2, 50), (1, 40)]


# As it stands, it is what a lot can be: what is captured of it makes it less than nothing.
TOO_LITTLE = ",100,100,3,"


@pytest.mark.parametrize(
    ("former", "forged"),
    [
        (",100,100,10,", TOO_LITTLE),
        (",100,100,10,", ",100,9,10,"),
        (",100,100,10,", ",100,105,10,"),
        (",100,100,10,", ",0,100,10,"),
        (",100,100,10,", ",1000000000001,100,10,"),
        (",0]]", ",-1]]"),
        (",0]]", ",5]]"),
    ],
    ids=[
        "less than nothing would be held of it",
        "more would be held of it than is left",
        "more would be left of it than came in",
        "nothing came in",
        "more came in than one amount may be",
        "less than nothing of it has expired",
        "more would be left and expired than came in",
    ],
)
def test_no_lot_is_written_with_what_none_can_have(ledger: Driven, former: str, forged: str) -> None:
    wallet_id = ledger.open_wallet(100)
    number = ledger.hold(wallet_id, 10)
    if ledger.database.dialect == "postgresql" and forged != TOO_LITTLE:
        with pytest.raises(Faulty):
            ledger.sql(of_lots(former, forged))
    unchecked(ledger)
    ledger.sql(of_lots(former, forged))
    before = ledger.rows("SELECT * FROM wallets")
    capture = ledger.commit(wallet_id, number, 4, keep_rest=True)
    with pytest.raises(GuardError, match="lot 1 "), ledger.database.writing() as connection:
        Group(connection, ledger.database.statements, [capture]).run()
    with pytest.raises(Faulty):
        ledger.run(capture)
    assert ledger.rows("SELECT * FROM wallets") == before
    ledger.sql(of_lots(forged, former))
    ledger.run(capture)
    assert ledger.problems() == []


def test_a_part_that_is_held_outlives_its_lot_and_can_be_charged(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(100, lifetime=SECOND)
    number = ledger.hold(wallet_id, 60, ttl=DAY)
    ledger.clock.forward(2 * SECOND)
    assert ledger.wallet(wallet_id) == WalletFacts(wallet_id, 60, 60, 0, 2, frozen=False)
    outcome = ledger.run(ledger.commit(wallet_id, number, 45))
    assert outcome.wallet == WalletFacts(wallet_id, 0, 0, 0, 4, frozen=False)
    assert [row.entries for row in ledger.journal(wallet_id)] == [
        "[[2,-100],[1,100]]",
        "[]",
        "[[1,-40],[2,40]]",
        "[[1,-60],[3,45],[2,15]]",
    ]
    assert ledger.problems() == []


def test_what_an_extend_adds_is_charged_and_kept_as_if_it_had_been_held_at_once(ledger: Driven) -> None:
    def wallet_with_lots() -> int:
        wallet_id = ledger.open_wallet(100)
        ledger.credit(wallet_id, 50, lifetime=HOUR)
        ledger.credit(wallet_id, 30, priority=-1)
        return wallet_id

    at_once = wallet_with_lots()
    ledger.hold(at_once, 140, ttl=DAY)
    extended = ledger.open_wallet(100)
    number = ledger.hold(extended, 60, ttl=DAY)
    ledger.credit(extended, 50, lifetime=HOUR)
    ledger.run(ledger.extend(extended, number, amount_micros=50))
    ledger.credit(extended, 30, priority=-1)
    ledger.run(ledger.extend(extended, number, amount_micros=30))
    assert ledger.rows("SELECT parts FROM reservations") == [("[[3,30],[2,50],[1,60]]",)] * 2
    ledger.clock.forward(2 * HOUR)
    for wallet_id, hold in ((at_once, 4), (extended, number)):
        ledger.run(ledger.commit(wallet_id, hold, 90))
        # 30 of the lot that goes first, all of the one that expired meanwhile, and 10 of the one that lasts.
        assert ledger.wallet(wallet_id)[1:3] == (90, 0)
    assert ledger.problems() == []


# Whose hold -----------------------------------------------------------------------------------------


def test_the_hold_of_a_running_job_cannot_be_freed_by_the_account(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(100)
    number = ledger.hold(wallet_id, 60, opener=SERVER, ttl=None, method=Method.GENERATE, key="generate")
    for operation in (
        ledger.commit(wallet_id, number, 0),
        ledger.release(wallet_id, number),
        ledger.extend(wallet_id, number, ttl=DAY),
    ):
        assert told(ledger.refused(operation)) == (NotYourHold, {"opened_by": SERVER}, 2, False)
    ledger.clock.forward(400 * DAY)
    assert ledger.reservation(wallet_id, number).state is State.ACTIVE
    ledger.run(ledger.commit(wallet_id, number, 50, caller=SERVER))
    assert ledger.wallet(wallet_id) == WalletFacts(wallet_id, 50, 0, 0, 3, frozen=False)


def test_a_reservation_of_another_wallet_is_not_found(ledger: Driven) -> None:
    mine, theirs = ledger.open_wallet(100), ledger.open_wallet(100)
    ledger.hold(mine, 1)
    number = ledger.hold(mine, 10)
    for operation in (ledger.commit(theirs, number, 0), ledger.release(theirs, number)):
        assert told(ledger.refused(operation)) == (NotFound, {"what": "reservation"}, 1, False)
    assert told(ledger.refused(ledger.reserve(12345, 1))) == (NotFound, {"what": "account"}, None, False)


# Keys -----------------------------------------------------------------------------------------------


def test_a_key_that_named_another_request_is_refused_and_says_nothing_of_it(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(100)
    number = ledger.hold(wallet_id, 10, key="one")
    for other in (
        ledger.reserve(wallet_id, 11, key="one"),
        ledger.reserve(wallet_id, 10, key="one", ttl=SECOND),
        ledger.reserve(wallet_id, 10, key="one", labels={"a": "b"}),
        ledger.reserve(wallet_id, 10, key="one", spend_scopes=(Scope("run", None),)),
        ledger.reserve(wallet_id, 10, key="one", line=LINE),
        ledger.reserve(wallet_id, 10, key="one", asked="other"),
        ledger.reserve(wallet_id, 500, key="one"),
    ):
        assert told(ledger.refused(other)) == (IdempotencyKeyReused, {"idempotency_key": "one"}, 2, False)
    ledger.run(ledger.commit(wallet_id, number, 4, key="one"))
    refused = ledger.refused(ledger.commit(wallet_id, number, 5, key="one"))
    assert told(refused) == (IdempotencyKeyReused, {"idempotency_key": "one"}, 3, False)
    assert ledger.wallet(wallet_id) == WalletFacts(wallet_id, 96, 0, 0, 3, frozen=False)


def test_a_replay_of_a_priced_hold_is_the_first_answer_whatever_it_is_called_and_costs_now(
    ledger: Driven,
) -> None:
    wallet_id = ledger.open_wallet(100)
    first = ledger.run(ledger.reserve(wallet_id, 50, key="one", line=LINE))
    dearer = LINE._replace(price_version=2, model="renamed", price_micros=900)
    again = ledger.run(ledger.reserve(wallet_id, 4_500, key="one", line=dearer, asked=("flux", 5)))
    assert again == first._replace(replayed=True)
    unpriced = ledger.reserve(
        wallet_id, 1, key="one", asked=("flux", 5), companion=Refused(NotFound("price"))
    )
    assert ledger.run(unpriced) == first._replace(replayed=True)
    more = ledger.refused(ledger.reserve(wallet_id, 60, key="one", line=LINE._replace(quantity=6)))
    assert isinstance(more, IdempotencyKeyReused)


def test_a_replay_is_not_refused_because_the_account_was_frozen_since(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(100)
    reserve = ledger.reserve(wallet_id, 50, key="one")
    first = ledger.run(reserve)
    ledger.freeze(wallet_id)
    assert ledger.run(reserve) == first._replace(replayed=True)
    assert told(ledger.refused(ledger.reserve(wallet_id, 1))) == (AccountFrozen, {}, 3, False)
    assert isinstance(ledger.refused(ledger.extend(wallet_id, 2, amount_micros=1)), AccountFrozen)
    ledger.run(ledger.extend(wallet_id, 2, ttl=DAY))
    ledger.run(ledger.commit(wallet_id, 2, 1))
    assert ledger.problems() == []


def test_the_refusals_of_work_are_remembered_with_their_facts(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(100)
    ledger.hold(wallet_id, 10, spend_scopes=(Scope("run", None),))
    poor = ledger.reserve(wallet_id, 91, key="poor")
    limits = (Scope("run", 15), Scope("day", 3))
    limited = ledger.reserve(wallet_id, 6, key="limited", spend_scopes=limits)
    first = [ledger.refused(poor), ledger.refused(limited)]
    assert [type(refusal) for refusal in first] == [InsufficientCredits, SpendLimitExceeded]
    ledger.credit(wallet_id, 1_000)
    again = [ledger.refused(poor), ledger.refused(limited)]
    assert [told(refusal) for refusal in again] == [
        (type(refusal), refusal.facts(), 2, True) for refusal in first
    ]
    assert isinstance(again[1], SpendLimitExceeded)
    assert again[1].blocked == getattr(first[1], "blocked", None)


def test_a_refused_extend_is_decided_anew(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(100)
    number = ledger.hold(wallet_id, 90)
    extend = ledger.extend(wallet_id, number, key="one", amount_micros=20)
    assert told(ledger.refused(extend)) == (
        InsufficientCredits,
        {"required_micros": 20, "available_micros": 10},
        2,
        False,
    )
    ledger.credit(wallet_id, 10)
    assert hold_of(ledger.run(extend)).reserved_micros == 110


# Commit ---------------------------------------------------------------------------------------------


def test_a_commit_above_what_is_held_succeeds_after_an_extend_under_the_same_key(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(100)
    number = ledger.hold(wallet_id, 50)
    commit = ledger.commit(wallet_id, number, 60, key="one")
    assert told(ledger.refused(commit)) == (
        ExceedsReservation,
        {"required_micros": 60, "held_micros": 50},
        2,
        False,
    )
    ledger.run(ledger.extend(wallet_id, number, amount_micros=10))
    outcome = ledger.run(commit)
    assert (outcome.charged_micros, outcome.replayed) == (60, False)
    assert ledger.wallet(wallet_id) == WalletFacts(wallet_id, 40, 0, 0, 4, frozen=False)


def test_the_same_capture_under_a_new_key_is_the_first_answer_and_leaves_the_key_free(
    ledger: Driven,
) -> None:
    wallet_id = ledger.open_wallet(100)
    number, other = ledger.hold(wallet_id, 50), ledger.hold(wallet_id, 20)
    first = ledger.run(ledger.commit(wallet_id, number, 30, key="one"))
    assert ledger.run(ledger.commit(wallet_id, number, 30, key="two")) == first._replace(replayed=True)
    refused = ledger.refused(ledger.commit(wallet_id, number, 31, key="two"))
    facts = {"state": "COMMITTED", "reserved_micros": 50, "captured_micros": 30}
    assert told(refused) == (AlreadyCommitted, facts, 4, False)
    assert told(ledger.refused(ledger.commit(wallet_id, number, 1, capture=2))) == (
        AlreadyCommitted,
        facts,
        4,
        False,
    )
    assert not ledger.run(ledger.commit(wallet_id, other, 1, key="two")).replayed


def test_captures_by_quantity_are_cumulative_and_told_apart_from_amounts(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    number = ledger.hold(wallet_id, 50, line=LINE)
    charged = [
        ledger.run(
            ledger.commit(wallet_id, number, quantity=quantity, capture=n, keep_rest=True)
        ).charged_micros
        for n, quantity in ((1, 2), (2, 2), (3, 5))
    ]
    assert charged == [20, 0, 30]
    assert isinstance(ledger.refused(ledger.commit(wallet_id, number, quantity=4, capture=4)), InvalidField)
    again = ledger.run(ledger.commit(wallet_id, number, quantity=2, capture=1))
    assert (again.charged_micros, again.replayed) == (20, True)
    # Two pieces were 20 micros in all by the first capture, and nothing more by the second.
    assert ledger.run(ledger.commit(wallet_id, number, 20, capture=1)).replayed
    assert ledger.run(ledger.commit(wallet_id, number, 0, capture=2)).replayed
    assert isinstance(
        ledger.refused(ledger.commit(wallet_id, number, quantity=3, capture=1)), AlreadyCommitted
    )
    assert ledger.problems() == []


# After the ttl --------------------------------------------------------------------------------------


def test_work_that_was_done_is_settled_once_within_a_day_of_its_expiry(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(100)
    number = ledger.hold(wallet_id, 50, line=LINE, ttl=SECOND, spend_scopes=(Scope("run", 50),))
    ledger.run(ledger.commit(wallet_id, number, quantity=1, keep_rest=True))
    ledger.clock.forward(SECOND + DAY - 1)
    late = ledger.run(ledger.commit(wallet_id, number, quantity=4, capture=2, key="one"))
    assert late.wallet == WalletFacts(wallet_id, 60, 0, 0, 5, frozen=False)
    assert late[2:] == (30, 0, 0, False)
    facts = hold_of(late)
    assert (facts.state, facts.captured_micros, facts.captures, facts.captured_quantity) == (
        State.SETTLED_LATE,
        40,
        2,
        4,
    )
    assert ledger.reservation(wallet_id, number) == facts
    assert ledger.rows("SELECT charged_micros, held_micros FROM spend_counters") == [(40, 0)]
    again = ledger.run(ledger.commit(wallet_id, number, quantity=4, capture=2, key="two"))
    assert again == late._replace(replayed=True)
    for key, capture in (("three", 3), ("four", 2)):
        refused = ledger.refused(ledger.commit(wallet_id, number, 1, capture=capture, key=key))
        assert (type(refused), refused.facts()["state"]) == (AlreadyCommitted, "SETTLED_LATE")
    assert isinstance(ledger.refused(ledger.release(wallet_id, number)), AlreadyCommitted)
    assert isinstance(ledger.refused(ledger.extend(wallet_id, number, ttl=DAY)), AlreadyCommitted)
    assert ledger.problems() == []


def test_a_day_after_its_expiry_nothing_is_settled(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(100)
    number = ledger.hold(wallet_id, 50, ttl=SECOND)
    ledger.clock.forward(SECOND + DAY)
    facts = {"state": "EXPIRED", "reserved_micros": 50, "captured_micros": 0}
    refused = ledger.refused(ledger.commit(wallet_id, number, 1))
    assert told(refused) == (ReservationExpired, facts, 3, False)
    assert isinstance(ledger.refused(ledger.extend(wallet_id, number, ttl=DAY)), ReservationExpired)
    assert ledger.wallet(wallet_id) == WalletFacts(wallet_id, 100, 0, 0, 3, frozen=False)


def test_work_that_the_wallet_cannot_cover_any_more_is_booked_as_uncollected_once(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(100)
    number = ledger.hold(wallet_id, 60, ttl=SECOND, line=LINE)
    ledger.clock.forward(SECOND)
    ledger.hold(wallet_id, 50)
    late = ledger.run(ledger.commit(wallet_id, number, 55, key="one"))
    assert late.wallet == WalletFacts(wallet_id, 100, 50, 0, 5, frozen=False)
    assert late[2:] == (0, 55, 0, False)
    assert (hold_of(late).state, hold_of(late).uncollected_micros) == (State.SETTLED_LATE, 55)
    assert ledger.journal(wallet_id)[-1].entries == "[[5,-55],[3,55]]"
    ledger.credit(wallet_id, 1_000)
    assert ledger.run(ledger.commit(wallet_id, number, 55, key="two")) == late._replace(replayed=True)
    # Nothing was asked for by quantity: this is another charge.
    other = ledger.refused(ledger.commit(wallet_id, number, quantity=0, key="three"))
    assert isinstance(other, AlreadyCommitted)
    assert ledger.count("usage_days") == 0
    assert ledger.problems() == []


# Release --------------------------------------------------------------------------------------------


def test_a_release_after_captures_gives_the_rest_back_and_says_what_was_charged(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(100)
    number = ledger.hold(wallet_id, 50)
    ledger.run(ledger.commit(wallet_id, number, 20, keep_rest=True))
    released = ledger.run(ledger.release(wallet_id, number, key="one"))
    assert released.wallet == WalletFacts(wallet_id, 80, 0, 0, 4, frozen=False)
    assert (released.released_micros, hold_of(released).captured_micros) == (30, 20)
    assert hold_of(released).state is State.RELEASED
    assert ledger.run(ledger.release(wallet_id, number, key="one")) == released._replace(replayed=True)
    again = ledger.run(ledger.release(wallet_id, number, key="two"))
    assert (again.wallet, again.reservation) == (released.wallet, released.reservation)
    facts = {"state": "RELEASED", "reserved_micros": 50, "captured_micros": 20}
    assert told(ledger.refused(ledger.commit(wallet_id, number, 1, capture=2))) == (
        AlreadyReleased,
        facts,
        4,
        False,
    )
    assert told(ledger.refused(ledger.extend(wallet_id, number, ttl=DAY))) == (
        AlreadyReleased,
        facts,
        4,
        False,
    )


def test_a_release_after_the_expiry_is_answered_as_it_ended(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(100)
    number = ledger.hold(wallet_id, 50, ttl=SECOND)
    ledger.clock.forward(SECOND)
    outcome = ledger.run(ledger.release(wallet_id, number))
    assert outcome.wallet == WalletFacts(wallet_id, 100, 0, 0, 3, frozen=False)
    assert (hold_of(outcome).state, outcome.released_micros) == (State.EXPIRED, 0)


# Spend scopes ---------------------------------------------------------------------------------------


def test_a_hold_counts_under_its_scopes_from_the_reserve_on_limited_or_not(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    free, limited = (Scope("run", None),), (Scope("run", 100),)
    first = ledger.hold(wallet_id, 60, spend_scopes=free)
    refused = ledger.refused(ledger.reserve(wallet_id, 41, spend_scopes=limited))
    assert isinstance(refused, SpendLimitExceeded)
    assert [(b.charged_micros, b.held_micros, b.required_micros) for b in refused.blocked] == [(0, 60, 41)]
    second = ledger.hold(wallet_id, 40, spend_scopes=limited)
    assert isinstance(ledger.refused(ledger.extend(wallet_id, second, amount_micros=1)), SpendLimitExceeded)
    ledger.run(ledger.extend(wallet_id, first, amount_micros=5))
    ledger.run(ledger.commit(wallet_id, first, 25))
    ledger.run(ledger.extend(wallet_id, second, amount_micros=35))
    assert isinstance(ledger.refused(ledger.extend(wallet_id, second, amount_micros=1)), SpendLimitExceeded)
    assert ledger.rows("SELECT charged_micros, held_micros FROM spend_counters") == [(25, 75)]
    assert ledger.problems() == []


def test_scopes_of_two_wallets_do_not_meet(ledger: Driven) -> None:
    first, second = ledger.open_wallet(100), ledger.open_wallet(100)
    scopes = (Scope("run", 50),)
    ledger.hold(first, 50, spend_scopes=scopes)
    ledger.hold(second, 50, spend_scopes=scopes)
    assert ledger.count("spend_counters") == 2


# What JSON escapes, what SQL quotes, what is longer as bytes, and what looks like a number or a path.
KEYS = (
    '"',
    "\\",
    "\\u0041",
    "'",
    "{}",
    "1",
    "1.0",
    "null",
    "$.a",
    "a\tb",
    "\x01",
    "\x7f",
    "é",
    "日本",
    "💶",
    "a b",
)


@pytest.mark.parametrize("wallets", [1, 2])
def test_whatever_a_key_is_made_of_it_is_found_again_on_its_wallet_alone(
    ledger: Driven, wallets: int
) -> None:
    """A group holds under each key on every wallet, the next charges by it, then both are repeated."""
    accounts = [ledger.open_wallet(10_000) for _ in range(wallets)]
    works = [
        ledger.reserve(wallet, 100 * place + n, key)
        for n, key in enumerate(KEYS, 1)
        for place, wallet in enumerate(accounts)
    ]
    held = batch(ledger.ledger, works)
    assert [answer.reservation.reserved_micros for answer in held] == [work.amount_micros for work in works]
    charges = [
        Commit(
            wallet_id=work.wallet_id,
            caller=work.caller,
            idempotency_key=f"-{work.idempotency_key}",
            reserve_key=work.idempotency_key,
            amount_micros=1,
        )
        for work in works
    ]
    charged = batch(ledger.ledger, charges)
    assert [(answer.wallet.wallet_id, answer.reservation.number) for answer in charged] == [
        (answer.wallet.wallet_id, answer.reservation.number) for answer in held
    ]
    before = [ledger.wallet(wallet) for wallet in accounts]
    for operations, answers in ((works, held), (charges, charged)):
        again = batch(ledger.ledger, operations)
        assert all(answer.replayed for answer in again)
        assert [answer._replace(replayed=False) for answer in again] == answers
    assert [ledger.wallet(wallet) for wallet in accounts] == before
    assert ledger.problems() == []
