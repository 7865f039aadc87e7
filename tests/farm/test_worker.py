"""A worker and its leases: what it tells the service, in which order, whatever happens on the way."""

from __future__ import annotations

import errno
import hashlib
import json
import time
from typing import TYPE_CHECKING, Any

import av
import grpc
import pytest

from oanim import errors
from oanim_farm import job
from oanim_farm.slots import Slot
from openanimate.metering.v1.render_service_pb2 import FailRenderRequest, RenderCodec, RenderCompletion
from tests.farm.working import (
    AWAY,
    BUNDLE,
    COMPLETE,
    DONE,
    ENDED,
    FAIL,
    GO_ON,
    HEARTBEAT,
    LEASE,
    NO_WORK,
    STALE,
    STOP,
    Working,
    orphans,
    spec_of,
    until,
)
from tests.sdk.scripted import Early, Refusal

if TYPE_CHECKING:
    from pathlib import Path


def delivered(working: Working) -> list[tuple[RenderCompletion, bytes]]:
    """The videos that were delivered, with what was said of them."""
    return [
        (first.completion, b"".join(message.chunk for message in rest))
        for first, *rest in working.asked(COMPLETE)
    ]


def failed(message: str = "", *, handed_back: bool = False) -> FailRenderRequest:
    return FailRenderRequest(render_id="a1-2", epoch=7, message=message, handed_back=handed_back)


# A render --------------------------------------------------------------------------------------------


def test_a_render_is_reported_delivered_and_cleaned_up(working: Working, tmp_path: Path) -> None:
    working.lease(pace=0.02)
    working.work()

    [(completion, video)] = delivered(working)
    assert completion == RenderCompletion(
        render_id="a1-2",
        epoch=7,
        frames=30,
        video_bytes=len(video),
        video_sha256=hashlib.sha256(video).digest(),
    )
    (tmp_path / "video.mp4").write_bytes(video)
    with av.open(tmp_path / "video.mp4") as container:
        frames = list(container.decode(video=0))
    assert (len(frames), frames[0].width, frames[0].height) == (30, 64, 64)
    reported = working.frames_reported()
    assert (reported == sorted(reported), reported[-1], len(set(reported)) > 2) == (True, 30, True)
    assert (working.asked(FAIL), working.left()) == ([], [])


@pytest.mark.parametrize("codec", ["H264", "H265", "VP8", "VP9", "PRORES", "GIF"])
def test_every_codec_is_counted_frame_by_frame(working: Working, codec: str) -> None:
    working.lease(spec=spec_of(codec=RenderCodec.Value(f"RENDER_CODEC_{codec}")))
    working.work()

    [(completion, _)] = delivered(working)
    assert completion.frames == 30


def test_the_frames_of_the_video_are_reported_whatever_the_program_said(working: Working) -> None:
    working.lease(missing=3)
    working.work()

    [(completion, _)] = delivered(working)
    assert (completion.frames, working.frames_reported()[-1]) == (27, 27)


def test_the_program_finds_no_credential_and_a_folder_of_its_own(
    working: Working, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ANIMATE_API_KEY", "OANIM_CA_FILE", "NPM_TOKEN", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "very-secret")
    working.lease(tell=str(tmp_path / "told.json"), spec=spec_of(props_json='{"a": 1.0}'))
    working.work()

    told = json.loads((tmp_path / "told.json").read_bytes())
    environment = told["environment"]
    assert "very-secret" not in str(told)
    assert environment["HOME"] == str(working.folder / "0")
    assert environment["TMPDIR"].startswith(f"{working.folder / '0'}/")
    assert not {name for name in environment if name.startswith(("ANIMATE_", "OANIM_"))}
    assert f"--props={environment['TMPDIR']}/props.json" in told["arguments"]


# What may go wrong about it --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("orders", "message"),
    [
        ({"at": 9, "then": "fail"}, "the animation divides by zero"),
        ({"at": 9, "then": "vanish"}, "Remotion wrote no video"),
        ({"at": 9, "then": "hog"}, "it needs more than 500,000,000 bytes of memory"),
        ({"then": "garble"}, "What was rendered is no video that can be read."),
        ({"missing": -5}, "The video has 35 frames, and 30 were asked for."),
    ],
)
def test_what_goes_wrong_is_told_in_a_sentence(
    working: Working, orders: dict[str, Any], message: str
) -> None:
    working.lease(**orders)
    working.work()

    assert (working.asked(FAIL), delivered(working), working.left()) == ([failed(message)], [], [])


def test_a_composition_that_is_not_there_is_named(working: Working) -> None:
    working.lease(spec=spec_of(composition="Intro"))
    working.work()

    assert working.asked(FAIL) == [failed("there is no composition 'Intro'; there is: Main")]


