"""What a server's memory grows by while it works, besides the pages of its database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import meter, targets
from benchmarks.figures import Figure

if TYPE_CHECKING:
    from benchmarks.bed import Bed
    from benchmarks.plan import Plan

MEGABYTE = 1e6
IN_FLIGHT = 256
OPERATIONS = "oanim_operations_total"


class Memory:
    """A server's memory from when it is warm; what others measure on it meanwhile counts as work."""

    def __init__(self, bed: Bed, plan: Plan) -> None:
        self._bed = bed
        self._plan = plan
        bed.slot("pairs", plan.slot_seconds, in_flight=IN_FLIGHT)
        self._began_bytes = bed.server.memory_bytes
        self._began_at = bed.server.count(OPERATIONS)

    def figures(self) -> list[Figure]:
        """What it grew by, once it has done as much as was planned."""
        while (done := self._bed.server.count(OPERATIONS) - self._began_at) < self._plan.memory_operations:
            self._bed.slot("meter", self._plan.slot_seconds, streams=meter.STREAMS, size=meter.SIZES[0])
        grown = (self._bed.server.memory_bytes - self._began_bytes) / MEGABYTE
        return [
            Figure(
                section="Memory",
                name=f"grown over {self._plan.memory_operations:,} operations, {self._bed.store.name}",
                values=(grown,),
                unit="MB",
                target=targets.MEMORY_MB,
                note=f"{done:,.0f} operations; besides the page cache",
            )
        ]
