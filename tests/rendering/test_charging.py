"""What a render costs: the frames of its video or the most that was reported, once, never above the quote."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from oanim_server.ledger.refusals import InvalidField, Refusal
from oanim_server.pricing.values import ProposedPrice
from oanim_server.rendering.refusals import StaleLease
from oanim_server.rendering.values import Failure, Reason, State
from tests.rendering.house import GRANT, MINUTE, QUOTE, Hand, House, Rest, charged

if TYPE_CHECKING:
    from oanim_server.rendering.values import Lease, Render

UNTOUCHED = Rest(GRANT, 0, [])
PAID_IN_FULL = Rest(GRANT - QUOTE, 0, [])


def rendering(house: House) -> tuple[Render, Hand, Lease]:
    """A render that a worker has."""
    render = house.submitted(house.account())
    worker = house.worker()
    return render, worker, worker.leased()


def lost(house: House) -> None:
    """Let the time pass in which a worker must be heard of."""
    house.pass_time(2 * MINUTE)


def stale(house: House, work: Any) -> bool:
    return isinstance(house.refused(work), StaleLease)


# Completing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reported", "delivered", "frames"), [(0, 100, 100), (40, 30, 40), (40, 60, 60), (100, 1, 100)]
)
def test_the_frames_of_the_video_or_the_most_that_was_reported_are_charged(
    house: House, reported: int, delivered: int, frames: int
) -> None:
    render, worker, lease = rendering(house)
    assert house.wallet(render.wallet_id).held_micros == QUOTE
    worker.beat(lease, reported)
    done, replayed = worker.complete(lease, delivered)
    assert (done.state, done.charged_micros, done.frames_done, replayed) == (
        State.SUCCEEDED,
        charged(frames),
        frames,
        False,
    )
    assert house.rest(render.wallet_id) == Rest(GRANT - charged(frames), 0, [])


def test_a_price_is_rounded_up_once_and_is_never_above_the_quote(house: House) -> None:
    # 3 frames of 16 x 16 pixels at 7 a second: 0.11 kilopixel-seconds are one.
    house.submitted(house.account(), width=16, height=16, fps=7, frames=3)
    worker = house.worker()
    lease = worker.leased()
    for frames in (1, 2, 3):
        worker.beat(lease, frames)
    done, _ = worker.complete(lease, 3)
    assert (done.quoted_micros, done.charged_micros) == (2, 2)


def test_the_price_that_was_quoted_is_charged_whatever_is_published_meanwhile(house: House) -> None:
    render, worker, lease = rendering(house)
    fields: dict[str, Any] = {"quantity_field": "", "endpoint": "", "is_default": False, "base_quantity": 1}
    dear = ProposedPrice(
        model="oanim/cloud-render",
        category="render",
        amount_micros=999,
        unit="kilopixel_second",
        provider="",
        **fields,
    )
    unlisted = ProposedPrice(
        model="", category="other", amount_micros=1, unit="operation", provider="fal", **fields
    )
    house.do(house.process.prices.publish([dear, unlisted], effective_at=None, published_by="k"))
    assert worker.complete(lease)[0].charged_micros == QUOTE
    assert house.submitted(render.wallet_id).quoted_micros == 99_900


def test_a_report_lost_or_repeated_or_late_costs_the_same(house: House) -> None:
    render, worker, lease = rendering(house)
    chance = random.Random(5)
    reports = [frames for frames in range(0, 100, 5) for _ in range(20) if chance.random() < 0.7]
    chance.shuffle(reports)

    async def all_of_them() -> None:
        await asyncio.gather(*[worker.beating(lease, frames) for frames in reports])

    house.do(all_of_them())
    assert house.get(render).frames_done == max(reports)
    house.cancel(render)
    assert house.rest(render.wallet_id) == Rest(GRANT - charged(max(reports)), 0, [])


def test_a_count_that_cannot_be_is_refused_and_counts_for_nothing(house: House) -> None:
    render, worker, lease = rendering(house)
    refused = house.refused(worker.beating(lease, 101))
    assert isinstance(refused, InvalidField)
    assert (refused.field, house.get(render).frames_done) == ("frames", 0)
    refused = house.refused(worker.completing(lease, 101))
    assert isinstance(refused, InvalidField)
    assert (refused.field, house.get(render).state) == ("completion.frames", State.RENDERING)


def test_a_render_that_is_completed_again_is_answered_as_before_without_its_video(house: House) -> None:
    render, worker, lease = rendering(house)
    first, replayed = worker.complete(lease, 90)
    again, replayed_again = worker.complete(lease, 10, b"")
    assert (again, replayed, replayed_again) == (first, False, True)
    assert house.files() == {first.video.object_id if first.video else ""}
    assert house.rest(render.wallet_id) == Rest(GRANT - charged(90), 0, [])


def test_a_render_that_is_completed_many_times_at_once_has_one_video_and_is_charged_once(
    house: House,
) -> None:
    render, worker, lease = rendering(house)

    async def at_once() -> list[tuple[Render, bool]]:
        return await asyncio.gather(*[worker.completing(lease, 90) for _ in range(8)])

    answers = house.do(at_once())
    done = house.get(render)
    assert [found for found, _ in answers] == [done] * 8
    assert [replayed for _, replayed in answers].count(False) == 1
    assert house.files() == {done.video.object_id if done.video else ""}
    assert house.rest(render.wallet_id) == Rest(GRANT - charged(90), 0, [])


# Several workers ------------------------------------------------------------------------------------


def test_of_two_workers_that_believe_they_have_a_render_the_former_is_refused(house: House) -> None:
    render, first, lease = rendering(house)
    first.beat(lease, 70)
    lost(house)
    second = house.worker()
    again = second.leased()
    assert (again.claim.epoch, again.attempt, again.claim.key) == (2, 2, render.key)
    for work in (first.beating(lease, 90), first.completing(lease), first.failing(lease)):
        assert stale(house, work)
    assert house.get(render).state is State.RENDERING
    second.beat(again, 20)
    done, _ = second.complete(again, 50)
    # Never their sum.
    assert (done.charged_micros, done.attempts) == (charged(70), 2)
    assert stale(house, first.completing(lease))
    assert house.files() == {done.video.object_id if done.video else ""}
    assert house.rest(render.wallet_id) == Rest(GRANT - charged(70), 0, [])


def test_of_two_workers_that_complete_at_once_one_is_refused(house: House) -> None:
    render, first, lease = rendering(house)
    lost(house)
    second = house.worker()
    again = second.leased()

    async def at_once() -> list[Any]:
        works = [first.completing(lease), second.completing(again), first.completing(lease)]
        answers: list[Any] = await asyncio.gather(*works, return_exceptions=True)
        return answers

    answers = house.do(at_once())
    assert [isinstance(answer, StaleLease) for answer in answers] == [True, False, True]
    assert house.rest(render.wallet_id) == PAID_IN_FULL


def test_another_worker_s_lease_is_no_lease(house: House) -> None:
    render, _, lease = rendering(house)
    thief = house.worker("thief")
    for work in (thief.beating(lease, 90), thief.completing(lease), thief.failing(lease)):
        assert stale(house, work)
    assert house.get(render).frames_done == 0


# Failing --------------------------------------------------------------------------------------------


def test_three_failed_attempts_cost_nothing(house: House) -> None:
    render = house.submitted(house.account())
    worker = house.worker()
    states = []
    for attempt in (1, 2, 3):
        lease = worker.leased()
        assert lease.attempt == attempt
        worker.beat(lease, 30 * attempt)
        states.append(worker.fail(lease, f"it broke, {attempt}").state)
        assert worker.fail(lease, "again").state is states[-1]
    assert states == [State.QUEUED, State.QUEUED, State.FAILED]
    failed = house.get(render)
    assert failed.failure == Failure(Reason.RENDER_FAILED, "it broke, 3")
    assert (failed.charged_micros, failed.attempts, worker.lease()) == (0, 3, None)
    assert house.files() == set()
    assert house.rest(render.wallet_id) == UNTOUCHED


def test_three_lost_workers_cost_nothing(house: House) -> None:
    render = house.submitted(house.account())
    for _ in range(3):
        worker = house.worker()
        lease = worker.leased()
        worker.beat(lease, 99)
        lost(house)
    failed = house.get(render)
    assert failed.failure is not None
    assert (failed.state, failed.failure.reason) == (State.FAILED, Reason.RENDER_FAILED)
    assert house.rest(render.wallet_id) == UNTOUCHED


def test_a_render_that_is_handed_back_has_lost_no_attempt(house: House) -> None:
    render = house.submitted(house.account())
    worker = house.worker()
    for _ in range(5):
        lease = worker.leased()
        assert lease.attempt == 1
        assert worker.fail(lease, handed_back=True).state is State.QUEUED
    lease = worker.leased()
    assert (lease.claim.epoch, lease.attempt) == (6, 1)
    worker.complete(lease)
    assert house.rest(render.wallet_id) == PAID_IN_FULL


def test_a_lease_that_was_lost_cannot_be_given_up(house: House) -> None:
    render, worker, lease = rendering(house)
    lost(house)
    assert stale(house, worker.failing(lease))
    assert house.get(render).attempts == 1


# Cancelling -----------------------------------------------------------------------------------------


def test_a_render_that_waits_is_cancelled_for_nothing(house: House) -> None:
    render = house.submitted(house.account())
    cancelled = house.cancel(render)
    assert (cancelled.state, cancelled.charged_micros) == (State.CANCELLED, 0)
    assert (house.worker().lease(), house.files()) == (None, set())
    assert house.cancel(render) == cancelled
    assert house.rest(render.wallet_id) == UNTOUCHED


def test_a_render_that_is_cancelled_while_it_is_rendered_costs_what_was_reported(house: House) -> None:
    render, worker, lease = rendering(house)
    worker.beat(lease, 40)
    cancelled = house.cancel(render)
    assert (cancelled.state, cancelled.charged_micros) == (State.CANCELLED, charged(40))
    assert worker.beat(lease, 80).stop
    assert stale(house, worker.completing(lease))
    assert house.files() == set()
    assert house.rest(render.wallet_id) == Rest(GRANT - charged(40), 0, [])


def test_what_ended_first_stays_when_all_ends_come_at_once(house: House) -> None:
    worker = house.worker()
    for turn in range(8):
        render = house.submitted(house.account())
        lease = worker.leased()
        chance = random.Random(turn)

        async def at_once(
            render: Render = render, lease: Lease = lease, chance: random.Random = chance
        ) -> None:
            works = [
                worker.beating(lease, 10),
                worker.completing(lease, 50),
                house.renders.cancel(render.key),
                worker.completing(lease, 50),
                worker.failing(lease),
                house.renders.cancel(render.key),
            ]
            chance.shuffle(works)
            for answer in await asyncio.gather(*works, return_exceptions=True):
                assert not isinstance(answer, BaseException) or isinstance(answer, Refusal)

        house.do(at_once())
        found = house.cancel(render)
        expected = {State.SUCCEEDED: (50,), State.CANCELLED: (0, 10)}[found.state]
        assert found.charged_micros in [charged(frames) for frames in expected]
        assert house.rest(render.wallet_id) == Rest(GRANT - found.charged_micros, 0, [])
