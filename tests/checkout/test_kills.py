"""kill -9 between any two steps of a purchase and its refunds: the next life ends them, each once."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from oanim_server.checkout.values import Purchase, Standing, State
from oanim_server.database.engine import Database
from oanim_server.web.webhook import PATH
from tests.checkout.house import SIGNING, USD, House, Rest, Shop, Till
from tests.checkout.serving import STEPS

if TYPE_CHECKING:
    from collections.abc import Callable

# Fifty-five, less a refund of twenty at Stripe and one of ten by the operator.
LEFT = Rest(22 * USD, 0, 0, [])
# One of each kind in every run; all of them on both databases as torture.
ON_SQLITE = ["page after", "credit after", "answer before"]
ON_POSTGRESQL = ["add after", "credit before", "refund after"]


class KilledError(Exception):
    """The process has ended, and has not answered."""


class Process:
    """A server that may end at any step."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.checkout.serving", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert self.answer() == ["ready"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def kill(self) -> None:
        """Kill it, whatever it does."""
        self._process.kill()

    def answer(self) -> list[Any]:
        """What it says next."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            assert self._process.wait() == -signal.SIGKILL
            raise KilledError
        found: list[Any] = json.loads(line)
        return found

    def ask(self, *words: object) -> list[Any]:
        """Have it do something."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{json.dumps(words)}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise KilledError from None
        return self.answer()

    def ended(self) -> bool:
        """Whether it is gone."""
        return self._process.poll() is not None


class Scene:
    """A database with an account, a port, and the servers that live there one after the other."""

    def __init__(self, dialect: str, where: str, till: Till, port: int) -> None:
        self.till = till
        self._dialect = dialect
        self._where = where
        self._port = port
        with_house = self.house()
        self.account = with_house.account()
        with_house.close()
        url = f"http://127.0.0.1:{port}{PATH}"
        till.tell("webhooks", endpoints=[{"url": url, "secrets": [SIGNING], "types": ["*"]}])

    def process(self, *step: str) -> Process:
        """A server of its own."""
        return Process(self._dialect, self._where, self.till.url, str(self._port), *step)

    def house(self) -> House:
        """A server in this process."""
        if self._dialect == "sqlite":
            database = Database.open_sqlite(Path(self._where))
        else:
            database = Database.open_postgresql(self._where, unsafe=True)
        return House(self.till, Shop(database, self.till.url, port=self._port))

    def lives(self, step: str) -> tuple[int, Rest]:
        """A purchase and its refunds, killed once; how often it was, and what is left."""
        # The second life goes on wherever the first one ended: every step is repeated under its own key.
        killed = 0
        with self.process(step) as first:
            purchase: Purchase | None = None
            try:
                purchase = Purchase(*first.ask("buy", self.account, "key"))
                self.pay(purchase)
                self.delivered(first)
                first.ask("refund", self.account, purchase.token, "refund")
                self.delivered(first)
            except KilledError:
                killed = 1
        second = self.house()
        try:
            again = second.buy(self.account, 50, "key")
            if purchase is None:
                self.pay(again)
            second.delivered()
            second.refund(again, 10, "refund")
            second.delivered()
            second.poll()
            return killed, self.settled(second, again)
        finally:
            second.close()

    def pay(self, purchase: Purchase) -> None:
        """The customer pays, and is given back twenty; of that the server is told first."""
        self.till.deliver(paused=True)
        self.till.pay(purchase)
        self.till.tell("refunds", of=purchase.session_id, amount=2_000)
        self.till.tell("queue", do="reverse")
        self.till.deliver()

    def delivered(self, server: Process) -> None:
        """Wait until it was told everything, or is gone."""
        while self.till.waiting(0.1):
            if server.ended():
                raise KilledError
        if server.ended():
            raise KilledError

    def settled(self, house: House, purchase: Purchase) -> Rest:
        """What is left, when all is as it should be besides."""
        assert house.now(purchase).state is State.PAID
        assert len(self.till.all("sessions")) == 1
        assert sorted(refund["amount"] for refund in self.till.all("refunds")) == [1_000, 2_000]
        assert set(house.standings()) == {Standing.APPLIED.name}
        told = self.till.events()
        assert sorted(row[0] for row in house.inbox("event_id")) == sorted(one.event_id for one in told)
        assert house.select("SELECT DISTINCT state FROM refund_requests") == [("succeeded",)]
        return house.rest(self.account)


@pytest.fixture
def on(request: pytest.FixtureRequest, till: Till, free_port: int) -> Callable[[str], Scene]:
    """Scenes on a database."""

    def on_one(dialect: str) -> Scene:
        where = request.getfixturevalue("sqlite_path" if dialect == "sqlite" else "postgresql_url")
        return Scene(dialect, str(where), till, free_port)

    return on_one


@pytest.mark.parametrize("step", ON_SQLITE)
def test_killed_at_a_step_on_sqlite_the_next_life_ends_it(on: Callable[[str], Scene], step: str) -> None:
    assert on("sqlite").lives(step) == (1, LEFT)


@pytest.mark.parametrize("step", ON_POSTGRESQL)
def test_killed_at_a_step_on_postgresql_the_next_life_ends_it(on: Callable[[str], Scene], step: str) -> None:
    assert on("postgresql").lives(step) == (1, LEFT)


@pytest.mark.torture
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_the_next_life_ends_it(
    on: Callable[[str], Scene], dialect: str, step: str
) -> None:
    assert on(dialect).lives(step) == (1, LEFT)


@pytest.mark.torture
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_killed_again_and_again_at_any_time_everything_is_credited_and_refunded_once(
    on: Callable[[str], Scene], dialect: str
) -> None:
    scene = on(dialect)
    chance = random.Random(8)
    done: set[str] = set()
    paid: set[str] = set()
    names = [f"key {number}" for number in range(12)]
    while len(done) < len(names):
        with scene.process() as server:
            timer = threading.Timer(chance.uniform(0.2, 2.5), server.kill)
            timer.start()
            try:
                for name in names:
                    if name in done:
                        continue
                    purchase = Purchase(*server.ask("buy", scene.account, name))
                    if name not in paid:
                        paid.add(name)
                        scene.pay(purchase)
                    scene.delivered(server)
                    server.ask("refund", scene.account, purchase.token, f"refund of {name}")
                    done.add(name)
            except KilledError:
                time.sleep(0.1)
            finally:
                timer.cancel()
    last = scene.house()
    try:
        last.delivered()
        last.poll()
        last.delivered()
        assert last.rest(scene.account) == Rest(22 * USD * len(names), 0, 0, [])
        assert len(scene.till.all("sessions")) == len(names)
        assert len(scene.till.all("refunds")) == 2 * len(names)
        assert set(last.standings()) == {Standing.APPLIED.name}
    finally:
        last.close()
