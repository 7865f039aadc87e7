"""How much one account may ask for, and what happens to messages that are none."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from openanimate.metering.v1 import account_service_pb2 as account
from openanimate.metering.v1 import generate_service_pb2 as generate
from openanimate.metering.v1 import pricing_service_pb2 as pricing
from openanimate.metering.v1 import wallet_service_pb2 as wallet
from openanimate.metering.v1.account_service_pb2_grpc import AccountServiceStub
from openanimate.metering.v1.role_pb2 import ROLE_SERVICE
from tests.server import SECONDS, Calls, Refused, User, new_key, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.server import RunningServer

GET_WALLET = "/openanimate.metering.v1.WalletService/GetWallet"


def raw_call(channel: grpc.Channel, path: str) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
    """A call of bytes."""
    return channel.unary_unary(path, lambda request: request, lambda response: response)


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[RunningServer]:
    """A server that allows little."""
    limits = {"OANIM_CALLS_PER_SECOND": "2", "OANIM_BURST": "4", "OANIM_OPEN_STREAMS": "2"}
    with running({"OANIM_DATA": str(tmp_path), **limits}) as started:
        yield started


def test_an_account_beyond_its_burst_is_told_when_to_come_again(strict: RunningServer) -> None:
    calls = Calls(strict.channel, strict.sign_up())
    for _ in range(4):
        calls(calls.wallet.GetWallet, wallet.GetWalletRequest())
    refused = calls.refused(calls.wallet.GetWallet, wallet.GetWalletRequest())
    assert refused == Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", {"limit": "2"})
    assert refused.retry_seconds is not None
    assert 0 < refused.retry_seconds <= 0.5
    time.sleep(refused.retry_seconds)  # what it was told to wait
    calls(calls.wallet.GetWallet, wallet.GetWalletRequest())


def test_one_account_at_its_limit_leaves_the_others_alone(strict: RunningServer) -> None:
    busy = Calls(strict.channel, strict.sign_up())
    quiet = Calls(strict.channel, strict.sign_up())
    service = Calls(strict.channel, strict.create_key(ROLE_SERVICE))
    for _ in range(4):
        busy(busy.wallet.GetWallet, wallet.GetWalletRequest())
    assert busy.refused(busy.wallet.GetWallet, wallet.GetWalletRequest()).reason == "RATE_LIMITED"
    quiet(quiet.wallet.GetWallet, wallet.GetWalletRequest())
    for _ in range(10):
        service(service.wallet.GetWallet, wallet.GetWalletRequest(account_id=busy.user.account_id))


def test_calls_without_a_key_are_limited_by_address(strict: RunningServer) -> None:
    calls = Calls(strict.channel, strict.sign_up())
    for _ in range(3):  # the sign-up was the first of the four
        calls.pricing.ListPrices(pricing.ListPricesRequest(), timeout=SECONDS)
    refused = calls.refused(calls.pricing.ListPrices, pricing.ListPricesRequest())
    assert refused.reason == "RATE_LIMITED"


def test_keys_that_nobody_knows_are_limited_by_address(tmp_path: Path) -> None:
    limits = {"OANIM_CALLS_PER_SECOND": "1", "OANIM_BURST": "5"}
    with running({"OANIM_DATA": str(tmp_path), **limits}) as server:
        known = Calls(server.channel, server.sign_up())
        known(known.wallet.GetWallet, wallet.GetWalletRequest())
        fresh = server.sign_up()

        def tried(token: str) -> str:
            stranger = Calls(server.channel, User("", "", token))
            return stranger.refused(stranger.wallet.GetWallet, wallet.GetWalletRequest()).reason

        bad = [f"anim_abcdefgh_{number:024}" for number in range(10)]
        answers = Counter(tried(token) for token in [*bad, "", "nonsense"])
        assert answers.keys() == {"KEY_INVALID", "RATE_LIMITED"}
        assert answers["KEY_INVALID"] <= 5
        # A key that is remembered is not asked about, whoever else is at its address.
        known(known.wallet.GetWallet, wallet.GetWalletRequest())
        assert tried(fresh.token) == "RATE_LIMITED"
        time.sleep(2.0)  # what the address has to wait
        calls = Calls(server.channel, fresh)
        calls(calls.wallet.GetWallet, wallet.GetWalletRequest())


def test_calls_that_wait_for_a_busy_server_are_all_answered(tmp_path: Path) -> None:
    """By itself grpc cancels some where more than a thousand wait."""
    plenty = {"OANIM_CALLS_PER_SECOND": "10000", "OANIM_BURST": "10000"}
    with running({"OANIM_DATA": str(tmp_path), **plenty}) as server, ExitStack() as stack:
        user, may_go_on = server.sign_up(), threading.Event()

        async def hang() -> None:
            may_go_on.wait(SECONDS)

        hanging = threading.Thread(target=server.on_loop, args=(hang(),))
        hanging.start()
        local = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            stack.enter_context(grpc.insecure_channel(server.address, options=local)) for _ in range(8)
        ]
        asked = [
            raw_call(channels[number % 8], GET_WALLET).future(b"", metadata=user.metadata, timeout=SECONDS)
            for number in range(3_500)
        ]
        time.sleep(2.0)  # until they have arrived
        may_go_on.set()
        hanging.join()
        assert Counter(call.code() for call in asked) == {grpc.StatusCode.OK: 3_500}


def sign_up_from(channel: grpc.Channel, address: str) -> None:
    request = account.SignUpRequest(email=f"{new_key()}@example.com", idempotency_key=new_key())
    stub = AccountServiceStub(channel)
    stub.SignUp(request, metadata=(("x-forwarded-for", address),), timeout=SECONDS)


def test_five_sign_ups_an_hour_come_from_one_address_behind_a_proxy(tmp_path: Path) -> None:
    environment = {"OANIM_DATA": str(tmp_path), "OANIM_TRUSTED_PROXIES": "127.0.0.1,::1"}
    with running(environment) as server:
        for number in range(5):
            sign_up_from(server.channel, f"2001:db8::{number}")
        with pytest.raises(grpc.RpcError) as caught:
            sign_up_from(server.channel, "2001:db8::5")
        refused = Refused.of(caught.value)
        assert refused == Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", {"limit": "5"})
        assert refused.retry_seconds is not None
        assert 3_500 < refused.retry_seconds <= 3_600
        sign_up_from(server.channel, "2001:db8:0:1::5")
        server.sign_up()


@pytest.mark.parametrize("hop", ["203.0.113.9:4444", "unknown"])
def test_a_proxy_on_this_machine_lifts_no_limit_whatever_it_writes(tmp_path: Path, hop: str) -> None:
    with running({"OANIM_DATA": str(tmp_path), "OANIM_TRUSTED_PROXIES": "127.0.0.1"}) as server:
        for _ in range(5):
            sign_up_from(server.channel, hop)
        with pytest.raises(grpc.RpcError) as caught:
            sign_up_from(server.channel, hop)
        assert Refused.of(caught.value).reason == "RATE_LIMITED"


def test_without_a_proxy_nobodys_header_is_believed(server: RunningServer) -> None:
    for _ in range(6):
        sign_up_from(server.channel, "203.0.113.9")


def test_a_days_free_credits_are_capped_and_sign_up_can_be_closed(tmp_path: Path) -> None:
    environment = {"OANIM_DATA": str(tmp_path), "OANIM_FREE_CREDITS_DAILY_CAP_USD": "5"}
    request = account.SignUpRequest(email="late@example.com", idempotency_key=new_key())
    with running(environment) as server:
        calls = Calls(server.channel, server.sign_up())
        refused = calls.refused(calls.account.SignUp, request)
        limit = {"limit": "5000000"}
        assert refused == Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", limit)
        assert refused.retry_seconds is not None
        assert 0 < refused.retry_seconds <= 86_400
    with running({"OANIM_DATA": str(tmp_path), "OANIM_SIGN_UP": "closed"}) as server:
        refused = Calls(server.channel, calls.user).refused(
            AccountServiceStub(server.channel).SignUp, request
        )
        assert refused == Refused(grpc.StatusCode.FAILED_PRECONDITION, "SIGN_UP_CLOSED")


def test_a_hold_of_a_model_that_is_no_longer_sold_is_still_answered(tmp_path: Path) -> None:
    line = wallet.PricedLine(model="fal-ai/not-listed", quantity=1)
    request = wallet.ReserveRequest(idempotency_key=new_key(), line=line)
    with running({"OANIM_DATA": str(tmp_path)}) as server:
        calls = Calls(server.channel, server.sign_up())
        held = calls(calls.wallet.Reserve, request)
        assert held.reservation.held_micros == 50_000
    with running({"OANIM_DATA": str(tmp_path), "OANIM_UNLISTED_MODELS": "refuse"}) as server:
        calls = Calls(server.channel, calls.user)
        held.replayed = True
        assert calls(calls.wallet.Reserve, request) == held
        request.idempotency_key = new_key()
        refused = calls.refused(calls.wallet.Reserve, request)
        refused.metadata.pop("wallet_seq", None)
        assert refused == Refused(
            grpc.StatusCode.INVALID_ARGUMENT,
            "UNKNOWN_MODEL",
            {"model": "fal-ai/not-listed"},
            fields=("model",),
        )


def test_a_caller_whose_deadline_passes_frees_its_place(server: RunningServer, calls: Calls) -> None:
    for _ in range(25):  # more than an account may have open
        watch = calls.wallet.WatchWallet(
            wallet.WatchWalletRequest(), metadata=calls.user.metadata, timeout=0.1
        )
        with pytest.raises(grpc.RpcError) as caught:
            list(watch)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_an_account_has_so_many_streams_open(strict: RunningServer) -> None:
    calls = Calls(strict.channel, strict.sign_up())

    def watch() -> Iterator[wallet.WatchWalletResponse]:
        return calls.wallet.WatchWallet(
            wallet.WatchWalletRequest(), metadata=calls.user.metadata, timeout=SECONDS
        )

    first, second = watch(), watch()
    next(first)
    next(second)
    with pytest.raises(grpc.RpcError) as caught:
        next(watch())
    assert Refused.of(caught.value) == Refused(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", {"limit": "2"}
    )
    cast("grpc.Call", first).cancel()
    # The place is free as soon as the server has seen the hang-up.
    while True:
        time.sleep(0.6)  # the rate's own pace
        with suppress(grpc.RpcError):
            next(watch())
            break


def open_health(channel: grpc.Channel) -> Iterator[health_pb2.HealthCheckResponse]:
    """A stream that needs no key."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    return cast(
        "Iterator[health_pb2.HealthCheckResponse]",
        stub.Watch(health_pb2.HealthCheckRequest(), timeout=SECONDS),
    )


