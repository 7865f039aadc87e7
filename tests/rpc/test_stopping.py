"""How a server stops, and what a crash leaves: processes that are asked, and processes that are killed."""

from __future__ import annotations

import base64
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from oanim_server.database.engine import Database
from oanim_server.ledger.audit import audit
from oanim_server.sandbox import StripeSandbox
from openanimate.metering.v1 import checkout_service_pb2 as checkout
from openanimate.metering.v1 import generate_service_pb2 as generate
from openanimate.metering.v1 import wallet_service_pb2 as wallet
from openanimate.metering.v1.checkout_service_pb2_grpc import CheckoutServiceStub
from openanimate.metering.v1.role_pb2 import ROLE_SERVICE
from tests import loopback
from tests.server import SECONDS, Calls, Refused, ServerProcess, new_key, running, spawned

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "openanimate.metering.v1.WalletService"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def test_health_is_told_for_each_service(tmp_path: Path) -> None:
    with running({"OANIM_DATA": str(tmp_path)}) as server:
        health: Any = health_pb2_grpc.HealthStub(server.channel)
        for service in ("", NAME, "openanimate.metering.v1.GenerateService"):
            request = health_pb2.HealthCheckRequest(service=service)
            assert health.Check(request, timeout=SECONDS).status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            health.Check(health_pb2.HealthCheckRequest(service="none"), timeout=SECONDS)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_health_is_listed_and_what_is_not_there_is_watched_as_unknown(tmp_path: Path) -> None:
    with running({"OANIM_DATA": str(tmp_path)}) as server:
        health: Any = health_pb2_grpc.HealthStub(server.channel)
        request: Any = vars(health_pb2)["HealthListRequest"]()  # not among the types that are published
        listed = health.List(request, timeout=SECONDS).statuses
        assert {status.status for status in listed.values()} == {health_pb2.HealthCheckResponse.SERVING}
        assert {"", NAME} <= listed.keys()
        states = health.Watch(health_pb2.HealthCheckRequest(service="none"), timeout=SECONDS)
        assert next(states).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        states.cancel()


