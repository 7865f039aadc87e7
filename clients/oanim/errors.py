"""The errors of the SDK: one class for each reason of the contract, and two for a server that did not answer.

The typed attributes of a class are the metadata that the contract documents beside its reason; a test
compares them with the comments in error_reason.proto.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar

import grpc

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that stood in the way: a field of the request, or a limit, with the reason that it gives."""

    subject: str
    description: str
    reason: str = ""


class _Number:
    """A number out of an error's metadata; 0 where the server sent none."""

    def __set_name__(self, owner: type[OanimError], name: str) -> None:
        self._name = name

    def __get__(self, error: OanimError, owner: type[OanimError]) -> int:
        return int(error.metadata.get(self._name, "0"))


class _Text:
    """A text out of an error's metadata; empty where the server sent none."""

    def __set_name__(self, owner: type[OanimError], name: str) -> None:
        self._name = name

    def __get__(self, error: OanimError, owner: type[OanimError]) -> str:
        return error.metadata.get(self._name, "")


class _Instant:
    """An instant out of an error's metadata, in UTC; None where the server sent none."""

    def __set_name__(self, owner: type[OanimError], name: str) -> None:
        self._name = name

    def __get__(self, error: OanimError, owner: type[OanimError]) -> datetime | None:
        seconds = error.metadata.get(self._name)
        return None if seconds is None else datetime.fromtimestamp(int(seconds), UTC)


# A call that ended with one of these may have taken effect all the same.
_UNKNOWN_OUTCOMES = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
    }
)


class OanimError(Exception):
    """A call failed. The base of every error, and the class of reasons that this version does not know."""

    # The name in ErrorReason that a class stands for; empty where it stands for none.
    for_reason: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
        violations: tuple[Violation, ...] = (),
        field: str = "",
        idempotency_key: str = "",
        in_doubt: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = self.for_reason if reason is None else reason
        self.metadata = dict(metadata or {})
        self.retry_after_s = retry_after_s
        self.violations = violations
        self.field = field
        self.idempotency_key = idempotency_key
        self._in_doubt = in_doubt

    @property
    def outcome_unknown(self) -> bool:
        """True when the call may have taken effect: repeat it with `idempotency_key` to find out."""
        return self._in_doubt or self.code in _UNKNOWN_OUTCOMES

    def of_operation(self, idempotency_key: str, *, sent: bool) -> Self:
        """Tell one operation of a stream why that ended; what was sent and not answered is in doubt."""
        return type(self)(
            self.message,
            code=self.code,
            reason=self.reason,
            metadata=self.metadata,
            retry_after_s=self.retry_after_s,
            violations=self.violations,
            field=self.field,
            idempotency_key=idempotency_key,
            in_doubt=sent,
        )

    def repeatable_with(self, idempotency_key: str) -> Self:
        """Say which key repeats what failed."""
        self.idempotency_key = idempotency_key
        return self


class Unavailable(OanimError):
    """The server is away, or was lost before it answered."""


class DeadlineExceeded(OanimError):
    """No answer came in time: the outcome is unknown. Repeating with `idempotency_key` finds it out."""


class InsufficientCredits(OanimError):
    """The wallet cannot cover the amount."""

    for_reason = "INSUFFICIENT_CREDITS"
    required_micros = _Number()
    available_micros = _Number()
    wallet_seq = _Number()


class SpendLimitExceeded(OanimError):
    """The limit of a spend scope would be passed; `violations` names every one that blocks."""

    for_reason = "SPEND_LIMIT_EXCEEDED"
    scope = _Text()
    limit_micros = _Number()
    charged_micros = _Number()
    held_micros = _Number()
    required_micros = _Number()
    wallet_seq = _Number()


class LimitExceeded(OanimError):
    """A limit of the account or of the key would be passed.

    The attributes are of the first limit that blocks; `affordable_micros` is what would still fit under all
    of them. `violations` names every one, and every spend scope that blocks, too.
    """

    for_reason = "LIMIT_EXCEEDED"
    subject = _Text()
    period = _Text()
    limit_micros = _Number()
    charged_micros = _Number()
    held_micros = _Number()
    required_micros = _Number()
    affordable_micros = _Number()
    resets_at = _Instant()
    wallet_seq = _Number()


class AccountFrozen(OanimError):
    """An operator has stopped the account from starting work."""

    for_reason = "ACCOUNT_FROZEN"
    wallet_seq = _Number()


class ExceedsReservation(OanimError):
    """More was to be charged than the reservation holds."""

    for_reason = "EXCEEDS_RESERVATION"
    required_micros = _Number()
    held_micros = _Number()
    wallet_seq = _Number()


