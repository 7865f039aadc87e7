"""Driving a ledger inside the test's process, with a clock that the test moves.

The clock is the one seam: a database's hot statements are the real ones, but for what they say the time is.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pytest
from sqlalchemy import insert, text

from oanim_server.database.engine import Statements
from oanim_server.database.tables import accounts
from oanim_server.ledger import audit, crediting
from oanim_server.ledger.corrections import Freeze
from oanim_server.ledger.ids import new_account_id
from oanim_server.ledger.journal import Row
from oanim_server.ledger.ledger import Ledger
from oanim_server.ledger.limits import DeleteLimit, SetLimit
from oanim_server.ledger.operations import (
    Commit,
    Extend,
    OpenWallet,
    Operation,
    Release,
    Reserve,
    SettleDue,
    fingerprint_of,
)
from oanim_server.ledger.reads import Reads
from oanim_server.ledger.refusals import Refusal
from oanim_server.ledger.usage import Report, Use
from oanim_server.ledger.values import SERVER, Kind, Lot, Method, Note, Origin, Outcome
from oanim_server.ledger.windows import Period

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection

    from oanim_server.database.columns import Asked, Loaded
    from oanim_server.database.engine import Database
    from oanim_server.ledger.operations import Companion
    from oanim_server.ledger.reads import (
        ChargeRecord,
        Grouping,
        Statement,
        UncollectedRecord,
        UsageTotal,
    )
    from oanim_server.ledger.values import LimitFacts, Line, ReservationFacts, WalletFacts
    from oanim_server.ledger.working import Attempt, WorkingSet

T = TypeVar("T")

# The account of a service.
SERVICE = 99

# 2030-01-01: far from any real clock, so that a time which does not come from the test's clock is seen.
START = 1_893_456_000_000_000


class Clock:
    """What time it is."""

    def __init__(self) -> None:
        self.now = START

    def forward(self, micros: int) -> int:
        """Let time pass; answers the time it is then."""
        self.now += micros
        return self.now


def with_clock(database: Database, clock: Clock) -> None:
    """Have a database's statements tell the time by the test's clock."""
    real = {name: getattr(database.statements, name) for name in Statements.__annotations__}
    told = dict.fromkeys(("clock", "snapshot_clock"), lambda _connection: clock.now)

    def lock_and_load(driver: Any, asked: Asked) -> Loaded:
        return cast("Loaded", real["lock_and_load"](driver, asked))._replace(now=clock.now)

    clocked = SimpleNamespace(**{**real, **told, "lock_and_load": lock_and_load})
    database.statements = cast("Statements", clocked)


class Credit(Operation, kw_only=True):
    """One more lot, by the same step that makes the first: later origins (purchases, grants) will use it."""

    amount_micros: int
    priority: int = 0
    lifetime: int | None = None

    @property
    def method(self) -> Method:
        return Method.SIGN_UP

    def fingerprint(self) -> bytes:
        return fingerprint_of("credit", self.amount_micros, self.priority, self.lifetime)

    def decide(self, working: WorkingSet, attempt: Attempt) -> Outcome:
        return crediting.credit(
            working,
            working.wallet(self.wallet_id),
            Kind.SIGN_UP_GRANT,
            Origin.SIGN_UP,
            self.amount_micros,
            priority=self.priority,
            lifetime=self.lifetime,
            attempt=attempt,
        )


def open_account(connection: Connection, account_id: int) -> None:
    """The row that a wallet belongs to."""
    connection.execute(
        insert(accounts).values(
            account_id=account_id,
            role=1,
            email=f"{account_id}@example.com",
            name="",
            created_at=START,
            sign_up_key=str(account_id),
            address="",
            free_credits_micros=0,
        )
    )


def of_lots(former: str, forged: str) -> str:
    """The statement that changes what wallets have of their open lots, where it is so."""
    return f"UPDATE wallets SET open_lots = replace(open_lots, '{former}', '{forged}') WHERE 1 = 1"


def of_pinned(former: str, forged: str) -> str:
    """The statement that changes what is pinned to reservations of number 3, where it is so."""
    return f"UPDATE reservations SET pinned = replace(pinned, '{former}', '{forged}') WHERE number = 3"


def unchecked(ledger: Driven) -> None:
    """Take PostgreSQL's check of open lots away, as a superuser can; SQLite has none."""
    if ledger.database.dialect == "postgresql":
        ledger.sql("ALTER TABLE wallets DROP CONSTRAINT ck_wallets_open_lots")


