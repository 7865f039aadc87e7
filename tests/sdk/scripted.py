"""A gRPC server on loopback that answers from a script: what no healthy server does, on the real wire.

It is for what the real server cannot be told to do: to refuse once, to hang up, to answer late.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

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
    from collections.abc import Callable, Iterable
    from typing import Self

    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
    from google.protobuf.message import Message

SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    service
    for module in (
        account_service_pb2,
        admin_service_pb2,
        checkout_service_pb2,
        generate_service_pb2,
        pricing_service_pb2,
        render_service_pb2,
        wallet_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
)
METHODS: dict[str, MethodDescriptor] = {
    f"{service.name}/{method.name}": method for service in SERVICES for method in service.methods
}
DETAILS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True)
class Refusal:
    """An end that is not OK; with a reason it carries what the contract says a refusal carries."""

    code: grpc.StatusCode
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    retry_after_s: float | None = None
    more: tuple[Message, ...] = ()
    domain: str = "open-animate.com"

    def trailing(self) -> tuple[tuple[str, bytes], ...]:
        """The trailing metadata that says all that."""
        if not self.reason:
            return ()
        details: list[Message] = [ErrorInfo(reason=self.reason, domain=self.domain, metadata=self.metadata)]
        if self.retry_after_s is not None:
            delay = Duration()
            delay.FromNanoseconds(int(self.retry_after_s * 1e9))
            details.append(RetryInfo(retry_delay=delay))
        status = Status(code=self.code.value[0], message=self.reason.lower())
        for detail in (*details, *self.more):
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        return ((DETAILS_KEY, status.SerializeToString()),)


@dataclass(frozen=True)
class Early:
    """An end that comes when the first message of a client stream is there, whatever else is to come."""

    entry: Message | Refusal


@dataclass(frozen=True)
class Received:
    """A request as it came in: one message, or the messages of a client stream."""

    request: Any
    metadata: dict[str, str]


class ScriptedServer:
    """Answers each call of a method with the next entry of its script, the last one again and again.

    An entry is a message, a Refusal, a function from the request to one of these, or a list of messages and
    refusals (a stream), with functions that are called in between. Of a stream both ways it is a function
    from the iterator of its requests to the iterator of these.
    """

    def __init__(self, address: str = "127.0.0.1:0") -> None:
        self.received: dict[str, list[Received]] = defaultdict(list)
        self._script: dict[str, deque[Any]] = {}
        self._changed = threading.Condition()
        self._server = grpc.server(ThreadPoolExecutor(16), options=(("grpc.so_reuseport", 0),))
        self._server.add_generic_rpc_handlers((_Handlers(self._answer),))
        self.port = self._server.add_insecure_port(address)
        self.url = f"http://127.0.0.1:{self.port}"

    def script(self, method: str, *entries: object) -> None:
        """Say how calls of a method end, by its service and name."""
        assert method in METHODS
        self._script[method] = deque(entries)

    def requests(self, method: str) -> list[Any]:
        """What a method was asked so far."""
        return [received.request for received in self.received[method]]

    def wait_for(self, method: str, calls: int) -> None:
        """Return when a method was called so often."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.received[method]) >= calls, timeout=30)

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Hang up on everybody."""
        self._server.stop(None).wait()

    def _answer(self, method: str, request: object, context: grpc.ServicerContext) -> Iterator[Message]:
        metadata = {key: str(value) for key, value in context.invocation_metadata()}
        with self._changed:
            entries = self._script[method]
            entry = entries.popleft() if len(entries) > 1 else entries[0]
        # A stream both ways is read by whoever answers it.
        if METHODS[method].client_streaming and not METHODS[method].server_streaming:
            early = isinstance(entry, Early)
            request = list(islice(cast("Iterable[object]", request), 1 if early else None))
            entry = entry.entry if early else entry
        with self._changed:
            self.received[method].append(Received(request, metadata))
            self._changed.notify_all()
        if callable(entry):
            entry = entry(request)
        for part in entry if isinstance(entry, list | Iterator) else [entry]:
            if isinstance(part, Refusal):
                context.set_trailing_metadata(part.trailing())
                context.abort(part.code, part.reason.lower())
            if callable(part):
                part()
            else:
                yield part


class _Handlers(grpc.GenericRpcHandler):
    """Every method of the contract, answered by one function."""

    def __init__(self, answer: Callable[[str, object, grpc.ServicerContext], Iterator[Message]]) -> None:
        self._answer = answer

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        name = handler_call_details.method.rpartition(".")[2]
        method = METHODS[name]
        codecs: dict[str, Any] = {
            "request_deserializer": GetMessageClass(method.input_type).FromString,
            "response_serializer": lambda message: message.SerializeToString(),
        }

        def unary(request: object, context: grpc.ServicerContext) -> Message:
            return next(self._answer(name, request, context))

        def streamed(request: object, context: grpc.ServicerContext) -> Iterator[Message]:
            return self._answer(name, request, context)

        if method.client_streaming and method.server_streaming:
            return grpc.stream_stream_rpc_method_handler(streamed, **codecs)
        if method.client_streaming:
            return grpc.stream_unary_rpc_method_handler(unary, **codecs)
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(streamed, **codecs)
        return grpc.unary_unary_rpc_method_handler(unary, **codecs)
