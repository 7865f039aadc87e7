"""GenerateService over the wire: what a caller sees, whatever hangs up, is killed, or runs beside it."""

from __future__ import annotations

import json
from io import BytesIO
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from PIL import Image

from openanimate.metering.v1 import error_reason_pb2, generate_service_pb2, wallet_service_pb2
from openanimate.metering.v1.generate_service_pb2 import (
    GENERATION_STATE_FAILED,
    GENERATION_STATE_SUCCEEDED,
    CancelGenerationRequest,
    DownloadOutputRequest,
    GenerateRequest,
    GetGenerationRequest,
    ListGenerationsRequest,
    UploadInputRequest,
)
from tests.generation.house import KEY, MODEL, PRICE, SMALL, until
from tests.generation.provider import provider
from tests.server import SECONDS, Calls, Refused, running, spawned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.generation.house import Fal
    from tests.server import RunningServer

FREE = 5_000_000


@pytest.fixture(params=["sqlite", "postgresql"])
def environment(request: pytest.FixtureRequest, fal: Fal, tmp_path: Path) -> dict[str, str]:
    """The settings of a server with the sandbox for a provider, on each database."""
    settings = {"OANIM_DATA": str(tmp_path / "data"), "OANIM_FAL_URL": fal.url, "OANIM_FAL_KEY": KEY}
    if request.param == "sqlite":
        return settings
    url: str = request.getfixturevalue("postgresql_url")
    return {**settings, "OANIM_DATABASE_URL": url, "OANIM_POSTGRESQL_UNSAFE": "1"}


@pytest.fixture
def server(environment: dict[str, str]) -> Iterator[RunningServer]:
    with running(environment) as started:
        yield started


@pytest.fixture
def calls(server: RunningServer) -> Calls:
    return Calls(server.channel, server.sign_up())


def request(prompt: str, key: str = "k1", model: str = MODEL, **more: object) -> GenerateRequest:
    """A request for a picture."""
    input_json = json.dumps({"prompt": prompt, **SMALL, **more})
    return GenerateRequest(model=model, input_json=input_json, idempotency_key=key)


def events(calls: Calls, asked: GenerateRequest) -> list[generate_service_pb2.GenerateResponse]:
    """What a Generate says, to its end."""
    return list(calls.generate.Generate(asked, metadata=calls.user.metadata, timeout=SECONDS))


def wallet(calls: Calls) -> tuple[int, int]:
    """Balance and held."""
    found = calls(calls.wallet.GetWallet, wallet_service_pb2.GetWalletRequest()).wallet
    return found.balance_micros, found.held_micros


def get(calls: Calls, generation_id: str) -> generate_service_pb2.Generation:
    """A generation now."""
    return calls(calls.generate.GetGeneration, GetGenerationRequest(generation_id=generation_id)).generation


def picture() -> bytes:
    content = BytesIO()
    Image.new("RGB", (32, 32), "red").save(content, "PNG")
    return content.getvalue()


def upload(calls: Calls, chunks: list[bytes]) -> str:
    """Upload; the id."""
    messages = (UploadInputRequest(chunk=chunk) for chunk in chunks)
    taken = calls.generate.UploadInput(messages, metadata=calls.user.metadata, timeout=SECONDS)
    assert (taken.content_type, taken.size_bytes) == ("image/png", sum(map(len, chunks)))
    return taken.upload_id


def downloaded(calls: Calls, generation_id: str, index: int = 0) -> bytes:
    """An output, whole."""
    asked = DownloadOutputRequest(generation_id=generation_id, index=index)
    pieces = list(calls.generate.DownloadOutput(asked, metadata=calls.user.metadata, timeout=SECONDS))
    content = b"".join(piece.chunk for piece in pieces)
    assert (pieces[0].content_type, pieces[0].size_bytes) == ("image/png", len(content))
    return content


