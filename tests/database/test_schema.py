from __future__ import annotations

import hashlib
import inspect
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import PrimaryKeyConstraint, Table, Text, UniqueConstraint, text
from sqlalchemy.exc import IntegrityError

from oanim_server.database import postgresql, sqlite
from oanim_server.database.columns import WALLET_COLUMNS
from oanim_server.database.engine import Database, Statements
from oanim_server.database.migrate import MIGRATIONS, head, is_current, migrate
from oanim_server.database.tables import metadata
from oanim_server.database.tables.schema import is_sqlites
from oanim_server.ledger.journal import compact, pinned, seal_of_hold
from oanim_server.ledger.rows import reservation_of, wallet_of, wallet_row
from oanim_server.ledger.values import Line, Lot, Origin, Scope

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from tests.postgresql import Cluster

LEDGER = (
    "wallets",
    "lots",
    "reservations",
    "transactions",
    "journal_runs",
    "refusals",
    "spend_counters",
    "usage_days",
    "limits",
    "purchase_credits",
    "notes",
    "usage_items",
)
# Rows of capabilities, which belong to a wallet too.
OF_CAPABILITIES = (
    "generations",
    "purchases",
    "refunds",
    "disputes",
    "refund_requests",
    "renders",
    "render_holds",
)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest) -> Callable[[], Database]:
    """Opens databases with nothing in them, a new one each time."""
    if request.param == "sqlite":
        folder: Path = request.getfixturevalue("tmp_path")
        paths = iter(folder / f"{number}.db" for number in range(9))
        return lambda: Database.open_sqlite(next(paths))
    cluster: Cluster = request.getfixturevalue("postgresql_cluster")
    return lambda: Database.open_postgresql(cluster.create_database(), unsafe=True)


QUERIES = {
    "sqlite": [
        """SELECT type, name, tbl_name, sql FROM sqlite_master
           WHERE name NOT LIKE '%alembic%' ORDER BY 1, 2"""
    ],
    "postgresql": [
        # In their order: what was dropped keeps its number.
        """SELECT table_name, column_name, rank() OVER (PARTITION BY table_name ORDER BY ordinal_position),
             data_type, is_nullable, column_default,
             character_maximum_length, numeric_precision, is_identity, is_generated
           FROM information_schema.columns
           WHERE table_schema = 'public' AND table_name NOT LIKE 'alembic%' ORDER BY 1, 3""",
        """SELECT conrelid::regclass::text, conname, contype::text, condeferrable, condeferred, convalidated,
             pg_get_constraintdef(oid)
           FROM pg_constraint
           WHERE connamespace = 'public'::regnamespace AND conname NOT LIKE 'alembic%' ORDER BY 1, 2""",
        """SELECT tablename, indexname, indexdef FROM pg_indexes
           WHERE schemaname = 'public' AND tablename NOT LIKE 'alembic%' ORDER BY 1, 2""",
    ],
}


def _unordered(said: Any) -> Any:
    """A CREATE TABLE without the order in which it lists its constraints, and where it lists them.

    A column that was added later has its check beside it.
    """
    if "CREATE TABLE" not in str(said):
        return said
    parts = re.split(r"\n|, (?=\w+ \w+ DEFAULT)| (?=CONSTRAINT)", said)
    return sorted(part for part in (part.strip(" ,\t") for part in parts) if part)


def schema(database: Database) -> list[Any]:
    """All there is to say about the tables."""

    def read(connection: Connection) -> list[Any]:
        return [
            [tuple(map(_unordered, row)) for row in connection.execute(text(query))]
            for query in QUERIES[database.dialect]
        ]

    return database.read_now(read)


def test_a_migrated_database_has_the_tables_and_nothing_else(empty: Callable[[], Database]) -> None:
    migrated, created = empty(), empty()
    migrate(migrated)
    there = [
        table for table in metadata.sorted_tables if created.dialect == "sqlite" or not is_sqlites(table)
    ]
    with created.writing() as connection:
        metadata.create_all(connection, there)
    assert schema(migrated) == schema(created)
    migrated.close()
    created.close()


def test_a_migrated_database_is_current_and_migrating_it_again_changes_nothing(
    empty: Callable[[], Database],
) -> None:
    database = empty()
    assert not is_current(database)
    migrate(database)
    assert is_current(database)
    before = schema(database)
    migrate(database)
    assert schema(database) == before
    database.close()


