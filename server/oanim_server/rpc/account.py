"""AccountService: the contract's words to the accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oanim_server.rpc import messages, shape
from openanimate.metering.v1 import account_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oanim_server.accounts.accounts import Accounts
    from oanim_server.accounts.values import Role
    from oanim_server.rpc.call import Call


class AccountServicer:
    """Answers AccountService.

    :param published: what WhoAmI says of this server to a caller of each role.
    """

    def __init__(self, accounts: Accounts, published: Mapping[Role, pb.WhoAmIResponse]) -> None:
        self._accounts = accounts
        self._published = published

    async def SignUp(self, request: pb.SignUpRequest, call: Call) -> pb.SignUpResponse:
        signed_up = await self._accounts.sign_up(
            email=request.email,
            idempotency_key=shape.idempotency_key(request.idempotency_key),
            peer_address=call.address,
        )
        return pb.SignUpResponse(
            account_id=messages.account_text(signed_up.account_id),
            api_key=messages.api_key(signed_up.api_key),
            secret=signed_up.secret or "",
            wallet=messages.wallet(signed_up.wallet),
            replayed=signed_up.replayed,
        )

    async def WhoAmI(self, request: pb.WhoAmIRequest, call: Call) -> pb.WhoAmIResponse:
        identity = await self._accounts.who_am_i(call.caller)
        answer = pb.WhoAmIResponse(
            account_id=messages.account_text(identity.account_id),
            email=identity.email,
            api_key=messages.api_key(identity.api_key),
        )
        answer.MergeFrom(self._published[call.caller.role])
        return answer

    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, call: Call) -> pb.CreateApiKeyResponse:
        made = await self._accounts.create_key(
            call.caller.account_id,
            name=shape.text("name", request.name, 64),
            idempotency_key=shape.idempotency_key(request.idempotency_key),
        )
        return pb.CreateApiKeyResponse(
            api_key=messages.api_key(made.api_key), secret=made.secret or "", replayed=made.replayed
        )

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, call: Call) -> pb.ListApiKeysResponse:
        limit = shape.page_size(request.page_size)
        found = await self._accounts.list_keys(
            call.caller.account_id, before=shape.page_before(request.page_token), limit=limit + 1
        )
        return pb.ListApiKeysResponse(
            api_keys=map(messages.api_key, found[:limit]),
            next_page_token=shape.next_page([key.number for key in found], limit),
        )

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, call: Call) -> pb.RevokeApiKeyResponse:
        revoked = await self._accounts.revoke_key(
            call.caller.account_id, shape.text("key_id", request.key_id, 64)
        )
        return pb.RevokeApiKeyResponse(api_key=messages.api_key(revoked))
