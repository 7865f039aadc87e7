from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oanim_server.ledger import journal, rules
from oanim_server.ledger.refusals import (
    AccountFrozen,
    AlreadyCommitted,
    AlreadyReleased,
    BlockedScope,
    ExceedsReservation,
    InsufficientCredits,
    InvalidField,
    NotYourHold,
    Refusal,
    ReservationExpired,
    SpendLimitExceeded,
)
from oanim_server.ledger.rules import Captured, Charge, Extended, Held, Returned, SettledLate
from oanim_server.ledger.values import (
    DAY,
    MAX_AMOUNT_MICROS,
    Cap,
    Counter,
    Line,
    Lot,
    Origin,
    Part,
    Reservation,
    Scope,
    State,
    Wallet,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

NOW = 1_000_000
OWNER = 7
SERVER = 0


def a_lot(
    number: int, remaining: int, *, held: int = 0, priority: int = 0, expires_at: int | None = None
) -> Lot:
    return Lot(
        number=number,
        origin=Origin.SIGN_UP,
        amount_micros=1_000,
        remaining_micros=remaining,
        held_micros=held,
        priority=priority,
        expires_at=expires_at,
        created_at=0,
    )


def a_wallet(*lots: Lot, debt: int = 0, frozen: bool = False) -> Wallet:
    return Wallet(
        wallet_id=OWNER,
        balance_micros=sum(lot.remaining_micros for lot in lots) - debt,
        held_micros=sum(lot.held_micros for lot in lots),
        debt_micros=debt,
        seq=1,
        at=0,
        link=bytes(32),
        frozen=frozen,
        next_due_at=None,
        lots_made=len(lots),
        lots={lot.number: lot for lot in lots},
    )


def a_line(price: int = 50_000, base: int = 1) -> Line:
    return Line(1, "model", "image", "fal", "image", price, base, base)


def a_reservation(
    parts: list[Part],
    *,
    state: State = State.ACTIVE,
    captured: int = 0,
    captures: int = 0,
    captured_quantity: int = 0,
    line: Line | None = None,
    expires_at: int | None = NOW + 10,
    ended_at: int | None = None,
    reserved: int | None = None,
    scopes: tuple[Scope, ...] = (),
    opener: int = OWNER,
) -> Reservation:
    return Reservation(
        wallet_id=OWNER,
        number=2,
        state=state,
        opener=opener,
        api_key_id="k",
        reserved_micros=sum(micros for _, micros in parts) + captured if reserved is None else reserved,
        captured_micros=captured,
        uncollected_micros=0,
        captures=captures,
        captured_quantity=captured_quantity,
        parts=parts,
        expires_at=expires_at,
        created_at=0,
        ended_at=ended_at,
        last_seq=2,
        line=line,
        scopes=scopes,
        labels={},
        pinned=journal.pinned(line, scopes, {}),
    )


def reserve(wallet: Wallet, amount: int, *scopes: Scope, **counters: Counter) -> Held:
    return rules.reserve(wallet, amount, caps(scopes), named(counters))


def caps(scopes: Iterable[Scope]) -> list[Cap]:
    return [Cap(subject, None, limit_micros) for subject, limit_micros in scopes]


def named(counters: dict[str, Counter]) -> dict[tuple[str, str], Counter]:
    return {(subject, ""): counter for subject, counter in counters.items()}


def commit(
    wallet: Wallet,
    reservation: Reservation,
    amount: int | None = None,
    *,
    quantity: int | None = None,
    capture: int = 1,
    keep_rest: bool = False,
    caller: int = OWNER,
    now: int = NOW,
) -> Captured | SettledLate | rules.AsCaptured:
    return rules.commit(
        wallet,
        reservation,
        Charge(amount, quantity),
        caller=caller,
        capture=capture,
        keep_rest=keep_rest,
        now=now,
    )


def extend(
    wallet: Wallet,
    reservation: Reservation,
    amount: int = 0,
    *,
    ttl: int | None = None,
    caller: int = OWNER,
    **counters: Counter,
) -> Extended:
    return rules.extend(
        wallet,
        reservation,
        caps(reservation.scopes),
        named(counters),
        caller=caller,
        amount_micros=amount,
        ttl=ttl,
        now=NOW,
    )


def refusal(raised: pytest.ExceptionInfo[Refusal]) -> tuple[type[Refusal], dict[str, object]]:
    return type(raised.value), raised.value.facts()


# Lots -----------------------------------------------------------------------------------------------


def test_lots_are_drawn_by_priority_then_soonest_expiry_with_none_last_then_the_oldest() -> None:
    lots = [
        a_lot(1, 10, priority=2, expires_at=5),
        a_lot(2, 10, priority=1),
        a_lot(3, 10, priority=1, expires_at=9),
        a_lot(4, 10, priority=1, expires_at=8),
        a_lot(5, 10, priority=1, expires_at=9),
        a_lot(6, 10, priority=0),
        a_lot(7, 10, priority=1),
    ]
    assert [number for number, _ in rules.draw(lots, 70)] == [6, 4, 3, 5, 2, 7, 1]


def test_what_is_drawn_takes_the_free_part_of_each_lot_and_no_more_than_the_amount() -> None:
    lots = [a_lot(1, 10, held=4), a_lot(2, 10, held=10), a_lot(3, 10), a_lot(4, 10)]
    assert rules.draw(lots, 8) == [(1, 6), (3, 2)]


def test_nothing_is_drawn_for_nothing() -> None:
    assert rules.draw([a_lot(1, 10), a_lot(2, 10)], 0) == []


def test_drawing_more_than_the_lots_have_is_a_fault_not_a_refusal() -> None:
    with pytest.raises(ArithmeticError):
        rules.draw([a_lot(1, 10)], 11)


@pytest.mark.parametrize(
    ("amount", "first", "rest"),
    [
        (0, [], [(1, 10), (2, 10)]),
        (10, [(1, 10)], [(2, 10)]),
        (13, [(1, 10), (2, 3)], [(2, 7)]),
        (20, [(1, 10), (2, 10)], []),
    ],
)
def test_parts_are_split_at_an_amount(amount: int, first: list[Part], rest: list[Part]) -> None:
    assert rules.split([(1, 10), (2, 10)], amount) == (first, rest)


def test_what_is_given_back_returns_to_its_lots() -> None:
    wallet = a_wallet(a_lot(1, 10, held=10, expires_at=NOW + 1), a_lot(2, 10, held=5))
    assert rules.give_back(wallet, [(1, 10), (2, 5)], NOW) == Returned([(1, 10), (2, 5)], [], [])


def test_what_is_given_back_to_an_expired_lot_lapses_at_the_instant_itself() -> None:
    wallet = a_wallet(a_lot(1, 10, held=10, expires_at=NOW), a_lot(2, 10, held=5, expires_at=NOW + 1))
    assert rules.give_back(wallet, [(1, 10), (2, 5)], NOW) == Returned([(1, 10), (2, 5)], [], [(1, 10)])


def test_what_is_given_back_pays_the_debt_before_it_lapses_or_becomes_free() -> None:
    wallet = a_wallet(a_lot(1, 10, held=10, expires_at=NOW), a_lot(2, 10, held=10), debt=14)
    assert rules.give_back(wallet, [(1, 10), (2, 10)], NOW) == Returned(
        [(1, 10), (2, 10)], to_debt=[(1, 10), (2, 4)], lapsed=[]
    )
    wallet = a_wallet(a_lot(1, 10, held=10, expires_at=NOW), debt=4)
    assert rules.give_back(wallet, [(1, 10)], NOW) == Returned([(1, 10)], to_debt=[(1, 4)], lapsed=[(1, 6)])


def test_of_what_is_given_back_the_parts_that_would_lapse_pay_the_debt_first() -> None:
    wallet = a_wallet(
        a_lot(1, 10, held=10, priority=-1),
        a_lot(2, 10, held=10, expires_at=NOW),
        a_lot(3, 5, held=5),
        debt=12,
    )
    assert rules.give_back(wallet, [(1, 10), (2, 10), (3, 5)], NOW) == Returned(
        [(2, 10), (1, 10), (3, 5)], to_debt=[(2, 10), (1, 2)], lapsed=[]
    )


# Reserve --------------------------------------------------------------------------------------------


def test_a_reserve_holds_parts_of_lots_up_to_all_that_is_available() -> None:
    wallet = a_wallet(a_lot(1, 10, held=4), a_lot(2, 10))
    assert reserve(wallet, 16) == Held([(1, 6), (2, 10)])


def test_a_reserve_of_more_than_is_available_is_refused_with_both_amounts() -> None:
    with pytest.raises(Refusal) as raised:
        reserve(a_wallet(a_lot(1, 10, held=4)), 7)
    assert refusal(raised) == (InsufficientCredits, {"required_micros": 7, "available_micros": 6})


def test_while_available_is_negative_nothing_is_held() -> None:
    with pytest.raises(Refusal) as raised:
        reserve(a_wallet(a_lot(1, 10, held=10), debt=3), 1)
    assert refusal(raised) == (InsufficientCredits, {"required_micros": 1, "available_micros": -3})


def test_a_frozen_account_holds_nothing_and_is_told_so_first() -> None:
    with pytest.raises(Refusal) as raised:
        reserve(a_wallet(frozen=True), 7)
    assert refusal(raised) == (AccountFrozen, {})


def test_a_limit_may_be_reached_exactly() -> None:
    held = reserve(a_wallet(a_lot(1, 100)), 10, Scope("s", 30), s=Counter(charged_micros=12, held_micros=8))
    assert held == Held([(1, 10)])


def test_a_scope_without_a_limit_blocks_nothing() -> None:
    assert reserve(a_wallet(a_lot(1, 100)), 10, Scope("s", None), s=Counter(10**12, 10**12)) == Held(
        [(1, 10)]
    )


def test_a_limit_of_nothing_lets_nothing_through() -> None:
    with pytest.raises(Refusal) as raised:
        reserve(a_wallet(a_lot(1, 100)), 1, Scope("s", 0), s=Counter())
    assert isinstance(raised.value, SpendLimitExceeded)
    assert raised.value.blocked == [BlockedScope("s", 0, 0, 0, 1)]


def test_every_blocking_limit_is_named() -> None:
    with pytest.raises(Refusal) as raised:
        reserve(
            a_wallet(a_lot(1, 100)),
            10,
            Scope("a", 29),
            Scope("b", 100),
            Scope("c", None),
            Scope("d", 5),
            a=Counter(12, 8),
            b=Counter(),
            c=Counter(),
            d=Counter(1, 2),
        )
    assert isinstance(raised.value, SpendLimitExceeded)
    assert raised.value.blocked == [BlockedScope("a", 29, 12, 8, 10), BlockedScope("d", 5, 1, 2, 10)]


def test_want_of_credits_is_told_before_a_limit() -> None:
    with pytest.raises(InsufficientCredits):
        reserve(a_wallet(a_lot(1, 5)), 10, Scope("s", 1), s=Counter())


# Extend ---------------------------------------------------------------------------------------------


def test_an_extend_holds_more_and_lasts_longer() -> None:
    wallet = a_wallet(a_lot(1, 10, held=5), a_lot(2, 10))
    assert extend(wallet, a_reservation([(1, 5)]), 7, ttl=100) == Extended([(1, 5), (2, 2)], NOW + 100)


def test_an_extend_never_shortens() -> None:
    wallet = a_wallet(a_lot(1, 10, held=5))
    assert extend(wallet, a_reservation([(1, 5)], expires_at=NOW + 10), ttl=3) == Extended([], NOW + 10)


def test_the_hold_of_a_job_has_no_ttl_to_extend() -> None:
    wallet = a_wallet(a_lot(1, 10, held=5))
    assert extend(wallet, a_reservation([(1, 5)], expires_at=None), ttl=3) == Extended([], None)


def test_an_extend_beyond_what_is_available_is_refused() -> None:
    with pytest.raises(Refusal) as raised:
        extend(a_wallet(a_lot(1, 10, held=5)), a_reservation([(1, 5)]), 6)
    assert refusal(raised) == (InsufficientCredits, {"required_micros": 6, "available_micros": 5})


def test_the_time_is_extended_while_available_is_negative() -> None:
    wallet = a_wallet(a_lot(1, 5, held=5), debt=4)
    assert extend(wallet, a_reservation([(1, 5)]), ttl=100) == Extended([], NOW + 100)


def test_a_frozen_account_may_extend_the_time_but_not_the_amount() -> None:
    wallet = a_wallet(a_lot(1, 10, held=5), frozen=True)
    assert extend(wallet, a_reservation([(1, 5)]), ttl=100) == Extended([], NOW + 100)
    with pytest.raises(AccountFrozen):
        extend(wallet, a_reservation([(1, 5)]), 1, ttl=100)


def test_the_limits_of_the_reserve_are_asked_again_by_an_extend_of_the_amount_only() -> None:
    wallet = a_wallet(a_lot(1, 100, held=5))
    reservation = a_reservation([(1, 5)], scopes=(Scope("s", 10),))
    assert extend(wallet, reservation, 5, s=Counter(0, 5)) == Extended([(1, 5)], NOW + 10)
    assert extend(wallet, reservation, 0, ttl=100, s=Counter(6, 5)) == Extended([], NOW + 100)
    with pytest.raises(SpendLimitExceeded) as raised:
        extend(wallet, reservation, 6, s=Counter(0, 5))
    assert raised.value.blocked == [BlockedScope("s", 10, 0, 5, 6)]


def test_a_reservation_never_holds_more_than_one_amount_may_be() -> None:
    lots = [
        Lot(number, Origin.SIGN_UP, MAX_AMOUNT_MICROS, MAX_AMOUNT_MICROS, 0, 0, None, 0) for number in (1, 2)
    ]
    lots[0].held_micros = MAX_AMOUNT_MICROS
    with pytest.raises(Refusal) as raised:
        extend(a_wallet(*lots), a_reservation([(1, MAX_AMOUNT_MICROS)]), 1)
    assert isinstance(raised.value, InvalidField)
    assert raised.value.field == "amount_micros"


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (State.COMMITTED, AlreadyCommitted),
        (State.RELEASED, AlreadyReleased),
        (State.EXPIRED, ReservationExpired),
        (State.SETTLED_LATE, AlreadyCommitted),
    ],
)
def test_an_extend_of_what_has_ended_is_told_how(state: State, told: type[Refusal]) -> None:
    reservation = a_reservation([], state=state, reserved=9, captured=4, captures=1, ended_at=NOW)
    with pytest.raises(Refusal) as raised:
        extend(a_wallet(a_lot(1, 10)), reservation, 1)
    assert refusal(raised) == (told, {"state": state.name, "reserved_micros": 9, "captured_micros": 4})


