"""Cancelling: released before the provider has it, charged after, and never both."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from oanim_server.database.engine import Database
from oanim_server.generation.values import Ended, Standing
from oanim_server.ledger.ids import new_account_id
from oanim_server.ledger.refusals import NotFound
from tests.generation.house import GRANT, PRICE, House, Rest, asked

if TYPE_CHECKING:
    from pathlib import Path

    from oanim_server.generation.values import Generation
    from tests.generation.house import Fal

CHARGED = Rest(GRANT - PRICE, 0, [])
NOTHING = Rest(GRANT, 0, [])


def cancelled(house: House, generation: Generation) -> Generation:
    return house.do(house.generations.cancel(generation.wallet_id, generation.number))


def test_what_the_provider_was_not_given_is_cancelled_and_released(
    house: House, fal: Fal, prompt: str
) -> None:
    fal.told(prompt, "submit", "429", seconds=30)
    before = fal.posts()
    account = house.account()
    generation = house.generate(account, prompt).generation
    house.until_it_waits(generation)
    answer = cancelled(house, generation)
    assert (answer.standing, answer.cancel_requested, answer.charged_micros) == (Standing.CANCELLED, True, 0)
    assert house.followed(generation) == [Ended(answer)]
    assert cancelled(house, generation) == answer
    assert house.at_rest(account) == NOTHING
    assert fal.posts() - before == 1


@pytest.mark.parametrize(("fault", "seconds"), [("queue", None), ("late", 0.5)])
def test_what_the_provider_has_runs_to_its_end_and_is_charged(
    house: House, fal: Fal, prompt: str, fault: str, seconds: float | None
) -> None:
    fal.told(prompt, "submit", fault, seconds=seconds)
    account = house.account()
    generation = house.generate(account, prompt).generation
    house.reached(generation, "attempts", 1)
    answer = cancelled(house, generation)
    assert (answer.standing, answer.cancel_requested) == (Standing.RUNNING, True)
    assert house.wallet(account).held_micros == PRICE
    if fault == "queue":
        house.reached(generation, "state", 3)
    fal.forgive()
    ended = house.ended(generation)
    assert (ended.standing, ended.cancel_requested) == (Standing.SUCCEEDED, True)
    assert cancelled(house, generation) == ended
    assert house.at_rest(account) == CHARGED


def test_a_cancel_and_a_submit_never_both_win(house: House, fal: Fal, prompt: str) -> None:
    account = house.account()

    async def raced(number: int) -> Generation:
        accepted = await house.generations.generate(asked(account, f"{prompt} {number}"))
        for _ in range(number % 7):
            await asyncio.sleep(0.001)
        await house.generations.cancel(account, accepted.generation.number)
        return accepted.generation

    async def all_raced() -> list[Generation]:
        return await asyncio.gather(*(raced(number) for number in range(20)))

    ended = [house.ended(generation) for generation in house.do(all_raced())]
    made = [generation.standing is Standing.SUCCEEDED for generation in ended]
    assert {generation.standing for generation in ended} <= {Standing.SUCCEEDED, Standing.CANCELLED}
    assert [len(fal.jobs(f"{prompt} {number}")) for number in range(20)] == [int(one) for one in made]
    assert house.at_rest(account) == Rest(GRANT - PRICE * sum(made), 0, [])


def test_an_unknown_generation_is_not_found(house: House) -> None:
    with pytest.raises(NotFound):
        house.do(house.generations.cancel(new_account_id(), 2))


def test_another_replica_cancels_what_waits(
    postgresql_url: str, fal: Fal, tmp_path: Path, prompt: str
) -> None:
    one, other = (
        House(Database.open_postgresql(postgresql_url, unsafe=True), tmp_path, fal.url) for _ in range(2)
    )
    fal.told(prompt, "submit", "429", seconds=0.7)
    before = fal.posts()
    account = one.account()
    generation = one.generate(account, prompt).generation
    one.until_it_waits(generation)
    assert cancelled(other, generation).standing is Standing.CANCELLED
    one.do(asyncio.sleep(1.0))
    assert one.ended(generation).standing is Standing.CANCELLED
    assert one.at_rest(account) == NOTHING
    assert (fal.posts() - before, one.generations.counts.leases_lost) == (1, 1)
    one.close()
    other.close()
