"""What pricing refuses."""

from __future__ import annotations

from dataclasses import dataclass

from oanim_server.ledger.refusals import Refusal


@dataclass(eq=False)
class UnknownModel(Refusal):
    """The model is not in the price table, and this server refuses models that are not."""

    model: str