# Commit ---------------------------------------------------------------------------------------------


def test_a_commit_charges_what_was_used_and_gives_the_rest_back() -> None:
    wallet = a_wallet(a_lot(1, 10, held=10), a_lot(2, 10, held=5))
    assert commit(wallet, a_reservation([(1, 10), (2, 5)]), 12) == Captured(
        charged_micros=12,
        quantity=0,
        consumed=[(1, 10), (2, 2)],
        kept=[],
        returned=Returned([(2, 3)], [], []),
        state=State.COMMITTED,
    )


def test_a_commit_of_nothing_gives_everything_back() -> None:
    wallet = a_wallet(a_lot(1, 10, held=5))
    assert commit(wallet, a_reservation([(1, 5)]), 0) == Captured(
        0, 0, [], [], Returned([(1, 5)], [], []), State.COMMITTED
    )


def test_a_capture_that_keeps_the_rest_leaves_the_hold_active() -> None:
    wallet = a_wallet(a_lot(1, 10, held=5))
    assert commit(wallet, a_reservation([(1, 5)]), 2, keep_rest=True) == Captured(
        2, 0, [(1, 2)], [(1, 3)], Returned([], [], []), State.ACTIVE
    )


def test_what_a_commit_frees_of_an_expired_lot_lapses_after_the_debt_is_paid() -> None:
    wallet = a_wallet(a_lot(1, 10, held=10, expires_at=NOW), debt=2)
    assert commit(wallet, a_reservation([(1, 10)]), 3) == Captured(
        3, 0, [(1, 3)], [], Returned([(1, 7)], to_debt=[(1, 2)], lapsed=[(1, 5)]), State.COMMITTED
    )


