"""What happens beyond what a server can do: goodput, refusals, and a tenant beside another at its limit.

Here every limit has its default. What gives the peak is offered two, four and eight times: that must not give
less.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from benchmarks import targets
from benchmarks.bed import interleaved, middle, of, people, served, slot_of
from benchmarks.figures import Figure, ratios
from benchmarks.streams import under_way
from benchmarks.told import Told

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.bed import Bed, Measure, Slot
    from benchmarks.databases import Store
    from benchmarks.filling import Account
    from benchmarks.plan import Plan

# What gives the peak: unary calls, and streams of Meter, which have two messages of 100 on the way.
CALLS, STREAMS, SIZE = 256, 4, 100
CONNECTIONS = 64
# In the open loop a stream is not read further while it has a message in the queue: less than it takes.
OPEN_STREAMS = 16
# More than fills a queue of 2,000 while the database stands still, for less than the server's patience.
ARRIVING, STALLED_SECONDS = 2_500, 3.0
# Calls a second: of a quiet tenant, and of one that asks for four times its limit.
QUIET, NOISY = 100, 800
# What takes the noisy one's burst first.
DRAINING, DRAINING_SECONDS = 1_000, 1.0
MAKING_SECONDS = 0.5


def measure(store: Store, plan: Plan) -> list[Figure]:
    """All of it, on a server of its own."""
    with served(store, people(store, plan.wallets), {}, connections=CONNECTIONS) as one:
        section = f"Backpressure, {store.name}"
        return [
            *_closed(one, section, plan),
            *_open(one, section, plan),
            *_tenants(one, section, plan),
            *_refusals(one, section, plan),
        ]


def _closed(one: Bed, section: str, plan: Plan) -> list[Figure]:
    """Two, four and eight times as much in flight as gives the peak: calls, and messages of Meter."""
    slots: dict[str, Measure] = {}
    for times in plan.times:
        slots[f"calls {times}"] = partial(one.slot, "pairs", in_flight=CALLS * times)
        slots[f"Meter {times}"] = partial(one.slot, "meter", streams=STREAMS * times, size=SIZE)
    ran = interleaved(slots, plan.warm_seconds, plan.pressure_seconds, plan.pressure_repetitions)
    in_flight = {"calls": CALLS, "Meter": STREAMS * under_way(SIZE) * SIZE}
    return [
        _goodput(
            section,
            f"goodput, {what}, {many * times:,} operations in flight against {many}",
            ran[f"{what} {times}"],
            ran[f"{what} 1"],
            times,
        )
        for what, many in in_flight.items()
        for times in plan.times[1:]
    ]


def _open(one: Bed, section: str, plan: Plan) -> list[Figure]:
    """Messages of Meter at their times: as many operations a second as were answered, and more."""
    peak = one.slot("meter", max(plan.pressure_seconds, 0.5), streams=OPEN_STREAMS, size=SIZE).a_second
    slots: dict[str, Measure] = {
        f"{times}": partial(
            one.slot, "paced meter", streams=OPEN_STREAMS, size=SIZE, per_second=round(peak * times)
        )
        for times in plan.times
    }
    ran = interleaved(slots, plan.warm_seconds, plan.pressure_seconds, plan.pressure_repetitions)
    return [
        _goodput(
            section,
            f"goodput, Meter, open loop, {times} times what is answered against once",
            ran[f"{times}"],
            ran["1"],
            times,
        )
        for times in plan.times[1:]
    ]


def _goodput(section: str, name: str, more: Sequence[Slot], once: Sequence[Slot], times: int) -> Figure:
    return Figure(
        section=section,
        name=name,
        values=ratios(of(more, "a_second"), of(once, "a_second")),
        target=targets.GOODPUT if times == 4 else None,
        note=f"{middle(more, 'a_second'):,.0f} of {middle(once, 'a_second'):,.0f}/s, "
        f"{sum(slot.refused for slot in more):,} refused, "
        f"p99 {middle(more, 'p99_ms'):,.0f} of {middle(once, 'p99_ms'):,.0f} ms",
    )


def _tenants(one: Bed, section: str, plan: Plan) -> list[Figure]:
    """A quiet tenant's p99, alone and beside one that is held at its rate."""
    seconds = plan.quiet_calls / QUIET
    with ExitStack() as stack:
        quiet, noisy = (
            stack.enter_context(_tenant(one.server.address, account)) for account in one.accounts[:2]
        )
        alone, beside, refused = [], [], 0
        for _ in range(plan.pressure_repetitions):
            found = quiet.ask(what="paced", seconds=seconds, per_second=QUIET)
            # Each time: it has its burst again.
            noisy.ask(what="paced", seconds=DRAINING_SECONDS, per_second=DRAINING)
            noisy.begin(what="paced", seconds=seconds + MAKING_SECONDS, per_second=NOISY)
            # It makes its calls before it sends the first: that is no work of the server's.
            time.sleep(MAKING_SECONDS)
            found_beside = quiet.ask(what="paced", seconds=seconds, per_second=QUIET)
            limited = noisy.end()
            alone.append(found["p99_ms"])
            beside.append(found_beside["p99_ms"])
            refused += limited["refused"]
    return [
        Figure(
            section=section,
            name="a quiet tenant's p99 beside one at its rate limit, against alone",
            values=ratios(beside, alone),
            target=targets.NEIGHBOUR_P99,
            note=f"{QUIET}/s beside {NOISY}/s of which {refused:,} were refused; "
            f"p99 {max(beside):.1f} against {max(alone):.1f} ms at the worst",
        )
    ]


def _refusals(one: Bed, section: str, plan: Plan) -> list[Figure]:
    """How soon a call is refused that finds the queue full, because the database takes no more."""
    slots = []
    for _ in range(plan.pressure_repetitions):
        with one.store.stalled():
            one.load.begin(what="paced", seconds=STALLED_SECONDS, per_second=ARRIVING)
            # It makes its calls before it sends the first.
            time.sleep(MAKING_SECONDS + STALLED_SECONDS)
        slots.append(slot_of(one.load.end(), server_seconds=0.0, database_seconds=0.0))
    if not all(slot.refused for slot in slots):
        raise RuntimeError("no call was refused, though the database took none")
    return [
        Figure(
            section=section,
            name=f"p99 of refusals, {ARRIVING:,} calls/s, the database stands still",
            values=tuple(of(slots, "refused_p99_ms")),
            unit="ms",
            target=targets.REFUSED_MS,
            note=f"{sum(slot.refused for slot in slots):,} refused, "
            f"{sum(slot.operations for slot in slots):,} answered when it goes on",
        )
    ]


def _tenant(address: str, account: Account) -> Told:
    return Told(
        "benchmarks.load", address=address, tokens=[account.token], accounts=[account.text], connections=1
    )
