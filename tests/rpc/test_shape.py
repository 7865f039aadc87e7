"""The shape of requests: each check names its field, at its very bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from oanim_server.ledger.refusals import InvalidField
from oanim_server.ledger.values import Scope
from oanim_server.rpc import shape
from openanimate.metering.v1.reservation_pb2 import SpendScope

if TYPE_CHECKING:
    from collections.abc import Callable

LARGEST = 2**63 - 1


def field_of(check: Callable[[], object]) -> str:
    with pytest.raises(InvalidField) as caught:
        check()
    return caught.value.field


@pytest.mark.parametrize("key", ["", "a" * 256, "é" * 128, "a\0b"])
def test_a_key_has_1_to_255_bytes_and_no_nul(key: str) -> None:
    assert field_of(lambda: shape.idempotency_key(key)) == "idempotency_key"


@pytest.mark.parametrize("key", ["a", "a" * 255, "é" * 127])
def test_a_key_within_its_bounds_is_taken(key: str) -> None:
    assert shape.idempotency_key(key) == key


@pytest.mark.parametrize("amount", [0, -1, -LARGEST - 1, 10**12 + 1, LARGEST])
def test_an_amount_is_1_to_10_to_the_12th(amount: int) -> None:
    assert field_of(lambda: shape.amount("amount_micros", amount)) == "amount_micros"


def test_an_amount_of_nothing_is_taken_where_nothing_is_a_value() -> None:
    assert shape.amount("amount_micros", 0, least=0) == 0
    assert shape.amount("amount_micros", 10**12) == 10**12


@pytest.mark.parametrize("quantity", [0, -1, 10**9 + 1, LARGEST])
def test_a_quantity_is_1_to_10_to_the_9th(quantity: int) -> None:
    assert field_of(lambda: shape.quantity("line.quantity", quantity)) == "line.quantity"


@pytest.mark.parametrize("seconds", [-1, 86_401, LARGEST])
def test_a_ttl_is_1_to_86400_seconds(seconds: int) -> None:
    assert field_of(lambda: shape.ttl(seconds)) == "ttl_seconds"


def test_no_ttl_is_15_minutes_for_a_reservation_and_none_for_an_extension() -> None:
    assert shape.reservation_ttl(0) == 900_000_000
    assert shape.ttl(0) is None
    assert shape.ttl(86_400) == 86_400_000_000


def test_scopes_keep_their_order_and_their_limits() -> None:
    given = [SpendScope(scope="b", limit_micros=0), SpendScope(scope="a")]
    assert shape.spend_scopes(given) == (Scope("b", 0), Scope("a", None))


@pytest.mark.parametrize(
    ("scopes", "field"),
    [
        ([SpendScope(scope=str(number)) for number in range(5)], "spend_scopes"),
        ([SpendScope(scope="a"), SpendScope(scope="a")], "spend_scopes[1].scope"),
        ([SpendScope(scope="")], "spend_scopes[0].scope"),
        ([SpendScope(scope="a" * 65)], "spend_scopes[0].scope"),
        ([SpendScope(scope="a\0")], "spend_scopes[0].scope"),
        ([SpendScope(scope="a", limit_micros=-1)], "spend_scopes[0].limit_micros"),
        ([SpendScope(scope="a", limit_micros=LARGEST)], "spend_scopes[0].limit_micros"),
    ],
)
def test_bad_scopes_are_named(scopes: list[SpendScope], field: str) -> None:
    assert field_of(lambda: shape.spend_scopes(scopes)) == field


@pytest.mark.parametrize(
    ("labels", "field"),
    [
        ({str(number): "" for number in range(9)}, "labels"),
        ({"": "a"}, "labels"),
        ({"a" * 65: "a"}, "labels"),
        ({"a\0": "a"}, "labels"),
        ({"a": "b" * 129}, "labels[a]"),
        ({"a": "\0"}, "labels[a]"),
    ],
)
def test_bad_labels_are_named(labels: dict[str, str], field: str) -> None:
    assert field_of(lambda: shape.labels(labels)) == field


@pytest.mark.parametrize("size", [-1, 1_001, 2**31 - 1])
def test_a_page_has_1_to_1000_rows(size: int) -> None:
    assert field_of(lambda: shape.page_size(size)) == "page_size"


def test_a_page_token_names_where_to_go_on() -> None:
    assert shape.page_before("") is None
    assert [shape.page_before(shape.page_token(number)) for number in (1, 7, 10**18)] == [1, 7, 10**18]
    assert shape.next_page([9, 8, 7], 2) == shape.page_token(8)
    assert shape.next_page([9, 8], 2) == ""


@pytest.mark.parametrize("number", [2**63, 10**23, 10**24 - 1])
def test_a_page_token_of_no_number_of_ours_is_refused(number: int) -> None:
    assert shape.page_before(shape.page_token(LARGEST)) == LARGEST
    assert field_of(lambda: shape.page_before(shape.page_token(number))) == "page_token"


@pytest.mark.parametrize("token", ["x", "é", "!!!!", "MTI=", "LTE", "\0", "MA" * 40, "0"])
def test_another_page_token_is_refused(token: str) -> None:
    assert field_of(lambda: shape.page_before(token)) == "page_token"


@pytest.mark.parametrize(
    ("seconds", "nanos"), [(-62_135_596_801, 0), (253_402_300_800, 0), (0, -1), (0, 10**9), (LARGEST, 0)]
)
def test_a_point_in_time_is_within_the_calendar(seconds: int, nanos: int) -> None:
    assert field_of(lambda: shape.instant("as_of", Timestamp(seconds=seconds, nanos=nanos))) == "as_of"


def test_a_point_in_time_is_read_to_the_microsecond() -> None:
    assert shape.instant("as_of", Timestamp(seconds=5, nanos=1_999)) == 5_000_001


@pytest.mark.parametrize("day", ["2026-02-30", "20261123", "2026-W01-1", "٢٠٢٦-01-01", "\0", "yesterday"])
def test_a_day_is_written_as_in_the_contract(day: str) -> None:
    assert field_of(lambda: shape.days(day, "", 29)) == "first_day"
    assert field_of(lambda: shape.days("", day, 29)) == "last_day"


def test_days_default_to_a_span_before_the_last() -> None:
    assert [shape.day_text(day) for day in shape.days("", "2026-11-23", 29)] == ["2026-10-25", "2026-11-23"]
    assert field_of(lambda: shape.days("2026-11-24", "2026-11-23", 29)) == "first_day"


def test_a_span_before_the_first_day_of_all_begins_there() -> None:
    for last in ("0001-01-01", "0001-01-05"):
        assert [shape.day_text(day) for day in shape.days("", last, 29)] == ["0001-01-01", last]


def test_an_input_has_at_most_64_kilobytes() -> None:
    assert shape.input_json("x" * 65_536) == "x" * 65_536
    assert field_of(lambda: shape.input_json("x" * 65_537)) == "input_json"


def test_an_enum_value_of_a_newer_contract_is_not_guessed() -> None:
    assert field_of(lambda: shape.one_of("group_by", 99, {1: "day"})) == "group_by"
    assert field_of(lambda: shape.chosen("charge", None)) == "charge"
