"""A server's generations inside the test's process: real ledger, real database, a real sandbox beside it.

Jobs are worked on while something is done on the event loop, as they are while a server runs.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import pytest
from sqlalchemy import func, select, text

from oanim_models import catalogue
from oanim_models.fal import FalQueue
from oanim_server.database.tables import generations
from oanim_server.generation.generations import Generations
from oanim_server.generation.values import TIMES, Accepted, Asked, Ended, Event, Generation, Times
from oanim_server.ledger import audit
from oanim_server.ledger.ids import new_account_id
from oanim_server.ledger.ledger import Ledger
from oanim_server.ledger.operations import OpenWallet
from oanim_server.ledger.refusals import Refusal
from oanim_server.ledger.values import SERVER, WalletFacts
from oanim_server.pricing.prices import Prices
from tests import loopback
from tests.ledger.driving import open_account

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

    from sqlalchemy import Connection

    from oanim_server.database.engine import Database

T = TypeVar("T")

KEY = "0123-id:very-secret"
MODEL = "fal-ai/flux/schnell"
PRICE = 3_000
GRANT = 5_000_000
SMALL = {"image_size": {"width": 16, "height": 16}}
SECONDS = 60.0
# No provider listens there.
NOBODY = "http://127.0.0.1:9"


class Fal:
    """The sandbox as a test sees it: what it is told to do wrong, and what it was asked for."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = loopback.client(base_url=url, timeout=SECONDS)

    def close(self) -> None:
        """Hang up."""
        self.http.close()

    def told(self, prompt: str, at: str, do: str, **more: object) -> None:
        """Have something go wrong about a prompt."""
        fault = {"at": at, "do": do, "match": prompt, **more}
        self.http.post("/sandbox/faults", json=fault).raise_for_status()

    def forgive(self) -> None:
        """Have nothing go wrong any more, and let what queues go on."""
        self.http.delete("/sandbox/faults").raise_for_status()

    def jobs(self, prompt: str) -> list[dict[str, Any]]:
        """The accepted jobs about a prompt."""
        jobs: list[dict[str, Any]] = self.http.get("/sandbox/jobs").json()["jobs"]
        return [job for job in jobs if job["input"].get("prompt") == prompt]

    def posts(self) -> int:
        """How many POSTs arrived in all."""
        count: int = self.http.get("/sandbox/jobs").json()["submits"]
        return count

    def until_accepted(self, prompt: str) -> None:
        """Wait until a job about a prompt is there."""
        until(lambda: bool(self.jobs(prompt)))


class Rest(NamedTuple):
    """What a wallet is left with when nothing runs any more, and what the audit finds."""

    balance_micros: int
    held_micros: int
    problems: list[str]


