"""Reserve and Commit one call at a time: against the server's echo, and against a transaction per call."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks import targets
from benchmarks.bed import middle, of, served
from benchmarks.figures import Figure, ratios
from benchmarks.server import UNLIMITED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.bed import Bed, Measure, People, Slot, Slots
    from benchmarks.databases import Store
    from benchmarks.plan import Plan

# Where groups meet a transaction per call, and what a user would write.
COMPARED = 64


def slots(bed: Bed, plan: Plan) -> dict[str, Measure]:
    """What is run."""
    measured: dict[str, Measure] = {}
    for in_flight in plan.in_flight:
        measured[f"echo {in_flight}"] = partial(bed.slot, "echo", in_flight=in_flight)
        measured[f"many {in_flight}"] = partial(bed.slot, "pairs", in_flight=in_flight)
        measured[f"hot {in_flight}"] = partial(bed.slot, "pairs", in_flight=in_flight, hot=True)
    return measured


def figures(database: str, ran: Slots, plan: Plan) -> list[Figure]:
    """What was found."""
    section = _section(database)
    found = []
    for hot in (False, True):
        for in_flight in plan.in_flight:
            calls, echo = ran[f"{'hot' if hot else 'many'} {in_flight}"], ran[f"echo {in_flight}"]
            wallets = "one hot wallet" if hot else "many wallets"
            found.append(
                Figure(
                    section=section,
                    name=f"against echo, {wallets}, {in_flight} in flight",
                    values=ratios(of(calls, "a_second"), of(echo, "a_second")),
                    target=targets.AGAINST_ECHO.get((database, hot, in_flight)),
                    note=beside(calls, echo),
                )
            )
    calls, echo = ran[f"many {COMPARED}"], ran[f"echo {COMPARED}"]
    found.append(
        Figure(
            section=section,
            name=f"p99 against echo's, {COMPARED} in flight",
            values=ratios(of(calls, "p99_ms"), of(echo, "p99_ms")),
            target=targets.P99_AGAINST_ECHO,
            note=f"{middle(calls, 'p99_ms'):.1f} ms of {middle(echo, 'p99_ms'):.1f} ms; "
            f"p50 {middle(calls, 'p50_ms'):.1f} of {middle(echo, 'p50_ms'):.1f}",
        )
    )
    return found


def against_single(store: Store, those: People, plan: Plan) -> Figure:
    """Groups, and groups of one operation, which are a transaction per call: by turns on one database."""
    ran: Slots = {"groups": [], "single": []}
    kinds = {"groups": UNLIMITED, "single": {**UNLIMITED, "OANIM_GROUP": "1"}}
    for _ in range(plan.repetitions):
        for kind, settings in kinds.items():
            with served(store, those, settings) as bed:
                if plan.warm_seconds:
                    bed.slot("pairs", plan.warm_seconds, in_flight=COMPARED)
                ran[kind].append(bed.slot("pairs", plan.slot_seconds, in_flight=COMPARED))
    groups, single = ran["groups"], ran["single"]
    return Figure(
        section=_section(store.name),
        name=f"groups against a transaction per call, {COMPARED} in flight",
        values=ratios(of(groups, "a_second"), of(single, "a_second")),
        target=targets.AGAINST_SINGLE,
        note=beside(groups, single),
    )


def _section(database: str) -> str:
    return f"Reserve and Commit, unary, {database}"


def beside(calls: Sequence[Slot], other: Sequence[Slot]) -> str:
    """How fast each was, and who used how much CPU."""
    rates = f"{middle(calls, 'a_second'):,.0f} of {middle(other, 'a_second'):,.0f}/s"
    return f"{rates}; CPU us a call: {cpu(calls)} of {cpu(other)}"


def cpu(slots: Sequence[Slot]) -> str:
    """Who used how much."""
    used = {
        "server": middle(slots, "server_us"),
        "database": middle(slots, "database_us"),
        "load": middle(slots, "client_us"),
    }
    return " + ".join(
        f"{name} {micros:.{1 if micros < 20 else 0}f}" for name, micros in used.items() if micros
    )
