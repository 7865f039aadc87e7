"""A real server in a process of its own, that can be killed and started again where it was."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Self

PROGRAM = str(Path(sys.executable).with_name("oanim-server"))
_PATIENCE_S = 30.0


class RealServer:
    """`oanim-server dev` on a port and a folder that it keeps over restarts."""

    def __init__(self, data: Path, port: int = 0) -> None:
        self._data = data
        self._port = port
        self._process: subprocess.Popen[str] | None = None
        self.url = ""
        self.socket = data / "oanim.sock"
        self.keys: dict[str, str] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Return when it serves."""
        self._process = subprocess.Popen(
            [PROGRAM, "dev", "--json", "--data", str(self._data), "--port", str(self._port)],
            # Each test signs up anew, and the port for HTTP is anybody's.
            env={**os.environ, "OANIM_FREE_CREDITS_DAILY_CAP_USD": "100000", "OANIM_HTTP_PORT": "0"},
            stdout=subprocess.PIPE,
            text=True,
        )
        talk = self._talk(self._process)
        self.url, self.keys = talk["url"], talk["keys"]

    def kill(self) -> None:
        """End it without a chance to say good-bye."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def restart(self) -> None:
        """Kill it, and start it again with the same port and the same data."""
        self.kill()
        self.start()

    @staticmethod
    def _talk(process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], _PATIENCE_S)
        line = process.stdout.readline() if readable else ""
        if not line:
            process.kill()
            process.communicate()
        assert line, f"the server did not start, and ended with {process.returncode}"
        talk: dict[str, Any] = json.loads(line)
        return talk