def test_a_generation_from_the_first_message_to_the_last(calls: Calls, prompt: str) -> None:
    first, *between, last = events(calls, request(prompt))
    assert (first.WhichOneof("event"), last.WhichOneof("event")) == ("accepted", "succeeded")
    assert {event.WhichOneof("event") for event in between} <= {"queued", "progress"}
    accepted, succeeded = first.accepted, last.succeeded
    assert (accepted.wallet.balance_micros, accepted.wallet.held_micros) == (FREE, PRICE)
    assert (succeeded.wallet.balance_micros, succeeded.wallet.held_micros) == (FREE - PRICE, 0)
    made = succeeded.generation
    assert (made.state, made.quoted_micros, made.charged_micros, made.sandbox) == (
        GENERATION_STATE_SUCCEEDED,
        PRICE,
        PRICE,
        True,
    )
    assert get(calls, made.generation_id) == made
    listed = calls(calls.generate.ListGenerations, ListGenerationsRequest())
    assert list(listed.generations) == [made]
    assert Image.open(BytesIO(downloaded(calls, made.generation_id))).size == (16, 16)
    again = events(calls, request(prompt))
    assert [event.WhichOneof("event") for event in again] == ["accepted", "succeeded"]
    assert (again[0].accepted.replayed, again[0].accepted.wallet) == (True, accepted.wallet)
    assert again[-1] == last


def test_a_failure_of_the_work_is_no_failure_of_the_call(calls: Calls, fal: Fal, prompt: str) -> None:
    fal.told(prompt, "result", "422")
    last = events(calls, request(prompt))[-1].failed
    assert last.generation.state == GENERATION_STATE_FAILED
    assert last.generation.failure.reason == error_reason_pb2.ERROR_REASON_PROVIDER_FAILED
    assert "flagged" in last.generation.failure.message
    assert (last.wallet.balance_micros, last.wallet.held_micros) == (FREE, 0)


def test_a_picture_is_uploaded_edited_and_downloaded(calls: Calls, prompt: str) -> None:
    content = picture()
    upload_id = upload(calls, [content[:10], content[10:]])
    asked = request(prompt, model="fal-ai/flux-pro/kontext", image_url=f"upload:{upload_id}")
    made = events(calls, asked)[-1].succeeded.generation
    assert Image.open(BytesIO(downloaded(calls, made.generation_id))).format == "PNG"
    again = calls.refused(
        lambda sent, **options: list(calls.generate.Generate(sent, **options)),
        request(prompt, key="k2", image_url=f"upload:{upload_id}"),
    )
    assert (again.code, again.reason, again.fields) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        ("input_json",),
    )


def test_an_upload_above_its_limits_is_refused(calls: Calls) -> None:
    chunk = bytes(1_000_000)
    for chunks in ([picture()] + [chunk] * 20, [picture() + bytes(1 << 20)]):
        with pytest.raises(grpc.RpcError) as refused:
            upload(calls, chunks)
        assert Refused.of(refused.value).code in (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            grpc.StatusCode.INVALID_ARGUMENT,
        )


