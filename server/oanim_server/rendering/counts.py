"""What rendering came to since the start of this process: plain integers for the metrics."""

from __future__ import annotations

from dataclasses import dataclass, field

from oanim_server.rendering.values import Reason, State


@dataclass(slots=True)
class Counts:
    """Renders by how they ended here, and what happened on the way."""

    submitted: int = 0
    ended: dict[State, int] = field(default_factory=lambda: {State.SUCCEEDED: 0, State.CANCELLED: 0})
    failed: dict[Reason, int] = field(default_factory=lambda: dict.fromkeys(Reason, 0))
    # Leases that were taken here, and how those ended that brought no video.
    leases: int = 0
    given_up: int = 0
    handed_back: int = 0
    lost: int = 0
    # How many wait, and how many are leased, over all replicas, as the last sweep found them.
    queued: int = 0
    rendering: int = 0
