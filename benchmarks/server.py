"""A server under test: a real `oanim-server serve` in a process of its own, on a store that is filled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.databases import Store

STOP_SECONDS = 60
OURS = ("OANIM_", "ANIMATE_")
# Rates are raised: what is measured is the work, not the limits.
UNLIMITED = {
    "OANIM_CALLS_PER_SECOND": "1000000",
    "OANIM_BURST": "1000000",
    "OANIM_SERVICE_OPERATIONS_PER_SECOND": "10000000",
    "OANIM_OPEN_STREAMS": "1000",
    "OANIM_QUEUE": "20000",
}


def environment(**settings: str) -> dict[str, str]:
    """This process's environment with none of our variables but these."""
    foreign = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return {**foreign, **settings}


class Server:
    """Starts on entry and ends on exit; knows its ports, its CPU, its memory and its counts."""

    def __init__(self, store: Store, settings: Mapping[str, str] = UNLIMITED) -> None:
        self.store = store
        self.settings = {
            "OANIM_PORT": "0",
            "OANIM_HTTP_PORT": "0",
            "OANIM_LOG_LEVEL": "warning",
            "OANIM_BENCH_ECHO": "1",
            **store.settings,
            **settings,
        }

    def __enter__(self) -> Self:
        began = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "oanim_server", "serve", "--json"],
            env=environment(**self.settings),
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._process.stdout is None or not (line := self._process.stdout.readline()):
            raise RuntimeError("the server did not start")
        self.start_seconds = time.perf_counter() - began
        serving = json.loads(line)
        self.port: int = serving["port"]
        self._http_port: int = serving["http_port"]
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait(STOP_SECONDS)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def kill(self) -> None:
        """End it at this very instruction."""
        self._process.kill()
        self._process.wait()

    @property
    def address(self) -> str:
        """Where gRPC listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def cpu_seconds(self) -> float:
        """What the process has used of the CPU."""
        fields = self._proc("stat").rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def memory_bytes(self) -> int:
        """What it holds in memory besides pages of its database."""
        resident = int(self._proc("statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return resident - self.store.cache_bytes()

    def count(self, metric: str) -> float:
        """One of the numbers of its /metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._http_port}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                name, _, value = line.rpartition(" ")
                if name == metric:
                    return float(value)
        raise RuntimeError(f"the server counts no {metric}")

    def _proc(self, name: str) -> str:
        with open(f"/proc/{self._process.pid}/{name}", encoding="ascii") as file:  # noqa: PTH123
            return file.read()
