"""`oanim render` makes a video here, as it was asked to, and speaks to nobody."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.running import Cli, line_of
from tests.videos import Seen, colour_at, seen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oanim_remotion.installation import Installation

# The first of them installs Remotion, from a cold cache perhaps, and bundles what all of them render.
pytestmark = pytest.mark.timeout(600)

# What `main` is called by, which then says what was imported of what speaks to a network.
SAYING_WHAT_IT_IMPORTED = """
import sys
from oanim.cli.running import run
code = run(sys.argv[1:])
imported = {name.partition(".")[0] for name in sys.modules}
print("imported:", imported & {"grpc", "httpx", "google", "openanimate"}, file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture
def scratch(cli: Cli) -> Iterator[Path]:
    """Where programs put what they need for a while; its path is short enough for a browser."""
    with tempfile.TemporaryDirectory(prefix="oanim-test-", dir="/tmp") as folder:
        cli.variables["TMPDIR"] = folder
        yield Path(folder)


@pytest.fixture
def project(cli: Cli, remotion: Installation) -> Iterator[Path]:
    """A new project, whose packages are found in a folder above it."""
    with tempfile.TemporaryDirectory(prefix="project-", dir=remotion.folder) as folder:
        cli.folder = Path(folder)
        assert cli.run("init", "--no-install").exit_code == 0
        yield cli.folder


def test_a_video_is_made_as_it_was_asked_for_and_nobody_is_spoken_to(
    cli: Cli, project: Path, scratch: Path
) -> None:
    (project / "props.json").write_text('{"title": "", "subtitle": "", "from": "#00ff00", "to": "#00ff00"}')
    options = (
        "render --out films/green.webm --fps 10 --res 180p --codec vp8 --props props.json --composition Main"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        cli.variables |= {
            "ANIMATE_API_KEY": "anim_key",
            "ANIMATE_API_URL": f"http://127.0.0.1:{listener.getsockname()[1]}",
        }
        ended = subprocess.run(
            [sys.executable, "-c", SAYING_WHAT_IT_IMPORTED, *options.split(), "--json"],
            cwd=project,
            env=cli.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()

    out = project / "films" / "green.webm"
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {
        "path": "films/green.webm",
        "size_bytes": out.stat().st_size,
        "composition": "Main",
        "width": 320,
        "height": 180,
        "fps": 10,
        "frames": 50,
        "codec": "vp8",
        "seconds": 5.0,
    }
    assert seen(out) == Seen("vp8", 320, 180, Fraction(10), 50)
    red, green, blue = colour_at(out, 0.02, 0.98)
    assert green > 200
    assert max(red, blue) < 100
    assert "imported: set()" in ended.stderr
    assert re.search(r"bundling: \d+ %\n.*rendering: 50 %\n.*rendering: 100 %\n", ended.stderr, re.DOTALL)
    assert [path.name for path in out.parent.iterdir()] == ["green.webm"]
    assert list(scratch.iterdir()) == []


def test_ctrl_c_ends_everything_and_leaves_nothing(cli: Cli, project: Path, scratch: Path) -> None:
    with cli.start("render") as rendering:
        line_of(rendering, "bundling: ")
        rendering.send_signal(signal.SIGINT)
        out, err = rendering.communicate(timeout=30)

    assert (rendering.returncode, out) == (130, "")
    assert err.endswith("oanim: interrupted.\n")
    assert list((project / "out").iterdir()) == []
    assert list(scratch.iterdir()) == []
    assert _running_in(project) == []


def _running_in(folder: Path) -> list[str]:
    """The processes that still work in a folder, some seconds from now."""
    found = [""]
    until = time.monotonic() + 10
    while found and time.monotonic() < until:
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if (path / "cwd").readlink() == folder:
                    found.append(path.name)
            except OSError:
                continue
        time.sleep(0.05)
    return found


def test_a_project_without_its_packages_says_what_to_do(cli: Cli, browser: Path) -> None:
    cli.run("init", "--no-install")
    ended = cli.run("render")

    assert (ended.exit_code, ended.out) == (1, "")
    assert ended.err == "oanim: this project's packages are not installed. Install them: npm install.\n"


def test_a_machine_without_node_says_what_to_do(cli: Cli) -> None:
    cli.variables["PATH"] = str(cli.folder)
    ended = cli.run("render")

    assert ended.exit_code == 1
    assert ended.err == (
        "oanim: rendering needs Node.js 18 or newer, and there is no node on the PATH. Install it.\n"
    )


def test_a_machine_without_a_browser_says_what_to_do(cli: Cli, project: Path, tmp_path: Path) -> None:
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "node").symlink_to("/usr/bin/env")
    cli.variables["PATH"] = str(tmp_path / "programs")
    none = cli.run("render")
    cli.variables["ANIMATE_BROWSER"] = "nowhere"
    wrong = cli.run("render")

    assert none.exit_code == wrong.exit_code == 1
    assert none.err == (
        "oanim: there is no browser to render with. Install one (apt install chromium), or name one "
        "with --browser or ANIMATE_BROWSER.\n"
    )
    assert wrong.err == "oanim: ANIMATE_BROWSER names nowhere, which is no program here.\n"


def test_what_cannot_be_written_is_said_before_anything_is_done(cli: Cli) -> None:
    os.mkfifo(cli.folder / "pipe.mp4")
    ended = cli.run("render", "--out", "pipe.mp4")

    assert (ended.exit_code, ended.err) == (1, "oanim: pipe.mp4 is not a file; choose another --out.\n")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--fps", "0"], "Invalid value for '--fps'"),
        (["--res", "huge"], "it must be such as 1080p, 720p, 4k or 1280x720, not 'huge'."),
        (["--codec", "mpeg2"], "'mpeg2' is not one of 'h264', 'h265', 'vp8', 'vp9', 'prores', 'gif'."),
        (["--props", "{"], "--props: it is not JSON"),
        (["--out", "a.avi"], "--out: a.avi must end in"),
    ],
)
def test_what_makes_no_sense_is_refused(cli: Cli, options: list[str], why: str) -> None:
    ended = cli.run("render", *options)

    assert ended.exit_code == 2
    assert why in ended.err
