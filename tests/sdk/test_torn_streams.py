"""Meter and StreamUsage over connections that are cut at random: exactly one effect each."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from oanim.aio import AsyncClient
from oanim.client import Client
from openanimate.metering.v1.role_pb2 import ROLE_SERVICE
from openanimate.metering.v1.wallet_service_pb2 import TransactionKind
from tests.rpc.conftest import MANY_SIGN_UPS, postgresql_settings
from tests.sdk.cutting import Cutter
from tests.server import spawned

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oanim.aio_streams import AsyncMeterStream, AsyncUsageStream
    from oanim.streams import MeterStream, UsageStream
    from tests.server import ServerProcess, User

FREE_MICROS = 5_000_000
# $0.003 an image.
MODEL, PRICE_MICROS = "fal-ai/flux/schnell", 3_000
ACCOUNTS = 16
# Of four jobs, three are two operations of Meter each, and one is an event of StreamUsage.
METERED_OF_FOUR_JOBS = 6


class Served:
    """A server in a process of its own, its environment, and who is charged."""

    def __init__(self, server: ServerProcess, environment: dict[str, str]) -> None:
        self.server = server
        self.environment = environment
        self.service: User = server.create_key(ROLE_SERVICE)
        self.users = [server.sign_up() for _ in range(ACCOUNTS)]

    def audit(self) -> None:
        """Run `oanim-server audit`."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("OANIM_")}
        command = [sys.executable, "-m", "oanim_server", "audit"]
        finished = subprocess.run(
            command, env={**inherited, **self.environment}, capture_output=True, text=True, check=False
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.fixture(params=["sqlite", "postgresql"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The settings of a server on each database."""
    settings = {"OANIM_DATA": str(tmp_path), "OANIM_SERVICE_OPERATIONS_PER_SECOND": "1000000"}
    if request.param == "sqlite":
        yield settings | MANY_SIGN_UPS
        return
    with postgresql_settings(request.getfixturevalue("postgresql_cluster")) as found:
        yield settings | found


@pytest.fixture
def served(environment: dict[str, str], tmp_path: Path) -> Iterator[Served]:
    """A server on each database, in a process of its own."""
    with spawned(environment, tmp_path / "log") as server:
        yield Served(server, environment)


class Expected:
    """What each account's journal has to say in the end, and how often an answer was a repetition's."""

    def __init__(self) -> None:
        self.rows: Counter[tuple[str, int]] = Counter()
        self.charged: Counter[str] = Counter()
        self.replayed = 0

    def note(self, account_id: str, kind: TransactionKind.ValueType, answer: Any, charged: int = 0) -> None:
        """An operation was answered."""
        self.rows[account_id, kind] += 1
        self.charged[account_id] += charged
        self.replayed += answer.replayed

    def compare(self, served: Served) -> None:
        """Read every journal, row by row."""
        held: Counter[str] = Counter()
        ended: Counter[str] = Counter()
        rows: Counter[tuple[str, int]] = Counter()
        with Client(served.service.token, url=f"http://{served.server.address}") as client:
            for user in served.users:
                wallet = client.get_wallet(account_id=user.account_id).wallet
                left = FREE_MICROS - self.charged[user.account_id]
                assert (wallet.balance_micros, wallet.held_micros) == (left, 0)
                for row in statement(client, user.account_id):
                    rows[user.account_id, row.kind] += 1
                    if row.reservation_id:
                        is_reserve = row.kind == TransactionKind.TRANSACTION_KIND_RESERVE
                        (held if is_reserve else ended)[row.reservation_id] += 1
                rows[user.account_id, TransactionKind.TRANSACTION_KIND_SIGN_UP_GRANT] -= 1
        assert +rows == self.rows
        assert set(held.values()) == set(ended.values()) == {1}
        assert held == ended
        served.audit()


def statement(client: Client, account_id: str) -> Iterator[Any]:
    """Every row of an account's journal."""
    token = ""
    while True:
        page = client.list_transactions(account_id=account_id, page_size=1_000, page_token=token)
        yield from page.transactions
        token = page.next_page_token
        if not token:
            return


RESERVE = TransactionKind.TRANSACTION_KIND_RESERVE
CAPTURE = TransactionKind.TRANSACTION_KIND_CAPTURE
RELEASE = TransactionKind.TRANSACTION_KIND_RELEASE
USAGE = TransactionKind.TRANSACTION_KIND_USAGE


async def job(
    n: int, account_id: str, meter: AsyncMeterStream, usage: AsyncUsageStream, expected: Expected
) -> None:
    """One of four: charge by the key without waiting, charge by the id, release, or an event."""
    if n % 4 == 3:
        used = await usage.event(account_id=account_id, event_id=f"event {n}", model=MODEL, quantity=1)
        assert used.uncollected_micros == 0
        expected.note(account_id, USAGE, used, PRICE_MICROS)
        return
    key, micros = f"job {n}", 1 + n % 50
    reserving = asyncio.ensure_future(
        meter.reserve(account_id=account_id, idempotency_key=key, amount_micros=micros)
    )
    if n % 4 == 0:
        await asyncio.sleep(0)  # so that it is asked for before what names it
        charged = await meter.commit(reserve_key=key, account_id=account_id, amount_micros=micros - 1)
        held = await reserving
    else:
        held = await reserving
        reservation_id = held.reservation.reservation_id
        if n % 4 == 1:
            charged = await meter.commit(reservation_id=reservation_id, amount_micros=micros - 1)
        else:
            freed = await meter.release(reservation_id=reservation_id)
            expected.note(account_id, RESERVE, held)
            expected.note(account_id, RELEASE, freed)
            return
    assert charged.reservation.reservation_id == held.reservation.reservation_id
    expected.note(account_id, RESERVE, held)
    expected.note(account_id, CAPTURE, charged, micros - 1)


async def run(served: Served, url: str, expected: Expected, *, jobs: int, callers: int) -> None:
    """Do so many jobs, over one stream of each method."""
    numbers = iter(range(jobs))

    async def caller() -> None:
        for n in numbers:
            await job(n, served.users[n // 4 % ACCOUNTS].account_id, meter, usage, expected)

    client = AsyncClient(served.service.token, url=url, timeout_s=120)
    async with client, client.meter() as meter, client.stream_usage() as usage:
        await asyncio.gather(*(caller() for _ in range(callers)))


def torn(served: Served, *, jobs: int, callers: int, most_bytes: int, cuts: int) -> None:
    """Do the jobs through a proxy that cuts, and read what became of them."""
    expected = Expected()
    with Cutter(served.server.port, most_bytes=most_bytes, seed=jobs) as cutter:
        asyncio.run(run(served, cutter.url, expected, jobs=jobs, callers=callers))
    assert cutter.cuts >= cuts
    assert expected.replayed > 0
    expected.compare(served)


def test_every_operation_over_torn_connections_has_one_effect(served: Served) -> None:
    torn(served, jobs=2_000, callers=400, most_bytes=200_000, cuts=5)


@pytest.mark.torture
def test_a_hundred_thousand_operations_over_torn_connections_have_one_effect_each(served: Served) -> None:
    jobs = 4 * 100_000 // METERED_OF_FOUR_JOBS + 4
    torn(served, jobs=jobs, callers=6_000, most_bytes=2_000_000, cuts=20)


def test_what_a_full_server_refuses_for_a_while_is_done_in_the_end(tmp_path: Path) -> None:
    environment = {"OANIM_DATA": str(tmp_path), "OANIM_QUEUE": "100", **MANY_SIGN_UPS}
    with spawned(environment, tmp_path / "log") as server:
        served = Served(server, environment)
        expected = Expected()
        asyncio.run(run(served, f"http://{server.address}", expected, jobs=240, callers=240))
        expected.compare(served)


def test_a_server_that_is_killed_and_comes_back_goes_on_where_it_was(
    environment: dict[str, str], tmp_path: Path, free_port: int
) -> None:
    environment |= {"OANIM_PORT": str(free_port)}
    expected = Expected()
    with ExitStack() as servers:
        first = servers.enter_context(spawned(environment, tmp_path / "log"))
        served = Served(first, environment)
        url = f"http://{first.address}"
        work = threading.Thread(
            target=lambda: asyncio.run(run(served, url, expected, jobs=4_000, callers=1_000))
        )
        work.start()
        for n in range(3):
            while expected.rows.total() < 1_500 * (n + 1):
                time.sleep(0.01)
                assert work.is_alive()
            served.server.kill()
            served.server = servers.enter_context(spawned(environment, tmp_path / f"log{n}"))
        work.join()
        expected.compare(served)


def test_threads_over_torn_connections_have_one_effect_each(served: Served) -> None:
    expected, lock = Expected(), threading.Lock()
    numbers = iter(range(600))

    def caller(meter: MeterStream, usage: UsageStream) -> None:
        while True:
            with lock:
                n = next(numbers, None)
            if n is None:
                return
            account_id = served.users[n % ACCOUNTS].account_id
            held = meter.reserve(account_id=account_id, amount_micros=5)
            charged = meter.commit(reservation_id=held.reservation.reservation_id, amount_micros=3)
            used = usage.event(account_id=account_id, event_id=f"event {n}", model=MODEL, quantity=1)
            with lock:
                expected.note(account_id, RESERVE, held)
                expected.note(account_id, CAPTURE, charged, 3)
                expected.note(account_id, USAGE, used, PRICE_MICROS)

    with Cutter(served.server.port, most_bytes=60_000, seed=3) as cutter:
        client = Client(served.service.token, url=cutter.url, timeout_s=60)
        with client, client.meter() as meter, client.stream_usage() as usage:
            threads = [threading.Thread(target=caller, args=(meter, usage)) for _ in range(32)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert cutter.cuts >= 3
    assert expected.replayed > 0
    expected.compare(served)
