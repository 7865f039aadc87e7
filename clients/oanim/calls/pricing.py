"""The calls of PricingService."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oanim.calls.call import Call, one_of, timestamp
from openanimate.metering.v1.pricing_service_pb2 import (
    GetPriceRequest,
    GetPriceResponse,
    ListPricesRequest,
    ListPricesResponse,
    Price,
    PublishPricesRequest,
    PublishPricesResponse,
    QuoteRequest,
    QuoteResponse,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from google.protobuf.timestamp_pb2 import Timestamp


def list_prices(
    *, category: str = "", as_of: datetime | Timestamp | None = None, timeout_s: float | None = None
) -> Call[ListPricesResponse]:
    """Answer the price table, or one category of it."""
    request = ListPricesRequest(category=category, as_of=timestamp(as_of))
    return Call("PricingService/ListPrices", request, ListPricesResponse, timeout_s)


def get_price(
    *, model: str, as_of: datetime | Timestamp | None = None, timeout_s: float | None = None
) -> Call[GetPriceResponse]:
    """Answer what one model costs."""
    request = GetPriceRequest(model=model, as_of=timestamp(as_of))
    return Call("PricingService/GetPrice", request, GetPriceResponse, timeout_s)


def quote(
    *,
    model: str,
    input_json: str | None = None,
    quantity: int | None = None,
    timeout_s: float | None = None,
) -> Call[QuoteResponse]:
    """Answer what a piece of work, given by its input or its quantity, would cost now."""
    request = QuoteRequest(model=model, **one_of(input_json=input_json, quantity=quantity))
    return Call("PricingService/Quote", request, QuoteResponse, timeout_s)


def publish_prices(
    *,
    prices: Iterable[Price],
    effective_at: datetime | Timestamp | None = None,
    timeout_s: float | None = None,
) -> Call[PublishPricesResponse]:
    """Publish a new version of the whole price table."""
    request = PublishPricesRequest(prices=prices, effective_at=timestamp(effective_at))
    return Call("PricingService/PublishPrices", request, PublishPricesResponse, timeout_s)
