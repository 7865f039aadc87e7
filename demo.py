"""The story in one command: an account, a picture, a film, what they cost, a refusal, a purchase, the audit.

It is told by the real commands in processes of their own, in a home folder of its own; it leaves bg.png and
film.mp4 here and nothing else. Of what they say the steps in between are left out.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from oanim_remotion import browser
from oanim_remotion.errors import NoBrowser, NoRemotion
from oanim_remotion.installation import installation

BIN = Path(sys.executable).parent
# A quarter of a gigabyte, installed once for all demos and tests.
REMOTION = Path(__file__).parent / "build" / "remotion"
OURS = ("OANIM_", "ANIMATE_")
OUT_OF_CREDITS = 3
PAY_PAGE = re.compile(r"/pay/(\w+)")
UNTOLD = re.compile(
    r"  |bundling|downloading|looking|packing|queue|rendering|uploading|waiting"
    r"|Generation |Make |Render |.*Next:"
)


def main() -> int:
    """Tell the story; 0 when every step went as it should."""
    with tempfile.TemporaryDirectory(prefix="oanim-demo-") as folder:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        environment = {**clean, "HOME": folder, "OANIM_DATA": f"{folder}/data", "NO_COLOR": "1"}
        command: list[str | Path] = [
            BIN / "oanim-server",
            "dev",
            "--port",
            "0",
            "--json",
            "--data",
            f"{folder}/data",
        ]
        with (
            Path(folder, "log").open("w") as log,
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, env=environment, text=True
            ) as server,
            ExitStack() as ending,
        ):
            try:
                return _story(server, environment, ending)
            finally:
                server.terminate()


def _story(server: subprocess.Popen[str], environment: dict[str, str], ending: ExitStack) -> int:
    talk = json.loads(server.stdout.readline() if server.stdout else "null")
    print(f"A server with sandboxes in place of fal.ai and Stripe listens on {talk['address']}.")
    environment["ANIMATE_API_URL"] = talk["url"]
    begin = [
        ("oanim signup --email you@example.com", 0),
        ("oanim assets gen-image --prompt gradient --out bg.png", 0),
    ]
    steps = [
        ("oanim usage history", 0),
        ("oanim assets gen-image --prompt gradient --count 100 --yes --out many.png", OUT_OF_CREDITS),
        ("oanim billing buy --amount 50", 0),
        ("oanim-server audit", 0),
    ]
    failed = max(_told(words, expected, environment, talk["stripe_url"]) for words, expected in begin)
    failed |= _film(Path(environment["HOME"]), environment, talk, ending)
    return failed | max(_told(words, expected, environment, talk["stripe_url"]) for words, expected in steps)


def _film(folder: Path, environment: dict[str, str], talk: dict[str, Any], ending: ExitStack) -> int:
    """One second, rendered by a worker; where there is not what that takes, a word about it."""
    try:
        browser.find()
        if not any(REMOTION.glob("remotion-*/")):
            print("(Remotion, which renders, is installed into build/remotion once)", flush=True)
        packages = installation(REMOTION).folder / "node_modules"
    except (NoBrowser, NoRemotion) as missing:
        print(f"(a render in the cloud was skipped: {missing})")
        return 0
    (folder / "farm").mkdir()
    (folder / "farm" / "remotion").symlink_to(REMOTION)
    worker = {**environment, "ANIMATE_API_KEY": talk["keys"]["worker"], "OANIM_FARM_FOLDER": f"{folder}/farm"}
    # One that waits for work takes some seconds to end: the story goes on meanwhile.
    farm = ending.enter_context(
        subprocess.Popen([BIN / "oanim-farm"], env=worker, stderr=subprocess.PIPE, text=True)
    )
    try:
        failed = _told("oanim init film --no-install", 0, environment, cwd=folder)
        said = []
        for line in farm.stderr or ():
            said.append(line)
            if " ready" in line:
                break
        else:
            print("demo: the worker did not start:", *said)
            return 1
        # What npm would install is there.
        (folder / "film" / "node_modules").symlink_to(packages)
        root = folder / "film" / "src" / "Root.tsx"
        root.write_text(root.read_text().replace("SECONDS = 5", "SECONDS = 1"))
        words = "oanim render --cloud --res 360p --out film.mp4"
        failed |= _told(words, 0, environment, cwd=folder / "film", first="cd film && ")
        if not failed:
            shutil.copy(folder / "film" / "film.mp4", "film.mp4")
        return failed
    finally:
        farm.terminate()


def _told(
    words: str,
    expected: int,
    environment: dict[str, str],
    stripe_url: str = "",
    *,
    cwd: Path | None = None,
    first: str = "",
) -> int:
    print(f"$ {first}{words}", flush=True)
    program, *arguments = words.split()
    with subprocess.Popen(
        [BIN / program, *arguments],
        env=environment,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        for line in running.stdout or ():
            if not UNTOLD.match(line):
                print(line, end="", flush=True)
            if found := PAY_PAGE.search(line):
                _paid(stripe_url, found[1])
    if running.returncode == expected:
        return 0
    print(f"demo: that ended with {running.returncode} where {expected} was expected")
    return 1


def _paid(stripe_url: str, session_id: str) -> None:
    """What a customer does on the page: here nobody looks at it."""
    print("(the demo pays on that page)", flush=True)
    httpx.post(f"{stripe_url}/sandbox/sessions/{session_id}/pay", json={}).raise_for_status()


if __name__ == "__main__":
    sys.exit(main())