def test_what_hangs_ends_with_its_time_and_leaves_no_process(working: Working) -> None:
    working.lease(at=9, then="hang", time_limit_seconds=4)
    working.work()

    [request] = working.asked(FAIL)
    assert request.message.startswith("it was not done within ")
    assert (orphans(), working.left()) == ([], [])


def test_a_bundle_that_is_none_is_told(working: Working) -> None:
    working.lease()
    working.server.script(BUNDLE, Refusal(grpc.StatusCode.NOT_FOUND, "OUTPUT_GONE"))
    working.work()

    assert (working.asked(FAIL), working.left()) == ([failed("output_gone")], [])


def test_a_fault_of_the_machine_is_not_told_in_detail(
    working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/secret/place")

    monkeypatch.setattr(job, "unpack", full)
    working.lease()
    working.work()

    assert (working.asked(FAIL), working.left()) == ([failed("The worker had a fault.")], [])


# What may go wrong about the service -----------------------------------------------------------------


def test_reports_that_are_not_answered_are_made_again(working: Working) -> None:
    working.lease(pace=0.02)
    hung_up = Refusal(grpc.StatusCode.UNKNOWN)
    working.server.script(HEARTBEAT, *[AWAY] * 9, hung_up, GO_ON, AWAY, *[hung_up] * 3, GO_ON)
    working.work()

    assert [completion.frames for completion, _ in delivered(working)] == [30]
    assert working.frames_reported()[-1] == 30


def test_the_last_report_is_repeated_until_it_is_acknowledged_and_only_then_the_video_goes(
    working: Working,
) -> None:
    working.lease()
    back: list[bool] = []

    def away_for_a_while(_request: object) -> object:
        return GO_ON if back else AWAY

    working.server.script(HEARTBEAT, away_for_a_while)
    working.start()
    until(lambda: working.frames_reported()[-4:] == [30] * 4)
    assert delivered(working) == []
    back.append(True)
    working.server.wait_for(LEASE, 2)

    assert [completion.frames for completion, _ in delivered(working)] == [30]


def test_reports_go_on_while_the_video_is_sent(working: Working) -> None:
    working.lease()
    reports: list[int] = []

    def slow(_request: object) -> object:
        reports.append(len(working.asked(HEARTBEAT)))
        time.sleep(1)
        reports.append(len(working.asked(HEARTBEAT)))
        return DONE

    working.server.script(COMPLETE, slow)
    working.work()

    before, after = reports
    assert after - before >= 3
    assert set(working.frames_reported()[before:]) == {30}


@pytest.mark.parametrize("word", [STOP, STALE], ids=["stop", "stale"])
def test_at_the_services_word_it_stops_and_asks_for_other_work(working: Working, word: object) -> None:
    working.lease(at=9, then="hang")
    working.server.script(HEARTBEAT, GO_ON, GO_ON, word, STALE)
    working.work()

    assert (working.asked(FAIL), delivered(working), working.left()) == ([], [], [])
    assert orphans() == []


def test_a_video_is_sent_again_until_it_is_taken(working: Working) -> None:
    working.lease()
    working.server.script(COMPLETE, *[AWAY] * 7, Refusal(grpc.StatusCode.INTERNAL, "INTERNAL"), DONE)
    working.work()

    videos = delivered(working)
    assert (len(videos), len({video for _, video in videos}), working.asked(FAIL)) == (9, 1, [])


def test_a_video_that_is_refused_fails_the_render(working: Working) -> None:
    working.lease()
    working.server.script(COMPLETE, Refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"))
    working.work()

    assert (len(delivered(working)), working.asked(FAIL)) == (1, [failed("invalid_field")])


def test_a_lease_that_ended_before_the_video_came_is_dropped(working: Working) -> None:
    working.lease()
    working.server.script(COMPLETE, Early(STALE))
    working.work()

    assert (len(working.asked(COMPLETE)), working.asked(FAIL), working.left()) == (1, [], [])


def test_a_render_that_was_completed_though_the_answer_was_lost_is_done(
    working: Working, caplog: pytest.LogCaptureFixture
) -> None:
    working.lease()
    lost: list[bool] = []

    def completed_but(_request: object) -> object:
        lost.append(True)
        return AWAY

    working.server.script(COMPLETE, completed_but, *[AWAY] * 30, Early(DONE))
    working.server.script(HEARTBEAT, lambda _request: STALE if lost else GO_ON)
    with caplog.at_level("INFO"):
        working.start()
        until(lambda: len(working.asked(COMPLETE)) > 1)
        working.server.script(COMPLETE, Early(DONE))
        working.server.wait_for(LEASE, 2)

    assert "delivered, 30 frames" in caplog.text
    assert working.asked(FAIL) == []


def test_a_failure_is_told_until_it_is_heard(working: Working) -> None:
    working.lease(at=9, then="fail")
    working.server.script(FAIL, *[AWAY] * 7, ENDED)
    working.work()

    assert len(working.asked(FAIL)) == 8


def test_a_question_for_work_keeps_its_key_until_it_is_answered(working: Working) -> None:
    working.lease()
    working.server.script(LEASE, AWAY, AWAY, AWAY, AWAY, AWAY, STALE, AWAY, *working.leases())
    working.start()
    working.server.wait_for(LEASE, 9)
    keys = [request.idempotency_key for request in working.asked(LEASE)]

    assert [len(set(keys[:6])), len(set(keys[6:8])), len(set(keys[:9]))] == [1, 1, 3]
    assert len(delivered(working)) == 1


def test_a_service_that_keeps_no_question_open_is_not_asked_all_the_time(working: Working) -> None:
    working.server.script(LEASE, NO_WORK)
    working.start(slots=1)
    time.sleep(2.5)
    assert 2 <= len(working.asked(LEASE)) <= 4


@pytest.mark.parametrize("reason", ["KEY_INVALID", "WRONG_ROLE"])
def test_a_key_that_the_service_will_not_have_ends_the_worker(working: Working, reason: str) -> None:
    working.server.script(LEASE, Refusal(grpc.StatusCode.UNAUTHENTICATED, reason))
    working.start(slots=3)
    until(lambda: working.failure)

    assert isinstance(working.failure, errors.OanimError)
    assert working.failure.reason == reason


# The end of a worker ---------------------------------------------------------------------------------


def test_a_worker_that_is_to_end_finishes_what_it_has(working: Working) -> None:
    working.lease(pace=0.05)
    working.start()
    working.server.wait_for(HEARTBEAT, 2)
    working.end()

    assert [completion.frames for completion, _ in delivered(working)] == [30]
    assert (len(working.asked(LEASE)), working.left()) == (1, [])


def test_what_is_not_finished_in_time_is_handed_back(working: Working) -> None:
    working.lease(at=9, then="hang")
    working.start(drain_seconds=0.3)
    until(lambda: 9 in working.frames_reported())
    working.end()

    assert (working.asked(FAIL), delivered(working)) == ([failed(handed_back=True)], [])
    assert (orphans(), working.left()) == ([], [])


def test_told_twice_it_hands_back_at_once(working: Working) -> None:
    working.lease(at=9, then="hang")
    working.start(drain_seconds=1_000)
    until(lambda: 9 in working.frames_reported())
    assert working.worker is not None
    working.worker.stop()
    working.end()

    assert working.asked(FAIL) == [failed(handed_back=True)]


def test_a_lease_that_comes_when_it_is_to_end_is_handed_back(working: Working) -> None:
    working.lease(at=9, then="hang")
    first = working.leases()[0]

    def late(_request: object) -> object:
        assert working.worker is not None
        working.worker.stop()
        return first

    working.server.script(LEASE, late)
    working.start()
    working.server.wait_for(LEASE, 1)
    working.end()

    assert (working.asked(FAIL), working.asked(BUNDLE)) == ([failed(handed_back=True)], [])


def test_a_worker_that_is_to_end_while_the_service_is_away_ends_all_the_same(working: Working) -> None:
    working.lease()
    working.server.script(HEARTBEAT, AWAY)
    working.server.script(FAIL, AWAY)
    working.start(drain_seconds=0.1)
    until(lambda: working.frames_reported()[-1:] == [30])
    began = time.monotonic()
    working.end()

    assert (time.monotonic() - began < 10, set(map(str, working.asked(FAIL)))) == (
        True,
        {str(failed(handed_back=True))},
    )


def test_a_slot_that_cannot_be_used_is_told(working: Working, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(slot: Slot) -> None:
        raise OSError(errno.EROFS, "Read-only file system", slot.folder)

    working.lease()
    monkeypatch.setattr(Slot, "cleared", read_only)
    working.start()
    working.server.wait_for(FAIL, 1)

    assert working.asked(FAIL) == [failed("The worker had a fault.")]


def test_an_upload_that_is_not_finished_in_time_is_cut_off_and_handed_back(working: Working) -> None:
    working.lease()

    def stuck(_request: object) -> object:
        time.sleep(5)
        return DONE

    working.server.script(COMPLETE, stuck)
    working.start(drain_seconds=0.3)
    until(lambda: working.frames_reported()[-1:] == [30])
    time.sleep(0.5)
    working.end()

    assert working.asked(FAIL) == [failed(handed_back=True)]
