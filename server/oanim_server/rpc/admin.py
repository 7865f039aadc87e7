"""AdminService: the operator's words to the accounts. It is served on the local socket alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oanim_server.accounts.values import Role
from oanim_server.rpc import messages, shape
from openanimate.metering.v1 import admin_service_pb2 as pb

if TYPE_CHECKING:
    from oanim_server.accounts.accounts import Accounts
    from oanim_server.rpc.call import Call

_ROLES = {role.value: role for role in Role}


class AdminServicer:
    """Answers AdminService."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    async def CreateKey(self, request: pb.CreateKeyRequest, call: Call) -> pb.CreateKeyResponse:
        made = await self._accounts.create_role_account(
            role=shape.one_of("role", request.role, _ROLES),
            name=shape.text("name", request.name, 64),
            idempotency_key=shape.idempotency_key(request.idempotency_key),
        )
        return pb.CreateKeyResponse(
            account_id=messages.account_text(made.account_id),
            key_id=made.api_key.key_id,
            secret=made.secret or "",
            replayed=made.replayed,
        )
