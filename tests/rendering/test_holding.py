"""What a worker holds for the account of a render: under its lease, and never longer."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from oanim_server.ledger.operations import Commit, Extend, Release, Reserve
from oanim_server.ledger.refusals import (
    AlreadyReleased,
    IdempotencyKeyReused,
    InsufficientCredits,
    NotFound,
    NotYourHold,
)
from oanim_server.ledger.values import Outcome, State
from oanim_server.rendering import holding
from oanim_server.rendering.holding import Held, UnderLease
from oanim_server.rendering.refusals import StaleLease
from tests.rendering.house import GRANT, MINUTE, QUOTE, Hand, House, Rest, charged

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from oanim_server.ledger.operations import Operation
    from oanim_server.rendering.values import Lease, Render

HELD = 1_000


def reserve(hand: Hand, lease: Lease, key: str = "", amount: int = HELD) -> Reserve:
    """What a worker's Reserve is."""
    claim = hand.claim(lease)
    return Reserve(
        wallet_id=claim.wallet_id,
        caller=claim.worker,
        opener=claim.worker,
        api_key_id=hand.worker.api_key_id,
        idempotency_key=key or uuid.uuid4().hex,
        amount_micros=amount,
        under=(claim.number, claim.epoch),
        companion=Held(claim),
    )


def on(kind: type[Any], hand: Hand, held: Outcome, key: str = "", **more: Any) -> Operation:
    """What a worker's operation on its hold is."""
    assert held.reservation is not None
    wallet_id, number = held.reservation.wallet_id, held.reservation.number
    companion = None if kind is Release else UnderLease((wallet_id, number), hand.worker.account_id)
    operation: Operation = kind(
        wallet_id=wallet_id,
        caller=hand.worker.account_id,
        idempotency_key=key or uuid.uuid4().hex,
        reservation=number,
        companion=companion,
        **more,
    )
    return operation


def asking(house: House, operation: Operation) -> Coroutine[Any, Any, Outcome]:
    return house.ledger.submit(operation)


def state_of(house: House, held: Outcome) -> tuple[State, int]:
    """How a hold stands, and what was charged of it."""
    assert held.reservation is not None
    facts = house.do(house.ledger.reservation(held.reservation.wallet_id, held.reservation.number))
    return facts.state, facts.captured_micros


@pytest.fixture
def scene(house: House) -> tuple[House, Render, Hand, Lease]:
    """A render that a worker has."""
    render = house.submitted(house.account())
    worker = house.worker()
    return house, render, worker, worker.leased()


Scene = tuple[House, "Render", Hand, "Lease"]


def test_a_worker_holds_extends_and_commits_under_its_lease(scene: Scene) -> None:
    house, render, worker, lease = scene
    held = house.do(asking(house, reserve(worker, lease)))
    assert held.wallet.held_micros == QUOTE + HELD
    house.do(asking(house, on(Extend, worker, held, amount_micros=500)))
    house.do(asking(house, on(Commit, worker, held, amount_micros=1_200)))
    assert state_of(house, held) == (State.COMMITTED, 1_200)
    worker.complete(lease)
    assert house.rest(render.wallet_id) == Rest(GRANT - QUOTE - 1_200, 0, [])


@pytest.mark.parametrize("how", ["completed", "failed", "handed back", "lost", "cancelled", "lost for good"])
def test_what_a_worker_holds_is_released_when_its_lease_ends(scene: Scene, how: str) -> None:
    house, render, worker, lease = scene
    if how == "lost for good":
        for _ in range(2):
            worker.fail(lease)
            lease = worker.leased()
    held = house.do(asking(house, reserve(worker, lease)))
    if how == "completed":
        worker.complete(lease)
    elif how == "failed":
        worker.fail(lease)
    elif how == "handed back":
        worker.fail(lease, handed_back=True)
    elif how == "cancelled":
        house.cancel(render)
    else:
        house.pass_time(2 * MINUTE)
    assert state_of(house, held) == (State.RELEASED, 0)
    refused = house.refused(asking(house, on(Commit, worker, held, amount_micros=1)))
    assert isinstance(refused, StaleLease)
    assert isinstance(house.refused(asking(house, reserve(worker, lease))), StaleLease)
    house.cancel(render)
    assert house.rest(render.wallet_id).held_micros == 0
    assert house.select("SELECT open FROM render_holds") == [(0,)]


