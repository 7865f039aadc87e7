"""The hot statements find their rows by an index, however large the tables are."""

from __future__ import annotations

import re
import sqlite3
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import LargeBinary, Text, event, text

from oanim_server.database.columns import Asked
from oanim_server.database.engine import Database, driver_of
from oanim_server.database.tables import metadata
from oanim_server.database.tables.schema import is_sqlites
from oanim_server.generation import rows as generations
from oanim_server.ledger.values import State
from oanim_server.rendering import rows as renders
from tests import migrated
from tests.ledger.driving import START

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

    from oanim_server.database.engine import Statements
    from tests.postgresql import Cluster

ROWS = 100_000
HOT = 1

# What is not an empty word, a zero or a null in row n; every tenth row is the hot wallet's.
WALLET = f"CASE WHEN n % 10 = 0 THEN {HOT} ELSE n END"
FILLED = {
    "accounts": {"account_id": "n", "role": "1", "sign_up_key": "'k' || n"},
    "wallets": {
        "wallet_id": "n",
        "seq": "1",
        "next_due_at": "CASE WHEN n % 2 = 0 THEN n END",
        "open_lots": "'[]'",
    },
    "lots": {"wallet_id": WALLET, "lot": "n", "amount_micros": "5"},
    "reservations": {
        "wallet_id": WALLET,
        "number": "n",
        "state": "CASE WHEN n % 3 = 0 THEN 1 ELSE 2 END",
        "ended_at": "CASE WHEN n % 3 = 0 THEN NULL ELSE 1 END",
        "expires_at": "n",
        "reserved_micros": "1",
        "last_seq": "n",
        "pinned": "'[null,[],[]]'",
    },
    "transactions": {
        "wallet_id": WALLET,
        "seq": "n",
        "idem_key": "'key-' || n",
        "caller": "1",
        "method": "2",
        "kind": "CASE WHEN n % 20 = 0 THEN 4 ELSE 2 END",
        "state": "CASE WHEN n % 40 = 0 THEN 1 ELSE 2 END",
        "reservation": "n",
    },
    "refusals": {"wallet_id": WALLET, "idem_key": "'key-' || n", "caller": "1", "method": "2", "at": "n"},
    "spend_counters": {"wallet_id": WALLET, "subject": "'scope-' || n"},
}
NUMBERS = {
    "sqlite": "WITH RECURSIVE c(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM c WHERE n < {rows})"
    " SELECT {values} FROM c",
    "postgresql": "SELECT {values} FROM generate_series(1, {rows}) AS c(n)",
}


def filling(dialect: str, name: str) -> str:
    """The statement that fills a table."""
    blob = {"sqlite": "zeroblob(32)", "postgresql": "decode('00', 'hex')"}[dialect]
    columns = {}
    for column in metadata.tables[name].columns:
        if dialect == "postgresql" and is_sqlites(column):
            continue
        if column.name in FILLED[name]:
            columns[column.name] = FILLED[name][column.name]
        elif not column.nullable:
            kind = column.type
            columns[column.name] = (
                blob if isinstance(kind, LargeBinary) else "''" if isinstance(kind, Text) else "0"
            )
    numbered = NUMBERS[dialect].format(values=", ".join(columns.values()), rows=ROWS)
    return f"INSERT INTO {name} ({', '.join(columns)}) {numbered}"


@pytest.fixture
def large(open_database: Callable[[], Database]) -> Iterator[Database]:
    """A database with 100,000 rows in each table of the ledger: a tenth of them one hot wallet's."""
    database = open_database()
    with database.writing() as connection:
        for name in FILLED:
            driver_of(connection).execute(filling(database.dialect, name))
    with database.writing() as connection:
        connection.execute(text("ANALYZE"))
    yield database
    database.close()


def explained(driver: Any, statement: str, values: Any, *, kept: bool = True) -> str:
    """The plan of a statement: of a writer's on PostgreSQL the one that is kept, whatever the values."""
    if isinstance(driver, sqlite3.Connection):
        found = driver.execute(f"EXPLAIN QUERY PLAN {statement}", values)
    elif kept:
        found = driver.execute(f"EXPLAIN (GENERIC_PLAN) {_numbered(statement)}")
    else:
        found = driver.execute(f"EXPLAIN {statement}", values)
    return "\n".join(str(row[-1]) for row in found.fetchall())


def _numbered(statement: str) -> str:
    """A statement with its parameters as PostgreSQL writes them, each name with a number of its own."""
    names: dict[str, str] = {}

    def number(found: re.Match[str]) -> str:
        return names.setdefault(found[1] or str(found.start()), f"${len(names) + 1}")

    return re.sub(r"%(?:\((\w+)\))?s", number, statement).replace("%%", "%")


