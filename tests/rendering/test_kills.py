"""kill -9 between any two steps of a render: the next life ends it, its frames are charged once."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import grpc
import pytest

from oanim_server.database.engine import Database
from oanim_server.ledger.audit import audit
from oanim_server.ledger.ids import account_id, reservation_id
from oanim_server.rendering.sweeping import ORPHAN_SECONDS
from openanimate.metering.v1 import render_service_pb2 as pb
from openanimate.metering.v1 import wallet_service_pb2 as wallet
from openanimate.metering.v1.role_pb2 import ROLE_WORKER
from tests.generation.house import until
from tests.ledger.driving import Clock
from tests.rendering.asking import VIDEO, Farm, Owner, submission
from tests.rendering.house import House, Process, charged
from tests.rendering.living import add_up
from tests.rendering.storming import Servers, storm
from tests.server import spawned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.server import ServerProcess

T = TypeVar("T")

FREE = 5_000_000
# What a worker holds beside the render.
ASIDE = 1_000


def age(folder: Path) -> None:
    """Have all files be as old as those that nobody can be about to write a row for."""
    old = time.time() - ORPHAN_SECONDS - 1
    for path in folder.iterdir():
        os.utime(path, (old, old))


class End(NamedTuple):
    """How a render ended, what is left of the money, what the audit finds, and what is in the store."""

    state: pb.RenderState.ValueType
    charged_micros: int
    balance_micros: int
    held_micros: int
    problems: list[str]
    files: int


class Lives:
    """A database, and the servers that live there one after the other: the first one up to a step."""

    def __init__(self, dialect: str, where: str, folder: Path, step: str) -> None:
        self.folder = folder
        self.alone = dialect == "sqlite"
        self.where = where
        self.environment = {"OANIM_DATA": str(folder / "data")}
        if not self.alone:
            self.environment |= {"OANIM_DATABASE_URL": where, "OANIM_POSTGRESQL_UNSAFE": "1"}
        self.deaths = 0
        self._stack = ExitStack()
        self.server = self._begin(step)
        self.user = self.server.sign_up()
        self.workers = [self.server.create_key(ROLE_WORKER, f"worker {number}") for number in range(2)]

    def _begin(self, step: str) -> ServerProcess:
        log = self.folder / f"life {self.deaths}.log"
        return self._stack.enter_context(
            spawned(self.environment, log, program=("tests.rendering.serving", step))
        )

    def close(self) -> None:
        self._stack.close()

    def ask(self, call: Callable[[], T]) -> T:
        """Make a call, and again in the next life when the server died of it."""
        try:
            return call()
        except grpc.RpcError:
            if not self.dead():
                raise
        self.deaths += 1
        self.server = self._begin("none")
        return call()

    def dead(self) -> bool:
        """Whether the server is gone; one that is killed is so within a moment."""
        try:
            self.server.process.wait(2)
        except TimeoutError:
            return False
        except Exception:  # noqa: BLE001 - subprocess has its own
            return False
        return True

    @property
    def owner(self) -> Owner:
        """The user's calls, in the present life."""
        return Owner(self.server.channel, self.user)

    def farm(self, number: int = 0) -> Farm:
        """A worker's calls, in the present life."""
        return Farm(self.server.channel, self.workers[number])

    def end(self, render_id: str) -> End:
        """How it ended, after the last life, and what a sweep leaves of the files."""
        found = self.owner.get(render_id)
        until(lambda: self.owner.money()[1] == 0)
        money = self.owner.money()
        self.server.terminate()
        database = self._database()
        problems = audit(database).problems
        process = Process(database, self.folder / "data" / "renders", None)
        age(process.store.folder)
        process.do(process.renders.sweep_files())
        files = len(list(process.store.folder.iterdir()))
        process.close()
        return End(found.state, found.charged_micros, *money, problems, files)

    def _database(self) -> Database:
        if self.alone:
            return Database.open_sqlite(self.folder / "data" / "oanim.db")
        return Database.open_postgresql(self.where, unsafe=True)


@pytest.fixture
def lives(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str, str], Lives]]:
    """Lives on a database, of which the first one ends at a step."""
    begun: list[Lives] = []

    def begin(dialect: str, step: str) -> Lives:
        where = request.getfixturevalue("postgresql_url") if dialect == "postgresql" else ""
        begun.append(Lives(dialect, where, tmp_path, step))
        return begun[0]

    yield begin
    for one in begun:
        one.close()


def completed(one: Lives) -> End:
    """A render that a worker completes, with something held aside; each call is made until it is answered."""
    asked = submission("submit")
    render = one.ask(lambda: one.owner.submit(asked)).render
    lease = one.ask(lambda: one.farm().lease("lease"))
    assert lease.render_id == render.render_id
    hold = wallet.ReserveRequest(
        amount_micros=ASIDE, idempotency_key="hold", render_id=lease.render_id, epoch=lease.epoch
    )
    one.ask(lambda: one.farm()(one.farm().wallet.Reserve, hold))
    for frames in (30, 70, 70):
        one.ask(lambda frames=frames: one.farm().beat(lease, frames))  # type: ignore[misc]
    one.ask(lambda: one.farm().complete(lease, 50))
    assert one.ask(lambda: one.owner.downloaded(render.render_id))[3] == VIDEO
    return one.end(render.render_id)


def cancelled(one: Lives) -> End:
    """A render that is cancelled while it is rendered."""
    asked = submission("submit")
    render = one.ask(lambda: one.owner.submit(asked)).render
    lease = one.ask(lambda: one.farm().lease("lease"))
    one.ask(lambda: one.farm().beat(lease, 40))
    one.ask(lambda: one.owner.cancel(render.render_id))
    assert one.ask(lambda: one.farm().beat(lease, 60)).stop
    return one.end(render.render_id)


