"""The calls of CheckoutService.

A checkout goes on without its caller: it is paid in a browser, and credited whoever watches.
"""

from __future__ import annotations

import math

from oanim.calls.call import Call, StreamedCall, key_or_new
from openanimate.metering.v1.checkout_service_pb2 import (
    CreateCheckoutRequest,
    CreateCheckoutResponse,
    GetCheckoutRequest,
    GetCheckoutResponse,
    GetReceiptRequest,
    GetReceiptResponse,
    ListPurchasesRequest,
    ListPurchasesResponse,
    WatchCheckoutRequest,
    WatchCheckoutResponse,
)


def create_checkout(
    *, amount_micros: int, idempotency_key: str | None = None, timeout_s: float | None = None
) -> Call[CreateCheckoutResponse]:
    """Begin a purchase of whole cents and answer the page where it is paid."""
    request = CreateCheckoutRequest(amount_micros=amount_micros, idempotency_key=key_or_new(idempotency_key))
    return Call("CheckoutService/CreateCheckout", request, CreateCheckoutResponse, timeout_s)


def get_checkout(*, checkout_id: str, timeout_s: float | None = None) -> Call[GetCheckoutResponse]:
    """Answer how a checkout stands now."""
    request = GetCheckoutRequest(checkout_id=checkout_id)
    return Call("CheckoutService/GetCheckout", request, GetCheckoutResponse, timeout_s)


def watch_checkout(
    *, checkout_id: str, timeout_s: float | None = None
) -> StreamedCall[WatchCheckoutResponse]:
    """Answer a checkout now and after every change, across restarts of the server, until it has ended."""
    request = WatchCheckoutRequest(checkout_id=checkout_id)
    timeout_s = math.inf if timeout_s is None else timeout_s
    return StreamedCall(
        "CheckoutService/WatchCheckout", request, WatchCheckoutResponse, timeout_s, _is_other_state
    )


def _is_other_state(former: WatchCheckoutResponse | None, message: WatchCheckoutResponse) -> bool:
    return message != former


def list_purchases(
    *, account_id: str = "", page_size: int = 0, page_token: str = "", timeout_s: float | None = None
) -> Call[ListPurchasesResponse]:
    """List the checkouts that were paid, newest first."""
    request = ListPurchasesRequest(account_id=account_id, page_size=page_size, page_token=page_token)
    return Call("CheckoutService/ListPurchases", request, ListPurchasesResponse, timeout_s)


def get_receipt(*, checkout_id: str, timeout_s: float | None = None) -> Call[GetReceiptResponse]:
    """Answer what was paid for a purchase, and what came back."""
    request = GetReceiptRequest(checkout_id=checkout_id)
    return Call("CheckoutService/GetReceipt", request, GetReceiptResponse, timeout_s)
