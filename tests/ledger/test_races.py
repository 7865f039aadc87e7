from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest

from oanim_server.database.engine import Database
from oanim_server.ledger.operations import OpenWallet
from oanim_server.ledger.refusals import (
    AlreadyCommitted,
    AlreadyReleased,
    Draining,
    InsufficientCredits,
    Refusal,
)
from oanim_server.ledger.values import SECOND, SERVER, Outcome, State, WalletFacts
from tests.ledger.driving import Driven, in_threads, open_account, together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection

    from oanim_server.ledger.operations import Operation


@pytest.fixture
def replicas(postgresql_url: str) -> Iterator[tuple[Driven, Driven]]:
    """Two servers' ledgers on one PostgreSQL, with one clock."""
    first = Driven(Database.open_postgresql(postgresql_url, unsafe=True)).start()
    second = Driven(Database.open_postgresql(postgresql_url, unsafe=True), clock=first.clock).start()
    yield first, second
    second.close()
    first.close()


def kinds(answers: Sequence[object]) -> Counter[str]:
    return Counter(type(answer).__name__ for answer in answers)


def test_of_64_threads_that_reserve_what_covers_20_exactly_20_succeed(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(20 * 50 + 49)
    answers = in_threads([partial(ledger.run, ledger.reserve(wallet_id, 50)) for _ in range(64)])
    assert kinds(answers) == {"Outcome": 20, "InsufficientCredits": 44}
    assert all(
        answer.facts() == {"required_micros": 50, "available_micros": 49}
        for answer in answers
        if isinstance(answer, InsufficientCredits)
    )
    assert ledger.wallet(wallet_id) == WalletFacts(wallet_id, 1_049, 1_000, 0, 21, frozen=False)
    assert ledger.problems() == []


def test_two_replicas_together_never_hold_more_than_there_is(replicas: tuple[Driven, Driven]) -> None:
    first, second = replicas
    wallet_id = first.open_wallet(20 * 50 + 49)
    answers = in_threads(
        [
            partial(replica.run, replica.reserve(wallet_id, 50, key=f"{name}-{number}"))
            for number in range(32)
            for name, replica in (("first", first), ("second", second))
        ]
    )
    assert kinds(answers) == {"Outcome": 20, "InsufficientCredits": 44}
    assert second.wallet(wallet_id) == WalletFacts(wallet_id, 1_049, 1_000, 0, 21, frozen=False)
    assert first.problems() == []


def one_effect(answers: Sequence[object]) -> None:
    """Fifty equal answers, one of which is the first."""
    outcomes = [answer for answer in answers if isinstance(answer, Outcome)]
    assert kinds(answers) == {"Outcome": 50}
    assert Counter(outcome.replayed for outcome in outcomes) == {False: 1, True: 49}
    assert len({repr(outcome._replace(replayed=True)) for outcome in outcomes}) == 1


def test_one_key_from_50_callers_has_one_effect_and_50_equal_answers(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    one_effect(in_threads([partial(ledger.run, ledger.reserve(wallet_id, 50, key="one"))] * 50))
    number = ledger.reservations(wallet_id)[0].number
    one_effect(in_threads([partial(ledger.run, ledger.commit(wallet_id, number, 20, key="one"))] * 50))
    assert ledger.wallet(wallet_id) == WalletFacts(wallet_id, 980, 0, 0, 3, frozen=False)
    assert ledger.problems() == []


def test_one_key_at_two_replicas_has_one_effect_and_equal_answers(
    replicas: tuple[Driven, Driven],
) -> None:
    first, second = replicas
    wallet_id = first.open_wallet(1_000)
    reserve = first.reserve(wallet_id, 50, key="one")
    one_effect(in_threads([partial(first.run, reserve), partial(second.run, reserve)] * 25))
    assert first.wallet(wallet_id) == WalletFacts(wallet_id, 1_000, 50, 0, 2, frozen=False)


def test_one_wallet_opened_at_two_replicas_is_opened_once(replicas: tuple[Driven, Driven]) -> None:
    for wallet_id in range(1, 21):
        replicas[0].ledger.run_write(partial(lambda wallet_id, c, _: open_account(c, wallet_id), wallet_id))
        opened = OpenWallet(wallet_id=wallet_id, caller=SERVER, idempotency_key="one", grant_micros=9)
        answers = in_threads([partial(replica.run, opened) for replica in replicas])
        assert kinds(answers) == {"Outcome": 2}
        assert replicas[1].wallet(wallet_id) == WalletFacts(wallet_id, 9, 0, 0, 1, frozen=False)


def test_the_refusal_that_one_key_is_told_50_times_is_the_first_one(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(10)
    answers = in_threads([partial(ledger.run, ledger.reserve(wallet_id, 11, key="one"))] * 50)
    refusals = [answer for answer in answers if isinstance(answer, InsufficientCredits)]
    assert Counter(refusal.replayed for refusal in refusals) == {False: 1, True: 49}
    assert {(r.required_micros, r.available_micros, r.wallet_seq) for r in refusals} == {(11, 10, 1)}


def test_the_refusal_that_one_key_is_told_at_two_replicas_is_the_first_one(
    replicas: tuple[Driven, Driven],
) -> None:
    first, second = replicas
    wallet_id = first.open_wallet(10)
    reserve = first.reserve(wallet_id, 11, key="one")
    answers = in_threads([partial(first.run, reserve), partial(second.run, reserve)] * 25)
    refusals = [answer for answer in answers if isinstance(answer, InsufficientCredits)]
    assert Counter(refusal.replayed for refusal in refusals) == {False: 1, True: 49}
    assert {(r.required_micros, r.available_micros, r.wallet_seq) for r in refusals} == {(11, 10, 1)}
    first.credit(wallet_id, 100)
    for replica in replicas:
        assert replica.refused(reserve).facts() == {"required_micros": 11, "available_micros": 10}
    assert first.rows("SELECT count(*) FROM refusals") == [(1,)]


def test_of_a_commit_a_release_and_the_expiry_one_wins_and_the_others_are_told(ledger: Driven) -> None:
    one_wins(ledger, ledger)


def test_of_a_commit_here_a_release_there_and_the_expiry_one_wins_and_the_others_are_told(
    replicas: tuple[Driven, Driven],
) -> None:
    one_wins(*replicas)


def one_wins(here: Driven, there: Driven) -> None:
    """Let a hold be committed at one server, released at another, and expire, in any order."""
    wallet_id = here.open_wallet(10_000)
    chance = random.Random(1)
    ended: Counter[State] = Counter()
    spent = 0
    for _ in range(40):
        number = here.hold(wallet_id, 100, ttl=SECOND)
        calls: list[Callable[[], object]] = [
            partial(here.run, here.commit(wallet_id, number, 60, key=f"c{number}")),
            partial(there.run, there.release(wallet_id, number, key=f"r{number}")),
            partial(here.clock.forward, SECOND),
        ]
        order = chance.sample(range(3), 3)
        answers = dict(zip(order, in_threads([calls[index] for index in order]), strict=True))
        state = there.reservation(wallet_id, number).state
        told(state, answers[0], answers[1])
        ended[state] += 1
        spent += 60 if state in (State.COMMITTED, State.SETTLED_LATE) else 0
        there.settle(wallet_id)
        assert here.wallet(wallet_id)[1:3] == (10_000 - spent, 0)
    assert ended.keys() <= {State.COMMITTED, State.RELEASED, State.SETTLED_LATE}
    assert here.problems() == []


def told(state: State, commit: object, release: object) -> None:
    """What each of the two was answered, by how it ended."""
    if state is State.RELEASED:
        assert isinstance(release, Outcome)
        assert isinstance(commit, AlreadyReleased)
        assert commit.facts() == {"state": "RELEASED", "reserved_micros": 100, "captured_micros": 0}
        return
    assert isinstance(commit, Outcome)
    assert commit.charged_micros == 60
    assert commit.reservation is not None
    assert commit.reservation.state is state
    if isinstance(release, Outcome):  # it came between the expiry and the late settlement
        assert state is State.SETTLED_LATE
        assert release.reservation is not None
        assert release.reservation.state is State.EXPIRED
    else:
        assert isinstance(release, AlreadyCommitted)
        assert release.facts() == {"state": state.name, "reserved_micros": 100, "captured_micros": 60}


def test_two_replicas_on_the_same_wallets_in_any_order_meet_no_deadlock(
    replicas: tuple[Driven, Driven],
) -> None:
    wallet_ids = [replicas[0].open_wallet(1_000_000) for _ in range(8)]
    refused: list[Refusal] = []

    async def work(name: str, replica: Driven) -> None:
        chance = random.Random(name)
        for turn in range(30):
            many = chance.sample(wallet_ids * 4, 24)
            made = await together(
                replica.ledger, [replica.reserve(w, 10, key=f"{name}-{turn}-{i}") for i, w in enumerate(many)]
            )
            works: list[Operation] = []
            for wallet_id, outcome in zip(many, made, strict=True):
                number = outcome.reservation.number
                key = f"{name}-{turn}-{number}"
                works.append(chance.choice([replica.commit(wallet_id, number, 4, key=key),
                                            replica.release(wallet_id, number, key=key)]))  # fmt: skip
            chance.shuffle(works)
            refused.extend(
                answer for answer in await together(replica.ledger, works) if not isinstance(answer, Outcome)
            )

    threads = [
        threading.Thread(target=lambda n=name, r=replica: asyncio.run(work(n, r)))
        for name, replica in zip(("first", "second"), replicas, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert refused == []
    rows = replicas[0].rows("SELECT kind, count(*) FROM transactions GROUP BY kind")
    assert sum(count for _, count in rows) == 8 + 2 * 2 * 30 * 24
    assert all(replicas[0].wallet(wallet_id).held_micros == 0 for wallet_id in wallet_ids)
    assert replicas[0].problems() == []


def test_a_caller_that_goes_away_takes_back_a_reserve_that_has_not_begun_and_nothing_else(
    ledger: Driven,
) -> None:
    wallet_id = ledger.open_wallet(1_000)
    held = ledger.hold(wallet_id, 70)
    begun, may_end = threading.Event(), threading.Event()

    def wait(_connection: Connection, _now: int) -> None:
        begun.set()
        assert may_end.wait(30)

    async def leave() -> None:
        blocking = asyncio.create_task(ledger.ledger.write(wait))
        await asyncio.to_thread(begun.wait, 30)
        # It waits in the queue, behind a group that is being committed.
        waiting = [
            asyncio.create_task(ledger.ledger.submit(ledger.reserve(wallet_id, 50, key="left"))),
            asyncio.create_task(ledger.ledger.submit(ledger.release(wallet_id, held, key="left"))),
        ]
        await asyncio.sleep(0)
        for task in (blocking, *waiting):
            task.cancel()
        await asyncio.gather(*waiting, blocking, return_exceptions=True)
        assert all(task.cancelled() for task in waiting)
        may_end.set()
        await ledger.ledger.write(lambda _connection, _now: None)

    asyncio.run(leave())
    assert ledger.wallet(wallet_id).held_micros == 0
    assert ledger.run(ledger.release(wallet_id, held, key="left")).replayed
    assert not ledger.run(ledger.reserve(wallet_id, 50, key="left")).replayed


def test_a_caller_that_goes_away_while_its_group_is_committed_finds_its_answer_by_its_key(
    ledger: Driven,
) -> None:
    wallet_id = ledger.open_wallet(1_000)
    begun, may_end = threading.Event(), threading.Event()

    def wait(_connection: Connection, _now: int) -> None:
        begun.set()
        assert may_end.wait(30)

    async def leave() -> None:
        first = asyncio.create_task(ledger.ledger.submit(ledger.reserve(wallet_id, 50, key="left")))
        second = asyncio.create_task(ledger.ledger.write(wait))
        await asyncio.to_thread(begun.wait, 30)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        may_end.set()
        await second

    asyncio.run(leave())
    assert ledger.wallet(wallet_id).held_micros == 50
    assert ledger.run(ledger.reserve(wallet_id, 50, key="left")).replayed


def test_stopping_commits_what_is_queued_and_refuses_what_comes_later(
    open_database: Callable[[], Database],
) -> None:
    ledger = Driven(open_database()).start()
    wallet_id = ledger.open_wallet(1_000)
    begun, may_end = threading.Event(), threading.Event()

    def wait(_connection: Connection, _now: int) -> None:
        begun.set()
        assert may_end.wait(30)

    async def drain() -> list[object]:
        blocking = asyncio.create_task(ledger.ledger.write(wait))
        await asyncio.to_thread(begun.wait, 30)
        queued = [asyncio.create_task(ledger.ledger.submit(ledger.reserve(wallet_id, 10))) for _ in range(30)]
        await asyncio.sleep(0)
        stopping = asyncio.create_task(ledger.ledger.stop())
        while True:
            try:
                late = asyncio.create_task(ledger.ledger.submit(ledger.reserve(wallet_id, 10)))
                queued.append(late)
                await asyncio.wait_for(asyncio.shield(late), 0.01)
            except Draining:
                queued.pop()
                break
            except TimeoutError:
                continue
        may_end.set()
        await stopping
        await blocking
        return await asyncio.gather(*queued, return_exceptions=True)

    answers = asyncio.run(drain())
    assert kinds(answers) == {"Outcome": len(answers)}
    assert ledger.wallet(wallet_id).held_micros == 10 * len(answers)
    ledger.database.close()
