"""How long it takes to be there: a server after kill -9, and a command of the CLI's from start to answer."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import targets
from benchmarks.figures import Figure
from benchmarks.server import Server, environment
from benchmarks.told import Told

if TYPE_CHECKING:
    from benchmarks.filling import Account
    from benchmarks.growth import Grown
    from benchmarks.plan import Plan

# How long a server is at work before it is killed, and with how much in flight.
WORK_SECONDS = 0.2
IN_FLIGHT = 16


def restarts(grown: Grown, plan: Plan) -> list[Figure]:
    """A server is killed at work and started again."""
    store, account = grown.store, grown.accounts[0]
    taken = []
    for _ in range(plan.starts):
        with (
            Server(store) as server,
            Told(
                "benchmarks.load",
                address=server.address,
                tokens=[account.token],
                accounts=[account.text],
                connections=1,
            ) as load,
        ):
            taken.append(server.start_seconds * 1e3)
            load.begin(what="pairs", seconds=2 * WORK_SECONDS, in_flight=IN_FLIGHT)
            time.sleep(WORK_SECONDS)
            server.kill()
            load.end()  # its calls have failed
    return [
        Figure(
            section="Start",
            name=f"oanim-server serve after kill -9, {plan.large:,} reservations, {store.name}",
            values=tuple(taken),
            unit="ms",
            target=targets.RESTART_MS,
        )
    ]


def billing(server: Server, account: Account, plan: Plan) -> list[Figure]:
    """`oanim billing` against a server on this machine."""
    command = [str(Path(sys.executable).with_name("oanim")), "billing"]
    settings = environment(ANIMATE_API_KEY=account.token, ANIMATE_API_URL=f"http://{server.address}")
    taken = []
    for _ in range(plan.starts):
        began = time.perf_counter()
        subprocess.run(command, env=settings, check=True, stdout=subprocess.DEVNULL)
        taken.append((time.perf_counter() - began) * 1e3)
    return [
        Figure(
            section="Start",
            name=f"oanim billing, start to answer, {server.store.name}",
            values=tuple(taken),
            unit="ms",
            target=targets.BILLING_MS,
        )
    ]
