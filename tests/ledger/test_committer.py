from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from oanim_server.ledger import committer as module
from oanim_server.ledger.committer import Committer
from oanim_server.ledger.group import Group
from oanim_server.ledger.queueing import Lane
from oanim_server.ledger.refusals import Faulty, InsufficientCredits, NotFound, Overloaded
from oanim_server.ledger.values import SECOND, Line, Outcome, Scope
from tests.ledger.counting import statements_of_new_connections
from tests.ledger.driving import Clock, Driven, Recording, batch, busy, together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection

    from oanim_server.database.engine import Database
    from oanim_server.ledger.operations import Operation


class Ticking(Clock):
    """A clock that moves on whenever it is read, as each group does once: equal times are one group."""

    def __init__(self) -> None:
        self._reads = 0

    @property
    def now(self) -> int:  # type: ignore[override]
        self._reads += 1
        return self._reads * SECOND


@pytest.fixture
def ticking(open_database: Callable[[], Database]) -> Iterator[Driven]:
    """A ledger whose groups can be told by their time."""
    driven = Driven(open_database(), clock=Ticking()).start()
    yield driven
    driven.close()


# Groups ---------------------------------------------------------------------------------------------


def groups(answers: list[Outcome]) -> list[int]:
    """The group of each answer: 0 for the first."""
    times = [answer.reservation.created_at for answer in answers if answer.reservation is not None]
    order = sorted(set(times))
    return [order.index(time) for time in times]


def test_what_queues_up_during_a_commit_is_one_group(ticking: Driven) -> None:
    wallets = [ticking.open_wallet() for _ in range(4)]
    answers = batch(ticking.ledger, [ticking.reserve(w, 10) for w in wallets for _ in range(200)])
    assert groups(answers) == [0] * 800


def test_a_hot_wallet_leaves_room_for_the_others(ticking: Driven) -> None:
    hot, calm = ticking.open_wallet(), ticking.open_wallet()
    works = [ticking.reserve(hot, 1) for _ in range(600)] + [ticking.reserve(calm, 1) for _ in range(10)]
    answers = batch(ticking.ledger, works)
    of_group = groups(answers)
    assert of_group[600:] == [0] * 10
    assert of_group[:250] == [0] * 250
    assert 0 not in of_group[250:600]
    # What is admitted keeps its order.
    numbers = [answer.reservation.number for answer in answers[:600]]
    assert numbers == list(range(2, 602))


def test_a_hot_wallet_that_nobody_waits_behind_has_the_group_for_itself(ticking: Driven) -> None:
    hot = ticking.open_wallet()
    answers = batch(ticking.ledger, [ticking.reserve(hot, 1) for _ in range(1_300)])
    of_group = groups(answers)
    assert of_group == sorted(of_group)
    assert [of_group.count(0), of_group.count(1)] == [1_000, 300]


def test_a_group_has_at_most_1000_operations(ticking: Driven) -> None:
    wallets = [ticking.open_wallet() for _ in range(6)]
    answers = batch(ticking.ledger, [ticking.reserve(w, 1) for _ in range(220) for w in wallets])
    of_group = groups(answers)
    assert [of_group.count(0), of_group.count(1)] == [1_000, 320]
    assert of_group == sorted(of_group)


def test_the_order_of_one_wallet_is_the_order_of_arrival(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)

    async def many() -> list[Any]:
        return await asyncio.gather(*(ledger.ledger.submit(ledger.reserve(wallet_id, 1)) for _ in range(700)))

    numbers = [outcome.reservation.number for outcome in asyncio.run(many())]
    assert numbers == list(range(2, 702))


