"""What callers see, and what the log knows, when something of ours is broken."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import sqlite3
import time
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from oanim_server.logs import FLUSH_SECONDS, CallLog
from oanim_server.rpc.edge import CALLS_A_COLLECTION
from openanimate.metering.v1 import wallet_service_pb2 as wallet
from tests import loopback, migrated
from tests.generation.house import until
from tests.ledger.losing import Proxy
from tests.postgresql import Cluster
from tests.server import Calls, Refused, new_key, running, spawned

if TYPE_CHECKING:
    from tests.server import RunningServer


def test_a_fault_is_an_id_to_the_caller_and_a_traceback_in_the_log(tmp_path: Path) -> None:
    with spawned({"OANIM_DATA": str(tmp_path)}, tmp_path / "log") as server:
        calls = Calls(server.channel, server.sign_up())
        with closing(sqlite3.connect(tmp_path / "oanim.db")) as vandal:
            vandal.execute("DROP TABLE usage_days")
        refused = calls.refused(calls.wallet.GetUsage, wallet.GetUsageRequest())
        error_id = refused.metadata["error_id"]
        assert refused == Refused(grpc.StatusCode.INTERNAL, "INTERNAL", {"error_id": error_id})
        assert refused.message == f"A fault in the server. Its log knows more under {error_id}."
    entry = next(entry for entry in server.entries() if entry.get("error_id") == error_id)
    assert entry["method"] == "WalletService/GetUsage"
    assert "no such table: usage_days" in entry["exception"]


def test_a_log_line_names_the_call_and_no_secret(tmp_path: Path) -> None:
    environment = {"OANIM_DATA": str(tmp_path), "OANIM_FAL_KEY": "fal-secret-of-ours"}
    with spawned(environment, tmp_path / "log") as server:
        calls = Calls(server.channel, server.sign_up())
        calls.wallet.GetWallet(
            wallet.GetWalletRequest(),
            metadata=(*calls.user.metadata, ("x-request-id", "my-request-7")),
            timeout=10,
        )
        calls.refused(calls.wallet.Reserve, wallet.ReserveRequest())
        server.terminate()
    lines = [entry for entry in server.entries() if entry["logger"] == "calls"]
    assert [(line["method"], line["code"], line["account"], line["key"]) for line in lines] == [
        ("AccountService/SignUp", "OK", "", ""),
        ("WalletService/GetWallet", "OK", calls.user.account_id, calls.user.key_id),
        ("WalletService/Reserve", "INVALID_ARGUMENT", calls.user.account_id, calls.user.key_id),
    ]
    assert lines[1]["request_id"] == "my-request-7"
    text = server.log.read_text()
    assert calls.user.token not in text
    assert calls.user.token.rpartition("_")[2] not in text
    assert "fal-secret-of-ours" not in text


class FullAtFirst(StringIO):
    """A stream on a disk that is full when it is first written to."""

    full = True

    def write(self, text: str) -> int:
        if self.full:
            self.full = False
            raise OSError(errno.ENOSPC, "no space left on device")
        return super().write(text)


def test_a_line_that_cannot_be_written_takes_none_of_the_later_ones_with_it() -> None:
    stream = FullAtFirst()
    log = CallLog(stream)

    async def write() -> None:
        for request_id in ("lost", "kept"):
            log.write("M", "OK", 0.1, request_id=request_id, account="", key_id="")
            await asyncio.sleep(2 * FLUSH_SECONDS)
        log.write("M", "OK", 0.1, request_id="last", account="", key_id="")
        log.flush()

    asyncio.run(write())
    assert [json.loads(line)["request_id"] for line in stream.getvalue().splitlines()] == ["kept", "last"]


def test_a_server_whose_log_cannot_be_written_serves_and_exits_0(tmp_path: Path) -> None:
    with spawned({"OANIM_DATA": str(tmp_path)}, Path("/dev/full")) as server:
        calls = Calls(server.channel, server.sign_up())
        for _ in range(3):
            calls(calls.wallet.GetWallet, wallet.GetWalletRequest())
            time.sleep(FLUSH_SECONDS)
        assert server.terminate() == 0


def test_healthz_asks_the_database(server: RunningServer) -> None:
    answer = loopback.get(f"{server.http_url}/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_metrics_count_calls_and_groups(server: RunningServer, calls: Calls) -> None:
    calls(calls.wallet.Reserve, wallet.ReserveRequest(idempotency_key=new_key(), amount_micros=1))
    calls.refused(calls.wallet.Reserve, wallet.ReserveRequest())
    said = {
        'oanim_calls_total{code="INVALID_ARGUMENT",method="WalletService/Reserve"}',
        'oanim_call_seconds_bucket{le="+Inf",method="WalletService/Reserve"}',
        "oanim_calls_in_flight ",
        "oanim_open_streams ",
        "oanim_queued_operations ",
        "oanim_group_operations_count ",
        "oanim_commit_seconds_sum ",
        'oanim_generations_total{outcome="PROVIDER_UNKNOWN"}',
        "oanim_generation_leases_lost_total ",
    }

    def metrics() -> str:
        return loopback.get(f"{server.http_url}/metrics").text

    # An answer may be here before its call is counted.
    until(lambda: all(line in metrics() for line in said))
    assert calls.user.account_id not in metrics()


def test_a_database_that_goes_away_is_said_to_be_away_and_comes_back(tmp_path: Path) -> None:
    with Cluster({}) as cluster:
        environment = {"OANIM_DATA": str(tmp_path), "OANIM_DATABASE_URL": migrated.postgresql(cluster)}
        with running(environment) as server:
            calls = Calls(server.channel, server.sign_up())
            cluster.stop("immediate")
            request = wallet.ReserveRequest(idempotency_key=new_key(), amount_micros=1)
            away = Refused(grpc.StatusCode.UNAVAILABLE, "DATABASE_AWAY")
            assert calls.refused(calls.wallet.Reserve, request) == away
            assert calls.refused(calls.wallet.GetWallet, wallet.GetWalletRequest()) == away
            assert loopback.get(f"{server.http_url}/healthz").status_code == 503
            cluster.start()
            assert once_it_is_back(calls, request).wallet.held_micros == 1
            assert loopback.get(f"{server.http_url}/healthz").status_code == 200


def test_a_database_that_hangs_does_not_keep_a_server_from_stopping(
    postgresql_cluster: Cluster, tmp_path: Path
) -> None:
    proxy = Proxy(migrated.postgresql(postgresql_cluster))
    environment = {
        "OANIM_DATA": str(tmp_path),
        "OANIM_DATABASE_URL": proxy.url,
        "OANIM_POSTGRESQL_UNSAFE": "1",
    }
    with spawned(environment, tmp_path / "log") as server:
        calls = Calls(server.channel, server.sign_up())
        fresh = server.sign_up()
        calls(calls.wallet.GetWallet, wallet.GetWalletRequest())
        proxy.passing.clear()
        # One waits in the committer, one in a reader, one for its key to be looked up.
        waiting: list[Any] = [
            calls.wallet.Reserve.future(
                wallet.ReserveRequest(idempotency_key=new_key(), amount_micros=1),
                metadata=calls.user.metadata,
                timeout=1,
            ),
            *(
                calls.wallet.GetWallet.future(wallet.GetWalletRequest(), metadata=caller.metadata, timeout=1)
                for caller in (calls.user, fresh)
            ),
        ]
        assert [call.code() for call in waiting] == [grpc.StatusCode.DEADLINE_EXCEEDED] * 3
        began = time.monotonic()
        assert server.terminate() == 0
        assert time.monotonic() - began < 20
    proxy.close()
    assert server.entries()[-1]["message"] == "stopped"


def once_it_is_back(calls: Calls, request: wallet.ReserveRequest) -> wallet.ReserveResponse:
    """The answer, after as many refusals as it takes, within the 5 s that are promised."""
    until = time.monotonic() + 5
    while True:
        try:
            return calls(calls.wallet.Reserve, request)
        except grpc.RpcError as error:
            refused = Refused.of(error)
            assert (refused.reason, time.monotonic() < until) == ("DATABASE_AWAY", True)
            time.sleep(0.2)  # a caller's pause; what it waits for is another process


def test_a_refused_call_leaves_no_ring_of_objects_for_the_collector(tmp_path: Path) -> None:
    """It would stop the server for as long as it takes to find those of some thousand refusals."""
    # The last may be about to go.
    assert left_by_refusals(tmp_path, 100, "UnaryUnary") <= 2


def test_what_grpc_leaves_of_calls_is_collected_in_small_portions(tmp_path: Path) -> None:
    """Without the collector's own count: it waits until there is enough to stop the server for 20 ms."""
    left = left_by_refusals(tmp_path, 2 * CALLS_A_COLLECTION, "_HandlerCallDetails")
    assert left <= CALLS_A_COLLECTION


def left_by_refusals(data: Path, refusals: int, kind: str) -> int:
    """How many more objects of a type there are after so many refused calls, while nobody else collects."""
    with running({"OANIM_DATA": str(data)}) as server:
        calls = Calls(server.channel, server.sign_up())
        gc.collect()
        gc.disable()
        try:
            before = alive(kind)
            for _ in range(refusals):
                calls.refused(calls.wallet.Reserve, wallet.ReserveRequest())
            return alive(kind) - before
        finally:
            gc.enable()


def alive(kind: str) -> int:
    """How many objects of a type the collector knows: of this server, and of others that tests share."""
    return sum(type(found).__name__ == kind for found in gc.get_objects())
