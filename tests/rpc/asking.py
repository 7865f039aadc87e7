"""What every service is asked: who may call which method, and what a stream says before it ends."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from openanimate.metering.v1.role_pb2 import ROLE_ADMIN, ROLE_SERVICE, ROLE_USER, ROLE_WORKER
from tests.server import SECONDS, Refused, User

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from google.protobuf.message import Message

    from tests.server import Calls, Endpoint

PACKAGE = "openanimate.metering.v1"
ROLES = {"user": ROLE_USER, "worker": ROLE_WORKER, "service": ROLE_SERVICE, "admin": ROLE_ADMIN}
KEY_INVALID = Refused(grpc.StatusCode.UNAUTHENTICATED, "KEY_INVALID")
STREAMS = {
    "CheckoutService/WatchCheckout",
    "RenderService/WatchRender",
    "RenderService/DownloadRender",
    "RenderService/DownloadBundle",
}


def wrong_role(role: str) -> Refused:
    """What a key of the wrong role is told."""
    return Refused(grpc.StatusCode.PERMISSION_DENIED, "WRONG_ROLE", {"role": role})


def invalid(field: str) -> Refused:
    """What bad input is told, which names its field."""
    code = grpc.StatusCode.INVALID_ARGUMENT
    return Refused(code, "INVALID_FIELD", {"field": field}, fields=(field,))


def not_found(what: str) -> Refused:
    """What is told of an id that is unknown, or somebody else's."""
    return Refused(grpc.StatusCode.NOT_FOUND, "NOT_FOUND", {"what": what})


def reused(key: str) -> Refused:
    """What is told of a key that named another request."""
    return Refused(grpc.StatusCode.ALREADY_EXISTS, "IDEMPOTENCY_KEY_REUSED", {"idempotency_key": key})


def without_seq(refused: Refused) -> Refused:
    """The same without the state of the wallet that was looked at, which the ledger's refusals have."""
    metadata = {name: value for name, value in refused.metadata.items() if name != "wallet_seq"}
    return replace(refused, metadata=metadata)


def refused_stream(calls: Calls, method: Any, request: Message) -> Refused:
    """Open a stream that is refused, and read why."""
    with pytest.raises(grpc.RpcError) as caught:
        next(stream(calls, method, request))
    return Refused.of(caught.value)


def stream(calls: Calls, method: Any, request: Message) -> Iterator[Any]:
    """Open a stream."""
    opened: Iterator[Any] = method(request, metadata=calls.user.metadata, timeout=SECONDS)
    return opened


def assert_roles(server: Endpoint, allowed: Mapping[str, Collection[str]]) -> None:
    """See that each of these methods is answered to these roles alone, before its request is looked at."""
    users = {name: server.create_key(role) for name, role in ROLES.items()}
    for method, roles in allowed.items():
        assert _reason(server, method, User("", "", "")) == KEY_INVALID
        for name, user in users.items():
            found = _reason(server, method, user)
            if name in roles:
                assert found is None or found.reason != "WRONG_ROLE", (method, name)
            else:
                assert found == wrong_role(name), (method, name)


def _reason(server: Endpoint, method: str, user: User) -> Refused | None:
    """How an empty request is refused."""
    path = f"/{PACKAGE}.{method}"
    open_call = server.channel.unary_stream if method in STREAMS else server.channel.unary_unary
    try:
        answer = open_call(path, bytes, bytes)(b"", metadata=user.metadata, timeout=SECONDS)
        if method in STREAMS:
            list(answer)
    except grpc.RpcError as error:
        return Refused.of(error)
    return None
