"""What the next group takes: portions of messages beside calls, whole messages beside none, all in order."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest

from oanim_server.ledger.operations import Release, Reserve
from oanim_server.ledger.queueing import PER_WALLET, PORTION, Entry, Lane, Message, Pending, join, take
from oanim_server.ledger.refusals import Draining, InvalidField, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from oanim_server.ledger.operations import Operation
    from tests.ledger.driving import Driven


def reserve(wallet_id: int, key: str = "") -> Reserve:
    return Reserve(
        wallet_id=wallet_id, caller=1, opener=1, api_key_id="k", idempotency_key=key, amount_micros=1
    )


def release(wallet_id: int) -> Release:
    return Release(wallet_id=wallet_id, caller=1, idempotency_key="", reservation=1)


def call(work: Operation) -> Pending:
    return Pending(work, Future(), None)


def lane(loop: asyncio.AbstractEventLoop, *messages: Sequence[Operation]) -> Lane:
    made = Lane()
    for works in messages:
        made.add(Message(works, loop, made), at_end=True)
    return made


def wallets(group: Sequence[Pending]) -> list[int]:
    return [pending.wallet_id for pending in group]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that never runs."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def test_beside_no_calls_messages_are_taken_whole_and_in_order(loop: asyncio.AbstractEventLoop) -> None:
    queue: deque[Entry] = deque(
        lane(loop, [reserve(1_000 * number + place) for place in range(600)]) for number in range(3)
    )
    first, second, third = [take(queue, 1_000) for _ in range(3)]
    everything = [1_000 * number + place for number in range(3) for place in range(600)]
    assert wallets(first) + wallets(second) + wallets(third) == everything
    assert [len(first), len(second), len(third)] == [1_000, 800, 0]


def test_beside_calls_a_message_gives_a_portion_at_a_time(loop: asyncio.AbstractEventLoop) -> None:
    queue: deque[Entry] = deque([lane(loop, [reserve(place) for place in range(1, 1_001)])])
    queue.extend(call(reserve(5_000 + number)) for number in range(3))
    assert wallets(take(queue, 1_000)) == [*range(1, PORTION + 1), 5_000, 5_001, 5_002]
    # Nobody else waits now.
    assert wallets(take(queue, 1_000)) == list(range(PORTION + 1, 1_001))
    assert not queue


def test_what_is_admitted_keeps_its_order_on_each_wallet(loop: asyncio.AbstractEventLoop) -> None:
    """Others go past the rest of a message; what is of one of its wallets waits behind it."""
    later = [call(reserve(500)), call(release(5_000)), call(release(1))]
    queue: deque[Entry] = deque([lane(loop, [reserve(place) for place in range(1, 1_001)]), *later])
    queue.append(lane(loop, [release(700), release(2)]))
    groups = [take(queue, 1_000) for _ in range(2)]
    assert wallets(groups[0]) == [*range(1, PORTION + 1), 5_000, 1]
    order = groups[0] + groups[1]
    while queue:
        order += take(queue, 1_000)
    assert len(order) == 1_000 + 5
    for wallet_id in (1, 2, 500, 700):
        assert type(next(one.work for one in order if one.wallet_id == wallet_id)) is Reserve
    assert [one for one in order if one.wallet_id == 500][1] is later[0]


def test_a_hot_wallet_leaves_room_for_others_and_is_taken_whole_where_there_are_none(
    loop: asyncio.AbstractEventLoop,
) -> None:
    hot: deque[Entry] = deque([lane(loop, [reserve(1)] * 600), lane(loop, [reserve(1)] * 600)])
    assert len(take(hot, 1_000)) == 1_000
    assert len(take(hot, 1_000)) == 200
    queue: deque[Entry] = deque([lane(loop, [reserve(1)] * 600), lane(loop, [reserve(2)] * 10)])
    assert wallets(take(queue, 1_000)) == [1] * PER_WALLET + [2] * 10
    assert wallets(take(queue, 1_000)) == [1] * 350


def groups_until(
    entry: Entry,
    queue: deque[Entry],
    lanes: Sequence[Lane],
    loop: asyncio.AbstractEventLoop,
    *,
    wallet_id: int,
) -> int:
    """How many groups are taken before an entry begins to be, while lanes are joined after each of them."""
    for groups in range(20):
        before = len(entry) if isinstance(entry, Lane) else 0
        taken = take(queue, 1_000)
        if entry in taken if isinstance(entry, Pending) else len(entry) < before:
            return groups
        for number, each in enumerate(lanes):
            while len(each) < 1_000:
                join(queue, Message([reserve(wallet_id or 1 + number)] * 100, loop, each))
    return 20


def test_a_lane_that_is_joined_again_and_again_lets_a_call_on_its_wallet_through(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """The call waits for what one message may have, in portions, and is in the group of the last of them."""
    busy = lane(loop, *[[reserve(1)] * 100] * 10)
    waiting = call(release(1))
    queue: deque[Entry] = deque([busy, waiting])
    assert groups_until(waiting, queue, [busy], loop, wallet_id=1) == 9


def test_lanes_that_fill_a_group_let_others_through_all_the_same(loop: asyncio.AbstractEventLoop) -> None:
    """Each has its turn before them, and not another one."""
    busy = [lane(loop, [reserve(1 + number)] * 100) for number in range(10)]
    waiting = call(reserve(5_000))
    queue: deque[Entry] = deque([*busy, waiting])
    assert groups_until(waiting, queue, busy, loop, wallet_id=0) == 1


def test_a_lane_on_a_full_wallet_lets_another_one_on_it_through(loop: asyncio.AbstractEventLoop) -> None:
    hot, other = lane(loop, *[[reserve(1)] * 100] * 10), lane(loop, [reserve(1)] * 100)
    beside = lane(loop, [reserve(2)] * 100)
    queue: deque[Entry] = deque([hot, other, beside])
    assert groups_until(other, queue, [hot, beside], loop, wallet_id=1) <= 4


def test_what_joins_a_lane_while_others_wait_behind_it_is_taken_after_them(
    loop: asyncio.AbstractEventLoop,
) -> None:
    first, second = lane(loop, [reserve(1)]), lane(loop, [reserve(2)])
    queue: deque[Entry] = deque([first, second])
    join(queue, Message([reserve(3)], loop, first))
    join(queue, Message([reserve(4)], loop, second))
    assert len(first) == 2
    assert wallets(take(queue, 2)) == [1, 2]
    # The first waits behind the second by now. With nobody else there, all of it is one group.
    join(queue, Message([reserve(5)], loop, second))
    assert wallets(take(queue, 1_000)) == [4, 3, 5]
    assert not queue
    assert not first


def test_of_a_message_that_nobody_waits_for_reserves_are_dropped(loop: asyncio.AbstractEventLoop) -> None:
    waiting = Lane()
    message, later = [Message(works, loop, waiting) for works in ([reserve(1), release(2)], [reserve(3)])]
    waiting.add(message, at_end=True)
    waiting.add(later, at_end=True)
    message.future.cancel()
    assert wallets(take(deque([waiting]), 1_000)) == [2, 3]


def test_messages_of_one_lane_are_taken_together_and_in_order(loop: asyncio.AbstractEventLoop) -> None:
    messages = [[reserve(1_000 * number + place) for place in range(100)] for number in range(1, 4)]
    everything = [work.wallet_id for works in messages for work in works]
    waiting = lane(loop, *messages)
    queue: deque[Entry] = deque([waiting])
    assert len(waiting) == 300
    assert wallets(take(queue, 250)) == everything[:250]
    assert len(waiting) == 50
    assert wallets(take(queue, 250)) == everything[250:]
    assert not queue


def test_beside_calls_a_lane_gives_one_portion_however_many_messages_it_has(
    loop: asyncio.AbstractEventLoop,
) -> None:
    queue: deque[Entry] = deque([lane(loop, [reserve(1)] * 70, [reserve(2)] * 70), call(reserve(3))])
    assert wallets(take(queue, 1_000)) == [1] * 70 + [2] * 30 + [3]


def test_a_full_wallet_holds_up_the_messages_behind_it_in_its_lane(loop: asyncio.AbstractEventLoop) -> None:
    queue: deque[Entry] = deque([lane(loop, [reserve(1)] * 300, [reserve(2)]), lane(loop, [reserve(3)])])
    assert wallets(take(queue, 1_000)) == [1] * PER_WALLET + [3]
    assert wallets(take(queue, 1_000)) == [1] * 50 + [2]


def test_a_message_is_answered_once_and_a_refusal_in_it_is_its_own_answer(
    loop: asyncio.AbstractEventLoop,
) -> None:
    misshapen: Refusal = InvalidField(field="amount_micros", description="it is 0")
    waiting = Lane()
    message = Message([reserve(1), misshapen, reserve(2)], loop, waiting)
    waiting.add(message, at_end=True)
    first, second = take(deque([waiting]), 1_000)
    assert message.answer(second.number, "b") is None
    assert message.answer(first.number, "a") == (message.future, ["a", misshapen, "b"])
    empty = Message([misshapen], loop, waiting)
    assert (len(empty), empty.future.result()) == (0, [misshapen])


def test_messages_are_answered_however_full_the_queue_is(ledger: Driven) -> None:
    """Thousands of operations of many streams, beside calls, in the order of each."""
    wallets_ = [ledger.open_wallet(10_000) for _ in range(3)]

    async def ask(number: int) -> list[Any]:
        works: list[Operation | Refusal] = []
        for place in range(300):
            wallet_id = wallets_[place % 3]
            key = f"{number}-{place}"
            works.append(ledger.reserve(wallet_id, 2, key=f"r{key}"))
            works.append(ledger.commit(wallet_id, 0, 1, key=f"c{key}", reserve_key=f"r{key}"))
        return await ledger.ledger.submit_all(works, Lane())

    async def all_of_them() -> list[list[Any]]:
        calls = [asyncio.create_task(ledger.ledger.submit(ledger.reserve(wallets_[0], 1))) for _ in range(50)]
        answers = await asyncio.gather(*[ask(number) for number in range(8)])
        await asyncio.gather(*calls)
        return answers

    answers = asyncio.run(all_of_them())
    assert {type(answer).__name__ for message in answers for answer in message} == {"Outcome"}
    charged = [answer.charged_micros for message in answers for answer in message]
    assert charged == [0, 1] * 2_400
    assert [ledger.wallet(w).balance_micros for w in wallets_] == [10_000 - 800] * 3
    assert ledger.problems() == []


def test_what_is_put_into_a_lane_that_waits_is_decided_in_its_order(ledger: Driven) -> None:
    """Each operation needs the one before it; a lane is put into while the committer takes from it."""
    wallet_id = ledger.open_wallet(10_000)

    async def ask() -> list[list[Any]]:
        waiting = Lane()
        asked = []
        for number in range(200):
            held = ledger.reserve(wallet_id, 2, key=f"r{number}")
            done = ledger.commit(wallet_id, 0, 1, key=f"c{number}", reserve_key=f"r{number}")
            asked += [ledger.ledger.submit_all([work], waiting) for work in (held, done)]
            if number % 20 == 0:
                await asyncio.sleep(0.001)
        return await asyncio.gather(*asked)

    answers = [answer for (answer,) in asyncio.run(ask())]
    assert [answer.charged_micros for answer in answers] == [0, 1] * 200
    assert [answer.wallet.seq for answer in answers] == list(range(2, 402))
    assert ledger.problems() == []


def test_a_ledger_that_has_stopped_takes_no_message(ledger: Driven) -> None:
    ledger.ledger.stop_now()

    async def ask() -> None:
        with pytest.raises(Draining):
            await ledger.ledger.submit_all([reserve(1)], Lane())

    asyncio.run(ask())
