"""Reserve and Commit against the server's own echo, grouped against a transaction per call; memory; the CLI.

`make bench` runs it in a few minutes. Every figure is a ratio inside one run: this is a shared machine, and
its calls a second are weather. Repetitions are interleaved, so that the weather falls on both sides.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import oanim
from benchmarks.server import Server

if TYPE_CHECKING:
    from collections.abc import Sequence

WALLETS = 1_000
IN_FLIGHT = 64
MEMORY_OPERATIONS = 200_000


def main() -> int:
    """Measure, print a table, and say whether every target was met."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each repetition lasts")
    parser.add_argument("--repetitions", type=int, default=5, help="how many, interleaved")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    parser.add_argument("--no-memory", action="store_true", help="leave out the 200,000 operations")
    told = parser.parse_args()
    figures = {**_speed(told.seconds, told.repetitions), **({} if told.no_memory else _memory())}
    width = max(map(len, figures))
    for name, figure in figures.items():
        print(f"{name:{width}}  {figure['value']:>9.2f}  ({figure['target']})  {figure.get('note', '')}")
    if told.json:
        Path(told.json).write_text(json.dumps(figures, indent=1))
    return 0 if all(figure["met"] for figure in figures.values()) else 1


def _speed(seconds: float, repetitions: int) -> dict[str, Any]:
    with _server() as grouped, _server(OANIM_GROUP="1") as single:
        with _Load(grouped) as on_grouped, _Load(single) as on_single:
            runs: dict[str, list[Any]] = {"echo": [], "meter": [], "hot": [], "single": []}
            for load, what in ((on_grouped, "echo"), (on_grouped, "meter"), (on_single, "meter")):
                load.run(what, 1.0)
            cpu: dict[str, list[float]] = {"echo": [], "meter": [], "hot": []}
            for _ in range(repetitions):
                for what in ("echo", "meter", "hot"):
                    before = grouped.cpu_seconds
                    runs[what].append(on_grouped.run(what, seconds))
                    cpu[what].append((grouped.cpu_seconds - before) / runs[what][-1]["calls"] * 1e6)
                runs["single"].append(on_single.run("meter", seconds))
        billing = _billing(grouped)
    rates = {what: [run["calls_per_second"] for run in of] for what, of in runs.items()}
    against_echo = [meter / echo for meter, echo in zip(rates["meter"], rates["echo"], strict=True)]
    hot_against_echo = [hot / echo for hot, echo in zip(rates["hot"], rates["echo"], strict=True)]
    against_single = [meter / single for meter, single in zip(rates["meter"], rates["single"], strict=True)]
    tails = [
        meter["p99_ms"] / echo["p99_ms"] for meter, echo in zip(runs["meter"], runs["echo"], strict=True)
    ]
    failed = sum(run["failed"] for of in runs.values() for run in of)
    said = {what: f"{statistics.median(of):,.0f}/s" for what, of in rates.items()}
    said_cpu = {what: f"{statistics.median(of):.0f} us" for what, of in cpu.items()}
    return {
        "Reserve + Commit against echo": {
            **_median(against_echo, 0.60),
            "note": f"{said['meter']} of {said['echo']}; CPU {said_cpu['meter']} of {said_cpu['echo']}",
        },
        "the same, one hot wallet": {
            **_median(hot_against_echo, 0.65),
            "note": f"{said['hot']} of {said['echo']}; CPU {said_cpu['hot']} of {said_cpu['echo']}",
        },
        "groups against a transaction per call": {
            **_median(against_single, 3.0),
            "note": f"{said['meter']} of {said['single']}",
        },
        "p99 against echo's": {**_median(tails, 2.0, least=False)},
        "calls that failed": {"value": failed, "target": "0", "met": failed == 0},
        "oanim billing, seconds": {**_median(billing, 0.6, least=False)},
    }


def _memory() -> dict[str, Any]:
    with _server() as server, _Load(server) as load:
        load.run("meter", 3.0)
        before = server.memory_bytes
        done = 0
        while done < MEMORY_OPERATIONS:
            done += load.run("meter", 5.0)["calls"]
        grown = (server.memory_bytes - before) / (1 << 20)
    return {
        "memory grown, MiB": {
            "value": grown,
            "target": "at most 50",
            "met": grown <= 50,
            "note": f"over {done:,} operations, besides the page cache",
        }
    }


def _billing(server: Server) -> list[float]:
    """Seconds of `oanim billing`, from start to answer."""
    with oanim.Client(api_key="", url=f"http://127.0.0.1:{server.port}") as client:
        key = client.sign_up(email="billing@example.com").secret
    environment = {**os.environ, "ANIMATE_API_KEY": key, "ANIMATE_API_URL": f"http://127.0.0.1:{server.port}"}
    taken = []
    for _ in range(7):
        began = time.perf_counter()
        subprocess.run(
            [Path(sys.executable).with_name("oanim"), "billing"],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        taken.append(time.perf_counter() - began)
    return taken


class _Load:
    """The load generator's process, told one order after the other."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def __enter__(self) -> Self:
        key = self._server.command("keys", "create", "--role", "service", "--name", "bench")["secret"]
        accounts = asyncio.run(_sign_up(self._server.port, WALLETS))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OANIM_BENCH_TOKEN": key},
        )
        self._tell({"port": self._server.port, "accounts": accounts})
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(30)

    def run(self, what: str, seconds: float, in_flight: int = IN_FLIGHT) -> dict[str, Any]:
        self._tell({"what": what, "seconds": seconds, "in_flight": in_flight})
        if self._process.stdout is None:
            raise RuntimeError("the load generator has no output")
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def _tell(self, order: dict[str, Any]) -> None:
        if self._process.stdin is None:
            raise RuntimeError("the load generator has no input")
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()


async def _sign_up(port: int, count: int) -> list[str]:
    async with oanim.AsyncClient(api_key="", url=f"http://127.0.0.1:{port}") as client:
        made = await asyncio.gather(*[client.sign_up(email=f"bench-{n}@example.com") for n in range(count)])
    return [answer.account_id for answer in made]


def _server(**settings: str) -> Server:
    port, http_port = _free_ports()
    return Server(port, http_port, settings)


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


def _median(values: Sequence[float], target: float, *, least: bool = True) -> dict[str, Any]:
    value = statistics.median(values)
    return {
        "value": value,
        "target": f"at least {target:g}" if least else f"at most {target:g}",
        "met": value >= target if least else value <= target,
        "spread": [min(values), max(values)],
    }


if __name__ == "__main__":
    sys.exit(main())
