"""--json speaks the contract's words, with numbers that are numbers."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from oanim.cli.messages import day, plain, time, word
from openanimate.metering.v1.reservation_pb2 import PinnedPrice, Reservation, ReservationState, SpendScope

AT = Timestamp(seconds=1_795_000_000, nanos=500_000_000)


def test_a_message_becomes_plain_values() -> None:
    reservation = Reservation(
        reservation_id="7-1",
        state=ReservationState.RESERVATION_STATE_ACTIVE,
        reserved_micros=2**53 + 1,
        price=PinnedPrice(model="m"),
        created_at=AT,
        spend_scopes=[SpendScope(scope="a", limit_micros=0), SpendScope(scope="b")],
        labels={"project": "p"},
    )
    assert plain(reservation) == {
        "reservation_id": "7-1",
        "account_id": "",
        "state": "active",
        "reserved_micros": 2**53 + 1,
        "captured_micros": 0,
        "held_micros": 0,
        "captures": 0,
        "captured_quantity": 0,
        "price": {
            "price_version": 0,
            "model": "m",
            "amount_micros": 0,
            "base_quantity": 0,
            "unit": "",
            "category": "",
        },
        "quoted_quantity": 0,
        "expires_at": None,
        "created_at": "2026-11-18T11:06:40.500Z",
        "opened_by": "",
        "spend_scopes": [{"scope": "a", "limit_micros": 0}, {"scope": "b", "limit_micros": None}],
        "labels": {"project": "p"},
        "uncollected_micros": 0,
        "reported_quantity": 0,
    }


def test_a_value_of_an_enum_loses_its_prefix_and_an_unknown_one_is_its_number() -> None:
    states = ReservationState.DESCRIPTOR
    assert [word(states, 5), word(states, 99)] == ["settled_late", "99"]


def test_times_are_utc() -> None:
    assert [time(AT), day(AT)] == ["2026-11-18 11:06:40", "2026-11-18"]
