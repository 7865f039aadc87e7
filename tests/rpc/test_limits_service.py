"""Limits over a real channel, on both databases: who sets them, what they stop, and how that is said."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from openanimate.metering.v1 import account_service_pb2 as pb
from openanimate.metering.v1 import wallet_service_pb2 as wallet
from openanimate.metering.v1.account_service_pb2 import (
    LIMIT_PERIOD_DAY,
    LIMIT_PERIOD_MONTH,
    LIMIT_PERIOD_UNSPECIFIED,
    LIMIT_PERIOD_WEEK,
    Limit,
    LimitPeriod,
)
from openanimate.metering.v1.reservation_pb2 import SpendScope
from openanimate.metering.v1.role_pb2 import ROLE_ADMIN, ROLE_SERVICE
from tests.rpc.asking import assert_roles, invalid, not_found, reused, without_seq, wrong_role
from tests.selling import FREE, wallet_of
from tests.server import Calls, Refused, User, new_key

if TYPE_CHECKING:
    from tests.server import RunningServer

DOLLAR = 1_000_000
DAY, WEEK, MONTH = LIMIT_PERIOD_DAY, LIMIT_PERIOD_WEEK, LIMIT_PERIOD_MONTH


def set_limit(
    calls: Calls, micros: int, period: LimitPeriod.ValueType = DAY, key_id: str = "", key: str = ""
) -> pb.SetLimitResponse:
    request = pb.SetLimitRequest(
        key_id=key_id, period=period, limit_micros=micros, idempotency_key=key or new_key()
    )
    return calls(calls.account.SetLimit, request)


def limits(calls: Calls, account_id: str = "") -> list[Limit]:
    return list(calls(calls.account.ListLimits, pb.ListLimitsRequest(account_id=account_id)).limits)


def second_key(calls: Calls) -> Calls:
    """The calls of another key of the account."""
    request = pb.CreateApiKeyRequest(name="second", idempotency_key=new_key())
    made = calls(calls.account.CreateApiKey, request)
    return Calls(calls.channel, User(calls.user.account_id, made.api_key.key_id, made.secret))


def reserving(micros: int, **more: object) -> wallet.ReserveRequest:
    return wallet.ReserveRequest(idempotency_key=new_key(), amount_micros=micros, **more)  # type: ignore[arg-type]


def reserve(calls: Calls, micros: int, **more: object) -> wallet.ReserveResponse:
    return calls(calls.wallet.Reserve, reserving(micros, **more))


def commit(calls: Calls, held: wallet.ReserveResponse, micros: int) -> None:
    request = wallet.CommitRequest(
        reservation_id=held.reservation.reservation_id, idempotency_key=new_key(), amount_micros=micros
    )
    calls(calls.wallet.Commit, request)


def ends(period: LimitPeriod.ValueType) -> Timestamp:
    """When the present period ends."""
    found = Timestamp()
    found.FromDatetime(resets_at(period))
    return found


def resets_at(period: LimitPeriod.ValueType) -> datetime:
    """When the present period ends, by the calendar."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == DAY:
        return today + timedelta(days=1)
    if period == WEEK:
        return today + timedelta(days=7 - today.weekday())
    return (today.replace(day=1) + timedelta(days=32)).replace(day=1)


def seconds(period: LimitPeriod.ValueType) -> str:
    return str(int(resets_at(period).timestamp()))


def test_owners_set_limits_and_admins_look(server: RunningServer) -> None:
    assert_roles(
        server,
        {
            "AccountService/SetLimit": {"user"},
            "AccountService/DeleteLimit": {"user"},
            "AccountService/ListLimits": {"user", "admin"},
        },
    )


# Setting ---------------------------------------------------------------------------------------------


