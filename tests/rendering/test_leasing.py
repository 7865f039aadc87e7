"""Leases: who gets which render, how long a worker need not be heard of, and what an outage does to none."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from oanim_server.ledger.refusals import NotFound
from oanim_server.ledger.values import DAY, SECOND
from oanim_server.rendering import rows
from oanim_server.rendering.refusals import StaleLease
from oanim_server.rendering.values import TIMES, Reason, State
from tests.rendering.asking import BUNDLE
from tests.rendering.house import GRANT, MINUTE, House, Rest, asked, pieces

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection

    from oanim_server.database.engine import Database
    from oanim_server.rendering.values import Lease, Render, Standing

UNTOUCHED = Rest(GRANT, 0, [])


def standing(house: House, render: Render) -> tuple[State, int]:
    """A render's state, and how many attempts there were."""
    found = house.get(render)
    return found.state, found.attempts


def brief(render: Render) -> Render:
    """A render as a page has it."""
    return render._replace(spec=render.spec._replace(props_json=""))


# The queue ------------------------------------------------------------------------------------------


def test_the_oldest_render_is_leased_first_whoever_s_it_is(house: House) -> None:
    renders = []
    for _ in range(4):
        renders.append(house.submitted(house.account()))
        house.clock.forward(1)
    assert [house.get(render).queue_position for render in renders] == [0, 1, 2, 3]
    worker = house.worker()
    assert [worker.leased().claim.key for _ in range(2)] == [render.key for render in renders[:2]]
    assert [house.get(render).queue_position for render in renders] == [0, 0, 0, 1]
    assert worker.lease("none left") is not None
    assert worker.lease() is not None
    assert worker.lease() is None


def test_a_page_says_where_each_of_its_renders_waits(house: House) -> None:
    one, other = house.account(), house.account()
    for account in (one, other, one, one):
        house.submitted(account)
        house.clock.forward(1)
    page = house.do(house.renders.page(one, before=None, limit=10))
    assert [render.queue_position for render in page] == [3, 2, 0]
    assert [brief(house.get(render)) for render in page] == page
    assert house.do(house.renders.page(one, before=page[0].number, limit=1)) == [page[1]]


def test_a_render_that_failed_once_is_offered_before_younger_ones(house: House) -> None:
    first = house.submitted(house.account())
    house.clock.forward(1)
    house.submitted(house.account())
    worker = house.worker()
    worker.fail(worker.leased())
    assert worker.leased().claim.key == first.key


def test_an_account_has_so_many_renders_leased_and_no_more_and_keeps_nobody_waiting(
    open_database: Callable[[], Database], tmp_path: Path
) -> None:
    with House(open_database(), tmp_path / "renders", limit=2) as house:
        greedy, other = house.account(), house.account()
        for _ in range(4):
            house.submitted(greedy)
            house.clock.forward(1)
        theirs = house.submitted(other)
        worker = house.worker()
        first, second, third = worker.leased(), worker.leased(), worker.leased()
        assert [lease.claim.wallet_id for lease in (first, second)] == [greedy, greedy]
        assert third.claim.key == theirs.key
        assert worker.lease() is None
        worker.complete(first)
        assert worker.leased().claim.wallet_id == greedy
        assert worker.lease() is None
        worker.fail(second)
        assert worker.leased().claim.key == second.claim.key


def test_workers_that_ask_at_once_get_different_renders(house: House) -> None:
    accounts = [house.account() for _ in range(3)]
    renders = {house.submitted(account).key for account in accounts for _ in range(4)}
    workers = [house.worker() for _ in range(3)]

    async def at_once() -> list[Lease | None]:
        asking = [
            house.renders.lease(worker.worker, f"{worker.worker.account_id} {number}", 0.0)
            for worker in workers
            for number in range(6)
        ]
        return await asyncio.gather(*asking)

    leased = [lease.claim.key for lease in house.do(at_once()) if lease is not None]
    assert sorted(leased) == sorted(renders)


