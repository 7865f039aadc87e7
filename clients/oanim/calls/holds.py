"""The calls of WalletService that set credits aside, charge them, and give them back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oanim.calls.call import Call, key_or_new, one_of
from openanimate.metering.v1.wallet_service_pb2 import (
    CommitRequest,
    CommitResponse,
    ExtendRequest,
    ExtendResponse,
    PricedLine,
    ReleaseRequest,
    ReleaseResponse,
    ReserveRequest,
    ReserveResponse,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from openanimate.metering.v1.reservation_pb2 import SpendScope


def reserve(
    *,
    account_id: str = "",
    idempotency_key: str | None = None,
    amount_micros: int | None = None,
    line: PricedLine | None = None,
    ttl_seconds: int = 0,
    spend_scopes: Iterable[SpendScope] = (),
    labels: Mapping[str, str] | None = None,
    render_id: str = "",
    epoch: int = 0,
    timeout_s: float | None = None,
) -> Call[ReserveResponse]:
    """Set an amount, or the price of a line, aside for work that is about to start."""
    request = ReserveRequest(
        account_id=account_id,
        idempotency_key=key_or_new(idempotency_key),
        ttl_seconds=ttl_seconds,
        spend_scopes=spend_scopes,
        labels=labels,
        render_id=render_id,
        epoch=epoch,
        **one_of(amount_micros=amount_micros, line=line),
    )
    return Call("WalletService/Reserve", request, ReserveResponse, timeout_s)


def commit(
    *,
    reservation_id: str,
    idempotency_key: str | None = None,
    amount_micros: int | None = None,
    quantity: int | None = None,
    keep_rest: bool = False,
    capture: int = 0,
    timeout_s: float | None = None,
) -> Call[CommitResponse]:
    """Charge an amount or a cumulative quantity, and give the rest back unless it is to be kept."""
    request = CommitRequest(
        reservation_id=reservation_id,
        idempotency_key=key_or_new(idempotency_key),
        keep_rest=keep_rest,
        capture=capture,
        **one_of(amount_micros=amount_micros, quantity=quantity),
    )
    return Call("WalletService/Commit", request, CommitResponse, timeout_s)


def release(
    *, reservation_id: str, idempotency_key: str | None = None, timeout_s: float | None = None
) -> Call[ReleaseResponse]:
    """Give back what a reservation still holds."""
    request = ReleaseRequest(reservation_id=reservation_id, idempotency_key=key_or_new(idempotency_key))
    return Call("WalletService/Release", request, ReleaseResponse, timeout_s)


def extend(
    *,
    reservation_id: str,
    idempotency_key: str | None = None,
    amount_micros: int = 0,
    ttl_seconds: int = 0,
    timeout_s: float | None = None,
) -> Call[ExtendResponse]:
    """Set more aside for a reservation, give it more time, or both."""
    request = ExtendRequest(
        reservation_id=reservation_id,
        idempotency_key=key_or_new(idempotency_key),
        amount_micros=amount_micros,
        ttl_seconds=ttl_seconds,
    )
    return Call("WalletService/Extend", request, ExtendResponse, timeout_s)
