"""WalletService: the contract's words to the ledger, and the ledger's values back."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar, cast

from oanim_server.ledger.reads import Grouping
from oanim_server.rpc import messages, outcomes, requests, shape, streams
from openanimate.metering.v1 import wallet_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from google.protobuf.message import Message

    from oanim_server.ledger.ledger import Ledger
    from oanim_server.ledger.values import Outcome, WalletFacts
    from oanim_server.pricing.prices import Prices
    from oanim_server.rpc.call import Call
    from oanim_server.rpc.streams import Work

A = TypeVar("A", bound="Message")

_DEFAULT_DAYS_BEFORE = 29
_GROUPINGS: dict[int, Grouping] = {
    pb.USAGE_GROUPING_UNSPECIFIED: Grouping.DAY,
    pb.USAGE_GROUPING_DAY: Grouping.DAY,
    pb.USAGE_GROUPING_MODEL: Grouping.MODEL,
    pb.USAGE_GROUPING_CATEGORY: Grouping.CATEGORY,
    pb.USAGE_GROUPING_API_KEY: Grouping.API_KEY,
    pb.USAGE_GROUPING_PROJECT: Grouping.PROJECT,
}


def _written(answer: Callable[[], A], write: Callable[[Outcome, A], None]) -> Callable[[Outcome], bytes]:
    """What makes of an outcome the bytes of its answer."""

    def written(outcome: Outcome) -> bytes:
        message = answer()
        write(outcome, message)
        return message.SerializeToString()

    return written


_reserved = _written(pb.ReserveResponse, outcomes.reserved)
_committed = _written(pb.CommitResponse, outcomes.committed)
_released = _written(pb.ReleaseResponse, outcomes.released)
_extended = _written(pb.ExtendResponse, outcomes.reserved)


class WalletServicer:
    """Answers WalletService."""

    def __init__(self, ledger: Ledger, prices: Prices) -> None:
        self._ledger = ledger
        self._prices = prices

    async def GetWallet(self, request: pb.GetWalletRequest, call: Call) -> pb.GetWalletResponse:
        facts = await self._ledger.wallet(call.account(request.account_id))
        return pb.GetWalletResponse(wallet=messages.wallet(facts))

    async def WatchWallet(
        self, request: pb.WatchWalletRequest, call: Call
    ) -> AsyncGenerator[pb.WatchWalletResponse]:
        watch = self._ledger.watch(call.account(request.account_id))
        async with aclosing(cast("AsyncGenerator[WalletFacts]", watch)) as states:
            async for facts in states:
                yield pb.WatchWalletResponse(wallet=messages.wallet(facts))

    async def Reserve(self, request: pb.ReserveRequest, call: Call) -> bytes:
        return await self._ledger.answer(await requests.reserve(request, call, self._prices), _reserved)

    async def Commit(self, request: pb.CommitRequest, call: Call) -> bytes:
        return await self._ledger.answer(requests.commit(request, call), _committed)

    async def Release(self, request: pb.ReleaseRequest, call: Call) -> bytes:
        return await self._ledger.answer(requests.release(request, call), _released)

    async def Extend(self, request: pb.ExtendRequest, call: Call) -> bytes:
        return await self._ledger.answer(requests.extend(request, call), _extended)

    async def GetReservation(
        self, request: pb.GetReservationRequest, call: Call
    ) -> pb.GetReservationResponse:
        facts = await self._ledger.reservation(*call.reservation(request.reservation_id))
        return pb.GetReservationResponse(reservation=messages.reservation(facts))

    async def ListReservations(
        self, request: pb.ListReservationsRequest, call: Call
    ) -> pb.ListReservationsResponse:
        limit = shape.page_size(request.page_size)
        found = await self._ledger.reservations(
            call.account(request.account_id),
            active=request.active,
            before=shape.page_before(request.page_token),
            limit=limit + 1,
        )
        return pb.ListReservationsResponse(
            reservations=map(messages.reservation, found[:limit]),
            next_page_token=shape.next_page([facts.number for facts in found], limit),
        )

    async def ListTransactions(
        self, request: pb.ListTransactionsRequest, call: Call
    ) -> pb.ListTransactionsResponse:
        limit = shape.page_size(request.page_size)
        before = shape.page_before(request.page_token)
        statement = await self._ledger.statement(
            call.account(request.account_id),
            as_of=shape.maybe_instant("as_of", request),
            before=before,
            limit=limit + 1,
        )
        return pb.ListTransactionsResponse(
            transactions=[messages.transaction(row, statement) for row in statement.rows[:limit]],
            next_page_token=shape.next_page([row.seq for row in statement.rows], limit),
            wallet=messages.wallet(statement.wallet),
            lots=map(messages.lot, statement.lots if before is None else ()),
        )

    async def GetUsage(self, request: pb.GetUsageRequest, call: Call) -> pb.GetUsageResponse:
        first, last = shape.days(request.first_day, request.last_day, _DEFAULT_DAYS_BEFORE)
        totals = await self._ledger.usage(
            call.account(request.account_id),
            first_day=first,
            last_day=last,
            group_by=shape.one_of("group_by", request.group_by, _GROUPINGS),
        )
        return pb.GetUsageResponse(
            totals=map(messages.usage_total, totals),
            charged_micros=sum(total.charged_micros for total in totals),
            first_day=shape.day_text(first),
            last_day=shape.day_text(last),
        )

    async def ListUsage(self, request: pb.ListUsageRequest, call: Call) -> pb.ListUsageResponse:
        limit = shape.page_size(request.page_size)
        found = await self._ledger.charges(
            call.account(request.account_id),
            since=shape.maybe_instant("since", request),
            before=shape.page_before(request.page_token),
            limit=limit + 1,
        )
        return pb.ListUsageResponse(
            records=map(messages.usage_record, found[:limit]),
            next_page_token=shape.next_page([charge.seq for charge in found], limit),
        )

    async def StreamUsage(
        self, asked: AsyncIterator[pb.StreamUsageRequest], call: Call
    ) -> AsyncGenerator[pb.StreamUsageResponse]:
        async def works(request: pb.StreamUsageRequest) -> list[Work]:
            return await streams.works("items", request.items, call, self._prices, requests.usage)

        async with aclosing(streams.in_turn(asked, works, self._ledger)) as decided:
            async for items, answers in decided:
                response = pb.StreamUsageResponse()
                await streams.answered(items, answers, response.outcomes.add, streams.used)
                yield response

    async def Meter(
        self, asked: AsyncIterator[pb.MeterRequest], call: Call
    ) -> AsyncGenerator[pb.MeterResponse]:
        async def works(request: pb.MeterRequest) -> list[Work]:
            return await streams.works("operations", request.operations, call, self._prices, requests.metered)

        async with aclosing(streams.in_turn(asked, works, self._ledger)) as decided:
            async for operations, answers in decided:
                response = pb.MeterResponse()
                await streams.answered(operations, answers, response.outcomes.add, streams.metered)
                yield response
