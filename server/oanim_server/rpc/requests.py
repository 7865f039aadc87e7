"""Requests as the ledger's operations: shape checked, names resolved, nothing decided."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oanim_server.accounts.values import Role
from oanim_server.ledger.operations import Commit, Extend, Refused, Release, Reserve
from oanim_server.ledger.refusals import InvalidField, Refusal
from oanim_server.ledger.usage import Report, Use
from oanim_server.rendering.holding import Held, UnderLease
from oanim_server.rpc import render_messages, shape

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from oanim_server.pricing.prices import Prices
    from oanim_server.rpc.call import Call
    from openanimate.metering.v1 import wallet_service_pb2

# Found once: an enumeration's look-up of its member costs more than comparing it.
_WORKER = Role.WORKER


async def reserve(request: wallet_service_pb2.ReserveRequest, call: Call, prices: Prices) -> Reserve:
    """A Reserve, with its line priced; what cannot be priced is refused at its turn, after its key."""
    operation = hold(request, call, prices)
    return operation if isinstance(operation, Reserve) else await operation


def hold(
    request: wallet_service_pb2.ReserveRequest, call: Call, prices: Prices
) -> Reserve | Awaitable[Reserve]:
    """The same; awaited where there is a line to price, because most have none and a coroutine is dear."""
    caller = call.caller
    wallet_id, companion, under = _payer(request, call)
    idempotency_key = shape.idempotency_key(request.idempotency_key)
    ttl = shape.reservation_ttl(request.ttl_seconds)
    spend_scopes = shape.spend_scopes(request.spend_scopes)
    labels = shape.labels(request.labels)
    # Of a line, the amount is its price.
    amount_micros, asked = 1, None
    if shape.chosen("hold", request.WhichOneof("hold")) == "amount_micros":
        amount_micros = shape.amount("amount_micros", request.amount_micros)
    else:
        line = request.line
        asked = shape.model("line.model", line.model), shape.quantity("line.quantity", line.quantity)
    operation = Reserve(
        wallet_id=wallet_id,
        caller=caller.account_id,
        idempotency_key=idempotency_key,
        companion=companion,
        amount_micros=amount_micros,
        asked=asked,
        under=under,
        opener=caller.account_id,
        api_key_id=caller.key_id,
        ttl=ttl,
        spend_scopes=spend_scopes,
        labels=labels,
    )
    return operation if asked is None else _priced(operation, *asked, prices)


async def _priced(operation: Reserve, model: str, quantity: int, prices: Prices) -> Reserve:
    try:
        quote = await prices.quote_quantity(model, quantity)
    except Refusal as refusal:
        operation.companion = Refused(refusal)
    else:
        operation.amount_micros, operation.line = quote.amount_micros, quote.line
    return operation


def _payer(
    request: wallet_service_pb2.ReserveRequest, call: Call
) -> tuple[int, Held | None, tuple[int, int] | None]:
    """Whose wallet pays, with what, under which lease: the account that is named or, of a worker, that of the
    render that it works on.
    """
    if call.caller.role is not _WORKER:
        if request.render_id or request.epoch:
            raise InvalidField(field="render_id", description="only a worker works on a render")
        return call.account(request.account_id), None, None
    claim = render_messages.claim("epoch", request.render_id, request.epoch, call)
    if request.account_id and call.account(request.account_id) != claim.wallet_id:
        raise InvalidField(field="account_id", description="the account of the render pays")
    return claim.wallet_id, Held(claim), (claim.number, claim.epoch)


def _under_lease(wallet_id: int, number: int, call: Call) -> UnderLease | None:
    """What goes with a worker's change of a hold."""
    if call.caller.role is not _WORKER:
        return None
    return UnderLease((wallet_id, number), call.caller.account_id)


def metered(
    operation: wallet_service_pb2.MeterOperation, call: Call, prices: Prices
) -> Reserve | Commit | Release | Awaitable[Reserve]:
    """An operation of a Meter stream; a Commit or a Release may name the key of its Reserve."""
    kind = shape.chosen("operation", operation.WhichOneof("operation"))
    if kind == "reserve":
        return hold(operation.reserve, call, prices)
    if kind == "commit":
        charge = operation.commit
        return commit(charge, call, *_reserve_of(operation, charge, call))
    rest = operation.release
    return release(rest, call, *_reserve_of(operation, rest, call))