def test_a_group_waits_for_those_who_were_answered_and_ask_again(
    ledger: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of them take a moment: what has come back at once is no group of its own."""
    # Counted in turns: a hundred of them can take a busy machine longer than it is waited at the most.
    monkeypatch.setattr(module, "TURNS_SECONDS", 30.0)
    wallet_id = ledger.open_wallet(10_000)
    callers, times = 40, 20

    async def ask(number: int) -> None:
        for _ in range(times):
            await ledger.ledger.submit(ledger.reserve(wallet_id, 1))
            for _ in range(100 * (number % 2)):
                await asyncio.sleep(0)

    async def ask_all() -> int:
        before = ledger.ledger.tally.groups
        await asyncio.gather(*map(ask, range(callers)))
        groups = ledger.ledger.tally.groups - before
        # A loop that ends would be waited for in vain after the last group.
        await asyncio.to_thread(ledger.ledger.run_write, lambda _connection, _now: None)
        return groups

    # Two sets of callers that take turns would be twice as many.
    assert asyncio.run(ask_all()) <= times * 5 // 4


def test_what_keeps_a_processor_is_lent_none_for_thirty_times_as_long(
    ledger: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine the scheduler gives whoever waits a slice of it at each turn."""
    lent: list[tuple[float, float]] = []

    def lend() -> None:
        began = time.monotonic()
        time.sleep(2 * module.LENT_SECONDS)
        lent.append((began, time.monotonic() - began))

    monkeypatch.setattr(os, "sched_yield", lend)
    wallet_id = ledger.open_wallet(1_000_000)

    async def ask() -> None:
        while len(lent) < 4:
            await ledger.ledger.submit(ledger.reserve(wallet_id, 1))

    async def ask_all() -> None:
        await asyncio.gather(*(ask() for _ in range(4)))

    asyncio.run(ask_all())
    for (began, seconds), (again, _) in pairwise(lent):
        assert again - began >= module.REST * seconds


@pytest.fixture
def small(open_database: Callable[[], Database]) -> Iterator[Driven]:
    """A ledger whose groups have ten operations, where calls may wait for them."""
    driven = Driven(open_database(), group_limit=10).start()
    yield driven
    driven.close()


@contextmanager
def groups_of(ledger: Driven) -> Iterator[list[int]]:
    """How many operations each group of the block has, of those with more than one."""
    groups: list[int] = []
    ledger.ledger.tally.observe = lambda operations, _seconds: groups.append(operations)
    yield groups
    # Each is told of after its answers: once another one was made, all of these were.
    ledger.ledger.run_write(lambda _connection, _now: None)
    groups[:] = [operations for operations in groups if operations > 1]


class Later:
    """The committer's clocks, that run ahead as far as a test says."""

    ahead_seconds = 0.0
    perf_counter = staticmethod(time.perf_counter)
    sleep = staticmethod(time.sleep)

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_seconds


def test_messages_have_larger_groups_while_nobody_calls(
    small: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four times as large, once no call has come for a while; one that comes ends that at once."""
    clock = Later()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "QUIET_SECONDS", 60.0)  # longer than a busy machine stands still
    wallet_id = small.open_wallet(1_000)

    async def ask() -> list[Any]:
        works = [small.reserve(wallet_id, 1) for _ in range(80)]
        with busy(small):
            message = small.ledger.submit_all(works, Lane())
        return await message

    def asked() -> list[int]:
        with groups_of(small) as groups:
            assert {type(answer) for answer in asyncio.run(ask())} == {Outcome}
        return groups

    assert asked() == [10] * 8
    clock.ahead_seconds = 60.0
    assert asked() == [40, 40]
    small.run(small.reserve(wallet_id, 1))
    assert asked() == [10] * 8
    assert small.problems() == []


def test_the_collector_rests_while_a_larger_group_is_run(
    small: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in it wakes the collector, too."""
    monkeypatch.setattr(module, "QUIET_SECONDS", 0.0)
    wallet_id = small.open_wallet(1_000)
    rests: list[bool] = []

    def look(_connection: Connection, _now: int) -> None:
        rests.append(not gc.isenabled())

    def a_bug(_connection: Connection, _now: int) -> None:
        raise ZeroDivisionError

    async def ask(operations: int, load: Callable[[Connection, int], None]) -> list[Any]:
        works = [small.reserve(wallet_id, 1, companion=Recording(load=load)) for _ in range(operations)]
        with busy(small):
            message = small.ledger.submit_all(works, Lane())
        return await message

    for operations, load, kind in ((10, look, Outcome), (40, look, Outcome), (40, a_bug, Faulty)):
        assert {type(answer) for answer in asyncio.run(ask(operations, load))} == {kind}
        small.run(small.reserve(wallet_id, 1))
        assert gc.isenabled()
    assert rests == [False] * 10 + [True] * 40


@pytest.fixture
def uncollected() -> Iterator[None]:
    """What is in a cycle stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
def test_a_group_dies_by_its_count_also_with_a_refusal_in_it(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(10)

    def refuse(_connection: Connection, _now: int) -> None:
        raise NotFound(what="render")

    works = [ledger.reserve(wallet_id, 1), ledger.reserve(wallet_id, 100), ledger.release(wallet_id, 99)]
    works += [ledger.reserve(wallet_id, 1, companion=Recording(load=refuse))]
    kinds = [type(answer) for answer in batch(ledger.ledger, works)]
    assert kinds == [Outcome, InsufficientCredits, NotFound, NotFound]
    # The committer may still be at the end of it.
    until = time.monotonic() + 10
    while any(isinstance(one, Group) for one in gc.get_objects()) and time.monotonic() < until:
        time.sleep(0.1)
    assert [one for one in gc.get_objects() if isinstance(one, Group)] == []


def test_calls_that_have_waited_for_long_are_no_larger_groups(
    small: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUIET_SECONDS", 0.0)
    wallet_id = small.open_wallet(1_000)

    async def ask() -> None:
        with busy(small):
            calls = [asyncio.create_task(small.ledger.submit(small.reserve(wallet_id, 1))) for _ in range(40)]
            await asyncio.sleep(0)
        await asyncio.gather(*calls)

    with groups_of(small) as groups:
        asyncio.run(ask())
    assert groups == [10] * 4


def test_a_loop_that_hangs_does_not_keep_the_next_group_waiting(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)

    async def hang_after_a_group() -> None:
        await together(ledger.ledger, [ledger.reserve(wallet_id, 1) for _ in range(10)])
        thread = threading.Thread(target=ledger.hold, args=(wallet_id, 1))
        thread.start()
        thread.join(10)  # the loop's own thread: nothing else runs on it
        assert not thread.is_alive()

    asyncio.run(hang_after_a_group())


# The queue ------------------------------------------------------------------------------------------


def test_a_full_queue_refuses_work_at_once_and_still_takes_commits_and_releases(
    open_database: Callable[[], Database],
) -> None:
    ledger = Driven(open_database(), queue_limit=20).start()
    wallet_id = ledger.open_wallet(1_000)
    holds = [ledger.hold(wallet_id, 1) for _ in range(21)]
    ending: list[Operation] = [ledger.commit(wallet_id, number, 1) for number in holds[:10]]
    ending += [ledger.release(wallet_id, number) for number in holds[10:20]]

    async def fill() -> list[asyncio.Future[Outcome]]:
        waiting = await queued(ledger, [ledger.reserve(wallet_id, 1) for _ in range(20)])
        began = time.perf_counter()
        with pytest.raises(Overloaded):
            ledger.ledger.submit(ledger.reserve(wallet_id, 1)).send(None)  # before it waits for anything
        assert time.perf_counter() - began < 0.05
        waiting += await queued(ledger, ending)
        assert ledger.ledger.queued == 40
        with pytest.raises(Overloaded):
            await ledger.ledger.submit(ledger.release(wallet_id, holds[20]))
        return waiting

    with asyncio.Runner() as runner:
        with busy(ledger):
            waiting = runner.run(fill())
        answers = runner.run(all_of(waiting))
    assert [answer.wallet.seq for answer in answers] == list(range(23, 63))
    assert not ledger.run(ledger.release(wallet_id, holds[20])).replayed
    ledger.close()


def test_a_refusal_for_overload_is_not_remembered(open_database: Callable[[], Database]) -> None:
    ledger = Driven(open_database(), queue_limit=1).start()
    wallet_id = ledger.open_wallet(1_000)

    async def overload() -> list[asyncio.Future[Outcome]]:
        waiting = await queued(ledger, [ledger.reserve(wallet_id, 1)])
        with pytest.raises(Overloaded):
            await ledger.ledger.submit(ledger.reserve(wallet_id, 1, key="one"))
        return waiting

    with asyncio.Runner() as runner:
        with busy(ledger):
            waiting = runner.run(overload())
        runner.run(all_of(waiting))
    assert not ledger.run(ledger.reserve(wallet_id, 1, key="one")).replayed
    ledger.close()


def test_a_stream_is_not_refused_by_a_full_queue_and_takes_one_place_in_it(
    open_database: Callable[[], Database],
) -> None:
    ledger = Driven(open_database(), queue_limit=2).start()
    wallet_id = ledger.open_wallet(1_000)

    async def fill() -> list[asyncio.Future[Any]]:
        lane = Lane()
        messages = [ledger.ledger.submit_all([ledger.reserve(wallet_id, 1)] * 3, lane) for _ in range(5)]
        calls = await queued(ledger, [ledger.reserve(wallet_id, 1)])
        with pytest.raises(Overloaded):
            await ledger.ledger.submit(ledger.reserve(wallet_id, 1))
        messages += [
            ledger.ledger.submit_all([ledger.reserve(wallet_id, 1)], each) for each in (lane, Lane())
        ]
        return messages + calls

    with asyncio.Runner() as runner:
        with busy(ledger):
            waiting = runner.run(fill())
        *messages, call = runner.run(all_of(waiting))
    assert [len(answers) for answers in messages] == [3] * 5 + [1, 1]
    assert {type(answer) for answer in [call, *(one for answers in messages for one in answers)]} == {Outcome}
    ledger.close()


async def queued(ledger: Driven, operations: Sequence[Operation]) -> list[asyncio.Future[Outcome]]:
    """Queue operations, in order."""
    waiting = [asyncio.ensure_future(ledger.ledger.submit(operation)) for operation in operations]
    await asyncio.sleep(0)
    return list(waiting)


async def all_of(waiting: Sequence[asyncio.Future[Outcome]]) -> list[Outcome]:
    return await asyncio.gather(*waiting)


# Who is told ----------------------------------------------------------------------------------------


def test_who_watches_may_fail_without_harm_to_who_has_paid(open_database: Callable[[], Database]) -> None:
    """A watcher's event loop may be closed just then."""
    ledger = Driven(open_database()).start()
    wallet_id = ledger.open_wallet(1_000)
    ledger.ledger.stop_now()

    def fail(_wallet_ids: object) -> None:
        message = "the loop is closed"
        raise RuntimeError(message)

    committer = Committer(ledger.database, changed=fail)
    committer.start()
    first = committer.run(ledger.reserve(wallet_id, 10, key="one"))
    assert (type(first), first.replayed) == (Outcome, False)
    assert committer.run(ledger.reserve(wallet_id, 10, key="one")) == first._replace(replayed=True)
    committer.stop()
    ledger.database.close()


def test_a_callers_event_loop_that_is_closed_stops_nobody_else(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)

    async def leave() -> None:
        asyncio.ensure_future(ledger.ledger.submit(ledger.reserve(wallet_id, 10, key="left")))  # noqa: RUF006
        await asyncio.sleep(0)

    with busy(ledger):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(leave())
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    assert ledger.run(ledger.reserve(wallet_id, 10)).wallet.held_micros in (10, 20)


# Statements -----------------------------------------------------------------------------------------


def everything(ledger: Driven, wallets: list[int], holds: dict[int, list[int]], name: str) -> list[Operation]:
    """One of each kind of operation for each wallet, and one that is refused."""
    line = Line(1, "flux", "image", "fal", "image", 10, 1, 1)
    works: list[Operation] = []
    for w in wallets:
        first, second, third = holds[w]
        works += [
            ledger.reserve(w, 10, key=f"{name}-r", line=line, spend_scopes=(Scope("run", 10**9),)),
            ledger.commit(w, first, 5, key=f"{name}-c"),
            ledger.release(w, second, key=f"{name}-x"),
            ledger.extend(w, third, key=f"{name}-e", amount_micros=5, ttl=60 * SECOND),
            ledger.reserve(w, 10**12, key=f"{name}-n"),
        ]
    return works


def test_a_group_needs_as_many_statements_for_a_thousand_operations_as_for_a_few(
    open_database: Callable[[], Database],
) -> None:
    with statements_of_new_connections() as sent:
        ledger = Driven(open_database()).start()
        wallets = [ledger.open_wallet() for _ in range(150)]
        counts = []
        for size, name in ((2, "a"), (150, "b")):
            some = wallets[:size]
            made = batch(
                ledger.ledger, [ledger.reserve(w, 10, key=f"{name}{n}") for w in some for n in range(3)]
            )
            numbers = [outcome.reservation.number for outcome in made]
            holds = {w: numbers[3 * n : 3 * n + 3] for n, w in enumerate(some)}
            sent.clear()
            answers = batch(ledger.ledger, everything(ledger, some, holds, name))
            assert sum(isinstance(answer, Outcome) for answer in answers) == 4 * size
            # SQLite's executemany is one statement that is stepped once a row.
            counts.append(sorted({statement.split("(")[0].strip()[:40] for statement in sent}))
            if ledger.database.dialect == "postgresql":
                assert len(sent) <= 16
        assert counts[0] == counts[1]
        assert len(counts[0]) <= 16
    ledger.close()
    assert ledger.ledger.tally.faults == 0


def test_looking_for_an_old_capture_costs_no_statement_for_each_that_followed(
    open_database: Callable[[], Database],
) -> None:
    """Whoever captures often and then asks for the first one must not hold the ledger up."""
    with statements_of_new_connections() as sent:
        ledger = Driven(open_database()).start()
        wallet_id = ledger.open_wallet()
        number = ledger.hold(wallet_id, 2_000)
        for start in range(0, 1_000, 250):
            batch(
                ledger.ledger,
                [
                    ledger.commit(wallet_id, number, 1, capture=start + n, keep_rest=True)
                    for n in range(1, 251)
                ],
            )
        sent.clear()
        again = [ledger.commit(wallet_id, number, 1, capture=n % 9 + 1) for n in range(100)]
        answers = batch(ledger.ledger, again)
        assert [answer.replayed for answer in answers] == [True] * 100
        assert len(sent) < 200
    ledger.close()


def test_a_hold_that_is_extended_often_keeps_one_part_of_a_lot(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet()
    number = ledger.hold(wallet_id, 10)
    batch(ledger.ledger, [ledger.extend(wallet_id, number, amount_micros=1) for _ in range(200)])
    assert ledger.rows("SELECT parts FROM reservations") == [("[[1,210]]",)]
    ledger.run(ledger.commit(wallet_id, number, 105))
    assert ledger.problems() == []


# Odd words ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        *("NULL", "null", "", " ", '"', "\\", '\\"', "{}", "a,b", "%s", "%%", ":x", "'"),
        *("\n\t\r", "\x01", "é", "\U0001f600", "k" * 255),
    ],
    ids=repr,
)
def test_any_key_is_found_again(ledger: Driven, key: str) -> None:
    wallet_id = ledger.open_wallet(100)
    scopes = (Scope(key[:64], 1_000),)
    held = ledger.run(ledger.reserve(wallet_id, 10, key=key or " x", spend_scopes=scopes, labels={key: key}))
    assert held.reservation is not None
    assert (held.reservation.labels, held.reservation.scopes) == ({key: key}, scopes)
    again = ledger.reserve(wallet_id, 10, key=key or " x", spend_scopes=scopes, labels={key: key})
    assert ledger.run(again) == held._replace(replayed=True)
    refused = ledger.refused(ledger.reserve(wallet_id, 1_000, key=f"{key}!", spend_scopes=scopes))
    assert (
        ledger.refused(ledger.reserve(wallet_id, 1_000, key=f"{key}!", spend_scopes=scopes)).facts()
        == refused.facts()
    )
    assert ledger.rows("SELECT subject, held_micros FROM spend_counters") == [(key[:64], 10)]
    assert ledger.problems() == []


def test_two_callers_two_methods_and_two_wallets_may_use_one_key(ledger: Driven) -> None:
    first, second = ledger.open_wallet(100), ledger.open_wallet(100)
    number = ledger.hold(first, 10, key="one")
    service = ledger.hold(first, 20, key="one", caller=99, opener=99)
    other = ledger.hold(second, 30, key="one")
    ledger.run(ledger.commit(first, number, 1, key="one"))
    ledger.run(ledger.release(first, service, key="one", caller=99))
    ledger.run(ledger.extend(second, other, key="one", amount_micros=1))
    assert ledger.wallet(first)[1:3] == (99, 0)
    assert ledger.wallet(second)[1:3] == (100, 31)
    assert ledger.problems() == []


def test_a_queue_that_a_test_fills_is_one_group(ledger: Driven) -> None:
    """`together` is what the tests of groups rest on."""
    wallet_id = ledger.open_wallet(1_000)
    before = ledger.ledger.tally.groups
    asyncio.run(together(ledger.ledger, [ledger.reserve(wallet_id, 1) for _ in range(240)]))
    assert ledger.ledger.tally.groups == before + 2
