"""Answers: all that an outcome says is in them, though what is mostly 0 is written only where it is not."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from oanim_server.ledger.ids import account_text
from oanim_server.ledger.values import Line, Outcome, ReservationFacts, Scope, State, WalletFacts
from oanim_server.rpc import outcomes
from openanimate.metering.v1 import reservation_pb2, wallet_pb2
from openanimate.metering.v1 import wallet_service_pb2 as pb

WALLET_ID, OPENER = 77, 88
NOTHING = WalletFacts(WALLET_ID, balance_micros=0, held_micros=0, debt_micros=0, seq=0, frozen=False)
UNUSED = ReservationFacts(
    WALLET_ID,
    number=0,
    state=State.ACTIVE,
    opener=0,
    reserved_micros=0,
    captured_micros=0,
    uncollected_micros=0,
    captures=0,
    captured_quantity=0,
    expires_at=None,
    created_at=0,
    line=None,
    scopes=(),
    labels={},
)
EMPTY = Outcome(NOTHING, UNUSED, charged_micros=0, uncollected_micros=0, released_micros=0, replayed=False)

MOSTLY_0 = ["captured_micros", "uncollected_micros", "captures", "captured_quantity", "reported_quantity"]


def wallet(facts: WalletFacts) -> wallet_pb2.Wallet:
    message = wallet_pb2.Wallet()
    outcomes.wallet(facts, message)
    return message


def reservation(facts: ReservationFacts) -> reservation_pb2.Reservation:
    message = reservation_pb2.Reservation()
    outcomes.reservation(facts, message)
    return message


def test_all_of_a_wallet_is_in_its_message() -> None:
    facts = WalletFacts(WALLET_ID, balance_micros=20, held_micros=3, debt_micros=4, seq=5, frozen=True)
    assert wallet(facts) == wallet_pb2.Wallet(
        account_id=account_text(WALLET_ID),
        balance_micros=20,
        held_micros=3,
        available_micros=17,
        wallet_seq=5,
        debt_micros=4,
        frozen=True,
    )
    assert wallet(NOTHING) == wallet_pb2.Wallet(account_id=account_text(WALLET_ID))


def test_all_of_a_reservation_is_in_its_message() -> None:
    facts = ReservationFacts(
        WALLET_ID,
        number=1,
        state=State.ACTIVE,
        opener=OPENER,
        reserved_micros=20,
        captured_micros=3,
        uncollected_micros=4,
        captures=5,
        captured_quantity=6,
        expires_at=7_000_001,
        created_at=8_000_002,
        line=Line(9, "model", "image", "fal", "second", price_micros=10, base_quantity=11, quantity=12),
        scopes=(Scope("project", 0), Scope("shot", None)),
        labels={"to": "whom"},
        reported_quantity=13,
    )
    message = reservation(facts)
    assert message == reservation_pb2.Reservation(
        reservation_id=f"{account_text(WALLET_ID)}-1",
        account_id=account_text(WALLET_ID),
        state=reservation_pb2.RESERVATION_STATE_ACTIVE,
        reserved_micros=20,
        captured_micros=3,
        held_micros=17,
        captures=5,
        captured_quantity=6,
        price=reservation_pb2.PinnedPrice(
            price_version=9,
            model="model",
            amount_micros=10,
            base_quantity=11,
            unit="second",
            category="image",
        ),
        quoted_quantity=12,
        created_at=Timestamp(seconds=8, nanos=2_000),
        expires_at=Timestamp(seconds=7, nanos=1_000),
        opened_by=account_text(OPENER),
        spend_scopes=[
            reservation_pb2.SpendScope(scope="project", limit_micros=0),
            reservation_pb2.SpendScope(scope="shot"),
        ],
        labels={"to": "whom"},
        uncollected_micros=4,
        reported_quantity=13,
    )
    assert [scope.HasField("limit_micros") for scope in message.spend_scopes] == [True, False]


@pytest.mark.parametrize(
    "facts",
    [
        UNUSED._replace(captured_micros=1),
        UNUSED._replace(uncollected_micros=1),
        UNUSED._replace(captures=1),
        UNUSED._replace(captured_quantity=1),
        UNUSED._replace(reported_quantity=1),
    ],
)
def test_what_is_mostly_0_is_written_by_itself(facts: ReservationFacts) -> None:
    message = reservation(facts)
    numbers = [getattr(message, field) for field in MOSTLY_0]
    assert numbers == [getattr(facts, field) for field in MOSTLY_0]


def test_a_time_of_0_is_one_and_none_is_not() -> None:
    assert reservation(UNUSED).HasField("created_at")
    assert not reservation(UNUSED).HasField("expires_at")
    assert reservation(UNUSED._replace(expires_at=0)).HasField("expires_at")


def test_an_answer_says_what_its_operation_did() -> None:
    outcome = EMPTY._replace(charged_micros=1, uncollected_micros=2, released_micros=3, replayed=True)
    reserved, committed, released = pb.ReserveResponse(), pb.CommitResponse(), pb.ReleaseResponse()
    outcomes.reserved(outcome, reserved)
    outcomes.committed(outcome, committed)
    outcomes.released(outcome, released)
    assert (committed.charged_micros, committed.uncollected_micros, released.released_micros) == (1, 2, 3)
    for answer in (reserved, committed, released):
        assert answer.replayed
        assert answer.wallet == wallet(NOTHING)
        assert answer.reservation == reservation(UNUSED)


def test_an_operation_that_did_nothing_has_an_answer_all_the_same() -> None:
    answer = pb.MeterOutcome()
    outcomes.released(EMPTY._replace(reservation=None), answer.release)
    assert answer.WhichOneof("outcome") == "release"
    assert not answer.release.HasField("reservation")
    item = pb.UsageOutcome()
    outcomes.counted(EMPTY, item.accepted)
    assert item.WhichOneof("outcome") == "accepted"
