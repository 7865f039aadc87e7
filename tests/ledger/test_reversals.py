"""The rule of what refunds and disputes take back and give again, on values."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from oanim_server.ledger.reversals import Reversed, Targets, reverse
from oanim_server.ledger.values import (
    Account,
    Credit,
    Lot,
    Origin,
    Wallet,
)


def a_lot(
    number: int,
    remaining: int,
    origin: Origin = Origin.SIGN_UP,
    *,
    held: int = 0,
    lapsed: int = 0,
    expires_at: int | None = None,
) -> Lot:
    return Lot(number, origin, 1_000, remaining, held, 0, expires_at, 0, lapsed)


def a_wallet(*lots: Lot) -> Wallet:
    return Wallet(
        wallet_id=7,
        balance_micros=sum(lot.remaining_micros for lot in lots),
        held_micros=sum(lot.held_micros for lot in lots),
        debt_micros=0,
        seq=1,
        at=0,
        link=bytes(32),
        frozen=False,
        next_due_at=None,
        lots_made=len(lots),
        lots={lot.number: lot for lot in lots},
    )


def a_credit(
    stripe: int = 0,
    promotions: int = 0,
    disputes: int = 0,
    *,
    covered_paid: int = 0,
    covered_bonus: int = 0,
    bonus_lot: int = 2,
) -> Credit:
    return Credit(7, 2, "p", 3, bonus_lot, stripe, promotions, disputes, covered_paid, covered_bonus)


def decide(wallet: Wallet, credit: Credit, *targets: int) -> Reversed:
    decided = reverse(wallet, credit, {n: wallet.lots[n] for n in credit.lots}, Targets(*targets))
    assert decided is not None
    assert sum(decided.entries.values()) == 0
    return decided._replace(
        entries={account: micros for account, micros in decided.entries.items() if micros}
    )


def bought(paid: int, bonus: int, **of_paid: int) -> tuple[Lot, Lot]:
    return a_lot(2, bonus, Origin.BONUS), a_lot(3, paid, Origin.PURCHASE, **of_paid)


def test_where_the_books_are_nothing_is_decided() -> None:
    wallet = a_wallet(*bought(50, 5))
    lots = {number: wallet.lots[number] for number in (2, 3)}
    assert reverse(wallet, a_credit(), lots, Targets(0, 0, 0)) is None
    assert reverse(wallet, a_credit(25, 2, 9), lots, Targets(25, 2, 9)) is None


def test_the_purchases_own_lots_are_taken_first() -> None:
    wallet = a_wallet(a_lot(1, 100, expires_at=1), *bought(50, 5), a_lot(4, 100))
    assert decide(wallet, a_credit(), 25, 2, 0) == Reversed(
        Targets(25, 2, 0),
        {Account.WALLET: -27, Account.STRIPE: 25, Account.PROMOTIONS: 2},
        taken=[(2, 5), (3, 22)],
        owed_micros=0,
        given_micros=0,
        covered_paid_micros=0,
        covered_bonus_micros=0,
        elsewhere_micros=0,
    )


def test_then_what_is_free_of_the_others_in_draw_order_and_the_rest_is_owed() -> None:
    wallet = a_wallet(
        a_lot(1, 10, Origin.PURCHASE), *bought(6, 0), a_lot(4, 10, expires_at=9), a_lot(5, 10, held=7)
    )
    decided = decide(wallet, a_credit(), 0, 0, 55)
    assert decided.taken == [(3, 6), (4, 10), (5, 3), (1, 10)]
    assert (decided.owed_micros, decided.elsewhere_micros) == (26, 55 - 6)
    assert decided.entries == {Account.WALLET: -55, Account.DISPUTES: 55}


def test_parts_under_a_hold_are_never_taken() -> None:
    wallet = a_wallet(a_lot(1, 10, held=10), *bought(50, 5, held=30))
    decided = decide(wallet, a_credit(), 50, 5, 0)
    assert (decided.taken, decided.owed_micros) == ([(2, 5), (3, 20)], 30)


def test_what_has_expired_of_its_own_counts_as_taken_already() -> None:
    wallet = a_wallet(a_lot(1, 100), a_lot(2, 0, Origin.BONUS, lapsed=5), *bought(0, 0, lapsed=30)[1:])
    half = decide(wallet, a_credit(), 25, 2, 0)
    assert half == Reversed(
        Targets(25, 2, 0),
        {Account.STRIPE: 25, Account.PROMOTIONS: 2, Account.BREAKAGE: -27},
        taken=[],
        owed_micros=0,
        given_micros=0,
        covered_paid_micros=27,
        covered_bonus_micros=0,
        elsewhere_micros=0,
    )
    rest = decide(wallet, a_credit(25, 2, 0, covered_paid=27), 50, 5, 0)
    assert (rest.taken, rest.covered_paid_micros, rest.covered_bonus_micros) == ([(1, 20)], 3, 5)
    assert rest.entries == {
        Account.WALLET: -20,
        Account.STRIPE: 25,
        Account.PROMOTIONS: 3 - 5,
        Account.BREAKAGE: -3,
    }


def test_what_is_given_again_goes_to_the_wallet_before_it_goes_to_what_had_expired() -> None:
    wallet = a_wallet(*bought(0, 0, lapsed=30))
    credit = a_credit(50, 5, 0, covered_paid=30, covered_bonus=5)
    assert decide(wallet, credit, 25, 2, 0) == Reversed(
        Targets(-25, -3, 0),
        {Account.WALLET: 20, Account.STRIPE: -25, Account.PROMOTIONS: -3 + 5, Account.BREAKAGE: 3},
        taken=[],
        owed_micros=0,
        given_micros=20,
        covered_paid_micros=-3,
        covered_bonus_micros=-5,
        elsewhere_micros=0,
    )


def test_a_dispute_that_becomes_a_refund_moves_between_accounts_and_leaves_the_wallet() -> None:
    wallet = a_wallet(*bought(50, 5))
    decided = decide(wallet, a_credit(disputes=27), 25, 2, 0)
    assert decided.entries == {Account.STRIPE: 25, Account.PROMOTIONS: 2, Account.DISPUTES: -27}
    assert (decided.taken, decided.owed_micros, decided.given_micros) == ([], 0, 0)


TARGETS = st.builds(Targets, *[st.integers(0, 40)] * 3)


@given(st.lists(TARGETS, min_size=1, max_size=8), st.integers(0, 50), st.integers(0, 5))
def test_whatever_the_targets_were_before_the_last_ones_decide(
    targets: list[Targets], lapsed: int, lapsed_bonus: int
) -> None:
    lots = {2: a_lot(2, 0, Origin.BONUS, lapsed=lapsed_bonus), 3: a_lot(3, 0, Origin.PURCHASE, lapsed=lapsed)}
    wallet, credit, of_wallet = a_wallet(*lots.values()), a_credit(), 0
    books: Counter[Account] = Counter()
    for wanted in targets:
        decided = reverse(wallet, credit, lots, wanted)
        if decided is None:
            continue
        assert sum(decided.entries.values()) == 0
        books.update(decided.entries)
        of_wallet += decided.given_micros - decided.owed_micros
        credit = Credit(
            *(7, 2, "p", 3, 2),
            *wanted,
            credit.covered_paid_micros + decided.covered_paid_micros,
            credit.covered_bonus_micros + decided.covered_bonus_micros,
        )
    covered = min(sum(targets[-1]), lapsed + lapsed_bonus)
    assert of_wallet == books[Account.WALLET] == covered - sum(targets[-1])
    assert books[Account.STRIPE] == targets[-1].stripe_micros
    assert books[Account.DISPUTES] == targets[-1].disputes_micros
    assert 0 <= credit.covered_paid_micros <= lapsed
    assert 0 <= credit.covered_bonus_micros <= lapsed_bonus
