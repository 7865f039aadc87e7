"""The operations of WalletService's streams, Meter and StreamUsage, as the pieces that messages are made of.

A piece is the whole message with this one operation in it: messages of one repeated field that are put one
behind the other are one message, so that an operation is serialised once, however often it is sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from google.protobuf.message import Message

from oanim.calls import holds
from oanim.calls.call import one_of
from oanim.channels import PACKAGE
from openanimate.metering.v1.wallet_service_pb2 import (
    CommitResponse,
    EventUsage,
    MeterOperation,
    MeterRequest,
    MeterResponse,
    PricedLine,
    ReleaseResponse,
    ReservationUsage,
    ReserveResponse,
    StreamUsageRequest,
    StreamUsageResponse,
    UsageAccepted,
    UsageItem,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from oanim.calls.call import Call
    from openanimate.metering.v1.reservation_pb2 import SpendScope

Answer = TypeVar("Answer", bound=Message)


@dataclass(frozen=True, slots=True)
class StreamMethod:
    """A stream of the contract: where it is, and what answers a message."""

    path: str
    answer: type[MeterResponse | StreamUsageResponse]


METER = StreamMethod(f"/{PACKAGE}.WalletService/Meter", MeterResponse)
STREAM_USAGE = StreamMethod(f"/{PACKAGE}.WalletService/StreamUsage", StreamUsageResponse)


@dataclass(frozen=True, slots=True)
class Piece(Generic[Answer]):
    """One operation. `timeout_s` None is the stream's default.

    `outcome` is the member of an outcome that holds its answer. `chain` is the same for all operations of a
    reservation, whose order matters, and empty where no order does.
    """

    message: bytes
    outcome: str
    answer: type[Answer]
    idempotency_key: str
    chain: str
    timeout_s: float | None


def reserve(
    *,
    account_id: str = "",
    idempotency_key: str | None = None,
    amount_micros: int | None = None,
    line: PricedLine | None = None,
    ttl_seconds: int = 0,
    spend_scopes: Iterable[SpendScope] = (),
    labels: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> Piece[ReserveResponse]:
    """Set an amount, or the price of a line, aside for work that is about to start."""
    call = holds.reserve(
        account_id=account_id,
        idempotency_key=idempotency_key,
        amount_micros=amount_micros,
        line=line,
        ttl_seconds=ttl_seconds,
        spend_scopes=spend_scopes,
        labels=labels,
    )
    return _metered("reserve", call, timeout_s)


def commit(
    *,
    reservation_id: str | None = None,
    reserve_key: str | None = None,
    account_id: str = "",
    idempotency_key: str | None = None,
    amount_micros: int | None = None,
    quantity: int | None = None,
    keep_rest: bool = False,
    capture: int = 0,
    timeout_s: float | None = None,
) -> Piece[CommitResponse]:
    """Charge a reservation, which its id names, or the key of its Reserve with the account."""
    call = holds.commit(
        reservation_id=_one_name(reservation_id, reserve_key),
        idempotency_key=idempotency_key,
        amount_micros=amount_micros,
        quantity=quantity,
        keep_rest=keep_rest,
        capture=capture,
    )
    return _metered(
        "commit",
        call,
        timeout_s,
        reservation_id=reservation_id,
        reserve_key=reserve_key,
        account_id=account_id,
    )


def release(
    *,
    reservation_id: str | None = None,
    reserve_key: str | None = None,
    account_id: str = "",
    idempotency_key: str | None = None,
    timeout_s: float | None = None,
) -> Piece[ReleaseResponse]:
    """Give back what a reservation still holds, which is named as for a commit."""
    call = holds.release(
        reservation_id=_one_name(reservation_id, reserve_key), idempotency_key=idempotency_key
    )
    return _metered(
        "release",
        call,
        timeout_s,
        reservation_id=reservation_id,
        reserve_key=reserve_key,
        account_id=account_id,
    )


def report(*, reservation_id: str, quantity: int, timeout_s: float | None = None) -> Piece[UsageAccepted]:
    """Raise a reservation's counter to what was used until now in all; a lower one changes nothing."""
    item = UsageItem(reservation=ReservationUsage(reservation_id=reservation_id, quantity=quantity))
    return _used(item, "", timeout_s)


def event(
    *,
    account_id: str,
    event_id: str,
    model: str,
    quantity: int,
    labels: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> Piece[UsageAccepted]:
    """Charge an account for what was used without a reservation, once for each event_id."""
    line = PricedLine(model=model, quantity=quantity)
    used = EventUsage(account_id=account_id, event_id=event_id, line=line, labels=labels)
    return _used(UsageItem(event=used), event_id, timeout_s)


def _one_name(reservation_id: str | None, reserve_key: str | None) -> str:
    """Answer the id; raises TypeError unless one of the two names the reservation."""
    if not one_of(reservation_id=reservation_id, reserve_key=reserve_key):
        raise TypeError("name the reservation by reservation_id or by reserve_key")
    return reservation_id or ""


def _metered(
    outcome: str,
    call: Call[Answer],
    timeout_s: float | None,
    *,
    reservation_id: str | None = None,
    reserve_key: str | None = None,
    account_id: str = "",
) -> Piece[Answer]:
    asked: dict[str, Any] = {outcome: call.request}
    operation = MeterOperation(**asked, reserve_key=reserve_key or "", account_id=account_id)
    message = MeterRequest(operations=[operation]).SerializeToString()
    key = call.idempotency_key
    return Piece(message, outcome, call.answer, key, reservation_id or reserve_key or key, timeout_s)


def _used(item: UsageItem, event_id: str, timeout_s: float | None) -> Piece[UsageAccepted]:
    """An item of usage. Its order matters to nobody: the greatest counter wins, and an event stands alone."""
    message = StreamUsageRequest(items=[item]).SerializeToString()
    return Piece(message, "accepted", UsageAccepted, event_id, "", timeout_s)