def test_a_commit_above_what_is_held_is_refused_and_names_what_is_held() -> None:
    wallet = a_wallet(a_lot(1, 100, held=5))
    with pytest.raises(Refusal) as raised:
        commit(wallet, a_reservation([(1, 5)], captured=4, captures=1), 6, capture=2)
    assert refusal(raised) == (ExceedsReservation, {"required_micros": 6, "held_micros": 5})


def test_a_frozen_account_commits_and_releases() -> None:
    wallet = a_wallet(a_lot(1, 10, held=5), frozen=True)
    assert isinstance(commit(wallet, a_reservation([(1, 5)]), 5), Captured)
    assert rules.release(wallet, a_reservation([(1, 5)]), caller=OWNER, now=NOW) == Captured(
        0, 0, [], [], Returned([(1, 5)], [], []), State.RELEASED
    )


def test_a_capture_that_was_made_already_is_answered_as_it_was_captured() -> None:
    wallet = a_wallet(a_lot(1, 10))
    for state in (State.ACTIVE, State.COMMITTED, State.RELEASED, State.EXPIRED, State.SETTLED_LATE):
        reservation = a_reservation([], state=state, captured=4, captures=2, reserved=9, ended_at=0)
        assert commit(wallet, reservation, 4, capture=2) == rules.AsCaptured(2)
        assert commit(wallet, reservation, 4, capture=1) == rules.AsCaptured(1)


