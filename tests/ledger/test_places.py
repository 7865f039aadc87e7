"""Rows of a journal are found by their wallet_seq, on SQLite by lists of where they are kept."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, text

from oanim_server.database.engine import Database, driver_of
from oanim_server.database.migrate import migrate
from oanim_server.database.places import RUN, at_seq
from oanim_server.database.tables import transactions
from oanim_server.ledger import reads
from oanim_server.ledger.ids import account_text, new_account_id
from oanim_server.ledger.journal import Row
from oanim_server.ledger.operations import OpenWallet
from tests.ledger.driving import Driven, batch, open_account

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

LONG = 3 * RUN + 5


def written(ledger: Driven, rows: int, *, group: int = 7) -> int:
    """A wallet with so many rows, some groups of them, and rows of another between them."""
    wallet_id, other = ledger.open_wallet(10**6), ledger.open_wallet(10**6)
    left = rows - 1
    while left:
        size = min(group, left)
        works = [ledger.reserve(wallet, 1) for wallet in (*[wallet_id] * size, *[other] * size)]
        random.Random(left).shuffle(works)
        batch(ledger.ledger, works)
        left -= size
    return wallet_id


def found(ledger: Driven, wallet_id: int, first: int, last: int) -> list[Row]:
    def read(connection: Connection) -> list[Row]:
        statements, driver = ledger.database.statements, driver_of(connection)
        return [Row(*row) for row in statements.fetch_rows(driver, wallet_id, first, last)]

    return ledger.database.read_now(read)


@pytest.mark.parametrize("rows", [1, RUN - 1, RUN, RUN + 1, LONG])
@pytest.mark.parametrize("group", [1, 7, 2 * RUN + 3])
def test_every_row_is_found_by_its_number_and_no_other(ledger: Driven, rows: int, group: int) -> None:
    wallet_id = written(ledger, rows, group=group)
    journal = ledger.journal(wallet_id)
    assert [row.seq for row in journal] == list(range(1, rows + 1))
    assert found(ledger, wallet_id, 1, rows) == journal[::-1]
    assert found(ledger, wallet_id, -2, rows + RUN + 2) == journal[::-1]

    def one_by_one(connection: Connection) -> list[Any]:
        driver, fetch_row = driver_of(connection), ledger.database.statements.fetch_row
        joined = select(transactions.c.link).where(at_seq(wallet_id, rows))
        assert [bytes(link) for link in connection.execute(joined).scalars()] == [journal[-1].link]
        return [fetch_row(driver, wallet_id, seq) for seq in range(-1, rows + RUN)]

    nothing = [None] * (RUN - 1)
    read = ledger.database.read_now(one_by_one)
    assert read[:2] + read[2 + rows :] == [None, None, *nothing]
    assert [Row(*row) for row in read[2 : 2 + rows]] == journal
    assert ledger.problems() == []


def test_a_wallet_that_is_opened_and_used_in_one_group_files_whole_runs(ledger: Driven) -> None:
    wallet_id = new_account_id()
    opened = OpenWallet(wallet_id=wallet_id, caller=0, idempotency_key="k", grant_micros=10**6)
    works = [opened, *(ledger.reserve(wallet_id, 1) for _ in range(LONG - 1))]
    batch(ledger.ledger, [lambda connection, _now: open_account(connection, wallet_id), *works])
    assert found(ledger, wallet_id, 1, LONG) == ledger.journal(wallet_id)[::-1]
    assert ledger.problems() == []


def test_a_statement_of_many_pages_has_every_row_once(
    ledger: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "AT_ONCE", 10)
    wallet_id = written(ledger, LONG)
    seqs, before = [], None
    while page := ledger.statement(wallet_id, before=before, limit=23).rows:
        seqs += [row.seq for row in page]
        before = page[-1].seq
    assert seqs == list(range(LONG, 0, -1))


def test_rows_stay_where_they_are_when_sqlite_writes_its_file_anew(sqlite_path: Path) -> None:
    database = Database.open_sqlite(sqlite_path)
    ledger = Driven(database).start()
    wallet_id = written(ledger, LONG)
    ledger.sql("DELETE FROM refusals")
    ledger.close()
    with closing(sqlite3.connect(sqlite_path)) as connection:
        connection.execute("VACUUM")
    again = Driven(Database.open_sqlite(sqlite_path)).start()
    again.run(again.reserve(wallet_id, 5, "another"))
    assert again.problems() == []
    again.close()


def test_sqlite_is_not_believed_when_it_keeps_a_row_elsewhere(sqlite_path: Path) -> None:
    """Lists say where rows will be: the group is not written when they would be wrong."""
    database = Database.open_sqlite(sqlite_path)
    ledger = Driven(database).start()
    wallet_id = ledger.open_wallet(10)
    [row] = ledger.journal(wallet_id)
    places = database.statements.places(7, [row._replace(seq=2, idem_key="other")], {wallet_id: 1})
    with pytest.raises(ValueError, match="place 2 where 8"), database.writing() as connection:
        database.statements.insert_transactions(
            driver_of(connection), [row._replace(seq=2, idem_key="other")], places
        )
    assert found(ledger, wallet_id, 1, 2) == [row]
    ledger.close()


TAMPERED = {
    "two places swapped": (
        "UPDATE wallets SET places = replace(places, :a || :b, :b || :a)",
        f"row {3 * RUN + 1}: it is not where",
    ),
    "a place removed": (
        "UPDATE wallets SET places = replace(places, :a, '')",
        f"row {3 * RUN + 1}: it is not where",
    ),
    "another's row added": (
        "UPDATE wallets SET places = places || ',1'",
        "its wallet looks for more rows than there are",
    ),
    "places that cannot be read": (
        "UPDATE wallets SET places = places || ',x'",
        "its latest places cannot be read",
    ),
    "a run removed": ("DELETE FROM journal_runs WHERE run = 1", "run 2 of its places: it is not run 1"),
    "a run moved": ("UPDATE journal_runs SET run = 9 WHERE run = 1", "run 2 of its places: it is not run 1"),
    "a run that is short": (
        "UPDATE journal_runs SET places = '[1]' WHERE run = 1",
        f"run 1 of its places: it is not run 1 of {RUN}",
    ),
    "a run that cannot be read": (
        "UPDATE journal_runs SET places = '{}' WHERE run = 1",
        "run 1 of its places cannot be read",
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_list_of_places_that_is_wrong_is_found(sqlite_path: Path, name: str) -> None:
    ledger = Driven(Database.open_sqlite(sqlite_path)).start()
    # So that all places have three digits.
    written(ledger, 100)
    wallet_id = written(ledger, LONG)
    where = "AND" if "WHERE" in TAMPERED[name][0] else "WHERE"
    places = [
        f",{place}"
        for [place] in ledger.rows(
            "SELECT place FROM transactions WHERE wallet_id = :wallet_id AND seq > :filed ORDER BY seq",
            wallet_id=wallet_id,
            filed=3 * RUN,
        )
    ]
    assert len({len(place) for place in places}) == 1
    assert ledger.problems() == []
    ledger.sql(
        f"{TAMPERED[name][0]} {where} wallet_id = :wallet_id", wallet_id=wallet_id, a=places[0], b=places[1]
    )
    problems = ledger.problems()
    ledger.close()
    assert any(problem.startswith(f"{account_text(wallet_id)}: {TAMPERED[name][1]}") for problem in problems)


def test_a_run_that_is_not_filed_is_found_though_every_place_is_there(sqlite_path: Path) -> None:
    """Rows of it would not be: they are looked for among the runs."""
    ledger = Driven(Database.open_sqlite(sqlite_path)).start()
    wallet_id = written(ledger, LONG)
    assert LONG // RUN == 3
    ledger.sql(
        "UPDATE wallets SET places = (SELECT ',' || trim(r.places, '[]') FROM journal_runs AS r"
        " WHERE r.wallet_id = wallets.wallet_id AND r.run = 2) || places WHERE wallet_id = :w",
        w=wallet_id,
    )
    ledger.sql("DELETE FROM journal_runs WHERE wallet_id = :w AND run = 2", w=wallet_id)
    assert len(found(ledger, wallet_id, 1, LONG)) < LONG
    name = account_text(wallet_id)
    assert ledger.problems() == [f"{name}: its latest places: there are {RUN + 5}, and {RUN} are a run"]
    ledger.close()


def test_many_rows_removed_are_found_and_nothing_else_is_said(sqlite_path: Path) -> None:
    ledger = Driven(Database.open_sqlite(sqlite_path)).start()
    wallet_id = written(ledger, LONG)
    ledger.sql("DELETE FROM transactions WHERE wallet_id = :w AND seq > 20", w=wallet_id)
    problems = ledger.problems()
    ledger.close()
    assert all(problem.startswith(f"{account_text(wallet_id)}: ") for problem in problems)
    assert any("its wallet looks for more rows than there are" in problem for problem in problems)


def test_the_migration_keeps_rows_where_they_are_and_lists_them(tmp_path: Path) -> None:
    database = Database.open_sqlite(tmp_path / "old.db")
    migrate(database, "0006")
    lengths = dict(enumerate((0, 1, RUN, RUN + 1, LONG), 1))
    rows = [(wallet_id, seq) for wallet_id, length in lengths.items() for seq in range(1, length + 1)]
    random.Random(7).shuffle(rows)
    with database.writing() as connection:
        for wallet_id, length in lengths.items():
            connection.execute(
                text("INSERT INTO accounts VALUES (:w, 1, :w, '', 1, :w, '', 0)"), {"w": wallet_id}
            )
            connection.execute(
                text("INSERT INTO wallets VALUES (:w, 0, 0, 0, :seq, 1, x'', 0, NULL, 0, 0, '[]')"),
                {"w": wallet_id, "seq": length},
            )
        for wallet_id, seq in rows:
            connection.execute(
                text(
                    "INSERT INTO transactions VALUES (:w, :seq, 1, 2, 3, 4, :key, x'01', 5, 6, 7, 8, 9, 10,"
                    " NULL, 11, 12, 13, 14, 15, 16, 0, '[]', '[[1,2]]', NULL, x'02')"
                ),
                {"w": wallet_id, "seq": seq, "key": f"{wallet_id}-{seq}"},
            )
    with database.writing() as connection:
        before = connection.execute(text("SELECT *, rowid FROM transactions ORDER BY rowid")).all()
    migrate(database)
    ledger = Driven(database)
    assert ledger.rows("SELECT * FROM transactions ORDER BY place") == [tuple(row) for row in before]
    for wallet_id, length in lengths.items():
        assert [(row.wallet_id, row.seq, row.idem_key) for row in found(ledger, wallet_id, 1, LONG)] == [
            (wallet_id, seq, f"{wallet_id}-{seq}") for seq in range(length, 0, -1)
        ]
    assert ledger.count("journal_runs") == sum(length // RUN for length in lengths.values())
    assert "former_transactions" not in ledger.rows("SELECT group_concat(name) FROM sqlite_master")[0][0]
    database.close()