def test_a_limit_says_what_is_used_and_left_and_when_it_resets(calls: Calls) -> None:
    key_id = calls.user.key_id
    commit(calls, reserve(calls, 100), 70)
    reserve(calls, 30)
    other = second_key(calls)
    made = {
        (named, period): set_limit(other, micros, period, named)
        for named, period, micros in (
            ("", MONTH, 5 * DOLLAR),
            (key_id, WEEK, 80),
            ("", DAY, DOLLAR),
            (key_id, DAY, 0),
        )
    }
    assert not any(answer.replayed for answer in made.values())
    expected = [
        Limit(
            key_id=named,
            period=period,
            limit_micros=micros,
            charged_micros=70,
            held_micros=30,
            left_micros=max(0, micros - 100),
            resets_at=ends(period),
        )
        for named, period, micros in (
            ("", DAY, DOLLAR),
            ("", MONTH, 5 * DOLLAR),
            (key_id, DAY, 0),
            (key_id, WEEK, 80),
        )
    ]
    assert [made[one.key_id, one.period].limit for one in expected] == expected
    assert limits(calls) == expected


def test_a_limit_that_is_there_gets_the_new_amount_and_one_that_is_not_is_no_mistake(calls: Calls) -> None:
    set_limit(calls, DOLLAR)
    assert set_limit(calls, 2 * DOLLAR).limit.limit_micros == 2 * DOLLAR
    assert [one.limit_micros for one in limits(calls)] == [2 * DOLLAR]
    before = wallet_of(calls).wallet_seq
    for period, key_id in ((WEEK, ""), (DAY, calls.user.key_id), (DAY, "nobody")):
        request = pb.DeleteLimitRequest(key_id=key_id, period=period, idempotency_key=new_key())
        assert calls(calls.account.DeleteLimit, request) == pb.DeleteLimitResponse()
    assert set_limit(calls, 2 * DOLLAR).limit.limit_micros == 2 * DOLLAR
    assert [one.limit_micros for one in limits(calls)] == [2 * DOLLAR]
    assert wallet_of(calls).wallet_seq == before + 4
    request = pb.DeleteLimitRequest(period=DAY, idempotency_key=new_key())
    assert calls(calls.account.DeleteLimit, request) == pb.DeleteLimitResponse()
    assert (limits(calls), wallet_of(calls).wallet_seq) == ([], before + 5)


def test_a_repeated_call_changes_nothing_more(calls: Calls) -> None:
    assert not set_limit(calls, DOLLAR, key="set").replayed
    set_limit(calls, 2 * DOLLAR)
    again = set_limit(calls, DOLLAR, key="set")
    assert (again.replayed, again.limit.limit_micros) == (True, 2 * DOLLAR)
    for changed in (
        {"limit_micros": DOLLAR + 1},
        {"period": WEEK},
        {"key_id": calls.user.key_id},
    ):
        fields = {"period": DAY, "limit_micros": DOLLAR, "idempotency_key": "set", **changed}
        other = pb.SetLimitRequest(**fields)  # type: ignore[arg-type]
        assert without_seq(calls.refused(calls.account.SetLimit, other)) == reused("set")
    delete = pb.DeleteLimitRequest(period=DAY, idempotency_key="delete")
    assert calls(calls.account.DeleteLimit, delete) == pb.DeleteLimitResponse()
    set_limit(calls, 3 * DOLLAR)
    assert calls(calls.account.DeleteLimit, delete) == pb.DeleteLimitResponse(replayed=True)
    assert [one.limit_micros for one in limits(calls)] == [3 * DOLLAR]
    other_delete = pb.DeleteLimitRequest(period=WEEK, idempotency_key="delete")
    assert without_seq(calls.refused(calls.account.DeleteLimit, other_delete)) == reused("delete")


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"period": LIMIT_PERIOD_UNSPECIFIED}, "period"),
        ({"period": 4}, "period"),
        ({"period": -1}, "period"),
        ({"limit_micros": -1}, "limit_micros"),
        ({"limit_micros": 10**12 + 1}, "limit_micros"),
        ({"limit_micros": 2**63 - 1}, "limit_micros"),
        ({"key_id": "k" * 65}, "key_id"),
        ({"key_id": "\0"}, "key_id"),
        ({"idempotency_key": ""}, "idempotency_key"),
        ({"idempotency_key": "k" * 256}, "idempotency_key"),
    ],
)
def test_bad_input_names_its_field(calls: Calls, changed: dict[str, object], field: str) -> None:
    fields = {"period": DAY, "limit_micros": DOLLAR, "idempotency_key": new_key(), **changed}
    request = pb.SetLimitRequest(**fields)  # type: ignore[arg-type]
    assert calls.refused(calls.account.SetLimit, request) == invalid(field)
    if field != "limit_micros":
        del fields["limit_micros"]
        delete = pb.DeleteLimitRequest(**fields)  # type: ignore[arg-type]
        assert calls.refused(calls.account.DeleteLimit, delete) == invalid(field)
    assert limits(calls) == []


