"""Every class of refusals: its status code, its reason, and a sentence that names the next step.

A class that is not in the table is a fault of ours and is answered as one. Sentences are for people;
programs read the reason and the metadata.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from grpc import StatusCode

from oanim_server.accounts import refusals as accounts
from oanim_server.checkout import refusals as checkout
from oanim_server.generation import refusals as generation
from oanim_server.ledger import ids
from oanim_server.ledger import refusals as ledger
from oanim_server.ledger.values import MICROS_PER_USD
from oanim_server.pricing.refusals import UnknownModel
from oanim_server.rendering import refusals as rendering
from oanim_server.rpc.admission import RateLimited, TooLarge, seconds
from oanim_server.rpc.roles import WrongRole

if TYPE_CHECKING:
    from collections.abc import Callable


class Row(NamedTuple):
    """How a class of refusals is answered. `fields` are those of its fields that are its metadata."""

    code: StatusCode
    reason: str
    sentence: Callable[[Any], str]
    fields: tuple[str, ...] = ()
    retry: bool = False


def dollars(micros: int) -> str:
    """An amount as people read it: two decimals, or as many as it takes."""
    whole, rest = divmod(abs(micros), MICROS_PER_USD)
    decimals = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if micros < 0 else ''}${whole:,}.{decimals}"


def opener(account_id: int) -> str:
    """Who opened a hold, as the contract names it."""
    return ids.account_text(account_id) if account_id else "server"


def _blocked(refusal: ledger.SpendLimitExceeded) -> str:
    return "; ".join(blocked_scope(scope) for scope in refusal.blocked)


def blocked_scope(scope: ledger.BlockedScope) -> str:
    """What one scope may reach, and what would be too much."""
    spent = scope.charged_micros + scope.held_micros
    return (
        f"The spend scope {scope.scope} may reach {dollars(scope.limit_micros)}, has {dollars(spent)} and "
        f"needs {dollars(scope.required_micros)} more: raise its limit, or start a new scope"
    )


def blocked_limit(limit: ledger.BlockedLimit) -> str:
    """What a limit allows, what is used of it, when it resets and what is still affordable.

    A hold counts where its Reserve did, and a refusal is remembered: that day, week or month may have ended.
    """
    whose = "account" if limit.subject == "account" else f"key {limit.subject}"
    used = limit.charged_micros + limit.held_micros
    held = f", {dollars(limit.held_micros)} of it held," if limit.held_micros else ""
    resets = datetime.fromtimestamp(limit.resets_at, UTC)
    at = f"{resets:%Y-%m-%d %H:%M} UTC"
    when = f"ends at {at}"
    if resets <= datetime.now(UTC):
        when = f"ended at {at}: what is reserved anew counts in the present one"
    return (
        f"The {whose} may spend {dollars(limit.limit_micros)} a {limit.period}, has {dollars(used)}{held} "
        f"and needs {dollars(limit.required_micros)} more: {dollars(limit.affordable_micros)} is still "
        f"affordable, and the {limit.period} {when}"
    )


_ENDED = ("state", "reserved_micros", "captured_micros")

TABLE: dict[type[ledger.Refusal], Row] = {
    ledger.InsufficientCredits: Row(
        StatusCode.FAILED_PRECONDITION,
        "INSUFFICIENT_CREDITS",
        lambda r: (
            f"This needs {dollars(r.required_micros)} and {dollars(r.available_micros)} is available: add "
            "credits, or wait until running work gives back what it holds."
        ),
        ("required_micros", "available_micros"),
    ),
    ledger.SpendLimitExceeded: Row(
        StatusCode.FAILED_PRECONDITION, "SPEND_LIMIT_EXCEEDED", lambda r: f"{_blocked(r)}."
    ),
    ledger.LimitExceeded: Row(
        StatusCode.FAILED_PRECONDITION,
        "LIMIT_EXCEEDED",
        lambda r: f"{'; '.join([*map(blocked_limit, r.limits), *map(blocked_scope, r.blocked)])}.",
    ),
    ledger.AccountFrozen: Row(
        StatusCode.FAILED_PRECONDITION,
        "ACCOUNT_FROZEN",
        lambda _: "The account may not start work at present: ask whoever runs this server.",
    ),
    ledger.ExceedsReservation: Row(
        StatusCode.FAILED_PRECONDITION,
        "EXCEEDS_RESERVATION",
        lambda r: (
            f"{dollars(r.required_micros)} was to be charged and {dollars(r.held_micros)} is held: extend "
            "the reservation, then commit again."
        ),
        ("required_micros", "held_micros"),
    ),
    ledger.AlreadyCommitted: Row(
        StatusCode.FAILED_PRECONDITION,
        "ALREADY_COMMITTED",
        lambda r: (
            f"The last capture was made, {dollars(r.captured_micros)} in all: further work needs a "
            "reservation of its own."
        ),
        _ENDED,
    ),
    ledger.AlreadyReleased: Row(
        StatusCode.FAILED_PRECONDITION,
        "ALREADY_RELEASED",
        lambda _: "The reservation was released: further work needs a reservation of its own.",
        _ENDED,
    ),
    ledger.ReservationExpired: Row(
        StatusCode.FAILED_PRECONDITION,
        "RESERVATION_EXPIRED",
        lambda _: (
            "The reservation's time has run out: commit what was done within 24 hours of its end, and "
            "reserve anew for more."
        ),
        _ENDED,
    ),
    accounts.KeyInvalid: Row(
        StatusCode.UNAUTHENTICATED,
        "KEY_INVALID",
        lambda _: (
            "There is no API key with this call, or it is unknown or revoked: send it as "
            "`authorization: Bearer anim_...`."
        ),
    ),
    accounts.SignUpClosed: Row(
        StatusCode.FAILED_PRECONDITION,
        "SIGN_UP_CLOSED",
        lambda _: "This server takes no new accounts by itself: ask whoever runs it.",
    ),
    accounts.EmailTaken: Row(
        StatusCode.ALREADY_EXISTS,
        "EMAIL_TAKEN",
        lambda _: "This e-mail address has an account: use its API key, or another address.",
    ),
    accounts.TooManyKeys: Row(
        StatusCode.FAILED_PRECONDITION,
        "TOO_MANY_KEYS",
        lambda r: f"The account has {r.limit} API keys, as many as it may: revoke one.",
        ("limit",),
    ),
    accounts.TooManySignUps: Row(
        StatusCode.RESOURCE_EXHAUSTED,
        "RATE_LIMITED",
        lambda r: (
            f"This network address has signed up {r.limit} times within the hour: try again in "
            f"{seconds(r.retry_after_seconds)} s."
        ),
        ("limit",),
        retry=True,
    ),
    accounts.FreeCreditsGone: Row(
        StatusCode.RESOURCE_EXHAUSTED,
        "RATE_LIMITED",
        lambda r: (
            f"The free credits of this day, {dollars(r.limit)} in all, are given out: sign up after 00:00 "
            f"UTC, in {seconds(r.retry_after_seconds)} s."
        ),
        ("limit",),
        retry=True,
    ),
    ledger.NotYourHold: Row(
        StatusCode.PERMISSION_DENIED,
        "NOT_YOUR_HOLD",
        lambda r: f"This reservation was opened by {opener(r.opened_by)}, which alone may change it.",
        ("opened_by",),
    ),
    ledger.LimitedKey: Row(
        StatusCode.PERMISSION_DENIED,
        "WRONG_ROLE",
        lambda _: "This key has a limit, so it may not make keys or change limits: use one that has none.",
        ("role",),
    ),
    WrongRole: Row(
        StatusCode.PERMISSION_DENIED,
        "WRONG_ROLE",
        lambda r: f"A key of the role {r.role} may not make this call: use a key of another role.",
        ("role",),
    ),
    ledger.InvalidField: Row(
        StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", lambda r: f"{r.field}: {r.description}.", ("field",)
    ),
    UnknownModel: Row(
        StatusCode.INVALID_ARGUMENT,
        "UNKNOWN_MODEL",
        lambda r: f"The model {r.model} has no price here: ListPrices names those that have.",
        ("model",),
    ),
    ledger.IdempotencyKeyReused: Row(
        StatusCode.ALREADY_EXISTS,
        "IDEMPOTENCY_KEY_REUSED",
        lambda _: "The idempotency key named another request before: a new request takes a new key.",
        ("idempotency_key",),
    ),
    ledger.NotFound: Row(
        StatusCode.NOT_FOUND,
        "NOT_FOUND",
        lambda r: f"There is no such {r.what}, or it is not yours: check its id.",
        ("what",),
    ),
    generation.ProviderNotConfigured: Row(
        StatusCode.FAILED_PRECONDITION,
        "PROVIDER_NOT_CONFIGURED",
        lambda r: f"This server has no key for {r.provider}: ask whoever runs it to set one.",
        ("provider",),
    ),
    checkout.PurchasesNotConfigured: Row(
        StatusCode.FAILED_PRECONDITION,
        "PURCHASES_NOT_CONFIGURED",
        lambda _: "This server sells no credits: ask whoever runs it.",
    ),
    checkout.PaymentsAway: Row(
        StatusCode.UNAVAILABLE,
        "PAYMENTS_AWAY",
        lambda _: "The payment provider does not answer: repeat the call with the same idempotency key.",
        retry=True,
    ),
    generation.TooManyGenerations: Row(
        StatusCode.RESOURCE_EXHAUSTED,
        "RATE_LIMITED",
        lambda r: f"{r.limit} generations of the account run, as many as may: wait until one has ended.",
        ("limit",),
        retry=True,
    ),
    generation.InputTooLarge: Row(
        StatusCode.RESOURCE_EXHAUSTED,
        "TOO_LARGE",
        lambda r: f"An input may have {r.limit_bytes:,} bytes: send a smaller picture.",
        ("limit_bytes",),
    ),
    generation.UploadsFull: Row(
        StatusCode.RESOURCE_EXHAUSTED,
        "TOO_LARGE",
        lambda r: (
            f"The account's uploads may have {r.limit_bytes:,} bytes at a time: use them, or wait until they "
            "are deleted."
        ),
        ("limit_bytes",),
    ),
    generation.OutputGone: Row(
        StatusCode.NOT_FOUND,
        "OUTPUT_GONE",
        lambda _: "The provider no longer has this output: generate it anew.",
    ),
    generation.OutputUnavailable: Row(
        StatusCode.UNAVAILABLE,
        "PROVIDER_FAILED",
        lambda _: "The provider does not hand out this output now: try again shortly.",
        retry=True,
    ),
    generation.OutputElsewhere: Row(
        StatusCode.FAILED_PRECONDITION,
        "PROVIDER_FAILED",
        lambda _: (
            "The provider keeps this output where this server may not read: ask whoever runs it to look at "
            "OANIM_OUTPUT_HOSTS."
        ),
    ),
    rendering.StoreFull: Row(
        StatusCode.RESOURCE_EXHAUSTED,
        "OVERLOADED",
        lambda _: "There is no room for the file here now: send it again later.",
        retry=True,
    ),
    rendering.ContentGone: Row(
        StatusCode.NOT_FOUND,
        "OUTPUT_GONE",
        lambda _: "The file is no longer kept: render it anew.",
    ),
    rendering.StaleLease: Row(
        StatusCode.FAILED_PRECONDITION,
        "STALE_LEASE",
        lambda r: f"The lease of {r.render_id} in epoch {r.epoch} is over: stop, and ask for other work.",
        ("render_id", "epoch"),
    ),
    rendering.TooManyRenders: Row(
        StatusCode.RESOURCE_EXHAUSTED,
        "RATE_LIMITED",
        lambda r: f"{r.limit:,} renders of the account wait, as many as may: wait until some have ended.",
        ("limit",),
        retry=True,
    ),
    rendering.FileTooLarge: Row(
        StatusCode.RESOURCE_EXHAUSTED,
        "TOO_LARGE",
        lambda r: f"The file may have {r.limit_bytes:,} bytes: send a smaller one.",
        ("limit_bytes",),
    ),
    rendering.BundlesFull: Row(
        StatusCode.RESOURCE_EXHAUSTED,
        "TOO_LARGE",
        lambda r: (
            f"The bundles of the account's renders that have not ended may have {r.limit_bytes:,} bytes in "
            "all: wait until some have."
        ),
        ("limit_bytes",),
    ),
    RateLimited: Row(
        StatusCode.RESOURCE_EXHAUSTED,
        "RATE_LIMITED",
        lambda r: f"The limit of {r.limit} is reached: try again in {seconds(r.retry_after_seconds)} s.",
        ("limit",),
        retry=True,
    ),
    ledger.Overloaded: Row(
        StatusCode.RESOURCE_EXHAUSTED,
        "OVERLOADED",
        lambda _: "The server has as much work as it takes: try again shortly.",
        retry=True,
    ),
    TooLarge: Row(
        StatusCode.RESOURCE_EXHAUSTED,
        "TOO_LARGE",
        lambda r: f"This is larger than the {r.limit_bytes:,} bytes that are allowed: send less.",
        ("limit_bytes",),
    ),
    ledger.Draining: Row(
        StatusCode.UNAVAILABLE,
        "DRAINING",
        lambda _: "The server is about to stop: call again, another one or the next start answers.",
        retry=True,
    ),
    ledger.DatabaseAway: Row(
        StatusCode.UNAVAILABLE,
        "DATABASE_AWAY",
        lambda _: "The database does not answer: repeat the call with the same idempotency key.",
        retry=True,
    ),
    ledger.Conflict: Row(
        StatusCode.ABORTED,
        "CONFLICT",
        lambda _: "Concurrent changes were in the way and nothing was changed: repeat the call.",
        retry=True,
    ),
    ledger.Faulty: Row(
        StatusCode.INTERNAL,
        "INTERNAL",
        lambda r: f"A fault in the server. Its log knows more under {r.error_id}.",
        ("error_id",),
    ),
}
