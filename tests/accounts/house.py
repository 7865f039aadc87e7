"""A server's accounts inside the test's process: real ledger, real database, clocks that the test moves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import func, select

from oanim_server.accounts.accounts import Accounts
from oanim_server.accounts.authenticator import Authenticator
from oanim_server.accounts.opening import SignUpLimits
from oanim_server.database import tables
from oanim_server.ledger.ledger import Ledger
from tests.ledger.driving import Clock, with_clock

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from sqlalchemy import Connection

    from oanim_server.database.engine import Database

T = TypeVar("T")

FREE = 5_000_000
LIMITS = SignUpLimits(an_hour=5, free_micros_a_day=100_000_000)
ANYWHERE = "203.0.113.7"
LOOPBACK = "127.0.0.1"


class House:
    """One server process: what it has, and an event loop to run it on."""

    def __init__(self, database: Database, *, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.seconds = 0.0
        with_clock(database, self.clock)
        self.database = database
        self.ledger = Ledger(database)
        self.ledger.start(sweep=False)
        self.authenticator = Authenticator(database, self.ledger, clock=lambda: self.seconds)
        self.accounts = self.with_limits(LIMITS)
        self._runner = asyncio.Runner()

    def with_limits(self, limits: SignUpLimits | None, *, free: int = FREE) -> Accounts:
        """The accounts under other limits."""
        return Accounts(
            self.database,
            self.ledger,
            self.authenticator,
            free_credits_micros=free,
            free_credits_lifetime=None,
            sign_up_limits=limits,
        )

    def do(self, work: Coroutine[object, object, T]) -> T:
        """Have work done on the event loop."""
        return self._runner.run(work)

    def close(self) -> None:
        self._runner.run(self.authenticator.stop())
        self._runner.run(self.ledger.stop())
        self._runner.close()
        self.database.close()


def count_accounts(connection: Connection) -> int:
    """How many accounts there are; each has its wallet."""
    counted = [
        connection.execute(select(func.count()).select_from(table)).scalar_one()
        for table in (tables.accounts, tables.wallets)
    ]
    assert counted[0] == counted[1]
    return counted[0]
