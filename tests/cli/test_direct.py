"""With ANIMATE_FAL_KEY work goes straight to fal.ai: paid once, counted here, past the service."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.running import PROGRAM, Cli, line_of

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

PNG = b"\x89PNG\r\n\x1a\n"


def fault(fal: httpx.Client, **fields: Any) -> None:
    fal.post("/sandbox/faults", json=fields).raise_for_status()


def jobs(fal: httpx.Client, prompt: str) -> int:
    """How many jobs with this prompt fal.ai has taken."""
    return sum(job["input"].get("prompt") == prompt for job in fal.get("/sandbox/jobs").json()["jobs"])


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def make(prompt: str, *more: str) -> tuple[str, ...]:
    return ("assets", "gen-image", "--prompt", prompt, "--model", "fal-ai/flux/schnell", *more)


def test_a_picture_is_made_whole_in_a_folder_that_is_made_for_it(direct: Cli) -> None:
    ended = direct.run(*make("gradient", "--out", "a/b/bg.png"))
    assert ended.exit_code == 0
    lines = ended.out.splitlines()
    assert lines[:2] == ["a/b/bg.png", "Billed to you by fal.ai; the list price is $0.003."]
    assert (files(direct.folder), (direct.folder / "a/b/bg.png").read_bytes()[:8]) == (["a/b/bg.png"], PNG)


def test_several_pictures_are_numbered_and_json_is_all_there_is_on_standard_output(direct: Cli) -> None:
    ended = direct.run(*make("several", "--count", "3", "--size", "64x64", "--out", "o.png", "--json"))
    answer = json.loads(ended.out)
    assert (answer["files"], answer["list_price_micros"], answer["billed_by"]) == (
        ["o-1.png", "o-2.png", "o-3.png"],
        9_000,
        "fal",
    )
    assert files(direct.folder) == answer["files"]


def test_pictures_film_and_sound_all_have_their_command(direct: Cli) -> None:
    assert direct.run(*make("all", "--size", "64x64", "--out", "in.png")).exit_code == 0
    pictures = ["--in", "in.png"]
    mixes = ["--model", "fal-ai/nano-banana-2/edit"]
    commands = {
        "edited.png": ["edit-image", *pictures, "--prompt", "redder"],
        "mixed.png": ["edit-image", *pictures, *pictures, "--prompt", "both", *mixes],
        "cut.png": ["remove-bg", *pictures],
        "large.png": ["upscale", *pictures],
        "film.mp4": ["gen-video", "--prompt", "a", "--duration", "5"],
        "music.wav": ["gen-audio", "--prompt", "a", "--duration", "1"],
        "any.png": ["run", "fal-ai/flux/schnell", "--input", '{"prompt": "any"}'],
    }  # fmt: skip
    for out, command in commands.items():
        ended = direct.run("assets", *command, "--out", out)
        assert (ended.exit_code, ended.out.splitlines()[:1]) == (0, [out]), ended.err
    assert files(direct.folder) == sorted(["in.png", *commands])


def test_a_raw_input_comes_from_a_file_or_from_standard_input(direct: Cli) -> None:
    (direct.folder / "in.json").write_text('{"prompt": "from a file"}')
    model = "fal-ai/flux/schnell"
    assert direct.run("assets", "run", model, "--input", "@in.json", "--out", "1.png").exit_code == 0
    ended = direct.run("assets", "run", model, "--input", "-", "--out", "2.png", stdin='{"prompt": "piped"}')
    assert ended.exit_code == 0
    assert files(direct.folder) == ["1.png", "2.png", "in.json"]


def test_a_quote_spends_nothing(direct: Cli, fal: httpx.Client) -> None:
    ended = direct.run("assets", "gen-video", "--prompt", "only quoted", "--duration", "10", "--quote")
    assert (ended.exit_code, ended.out) == (0, "$0.70 with fal-ai/kling-video/v2.5-turbo/pro/text-to-video\n")
    assert ended.err == "oanim: this is the list price; fal.ai bills the work to you, at its own.\n"
    assert (jobs(fal, "only quoted"), (direct.home / ".oanim").exists()) == (0, False)


def test_the_service_is_not_contacted_and_grpc_is_not_even_loaded(direct: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as service:
        service.setblocking(False)  # noqa: FBT003
        direct.variables |= {
            "ANIMATE_API_URL": f"http://127.0.0.1:{service.getsockname()[1]}",
            "ANIMATE_API_KEY": "anim_x",
        }
        program = [sys.executable, "-X", "importtime", "-c", "from oanim.cli import main; main()"]
        ended = subprocess.run(
            [*program, *make("lonely", "--out", "bg.png")],
            capture_output=True,
            text=True,
            cwd=direct.folder,
            env=direct.environment(),
            check=True,
        )
        with pytest.raises(BlockingIOError):
            service.accept()
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if "|" in line}
    assert imported & {"grpc", "oanim.client", "google.protobuf.message"} == set()
    assert "httpx" in imported


def test_the_limit_of_a_session_holds_for_commands_at_once(direct: Cli, fal: httpx.Client) -> None:
    direct.variables |= {"ANIMATE_MAX_USD_PER_RUN": "0.006", "ANIMATE_SESSION_ID": "at-once"}
    with ThreadPoolExecutor(6) as threads:
        ended = list(
            threads.map(
                lambda number: direct.run(*make("at once", "--size", "64x64", "--out", f"{number}.png")),
                range(6),
            )
        )
    assert sorted(each.exit_code for each in ended) == [0, 0, 3, 3, 3, 3]
    refusal = next(each.err for each in ended if each.exit_code == 3)
    assert refusal.startswith(
        "oanim: this needs $0.003, and the session at-once has used $0.006 of the $0.006 that "
        "ANIMATE_MAX_USD_PER_RUN allows it. Raise that, or start a new session: export ANIMATE_SESSION_ID="
    )
    assert jobs(fal, "at once") == 2


@pytest.mark.parametrize(
    ("trouble", "outcome"),
    [
        ({"at": "submit", "do": "422"}, (1, "Nothing was spent.", 0)),
        ({"at": "submit", "do": "429", "seconds": 0, "times": 3}, (1, "try again later.", 0)),
        ({"at": "submit", "do": "500"}, (5, "stays counted in this session", 3_000)),
        ({"at": "submit", "do": "drop_after"}, (5, "stays counted in this session", 3_000)),
        ({"at": "result", "do": "500"}, (1, "fal.ai does not bill this.", 0)),
        ({"at": "result", "do": "422"}, (1, "may bill this", 3_000)),
    ],
)
def test_what_fails_counts_only_where_it_may_have_been_bought(
    direct: Cli, fal: httpx.Client, trouble: dict[str, Any], outcome: tuple[int, str, int]
) -> None:
    exit_code, said, counted = outcome
    fault(fal, **trouble)
    ended = direct.run(*make(f"trouble {trouble['at']} {trouble['do']}", "--out", "bg.png"))
    assert (ended.exit_code, ended.out, files(direct.folder)) == (exit_code, "", [])
    assert said in ended.err
    sessions = json.loads((direct.home / ".oanim" / "direct.json").read_text())["sessions"]
    assert [entry["charged_micros"] for entry in sessions.values()] == [counted]


def test_a_submit_that_was_turned_away_for_now_is_sent_again(direct: Cli, fal: httpx.Client) -> None:
    fault(fal, at="submit", do="429", seconds=0, times=2)
    assert direct.run(*make("again", "--out", "bg.png")).exit_code == 0
    assert jobs(fal, "again") == 1


def test_a_question_that_was_not_answered_is_asked_again(direct: Cli, fal: httpx.Client) -> None:
    for at in ("status", "result"):
        fault(fal, at=at, do="drop_before")
    assert direct.run(*make("patience", "--out", "bg.png")).exit_code == 0
    assert jobs(fal, "patience") == 1


def test_a_submit_of_unknown_outcome_is_never_sent_again_under_its_key(
    direct: Cli, fal: httpx.Client
) -> None:
    fault(fal, at="submit", do="drop_after")
    command = make("unknown", "--key", "once", "--out", "bg.png")
    first, second = direct.run(*command), direct.run(*command)
    assert (first.exit_code, second.exit_code, jobs(fal, "unknown")) == (5, 1, 1)
    assert "cannot be found out" in second.err


def test_the_same_key_gets_the_same_job_again(direct: Cli, fal: httpx.Client) -> None:
    command = make("keyed", "--key", "k", "--json", "--out")
    first, second = (json.loads(direct.run(*command, out).out) for out in ("1.png", "2.png"))
    assert (first["request_id"], jobs(fal, "keyed")) == (second["request_id"], 1)
    assert (direct.folder / "1.png").read_bytes() == (direct.folder / "2.png").read_bytes()


@pytest.mark.parametrize("ends", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_detaches_and_the_result_can_be_got_later(
    direct: Cli, fal: httpx.Client, ends: signal.Signals
) -> None:
    fault(fal, at="submit", do="queue", positions=3)
    process = direct.start(*make(f"later {ends.name}", "--out", "bg.png"))
    with process:
        line_of(process, "queue position")
        process.send_signal(ends)
        out, err = process.communicate(timeout=30)
    found = re.search(r"the work goes on\. Get it later: oanim assets get (\S+) --out bg\.png", err)
    assert found
    assert (process.returncode, out, files(direct.folder)) == (130, "", [])
    fal.delete("/sandbox/faults").raise_for_status()
    ended = direct.run("assets", "get", found[1], "--out", "bg.png")
    assert (ended.exit_code, files(direct.folder), jobs(fal, f"later {ends.name}")) == (0, ["bg.png"], 1)


def test_a_download_that_breaks_off_leaves_nothing_and_says_how_to_get_it(
    direct: Cli, fal: httpx.Client
) -> None:
    (direct.folder / "bg.png").write_bytes(b"former")
    fault(fal, at="output", do="drop_after")
    ended = direct.run(*make("broken", "--out", "bg.png"))
    assert (files(direct.folder), (direct.folder / "bg.png").read_bytes()) == (["bg.png"], b"former")
    assert ended.exit_code != 0
    assert "could not be downloaded" in ended.err
    found = re.search(r"^Get it later: oanim (assets get \S+ --out bg\.png)$", ended.err, re.MULTILINE)
    assert found
    assert direct.run(*found[1].split()).exit_code == 0
    assert (direct.folder / "bg.png").read_bytes()[:8] == PNG


def test_an_output_that_is_gone_is_not_promised_for_later(direct: Cli, fal: httpx.Client) -> None:
    fault(fal, at="output", do="gone")
    ended = direct.run(*make("gone", "--out", "bg.png"))
    assert (ended.exit_code, files(direct.folder)) == (1, [])
    assert ended.err.splitlines()[-2:] == [
        "oanim: bg.png could not be downloaded: fal.ai no longer keeps it.",
        "It was made, and fal.ai bills it all the same.",
    ]


def test_a_job_that_was_not_sent_from_here_is_not_known(direct: Cli) -> None:
    ended = direct.run("assets", "get", "7-1")
    assert (ended.exit_code, ended.out) == (1, "")
    assert "no job 7-1 was sent to fal.ai from here" in ended.err


@pytest.mark.parametrize("more", [(), ("--quote",)])
def test_more_than_an_amount_may_be_is_refused_before_it_is_sent(
    direct: Cli, fal: httpx.Client, more: tuple[str, ...]
) -> None:
    ended = direct.run(*make("too dear", "--count", "333333334", *more))
    assert (ended.exit_code, ended.out, ended.err) == (
        2,
        "",
        "oanim: this would cost $1000000.002, and $1000000.00 is the most at once.\n",
    )
    assert (jobs(fal, "too dear"), (direct.home / ".oanim").exists()) == (0, False)


def test_a_folder_is_made_for_what_ends_as_one_does(direct: Cli) -> None:
    ended = direct.run(*make("folder", "--out", "new/", "--json"))
    answer = json.loads(ended.out)
    assert files(direct.folder) == answer["files"] == [f"new/{answer['request_id']}.png"]


def test_nothing_is_made_before_the_question_is_answered(direct: Cli) -> None:
    command = [PROGRAM, "assets", "gen-video", "--prompt", "dear", "--model", "fal-ai/veo3.1"]
    code, _ = direct.on_terminal(
        [*command, "--duration", "16", "--out", "new/film.mp4"], typed="n\n", after="Go on?"
    )
    assert (code, list(direct.folder.iterdir())) == (1, [])


def test_a_file_that_is_not_what_its_name_says_is_told_of(direct: Cli) -> None:
    ended = direct.run(*make("misnamed", "--out", "bg.jpg"))
    assert "oanim: bg.jpg holds image/png, whatever its name says." in ended.err.splitlines()


@pytest.mark.parametrize("url", ["http://example.com", "ftp://127.0.0.1", "http://[::1"])
def test_the_key_travels_in_clear_on_this_machine_alone(direct: Cli, url: str) -> None:
    direct.variables["ANIMATE_FAL_URL"] = url
    ended = direct.run(*make("clear"))
    assert (ended.exit_code, ended.out, (direct.home / ".oanim").exists()) == (2, "", False)
    assert ended.err.endswith("see ANIMATE_FAL_KEY and ANIMATE_FAL_URL.\n")


def test_fal_ai_being_away_spends_nothing(direct: Cli) -> None:
    direct.variables |= {"ANIMATE_FAL_URL": "http://127.0.0.1:1", "ANIMATE_MAX_USD_PER_RUN": "0.003"}
    for _ in range(2):
        ended = direct.run(*make("away"))
        assert (ended.exit_code, "Nothing was sent, or spent." in ended.err) == (5, True)


def test_more_than_a_dollar_is_asked_about_on_a_terminal(direct: Cli, fal: httpx.Client) -> None:
    command = [
        PROGRAM,
        "assets",
        "gen-video",
        "--prompt",
        "dear",
        "--model",
        "fal-ai/sora-2/text-to-video/pro",
    ]
    code, shown = direct.on_terminal(command, typed="n\n", after="Go on?")
    assert (code, jobs(fal, "dear")) == (1, 0)
    assert "This costs $1.50 with fal-ai/sora-2/text-to-video/pro. Go on?" in shown
    code, shown = direct.on_terminal([*command, "--yes", "--out", "film.mp4"])
    assert (code, "Go on?" in shown, files(direct.folder)) == (0, False, ["film.mp4"])


def test_a_terminal_shows_a_live_line_and_no_colour_where_none_is_wanted(
    direct: Cli, fal: httpx.Client
) -> None:
    fault(fal, at="submit", do="queue", positions=3, seconds=2)
    direct.variables["NO_COLOR"] = "1"
    command = [PROGRAM, *make("live", "--out", "bg.png")]
    code, shown = direct.on_terminal(command)
    assert code == 0
    assert re.search(r"queue position \d.*0:00:0\d", shown)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", shown)
