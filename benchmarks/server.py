"""A server under test: a real `oanim-server serve` in a process of its own, on a folder that is removed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

PAGE_CACHE_BYTES = 256 << 20
START_SECONDS = 30
OURS = ("OANIM_", "ANIMATE_")
# Rates are raised: what is measured is the work, not the limits.
UNLIMITED = {
    "OANIM_CALLS_PER_SECOND": "1000000",
    "OANIM_BURST": "1000000",
    "OANIM_SERVICE_OPERATIONS_PER_SECOND": "1000000",
    "OANIM_FREE_CREDITS_DAILY_CAP_USD": "1000000",
    "OANIM_QUEUE": "20000",
    "OANIM_BENCH_ECHO": "1",
    "OANIM_LOG_LEVEL": "warning",
}


class Server:
    """Starts on entry and ends on exit; knows its port, its CPU and its memory."""

    def __init__(self, port: int, http_port: int, settings: Mapping[str, str]) -> None:
        self.port = port
        self.http_port = http_port
        self.data = Path(tempfile.mkdtemp(prefix="oanim-bench-"))
        self._environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("OANIM_", "ANIMATE_"))
            },
            **UNLIMITED,
            "OANIM_DATA": str(self.data),
            "OANIM_PORT": str(port),
            "OANIM_HTTP_PORT": str(http_port),
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "oanim_server", "serve"]
        self._process = subprocess.Popen(command, env=self._environment, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while not self._healthy():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the server did not start")
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
        shutil.rmtree(self.data)

    def command(self, *arguments: str) -> Any:
        """Run a command of the server's on its machine; its JSON answer."""
        done = subprocess.run(
            [sys.executable, "-m", "oanim_server", *arguments, "--json"],
            env=self._environment,
            stdout=subprocess.PIPE,
            check=True,
        )
        return json.loads(done.stdout)

    @property
    def cpu_seconds(self) -> float:
        """What the process has used of the CPU."""
        fields = self._proc("stat").rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def memory_bytes(self) -> int:
        """What it holds in memory besides SQLite's page cache, which holds pages of the database's file."""
        resident = int(self._proc("statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return resident - min(PAGE_CACHE_BYTES, (self.data / "oanim.db").stat().st_size)

    def _proc(self, name: str) -> str:
        if self._process is None:
            raise RuntimeError("the server is not running")
        return Path(f"/proc/{self._process.pid}/{name}").read_text()

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/healthz", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
