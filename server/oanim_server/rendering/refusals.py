"""What rendering refuses."""

from __future__ import annotations

from dataclasses import dataclass

from oanim_server.ledger.refusals import Refusal


@dataclass(eq=False)
class StaleLease(Refusal):
    """The lease is not the render's, or has ended. `render_id` is the contract's."""

    render_id: str
    epoch: int


@dataclass(eq=False)
class FileTooLarge(Refusal):
    """A bundle or a video is over its limit."""

    limit_bytes: int


@dataclass(eq=False)
class BundlesFull(Refusal):
    """The bundles of the account's renders that have not ended would pass what they may come to."""

    limit_bytes: int


@dataclass(eq=False)
class TooManyRenders(Refusal):
    """As many renders of the account wait or are rendered as may."""

    limit: int
    retry_after_seconds: float = 60.0


@dataclass(eq=False)
class StoreFull(Refusal):
    """There is no room for another file."""

    retry_after_seconds: float = 30.0


class ContentGone(Refusal):
    """The file is no longer kept."""
