"""grpc.health.v1.Health: whether this server is to be sent calls; it is until it begins to stop.

A stream ends when that is said: there is nothing to wait for on a server that stops.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from grpc_health.v1 import health_pb2 as pb

from oanim_server.ledger.refusals import NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from google.protobuf.descriptor import ServiceDescriptor

    from oanim_server.rpc.call import Call

SERVICE = cast("ServiceDescriptor", pb.DESCRIPTOR.services_by_name["Health"])
_UNKNOWN = pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVICE_UNKNOWN)
_SERVING = pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVING)
_NOT_SERVING = pb.HealthCheckResponse(status=pb.HealthCheckResponse.NOT_SERVING)


class HealthServicer:
    """Answers Health for the services of these names, and for the server as a whole, whose name is empty."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset({"", *names})
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Say from now on that it does not serve."""
        self._stopping.set()

    async def Check(self, request: pb.HealthCheckRequest, call: Call) -> pb.HealthCheckResponse:
        if request.service not in self._names:
            raise NotFound(what="service")
        return self._now()

    async def List(self, request: Any, call: Call) -> Any:
        # Not among the types that are published for the package.
        respond: Any = vars(pb)["HealthListResponse"]
        return respond(statuses=dict.fromkeys(self._names, self._now()))

    async def Watch(
        self, request: pb.HealthCheckRequest, call: Call
    ) -> AsyncGenerator[pb.HealthCheckResponse]:
        known = request.service in self._names
        if not self._stopping.is_set():
            yield _SERVING if known else _UNKNOWN
            await self._stopping.wait()
        yield _NOT_SERVING if known else _UNKNOWN

    def _now(self) -> pb.HealthCheckResponse:
        return _NOT_SERVING if self._stopping.is_set() else _SERVING
