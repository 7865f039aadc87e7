"""What the work came to since the start of this process: plain integers for the metrics."""

from __future__ import annotations

from dataclasses import dataclass, field

from oanim_server.generation.values import Reason


@dataclass(slots=True)
class Counts:
    """Generations by how they ended here, and what happened on the way."""

    started: int = 0
    succeeded: int = 0
    cancelled: int = 0
    failed: dict[Reason, int] = field(default_factory=lambda: dict.fromkeys(Reason, 0))
    # POSTs that may have left this machine.
    submits: int = 0
    takeovers: int = 0
    leases_lost: int = 0
    # How many jobs this process works on now.
    running: int = 0