def _reserve_of(
    operation: wallet_service_pb2.MeterOperation,
    request: wallet_service_pb2.CommitRequest | wallet_service_pb2.ReleaseRequest,
    call: Call,
) -> tuple[str, int]:
    """The key and the account of the Reserve that is named instead of a reservation."""
    key = operation.reserve_key
    if not key:
        return "", 0
    if request.reservation_id:
        raise InvalidField(
            field="reserve_key", description="give the reservation or the key of its Reserve, not both"
        )
    return shape.text("reserve_key", key, shape.MAX_KEY_BYTES), call.account(operation.account_id)


async def usage(item: wallet_service_pb2.UsageItem, call: Call, prices: Prices) -> Report | Use:
    """A usage item; one that cannot be priced is refused at its turn, after its key."""
    if shape.chosen("usage", item.WhichOneof("usage")) == "reservation":
        wallet_id, number = call.reservation(item.reservation.reservation_id)
        quantity = shape.quantity("reservation.quantity", item.reservation.quantity, least=0)
        caller = call.caller.account_id
        return Report(wallet_id=wallet_id, caller=caller, reservation=number, quantity=quantity)
    event = item.event
    if not event.account_id:
        raise InvalidField(field="event.account_id", description="it must name the account that used it")
    model = shape.model("event.line.model", event.line.model)
    quantity = shape.quantity("event.line.quantity", event.line.quantity)
    fields: dict[str, Any] = {
        "wallet_id": call.account(event.account_id),
        "caller": call.caller.account_id,
        "api_key_id": call.caller.key_id,
        "idempotency_key": shape.text("event.event_id", event.event_id, shape.MAX_KEY_BYTES),
        "labels": shape.labels(event.labels),
        "asked": (model, quantity),
    }
    try:
        quote = await prices.quote_quantity(model, quantity)
    except Refusal as refusal:
        return Use(**fields, amount_micros=0, line=None, companion=Refused(refusal))
    return Use(**fields, amount_micros=quote.amount_micros, line=quote.line)


def commit(
    request: wallet_service_pb2.CommitRequest, call: Call, reserve_key: str = "", account: int = 0
) -> Commit:
    """A Commit, of a reservation by its id or by the key of the caller's Reserve for an account."""
    wallet_id, number = (account, 0) if reserve_key else call.reservation(request.reservation_id)
    charge = shape.chosen("charge", request.WhichOneof("charge"))
    by_amount = charge == "amount_micros"
    return Commit(
        wallet_id=wallet_id,
        caller=call.caller.account_id,
        idempotency_key=shape.idempotency_key(request.idempotency_key),
        companion=_under_lease(wallet_id, number, call),
        reservation=number,
        reserve_key=reserve_key,
        amount_micros=shape.amount(charge, request.amount_micros, least=0) if by_amount else None,
        quantity=None if by_amount else shape.quantity(charge, request.quantity, least=0),
        keep_rest=request.keep_rest,
        capture=shape.capture(request.capture),
    )


def release(
    request: wallet_service_pb2.ReleaseRequest, call: Call, reserve_key: str = "", account: int = 0
) -> Release:
    """A Release, named as a Commit."""
    wallet_id, number = (account, 0) if reserve_key else call.reservation(request.reservation_id)
    return Release(
        wallet_id=wallet_id,
        caller=call.caller.account_id,
        idempotency_key=shape.idempotency_key(request.idempotency_key),
        reservation=number,
        reserve_key=reserve_key,
    )


def extend(request: wallet_service_pb2.ExtendRequest, call: Call) -> Extend:
    """An Extend."""
    wallet_id, number = call.reservation(request.reservation_id)
    if not request.amount_micros and not request.ttl_seconds:
        raise InvalidField(field="amount_micros", description="one of amount and ttl must be given")
    return Extend(
        wallet_id=wallet_id,
        caller=call.caller.account_id,
        idempotency_key=shape.idempotency_key(request.idempotency_key),
        companion=_under_lease(wallet_id, number, call),
        reservation=number,
        amount_micros=shape.amount("amount_micros", request.amount_micros, least=0),
        ttl=shape.ttl(request.ttl_seconds),
    )
