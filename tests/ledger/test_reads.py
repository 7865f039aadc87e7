from __future__ import annotations

import asyncio
import random
from itertools import pairwise
from time import sleep
from typing import TYPE_CHECKING, Any

import pytest

from oanim_server.database.engine import Database
from oanim_server.ledger import group, sweeping
from oanim_server.ledger import ledger as front
from oanim_server.ledger.limits import SetLimit
from oanim_server.ledger.reads import ChargeRecord, Grouping, UsageTotal
from oanim_server.ledger.refusals import NotFound
from oanim_server.ledger.values import DAY, SECOND, Line, Outcome, Scope, State, WalletFacts
from oanim_server.ledger.windows import Period
from tests.ledger.counting import statements_of_new_connections
from tests.ledger.driving import START, Driven, batch, of_lots

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from oanim_server.ledger.journal import Row
    from oanim_server.ledger.ledger import Ledger
    from oanim_server.ledger.operations import Operation
    from oanim_server.ledger.reads import Statement

HOUR = 3_600 * SECOND


# The wallet -----------------------------------------------------------------------------------------


def test_before_anything_is_due_a_wallet_is_one_row(open_database: Callable[[], Database]) -> None:
    with statements_of_new_connections() as sent:
        ledger = Driven(open_database()).start()
        wallet_id = ledger.open_wallet(1_000, lifetime=DAY)
        for _ in range(30):
            ledger.hold(wallet_id, 10, ttl=HOUR)
        assert ledger.wallet(wallet_id) == WalletFacts(wallet_id, 1_000, 300, 0, 31, frozen=False)
        sent.clear()
        ledger.clock.forward(HOUR - 1)
        ledger.wallet(wallet_id)
        reading = [statement for statement in sent if "FROM wallets" in statement]
        assert sent == reading
        assert len(sent) == 1
    ledger.close()


def test_a_wallet_that_is_not_there_is_not_found(ledger: Driven) -> None:
    for read in (ledger.wallet, ledger.statement, ledger.reservations):
        with pytest.raises(NotFound) as raised:
            read(7)
        assert raised.value.what == "account"
    wallet_id = ledger.open_wallet()
    for unknown in ((wallet_id, 99), (7, 1)):
        with pytest.raises(NotFound) as raised:
            ledger.reservation(*unknown)
        assert raised.value.what == "reservation"


