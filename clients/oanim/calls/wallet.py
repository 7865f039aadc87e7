"""The calls of WalletService that read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from oanim.calls.call import Call, StreamedCall, timestamp
from openanimate.metering.v1.wallet_service_pb2 import (
    GetReservationRequest,
    GetReservationResponse,
    GetUsageRequest,
    GetUsageResponse,
    GetWalletRequest,
    GetWalletResponse,
    ListReservationsRequest,
    ListReservationsResponse,
    ListTransactionsRequest,
    ListTransactionsResponse,
    ListUsageRequest,
    ListUsageResponse,
    UsageGrouping,
    WatchWalletRequest,
    WatchWalletResponse,
)

if TYPE_CHECKING:
    from datetime import datetime

    from google.protobuf.timestamp_pb2 import Timestamp


def get_wallet(*, account_id: str = "", timeout_s: float | None = None) -> Call[GetWalletResponse]:
    """Answer the wallet as it stands now."""
    request = GetWalletRequest(account_id=account_id)
    return Call("WalletService/GetWallet", request, GetWalletResponse, timeout_s)


def watch_wallet(
    *, account_id: str = "", timeout_s: float | None = None
) -> StreamedCall[WatchWalletResponse]:
    """Answer the wallet now and after every change, across restarts of the server, without end by default."""
    request = WatchWalletRequest(account_id=account_id)
    timeout_s = math.inf if timeout_s is None else timeout_s
    return StreamedCall("WalletService/WatchWallet", request, WatchWalletResponse, timeout_s, _is_other_state)


def _is_other_state(former: WatchWalletResponse | None, message: WatchWalletResponse) -> bool:
    return message != former


def get_reservation(*, reservation_id: str, timeout_s: float | None = None) -> Call[GetReservationResponse]:
    """Answer one reservation as it stands now."""
    request = GetReservationRequest(reservation_id=reservation_id)
    return Call("WalletService/GetReservation", request, GetReservationResponse, timeout_s)


def list_reservations(
    *,
    account_id: str = "",
    active: bool = False,
    page_size: int = 0,
    page_token: str = "",
    timeout_s: float | None = None,
) -> Call[ListReservationsResponse]:
    """List an account's reservations, or only those that hold something now, newest first."""
    request = ListReservationsRequest(
        account_id=account_id, active=active, page_size=page_size, page_token=page_token
    )
    return Call("WalletService/ListReservations", request, ListReservationsResponse, timeout_s)


def list_transactions(
    *,
    account_id: str = "",
    page_size: int = 0,
    page_token: str = "",
    as_of: datetime | Timestamp | None = None,
    timeout_s: float | None = None,
) -> Call[ListTransactionsResponse]:
    """Answer the account's statement, newest row first, with the wallet and its lots as of a time."""
    request = ListTransactionsRequest(
        account_id=account_id, page_size=page_size, page_token=page_token, as_of=timestamp(as_of)
    )
    return Call("WalletService/ListTransactions", request, ListTransactionsResponse, timeout_s)


def get_usage(
    *,
    account_id: str = "",
    first_day: str = "",
    last_day: str = "",
    group_by: UsageGrouping.ValueType = UsageGrouping.USAGE_GROUPING_UNSPECIFIED,
    timeout_s: float | None = None,
) -> Call[GetUsageResponse]:
    """Add up what was charged over a range of UTC days, such as 2026-11-23."""
    request = GetUsageRequest(
        account_id=account_id, first_day=first_day, last_day=last_day, group_by=group_by
    )
    return Call("WalletService/GetUsage", request, GetUsageResponse, timeout_s)


def list_usage(
    *,
    account_id: str = "",
    page_size: int = 0,
    page_token: str = "",
    since: datetime | Timestamp | None = None,
    timeout_s: float | None = None,
) -> Call[ListUsageResponse]:
    """List charges one by one, newest first."""
    request = ListUsageRequest(
        account_id=account_id, page_size=page_size, page_token=page_token, since=timestamp(since)
    )
    return Call("WalletService/ListUsage", request, ListUsageResponse, timeout_s)
