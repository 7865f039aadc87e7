"""Cancelling: released before the provider has it, charged after, and never both."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text, update

from oanim_server.database.engine import Database
from oanim_server.database.tables import generations
from oanim_server.generation.values import Ended, Standing, State
from oanim_server.ledger.ids import new_account_id
from oanim_server.ledger.refusals import NotFound
from tests.generation.house import GRANT, MODEL, PRICE, House, Rest, asked, until
from tests.generation.provider import Answer, provider

if TYPE_CHECKING:
    from collections.abc import Callable
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


def test_what_the_provider_turns_away_after_the_cancel_is_released(
    open_database: Callable[[], Database], tmp_path: Path, prompt: str
) -> None:
    with provider() as busy:
        answered = threading.Event()
        busy.answers[f"/{MODEL}"] = Answer(429, {"retry-after": "0"}, when=answered)
        house = House(open_database(), tmp_path, busy.url, answer_timeout_s=30.0)
        account = house.account()
        generation = house.generate(account, prompt).generation
        house.reached(generation, "state", State.SUBMITTING)
        answer = cancelled(house, generation)
        assert (answer.standing, answer.cancel_requested) == (Standing.RUNNING, True)
        answered.set()
        ended = house.ended(generation)
        assert (ended.standing, ended.charged_micros) == (Standing.CANCELLED, 0)
        assert (house.at_rest(account), len(busy.sent)) == (NOTHING, 1)
        assert house.generations.counts.cancelled == 1
        house.close()


def test_what_does_not_reach_the_provider_after_the_cancel_is_released(
    open_database: Callable[[], Database], tmp_path: Path, prompt: str
) -> None:
    # A listener whose queue is full answers no connection: the submit ends with a connect timeout.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as waiting:
        waiting.connect(full.getsockname())
        house = House(open_database(), tmp_path, f"http://127.0.0.1:{full.getsockname()[1]}")
        account = house.account()
        generation = house.generate(account, prompt).generation
        house.reached(generation, "state", State.SUBMITTING)
        assert cancelled(house, generation).standing is Standing.RUNNING
        assert house.ended(generation).standing is Standing.CANCELLED
        assert (house.at_rest(account), house.generations.counts.submits) == (NOTHING, 1)
        house.close()


def test_a_cancel_meets_a_job_that_is_just_put_back(
    postgresql_url: str, fal: Fal, tmp_path: Path, prompt: str
) -> None:
    """Another replica puts it back while the cancel waits for the row: the later one sees the former."""
    fal.told(prompt, "submit", "hang")
    house = House(Database.open_postgresql(postgresql_url, unsafe=True), tmp_path, fal.url)
    account = house.account()
    generation = house.generate(account, prompt).generation
    house.reached(generation, "state", State.SUBMITTING)
    other = Database.open_postgresql(postgresql_url, unsafe=True)

    def waits_for_the_row() -> bool:
        query = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return other.read_now(lambda connection: bool(connection.execute(query).scalar_one()))

    answers: list[Generation] = []
    cancelling = threading.Thread(target=lambda: answers.append(cancelled(house, generation)))
    with other.writing() as connection:
        connection.execute(update(generations).values(state=State.QUEUED, owner="other"))
        cancelling.start()
        until(waits_for_the_row)
    cancelling.join()
    other.close()
    assert [answer.standing for answer in answers] == [Standing.CANCELLED]
    assert house.at_rest(account) == NOTHING
    house.close()


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
