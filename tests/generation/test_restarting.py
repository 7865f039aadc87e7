"""Jobs outlive the server that began them: drained, stopped, with a provider that comes and goes."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from typing import TYPE_CHECKING

from oanim_server.generation.values import Failure, Reason, Standing, Times
from oanim_server.ledger.values import SECOND
from tests.generation.conftest import sandbox
from tests.generation.house import GRANT, NOBODY, PRICE, Fal, House, Rest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oanim_server.database.engine import Database

CHARGED = Rest(GRANT - PRICE, 0, [])
NOTHING = Rest(GRANT, 0, [])


def test_a_job_in_the_provider_s_queue_is_finished_by_the_next_life(
    open_database: Callable[[], Database], fal: Fal, tmp_path: Path, prompt: str
) -> None:
    fal.told(prompt, "submit", "queue", seconds=None)
    house = House(open_database(), tmp_path, fal.url)
    account = house.account()
    generation = house.generate(account, prompt).generation
    house.reached(generation, "state", 3)
    house.close()
    fal.forgive()
    house = House(open_database(), tmp_path, fal.url)
    assert house.ended(generation).standing is Standing.SUCCEEDED
    assert house.at_rest(account) == CHARGED
    assert [job["submits"] for job in fal.jobs(prompt)] == [1]
    house.close()


def test_a_job_that_waits_to_be_submitted_is_submitted_by_the_next_life(
    open_database: Callable[[], Database], fal: Fal, tmp_path: Path, prompt: str
) -> None:
    fal.told(prompt, "submit", "429", seconds=1)
    house = House(open_database(), tmp_path, fal.url)
    account = house.account()
    generation = house.generate(account, prompt).generation
    house.until_it_waits(generation)
    house.close()
    house = House(open_database(), tmp_path, fal.url)
    assert house.ended(generation).standing is Standing.SUCCEEDED
    assert house.at_rest(account) == CHARGED
    assert [job["submits"] for job in fal.jobs(prompt)] == [2]
    house.close()


def test_a_drain_waits_for_the_answer_to_a_submit(
    open_database: Callable[[], Database], fal: Fal, tmp_path: Path, prompt: str
) -> None:
    fal.told(prompt, "submit", "late", seconds=1)
    house = House(open_database(), tmp_path, fal.url)
    account = house.account()
    generation = house.generate(account, prompt).generation
    house.reached(generation, "state", 2)
    house.do(asyncio.to_thread(fal.until_accepted, prompt))
    house.close(grace_seconds=10)
    house = House(open_database(), tmp_path, fal.url)
    assert house.ended(generation).standing is Standing.SUCCEEDED
    assert house.at_rest(account) == CHARGED
    assert [job["submits"] for job in fal.jobs(prompt)] == [1]
    house.close()


def test_a_submit_that_a_stop_cuts_off_is_never_repeated_and_costs_nothing(
    open_database: Callable[[], Database], fal: Fal, tmp_path: Path, prompt: str
) -> None:
    fal.told(prompt, "submit", "hang")
    house = House(open_database(), tmp_path, fal.url, answer_timeout_s=30.0)
    account = house.account()
    generation = house.generate(account, prompt).generation
    house.do(asyncio.to_thread(fal.until_accepted, prompt))
    house.close(grace_seconds=0.1)
    house = House(open_database(), tmp_path, fal.url)
    expected = Failure(Reason.PROVIDER_UNKNOWN, "the server stopped while it was submitted")
    assert house.ended(generation).failure == expected
    assert house.at_rest(account) == NOTHING
    assert [job["submits"] for job in fal.jobs(prompt)] == [1]
    house.close()


def test_a_drain_is_quick_when_nothing_is_being_submitted(
    open_database: Callable[[], Database], fal: Fal, tmp_path: Path, prompt: str
) -> None:
    fal.told(prompt, "submit", "queue", seconds=None)
    house = House(open_database(), tmp_path, fal.url)
    generation = house.generate(house.account(), prompt).generation
    house.reached(generation, "state", 3)
    began = time.monotonic()
    house.close(grace_seconds=20)
    assert time.monotonic() - began < 5


def test_what_is_not_done_by_its_deadline_is_released(
    open_database: Callable[[], Database], fal: Fal, tmp_path: Path, prompt: str
) -> None:
    fal.told(prompt, "submit", "queue", seconds=None)
    house = House(open_database(), tmp_path, fal.url, times=Times(deadline=1 * SECOND))
    account = house.account()
    expected = Failure(Reason.DEADLINE_PASSED, "the provider did not finish it in time")
    assert house.made(account, prompt).failure == expected
    assert house.at_rest(account) == NOTHING
    assert house.generations.counts.failed[Reason.DEADLINE_PASSED] == 1
    house.close()


def test_a_provider_that_cannot_be_reached_is_tried_three_times(
    open_database: Callable[[], Database], tmp_path: Path, prompt: str
) -> None:
    house = House(open_database(), tmp_path, NOBODY)
    account = house.account()
    expected = Failure(Reason.PROVIDER_REJECTED, "the provider was asked 3 times: it cannot be reached")
    assert house.made(account, prompt).failure == expected
    assert house.at_rest(account) == NOTHING
    assert house.generations.counts.submits == 3
    house.close()


def test_a_provider_that_comes_back_between_the_attempts_is_used(
    open_database: Callable[[], Database], tmp_path: Path, prompt: str, free_port: int
) -> None:
    house = House(open_database(), tmp_path, f"http://127.0.0.1:{free_port}")
    account = house.account()
    generation = house.generate(account, prompt).generation
    house.reached(generation, "attempts", 1)
    with sandbox("--port", str(free_port)) as url, closing(Fal(url)) as fal:
        assert house.ended(generation).standing is Standing.SUCCEEDED
        assert [job["submits"] for job in fal.jobs(prompt)] == [1]
    assert house.at_rest(account) == CHARGED
    house.close()


def test_a_server_without_a_provider_s_key_leaves_jobs_to_one_that_has_it(
    open_database: Callable[[], Database], fal: Fal, tmp_path: Path, prompt: str
) -> None:
    fal.told(prompt, "submit", "queue", seconds=None)
    house = House(open_database(), tmp_path, fal.url)
    account = house.account()
    generation = house.generate(account, prompt).generation
    house.reached(generation, "state", 3)
    house.close()
    fal.forgive()
    house = House(open_database(), tmp_path, None)
    assert house.do(house.generations.get(account, generation.number)).standing is Standing.RUNNING
    house.close()
    house = House(open_database(), tmp_path, fal.url)
    assert house.ended(generation).standing is Standing.SUCCEEDED
    assert house.at_rest(account) == CHARGED
    house.close()