def open_reflection(channel: grpc.Channel) -> Iterator[object]:
    """Another one."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = SimpleQueue[reflection_pb2.ServerReflectionRequest]()
    asked.put(reflection_pb2.ServerReflectionRequest(list_services=""))
    return cast("Iterator[object]", stub.ServerReflectionInfo(iter(asked.get, None), timeout=SECONDS))


def test_small_messages_of_a_stream_count_as_calls_and_large_ones_do_not(tmp_path: Path) -> None:
    limits = {"OANIM_CALLS_PER_SECOND": "10", "OANIM_BURST": "10"}
    with running({"OANIM_DATA": str(tmp_path), **limits}) as server:
        took = []
        for size in (1, 1 << 16):
            calls = Calls(server.channel, server.sign_up())
            picture = b"\x89PNG\r\n\x1a\n".ljust(30 * size, b"\0")
            chunks = [
                generate.UploadInputRequest(chunk=picture[start : start + size])
                for start in range(0, len(picture), size)
            ]
            began = time.monotonic()
            calls(calls.generate.UploadInput, iter(chunks))  # type: ignore[arg-type]
            took.append(time.monotonic() - began)
        small, large = took
        # The stream and the first nine are the burst.
        assert small > 2.0
        assert large < 1.0
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(server.channel)
        began = time.monotonic()
        asked = [reflection_pb2.ServerReflectionRequest(list_services="")] * 30
        assert len(list(reflection.ServerReflectionInfo(iter(asked), timeout=SECONDS))) == 30
        assert time.monotonic() - began > 1.5


def test_an_address_without_a_key_has_so_many_streams_open(strict: RunningServer) -> None:
    kept = [open_health(strict.channel), open_reflection(strict.channel)]
    for stream in kept:
        next(stream)
    for opened in (open_health, open_reflection):
        with pytest.raises(grpc.RpcError) as caught:
            next(opened(strict.channel))
        assert Refused.of(caught.value) == Refused(
            grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", {"limit": "2"}
        )
    for stream in kept:
        cast("grpc.Call", stream).cancel()


def test_hundreds_of_calls_at_once_on_one_connection_are_all_answered(tmp_path: Path) -> None:
    """The default leaves room: at its limit gRPC refuses what an honest client sends."""
    with running({"OANIM_DATA": str(tmp_path), "OANIM_BURST": "1000"}) as server:
        calls = Calls(server.channel, server.sign_up())
        for _ in range(3):
            asked = [
                calls.wallet.GetWallet.future(
                    wallet.GetWalletRequest(), metadata=calls.user.metadata, timeout=SECONDS
                )
                for _ in range(300)
            ]
            assert {future.result().wallet.balance_micros for future in asked} == {5_000_000}


def test_a_stranger_s_streams_lock_nobody_out(tmp_path: Path) -> None:
    environment = {"OANIM_DATA": str(tmp_path), "OANIM_CALLS_IN_FLIGHT": "100", "OANIM_BURST": "2000"}
    with running(environment) as server, ExitStack() as stack:
        calls = Calls(server.channel, server.sign_up())
        streams: list[Iterator[health_pb2.HealthCheckResponse]] = []
        answers: Counter[str] = Counter()
        for _ in range(12):
            options = [("grpc.use_local_subchannel_pool", 1)]
            connection = stack.enter_context(grpc.insecure_channel(server.address, options=options))
            opened = [open_health(connection) for _ in range(100)]
            answers.update(attempted(stream) for stream in opened)
            streams += opened
        assert answers == {"SERVING": 20, "RATE_LIMITED": 1_180}
        calls(calls.wallet.GetWallet, wallet.GetWalletRequest())


def attempted(stream: Iterator[health_pb2.HealthCheckResponse]) -> str:
    """What a stream begins with."""
    try:
        return health_pb2.HealthCheckResponse.ServingStatus.Name(next(stream).status)
    except grpc.RpcError as error:
        return Refused.of(error).reason


def test_a_full_server_says_so(tmp_path: Path) -> None:
    with running({"OANIM_DATA": str(tmp_path), "OANIM_CALLS_IN_FLIGHT": "1"}) as server:
        calls = Calls(server.channel, server.sign_up())
        watch = calls.wallet.WatchWallet(
            wallet.WatchWalletRequest(), metadata=calls.user.metadata, timeout=SECONDS
        )
        next(watch)
        refused = calls.refused(calls.wallet.GetWallet, wallet.GetWalletRequest())
        assert refused == Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert refused.retry_seconds is not None
        assert next(open_health(server.channel)).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()


def test_bytes_that_are_no_message_are_refused_as_such(calls: Calls) -> None:
    raw = raw_call(calls.channel, GET_WALLET)
    for garbage in (b"\xff\xff\xff\xff", b"\x0a\x02\xff\xfe"):
        with pytest.raises(grpc.RpcError) as caught:
            raw(garbage, metadata=calls.user.metadata, timeout=SECONDS)
        assert Refused.of(caught.value) == Refused(
            grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", {"field": "request"}, fields=("request",)
        )


def test_a_message_over_a_megabyte_is_too_large(calls: Calls) -> None:
    request = wallet.ReserveRequest(idempotency_key=new_key(), amount_micros=1, labels={"a": "b" * (1 << 20)})
    assert calls.refused(calls.wallet.Reserve, request) == Refused(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_LARGE", {"limit_bytes": "1048576"}
    )
    request.labels["a"] = "b" * (5 << 20)
    with pytest.raises(grpc.RpcError) as caught:
        calls(calls.wallet.Reserve, request)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_method_that_is_not_there_is_unimplemented(calls: Calls) -> None:
    steal = raw_call(calls.channel, "/openanimate.metering.v1.WalletService/Steal")
    with pytest.raises(grpc.RpcError) as caught:
        steal(b"", timeout=SECONDS)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_the_echo_is_there_when_it_is_asked_for(tmp_path: Path, calls: Calls) -> None:
    path = "/oanim.bench.Echo/Echo"
    request = wallet.ReserveRequest(idempotency_key="k", amount_micros=1).SerializeToString()
    with pytest.raises(grpc.RpcError) as caught:
        raw_call(calls.channel, path)(request, metadata=calls.user.metadata, timeout=SECONDS)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    with running({"OANIM_DATA": str(tmp_path), "OANIM_BENCH_ECHO": "1"}) as server:
        user = server.sign_up()
        echo = raw_call(server.channel, path)
        assert echo(request, metadata=user.metadata, timeout=SECONDS) == request
        with pytest.raises(grpc.RpcError) as caught:
            echo(request, timeout=SECONDS)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
