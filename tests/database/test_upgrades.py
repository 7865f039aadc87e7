"""A ledger that a former version left: what this one makes of it is what it would have made of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oanim_server.database.engine import Database
from oanim_server.database.migrate import head, migrate
from oanim_server.ledger.reads import Grouping
from tests.database.life import LEFT, WALLET, first_half, restore, second_half
from tests.ledger.driving import Driven
from tests.ledger.selling import Shop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.postgresql import Cluster


@pytest.fixture(params=sorted(LEFT.glob("*.jsonl")), ids=lambda path: path.stem)
def left(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Driven]:
    """What a version of a former schema left, and this one goes on with."""
    path: Path = request.param
    revision, _, dialect = path.stem.partition("-")
    if dialect == "sqlite":
        database = Database.open_sqlite(tmp_path / "left.db")
    else:
        cluster: Cluster = request.getfixturevalue("postgresql_cluster")
        database = Database.open_postgresql(cluster.create_database(), unsafe=True)
    migrate(database, revision)
    restore(database, path)
    migrate(database)
    ledger = Driven(database).start()
    yield ledger
    ledger.close()


def told(ledger: Driven) -> dict[str, object]:
    """Everything that anybody can ask about the wallet."""
    return {
        "wallet": ledger.wallet(WALLET),
        "journal": ledger.journal(WALLET),
        "statement": ledger.statement(WALLET),
        "reservations": ledger.reservations(WALLET),
        "charges": ledger.charges(WALLET),
        "uncollected": ledger.uncollected(WALLET),
        "usage": [ledger.usage(WALLET, grouping) for grouping in Grouping],
        "limits": ledger.limits(WALLET),
    }


def test_every_former_schema_has_left_something() -> None:
    former = range(4, int(head()))
    expected = {f"{number:04}-{dialect}" for number in former for dialect in ("sqlite", "postgresql")}
    assert {path.stem for path in LEFT.iterdir()} == expected


def test_a_life_that_an_upgrade_cuts_in_two_goes_on_as_if_there_had_been_none(
    left: Driven, sqlite_ledger: Driven
) -> None:
    whole = sqlite_ledger
    first_half(whole, Shop(whole))
    assert told(left) == told(whole)
    assert left.problems() == []
    answers, expected = (second_half(ledger, Shop(ledger)) for ledger in (left, whole))
    assert list(answers) == list(expected)
    assert told(left) == told(whole)
    assert left.wallet(WALLET).held_micros == 0
    assert left.problems() == []
