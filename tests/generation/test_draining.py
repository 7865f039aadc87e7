"""A server that is asked to stop while it works: paid requests are waited for, who follows them is not."""

from __future__ import annotations

import signal
import sqlite3
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, cast

import grpc
import pytest

from openanimate.metering.v1 import wallet_service_pb2
from openanimate.metering.v1.generate_service_pb2 import (
    GENERATION_STATE_SUCCEEDED,
    GenerateRequest,
    GetGenerationRequest,
)
from tests.generation.house import KEY, MODEL, PRICE, until
from tests.generation.provider import Provider, provider
from tests.server import SECONDS, Calls, Refused, spawned

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from openanimate.metering.v1.generate_service_pb2 import GenerateResponse
    from tests.server import ServerProcess

DRAINING = Refused(grpc.StatusCode.UNAVAILABLE, "DRAINING")
MADE = {"images": [{"url": "data:image/png;base64,AAAA"}]}
GENERATE = GenerateRequest(model=MODEL, input_json='{"prompt": "gradient"}', idempotency_key="k1")


@pytest.fixture
def slow() -> Iterator[Provider]:
    """A provider that takes a submit and answers it when its test says so."""
    with provider() as one:
        one.makes(MADE, model=MODEL)
        one.answers[f"/{MODEL}"] = one.answers[f"/{MODEL}"]._replace(when=one.answered)
        yield one
        one.answered.set()


def settings(slow: Provider, folder: Path, **more: str) -> dict[str, str]:
    return {"OANIM_DATA": str(folder / "data"), "OANIM_FAL_URL": slow.url, "OANIM_FAL_KEY": KEY, **more}


def begun(calls: Calls, slow: Provider) -> tuple[Iterator[GenerateResponse], str]:
    """A generation whose submit has left the server and is not answered; its stream and its id."""
    stream = calls.generate.Generate(GENERATE, metadata=calls.user.metadata, timeout=SECONDS)
    generation_id = next(stream).accepted.generation.generation_id
    until(lambda: len(slow.sent) == 1)
    return stream, generation_id


@contextmanager
def stopping(server: ServerProcess, *, within: float) -> Iterator[None]:
    """Ask a server to stop, and see that it has, in time, when the block has ended."""
    asked = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    yield
    assert server.process.wait(SECONDS) == 0
    assert time.monotonic() - asked < within


def ended_by(stream: Iterator[GenerateResponse]) -> Refused:
    with pytest.raises(grpc.RpcError) as caught:
        list(stream)
    return Refused.of(caught.value)


def test_a_paid_request_that_nobody_follows_has_all_the_time_there_is(slow: Provider, tmp_path: Path) -> None:
    with spawned(settings(slow, tmp_path), tmp_path / "log") as server:
        calls = Calls(server.channel, server.sign_up())
        stream, generation_id = begun(calls, slow)
        cast("grpc.Call", stream).cancel()
        with stopping(server, within=10):
            time.sleep(6)  # what is waited for is that nothing happens
            slow.answered.set()
    with spawned(settings(slow, tmp_path), tmp_path / "log2") as server:
        calls = Calls(server.channel, calls.user)
        request = GetGenerationRequest(generation_id=generation_id)
        until(
            lambda: (
                calls(calls.generate.GetGeneration, request).generation.state == GENERATION_STATE_SUCCEEDED
            )
        )
    assert len(slow.sent) == 1


def test_who_follows_work_is_sent_away_when_the_paid_request_was_answered(
    slow: Provider, tmp_path: Path
) -> None:
    slow.makes(MADE, model=MODEL, status={"status": "IN_PROGRESS"})
    slow.answers[f"/{MODEL}"] = slow.answers[f"/{MODEL}"]._replace(when=slow.answered)
    with spawned(settings(slow, tmp_path), tmp_path / "log") as server:
        calls = Calls(server.channel, server.sign_up())
        stream, _ = begun(calls, slow)
        with stopping(server, within=5):
            time.sleep(0.5)  # as above
            slow.answered.set()
            assert ended_by(stream) == DRAINING
    slow.makes(MADE, model=MODEL)
    with spawned(settings(slow, tmp_path), tmp_path / "log2") as server:
        calls = Calls(server.channel, calls.user)
        *_, last = calls.generate.Generate(GENERATE, metadata=calls.user.metadata, timeout=SECONDS)
        assert last.succeeded.generation.charged_micros == PRICE
    assert len(slow.sent) == 1


def test_calls_and_paid_requests_have_one_deadline_together(slow: Provider, tmp_path: Path) -> None:
    with spawned(settings(slow, tmp_path, OANIM_DRAIN_SECONDS="2"), tmp_path / "log") as server:
        calls = Calls(server.channel, server.sign_up())
        stream, _ = begun(calls, slow)
        with stopping(server, within=5):
            assert ended_by(stream) == DRAINING


def test_a_job_that_waits_is_not_submitted_by_a_server_that_stops(slow: Provider, tmp_path: Path) -> None:
    slow.answers["/fal-ai/busy"] = slow.answers[f"/{MODEL}"]._replace(
        status=429, headers={"retry-after": "1"}, when=None
    )
    with spawned(settings(slow, tmp_path), tmp_path / "log") as server:
        calls = Calls(server.channel, server.sign_up())
        begun(calls, slow)
        busy = GenerateRequest(model="fal-ai/busy", input_json="{}", idempotency_key="k2")
        stream = calls.generate.Generate(busy, metadata=calls.user.metadata, timeout=SECONDS)
        next(stream)
        until(lambda: len(slow.sent) == 2)
        with stopping(server, within=10):
            time.sleep(2)  # longer than it was to wait
            slow.answered.set()
    assert len(slow.sent) == 2


def test_a_stream_whose_key_was_looked_up_meanwhile_is_refused(tmp_path: Path) -> None:
    with spawned({"OANIM_DATA": str(tmp_path)}, tmp_path / "log") as server:
        calls = Calls(server.channel, server.sign_up())
        fresh = Calls(server.channel, server.sign_up())
        calls(calls.wallet.GetWallet, wallet_service_pb2.GetWalletRequest())
        with closing(sqlite3.connect(tmp_path / "oanim.db", isolation_level=None)) as lock:
            # The first use of a key is written down, and now nobody can write.
            lock.execute("BEGIN IMMEDIATE")
            watch = fresh.wallet.WatchWallet(
                wallet_service_pb2.WatchWalletRequest(), metadata=fresh.user.metadata, timeout=SECONDS
            )
            time.sleep(0.3)  # until it is there and waits; it says nothing about itself
            with stopping(server, within=8):
                until(lambda: refused(calls) == DRAINING)
                lock.execute("ROLLBACK")
                with pytest.raises(grpc.RpcError) as caught:
                    next(watch)
                assert Refused.of(caught.value) == DRAINING


def refused(calls: Calls) -> Refused | None:
    """What becomes of a call."""
    try:
        calls(calls.wallet.GetWallet, wallet_service_pb2.GetWalletRequest())
    except grpc.RpcError as error:
        return Refused.of(error)
    return None
