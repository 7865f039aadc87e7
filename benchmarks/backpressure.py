"""What happens beyond what a server can do: goodput, refusals, and a tenant beside another at its limit.

Here every limit has its default. A closed loop of 256 gives the peak; more of it must not give less. A call
that is refused is made again when the refusal says, as the SDK does.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from benchmarks import targets
from benchmarks.bed import bed, interleaved, middle, of
from benchmarks.figures import Figure, ratios
from benchmarks.told import Told

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.bed import Bed, Measure, Slot
    from benchmarks.databases import Store
    from benchmarks.filling import Account
    from benchmarks.plan import Plan

PEAK = 256
TIMES = (1, 2, 4, 8)
CONNECTIONS = 64
# Calls a second: of a quiet tenant, and of one that asks for twice its limit.
QUIET, NOISY = 100, 400


def measure(store: Store, plan: Plan) -> list[Figure]:
    """All of it, on a server of its own."""
    with bed(store, plan.wallets, {}, connections=CONNECTIONS) as one:
        slots: dict[str, Measure] = {
            f"{PEAK * times}": partial(one.slot, "pairs", in_flight=PEAK * times) for times in TIMES
        }
        ran = interleaved(slots, plan)
        section = f"Backpressure, {store.name}"
        found = [
            Figure(
                section=section,
                name=f"goodput, {PEAK * times:,} in flight against {PEAK}",
                values=ratios(of(ran[f"{PEAK * times}"], "a_second"), of(ran[f"{PEAK}"], "a_second")),
                target=targets.GOODPUT if times == 4 else None,
                note=_closed(ran[f"{PEAK * times}"]),
            )
            for times in TIMES[1:]
        ]
        return [*found, *_tenants(one, section, plan)]


def _closed(slots: Sequence[Slot]) -> str:
    return (
        f"{middle(slots, 'a_second'):,.0f}/s, {sum(slot.refused for slot in slots):,} refused, "
        f"p99 {middle(slots, 'p99_ms'):,.0f} ms"
    )


def _tenants(one: Bed, section: str, plan: Plan) -> list[Figure]:
    """A quiet tenant's p99, alone and beside one that is held at its rate."""
    seconds = plan.quiet_calls / QUIET
    with ExitStack() as stack:
        quiet, noisy = (
            stack.enter_context(_tenant(one.server.address, account)) for account in one.accounts[:2]
        )
        alone, beside, refused = [], [], 0
        for repetition in range(plan.repetitions + 1):
            found = quiet.ask(what="paced", seconds=seconds, per_second=QUIET)
            noisy.begin(what="paced", seconds=seconds, per_second=NOISY)
            found_beside = quiet.ask(what="paced", seconds=seconds, per_second=QUIET)
            limited = noisy.end()
            if repetition:  # the first takes what the noisy one had in hand
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


def _tenant(address: str, account: Account) -> Told:
    return Told(
        "benchmarks.load", address=address, token=account.token, accounts=[account.text], connections=1
    )
