"""kill -9 at each step of a job: the next life, or the other replica, ends it; bought once, charged once."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import make_url, text

from oanim_server.database.engine import Database
from oanim_server.ledger import audit
from tests.generation.house import GRANT, PRICE, Fal, House, Rest, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHARGED = Rest(GRANT - PRICE, 0, [])
NOTHING = Rest(GRANT, 0, [])
SUCCEEDED = (4, "")
UNKNOWN = (5, "PROVIDER_UNKNOWN")
SUBMITTING, SUBMITTED, STORED = 2, 3, 4


class Scene:
    """A database with an account, servers on it that may be killed, and the one job that is looked at."""

    def __init__(self, dialect: str, where: str, fal: Fal, folder: Path, prompt: str) -> None:
        self.fal = fal
        self.prompt = prompt
        self.alone = dialect == "sqlite"
        self.where = where
        self._folder = folder
        self._arguments = [dialect, where, fal.url, str(folder)]

    def account(self) -> str:
        """An account to spend from, made by a server that is gone."""
        house = House(self._database(lock=True), self._folder, self.fal.url)
        account = house.account()
        house.close()
        return str(account)

    @contextmanager
    def server(self, *job: str, waits: bool = True) -> Iterator[subprocess.Popen[str]]:
        """A server process; with an account and prompts it begins generations. Killed at the end."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.generation.serving", *self._arguments, *job],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            for _ in job[1:] if waits else ():
                assert process.stdout.readline().startswith("accepted ")
            yield process
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def read(self, query: str) -> Any:
        """One row."""
        database = self._database()
        row = database.read_now(lambda connection: connection.execute(text(query)).one())
        database.close()
        return tuple(row)

    def value(self, query: str) -> Any:
        """One value."""
        return self.read(query)[0]

    def row(self, columns: str) -> Any:
        """Some columns of the job."""
        return self.read(f"SELECT {columns} FROM generations")

    def rest(self) -> Rest:
        """What is left."""
        balance, held = self.read("SELECT balance_micros, held_micros FROM wallets")
        database = self._database()
        problems = audit.audit(database).problems
        database.close()
        return Rest(balance, held, problems)

    def until_state(self, state: int) -> None:
        """Wait until the job stands there."""
        until(lambda: self.row("state") == (state,))

    def until_ended(self) -> tuple[tuple[int, str], Rest, list[int]]:
        """Wait for the end: how, what is left, and how often each job at the provider was submitted."""
        until(lambda: self.row("finished_at IS NOT NULL") in ((1,), (True,)))
        return self.row("state, failure_reason"), self.rest(), self.submits(self.prompt)

    def submits(self, prompt: str) -> list[int]:
        """How often each job about a prompt was submitted."""
        return [job["submits"] for job in self.fal.jobs(prompt)]

    @contextmanager
    def locked(self, table: str) -> Iterator[None]:
        """Nobody else may write the rows of a table until the block ends."""
        url = make_url(self.where)
        with psycopg.connect(
            host=str(url.query["host"]), user=url.username, dbname=url.database
        ) as connection:
            connection.execute(f"SELECT * FROM {table} FOR UPDATE")
            yield

    def _database(self, *, lock: bool = False) -> Database:
        if self.alone:
            return Database.open_sqlite(Path(self.where), lock=lock)
        return Database.open_postgresql(self.where, unsafe=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def scene(request: pytest.FixtureRequest, fal: Fal, tmp_path: Path, prompt: str) -> Scene:
    """One on each database."""
    where = request.getfixturevalue("sqlite_path" if request.param == "sqlite" else "postgresql_url")
    return Scene(request.param, str(where), fal, tmp_path, prompt)


@pytest.fixture
def replicated(postgresql_url: str, fal: Fal, tmp_path: Path, prompt: str) -> Scene:
    """One on PostgreSQL."""
    return Scene("postgresql", postgresql_url, fal, tmp_path, prompt)


@contextmanager
def killed_at(scene: Scene, arrive: Callable[[], None]) -> Iterator[None]:
    """One server begins the job and is killed when it has arrived; then another one is there.

    On PostgreSQL the other one is there all the time.
    """
    account = scene.account()
    with ExitStack() as others:
        if not scene.alone:
            others.enter_context(scene.server())
        with scene.server(account, scene.prompt) as process:
            arrive()
            process.kill()
            process.wait()
        if scene.alone:
            others.enter_context(scene.server())
        yield


def test_killed_while_it_waits_to_submit_again(scene: Scene) -> None:
    scene.fal.told(scene.prompt, "submit", "429", seconds=3)
    with killed_at(scene, lambda: until(lambda: scene.row("not_before")[0] > 0)):
        assert scene.until_ended() == (SUCCEEDED, CHARGED, [2])


def test_killed_while_the_submit_is_not_answered(scene: Scene) -> None:
    scene.fal.told(scene.prompt, "submit", "hang")
    with killed_at(scene, lambda: scene.fal.until_accepted(scene.prompt)):
        assert scene.until_ended() == (UNKNOWN, NOTHING, [1])


def test_killed_while_the_provider_queues_it(scene: Scene) -> None:
    scene.fal.told(scene.prompt, "submit", "queue", seconds=None)
    with killed_at(scene, lambda: scene.until_state(SUBMITTED)):
        scene.fal.forgive()
        assert scene.until_ended() == (SUCCEEDED, CHARGED, [1])


@pytest.mark.parametrize("at", ["status", "result"])
def test_killed_while_a_question_is_not_answered(scene: Scene, at: str) -> None:
    scene.fal.told(scene.prompt, at, "hang")

    def arrive() -> None:
        scene.until_state(SUBMITTED)
        until(lambda: scene.fal.jobs(scene.prompt)[0]["status"] == "COMPLETED")
        # Nothing says that the question has arrived; killed before, it was not asked, and the same holds.
        time.sleep(0.5)

    with killed_at(scene, arrive):
        scene.fal.forgive()
        assert scene.until_ended() == (SUCCEEDED, CHARGED, [1])


def test_killed_between_the_answer_to_the_submit_and_its_writing(replicated: Scene) -> None:
    scene = replicated
    scene.fal.told(scene.prompt, "submit", "late", seconds=1)
    with ExitStack() as lock:

        def arrive() -> None:
            scene.until_state(SUBMITTING)
            scene.fal.until_accepted(scene.prompt)
            lock.enter_context(scene.locked("generations"))
            until(lambda: scene.fal.jobs(scene.prompt)[0]["status"] == "COMPLETED")

        with killed_at(scene, arrive):
            lock.close()
            assert scene.until_ended() == (UNKNOWN, NOTHING, [1])


def test_killed_between_the_outcome_and_its_settlement(replicated: Scene) -> None:
    scene = replicated
    scene.fal.told(scene.prompt, "submit", "queue", seconds=None)
    with ExitStack() as lock:

        def arrive() -> None:
            scene.until_state(SUBMITTED)
            lock.enter_context(scene.locked("wallets"))
            scene.fal.forgive()
            scene.until_state(STORED)

        with killed_at(scene, arrive):
            lock.close()
            assert scene.until_ended() == (SUCCEEDED, CHARGED, [1])


def test_a_lock_on_the_wallet_only_delays_the_settlement(replicated: Scene) -> None:
    scene = replicated
    scene.fal.told(scene.prompt, "submit", "queue", seconds=None)
    account = scene.account()
    with scene.server(account, scene.prompt):
        scene.until_state(SUBMITTED)
        with scene.locked("wallets"):
            scene.fal.forgive()
            scene.until_state(STORED)
            assert scene.row("finished_at IS NULL") == (True,)
        assert scene.until_ended() == (SUCCEEDED, CHARGED, [1])


@pytest.mark.torture
def test_servers_that_are_killed_again_and_again_buy_and_charge_everything_once(replicated: Scene) -> None:
    scene = replicated
    chance = random.Random(7)
    account = scene.account()
    prompts = [f"{scene.prompt} {number}" for number in range(60)]
    scene.fal.told(scene.prompt, "status", "drop_before", times=30)
    scene.fal.told(scene.prompt, "submit", "429", times=10, seconds=0.5)
    for turn in range(12):
        begun = prompts[: 5 * (turn + 1)]
        with scene.server(account, *begun, waits=False), scene.server(account, *begun, waits=False):
            time.sleep(chance.uniform(0.05, 1.5))
    with scene.server(account, *prompts):
        until(lambda: scene.value("SELECT count(*) FROM generations WHERE finished_at IS NULL") == 0)
    total = scene.value("SELECT count(*) FROM generations")
    made = scene.value("SELECT count(*) FROM generations WHERE state = 4")
    bought = [len(scene.submits(prompt)) for prompt in prompts]
    assert (total, max(bought)) == (60, 1)
    assert sum(bought) >= made
    assert scene.rest() == Rest(GRANT - PRICE * made, 0, [])