def failed(one: Lives) -> End:
    """A render that is handed back once and fails three times."""
    asked = submission("submit")
    render = one.ask(lambda: one.owner.submit(asked)).render
    for number in range(4):
        lease = one.ask(lambda number=number: one.farm().lease(f"lease {number}"))  # type: ignore[misc]
        one.ask(lambda lease=lease: one.farm().beat(lease, 90))  # type: ignore[misc]
        back = number == 0
        one.ask(lambda lease=lease, back=back: one.farm().fail(lease, handed_back=back))  # type: ignore[misc]
    return one.end(render.render_id)


def lost(one: Lives) -> End:
    """A render whose first worker is lost, and whose second one completes it."""
    asked = submission("submit")
    render = one.ask(lambda: one.owner.submit(asked)).render
    lease = one.ask(lambda: one.farm(0).lease("lease"))
    one.ask(lambda: one.farm(0).beat(lease, 70))
    again = pb.RenderLease()
    while not again.render_id:
        again = one.ask(lambda: one.farm(1).lease("again", wait_seconds=5))
    assert again.epoch == 2
    one.ask(lambda: one.farm(1).complete(again, 50))
    assert one.farm(0).complete_refused(lease, 100).reason == "STALE_LEASE"
    return one.end(render.render_id)


DONE = End(pb.RENDER_STATE_SUCCEEDED, charged(70), FREE - charged(70), 0, [], 1)
CANCELLED = End(pb.RENDER_STATE_CANCELLED, charged(40), FREE - charged(40), 0, [], 0)
FAILED = End(pb.RENDER_STATE_FAILED, 0, FREE, 0, [], 0)

Story = tuple["Callable[[Lives], End]", End]
STORIES: dict[str, Story] = {
    "completed": (completed, DONE),
    "cancelled": (cancelled, CANCELLED),
    "failed": (failed, FAILED),
    "lost": (lost, DONE),
}
STEPS = [
    ("completed", f"{what} {when} {count}")
    for what, counts in {
        "open": 2,
        "flush": 2,
        "keep": 2,
        "check": 1,
        "add": 1,
        "take": 1,
        "hold": 1,
        "renew": 2,
        "finish": 1,
        "remove": 1,
        "release": 1,
    }.items()
    for when in ("before", "after")
    for count in range(1, counts + 1)
]
STEPS += [("cancelled", f"{what} {when} 1") for what in ("finish", "remove") for when in ("before", "after")]
STEPS += [
    ("failed", f"{what} {when} {count}")
    for what, counts in {"give up": 3, "take": 4, "finish": 1}.items()
    for when in ("before", "after")
    for count in range(1, counts + 1)
]
STEPS += [("lost", f"{what} {when} 1") for what in ("sweep", "finish") for when in ("before", "after")]
# Some in every run; all of them on both databases as torture.
ON_SQLITE = [
    ("completed", "keep after 1"),
    ("completed", "add after 1"),
    ("completed", "finish after 1"),
    ("failed", "finish after 1"),
]
ON_POSTGRESQL = [
    ("completed", "keep after 2"),
    ("completed", "finish before 1"),
    ("completed", "renew after 1"),
    ("cancelled", "finish after 1"),
    ("lost", "sweep after 1"),
]


def told(lives: Callable[[str, str], Lives], dialect: str, story: str, step: str) -> None:
    """Tell a story that is interrupted once, and see that it ends as it should."""
    tell, end = STORIES[story]
    one = lives(dialect, step)
    assert (tell(one), one.deaths) == (end, 1)


@pytest.mark.parametrize(("story", "step"), ON_SQLITE)
def test_killed_at_a_step_on_sqlite_the_next_life_ends_it(
    lives: Callable[[str, str], Lives], story: str, step: str
) -> None:
    told(lives, "sqlite", story, step)


@pytest.mark.parametrize(("story", "step"), ON_POSTGRESQL)
def test_killed_at_a_step_on_postgresql_the_next_life_ends_it(
    lives: Callable[[str, str], Lives], story: str, step: str
) -> None:
    told(lives, "postgresql", story, step)


@pytest.mark.torture
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
@pytest.mark.parametrize(("story", "step"), STEPS)
def test_killed_at_any_step_the_next_life_ends_it(
    lives: Callable[[str, str], Lives], dialect: str, story: str, step: str
) -> None:
    told(lives, dialect, story, step)


@pytest.mark.torture
@pytest.mark.parametrize("seed", [1, 2])
def test_two_servers_that_are_killed_again_and_again_charge_every_render_once(
    postgresql_url: str, tmp_path: Path, seed: int
) -> None:
    common = {
        "OANIM_DATABASE_URL": postgresql_url,
        "OANIM_POSTGRESQL_UNSAFE": "1",
        "OANIM_RENDERS_FOLDER": str(tmp_path / "renders"),
        "OANIM_FREE_CREDITS_DAILY_CAP_USD": "100000",
    }
    servers = Servers([{**common, "OANIM_DATA": str(tmp_path / f"data {n}")} for n in range(2)], tmp_path)
    with servers.running():
        accounts, renders = storm(servers, kills=15, seed=seed)
    assert len(renders) > 10
    clock = Clock()
    clock.now = time.time_ns() // 1_000
    database = Database.open_postgresql(postgresql_url, unsafe=True)
    with House(database, tmp_path / "renders", clock=clock) as house:
        age(house.folder)
        house.do(house.renders.sweep_files())
        found = [house.do(house.renders.get(reservation_id(render))) for render in set(renders)]
        add_up(house, found, [account_id(account) for account in accounts], FREE)
