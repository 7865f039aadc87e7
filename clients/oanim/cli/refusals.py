"""Says what the service's refusals, and its silence, mean to somebody at a terminal."""

from __future__ import annotations

from oanim import errors
from oanim.cli.failures import (
    AWAY,
    FAILED,
    NO_CREDITS,
    NOT_SIGNED_IN,
    USAGE,
    Failure,
    key_reused,
    over_session_limit,
    stopped,
)
from oanim.cli.money import MICROS_PER_CENT, dollars, top_up, usd

# How the contract names the account where it may name one of its keys.
_ACCOUNT = "account"

# The first class that fits counts. {said} is the service's own sentence; {fact} is that without the advice
# after its colon, where ours is better; {when} is when to try again.
_SENTENCES: tuple[tuple[type[errors.OanimError], int, str], ...] = (
    (errors.KeyInvalid, NOT_SIGNED_IN, "{url} does not accept this API key. Sign in: oanim login"),
    (errors.DeadlineExceeded, AWAY, "{url} did not answer in time."),
    (errors.Draining, AWAY, "{url} cannot answer now: {fact} {when}"),
    (errors.DatabaseAway, AWAY, "{url} cannot answer now: {fact} {when}"),
    (errors.Overloaded, AWAY, "{url} cannot answer now: {fact} {when}"),
    (errors.PaymentsAway, AWAY, "{fact} {when}"),
    (errors.Unavailable, AWAY, "{url} does not answer. Try again in a moment, or check ANIMATE_API_URL."),
    (errors.RateLimited, FAILED, "{fact} {when}"),
    (errors.UnknownModel, USAGE, "{fact} The models there are: oanim pricing"),
    (errors.InvalidField, USAGE, "{fields}"),
    (errors.EmailTaken, FAILED, "this e-mail address has an account. Sign in with its key: oanim login"),
    (errors.TooManyKeys, FAILED, "{fact} Revoke one: oanim api-keys revoke KEY_ID"),
    (
        errors.ProviderNotConfigured,
        FAILED,
        "{said} With a key of your own: export ANIMATE_FAL_KEY=your-key",
    ),
    (
        errors.PurchasesNotConfigured,
        FAILED,
        "{said} With a key of your own: export ANIMATE_FAL_KEY=your-key",
    ),
    (errors.Internal, FAILED, "a fault in the service: {said} Report it with the number {number}."),
    (errors.OanimError, FAILED, "{said}"),
)


def failure_of(error: errors.OanimError, *, url: str) -> Failure:
    """Explain an error of the SDK; the notes made of it on the way go along."""
    failure = _failure_of(error, url)
    for note in getattr(error, "__notes__", []):
        failure.add_note(note)
    return failure


def _failure_of(error: errors.OanimError, url: str) -> Failure:
    if isinstance(error, errors.InsufficientCredits):
        return insufficient_credits(
            required_micros=error.required_micros, available_micros=error.available_micros
        )
    if isinstance(error, errors.LimitExceeded):
        return _over_limits(error)
    if isinstance(error, errors.SpendLimitExceeded):
        return over_session_limit(
            scope=error.scope,
            needed_micros=error.required_micros,
            total_micros=error.charged_micros + error.held_micros,
            limit_micros=error.limit_micros,
        )
    if isinstance(error, errors.IdempotencyKeyReused):
        return key_reused()
    if isinstance(error, errors.Unavailable) and "certificate" in error.message.lower():
        return Failure(
            f"{url} shows a certificate that is not trusted. "
            "The certificates of a private authority go into OANIM_CA_FILE.",
            AWAY,
        )
    exit_code, sentence = next((code, text) for kind, code, text in _SENTENCES if isinstance(error, kind))
    said = stopped(error.message.strip() or "the service refused, without saying why")
    fields = "; ".join(f"{each.subject}: {each.description}" for each in error.violations)
    when = "Try again in a moment."
    if error.retry_after_s is not None:
        when = f"Try again in {max(1, round(error.retry_after_s))} s."
    number = error.metadata.get("error_id", "unknown")
    fields = stopped(fields) if fields else said
    return Failure(
        sentence.format(url=url, said=said, fact=_fact(said), fields=fields, when=when, number=number),
        exit_code,
    )


def _fact(said: str) -> str:
    """Leave out the advice that the service's sentences have after a colon."""
    return stopped(said.partition(": ")[0])


def insufficient_credits(*, required_micros: int, available_micros: int) -> Failure:
    """Refuse what the credits do not cover."""
    return Failure(
        f"this needs {dollars(required_micros)} and {dollars(available_micros)} is left. "
        f"{top_up(required_micros - available_micros)}",
        NO_CREDITS,
    )


def _over_limits(error: errors.LimitExceeded) -> Failure:
    """Explain the limit that the numbers are of, then each other one that blocks, in the service's words."""
    used = error.charged_micros + error.held_micros
    whose, how, option = "the account", "Raise the limit", ""
    if error.subject != _ACCOUNT:
        # A key that has a limit may not change one.
        whose, how = f"the key {error.subject}", "Raise the limit, with a key that has none"
        option = f" --api-key {error.subject}"
    held = f" ({dollars(error.held_micros)} of it held)" if error.held_micros else ""
    resets = f"{error.resets_at:%Y-%m-%d %H:%M:%S} (UTC)" if error.resets_at else "the next one begins"
    # What would let this through, in whole cents.
    enough = -(-(used + error.required_micros) // MICROS_PER_CENT) * MICROS_PER_CENT
    failure = Failure(
        f"this needs {dollars(error.required_micros)}, and {whose} has used {dollars(used)}{held} of its "
        f"{dollars(error.limit_micros)} per {error.period} until {resets}. "
        f"{dollars(error.affordable_micros)} is still affordable. "
        f"{how}: oanim limits set --{error.period} {usd(enough)}{option}",
        NO_CREDITS,
    )
    others = list(error.violations)
    if first := next((each for each in others if each.reason == error.for_reason), None):
        others.remove(first)
    for violation in others:
        failure.add_note(stopped(violation.description))
    if others:
        failure.add_note("All of them have to let this through. See the limits: oanim limits list")
    return failure
