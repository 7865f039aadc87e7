from __future__ import annotations

import hashlib
import json
import sqlite3
import tracemalloc
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from oanim_server.ledger import audit_rows, journal
from oanim_server.ledger.audit import AnchorError, audit
from oanim_server.ledger.ids import account_text
from oanim_server.ledger.values import DAY, SECOND, Line, Scope
from tests.ledger.driving import START, batch, of_lots, of_pinned, unchecked

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ledger.driving import Driven

LINE = Line(1, "model", "image", "fal", "image", 10, 1, 5)
SCOPES = (Scope("run", 1_000), Scope("day", None))


def history(ledger: Driven) -> int:
    """A wallet to which everything has happened: eleven rows, and one hold that is still active."""
    wallet_id = ledger.open_wallet(1_000)  # 1
    ledger.credit(wallet_id, 500, lifetime=2 * SECOND)  # 2
    captured = ledger.hold(wallet_id, 50, line=LINE, spend_scopes=SCOPES)  # 3
    ledger.run(ledger.commit(wallet_id, captured, quantity=2, keep_rest=True))  # 4
    released = ledger.hold(wallet_id, 70, spend_scopes=SCOPES)  # 5
    ledger.run(ledger.extend(wallet_id, released, amount_micros=5))  # 6
    ledger.run(ledger.release(wallet_id, released))  # 7
    late = ledger.hold(wallet_id, 60, ttl=SECOND)  # 8, expired by 9; the lot lapses by 10
    ledger.clock.forward(3 * SECOND)
    ledger.run(ledger.commit(wallet_id, late, 40))  # 11
    return wallet_id


def test_an_honest_ledger_has_no_problems_and_the_report_says_what_was_looked_at(ledger: Driven) -> None:
    wallet_id = history(ledger)
    other = ledger.open_wallet(7)
    report = audit(ledger.database)
    assert report.problems == []
    assert (report.wallets, report.transactions, report.lots, report.reservations) == (2, 12, 3, 3)
    assert report.entries == 2 * 6
    first, second = ledger.wallet(wallet_id), ledger.wallet(other)
    assert report.balance_micros == first.balance_micros + second.balance_micros
    assert report.held_micros == first.held_micros
    assert report.heads == {
        account_text(w): (seq, link.hex())
        for w, seq, link in ledger.rows("SELECT wallet_id, seq, link FROM wallets")
    }


A_FINGERPRINT = (
    "SELECT t.fingerprint FROM transactions AS t WHERE t.seq = 4 AND t.wallet_id = wallets.wallet_id"
)

