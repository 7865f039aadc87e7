"""Reserve and Commit one call at a time: against the server's echo, and against a transaction per call."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks import targets
from benchmarks.bed import middle, of
from benchmarks.figures import Figure, ratios

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.bed import Bed, Measure, Slot, Slots
    from benchmarks.plan import Plan

# Where groups meet a transaction per call, and what a user would write.
COMPARED = 64


def slots(bed: Bed, single: Bed, plan: Plan) -> dict[str, Measure]:
    """What is run; `single` is the same server with groups of one operation."""
    measured: dict[str, Measure] = {}
    for in_flight in plan.in_flight:
        measured[f"echo {in_flight}"] = partial(bed.slot, "echo", in_flight=in_flight)
        measured[f"many {in_flight}"] = partial(bed.slot, "pairs", in_flight=in_flight)
        measured[f"hot {in_flight}"] = partial(bed.slot, "pairs", in_flight=in_flight, hot=True)
    measured["single"] = partial(single.slot, "pairs", in_flight=COMPARED)
    return measured


def figures(database: str, ran: Slots, plan: Plan) -> list[Figure]:
    """What was found."""
    section = f"Reserve and Commit, unary, {database}"
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
    calls, echo, single = ran[f"many {COMPARED}"], ran[f"echo {COMPARED}"], ran["single"]
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
    found.append(
        Figure(
            section=section,
            name=f"groups against a transaction per call, {COMPARED} in flight",
            values=ratios(of(calls, "a_second"), of(single, "a_second")),
            target=targets.AGAINST_SINGLE,
            note=beside(calls, single),
        )
    )
    return found


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
