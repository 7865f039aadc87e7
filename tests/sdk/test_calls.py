"""What a method sends and what comes back, through grpc's fake channel under the sync client."""

from __future__ import annotations

import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import grpc_testing  # type: ignore[import-untyped]
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import (  # type: ignore[import-untyped]
    BadRequest,
    PreconditionFailure,
)

from oanim import errors
from oanim.client import Client
from oanim.errors import Violation
from openanimate.metering.v1.account_service_pb2 import LimitPeriod, SetLimitRequest
from openanimate.metering.v1.admin_service_pb2 import (
    AdjustBalanceRequest,
    AuditRequest,
    RefundPurchaseRequest,
)
from openanimate.metering.v1.checkout_service_pb2 import CreateCheckoutRequest
from openanimate.metering.v1.generate_service_pb2 import GenerateRequest
from openanimate.metering.v1.reservation_pb2 import SpendScope
from openanimate.metering.v1.role_pb2 import Role
from openanimate.metering.v1.wallet_pb2 import Wallet
from openanimate.metering.v1.wallet_service_pb2 import (
    CommitRequest,
    GetUsageRequest,
    GetWalletRequest,
    GetWalletResponse,
    ListTransactionsRequest,
    PricedLine,
    ReserveRequest,
    UsageGrouping,
)
from tests.sdk.scripted import METHODS, SERVICES, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from google.protobuf.message import Message

MOON_LANDING = datetime(1969, 7, 20, 20, 17, 40, tzinfo=UTC)


class FakeWire:
    """A client whose calls are answered by hand."""

    def __init__(self, api_key: str | None) -> None:
        self._channel = grpc_testing.channel(SERVICES, grpc_testing.strict_real_time())
        self.client = Client(api_key, channel=self._channel)
        self._threads = ThreadPoolExecutor(1)

    def call(self, method: str, make: Callable[[], Any]) -> tuple[Any, dict[str, str], Any, Future[Any]]:
        """Call in a thread; answers the request, its metadata, the wire's end and what will come of it."""
        outcome = self._threads.submit(make)
        metadata, request, end = self._channel.take_unary_unary(METHODS[method])
        return request, dict(metadata), end, outcome

    def stream(self, method: str, answers: Iterable[Any]) -> tuple[Any, Any, Future[list[Any]]]:
        """Read a stream in a thread; answers the request, the wire's end and what will be read."""
        outcome = self._threads.submit(list, answers)
        _, request, end = self._channel.take_unary_stream(METHODS[method])
        return request, end, outcome

    def close(self) -> None:
        self._threads.shutdown()


@pytest.fixture
def wire() -> Iterator[FakeWire]:
    fake = FakeWire("anim_key")
    yield fake
    fake.close()


def refuse(end: Any, refusal: Refusal) -> None:
    end.terminate(None, refusal.trailing(), refusal.code, refusal.reason.lower())


def sent(wire: FakeWire, method: str, make: Callable[[], Any]) -> Any:
    """The request of a call that nobody waits for."""
    request, _, end, _ = wire.call(method, make)
    refuse(end, Refusal(grpc.StatusCode.INTERNAL))
    return request


def refused(wire: FakeWire, refusal: Refusal) -> errors.OanimError:
    """What a refusal becomes for the caller."""
    _, _, end, outcome = wire.call("WalletService/Reserve", lambda: wire.client.reserve(idempotency_key="k"))
    refuse(end, refusal)
    failure = outcome.exception(timeout=30)
    assert isinstance(failure, errors.OanimError)
    return failure


def test_a_call_carries_the_key_and_answers_the_message(wire: FakeWire) -> None:
    request, metadata, end, outcome = wire.call(
        "WalletService/GetWallet", lambda: wire.client.get_wallet(account_id="a1")
    )
    end.terminate(GetWalletResponse(wallet=Wallet(balance_micros=7)), (), grpc.StatusCode.OK, "")

    assert request == GetWalletRequest(account_id="a1")
    assert metadata["authorization"] == "Bearer anim_key"
    assert outcome.result(timeout=30) == GetWalletResponse(wallet=Wallet(balance_micros=7))


