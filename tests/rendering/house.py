"""A server's renders inside the test's process: real ledger, real database, real files, a clock that the test
moves, and workers that do as they are told.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

import pytest
from sqlalchemy import text

from oanim_models import catalogue
from oanim_server.ledger import audit
from oanim_server.ledger.ids import new_account_id
from oanim_server.ledger.ledger import Ledger
from oanim_server.ledger.operations import OpenWallet
from oanim_server.ledger.refusals import Refusal
from oanim_server.ledger.values import SECOND, SERVER, WalletFacts
from oanim_server.pricing.prices import Prices
from oanim_server.rendering.renders import Renders
from oanim_server.rendering.store import FolderStore
from oanim_server.rendering.values import (
    TIMES,
    Beat,
    Claim,
    Codec,
    Lease,
    Render,
    Spec,
    Submission,
    Submitted,
    Times,
    Worker,
)
from tests.ledger.driving import Clock, open_account, with_clock
from tests.rendering.asking import BUNDLE, VIDEO, upload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from pathlib import Path

    from oanim_server.database.engine import Database

T = TypeVar("T")

GRANT = 5_000_000
SECONDS = 60.0
# 100 kilopixel-seconds, one a frame, of which each costs 2 micro-USD.
SPEC = Spec("Main", 100, 100, 10, 100, Codec.H264, "{}")
QUOTE = 200
MINUTE = 60 * SECOND


class Rest(NamedTuple):
    """What a wallet is left with, and what the audit finds."""

    balance_micros: int
    held_micros: int
    problems: list[str]


class Process:
    """One server process on the database: what it has, and an event loop to run it on."""

    def __init__(
        self, database: Database, folder: Path, clock: Clock | None, *, limit: int = 10, times: Times = TIMES
    ) -> None:
        self.database = database
        if clock is not None:
            with_clock(database, clock)
        self._loops = asyncio.Runner()
        self.ledger = Ledger(database)
        self.prices = Prices(database, self.ledger)
        self.store = FolderStore(folder)

        async def start() -> None:
            self.ledger.start(sweep=False)
            await self.prices.publish_file(catalogue.load())
            self.renders = Renders(database, self.ledger, self.prices, self.store, limit=limit, times=times)
            await self.renders.start()

        self._loops.run(start())

    def do(self, work: Coroutine[object, object, T]) -> T:
        """Have work done on the event loop, within a time."""
        return self._loops.run(asyncio.wait_for(work, SECONDS))

    def close(self) -> None:
        async def stop() -> None:
            await self.renders.stop()
            await self.ledger.stop()

        self._loops.run(stop())
        self._loops.close()
        self.database.close()


class House:
    """A process and its clock, as the tests ask it."""

    def __init__(
        self,
        database: Database,
        folder: Path,
        *,
        limit: int = 10,
        times: Times = TIMES,
        clock: Clock | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.folder = folder
        self.process = Process(database, folder, self.clock, limit=limit, times=times)
        self.do = self.process.do
        self.ledger = self.process.ledger
        self.renders = self.process.renders

    def close(self) -> None:
        self.process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Accounts

    def account(self, grant_micros: int = GRANT) -> int:
        """A new account with credits."""
        account_id = new_account_id()
        opening = OpenWallet(
            wallet_id=account_id, caller=SERVER, idempotency_key="sign-up", grant_micros=grant_micros
        )

        async def opened() -> None:
            await self.ledger.write(lambda connection, _now: open_account(connection, account_id))
            await self.ledger.submit(opening)

        self.do(opened())
        return account_id

    def worker(self, name: str = "w") -> Hand:
        """A worker with an account of its own."""
        return Hand(self, Worker(self.account(0), name))

    def wallet(self, account_id: int) -> WalletFacts:
        """The account's wallet now."""
        return self.do(self.ledger.wallet(account_id))

    def rest(self, account_id: int) -> Rest:
        """What is left, and whether everything that is stored fits together."""
        wallet = self.wallet(account_id)
        problems = audit.audit(self.process.database).problems
        return Rest(wallet.balance_micros, wallet.held_micros, problems)

    # Renders

    def submit(self, asked: Submission, content: bytes = BUNDLE) -> Submitted:
        """Submit a bundle."""
        return self.do(self.renders.submit(asked, pieces(content)))

    def submitted(self, account_id: int, key: str = "", **more: Any) -> Render:
        """Submit a bundle; the render."""
        return self.submit(asked(account_id, key, **more)).render

    def refused(self, work: Coroutine[object, object, object]) -> Refusal:
        """The refusal that something gets."""
        with pytest.raises(Refusal) as raised:
            self.do(work)
        return raised.value

    def get(self, render: Render) -> Render:
        """A render now."""
        return self.do(self.renders.get(render.key))

    def cancel(self, render: Render) -> Render:
        """Stop a render."""
        return self.do(self.renders.cancel(render.key))

    def pass_time(self, micros: int) -> None:
        """Let time pass that the server is there for, and end what is due."""
        while micros > 0:
            self.clock.forward(min(micros, 5 * SECOND))
            micros -= 5 * SECOND
            self.do(self.renders.sweep())

    def files(self) -> set[str]:
        """What is in the store."""
        return {path.name for path in self.folder.iterdir()}

    def select(self, query: str) -> list[tuple[Any, ...]]:
        """Rows."""
        read = self.process.database.read_now
        return [tuple(row) for row in read(lambda connection: connection.execute(text(query)).all())]