def test_a_gap_between_captures_is_refused() -> None:
    with pytest.raises(Refusal) as raised:
        commit(a_wallet(a_lot(1, 10, held=5)), a_reservation([(1, 5)], captured=1, captures=1), 1, capture=3)
    assert isinstance(raised.value, InvalidField)
    assert raised.value.field == "capture"


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (State.COMMITTED, AlreadyCommitted),
        (State.RELEASED, AlreadyReleased),
        (State.SETTLED_LATE, AlreadyCommitted),
    ],
)
def test_a_further_capture_of_what_has_ended_is_told_how(state: State, told: type[Refusal]) -> None:
    reservation = a_reservation([], state=state, reserved=9, captured=4, captures=1, ended_at=NOW)
    with pytest.raises(Refusal) as raised:
        commit(a_wallet(a_lot(1, 10)), reservation, 1, capture=2)
    assert refusal(raised) == (told, {"state": state.name, "reserved_micros": 9, "captured_micros": 4})


# Prices ---------------------------------------------------------------------------------------------


def test_a_quantity_is_charged_cumulatively_and_rounded_once() -> None:
    # 10 micros buy 3: 1 to 3 cost 10, 4 cost 14 (13.33 rounded up), 5 cost 17, 6 cost 20.
    reservation = a_reservation([(1, 100)], line=a_line(price=10, base=3))
    charged = []
    for capture, (before, so_far) in enumerate([(0, 1), (1, 3), (3, 4), (4, 5), (5, 6), (6, 6)], start=1):
        reservation.captured_quantity = before
        reservation.captures = capture - 1
        decided = commit(
            a_wallet(a_lot(1, 100, held=100)), reservation, quantity=so_far, capture=capture, keep_rest=True
        )
        assert isinstance(decided, Captured)
        charged.append((decided.charged_micros, decided.quantity))
    assert charged == [(10, 1), (0, 2), (4, 1), (3, 1), (3, 1), (0, 0)]