def test_an_empty_key_is_no_key() -> None:
    wire = FakeWire("")
    _, metadata, end, _ = wire.call("PricingService/ListPrices", wire.client.list_prices)
    refuse(end, Refusal(grpc.StatusCode.INTERNAL))
    wire.close()

    assert "authorization" not in metadata


def test_a_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANIMATE_API_KEY", "anim_environment\n")
    wire = FakeWire(None)
    _, metadata, end, _ = wire.call("AccountService/WhoAmI", wire.client.who_am_i)
    refuse(end, Refusal(grpc.StatusCode.INTERNAL))
    wire.close()

    assert metadata["authorization"] == "Bearer anim_environment"


def test_plain_python_becomes_the_request(wire: FakeWire) -> None:
    assert sent(
        wire,
        "WalletService/Reserve",
        lambda: wire.client.reserve(
            account_id="a1",
            idempotency_key="k",
            line=PricedLine(model="m", quantity=3),
            ttl_seconds=60,
            spend_scopes=[SpendScope(scope="shot-7", limit_micros=0)],
            labels={"project": "x"},
            render_id="a1-2",
            epoch=7,
        ),
    ) == ReserveRequest(
        account_id="a1",
        idempotency_key="k",
        line=PricedLine(model="m", quantity=3),
        ttl_seconds=60,
        spend_scopes=[SpendScope(scope="shot-7", limit_micros=0)],
        labels={"project": "x"},
        render_id="a1-2",
        epoch=7,
    )
    assert sent(
        wire,
        "WalletService/GetUsage",
        lambda: wire.client.get_usage(first_day="2026-11-01", group_by=UsageGrouping.USAGE_GROUPING_MODEL),
    ) == GetUsageRequest(first_day="2026-11-01", group_by=UsageGrouping.USAGE_GROUPING_MODEL)


def test_a_charge_of_nothing_is_still_a_charge(wire: FakeWire) -> None:
    request = sent(
        wire,
        "WalletService/Commit",
        lambda: wire.client.commit(reservation_id="r", idempotency_key="k", amount_micros=0),
    )

    assert request == CommitRequest(reservation_id="r", idempotency_key="k", amount_micros=0)
    assert request.WhichOneof("charge") == "amount_micros"


def test_a_call_without_a_key_makes_one(wire: FakeWire) -> None:
    one, other = (
        sent(wire, "WalletService/Release", lambda: wire.client.release(reservation_id="r")).idempotency_key
        for _ in range(2)
    )

    assert [uuid.UUID(key).version for key in (one, other)] == [7, 7]
    assert one != other


def test_an_empty_idempotency_key_is_the_servers_to_refuse(wire: FakeWire) -> None:
    request = sent(
        wire,
        "AdminService/CreateKey",
        lambda: wire.client.create_key(role=Role.ROLE_WORKER, name="farm", idempotency_key=""),
    )

    assert request.idempotency_key == ""


def test_two_members_of_one_choice_are_refused(wire: FakeWire) -> None:
    with pytest.raises(TypeError, match="only one of amount_micros and line"):
        wire.client.reserve(amount_micros=1, line=PricedLine(model="m", quantity=1))


def test_a_datetime_is_an_instant_only_with_its_time_zone(wire: FakeWire) -> None:
    instant = Timestamp()
    instant.FromDatetime(MOON_LANDING)

    for as_of in (MOON_LANDING, instant):
        call = partial(wire.client.list_transactions, as_of=as_of)
        assert sent(wire, "WalletService/ListTransactions", call) == ListTransactionsRequest(as_of=instant)
    with pytest.raises(ValueError, match="without a time zone"):
        wire.client.list_transactions(as_of=MOON_LANDING.replace(tzinfo=None))


