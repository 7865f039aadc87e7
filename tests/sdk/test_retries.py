"""What is repeated, and what never is, over a real wire."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from grpc import StatusCode

from oanim import errors
from oanim.calls import generation
from openanimate.metering.v1.checkout_service_pb2 import (
    Checkout,
    CheckoutState,
    CreateCheckoutResponse,
    WatchCheckoutResponse,
)
from openanimate.metering.v1.generate_service_pb2 import (
    DownloadOutputResponse,
    GenerateResponse,
    GenerationAccepted,
    GenerationProgress,
    GenerationQueued,
    GenerationSucceeded,
    UploadInputResponse,
)
from openanimate.metering.v1.wallet_pb2 import Wallet
from openanimate.metering.v1.wallet_service_pb2 import (
    GetWalletResponse,
    ReserveResponse,
    WatchWalletResponse,
)
from tests.sdk.driving import Tasks, Threads
from tests.sdk.scripted import Refusal, ScriptedServer

if TYPE_CHECKING:
    from tests.sdk.driving import Driver

AWAY = Refusal(StatusCode.UNAVAILABLE, "DATABASE_AWAY", retry_after_s=0.01)
CONFLICT = Refusal(StatusCode.ABORTED, "CONFLICT", retry_after_s=0.01)
PAYMENTS_AWAY = Refusal(StatusCode.UNAVAILABLE, "PAYMENTS_AWAY", retry_after_s=0.01)
OVERLOADED = Refusal(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after_s=0.01)


def accepted(*, replayed: bool) -> GenerateResponse:
    return GenerateResponse(accepted=GenerationAccepted(replayed=replayed))


def state(wallet_seq: int) -> WatchWalletResponse:
    return WatchWalletResponse(wallet=Wallet(wallet_seq=wallet_seq))


class StopAskingError(Exception):
    """A caller has waited enough."""


def checkout(state: CheckoutState.ValueType) -> WatchCheckoutResponse:
    return WatchCheckoutResponse(checkout=Checkout(state=state))


OPEN = checkout(CheckoutState.CHECKOUT_STATE_OPEN)
PROCESSING = checkout(CheckoutState.CHECKOUT_STATE_PROCESSING)
PAID = checkout(CheckoutState.CHECKOUT_STATE_PAID)
QUEUED = GenerateResponse(queued=GenerationQueued(position=2))
PROGRESS = GenerateResponse(progress=GenerationProgress(message="half"))
SUCCEEDED = GenerateResponse(succeeded=GenerationSucceeded())


@pytest.mark.parametrize("passing", [AWAY, CONFLICT, OVERLOADED], ids=lambda refusal: refusal.reason)
def test_a_refusal_that_passes_is_repeated_with_the_same_key(
    server: ScriptedServer, driver: Driver, passing: Refusal
) -> None:
    server.script("WalletService/Reserve", passing, passing, ReserveResponse(replayed=True))

    assert driver.call("reserve", amount_micros=1) == ReserveResponse(replayed=True)
    first, second, third = server.requests("WalletService/Reserve")
    assert first == second == third
    assert len(first.idempotency_key) == 36


@pytest.mark.parametrize("passing", [AWAY, CONFLICT, OVERLOADED], ids=lambda refusal: refusal.reason)
def test_the_fourth_refusal_is_the_callers(server: ScriptedServer, driver: Driver, passing: Refusal) -> None:
    server.script("WalletService/GetWallet", passing)

    with pytest.raises(errors.OanimError) as refused:
        driver.call("get_wallet")
    assert refused.value.reason == passing.reason
    assert len(server.requests("WalletService/GetWallet")) == 4


@pytest.mark.parametrize(
    "final",
    [
        Refusal(StatusCode.RESOURCE_EXHAUSTED, "TOO_LARGE"),
        Refusal(StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_CREDITS"),
        Refusal(StatusCode.INTERNAL, "INTERNAL"),
        Refusal(StatusCode.UNKNOWN),
    ],
    ids=lambda refusal: refusal.code.name,
)
def test_any_other_refusal_is_the_callers_at_once(
    server: ScriptedServer, driver: Driver, final: Refusal
) -> None:
    server.script("WalletService/GetWallet", final)

    with pytest.raises(errors.OanimError) as refused:
        driver.call("get_wallet")
    assert refused.value.code is final.code
    assert len(server.requests("WalletService/GetWallet")) == 1


def test_nobody_waits_for_a_time_after_the_deadline(server: ScriptedServer, driver: Driver) -> None:
    server.script(
        "AccountService/SignUp",
        Refusal(
            StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", {"limit": "sign-ups a day"}, retry_after_s=1.5
        ),
    )

    with pytest.raises(errors.RateLimited) as refused:
        driver.call("sign_up", email="a@example.com", timeout_s=1)
    assert (refused.value.limit, refused.value.retry_after_s) == ("sign-ups a day", 1.5)
    assert len(server.requests("AccountService/SignUp")) == 1


def test_a_call_ends_at_its_deadline_with_the_key_that_repeats_it(
    server: ScriptedServer, driver: Driver
) -> None:
    answered = threading.Event()
    server.script("WalletService/Reserve", [answered.wait, ReserveResponse()])

    with pytest.raises(errors.DeadlineExceeded) as late:
        driver.call("reserve", amount_micros=1, timeout_s=0.2)
    answered.set()
    assert late.value.idempotency_key == server.requests("WalletService/Reserve")[0].idempotency_key


@pytest.mark.parametrize("driving", [Threads, Tasks])
def test_a_server_that_is_not_there_is_unavailable(driving: type[Threads | Tasks], free_port: int) -> None:
    with driving(f"http://127.0.0.1:{free_port}") as driver, pytest.raises(errors.Unavailable) as away:
        driver.call("get_wallet")
    assert (away.value.reason, away.value.outcome_unknown) == ("", True)


@pytest.mark.parametrize("passing", [AWAY, CONFLICT, OVERLOADED], ids=lambda refusal: refusal.reason)
def test_a_stream_that_is_refused_before_it_begins_is_opened_four_times_at_most(
    server: ScriptedServer, driver: Driver, passing: Refusal
) -> None:
    for refused, states in ((3, [state(1)]), (4, [])):
        server.script("WalletService/WatchWallet", *[passing] * refused, states)
        if states:
            assert driver.collect("watch_wallet", count=1) == states
        else:
            with pytest.raises(errors.OanimError) as gone:
                driver.collect("watch_wallet")
            assert gone.value.reason == passing.reason
    assert len(server.requests("WalletService/WatchWallet")) == 8


def test_a_stream_whose_server_is_gone_before_it_has_begun_ends(
    server: ScriptedServer, driver: Driver
) -> None:
    gone = threading.Event()
    server.script("WalletService/WatchWallet", [gone.wait])
    going = threading.Timer(0.3, server.stop)
    going.start()

    with pytest.raises(errors.Unavailable):
        driver.collect("watch_wallet", timeout_s=20)
    gone.set()
    going.join()


def test_a_closed_client_says_so(driver: Driver) -> None:
    driver.close()

    with pytest.raises(errors.OanimError, match="this client is closed"):
        driver.call("get_wallet")


def test_a_generation_that_breaks_off_is_taken_up_again_and_accepted_once(
    server: ScriptedServer, driver: Driver
) -> None:
    server.script(
        "GenerateService/Generate",
        [accepted(replayed=False), QUEUED, Refusal(StatusCode.UNAVAILABLE, "DRAINING", retry_after_s=0.01)],
        [accepted(replayed=True), Refusal(StatusCode.UNAVAILABLE)],
        OVERLOADED,
        [accepted(replayed=True), PROGRESS, SUCCEEDED],
    )

    assert driver.collect("generate", model="m") == [accepted(replayed=False), QUEUED, PROGRESS, SUCCEEDED]
    first, *others = server.requests("GenerateService/Generate")
    assert others == [first, first, first]


def test_who_wants_to_know_is_told_of_each_break_and_may_end_the_call(
    server: ScriptedServer, driver: Driver
) -> None:
    away = Refusal(StatusCode.UNAVAILABLE)
    server.script("GenerateService/Generate", [accepted(replayed=False), away], OVERLOADED, [QUEUED, away])
    told: list[tuple[StatusCode, bool]] = []

    def on_break(error: errors.OanimError, silent_s: float) -> None:
        told.append((error.code, silent_s >= 0.05))
        if len(told) == 3:
            raise StopAskingError

    with pytest.raises(StopAskingError):
        driver.stream(replace(generation.generate(model="m"), on_break=on_break))
    # The second break is counted from the first one on, the third is a first one again.
    assert told == [
        (StatusCode.UNAVAILABLE, False),
        (StatusCode.RESOURCE_EXHAUSTED, True),
        (StatusCode.UNAVAILABLE, False),
    ]


def test_a_generation_that_is_refused_before_it_was_accepted_is_refused(
    server: ScriptedServer, driver: Driver
) -> None:
    server.script("GenerateService/Generate", Refusal(StatusCode.FAILED_PRECONDITION, "ACCOUNT_FROZEN"))

    with pytest.raises(errors.AccountFrozen) as refused:
        driver.collect("generate", model="m", idempotency_key="k")
    assert refused.value.idempotency_key == "k"


def test_a_generation_is_not_waited_for_beyond_its_timeout(server: ScriptedServer, driver: Driver) -> None:
    server.script("GenerateService/Generate", [accepted(replayed=False), Refusal(StatusCode.UNAVAILABLE)])

    with pytest.raises((errors.Unavailable, errors.DeadlineExceeded)) as late:
        driver.collect("generate", model="m", idempotency_key="k", timeout_s=0.5)
    assert late.value.idempotency_key == "k"


def test_a_watch_outlives_the_server_and_tells_no_state_twice(server: ScriptedServer, driver: Driver) -> None:
    stopped = threading.Event()
    broken_off = [state(1), state(2), stopped.wait, Refusal(StatusCode.UNAVAILABLE)]
    server.script("WalletService/WatchWallet", broken_off)
    with ExitStack() as successors:

        def restart(seen: WatchWalletResponse) -> None:
            if seen == state(2):
                server.stop()
                stopped.set()
                successor = ScriptedServer(f"127.0.0.1:{server.port}")
                successor.script("WalletService/WatchWallet", [state(2), state(3)])
                successors.enter_context(successor)

        states = driver.collect("watch_wallet", count=3, seen=restart)

    assert states == [state(1), state(2), state(3)]


def test_a_purchase_that_the_payment_provider_did_not_answer_is_begun_once(
    server: ScriptedServer, driver: Driver
) -> None:
    server.script("CheckoutService/CreateCheckout", PAYMENTS_AWAY, PAYMENTS_AWAY, CreateCheckoutResponse())

    assert driver.call("create_checkout", amount_micros=5_000_000) == CreateCheckoutResponse()
    first, second, third = server.requests("CheckoutService/CreateCheckout")
    assert first == second == third
    assert len(first.idempotency_key) == 36


def test_a_payment_provider_that_stays_away_leaves_the_key_that_repeats_the_purchase(
    server: ScriptedServer, driver: Driver
) -> None:
    server.script("CheckoutService/CreateCheckout", PAYMENTS_AWAY)

    with pytest.raises(errors.PaymentsAway) as away:
        driver.call("create_checkout", amount_micros=5_000_000)
    first, *others = server.requests("CheckoutService/CreateCheckout")
    assert others == [first, first, first]
    assert (away.value.outcome_unknown, away.value.idempotency_key) == (True, first.idempotency_key)


def test_a_watch_of_a_checkout_is_taken_up_again_and_ends_when_the_server_ends_it(
    server: ScriptedServer, driver: Driver
) -> None:
    draining = Refusal(StatusCode.UNAVAILABLE, "DRAINING", retry_after_s=0.01)
    server.script(
        "CheckoutService/WatchCheckout",
        [OPEN, draining],
        Refusal(StatusCode.UNAVAILABLE),
        [OPEN, PROCESSING, Refusal(StatusCode.UNAVAILABLE)],
        [PAID, Refusal(StatusCode.UNAVAILABLE)],
        [PAID],
    )

    assert driver.collect("watch_checkout", checkout_id="c") == [OPEN, PROCESSING, PAID]


def test_a_watch_ends_when_its_key_does(server: ScriptedServer, driver: Driver) -> None:
    server.script("WalletService/WatchWallet", [state(1), Refusal(StatusCode.UNAUTHENTICATED, "KEY_INVALID")])

    with pytest.raises(errors.KeyInvalid):
        driver.collect("watch_wallet")


def test_a_download_that_breaks_off_is_not_taken_up_again(server: ScriptedServer, driver: Driver) -> None:
    server.script(
        "GenerateService/DownloadOutput",
        [DownloadOutputResponse(chunk=b"half"), Refusal(StatusCode.UNAVAILABLE)],
    )

    with pytest.raises(errors.Unavailable):
        driver.collect("download_output", generation_id="g")
    assert len(server.requests("GenerateService/DownloadOutput")) == 1


def test_an_upload_is_never_repeated(server: ScriptedServer, driver: Driver) -> None:
    server.script("GenerateService/UploadInput", AWAY, UploadInputResponse())

    with pytest.raises(errors.DatabaseAway):
        driver.call("upload_input", content=b"png")
    assert len(server.requests("GenerateService/UploadInput")) == 1


def test_a_stream_that_is_left_early_leaves_the_client_usable(server: ScriptedServer, driver: Driver) -> None:
    server.script("WalletService/WatchWallet", [state(1), state(2)])
    server.script("WalletService/GetWallet", GetWalletResponse())

    assert driver.collect("watch_wallet", count=1) == [state(1)]
    assert driver.call("get_wallet") == GetWalletResponse()
