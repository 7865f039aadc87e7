"""The operator's hand: grants, adjustments and freezes, each with a name and a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from oanim_server.ledger.corrections import Adjust, Freeze, Grant
from oanim_server.ledger.refusals import (
    AccountFrozen,
    IdempotencyKeyReused,
    InsufficientCredits,
    NotFound,
)
from oanim_server.ledger.values import DAY, SECOND, Kind, Lot, Note, Origin, Outcome, State, WalletFacts
from tests.ledger.driving import Driven, batch

if TYPE_CHECKING:
    from collections.abc import Callable

    from oanim_server.ledger.corrections import Correction

OPERATOR = 5
NOTE = Note("ak_operator", "ticket 17")


def grant(wallet_id: int, micros: int, key: str = "one", *, lifetime: int | None = None) -> Grant:
    return Grant(
        wallet_id=wallet_id,
        caller=OPERATOR,
        idempotency_key=key,
        amount_micros=micros,
        lifetime=lifetime,
        note=NOTE,
    )


def adjust(wallet_id: int, micros: int, key: str = "one") -> Adjust:
    return Adjust(wallet_id=wallet_id, caller=OPERATOR, idempotency_key=key, amount_micros=micros, note=NOTE)


def freeze(wallet_id: int, key: str = "one", *, frozen: bool = True) -> Freeze:
    return Freeze(wallet_id=wallet_id, caller=OPERATOR, idempotency_key=key, frozen=frozen, note=NOTE)


# Grants ---------------------------------------------------------------------------------------------


def test_a_grant_is_a_promotional_lot_with_its_own_expiry(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(10)
    now = ledger.clock.now
    outcome = ledger.run(grant(wallet_id, 100, lifetime=DAY))
    assert outcome.wallet == WalletFacts(wallet_id, 110, 0, 0, 2, frozen=False)
    ledger.run(grant(wallet_id, 40, "two"))
    assert ledger.lots(wallet_id) == [
        Lot(2, Origin.GRANT, 100, 100, 0, 0, now + DAY, now),
        Lot(1, Origin.SIGN_UP, 10, 10, 0, 0, None, now),
        Lot(3, Origin.GRANT, 40, 40, 0, 0, None, now),
    ]
    ledger.run(ledger.commit(wallet_id, ledger.hold(wallet_id, 30), 30))
    ledger.clock.forward(DAY - 1)
    assert ledger.wallet(wallet_id).balance_micros == 120
    ledger.clock.forward(1)
    assert ledger.wallet(wallet_id).balance_micros == 50
    ledger.settle(wallet_id)
    rows = ledger.journal(wallet_id)
    assert [(row.kind, row.entries) for row in rows if not row.reservation] == [
        (Kind.SIGN_UP_GRANT, "[[2,-10],[1,10]]"),
        (Kind.GRANT, "[[2,-100],[1,100]]"),
        (Kind.GRANT, "[[2,-40],[1,40]]"),
        (Kind.LOT_EXPIRY, "[[1,-70],[2,70]]"),
    ]
    assert ledger.problems() == []


def test_a_grant_pays_what_is_owed_first(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(10)
    ledger.run(adjust(wallet_id, -60))
    assert ledger.run(grant(wallet_id, 50)).wallet == WalletFacts(wallet_id, 0, 0, 0, 3, frozen=False)
    assert ledger.lots(wallet_id) == []
    ledger.run(adjust(wallet_id, -5, "two"))
    ledger.run(grant(wallet_id, 8, "two", lifetime=SECOND))
    assert [(lot.amount_micros, lot.remaining_micros) for lot in ledger.lots(wallet_id)] == [(8, 3)]
    ledger.clock.forward(SECOND)
    assert ledger.wallet(wallet_id) == WalletFacts(wallet_id, 0, 0, 0, 5, frozen=False)
    ledger.settle(wallet_id)
    assert ledger.problems() == []


# Adjustments ----------------------------------------------------------------------------------------


def test_an_adjustment_up_is_a_lot_that_lasts(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(10)
    assert ledger.run(adjust(wallet_id, 25)).wallet == WalletFacts(wallet_id, 35, 0, 0, 2, frozen=False)
    assert [(lot.origin, lot.remaining_micros, lot.expires_at) for lot in ledger.lots(wallet_id)] == [
        (Origin.SIGN_UP, 10, None),
        (Origin.ADJUSTMENT, 25, None),
    ]
    row = ledger.journal(wallet_id)[-1]
    assert (row.kind, row.entries) == (Kind.ADJUSTMENT, "[[8,-25],[1,25]]")
    assert ledger.problems() == []


def test_an_adjustment_down_takes_what_is_free_in_draw_order_and_the_rest_is_owed(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(10)
    ledger.credit(wallet_id, 20, lifetime=DAY)
    number = ledger.hold(wallet_id, 15)
    assert ledger.run(adjust(wallet_id, -8)).wallet == WalletFacts(wallet_id, 22, 15, 0, 4, frozen=False)
    assert [(lot.number, lot.remaining_micros) for lot in ledger.lots(wallet_id)] == [(2, 15), (1, 7)]
    assert ledger.run(adjust(wallet_id, -20, "two")).wallet == WalletFacts(
        wallet_id, 2, 15, 13, 5, frozen=False
    )
    rows = ledger.journal(wallet_id)[-2:]
    assert [(row.kind, row.entries) for row in rows] == [
        (Kind.ADJUSTMENT, "[[1,-8],[8,8]]"),
        (Kind.ADJUSTMENT, "[[1,-20],[8,20]]"),
    ]
    refused = ledger.refused(ledger.reserve(wallet_id, 1))
    assert (type(refused), refused.facts()["available_micros"]) == (InsufficientCredits, -13)
    # The hold is honoured, and what it gives back pays first.
    ledger.run(ledger.commit(wallet_id, number, 5))
    assert ledger.wallet(wallet_id) == WalletFacts(wallet_id, -3, 0, 3, 6, frozen=False)
    assert ledger.run(adjust(wallet_id, 4, "three")).wallet.balance_micros == 1
    assert ledger.problems() == []


def test_a_correction_of_nothing_is_no_row_and_leaves_the_key_free(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(10)
    for nothing in (adjust(wallet_id, 0), grant(wallet_id, 0)):
        assert ledger.run(nothing).wallet == WalletFacts(wallet_id, 10, 0, 0, 1, frozen=False)
    assert ledger.run(adjust(wallet_id, 1)).wallet.seq == 2
    assert ledger.count("notes") == 1
    assert ledger.problems() == []


# Freezing -------------------------------------------------------------------------------------------


def test_a_freeze_of_what_is_frozen_is_a_row_and_keeps_its_key(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(10)
    ledger.run(freeze(wallet_id, "one"))
    assert ledger.run(freeze(wallet_id, "two")).wallet == WalletFacts(wallet_id, 10, 0, 0, 3, frozen=True)
    ledger.run(freeze(wallet_id, "three", frozen=False))
    assert ledger.run(freeze(wallet_id, "two")).replayed
    assert isinstance(ledger.refused(freeze(wallet_id, "two", frozen=False)), IdempotencyKeyReused)
    assert not ledger.wallet(wallet_id).frozen
    assert ledger.problems() == []


def test_a_frozen_account_starts_no_work_and_everything_else_goes_on(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    charged, freed, late = (ledger.hold(wallet_id, 100, ttl=900 * SECOND) for _ in range(3))
    assert ledger.run(freeze(wallet_id)).wallet == WalletFacts(wallet_id, 1_000, 300, 0, 5, frozen=True)
    row = ledger.journal(wallet_id)[-1]
    assert (row.kind, row.frozen, row.lots, row.entries) == (Kind.FREEZE, 1, "[]", "[]")
    reserve = ledger.reserve(wallet_id, 1, key="frozen")
    assert isinstance(ledger.refused(reserve), AccountFrozen)
    assert isinstance(ledger.refused(ledger.extend(wallet_id, charged, amount_micros=1)), AccountFrozen)
    assert ledger.wallet(wallet_id).frozen
    assert len(ledger.statement(wallet_id).rows) == 5
    ledger.run(ledger.extend(wallet_id, charged, ttl=DAY))
    ledger.run(ledger.commit(wallet_id, charged, 60, keep_rest=True))
    ledger.run(ledger.commit(wallet_id, charged, 10, capture=2))
    ledger.run(ledger.release(wallet_id, freed))
    ledger.clock.forward(900 * SECOND)
    assert ledger.reservation(wallet_id, late).state is State.EXPIRED
    assert ledger.run(ledger.commit(wallet_id, late, 100)).charged_micros == 100
    ledger.run(grant(wallet_id, 5))
    ledger.run(adjust(wallet_id, -5))
    thawed = ledger.run(freeze(wallet_id, "two", frozen=False))
    assert thawed.wallet == WalletFacts(wallet_id, 830, 0, 0, 14, frozen=False)
    # The refusal is its key's for 30 days; another attempt is let through.
    again = ledger.refused(reserve)
    assert (type(again), again.replayed) == (AccountFrozen, True)
    ledger.hold(wallet_id, 1)
    assert ledger.problems() == []


def test_a_freeze_in_a_group_holds_from_its_place_on(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    works = [
        ledger.reserve(wallet_id, 1),
        freeze(wallet_id),
        ledger.reserve(wallet_id, 2),
        freeze(wallet_id, "two", frozen=False),
        ledger.reserve(wallet_id, 4),
    ]
    answers = batch(ledger.ledger, works)
    assert [type(answer) for answer in answers] == [Outcome, Outcome, AccountFrozen, Outcome, Outcome]
    assert ledger.wallet(wallet_id) == WalletFacts(wallet_id, 1_000, 5, 0, 5, frozen=False)
    assert ledger.problems() == []


# Names, reasons, keys -------------------------------------------------------------------------------


def test_every_correction_is_kept_with_who_made_it_and_why(ledger: Driven) -> None:
    wallet_id, other = ledger.open_wallet(10), ledger.open_wallet(10)
    works: list[Correction] = [
        grant(wallet_id, 5),
        adjust(wallet_id, -100, "two"),
        freeze(wallet_id, "three"),
        adjust(wallet_id, 100, "four"),
        freeze(wallet_id, "five", frozen=False),
    ]
    reasons = {}
    for seq, work in enumerate(works, start=2):
        reasons[seq] = f"because of {type(work).__name__} é€ {seq}"
        ledger.run(structs.replace(work, note=Note(f"ak_{seq}", reasons[seq])))
    ledger.hold(wallet_id, 1)
    ledger.run(adjust(other, 1))
    assert ledger.rows(
        "SELECT seq, actor, reason FROM notes WHERE wallet_id = :w ORDER BY seq", w=wallet_id
    ) == [(seq, f"ak_{seq}", reason) for seq, reason in reasons.items()]
    assert ledger.statement(wallet_id).reasons == reasons
    assert ledger.statement(wallet_id, before=4, limit=2).reasons == {2: reasons[2], 3: reasons[3]}
    assert ledger.statement(wallet_id, limit=1).reasons == {}
    assert ledger.statement(other).reasons == {2: NOTE.reason}
    assert ledger.problems() == []


CORRECTIONS: dict[str, Callable[[int], Correction]] = {
    "grant": lambda wallet_id: grant(wallet_id, 5),
    "adjust up": lambda wallet_id: adjust(wallet_id, 5),
    "adjust down": lambda wallet_id: adjust(wallet_id, -50),
    "freeze": freeze,
}


@pytest.mark.parametrize("name", CORRECTIONS)
def test_a_correction_that_is_repeated_has_one_effect(ledger: Driven, name: str) -> None:
    wallet_id = ledger.open_wallet(10)
    correction = CORRECTIONS[name](wallet_id)
    first = ledger.run(correction)
    ledger.credit(wallet_id, 100)
    assert ledger.run(correction) == first._replace(replayed=True)
    # Somebody else of the operator's people repeats it for the same reason: it is the same request.
    again = structs.replace(correction, note=Note("another", NOTE.reason))
    assert ledger.run(again) == first._replace(replayed=True)
    assert ledger.rows("SELECT seq, actor FROM notes") == [(2, NOTE.actor)]
    assert ledger.problems() == []


def test_another_correction_under_the_same_key_is_refused(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(10)
    for first, others in (
        (
            grant(wallet_id, 5),
            (grant(wallet_id, 6), grant(wallet_id, 5, lifetime=DAY)),
        ),
        (adjust(wallet_id, -5), (adjust(wallet_id, 5), adjust(wallet_id, -6))),
        (freeze(wallet_id), (freeze(wallet_id, frozen=False),)),
    ):
        ledger.run(first)
        changed = structs.replace(first, note=Note(NOTE.actor, "another reason"))
        for other in (*others, changed):
            assert isinstance(ledger.refused(other), IdempotencyKeyReused)
    assert ledger.wallet(wallet_id) == WalletFacts(wallet_id, 10, 0, 0, 4, frozen=True)
    # Another operator's key is another key.
    ledger.run(structs.replace(grant(wallet_id, 6), caller=OPERATOR + 1))
    assert ledger.wallet(wallet_id).balance_micros == 16


def test_a_wallet_that_is_not_there_is_not_corrected(ledger: Driven) -> None:
    for correction in CORRECTIONS.values():
        assert isinstance(ledger.refused(correction(12345)), NotFound)
