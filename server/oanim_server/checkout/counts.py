"""What Stripe's words came to since the start of this process: plain integers for the metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """Events and purchases, by what became of them here."""

    credited: int = 0
    applied: int = 0
    repeated: int = 0
    parked: int = 0
    quarantined: int = 0
    # Deliveries that were refused before anybody read them.
    rejected: int = 0
    # Sessions that were polled, and rounds of the reconciliation.
    polled: int = 0
    reconciled: int = 0
