"""What workers ask again and again finds its rows by an index, however many renders there ever were."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text

from oanim_server.database.engine import Database, driver_of
from oanim_server.database.tables import metadata
from oanim_server.rendering import holding, lease_rows, rows
from oanim_server.rendering.values import Claim, Worker
from tests.database.test_plans import FILLED as OF_THE_LEDGER
from tests.database.test_plans import NUMBERS, WALLET, explained, filling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

ROWS = 20_000
# Of twenty thousand renders two thousand wait, twenty are leased; the others have ended, half with a video.
STATE = "CASE WHEN n % 1000 = 0 THEN 2 WHEN n % 10 = 1 THEN 1 WHEN n % 2 = 0 THEN 3 ELSE 4 END"
OF_RENDERS = {
    "renders": {
        "wallet_id": WALLET,
        "number": "n",
        "state": STATE,
        "codec": "1",
        "epoch": "1",
        "worker": "1",
        "frames": "100",
        "leased_until": "n",
        "deadline_at": "n",
        "created_at": "n",
        "finished_at": f"CASE WHEN ({STATE}) > 2 THEN n END",
        "bundle_id": f"CASE WHEN ({STATE}) <= 2 THEN 'b' || n ELSE '' END",
        "video_id": f"CASE WHEN ({STATE}) = 3 THEN 'v' || n ELSE '' END",
        "video_bytes": f"CASE WHEN ({STATE}) = 3 THEN 1 ELSE 0 END",
        "video_expires_at": f"CASE WHEN ({STATE}) = 3 THEN n END",
    },
    "render_leases": {
        "api_key_id": "'k'",
        "idem_key": "'key-' || n",
        "account_id": WALLET,
        "number": "n",
        "epoch": "1",
    },
    "render_holds": {
        "wallet_id": WALLET,
        "number": "n",
        "render": "n",
        "open": "CASE WHEN n % 1000 = 0 THEN 1 ELSE 0 END",
    },
}
CLAIM = Claim(1, 1_000, 1, 1)
ASKED: dict[str, Callable[[Connection], object]] = {
    "a lease": lambda c: lease_rows.take(c, 1, worker=Worker(1, "k"), idem_key="new", lease=60, limit=1),
    "a lease again": lambda c: lease_rows.take(
        c, 1, worker=Worker(1, "k"), idem_key="key-1000", lease=60, limit=1
    ),
    "a heartbeat": lambda c: lease_rows.renew(c, 1, claim=CLAIM, frames=5, lease=60),
    "the end of a lease": lambda c: lease_rows.give_up(c, 1, claim=CLAIM, message="", handed_back=False),
    "whether it was given up": lambda c: lease_rows.was_given_up(c, CLAIM),
    "the sweep": lambda c: lease_rows.sweep(c, 1, lease=60, away=True),
    "what is left of leases": lambda c: holding._left(c, None),  # noqa: SLF001 - the statement itself
    "what is left of one": lambda c: holding._left(c, (1, 1_000)),  # noqa: SLF001 - the statement itself
    "a render": lambda c: rows.render(c, (11, 11)),
    "a page": lambda c: rows.page(c, 11, None, 100),
    "how it stands": lambda c: rows.standing(c, CLAIM.key, lock=True),
    "revisions": lambda c: rows.revisions(c, {CLAIM.key, (11, 11)}),
    "the queue": rows.counts,
    "what the queue is": rows.queue_state,
    "what an account has waiting": lambda c: rows.unfinished(c, 1, 10_000),
    "named files": lambda c: rows.named(c, [f"b{n}" for n in range(1_000)]),
    "old videos": lambda c: rows.forget_videos(c, 1),
}
WHOLE = re.compile(rf"Seq Scan on|SCAN ({'|'.join([*OF_THE_LEDGER, *OF_RENDERS, 'renders_1'])})\b(?! USING)")


@pytest.fixture
def large(open_database: Callable[[], Database]) -> Iterator[Database]:
    """A database with 20,000 renders, a tenth of them one account's."""
    database = open_database()
    with database.writing() as connection:
        for name in ("accounts", "wallets", "reservations", "transactions"):
            driver_of(connection).execute(filling(database.dialect, name))
        for name, filled in OF_RENDERS.items():
            driver_of(connection).execute(_filling(database.dialect, name, filled))
    with database.writing() as connection:
        connection.execute(text("ANALYZE"))
    yield database
    database.close()


def _filling(dialect: str, name: str, filled: dict[str, str]) -> str:
    """The statement that fills a table."""
    blob = {"sqlite": "zeroblob(32)", "postgresql": "decode('00', 'hex')"}[dialect]
    columns = {}
    for column in metadata.tables[name].columns:
        if column.name in filled:
            columns[column.name] = filled[column.name]
        elif not column.nullable:
            kind = type(column.type).__name__
            columns[column.name] = {"LargeBinary": blob, "Text": "''"}.get(kind, "0")
    values = NUMBERS[dialect].format(values=", ".join(columns.values()), rows=ROWS)
    return f"INSERT INTO {name} ({', '.join(columns)}) {values}"


def plans(database: Database, ask: Callable[[Connection], object]) -> str:
    """The plans of all statements that something makes."""
    found: list[str] = []

    def note(_connection: Any, cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if statement.lstrip().upper().startswith(("SELECT", "UPDATE", "WITH", "DELETE")):
            found.append(explained(cursor.connection, statement, values))

    with database.writing() as connection:
        event.listen(connection, "before_cursor_execute", note)
        ask(connection)
        connection.rollback()
    return "\n".join(found)


def test_nothing_that_is_asked_often_reads_all_renders(large: Database) -> None:
    found = {name: plans(large, ask) for name, ask in ASKED.items()}
    assert {name for name, plan in found.items() if not plan} == set()
    assert {name: plan for name, plan in found.items() if WHOLE.search(plan)} == {}
