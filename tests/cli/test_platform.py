"""Work that the service does is never lost sight of in silence, and what cannot be had is not promised."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
from grpc import StatusCode

from oanim.cli.assets import platform
from oanim.cli.assets.files import Destination
from oanim.cli.assets.work import Asked, Work
from oanim.cli.failures import AWAY, Failure
from oanim.cli.progress import Progress
from oanim.cli.session import Session
from oanim.client import Client
from openanimate.metering.v1.generate_service_pb2 import (
    DownloadOutputResponse,
    GenerateResponse,
    Generation,
    GenerationAccepted,
    GenerationQueued,
    GenerationState,
    GenerationSucceeded,
    GetGenerationResponse,
    Output,
)
from tests.cli.running import PROGRAM, Cli
from tests.sdk.scripted import Refusal, ScriptedServer

GENERATE, DOWNLOAD = "GenerateService/Generate", "GenerateService/DownloadOutput"
GET = "GenerateService/GetGeneration"
MADE = Generation(
    generation_id="7-1",
    state=GenerationState.GENERATION_STATE_SUCCEEDED,
    quoted_micros=50_000,
    charged_micros=50_000,
    outputs=[Output(content_type="image/png")],
)
ACCEPTED = GenerateResponse(accepted=GenerationAccepted(generation=MADE))
QUEUED = GenerateResponse(queued=GenerationQueued(position=1))
SUCCEEDED = GenerateResponse(succeeded=GenerationSucceeded(generation=MADE))
AWAY_NOW = Refusal(StatusCode.UNAVAILABLE)
GOING_ON = GetGenerationResponse(
    generation=Generation(generation_id="7-1", state=GenerationState.GENERATION_STATE_RUNNING)
)
MAKE = ("assets", "gen-image", "--prompt", "x", "--out", "bg.png")


def test_a_service_that_goes_away_while_work_runs_is_asked_again_and_that_is_said(
    cli: Cli, scripted: ScriptedServer
) -> None:
    scripted.script(GENERATE, [ACCEPTED, AWAY_NOW], AWAY_NOW, [ACCEPTED, QUEUED, SUCCEEDED])
    scripted.script(DOWNLOAD, DownloadOutputResponse(chunk=b"png"))
    ended = cli.run(*MAKE)
    assert ended.exit_code == 0
    assert ended.err.splitlines()[:4] == [
        "accepted as 7-1, $0.05 held",
        "the service does not answer; asking again",
        "working",
        "queue position 1",
    ]


def test_a_service_that_stays_away_is_given_up_with_the_way_to_the_work(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {
        "HOME": tmp_path,
        "ANIMATE_API_KEY": "anim_x",
        "ANIMATE_API_URL": scripted.url,
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(platform, "_PATIENCE_S", 0.3)
    scripted.script(GENERATE, [ACCEPTED, AWAY_NOW], AWAY_NOW)
    work = Work(Asked("m", lambda _: "{}"), Destination(Path("bg.png")), "k", key_is_given=False)
    with Client("anim_x", url=scripted.url) as client, pytest.raises(Failure) as given_up:
        platform.Platform(client).make(work, Session("session:s", None), Progress(print, print))
    assert given_up.value.exit_code == AWAY
    assert re.fullmatch(
        r"the service has not answered for \d+ s; the work goes on\. "
        r"Get it later: oanim assets get 7-1 --out bg\.png",
        given_up.value.sentence,
    )


def test_get_waits_for_a_service_that_goes_away_for_longer_than_a_call(
    cli: Cli, scripted: ScriptedServer
) -> None:
    # More than grpc asks by itself.
    scripted.script(GET, GOING_ON, *[AWAY_NOW] * 8, GetGenerationResponse(generation=MADE))
    scripted.script(DOWNLOAD, DownloadOutputResponse(chunk=b"png"))
    ended = cli.run("assets", "get", "7-1", "--out", "bg.png")
    assert (ended.exit_code, (cli.folder / "bg.png").read_bytes()) == (0, b"png")
    assert "the service does not answer; asking again" in ended.err.splitlines()


def test_get_gives_a_service_up_that_stays_away_and_says_that_the_work_goes_on(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "_PATIENCE_S", 0.3)
    scripted.script(GET, GOING_ON, AWAY_NOW)
    with Client("anim_x", url=scripted.url) as client, pytest.raises(Failure) as given_up:
        platform.Platform(client).get("7-1", Destination(Path("bg.png")), Progress(print, print))
    assert given_up.value.exit_code == AWAY
    assert re.fullmatch(
        r"the service has not answered for \d+ s; the work goes on\. "
        r"Get it later: oanim assets get 7-1 --out bg\.png",
        given_up.value.sentence,
    )


def test_get_that_is_refused_while_the_work_runs_says_that_it_goes_on(
    cli: Cli, scripted: ScriptedServer
) -> None:
    scripted.script(GET, GOING_ON, Refusal(StatusCode.INTERNAL, "INTERNAL", {"error_id": "e1"}))
    ended = cli.run("assets", "get", "7-1", "--out", "bg.png")
    assert ended.exit_code == 1
    get = "oanim assets get 7-1 --out bg.png"
    assert ended.err.splitlines()[-1] == f"The work goes on. Get it later: {get}"


def test_an_output_that_is_gone_is_not_promised_for_later(cli: Cli, scripted: ScriptedServer) -> None:
    scripted.script(GENERATE, [ACCEPTED, SUCCEEDED])
    scripted.script(DOWNLOAD, Refusal(StatusCode.NOT_FOUND, "OUTPUT_GONE"))
    ended = cli.run(*MAKE)
    assert (ended.exit_code, ended.out) == (1, "")
    assert ended.err.splitlines()[-1] == "It was charged $0.05 when it was made."
    assert "Get it later" not in ended.err


def test_what_was_accepted_stays_to_be_read_on_a_terminal(cli: Cli, scripted: ScriptedServer) -> None:
    going_on = threading.Event()
    threading.Timer(1, going_on.set).start()
    scripted.script(GENERATE, [ACCEPTED, going_on.wait, QUEUED, SUCCEEDED])
    scripted.script(DOWNLOAD, DownloadOutputResponse(chunk=b"png"))
    code, shown = cli.on_terminal([PROGRAM, *MAKE, "--yes"])
    assert code == 0
    assert re.search(r"accepted as 7-1, \$0\.05 held\r\n", shown)