class ReservationEnded(OanimError):
    """The reservation has ended. The base of the three ways it does."""

    state = _Text()
    reserved_micros = _Number()
    captured_micros = _Number()
    wallet_seq = _Number()


class AlreadyCommitted(ReservationEnded):
    """The last capture of the reservation was made already."""

    for_reason = "ALREADY_COMMITTED"


class AlreadyReleased(ReservationEnded):
    """The reservation was released."""

    for_reason = "ALREADY_RELEASED"


class ReservationExpired(ReservationEnded):
    """The reservation's ttl ran out. Work that was done is still charged by one commit within 24 hours of
    that; a commit gets this error only after them.
    """

    for_reason = "RESERVATION_EXPIRED"


class StaleLease(OanimError):
    """The lease is not the render's, or has ended: stop, and ask for other work."""

    for_reason = "STALE_LEASE"
    render_id = _Text()
    epoch = _Number()


class ProviderNotConfigured(OanimError):
    """The server has no key for the provider of the model."""

    for_reason = "PROVIDER_NOT_CONFIGURED"
    provider = _Text()


class PurchasesNotConfigured(OanimError):
    """The server sells no credits."""

    for_reason = "PURCHASES_NOT_CONFIGURED"


class SignUpClosed(OanimError):
    """The server does not take new accounts."""

    for_reason = "SIGN_UP_CLOSED"


class TooManyKeys(OanimError):
    """The account has as many API keys as it may."""

    for_reason = "TOO_MANY_KEYS"
    limit = _Number()


class NotYourHold(OanimError):
    """Another caller opened the reservation and alone may commit, extend or release it."""

    for_reason = "NOT_YOUR_HOLD"
    opened_by = _Text()


class WrongRole(OanimError):
    """The key is good, its role may not make this call."""

    for_reason = "WRONG_ROLE"
    role = _Text()


class UnknownModel(OanimError):
    """The model is not in the price table, and the server refuses models that are not."""

    for_reason = "UNKNOWN_MODEL"
    model = _Text()


class InvalidField(OanimError):
    """A field is missing or has a value that it may not have; `field` names it."""

    for_reason = "INVALID_FIELD"


class IdempotencyKeyReused(OanimError):
    """The key named another request before; `idempotency_key` is that key."""

    for_reason = "IDEMPOTENCY_KEY_REUSED"


class EmailTaken(OanimError):
    """The e-mail address has an account."""

    for_reason = "EMAIL_TAKEN"


class NotFound(OanimError):
    """No such thing, or not the caller's."""

    for_reason = "NOT_FOUND"
    what = _Text()


class OutputGone(OanimError):
    """The output is no longer kept: a file by the provider, a video or a bundle by the service."""

    for_reason = "OUTPUT_GONE"


class RateLimited(OanimError):
    """Too many calls, or too much at once; `retry_after_s` says when to try again."""

    for_reason = "RATE_LIMITED"
    limit = _Text()


class Overloaded(OanimError):
    """The server has as much work as it takes; `retry_after_s` says when to try again."""

    for_reason = "OVERLOADED"


class TooLarge(OanimError):
    """A message, a file or what the account stores is over its limit."""

    for_reason = "TOO_LARGE"
    limit_bytes = _Number()


class KeyInvalid(OanimError):
    """There is no API key, it is unknown, or it was revoked."""

    for_reason = "KEY_INVALID"


class Draining(Unavailable):
    """The server is about to stop; another replica, or the next start, answers."""

    for_reason = "DRAINING"


class DatabaseAway(Unavailable):
    """The server's database does not answer."""

    for_reason = "DATABASE_AWAY"


class PaymentsAway(Unavailable):
    """The payment provider does not answer; repeating with `idempotency_key` pays for nothing twice."""

    for_reason = "PAYMENTS_AWAY"


class Conflict(OanimError):
    """The database refused three times because of concurrent changes. Nothing was changed."""

    for_reason = "CONFLICT"


class Internal(OanimError):
    """A fault in the server; `error_id` finds the entry in its log."""

    for_reason = "INTERNAL"
    error_id = _Text()


class ProviderRejected(OanimError):
    """The provider refused the work. Nothing was charged."""

    for_reason = "PROVIDER_REJECTED"


class ProviderFailed(OanimError):
    """The provider tried and failed. Nothing was charged."""

    for_reason = "PROVIDER_FAILED"


class ProviderUnknown(OanimError):
    """Whether the provider did the work cannot be found out. Nothing was charged."""

    for_reason = "PROVIDER_UNKNOWN"


class RenderFailed(OanimError):
    """Three workers tried and failed. Nothing was charged."""

    for_reason = "RENDER_FAILED"


class DeadlinePassed(OanimError):
    """The work, a generation or a render, was not done in its time. Nothing was charged."""

    for_reason = "DEADLINE_PASSED"
