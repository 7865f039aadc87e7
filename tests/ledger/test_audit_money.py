"""What the audit finds in credits of purchases, limits, notes, and what counts under limits."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from oanim_server.ledger.audit import audit
from oanim_server.ledger.corrections import Adjust, Freeze, Grant
from oanim_server.ledger.ids import account_text
from oanim_server.ledger.values import DAY, SERVER, Note
from oanim_server.ledger.windows import Period
from tests.ledger.driving import START, of_lots
from tests.ledger.selling import Disputed, Purchase, Refunded, Shop

if TYPE_CHECKING:
    from tests.ledger.driving import Driven

FIRST = Purchase("first", 50, 5, lifetime=DAY)
SECOND = Purchase("second", 80, 8, lifetime=3 * DAY)


@pytest.fixture
def shop(ledger: Driven) -> Shop:
    return Shop(ledger)


def history(ledger: Driven, shop: Shop) -> int:
    """Purchases, one of which has expired before it was refunded, limits and corrections."""
    ledger.clock.now = START
    wallet_id = ledger.open_wallet(100)  # 1
    shop.sell(wallet_id, FIRST)  # 2, lots 2 and 3
    shop.sell(wallet_id, SECOND)  # 3, lots 4 and 5
    ledger.run(ledger.commit(wallet_id, ledger.hold(wallet_id, 15), 15))  # 4, 5
    ledger.set_limit(wallet_id, 1_000)  # 6
    ledger.set_limit(wallet_id, 2_000, key_id="", period=Period.MONTH)  # 7
    ledger.set_limit(wallet_id, 500)  # 8
    ledger.set_limit(wallet_id, 1, key_id="gone")  # 9
    ledger.set_limit(wallet_id, None, key_id="gone")  # 10
    ledger.hold(wallet_id, 7, ttl=30 * DAY)  # 11
    ledger.clock.forward(DAY)  # 12: the lot of FIRST, but for what is held
    shop.tell(wallet_id, FIRST, Refunded("a", 50))  # 13
    shop.tell(wallet_id, SECOND, Refunded("b", 20))  # 14
    shop.tell(wallet_id, SECOND, Disputed("d", 40))  # 15
    shop.tell(wallet_id, SECOND, Disputed("d", 40, reinstated=True))  # 16, lot 6
    shop.tell(wallet_id, SECOND, Disputed("e", 10))  # 17
    note = Note("ak_operator", "ticket 17")
    grant = Grant(wallet_id=wallet_id, caller=SERVER, idempotency_key="one", amount_micros=9, note=note)
    ledger.run(grant)  # 18, lot 7
    down = Adjust(wallet_id=wallet_id, caller=SERVER, idempotency_key="one", amount_micros=-3, note=note)
    ledger.run(down)  # 19
    ledger.run(structs.replace(down, idempotency_key="two", amount_micros=4))  # 20, lot 8
    ledger.run(Freeze(wallet_id=wallet_id, caller=SERVER, idempotency_key="one", frozen=True, note=note))
    return wallet_id


def test_an_honest_ledger_has_no_problems(ledger: Driven, shop: Shop) -> None:
    wallet_id = history(ledger, shop)
    report = audit(ledger.database)
    assert report.problems == []
    assert (report.wallets, report.transactions, report.lots) == (1, 21, 8)
    assert ledger.rows(
        "SELECT number, paid_lot, bonus_lot, stripe_micros, promotions_micros, disputes_micros,"
        " covered_paid_micros, covered_bonus_micros FROM purchase_credits ORDER BY number"
    ) == [(2, 3, 2, 50, 5, 0, 33, 0), (3, 5, 4, 20, 2, 11, 0, 0)]
    assert ledger.rows("SELECT limits FROM wallets") == [(2,)]
    assert ledger.wallet(wallet_id).frozen


def the_credit(column: str, by: int = 1, number: int = 3) -> str:
    return f"UPDATE purchase_credits SET {column} = {column} + {by} WHERE number = {number}"


# What is changed, and what the audit says.
TAMPERED = {
    "whose purchase it was": (
        "UPDATE purchase_credits SET purchase_id = 'another' WHERE number = 2",
        "row 2: what never changes",
    ),
    "the lot that was paid": (the_credit("paid_lot", 90), "credit 3: the journal does not know it"),
    "the lot that was a bonus": (the_credit("bonus_lot", -4), "credit 3: the journal does not know it"),
    "which lot was the bonus": (
        "UPDATE purchase_credits SET paid_lot = bonus_lot, bonus_lot = paid_lot WHERE number = 2",
        "credit 2: the journal does not know it",
    ),
    "the row that made it": (the_credit("number", 8), "credit 11: the journal does not know it"),
    "what went back to stripe": (the_credit("stripe_micros"), "credit 3: in stripe"),
    "what went back to promotions": (the_credit("promotions_micros", -1), "credit 3: in promotions"),
    "what is disputed": (the_credit("disputes_micros", -11), "credit 3: in disputes"),
    "what of it had expired": (the_credit("covered_paid_micros", -1, 2), "credit 2: from breakage"),
    "what of its bonus had expired": (the_credit("covered_bonus_micros", 1, 2), "credit 2: in promotions"),
    "what went back, of one purchase for another": (
        "UPDATE purchase_credits SET stripe_micros = stripe_micros + 2 * number - 5 WHERE 1 = 1",
        "credit 3: in stripe",
    ),
    "more than its bonus expired": (
        "UPDATE purchase_credits SET covered_bonus_micros = 6, promotions_micros = 11 WHERE number = 2",
        "credit 2: more than has expired",
    ),
    "a bonus that expired was refunded": (
        "UPDATE purchase_credits SET covered_bonus_micros = 5, promotions_micros = 10 WHERE number = 2",
        "credit 2: more or less of its bonus",
    ),
    "more than was taken was taken elsewhere": (
        the_credit("elsewhere_micros", 90),
        "credit 3: taken elsewhere: 101 is stored, 11 is right",
    ),
    "a little less was taken elsewhere": (
        the_credit("elsewhere_micros", -1),
        "credit 3: taken elsewhere: 10 is stored, 11 is right",
    ),
    "nothing was taken elsewhere": (
        the_credit("elsewhere_micros", -11),
        "credit 3: taken elsewhere: 0 is stored, 11 is right",
    ),
    "a credit removed": ("DELETE FROM purchase_credits WHERE number = 3", "credit 3: the journal knows it"),
    "what a lot lost to its expiry": (
        of_lots(",33],[6,", ",32],[6,"),
        "bought credits that expired",
    ),
    "what a gift lost to its expiry": (
        "UPDATE lots SET lapsed_micros = lapsed_micros + 1 WHERE lot = 2",
        "given credits that expired",
    ),
    "what kind of lot it is": (of_lots("[7,4,", "[7,2,"), "row 18: what never changes"),
    "what was reinstated": (of_lots("[6,6,44,", "[6,6,70,"), "row 16: what never changes"),
    "what kind of lot it was": ("UPDATE lots SET origin = 2 WHERE lot = 4", "row 3: what never changes"),
    "a limit raised": ("UPDATE limits SET limit_micros = 501 WHERE api_key_id = 'k'", "limits: they are not"),
    "a limit as it once was": (
        "UPDATE limits SET limit_micros = 1000 WHERE api_key_id = 'k'",
        "limits: they are not",
    ),
    "whose limit it is": (
        "UPDATE limits SET api_key_id = 'other' WHERE api_key_id = 'k'",
        "limits: they are",
    ),
    "a limit's period": ("UPDATE limits SET period = 2 WHERE api_key_id = 'k'", "limits: they are not"),
    "a limit removed": ("DELETE FROM limits WHERE api_key_id = 'k'", "limits: they are not"),
    "how many limits there are": ("UPDATE wallets SET limits = 1 WHERE 1 = 1", "limits: 1 is stored"),
    "what counts under a limit": (
        "UPDATE spend_counters SET charged_micros = 14 WHERE subject = 'k'",
        "scope 'k day 2030-01-01': charged",
    ),
    "what is held under a limit": (
        "UPDATE spend_counters SET held_micros = held_micros - 1 WHERE window_name LIKE 'month%'",
        "scope 'account month 2030-01-01': held",
    ),
    "the window of what counts": (
        "UPDATE spend_counters SET window_name = 'week 2030-01-01' WHERE subject = 'k'",
        "scope 'k week 2030-01-01': there is no such limit",
    ),
    "a window that none is": (
        "UPDATE spend_counters SET window_name = 'day the last' WHERE subject = 'k'",
        "scope 'k day the last': there is no such limit",
    ),
    "whose counter it is": (
        "UPDATE spend_counters SET subject = 'other' WHERE subject = 'k'",
        "scope 'other day 2030-01-01': charged",
    ),
    "who made a grant": ("UPDATE notes SET actor = 'me' WHERE seq = 18", "row 18: what never changes"),
    "why it was adjusted": ("UPDATE notes SET reason = 'so' WHERE seq = 19", "row 19: what never changes"),
    "why it was adjusted up": ("UPDATE notes SET reason = 'so' WHERE seq = 20", "row 20: what never changes"),
    "why it is frozen": ("UPDATE notes SET reason = 'so' WHERE seq = 21", "row 21: what never changes"),
    "a note removed": ("DELETE FROM notes WHERE seq = 21", "row 21: what never changes"),
    "a note moved": ("UPDATE notes SET seq = 5 WHERE seq = 18", "row 5: it has a reason"),
    "a wallet thawed": ("UPDATE wallets SET frozen = 0 WHERE 1 = 1", "frozen: "),
    "a frozen row": ("UPDATE transactions SET frozen = 0 WHERE seq = 21", "row 21: the chain"),
    "a debt": ("UPDATE wallets SET debt_micros = debt_micros + 1 WHERE 1 = 1", "debt: "),
    "a row's debt": ("UPDATE transactions SET debt_micros = 1 WHERE seq = 13", "row 13: "),
    "a row's seal": ("UPDATE transactions SET seal = link WHERE seq = 8", "row 8: the chain"),
}


def test_whatever_is_tampered_with_is_found_and_named(ledger: Driven, shop: Shop) -> None:
    wallets = {name: history(ledger, shop) for name in TAMPERED}
    honest = history(ledger, shop)
    for name, (statement, _) in TAMPERED.items():
        ledger.sql(f"{statement} AND wallet_id = :wallet_id", wallet_id=wallets[name])
    found: dict[str, list[str]] = {name: [] for name in TAMPERED}
    names = {account_text(wallet_id): name for name, wallet_id in wallets.items()}
    for problem in ledger.problems():
        account, _, what = problem.partition(": ")
        assert account != account_text(honest)
        found[names[account]].append(what)
    missed = {
        name: found[name]
        for name, (_, expected) in TAMPERED.items()
        if not any(what.startswith(expected) for what in found[name])
    }
    assert missed == {}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        # A limit that is gone, with its number: only the row that set it last knows of it.
        (
            ("DELETE FROM limits", "UPDATE wallets SET limits = 0"),
            "limits: they are not as they were set last",
        ),
        (
            ("INSERT INTO limits VALUES (:w, 'x', 1, 5)", "UPDATE wallets SET limits = limits + 1"),
            "limits: they are not as they were set last",
        ),
        # Numbers that nobody misses, because a limit adds them up anew when they are not there.
        (
            ("INSERT INTO spend_counters VALUES (:w, 'x', 'day 2030-01-01', 0, 0)",),
            "scope 'x day 2030-01-01'",
        ),
        (
            ("INSERT INTO purchase_credits VALUES (:w, 4, 'third', 99, 98, 0, 0, 0, 0, 0, 0)",),
            "credit 4: the journal does not know it",
        ),
        (("INSERT INTO notes VALUES (:w, 99, 'me', 'so')",), "row 99: it has a reason"),
    ],
)
def test_what_is_made_up_is_found(ledger: Driven, shop: Shop, change: tuple[str, ...], found: str) -> None:
    wallet_id = history(ledger, shop)
    for statement in change:
        ledger.sql(statement, **({"w": wallet_id} if ":w" in statement else {}))
    problems = ledger.problems()
    assert any(problem.startswith(f"{account_text(wallet_id)}: {found}") for problem in problems), problems


# What was taken elsewhere ---------------------------------------------------------------------------

SHORT = Purchase("short", 100, lifetime=DAY)


def elsewhere(ledger: Driven) -> int:
    [(micros,)] = ledger.rows("SELECT elsewhere_micros FROM purchase_credits")
    return int(micros)


def held_and_refunded(ledger: Driven, shop: Shop) -> tuple[int, int]:
    """A wallet with a hold of 60 of a purchase of 100, of which 50 were taken back: 40, and 10 elsewhere."""
    wallet_id = ledger.open_wallet(1_000)  # 1
    shop.sell(wallet_id, SHORT)  # 2
    number = ledger.hold(wallet_id, 60, ttl=30 * DAY)  # 3
    shop.tell(wallet_id, SHORT, Refunded("a", 50))  # 4
    assert elsewhere(ledger) == 10
    return wallet_id, number


def forge(ledger: Driven, micros: int) -> None:
    """Write what was taken elsewhere, as somebody with the file, or a superuser, can."""
    statement = f"UPDATE purchase_credits SET elsewhere_micros = {micros}"
    if ledger.database.dialect == "postgresql":
        ledger.sql("ALTER TABLE purchase_credits DROP CONSTRAINT IF EXISTS ck_purchase_credits_elsewhere")
        ledger.sql(statement)
        return
    [(_, _, file)] = ledger.rows("PRAGMA database_list")
    with closing(sqlite3.connect(file)) as vandal:
        vandal.execute("PRAGMA ignore_check_constraints = ON")
        vandal.execute(statement)
        vandal.commit()


def test_what_was_taken_elsewhere_is_followed_from_row_to_row(ledger: Driven, shop: Shop) -> None:
    wallet_id = ledger.open_wallet(30)
    shop.sell(wallet_id, SHORT)
    first, second = (ledger.hold(wallet_id, 40, ttl=30 * DAY) for _ in range(2))
    seen = []

    def look() -> None:
        assert ledger.problems() == []
        seen.append((elsewhere(ledger), ledger.wallet(wallet_id).debt_micros))

    for refund in (Refunded("a", 25), Refunded("b", 65), Refunded("b", 65, failed=True)):
        # Of its own 20 are free; what comes back leaves 25 taken, and these elsewhere.
        shop.tell(wallet_id, SHORT, refund)
        look()
    ledger.run(ledger.release(wallet_id, first))
    look()
    # The 40 of its own again, the 25 that came back, and 10 that are owed.
    shop.tell(wallet_id, SHORT, Refunded("c", 75))
    look()
    # Of 25 that are not charged 10 pay the debt; the other 15 expire with their lot, and are made up for.
    ledger.run(ledger.commit(wallet_id, second, 15))
    look()
    ledger.clock.forward(DAY)
    ledger.settle(wallet_id)
    look()
    assert seen == [(5, 0), (70, 40), (25, 0), (25, 0), (60, 10), (50, 0), (35, 0)]
    assert ledger.wallet(wallet_id).balance_micros == 15


@pytest.mark.parametrize("forged", [0, 9, 50, -1])
def test_what_was_taken_elsewhere_is_not_believed(ledger: Driven, shop: Shop, forged: int) -> None:
    wallet_id, _ = held_and_refunded(ledger, shop)
    assert ledger.problems() == []
    forge(ledger, forged)
    name = account_text(wallet_id)
    assert ledger.problems() == [f"{name}: credit 2: taken elsewhere: {forged} is stored, 10 is right"]


@pytest.mark.parametrize(
    ("forged", "balance", "left", "found"),
    [
        (0, 990, 10, "after the last row: made up for what expired, by credit: [] is stored, [(2, 10)]"),
        (50, 1_040, -40, "row 6: made up for what expired, by credit: [(2, 50)] is stored, [(2, 10)]"),
    ],
)
def test_what_a_forged_number_has_done_stays_found(
    ledger: Driven, shop: Shop, *, forged: int, balance: int, left: int, found: str
) -> None:
    wallet_id, number = held_and_refunded(ledger, shop)
    forge(ledger, forged)
    ledger.clock.forward(DAY)
    ledger.run(ledger.release(wallet_id, number))
    assert ledger.wallet(wallet_id).balance_micros == balance
    name, done = account_text(wallet_id), f"{found} is right"
    assert ledger.problems() == [
        f"{name}: {done}",
        f"{name}: credit 2: taken elsewhere: 0 is stored, {left} is right",
    ]
    # Whoever writes there what follows from the rows hides what he wrote before, and not what came of it.
    forge(ledger, left)
    assert ledger.problems() == [f"{name}: {done}"]


def test_a_limit_where_none_was_ever_set_is_found(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1)
    ledger.sql("INSERT INTO limits VALUES (:w, '', 1, 5)", w=wallet_id)
    ledger.sql("UPDATE wallets SET limits = 1")
    assert ledger.problems() == [f"{account_text(wallet_id)}: limits: they are not as they were set last"]