# What is changed, and what the audit says: where, for a row; what, for what was stored besides.
TAMPERED = {
    "an entry's account": (
        "UPDATE transactions SET entries = '[[1,-20],[4,20]]' WHERE seq = 4",
        "row 4: the chain",
    ),
    "an entry's amount": (
        "UPDATE transactions SET entries = '[[1,-20],[3,21]]' WHERE seq = 4",
        "row 4: sum of its entries",
    ),
    "both entries' amounts": (
        "UPDATE transactions SET entries = '[[1,-21],[3,21]]' WHERE seq = 4",
        "row 4: balance",
    ),
    "what a row charged": ("UPDATE transactions SET charged_micros = 19 WHERE seq = 4", "row 4: the chain"),
    "the balance after a row": (
        "UPDATE transactions SET balance_micros = balance_micros + 1 WHERE seq = 4",
        "row 4: balance",
    ),
    "what is held after a row": (
        "UPDATE transactions SET held_micros = held_micros + 1 WHERE seq = 5",
        "row 5: held",
    ),
    "the lots that a row moved": (
        "UPDATE transactions SET lots = '[[2,-20,-19]]' WHERE seq = 4",
        "row 4: held",
    ),
    "the time of a row": ("UPDATE transactions SET at = at - 1 WHERE seq = 4", "row 4: it is earlier"),
    "the key of a row": ("UPDATE transactions SET idem_key = 'another' WHERE seq = 4", "row 4: the chain"),
    "the fingerprint of a row": (
        "UPDATE transactions SET fingerprint = link WHERE seq = 4",
        "row 4: the chain",
    ),
    "the link of a row": (
        "UPDATE transactions SET link = fingerprint WHERE seq = 4",
        "row 4: the chain",
    ),
    "a row in the middle removed": ("DELETE FROM transactions WHERE seq = 6", "row 7: number"),
    "the last row removed": ("DELETE FROM transactions WHERE seq = 11", "rows in the journal"),
    "two rows swapped": (
        "UPDATE transactions SET seq = CASE seq WHEN 5 THEN -6 ELSE -5 END WHERE seq IN (5, 6)",
        "row 5: ",
    ),
    "a wallet's balance": ("UPDATE wallets SET balance_micros = balance_micros + 1 WHERE 1 = 1", "balance: "),
    "what a wallet holds": (
        "UPDATE wallets SET held_micros = held_micros + 1 WHERE 1 = 1",
        "held by its lots",
    ),
    "a wallet's debt": ("UPDATE wallets SET debt_micros = 1 WHERE 1 = 1", "debt: "),
    "a wallet's number of rows": ("UPDATE wallets SET seq = seq + 1 WHERE 1 = 1", "rows in the journal"),
    "a wallet's head": (
        f"UPDATE wallets SET link = ({A_FINGERPRINT}) WHERE 1 = 1",
        "the head of the chain",
    ),
    "what remains in a lot": (of_lots(",1000,960,0,", ",1000,959,0,"), "lot 1: remaining"),
    "what is held of a lot": (of_lots(",1000,960,0,", ",1000,960,1,"), "lot 1: held"),
    "open lots removed": ("UPDATE wallets SET open_lots = '[]' WHERE 1 = 1", "lot 1: the journal knows it"),
    "a reservation's state": (
        "UPDATE reservations SET state = 2 WHERE number = 5",
        "reservation 5: state",
    ),
    "what was captured": (
        "UPDATE reservations SET captured_micros = 39 WHERE number = 8",
        "reservation 8: captured",
    ),
    "what was reserved": (
        "UPDATE reservations SET reserved_micros = reserved_micros + 1 WHERE number = 3",
        "reservation 3: reserved",
    ),
    "what a reservation keeps": (
        "UPDATE reservations SET parts = '[[1,30]]' WHERE number = 3",
        "lot 1: kept",
    ),
    "a reservation removed": ("DELETE FROM reservations WHERE number = 5", "reservation 5: "),
    "what a scope was charged": (
        "UPDATE spend_counters SET charged_micros = 0 WHERE subject = 'run'",
        "scope 'run': charged",
    ),
    "what a scope holds": (
        "UPDATE spend_counters SET held_micros = 0 WHERE subject = 'run'",
        "scope 'run': held",
    ),
    "a scope removed": ("DELETE FROM spend_counters WHERE subject = 'day'", "scope 'day': "),
    "what was used": (
        "UPDATE usage_days SET charged_micros = charged_micros - 1 WHERE model = ''",
        "usage: ",
    ),
}


def test_whatever_is_tampered_with_is_found_and_named(ledger: Driven) -> None:
    wallets = {name: history(ledger) for name in TAMPERED}
    honest = history(ledger)
    for name, (statement, _) in TAMPERED.items():
        ledger.sql(f"{statement} AND wallet_id = :wallet_id", wallet_id=wallets[name])
    ledger.sql("UPDATE transactions SET seq = -seq WHERE seq < 0")
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


KNOWN_TO_THE_JOURNAL = {
    "how many captures were made": "UPDATE reservations SET captures = 2 WHERE number = 3",
    "the quantity that was captured": "UPDATE reservations SET captured_quantity = 1 WHERE number = 3",
    "until when it is held": "UPDATE reservations SET expires_at = expires_at + 1 WHERE number = 3",
    "what was not collected": "UPDATE reservations SET uncollected_micros = 1 WHERE number = 8",
    "what a lot came in with": of_lots(",1000,960,0,", ",1001,960,0,"),
    "when a lot is drawn": of_lots(",960,0,0,", ",960,0,1,"),
    "until when a lot lasts": of_lots(",960,0,0,null,", ",960,0,0,10,"),
    "when a lot came in": of_lots(",960,0,0,null,", ",960,0,0,null,1"),
    "whose hold it is": "UPDATE reservations SET opener = 0 WHERE number = 3",
    "which key opened it": "UPDATE reservations SET api_key_id = 'other' WHERE number = 3",
    "at which price": of_pinned(",10,1,5]", ",9,1,5]"),
    "for which model": of_pinned('"model"', '"other"'),
    "under which limits": of_pinned('["run",1000]', '["run",9]'),
    "for which project": of_pinned("],[]]", '],[["project","x"]]]'),
    "how what is pinned is written": of_pinned(",[", ", ["),
    "when it was opened": "UPDATE reservations SET created_at = created_at - 1 WHERE number = 3",
    "when it ended": "UPDATE reservations SET ended_at = ended_at + 1 WHERE number = 8",
    "the time of the last row": "UPDATE wallets SET at = at - 1 WHERE 1 = 1",
    "when something is due": "UPDATE wallets SET next_due_at = NULL WHERE 1 = 1",
}


