"""Meter and StreamUsage through the SDK, against an end that breaks where it is told."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from oanim import errors
from oanim.aio import AsyncClient
from oanim.aio_streams import MOST_UNANSWERED
from oanim.client import Client
from openanimate.metering.v1 import wallet_service_pb2 as pb
from tests.sdk.scripted import Refusal
from tests.sdk.scripted_streams import GONE, OVERLOADED, MeterEnd, refused

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from oanim.aio_streams import AsyncMeterStream
    from tests.sdk.driving import Driver, Operation
    from tests.sdk.scripted import ScriptedServer

METER = "WalletService/Meter"
USAGE = "WalletService/StreamUsage"
# How a stream ends that may be taken up again.
BREAKS = [
    GONE,
    Refusal(grpc.StatusCode.UNAVAILABLE, "DRAINING"),
    Refusal(grpc.StatusCode.ABORTED, "CONFLICT"),
    Refusal(grpc.StatusCode.DEADLINE_EXCEEDED),
    Refusal(grpc.StatusCode.CANCELLED),
    Refusal(grpc.StatusCode.INTERNAL),
    Refusal(grpc.StatusCode.UNKNOWN),
    Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", retry_after_s=0.05),
]


@pytest.fixture
def end(server: ScriptedServer) -> MeterEnd:
    """The other end of every Meter stream."""
    made = MeterEnd()
    server.script(METER, made)
    return made


def reserves(count: int, **arguments: Any) -> list[Operation]:
    return [
        ("reserve", {"idempotency_key": f"k{n:05}", "amount_micros": 1, **arguments}) for n in range(count)
    ]


def run(server: ScriptedServer, work: Any, **options: Any) -> Any:
    """Run `work(meter)` in the block of an asynchronous Meter stream."""

    async def block() -> Any:
        client = AsyncClient("anim_key", url=server.url, timeout_s=10)
        async with client, client.meter(**options) as meter:
            return await work(meter)

    return asyncio.run(block())


def keys(count: int) -> list[str]:
    return [f"k{n:05}" for n in range(count)]


# Batches --------------------------------------------------------------------------------------------


def test_each_caller_gets_the_answer_of_its_call(driver: Driver, end: MeterEnd) -> None:
    (held,) = driver.operate("meter", reserves(1))
    assert held == pb.ReserveResponse(reservation=held.reservation)
    assert held.reservation.reservation_id == "r-k00000"
    charged, freed = driver.operate(
        "meter",
        [
            ("commit", {"reserve_key": "k00000", "account_id": "a", "amount_micros": 7}),
            ("release", {"reservation_id": "r-k00000"}),
        ],
    )
    assert (charged, freed) == (pb.CommitResponse(charged_micros=7), pb.ReleaseResponse())


def test_a_refusal_is_raised_as_the_error_that_the_call_would_raise(driver: Driver, end: MeterEnd) -> None:
    metadata = {"required_micros": "2", "available_micros": "1", "wallet_seq": "9"}
    refusal = Refusal(grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_CREDITS", metadata)
    end.refuse = lambda operation, _: refusal if operation.reserve.amount_micros == 2 else None
    answers = driver.operate("meter", [*reserves(1, amount_micros=2), ("reserve", {"amount_micros": 1})])
    error = answers[0]
    assert isinstance(error, errors.InsufficientCredits)
    assert (error.required_micros, error.available_micros, error.wallet_seq) == (2, 1, 9)
    assert (error.code, error.idempotency_key) == (grpc.StatusCode.FAILED_PRECONDITION, "k00000")
    assert not error.outcome_unknown
    assert isinstance(answers[1], pb.ReserveResponse)


def test_what_is_asked_for_while_a_message_is_under_way_goes_in_the_next(
    server: ScriptedServer, end: MeterEnd
) -> None:
    async def work(meter: AsyncMeterStream) -> None:
        end.going.clear()
        first = asyncio.create_task(meter.reserve(amount_micros=1))
        await asyncio.to_thread(server.wait_for, METER, 1)
        await asyncio.sleep(0.1)
        others = [asyncio.create_task(meter.reserve(amount_micros=1)) for _ in range(500)]
        await asyncio.sleep(0.1)
        end.going.set()
        await asyncio.gather(first, *others)

    run(server, work)
    assert end.messages == [1, 500]


def test_a_message_has_a_thousand_operations_and_half_a_megabyte_at_most(
    server: ScriptedServer, end: MeterEnd
) -> None:
    sizes: list[int] = []

    def measured(requests: Iterator[pb.MeterRequest]) -> Iterator[Any]:
        def seen() -> Iterator[pb.MeterRequest]:
            for request in requests:
                sizes.append(request.ByteSize())
                yield request

        return end(seen())

    async def many(meter: AsyncMeterStream) -> None:
        await asyncio.gather(*(meter.reserve(amount_micros=1) for _ in range(2_500)))

    async def large(meter: AsyncMeterStream) -> None:
        labels = {f"label{n}": "x" * 20_000 for n in range(5)}
        await asyncio.gather(*(meter.reserve(amount_micros=1, labels=labels) for _ in range(20)))
        alone = await meter.reserve(amount_micros=1, labels={"all": "x" * 700_000})
        assert alone.reservation.reservation_id
        with pytest.raises(errors.TooLarge) as caught:
            await meter.reserve(amount_micros=1, labels={"all": "x" * (1 << 20)})
        assert caught.value.limit_bytes == 1 << 20

    server.script(METER, measured)
    run(server, many)
    assert end.messages == [1_000, 1_000, 500]
    sizes.clear()
    run(server, large)
    assert len(sizes) == 5
    assert max(sizes[:-1]) <= 512 * 1024 < sizes[-1]


def test_callers_beyond_the_bound_wait_and_keep_their_order(server: ScriptedServer, end: MeterEnd) -> None:
    seen: list[int] = []

    async def work(meter: AsyncMeterStream) -> None:
        tasks = [
            asyncio.create_task(meter.reserve(idempotency_key=key, amount_micros=1)) for key in keys(8_000)
        ]
        await asyncio.sleep(0)
        # Two give up: one that waits to be sent, and one that waits to be let in.
        tasks[4_500].cancel()
        tasks[6_500].cancel()
        while not tasks[-1].done():
            seen.append(len(meter._pipeline.unanswered))  # noqa: SLF001
            await asyncio.sleep(0)
        await asyncio.wait(tasks)
        assert sum(task.cancelled() for task in tasks) == 2

    run(server, work)
    assert max(seen) == MOST_UNANSWERED
    assert end.done == [key for key in keys(8_000) if key not in {"k04500", "k06500"}]


# Breaks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refusal", BREAKS, ids=lambda refusal: refusal.reason or refusal.code.name)
@pytest.mark.parametrize("done", [0, 5, 20], ids=["unread", "half-way", "unanswered"])
def test_what_a_broken_stream_did_not_answer_is_asked_again_and_done_once(
    driver: Driver, end: MeterEnd, refusal: Refusal, done: int
) -> None:
    end.breaks = lambda message: (refusal, done) if message == 1 else None
    answers = driver.operate("meter", reserves(20))
    assert [answer.reservation.reservation_id for answer in answers] == [f"r-{key}" for key in keys(20)]
    assert sorted(end.done) == keys(20)
    assert end.streams == 2


def test_a_server_that_ends_a_stream_is_asked_again(driver: Driver, server: ScriptedServer) -> None:
    server.script(METER, lambda _: iter(()), MeterEnd())
    (answer,) = driver.operate("meter", reserves(1))
    assert answer.reservation.reservation_id == "r-k00000"


def test_several_messages_under_way_are_repeated_in_their_order(
    server: ScriptedServer, end: MeterEnd
) -> None:
    chance = random.Random(7)
    # Now and then, wherever it hits.
    end.breaks = lambda message: (
        (GONE, chance.randrange(1_001)) if message % 3 == 0 and message < 20 else None
    )

    async def work(meter: AsyncMeterStream) -> None:
        await asyncio.gather(*(meter.reserve(idempotency_key=key, amount_micros=1) for key in keys(8_000)))

    run(server, work)
    assert end.streams > 3
    assert end.done == keys(8_000)


def test_a_fault_of_the_server_and_a_bad_key_end_all_with_their_error(driver: Driver, end: MeterEnd) -> None:
    for refusal, kind in (
        (Refusal(grpc.StatusCode.UNAUTHENTICATED, "KEY_INVALID"), errors.KeyInvalid),
        (Refusal(grpc.StatusCode.PERMISSION_DENIED, "WRONG_ROLE", {"role": "USER"}), errors.WrongRole),
        (Refusal(grpc.StatusCode.INTERNAL, "INTERNAL", {"error_id": "e1"}), errors.Internal),
    ):
        end.breaks = lambda _, refusal=refusal: (refusal, 0)  # type: ignore[misc]
        answers = driver.operate("meter", reserves(5))
        # What was sent at that time may have been done.
        assert {type(answer) for answer in answers} == {kind}
        assert sorted(answer.idempotency_key for answer in answers) == keys(5)
        assert any(answer.outcome_unknown for answer in answers)


def test_an_answer_that_does_not_fit_is_not_taken_for_one(driver: Driver, server: ScriptedServer) -> None:
    held = pb.MeterOutcome(reserve=pb.ReserveResponse())
    for outcomes in ([], [held, held], [pb.MeterOutcome()], [pb.MeterOutcome(commit=pb.CommitResponse())]):
        server.script(
            METER,
            lambda requests, outcomes=outcomes: (pb.MeterResponse(outcomes=outcomes) for _ in requests),
        )
        (error,) = driver.operate("meter", reserves(1))
        assert type(error) is errors.Internal
        assert error.outcome_unknown


def test_a_caller_waits_no_longer_than_it_said(driver: Driver, end: MeterEnd) -> None:
    end.going.clear()
    began = time.monotonic()
    (late,) = driver.operate("meter", reserves(1), timeout_s=0.3)
    assert 0.3 <= time.monotonic() - began < 3
    assert isinstance(late, errors.DeadlineExceeded)
    assert (late.idempotency_key, late.outcome_unknown) == ("k00000", True)
    end.going.set()
    end.breaks = lambda _: (GONE, 0)
    (away,) = driver.operate("meter", reserves(1, timeout_s=0.3))
    assert type(away) is errors.Unavailable
    assert (away.idempotency_key, away.outcome_unknown) == ("k00000", True)


def test_nothing_is_kept_of_callers_that_gave_up_while_the_server_is_away(
    server: ScriptedServer, end: MeterEnd
) -> None:
    end.breaks = lambda _: (Refusal(grpc.StatusCode.UNAVAILABLE, "DRAINING", retry_after_s=60), 0)

    async def work(meter: AsyncMeterStream) -> None:
        for _ in range(100):
            asked = [meter.reserve(amount_micros=1, timeout_s=0.01) for _ in range(100)]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(answer) for answer in answers} <= {errors.Draining, errors.DeadlineExceeded}
        assert len(meter._pipeline._queue) < 2_000  # noqa: SLF001

    run(server, work)


# Overload -------------------------------------------------------------------------------------------


def test_an_overloaded_operation_is_asked_again_after_its_time(driver: Driver, end: MeterEnd) -> None:
    end.refuse = lambda operation, tries: OVERLOADED if tries <= 2 and operation.HasField("reserve") else None
    answers = driver.operate("meter", reserves(10))
    assert [type(answer) for answer in answers] == [pb.ReserveResponse] * 10
    assert sorted(end.done) == keys(10)
    assert end.streams == 1


def test_an_overloaded_operation_is_given_up_when_its_time_does_not_suffice(
    driver: Driver, end: MeterEnd
) -> None:
    refusal = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after_s=20.0)
    end.refuse = lambda *_: refusal
    began = time.monotonic()
    (error,) = driver.operate("meter", reserves(1), timeout_s=10.0)
    assert isinstance(error, errors.Overloaded)
    assert (error.retry_after_s, error.outcome_unknown) == (20.0, False)
    assert time.monotonic() - began < 3.0


def test_a_commit_waits_for_its_overloaded_reserve(server: ScriptedServer, end: MeterEnd) -> None:
    end.refuse = lambda operation, tries: OVERLOADED if tries <= 2 and operation.HasField("reserve") else None

    async def work(meter: AsyncMeterStream) -> None:
        asked: list[Coroutine[Any, Any, Any]] = []
        for n, key in enumerate(keys(50)):
            asked.append(meter.reserve(idempotency_key=key, amount_micros=1))
            named: dict[str, Any] = {"reserve_key": key, "account_id": "a"}
            asked.append(
                meter.release(idempotency_key=f"end {key}", **named)
                if n % 2
                else meter.commit(idempotency_key=f"end {key}", amount_micros=1, **named)
            )
        first = asyncio.gather(*asked)
        # One that comes while the reserve waits for its time.
        await asyncio.sleep(0.02)
        await meter.commit(reserve_key="k00000", account_id="a", amount_micros=1, idempotency_key="late")
        await first

    run(server, work)
    assert len(end.done) == 101
    for key in keys(50):
        assert end.done.index(key) < end.done.index(f"end {key}")
    assert end.done.index("end k00000") < end.done.index("late")


def test_what_waits_for_a_reserve_that_is_given_up_is_told_so(server: ScriptedServer, end: MeterEnd) -> None:
    end.refuse = lambda operation, _: OVERLOADED if operation.HasField("reserve") else None

    async def work(meter: AsyncMeterStream) -> Any:
        return await asyncio.gather(
            meter.reserve(idempotency_key="k", amount_micros=1, timeout_s=0.3),
            meter.commit(reserve_key="k", account_id="a", amount_micros=1),
            return_exceptions=True,
        )

    held, charged = run(server, work)
    assert isinstance(held, errors.Overloaded)
    assert isinstance(charged, errors.NotFound)


def test_a_break_keeps_what_waits_for_an_overloaded_reserve_in_order(
    server: ScriptedServer, end: MeterEnd
) -> None:
    chance = random.Random(11)
    end.refuse = lambda operation, _: (
        OVERLOADED if operation.HasField("reserve") and chance.random() < 0.3 else None
    )
    end.breaks = lambda message: (
        (GONE, chance.randrange(100)) if message < 30 and chance.random() < 0.3 else None
    )

    async def work(meter: AsyncMeterStream) -> None:
        async def one(key: str) -> None:
            held = asyncio.create_task(meter.reserve(idempotency_key=key, amount_micros=1))
            await asyncio.sleep(chance.random() / 50)
            ended = await meter.commit(
                reserve_key=key, account_id="a", amount_micros=1, idempotency_key=f"end {key}"
            )
            assert isinstance(ended, pb.CommitResponse)
            await held

        await asyncio.gather(*map(one, keys(500)))

    run(server, work)
    assert len(end.done) == len(set(end.done)) == 1_000


# Leaving --------------------------------------------------------------------------------------------


def test_a_cancelled_caller_leaves_the_stream_whole(server: ScriptedServer, end: MeterEnd) -> None:
    async def work(meter: AsyncMeterStream) -> None:
        end.going.clear()
        sent = [
            asyncio.create_task(meter.reserve(idempotency_key=f"sent{n}", amount_micros=1)) for n in range(3)
        ]
        await asyncio.to_thread(server.wait_for, METER, 1)
        await asyncio.sleep(0.1)
        queued = [
            asyncio.create_task(meter.reserve(idempotency_key=f"queued{n}", amount_micros=1))
            for n in range(3)
        ]
        await asyncio.sleep(0)
        sent[1].cancel()
        queued[1].cancel()
        await asyncio.sleep(0)
        end.going.set()
        answers = await asyncio.gather(*sent, *queued, return_exceptions=True)
        assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [False, True, False] * 2

    run(server, work)
    # What was on its way is done, what was not is not.
    assert end.done == ["sent0", "sent1", "sent2", "queued0", "queued2"]


def test_the_block_ends_when_all_is_answered(server: ScriptedServer, end: MeterEnd) -> None:
    end.breaks = lambda message: (GONE, 0) if message == 1 else None

    async def block() -> list[pb.ReserveResponse]:
        async with AsyncClient("anim_key", url=server.url, timeout_s=10) as client:
            async with client.meter() as meter:
                tasks = [asyncio.create_task(meter.reserve(amount_micros=1)) for _ in range(7_000)]
                await asyncio.sleep(0)
            assert sum(task.done() for task in tasks) == 7_000
            with pytest.raises(RuntimeError, match="inside of its block"):
                await meter.reserve(amount_micros=1)
            return [task.result() for task in tasks]

    assert len(asyncio.run(block())) == 7_000


def test_the_block_of_threads_ends_when_all_is_answered(server: ScriptedServer, end: MeterEnd) -> None:
    end.going.clear()
    answers: list[pb.ReserveResponse] = []
    with Client("anim_key", url=server.url, timeout_s=10) as client:
        with client.meter() as meter:
            threads = [
                threading.Thread(target=lambda: answers.append(meter.reserve(amount_micros=1)))
                for _ in range(20)
            ]
            for thread in threads:
                thread.start()
            while len(meter._pipeline.unanswered) < 20:  # noqa: SLF001
                time.sleep(0.01)
            threading.Timer(0.1, end.going.set).start()
        for thread in threads:
            thread.join()
        assert len(answers) == 20
        with pytest.raises(RuntimeError, match="inside of its block"):
            meter.reserve(amount_micros=1)


def test_a_client_that_is_closed_ends_what_its_streams_wait_for(
    server: ScriptedServer, end: MeterEnd
) -> None:
    end.going.clear()

    async def block() -> errors.OanimError:
        client = AsyncClient("anim_key", url=server.url, timeout_s=10)
        async with client.meter() as meter:
            asked = asyncio.create_task(meter.reserve(amount_micros=1))
            await asyncio.to_thread(server.wait_for, METER, 1)
            await client.close()
            with pytest.raises(errors.OanimError, match="closed") as caught:
                await asked
            return caught.value

    assert asyncio.run(block()).outcome_unknown
    end.going.set()


# Usage ----------------------------------------------------------------------------------------------


def test_usage_goes_the_same_way(driver: Driver, server: ScriptedServer) -> None:
    seen: list[pb.UsageItem] = []

    def ended(requests: Iterator[pb.StreamUsageRequest]) -> Iterator[Any]:
        for request in requests:
            seen.extend(request.items)
            if len(seen) < 4:
                yield GONE
            yield pb.StreamUsageResponse(
                outcomes=[
                    pb.UsageOutcome(accepted=pb.UsageAccepted(charged_micros=item.event.line.quantity))
                    if item.event.line.quantity != 9
                    else pb.UsageOutcome(
                        refused=refused(Refusal(grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_MODEL")).refused
                    )
                    for item in request.items
                ]
            )

    server.script(USAGE, ended)
    event = {"account_id": "a", "model": "m", "labels": {"project": "p"}}
    answers = driver.operate(
        "stream_usage",
        [
            ("report", {"reservation_id": "r", "quantity": 3}),
            ("event", {"event_id": "one", "quantity": 2, **event}),
            ("event", {"event_id": "two", "quantity": 9, **event}),
        ],
    )
    assert answers[:2] == [pb.UsageAccepted(), pb.UsageAccepted(charged_micros=2)]
    assert isinstance(answers[2], errors.UnknownModel)
    assert answers[2].idempotency_key == "two"
    line = pb.PricedLine(model="m", quantity=2)
    one = pb.EventUsage(account_id="a", event_id="one", line=line, labels={"project": "p"})
    assert pb.UsageItem(event=one) in seen
    assert pb.UsageItem(reservation=pb.ReservationUsage(reservation_id="r", quantity=3)) in seen


def test_a_reservation_is_named_in_one_way(server: ScriptedServer) -> None:
    async def work(meter: AsyncMeterStream) -> None:
        both: dict[str, Any] = {"reservation_id": "r", "reserve_key": "k"}
        for names in ({}, both):
            with pytest.raises(TypeError):
                await meter.commit(amount_micros=1, **names)
            with pytest.raises(TypeError):
                await meter.release(**names)

    run(server, work)