class Driven:
    """A started ledger on a migrated database; keys are made up where a test does not care for them."""

    def __init__(self, database: Database, *, clock: Clock | None = None, **limits: int) -> None:
        self.clock = clock or Clock()
        with_clock(database, self.clock)
        self.database = database
        self.ledger = Ledger(database, **limits)
        self.reads = Reads(database.statements)
        self._keys = itertools.count(1)

    def start(self) -> Driven:
        self.ledger.start(sweep=False)
        return self

    def close(self) -> None:
        self.ledger.stop_now()
        self.database.close()

    # Writing

    def key(self) -> str:
        """A key that no other attempt has."""
        return f"key-{next(self._keys)}"

    def run(self, operation: Operation) -> Outcome:
        return self.ledger.run(operation)

    def refused(self, operation: Operation) -> Refusal:
        """The refusal that an operation gets."""
        with pytest.raises(Refusal) as raised:
            self.run(operation)
        return raised.value

    def sql(self, statement: str, **values: object) -> None:
        """Change rows behind the ledger's back."""

        def change(connection: Connection, _now: int) -> None:
            connection.execute(text(statement), values)

        self.ledger.run_write(change)

    def open_wallet(
        self, grant_micros: int = 5_000_000, lifetime: int | None = None, *, wallet_id: int | None = None
    ) -> int:
        """A wallet with one lot in it."""
        wallet_id = wallet_id or new_account_id()
        self.ledger.run_write(lambda connection, _now: open_account(connection, wallet_id))
        self.run(
            OpenWallet(
                wallet_id=wallet_id,
                caller=SERVER,
                idempotency_key="sign-up",
                grant_micros=grant_micros,
                lifetime=lifetime,
            )
        )
        return wallet_id

    def credit(
        self, wallet_id: int, amount_micros: int, *, priority: int = 0, lifetime: int | None = None
    ) -> Outcome:
        """Another lot."""
        return self.run(
            Credit(
                wallet_id=wallet_id,
                caller=SERVER,
                idempotency_key=self.key(),
                amount_micros=amount_micros,
                priority=priority,
                lifetime=lifetime,
            )
        )

    def freeze(self, wallet_id: int, *, frozen: bool = True) -> None:
        """What an operator does."""
        note = Note("local", "a test")
        self.run(
            Freeze(wallet_id=wallet_id, caller=SERVER, idempotency_key=self.key(), frozen=frozen, note=note)
        )

    def set_limit(
        self,
        wallet_id: int,
        limit_micros: int | None,
        *,
        key_id: str = "k",
        period: Period = Period.DAY,
        asking: str = "owner",
    ) -> Outcome:
        """What the owner allows a key, or with an empty one the account; None takes the limit away."""
        return self.run(self.limit(wallet_id, limit_micros, key_id=key_id, period=period, asking=asking))

    def hold(self, wallet_id: int, amount_micros: int, **options: Any) -> int:
        """Reserve; answers the reservation's number."""
        outcome = self.run(self.reserve(wallet_id, amount_micros, **options))
        assert outcome.reservation is not None
        return outcome.reservation.number

    def settle(self, wallet_id: int) -> None:
        """What the sweeper does with one wallet."""
        self.run(SettleDue(wallet_id=wallet_id, caller=SERVER, idempotency_key=""))

    # Operations

    def reserve(self, wallet_id: int, amount_micros: int, key: str | None = None, **options: Any) -> Reserve:
        line = options.get("line")
        asked = (line.model, line.quantity) if line else None
        options = {"caller": wallet_id, "opener": wallet_id, "api_key_id": "k", "asked": asked, **options}
        return Reserve(
            wallet_id=wallet_id, idempotency_key=key or self.key(), amount_micros=amount_micros, **options
        )

    def commit(
        self,
        wallet_id: int,
        number: int,
        amount_micros: int | None = None,
        key: str | None = None,
        **options: Any,
    ) -> Commit:
        return Commit(
            wallet_id=wallet_id,
            idempotency_key=key or self.key(),
            reservation=number,
            amount_micros=amount_micros,
            **{"caller": wallet_id, **options},
        )

    def release(self, wallet_id: int, number: int, key: str | None = None, **options: Any) -> Release:
        return Release(
            wallet_id=wallet_id,
            idempotency_key=key or self.key(),
            reservation=number,
            **{"caller": wallet_id, **options},
        )

    def extend(self, wallet_id: int, number: int, key: str | None = None, **options: Any) -> Extend:
        return Extend(
            wallet_id=wallet_id,
            idempotency_key=key or self.key(),
            reservation=number,
            **{"caller": wallet_id, **options},
        )

    def report(self, wallet_id: int, number: int, quantity: int, **options: Any) -> Report:
        return Report(
            wallet_id=wallet_id, reservation=number, quantity=quantity, **{"caller": wallet_id, **options}
        )

    def use(self, wallet_id: int, line: Line, key: str | None = None, **options: Any) -> Use:
        """An item of a service's, priced by its line."""
        options = {"caller": SERVICE, "api_key_id": "s", "labels": {}, **options}
        return Use(
            wallet_id=wallet_id,
            idempotency_key=key or self.key(),
            asked=(line.model, line.quantity),
            amount_micros=line.cost_micros(line.quantity),
            line=line,
            **options,
        )

    def limit(
        self,
        wallet_id: int,
        limit_micros: int | None,
        key: str | None = None,
        *,
        key_id: str = "k",
        period: Period = Period.DAY,
        asking: str = "owner",
    ) -> SetLimit | DeleteLimit:
        idempotency_key = key or self.key()
        if limit_micros is None:
            return DeleteLimit(
                wallet_id=wallet_id,
                caller=wallet_id,
                idempotency_key=idempotency_key,
                api_key_id=key_id,
                period=period,
                asking_key_id=asking,
            )
        return SetLimit(
            wallet_id=wallet_id,
            caller=wallet_id,
            idempotency_key=idempotency_key,
            api_key_id=key_id,
            period=period,
            asking_key_id=asking,
            limit_micros=limit_micros,
        )

    # Reading

    def limits(self, wallet_id: int) -> list[LimitFacts]:
        return self.database.read_now(lambda connection: self.reads.limits(connection, wallet_id))

    def wallet(self, wallet_id: int) -> WalletFacts:
        return self.database.read_now(lambda connection: self.reads.wallet(connection, wallet_id))

    def reservation(self, wallet_id: int, number: int) -> ReservationFacts:
        return self.database.read_now(
            lambda connection: self.reads.reservation(connection, wallet_id, number)
        )

    def reservations(self, wallet_id: int, *, active: bool = False) -> list[ReservationFacts]:
        return self.database.read_now(
            lambda connection: self.reads.reservations(
                connection, wallet_id, active=active, before=None, limit=10_000
            )
        )

    def statement(
        self, wallet_id: int, *, as_of: int | None = None, before: int | None = None, limit: int = 10_000
    ) -> Statement:
        return self.database.read_now(
            lambda connection: self.reads.statement(
                connection, wallet_id, as_of=as_of, before=before, limit=limit
            )
        )

    def lots(self, wallet_id: int) -> list[Lot]:
        """The open lots, in draw order."""
        return self.statement(wallet_id, limit=0).lots

    def usage(self, wallet_id: int, group_by: Grouping) -> list[UsageTotal]:
        """Totals since ever."""
        return self.database.read_now(
            lambda connection: self.reads.usage(
                connection, wallet_id, first_day=0, last_day=10**6, group_by=group_by
            )
        )

    def charges(self, wallet_id: int, **asked: Any) -> list[ChargeRecord]:
        """Charges one by one, newest first."""
        asked = {"since": None, "before": None, "limit": 10_000, **asked}
        return self.database.read_now(lambda connection: self.reads.charges(connection, wallet_id, **asked))

    def uncollected(self, wallet_id: int | None) -> list[UncollectedRecord]:
        """Work that nobody paid for, newest first."""
        return self.database.read_now(
            lambda connection: self.reads.uncollected(connection, wallet_id, offset=0, limit=10_000)
        )

    def rows(self, query: str, **values: object) -> list[tuple[Any, ...]]:
        """What is stored."""
        return self.database.read_now(
            lambda connection: [tuple(row) for row in connection.execute(text(query), values)]
        )

    def journal(self, wallet_id: int) -> list[Row]:
        """What is written of a wallet's journal, oldest first."""
        query = f"SELECT {', '.join(Row._fields)} FROM transactions WHERE wallet_id = :wallet_id ORDER BY seq"
        return [Row(*row) for row in self.rows(query, wallet_id=wallet_id)]

    def count(self, table: str) -> int:
        return int(self.rows(f"SELECT count(*) FROM {table}")[0][0])

    def problems(self) -> list[str]:
        """What the audit finds."""
        return audit.audit(self.database).problems


