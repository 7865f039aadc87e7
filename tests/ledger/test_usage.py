"""Usage: counters of reservations, items without a hold, and holds that are named by their Reserve's key."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from oanim_server.database.engine import Database
from oanim_server.ledger.operations import Refused
from oanim_server.ledger.reads import DueFirstError, Grouping, UncollectedRecord, UsageTotal
from oanim_server.ledger.refusals import (
    AlreadyCommitted,
    AlreadyReleased,
    IdempotencyKeyReused,
    InvalidField,
    NotFound,
    NotYourHold,
    ReservationExpired,
)
from oanim_server.ledger.values import DAY, SECOND, SERVER, Kind, Line, Outcome, State, WalletFacts
from oanim_server.ledger.windows import Period
from oanim_server.pricing.refusals import UnknownModel
from tests.ledger.driving import SERVICE, START, Driven, batch, in_threads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oanim_server.ledger.values import ReservationFacts

# An image costs 10, a film 7 a second and never less than 21.
IMAGES = Line(1, "flux", "image", "fal", "image", 10, 1, 5)
FILM = Line(2, "kling", "video", "fal", "second", 21, 3, 3)


def held(ledger: Driven, wallet_id: int, amount_micros: int = 50, **options: Any) -> int:
    return ledger.hold(wallet_id, amount_micros, **{"line": IMAGES, **options})


def stood(facts: ReservationFacts | None) -> tuple[State, int, int, int]:
    """State, charged, charged to nobody, and for how much."""
    assert facts is not None
    return facts.state, facts.captured_micros, facts.uncollected_micros, facts.captured_quantity


# Counters -------------------------------------------------------------------------------------------


def test_a_report_raises_the_counter_moves_nothing_and_makes_no_row(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(100)
    number = held(ledger, wallet_id)
    before = ledger.wallet(wallet_id)
    outcomes = [ledger.run(ledger.report(wallet_id, number, quantity)) for quantity in (2, 1, 2, 4, 0)]
    assert [outcome.wallet for outcome in outcomes] == [before] * 5
    counted = [outcome.reservation.reported_quantity for outcome in outcomes if outcome.reservation]
    assert counted == [2, 2, 2, 4, 4]
    assert ledger.wallet(wallet_id) == before
    assert ledger.reservation(wallet_id, number).reported_quantity == 4
    assert len(ledger.journal(wallet_id)) == 2
    assert ledger.problems() == []


@pytest.mark.parametrize(
    ("reported", "charged", "uncollected"), [(3, 30, 0), (5, 50, 0), (7, 50, 20)], ids=["less", "all", "more"]
)
def test_however_a_hold_with_a_counter_ends_it_is_charged_what_was_reported(
    ledger: Driven, reported: int, charged: int, uncollected: int
) -> None:
    wallet_id = ledger.open_wallet(500)
    numbers = [held(ledger, wallet_id, ttl=SECOND) for _ in range(3)]
    for number in numbers:
        ledger.run(ledger.report(wallet_id, number, reported))
    committed = ledger.run(ledger.commit(wallet_id, numbers[0], quantity=reported))
    released = ledger.run(ledger.release(wallet_id, numbers[1]))
    ledger.clock.forward(SECOND)
    waiting = ledger.reservation(wallet_id, numbers[2])
    ledger.settle(wallet_id)
    assert ledger.reservation(wallet_id, numbers[2]) == waiting
    ends = [ledger.reservation(wallet_id, number) for number in numbers]
    assert [stood(facts) for facts in ends] == [
        (state, charged, uncollected, reported) for state in (State.COMMITTED, State.RELEASED, State.EXPIRED)
    ]
    assert (committed.charged_micros, committed.uncollected_micros) == (charged, uncollected)
    assert (released.charged_micros, released.uncollected_micros) == (charged, uncollected)
    assert released.released_micros == 50 - charged
    assert ledger.wallet(wallet_id) == WalletFacts(wallet_id, 500 - 3 * charged, 0, 0, 7, frozen=False)
    assert [(row.kind, row.charged_micros, row.quantity) for row in ledger.journal(wallet_id)[4:]] == [
        (kind, charged, reported) for kind in (Kind.CAPTURE, Kind.RELEASE, Kind.RESERVATION_EXPIRY)
    ]
    assert ledger.usage(wallet_id, Grouping.MODEL) == [UsageTotal("flux", 3, 3 * charged)]
    assert len(ledger.uncollected(wallet_id)) == (3 if uncollected else 0)
    assert ledger.problems() == []


def test_a_price_is_rounded_once_and_never_below_the_base(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(500)
    number = held(ledger, wallet_id, 100, line=FILM._replace(price_micros=22))
    for quantity in (1, 2, 4):
        ledger.run(ledger.report(wallet_id, number, quantity))
    assert ledger.run(ledger.release(wallet_id, number)).charged_micros == 30  # 22 x 4 / 3, up


def test_the_quantity_of_a_commit_is_the_last_report_and_the_greatest_wins(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(500)
    numbers = [held(ledger, wallet_id) for _ in range(3)]
    for number in numbers:
        ledger.run(ledger.report(wallet_id, number, 3))
    outcomes = [
        ledger.run(ledger.commit(wallet_id, number, quantity=quantity))
        for number, quantity in zip(numbers, (2, 4, 9), strict=True)
    ]
    assert [stood(outcome.reservation) for outcome in outcomes] == [
        (State.COMMITTED, 30, 0, 3),
        (State.COMMITTED, 40, 0, 4),
        (State.COMMITTED, 50, 40, 9),
    ]
    assert [ledger.reservation(wallet_id, number).reported_quantity for number in numbers] == [3, 4, 9]
    assert ledger.problems() == []


def test_a_commit_below_the_counter_is_the_same_charge_under_another_key(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(500)
    number = held(ledger, wallet_id)
    ledger.run(ledger.report(wallet_id, number, 3))
    first = ledger.run(ledger.commit(wallet_id, number, quantity=2, key="a"))
    assert first.charged_micros == 30
    for key, quantity in (("a", 2), ("b", 2), ("c", 3), ("d", 0)):
        assert ledger.run(ledger.commit(wallet_id, number, quantity=quantity, key=key)) == first._replace(
            replayed=True
        )
    assert isinstance(ledger.refused(ledger.commit(wallet_id, number, quantity=4)), AlreadyCommitted)
    assert ledger.problems() == []


def test_a_hold_with_a_counter_is_charged_by_it_alone(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(500)
    number = held(ledger, wallet_id, line=IMAGES._replace(price_micros=1_001))
    ledger.run(ledger.report(wallet_id, number, 1))
    by_amount = ledger.refused(ledger.commit(wallet_id, number, 10))
    in_parts = ledger.refused(ledger.commit(wallet_id, number, quantity=2, keep_rest=True))
    too_much = ledger.refused(ledger.commit(wallet_id, number, quantity=10**9))
    refusals = (by_amount, in_parts, too_much)
    fields = [error.field for error in refusals if isinstance(error, InvalidField)]
    assert fields == ["charge", "keep_rest", "quantity"]
    captured = held(ledger, wallet_id)
    ledger.run(ledger.commit(wallet_id, captured, quantity=1, keep_rest=True))
    refused = ledger.refused(ledger.report(wallet_id, captured, 2))
    assert isinstance(refused, InvalidField)
    assert refused.field == "reservation_id"


def test_a_report_needs_a_pinned_price_the_opener_and_what_one_amount_may_be(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(10**9)
    by_amount = ledger.hold(wallet_id, 10)
    assert ledger.refused(ledger.report(wallet_id, by_amount, 1)).facts()["field"] == "quantity"
    dear = held(ledger, wallet_id, line=IMAGES._replace(price_micros=1_001))
    assert ledger.refused(ledger.report(wallet_id, dear, 10**9)).facts()["field"] == "quantity"
    assert ledger.reservation(wallet_id, dear).reported_quantity == 0
    job = held(ledger, wallet_id, opener=SERVER, ttl=None)
    for number, opener in ((dear, wallet_id), (job, SERVER)):
        refused = ledger.refused(ledger.report(wallet_id, number, 1, caller=SERVICE))
        assert isinstance(refused, NotYourHold)
        assert refused.opened_by == opener
    assert isinstance(ledger.refused(ledger.report(wallet_id, 99, 1)), NotFound)
    assert isinstance(ledger.refused(ledger.report(12345, 99, 1)), NotFound)


def test_after_the_end_a_report_is_told_how_it_ended_and_what_was_counted_stays_acknowledged(
    ledger: Driven,
) -> None:
    wallet_id = ledger.open_wallet(500)
    numbers = [held(ledger, wallet_id, ttl=SECOND) for _ in range(3)]
    for number in numbers:
        ledger.run(ledger.report(wallet_id, number, 2))
    ledger.run(ledger.commit(wallet_id, numbers[0], quantity=2))
    ledger.run(ledger.release(wallet_id, numbers[1]))
    ledger.clock.forward(SECOND)
    ends = (AlreadyCommitted, AlreadyReleased, ReservationExpired)
    for number, reason in zip(numbers, ends, strict=True):
        refused = ledger.refused(ledger.report(wallet_id, number, 3))
        assert type(refused) is reason
        assert refused.facts()["captured_micros"] == 20
        again = ledger.run(ledger.report(wallet_id, number, 2))
        assert again.reservation is not None
        assert again.reservation.reported_quantity == 2
    never = held(ledger, wallet_id, ttl=SECOND)
    ledger.clock.forward(SECOND)
    assert isinstance(ledger.refused(ledger.report(wallet_id, never, 1)), ReservationExpired)
    assert ledger.problems() == []


@pytest.mark.parametrize(
    ("quantity", "free", "charged", "uncollected"),
    [
        (3, 100, 0, 0),
        (2, 100, 0, 0),
        (5, 100, 20, 0),
        (7, 100, 20, 20),
        (5, 19, 0, 20),
        (7, 19, 0, 40),
    ],
    ids=["the same", "less", "more", "more than was held", "no credits", "neither"],
)
def test_a_late_commit_takes_only_what_it_adds(
    ledger: Driven, quantity: int, free: int, charged: int, uncollected: int
) -> None:
    wallet_id = ledger.open_wallet(131)
    number = held(ledger, wallet_id, ttl=SECOND)
    ledger.run(ledger.report(wallet_id, number, 3))
    ledger.clock.forward(SECOND)
    ledger.hold(wallet_id, 101 - free)
    late = ledger.commit(wallet_id, number, quantity=quantity)
    outcome = ledger.run(late)
    final = max(quantity, 3)
    assert stood(outcome.reservation) == (State.SETTLED_LATE, 30 + charged, uncollected, final)
    assert (outcome.charged_micros, outcome.uncollected_micros) == (charged, uncollected)
    assert ledger.run(late) == outcome._replace(replayed=True)
    assert ledger.reservation(wallet_id, number).reported_quantity == final
    assert isinstance(ledger.refused(ledger.commit(wallet_id, number, quantity=9)), AlreadyCommitted)
    assert ledger.problems() == []


def test_a_late_commit_of_an_expired_hold_that_was_short_answers_the_same_twice(ledger: Driven) -> None:
    """What nobody paid at the expiry is in the answer, too, and no column of the late row has it."""
    wallet_id = ledger.open_wallet(500)
    number = held(ledger, wallet_id, 20, ttl=SECOND)
    ledger.run(ledger.report(wallet_id, number, 3))
    ledger.clock.forward(SECOND)
    late = ledger.commit(wallet_id, number, quantity=4)
    outcome = ledger.run(late)
    assert stood(outcome.reservation) == (State.SETTLED_LATE, 20, 20, 4)
    assert ledger.run(late) == outcome._replace(replayed=True)
    assert [work.uncollected_micros for work in ledger.uncollected(wallet_id)] == [20]
    assert ledger.problems() == []


def test_a_counter_frees_what_it_does_not_charge_and_the_debt_is_paid_first(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(60, lifetime=10 * SECOND)
    number = held(ledger, wallet_id, ttl=20 * SECOND)
    ledger.run(ledger.report(wallet_id, number, 2))
    ledger.clock.forward(15 * SECOND)
    outcome = ledger.run(ledger.release(wallet_id, number))
    assert (outcome.charged_micros, outcome.released_micros) == (20, 30)
    assert outcome.wallet.balance_micros == 0  # what came back had expired
    assert ledger.problems() == []


def test_what_a_counter_charges_counts_under_the_scopes_and_limits_of_its_hold(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(500)
    ledger.set_limit(wallet_id, 400)
    number = held(ledger, wallet_id, ttl=SECOND)
    ledger.run(ledger.report(wallet_id, number, 3))
    ledger.clock.forward(SECOND)
    assert [limit[1:3] for limit in ledger.limits(wallet_id)] == [(30, 0)]
    ledger.settle(wallet_id)
    assert [limit[1:3] for limit in ledger.limits(wallet_id)] == [(30, 0)]
    assert ledger.problems() == []


def test_sums_of_charges_ask_for_what_a_counter_charges_to_be_written_first(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(500)
    number = held(ledger, wallet_id, ttl=SECOND)
    plain = held(ledger, wallet_id, ttl=SECOND)
    ledger.run(ledger.report(wallet_id, number, 3))
    ledger.clock.forward(SECOND)
    for read in (ledger.charges, partial(ledger.usage, group_by=Grouping.DAY), ledger.uncollected):
        with pytest.raises(DueFirstError):
            read(wallet_id)
    ledger.settle(wallet_id)
    assert [charge.charged_micros for charge in ledger.charges(wallet_id)] == [30]
    assert ledger.reservation(wallet_id, plain).state is State.EXPIRED


def test_reports_at_once_in_any_order_count_the_greatest(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(500)
    number = held(ledger, wallet_id, 500)
    quantities = [quantity for quantity in range(1, 33) for _ in range(2)]
    random.Random(7).shuffle(quantities)
    answers = in_threads([partial(ledger.run, ledger.report(wallet_id, number, q)) for q in quantities])
    assert all(isinstance(answer, Outcome) for answer in answers)
    assert ledger.run(ledger.release(wallet_id, number)).charged_micros == 320
    assert ledger.problems() == []


@pytest.fixture
def replicas(postgresql_url: str) -> Iterator[tuple[Driven, Driven]]:
    """Two servers' ledgers on one PostgreSQL, with one clock."""
    first = Driven(Database.open_postgresql(postgresql_url, unsafe=True)).start()
    second = Driven(Database.open_postgresql(postgresql_url, unsafe=True), clock=first.clock).start()
    yield first, second
    second.close()
    first.close()