def test_what_is_left_at_a_crash_is_released_by_the_next_sweep(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    house, render, worker, lease = scene
    held = house.do(asking(house, reserve(worker, lease)))

    async def crash(*_: object) -> None:
        raise ConnectionAbortedError

    with monkeypatch.context() as crashing:
        crashing.setattr(holding, "release_left", crash)
        worker.complete(lease)
    assert state_of(house, held)[0] is State.ACTIVE
    # Between the lease's end and the release nothing can be charged of it.
    refused = house.refused(asking(house, on(Commit, worker, held, amount_micros=HELD)))
    assert isinstance(refused, StaleLease)
    house.do(house.renders.sweep())
    assert state_of(house, held) == (State.RELEASED, 0)
    assert house.rest(render.wallet_id) == Rest(GRANT - QUOTE, 0, [])


def test_what_a_worker_has_released_or_committed_itself_stays_so(scene: Scene) -> None:
    house, render, worker, lease = scene
    one, other, late = (house.do(asking(house, reserve(worker, lease))) for _ in range(3))
    house.do(asking(house, on(Release, worker, one)))
    house.do(asking(house, on(Commit, worker, other, amount_micros=10)))
    house.do(asking(house, on(Commit, worker, late, "c", amount_micros=10, keep_rest=True)))
    worker.complete(lease)
    assert [state_of(house, held) for held in (one, other, late)] == [
        (State.RELEASED, 0),
        (State.COMMITTED, 10),
        (State.RELEASED, 10),
    ]
    # A repetition is answered, whatever has become of the lease.
    again = on(Commit, worker, late, "c", amount_micros=10, keep_rest=True)
    assert house.do(asking(house, again)).replayed
    assert isinstance(house.refused(asking(house, on(Extend, worker, late, amount_micros=1))), StaleLease)
    assert house.do(asking(house, on(Release, worker, late))).reservation is not None
    assert house.rest(render.wallet_id) == Rest(GRANT - QUOTE - 20, 0, [])
    assert house.select("SELECT DISTINCT open FROM render_holds") == [(0,)]


def test_nobody_holds_without_the_lease(scene: Scene) -> None:
    house, render, worker, lease = scene
    thief = house.worker("thief")
    later = lease._replace(claim=lease.claim._replace(epoch=2))
    unknown = lease._replace(claim=lease.claim._replace(number=render.number + 7))
    assert isinstance(house.refused(asking(house, reserve(thief, lease))), StaleLease)
    assert isinstance(house.refused(asking(house, reserve(worker, later))), StaleLease)
    assert isinstance(house.refused(asking(house, reserve(worker, unknown))), NotFound)
    held = house.do(asking(house, reserve(worker, lease)))
    refused = house.refused(asking(house, on(Commit, thief, held, amount_micros=1)))
    assert isinstance(refused, NotYourHold)
    assert isinstance(house.refused(asking(house, on(Release, thief, held))), NotYourHold)
    assert house.wallet(render.wallet_id).held_micros == QUOTE + HELD


def test_a_worker_s_hold_is_refused_as_any_other(scene: Scene) -> None:
    house, _, worker, lease = scene
    refused = house.refused(asking(house, reserve(worker, lease, amount=GRANT)))
    assert isinstance(refused, InsufficientCredits)
    first = house.do(asking(house, reserve(worker, lease, "k")))
    assert house.do(asking(house, reserve(worker, lease, "k"))).reservation == first.reservation
    worker.fail(lease)
    again = worker.leased()
    assert isinstance(house.refused(asking(house, reserve(worker, again, "k"))), IdempotencyKeyReused)


def test_a_lease_that_ends_while_its_worker_commits_is_charged_and_released_to_the_last_micro(
    house: House,
) -> None:
    worker = house.worker()
    for _ in range(6):
        render = house.submitted(house.account())
        lease = worker.leased()
        held = house.do(asking(house, reserve(worker, lease)))

        async def at_once(render: Render = render, lease: Lease = lease, held: Outcome = held) -> list[Any]:
            works = [
                house.renders.cancel(render.key),
                house.ledger.submit(on(Commit, worker, held, amount_micros=300)),
                worker.beating(lease, 10),
                house.renders.cancel(render.key),
            ]
            answers: list[Any] = await asyncio.gather(*works, return_exceptions=True)
            return answers

        _, committed, *_ = house.do(at_once())
        assert isinstance(committed, Outcome | StaleLease | AlreadyReleased)
        spent = 300 if isinstance(committed, Outcome) else 0
        frames = house.get(render).charged_micros
        assert frames in (0, charged(10))
        assert house.rest(render.wallet_id) == Rest(GRANT - frames - spent, 0, [])