def test_a_quantity_of_nothing_costs_nothing() -> None:
    reservation = a_reservation([(1, 100)], line=a_line(price=10, base=3))
    assert rules.price_of(reservation, Charge(None, 0)) == (0, 0)


def test_a_quantity_below_what_was_charged_is_refused() -> None:
    reservation = a_reservation([(1, 100)], line=a_line(), captured_quantity=4)
    with pytest.raises(Refusal) as raised:
        rules.price_of(reservation, Charge(None, 3))
    assert isinstance(raised.value, InvalidField)
    assert raised.value.field == "quantity"


def test_a_quantity_without_a_pinned_price_is_refused() -> None:
    with pytest.raises(Refusal) as raised:
        rules.price_of(a_reservation([(1, 100)]), Charge(None, 3))
    assert isinstance(raised.value, InvalidField)
    assert raised.value.field == "quantity"


def test_a_commit_says_what_it_charges() -> None:
    with pytest.raises(Refusal) as raised:
        commit(a_wallet(a_lot(1, 10, held=5)), a_reservation([(1, 5)]))
    assert isinstance(raised.value, InvalidField)
    assert raised.value.field == "charge"


def test_a_quantity_that_costs_more_than_is_held_is_refused() -> None:
    reservation = a_reservation([(1, 100)], line=a_line(price=60))
    with pytest.raises(Refusal) as raised:
        commit(a_wallet(a_lot(1, 200, held=100)), reservation, quantity=2)
    assert refusal(raised) == (ExceedsReservation, {"required_micros": 120, "held_micros": 100})