def test_two_replicas_count_the_greatest_and_charge_it_once(replicas: tuple[Driven, Driven]) -> None:
    first, second = replicas
    wallet_id = first.open_wallet(5_000)
    number = held(first, wallet_id, 1_000)
    works = [
        partial(replica.run, replica.report(wallet_id, number, quantity))
        for quantity in range(1, 21)
        for replica in replicas
    ]
    item = first.use(wallet_id, FILM, key="event")
    works += [partial(replica.run, item) for replica in replicas for _ in range(4)]
    answers = in_threads(works)
    assert not [answer for answer in answers if not isinstance(answer, Outcome)]
    assert sum(not answer.replayed for answer in answers[40:] if isinstance(answer, Outcome)) == 1
    assert second.run(second.release(wallet_id, number)).charged_micros == 200
    assert first.wallet(wallet_id).balance_micros == 5_000 - 200 - 21
    assert first.problems() == []


# Items without a hold -------------------------------------------------------------------------------


def test_an_item_is_charged_as_it_arrives_and_is_one_row(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(100)
    outcome = ledger.run(ledger.use(wallet_id, IMAGES, key="event-1", labels={"project": "film"}))
    assert outcome == Outcome(
        WalletFacts(wallet_id, 50, 0, 0, 2, frozen=False), None, 50, 0, 0, replayed=False
    )
    row = ledger.journal(wallet_id)[-1]
    assert (row.kind, row.reservation, row.quantity, row.entries) == (Kind.USAGE, 0, 5, "[[1,-50],[3,50]]")
    assert ledger.usage(wallet_id, Grouping.PROJECT) == [UsageTotal("film", 1, 50)]
    assert [(c.model, c.reservation, c.event_id, c.project) for c in ledger.charges(wallet_id)] == [
        ("flux", 0, "event-1", "film")
    ]
    assert ledger.statement(wallet_id).models == {2: "flux"}
    assert ledger.reservations(wallet_id) == []
    assert isinstance(ledger.refused(ledger.commit(wallet_id, 2, 1, caller=SERVICE)), NotFound)
    assert ledger.problems() == []


def test_a_wallet_that_covers_half_of_an_item_pays_half_and_nobody_the_other(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(25)
    item = ledger.use(wallet_id, IMAGES, key="event-1")
    outcome = ledger.run(item)
    assert (outcome.charged_micros, outcome.uncollected_micros) == (25, 25)
    assert outcome.wallet.balance_micros == 0
    assert ledger.journal(wallet_id)[-1].entries == "[[1,-25],[3,50],[5,-25]]"
    ledger.credit(wallet_id, 100)
    assert ledger.run(item) == outcome._replace(replayed=True)  # for good: nothing is made up later
    assert ledger.wallet(wallet_id).balance_micros == 100
    assert ledger.uncollected(wallet_id) == [UncollectedRecord(wallet_id, 0, START, "flux", 25, "event-1")]
    assert ledger.uncollected(None) == ledger.uncollected(wallet_id)
    assert ledger.problems() == []


def test_an_item_takes_what_is_available_and_never_what_is_held_or_owed(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(100)
    ledger.hold(wallet_id, 90)
    outcome = ledger.run(ledger.use(wallet_id, IMAGES))
    assert (outcome.charged_micros, outcome.uncollected_micros) == (10, 40)
    nothing = ledger.run(ledger.use(wallet_id, IMAGES))
    assert (nothing.charged_micros, nothing.uncollected_micros) == (0, 50)
    assert nothing.wallet == WalletFacts(wallet_id, 90, 90, 0, 4, frozen=False)
    assert len(ledger.charges(wallet_id)) == 1
    assert ledger.problems() == []


def test_an_event_counts_once_a_service_and_account(ledger: Driven) -> None:
    wallet_id, other = ledger.open_wallet(1_000), ledger.open_wallet(1_000)
    first = ledger.use(wallet_id, IMAGES, key="e")
    answers = batch(ledger.ledger, [first, first, ledger.use(other, IMAGES, key="e")])
    answers += batch(ledger.ledger, [first, ledger.use(wallet_id, IMAGES, key="e", caller=SERVICE + 1)])
    assert [answer.replayed for answer in answers] == [False, True, False, True, False]
    assert [ledger.wallet(w).balance_micros for w in (wallet_id, other)] == [900, 950]
    # What a service reports has a name space of its own, and another request is another event.
    ledger.hold(wallet_id, 1, key="e", caller=SERVICE)
    for changed in (
        ledger.use(wallet_id, IMAGES._replace(quantity=6), key="e"),
        ledger.use(wallet_id, FILM, key="e"),
        ledger.use(wallet_id, IMAGES, key="e", labels={"project": "film"}),
    ):
        assert isinstance(ledger.refused(changed), IdempotencyKeyReused)
    assert ledger.problems() == []


def test_a_replay_of_an_item_asks_neither_price_nor_model_again(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    first = ledger.run(ledger.use(wallet_id, IMAGES, key="e"))
    dearer = IMAGES._replace(price_version=2, price_micros=20)
    gone = Refused(UnknownModel("flux"))
    for item in (
        ledger.use(wallet_id, dearer, key="e"),
        ledger.use(wallet_id, IMAGES, key="e", companion=gone),
    ):
        assert ledger.run(item) == first._replace(replayed=True)
    refused = ledger.refused(ledger.use(wallet_id, IMAGES, key="f", companion=gone))
    assert isinstance(refused, UnknownModel)


def test_an_item_counts_under_limits_and_is_refused_by_none_nor_by_a_freeze(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    ledger.run(ledger.use(wallet_id, IMAGES))
    ledger.set_limit(wallet_id, 60, key_id="", period=Period.DAY)  # counts what was there
    ledger.set_limit(wallet_id, 60, key_id="k")
    ledger.freeze(wallet_id)
    outcome = ledger.run(ledger.use(wallet_id, IMAGES))
    assert outcome.charged_micros == 50
    ledger.freeze(wallet_id, frozen=False)
    assert [limit[1:3] for limit in ledger.limits(wallet_id)] == [(100, 0), (0, 0)]
    assert type(ledger.refused(ledger.reserve(wallet_id, 1))).__name__ == "LimitExceeded"
    ledger.clock.forward(DAY)
    assert ledger.run(ledger.reserve(wallet_id, 1)).reservation is not None
    assert ledger.problems() == []


def test_a_limit_that_is_set_in_the_group_of_an_item_counts_it(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    answers = batch(
        ledger.ledger,
        [
            ledger.use(wallet_id, IMAGES),
            ledger.limit(wallet_id, 500, key_id=""),
            ledger.use(wallet_id, FILM),
        ],
    )
    assert all(isinstance(answer, Outcome) for answer in answers)
    assert [limit[1:3] for limit in ledger.limits(wallet_id)] == [(71, 0)]
    assert ledger.problems() == []


def test_items_at_once_on_a_short_wallet_charge_all_of_it_and_drop_nothing(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_007)
    items = [ledger.use(wallet_id, IMAGES, key=f"event-{n}") for n in range(32)]
    answers = in_threads([partial(ledger.run, item) for item in items + items])
    assert all(isinstance(answer, Outcome) for answer in answers)
    rows = [row for row in ledger.journal(wallet_id) if row.kind == Kind.USAGE]
    assert len(rows) == 32
    assert sum(row.charged_micros for row in rows) == 1_007
    assert sum(row.uncollected_micros for row in rows) == 32 * 50 - 1_007
    assert ledger.problems() == []


# By the key of a Reserve ----------------------------------------------------------------------------


def test_a_commit_names_its_reserve_by_key_also_one_of_the_same_group(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(100)
    reserve = ledger.reserve(wallet_id, 30, key="r")
    commit = ledger.commit(wallet_id, 0, 20, key="c", reserve_key="r")
    unknown = ledger.release(wallet_id, 0, key="x", reserve_key="no such key")
    before = ledger.refused(commit)
    assert isinstance(before, NotFound)
    held_, charged, refused = batch(ledger.ledger, [reserve, commit, unknown])
    assert held_.reservation.number == charged.reservation.number == 2
    assert (charged.charged_micros, charged.reservation.state) == (20, State.COMMITTED)
    assert isinstance(refused, NotFound)
    assert ledger.problems() == []


def test_a_key_means_the_same_request_however_the_reservation_is_named(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(100)
    ledger.run(ledger.reserve(wallet_id, 30, key="r"))
    by_key = ledger.run(ledger.commit(wallet_id, 0, 20, key="c", reserve_key="r"))
    assert ledger.run(ledger.commit(wallet_id, 2, 20, key="c")) == by_key._replace(replayed=True)
    other = ledger.hold(wallet_id, 5, key="r2")
    assert isinstance(
        ledger.refused(ledger.commit(wallet_id, 0, 20, key="c", reserve_key="r2")), IdempotencyKeyReused
    )
    assert isinstance(
        ledger.refused(ledger.commit(wallet_id, 0, 20, key="c", reserve_key="gone")), IdempotencyKeyReused
    )
    # The Reserve is the caller's own: another's, under the same key, is none.
    assert isinstance(
        ledger.refused(ledger.release(wallet_id, 0, reserve_key="r2", caller=SERVICE)), NotFound
    )
    assert ledger.reservation(wallet_id, other).state is State.ACTIVE


def test_a_reserve_that_was_refused_has_nothing_to_commit(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(10)
    reserve = ledger.reserve(wallet_id, 30, key="r")
    commit = ledger.commit(wallet_id, 0, 20, reserve_key="r")
    for _ in range(2):
        answers = batch(ledger.ledger, [reserve, commit])
        assert [type(answer).__name__ for answer in answers] == ["InsufficientCredits", "NotFound"]


# The audit ------------------------------------------------------------------------------------------

TAMPERED = {
    "an item's price": ("usage_items SET price_micros = 11 WHERE number = 4", "what never changes"),
    "an item's labels": ("usage_items SET labels = '{}' WHERE number = 4", "what never changes"),
    "an item's charge": ("usage_items SET charged_micros = 51 WHERE number = 4", "charged: 51 is stored"),
    "an item's time": ("usage_items SET at = at + 1 WHERE number = 4", "usage item 4: time"),
    "an item's number": ("usage_items SET number = 5 WHERE number = 4", "the table does not"),
    "a counter that was charged": (
        "reservations SET reported_quantity = 2 WHERE number = 2",
        "reported quantity",
    ),
    "a counter that has no price": ("reservations SET reported_quantity = 2 WHERE number = 5", "no price"),
    "what nobody paid": ("reservations SET uncollected_micros = 9 WHERE number = 2", "uncollected: 9"),
    "usage of the day": ("usage_days SET charges = 9", "usage: charges"),
}


@pytest.mark.parametrize(("change", "said"), TAMPERED.values(), ids=TAMPERED.keys())
def test_the_audit_finds_what_was_changed_of_usage(ledger: Driven, change: str, said: str) -> None:
    wallet_id = ledger.open_wallet(1_000)
    number = held(ledger, wallet_id, 20)
    ledger.run(ledger.report(wallet_id, number, 3))
    ledger.run(ledger.release(wallet_id, number))
    ledger.run(ledger.use(wallet_id, IMAGES, labels={"project": "film"}))
    ledger.hold(wallet_id, 10)
    assert ledger.problems() == []
    ledger.sql(f"UPDATE {change}")
    assert any(said in problem for problem in ledger.problems())


def test_the_audit_finds_an_item_that_is_gone(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    for _ in range(2):
        ledger.run(ledger.use(wallet_id, IMAGES))
    ledger.sql("DELETE FROM usage_items WHERE number = 2")
    found = ledger.problems()
    assert any("usage item 2: the journal knows it, the table does not" in problem for problem in found)
