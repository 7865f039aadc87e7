"""How fast it is, in slots beside the service's: psycopg in a process of Python, and pgbench."""

from __future__ import annotations

import os
import re
import resource
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from benchmarks import by_hand
from benchmarks.bed import of, slot_of
from benchmarks.figures import Figure, ratios
from benchmarks.speed import COMPARED, beside
from benchmarks.taken import Taken
from benchmarks.told import Told

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bed import Measure, Slot, Slots
    from tests.postgresql import Cluster

HERE = Path(__file__).parent
WALLETS = {"many": 1_000, "hot": 1}
CALLS_A_PAIR = 2


@dataclass(frozen=True, slots=True)
class ByHand:
    """A database with the schema of one's own, and a process of psycopg connections to it."""

    cluster: Cluster
    url: str
    psycopg: Told

    def slots(self) -> dict[str, Measure]:
        """What is run."""
        measured: dict[str, Measure] = {}
        for name, wallets in WALLETS.items():
            measured[f"psycopg {name}"] = partial(self._psycopg, wallets)
            measured[f"pgbench {name}"] = partial(self._pgbench, wallets)
        return measured

    def _psycopg(self, wallets: int, seconds: float) -> Slot:
        database = self.cluster.cpu_seconds
        told = self.psycopg.ask(wallets=wallets, seconds=seconds)
        return slot_of(told, server_seconds=0.0, database_seconds=self.cluster.cpu_seconds - database)

    def _pgbench(self, wallets: int, seconds: float) -> Slot:
        database, own = self.cluster.cpu_seconds, _children_seconds()
        said = subprocess.run(
            [
                self.cluster.binaries / "pgbench",
                "--no-vacuum",
                "--protocol=prepared",
                f"--client={COMPARED}",
                "--jobs=2",
                f"--time={max(1, round(seconds))}",
                f"--file={HERE / 'pairs.pgbench'}",
                f"--define=wallets={wallets}",
                self.url,
            ],
            stdout=subprocess.PIPE,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            text=True,
            check=True,
        ).stdout
        told = {
            **Taken().told(1.0, _children_seconds() - own),
            "operations": CALLS_A_PAIR
            * int(_said(r"number of transactions actually processed: (\d+)", said)),
            "a_second": CALLS_A_PAIR * float(_said(r"tps = ([\d.]+)", said)),
        }
        return slot_of(told, server_seconds=0.0, database_seconds=self.cluster.cpu_seconds - database)


@contextmanager
def written(cluster: Cluster) -> Iterator[ByHand]:
    """The schema on a database of its own, until the block ends."""
    url = cluster.create_database().replace("+psycopg", "", 1)
    with psycopg.connect(url) as connection:
        connection.execute((HERE / "schema.sql").read_text())
    try:
        with Told(by_hand.__name__, url=url, connections=COMPARED) as process:
            yield ByHand(cluster, url, process)
    finally:
        cluster.drop_database(url)


def figures(database: str, ran: Slots) -> list[Figure]:
    """What was found, beside the service's slots."""
    return [
        Figure(
            section=f"By hand: a transaction per call on plain {database}, {COMPARED} connections",
            name=f"the service against {how}, {'one hot wallet' if name == 'hot' else 'many wallets'}",
            values=ratios(of(ran[f"{name} {COMPARED}"], "a_second"), of(ran[f"{how} {name}"], "a_second")),
            note=beside(ran[f"{name} {COMPARED}"], ran[f"{how} {name}"]),
        )
        for how in ("psycopg", "pgbench")
        for name in WALLETS
    ]


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _said(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"pgbench did not say {pattern}: {text}")
    return found[1]
