"""Meter: many operations a message, by what a second of the server's CPU does of them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks import targets
from benchmarks.bed import middle
from benchmarks.figures import Figure
from benchmarks.speed import cpu

if TYPE_CHECKING:
    from benchmarks.bed import Bed, Measure, Slots

SIZES = (100, 1_000)
STREAMS = 4
PLACES = {"many wallets": False, "one hot wallet": True}


def slots(bed: Bed) -> dict[str, Measure]:
    """What is run."""
    return {
        f"meter {size}, {place}": partial(bed.slot, "meter", streams=STREAMS, size=size, hot=hot)
        for size in SIZES
        for place, hot in PLACES.items()
    }


def figures(database: str, ran: Slots) -> list[Figure]:
    """What was found.

    :raises RuntimeError: when an operation was refused, which is less work.
    """
    found = []
    for place, hot in PLACES.items():
        for size in SIZES:
            metered = ran[f"meter {size}, {place}"]
            if any(slot.refused for slot in metered):
                raise RuntimeError(f"operations were refused in messages of {size}")
            found.append(
                Figure(
                    section=f"Meter, {STREAMS} streams, {database}",
                    name=f"operations per second of server CPU, {size:,} a message, {place}",
                    values=tuple(1e6 / slot.server_us for slot in metered),
                    unit="/s",
                    target=targets.METER.get((database, hot, size)),
                    note=f"{middle(metered, 'a_second'):,.0f}/s; CPU us an operation: {cpu(metered)}; "
                    f"a message's p50 {middle(metered, 'p50_ms'):.0f} ms",
                )
            )
    return found