def test_who_waits_for_work_is_woken_by_it(house: House) -> None:
    account, worker = house.account(), house.worker()

    async def wait() -> tuple[Lease | None, float]:
        began = asyncio.get_running_loop().time()
        waiting = asyncio.create_task(house.renders.lease(worker.worker, "k", 30.0))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await house.renders.submit(asked(account), pieces(BUNDLE))
        return await waiting, asyncio.get_running_loop().time() - began

    lease, seconds = house.do(wait())
    assert lease is not None
    assert seconds < 5


def test_of_many_that_wait_as_many_are_served_as_there_are_renders(house: House) -> None:
    account, worker = house.account(), house.worker()

    async def wait() -> list[Lease | None]:
        waiting = [
            asyncio.create_task(house.renders.lease(worker.worker, f"k{number}", 2.0)) for number in range(8)
        ]
        for _ in range(3):
            await asyncio.sleep(0.1)
            await house.renders.submit(asked(account), pieces(BUNDLE))
        return await asyncio.gather(*waiting)

    leases = [lease for lease in house.do(wait()) if lease is not None]
    assert len({lease.claim.key for lease in leases}) == len(leases) == 3


def test_a_slot_that_becomes_free_wakes_who_waits(
    open_database: Callable[[], Database], tmp_path: Path
) -> None:
    with House(open_database(), tmp_path / "renders", limit=1) as house:
        account, worker = house.account(), house.worker()
        house.submitted(account)
        house.submitted(account)
        first = worker.leased()

        async def wait() -> Lease | None:
            waiting = asyncio.create_task(house.renders.lease(worker.worker, "k", 30.0))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            await worker.completing(first)
            return await asyncio.wait_for(waiting, 5.0)

        assert house.do(wait()) is not None


def test_who_waits_in_vain_is_told_so_and_has_not_used_the_key_up(house: House) -> None:
    worker = house.worker()
    assert house.do(house.renders.lease(worker.worker, "k", 0.2)) is None
    render = house.submitted(house.account())
    assert worker.leased("k").claim.key == render.key


def test_who_waits_when_the_server_stops_is_sent_away_at_once(house: House) -> None:
    worker = house.worker()

    async def wait() -> Lease | None:
        waiting = asyncio.create_task(house.renders.lease(worker.worker, "k", 30.0))
        await asyncio.sleep(0.2)
        house.renders.quieten()
        return await asyncio.wait_for(waiting, 2.0)

    assert house.do(wait()) is None


def test_who_hangs_up_before_its_turn_takes_no_render(house: House) -> None:
    render, worker = house.submitted(house.account()), house.worker()

    async def hang_up() -> None:
        asking = asyncio.create_task(house.renders.lease(worker.worker, "k", 0.0))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await house.ledger.write(lambda _connection, _now: None)

    house.do(hang_up())
    # Either it was too late to take it back, or the render still waits.
    assert worker.leased("k").claim.key == render.key
    assert standing(house, render) == (State.RENDERING, 1)


# Keys -----------------------------------------------------------------------------------------------


def test_the_same_key_gets_its_lease_again_while_that_lives(house: House) -> None:
    house.submitted(house.account())
    house.submitted(house.account())
    worker = house.worker()
    first = worker.leased("k")
    worker.beat(first, 10)
    again = worker.leased("k")
    assert (again.replayed, again._replace(replayed=False)) == (True, first)


@pytest.mark.parametrize("how", ["completed", "failed", "lost", "cancelled", "taken over"])
def test_the_key_of_a_lease_that_has_ended_is_stale(house: House, how: str) -> None:
    render = house.submitted(house.account())
    worker = house.worker()
    lease = worker.leased("k")
    if how == "completed":
        worker.complete(lease)
    elif how == "failed":
        worker.fail(lease)
    elif how == "cancelled":
        house.cancel(render)
    else:
        house.pass_time(2 * MINUTE)
    if how == "taken over":
        house.worker().leased()
    refused = house.refused(house.renders.lease(worker.worker, "k", 0.0))
    assert isinstance(refused, StaleLease)
    assert refused.epoch == 1


