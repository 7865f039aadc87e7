"""AdminService: the operator's words, from `admin` keys and from the local socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from oanim_server.accounts.values import Role
from oanim_server.checkout.refunding import Wanted
from oanim_server.ledger.corrections import Adjust, Freeze, Grant
from oanim_server.ledger.refusals import InvalidField
from oanim_server.ledger.values import DAY, MAX_AMOUNT_MICROS, Note
from oanim_server.rpc import messages, shape
from openanimate.metering.v1 import admin_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from oanim_server.accounts.accounts import Accounts
    from oanim_server.accounts.values import AccountSummary
    from oanim_server.checkout.checkouts import Checkouts
    from oanim_server.checkout.values import Quarantined
    from oanim_server.ledger.audit_wallet import Report
    from oanim_server.ledger.corrections import Correction
    from oanim_server.ledger.ledger import Ledger
    from oanim_server.ledger.values import Outcome
    from oanim_server.rpc.call import Call
    from openanimate.metering.v1 import role_pb2

_ROLES = {role.value: role for role in Role}
_MAX_REASON_BYTES = 500
_MAX_DAYS = 36_500


class AdminServicer:
    """Answers AdminService.

    :param audit: recomputes everything, on a thread of its own.
    """

    def __init__(
        self,
        accounts: Accounts,
        ledger: Ledger,
        checkouts: Checkouts,
        audit: Callable[[], Awaitable[Report]],
    ) -> None:
        self._accounts = accounts
        self._ledger = ledger
        self._checkouts = checkouts
        self._audit = audit

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

    # Corrections ----------------------------------------------------------------------------------

    async def GrantCredits(self, request: pb.GrantCreditsRequest, call: Call) -> pb.GrantCreditsResponse:
        days = request.expires_after_days
        if not 0 <= days <= _MAX_DAYS:
            raise InvalidField(field="expires_after_days", description=f"it is {days}, beyond 0 to 36,500")
        outcome = await self._correct(
            Grant(
                **_correction(request, call),
                amount_micros=shape.amount("amount_micros", request.amount_micros),
                lifetime=days * DAY if days else None,
            )
        )
        return pb.GrantCreditsResponse(wallet=messages.wallet(outcome.wallet), replayed=outcome.replayed)

    async def AdjustBalance(self, request: pb.AdjustBalanceRequest, call: Call) -> pb.AdjustBalanceResponse:
        amount_micros = shape.amount("amount_micros", request.amount_micros, least=-MAX_AMOUNT_MICROS)
        if not amount_micros:
            raise InvalidField(field="amount_micros", description="it is 0, which corrects nothing")
        outcome = await self._correct(Adjust(**_correction(request, call), amount_micros=amount_micros))
        return pb.AdjustBalanceResponse(wallet=messages.wallet(outcome.wallet), replayed=outcome.replayed)

    async def FreezeAccount(self, request: pb.FreezeAccountRequest, call: Call) -> pb.FreezeAccountResponse:
        outcome = await self._correct(Freeze(**_correction(request, call), frozen=request.frozen))
        return pb.FreezeAccountResponse(wallet=messages.wallet(outcome.wallet), replayed=outcome.replayed)

    async def _correct(self, correction: Correction) -> Outcome:
        return await self._ledger.submit(correction)

    # Purchases ------------------------------------------------------------------------------------

    async def RefundPurchase(
        self, request: pb.RefundPurchaseRequest, call: Call
    ) -> pb.RefundPurchaseResponse:
        wallet_id, token = call.checkout(request.checkout_id)
        caller, actor = call.actor
        asked, replayed = await self._checkouts.refunds.ask(
            Wanted(
                wallet_id=wallet_id,
                token=token,
                amount_micros=shape.amount("amount_micros", request.amount_micros, least=0),
                note=Note(actor, _reason(request.reason)),
                caller=caller,
                idempotency_key=shape.idempotency_key(request.idempotency_key),
            )
        )
        return pb.RefundPurchaseResponse(
            provider_id=asked.refund_id,
            state=asked.state,
            amount_micros=asked.amount_micros,
            replayed=replayed,
        )

    async def ListQuarantined(
        self, request: pb.ListQuarantinedRequest, call: Call
    ) -> pb.ListQuarantinedResponse:
        limit = shape.page_size(request.page_size)
        found = await self._checkouts.quarantined(
            with_resolved=request.with_resolved,
            before=shape.page_before(request.page_token),
            limit=limit + 1,
        )
        return pb.ListQuarantinedResponse(
            events=map(_quarantined, found[:limit]),
            next_page_token=shape.next_page([event.number for event in found], limit),
        )

    async def ResolveQuarantined(
        self, request: pb.ResolveQuarantinedRequest, call: Call
    ) -> pb.ResolveQuarantinedResponse:
        event = await self._checkouts.resolve(
            shape.text("event_id", request.event_id, 255),
            actor=call.actor[1],
            reason=_reason(request.reason),
            look_again=request.look_again,
        )
        return pb.ResolveQuarantinedResponse(event=_quarantined(event))

    # Looking --------------------------------------------------------------------------------------

    async def ListAccounts(self, request: pb.ListAccountsRequest, call: Call) -> pb.ListAccountsResponse:
        limit = shape.page_size(request.page_size)
        offset = shape.page_offset(request.page_token)
        found = await self._accounts.page(email=request.email, offset=offset, limit=limit + 1)
        return pb.ListAccountsResponse(
            accounts=map(_account, found[:limit]),
            next_page_token=shape.page_token(offset + limit) if len(found) > limit else "",
        )

    async def ListUncollected(
        self, request: pb.ListUncollectedRequest, call: Call
    ) -> pb.ListUncollectedResponse:
        limit = shape.page_size(request.page_size)
        offset = shape.page_offset(request.page_token)
        of = call.named_account(request.account_id) if request.account_id else None
        found = await self._ledger.uncollected(of, offset=offset, limit=limit + 1)
        return pb.ListUncollectedResponse(
            work=[
                pb.UncollectedWork(
                    account_id=messages.account_text(work.wallet_id),
                    reservation_id=messages.maybe_reservation_text(work.wallet_id, work.reservation),
                    at=messages.timestamp(work.at),
                    model=work.model,
                    uncollected_micros=work.uncollected_micros,
                    event_id=work.event_id,
                )
                for work in found[:limit]
            ],
            next_page_token=shape.page_token(offset + limit) if len(found) > limit else "",
        )

    async def Audit(self, request: pb.AuditRequest, call: Call) -> pb.AuditResponse:
        report = await self._audit()
        return pb.AuditResponse(
            problems=report.problems,
            wallets=report.wallets,
            transactions=report.transactions,
            entries=report.entries,
            lots=report.lots,
            reservations=report.reservations,
            balance_micros=report.balance_micros,
            held_micros=report.held_micros,
        )


def _reason(text: str) -> str:
    return shape.text("reason", text, _MAX_REASON_BYTES)


def _correction(
    request: pb.GrantCreditsRequest | pb.AdjustBalanceRequest | pb.FreezeAccountRequest, call: Call
) -> dict[str, Any]:
    caller, actor = call.actor
    return {
        "wallet_id": call.named_account(request.account_id),
        "caller": caller,
        "idempotency_key": shape.idempotency_key(request.idempotency_key),
        "note": Note(actor, _reason(request.reason)),
    }


def _account(summary: AccountSummary) -> pb.AccountSummary:
    return pb.AccountSummary(
        account_id=messages.account_text(summary.account_id),
        email=summary.email,
        name=summary.name,
        role=cast("role_pb2.Role.ValueType", summary.role.value),
        created_at=messages.timestamp(summary.created_at),
        wallet=messages.wallet(summary.wallet),
    )


def _quarantined(event: Quarantined) -> pb.QuarantinedEvent:
    return pb.QuarantinedEvent(
        event_id=event.event_id,
        type=event.type,
        object_id=event.object_id,
        problem=event.problem,
        checkout_id=event.purchase_id,
        received_at=messages.timestamp(event.received_at),
        resolved_at=messages.maybe_timestamp(event.resolved_at),
        resolved_by=event.resolved_by,
        resolution=event.resolution,
    )
