"""What accounts refuse."""

from __future__ import annotations

from dataclasses import dataclass

from oanim_server.ledger.refusals import Refusal


class KeyInvalid(Refusal):
    """There is no API key, it is unknown, or it was revoked."""


class SignUpClosed(Refusal):
    """This server does not take new accounts."""


class EmailTaken(Refusal):
    """The e-mail address has an account."""


@dataclass(eq=False)
class TooManySignUps(Refusal):
    """A network address has had its sign-ups of the hour."""

    limit: int
    retry_after_seconds: float


@dataclass(eq=False)
class FreeCreditsGone(Refusal):
    """The free credits of the UTC day are given out; `limit` is all of them, in micro-USD."""

    limit: int
    retry_after_seconds: float


@dataclass(eq=False)
class TooManyKeys(Refusal):
    """The account has as many keys as it may."""

    limit: int
