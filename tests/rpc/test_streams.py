"""StreamUsage and Meter over a real channel, on both databases."""

from __future__ import annotations

import queue
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from openanimate.metering.v1 import wallet_service_pb2 as pb
from openanimate.metering.v1.error_reason_pb2 import (
    ERROR_REASON_IDEMPOTENCY_KEY_REUSED,
    ERROR_REASON_INSUFFICIENT_CREDITS,
    ERROR_REASON_INVALID_FIELD,
    ERROR_REASON_NOT_FOUND,
    ERROR_REASON_NOT_YOUR_HOLD,
    ERROR_REASON_UNKNOWN_MODEL,
)
from openanimate.metering.v1.role_pb2 import ROLE_SERVICE
from tests.server import SECONDS, Calls, Refused, new_key, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.server import RunningServer

FREE = 5_000_000
# $0.003 an image.
MODEL = "fal-ai/flux/schnell"
PRICE = 3_000


class Stream:
    """An open stream: messages go in, answers come out."""

    def __init__(self, call: Any, metadata: Any) -> None:
        self._sent: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.answers = call(iter(self._sent.get, None), metadata=metadata, timeout=SECONDS)

    def send(self, message: Any) -> None:
        """Send one, and wait for nothing."""
        self._sent.put(message)

    def __call__(self, message: Any) -> list[Any]:
        """Send one; its outcomes."""
        self.send(message)
        return list(next(self.answers).outcomes)

    def end(self) -> list[Any]:
        """Send no more; the answers that were left."""
        self._sent.put(None)
        return list(self.answers)


@pytest.fixture
def service(server: RunningServer) -> Calls:
    """The calls of a service."""
    return Calls(server.channel, server.create_key(ROLE_SERVICE))


@contextmanager
def opened(method: Any, calls: Calls) -> Iterator[Stream]:
    """A stream of the caller's, until the block ends."""
    stream = Stream(method, calls.user.metadata)
    yield stream
    stream.send(None)
    stream.answers.cancel()


@pytest.fixture
def meter(service: Calls) -> Iterator[Stream]:
    """A Meter stream of the service's."""
    with opened(service.wallet.Meter, service) as stream:
        yield stream


@pytest.fixture
def usage(service: Calls) -> Iterator[Stream]:
    """A StreamUsage stream of the service's."""
    with opened(service.wallet.StreamUsage, service) as stream:
        yield stream


def reserve(account_id: str, micros: int, key: str | None = None) -> pb.MeterOperation:
    request = pb.ReserveRequest(account_id=account_id, idempotency_key=key or new_key(), amount_micros=micros)
    return pb.MeterOperation(reserve=request)


def commit(account_id: str, reserve_key: str, micros: int, key: str | None = None) -> pb.MeterOperation:
    request = pb.CommitRequest(idempotency_key=key or new_key(), amount_micros=micros)
    return pb.MeterOperation(commit=request, reserve_key=reserve_key, account_id=account_id)


def release(account_id: str, reserve_key: str) -> pb.MeterOperation:
    request = pb.ReleaseRequest(idempotency_key=new_key())
    return pb.MeterOperation(release=request, reserve_key=reserve_key, account_id=account_id)


def event(account_id: str, quantity: int, event_id: str | None = None) -> pb.UsageItem:
    line = pb.PricedLine(model=MODEL, quantity=quantity)
    used = pb.EventUsage(account_id=account_id, event_id=event_id or new_key(), line=line)
    return pb.UsageItem(event=used)


def report(reservation_id: str, quantity: int) -> pb.UsageItem:
    return pb.UsageItem(reservation=pb.ReservationUsage(reservation_id=reservation_id, quantity=quantity))


def wallet_of(calls: Calls) -> Any:
    return calls(calls.wallet.GetWallet, pb.GetWalletRequest()).wallet


# Meter ----------------------------------------------------------------------------------------------


def test_a_message_reserves_commits_and_releases_in_its_order(meter: Stream, calls: Calls) -> None:
    account, keys = calls.user.account_id, [new_key() for _ in range(2)]
    first, second, charged, freed = meter(
        pb.MeterRequest(
            operations=[
                reserve(account, 100, keys[0]),
                reserve(account, 50, keys[1]),
                commit(account, keys[0], 30),
                release(account, keys[1]),
            ]
        )
    )
    assert [first.reserve.wallet.held_micros, second.reserve.wallet.held_micros] == [100, 150]
    assert charged.commit.reservation.reservation_id == first.reserve.reservation.reservation_id
    assert (charged.commit.charged_micros, freed.release.released_micros) == (30, 50)
    assert (wallet_of(calls).balance_micros, wallet_of(calls).held_micros) == (FREE - 30, 0)