def test_the_same_key_of_another_api_key_is_another_one(house: House) -> None:
    house.submitted(house.account())
    house.submitted(house.account())
    one, other = house.worker("one"), house.worker("other")
    assert one.leased("k").claim.key != other.leased("k").claim.key


# Being heard of -------------------------------------------------------------------------------------


def test_a_lease_lasts_while_its_worker_is_heard_of(house: House) -> None:
    render, worker = house.submitted(house.account()), house.worker()
    lease = worker.leased()
    for second in range(0, 600, 50):
        house.pass_time(50 * SECOND)
        assert worker.beat(lease, second // 50).expires_at == house.clock.now + 60 * SECOND
    assert standing(house, render) == (State.RENDERING, 1)
    house.pass_time(55 * SECOND)
    assert standing(house, render) == (State.RENDERING, 1)
    house.pass_time(10 * SECOND)
    assert standing(house, render) == (State.QUEUED, 1)
    assert house.renders.counts.lost == 1


def test_a_lease_that_nobody_has_ended_yet_can_still_be_kept(house: House) -> None:
    render, worker = house.submitted(house.account()), house.worker()
    lease = worker.leased()
    house.clock.forward(61 * SECOND)
    assert not worker.beat(lease, 10).stop
    house.pass_time(30 * SECOND)
    assert standing(house, render) == (State.RENDERING, 1)


def test_no_lease_ends_because_the_server_was_away(
    open_database: Callable[[], Database], tmp_path: Path
) -> None:
    with House(open_database(), tmp_path / "renders") as house:
        render, worker = house.submitted(house.account()), house.worker()
        lease = worker.leased()
        clock = house.clock
    clock.forward(10 * MINUTE)
    with House(open_database(), tmp_path / "renders", clock=clock) as later:
        later.pass_time(55 * SECOND)
        assert standing(later, render) == (State.RENDERING, 1)
        worker = type(worker)(later, worker.worker)
        assert not worker.beat(lease, 10).stop
        later.pass_time(55 * SECOND)
        worker.complete(lease)
        assert standing(later, render) == (State.SUCCEEDED, 1)


def test_no_lease_ends_because_the_server_stood_still(house: House) -> None:
    render, worker = house.submitted(house.account()), house.worker()
    lease = worker.leased()
    house.pass_time(10 * SECOND)
    # As after a machine that slept, or a database that was away: no sweep in between.
    house.clock.forward(5 * MINUTE)
    house.pass_time(55 * SECOND)
    assert standing(house, render) == (State.RENDERING, 1)
    worker.beat(lease, 1)
    house.pass_time(50 * SECOND)
    assert standing(house, render) == (State.RENDERING, 1)


def test_a_dead_worker_s_lease_ends_a_minute_after_a_start(
    open_database: Callable[[], Database], tmp_path: Path
) -> None:
    with House(open_database(), tmp_path / "renders") as house:
        render = house.submitted(house.account())
        house.worker().leased()
        clock = house.clock
    with House(open_database(), tmp_path / "renders", clock=clock) as later:
        later.pass_time(70 * SECOND)
        assert standing(later, render) == (State.QUEUED, 1)


def test_a_clock_that_is_set_back_does_not_keep_a_dead_worker_s_lease(house: House) -> None:
    render = house.submitted(house.account())
    house.worker().leased()
    house.clock.forward(-DAY)
    house.pass_time(80 * SECOND)
    assert standing(house, render) == (State.QUEUED, 1)


# Time -----------------------------------------------------------------------------------------------


def test_an_attempt_that_takes_too_long_is_one_that_failed(house: House) -> None:
    render, worker = house.submitted(house.account()), house.worker()
    lease = worker.leased()
    assert lease.time_limit == 30 * MINUTE
    for _ in range(36):
        house.pass_time(49 * SECOND)
        worker.beat(lease, 1)
    assert standing(house, render) == (State.RENDERING, 1)
    house.pass_time(MINUTE)
    assert standing(house, render) == (State.QUEUED, 1)
    assert isinstance(house.refused(worker.beating(lease, 2)), StaleLease)


def test_a_worker_that_is_out_of_time_is_told_to_stop(house: House) -> None:
    house.submitted(house.account())
    worker = house.worker()
    lease = worker.leased()
    for _ in range(36):
        house.pass_time(49 * SECOND)
        worker.beat(lease, 1)
    house.clock.forward(40 * SECOND)
    assert worker.beat(lease, 2).stop


def test_a_render_that_nobody_takes_within_a_day_fails_and_costs_nothing(house: House) -> None:
    render = house.submitted(house.account())
    house.clock.forward(DAY - SECOND)
    house.do(house.renders.sweep())
    assert standing(house, render) == (State.QUEUED, 0)
    house.clock.forward(SECOND)
    assert house.worker().lease() is None
    house.do(house.renders.sweep())
    failed = house.get(render)
    assert failed.failure is not None
    assert (failed.state, failed.failure.reason) == (State.FAILED, Reason.DEADLINE_PASSED)
    assert house.files() == set()
    assert house.rest(render.wallet_id) == UNTOUCHED


def test_a_render_that_is_taken_late_has_the_time_of_all_its_attempts(house: House) -> None:
    render, worker = house.submitted(house.account()), house.worker()
    house.clock.forward(DAY - SECOND)
    house.do(house.renders.sweep())
    for _ in range(2):
        worker.fail(worker.leased())
        house.pass_time(25 * MINUTE)
    lease = worker.leased()
    for _ in range(36):
        house.pass_time(49 * SECOND)
        worker.beat(lease, 50)
    assert standing(house, render) == (State.RENDERING, 3)
    worker.complete(lease)
    assert standing(house, render) == (State.SUCCEEDED, 3)


def test_a_render_whose_deadline_passes_while_it_is_rendered_fails_and_costs_nothing(house: House) -> None:
    render, worker = house.submitted(house.account()), house.worker()
    worker.fail(worker.leased(), "no memory")
    # It waits for its second worker until ten minutes before a day and three times half an hour.
    house.clock.forward(DAY + 80 * MINUTE)
    house.do(house.renders.sweep())
    lease = worker.leased()
    for _ in range(12):
        house.pass_time(49 * SECOND)
        assert not worker.beat(lease, 50).stop
    house.pass_time(12 * SECOND)
    assert worker.beat(lease, 50).stop
    failed = house.get(render)
    assert failed.failure is not None
    assert (failed.state, failed.failure) == (
        State.FAILED,
        failed.failure._replace(reason=Reason.DEADLINE_PASSED, message="no memory"),
    )
    assert house.rest(render.wallet_id) == UNTOUCHED


def test_a_render_that_cannot_be_ended_keeps_no_other_one_from_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    renders = [house.submitted(house.account()) for _ in range(3)]
    house.clock.forward(DAY)
    finish = rows.finish

    def breaks(connection: Connection, now: int, found: Standing, *more: Any, **options: Any) -> None:
        if found.key == renders[1].key:
            raise ValueError
        finish(connection, now, found, *more, **options)

    with monkeypatch.context() as broken:
        broken.setattr(rows, "finish", breaks)
        house.do(house.renders.sweep())
    ended = [house.get(render).state for render in renders]
    assert ended == [State.FAILED, State.QUEUED, State.FAILED]
    house.do(house.renders.sweep())
    assert house.get(renders[1]).state is State.FAILED


def test_a_render_that_is_not_there_has_no_lease(house: House) -> None:
    render, worker = house.submitted(house.account()), house.worker()
    lease = worker.leased()
    unknown = lease._replace(claim=lease.claim._replace(number=render.number + 1))
    for work in (worker.beating(unknown, 0), worker.completing(unknown), worker.failing(unknown)):
        assert isinstance(house.refused(work), NotFound)


def test_the_defaults_are_those_of_the_contract() -> None:
    assert TIMES == (60 * SECOND, DAY, 30 * MINUTE, 30 * DAY)
