"""The calls of AdminService."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oanim.calls.call import Call, key_or_new
from openanimate.metering.v1.admin_service_pb2 import CreateKeyRequest, CreateKeyResponse

if TYPE_CHECKING:
    from openanimate.metering.v1.role_pb2 import Role


def create_key(
    *, role: Role.ValueType, name: str, idempotency_key: str | None = None, timeout_s: float | None = None
) -> Call[CreateKeyResponse]:
    """Make an account for a role and its first key; answered on the server's local socket alone."""
    request = CreateKeyRequest(role=role, name=name, idempotency_key=key_or_new(idempotency_key))
    return Call("AdminService/CreateKey", request, CreateKeyResponse, timeout_s)
