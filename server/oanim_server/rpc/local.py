"""The client's end of the local socket: what a command asks of whoever holds the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from openanimate.metering.v1.admin_service_pb2_grpc import AdminServiceStub

if TYPE_CHECKING:
    from pathlib import Path

    from google.protobuf.message import Message

# An audit of much takes its time.
SECONDS = 600.0
_DECIDED = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
)


class RefusedError(Exception):
    """The server answered, and said no. The message is its sentence."""


class UnansweredError(RefusedError):
    """Whether it was done is not known, or it may be later: the same call, under its key, tells."""


class NobodyThereError(Exception):
    """No server listens on the socket."""


def ask(socket: Path, method: str, request: Message) -> Any:
    """Make a call of AdminService, by its name.

    :raises NobodyThereError: when no server listens on the socket.
    :raises RefusedError: when it refuses; UnansweredError where the same again may succeed.
    """
    if not socket.exists():
        raise NobodyThereError
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        try:
            return getattr(AdminServiceStub(channel), method)(request, timeout=SECONDS)
        except grpc.RpcError as error:
            # A server that is there and says UNAVAILABLE says why; a channel has no trailing details.
            if error.code() is grpc.StatusCode.UNAVAILABLE and not error.trailing_metadata():
                raise NobodyThereError from None
            kind = RefusedError if error.code() in _DECIDED else UnansweredError
            raise kind(error.details() or error.code().name) from None
