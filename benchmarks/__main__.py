"""`make bench`: measure every figure on both databases, print one table, write it as JSON and as a picture.

Exits 0 when the run completed and every audit passed; with --check also only when every figure is what it
must be. A figure that cannot be measured ends the run: nothing is left out in silence.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import backpressure, growth, memory, meter, picture, reads, report, speed, starting
from benchmarks.auditing import audit
from benchmarks.bed import interleaved, people, served
from benchmarks.by_hand import measuring as by_hand
from benchmarks.databases import PostgresqlStore, SqliteStore, durable_cluster
from benchmarks.plan import PLANS
from benchmarks.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.databases import Store
    from benchmarks.figures import Figure
    from benchmarks.growth import Grown
    from benchmarks.plan import Plan
    from tests.postgresql import Cluster

DATABASES = ("SQLite", "PostgreSQL")


class Run:
    """A run: what was found, and what was audited."""

    def __init__(self, plan: Plan, databases: Sequence[str], cluster: Cluster | None) -> None:
        self.plan = plan
        self._databases = databases
        self.figures: list[Figure] = []
        self.audits: list[str] = []
        self._cluster = cluster
        self._began = time.monotonic()

    def calls(self) -> None:
        """Calls on a server of each database."""
        plan = self.plan
        for database in self._databases:
            # Meter does several times as much in a slot as calls do: it has a database of its own.
            with self._stores(database, database) as (store, other):
                those = people(store, plan.wallets)
                with (
                    served(store, those) as calls,
                    served(other, people(other, plan.wallets)) as streams,
                    ExitStack() as stack,
                ):
                    growing = memory.Memory(streams, plan)
                    with self._said(f"calls, {database}"):
                        slots = speed.slots(calls, plan) | meter.slots(streams)
                        if self._cluster is not None and database == "PostgreSQL":
                            slots |= stack.enter_context(by_hand.written(self._cluster)).slots()
                        ran = interleaved(slots, plan.warm_seconds, plan.slot_seconds, plan.repetitions)
                    self.figures += speed.figures(database, ran, plan) + meter.figures(database, ran)
                    if database == "PostgreSQL":
                        self.figures += by_hand.figures(database, ran)
                    with self._said(f"memory, {database}"):
                        self.figures += growing.figures()
                    if database == "SQLite":
                        self.figures += starting.billing(calls.server, calls.accounts[0], plan)
                with self._said(f"groups and single calls, {database}"):
                    self.figures.append(speed.against_single(store, those, plan))

    def pressure(self) -> None:
        """More than a server can do."""
        for database in self._databases:
            with self._stores(database) as [store], self._said(f"backpressure, {database}"):
                self.figures += backpressure.measure(store, self.plan)

    def growth(self) -> None:
        """Large databases: what is slower on them, reads, and starts."""
        plan = self.plan
        for keys in plan.keys:
            with self._stores(*self._databases, *self._databases) as stores:
                small, large = stores[: len(stores) // 2], stores[len(stores) // 2 :]
                with self._said(f"filling, {keys} keys"):
                    few = growth.grow(small, plan, keys=keys, reservations=plan.small, great=0)
                    many = growth.grow(large, plan, keys=keys, reservations=plan.large, great=plan.great)
                for one, other in zip(few, many, strict=True):
                    with self._said(f"growth, {keys} keys, {other.store.name}"):
                        self.figures += growth.measure(one, other, plan, keys=keys)
                    if keys == "UUIDv7":
                        with self._said(f"reads and starts, {other.store.name}"):
                            self.figures += self._reads_and_starts(other)

    def _reads_and_starts(self, grown: Grown) -> list[Figure]:
        with Server(grown.store) as server:
            found = reads.measure(server, grown.great, self.plan)
        return [*found, *starting.restarts(grown, self.plan)]

    @contextmanager
    def _stores(self, *kinds: str) -> Iterator[list[Store]]:
        """New stores; audited when what is done with them has ended, two at a time."""
        stores: list[Store] = []
        try:
            stores.extend(map(self._store, kinds))
            yield stores
            with self._said("audit"), ThreadPoolExecutor(os.cpu_count()) as pool:
                self.audits += pool.map(audit, stores)
        finally:
            for store in stores:
                store.remove()

    def _store(self, kind: str) -> Store:
        if self._cluster is not None and kind == "PostgreSQL":
            return PostgresqlStore(self._cluster)
        return SqliteStore()

    @contextmanager
    def _said(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        now = time.monotonic()
        print(f"{now - self._began:5.0f} s  {what}: {now - began:.0f} s", file=sys.stderr)

    @property
    def minutes(self) -> float:
        """How long it has taken."""
        return (time.monotonic() - self._began) / 60


SECTIONS = {"calls": Run.calls, "pressure": Run.pressure, "growth": Run.growth}


def main() -> int:
    """Run it, and say whether it completed and, with --check, whether every figure is what it must be."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--plan", choices=PLANS, default="full")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="a part of it; may be repeated")
    parser.add_argument("--database", choices=DATABASES, action="append", help="one of them; as above")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="the folder to write to")
    parser.add_argument(
        "--page", type=Path, help="a Markdown file to write the table into, between its marks"
    )
    parser.add_argument("--check", action="store_true", help="exit 1 when a figure is not what it must be")
    told = parser.parse_args()
    databases = told.database or DATABASES
    with ExitStack() as stack:
        cluster = stack.enter_context(durable_cluster()) if "PostgreSQL" in databases else None
        run = Run(PLANS[told.plan], databases, cluster)
        try:
            for name in told.only or SECTIONS:
                SECTIONS[name](run)
        finally:
            # Also what a run found that breaks off: it may have taken most of an hour.
            figures = _by_section(run.figures)
            _write(told.out, run, figures)
    if told.page:
        told.page.write_text(report.into(told.page.read_text(), figures, run.plan))
    missed = [figure for figure in figures if figure.met == "missed"]
    print(f"{len(missed)} of {len(figures)} figures are not what they must be; {run.minutes:.0f} minutes.")
    return 1 if told.check and missed else 0


def _by_section(figures: list[Figure]) -> list[Figure]:
    """A section's figures together, in the order in which sections were begun."""
    sections = [figure.section for figure in figures]
    return sorted(figures, key=lambda figure: sections.index(figure.section))


def _write(folder: Path, run: Run, figures: list[Figure]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(report.as_json(figures, run.plan, run.audits, run.minutes))
    (folder / "bench.md").write_text(report.markdown(figures) + "\n")
    picture.draw(figures, folder / "bench.png")
    print(report.table(figures), *run.audits, sep="\n")


if __name__ == "__main__":
    sys.exit(main())