class Explaining:
    """A writer's driver that notes the plan of each statement before it runs it."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self.plans: list[str] = []

    def execute(self, statement: str, values: Any = (), **options: Any) -> Any:
        self.plans.append(explained(self._driver, statement, values))
        return self._driver.execute(statement, values, **options)

    def pipeline(self) -> AbstractContextManager[None]:
        return nullcontext()

    def executemany(self, statement: str, rows: Any) -> Any:
        self.plans.append(explained(self._driver, statement, rows[0]))
        return self._driver.executemany(statement, rows)


def asked(statements: Statements, many: int) -> dict[str, Callable[[Any], object]]:
    """Every hot statement that looks for rows, asked about so many of them."""
    numbers = [10 * n + 3 for n in range(many)]
    keys = [(f"key-{n}", n, 1, 2) for n in numbers]
    link = bytes(32)
    # A wallet adds one row to its first.
    places = statements.places(0, [(n,) for n in numbers], dict.fromkeys(numbers, 1))

    return {
        "lock_and_load": lambda d: statements.lock_and_load(
            d, Asked(numbers, keys, keys, [(n, n) for n in numbers], keys)
        ),
        "load_reservations": lambda d: statements.load_reservations(d, [(n, n) for n in numbers]),
        "due_reservations": lambda d: statements.due_reservations(d, HOT, 100, 1_001),
        "next_expiry": lambda d: statements.next_expiry(d, HOT, 100),
        "load_counters": lambda d: statements.load_counters(d, [(n, f"scope-{n}", "") for n in numbers]),
        "fetch_row": lambda d: statements.fetch_row(d, HOT, 100),
        "fetch_capture": lambda d: statements.fetch_capture(d, HOT, 100, 2),
        "fetch_rows": lambda d: statements.fetch_rows(d, HOT, 100, 200),
        "update_wallets": lambda d: statements.update_wallets(
            d, [(1, 0, 0, 2, 1, link, "[]", n, 1) for n in numbers], places
        ),
        "rewrite_wallets": lambda d: statements.rewrite_wallets(
            d, [(1, 0, 0, 2, 1, link, 0, None, 1, 0, "[]", n, 1) for n in numbers], places
        ),
        "update_reservations": lambda d: statements.update_reservations(
            d, [(int(State.ACTIVE), 1, 0, 0, 0, 0, "[]", START, None, n, 0, n, n, n) for n in numbers]
        ),
    }


COLD = {
    "the sweeper's look": "SELECT next_due_at, wallet_id FROM wallets WHERE next_due_at IS NOT NULL"
    " AND next_due_at <= 900 AND next_due_at >= 300 AND (next_due_at > 300 OR wallet_id > 7)"
    " ORDER BY next_due_at, wallet_id LIMIT 100",
    "old refusals": "SELECT at FROM refusals WHERE at <= 9 ORDER BY at LIMIT 100",
    "a page of holds": "SELECT * FROM reservations WHERE wallet_id = 1 ORDER BY number DESC LIMIT 50",
    "a wallet": "SELECT * FROM wallets WHERE wallet_id = 1",
    "a closed lot": "SELECT * FROM lots WHERE wallet_id = 1 AND lot = 900",
    "all closed lots of a wallet": "SELECT * FROM lots WHERE wallet_id = 1",
}

# By its name or by the letter that a hot statement calls it.
WHOLE = re.compile(rf"Seq Scan on|SCAN ({'|'.join(FILLED)}|[clrtw])\b(?! VIRTUAL TABLE| USING)")


def plan_of(connection: Connection, ask: Callable[[Any], object]) -> str:
    explaining = Explaining(driver_of(connection))
    ask(explaining)
    assert explaining.plans
    return "\n".join(explaining.plans)


def test_no_hot_statement_and_no_page_reads_a_whole_table(large: Database) -> None:
    with large.writing() as connection:
        plans = {
            (name, many): plan_of(connection, ask)
            for many in (1, 30)
            for name, ask in asked(large.statements, many).items()
        }
        plans |= {
            (name, 1): plan_of(connection, lambda driver, query=query: driver.execute(query))  # type: ignore[misc]
            for name, query in COLD.items()
        }
    assert {name: plan for name, plan in plans.items() if WHOLE.search(plan)} == {}
    # A page of jobs looks for the latest rows of their holds.
    pages = large.read_now(_plans_of_pages)
    assert len(pages) == 2
    whole = re.compile(r"(Seq Scan on|SCAN) (transactions|reservations)\b(?! USING)")
    assert [plan for plan in pages if whole.search(plan)] == []


def _plans_of_pages(connection: Connection) -> list[str]:
    """The plans of a page of generations and of one of renders, as readers make them."""
    found: list[str] = []

    def note(_connection: object, cursor: Any, statement: str, values: Any, *_: object) -> None:
        found.append(explained(cursor.connection, statement, values, kept=False))

    event.listen(connection, "before_cursor_execute", note)
    generations.page(connection, HOT, None, 100)
    renders.page(connection, HOT, None, 100)
    return found


def test_on_a_young_postgresql_hot_statements_look_by_keys_too(postgresql_cluster: Cluster) -> None:
    """Their plans are made while tables are small and unknown, and are kept when they have grown."""
    database = Database.open_postgresql(migrated.postgresql(postgresql_cluster), unsafe=True)
    with database.writing() as connection:
        plans = {
            (name, many): plan_of(connection, ask)
            for many in (1, 30)
            for name, ask in asked(database.statements, many).items()
        }
    database.close()
    assert {name: plan for name, plan in plans.items() if WHOLE.search(plan)} == {}
    loads = plans["lock_and_load", 30]
    assert loads.count("uq_transactions_idem_key") == 2
    assert loads.count("pk_reservations") == 2
    assert all("Seq Scan" not in plan for plan in plans.values())


def test_a_writer_of_postgresql_plans_no_statement_twice(postgresql_cluster: Cluster) -> None:
    database = Database.open_postgresql(migrated.postgresql(postgresql_cluster), unsafe=True)
    statements = database.statements
    with database.writing() as connection:
        driver = driver_of(connection)
        # psycopg prepares what was sent five times; left to itself, PostgreSQL then plans five times anew.
        for n in range(20):
            statements.lock_and_load(driver, Asked([n], [(f"key-{n}", n, 1, 2)], [], [(n, n)], []))
        again = "SELECT name FROM pg_prepared_statements WHERE custom_plans > 0"
        kept = "SELECT max(generic_plans) FROM pg_prepared_statements"
        assert driver.execute(again).fetchall() == []
        assert driver.execute(kept).fetchone()[0] >= 10
    database.close()
