"""RenderService over the wire: what users and workers see, and what strangers do not."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from openanimate.metering.v1 import error_reason_pb2, wallet_service_pb2
from openanimate.metering.v1 import render_service_pb2 as pb
from openanimate.metering.v1.reservation_pb2 import SpendScope
from tests import loopback
from tests.generation.house import until
from tests.remotion.archives import bundle_of
from tests.rendering.asking import BUNDLE, QUOTE, VIDEO, Farm, Owner, bundle, farm, owner, submission
from tests.rpc.asking import assert_roles, invalid, not_found, refused_stream, without_seq
from tests.server import SECONDS, Refused, new_key, running, spawned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.server import RunningServer

FREE = 5_000_000


@pytest.fixture(params=["sqlite", "postgresql"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The settings of a server on each database."""
    settings = {"OANIM_DATA": str(tmp_path / "data"), "OANIM_FREE_CREDITS_DAILY_CAP_USD": "100000"}
    if request.param == "sqlite":
        return settings
    url: str = request.getfixturevalue("postgresql_url")
    return {**settings, "OANIM_DATABASE_URL": url, "OANIM_POSTGRESQL_UNSAFE": "1"}


@pytest.fixture
def server(environment: dict[str, str]) -> Iterator[RunningServer]:
    with running(environment) as started:
        yield started


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server for all that is refused before anything is stored."""
    data = str(tmp_path_factory.mktemp("data"))
    with running({"OANIM_DATA": data, "OANIM_FREE_CREDITS_DAILY_CAP_USD": "100000"}) as started:
        yield started


@pytest.fixture
def user(server: RunningServer) -> Owner:
    return owner(server)


@pytest.fixture
def worker(server: RunningServer) -> Farm:
    return farm(server)


def stale(lease: pb.RenderLease) -> Refused:
    """What is told of a lease that is over."""
    metadata = {"render_id": lease.render_id, "epoch": str(lease.epoch)}
    return Refused(grpc.StatusCode.FAILED_PRECONDITION, "STALE_LEASE", metadata)


def too_large(limit_bytes: int) -> Refused:
    """What is told of a file over its limit."""
    metadata = {"limit_bytes": str(limit_bytes)}
    return Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_LARGE", metadata)


def test_a_render_from_its_bundle_to_its_video(user: Owner, worker: Farm) -> None:
    asked = submission("k", props_json='{"seed": 7}', labels={"project": "film"})
    first = user.submit(asked)
    render_id = first.render.render_id
    assert (first.wallet.balance_micros, first.wallet.held_micros) == (FREE, QUOTE)
    assert (first.render.state, first.render.quoted_micros, first.render.queue_position) == (
        pb.RENDER_STATE_QUEUED,
        QUOTE,
        0,
    )
    lease = worker.lease()
    assert (lease.render_id, lease.epoch, lease.attempt, lease.spec) == (render_id, 1, 1, asked.spec)
    assert (worker.bundle(lease), lease.bundle_sha256) == (BUNDLE, asked.bundle_sha256)
    assert not worker.beat(lease, 40).stop
    assert (user.get(render_id).state, user.get(render_id).frames_done) == (pb.RENDER_STATE_RENDERING, 40)
    done = worker.complete(lease, 100)
    assert (done.render.state, done.render.charged_micros, done.replayed) == (
        pb.RENDER_STATE_SUCCEEDED,
        QUOTE,
        False,
    )
    assert user.money() == (FREE - QUOTE, 0)
    assert user.downloaded(render_id) == (
        "video/mp4",
        len(VIDEO),
        hashlib.sha256(VIDEO).digest(),
        VIDEO,
    )
    assert (user.get(render_id), dict(done.render.labels)) == (done.render, {"project": "film"})
    assert done.render.spec.props_json == '{"seed": 7}'
    # Up to 64 KB, which a page of a thousand does without.
    brief = pb.Render.FromString(done.render.SerializeToString())
    brief.spec.ClearField("props_json")
    last = user.watched(render_id)[-1]
    assert (last.render, last.wallet.balance_micros) == (brief, FREE - QUOTE)
    assert list(user(user.render.ListRenders, pb.ListRendersRequest()).renders) == [brief]
    again = user.submit(asked, b"")
    assert (again.replayed, again.wallet, again.render.render_id) == (True, first.wallet, render_id)
    repeated = worker.complete(lease, 100, b"", video_bytes=1, video_sha256=bytes(32))
    assert (repeated.replayed, repeated.render) == (True, done.render)


def test_a_render_that_fails_says_why_and_costs_nothing(user: Owner, worker: Farm) -> None:
    render_id = user.submitted()
    failed = [worker.fail(worker.lease(), f"attempt {attempt} broke") for attempt in (1, 2, 3)]
    assert {render.render_id for render in failed} == {render_id}
    last = user.watched(render_id)[-1]
    assert (last.render.state, last.render.attempts, last.render.charged_micros) == (
        pb.RENDER_STATE_FAILED,
        3,
        0,
    )
    assert last.render.failure == pb.RenderFailure(
        reason=error_reason_pb2.ERROR_REASON_RENDER_FAILED, message="attempt 3 broke"
    )
    assert (last.wallet.balance_micros, last.wallet.held_micros) == (FREE, 0)
    assert refused_stream(
        user, user.render.DownloadRender, pb.DownloadRenderRequest(render_id=render_id)
    ) == not_found("video")


def test_a_render_is_cancelled_and_its_worker_is_told_to_stop(user: Owner, worker: Farm) -> None:
    render_id = user.submitted()
    lease = worker.lease()
    worker.beat(lease, 40)
    cancelled = user.cancel(render_id)
    assert (cancelled.render.state, cancelled.render.charged_micros) == (pb.RENDER_STATE_CANCELLED, 80)
    assert (cancelled.wallet.balance_micros, cancelled.wallet.held_micros) == (FREE - 80, 0)
    assert user.cancel(render_id) == cancelled
    assert worker.beat(lease, 50).stop
    assert worker.complete_refused(lease, 100) == stale(lease)
    assert refused_stream(
        worker,
        worker.render.DownloadBundle,
        pb.DownloadBundleRequest(render_id=lease.render_id, epoch=lease.epoch),
    ) == stale(lease)


def test_the_lease_of_a_key_is_answered_again_and_is_stale_once_it_has_ended(
    user: Owner, worker: Farm
) -> None:
    user.submitted()
    asked = pb.LeaseRenderRequest(idempotency_key="k")
    first = worker(worker.render.LeaseRender, asked)
    again = worker(worker.render.LeaseRender, asked)
    assert (first.replayed, again.replayed, again.lease) == (False, True, first.lease)
    assert (first.lease.time_limit_seconds, first.lease.account_id) == (1_800, user.user.account_id)
    worker.complete(first.lease, 100)
    assert worker.refused(worker.render.LeaseRender, asked) == stale(first.lease)
    refused = worker.refused(
        worker.render.FailRender, pb.FailRenderRequest(render_id=first.lease.render_id, epoch=1)
    )
    assert refused == stale(first.lease)


def test_without_work_a_lease_is_unset(worker: Farm) -> None:
    answer = worker(worker.render.LeaseRender, pb.LeaseRenderRequest(idempotency_key="k", wait_seconds=1))
    assert not answer.HasField("lease")


def test_a_worker_waits_for_work_and_a_user_watches_it_come(user: Owner, worker: Farm) -> None:
    waiting: list[pb.RenderLease] = []
    thread = threading.Thread(target=lambda: waiting.append(worker.lease(wait_seconds=20)))
    thread.start()
    time.sleep(0.3)
    began = time.monotonic()
    render_id = user.submitted()
    thread.join(SECONDS)
    assert time.monotonic() - began < 5
    seen: list[pb.WatchRenderResponse] = []
    watching = threading.Thread(target=lambda: seen.extend(user.watched(render_id)))
    watching.start()
    for frames in (10, 60):
        worker.beat(waiting[0], frames)
        time.sleep(0.2)
    worker.complete(waiting[0], 100)
    watching.join(SECONDS)
    done = [(one.render.frames_done, one.HasField("wallet")) for one in seen]
    assert done[-1] == (100, True)
    assert (60, False) in done


def test_out_of_credits_is_known_before_the_bundle_is_sent(server: RunningServer) -> None:
    poor = owner(server)
    sent: list[int] = []

    def parts() -> Iterator[pb.SubmitRenderRequest]:
        yield pb.SubmitRenderRequest(submission=submission("k", width=7_680, height=7_680, frames=10_000))
        # The server answers while this waits for its next message.
        time.sleep(1.0)
        for number in range(100):
            sent.append(number)
            yield pb.SubmitRenderRequest(chunk=b"x")

    with pytest.raises(grpc.RpcError) as caught:
        poor.render.SubmitRender(parts(), metadata=poor.user.metadata, timeout=SECONDS)
    refused = Refused.of(caught.value)
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_CREDITS")
    assert int(refused.metadata["required_micros"]) == 2 * 58_982_400
    assert int(refused.metadata["available_micros"]) == FREE
    assert len(sent) <= 1


def test_a_scope_of_a_submission_is_held_and_charged(user: Owner, worker: Farm) -> None:
    scope = SpendScope(scope="run", limit_micros=QUOTE)
    user.submit(submission("one", spend_scopes=[scope]))
    refused = user.submit_refused(submission("two", spend_scopes=[scope]))
    assert (refused.reason, refused.metadata["held_micros"]) == ("SPEND_LIMIT_EXCEEDED", str(QUOTE))
    worker.complete(worker.lease(), 1)
    assert user.submit_refused(submission("three", spend_scopes=[scope])).metadata["charged_micros"] == "2"


def test_a_bundle_that_means_harm_is_refused_by_name(user: Owner, tmp_path: Path) -> None:
    content = bundle_of(tmp_path / "evil", ("../outside", b"x")).read_bytes()
    refused = user.submit_refused(submission("k", content), content)
    assert refused == invalid("chunk")
    assert "../outside" in refused.message
    assert user.money() == (FREE, 0)


def test_of_a_hundred_renders_at_once_those_are_taken_that_the_wallet_covers(
    environment: dict[str, str],
) -> None:
    # Sixty of a twelfth of a dollar each, and a fraction of one more.
    dear: dict[str, Any] = {"width": 1_000, "height": 1_000, "frames": 409, "fps": 10}
    quote = 2 * 40_900
    with running({**environment, "OANIM_OPEN_STREAMS": "100"}) as server:
        user = owner(server)
        answers: list[pb.SubmitRenderResponse | Refused] = []

        def submit(number: int) -> None:
            asked = submission(f"k{number}", **dear)
            try:
                answers.append(user.submit(asked))
            except grpc.RpcError as error:
                answers.append(Refused.of(error))

        threads = [threading.Thread(target=submit, args=(number,)) for number in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        refused = [answer for answer in answers if isinstance(answer, Refused)]
        assert (len(answers) - len(refused), len(refused)) == (FREE // quote, 100 - FREE // quote)
        left = FREE - (FREE // quote) * quote
        assert {
            (one.reason, one.metadata["required_micros"], one.metadata["available_micros"]) for one in refused
        } == {("INSUFFICIENT_CREDITS", str(quote), str(left))}
        assert user.money() == (FREE, FREE - left)


# Strangers and roles ----------------------------------------------------------------------------------


def test_a_stranger_s_render_is_one_that_is_not_there(
    server: RunningServer, user: Owner, worker: Farm
) -> None:
    render_id = user.submitted()
    worker.complete(worker.lease(), 100)
    stranger = owner(server)
    for named in (render_id, f"{stranger.user.account_id}-2", f"{stranger.user.account_id}-9", "x", ""):
        for method, request in (
            (stranger.render.GetRender, pb.GetRenderRequest),
            (stranger.render.CancelRender, pb.CancelRenderRequest),
        ):
            assert stranger.refused(method, request(render_id=named)) == not_found("render")
        watch, download = pb.WatchRenderRequest(render_id=named), pb.DownloadRenderRequest(render_id=named)
        assert refused_stream(stranger, stranger.render.WatchRender, watch) == not_found("render")
        assert refused_stream(stranger, stranger.render.DownloadRender, download) == not_found("render")
    listing = pb.ListRendersRequest(account_id=user.user.account_id)
    assert stranger.refused(stranger.render.ListRenders, listing) == not_found("account")
    assert list(stranger(stranger.render.ListRenders, pb.ListRendersRequest()).renders) == []


def test_a_render_that_no_worker_knows_is_not_there(worker: Farm, user: Owner) -> None:
    unknown = pb.RenderLease(render_id=f"{user.user.account_id}-99", epoch=1)
    assert worker.complete_refused(unknown, 1) == not_found("render")
    for method, request in (
        (worker.render.Heartbeat, pb.HeartbeatRequest),
        (worker.render.FailRender, pb.FailRenderRequest),
    ):
        refused = worker.refused(method, request(render_id=unknown.render_id, epoch=1))
        assert refused == not_found("render")
        assert worker.refused(method, request(render_id=unknown.render_id)) == invalid("epoch")


def test_who_may_call_what(shared: RunningServer) -> None:
    assert_roles(
        shared,
        {
            "RenderService/SubmitRender": {"user"},
            "RenderService/GetRender": {"user", "admin"},
            "RenderService/WatchRender": {"user", "admin"},
            "RenderService/ListRenders": {"user", "admin"},
            "RenderService/CancelRender": {"user"},
            "RenderService/DownloadRender": {"user"},
            "RenderService/LeaseRender": {"worker"},
            "RenderService/DownloadBundle": {"worker"},
            "RenderService/Heartbeat": {"worker"},
            "RenderService/CompleteRender": {"worker"},
            "RenderService/FailRender": {"worker"},
            "WalletService/Reserve": {"user", "service", "worker"},
            "WalletService/Commit": {"user", "service", "worker"},
            "WalletService/Release": {"user", "service", "worker"},
            "WalletService/Extend": {"user", "service", "worker"},
        },
    )


# Shapes -----------------------------------------------------------------------------------------------

WRONG_SPECS: list[tuple[str, dict[str, Any]]] = [
    ("composition", {"composition": ""}),
    ("composition", {"composition": "x" * 129}),
    ("composition", {"composition": "a\0b"}),
    ("width", {"width": 0}),
    ("width", {"width": 101}),
    ("width", {"width": 14}),
    ("width", {"width": 7_682}),
    ("width", {"width": 2**31 - 1}),
    ("width", {"width": -100}),
    ("height", {"height": 101}),
    ("height", {"height": 2**31 - 1}),
    ("fps", {"fps": 0}),
    ("fps", {"fps": 121}),
    ("fps", {"fps": -(2**31)}),
    ("frames", {"frames": 0}),
    ("frames", {"frames": 1_000_001}),
    ("frames", {"frames": 2**31 - 1}),
    ("frames", {"frames": 1_000_000, "width": 7_680, "height": 7_680, "fps": 1}),
    ("codec", {"codec": pb.RENDER_CODEC_UNSPECIFIED}),
    ("codec", {"codec": 99}),
    ("props_json", {"props_json": "[]"}),
    ("props_json", {"props_json": '{"a": 1, "a": 2}'}),
    ("props_json", {"props_json": "{" + " " * 65_536 + "}"}),
]
WRONG_SUBMISSIONS: list[tuple[str, dict[str, Any]]] = [
    ("submission.idempotency_key", {"idempotency_key": "x" * 256}),
    ("submission.bundle_bytes", {"bundle_bytes": 0}),
    ("submission.bundle_bytes", {"bundle_bytes": -1}),
    ("submission.bundle_sha256", {"bundle_sha256": b""}),
    ("submission.bundle_sha256", {"bundle_sha256": bytes(31)}),
    ("submission.bundle_sha256", {"bundle_sha256": bytes(33)}),
    ("submission.spend_scopes[0].scope", {"spend_scopes": [SpendScope()]}),
    ("submission.labels", {"labels": {"": "x"}}),
]


@pytest.mark.parametrize(("field", "values"), WRONG_SPECS)
def test_a_spec_that_cannot_be_is_refused_by_its_field(
    shared: RunningServer, field: str, values: dict[str, Any]
) -> None:
    refused = owner(shared).submit_refused(submission(**values))
    assert without_seq(refused) == invalid(f"submission.spec.{field}")


@pytest.mark.parametrize(("field", "values"), WRONG_SUBMISSIONS)
def test_a_submission_that_cannot_be_is_refused_by_its_field(
    shared: RunningServer, field: str, values: dict[str, Any]
) -> None:
    assert owner(shared).submit_refused(submission(**values)) == invalid(field)


def test_a_file_above_its_limit_is_too_large_before_it_is_sent(user: Owner, worker: Farm) -> None:
    assert user.submit_refused(submission(bundle_bytes=200_000_001)) == too_large(200_000_000)
    assert user.submit_refused(submission(bundle_bytes=2**63 - 1)) == too_large(200_000_000)
    user.submitted()
    lease = worker.lease()
    assert worker.complete_refused(lease, 1, video_bytes=2_000_000_001) == too_large(2_000_000_000)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("completion.frames", {"frames": 0}),
        ("completion.frames", {"frames": 101}),
        ("completion.frames", {"frames": 2**31 - 1}),
        ("completion.epoch", {"epoch": 0}),
        ("completion.video_bytes", {"video_bytes": 0}),
        ("completion.video_sha256", {"video_sha256": b"x"}),
        ("chunk", {"video_bytes": 1}),
        ("chunk", {"video_sha256": bytes(32)}),
    ],
)
def test_a_completion_that_cannot_be_is_refused_by_its_field(
    shared: RunningServer, field: str, values: dict[str, Any]
) -> None:
    user, worker = owner(shared), farm(shared)
    user.submitted()
    lease = worker.lease()
    said: dict[str, Any] = {"frames": 100, **values}
    named = pb.RenderLease(render_id=lease.render_id, epoch=said.pop("epoch", lease.epoch))
    assert worker.complete_refused(named, said.pop("frames"), **said) == invalid(field)
    worker.complete(lease, 100)


def test_an_upload_that_does_not_begin_or_go_on_as_it_must_is_refused(shared: RunningServer) -> None:
    user = owner(shared)

    def refused(*parts: pb.SubmitRenderRequest) -> Refused:
        with pytest.raises(grpc.RpcError) as caught:
            user.render.SubmitRender(iter(parts), metadata=user.user.metadata, timeout=SECONDS)
        return Refused.of(caught.value)

    first = pb.SubmitRenderRequest(submission=submission())
    chunk = pb.SubmitRenderRequest(chunk=BUNDLE)
    assert refused() == invalid("submission")
    assert refused(chunk) == invalid("submission")
    assert refused(pb.SubmitRenderRequest()) == invalid("submission")
    assert refused(first, first) == invalid("chunk")
    assert refused(first, pb.SubmitRenderRequest()) == invalid("chunk")
    assert refused(first, chunk, chunk) == invalid("chunk")
    large = pb.SubmitRenderRequest(chunk=bytes((1 << 20) + 1))
    assert refused(pb.SubmitRenderRequest(submission=submission(bundle_bytes=1 << 21)), large).reason in (
        "INVALID_FIELD",
        "TOO_LARGE",
    )


def test_what_a_worker_says_wrongly_is_refused_by_its_field(user: Owner, worker: Farm) -> None:
    user.submitted()
    lease = worker.lease()
    beat = worker.render.Heartbeat
    fields: dict[str, Any] = {"render_id": lease.render_id, "epoch": lease.epoch}
    assert worker.refused(beat, pb.HeartbeatRequest(**fields, frames=-1)) == invalid("frames")
    assert worker.refused(beat, pb.HeartbeatRequest(**fields, frames=101)) == invalid("frames")
    words = pb.FailRenderRequest(**fields, message="x" * 1_001)
    assert worker.refused(worker.render.FailRender, words) == invalid("message")
    for seconds in (-1, 31):
        asked = pb.LeaseRenderRequest(idempotency_key="k", wait_seconds=seconds)
        assert worker.refused(worker.render.LeaseRender, asked) == invalid("wait_seconds")
    keyless = pb.LeaseRenderRequest()
    assert worker.refused(worker.render.LeaseRender, keyless) == invalid("idempotency_key")


# What a worker holds ----------------------------------------------------------------------------------


def test_a_worker_holds_for_the_account_of_its_render_and_no_longer_than_its_lease(
    user: Owner, worker: Farm
) -> None:
    user.submitted()
    lease = worker.lease()
    under: dict[str, Any] = {"render_id": lease.render_id, "epoch": lease.epoch}
    asked = wallet_service_pb2.ReserveRequest(amount_micros=1_000, idempotency_key="k", **under)
    held = worker(worker.wallet.Reserve, asked).reservation
    assert (held.account_id, held.opened_by) == (user.user.account_id, worker.user.account_id)
    assert user.money() == (FREE, QUOTE + 1_000)
    commit = wallet_service_pb2.CommitRequest(
        reservation_id=held.reservation_id, amount_micros=100, keep_rest=True, idempotency_key="c"
    )
    assert worker(worker.wallet.Commit, commit).charged_micros == 100
    extend = wallet_service_pb2.ExtendRequest(
        reservation_id=held.reservation_id, ttl_seconds=3_600, idempotency_key="e"
    )
    worker(worker.wallet.Extend, extend)
    assert user.refused(user.wallet.Commit, commit).reason == "NOT_YOUR_HOLD"
    worker.complete(lease, 100)
    assert user.money() == (FREE - QUOTE - 100, 0)
    assert worker(worker.wallet.Commit, commit).replayed
    late = wallet_service_pb2.CommitRequest(
        reservation_id=held.reservation_id, amount_micros=1, capture=2, idempotency_key="late"
    )
    assert without_seq(worker.refused(worker.wallet.Commit, late)) == stale(lease)
    again = wallet_service_pb2.ReserveRequest(amount_micros=1, idempotency_key="again", **under)
    assert without_seq(worker.refused(worker.wallet.Reserve, again)) == stale(lease)


def test_only_a_worker_names_a_render_and_must(user: Owner, worker: Farm) -> None:
    user.submitted()
    lease = worker.lease()
    reserve = wallet_service_pb2.ReserveRequest
    fields: dict[str, Any] = {"amount_micros": 1, "idempotency_key": new_key()}
    under: dict[str, Any] = {"render_id": lease.render_id, "epoch": lease.epoch}
    assert user.refused(user.wallet.Reserve, reserve(**fields, **under)) == invalid("render_id")
    assert worker.refused(worker.wallet.Reserve, reserve(**fields)) == invalid("epoch")
    nobody = reserve(**fields, epoch=1)
    assert worker.refused(worker.wallet.Reserve, nobody) == not_found("render")
    other = reserve(**fields, **under, account_id=worker.user.account_id)
    assert worker.refused(worker.wallet.Reserve, other) == invalid("account_id")
    worker(worker.wallet.Reserve, reserve(**fields, **under, account_id=user.user.account_id))


def test_what_goes_on_is_counted_for_those_who_run_it(
    server: RunningServer, user: Owner, worker: Farm
) -> None:
    user.submitted()
    user.submitted()
    worker.fail(worker.lease(), "no secret is logged", handed_back=True)
    worker.complete(worker.lease(), 100)
    right = {
        "oanim_queued_renders 1.0",
        "oanim_leased_renders 0.0",
        "oanim_renders_submitted_total 2.0",
        "oanim_render_leases_total 2.0",
        'oanim_renders_total{outcome="SUCCEEDED"} 1.0',
        'oanim_renders_total{outcome="RENDER_FAILED"} 0.0',
        'oanim_render_leases_without_video_total{why="handed_back"} 1.0',
        'oanim_render_leases_without_video_total{why="lost"} 0.0',
    }
    # Who waits is counted by the sweep, every five seconds.
    until(lambda: right <= set(loopback.get(f"{server.http_url}/metrics").text.splitlines()))


# Stopping and coming back -----------------------------------------------------------------------------


def test_a_stop_sends_waiting_workers_and_watchers_away_and_the_next_start_goes_on(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with spawned(environment, tmp_path / "first.log") as server:
        user, worker = owner(server), farm(server)
        render_id = user.submitted()
        lease = worker.lease()
        worker.beat(lease, 40)
        ends: list[object] = []

        def until_it_ends(call: Callable[[], object]) -> None:
            try:
                ends.append(call())
            except grpc.RpcError as error:
                ends.append(Refused.of(error).reason)

        threads = [
            threading.Thread(target=until_it_ends, args=(call,))
            for call in (lambda: worker.lease(wait_seconds=30), lambda: user.watched(render_id))
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        began = time.monotonic()
        assert server.terminate() == 0
        assert time.monotonic() - began < 5
        for thread in threads:
            thread.join(SECONDS)
        assert "DRAINING" in ends
        assert any(end == pb.RenderLease() for end in ends)
    with spawned(environment, tmp_path / "second.log") as server:
        user, worker = Owner(server.channel, user.user), Farm(server.channel, worker.user)
        assert not worker.beat(lease, 50).stop
        worker.complete(lease, 100)
        assert user.watched(render_id)[-1].render.state == pb.RENDER_STATE_SUCCEEDED
        assert user.money() == (FREE - QUOTE, 0)


def most_memory_mb(process_id: int) -> int:
    """The most that a process has had in memory."""
    status = Path(f"/proc/{process_id}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) // 1_024


def test_neither_a_bundle_nor_a_video_is_ever_held_whole_in_memory(tmp_path: Path) -> None:
    large = bundle(os.urandom(150_000_000))
    with spawned({"OANIM_DATA": str(tmp_path / "data")}, tmp_path / "log") as server:
        user, worker = owner(server), farm(server)
        # Whatever it takes to work at all.
        user.submitted()
        lease = worker.lease()
        worker.bundle(lease)
        worker.complete(lease, 100)
        before = most_memory_mb(server.process.pid)
        render_id = user.submitted("", large)
        lease = worker.lease()
        assert worker.bundle(lease) == large
        worker.complete(lease, 100, large)
        assert user.downloaded(render_id)[3] == large
        assert most_memory_mb(server.process.pid) - before < 40


def test_a_caller_that_hangs_up_in_its_upload_leaves_nothing(
    server: RunningServer, user: Owner, tmp_path: Path
) -> None:
    go_on = threading.Event()

    def parts() -> Iterator[pb.SubmitRenderRequest]:
        yield pb.SubmitRenderRequest(submission=submission("k"))
        yield pb.SubmitRenderRequest(chunk=BUNDLE[:10])
        go_on.wait(SECONDS)

    call = user.render.SubmitRender.future(parts(), metadata=user.user.metadata, timeout=SECONDS)
    folder = server.data / "renders"
    until(lambda: any(folder.iterdir()))
    call.cancel()
    until(lambda: not any(folder.iterdir()))
    go_on.set()
    with suppress(grpc.RpcError, grpc.FutureCancelledError):
        call.result()
    assert user.money() == (FREE, 0)
    user.submit(submission("k"))
