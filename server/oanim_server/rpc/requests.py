"""Requests as the ledger's operations: shape checked, names resolved, nothing decided."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oanim_server.accounts.values import Role
from oanim_server.ledger.operations import Commit, Extend, Refused, Release, Reserve
from oanim_server.ledger.refusals import InvalidField, Refusal
from oanim_server.rendering.holding import Held, UnderLease
from oanim_server.rpc import render_messages, shape

if TYPE_CHECKING:
    from oanim_server.pricing.prices import Prices
    from oanim_server.rpc.call import Call
    from openanimate.metering.v1 import wallet_service_pb2


async def reserve(request: wallet_service_pb2.ReserveRequest, call: Call, prices: Prices) -> Reserve:
    """A Reserve, with its line priced; what cannot be priced is refused at its turn, after its key."""
    fields: dict[str, Any] = {
        **_payer(request, call),
        "caller": call.caller.account_id,
        "opener": call.caller.account_id,
        "api_key_id": call.caller.key_id,
        "idempotency_key": shape.idempotency_key(request.idempotency_key),
        "ttl": shape.reservation_ttl(request.ttl_seconds),
        "spend_scopes": shape.spend_scopes(request.spend_scopes),
        "labels": shape.labels(request.labels),
    }
    if shape.chosen("hold", request.WhichOneof("hold")) == "amount_micros":
        return Reserve(**fields, amount_micros=shape.amount("amount_micros", request.amount_micros))
    model = shape.model("line.model", request.line.model)
    quantity = shape.quantity("line.quantity", request.line.quantity)
    fields["asked"] = (model, quantity)
    try:
        quote = await prices.quote_quantity(model, quantity)
    except Refusal as refusal:
        return Reserve(**{**fields, "amount_micros": 1, "companion": Refused(refusal)})
    return Reserve(**fields, amount_micros=quote.amount_micros, line=quote.line)


def _payer(request: wallet_service_pb2.ReserveRequest, call: Call) -> dict[str, Any]:
    """Whose wallet pays: the account that is named or, of a worker, that of the render that it works on."""
    if call.caller.role is not Role.WORKER:
        if request.render_id or request.epoch:
            raise InvalidField(field="render_id", description="only a worker works on a render")
        return {"wallet_id": call.account(request.account_id)}
    claim = render_messages.claim("epoch", request.render_id, request.epoch, call)
    if request.account_id and call.account(request.account_id) != claim.wallet_id:
        raise InvalidField(field="account_id", description="the account of the render pays")
    return {"wallet_id": claim.wallet_id, "companion": Held(claim), "under": (claim.number, claim.epoch)}


def _under_lease(wallet_id: int, number: int, call: Call) -> UnderLease | None:
    """What goes with a worker's change of a hold."""
    if call.caller.role is not Role.WORKER:
        return None
    return UnderLease((wallet_id, number), call.caller.account_id)


def commit(request: wallet_service_pb2.CommitRequest, call: Call) -> Commit:
    """A Commit."""
    wallet_id, number = call.reservation(request.reservation_id)
    charge = shape.chosen("charge", request.WhichOneof("charge"))
    by_amount = charge == "amount_micros"
    return Commit(
        wallet_id=wallet_id,
        caller=call.caller.account_id,
        idempotency_key=shape.idempotency_key(request.idempotency_key),
        companion=_under_lease(wallet_id, number, call),
        reservation=number,
        amount_micros=shape.amount(charge, request.amount_micros, least=0) if by_amount else None,
        quantity=None if by_amount else shape.quantity(charge, request.quantity, least=0),
        keep_rest=request.keep_rest,
        capture=shape.capture(request.capture),
    )


def release(request: wallet_service_pb2.ReleaseRequest, call: Call) -> Release:
    """A Release."""
    wallet_id, number = call.reservation(request.reservation_id)
    return Release(
        wallet_id=wallet_id,
        caller=call.caller.account_id,
        idempotency_key=shape.idempotency_key(request.idempotency_key),
        reservation=number,
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
