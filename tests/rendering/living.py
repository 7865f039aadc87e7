"""Owners and workers that do what comes to their minds, to be added up afterwards."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from oanim_server.rendering.refusals import StaleLease
from oanim_server.rendering.values import State
from tests.rendering.asking import BUNDLE
from tests.rendering.house import MINUTE, Hand, House, asked, charged, pieces

if TYPE_CHECKING:
    from oanim_server.rendering.values import Lease, Render, Worker


class Life:
    """What goes on at one server. `renders` are those that were submitted here."""

    def __init__(self, house: House, accounts: list[int], workers: list[Worker], seed: int) -> None:
        self._house = house
        self._accounts = accounts
        self._workers = workers
        self._seed = seed
        self._chance = random.Random(seed)
        self.renders: list[Render] = []

    def go_on(self, *, submissions: int, turns: int) -> None:
        """Live."""

        async def all_of_it() -> None:
            await asyncio.gather(self._own(submissions), *[self._work(w, turns) for w in self._workers])

        self._house.do(all_of_it())

    async def _own(self, submissions: int) -> None:
        for _ in range(submissions):
            asking = asked(self._chance.choice(self._accounts))
            self.renders.append((await self._house.renders.submit(asking, pieces(BUNDLE))).render)
            if self._chance.random() < 0.4:
                await self._house.renders.cancel(self._chance.choice(self.renders).key)

    async def _work(self, worker: Worker, turns: int) -> None:
        hand = Hand(self._house, worker)
        for turn in range(turns):
            key = f"{self._seed} {turn} {worker.api_key_id}"
            lease = await self._house.renders.lease(worker, key, 0.05)
            if lease is None:
                continue
            try:
                await self._render(hand, lease)
            except StaleLease:
                continue  # it was cancelled meanwhile

    async def _render(self, hand: Hand, lease: Lease) -> None:
        """Report in any order, then deliver, fail, hand back, or vanish."""
        for frames in self._chance.sample(range(101), 4):
            await hand.beating(lease, frames)
        end = self._chance.random()
        if end < 0.6:
            await hand.completing(lease, self._chance.randint(1, 100))
        elif end < 0.9:
            await hand.failing(lease, handed_back=end < 0.7)


def add_up(house: House, renders: list[Render], accounts: list[int], grant_micros: int) -> None:
    """End what is left, and see that every micro and every file is where it should be."""
    for render in renders:
        house.cancel(render)
    house.pass_time(2 * MINUTE)
    ended = [house.get(render) for render in renders]
    for render in ended:
        expected = 0 if render.state is State.FAILED else charged(render.frames_done)
        assert render.charged_micros == expected, render
    # Every render is known to who submitted it: what was held for it was answered, sooner or later.
    assert sorted(house.select("SELECT wallet_id, number FROM renders")) == sorted(r.key for r in ended)
    spent = {
        account: sum(render.charged_micros for render in ended if render.wallet_id == account)
        for account in accounts
    }
    rests = {account: house.rest(account) for account in accounts}
    assert rests == {account: (grant_micros - spent[account], 0, []) for account in accounts}
    assert house.files() == {render.video.object_id for render in ended if render.video}
