"""What a group and a read do does not depend on how long the history is: counted, not timed.

On SQLite steps of its virtual machine are counted, on PostgreSQL rows that were looked at; and every
statement of a read is asked for its plan on a database of 100,000 journal rows.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, event, text

from benchmarks.filling import LINES, Filler
from oanim.keys import new_key
from oanim_server.accounts.values import Role
from oanim_server.database.engine import driver_of
from oanim_server.ledger.group import Group
from oanim_server.ledger.reads import Grouping, Reads
from oanim_server.ledger.usage import Use
from tests.ledger.counting import statements_of_new_connections

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from oanim_server.database.engine import Database

    Read = Callable[[Connection], object]

FEW, MANY, PAGE = 1_000, 25_000, 20
WALLETS, ITEMS = 1_000, 3_000
TABLES = "accounts|wallets|lots|reservations|transactions|refusals|usage_days|usage_items|notes|limits"
WHOLE = re.compile(rf"Seq Scan on ({TABLES})|SCAN ({TABLES})\b(?! USING)")


class Ledger:
    """100,000 journal rows: a wallet that has done little, one that has half of them, and many others."""

    def __init__(self, database: Database, sent: list[str]) -> None:
        self.database = database
        self._sent = sent
        self.filler = Filler(database)
        self.little, self.much, *others = (
            account.wallet_id for account in self.filler.open(Role.USER, WALLETS)
        )
        self.filler.fill_days(self.little, FEW)
        self.filler.fill_days(self.much, MANY)
        self.filler.fill(others, MANY)
        for _ in range(ITEMS // 1_000):
            self.filler.commit([used(wallet_id) for wallet_id in others[:500] for _ in range(2)])
        with database.writing() as connection:
            connection.execute(text("ANALYZE"))

    def group(self, wallet_id: int) -> int:
        """The work of a group that holds and charges on a wallet."""
        held = self.filler.commit([self.filler.reserve(wallet_id) for _ in range(3)])
        works = [
            *(self.filler.charge(wallet_id, answer.reservation.number) for answer in held),
            *(self.filler.reserve(wallet_id) for _ in range(3)),
        ]
        with self.database.writing() as connection, counted(connection) as work:
            group = Group(connection, self.database.statements, works)
            group.run()
        self.filler.remember(group.answers)
        return work[0]

    def reads(self, wallet_id: int) -> dict[str, Read]:
        """Every read of a wallet that the contract has, as it is asked for first."""
        reads = Reads(self.database.statements)
        page: dict[str, Any] = {"wallet_id": wallet_id, "before": None, "limit": PAGE}
        days: dict[str, Any] = {"wallet_id": wallet_id, "first_day": 0, "last_day": 10**6}
        return {
            "wallet": partial(reads.wallet, wallet_id=wallet_id),
            "reservation": partial(reads.reservation, wallet_id=wallet_id, number=2),
            "reservations": partial(reads.reservations, active=False, **page),
            "active reservations": partial(reads.reservations, active=True, **page),
            "statement": partial(reads.statement, as_of=None, **page),
            "a later page": partial(reads.statement, as_of=None, **{**page, "before": 2 * PAGE}),
            "charges": partial(reads.charges, since=None, **page),
            "uncollected": partial(reads.uncollected, wallet_id=wallet_id, offset=0, limit=PAGE),
            "limits": partial(reads.limits, wallet_id=wallet_id),
            **{f"usage by {by}": partial(reads.usage, group_by=by, **days) for by in Grouping},
        }

    def work(self, wallet_id: int) -> dict[str, int]:
        """The work of each read."""
        return {
            name: self.database.read_now(partial(_work, read)) for name, read in self.reads(wallet_id).items()
        }

    def statements(self, wallet_id: int) -> dict[str, int]:
        """How many statements each read is."""
        counts = {}
        for name, read in self.reads(wallet_id).items():
            self._sent.clear()
            self.database.read_now(read)
            counts[name] = len(self._sent)
        return counts


def used(wallet_id: int) -> Use:
    """A usage item, of a wallet without a hold."""
    return Use(
        wallet_id=wallet_id,
        caller=wallet_id,
        idempotency_key=new_key(),
        asked=(LINES[0].model, 1),
        api_key_id="k",
        amount_micros=1,
        line=LINES[0],
        labels={},
    )


def _work(read: Read, connection: Connection) -> int:
    with counted(connection) as work:
        read(connection)
    return work[0]


@contextmanager
def counted(connection: Connection) -> Iterator[list[int]]:
    """Steps of SQLite's virtual machine, or rows that PostgreSQL looked at."""
    driver, work = driver_of(connection), [0]

    def step() -> None:
        work[0] += 1

    if isinstance(driver, sqlite3.Connection):
        driver.set_progress_handler(step, 1)
        yield work
        driver.set_progress_handler(None, 1)
    else:
        before = _looked_at(connection)
        yield work
        work[0] = _looked_at(connection) - before


def _looked_at(connection: Connection) -> int:
    query = "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables"
    return int(connection.exec_driver_sql(query).scalar() or 0)


@contextmanager
def explained() -> Iterator[dict[str, str]]:
    """The plan of each statement that goes through SQLAlchemy inside the block."""
    plans: dict[str, str] = {}

    def explain(
        connection: Connection, _cursor: object, statement: str, values: Any, _context: object, _many: object
    ) -> None:
        driver = driver_of(connection)
        words = "EXPLAIN QUERY PLAN " if isinstance(driver, sqlite3.Connection) else "EXPLAIN "
        plans[statement] = "\n".join(str(row[-1]) for row in driver.execute(words + statement, values))

    event.listen(Engine, "before_cursor_execute", explain)
    try:
        yield plans
    finally:
        event.remove(Engine, "before_cursor_execute", explain)


@pytest.fixture
def ledger(open_database: Callable[[], Database]) -> Iterator[Ledger]:
    with statements_of_new_connections() as sent:
        database = open_database()
        ledger = Ledger(database, sent)
        yield ledger
    ledger.filler.close()
    database.close()


# One test, because the ledger takes ten seconds to fill.
def test_no_work_grows_with_history_and_no_read_looks_at_a_whole_table(ledger: Ledger) -> None:
    assert ledger.group(ledger.much) <= 1.1 * ledger.group(ledger.little)
    little, much = ledger.work(ledger.little), ledger.work(ledger.much)
    assert {name: (little[name], much[name]) for name in much if much[name] > 1.1 * little[name]} == {}
    statements = ledger.statements(ledger.much)
    assert statements == ledger.statements(ledger.little)
    assert max(statements.values()) <= 5
    with explained() as plans:
        for read in ledger.reads(ledger.much).values():
            ledger.database.read_now(read)
    assert plans
    assert {statement: plan for statement, plan in plans.items() if WHOLE.search(plan)} == {}