def test_what_the_journal_knows_or_seals_of_reservations_and_lots_cannot_be_changed_unseen(
    ledger: Driven,
) -> None:
    wallets = {name: history(ledger) for name in KNOWN_TO_THE_JOURNAL}
    for name, statement in KNOWN_TO_THE_JOURNAL.items():
        ledger.sql(f"{statement} AND wallet_id = :wallet_id", wallet_id=wallets[name])
    problems = ledger.problems()
    unseen = [
        name
        for name, wallet_id in wallets.items()
        if not any(problem.startswith(account_text(wallet_id)) for problem in problems)
    ]
    assert unseen == []


@pytest.mark.parametrize(
    "change",
    [
        "entries = 'nonsense'",
        "entries = '[[1,-20,3]]'",
        "entries = '{}'",
        'entries = \'[["1","-20"]]\'',
        "lots = 'nonsense'",
        "lots = '[[1]]'",
        "state = 99",
        "idem_key = NULL, fingerprint = NULL",
    ],
)
def test_a_row_that_cannot_be_read_is_a_problem_like_any_other(ledger: Driven, change: str) -> None:
    wallet_id = history(ledger)
    # The fourth row is the latest of the reservation that is still active.
    ledger.sql(f"UPDATE transactions SET {change} WHERE seq = 4")
    assert any(problem.startswith(f"{account_text(wallet_id)}: row 4: ") for problem in ledger.problems()), (
        ledger.problems()
    )


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("UPDATE reservations SET parts = '[[1]]' WHERE number = 3", "reservation 3 cannot be read"),
        ("UPDATE reservations SET parts = '7' WHERE number = 3", "reservation 3 cannot be read"),
        ('UPDATE reservations SET parts = \'[["a","b"]]\' WHERE number = 3', "reservation 3 cannot be read"),
        ("UPDATE reservations SET pinned = 'x' WHERE number = 3", "reservation 3 cannot be read"),
        ("UPDATE reservations SET pinned = '[null,[]]' WHERE number = 3", "reservation 3 cannot be read"),
        (of_pinned(",10,1,5]", ",10,1]"), "reservation 3 cannot be read"),
        (of_pinned('["run",1000]', "[]"), "reservation 3 cannot be read"),
        (of_pinned("],[]]", "],[1]]"), "reservation 3 cannot be read"),
        ("UPDATE reservations SET created_at = 4611686018427387904 WHERE number = 3", "reservation 3"),
        (of_lots("[1,1,", "[1,9,"), "lot 1 cannot be read"),
        (of_lots(",960,", ",null,"), "its open lots cannot be read"),
        (of_lots(",960,", ",true,"), "its open lots cannot be read"),
        (of_lots(",0],[2", "],[2"), "its open lots cannot be read"),
        ("UPDATE wallets SET open_lots = 'nonsense' WHERE 1 = 1", "its open lots cannot be read"),
        ("UPDATE wallets SET open_lots = '{}' WHERE 1 = 1", "its open lots cannot be read"),
        ("UPDATE wallets SET open_lots = '[7]' WHERE 1 = 1", "its open lots cannot be read"),
        ("UPDATE wallets SET open_lots = '' WHERE 1 = 1", "its open lots cannot be read"),
    ],
)
def test_a_lot_or_a_reservation_that_cannot_be_read_is_a_problem_and_the_audit_goes_on(
    ledger: Driven, change: str, found: str
) -> None:
    wallets = sorted(history(ledger) for _ in range(3))
    unchecked(ledger)
    ledger.sql(f"{change} AND wallet_id = :w", w=wallets[1])
    for other in (wallets[0], wallets[2]):
        ledger.sql("UPDATE wallets SET debt_micros = 1 WHERE wallet_id = :w", w=other)
    problems = ledger.problems()
    assert problems[0] == f"{account_text(wallets[0])}: debt: 1 is stored, 0 is right"
    assert problems[-1] == f"{account_text(wallets[2])}: debt: 1 is stored, 0 is right"
    assert any(problem.startswith(f"{account_text(wallets[1])}: {found}") for problem in problems), problems