def test_what_the_owner_and_the_operator_ask_for_becomes_the_request(wire: FakeWire) -> None:
    client = wire.client
    day = LimitPeriod.LIMIT_PERIOD_DAY
    expected: list[tuple[str, Callable[[], Any], Message]] = [
        (
            "AccountService/SetLimit",
            partial(client.set_limit, key_id="abc", period=day, limit_micros=0, idempotency_key="k"),
            SetLimitRequest(key_id="abc", period=day, limit_micros=0, idempotency_key="k"),
        ),
        (
            "CheckoutService/CreateCheckout",
            partial(client.create_checkout, amount_micros=50_000_000, idempotency_key="k"),
            CreateCheckoutRequest(amount_micros=50_000_000, idempotency_key="k"),
        ),
        (
            "AdminService/RefundPurchase",
            partial(client.refund_purchase, checkout_id="c", reason="asked for", idempotency_key="k"),
            RefundPurchaseRequest(checkout_id="c", reason="asked for", idempotency_key="k"),
        ),
        (
            "AdminService/AdjustBalance",
            partial(
                client.adjust_balance, account_id="a", amount_micros=-1, reason="wrong", idempotency_key="k"
            ),
            AdjustBalanceRequest(account_id="a", amount_micros=-1, reason="wrong", idempotency_key="k"),
        ),
        ("AdminService/Audit", client.audit, AuditRequest()),
    ]

    assert [sent(wire, method, make) for method, make, _ in expected] == [each for *_, each in expected]


def test_a_generation_of_nothing_in_particular_is_an_empty_object(wire: FakeWire) -> None:
    request, end, outcome = wire.stream(
        "GenerateService/Generate",
        wire.client.generate(model="m", idempotency_key="k", labels={"project": "x"}),
    )
    end.terminate((), grpc.StatusCode.OK, "")

    assert outcome.result(timeout=30) == []
    assert request == GenerateRequest(
        model="m", input_json="{}", idempotency_key="k", labels={"project": "x"}
    )


def test_a_refusal_is_the_error_of_its_reason_with_its_metadata_as_attributes(wire: FakeWire) -> None:
    error = refused(
        wire,
        Refusal(
            grpc.StatusCode.FAILED_PRECONDITION,
            "INSUFFICIENT_CREDITS",
            {"required_micros": "350000", "available_micros": "-120000", "wallet_seq": "9"},
        ),
    )

    assert type(error) is errors.InsufficientCredits
    assert (error.required_micros, error.available_micros, error.wallet_seq) == (350_000, -120_000, 9)
    assert (error.message, str(error)) == ("insufficient_credits", "insufficient_credits")
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_CREDITS")
    assert (error.idempotency_key, error.outcome_unknown, error.retry_after_s) == ("k", False, None)


def test_every_limit_in_the_way_is_a_violation(wire: FakeWire) -> None:
    limits = PreconditionFailure(
        violations=[
            PreconditionFailure.Violation(type="SPEND_LIMIT_EXCEEDED", subject="shot-7", description="Full."),
            PreconditionFailure.Violation(
                type="SPEND_LIMIT_EXCEEDED", subject="film", description="Full, too."
            ),
        ]
    )
    error = refused(
        wire,
        Refusal(
            grpc.StatusCode.FAILED_PRECONDITION, "SPEND_LIMIT_EXCEEDED", {"scope": "shot-7"}, more=(limits,)
        ),
    )

    assert type(error) is errors.SpendLimitExceeded
    assert error.scope == "shot-7"
    assert error.violations == (
        Violation("shot-7", "Full.", "SPEND_LIMIT_EXCEEDED"),
        Violation("film", "Full, too.", "SPEND_LIMIT_EXCEEDED"),
    )