class House:
    """One server process: what it has, and an event loop to run it on."""

    def __init__(
        self,
        database: Database,
        folder: Path,
        url: str | None,
        *,
        limit: int = 20,
        times: Times = TIMES,
        hosts: tuple[str, ...] = ("fal.media",),
        answer_timeout_s: float = 2.0,
    ) -> None:
        self.database = database
        self._loops = asyncio.Runner()
        self.ledger = Ledger(database)
        self.prices = Prices(database, self.ledger)

        async def start() -> None:
            self.ledger.start(sweep=False)
            await self.prices.publish_file(catalogue.load())
            self.queue = (
                FalQueue(key=KEY, url=url, connect_timeout_s=1.0, answer_timeout_s=answer_timeout_s)
                if url
                else None
            )
            self.generations = Generations(
                database,
                self.ledger,
                self.prices,
                self.queue,
                uploads_folder=folder / "uploads",
                output_hosts=hosts,
                provider_url=url or NOBODY,
                limit=limit,
                times=times,
            )
            await self.generations.start()

        self._loops.run(start())

    def do(self, work: Coroutine[object, object, T]) -> T:
        """Have work done on the event loop, within a time."""
        return self._loops.run(asyncio.wait_for(work, SECONDS))

    def close(self, *, grace_seconds: float = 1.0) -> None:
        async def stop() -> None:
            await self.generations.stop(grace_seconds)
            if self.queue:
                await self.queue.aclose()
            await self.ledger.stop()

        self._loops.run(stop())
        self._loops.close()
        self.database.close()

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

    def wallet(self, account_id: int) -> WalletFacts:
        """The account's wallet now."""
        return self.do(self.ledger.wallet(account_id))

    def at_rest(self, account_id: int) -> Rest:
        """Wait until nothing runs, and look what is left."""
        self.until(_none_running)
        wallet = self.wallet(account_id)
        return Rest(wallet.balance_micros, wallet.held_micros, audit.audit(self.database).problems)

    # Generations

    def generate(self, account_id: int, prompt: str, key: str = "", **more: Any) -> Accepted:
        """Ask for a picture."""
        return self.do(self.generations.generate(asked(account_id, prompt, key, **more)))

    def refused(self, account_id: int, prompt: str, key: str = "", **more: Any) -> Refusal:
        """The refusal that asking for a picture gets."""
        with pytest.raises(Refusal) as raised:
            self.generate(account_id, prompt, key, **more)
        return raised.value

    def followed(self, generation: Generation) -> list[Event]:
        """What happens to a generation, to its end."""

        async def followed() -> list[Event]:
            async with aclosing(self.generations.follow(generation)) as events:
                return [event async for event in events]

        return self.do(followed())

    def ended(self, generation: Generation) -> Generation:
        """A generation when it has ended."""
        last = self.followed(generation)[-1]
        assert isinstance(last, Ended)
        return last.generation

    def made(self, account_id: int, prompt: str, key: str = "", **more: Any) -> Generation:
        """Ask for a picture, and see it end."""
        return self.ended(self.generate(account_id, prompt, key, **more).generation)

    def reached(self, generation: Generation, column: str, value: object) -> None:
        """Work until a column of a job has a value."""
        where = {"w": generation.wallet_id, "n": generation.number}
        query = text(f"SELECT {column} FROM generations WHERE wallet_id = :w AND number = :n")
        self.until(lambda connection: connection.execute(query, where).scalar() == value)

    def until_it_waits(self, generation: Generation) -> None:
        """Work until a job waits for its next attempt."""
        query = text("SELECT not_before FROM generations WHERE wallet_id = :w AND number = :n")
        where = {"w": generation.wallet_id, "n": generation.number}
        self.until(lambda connection: connection.execute(query, where).scalar_one() > 0)

    def until(self, condition: Callable[[Connection], bool]) -> None:
        """Work until something is so in the database."""

        async def come_about() -> None:
            while not await self.database.read(condition):  # noqa: ASYNC110 - what is waited for is a row
                await asyncio.sleep(0.01)

        self.do(come_about())

    # Files

    def upload(self, account_id: int, content: bytes, chunk_bytes: int = 1 << 18) -> str:
        """Upload a picture; its id."""
        return self.do(self.generations.receive(account_id, chunks(content, chunk_bytes))).upload_id

    def downloaded(self, generation: Generation, index: int = 0) -> tuple[str, int, bytes]:
        """An output whole, with the media type and the length it was announced with."""

        async def read() -> tuple[str, int, bytes]:
            pieces = self.generations.read_output(generation.wallet_id, generation.number, index)
            found = [piece async for piece in pieces]
            return found[0].content_type, found[0].size_bytes, b"".join(piece.chunk for piece in found)

        return self.do(read())


def asked(account_id: int, prompt: str, key: str = "", **more: Any) -> Asked:
    """A request for a picture; `more` are fields of the request, or of the input."""
    known = {"model": MODEL, "labels": {}, "spend_scopes": (), "input_json": None, **more}
    fields = {name: known.pop(name) for name in ("model", "labels", "spend_scopes", "input_json")}
    fields["input_json"] = fields["input_json"] or json.dumps({"prompt": prompt, **SMALL, **known})
    return Asked(account_id=account_id, api_key_id="k", idempotency_key=key or uuid.uuid4().hex, **fields)


async def chunks(content: bytes, size: int) -> AsyncIterator[bytes]:
    """Content, piece by piece."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


def until(condition: Any) -> None:
    """Wait until something is so; a test does not go on otherwise."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


def _none_running(connection: Connection) -> bool:
    unfinished = select(func.count()).select_from(generations).where(generations.c.finished_at.is_(None))
    return connection.execute(unfinished).scalar_one() == 0
