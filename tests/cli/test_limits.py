"""A limit is set, shown with what is left of it, and taken away; what it stops is explained."""

from __future__ import annotations

import json

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import PreconditionFailure  # type: ignore[import-untyped]
from grpc import StatusCode

from openanimate.metering.v1.account_service_pb2 import (
    DeleteLimitRequest,
    DeleteLimitResponse,
    Limit,
    LimitPeriod,
    ListLimitsResponse,
    SetLimitRequest,
    SetLimitResponse,
)
from tests.cli.running import Cli, Ended
from tests.sdk.scripted import Refusal, ScriptedServer

SET, LIST, DELETE, GENERATE = (
    "AccountService/SetLimit",
    "AccountService/ListLimits",
    "AccountService/DeleteLimit",
    "GenerateService/Generate",
)
MIDNIGHT = Timestamp(seconds=1_795_046_400)
DAY = Limit(
    period=LimitPeriod.LIMIT_PERIOD_DAY,
    limit_micros=5_000_000,
    charged_micros=50_000,
    held_micros=100_000,
    left_micros=4_850_000,
    resets_at=MIDNIGHT,
)
KEY_MONTH = Limit(
    key_id="AbCd1234",
    period=LimitPeriod.LIMIT_PERIOD_MONTH,
    limit_micros=500_000,
    left_micros=500_000,
    resets_at=MIDNIGHT,
)


def test_the_limits_are_listed_with_what_is_left(cli: Cli, scripted: ScriptedServer) -> None:
    scripted.script(LIST, ListLimitsResponse(limits=[DAY, KEY_MONTH]))
    assert cli.run("limits", "list").out.splitlines() == [
        "Of           Per    Limit   Used   Held   Left  Resets (UTC)",
        "the account  day    $5.00  $0.05  $0.10  $4.85  2026-11-19 00:00:00",
        "AbCd1234     month  $0.50  $0.00  $0.00  $0.50  2026-11-19 00:00:00",
    ]
    answer = json.loads(cli.run("limits", "list", "--json").out)
    assert [each["period"] for each in answer["limits"]] == ["day", "month"]


def test_without_limits_it_is_said_how_to_set_one(cli: Cli, scripted: ScriptedServer) -> None:
    scripted.script(LIST, ListLimitsResponse())
    assert cli.run("limits", "list").out == "There is no limit. Set one: oanim limits set --day 5.00\n"


def test_a_limit_of_the_account_is_set(cli: Cli, scripted: ScriptedServer) -> None:
    scripted.script(SET, SetLimitResponse(limit=DAY))
    assert cli.run("limits", "set", "--day", "5.00", "--key", "k") == Ended(
        0,
        "The account may spend $5.00 per day.\n"
        "Used $0.05, held $0.10, left $4.85 until 2026-11-19 00:00:00 (UTC).\n",
        "",
    )
    assert scripted.requests(SET) == [
        SetLimitRequest(period=LimitPeriod.LIMIT_PERIOD_DAY, limit_micros=5_000_000, idempotency_key="k")
    ]


def test_a_limit_of_a_key_is_set_to_nothing(cli: Cli, scripted: ScriptedServer) -> None:
    scripted.script(SET, SetLimitResponse(limit=KEY_MONTH))
    ended = cli.run("limits", "set", "--month", "0", "--api-key", "AbCd1234", "--json")
    assert json.loads(ended.out)["limit"]["key_id"] == "AbCd1234"
    (request,) = scripted.requests(SET)
    assert (request.key_id, request.period, request.limit_micros) == ("AbCd1234", 3, 0)
    assert len(request.idempotency_key) == 36


def test_a_limit_is_taken_away(cli: Cli, scripted: ScriptedServer) -> None:
    scripted.script(DELETE, DeleteLimitResponse())
    assert [
        cli.run("limits", "delete", "--week", "--key", "k").out,
        cli.run("limits", "delete", "--day", "--api-key", "AbCd1234", "--key", "l").out,
        json.loads(cli.run("limits", "delete", "--day", "--json").out),
    ] == [
        "The account has no limit per week now.\n",
        "The key AbCd1234 has no limit per day now.\n",
        {"replayed": False},
    ]
    assert scripted.requests(DELETE)[:2] == [
        DeleteLimitRequest(period=LimitPeriod.LIMIT_PERIOD_WEEK, idempotency_key="k"),
        DeleteLimitRequest(key_id="AbCd1234", period=LimitPeriod.LIMIT_PERIOD_DAY, idempotency_key="l"),
    ]


@pytest.mark.parametrize(
    "words",
    [("set",), ("set", "--day", "5", "--week", "20"), ("delete",), ("delete", "--day", "--month")],
)
def test_one_period_is_one_action(cli: Cli, scripted: ScriptedServer, words: tuple[str, ...]) -> None:
    assert cli.run("limits", *words) == Ended(2, "", "oanim: give one of --day, --week and --month.\n")


@pytest.mark.parametrize("amount", ["-1", "0.0000001", "five", "inf"])
def test_a_limit_that_is_no_amount_is_a_mistake_in_usage(cli: Cli, amount: str) -> None:
    ended = cli.run("limits", "set", f"--day={amount}")
    assert (ended.exit_code, ended.out) == (2, "")
    assert "--day" in ended.err


def test_a_server_that_is_away_leaves_the_key_that_repeats_the_action(
    cli: Cli, scripted: ScriptedServer
) -> None:
    scripted.script(SET, Refusal(StatusCode.UNAVAILABLE, "DATABASE_AWAY"))
    ended = cli.run("limits", "set", "--day", "5")
    (key,) = {request.idempotency_key for request in scripted.requests(SET)}
    assert ended.exit_code == 5
    assert ended.err.endswith(f"oanim limits set --day 5 --key {key}\n")


def test_work_over_a_limit_is_refused_with_every_limit_that_blocks(
    cli: Cli, scripted: ScriptedServer
) -> None:
    metadata = {
        "subject": "account",
        "period": "day",
        "limit_micros": "1000000",
        "charged_micros": "900000",
        "held_micros": "60000",
        "required_micros": "50000",
        "affordable_micros": "40000",
        "resets_at": str(MIDNIGHT.seconds),
    }
    violations = [
        PreconditionFailure.Violation(type=reason, subject=subject, description=description)
        for reason, subject, description in (
            ("LIMIT_EXCEEDED", "account", "The day of the account, in the service's words."),
            ("LIMIT_EXCEEDED", "AbCd1234", "The month of the key, in the service's words."),
            ("SPEND_LIMIT_EXCEEDED", "session:s", "The session, in the service's words"),
        )
    ]
    blocked = PreconditionFailure(violations=violations)
    refusal = Refusal(StatusCode.FAILED_PRECONDITION, "LIMIT_EXCEEDED", metadata, more=(blocked,))
    scripted.script(GENERATE, [refusal])
    ended = cli.run("assets", "gen-image", "--prompt", "x", "--out", "x.png", "--key", "k")
    assert (ended.exit_code, ended.out) == (3, "")
    assert ended.err.splitlines()[-5:] == [
        (
            "oanim: this needs $0.05, and the account has used $0.96 ($0.06 of it held) of its $1.00 per day "
            "until 2026-11-19 00:00:00 (UTC). $0.04 is still affordable. "
            "Raise the limit: oanim limits set --day 1.01"
        ),
        "The month of the key, in the service's words.",
        "The session, in the service's words.",
        "All of them have to let this through. See the limits: oanim limits list",
        "Then choose a new --key: this one gets the same refusal for 30 days.",
    ]
