"""Refusals: small classes whose fields are the metadata that reaches the client.

A rule raises one; the table in `rpc/refusals.py` gives each class its status code and reason. The class
name of a refusal that a key remembers is stored, so those names are part of the database.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar


class Refusal(Exception):
    """An operation was refused, and changed nothing."""

    def __init__(self) -> None:
        super().__init__(type(self).__name__)

    # The wallet_seq that was looked at; the committer sets it.
    wallet_seq: int | None = None

    # Whether a key of a call that starts work remembers it.
    remembered: ClassVar[bool] = False

    # True when the key remembers it from an earlier call.
    replayed: bool = False

    def again(self) -> Refusal:
        """The same refusal for a repeated call; an exception is raised once."""
        repeated = self.revive(self.facts())
        repeated.wallet_seq = self.wallet_seq
        repeated.replayed = True
        return repeated

    @classmethod
    def revive(cls, facts: dict[str, Any]) -> Refusal:
        """Make it from its facts."""
        return cls(**facts)

    def facts(self) -> dict[str, Any]:
        """The fields, as JSON can carry them."""
        known: dict[str, Any] = getattr(self, "__dataclass_fields__", {})
        return {name: _plain(getattr(self, name)) for name in known}


@dataclass(eq=False)
class InsufficientCredits(Refusal):
    """The wallet cannot cover the amount."""

    required_micros: int
    available_micros: int
    remembered = True


@dataclass(frozen=True)
class BlockedScope:
    """A spend scope whose limit would be passed."""

    scope: str
    limit_micros: int
    charged_micros: int
    held_micros: int
    required_micros: int


@dataclass(eq=False)
class SpendLimitExceeded(Refusal):
    """The limits of one or more spend scopes would be passed."""

    blocked: list[BlockedScope]
    remembered = True

    @classmethod
    def revive(cls, facts: dict[str, Any]) -> SpendLimitExceeded:
        return cls([BlockedScope(**scope) for scope in facts["blocked"]])


@dataclass(frozen=True)
class BlockedLimit:
    """A limit that would be passed. `subject` is a key's id, or `account`; `resets_at` seconds since 1970."""

    subject: str
    period: str
    limit_micros: int
    charged_micros: int
    held_micros: int
    required_micros: int
    affordable_micros: int
    resets_at: int


@dataclass(eq=False)
class LimitExceeded(Refusal):
    """Limits of the account or of the key would be passed, and maybe those of spend scopes, too."""

    limits: list[BlockedLimit]
    blocked: list[BlockedScope]
    remembered = True

    @classmethod
    def revive(cls, facts: dict[str, Any]) -> LimitExceeded:
        return cls(
            [BlockedLimit(**limit) for limit in facts["limits"]],
            [BlockedScope(**scope) for scope in facts["blocked"]],
        )


@dataclass(eq=False)
class LimitedKey(Refusal):
    """The key has a limit: it may not make a key, or set or delete a limit. Only users have limits."""

    role: str = "user"


@dataclass(eq=False)
class AccountFrozen(Refusal):
    """An operator has stopped the account from starting work."""

    remembered = True


@dataclass(eq=False)
class ExceedsReservation(Refusal):
    """More was to be charged than the reservation holds."""

    required_micros: int
    held_micros: int


@dataclass(eq=False)
class ReservationEnded(Refusal):
    """The reservation has left the state that the operation needs."""

    state: str
    reserved_micros: int
    captured_micros: int


class AlreadyCommitted(ReservationEnded):
    """The last capture was made."""


class AlreadyReleased(ReservationEnded):
    """The rest was given back."""


class ReservationExpired(ReservationEnded):
    """The ttl ran out; for a Commit, the time to settle late, too."""


@dataclass(eq=False)
class NotYourHold(Refusal):
    """Another caller opened the reservation. `opened_by` is an account's id, 0 for the server."""

    opened_by: int


@dataclass(eq=False)
class NotFound(Refusal):
    """No such thing, or not the caller's."""

    what: str


@dataclass(eq=False)
class InvalidField(Refusal):
    """A field has a value that it may not have."""

    field: str
    description: str


@dataclass(eq=False)
class IdempotencyKeyReused(Refusal):
    """The key named another request before."""

    idempotency_key: str


class Conflict(Refusal):
    """The database refused three times because of concurrent changes."""


class Overloaded(Refusal):
    """The queue is full."""


class DatabaseAway(Refusal):
    """The database does not answer."""


class OutcomeUnknown(TimeoutError):
    """A commit was not answered, and the database did not say in time what became of it.

    No refusal: the operation may have been applied. Its key tells, when it is asked again.
    """


class Draining(Refusal):
    """The server is about to stop."""


class Faulty(Refusal):
    """A fault of ours. The log has the exception under `error_id`."""

    def __init__(self, error_id: str) -> None:
        super().__init__()
        self.error_id = error_id


def _plain(value: Any) -> Any:
    return [asdict(item) for item in value] if isinstance(value, list) else value


REMEMBERED: dict[str, type[Refusal]] = {
    refusal.__name__: refusal
    for refusal in (InsufficientCredits, SpendLimitExceeded, LimitExceeded, AccountFrozen)
}
