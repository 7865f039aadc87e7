"""kill -9 of workers and of the service: a render is finished, and charged once for its video's frames."""

from __future__ import annotations

import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.farm.line import Line
from tests.farm.scene import WELL, Scene, end
from tests.farm.working import SECONDS, orphans, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from openanimate.metering.v1.render_service_pb2 import Render

LEASED: Callable[[Render], bool] = lambda render: render.attempts == 1  # noqa: E731 - a name for a row
HALFWAY: Callable[[Render], bool] = lambda render: render.frames_done >= 9  # noqa: E731
RENDERED: Callable[[Render], bool] = lambda render: render.frames_done == 30  # noqa: E731
# The two that differ most are looked at always.
INSTANTS = [
    pytest.param(LEASED, id="leased", marks=pytest.mark.torture),
    pytest.param(HALFWAY, id="halfway"),
    pytest.param(RENDERED, id="rendered"),
]


def settled(scene: Scene) -> None:
    """All is well in every wallet."""
    code, said = scene.audit()
    assert code == 0, said


@pytest.mark.parametrize("when", INSTANTS)
def test_a_killed_workers_render_is_finished_by_another(scene: Scene, when: Callable[[Render], bool]) -> None:
    scene.start_server()
    customer = scene.customer()
    customer.submit(pace=0.03)
    with scene.worker() as first:
        customer.until(when)
        first.kill()
    with scene.worker() as second:
        assert customer.outcome() == WELL
        assert end(second) == 0
    settled(scene)


def test_what_a_killed_worker_had_started_ends_and_its_files_go_with_the_next_start(
    scene: Scene, farm_folder: Path, tmp_path: Path
) -> None:
    scene.start_server()
    customer = scene.customer()
    customer.submit(at=9, then="hang", once=str(tmp_path / "hung"))
    with scene.worker() as first:
        until(orphans)
        first.kill()
    until(lambda: orphans() == [], 5)
    assert (farm_folder / "0" / "bundle").is_dir()
    with scene.worker() as second:
        assert not (farm_folder / "0" / "bundle").exists() or customer.render().attempts == 2
        assert customer.outcome() == WELL
        assert end(second) == 0
    assert [path.name for path in farm_folder.iterdir() if path.is_dir()] == ["remotion"]


@pytest.mark.parametrize("when", INSTANTS)
def test_a_killed_service_finds_its_worker_still_at_work(
    scene: Scene, when: Callable[[Render], bool]
) -> None:
    scene.start_server()
    customer = scene.customer()
    customer.submit(pace=0.03)
    with scene.worker() as worker:
        customer.until(when)
        scene.server.kill()
        # Longer than the lease that the worker has.
        time.sleep(4)
        scene.start_server(lease_seconds=10)
        assert customer.outcome() == WELL
        assert customer.render().attempts == 1
        assert end(worker) == 0
    settled(scene)


@pytest.mark.parametrize(
    "step", ["finish after 1", pytest.param("finish before 1", marks=pytest.mark.torture)]
)
def test_a_service_that_dies_over_a_delivery_is_asked_what_became_of_it(scene: Scene, step: str) -> None:
    scene.start_server(step)
    customer = scene.customer()
    customer.submit()
    with scene.worker() as worker:
        assert scene.server.process.wait(SECONDS) == -signal.SIGKILL
        scene.start_server(lease_seconds=10)
        assert customer.outcome() == WELL
        assert customer.render().attempts == 1
        assert end(worker) == 0
    assert "delivered, 30 frames" in scene.worker_log()
    settled(scene)


@pytest.mark.parametrize("when", INSTANTS)
def test_worker_and_service_killed_together_leave_it_to_another_worker(
    scene: Scene, when: Callable[[Render], bool]
) -> None:
    scene.start_server()
    customer = scene.customer()
    customer.submit(pace=0.03)
    with scene.worker() as first:
        customer.until(when)
        first.kill()
        scene.server.kill()
    scene.start_server()
    with scene.worker() as second:
        assert customer.outcome() == WELL
        assert end(second) == 0
    settled(scene)


def test_workers_side_by_side_share_the_work_and_one_that_ends_hands_back(scene: Scene) -> None:
    scene.start_server(lease_seconds=20)
    customers = [scene.customer() for _ in range(5)]
    with (
        scene.worker(OANIM_FARM_SLOTS="2", OANIM_FARM_DRAIN_SECONDS="0") as first,
        scene.worker(OANIM_FARM_SLOTS="2") as second,
    ):
        for customer in customers:
            customer.submit(pace=0.1)
        until(lambda: sum(customer.render().attempts for customer in customers) == 4)
        assert end(first) == 0
        assert [customer.outcome() for customer in customers] == [WELL] * 5
        assert [customer.render().attempts for customer in customers] == [1] * 5
        assert end(second) == 0
    settled(scene)


def test_a_cancelled_render_is_stopped_and_its_reported_frames_are_charged(scene: Scene) -> None:
    scene.start_server(lease_seconds=20)
    customer = scene.customer()
    customer.submit(at=9, then="hang")
    with scene.worker() as worker:
        customer.until(lambda render: render.frames_done == 9)
        customer.client.cancel_render(render_id=customer.render_id)
        until(lambda: orphans() == [])
        other = scene.customer()
        other.submit()
        assert other.outcome() == WELL
        assert end(worker) == 0
    # 9 of 30 frames of 4,096 pixels: 2 kilopixel-seconds, rounded up.
    outcome = customer.outcome()
    assert (outcome.frames, outcome.charged_micros, outcome.held_micros, outcome.charges) == (9, 4, 0, 1)
    settled(scene)


@pytest.mark.torture
def test_a_service_that_is_away_for_a_minute_loses_nothing(scene: Scene) -> None:
    scene.start_server(lease_seconds=60)
    customer = scene.customer()
    customer.submit(pace=0.5)
    with scene.worker() as worker:
        customer.until(HALFWAY)
        scene.server.kill()
        time.sleep(65)
        scene.start_server(lease_seconds=60)
        assert customer.outcome() == WELL
        assert customer.render().attempts == 1
        assert end(worker) == 0


@pytest.mark.torture
def test_a_line_that_is_cut_all_the_time_changes_no_charge(scene: Scene, free_port: int) -> None:
    scene.start_server()
    customers = [scene.customer() for _ in range(5)]
    for customer in customers:
        customer.submit(pace=0.1)
    with (
        Line(free_port) as line,
        scene.worker(ANIMATE_API_URL=line.url, OANIM_FARM_SLOTS="2") as worker,
    ):
        until(lambda: line.cut_after(0.3) and all(customer.ended() for customer in customers))
        assert line.cuts > 20
        assert end(worker) == 0
    assert [customer.outcome() for customer in customers] == [WELL] * 5
    settled(scene)


@pytest.mark.torture
def test_kills_at_any_instant_in_any_company(scene: Scene) -> None:
    scene.start_server()
    seed = time.time_ns()
    chance = random.Random(seed)
    for number in range(40):
        customer = scene.customer()
        customer.submit(pace=0.02)
        victims = chance.choice(["worker", "service", "worker and service"])
        with scene.worker() as worker:
            customer.until(LEASED)
            time.sleep(chance.uniform(0, 2.5))
            if "service" in victims:
                scene.server.kill()
            if "worker" in victims:
                worker.kill()
            if "service" in victims:
                scene.start_server()
            with scene.worker():
                assert customer.outcome() == WELL, (seed, number, victims)
    assert orphans() == []
    settled(scene)
