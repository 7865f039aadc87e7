"""The story in one command: a sandboxed server, an account, a picture, its charge, a refusal, the audit.

It is told by the real commands in processes of their own, in a home folder of its own; it leaves bg.png
here and nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

BIN = Path(sys.executable).parent
OURS = ("OANIM_", "ANIMATE_")
OUT_OF_CREDITS = 3


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
    print(f"A server with a sandbox in place of fal.ai listens on {talk['address']}.")
    environment["ANIMATE_API_URL"] = talk["url"]
    steps = [
        ("oanim signup --email you@example.com", 0),
        ("oanim billing", 0),
        ("oanim assets gen-image --prompt gradient --out bg.png", 0),
        ("oanim usage history", 0),
        ("oanim assets gen-image --prompt gradient --count 100 --yes --out many.png", OUT_OF_CREDITS),
        ("oanim-server audit", 0),
    ]
    return max(_told(words, expected, environment) for words, expected in steps)


def _told(words: str, expected: int, environment: dict[str, str]) -> int:
    print(f"\n$ {words}", flush=True)
    program, *arguments = words.split()
    done = subprocess.run([BIN / program, *arguments], env=environment, stderr=subprocess.STDOUT, check=False)
    if done.returncode == expected:
        return 0
    print(f"demo: that ended with {done.returncode} where {expected} was expected")
    return 1


if __name__ == "__main__":
    sys.exit(main())