def test_a_refused_operation_spoils_neither_its_neighbours_nor_the_stream(
    meter: Stream, calls: Calls
) -> None:
    account, key = calls.user.account_id, new_key()
    outcomes = meter(
        pb.MeterRequest(
            operations=[
                reserve(account, FREE + 1, key),
                commit(account, key, 1),
                reserve(account, -1),
                pb.MeterOperation(),
                reserve(account, 10),
            ]
        )
    )
    reasons = [outcome.refused.reason for outcome in outcomes]
    assert reasons == [
        ERROR_REASON_INSUFFICIENT_CREDITS,
        ERROR_REASON_NOT_FOUND,
        ERROR_REASON_INVALID_FIELD,
        ERROR_REASON_INVALID_FIELD,
        0,
    ]
    refused = outcomes[0].refused
    assert dict(refused.metadata) == {
        "required_micros": str(FREE + 1),
        "available_micros": str(FREE),
        "wallet_seq": "1",
    }
    status = Status.FromString(refused.status)
    assert status.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert status.message == refused.message
    assert meter(pb.MeterRequest(operations=[reserve(account, 10)]))[0].reserve.wallet.held_micros == 20


def test_a_key_means_the_same_attempt_in_a_stream_and_in_a_call(
    meter: Stream, service: Calls, calls: Calls
) -> None:
    account, keys = calls.user.account_id, [new_key() for _ in range(2)]
    request = pb.ReserveRequest(account_id=account, idempotency_key=keys[0], amount_micros=7)
    first = service(service.wallet.Reserve, request)
    (again,) = meter(pb.MeterRequest(operations=[reserve(account, 7, keys[0])]))
    assert again.reserve.replayed
    assert again.reserve.reservation == first.reservation
    (charged,) = meter(pb.MeterRequest(operations=[commit(account, keys[0], 5, keys[1])]))
    committing = pb.CommitRequest(
        reservation_id=first.reservation.reservation_id, idempotency_key=keys[1], amount_micros=5
    )
    by_call = service(service.wallet.Commit, committing)
    assert by_call.replayed
    assert by_call.wallet == charged.commit.wallet


def test_messages_are_answered_in_their_order_however_many_are_under_way(meter: Stream, calls: Calls) -> None:
    account = calls.user.account_id
    for _ in range(20):
        meter.send(pb.MeterRequest(operations=[reserve(account, 1) for _ in range(50)]))
    held = [outcome.reserve.wallet.held_micros for _ in range(20) for outcome in next(meter.answers).outcomes]
    assert held == list(range(1, 1_001))


def test_a_thousand_operations_go_into_a_message_and_no_more(meter: Stream, calls: Calls) -> None:
    account = calls.user.account_id
    outcomes = meter(pb.MeterRequest(operations=[reserve(account, 1) for _ in range(1_000)]))
    assert outcomes[-1].reserve.wallet.held_micros == 1_000
    assert meter(pb.MeterRequest()) == []
    # What came before is answered, whatever comes after it.
    meter.send(pb.MeterRequest(operations=[reserve(account, 1)]))
    meter.send(pb.MeterRequest(operations=[reserve(account, 1) for _ in range(1_001)]))
    assert len(next(meter.answers).outcomes) == 1
    with pytest.raises(grpc.RpcError) as caught:
        next(meter.answers)
    refused = Refused.of(caught.value)
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("operations",))


def test_a_caller_that_ends_its_stream_gets_what_is_left(meter: Stream, calls: Calls) -> None:
    for _ in range(3):
        meter.send(pb.MeterRequest(operations=[reserve(calls.user.account_id, 1)]))
    assert [len(answer.outcomes) for answer in meter.end()] == [1, 1, 1]
    assert meter.answers.code() is grpc.StatusCode.OK


def test_streams_are_for_services(calls: Calls) -> None:
    for method in (calls.wallet.Meter, calls.wallet.StreamUsage):
        with pytest.raises(grpc.RpcError) as caught:
            list(method(iter([]), metadata=calls.user.metadata, timeout=SECONDS))
        assert Refused.of(caught.value).reason == "WRONG_ROLE"


