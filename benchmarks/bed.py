"""A test bed: a filled store, its server and a load generator, and what one slot on it used and gave."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.databases import opened
from benchmarks.filling import Filler
from benchmarks.server import UNLIMITED, Server
from benchmarks.told import Told
from oanim_server.accounts.values import Role

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.databases import Store
    from benchmarks.filling import Account

CONNECTIONS = 4
SERVICES = 4


class Slot(NamedTuple):
    """One measurement: what was done a second and how long it took, and microseconds of CPU an operation."""

    operations: int
    a_second: float
    p50_ms: float
    p99_ms: float
    refused: int
    refused_p99_ms: float
    server_us: float
    database_us: float
    client_us: float


def slot_of(told: dict[str, Any], *, server_seconds: float, database_seconds: float) -> Slot:
    """What a load generator told, and what others used of the CPU meanwhile."""
    of_one = 1e6 / max(told["operations"], 1)
    return Slot(
        operations=told["operations"],
        a_second=told["a_second"],
        p50_ms=told["p50_ms"],
        p99_ms=told["p99_ms"],
        refused=told["refused"],
        refused_p99_ms=told["refused_p99_ms"],
        server_us=server_seconds * of_one,
        database_us=database_seconds * of_one,
        client_us=told["client_cpu_seconds"] * of_one,
    )


# Measures for so many seconds.
Measure = Callable[[float], Slot]
# By the name of what was measured, a slot for each repetition.
Slots = dict[str, list[Slot]]


@dataclass(frozen=True, slots=True)
class Bed:
    """A server with a load generator before it."""

    store: Store
    server: Server
    load: Told
    accounts: list[Account]

    def slot(self, what: str, seconds: float, **how: Any) -> Slot:
        """Have a load made, and see what everybody used meanwhile.

        :raises RuntimeError: when a call has failed.
        """
        server, database = self.server.cpu_seconds, self.store.cpu_seconds()
        told = self.load.ask(what=what, seconds=seconds, **how)
        server, database = self.server.cpu_seconds - server, self.store.cpu_seconds() - database
        if told["failed"]:
            raise RuntimeError(f"{told['failed']} calls failed: {'; '.join(told['failures'])}")
        return slot_of(told, server_seconds=server, database_seconds=database)


class People(NamedTuple):
    """Who a store was filled with: owners of wallets, and services that work for them."""

    accounts: list[Account]
    services: list[Account]


def people(store: Store, wallets: int) -> People:
    """Open so many wallets on a new store."""
    with opened(store.settings) as database:
        filler = Filler(database)
        found = People(filler.open(Role.USER, wallets), filler.open(Role.SERVICE, SERVICES))
        filler.close()
    return found


@contextmanager
def served(
    store: Store,
    those: People,
    settings: Mapping[str, str] = UNLIMITED,
    *,
    connections: int = CONNECTIONS,
) -> Iterator[Bed]:
    """A server on a store, and the load of its services before it."""
    with (
        Server(store, settings) as server,
        Told(
            "benchmarks.load",
            address=server.address,
            tokens=[service.token for service in those.services],
            accounts=[account.text for account in those.accounts],
            connections=connections,
        ) as load,
    ):
        yield Bed(store, server, load, those.accounts)


def interleaved(slots: Mapping[str, Measure], warm_seconds: float, seconds: float, repetitions: int) -> Slots:
    """Run every slot once, briefly, and forget it; then all of them in turn, so often."""
    for measure in slots.values() if warm_seconds else ():
        measure(warm_seconds)
    ran: Slots = {name: [] for name in slots}
    for _ in range(repetitions):
        for name, measure in slots.items():
            ran[name].append(measure(seconds))
    return ran


def of(slots: Sequence[Slot], field: str) -> list[float]:
    """One number of every slot."""
    return [getattr(slot, field) for slot in slots]


def middle(slots: Sequence[Slot], field: str) -> float:
    """Its median."""
    return statistics.median(of(slots, field))
