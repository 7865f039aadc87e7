"""Refusals on the wire: every class has a row, every reason of the contract has a class, words are words."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re

import pytest

import oanim_server
from oanim_server.accounts.opening import AlreadyOpenError
from oanim_server.checkout.payment import KnownEventError
from oanim_server.ledger import refusals as ledger
from oanim_server.rpc.refusals import TABLE, blocked_limit, dollars
from oanim_server.rpc.status import answer
from openanimate.metering.v1.error_reason_pb2 import ErrorReason

# Outcomes of work travel in a stream's last message, never as a call's status.
OUTCOMES = {"PROVIDER_REJECTED", "PROVIDER_UNKNOWN", "DEADLINE_PASSED", "RENDER_FAILED"}
# Not for callers: classes that others derive from, and those that their capability catches.
INNER = {ledger.Refusal, ledger.ReservationEnded, AlreadyOpenError, KnownEventError}


def refusal_classes() -> set[type[ledger.Refusal]]:
    found = set()
    for module in pkgutil.walk_packages(oanim_server.__path__, "oanim_server."):
        if module.name.endswith("__main__") or ".migrations" in module.name:
            continue
        for _, member in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(member, ledger.Refusal):
                found.add(member)
    return found


def test_every_class_of_refusals_has_a_row() -> None:
    assert refusal_classes() - INNER == TABLE.keys()


def test_every_reason_of_the_contract_has_a_class() -> None:
    reasons = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()}  # noqa: SIM118 - no mapping
    assert {row.reason for row in TABLE.values()} == reasons - OUTCOMES - {"UNSPECIFIED"}


def test_every_row_names_fields_that_its_class_has() -> None:
    for refusal, row in TABLE.items():
        parameters = set(inspect.signature(refusal.__init__).parameters)
        assert set(row.fields) <= parameters, refusal


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "$0.00"),
        (5_000_000, "$5.00"),
        (50_000, "$0.05"),
        (3_500, "$0.0035"),
        (1, "$0.000001"),
        (1_234_567_890_000, "$1,234,567.89"),
        (-1_500_000, "-$1.50"),
    ],
)
def test_money_is_written_in_dollars(micros: int, text: str) -> None:
    assert dollars(micros) == text


def test_a_sentence_is_one_sentence_with_a_next_step() -> None:
    scope = ledger.BlockedScope("run", 5_000_000, 4_000_000, 500_000, 1_000_000)
    status = answer(ledger.SpendLimitExceeded([scope]))
    assert status.message == (
        "The spend scope run may reach $5.00, has $4.50 and needs $1.00 more: raise its limit, or start a "
        "new scope."
    )
    assert re.fullmatch(r"[A-Z].*\.", answer(ledger.Faulty("abc")).message)


@pytest.mark.parametrize(
    ("resets_at", "when"),
    [
        (4_102_444_800, "the day ends at 2100-01-01 00:00 UTC"),
        (
            1_767_225_600,
            "the day ended at 2026-01-01 00:00 UTC: what is reserved anew counts in the present one",
        ),
    ],
)
def test_a_limit_whose_day_has_ended_says_so(resets_at: int, when: str) -> None:
    limit = ledger.BlockedLimit("account", "day", 100, 60, 0, 41, 40, resets_at)
    assert blocked_limit(limit) == (
        "The account may spend $0.0001 a day, has $0.00006 and needs $0.000041 more: $0.00004 is still "
        f"affordable, and {when}"
    )
