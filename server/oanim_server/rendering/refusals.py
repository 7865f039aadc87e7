"""What rendering refuses."""

from __future__ import annotations

from dataclasses import dataclass

from oanim_server.ledger.refusals import Refusal


@dataclass(eq=False)
class StoreFull(Refusal):
    """There is no room for another file."""

    retry_after_seconds: float = 30.0


class ContentGone(Refusal):
    """The file is no longer kept."""