NO_TEXT = "CAST(x'5bff5d' AS TEXT)"

# Text that is no UTF-8, and what the audit says of it.
WITHOUT_TEXT = {
    f"UPDATE transactions SET idem_key = {NO_TEXT} WHERE seq = 4": "row 4: the chain",
    f"UPDATE transactions SET entries = {NO_TEXT} WHERE seq = 4": "row 4: its entries cannot be read",
    f"UPDATE wallets SET open_lots = {NO_TEXT} WHERE 1 = 1": "its open lots cannot be read",
    f"UPDATE wallets SET places = {NO_TEXT} WHERE 1 = 1": "its latest places",
    f"UPDATE reservations SET parts = {NO_TEXT} WHERE number = 3": "reservation 3 cannot be read",
    f"UPDATE reservations SET pinned = {NO_TEXT} WHERE number = 3": "reservation 3 cannot be read",
    f"UPDATE reservations SET api_key_id = {NO_TEXT} WHERE number = 3": "reservation 3: what never changes",
    f"UPDATE spend_counters SET subject = {NO_TEXT} WHERE subject = 'run'": "scope '[\\\\xff] is no UTF-8",
    f"UPDATE usage_days SET model = {NO_TEXT} WHERE model = ''": "usage: ",
}


def test_text_that_is_none_is_a_problem_like_any_other(sqlite_ledger: Driven) -> None:
    wallets = {statement: history(sqlite_ledger) for statement in WITHOUT_TEXT}
    for statement, wallet_id in wallets.items():
        without_constraints(sqlite_ledger, f"{statement} AND wallet_id = {wallet_id}")
    problems = sqlite_ledger.problems()
    unsaid = [
        what
        for statement, what in WITHOUT_TEXT.items()
        if not any(said.startswith(f"{account_text(wallets[statement])}: {what}") for said in problems)
    ]
    assert unsaid == [], problems
    assert "\\xff" in "\n".join(problems), "what is printed says which bytes they are"


def test_text_that_is_none_is_not_taken_for_the_text_that_it_is_shown_as(sqlite_ledger: Driven) -> None:
    wallet_id = sqlite_ledger.open_wallet(1_000)
    sqlite_ledger.run(sqlite_ledger.reserve(wallet_id, 1, key="\\xff"))
    assert sqlite_ledger.problems() == []
    without_constraints(sqlite_ledger, "UPDATE transactions SET idem_key = CAST(x'ff' AS TEXT) WHERE seq = 2")
    chain = "row 2: the chain is broken: this row or one before it was changed or removed"
    assert sqlite_ledger.problems() == [f"{account_text(wallet_id)}: {chain}"]


def with_a_closed_lot(ledger: Driven) -> int:
    """The same history, and a third lot of which nothing is left."""
    wallet_id = history(ledger)
    ledger.credit(wallet_id, 5, lifetime=SECOND)
    ledger.clock.forward(SECOND)
    ledger.settle(wallet_id)
    return wallet_id


FIRST = [1, 1, 1_000, 960, 0, 0, None, START, 0]
OTHER = [2, 1, 500, 30, 30, 0, START + 2 * SECOND, START, 450]
THIRD = [3, 1, 5, 0, 0, 0, START + 4 * SECOND, START + 3 * SECOND, 5]


def test_a_lot_is_open_in_the_wallets_row_until_nothing_is_left_of_it(ledger: Driven) -> None:
    wallet_id = with_a_closed_lot(ledger)
    assert ledger.problems() == []
    assert ledger.rows("SELECT open_lots FROM wallets") == [(journal.compact([FIRST, OTHER]),)]
    assert ledger.rows("SELECT * FROM lots") == [(wallet_id, *THIRD)]