def test_somebody_else_s_key_and_account_look_like_none(server: RunningServer, calls: Calls) -> None:
    stranger = Calls(server.channel, server.sign_up())
    set_limit(calls, DOLLAR, key_id=calls.user.key_id)
    for key_id in (calls.user.key_id, "nobody00"):
        request = pb.SetLimitRequest(key_id=key_id, period=DAY, limit_micros=0, idempotency_key=new_key())
        assert stranger.refused(stranger.account.SetLimit, request) == not_found("API key")
        delete = pb.DeleteLimitRequest(key_id=key_id, period=DAY, idempotency_key=new_key())
        assert stranger(stranger.account.DeleteLimit, delete) == pb.DeleteLimitResponse()
    for account_id in (calls.user.account_id, "000000000000", "nobody"):
        listing = pb.ListLimitsRequest(account_id=account_id)
        assert stranger.refused(stranger.account.ListLimits, listing) == not_found("account")
    assert [one.limit_micros for one in limits(calls)] == [DOLLAR]
    operator = Calls(server.channel, server.create_key(ROLE_ADMIN))
    assert limits(operator, calls.user.account_id) == limits(calls)
    unknown = pb.ListLimitsRequest(account_id="000000000000")
    assert operator.refused(operator.account.ListLimits, unknown) == not_found("account")


def test_a_key_with_a_limit_makes_no_key_and_changes_no_limit(calls: Calls) -> None:
    free = second_key(calls)
    set_limit(calls, DOLLAR, key_id=calls.user.key_id, key="mine")
    set_limit(free, 4 * DOLLAR, MONTH)
    refused = wrong_role("user")
    create = pb.CreateApiKeyRequest(name="more", idempotency_key=new_key())
    assert calls.refused(calls.account.CreateApiKey, create) == refused
    for key_id in ("", calls.user.key_id, free.user.key_id):
        for period in (DAY, MONTH):
            request = pb.SetLimitRequest(
                key_id=key_id, period=period, limit_micros=10**12, idempotency_key=new_key()
            )
            assert without_seq(calls.refused(calls.account.SetLimit, request)) == refused
            delete = pb.DeleteLimitRequest(key_id=key_id, period=period, idempotency_key=new_key())
            assert without_seq(calls.refused(calls.account.DeleteLimit, delete)) == refused
    # What it did before is answered as it was, and it may look and give up keys.
    assert set_limit(calls, DOLLAR, key_id=calls.user.key_id, key="mine").replayed
    assert len(limits(calls)) == 2
    # Nor is it told the secret of what another key made, whatever it knows of that call.
    theirs = pb.CreateApiKeyRequest(name="theirs", idempotency_key=new_key())
    made = free(free.account.CreateApiKey, theirs)
    again = calls(calls.account.CreateApiKey, theirs)
    assert (again.api_key.key_id, again.secret, again.replayed) == (made.api_key.key_id, "", True)
    owner = Calls(calls.channel, User(calls.user.account_id, made.api_key.key_id, made.secret))
    assert len(limits(owner)) == 2
    # A limit of the account's alone is everybody's, and stops nobody from this.
    third = second_key(free)
    calls(calls.account.RevokeApiKey, pb.RevokeApiKeyRequest(key_id=third.user.key_id))
    delete = pb.DeleteLimitRequest(key_id=calls.user.key_id, period=DAY, idempotency_key=new_key())
    free(free.account.DeleteLimit, delete)
    calls(calls.account.CreateApiKey, create)
    set_limit(calls, 0)


