"""The program `oanim-farm` as whoever runs it sees it: its end, its words, and what it keeps to itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.farm.scene import end
from tests.farm.working import LEASE, NO_WORK, SECONDS
from tests.sdk.scripted import Refusal, ScriptedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = str(Path(sys.executable).with_name("oanim-farm"))
KEY = "anim_abcdefgh_abcdefghijklmnopqrstuvwx"
PAGE = (Path(__file__).parents[2] / "docs" / "farm.md").read_text()


@pytest.fixture
def environment(with_standin: None, farm_folder: Path, server: ScriptedServer) -> dict[str, str]:
    """What a worker is started with."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(farm_folder),
        "ANIMATE_API_URL": server.url,
        "ANIMATE_API_KEY": KEY,
        "OANIM_FARM_FOLDER": str(farm_folder / "farm"),
    }


def run(environment: dict[str, str], *words: str) -> tuple[int, str]:
    """Run it to its end."""
    done = subprocess.run(
        [PROGRAM, *words], env=environment, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert KEY not in done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def running(
    environment: dict[str, str], server: ScriptedServer, tmp_path: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that waits for work."""
    server.script(LEASE, NO_WORK)
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen([PROGRAM], env=environment, stderr=log) as process,
    ):
        server.wait_for(LEASE, 1)
        yield process
        process.kill()


def test_it_says_what_it_is() -> None:
    code, said = run({}, "--help")
    assert (code, "OANIM_FARM_" in said) == (0, True)


def test_without_the_packages_of_its_extra_it_says_how_to_have_them(environment: dict[str, str]) -> None:
    without = "import sys; sys.modules['av'] = None; from oanim_farm.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", without],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert (done.returncode, done.stderr) == (
        1,
        "oanim-farm: this needs av, which is not installed: pip install 'oanim[farm]'\n",
    )


def test_a_bad_setting_is_named(environment: dict[str, str]) -> None:
    assert run({**environment, "OANIM_FARM_SLOTS": "x"}) == (
        2,
        "oanim-farm: OANIM_FARM_SLOTS is 'x', and must be a whole number from 1 to 64.\n",
    )


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("OANIM_FARM_BROWSER", "netscape", "netscape"),
        ("ANIMATE_API_URL", "http://far.example", "https"),
        ("ANIMATE_API_KEY", "anim key", "characters that no API key has"),
        ("OANIM_FARM_FOLDER", "/proc/farm", "/proc/farm"),
    ],
)
def test_what_it_cannot_start_with_is_named(
    environment: dict[str, str], variable: str, value: str, words: str
) -> None:
    code, said = run({**environment, variable: value})
    assert (code, words in said.splitlines()[-1], "Traceback" in said) == (1, True, False)


def test_a_key_that_the_service_will_not_have_is_told(
    environment: dict[str, str], server: ScriptedServer
) -> None:
    server.script(LEASE, Refusal(grpc.StatusCode.UNAUTHENTICATED, "KEY_INVALID"))
    code, said = run(environment)
    assert (code, said.splitlines()[-1]) == (4, "oanim-farm: key_invalid")


def test_told_to_end_it_ends_soon_and_well(running: subprocess.Popen[bytes], tmp_path: Path) -> None:
    began = time.monotonic()
    assert end(running) == 0
    log = (tmp_path / "log").read_text()
    assert time.monotonic() - began < 8
    assert ("ready" in log, log.splitlines()[-1].endswith(" ended"), KEY in log) == (True, True, False)


def test_its_environment_is_hidden_from_others_of_its_user(
    environment: dict[str, str], server: ScriptedServer
) -> None:
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root sees everything, and there is no setpriv to make it see less")
    as_user = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []

    def seen(process: subprocess.Popen[bytes]) -> bytes:
        command = [*as_user, "cat", f"/proc/{process.pid}/environ"]
        return subprocess.run(command, capture_output=True, check=False).stdout

    server.script(LEASE, NO_WORK)
    with (
        subprocess.Popen([*as_user, "sleep", "100"], env=environment) as ordinary,
        subprocess.Popen([*as_user, PROGRAM], env=environment, stderr=subprocess.DEVNULL) as hidden,
    ):
        server.wait_for(LEASE, 1)
        assert (KEY.encode() in seen(ordinary), seen(hidden)) == (True, b"")
        ordinary.kill()
        hidden.kill()


def test_the_unit_of_the_page_gets_a_worker_to_ready(
    environment: dict[str, str], programs: Path, farm_folder: Path, tmp_path: Path, server: ScriptedServer
) -> None:
    settings = re.findall(r"^(Environment|CacheDirectory)=(.+)$", PAGE, re.MULTILINE)
    [cache] = [f"/var/cache/{value}" for name, value in settings if name == "CacheDirectory"]
    meant = [value.replace(cache, str(farm_folder)) for name, value in settings if name == "Environment"]
    npm = tmp_path / "npm"
    npm.write_text(f'#!/bin/sh\nmkdir "$HOME/.npm" && exec {programs / "npm"} "$@"\n')
    npm.chmod(0o755)
    # The home of a DynamicUser is /, where it may write nothing; in this one not even root may.
    of_unit = {**environment, "HOME": "/proc", "PATH": f"{tmp_path}{os.pathsep}{environment['PATH']}"}
    del of_unit["OANIM_FARM_FOLDER"]
    of_unit |= dict(variable.split("=", 1) for variable in meant)
    server.script(LEASE, NO_WORK)
    with subprocess.Popen([PROGRAM], env=of_unit, stderr=subprocess.PIPE, text=True) as process:
        log = process.stderr or ()
        is_ready = any(line.endswith(f" ready: 1 at a time, in {farm_folder}\n") for line in log)
        process.kill()
    assert is_ready


def test_a_service_that_is_away_is_waited_for(environment: dict[str, str], free_port: int) -> None:
    with subprocess.Popen(
        [PROGRAM],
        env={**environment, "ANIMATE_API_URL": f"http://127.0.0.1:{free_port}"},
        stderr=subprocess.DEVNULL,
    ) as process:
        time.sleep(3)
        assert process.poll() is None
        with ScriptedServer(f"127.0.0.1:{free_port}") as late:
            late.script(LEASE, NO_WORK)
            late.wait_for(LEASE, 1)
            assert end(process) == 0
