"""AccountService: the contract's words to the accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oanim_server.ledger.limits import DeleteLimit, SetLimit
from oanim_server.ledger.windows import Period
from oanim_server.rpc import messages, shape
from openanimate.metering.v1 import account_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oanim_server.accounts.accounts import Accounts
    from oanim_server.accounts.values import Role
    from oanim_server.ledger.ledger import Ledger
    from oanim_server.rpc.call import Call


_PERIODS = {period.value: period for period in Period}


class AccountServicer:
    """Answers AccountService.

    :param published: what WhoAmI says of this server to a caller of each role.
    """

    def __init__(
        self, accounts: Accounts, ledger: Ledger, published: Mapping[Role, pb.WhoAmIResponse]
    ) -> None:
        self._accounts = accounts
        self._ledger = ledger
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
            asking_key_id=call.caller.key_id,
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

    async def SetLimit(self, request: pb.SetLimitRequest, call: Call) -> pb.SetLimitResponse:
        account_id, period = call.caller.account_id, shape.one_of("period", request.period, _PERIODS)
        key_id = await self._accounts.own_key(account_id, shape.text("key_id", request.key_id, 64, least=0))
        outcome = await self._ledger.submit(
            SetLimit(
                wallet_id=account_id,
                caller=account_id,
                idempotency_key=shape.idempotency_key(request.idempotency_key),
                api_key_id=key_id,
                period=period,
                asking_key_id=call.caller.key_id,
                limit_micros=shape.amount("limit_micros", request.limit_micros, least=0),
            )
        )
        limits = await self._ledger.limits(account_id)
        found = [
            facts for facts in limits if (facts.limit.api_key_id, facts.limit.period) == (key_id, period)
        ]
        return pb.SetLimitResponse(
            limit=messages.limit(found[0]) if found else None, replayed=outcome.replayed
        )

    async def ListLimits(self, request: pb.ListLimitsRequest, call: Call) -> pb.ListLimitsResponse:
        limits = await self._ledger.limits(call.account(request.account_id))
        return pb.ListLimitsResponse(limits=map(messages.limit, limits))

    async def DeleteLimit(self, request: pb.DeleteLimitRequest, call: Call) -> pb.DeleteLimitResponse:
        account_id = call.caller.account_id
        outcome = await self._ledger.submit(
            DeleteLimit(
                wallet_id=account_id,
                caller=account_id,
                idempotency_key=shape.idempotency_key(request.idempotency_key),
                api_key_id=shape.text("key_id", request.key_id, 64, least=0),
                period=shape.one_of("period", request.period, _PERIODS),
                asking_key_id=call.caller.key_id,
            )
        )
        return pb.DeleteLimitResponse(replayed=outcome.replayed)
