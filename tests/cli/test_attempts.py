"""A key repeats the very action it named, from any terminal, whatever has been set there since."""

from __future__ import annotations

import re
import shlex
import signal
import threading
from typing import TYPE_CHECKING

import pytest
from grpc import StatusCode

from oanim.cli import attempts
from oanim.cli.attempts import Attempt
from oanim.cli.session import Session
from openanimate.metering.v1.account_service_pb2 import CreateApiKeyResponse, SignUpResponse
from openanimate.metering.v1.generate_service_pb2 import (
    GenerateResponse,
    Generation,
    GenerationAccepted,
    GenerationState,
    GenerationSucceeded,
    UploadInputResponse,
)
from tests.sdk.scripted import Refusal, ScriptedServer

if TYPE_CHECKING:
    from pathlib import Path

    from google.protobuf.message import Message

    from tests.cli.running import Cli

GENERATE, UPLOAD = "GenerateService/Generate", "GenerateService/UploadInput"
UNKNOWN = Refusal(StatusCode.INTERNAL, "INTERNAL", {"error_id": "e1"})
MADE = Generation(generation_id="7-1", state=GenerationState.GENERATION_STATE_SUCCEEDED)
DONE = [
    GenerateResponse(accepted=GenerationAccepted(generation=MADE)),
    GenerateResponse(succeeded=GenerationSucceeded(generation=MADE)),
]
PNG = b"\x89PNG\r\n\x1a\n"


def make(*more: str) -> tuple[str, ...]:
    return ("assets", "gen-image", "--prompt", "x", "--out", "bg.png", *more)


def elsewhere(cli: Cli) -> None:
    """Go to another terminal, where less may be spent."""
    cli.variables |= {"ANIMATE_SESSION_ID": "elsewhere", "ANIMATE_MAX_USD_PER_RUN": "0.01"}


def kept(cli: Cli) -> list[Path]:
    return list((cli.home / ".oanim" / "attempts").glob("*"))


def test_the_command_that_is_printed_is_the_same_request_from_another_terminal(
    cli: Cli, scripted: ScriptedServer
) -> None:
    (cli.folder / "in.png").write_bytes(PNG)
    scripted.script(UPLOAD, UploadInputResponse(upload_id="u1"), UploadInputResponse(upload_id="u2"))
    scripted.script(GENERATE, UNKNOWN, DONE)
    first = cli.run("assets", "remove-bg", "--in", "in.png", "--out", "cut.png")
    printed = re.search(r"the same key repeats it without doing it twice: oanim (.*)", first.err)
    assert printed
    elsewhere(cli)
    assert cli.run(*shlex.split(printed[1])).exit_code == 0
    one, other = scripted.requests(GENERATE)
    assert one == other
    assert [scope.scope for scope in other.spend_scopes] != ["session:elsewhere"]


@pytest.mark.parametrize("reason", ["INSUFFICIENT_CREDITS", "ACCOUNT_FROZEN"])
def test_a_refusal_that_is_remembered_is_asked_for_again_as_it_was(
    cli: Cli, scripted: ScriptedServer, reason: str
) -> None:
    scripted.script(GENERATE, Refusal(StatusCode.FAILED_PRECONDITION, reason))
    first = cli.run(*make("--key", "k"))
    elsewhere(cli)
    cli.run(*make("--key", "k"))
    one, other = scripted.requests(GENERATE)
    assert one == other
    assert "Then choose a new --key" in first.err


def test_a_key_that_was_turned_away_at_once_counts_where_it_is_used_next(
    cli: Cli, scripted: ScriptedServer
) -> None:
    scripted.script(GENERATE, Refusal(StatusCode.PERMISSION_DENIED, "WRONG_ROLE"), DONE)
    cli.run(*make("--key", "k"))
    elsewhere(cli)
    cli.run(*make("--key", "k"))
    (scope,) = scripted.requests(GENERATE)[1].spend_scopes
    assert (scope.scope, scope.limit_micros) == ("session:elsewhere", 10_000)


def test_a_key_means_nothing_to_another_account(cli: Cli, scripted: ScriptedServer) -> None:
    scripted.script(GENERATE, UNKNOWN)
    cli.run(*make("--key", "k"))
    elsewhere(cli)
    cli.variables["ANIMATE_API_KEY"] = "anim_another"
    cli.run(*make("--key", "k"))
    (scope,) = scripted.requests(GENERATE)[1].spend_scopes
    assert scope.scope == "session:elsewhere"


def test_a_key_that_nobody_knows_is_not_kept_once_its_work_has_ended(
    cli: Cli, scripted: ScriptedServer
) -> None:
    scripted.script(GENERATE, DONE)
    assert cli.run(*make()).exit_code == 0
    assert kept(cli) == []
    assert cli.run(*make("--key", "k")).exit_code == 0
    assert len(kept(cli)) == 1


def test_a_home_that_cannot_be_written_is_told_of_and_stops_no_work(
    cli: Cli, scripted: ScriptedServer
) -> None:
    scripted.script(GENERATE, DONE)
    (cli.home / ".oanim").write_bytes(b"")
    ended = cli.run(*make())
    assert ended.exit_code == 0
    assert "could not be noted, and --key may not repeat it" in ended.err


def test_an_attempt_that_another_command_drops_meanwhile_stops_none(
    cli: Cli, scripted: ScriptedServer
) -> None:
    folder = cli.home / ".oanim" / "attempts"
    folder.mkdir(parents=True)
    # It is listed, and not there any more.
    (folder / "dropped.json").symlink_to("nowhere")
    scripted.script(GENERATE, DONE)
    ended = cli.run(*make())
    assert (ended.exit_code, "fault" in ended.err) == (0, False)


def test_a_key_of_other_work_is_refused_without_an_invitation_to_pay_twice(
    cli: Cli, scripted: ScriptedServer
) -> None:
    scripted.script(GENERATE, Refusal(StatusCode.ALREADY_EXISTS, "IDEMPOTENCY_KEY_REUSED"))
    ended = cli.run(*make("--key", "k"))
    assert (ended.exit_code, ended.err) == (
        1,
        (
            "oanim: this --key named another request before, and this one was not made. To find out what "
            "became of that one, repeat it as it was, where it was made; for other work choose another "
            "--key.\n"
        ),
    )


def test_an_attempt_is_remembered_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    attempt = Attempt("a", Session("session:s", 0), {"digest": "u1"})
    attempts.remember(attempt)
    assert [attempts.known("a"), attempts.known("b")] == [attempt, None]
    attempts.forget(attempt)
    assert attempts.known("a") is None


@pytest.mark.parametrize(
    ("method", "words", "answer"),
    [
        ("SignUp", ("signup", "--email", "a@example.com"), SignUpResponse()),
        ("CreateApiKey", ("api-keys", "create", "--name", "n"), CreateApiKeyResponse()),
    ],
)
def test_an_interruption_of_what_makes_a_key_says_how_to_get_it(
    cli: Cli, scripted: ScriptedServer, method: str, words: tuple[str, ...], answer: Message
) -> None:
    answered = threading.Event()
    scripted.script(f"AccountService/{method}", [answered.wait, answer])
    with cli.start(*words) as process:
        scripted.wait_for(f"AccountService/{method}", 1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    answered.set()
    (request,) = scripted.requests(f"AccountService/{method}")
    assert process.returncode == 130
    assert err.endswith(
        "oanim: interrupted. Whether it was done is not known; the same key repeats it without doing it "
        f"twice: oanim {shlex.join(words)} --key {request.idempotency_key}\n"
    )