def test_a_limit_says_what_is_used_what_still_fits_and_when_it_starts_anew(wire: FakeWire) -> None:
    blocked = PreconditionFailure(
        violations=[
            PreconditionFailure.Violation(type="LIMIT_EXCEEDED", subject="account", description="Day."),
            PreconditionFailure.Violation(type="SPEND_LIMIT_EXCEEDED", subject="film", description="Film."),
        ]
    )
    metadata = {
        "subject": "account",
        "period": "day",
        "limit_micros": "1000000",
        "charged_micros": "800000",
        "held_micros": "50000",
        "required_micros": "350000",
        "affordable_micros": "150000",
        "resets_at": "1795046400",
        "wallet_seq": "9",
    }
    error = refused(
        wire, Refusal(grpc.StatusCode.FAILED_PRECONDITION, "LIMIT_EXCEEDED", metadata, more=(blocked,))
    )

    assert type(error) is errors.LimitExceeded
    assert (error.subject, error.period, error.limit_micros) == ("account", "day", 1_000_000)
    assert (error.charged_micros, error.held_micros, error.required_micros) == (800_000, 50_000, 350_000)
    assert (error.affordable_micros, error.wallet_seq) == (150_000, 9)
    assert error.resets_at == datetime(2026, 11, 19, tzinfo=UTC)
    assert error.violations == (
        Violation("account", "Day.", "LIMIT_EXCEEDED"),
        Violation("film", "Film.", "SPEND_LIMIT_EXCEEDED"),
    )


def test_an_instant_that_the_server_did_not_send_is_none(wire: FakeWire) -> None:
    error = refused(wire, Refusal(grpc.StatusCode.FAILED_PRECONDITION, "LIMIT_EXCEEDED"))

    assert isinstance(error, errors.LimitExceeded)
    assert (error.resets_at, error.limit_micros, error.subject) == (None, 0, "")


def test_a_bad_field_is_named(wire: FakeWire) -> None:
    bad = BadRequest(
        field_violations=[BadRequest.FieldViolation(field="ttl_seconds", description="Too long.")]
    )
    error = refused(wire, Refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", more=(bad,)))

    assert type(error) is errors.InvalidField
    assert error.field == "ttl_seconds"
    assert error.violations == (Violation("ttl_seconds", "Too long."),)


def test_a_reason_of_a_later_version_is_the_base_with_all_it_says(wire: FakeWire) -> None:
    error = refused(wire, Refusal(grpc.StatusCode.FAILED_PRECONDITION, "MERCURY_RETROGRADE", {"planet": "3"}))

    assert type(error) is errors.OanimError
    assert (error.reason, error.metadata) == ("MERCURY_RETROGRADE", {"planet": "3"})


def test_a_reason_of_another_domain_is_none_of_ours(wire: FakeWire) -> None:
    error = refused(
        wire, Refusal(grpc.StatusCode.UNAVAILABLE, "INSUFFICIENT_CREDITS", domain="proxy.example")
    )

    assert type(error) is errors.Unavailable
    assert (error.reason, error.metadata, error.outcome_unknown) == ("", {}, True)


def test_a_call_that_timed_out_says_that_nobody_knows_and_which_key_repeats_it(wire: FakeWire) -> None:
    error = refused(wire, Refusal(grpc.StatusCode.DEADLINE_EXCEEDED))

    assert type(error) is errors.DeadlineExceeded
    assert error.message == "the server did not answer in time; whether the call took effect is unknown"
    assert (error.outcome_unknown, error.idempotency_key) == (True, "k")


def test_details_that_cannot_be_read_leave_the_status(wire: FakeWire) -> None:
    _, _, end, outcome = wire.call("WalletService/GetWallet", wire.client.get_wallet)
    end.terminate(None, (("grpc-status-details-bin", b"\xff"),), grpc.StatusCode.NOT_FOUND, "gone")
    error = outcome.exception(timeout=30)

    assert type(error) is errors.OanimError
    assert (error.code, error.message, error.reason) == (grpc.StatusCode.NOT_FOUND, "gone", "")


def test_an_error_hides_the_one_of_grpc(wire: FakeWire) -> None:
    error = refused(wire, Refusal(grpc.StatusCode.UNAVAILABLE, "DRAINING", retry_after_s=0.25))

    assert type(error) is errors.Draining
    assert isinstance(error, errors.Unavailable)
    assert error.retry_after_s == 0.25
    assert error.__cause__ is None
    assert error.__context__ is None