@pytest.mark.parametrize(
    ("opened", "closed", "found"),
    [
        ([FIRST, OTHER, THIRD], [], ["lot 3: open: True is stored, False is right"]),
        ([FIRST], [OTHER, THIRD], ["lot 2: open: False is stored, True is right"]),
        ([FIRST, OTHER], [FIRST, THIRD], ["lot 1: it is there twice"]),
        ([FIRST, OTHER, FIRST], [THIRD], ["lot 1: it is there twice"]),
        (
            [OTHER],
            [THIRD],
            [
                "lot 1: the journal knows it, and it is neither open nor closed",
                "given credits that expired: 455 is stored, -545 is right",
                "row 1: what never changes of what it made was changed",
            ],
        ),
        (
            [[*FIRST[:-1], -5], [*OTHER[:-1], 455]],
            [THIRD],
            ["lot 1: its amounts are none that a lot can have"],
        ),
    ],
)
def test_a_lot_that_is_not_where_or_not_what_it_should_be_is_found(
    ledger: Driven, opened: list[list[object]], closed: list[list[object]], found: list[str]
) -> None:
    wallet_id = with_a_closed_lot(ledger)
    unchecked(ledger)
    ledger.sql("UPDATE wallets SET open_lots = :opened", opened=journal.compact(opened))
    ledger.sql("DELETE FROM lots")
    for lot in closed:
        values = ", ".join("NULL" if value is None else str(value) for value in (wallet_id, *lot))
        ledger.sql(f"INSERT INTO lots VALUES ({values})")
    assert ledger.problems() == [f"{account_text(wallet_id)}: {problem}" for problem in found]


def test_rows_of_a_wallet_that_is_not_there_are_found(ledger: Driven) -> None:
    wallets = sorted(with_a_closed_lot(ledger) for _ in range(3))
    for wallet_id in (wallets[0], wallets[2]):
        without_constraints(ledger, f"DELETE FROM wallets WHERE wallet_id = {wallet_id}")
    assert ledger.problems() == [
        f"{table}: rows of a wallet that is not there: {wallet_id}"
        for table in ("transactions", "lots", "reservations", "spend_counters", "usage_days")
        for wallet_id in (wallets[0], wallets[2])
    ]


def without_constraints(ledger: Driven, statement: str) -> None:
    """What somebody with the file, or a superuser, can do."""
    if ledger.database.dialect == "postgresql":
        ledger.sql(f"SET LOCAL session_replication_role = replica; {statement}")
        return
    [(_, _, file)] = ledger.rows("PRAGMA database_list")
    with closing(sqlite3.connect(file)) as vandal:
        vandal.execute(statement)
        vandal.commit()


def test_what_a_wallet_once_held_takes_no_memory(ledger: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_rows, "BATCH", 50)
    wallet_id = ledger.open_wallet(10_000)

    def peak_after(holds: int) -> int:
        for _ in range(0, holds, 250):
            made = batch(ledger.ledger, [ledger.reserve(wallet_id, 3) for _ in range(250)])
            batch(
                ledger.ledger, [ledger.commit(wallet_id, held.reservation.number, 1) for held in made[:200]]
            )
        tracemalloc.start()
        assert ledger.problems() == []
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_after(250)
    few = peak_after(250)
    assert peak_after(2_000) < few + 100_000


def rewrite(ledger: Driven, wallet_id: int, **forged: object) -> None:
    """Forge a row, and every link after it."""
    link = journal.GENESIS
    columns = ", ".join(f"{name} = :{name}" for name in (*forged, "link"))
    for row in ledger.journal(wallet_id):
        written = row._replace(**forged) if row.seq == 4 else row  # type: ignore[arg-type]
        link = journal.link_of(link, tuple(written[:-1]))
        values = {name: getattr(written, name) for name in forged} | {"link": link}
        ledger.sql(
            f"UPDATE transactions SET {columns} WHERE wallet_id = :w AND seq = :seq",
            w=wallet_id,
            seq=row.seq,
            **values,
        )
    ledger.sql("UPDATE wallets SET link = :link WHERE wallet_id = :w", link=link, w=wallet_id)


@pytest.mark.parametrize(("charged", "uncollected"), [(19, 0), (20, 1), (0, 0)])
def test_what_a_row_says_it_charged_is_what_it_booked(ledger: Driven, charged: int, uncollected: int) -> None:
    wallet_id = history(ledger)
    rewrite(ledger, wallet_id, charged_micros=charged, uncollected_micros=uncollected)
    problem = f"row 4: charged and uncollected: {charged + uncollected} is stored, 20 is right"
    assert f"{account_text(wallet_id)}: {problem}" in ledger.problems()