async def together(ledger: Ledger, works: Sequence[Any]) -> list[Any]:
    """Submit operations so that one group takes them all, in order; refusals come as values.

    A first write keeps the committer busy until all of them are queued. An operation may come with what is to
    be made of its outcome.
    """
    loop = asyncio.get_running_loop()
    begun, queued = asyncio.Event(), threading.Event()

    def wait(_connection: Connection, _now: int) -> None:
        loop.call_soon_threadsafe(begun.set)
        assert queued.wait(30)

    busy = asyncio.ensure_future(ledger.write(wait))
    await begun.wait()
    waiting = [asyncio.ensure_future(_submitted(ledger, work)) for work in works]
    await asyncio.sleep(0)
    queued.set()
    await busy
    return await asyncio.gather(*waiting, return_exceptions=True)


async def _submitted(ledger: Ledger, work: Any) -> Any:
    if isinstance(work, tuple):
        return await ledger.answer(*work)
    return await (ledger.submit(work) if isinstance(work, Operation) else ledger.write(work))


def batch(ledger: Ledger, works: Sequence[Any]) -> list[Any]:
    """`together`, for a test without an event loop."""
    return asyncio.run(together(ledger, works))


def in_threads(calls: Sequence[Callable[[], T]]) -> list[T | Exception]:
    """Make all calls at once, a thread each; what each answered or raised, in their order."""
    answers: list[T | Exception] = [AssertionError("not answered")] * len(calls)
    ready = threading.Barrier(len(calls))

    def call(index: int) -> None:
        ready.wait(30)
        try:
            answers[index] = calls[index]()
        except Exception as error:  # noqa: BLE001 - it is the answer
            answers[index] = error

    threads = [threading.Thread(target=call, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "somebody still waits for an answer"
    return answers


class Recording:
    """A companion that says what it was asked, and fails or refuses where it is told to."""

    def __init__(
        self,
        *,
        load: Callable[[Connection, int], None] | None = None,
        write: Callable[[Connection, Outcome], None] | None = None,
    ) -> None:
        self.calls: list[str] = []
        self._load = load
        self._write = write

    def load(self, connection: Connection, now: int) -> None:
        self.calls.append("load")
        if self._load is not None:
            self._load(connection, now)

    def write(self, connection: Connection, outcome: Outcome) -> None:
        self.calls.append("write")
        if self._write is not None:
            self._write(connection, outcome)


if TYPE_CHECKING:
    _is_a_companion: Companion = Recording()


@contextmanager
def busy(ledger: Driven) -> Iterator[None]:
    """The committer does nothing else inside the block."""
    begun, may_end = threading.Event(), threading.Event()

    def wait(_connection: Connection, _now: int) -> None:
        begun.set()
        assert may_end.wait(30)

    thread = threading.Thread(target=ledger.ledger.run_write, args=(wait,))
    thread.start()
    assert begun.wait(30)
    try:
        yield
    finally:
        may_end.set()
        thread.join(30)