def test_a_stranger_s_generation_is_one_that_is_not_there(
    server: RunningServer, calls: Calls, prompt: str
) -> None:
    made = events(calls, request(prompt))[-1].succeeded.generation
    stranger = Calls(server.channel, server.sign_up())
    requests: list[tuple[Callable[..., object], type[Any]]] = [
        (stranger.generate.GetGeneration, GetGenerationRequest),
        (stranger.generate.CancelGeneration, CancelGenerationRequest),
        (
            lambda sent, **options: list(stranger.generate.DownloadOutput(sent, **options)),
            DownloadOutputRequest,
        ),
    ]
    for method, kind in requests:
        foreign = stranger.refused(method, kind(generation_id=made.generation_id))
        own = f"{stranger.user.account_id}-{made.generation_id.rpartition('-')[2]}"
        unknown = stranger.refused(method, kind(generation_id=own))
        nonsense = stranger.refused(method, kind(generation_id="x"))
        assert foreign == unknown == nonsense
        assert (foreign.code, foreign.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


def test_a_caller_that_hangs_up_finds_its_generation_under_the_same_key(
    calls: Calls, fal: Fal, prompt: str
) -> None:
    fal.told(prompt, "submit", "queue", seconds=None)
    call = calls.generate.Generate(request(prompt), metadata=calls.user.metadata, timeout=SECONDS)
    generation_id = next(iter(call)).accepted.generation.generation_id
    call.cancel()
    assert wallet(calls) == (FREE, PRICE)
    fal.forgive()
    until(lambda: get(calls, generation_id).state == GENERATION_STATE_SUCCEEDED)
    assert wallet(calls) == (FREE - PRICE, 0)
    assert events(calls, request(prompt))[-1].succeeded.generation.generation_id == generation_id
    assert [job["submits"] for job in fal.jobs(prompt)] == [1]


def test_an_output_at_a_host_that_is_not_configured_is_not_worth_asking_for_again(
    tmp_path: Path, prompt: str
) -> None:
    with provider() as elsewhere:
        elsewhere.makes({"images": [{"url": "https://elsewhere.example/a.png"}]}, model=MODEL)
        settings = {"OANIM_DATA": str(tmp_path), "OANIM_FAL_URL": elsewhere.url, "OANIM_FAL_KEY": KEY}
        with running(settings) as server:
            calls = Calls(server.channel, server.sign_up())
            made = events(calls, request(prompt))[-1].succeeded.generation
            asked = DownloadOutputRequest(generation_id=made.generation_id)
            refused = calls.refused(
                lambda sent, **options: list(calls.generate.DownloadOutput(sent, **options)), asked
            )
    assert refused == Refused(grpc.StatusCode.FAILED_PRECONDITION, "PROVIDER_FAILED")
    assert refused.retry_seconds is None
    assert "OANIM_OUTPUT_HOSTS" in refused.message


def test_a_generation_survives_kill_9_of_the_server(fal: Fal, tmp_path: Path, prompt: str) -> None:
    environment = {"OANIM_DATA": str(tmp_path / "data"), "OANIM_FAL_URL": fal.url, "OANIM_FAL_KEY": KEY}
    fal.told(prompt, "submit", "queue", seconds=None)
    with spawned(environment, tmp_path / "first.log") as server:
        calls = Calls(server.channel, server.sign_up())
        heard = iter(calls.generate.Generate(request(prompt), metadata=calls.user.metadata, timeout=SECONDS))
        generation_id = next(heard).accepted.generation.generation_id
        # Told once the provider's number for it is stored: a server that is killed before that does not know.
        assert next(heard).WhichOneof("event") == "queued"
        server.kill()
    fal.forgive()
    with spawned(environment, tmp_path / "second.log") as server:
        calls = Calls(server.channel, calls.user)
        last = events(calls, request(prompt))[-1].succeeded
        assert (last.generation.generation_id, wallet(calls)) == (generation_id, (FREE - PRICE, 0))
        assert server.terminate() == 0
    logs = (tmp_path / "first.log").read_text() + (tmp_path / "second.log").read_text()
    assert "very-secret" not in logs


def test_a_generation_is_followed_and_kept_from_another_replica(
    postgresql_url: str, fal: Fal, tmp_path: Path, prompt: str
) -> None:
    fal.told(prompt, "submit", "queue", seconds=None)
    shared = {
        "OANIM_FAL_URL": fal.url,
        "OANIM_FAL_KEY": KEY,
        "OANIM_DATABASE_URL": postgresql_url,
        "OANIM_POSTGRESQL_UNSAFE": "1",
    }
    with (
        running({**shared, "OANIM_DATA": str(tmp_path / "one")}) as one,
        running({**shared, "OANIM_DATA": str(tmp_path / "other")}) as other,
    ):
        calls = Calls(one.channel, one.sign_up())
        begun = calls.generate.Generate(request(prompt), metadata=calls.user.metadata, timeout=SECONDS)
        assert not next(iter(begun)).accepted.replayed
        elsewhere = Calls(other.channel, calls.user)
        followed = elsewhere.generate.Generate(request(prompt), metadata=calls.user.metadata, timeout=SECONDS)
        assert next(iter(followed)).accepted.replayed
        fal.forgive()
        assert list(followed)[-1] == list(begun)[-1]
        assert wallet(elsewhere) == (FREE - PRICE, 0)
    assert [job["submits"] for job in fal.jobs(prompt)] == [1]


def test_without_a_provider_s_key_the_refusal_names_the_provider(tmp_path: Path, prompt: str) -> None:
    with running({"OANIM_DATA": str(tmp_path / "data")}) as server:
        calls = Calls(server.channel, server.sign_up())
        with pytest.raises(grpc.RpcError) as refused:
            events(calls, request(prompt))
        assert Refused.of(refused.value) == Refused(
            grpc.StatusCode.FAILED_PRECONDITION,
            "PROVIDER_NOT_CONFIGURED",
            {"provider": "fal", "wallet_seq": "1"},
        )
        assert wallet(calls) == (FREE, 0)