def test_what_is_due_reads_as_it_will_be_written(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    ledger.credit(wallet_id, 100, lifetime=HOUR)
    number = ledger.hold(wallet_id, 130, ttl=2 * HOUR, spend_scopes=(Scope("run", 500),))
    # At the instant of the lot all of it is held: nothing lapses.
    ledger.clock.now = START + HOUR
    assert ledger.wallet(wallet_id) == WalletFacts(wallet_id, 1_100, 130, 0, 3, frozen=False)
    # One microsecond before the hold's instant it is a hold; at it, the lot's part lapses as it returns.
    ledger.clock.now = START + 2 * HOUR - 1
    assert ledger.wallet(wallet_id) == WalletFacts(wallet_id, 1_100, 130, 0, 3, frozen=False)
    assert ledger.reservation(wallet_id, number).state is State.ACTIVE
    ledger.clock.now = START + 2 * HOUR
    read = ledger.wallet(wallet_id), ledger.reservation(wallet_id, number), ledger.lots(wallet_id)
    assert read[0] == WalletFacts(wallet_id, 1_000, 0, 0, 3, frozen=False)
    assert (read[1].state, read[1].held_micros) == (State.EXPIRED, 0)
    assert ledger.reservations(wallet_id, active=True) == []
    ledger.settle(wallet_id)
    written = ledger.wallet(wallet_id), ledger.reservation(wallet_id, number), ledger.lots(wallet_id)
    assert written == (read[0]._replace(seq=4), *read[1:])
    assert ledger.rows("SELECT charged_micros, held_micros FROM spend_counters") == [(0, 0)]
    assert ledger.problems() == []


def test_what_is_due_is_written_with_its_own_instant_in_order(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000, lifetime=3 * HOUR)
    ledger.credit(wallet_id, 100, lifetime=HOUR)
    first = ledger.hold(wallet_id, 10, ttl=4 * HOUR)
    second = ledger.hold(wallet_id, 10, ttl=2 * HOUR)
    ledger.clock.forward(9 * HOUR)
    ledger.run(ledger.release(wallet_id, first))
    due = [(row.at - START, row.reservation) for row in ledger.journal(wallet_id)[4:]]
    assert due == [(HOUR, 0), (2 * HOUR, second), (3 * HOUR, 0), (4 * HOUR, first)]
    assert ledger.problems() == []


def test_the_clock_never_falls_along_a_wallet(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    ledger.clock.forward(HOUR)
    ledger.hold(wallet_id, 10, ttl=HOUR)
    ledger.clock.forward(-2 * HOUR)
    held = ledger.run(ledger.reserve(wallet_id, 10, ttl=HOUR)).reservation
    assert held is not None
    assert (held.created_at, held.expires_at) == (START + HOUR, START + 2 * HOUR)
    assert [row.at - START for row in ledger.journal(wallet_id)] == [0, HOUR, HOUR]


# A great deal that is due at once -------------------------------------------------------------------


@pytest.fixture
def crowded(ledger: Driven) -> tuple[Driven, int]:
    """A wallet with 2,500 holds of one micro, that expire at fifty instants, and a lot that does between."""
    wallet_id = ledger.open_wallet(2_000)
    ledger.credit(wallet_id, 1_000, lifetime=HOUR + 20)
    for start in range(0, 2_500, 250):
        batch(
            ledger.ledger,
            [ledger.reserve(wallet_id, 1, ttl=HOUR + (start + n) % 50) for n in range(250)],
        )
    return ledger, wallet_id


def test_a_great_deal_that_is_due_is_read_as_it_will_be_written(crowded: tuple[Driven, int]) -> None:
    ledger, wallet_id = crowded
    now = ledger.clock.forward(2 * HOUR)
    read = ledger.wallet(wallet_id), ledger.statement(wallet_id)
    assert (read[0].balance_micros, read[0].held_micros) == (2_000, 0)
    ledger.settle(wallet_id)
    assert ledger.wallet(wallet_id) == read[0]._replace(seq=read[1].wallet.seq)
    assert ledger.statement(wallet_id, as_of=now) == ledger.statement(wallet_id) == read[1]
    assert ledger.problems() == []


READS: dict[str, Callable[[Ledger, int], Awaitable[object]]] = {
    "wallet": lambda ledger, wallet_id: ledger.wallet(wallet_id),
    "watch": lambda ledger, wallet_id: anext(ledger.watch(wallet_id)),
    "statement": lambda ledger, wallet_id: ledger.statement(wallet_id, as_of=None, before=None, limit=3),
    "limits": lambda ledger, wallet_id: ledger.limits(wallet_id),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_read_of_a_wallet_with_very_much_due_has_it_written_first(
    open_database: Callable[[], Database],
    monkeypatch: pytest.MonkeyPatch,
    read: Callable[[Ledger, int], Awaitable[object]],
) -> None:
    monkeypatch.setattr(front, "PORTION", 3)
    ledger = Driven(open_database()).start()
    wallet_id = ledger.open_wallet(100)
    limited = SetLimit(
        wallet_id=wallet_id,
        caller=wallet_id,
        idempotency_key="limit",
        api_key_id="",
        asking_key_id="k",
        period=Period.DAY,
        limit_micros=50,
    )
    ledger.run(limited)
    for ttl in range(4):
        ledger.hold(wallet_id, 10, ttl=HOUR + ttl)
    ledger.clock.forward(HOUR + 2)
    expected = ledger.wallet(wallet_id), ledger.statement(wallet_id, limit=3)

    async def asked() -> Any:
        return await read(ledger.ledger, wallet_id)

    # Three are due, and are left to the sweeper.
    answer = asyncio.run(asked())
    assert len(ledger.journal(wallet_id)) == 6
    assert answer in expected or [(limit.charged_micros, limit.held_micros) for limit in answer] == [(0, 10)]
    ledger.clock.forward(1)
    expected = ledger.wallet(wallet_id)._replace(seq=10), ledger.statement(wallet_id, limit=3)
    answer = asyncio.run(asked())
    assert len(ledger.journal(wallet_id)) == 10
    assert answer in expected or [(limit.charged_micros, limit.held_micros) for limit in answer] == [(0, 0)]
    ledger.close()


def test_operations_wait_until_all_that_is_due_on_their_wallet_is_written(
    crowded: tuple[Driven, int],
) -> None:
    ledger, wallet_id = crowded
    other = ledger.open_wallet(100)
    ledger.clock.forward(2 * HOUR)
    answers = batch(
        ledger.ledger,
        [
            *(ledger.reserve(wallet_id, n, key=f"r{n}") for n in (1, 2, 3)),
            ledger.reserve(other, 7),
            ledger.reserve(wallet_id, 1_995),
        ],
    )
    assert [type(answer).__name__ for answer in answers] == ["Outcome"] * 4 + ["InsufficientCredits"]
    numbers = [answers[n].reservation.number for n in range(3)]
    assert numbers == [numbers[0], numbers[0] + 1, numbers[0] + 2]
    times = [row.at for row in ledger.journal(wallet_id)]
    assert times == sorted(times)
    assert ledger.wallet(wallet_id)[1:3] == (2_000, 6)
    assert ledger.problems() == []


def test_the_order_of_operations_survives_a_group_that_is_run_one_by_one(
    crowded: tuple[Driven, int],
) -> None:
    ledger, wallet_id = crowded
    ledger.clock.forward(2 * HOUR)

    def spoil(_connection: object, _now: int) -> None:
        message = "a bug"
        raise RuntimeError(message)

    answers = batch(ledger.ledger, [spoil, *(ledger.reserve(wallet_id, n) for n in range(1, 9))])
    numbers = [answer.reservation.number for answer in answers[1:]]
    assert numbers == sorted(numbers)


# The statement as of a time -------------------------------------------------------------------------


def random_history(ledger: Driven, chance: random.Random) -> tuple[int, list[int]]:
    """A wallet with lots, holds and charges, and the times at which something was done or due."""
    wallet_id = ledger.open_wallet(500, lifetime=chance.choice([None, 5 * HOUR]))
    times = {ledger.clock.now}
    for _ in range(40):
        times |= {ledger.clock.now, ledger.clock.forward(chance.choice([0, 1, SECOND, HOUR]))}
        if chance.random() < 0.2:
            lifetime = chance.choice([None, SECOND, HOUR, 3 * HOUR])
            ledger.credit(wallet_id, chance.randint(1, 100), lifetime=lifetime)
            times.add(ledger.clock.now + (lifetime or 0))
        available = ledger.wallet(wallet_id).available_micros
        if available > 0:
            ttl = chance.choice([SECOND, HOUR, 2 * HOUR])
            number = ledger.hold(wallet_id, chance.randint(1, available), ttl=ttl)
            times.add(ledger.clock.now + ttl)
            if chance.random() < 0.4:
                ledger.run(ledger.commit(wallet_id, number, 1, keep_rest=chance.random() < 0.5, capture=1))
            elif chance.random() < 0.3:
                ledger.run(ledger.release(wallet_id, number))
    return wallet_id, sorted(times)


@pytest.mark.parametrize("seed", range(3))
def test_the_statement_as_of_any_time_is_the_same_before_and_after_the_sweep(
    ledger: Driven, seed: int
) -> None:
    wallet_id, times = random_history(ledger, random.Random(seed))
    before: dict[int, Statement] = {}
    # Looked at just before, at and just after every instant, some of them not written yet.
    for time in sorted({time + step for time in times for step in (-1, 0, 1)}):
        ledger.clock.now = max(ledger.clock.now, time)
        before[time] = ledger.statement(wallet_id, as_of=time)
    assert len(before[max(before)].rows) > len(ledger.journal(wallet_id)), "something must be due"
    ledger.clock.forward(DAY)
    ledger.settle(wallet_id)
    assert {time: ledger.statement(wallet_id, as_of=time) for time in before} == before
    for time, statement in before.items():
        assert statement.wallet.balance_micros == sum(lot.remaining_micros for lot in statement.lots)
        assert statement.wallet.held_micros == sum(lot.held_micros for lot in statement.lots)
        assert all(row.at <= time for row in statement.rows)
        assert [row.seq for row in statement.rows] == list(range(statement.wallet.seq, 0, -1))
    assert ledger.problems() == []


def test_the_lots_of_a_statement_are_worked_out_from_the_shorter_side(ledger: Driven) -> None:
    wallet_id, _ = random_history(ledger, random.Random(4))
    ledger.clock.forward(DAY)
    ledger.settle(wallet_id)
    journal = ledger.journal(wallet_id)
    half = len(journal) // 2
    early, late = journal[9].at, journal[-9].at
    lots = [ledger.statement(wallet_id, as_of=time, limit=0).lots for time in (early, late)]
    for time, unread in ((early, f"seq > {half}"), (late, f"seq < {half}")):
        kept = ledger.rows("SELECT seq, lots FROM transactions")
        ledger.sql(f"UPDATE transactions SET lots = 'cannot be read' WHERE {unread}")
        assert ledger.statement(wallet_id, as_of=time, limit=0).lots == lots.pop(0)
        for seq, moved in kept:
            ledger.sql("UPDATE transactions SET lots = :moved WHERE seq = :seq", seq=seq, moved=moved)


def test_the_statement_before_the_wallet_was_there_is_empty(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(500)
    statement = ledger.statement(wallet_id, as_of=START - 1)
    assert statement == ([], WalletFacts(wallet_id, 0, 0, 0, 0, frozen=False), [], {}, {})


def test_the_statement_as_of_a_time_to_come_is_the_one_now(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(500, lifetime=HOUR)
    assert ledger.statement(wallet_id, as_of=START + DAY) == ledger.statement(wallet_id)


@pytest.mark.parametrize("limit", [1, 3, 7, 1_000])
def test_pages_of_the_statement_join_without_a_gap_while_the_sweeper_writes(
    ledger: Driven, limit: int
) -> None:
    wallet_id, _ = random_history(ledger, random.Random(7))
    now = ledger.clock.forward(DAY)
    whole = ledger.statement(wallet_id).rows
    paged: list[Row] = []
    before = None
    while page := ledger.statement(wallet_id, as_of=now, before=before, limit=limit).rows:
        paged += page
        before = page[-1].seq
        ledger.settle(wallet_id)
    assert paged == whole


def test_a_page_of_the_statement_names_the_models_of_its_reservations(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(500)
    number = ledger.hold(wallet_id, 10, line=Line(1, "flux", "image", "fal", "image", 10, 1, 1))
    other = ledger.hold(wallet_id, 10)
    assert ledger.statement(wallet_id).models == {number: "flux", other: ""}


# Reservations, charges, usage -----------------------------------------------------------------------


def test_reservations_page_newest_first(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(500)
    numbers = [ledger.hold(wallet_id, 1, ttl=HOUR * (1 + n % 2)) for n in range(6)]
    ledger.clock.forward(HOUR)

    def page(before: int | None, *, active: bool) -> list[int]:
        return ledger.database.read_now(
            lambda connection: [
                facts.number
                for facts in ledger.reads.reservations(
                    connection, wallet_id, active=active, before=before, limit=2
                )
            ]
        )

    assert page(None, active=False) == [numbers[5], numbers[4]]
    assert page(numbers[4], active=False) == [numbers[3], numbers[2]]
    assert page(None, active=True) == [numbers[5], numbers[3]]
    assert page(numbers[3], active=True) == [numbers[1]]


def charging(ledger: Driven) -> tuple[int, list[int]]:
    """A wallet with charges on three days: two models, two keys, two projects, one late, one by amount."""
    wallet_id = ledger.open_wallet(10_000)
    flux = Line(3, "flux", "image", "fal", "image", 10, 1, 1)
    kling = Line(3, "kling", "video", "other", "second", 50, 5, 5)
    charged = []
    for key, line, project, quantity in (
        ("k1", flux, "film", 2),
        ("k1", kling, "film", 10),
        ("k2", flux, "", 1),
        ("k2", None, "", 0),
    ):
        labels = {"project": project, "other": "x"} if project else {}
        number = ledger.hold(wallet_id, 200, line=line, labels=labels, api_key_id=key)
        if line is None:
            outcome = ledger.run(ledger.commit(wallet_id, number, 7))
        else:
            outcome = ledger.run(ledger.commit(wallet_id, number, quantity=quantity))
        charged.append(outcome.wallet.seq)
        ledger.clock.forward(DAY // 2)
    late = ledger.hold(wallet_id, 100, line=flux, ttl=SECOND, api_key_id="k1")
    ledger.clock.forward(HOUR)
    charged.append(ledger.run(ledger.commit(wallet_id, late, quantity=3)).wallet.seq)
    nothing = ledger.hold(wallet_id, 100)
    ledger.run(ledger.commit(wallet_id, nothing, 0))
    return wallet_id, charged


def charges(ledger: Driven, wallet_id: int, **options: Any) -> list[ChargeRecord]:
    asked = {"since": None, "before": None, "limit": 1_000, **options}
    return ledger.database.read_now(lambda connection: ledger.reads.charges(connection, wallet_id, **asked))


def test_every_charge_is_one_record_newest_first(ledger: Driven) -> None:
    wallet_id, charged = charging(ledger)
    found = charges(ledger, wallet_id)
    assert [record[2:] for record in found] == [
        (START + 2 * DAY + HOUR, "fal", "flux", "image", 30, 3, found[0].reservation, "k1", "", ""),
        (START + 3 * (DAY // 2), "", "", "", 7, 0, found[1].reservation, "k2", "", ""),
        (START + DAY, "fal", "flux", "image", 10, 1, found[2].reservation, "k2", "", ""),
        (START + DAY // 2, "other", "kling", "video", 100, 10, found[3].reservation, "k1", "film", ""),
        (START, "fal", "flux", "image", 20, 2, found[4].reservation, "k1", "film", ""),
    ]
    assert [record.seq for record in found] == charged[::-1]
    assert charges(ledger, wallet_id, since=START + DAY) == found[:3]
    assert charges(ledger, wallet_id, since=START + DAY + 1) == found[:2]
    assert charges(ledger, wallet_id, limit=2) == found[:2]
    assert charges(ledger, wallet_id, before=found[1].seq, limit=2) == found[2:4]


@pytest.mark.parametrize(
    ("group_by", "expected"),
    [
        (Grouping.DAY, [(0, 2, 120), (1, 2, 17), (2, 1, 30)]),
        (Grouping.MODEL, [("kling", 1, 100), ("flux", 3, 60), ("", 1, 7)]),
        (Grouping.CATEGORY, [("video", 1, 100), ("image", 3, 60), ("", 1, 7)]),
        (Grouping.API_KEY, [("k1", 3, 150), ("k2", 2, 17)]),
        (Grouping.PROJECT, [("film", 2, 120), ("", 3, 47)]),
    ],
)
def test_usage_adds_up_what_was_charged(
    ledger: Driven, group_by: Grouping, expected: list[tuple[Any, int, int]]
) -> None:
    wallet_id, _ = charging(ledger)
    first = START // DAY
    wanted = [
        UsageTotal(name + first if group_by is Grouping.DAY else name, times, micros)
        for name, times, micros in expected
    ]
    assert ledger.usage(wallet_id, group_by) == wanted
    two_days = ledger.database.read_now(
        lambda connection: ledger.reads.usage(
            connection, wallet_id, first_day=first + 1, last_day=first + 2, group_by=group_by
        )
    )
    assert sum(total.charged_micros for total in two_days) == 47


# The sweeper ----------------------------------------------------------------------------------------


def test_the_sweeper_writes_what_is_due_on_every_wallet_and_forgets_old_refusals(ledger: Driven) -> None:
    wallets = [ledger.open_wallet(100, lifetime=HOUR) for _ in range(5)]
    for wallet_id in wallets:
        ledger.hold(wallet_id, 10, ttl=SECOND)
        ledger.refused(ledger.reserve(wallet_id, 1_000, key="too much"))
    assert asyncio.run(ledger.ledger.sweep()) == 0
    ledger.clock.forward(HOUR)
    assert asyncio.run(ledger.ledger.sweep()) == 5
    for wallet_id in wallets:
        assert ledger.wallet(wallet_id) == WalletFacts(wallet_id, 0, 0, 0, 4, frozen=False)
    assert asyncio.run(ledger.ledger.sweep()) == 0
    assert ledger.count("refusals") == 5
    ledger.clock.forward(30 * DAY - HOUR)
    asyncio.run(ledger.ledger.sweep())
    assert ledger.count("refusals") == 0
    assert ledger.problems() == []


def break_wallet(ledger: Driven, wallet_id: int) -> None:
    """Have whatever is written on a wallet fail: what its lots hold is less than its holds have."""
    ledger.sql(f"{of_lots(',100,100,10,', ',100,100,0,')} AND wallet_id = :wallet_id", wallet_id=wallet_id)


def test_a_wallet_that_cannot_be_settled_keeps_none_behind_it_waiting(
    ledger: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "PAGE", 3)
    wallets = [ledger.open_wallet(100) for _ in range(8)]
    for place, wallet_id in enumerate(wallets):
        # Two at each instant, so that pages end between equals.
        ledger.hold(wallet_id, 10, ttl=HOUR + place // 2)
    break_wallet(ledger, wallets[1])
    ledger.clock.forward(2 * HOUR)
    assert asyncio.run(ledger.ledger.sweep()) == 7
    due = "SELECT wallet_id FROM wallets WHERE next_due_at IS NOT NULL"
    assert ledger.rows(due) == [(wallets[1],)]
    assert asyncio.run(ledger.ledger.sweep()) == 0


def test_a_wallet_with_very_much_due_keeps_none_beside_it_waiting(
    crowded: tuple[Driven, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, wallet_id = crowded
    monkeypatch.setattr(group, "PORTION", 10)
    monkeypatch.setattr(sweeping, "TOGETHER", 2)
    for _ in range(6):
        ledger.hold(ledger.open_wallet(100), 10, ttl=HOUR + 60)
    ledger.clock.forward(2 * HOUR)

    async def due_when_the_others_are_settled() -> list[tuple[int]]:
        sweep = asyncio.create_task(ledger.ledger.sweep())
        query = "SELECT wallet_id FROM wallets WHERE next_due_at IS NOT NULL"
        while len(due := await asyncio.to_thread(ledger.rows, query)) > 1:
            pass
        # A sweep that begins meanwhile leaves the wallet to this one.
        assert await ledger.ledger.sweep() == 0
        assert await sweep == 7
        return due

    assert asyncio.run(due_when_the_others_are_settled()) == [(wallet_id,)]
    assert ledger.problems() == []


def test_an_operation_does_not_wait_for_what_is_due_on_another_wallet_of_its_group(
    crowded: tuple[Driven, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, wallet_id = crowded
    monkeypatch.setattr(group, "PORTION", 100)
    # It is locked, and loaded, after the other one.
    other = ledger.open_wallet(100, wallet_id=wallet_id + 1)
    ledger.hold(other, 10, ttl=HOUR)
    ledger.clock.forward(2 * HOUR)
    answered: list[int] = []

    async def submit(operation: Operation) -> None:
        answered.append((await ledger.ledger.submit(operation)).wallet.wallet_id)

    async def both() -> None:
        busy = asyncio.create_task(ledger.ledger.write(lambda _connection, _now: sleep(0.2)))
        await asyncio.sleep(0.1)
        await asyncio.gather(submit(ledger.reserve(wallet_id, 1)), submit(ledger.reserve(other, 1)), busy)

    asyncio.run(both())
    assert answered == [other, wallet_id]


def test_a_refusal_is_remembered_for_30_days_whatever_happens_to_the_wallet(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(100)
    reserve = ledger.reserve(wallet_id, 150, key="one")
    first = ledger.refused(reserve)
    ledger.credit(wallet_id, 1_000)
    ledger.clock.forward(30 * DAY - 1)
    again = ledger.refused(reserve)
    assert (again.facts(), again.wallet_seq, again.replayed) == (first.facts(), 1, True)
    other = ledger.refused(ledger.reserve(wallet_id, 151, key="one"))
    assert type(other).__name__ == "IdempotencyKeyReused"
    assert other.wallet_seq == 2
    ledger.clock.forward(1)
    assert not ledger.run(reserve).replayed
    assert ledger.run(reserve).replayed


# Watching -------------------------------------------------------------------------------------------


def test_a_watcher_sees_the_wallet_now_and_after_each_change(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(100)

    async def watch() -> list[WalletFacts]:
        seen = []
        async for facts in ledger.ledger.watch(wallet_id):
            seen.append(facts)
            if len(seen) == 3:
                break
            await ledger.ledger.submit(ledger.reserve(wallet_id, 10))
        return seen

    assert asyncio.run(watch()) == [
        WalletFacts(wallet_id, 100, held, 0, seq, frozen=False) for held, seq in ((0, 1), (10, 2), (20, 3))
    ]


def test_a_watcher_is_told_of_an_expiry_at_its_instant_though_nobody_writes_it(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(100)
    ledger.hold(wallet_id, 10, ttl=SECOND // 5)

    async def watch() -> list[tuple[int, int]]:
        seen = []
        async with asyncio.timeout(30):
            async for facts in ledger.ledger.watch(wallet_id):
                seen.append((facts.held_micros, facts.seq))
                if len(seen) == 2:
                    break
                ledger.clock.forward(SECOND // 5)
        return seen

    assert asyncio.run(watch()) == [(10, 2), (0, 2)]
    assert len(ledger.journal(wallet_id)) == 2


def test_a_wallet_that_is_watched_at_one_replica_is_seen_changing_from_another(postgresql_url: str) -> None:
    first = Driven(Database.open_postgresql(postgresql_url, unsafe=True)).start()
    second = Driven(Database.open_postgresql(postgresql_url, unsafe=True), clock=first.clock).start()
    wallet_id = first.open_wallet(100)

    async def watch() -> list[WalletFacts]:
        seen = []
        async for facts in first.ledger.watch(wallet_id):
            seen.append(facts)
            if len(seen) == 2:
                break
            await second.ledger.submit(second.reserve(wallet_id, 10))
        await first.ledger.stop()
        return seen

    seen = asyncio.run(watch())
    assert [(facts.held_micros, facts.seq) for facts in seen] == [(0, 1), (10, 2)]
    first.database.close()
    second.close()


# Replays of what time has changed since -------------------------------------------------------------


def test_a_replay_answers_as_it_was_then(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    scopes = (Scope("run", 500), Scope("ünï", None))
    labels = {"project": "film", "näme": 'a "quoted" \\ one, {x} NULL'}
    line = Line(1, "flux", "image", "fal", "image", 10, 1, 3)
    reserve = ledger.reserve(
        wallet_id, 30, key='k,"\\{}', line=line, spend_scopes=scopes, labels=labels, ttl=HOUR
    )
    first = ledger.run(reserve)
    assert first.reservation is not None
    number = first.reservation.number
    operations = [
        reserve,
        ledger.extend(wallet_id, number, amount_micros=5, ttl=2 * HOUR),
        ledger.commit(wallet_id, number, quantity=1, keep_rest=True),
        ledger.commit(wallet_id, number, quantity=2, keep_rest=True, capture=2),
        ledger.release(wallet_id, number),
    ]
    outcomes = [first, *map(ledger.run, operations[1:])]
    ledger.clock.forward(DAY)
    ledger.hold(wallet_id, 100)
    for operation, outcome in zip(operations, outcomes, strict=True):
        assert ledger.run(operation) == outcome._replace(replayed=True)
    assert outcomes[-1].released_micros == 15
    assert ledger.problems() == []


def test_a_capture_is_answered_the_same_under_another_key_however_many_followed(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(10_000)
    number = ledger.hold(wallet_id, 1_000)
    outcomes: list[Outcome] = []
    for start in range(0, 400, 200):
        outcomes += batch(
            ledger.ledger,
            [
                ledger.commit(wallet_id, number, 1 + n % 3, keep_rest=True, capture=start + n + 1)
                for n in range(200)
            ],
        )
    for capture in (1, 2, 199, 200, 201, 400):
        first = outcomes[capture - 1]
        charged = first.charged_micros
        assert ledger.run(ledger.commit(wallet_id, number, charged, capture=capture)) == first._replace(
            replayed=True
        )
        refused = ledger.refused(ledger.commit(wallet_id, number, charged + 1, capture=capture))
        assert type(refused).__name__ == "AlreadyCommitted"
    seqs = [outcome.wallet.seq for outcome in outcomes]
    assert all(later == earlier + 1 for earlier, later in pairwise(seqs))
