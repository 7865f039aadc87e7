"""Two servers on one PostgreSQL and one folder: any of them answers, and a render is still one render."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import make_url

from oanim_server.database.engine import Database
from oanim_server.ledger.values import SECOND
from oanim_server.rendering.refusals import StaleLease
from oanim_server.rendering.values import State
from tests.rendering.asking import BUNDLE, VIDEO
from tests.rendering.house import GRANT, MINUTE, Hand, House, Rest, charged
from tests.rendering.living import Life, add_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from oanim_server.rendering.values import Lease, Render

# How late one replica sees what another one did, at the most: it looks once a second.
SEEN_SECONDS = 4.0


class Pair:
    """Two replicas, each with an event loop of its own that a thread may run."""

    def __init__(self, url: str, folder: Path, *, limit: int = 10) -> None:
        def opened() -> Database:
            return Database.open_postgresql(url, unsafe=True)

        self.url = url
        self.one = House(opened(), folder, limit=limit)
        self.other = House(opened(), folder, limit=limit, clock=self.one.clock)

    def hand(self, name: str = "w") -> tuple[Hand, Hand]:
        """A worker, at either of them."""
        hand = self.one.worker(name)
        return hand, Hand(self.other, hand.worker)

    def both(self, work: Callable[[House, int], object]) -> None:
        """Have work done at both, at once."""
        failures: list[BaseException] = []

        def run(house: House, number: int) -> None:
            try:
                work(house, number)
            except BaseException as error:  # noqa: BLE001 - raised below
                failures.append(error)

        threads = [threading.Thread(target=run, args=(h, n)) for n, h in enumerate((self.one, self.other))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        if failures:
            raise failures[0]

    def close(self) -> None:
        self.one.close()
        self.other.close()


@pytest.fixture
def pair(postgresql_url: str, tmp_path: Path) -> Iterator[Pair]:
    made = Pair(postgresql_url, tmp_path / "renders")
    yield made
    made.close()


def test_any_replica_answers_any_call(pair: Pair) -> None:
    render = pair.one.submitted(pair.one.account())
    here, there = pair.hand()
    lease = there.leased("k")
    assert here.leased("k")._replace(replayed=False) == lease
    assert not here.beat(lease, 10).stop
    assert pair.other.get(render).frames_done == 10

    async def read() -> bytes:
        return b"".join([p.chunk async for p in pair.one.renders.read_bundle(lease.claim)])

    assert pair.one.do(read()) == BUNDLE
    done, _ = there.complete(lease)

    async def video() -> bytes:
        return b"".join([p.chunk async for p in pair.one.renders.read_video(render.key)])

    assert pair.one.do(video()) == VIDEO
    assert here.complete(lease) == (done, True)
    assert pair.one.rest(render.wallet_id) == Rest(GRANT - charged(100), 0, [])


def test_who_watches_at_one_replica_sees_what_happens_at_the_other(pair: Pair) -> None:
    render = pair.one.submitted(pair.one.account())
    _, there = pair.hand()
    seen: list[tuple[State, int]] = []

    async def watch() -> None:
        async with aclosing(pair.one.renders.watch(render.key)) as states:
            async for state in states:
                seen.append((state.state, state.frames_done))  # noqa: PERF401 - it is looked at meanwhile

    watching = threading.Thread(target=lambda: pair.one.do(watch()))
    watching.start()

    def wait_for(what: tuple[State, int]) -> None:
        deadline = time.monotonic() + SEEN_SECONDS
        while what not in seen:
            assert time.monotonic() < deadline, (what, seen)
            time.sleep(0.02)

    wait_for((State.QUEUED, 0))
    lease = there.leased()
    there.beat(lease, 30)
    wait_for((State.RENDERING, 30))
    there.complete(lease)
    watching.join(SEEN_SECONDS)
    assert seen[-1] == (State.SUCCEEDED, 100)


def test_who_waits_for_work_at_one_replica_is_woken_by_the_other(pair: Pair) -> None:
    account = pair.one.account()
    here, _ = pair.hand()
    found: list[Lease | None] = []
    waiting = threading.Thread(
        target=lambda: found.append(pair.one.do(pair.one.renders.lease(here.worker, "k", 30.0)))
    )
    waiting.start()
    time.sleep(1.5)
    render = pair.other.submitted(account)
    waiting.join(SEEN_SECONDS)
    assert [lease.claim.key for lease in found if lease is not None] == [render.key]


def test_a_render_that_another_database_transaction_has_in_hand_is_passed_over(pair: Pair) -> None:
    first = pair.one.submitted(pair.one.account())
    pair.one.clock.forward(1)
    second = pair.one.submitted(pair.one.account())
    here, there = pair.hand()
    url = make_url(pair.url)
    with psycopg.connect(host=str(url.query["host"]), user=url.username, dbname=url.database) as connection:
        connection.execute(
            "SELECT 1 FROM renders WHERE number = %s AND wallet_id = %s FOR UPDATE", first.key[::-1]
        )
        began = time.monotonic()
        assert here.leased().claim.key == second.key
        assert time.monotonic() - began < 2.0
        assert there.lease() is None
    assert there.leased().claim.key == first.key


def test_leases_taken_at_two_replicas_at_once_are_never_more_than_an_account_may_have(
    postgresql_url: str, tmp_path: Path
) -> None:
    pair = Pair(postgresql_url, tmp_path / "renders", limit=3)
    try:
        accounts = [pair.one.account() for _ in range(2)]
        for account in accounts:
            for _ in range(8):
                pair.one.submitted(account)
        hands = pair.hand()
        taken: list[Lease] = []

        def take(house: House, number: int) -> None:
            async def at_once() -> list[Lease | None]:
                works = [
                    house.renders.lease(hands[number].worker, f"{number} {turn}", 0.0) for turn in range(12)
                ]
                return await asyncio.gather(*works)

            taken.extend(lease for lease in house.do(at_once()) if lease is not None)

        pair.both(take)
        assert len({lease.claim.key for lease in taken}) == len(taken)
        of_each = [sum(lease.claim.wallet_id == account for lease in taken) for account in accounts]
        assert of_each == [3, 3]
    finally:
        pair.close()


def test_a_render_that_ends_at_two_replicas_at_once_ends_once(pair: Pair) -> None:
    hands = pair.hand()
    for turn in range(10):
        render = pair.one.submitted(pair.one.account())
        lease = hands[0].leased()
        hands[0].beat(lease, 10)
        chance = random.Random(turn)
        two = chance.sample(["complete", "cancel", "fail", "beat"], 2)

        def end(
            house: House,
            number: int,
            lease: Lease = lease,
            render: Render = render,
            two: list[str] = two,
        ) -> None:
            hand = hands[number]
            ends: dict[str, Callable[[], object]] = {
                "complete": partial(hand.complete, lease, 50),
                "cancel": partial(house.cancel, render),
                "fail": partial(hand.fail, lease),
                "beat": partial(hand.beat, lease, 40),
            }
            with suppress(StaleLease):
                ends[two[number]]()

        pair.both(end)
        found = pair.one.cancel(render)
        right = {State.SUCCEEDED: [50], State.CANCELLED: [10, 40]}[found.state]
        assert found.charged_micros in [charged(frames) for frames in right]
        assert pair.other.rest(render.wallet_id) == Rest(GRANT - found.charged_micros, 0, [])


def test_both_replicas_look_for_lost_workers_and_each_is_lost_once(pair: Pair) -> None:
    renders = [pair.one.submitted(pair.one.account()) for _ in range(6)]
    here, _ = pair.hand()
    for attempt in (1, 2, 3):
        leases = [here.leased() for _ in renders]
        assert {lease.attempt for lease in leases} == {attempt}

        for _ in range(14):
            pair.one.clock.forward(5 * SECOND)
            pair.both(lambda house, _number: house.do(house.renders.sweep()))
    assert {pair.one.get(render).state for render in renders} == {State.FAILED}
    lost = pair.one.renders.counts.lost + pair.other.renders.counts.lost
    assert lost == 3 * len(renders)
    for render in renders:
        assert pair.one.rest(render.wallet_id) == Rest(GRANT, 0, [])


def test_everything_at_once_at_two_replicas_and_the_books_are_right(pair: Pair) -> None:
    accounts = [pair.one.account() for _ in range(3)]
    workers = [pair.one.worker(f"w{number}").worker for number in range(4)]
    lives = [Life(house, accounts, workers, seed) for seed, house in enumerate((pair.one, pair.other))]
    pair.both(lambda _house, number: lives[number].go_on(submissions=12, turns=25))
    # Whose worker has vanished is offered again.
    pair.one.pass_time(2 * MINUTE)
    pair.both(lambda _house, number: lives[number].go_on(submissions=2, turns=0))
    add_up(pair.one, [*lives[0].renders, *lives[1].renders], accounts, GRANT)
