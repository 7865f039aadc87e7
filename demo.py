"""The story in one command: an account, a picture, its charge, a refusal, credits bought, the audit.

It is told by the real commands in processes of their own, in a home folder of its own; it leaves bg.png
here and nothing else.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

BIN = Path(sys.executable).parent
OURS = ("OANIM_", "ANIMATE_")
OUT_OF_CREDITS = 3
PAY_PAGE = re.compile(r"/pay/(\w+)")


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
        ):
            try:
                return _story(server, environment)
            finally:
                server.terminate()


def _story(server: subprocess.Popen[str], environment: dict[str, str]) -> int:
    talk = json.loads(server.stdout.readline() if server.stdout else "null")
    print(f"A server with sandboxes in place of fal.ai and Stripe listens on {talk['address']}.")
    environment["ANIMATE_API_URL"] = talk["url"]
    steps = [
        ("oanim signup --email you@example.com", 0),
        ("oanim billing", 0),
        ("oanim assets gen-image --prompt gradient --out bg.png", 0),
        ("oanim usage history", 0),
        ("oanim assets gen-image --prompt gradient --count 100 --yes --out many.png", OUT_OF_CREDITS),
        ("oanim billing buy --amount 50", 0),
        ("oanim-server audit", 0),
    ]
    return max(_told(words, expected, environment, talk["stripe_url"]) for words, expected in steps)


def _told(words: str, expected: int, environment: dict[str, str], stripe_url: str) -> int:
    print(f"$ {words}", flush=True)
    program, *arguments = words.split()
    with subprocess.Popen(
        [BIN / program, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        for line in running.stdout or ():
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
