"""The client's end of the local socket: what a command asks of a server that holds the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import grpc

from openanimate.metering.v1.admin_service_pb2 import CreateKeyRequest
from openanimate.metering.v1.admin_service_pb2_grpc import AdminServiceStub

if TYPE_CHECKING:
    from pathlib import Path

    from oanim_server.accounts.values import Role
    from openanimate.metering.v1.role_pb2 import Role as ContractRole

SECONDS = 15.0


class CreatedKey(NamedTuple):
    """A key that was made, with its secret."""

    account_id: str
    key_id: str
    secret: str


class RefusedError(Exception):
    """The server answered, and said no. The message is its sentence."""


def create_key(socket: Path, role: Role, name: str, idempotency_key: str) -> CreatedKey | None:
    """Have a running server make a key; None when no server listens on the socket.

    :raises RefusedError: when it refuses.
    """
    if not socket.exists():
        return None
    request = CreateKeyRequest(
        role=cast("ContractRole.ValueType", role.value), name=name, idempotency_key=idempotency_key
    )
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        try:
            made = AdminServiceStub(channel).CreateKey(request, timeout=SECONDS)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                return None
            raise RefusedError(error.details() or error.code().name) from None
    return CreatedKey(made.account_id, made.key_id, made.secret)
