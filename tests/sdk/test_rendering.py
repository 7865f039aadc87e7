"""Files to and from RenderService: whole or not at all, and sent again from the start."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from oanim import errors
from oanim.aio import AsyncClient
from oanim.calls import rendering
from openanimate.metering.v1.render_service_pb2 import (
    CompleteRenderRequest,
    CompleteRenderResponse,
    DownloadBundleRequest,
    DownloadBundleResponse,
    DownloadRenderRequest,
    DownloadRenderResponse,
    HeartbeatResponse,
    Render,
    RenderCompletion,
    RenderSpec,
    RenderState,
    RenderSubmission,
    SubmitRenderRequest,
    SubmitRenderResponse,
    WatchRenderResponse,
)
from openanimate.metering.v1.reservation_pb2 import SpendScope
from tests.sdk.counting import Counted
from tests.sdk.scripted import Early, Refusal, ScriptedServer

if TYPE_CHECKING:
    from pathlib import Path

    from oanim.chunks import Rereadable
    from tests.sdk.driving import Driver

SUBMIT = "RenderService/SubmitRender"
COMPLETE = "RenderService/CompleteRender"
DOWNLOAD = "RenderService/DownloadRender"
BUNDLE = os.urandom(700_000)
SHA256 = hashlib.sha256(BUNDLE).digest()
SPEC = RenderSpec(composition="Main", width=640, height=360, fps=30, frames=30)
AWAY = Refusal(grpc.StatusCode.UNAVAILABLE, "DRAINING")
QUEUED = SubmitRenderResponse(render=Render(render_id="a-1"))


def contents(tmp_path: Path) -> dict[str, Rereadable]:
    path = tmp_path / "bundle.tar.gz"
    path.write_bytes(BUNDLE)
    halfway = io.BytesIO(BUNDLE)
    halfway.seek(1_000)
    return {"path": path, "name": str(path), "file": halfway, "bytes": BUNDLE}


KINDS = ["path", "name", "file", "bytes"]


def taken(server: ScriptedServer, method: str) -> list[tuple[Any, bytes]]:
    """The first messages of uploads, and the contents that followed."""
    return [(first, b"".join(m.chunk for m in rest)) for first, *rest in server.requests(method)]


# Up --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_goes_after_all_that_is_said_of_it(
    server: ScriptedServer, driver: Driver, tmp_path: Path, kind: str
) -> None:
    server.script(SUBMIT, QUEUED)
    answer = driver.call(
        "submit_render",
        bundle=contents(tmp_path)[kind],
        spec=SPEC,
        idempotency_key="k",
        spend_scopes=[SpendScope(scope="s", limit_micros=9)],
        labels={"project": "film"},
    )

    said = RenderSubmission(
        spec=SPEC,
        idempotency_key="k",
        bundle_bytes=len(BUNDLE),
        bundle_sha256=SHA256,
        spend_scopes=[SpendScope(scope="s", limit_micros=9)],
        labels={"project": "film"},
    )
    assert answer == QUEUED
    assert taken(server, SUBMIT) == [(SubmitRenderRequest(submission=said), BUNDLE)]
    assert max(len(message.chunk) for message in server.requests(SUBMIT)[0]) <= 1 << 20


def test_a_video_goes_after_all_that_is_said_of_it(server: ScriptedServer, driver: Driver) -> None:
    server.script(COMPLETE, CompleteRenderResponse(replayed=True))
    answer = driver.call("complete_render", render_id="a-1", epoch=7, frames=30, video=BUNDLE)

    said = RenderCompletion(render_id="a-1", epoch=7, frames=30, video_bytes=len(BUNDLE), video_sha256=SHA256)
    assert answer.replayed
    assert taken(server, COMPLETE) == [(CompleteRenderRequest(completion=said), BUNDLE)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", [AWAY, Early(AWAY), Refusal(grpc.StatusCode.ABORTED, "CONFLICT")])
def test_an_upload_that_breaks_off_is_sent_again_from_its_start_with_the_same_key(
    server: ScriptedServer, driver: Driver, tmp_path: Path, kind: str, end: object
) -> None:
    server.script(SUBMIT, end, end, QUEUED)
    driver.call("submit_render", bundle=contents(tmp_path)[kind], spec=SPEC)

    first, second, third = taken(server, SUBMIT)
    assert third[1] == BUNDLE
    assert first[0] == second[0] == third[0]
    assert third[0].submission.idempotency_key != ""


def test_a_server_that_stays_away_is_told_with_the_key_that_repeats_the_submission(
    server: ScriptedServer, driver: Driver
) -> None:
    server.script(SUBMIT, AWAY)
    with pytest.raises(errors.Draining) as raised:
        driver.call("submit_render", bundle=BUNDLE, spec=SPEC, idempotency_key="k")

    assert (len(server.requests(SUBMIT)), raised.value.idempotency_key) == (4, "k")


def test_a_full_server_is_asked_again_when_it_says_so(server: ScriptedServer, driver: Driver) -> None:
    full = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after_s=0.01)
    server.script(SUBMIT, full, QUEUED)

    assert driver.call("submit_render", bundle=BUNDLE, spec=SPEC) == QUEUED


@pytest.mark.parametrize("reason", ["INSUFFICIENT_CREDITS", "IDEMPOTENCY_KEY_REUSED", "TOO_LARGE"])
def test_a_refusal_is_not_asked_for_twice(server: ScriptedServer, driver: Driver, reason: str) -> None:
    server.script(SUBMIT, Refusal(grpc.StatusCode.FAILED_PRECONDITION, reason))
    with pytest.raises(errors.OanimError) as raised:
        driver.call("submit_render", bundle=BUNDLE, spec=SPEC)

    assert (raised.value.reason, len(server.requests(SUBMIT))) == (reason, 1)


@pytest.mark.parametrize(
    "end", [QUEUED, Refusal(grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_CREDITS")]
)
def test_an_answer_before_the_bundle_was_sent_ends_the_upload(
    server: ScriptedServer, driver: Driver, end: Any
) -> None:
    server.script(SUBMIT, Early(end))
    bundle = Counted(200_000_000)
    with suppress(errors.InsufficientCredits):
        driver.call("submit_render", bundle=bundle, spec=SPEC)
    read_bytes = bundle.read_bytes

    assert read_bytes < 20_000_000
    assert bundle.read_bytes == read_bytes


def test_an_early_refusal_is_told_and_nothing_sent_twice_however_it_was_cut(server: ScriptedServer) -> None:
    async def refusals() -> list[type[errors.OanimError]]:
        async with AsyncClient("anim_key", url=server.url) as client:
            return [type(await refusal(client)) for _ in range(200)]

    async def refusal(client: AsyncClient) -> errors.OanimError:
        with pytest.raises(errors.OanimError) as raised:
            await client.submit_render(bundle=bytes(2_000_000), spec=SPEC)
        return raised.value

    server.script(SUBMIT, Early(Refusal(grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_CREDITS")))

    assert set(asyncio.run(refusals())) == {errors.InsufficientCredits}
    assert len(server.requests(SUBMIT)) == 200


def test_a_bundle_that_is_not_there_is_the_callers_own_error(
    server: ScriptedServer, driver: Driver, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="none"):
        driver.call("submit_render", bundle=tmp_path / "none", spec=SPEC)
    assert server.requests(SUBMIT) == []


# Down ------------------------------------------------------------------------------------------------


def pieces(content: bytes = BUNDLE, **said: Any) -> list[Any]:
    facts = {"content_type": "video/mp4", "size_bytes": len(BUNDLE), "sha256": SHA256, **said}
    parts = [content[start : start + 100_000] for start in range(0, len(content), 100_000)]
    first, *rest = parts or [b""]
    return [
        DownloadRenderResponse(chunk=first, **facts),
        *(DownloadRenderResponse(chunk=part) for part in rest),
    ]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_video_is_kept_at_its_path_with_its_folders(
    server: ScriptedServer, driver: Driver, tmp_path: Path
) -> None:
    server.script(DOWNLOAD, pieces())
    path = tmp_path / "films" / "one" / "out.mp4"
    answer = driver.call("download_render", render_id="a-1", path=path)

    assert answer == DownloadRenderResponse(content_type="video/mp4", size_bytes=len(BUNDLE), sha256=SHA256)
    assert (path.read_bytes(), files(tmp_path)) == (BUNDLE, ["films/one/out.mp4"])
    assert server.requests(DOWNLOAD) == [DownloadRenderRequest(render_id="a-1")]


def test_a_download_that_breaks_off_begins_anew(
    server: ScriptedServer, driver: Driver, tmp_path: Path
) -> None:
    server.script(DOWNLOAD, [*pieces()[:3], AWAY], AWAY, [*pieces()[:1], AWAY], pieces())
    driver.call("download_render", render_id="a-1", path=tmp_path / "out.mp4")

    assert ((tmp_path / "out.mp4").read_bytes(), files(tmp_path)) == (BUNDLE, ["out.mp4"])


@pytest.mark.parametrize(
    "messages",
    [
        pieces()[:-1],
        [*pieces(), DownloadRenderResponse(chunk=b"x")],
        pieces(BUNDLE[:-1] + bytes([BUNDLE[-1] ^ 1])),
        pieces(sha256=b""),
        [*pieces()[:3], Refusal(grpc.StatusCode.NOT_FOUND, "OUTPUT_GONE")],
        [AWAY],
        [*pieces()[:3], AWAY],
    ],
    ids=["short", "long", "other", "unsaid", "gone", "away", "broken"],
)
def test_what_is_not_all_of_the_video_leaves_what_was_there(
    server: ScriptedServer, driver: Driver, tmp_path: Path, messages: list[object]
) -> None:
    (tmp_path / "out.mp4").write_bytes(b"of yesterday")
    server.script(DOWNLOAD, messages)
    with pytest.raises(errors.OanimError):
        driver.call("download_render", render_id="a-1", path=tmp_path / "out.mp4")

    assert ((tmp_path / "out.mp4").read_bytes(), files(tmp_path)) == (b"of yesterday", ["out.mp4"])


def test_where_no_file_can_be_nothing_is_asked_for(
    server: ScriptedServer, driver: Driver, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "out.mp4"):
        with pytest.raises(FileExistsError):
            driver.call("download_render", render_id="a-1", path=path)
    assert server.requests(DOWNLOAD) == []


def test_a_bundle_is_compared_with_what_the_lease_said(
    server: ScriptedServer, driver: Driver, tmp_path: Path
) -> None:
    lease: dict[str, Any] = {"render_id": "a-1", "epoch": 7, "path": tmp_path / "bundle"}
    server.script(
        "RenderService/DownloadBundle",
        [
            DownloadBundleResponse(size_bytes=len(BUNDLE), chunk=BUNDLE[:9]),
            DownloadBundleResponse(chunk=BUNDLE[9:]),
        ],
    )
    with pytest.raises(errors.OanimError, match="another SHA-256"):
        driver.call("download_bundle", bundle_sha256=bytes(32), **lease)
    assert files(tmp_path) == []
    driver.call("download_bundle", bundle_sha256=SHA256, **lease)

    assert (tmp_path / "bundle").read_bytes() == BUNDLE
    assert server.requests("RenderService/DownloadBundle")[0] == DownloadBundleRequest(
        render_id="a-1", epoch=7
    )


def test_a_cancelled_download_leaves_nothing(server: ScriptedServer, tmp_path: Path) -> None:
    async def cancelled() -> None:
        async with AsyncClient("anim_key", url=server.url) as client:
            path = tmp_path / "out.mp4"
            task = asyncio.create_task(client.download_render(render_id="a-1", path=path))
            assert await asyncio.to_thread(began.wait, 30)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            assert task.cancelled()

    began, go_on = threading.Event(), threading.Event()
    server.script(DOWNLOAD, [pieces()[0], began.set, lambda: go_on.wait(30)])
    asyncio.run(cancelled())
    go_on.set()
    assert files(tmp_path) == []


# Between ---------------------------------------------------------------------------------------------


def test_a_watch_outlives_its_server_and_ends_with_the_render(server: ScriptedServer, driver: Driver) -> None:
    states = [
        WatchRenderResponse(render=Render(state=state))
        for state in (
            RenderState.RENDER_STATE_QUEUED,
            RenderState.RENDER_STATE_RENDERING,
            RenderState.RENDER_STATE_SUCCEEDED,
        )
    ]
    server.script("RenderService/WatchRender", [*states[:2], AWAY], [*states[1:]])

    assert driver.collect("watch_render", render_id="a-1") == states


def test_a_lease_is_waited_for_longer_than_the_server_waits() -> None:
    assert rendering.lease_render(wait_seconds=30).timeout_s == 60


def test_a_lost_lease_is_an_error_of_its_own(server: ScriptedServer, driver: Driver) -> None:
    facts = {"render_id": "a-1", "epoch": "7"}
    stale = Refusal(grpc.StatusCode.FAILED_PRECONDITION, "STALE_LEASE", facts)
    server.script("RenderService/Heartbeat", HeartbeatResponse(stop=True), stale)

    assert driver.call("heartbeat", render_id="a-1", epoch=7, frames=1).stop
    with pytest.raises(errors.StaleLease) as raised:
        driver.call("heartbeat", render_id="a-1", epoch=7, frames=2)
    assert (raised.value.render_id, raised.value.epoch) == ("a-1", 7)
