"""gRPC servers: the one for the network, and the one on the local socket that only its owner can open.

Foreign services (health, reflection) enter through the edge like ours: whoever needs no key would otherwise
fill the server with streams that nothing counts.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from oanim_server.rpc import health
from oanim_server.rpc.roles import check_complete
from openanimate.metering.v1 import (
    account_service_pb2,
    admin_service_pb2,
    checkout_service_pb2,
    generate_service_pb2,
    pricing_service_pb2,
    render_service_pb2,
    wallet_service_pb2,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from google.protobuf.descriptor import ServiceDescriptor

    from oanim_server.rpc.call import Call
    from oanim_server.rpc.edge import Edge

SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    service
    for module in (
        account_service_pb2,
        wallet_service_pb2,
        pricing_service_pb2,
        checkout_service_pb2,
        generate_service_pb2,
        render_service_pb2,
        admin_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
)

# Above what the edge refuses with a reason: beyond it grpc refuses without one.
_RECEIVE_BYTES = 4 << 20
_MORE_CALLS = 1_000
_REFLECTION = cast("ServiceDescriptor", reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"])
# A path of a unix socket has room for so many bytes.
_SOCKET_PATH_BYTES = 100


class CannotListenError(Exception):
    """A port or the socket cannot be had. The message is one sentence."""


class RpcServer:
    """The network's gRPC server: the contract's services through the edge, health, and reflection."""

    def __init__(
        self,
        edge: Edge,
        servicers: Mapping[str, object],
        *,
        with_reflection: bool,
        streams_per_connection: int,
    ) -> None:
        """`servicers` has one for each service of the contract, by its short name."""
        check_complete(SERVICES)
        for service in SERVICES:
            edge.serve(service, servicers[service.name])
        self._edge = edge
        self._server = _server(edge, streams_per_connection)
        names = [service.full_name for service in SERVICES]
        self._health = health.HealthServicer(names)
        edge.serve_anyone(health.SERVICE, self._health, always=True)
        if with_reflection:
            described = [*names, health.SERVICE.full_name, _REFLECTION.full_name]
            edge.serve_anyone(_REFLECTION, _Reflection(described))

    def listen(self, host: str, port: int, certificate: tuple[bytes, bytes] | None) -> int:
        """Take a port, with TLS where there is a certificate (key, chain); answers the port.

        :raises CannotListenError: when it is taken, or the certificate is not one.
        """
        address = f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
        try:
            if certificate is None:
                return self._server.add_insecure_port(address)
            credentials = grpc.ssl_server_credentials([certificate])
            return self._server.add_secure_port(address, credentials)
        except (RuntimeError, ValueError):
            raise CannotListenError(
                f"gRPC cannot listen on {address}: the port is taken, or the certificate cannot be used."
            ) from None

    async def start(self) -> None:
        """Serve."""
        await self._server.start()
        self._watching = asyncio.create_task(self._edge.watch_keys(), name="keys of open streams")

    async def stop(self, drain_seconds: float, quiet: Callable[[], Awaitable[None]]) -> None:
        """Say that it is going, let work in flight finish, stop. `quiet` is as in `Edge.drain`."""
        self._health.stop()
        await self._edge.drain(drain_seconds, quiet)
        await self._server.stop(0.5)
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)


class LocalServer:
    """The operator's server, on a unix socket beside the database."""

    def __init__(self, edge: Edge, servicer: object, path: Path) -> None:
        edge.serve(admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"], servicer)
        self._server = _server(edge, 100)
        self._path = path

    async def start(self) -> None:
        """Serve, on a socket that is made for its owner alone.

        :raises CannotListenError: when it cannot be made.
        """
        if len(os.fsencode(self._path)) > _SOCKET_PATH_BYTES:
            raise CannotListenError(
                f"OANIM_DATA is too long a path for a socket in it: {self._path} has more than "
                f"{_SOCKET_PATH_BYTES} bytes."
            )
        if _answers(self._path):
            # On PostgreSQL no lock says so. Its owner's commands must not reach another server.
            raise CannotListenError(f"{self._path} answers already: one OANIM_DATA a server.")
        self._path.unlink(missing_ok=True)
        try:
            with _private():
                self._server.add_insecure_port(f"unix:{self._path}")
        except RuntimeError:
            raise CannotListenError(f"the local socket {self._path} cannot be made.") from None
        await self._server.start()

    async def stop(self) -> None:
        """Stop, and remove the socket."""
        await self._server.stop(1.0)
        self._path.unlink(missing_ok=True)


class _Reflection:
    """Reflection as the edge calls its servicers."""

    def __init__(self, names: Iterable[str]) -> None:
        self._servicer = reflection.aio.ReflectionServicer(names)

    def ServerReflectionInfo(
        self, requests: AsyncIterator[reflection_pb2.ServerReflectionRequest], call: Call
    ) -> Any:
        return self._servicer.ServerReflectionInfo(requests, call.context)


def _server(edge: Edge, streams_per_connection: int) -> grpc.aio.Server:
    # Calls that the event loop has not come to yet. By itself grpc cancels some of them from a thousand on,
    # without a word of ours; the edge refuses, with a reason, what is too much.
    pending = edge.limits.calls_in_flight + _MORE_CALLS
    server = grpc.aio.server(
        options=(
            ("grpc.so_reuseport", 0),  # a second server on the port is a mistake, not a replica
            ("grpc.max_concurrent_streams", streams_per_connection),
            ("grpc.max_receive_message_length", _RECEIVE_BYTES),
            ("grpc.server.max_pending_requests", pending),
            ("grpc.server.max_pending_requests_hard_limit", pending),
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ),
        maximum_concurrent_rpcs=pending,
    )
    server.add_generic_rpc_handlers((edge,))
    return server


def _answers(path: Path) -> bool:
    """Whether somebody listens on a socket; one that a crash left behind is only a file."""
    with socket.socket(socket.AF_UNIX) as end:
        end.settimeout(1.0)
        try:
            end.connect(os.fspath(path))
        except OSError as error:
            return isinstance(error, TimeoutError | BlockingIOError)
    return True


@contextmanager
def _private() -> Iterator[None]:
    """What is made meanwhile is its owner's alone."""
    former = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(former)
