"""What generation refuses."""

from __future__ import annotations

from dataclasses import dataclass

from oanim_server.ledger.refusals import Refusal


@dataclass(eq=False)
class ProviderNotConfigured(Refusal):
    """This server has no key for the provider of the model."""

    provider: str


@dataclass(eq=False)
class TooManyGenerations(Refusal):
    """As many generations of the account run as may."""

    limit: int
    retry_after_seconds: float = 5.0


@dataclass(eq=False)
class InputTooLarge(Refusal):
    """An uploaded input is over its limit."""

    limit_bytes: int


@dataclass(eq=False)
class UploadsFull(Refusal):
    """The account's uploaded inputs would pass what it may keep at a time."""

    limit_bytes: int


class OutputGone(Refusal):
    """The provider no longer has the output."""


class OutputUnavailable(Refusal):
    """The provider does not hand out the output now; asking again may help."""


class OutputElsewhere(OutputUnavailable):
    """The output is where this server may not read, or is nothing that can be read: now and later."""
