"""However a command is started, and however it is ended, it says what was done."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.running import PROGRAM, Cli, Ended, line_of

if TYPE_CHECKING:
    import httpx

MAKE = ("assets", "gen-image", "--prompt", "x", "--model", "fal-ai/flux/schnell", "--size", "64x64")
INTERRUPTED_WHILE_IMPORTING = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupt())
from oanim.cli import main
main(["pricing"])
"""

ASKED_THREE_TIMES = """
import os, signal, time
from oanim.cli.interruption import interruption

signal.signal(signal.SIGINT, signal.default_int_handler)
interruption.listen()
for pause_s in (0, 0, 1.1):
    time.sleep(pause_s)
    try:
        os.kill(os.getpid(), signal.SIGINT)
        print("went on")
    except KeyboardInterrupt:
        print("ended")
"""


# What grpc leaves of a call that was interrupted while it was made: the channel's end waits for the call's.
LEFT_HALF_MADE = f"""
import threading

ended = threading.Lock()
ended.acquire()

class Channel:
    def __del__(self, wait=ended.acquire):
        wait()

channel = Channel()
{INTERRUPTED_WHILE_IMPORTING}
"""


def in_shell(cli: Cli, redirected: str, *arguments: str) -> Ended:
    """Run a command as a shell does that redirects its streams."""
    ended = subprocess.run(
        ["sh", "-c", f'"$0" "$@" {redirected}', PROGRAM, *arguments],
        capture_output=True,
        text=True,
        cwd=cli.folder,
        env=cli.environment(),
        check=False,
        start_new_session=True,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def test_the_help_shows_each_variable_on_a_line_of_its_own(cli: Cli) -> None:
    shown = cli.run("-h").out
    assert "\\b" not in shown
    assert re.search(r"^  ANIMATE_MAX_USD_PER_RUN {2,}what this session may spend", shown, re.MULTILINE)


@pytest.mark.parametrize("words", [(), ("assets",), ("api-keys",)])
def test_a_command_without_its_second_word_shows_its_help(cli: Cli, words: tuple[str, ...]) -> None:
    ended, helped = cli.run(*words), cli.run(*words, "--help")
    assert ended == Ended(2, "", helped.out)
    assert len(ended.err.splitlines()) > 5


@pytest.mark.parametrize("closed", ["<&-", "2>&-", ">&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_keeps_nothing_from_being_made(direct: Cli, closed: str) -> None:
    ended = in_shell(direct, closed, *MAKE, "--out", "bg.png")
    assert (ended.exit_code, "fault" in ended.err) == (0, False)
    assert (direct.folder / "bg.png").read_bytes()[:4] == b"\x89PNG"


def test_an_answer_that_cannot_be_printed_says_what_was_paid_for(direct: Cli) -> None:
    ended = in_shell(direct, ">/dev/full", *MAKE, "--out", "bg.png")
    assert ended.exit_code == 1
    last = ended.err.splitlines()[-1]
    assert re.fullmatch(
        r"oanim: the answer was not printed: No space left on device\. "
        r"Job \S+ is made, and fal\.ai bills it\.",
        last,
    )


@pytest.mark.parametrize("program", [INTERRUPTED_WHILE_IMPORTING, LEFT_HALF_MADE])
def test_an_interruption_while_it_starts_is_one_line(cli: Cli, program: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=cli.environment(),
        check=False,
        timeout=30,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "oanim: interrupted.\n")


def test_an_impatient_interruption_loses_nothing_of_what_the_first_one_says(
    direct: Cli, fal: httpx.Client
) -> None:
    queue = {"at": "submit", "do": "queue", "positions": 3}
    fal.post("/sandbox/faults", json=queue).raise_for_status()
    with direct.start(*MAKE, "--out", "bg.png") as process:
        line_of(process, "queue position")
        for _ in range(200):
            process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert re.search(r"the work goes on\. Get it later: oanim assets get \S+ --out bg\.png", err)


def test_an_interruption_that_got_lost_can_be_repeated(cli: Cli) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ASKED_THREE_TIMES],
        capture_output=True,
        text=True,
        env=cli.environment(),
        check=True,
    )
    assert ended.stdout.split("\n") == ["ended", "went on", "ended", ""]