def test_the_present_revision_is_the_last_of_the_migrations() -> None:
    """And each is named by its number, so that this needs no alembic to find."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_heads() == [head()]
    assert all(Path(found.path).name.startswith(f"{found.revision}_") for found in scripts.walk_revisions())


LINK = {"sqlite": "x''", "postgresql": "''"}


def test_lots_with_nothing_left_are_closed_by_the_migration_and_stay_so(
    empty: Callable[[], Database],
) -> None:
    database = empty()
    migrate(database, "0004")
    with database.writing() as connection:
        for statement in (
            "INSERT INTO accounts VALUES (7, 1, 'a', '', 1, 'k', '', 0)",
            f"INSERT INTO wallets VALUES (7, 5, 0, 0, 1, 1, {LINK[database.dialect]}, 0, NULL, 2, 0)",
            "INSERT INTO lots VALUES (7, 1, 1, 9, 0, 0, 0, NULL, 1, 0), (7, 2, 1, 9, 5, 0, 0, NULL, 1, 0)",
        ):
            connection.execute(text(statement))
    migrate(database, "0005")
    with database.writing() as connection:
        closed = connection.execute(text("SELECT lot, closed FROM lots ORDER BY lot")).all()
        assert [tuple(row) for row in closed] == [(1, 1), (2, 0)]
        with pytest.raises(IntegrityError):
            connection.execute(text("UPDATE lots SET remaining_micros = 1"))
        connection.rollback()
    database.close()


def test_open_lots_are_moved_by_the_migration_and_closed_ones_stay(empty: Callable[[], Database]) -> None:
    """5,000 wallets: a third each with no open lot, with one, and with two in an order of their own."""
    database = empty()
    migrate(database, "0005")
    link = LINK[database.dialect]
    many = range(1, 5_001)
    with database.writing() as connection:
        for statement in (
            "INSERT INTO accounts VALUES (:w, 1, :name, '', 1, :name, '', 0)",
            f"INSERT INTO wallets VALUES (:w, :w, 0, 0, 1, 1, {link}, 0, 77, 3, 0)",
            "INSERT INTO lots VALUES (:w, 1, 1, 9, 0, 0, 0, NULL, 1, 4, 1)",
        ):
            connection.execute(text(statement), [{"w": w, "name": str(w)} for w in many])
        lot = text("INSERT INTO lots VALUES (:w, :lot, 2, 1000000000000, :w, 1, 3, :expires_at, 1, 2, 0)")
        opened = [
            {"w": w, "lot": lot, "expires_at": 10**15 if lot == 3 else None}
            for lot in (3, 2)
            for w in many
            if w % 3 >= 4 - lot
        ]
        connection.execute(lot, opened)
    migrate(database)
    with database.writing() as connection:
        wallets = connection.execute(text("SELECT * FROM wallets ORDER BY wallet_id")).all()
        lots = connection.execute(text("SELECT * FROM lots ORDER BY wallet_id")).all()
    endless = "[2,2,1000000000000,{w},1,3,null,1,2]"
    ending = "[3,2,1000000000000,{w},1,3,1000000000000000,1,2]"
    text_of = {0: "[]", 1: f"[{ending}]", 2: f"[{endless},{ending}]"}
    assert [(row.wallet_id, row.balance_micros, row.next_due_at, row.open_lots) for row in wallets] == [
        (w, w, 77, text_of[w % 3].replace("{w}", str(w))) for w in many
    ]
    assert [tuple(row) for row in lots] == [(w, 1, 1, 9, 0, 0, 0, None, 1, 4) for w in many]
    found = wallet_of(wallets[4][: len(WALLET_COLUMNS)])
    assert list(found.lots.values()) == [
        Lot(2, Origin.PURCHASE, 10**12, 5, 1, 3, None, 1),
        Lot(3, Origin.PURCHASE, 10**12, 5, 1, 3, 10**15, 1),
    ]
    assert wallet_row(found)[-1] == wallets[4].open_lots
    database.close()


# What JSON escapes and what it does not, and names whose order depends on a collation.
NASTY = "".join(map(chr, range(1, 33))) + "\\\"/\x7f\u2028\ud7ff\ufeff\U0001f3ac'"
LABELED = {"b": "1", "B": "2", "é": "3", "_": NASTY, NASTY: ""}
PINNED = [
    (None, (), {}),
    (Line(7, "m", "image", "fal", "image", 10, 3, 5), (), {}),
    (Line(1, NASTY, NASTY, NASTY, NASTY, 10**12, 10**9, 0), (Scope(NASTY, None), Scope("b", 0)), LABELED),
    (None, (Scope("run", 10**12),), {"project": "x"}),
]


def test_what_is_pinned_is_by_the_migration_as_it_was_sealed(empty: Callable[[], Database]) -> None:
    database = empty()
    migrate(database, "0007")
    link = LINK[database.dialect]
    places = ", ''" if database.dialect == "sqlite" else ""
    with database.writing() as connection:
        connection.execute(text("INSERT INTO accounts VALUES (7, 1, 'a', '', 1, 'k', '', 0)"))
        connection.execute(
            text(f"INSERT INTO wallets VALUES (7, 0, 0, 0, 9, 1, {link}, 0, NULL, 0, 0, '[]'{places})")
        )
        held = text(
            "INSERT INTO reservations VALUES (7, :n, 2, 3, 'key', 4, 1, 0, 1, 5, '[]', NULL, 6, 8, 9,"
            " :version, :model, :category, :provider, :unit, :price, :base, :quoted, :scopes, :labels, 2)"
        )
        for number, (line, scopes, labels) in enumerate(PINNED, 1):
            said = dict(
                zip(
                    ("version", "model", "category", "provider", "unit", "price", "base", "quoted"),
                    line or (0, "", "", "", "", 0, 0, 0),
                    strict=True,
                )
            )
            stored = {
                "n": number,
                "scopes": compact([list(scope) for scope in scopes]),
                "labels": compact(labels),
            }
            connection.execute(held, said | stored)
        # A job's hold is referred to: it stays the row that it was.
        filled = {
            c.name: "'x'" if isinstance(c.type, Text) else "1" for c in metadata.tables["generations"].c
        }
        filled["wallet_id"] = "7"
        connection.execute(
            text(f"INSERT INTO generations ({', '.join(filled)}) VALUES ({', '.join(filled.values())})")
        )
    migrate(database)
    with database.writing() as connection:
        found = connection.execute(text("SELECT * FROM reservations ORDER BY number")).all()
        assert connection.execute(text("SELECT number FROM generations")).scalars().all() == [1]
    for number, (row, (line, scopes, labels)) in enumerate(zip(found, PINNED, strict=True), 1):
        read = reservation_of(row)
        assert (read.number, read.api_key_id, read.captured_quantity, read.reported_quantity) == (
            number, "key", 5, 2,
        )  # fmt: skip
        assert (read.line, read.scopes, read.labels) == (line, scopes, labels)
        assert read.pinned == pinned(line, scopes, labels)
        # As every version before this one sealed it.
        sealed = [3, "key", line and list(line), [list(scope) for scope in scopes], sorted(labels.items())]
        assert seal_of_hold(3, "key", read.pinned) == hashlib.sha256(orjson.dumps(sealed)).digest()
    database.close()


def test_of_two_servers_that_migrate_at_once_one_waits(postgresql_cluster: Cluster) -> None:
    url = postgresql_cluster.create_database()
    databases = [Database.open_postgresql(url, unsafe=True) for _ in range(2)]
    threads = [threading.Thread(target=migrate, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [is_current(database) for database in databases] == [True, True]
    for database in databases:
        database.close()


def uniques(table: Table) -> list[set[str]]:
    """The columns of every unique key."""
    keys = [
        {column.name for column in constraint.columns}
        for constraint in table.constraints
        if isinstance(constraint, PrimaryKeyConstraint | UniqueConstraint)
    ]
    return keys + [{column.name for column in index.columns} for index in table.indexes if index.unique]


def test_every_unique_key_of_a_ledger_table_contains_the_wallet() -> None:
    tables = {name: uniques(metadata.tables[name]) for name in (*LEDGER, *OF_CAPABILITIES)}
    assert {name for name, keys in tables.items() if not keys} == set()
    assert {name: key for name, keys in tables.items() for key in keys if "wallet_id" not in key} == {}


def test_the_ledger_has_no_other_tables() -> None:
    with_wallets = {name for name, table in metadata.tables.items() if "wallet_id" in table.columns}
    assert with_wallets - set(OF_CAPABILITIES) == set(LEDGER)


def public(module: object) -> dict[str, list[object]]:
    """A module's statements: the names of their parameters, and what they answer."""
    return {
        name: [*inspect.signature(function).parameters, inspect.signature(function).return_annotation]
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if not name.startswith("_") and function.__module__ == getattr(module, "__name__", "")
    }


def test_both_databases_have_the_same_hot_statements() -> None:
    ours, theirs = public(sqlite), public(postgresql)
    # A replica, and the standby that a commit waits for, are PostgreSQL's alone.
    assert ours == theirs
    assert set(ours) == set(Statements.__annotations__)
