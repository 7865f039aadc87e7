"""Every refusal becomes one sentence with the next step in it, and an exit code."""

from __future__ import annotations

import grpc
import pytest

from oanim import errors
from oanim.cli.failures import explained
from oanim.cli.refusals import failure_of

URL = "http://127.0.0.1:5001"


def said(error: errors.OanimError) -> tuple[str, int]:
    return explained(failure_of(error, url=URL))


def refusal(kind: type[errors.OanimError], **metadata: str) -> errors.OanimError:
    return kind("The server's words", code=grpc.StatusCode.FAILED_PRECONDITION, metadata=metadata)


def test_out_of_credits_says_what_is_missing_and_how_to_get_it() -> None:
    error = refusal(errors.InsufficientCredits, required_micros="350000", available_micros="120000")
    assert said(error) == (
        "this needs $0.35 and $0.12 is left. Top up: oanim billing buy --amount 10",
        3,
    )


def test_a_larger_want_of_credits_asks_for_a_larger_top_up() -> None:
    error = refusal(errors.InsufficientCredits, required_micros="15000001", available_micros="0")
    assert said(error)[0].endswith("oanim billing buy --amount 16")


def test_a_spending_limit_names_the_session_its_total_and_how_to_start_another() -> None:
    error = refusal(
        errors.SpendLimitExceeded,
        scope="session:night",
        limit_micros="100000",
        charged_micros="50000",
        held_micros="20000",
        required_micros="50000",
    )
    sentence, code = said(error)
    assert code == 3
    assert sentence.startswith(
        "this needs $0.05, and the session night has used $0.07 of the $0.10 that ANIMATE_MAX_USD_PER_RUN "
        "allows it. Raise that, or start a new session: export ANIMATE_SESSION_ID="
    )


def test_a_limit_of_a_key_says_which_key_and_what_would_let_it_through() -> None:
    error = refusal(
        errors.LimitExceeded,
        subject="AbCd1234",
        period="month",
        limit_micros="500000",
        charged_micros="500000",
        required_micros="3001",
        resets_at="1796083200",
    )
    assert said(error) == (
        (
            "this needs $0.003001, and the key AbCd1234 has used $0.50 of its $0.50 per month until "
            "2026-12-01 00:00:00 (UTC). $0.00 is still affordable. "
            "Raise the limit, with a key that has none: oanim limits set --month 0.51 --api-key AbCd1234"
        ),
        3,
    )


@pytest.mark.parametrize(
    ("kind", "code", "sentence"),
    [
        (errors.KeyInvalid, 4, f"{URL} does not accept this API key. Sign in: oanim login"),
        (errors.Unavailable, 5, f"{URL} does not answer. Try again in a moment, or check ANIMATE_API_URL."),
        (errors.DeadlineExceeded, 5, f"{URL} did not answer in time."),
        (errors.Draining, 5, f"{URL} cannot answer now: The server's words. Try again in a moment."),
        (errors.PaymentsAway, 5, "The server's words. Try again in a moment."),
        (
            errors.PurchasesNotConfigured,
            1,
            "The server's words. With a key of your own: export ANIMATE_FAL_KEY=your-key",
        ),
        (errors.RateLimited, 1, "The server's words. Try again in a moment."),
        (errors.UnknownModel, 2, "The server's words. The models there are: oanim pricing"),
        (errors.InvalidField, 2, "The server's words."),
        (errors.WrongRole, 1, "The server's words."),
        (errors.OanimError, 1, "The server's words."),
    ],
)
def test_a_refusal_has_a_sentence_and_an_exit_code(
    kind: type[errors.OanimError], code: int, sentence: str
) -> None:
    assert said(refusal(kind)) == (sentence, code)


def test_bad_input_is_named_field_by_field() -> None:
    error = errors.InvalidField(
        "no",
        code=grpc.StatusCode.INVALID_ARGUMENT,
        violations=(errors.Violation("model", "must not be empty"), errors.Violation("email", "needs an @")),
    )
    assert said(error) == ("model: must not be empty; email: needs an @.", 2)


def test_advice_is_given_once() -> None:
    error = errors.TooManyKeys("The account has 10: revoke one.", code=grpc.StatusCode.FAILED_PRECONDITION)
    assert said(error)[0] == "The account has 10. Revoke one: oanim api-keys revoke KEY_ID"


def test_a_time_to_wait_is_told() -> None:
    error = errors.RateLimited("Too many", code=grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=12.4)
    assert said(error) == ("Too many. Try again in 12 s.", 1)


def test_every_class_of_error_has_a_sentence() -> None:
    kinds = [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.OanimError)
    ]
    assert [kind for kind in kinds if not said(refusal(kind))[0]] == []


def test_what_nobody_foresaw_is_a_sentence_too() -> None:
    def broken() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError) as raised:
        broken()
    sentence, code = explained(raised.value)
    assert code == 1
    assert sentence.startswith("a fault in oanim itself, please report it: KeyError at test_refusals.py:")
