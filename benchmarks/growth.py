"""What growing costs: groups and single operations on a large database against the same on a small one.

In this process and without a network, so that nothing but the ledger and its database is measured; both
databases are open at once and take turns.
"""

from __future__ import annotations

import random
import statistics
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import targets
from benchmarks.databases import opened
from benchmarks.figures import Figure, ratios
from benchmarks.filling import Account, Filler
from benchmarks.told import Told

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.databases import Store
    from benchmarks.plan import Plan
    from oanim_server.ledger.group import Work

GROUP = 100
WARMING = 10


class Grown(NamedTuple):
    """A store that was filled: the accounts in it, and the one that most of a history belongs to."""

    store: Store
    accounts: list[Account]
    great: Account


def grow(stores: Sequence[Store], plan: Plan, *, keys: str, reservations: int, great: int) -> list[Grown]:
    """Fill stores with so many reservations each, all at the same time; `great` of them in one wallet."""
    with ExitStack() as stack:
        filling = [
            stack.enter_context(Told("benchmarks.filling", settings=store.settings)) for store in stores
        ]
        for one in filling:
            one.begin(keys=keys, wallets=plan.wallets, reservations=reservations, great=great)
        return [_grown(store, **one.end()) for store, one in zip(stores, filling, strict=True)]


def measure(small: Grown, large: Grown, plan: Plan, *, keys: str) -> list[Figure]:
    """How much slower the large one is."""
    with opened(small.store.settings) as of_small, opened(large.store.settings) as of_large:
        sizes = [_Steady(Filler(of_small, keys), small), _Steady(Filler(of_large, keys), large)]
        rates: tuple[list[float], list[float]] = ([], [])
        latencies: tuple[list[float], list[float]] = ([], [])
        for one in sizes:
            one.run(plan.grouped_operations // WARMING, GROUP)
        for _ in range(plan.repetitions):
            for one, found in zip(sizes, rates, strict=True):
                took = one.run(plan.grouped_operations, GROUP)
                found.append(GROUP * len(took) / sum(took))
            for one, found in zip(sizes, latencies, strict=True):
                found.append(statistics.median(one.run(plan.single_operations, 1)) * 1e3)
        for one in sizes:
            one.filler.close()
    section = f"Growth: {plan.large:,} reservations against {plan.small:,}, {large.store.name}"
    ordered = keys == "UUIDv7"
    middle = statistics.median
    return [
        Figure(
            section=section,
            name=f"operations/s at {GROUP} a group, {keys} keys",
            values=ratios(rates[1], rates[0]),
            target=targets.GROWTH_RATE_ORDERED if ordered else targets.GROWTH_RATE_RANDOM,
            note=f"{middle(rates[1]):,.0f} of {middle(rates[0]):,.0f}/s, in process",
        ),
        Figure(
            section=section,
            name=f"one operation's p50, {keys} keys",
            values=ratios(latencies[1], latencies[0]),
            target=targets.GROWTH_LATENCY,
            note=f"{middle(latencies[1]):.2f} of {middle(latencies[0]):.2f} ms, in process",
        ),
    ]


class _Steady:
    """Half Reserve, half Commit: each group charges what the one before it held."""

    def __init__(self, filler: Filler, grown: Grown) -> None:
        self.filler = filler
        self._wallets = [account.wallet_id for account in grown.accounts]
        self._held: list[tuple[int, int]] = []

    def run(self, operations: int, size: int) -> list[float]:
        """Seconds of each of the groups that so many operations make."""
        return [self._group(size) for _ in range(operations // size)]

    def _group(self, size: int) -> float:
        held = self._held[: max(size // 2, 1)]
        del self._held[: len(held)]
        works: list[Work] = [self.filler.charge(*one) for one in held]
        works += [self.filler.reserve(random.choice(self._wallets)) for _ in range(size - len(works))]
        began = time.perf_counter()
        answers = self.filler.commit(works)
        took = time.perf_counter() - began
        self._held += [
            (answer.wallet.wallet_id, answer.reservation.number) for answer in answers[len(held) :]
        ]
        return took


def _grown(store: Store, accounts: list[tuple[int, str]], great: tuple[int, str]) -> Grown:
    return Grown(store, [Account(*account) for account in accounts], Account(*great))