class Hand:
    """A worker, and what it says."""

    def __init__(self, house: House, worker: Worker) -> None:
        self._house = house
        self.worker = worker

    def lease(self, key: str = "") -> Lease | None:
        """The oldest render that waits."""
        return self._house.do(self._house.renders.lease(self.worker, key or uuid.uuid4().hex, 0.0))

    def leased(self, key: str = "") -> Lease:
        """The oldest render that waits, of which there is one."""
        lease = self.lease(key)
        assert lease is not None
        return lease

    def beat(self, lease: Lease, frames: int) -> Beat:
        """Report frames."""
        return self._house.do(self.beating(lease, frames))

    def beating(self, lease: Lease, frames: int) -> Coroutine[Any, Any, Beat]:
        """The same, to be done with other things."""
        return self._house.renders.heartbeat(self.claim(lease), frames)

    def complete(self, lease: Lease, frames: int = 100, video: bytes = VIDEO) -> tuple[Render, bool]:
        """Deliver a video; the render, and whether it had been delivered before."""
        return self._house.do(self.completing(lease, frames, video))

    def completing(
        self, lease: Lease, frames: int = 100, video: bytes = VIDEO
    ) -> Coroutine[Any, Any, tuple[Render, bool]]:
        """The same, to be done with other things."""
        sha256 = hashlib.sha256(video).digest()
        return self._house.renders.complete(
            self.claim(lease), frames, pieces(video), size_bytes=len(video), sha256=sha256
        )

    def fail(self, lease: Lease, message: str = "it broke", *, handed_back: bool = False) -> Render:
        """Give a lease up."""
        return self._house.do(self.failing(lease, message, handed_back=handed_back))

    def failing(
        self, lease: Lease, message: str = "it broke", *, handed_back: bool = False
    ) -> Coroutine[Any, Any, Render]:
        """The same, to be done with other things."""
        return self._house.renders.give_up(self.claim(lease), message, handed_back=handed_back)

    def claim(self, lease: Lease) -> Claim:
        """A lease as this worker names it, whosever it is."""
        return lease.claim._replace(worker=self.worker.account_id)


def asked(account_id: int, key: str = "", content: bytes = BUNDLE, **more: Any) -> Submission:
    """A request for a render; `more` are fields of it, or of its spec."""
    of_spec = {name: more.pop(name) for name in more.keys() & set(Spec._fields)}
    fields: dict[str, Any] = {
        "idempotency_key": key or uuid.uuid4().hex,
        "bundle_bytes": len(content),
        "bundle_sha256": hashlib.sha256(content).digest(),
        "labels": {},
        **more,
    }
    return Submission(account_id=account_id, api_key_id="k", spec=SPEC._replace(**of_spec), **fields)


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    """Content, piece by piece."""
    for chunk in upload(content):
        yield chunk


def charged(frames: int) -> int:
    """What so many frames of SPEC cost."""
    return 2 * frames
