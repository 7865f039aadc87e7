"""PricingService: the contract's words to the price table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oanim_server.pricing.values import ProposedPrice
from oanim_server.rpc import messages, shape
from openanimate.metering.v1 import pricing_service_pb2 as pb

if TYPE_CHECKING:
    from oanim_server.checkout.values import Terms
    from oanim_server.pricing.prices import Prices
    from oanim_server.rpc.call import Call


class PricingServicer:
    """Answers PricingService.

    :param free_credits_micros: what a new account gets, as the price list says.
    :param terms: what credits can be bought for; None where none are sold.
    """

    def __init__(self, prices: Prices, free_credits_micros: int, terms: Terms | None) -> None:
        self._prices = prices
        self._free_credits_micros = free_credits_micros
        self._terms = None if terms is None else messages.purchase_terms(terms)

    async def ListPrices(self, request: pb.ListPricesRequest, call: Call) -> pb.ListPricesResponse:
        table = await self._prices.list_prices(
            category=request.category, as_of=shape.maybe_instant("as_of", request)
        )
        return pb.ListPricesResponse(
            price_version=table.version,
            effective_at=messages.timestamp(table.effective_at),
            prices=map(messages.price, table.prices),
            free_credits_micros=self._free_credits_micros,
            purchase_terms=self._terms,
        )

    async def GetPrice(self, request: pb.GetPriceRequest, call: Call) -> pb.GetPriceResponse:
        found = await self._prices.get_price(
            shape.model("model", request.model), as_of=shape.maybe_instant("as_of", request)
        )
        return pb.GetPriceResponse(
            price_version=found.price_version, price=messages.price(found.price), listed=found.listed
        )

    async def Quote(self, request: pb.QuoteRequest, call: Call) -> pb.QuoteResponse:
        model = shape.model("model", request.model)
        if shape.chosen("work", request.WhichOneof("work")) == "input_json":
            quote = await self._prices.quote_input(model, shape.input_json(request.input_json))
        else:
            quote = await self._prices.quote_quantity(
                model, shape.quantity("quantity", request.quantity, least=0)
            )
        return pb.QuoteResponse(
            amount_micros=quote.amount_micros,
            quantity=quote.quantity,
            price_version=quote.price_version,
            price=messages.price(quote.price),
        )

    async def PublishPrices(self, request: pb.PublishPricesRequest, call: Call) -> pb.PublishPricesResponse:
        version = await self._prices.publish(
            [_proposed(price) for price in request.prices],
            effective_at=shape.maybe_instant("effective_at", request),
            published_by=call.caller.key_id,
        )
        return pb.PublishPricesResponse(
            price_version=version.number, effective_at=messages.timestamp(version.effective_at)
        )


def _proposed(price: pb.Price) -> ProposedPrice:
    return ProposedPrice(
        model=price.model,
        category=price.category,
        amount_micros=price.amount_micros,
        unit=price.unit,
        base_quantity=price.base_quantity,
        quantity_field=price.quantity_field,
        provider=price.provider,
        endpoint=price.endpoint,
        is_default=price.is_default,
    )