# Commit after the ttl -------------------------------------------------------------------------------


def expired(*, captured: int = 0, captures: int = 0) -> Reservation:
    return a_reservation(
        [], state=State.EXPIRED, reserved=9, captured=captured, captures=captures, ended_at=NOW
    )


def test_after_the_ttl_the_work_is_charged_from_what_is_available() -> None:
    wallet = a_wallet(a_lot(1, 5, held=1), a_lot(2, 9))
    assert commit(wallet, expired(), 8, now=NOW + DAY - 1) == SettledLate(8, 0, 0, [(1, 4), (2, 4)])


def test_after_the_ttl_what_the_wallet_cannot_cover_is_nobodys_as_a_whole() -> None:
    wallet = a_wallet(a_lot(1, 9, held=2))
    assert commit(wallet, expired(), 8, now=NOW) == SettledLate(0, 8, 0, [])


def test_after_the_ttl_nothing_is_taken_while_available_is_negative() -> None:
    wallet = a_wallet(a_lot(1, 9, held=9), debt=5)
    assert commit(wallet, expired(), 1, now=NOW) == SettledLate(0, 1, 0, [])
    assert commit(wallet, expired(), 0, now=NOW) == SettledLate(0, 0, 0, [])


def test_after_the_ttl_a_frozen_account_is_charged_for_the_work_that_was_done() -> None:
    wallet = a_wallet(a_lot(1, 9), frozen=True)
    assert commit(wallet, expired(), 8, now=NOW) == SettledLate(8, 0, 0, [(1, 8)])


def test_after_the_ttl_at_most_what_was_reserved_and_not_captured_is_charged() -> None:
    wallet = a_wallet(a_lot(1, 100))
    assert commit(wallet, expired(captured=4, captures=1), 5, capture=2) == SettledLate(5, 0, 0, [(1, 5)])
    with pytest.raises(ExceedsReservation):
        commit(wallet, expired(captured=4, captures=1), 6, capture=2)


def test_a_day_after_the_ttl_nothing_is_charged() -> None:
    with pytest.raises(Refusal) as raised:
        commit(a_wallet(a_lot(1, 100)), expired(captured=4, captures=1), 5, capture=2, now=NOW + DAY)
    assert refusal(raised) == (
        ReservationExpired,
        {"state": "EXPIRED", "reserved_micros": 9, "captured_micros": 4},
    )


# Release --------------------------------------------------------------------------------------------


def test_a_release_gives_everything_back() -> None:
    wallet = a_wallet(a_lot(1, 10, held=3))
    reservation = a_reservation([(1, 3)], captured=4, captures=1)
    assert rules.release(wallet, reservation, caller=OWNER, now=NOW) == Captured(
        0, 0, [], [], Returned([(1, 3)], [], []), State.RELEASED
    )


@pytest.mark.parametrize("state", [State.RELEASED, State.EXPIRED])
def test_a_release_of_what_holds_nothing_any_more_is_answered_as_it_ended(state: State) -> None:
    reservation = a_reservation([], state=state, reserved=9, ended_at=NOW)
    assert rules.release(a_wallet(), reservation, caller=OWNER, now=NOW) == rules.AsItEnded()


@pytest.mark.parametrize("state", [State.COMMITTED, State.SETTLED_LATE])
def test_a_release_after_the_last_capture_is_refused(state: State) -> None:
    reservation = a_reservation([], state=state, reserved=9, captured=4, captures=1, ended_at=NOW)
    with pytest.raises(Refusal) as raised:
        rules.release(a_wallet(), reservation, caller=OWNER, now=NOW)
    assert refusal(raised) == (
        AlreadyCommitted,
        {"state": state.name, "reserved_micros": 9, "captured_micros": 4},
    )


# Whose hold -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(State))
def test_only_the_opener_commits_releases_or_extends(state: State) -> None:
    wallet = a_wallet(a_lot(1, 10, held=5))
    reservation = a_reservation([(1, 5)], state=state, ended_at=NOW, opener=SERVER)
    for refused in (
        lambda: commit(wallet, reservation, 1),
        lambda: rules.release(wallet, reservation, caller=OWNER, now=NOW),
        lambda: extend(wallet, reservation, 1),
    ):
        with pytest.raises(Refusal) as raised:
            refused()
        assert refusal(raised) == (NotYourHold, {"opened_by": SERVER})
