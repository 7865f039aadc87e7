"""The life of a wallet in two halves, and the first of them kept for the versions that come later.

`python -m tests.database.life` writes to `left/` what either database has after the first half, at the schema
of this checkout. It is run with the last commit of a schema, before there is another.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import MetaData, text

from oanim_server.database.engine import Database
from oanim_server.database.migrate import head, migrate
from oanim_server.ledger.values import DAY, SECOND, Line, Scope
from tests.ledger.driving import START, Driven
from tests.ledger.selling import SOLD, Disputed, Purchase, Refunded, Shop
from tests.postgresql import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oanim_server.ledger.values import Outcome

LEFT = Path(__file__).parent / "left"
WALLET = 7
PICTURE = Line(3, "flux", 'an "image"', "fal", "image", 10_000, 1, 5)
FILM = Line(4, "kling", "vidéo", "fal", "second", 21_001, 3, 300)
SALE = Purchase("sale", 50_000_000, 5_000_000, 54_321_000)
LABELS = {"project": "x", "b": 'a "b" \\ c\n'}
RUN = Scope("run", 4_000_000)
# Holds by their keys, and what each is asked for.
HOLDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "priced": {"line": PICTURE, "spend_scopes": (RUN, Scope("é", None)), "labels": LABELS},
    "reported": {"line": FILM, "labels": LABELS},
    "captured": {"line": PICTURE, "spend_scopes": (RUN,)},
    "released": {},
    "committed": {"line": PICTURE},
    "expired": {"line": FILM, "ttl": SECOND},
    "late": {"ttl": SECOND},
}
# Where the life is cut.
HALF = START + 2 * SECOND


def first_half(ledger: Driven, shop: Shop) -> None:
    """What is under way when a server is replaced, and what has ended."""
    run = ledger.run
    ledger.open_wallet(5_000_000, lifetime=30 * DAY, wallet_id=WALLET)
    ledger.credit(WALLET, 300_000, priority=-1, lifetime=DAY)
    shop.sell(WALLET, SALE)
    shop.tell(WALLET, SALE, Refunded("a part", 10_000_000))
    ledger.set_limit(WALLET, 9_500_000)
    holds = {key: hold_of(run(reserve(ledger, key))) for key in HOLDS}
    run(ledger.report(WALLET, holds["reported"], 31))
    run(ledger.report(WALLET, holds["expired"], 5))
    run(ledger.commit(WALLET, holds["captured"], quantity=2, keep_rest=True, key="a capture"))
    run(ledger.release(WALLET, holds["released"], "a release"))
    run(ledger.commit(WALLET, holds["committed"], quantity=4, key="a commit"))
    run(ledger.use(WALLET, PICTURE._replace(quantity=7), "an event", labels=LABELS))
    ledger.refused(ledger.reserve(WALLET, 90_000_000, "too much"))
    ledger.clock.now = HALF
    ledger.settle(WALLET)


def second_half(ledger: Driven, shop: Shop) -> Iterator[object]:
    """Everything is asked for again, and then goes on and ends; what is answered."""
    run = ledger.run
    ledger.clock.now = HALF
    again = {key: run(reserve(ledger, key)) for key in HOLDS}
    holds = {key: hold_of(outcome) for key, outcome in again.items()}
    yield again
    yield run(ledger.commit(WALLET, holds["captured"], quantity=2, keep_rest=True, key="a capture"))
    yield run(ledger.release(WALLET, holds["released"], "a release"))
    yield run(ledger.commit(WALLET, holds["committed"], quantity=4, key="a commit"))
    yield run(ledger.use(WALLET, PICTURE._replace(quantity=7), "an event", labels=LABELS))
    for refused in (ledger.reserve(WALLET, 90_000_000, "too much"), reserve(ledger, "plain", 1_000_001)):
        refusal = ledger.refused(refused)
        yield type(refusal), refusal.facts(), refusal.replayed
    # What the former version held counts under its scopes.
    yield type(ledger.refused(ledger.reserve(WALLET, 3_000_001, "more", spend_scopes=(RUN,))))
    yield run(ledger.extend(WALLET, holds["priced"], "an extend", amount_micros=500_000, ttl=DAY))
    yield run(ledger.commit(WALLET, holds["priced"], quantity=3, keep_rest=True, key="priced 1"))
    yield run(ledger.commit(WALLET, holds["priced"], quantity=5, capture=2, key="priced 2"))
    yield run(ledger.report(WALLET, holds["reported"], 40))
    yield run(ledger.commit(WALLET, holds["reported"], quantity=39, key="reported 1"))
    yield run(ledger.commit(WALLET, holds["captured"], quantity=5, capture=2, key="captured 2"))
    yield run(ledger.commit(WALLET, holds["expired"], quantity=7, key="expired 1"))
    yield run(ledger.commit(WALLET, holds["late"], 700_000, key="late 1"))
    yield run(ledger.release(WALLET, holds["plain"], "plain 1"))
    ledger.clock.forward(2 * DAY)
    yield run(ledger.reserve(WALLET, 2_000_000, "another", line=FILM, ttl=SECOND))
    yield shop.tell(WALLET, SALE, Disputed("the rest", 54_321_000), "disputed")
    ledger.clock.forward(SECOND)
    yield shop.tell(WALLET, SALE, Disputed("the rest", 54_321_000, reinstated=True), "reinstated")
    ledger.clock.forward(30 * DAY)
    ledger.settle(WALLET)


def reserve(ledger: Driven, key: str, amount_micros: int = 1_000_000) -> Any:
    """The request of one of the holds."""
    return ledger.reserve(WALLET, amount_micros, key, **{"ttl": DAY, **HOLDS[key]})


def hold_of(outcome: Outcome) -> int:
    """The number of the hold that was made."""
    assert outcome.reservation is not None
    return outcome.reservation.number


def keep(database: Database, path: Path) -> None:
    """Write all rows of a database: a line for each, what is referred to before what refers to it."""
    found = MetaData()
    with database.writing() as connection:
        found.reflect(connection)
        lines = [
            json.dumps([table.name, row._asdict()], default=lambda value: {"hex": bytes(value).hex()})
            for table in found.sorted_tables
            if table.name != "alembic_version"
            for row in connection.execute(table.select())
        ]
    path.write_text("\n".join([*lines, ""]))


def restore(database: Database, path: Path) -> None:
    """Insert what `keep` wrote into an empty database of the same schema."""
    found = MetaData()
    with database.writing() as connection:
        connection.execute(text(SOLD))
        found.reflect(connection)
        for line in path.read_text().splitlines():
            name, row = json.loads(line)
            values = {
                column: bytes.fromhex(value["hex"]) if isinstance(value, dict) else value
                for column, value in row.items()
            }
            connection.execute(found.tables[name].insert().values(values))


def _live_and_keep(database: Database) -> None:
    migrate(database)
    ledger = Driven(database).start()
    try:
        first_half(ledger, Shop(ledger))
        keep(database, LEFT / f"{head()}-{database.dialect}.jsonl")
    finally:
        ledger.close()


def main() -> None:
    LEFT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        _live_and_keep(Database.open_sqlite(Path(folder, "ledger.db")))
    with Cluster({"fsync": "off"}) as cluster:
        _live_and_keep(Database.open_postgresql(cluster.create_database(), unsafe=True))


if __name__ == "__main__":
    main()