def test_a_wallet_that_was_thawed_behind_its_journal_is_found(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(5)
    ledger.freeze(wallet_id)
    assert ledger.problems() == []
    ledger.sql("UPDATE wallets SET frozen = 0")
    assert ledger.problems() == [f"{account_text(wallet_id)}: frozen: False is stored, True is right"]


def test_a_chain_that_was_written_anew_is_found_by_the_anchor(ledger: Driven, tmp_path: Path) -> None:
    anchor = tmp_path / "anchor"
    wallet_id = history(ledger)
    assert audit(ledger.database, anchor).problems == []
    kept = anchor.read_bytes()
    rewrite(ledger, wallet_id, idem_key="forged")
    ledger.run(ledger.reserve(wallet_id, 1))
    assert audit(ledger.database).problems == []
    name = account_text(wallet_id)
    assert audit(ledger.database, anchor).problems == [
        f"{name}: row 11: its link is not the one in the anchor: the journal was written anew"
    ]
    assert anchor.read_bytes() == kept, "an anchor is renewed only when all is well"


def test_a_tail_that_was_cut_off_is_found_by_the_anchor(ledger: Driven, tmp_path: Path) -> None:
    anchor = tmp_path / "anchor"
    wallet_id = ledger.open_wallet(1_000)
    # On SQLite also where the rows of the journal are.
    columns = ["seq", "at", "link", "held_micros", "open_lots"]
    columns += ["places"] if ledger.database.dialect == "sqlite" else []
    before = ledger.rows(f"SELECT {', '.join(columns)} FROM wallets")[0]
    number = ledger.hold(wallet_id, 10)
    assert audit(ledger.database, anchor).problems == []
    ledger.sql("DELETE FROM transactions WHERE seq = :number", number=number)
    ledger.sql("DELETE FROM reservations")
    ledger.sql(
        f"UPDATE wallets SET {', '.join(f'{name} = :{name}' for name in columns)}, next_due_at = NULL",
        **dict(zip(columns, before, strict=True)),
    )
    assert audit(ledger.database).problems == []
    assert audit(ledger.database, anchor).problems == [
        f"{account_text(wallet_id)}: the anchor knows 2 rows, the journal 1"
    ]


def test_a_wallet_that_is_gone_is_found_by_the_anchor(ledger: Driven, tmp_path: Path) -> None:
    anchor = tmp_path / "anchor"
    wallet_id, kept = ledger.open_wallet(1_000), ledger.open_wallet(9)
    assert audit(ledger.database, anchor).problems == []
    for table in ("transactions", "wallets"):
        ledger.sql(f"DELETE FROM {table} WHERE wallet_id = :w", w=wallet_id)
    assert audit(ledger.database).problems == []
    assert audit(ledger.database, anchor).problems == [
        f"{account_text(wallet_id)}: it was in the anchor and is gone"
    ]
    assert kept


def test_the_anchor_follows_an_honest_ledger(ledger: Driven, tmp_path: Path) -> None:
    anchor = tmp_path / "anchor"
    for _ in range(3):
        wallet_id = history(ledger)
        ledger.run(ledger.reserve(wallet_id, 1))
        ledger.clock.forward(DAY)
        report = audit(ledger.database, anchor)
        assert report.problems == []
        assert json.loads(anchor.read_text()) == {
            name: [seq, link] for name, (seq, link) in report.heads.items()
        }
    assert [path.name for path in tmp_path.glob("anchor*")] == ["anchor"]


def test_an_audit_says_whether_there_was_an_anchor_to_compare_with(ledger: Driven, tmp_path: Path) -> None:
    anchor = tmp_path / "anchor"
    history(ledger)
    first, second = (audit(ledger.database, anchor) for _ in range(2))
    assert (first.anchor_was_there, first.anchored, first.problems) == (False, 0, [])
    assert (second.anchor_was_there, second.anchored, second.problems) == (True, 1, [])


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"a": 1}', '{"a": ["x", "00"]}', '{"a": [1, "x"]}'])
def test_a_file_without_heads_is_no_anchor_and_is_left_as_it_is(
    ledger: Driven, tmp_path: Path, content: str
) -> None:
    anchor = tmp_path / "anchor"
    anchor.write_text(content)
    with pytest.raises(AnchorError) as raised:
        audit(ledger.database, anchor)
    assert str(raised.value).startswith(f"{anchor} has no heads")
    assert anchor.read_text() == content


KEYS = ("plain", "kéy €", "\U0001f600", 'a "quoted" \\ one', "\t\n\r\x1f\x7f\u2028/<&>")


def test_another_implementation_of_the_documented_encoding_gets_the_same_links(ledger: Driven) -> None:
    wallet_id = history(ledger)
    for key in KEYS:
        ledger.run(ledger.reserve(wallet_id, 1, key=key))
    link = bytes(32)
    for row in ledger.journal(wallet_id):
        fields = [value.hex() if isinstance(value, bytes) else value for value in row[:-1]]
        text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False)
        link = hashlib.sha256(link + text.encode()).digest()
        assert link == row.link