# Stopping work ---------------------------------------------------------------------------------------


def test_a_refusal_names_the_limit_what_is_used_and_what_is_affordable(calls: Calls) -> None:
    free = second_key(calls)
    set_limit(free, DOLLAR, key_id=calls.user.key_id)
    commit(calls, reserve(calls, 300_000), 250_000)
    reserve(calls, 150_000)
    before = wallet_of(calls)
    refused = calls.refused(calls.wallet.Reserve, reserving(600_001))
    key = calls.user.key_id
    assert refused == Refused(
        grpc.StatusCode.FAILED_PRECONDITION,
        "LIMIT_EXCEEDED",
        {
            "subject": key,
            "period": "day",
            "limit_micros": "1000000",
            "charged_micros": "250000",
            "held_micros": "150000",
            "required_micros": "600001",
            "affordable_micros": "600000",
            "resets_at": seconds(DAY),
            "wallet_seq": str(before.wallet_seq),
        },
        violations=(("LIMIT_EXCEEDED", f"{key} day"),),
    )
    assert refused.message == (
        f"The key {key} may spend $1.00 a day, has $0.40, $0.15 of it held, and needs $0.600001 more: $0.60 "
        f"is still affordable, and the day ends at {resets_at(DAY):%Y-%m-%d %H:%M} UTC."
    )
    assert wallet_of(calls) == before
    # To the limit exactly is allowed, and the account's other key has none.
    assert reserve(calls, 600_000).wallet.held_micros == 750_000
    assert reserve(free, DOLLAR).wallet.held_micros == 1_750_000
    assert calls.refused(calls.wallet.Reserve, reserving(1)).metadata["affordable_micros"] == "0"


def test_a_refusal_names_every_limit_and_every_scope_that_blocks(calls: Calls) -> None:
    free, key = second_key(calls), calls.user.key_id
    set_limit(free, 3 * DOLLAR, MONTH)
    set_limit(free, 2 * DOLLAR, DAY)
    set_limit(free, DOLLAR, WEEK, key)
    set_limit(free, 10 * DOLLAR, DAY, key)
    scopes = [
        SpendScope(scope="run", limit_micros=500_000),
        SpendScope(scope="wide", limit_micros=5 * DOLLAR),
        SpendScope(scope="open"),
        SpendScope(scope="shot", limit_micros=700_000),
    ]
    reserve(calls, 400_000, spend_scopes=scopes)
    before = wallet_of(calls)
    refused = calls.refused(calls.wallet.Reserve, reserving(2_700_000, spend_scopes=scopes))
    assert refused == Refused(
        grpc.StatusCode.FAILED_PRECONDITION,
        "LIMIT_EXCEEDED",
        {
            "subject": "account",
            "period": "day",
            "limit_micros": "2000000",
            "charged_micros": "0",
            "held_micros": "400000",
            "required_micros": "2700000",
            # What fits under all of them, the scope `run` included.
            "affordable_micros": "100000",
            "resets_at": seconds(DAY),
            "wallet_seq": str(before.wallet_seq),
        },
        violations=(
            ("LIMIT_EXCEEDED", "account day"),
            ("LIMIT_EXCEEDED", "account month"),
            ("LIMIT_EXCEEDED", f"{key} week"),
            ("SPEND_LIMIT_EXCEEDED", "run"),
            ("SPEND_LIMIT_EXCEEDED", "shot"),
        ),
    )
    # A scope alone is refused as a scope, whatever limits there are besides.
    scope = calls.refused(calls.wallet.Reserve, reserving(150_000, spend_scopes=scopes))
    assert (scope.reason, scope.violations) == (
        "SPEND_LIMIT_EXCEEDED",
        (("SPEND_LIMIT_EXCEEDED", "run"),),
    )
    assert scope.metadata == {
        "scope": "run",
        "limit_micros": "500000",
        "charged_micros": "0",
        "held_micros": "400000",
        "required_micros": "150000",
        "wallet_seq": str(before.wallet_seq),
    }
    assert wallet_of(calls) == before


