"""Filling a database before a server has it: groups of the ledger's own, in this process.

Nothing but the ledger makes the rows, so that they are what a server would have written and the audit
passes; it is fast because a group has a thousand operations and no network before it.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from itertools import islice
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from benchmarks.databases import at_rest, opened
from benchmarks.told import obey
from oanim.keys import new_key
from oanim_server.accounts.opening import Opening
from oanim_server.accounts.rows import AccountRow
from oanim_server.accounts.values import Role
from oanim_server.database.engine import Statements
from oanim_server.ledger.group import Group
from oanim_server.ledger.ids import account_text, new_account_id
from oanim_server.ledger.operations import Commit, OpenWallet, Reserve
from oanim_server.ledger.refusals import Refusal
from oanim_server.ledger.values import DAY, MAX_AMOUNT_MICROS, SERVER, Line

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from oanim_server.database.engine import Database
    from oanim_server.ledger.group import Work

GROUP = 1_000
# A group of fewer wallets than operations is written faster; what is measured draws its wallets by chance.
WALLETS_A_GROUP = 50
HELD_MICROS, CHARGED_MICROS = 2, 1
# The great wallet's charges are spread over so many days, models and projects.
DAYS, MODELS, PROJECTS = 30, 8, 4


LINES = [
    Line(1, f"vendor/model-{number}", "image", "fal", "operation", HELD_MICROS, 1, 1)
    for number in range(MODELS)
]


class Account(NamedTuple):
    """An account, and the key that came with it."""

    wallet_id: int
    token: str

    @property
    def text(self) -> str:
        """Its id as the contract shows it."""
        return account_text(self.wallet_id)


def random_key() -> str:
    """A key that sorts anywhere, as a UUID of version 4 does."""
    return str(uuid.UUID(int=random.getrandbits(128), version=4))


# The SDK's append to their index; others' need not.
KEYS: dict[str, Callable[[], str]] = {"UUIDv7": new_key, "random": random_key}


class Filler:
    """Commits groups of operations, and remembers how far each wallet's journal is.

    :param keys: makes the idempotency keys.
    """

    def __init__(self, database: Database, keys: str = "UUIDv7") -> None:
        self._database = database
        self._connection = database.writer()
        self._keys = KEYS[keys]
        self._seqs: dict[int, int] = {}

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    def commit(self, works: Sequence[Work]) -> list[Any]:
        """One group, one database transaction.

        :raises Refusal: when any of it is refused.
        """
        group = Group(self._connection, self._database.statements, works)
        with self._connection.begin() as transaction:
            group.run()
            self._database.commit(transaction)
        self.remember(group.answers)
        return group.answers

    def remember(self, answers: Sequence[Any]) -> None:
        """Note how far the journals are after a group."""
        for answer in answers:
            if isinstance(answer, Refusal):
                raise answer
            self._seqs[answer.wallet.wallet_id] = answer.wallet.seq

    def open(self, role: Role, count: int = 1, *, grant_micros: int = MAX_AMOUNT_MICROS) -> list[Account]:
        """New accounts of a role, each with a key and a wallet with credits in it."""
        openings = [_opening(role) for _ in range(count)]
        self.commit(
            [
                OpenWallet(
                    wallet_id=opening.account.account_id,
                    caller=SERVER,
                    idempotency_key=self._keys(),
                    grant_micros=grant_micros,
                    companion=opening,
                )
                for opening in openings
            ]
        )
        return [
            Account(made.account_id, made.secret or "") for made in (opening.made for opening in openings)
        ]

    def reserve(self, wallet_id: int, line: Line | None = None, project: str = "") -> Reserve:
        """A Reserve of the wallet's own account."""
        return Reserve(
            wallet_id=wallet_id,
            caller=wallet_id,
            opener=wallet_id,
            idempotency_key=self._keys(),
            amount_micros=HELD_MICROS,
            api_key_id="bench",
            line=line,
            labels={"project": project} if project else {},
        )

    def charge(self, wallet_id: int, reservation: int) -> Commit:
        """Its Commit."""
        return Commit(
            wallet_id=wallet_id,
            caller=wallet_id,
            idempotency_key=self._keys(),
            reservation=reservation,
            amount_micros=CHARGED_MICROS,
        )

    def fill(self, wallets: Sequence[int], reservations: int) -> None:
        """So many reservations of these wallets, each committed in the group that made it."""
        pairs = self._pairs(wallets)
        for start in range(0, reservations, GROUP // 2):
            some = islice(pairs, min(GROUP // 2, reservations - start))
            self.commit([operation for pair in some for operation in pair])

    def fill_days(self, wallet_id: int, reservations: int) -> None:
        """So many reservations of one wallet over the last 30 days, of several models and projects."""
        statements = self._database.statements
        now = time.time_ns() // 1_000
        try:
            for day in range(DAYS):
                self._database.statements = _at(statements, now - (DAYS - 1 - day) * DAY)
                self._fill_day(wallet_id, reservations * (day + 1) // DAYS - reservations * day // DAYS)
        finally:
            self._database.statements = statements

    def _fill_day(self, wallet_id: int, reservations: int) -> None:
        for start in range(0, reservations, GROUP // 2):
            works: list[Work] = []
            seq = self._seqs[wallet_id]
            for number in range(start, min(start + GROUP // 2, reservations)):
                project = f"project-{number // MODELS % PROJECTS}"
                works.append(self.reserve(wallet_id, LINES[number % MODELS], project))
                works.append(self.charge(wallet_id, seq + 1))
                seq += 2
            self.commit(works)

    def _pairs(self, wallets: Sequence[int]) -> Iterator[tuple[Reserve, Commit]]:
        """Reserves with their Commits, without end: a reservation has the number of the row that makes it."""
        each = GROUP // 2 // WALLETS_A_GROUP
        while True:
            for wallet_id in random.sample(wallets, min(WALLETS_A_GROUP, len(wallets))):
                seq = self._seqs[wallet_id]
                for _ in range(each):
                    yield self.reserve(wallet_id), self.charge(wallet_id, seq + 1)
                    seq += 2
                self._seqs[wallet_id] = seq


def _opening(role: Role) -> Opening:
    row = AccountRow(
        account_id=new_account_id(),
        role=role.value,
        email=None,
        name="bench",
        created_at=0,
        sign_up_key=new_key(),
        address="",
        free_credits_micros=0,
    )
    return Opening(row, "bench", None)


def _at(statements: Statements, time: int) -> Statements:
    """The same statements at another time: what they say the time is, is where an operation gets it from."""
    real = {name: getattr(statements, name) for name in Statements.__annotations__}
    return cast("Statements", SimpleNamespace(**{**real, "clock": lambda _driver: time}))


# A process that fills, told as a load generator is: one fills a file while another fills a PostgreSQL ----


async def _meet(settings: dict[str, str]) -> Callable[..., Awaitable[dict[str, Any]]]:
    async def carry_out(keys: str, wallets: int, reservations: int, great: int) -> dict[str, Any]:
        with opened(settings) as database:
            filler = Filler(database, keys)
            accounts = filler.open(Role.USER, wallets)
            filler.fill([account.wallet_id for account in accounts], reservations - great)
            [great_one] = filler.open(Role.USER)
            filler.fill_days(great_one.wallet_id, great)
            filler.close()
            at_rest(database)
        return {"accounts": accounts, "great": great_one}

    return carry_out


if __name__ == "__main__":
    asyncio.run(obey(_meet))