def test_a_server_that_is_asked_to_stop_says_so_and_exits_0(tmp_path: Path) -> None:
    with spawned({"OANIM_DATA": str(tmp_path)}, tmp_path / "log") as server:
        calls = Calls(server.channel, server.sign_up())
        health: Any = health_pb2_grpc.HealthStub(server.channel)
        states = health.Watch(health_pb2.HealthCheckRequest(service=NAME), timeout=SECONDS)
        assert next(states).status == health_pb2.HealthCheckResponse.SERVING
        watch = calls.wallet.WatchWallet(
            wallet.WatchWalletRequest(), metadata=calls.user.metadata, timeout=SECONDS
        )
        next(watch)
        began = time.monotonic()
        assert server.terminate() == 0
        assert time.monotonic() - began < 5, "nothing was in flight that could not be ended"
        assert next(states).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.RpcError) as caught:
            next(watch)
        assert Refused.of(caught.value) == Refused(grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert not (tmp_path / "oanim.sock").exists()
    assert {path.name for path in tmp_path.glob("oanim.db*")} == {"oanim.db", "oanim.db.lock"}, (
        "all is in one"
    )
    assert [entry["message"] for entry in server.entries() if entry["logger"] == "oanim_server.app"] == [
        "serving",
        "stopping",
        "stopped",
    ]


def test_who_waits_for_a_payment_does_not_keep_a_server_from_stopping(tmp_path: Path) -> None:
    with StripeSandbox() as stripe:
        environment = {
            "OANIM_DATA": str(tmp_path),
            "OANIM_STRIPE_KEY": "sk_test_sandbox",
            "OANIM_STRIPE_URL": stripe.url,
        }
        with spawned(environment, tmp_path / "log") as server:
            user = server.sign_up()
            stub = CheckoutServiceStub(server.channel)
            wanted = checkout.CreateCheckoutRequest(amount_micros=5_000_000, idempotency_key=new_key())
            page = stub.CreateCheckout(wanted, metadata=user.metadata, timeout=SECONDS).checkout
            watched = checkout.WatchCheckoutRequest(checkout_id=page.checkout_id)
            watch = stub.WatchCheckout(watched, metadata=user.metadata, timeout=SECONDS)
            assert next(watch).checkout.state == checkout.CHECKOUT_STATE_OPEN
            began = time.monotonic()
            assert server.terminate() == 0
            assert time.monotonic() - began < 5, "nothing was in flight that could not be ended"
            with pytest.raises(grpc.RpcError) as caught:
                next(watch)
            assert Refused.of(caught.value) == Refused(grpc.StatusCode.UNAVAILABLE, "DRAINING")


def test_what_is_in_flight_finishes_and_what_is_new_is_refused(tmp_path: Path) -> None:
    with spawned({"OANIM_DATA": str(tmp_path)}, tmp_path / "log") as server:
        calls = Calls(server.channel, server.sign_up())
        finish = threading.Event()

        def chunks() -> Iterator[generate.UploadInputRequest]:
            yield generate.UploadInputRequest(chunk=PNG[:8])
            finish.wait(SECONDS)
            yield generate.UploadInputRequest(chunk=PNG[8:])

        upload = uploading(server, calls, chunks())
        server.process.terminate()
        while (refused := attempt(calls)) is None:
            time.sleep(0.01)
        assert refused == Refused(grpc.StatusCode.UNAVAILABLE, "DRAINING")
        unwell = loopback.get(f"{server.http_url}/healthz")
        assert (unwell.status_code, unwell.json()) == (503, {"status": "draining"})
        finish.set()
        assert upload.result().content_type == "image/png"
        assert server.process.wait(SECONDS) == 0
    assert not any("database" in entry["message"] for entry in server.entries())


def uploading(server: ServerProcess, calls: Calls, chunks: Iterator[generate.UploadInputRequest]) -> Any:
    """An upload that is in flight: let in, and the only call that has not ended."""
    # Its key is known from here on. While it is looked up, a call is in flight and may still be sent away.
    assert attempt(calls) is None
    upload = calls.generate.UploadInput.future(chunks, metadata=calls.user.metadata, timeout=SECONDS)
    while True:
        said = loopback.get(f"{server.http_url}/metrics").text
        # The answer of a call may be here before it is counted as ended.
        if "/GetWallet" in said and "oanim_calls_in_flight 1.0" in said:
            return upload
        time.sleep(0.01)


def attempt(calls: Calls) -> Refused | None:
    """A call that may be refused."""
    try:
        calls(calls.wallet.GetWallet, wallet.GetWalletRequest())
    except grpc.RpcError as error:
        return Refused.of(error)
    return None


def test_work_that_does_not_end_is_ended_when_its_time_is_over(tmp_path: Path) -> None:
    environment = {"OANIM_DATA": str(tmp_path), "OANIM_DRAIN_SECONDS": "1"}
    with spawned(environment, tmp_path / "log") as server:
        calls = Calls(server.channel, server.sign_up())
        finish = threading.Event()

        def chunks() -> Iterator[generate.UploadInputRequest]:
            yield generate.UploadInputRequest(chunk=PNG[:8])
            finish.wait(SECONDS)

        upload = uploading(server, calls, chunks())
        assert server.terminate() == 0
        with pytest.raises(grpc.RpcError) as caught:
            upload.result()
        assert Refused.of(caught.value) == Refused(grpc.StatusCode.UNAVAILABLE, "DRAINING")
        finish.set()


def test_a_second_server_on_the_same_folder_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with (
        spawned({"OANIM_DATA": str(tmp_path)}, tmp_path / "log"),
        pytest.raises(AssertionError, match=r"oanim-server: .*oanim\.db is in use by another oanim-server"),
        spawned({"OANIM_DATA": str(tmp_path)}, tmp_path / "second"),
    ):
        pass


def test_a_second_server_on_one_folder_leaves_the_socket_to_the_first(
    postgresql_environment: dict[str, str], tmp_path: Path
) -> None:
    environment = {**postgresql_environment, "OANIM_DATA": str(tmp_path)}
    with running(environment) as server:
        with (
            pytest.raises(AssertionError, match=r"oanim\.sock answers already: one OANIM_DATA a server"),
            spawned(environment, tmp_path / "second"),
        ):
            pass
        assert server.create_key(ROLE_SERVICE).token


def test_a_socket_that_a_crash_left_is_made_anew(
    postgresql_environment: dict[str, str], tmp_path: Path
) -> None:
    environment = {**postgresql_environment, "OANIM_DATA": str(tmp_path)}
    with spawned(environment, tmp_path / "log") as server:
        server.kill()
    assert (tmp_path / "oanim.sock").exists()
    with running(environment) as again:
        assert again.create_key(ROLE_SERVICE).token


def test_what_was_answered_survives_kill_9(tmp_path: Path) -> None:
    """Under load from several threads; every answer is there afterwards, and nothing twice."""
    data = {"OANIM_DATA": str(tmp_path / "data")}
    answered: list[tuple[str, str]] = []
    asked: list[str] = []
    with spawned(data, tmp_path / "log") as server:
        calls = Calls(server.channel, server.sign_up())

        def load() -> None:
            while True:
                key = new_key()
                asked.append(key)
                try:
                    made = calls(
                        calls.wallet.Reserve, wallet.ReserveRequest(idempotency_key=key, amount_micros=1)
                    )
                except grpc.RpcError:
                    return
                answered.append((key, made.reservation.reservation_id))

        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads:
            thread.start()
        while len(answered) < 300:
            time.sleep(0.01)
        server.kill()
        for thread in threads:
            thread.join(SECONDS)
    began = time.monotonic()
    with spawned(data, tmp_path / "log2") as again:
        calls = Calls(again.channel, calls.user)
        calls(calls.wallet.GetWallet, wallet.GetWalletRequest())
        assert time.monotonic() - began < 5
        for key, reservation_id in answered:
            request = wallet.ReserveRequest(idempotency_key=key, amount_micros=1)
            made = calls(calls.wallet.Reserve, request)
            assert (made.replayed, made.reservation.reservation_id) == (True, reservation_id)
        # What was not answered is there wholly or not at all; its key tells which.
        for key in set(asked) - {key for key, _ in answered}:
            calls(calls.wallet.Reserve, wallet.ReserveRequest(idempotency_key=key, amount_micros=1))
        held = calls(calls.wallet.GetWallet, wallet.GetWalletRequest()).wallet.held_micros
        assert held == len(asked)
        assert again.terminate() == 0
    database = Database.open_sqlite(tmp_path / "data" / "oanim.db", lock=False)
    assert audit(database).problems == []
    database.close()