def test_what_the_wallet_cannot_cover_is_said_first(calls: Calls) -> None:
    set_limit(calls, 0)
    refused = calls.refused(calls.wallet.Reserve, reserving(FREE + 1))
    assert (refused.reason, refused.violations) == ("INSUFFICIENT_CREDITS", ())


def test_an_extension_is_work_and_a_commit_is_not(calls: Calls) -> None:
    held = reserve(calls, 100)
    set_limit(calls, 100)
    extend = wallet.ExtendRequest(
        reservation_id=held.reservation.reservation_id, idempotency_key=new_key(), amount_micros=1
    )
    refused = calls.refused(calls.wallet.Extend, extend)
    assert (refused.reason, refused.metadata["required_micros"]) == ("LIMIT_EXCEEDED", "1")
    set_limit(calls, 0)
    longer = wallet.ExtendRequest(
        reservation_id=held.reservation.reservation_id, idempotency_key=new_key(), ttl_seconds=3_600
    )
    calls(calls.wallet.Extend, longer)
    commit(calls, held, 100)
    [limit] = limits(calls)
    assert (limit.charged_micros, limit.held_micros, limit.left_micros) == (100, 0, 0)


def test_a_refusal_is_remembered_by_its_key(calls: Calls) -> None:
    set_limit(calls, 10)
    request = reserving(11)
    refused = calls.refused(calls.wallet.Reserve, request)
    set_limit(calls, DOLLAR)
    assert calls.refused(calls.wallet.Reserve, request) == refused
    assert reserve(calls, 11).wallet.held_micros == 11


def test_what_a_service_spends_for_an_account_counts_under_the_account_s_limit(
    server: RunningServer, calls: Calls
) -> None:
    service = Calls(server.channel, server.create_key(ROLE_SERVICE))
    set_limit(calls, 100)
    set_limit(calls, 100, key_id=calls.user.key_id, key="own")
    reserve(service, 60, account_id=calls.user.account_id)
    refused = service.refused(service.wallet.Reserve, reserving(50, account_id=calls.user.account_id))
    assert (refused.reason, refused.metadata["subject"]) == ("LIMIT_EXCEEDED", "account")
    assert [(one.key_id, one.held_micros) for one in limits(calls)] == [("", 60), (calls.user.key_id, 0)]


def test_sixty_four_reserves_at_once_never_pass_a_dollar_a_day(calls: Calls) -> None:
    free = second_key(calls)
    set_limit(free, DOLLAR, key_id=calls.user.key_id)

    def ask(number: int) -> tuple[str, int]:
        try:
            held = reserve(calls, 30_000 + number)
        except grpc.RpcError as error:
            return Refused.of(error).reason, 0
        if number % 3 == 0:
            commit(calls, held, 20_000)
            return "charged", 20_000
        return "held", 30_000 + number

    with ThreadPoolExecutor(64) as threads:
        answers = list(threads.map(ask, range(64)))
    spent = sum(micros for _, micros in answers)
    assert {what for what, _ in answers} == {"charged", "held", "LIMIT_EXCEEDED"}
    assert spent <= DOLLAR
    [limit] = limits(free)
    assert (limit.charged_micros + limit.held_micros, limit.left_micros) == (spent, DOLLAR - spent)
    assert wallet_of(calls).available_micros == FREE - spent
    # What it says is left is left, and not a micro-dollar more.
    assert calls.refused(calls.wallet.Reserve, reserving(DOLLAR - spent + 1)).reason == "LIMIT_EXCEEDED"
    reserve(calls, DOLLAR - spent)
    assert calls.refused(calls.wallet.Reserve, reserving(1)).reason == "LIMIT_EXCEEDED"