def test_a_stream_above_its_rate_is_slowed_and_not_refused(tmp_path: Path) -> None:
    slow = {"OANIM_DATA": str(tmp_path), "OANIM_SERVICE_OPERATIONS_PER_SECOND": "1000"}
    with running(slow) as server:
        user = server.sign_up()
        service = Calls(server.channel, server.create_key(ROLE_SERVICE))
        with opened(service.wallet.Meter, service) as meter:
            began = time.perf_counter()
            for _ in range(30):
                operations = [reserve(user.account_id, 1) for _ in range(100)]
                outcomes = meter(pb.MeterRequest(operations=operations))
                assert not any(outcome.HasField("refused") for outcome in outcomes)
            taken = time.perf_counter() - began
    # 3,000 operations, less the burst that is free.
    assert taken > 0.9


def test_a_reader_that_does_not_read_holds_its_stream_up_and_nothing_else(
    server: RunningServer, service: Calls, calls: Calls
) -> None:
    account = calls.user.account_id
    # A window that does not grow: what is on its way to the reader is little.
    narrow = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 65_536),
    ]
    messages = [pb.MeterRequest(operations=[reserve(account, 1) for _ in range(100)]) for _ in range(200)]
    with grpc.insecure_channel(server.address, options=narrow) as channel:
        stalled = Calls(channel, service.user).wallet.Meter(
            iter(messages), metadata=service.user.metadata, timeout=SECONDS
        )
        held = still_held(calls)
        # Neither read nor decided any further, and far from all of it.
        assert held < 10_000
        with opened(service.wallet.Meter, service) as other:
            assert other(pb.MeterRequest(operations=[reserve(account, 1)]))[0].HasField("reserve")
        assert sum(len(answer.outcomes) for answer in stalled) == 20_000
    assert wallet_of(calls).held_micros == 20_001


def still_held(calls: Calls) -> int:
    """What is held once it stands still."""
    before = -1
    while (held := wallet_of(calls).held_micros) != before or not held:
        before = held
        time.sleep(0.5)
    return int(held)


# Usage ----------------------------------------------------------------------------------------------


def test_usage_without_a_hold_is_charged_once_and_what_is_missing_to_nobody(
    usage: Stream, calls: Calls
) -> None:
    account = calls.user.account_id
    most = FREE // PRICE  # 1,666 images, and $0.002 is left
    first = event(account, most)
    once, again = usage(pb.StreamUsageRequest(items=[first, first]))
    assert (once.accepted.charged_micros, once.accepted.available_micros) == (most * PRICE, 2_000)
    assert again.accepted.replayed
    (half,) = usage(pb.StreamUsageRequest(items=[event(account, 1)]))
    assert half.accepted == pb.UsageAccepted(
        charged_micros=2_000, uncollected_micros=1_000, wallet_seq=once.accepted.wallet_seq + 1
    )
    records = calls(calls.wallet.ListUsage, pb.ListUsageRequest()).records
    assert [record.event_id for record in records][-1] == first.event.event_id
    assert [record.reservation_id for record in records] == ["", ""]
    assert wallet_of(calls).balance_micros == 0


def test_usage_under_a_hold_counts_the_greatest_and_is_charged_at_its_end(
    usage: Stream, service: Calls, calls: Calls
) -> None:
    request = pb.ReserveRequest(
        account_id=calls.user.account_id,
        idempotency_key=new_key(),
        line=pb.PricedLine(model=MODEL, quantity=10),
    )
    held = service(service.wallet.Reserve, request).reservation.reservation_id
    outcomes = usage(pb.StreamUsageRequest(items=[report(held, q) for q in (3, 1, 4, 4, 2)]))
    assert [outcome.accepted.reported_quantity for outcome in outcomes] == [3, 3, 4, 4, 4]
    standing = calls(calls.wallet.GetReservation, pb.GetReservationRequest(reservation_id=held)).reservation
    assert (standing.reported_quantity, standing.captured_micros) == (4, 0)
    freed = service(service.wallet.Release, pb.ReleaseRequest(reservation_id=held, idempotency_key=new_key()))
    assert freed.reservation.captured_micros == 4 * PRICE
    assert wallet_of(calls).balance_micros == FREE - 4 * PRICE


