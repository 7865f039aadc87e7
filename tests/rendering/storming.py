"""Users and workers of servers that are killed again and again; a call is repeated until it is answered."""

from __future__ import annotations

import random
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, TypeVar

import grpc

from openanimate.metering.v1.role_pb2 import ROLE_WORKER
from tests.rendering.asking import Farm, Owner, submission
from tests.server import Refused, spawned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from openanimate.metering.v1 import render_service_pb2 as pb
    from tests.server import ServerProcess, User

T = TypeVar("T")

PROGRAM = ("tests.rendering.serving", "none")
_PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


class Servers:
    """Some servers on one database, of which now and then one is killed and another one started."""

    def __init__(self, environments: list[dict[str, str]], folder: Path) -> None:
        self._environments = environments
        self._folder = folder
        self._lives = 0
        self._stack = ExitStack()
        self._servers = [self._begin(number) for number in range(len(environments))]
        self.over = threading.Event()

    def _begin(self, number: int) -> ServerProcess:
        self._lives += 1
        log = self._folder / f"life {self._lives}.log"
        return self._stack.enter_context(spawned(self._environments[number], log, program=PROGRAM))

    def any(self, chance: random.Random) -> ServerProcess:
        """One of them."""
        return chance.choice(self._servers)

    def keep_killing(self, chance: random.Random, times: int) -> None:
        """Kill one after the other, at any time."""
        for _ in range(times):
            time.sleep(chance.uniform(0.1, 1.5))
            number = chance.randrange(len(self._servers))
            self._servers[number].kill()
            self._servers[number] = self._begin(number)
        self.over.set()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Until the block ends."""
        with self._stack:
            yield

    def ask(self, chance: random.Random, call: Callable[[ServerProcess], T]) -> T:
        """Make a call at any of them until it is answered."""
        while True:
            try:
                return call(self.any(chance))
            except grpc.RpcError as error:
                if error.code() not in _PASSING:
                    raise
                time.sleep(0.05)


def own(servers: Servers, user: User, seed: int, renders: list[str]) -> None:
    """Submit and cancel."""
    chance = random.Random(seed)
    mine: list[str] = []
    number = 0
    while not servers.over.is_set():
        asked = submission(f"render {seed} {number}")
        number += 1
        made = servers.ask(chance, lambda s, asked=asked: Owner(s.channel, user).submit(asked))  # type: ignore[misc]
        mine.append(made.render.render_id)
        renders.append(made.render.render_id)
        if chance.random() < 0.3:
            gone = chance.choice(mine)
            servers.ask(chance, lambda s, gone=gone: Owner(s.channel, user).cancel(gone))  # type: ignore[misc]


def work(servers: Servers, worker: User, seed: int) -> None:
    """Lease and render."""
    chance = random.Random(seed)
    number = 0
    while not servers.over.is_set():
        key = f"lease {seed} {number}"
        number += 1
        try:
            lease = servers.ask(chance, lambda s, key=key: Farm(s.channel, worker).lease(key, 1))  # type: ignore[misc]
            if lease.render_id:
                _render(servers, worker, lease, chance)
        except grpc.RpcError as error:
            if Refused.of(error).reason != "STALE_LEASE":
                raise


def _render(servers: Servers, worker: User, lease: pb.RenderLease, chance: random.Random) -> None:
    for frames in chance.sample(range(101), 3):
        servers.ask(chance, lambda s, frames=frames: Farm(s.channel, worker).beat(lease, frames))  # type: ignore[misc]
    end, frames = chance.random(), chance.randint(1, 100)
    if end < 0.6:
        servers.ask(chance, lambda s: Farm(s.channel, worker).complete(lease, frames))
    elif end < 0.9:
        servers.ask(chance, lambda s: Farm(s.channel, worker).fail(lease, handed_back=end < 0.7))


def storm(servers: Servers, *, kills: int, seed: int) -> tuple[list[str], list[str]]:
    """Have all of it go on until so many servers were killed; the accounts and the renders."""
    chance = random.Random(seed)
    first = servers.any(chance)
    users = [first.sign_up() for _ in range(2)]
    workers = [first.create_key(ROLE_WORKER, f"worker {number}") for number in range(3)]
    renders: list[str] = []
    failures: list[BaseException] = []

    def guarded(do: Callable[..., None], *arguments: object) -> None:
        try:
            do(*arguments)
        except BaseException as error:  # noqa: BLE001 - raised below
            failures.append(error)

    threads = [
        *[threading.Thread(target=guarded, args=(own, servers, u, n, renders)) for n, u in enumerate(users)],
        *[threading.Thread(target=guarded, args=(work, servers, w, 10 + n)) for n, w in enumerate(workers)],
    ]
    for thread in threads:
        thread.start()
    servers.keep_killing(chance, kills)
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    if failures:
        raise failures[0]
    return [user.account_id for user in users], renders
