"""A metered block against a server that answers as told: its requests, its keys, and every way it can end."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from grpc import StatusCode

from oanim import errors
from oanim.aio import AsyncClient
from oanim.block import price_micros
from oanim.client import Client
from openanimate.metering.v1.reservation_pb2 import (
    PinnedPrice,
    Reservation,
    ReservationState,
    SpendScope,
)
from openanimate.metering.v1.wallet_pb2 import Wallet
from openanimate.metering.v1.wallet_service_pb2 import (
    CommitRequest,
    CommitResponse,
    ExtendRequest,
    ExtendResponse,
    GetReservationResponse,
    PricedLine,
    ReleaseRequest,
    ReleaseResponse,
    ReserveRequest,
    ReserveResponse,
)
from tests.sdk.scripted import Refusal, ScriptedServer

if TYPE_CHECKING:
    from tests.sdk.driving import Driver

RESERVE = "WalletService/Reserve"
EXTEND = "WalletService/Extend"
COMMIT = "WalletService/Commit"
RELEASE = "WalletService/Release"
LINE = {"model": "m", "quantity": 2, "key": "K"}
PRICE = PinnedPrice(model="m", amount_micros=50_000, base_quantity=1, unit="image")
HOLD = Reservation(reservation_id="r", price=PRICE, reserved_micros=100_000)
AFTER = Wallet(balance_micros=7, wallet_seq=3)
UNAVAILABLE = Refusal(StatusCode.UNAVAILABLE)


def charged(micros: int, uncollected: int = 0) -> CommitResponse:
    reservation = Reservation(reservation_id="r", captured_micros=micros, uncollected_micros=uncollected)
    return CommitResponse(reservation=reservation, wallet=AFTER)


def extended(reserved_micros: int) -> ExtendResponse:
    reservation = Reservation(reservation_id="r", price=PRICE, reserved_micros=reserved_micros)
    return ExtendResponse(reservation=reservation)


def healthy(server: ScriptedServer) -> None:
    """Let the server answer what one does that has the credits."""
    server.script(RESERVE, ReserveResponse(reservation=HOLD))
    server.script(EXTEND, extended(150_000))
    server.script(COMMIT, charged(100_000))
    server.script(RELEASE, ReleaseResponse(reservation=Reservation(reservation_id="r"), wallet=AFTER))


@pytest.mark.parametrize(
    ("amount", "base", "quantity", "micros"),
    [
        (50_000, 1, 0, 0),
        (50_000, 1, 3, 150_000),
        (50_000, 1_000, 1, 50_000),
        (50_000, 1_000, 1_001, 50_050),
        (1, 3, 4, 2),
        (2, 1, 10**9, 2 * 10**9),
    ],
)
def test_a_quantity_costs_what_the_server_says_it_does(
    amount: int, base: int, quantity: int, micros: int
) -> None:
    assert price_micros(PinnedPrice(amount_micros=amount, base_quantity=base), quantity) == micros


def test_a_block_holds_first_and_charges_what_was_used(server: ScriptedServer, driver: Driver) -> None:
    healthy(server)

    meter = driver.metered(
        [1, 0, 1],
        **LINE,
        account_id="a1",
        spend_scopes=[SpendScope(scope="shot-7")],
        labels={"project": "x"},
        ttl_seconds=60,
    )

    assert server.requests(RESERVE) == [
        ReserveRequest(
            account_id="a1",
            idempotency_key="K:reserve",
            line=PricedLine(model="m", quantity=2),
            ttl_seconds=60,
            spend_scopes=[SpendScope(scope="shot-7")],
            labels={"project": "x"},
        )
    ]
    assert server.requests(COMMIT) == [
        CommitRequest(reservation_id="r", idempotency_key="K:commit", quantity=2)
    ]
    assert (server.requests(EXTEND), server.requests(RELEASE)) == ([], [])
    assert (meter.total, meter.charged_micros, meter.uncollected_micros) == (2, 100_000, 0)
    assert meter.wallet == AFTER


def test_a_block_that_used_nothing_is_released(server: ScriptedServer, driver: Driver) -> None:
    healthy(server)

    meter = driver.metered([0], **LINE)

    assert server.requests(RELEASE) == [ReleaseRequest(reservation_id="r", idempotency_key="K:release")]
    assert server.requests(COMMIT) == []
    assert (meter.charged_micros, meter.wallet) == (0, AFTER)


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_a_block_that_fails_charges_what_it_used_before(
    server: ScriptedServer, driver: Driver, error: BaseException
) -> None:
    healthy(server)

    with pytest.raises(type(error)) as raised:
        driver.metered([1, error], **LINE)
    assert raised.value is error
    assert server.requests(COMMIT) == [
        CommitRequest(reservation_id="r", idempotency_key="K:commit", quantity=1)
    ]


def test_a_block_by_amount_charges_an_amount(server: ScriptedServer, driver: Driver) -> None:
    healthy(server)
    hold = Reservation(reservation_id="r", reserved_micros=1_000)
    server.script(RESERVE, ReserveResponse(reservation=hold))
    more_held = Reservation(reservation_id="r", reserved_micros=1_100)
    server.script(EXTEND, ExtendResponse(reservation=more_held))

    driver.metered([400, 700], amount_micros=1_000, key="K")

    (reserved,), (more,) = server.requests(RESERVE), server.requests(EXTEND)
    assert (reserved.amount_micros, reserved.WhichOneof("hold")) == (1_000, "amount_micros")
    assert more.amount_micros == 100
    assert server.requests(COMMIT) == [
        CommitRequest(reservation_id="r", idempotency_key="K:commit", amount_micros=1_100)
    ]


def test_more_is_held_before_more_is_used(server: ScriptedServer, driver: Driver) -> None:
    healthy(server)
    server.script(EXTEND, extended(150_000), extended(300_000))

    meter = driver.metered([2, 1, 3], **LINE)

    first, second = server.requests(EXTEND)
    assert [first.amount_micros, second.amount_micros] == [50_000, 150_000]
    assert [first.ttl_seconds, second.ttl_seconds] == [0, 0]
    assert first.idempotency_key != second.idempotency_key
    assert meter.total == 6


def test_what_cannot_be_held_is_not_counted(server: ScriptedServer, driver: Driver) -> None:
    healthy(server)
    server.script(EXTEND, Refusal(StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_CREDITS"))

    with pytest.raises(errors.InsufficientCredits):
        driver.metered([2, 5], **LINE)
    assert server.requests(COMMIT)[0].quantity == 2


def test_more_that_was_not_answered_is_asked_for_again_with_the_same_key(
    server: ScriptedServer, driver: Driver
) -> None:
    healthy(server)
    server.script(EXTEND, *[UNAVAILABLE] * 5, extended(150_000))

    driver.metered([3], **LINE)

    first, *others = server.requests(EXTEND)
    assert others == [first] * 5


def test_a_charge_that_was_not_answered_is_repeated_with_the_same_key(
    server: ScriptedServer, driver: Driver
) -> None:
    healthy(server)
    server.script(COMMIT, *[UNAVAILABLE] * 5, charged(100_000))

    meter = driver.metered([2], **LINE)

    first, *others = server.requests(COMMIT)
    assert others == [first] * 5
    assert meter.charged_micros == 100_000


def test_a_charge_that_is_refused_is_the_callers_to_know(server: ScriptedServer, driver: Driver) -> None:
    healthy(server)
    server.script(COMMIT, Refusal(StatusCode.FAILED_PRECONDITION, "RESERVATION_EXPIRED"))

    with pytest.raises(errors.ReservationExpired) as refused:
        driver.metered([2], **LINE)
    assert refused.value.idempotency_key == "K:commit"


def test_a_charge_that_is_refused_never_hides_why_the_block_failed(
    server: ScriptedServer, driver: Driver
) -> None:
    healthy(server)
    server.script(COMMIT, Refusal(StatusCode.FAILED_PRECONDITION, "RESERVATION_EXPIRED"))

    with pytest.raises(KeyError) as failed:
        driver.metered([2, KeyError("the block's own")], **LINE)
    assert failed.value.__notes__ == [
        "oanim: 2 used under r could not be charged: reservation_expired; to repeat it, the key is K:commit"
    ]


def test_a_late_charge_says_what_it_could_not_collect(server: ScriptedServer, driver: Driver) -> None:
    healthy(server)
    server.script(COMMIT, charged(0, uncollected=100_000))

    meter = driver.metered([2], **LINE)

    assert (meter.charged_micros, meter.uncollected_micros) == (0, 100_000)


def test_a_hold_is_renewed_every_third_of_its_time(server: ScriptedServer, driver: Driver) -> None:
    healthy(server)

    driver.metered([lambda: server.wait_for(EXTEND, 2)], **LINE, ttl_seconds=1)

    first, second = server.requests(EXTEND)[:2]
    assert [first.ttl_seconds, second.ttl_seconds] == [1, 1]
    assert [first.amount_micros, second.amount_micros] == [0, 0]
    assert first.idempotency_key != second.idempotency_key
    assert [t for t in threading.enumerate() if t.name == "oanim-meter"] == []


def test_a_renewal_that_was_not_answered_is_repeated_with_the_same_key(
    server: ScriptedServer, driver: Driver
) -> None:
    healthy(server)
    server.script(EXTEND, *[UNAVAILABLE] * 5, extended(100_000))

    driver.metered([lambda: server.wait_for(EXTEND, 7)], **LINE, ttl_seconds=1)

    keys = [request.idempotency_key for request in server.requests(EXTEND)]
    assert len(set(keys[:6])) == 1
    assert keys[6] != keys[0]


def test_a_hold_that_expired_is_no_longer_renewed_but_still_charged(
    server: ScriptedServer, driver: Driver
) -> None:
    healthy(server)
    server.script(EXTEND, Refusal(StatusCode.FAILED_PRECONDITION, "RESERVATION_EXPIRED"))

    meter = driver.metered([2, lambda: server.wait_for(EXTEND, 1)], **LINE, ttl_seconds=1)

    assert len(server.requests(EXTEND)) == 1
    assert meter.charged_micros == 100_000


def test_a_block_ends_while_a_renewal_is_under_way(server: ScriptedServer, driver: Driver) -> None:
    healthy(server)

    def after_the_commit(_: ExtendRequest) -> Refusal:
        server.wait_for(COMMIT, 1)
        return Refusal(StatusCode.FAILED_PRECONDITION, "ALREADY_COMMITTED")

    server.script(EXTEND, after_the_commit)
    meter = driver.metered([2, lambda: server.wait_for(EXTEND, 1)], **LINE, ttl_seconds=3)

    assert meter.charged_micros == 100_000
    assert [t for t in threading.enumerate() if t.name == "oanim-meter"] == []


def test_a_block_that_cannot_be_held_is_not_run_and_says_its_key(
    server: ScriptedServer, driver: Driver
) -> None:
    server.script(RESERVE, Refusal(StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_CREDITS"))

    with pytest.raises(errors.InsufficientCredits) as refused:
        driver.metered([AssertionError("the block was run")], **LINE)
    assert refused.value.idempotency_key == "K"


def test_a_block_entered_again_goes_on_with_its_hold_as_it_is_now(
    server: ScriptedServer, driver: Driver
) -> None:
    healthy(server)
    server.script(RESERVE, ReserveResponse(reservation=HOLD, replayed=True))
    now = Reservation(reservation_id="r", price=PRICE, reserved_micros=500_000)
    now.state = ReservationState.RESERVATION_STATE_ACTIVE
    server.script("WalletService/GetReservation", GetReservationResponse(reservation=now))

    driver.metered([10], **LINE)

    assert server.requests(EXTEND) == []
    assert server.requests(COMMIT)[0].quantity == 10


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (ReservationState.RESERVATION_STATE_COMMITTED, errors.AlreadyCommitted),
        (ReservationState.RESERVATION_STATE_RELEASED, errors.AlreadyReleased),
        (ReservationState.RESERVATION_STATE_EXPIRED, errors.ReservationExpired),
        (ReservationState.RESERVATION_STATE_SETTLED_LATE, errors.ReservationExpired),
    ],
)
def test_a_block_that_has_ended_is_not_run_again(
    server: ScriptedServer,
    driver: Driver,
    state: ReservationState.ValueType,
    error: type[errors.ReservationEnded],
) -> None:
    server.script(RESERVE, ReserveResponse(reservation=HOLD, replayed=True))
    ended = Reservation(reservation_id="r", reserved_micros=100_000, captured_micros=50_000, state=state)
    server.script("WalletService/GetReservation", GetReservationResponse(reservation=ended))

    with pytest.raises(error, match="the metered block K has been run before") as refused:
        driver.metered([AssertionError("the block was run")], **LINE)
    assert (refused.value.reserved_micros, refused.value.captured_micros) == (100_000, 50_000)
    assert refused.value.reason == error.for_reason


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"model": "m"},
        {"quantity": 1},
        {"model": "m", "amount_micros": 1},
        {"model": "m", "quantity": 1, "amount_micros": 1},
    ],
)
def test_a_block_is_for_a_quantity_or_an_amount(driver: Driver, arguments: dict[str, object]) -> None:
    with pytest.raises(TypeError, match="a model and a quantity, or amount_micros"):
        driver.metered([], **arguments)


@pytest.mark.parametrize(
    "arguments", [{"ttl_seconds": 0}, {"ttl_seconds": 86_401}, {"key": ""}, {"key": "k" * 201}]
)
def test_a_block_has_a_time_and_a_key(driver: Driver, arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"1 to (86400|200)"):
        driver.metered([], amount_micros=1, **arguments)


def test_use_is_never_negative(server: ScriptedServer, driver: Driver) -> None:
    healthy(server)

    with pytest.raises(ValueError, match="never negative"):
        driver.metered([2, -1], **LINE)
    assert server.requests(COMMIT)[0].quantity == 2


def test_threads_of_one_block_count_together_and_extend_once(server: ScriptedServer) -> None:
    healthy(server)
    server.script(EXTEND, lambda request: extended(100_000 + request.amount_micros))

    with (
        Client("anim_key", url=server.url) as client,
        client.metered(**LINE) as meter,  # type: ignore[arg-type]
        ThreadPoolExecutor(8) as threads,
    ):
        for _ in range(3):
            threads.submit(meter.used, 1)

    assert len(server.requests(EXTEND)) == 1
    assert server.requests(COMMIT)[0].quantity == 3
    with pytest.raises(RuntimeError, match="has ended"):
        meter.used(1)


def test_ctrl_c_while_the_hold_is_made_leaves_no_hold(server: ScriptedServer) -> None:
    program = """
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from oanim import Client
        try:
            with Client("anim_key", url={url!r}) as client, client.metered(amount_micros=1, key="K"):
                print("the block was run")
        except KeyboardInterrupt:
            print("interrupted")
    """
    answered = threading.Event()
    healthy(server)
    server.script(
        RESERVE, [answered.wait, ReserveResponse()], ReserveResponse(reservation=HOLD, replayed=True)
    )
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program).format(url=server.url)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        server.wait_for(RESERVE, 1)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    answered.set()

    first, second = server.requests(RESERVE)
    assert said == "interrupted\n"
    assert first == second
    assert server.requests(RELEASE) == [ReleaseRequest(reservation_id="r", idempotency_key="K:release")]


def cancel_when_called(server: ScriptedServer, method: str, answer: object) -> None:
    """Run a block that uses 2, and cancel its task while the server is about to answer this call."""
    called, cancelled = threading.Event(), threading.Event()

    def late(_: object) -> object:
        called.set()
        cancelled.wait(30)
        return answer

    async def block() -> None:
        async with AsyncClient("anim_key", url=server.url) as client, client.metered(**LINE) as meter:  # type: ignore[arg-type]
            await meter.used(2)

    async def run() -> None:
        task = asyncio.create_task(block())
        await asyncio.to_thread(called.wait, 30)
        task.cancel()
        await asyncio.sleep(0)
        cancelled.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    healthy(server)
    server.script(method, late)
    asyncio.run(run())


def test_a_task_cancelled_while_the_hold_is_made_leaves_no_hold(server: ScriptedServer) -> None:
    cancel_when_called(server, RESERVE, ReserveResponse(reservation=HOLD))

    assert server.requests(RELEASE) == [ReleaseRequest(reservation_id="r", idempotency_key="K:release")]
    assert server.requests(COMMIT) == []


def test_a_task_cancelled_while_it_is_charged_is_charged(server: ScriptedServer) -> None:
    cancel_when_called(server, COMMIT, charged(100_000))

    assert server.requests(COMMIT) == [
        CommitRequest(reservation_id="r", idempotency_key="K:commit", quantity=2)
    ]


def test_a_task_cancelled_within_the_block_is_charged_for_what_it_used(server: ScriptedServer) -> None:
    async def block(used: asyncio.Event) -> None:
        async with AsyncClient("anim_key", url=server.url) as client, client.metered(**LINE) as meter:  # type: ignore[arg-type]
            await meter.used(1)
            used.set()
            await asyncio.Event().wait()

    async def run() -> None:
        used = asyncio.Event()
        task = asyncio.create_task(block(used))
        await used.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    healthy(server)
    asyncio.run(run())

    assert server.requests(COMMIT) == [
        CommitRequest(reservation_id="r", idempotency_key="K:commit", quantity=1)
    ]