def test_a_refused_item_does_not_end_the_stream(usage: Stream, service: Calls, calls: Calls) -> None:
    account, key = calls.user.account_id, new_key()
    foreign = calls(calls.wallet.Reserve, pb.ReserveRequest(idempotency_key=new_key(), amount_micros=1))
    unknown = pb.EventUsage(account_id=account, event_id=new_key(), line=pb.PricedLine(model="", quantity=1))
    outcomes = usage(
        pb.StreamUsageRequest(
            items=[
                event(account, 1, key),
                event(account, 2, key),
                report(foreign.reservation.reservation_id, 1),
                report("no such thing", 1),
                event("", 1),
                pb.UsageItem(event=unknown),
                pb.UsageItem(),
                event(account, 1),
            ]
        )
    )
    assert [outcome.refused.reason for outcome in outcomes] == [
        0,
        ERROR_REASON_IDEMPOTENCY_KEY_REUSED,
        ERROR_REASON_NOT_YOUR_HOLD,
        ERROR_REASON_NOT_FOUND,
        ERROR_REASON_INVALID_FIELD,
        ERROR_REASON_INVALID_FIELD,
        ERROR_REASON_INVALID_FIELD,
        0,
    ]


def test_an_item_sent_on_two_streams_at_once_is_counted_once(service: Calls, calls: Calls) -> None:
    account = calls.user.account_id
    items = [event(account, 1) for _ in range(200)]
    found: list[Any] = []

    def send(order: list[pb.UsageItem]) -> None:
        with opened(service.wallet.StreamUsage, service) as stream:
            for start in range(0, len(order), 20):
                found.extend(stream(pb.StreamUsageRequest(items=order[start : start + 20])))

    threads = [threading.Thread(target=send, args=(order,)) for order in (items, items[::-1], items)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 600
    assert sum(not outcome.accepted.replayed for outcome in found) == 200
    assert wallet_of(calls).balance_micros == FREE - 200 * PRICE


def test_a_model_that_is_not_listed_is_refused_where_the_server_refuses_such(tmp_path: Path) -> None:
    with running({"OANIM_DATA": str(tmp_path), "OANIM_UNLISTED_MODELS": "refuse"}) as server:
        user = server.sign_up()
        service = Calls(server.channel, server.create_key(ROLE_SERVICE))
        with opened(service.wallet.StreamUsage, service) as usage:
            item = event(user.account_id, 1)
            item.event.line.model = "nobody/knows"
            (refused,) = usage(pb.StreamUsageRequest(items=[item]))
            assert refused.refused.reason == ERROR_REASON_UNKNOWN_MODEL


# Ends -----------------------------------------------------------------------------------------------

SLOW = {"OANIM_SERVICE_OPERATIONS_PER_SECOND": "100", "OANIM_BURST": "200"}


def test_a_server_that_stops_answers_what_it_has_in_hand_and_says_that_it_goes(tmp_path: Path) -> None:
    with running({"OANIM_DATA": str(tmp_path), **SLOW}) as server:
        user = server.sign_up()
        service = Calls(server.channel, server.create_key(ROLE_SERVICE))
        with opened(service.wallet.Meter, service) as meter, opened(service.wallet.Meter, service) as idle:
            assert idle(pb.MeterRequest()) == []
            # Its rate has the server wait for a second and a half before it decides.
            meter.send(pb.MeterRequest(operations=[reserve(user.account_id, 1) for _ in range(350)]))
            time.sleep(0.3)
            stopping = threading.Thread(target=lambda: server.on_loop(server.app.stop()))
            stopping.start()
            outcomes = list(next(meter.answers).outcomes)
            ends = []
            for stream in (meter, idle):
                with pytest.raises(grpc.RpcError) as caught:
                    next(stream.answers)
                ends.append(Refused.of(caught.value).reason)
            stopping.join(SECONDS)
    assert [outcome.WhichOneof("outcome") for outcome in outcomes] == ["reserve"] * 350
    assert ends == ["DRAINING", "DRAINING"]


def test_a_stream_is_opened_late_and_not_refused_above_the_rate(tmp_path: Path) -> None:
    with running({"OANIM_DATA": str(tmp_path), **SLOW, "OANIM_SERVICE_OPERATIONS_PER_SECOND": "1"}) as server:
        user = server.sign_up()
        service = Calls(server.channel, server.create_key(ROLE_SERVICE))
        with opened(service.wallet.Meter, service) as meter:
            meter(pb.MeterRequest(operations=[reserve(user.account_id, 1) for _ in range(200)]))
            # A call is refused now; another stream waits for its turn.
            refused = service.refused(
                service.wallet.GetWallet, pb.GetWalletRequest(account_id=user.account_id)
            )
            assert refused.reason == "RATE_LIMITED"
            with opened(service.wallet.StreamUsage, service) as usage:
                (outcome,) = usage(pb.StreamUsageRequest(items=[event(user.account_id, 1)]))
    assert outcome.accepted.charged_micros == PRICE
