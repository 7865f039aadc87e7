"""A process of its own that drives a ledger and says what was acknowledged, until it is killed.

Each line on stdout is one acknowledged answer: `reserve KEY NUMBER` or `commit KEY NUMBER CHARGED`. It is
started as `python -m tests.ledger.serving sqlite PATH WALLET RUN` or `... postgresql URL WALLET RUN`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from oanim_server.database.engine import Database
from oanim_server.ledger.ledger import Ledger
from oanim_server.ledger.operations import Commit, Reserve

WORKERS = 16


async def work(ledger: Ledger, wallet_id: int, name: str) -> None:
    """Reserve and commit for ever."""
    turn = 0
    while True:
        turn += 1
        key = f"{name}-{turn}"
        held = await ledger.submit(
            Reserve(
                wallet_id=wallet_id,
                caller=wallet_id,
                idempotency_key=key,
                amount_micros=5,
                opener=wallet_id,
                api_key_id="k",
            )
        )
        assert held.reservation is not None
        number = held.reservation.number
        sys.stdout.write(f"reserve {key} {number}\n")
        sys.stdout.flush()
        charged = await ledger.submit(
            Commit(
                wallet_id=wallet_id,
                caller=wallet_id,
                idempotency_key=key,
                reservation=number,
                amount_micros=3,
            )
        )
        sys.stdout.write(f"commit {key} {number} {charged.charged_micros}\n")
        sys.stdout.flush()


async def main(dialect: str, where: str, wallet_id: str, run: str) -> None:
    """Open the database and put it under load."""
    if dialect == "sqlite":
        database = Database.open_sqlite(Path(where))
    else:
        database = Database.open_postgresql(where, unsafe=True)
    ledger = Ledger(database)
    ledger.start()
    await asyncio.gather(*(work(ledger, int(wallet_id), f"{run}-{number}") for number in range(WORKERS)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
