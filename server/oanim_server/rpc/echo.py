"""A call that does nothing, for benchmarks: `/oanim.bench.Echo/Echo` answers the ReserveRequest it gets.

It passes through everything that a Reserve passes through, and is parsed and written as one, so that the
difference between the two is the ledger's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oanim_server.rpc.edge import MESSAGE_BYTES
from oanim_server.rpc.handlers import Method, UnaryUnary
from oanim_server.rpc.roles import SPENDERS
from openanimate.metering.v1.wallet_service_pb2 import ReserveRequest

if TYPE_CHECKING:
    from oanim_server.rpc.call import Call
    from oanim_server.rpc.edge import Edge


def add_echo(edge: Edge) -> None:
    """Serve it."""
    name = "Echo/Echo"
    edge.add(
        Method(
            path=f"/oanim.bench.{name}",
            name=name,
            roles=SPENDERS,
            parse=ReserveRequest.FromString,
            limit_bytes=MESSAGE_BYTES,
            answer=_echo,
            handler=UnaryUnary,
            counts=edge.counts.of(name),
        )
    )


async def _echo(request: ReserveRequest, _call: Call) -> ReserveRequest:
    return request
