"""The calls of AdminService."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oanim.calls.call import Call, key_or_new
from openanimate.metering.v1.admin_service_pb2 import (
    AdjustBalanceRequest,
    AdjustBalanceResponse,
    AuditRequest,
    AuditResponse,
    CreateKeyRequest,
    CreateKeyResponse,
    FreezeAccountRequest,
    FreezeAccountResponse,
    GrantCreditsRequest,
    GrantCreditsResponse,
    ListAccountsRequest,
    ListAccountsResponse,
    ListQuarantinedRequest,
    ListQuarantinedResponse,
    ListUncollectedRequest,
    ListUncollectedResponse,
    RefundPurchaseRequest,
    RefundPurchaseResponse,
    ResolveQuarantinedRequest,
    ResolveQuarantinedResponse,
)

if TYPE_CHECKING:
    from openanimate.metering.v1.role_pb2 import Role

# It reads everything there is.
_AUDIT_TIMEOUT_S = 3600.0


def create_key(
    *, role: Role.ValueType, name: str, idempotency_key: str | None = None, timeout_s: float | None = None
) -> Call[CreateKeyResponse]:
    """Make an account for a role and its first key; answered on the server's local socket alone."""
    request = CreateKeyRequest(role=role, name=name, idempotency_key=key_or_new(idempotency_key))
    return Call("AdminService/CreateKey", request, CreateKeyResponse, timeout_s)


def grant_credits(
    *,
    account_id: str,
    amount_micros: int,
    reason: str,
    expires_after_days: int = 0,
    idempotency_key: str | None = None,
    timeout_s: float | None = None,
) -> Call[GrantCreditsResponse]:
    """Give credits away, for ever unless they are to lapse after some days."""
    request = GrantCreditsRequest(
        account_id=account_id,
        amount_micros=amount_micros,
        reason=reason,
        expires_after_days=expires_after_days,
        idempotency_key=key_or_new(idempotency_key),
    )
    return Call("AdminService/GrantCredits", request, GrantCreditsResponse, timeout_s)


def adjust_balance(
    *,
    account_id: str,
    amount_micros: int,
    reason: str,
    idempotency_key: str | None = None,
    timeout_s: float | None = None,
) -> Call[AdjustBalanceResponse]:
    """Correct a wallet, up or down."""
    request = AdjustBalanceRequest(
        account_id=account_id,
        amount_micros=amount_micros,
        reason=reason,
        idempotency_key=key_or_new(idempotency_key),
    )
    return Call("AdminService/AdjustBalance", request, AdjustBalanceResponse, timeout_s)


def freeze_account(
    *,
    account_id: str,
    frozen: bool,
    reason: str,
    idempotency_key: str | None = None,
    timeout_s: float | None = None,
) -> Call[FreezeAccountResponse]:
    """Stop an account from starting work, or let it start again."""
    request = FreezeAccountRequest(
        account_id=account_id, frozen=frozen, reason=reason, idempotency_key=key_or_new(idempotency_key)
    )
    return Call("AdminService/FreezeAccount", request, FreezeAccountResponse, timeout_s)


def refund_purchase(
    *,
    checkout_id: str,
    amount_micros: int = 0,
    reason: str,
    idempotency_key: str | None = None,
    timeout_s: float | None = None,
) -> Call[RefundPurchaseResponse]:
    """Have the payment provider give a part of what was paid back, or all that is left of it."""
    request = RefundPurchaseRequest(
        checkout_id=checkout_id,
        amount_micros=amount_micros,
        reason=reason,
        idempotency_key=key_or_new(idempotency_key),
    )
    return Call("AdminService/RefundPurchase", request, RefundPurchaseResponse, timeout_s)


def list_accounts(
    *, email: str = "", page_size: int = 0, page_token: str = "", timeout_s: float | None = None
) -> Call[ListAccountsResponse]:
    """List accounts, newest first, or the one of an e-mail address."""
    request = ListAccountsRequest(email=email, page_size=page_size, page_token=page_token)
    return Call("AdminService/ListAccounts", request, ListAccountsResponse, timeout_s)


def list_quarantined(
    *,
    with_resolved: bool = False,
    page_size: int = 0,
    page_token: str = "",
    timeout_s: float | None = None,
) -> Call[ListQuarantinedResponse]:
    """List the payment provider's events that do not match what was sold, newest first."""
    request = ListQuarantinedRequest(with_resolved=with_resolved, page_size=page_size, page_token=page_token)
    return Call("AdminService/ListQuarantined", request, ListQuarantinedResponse, timeout_s)


def resolve_quarantined(
    *, event_id: str, reason: str, look_again: bool = False, timeout_s: float | None = None
) -> Call[ResolveQuarantinedResponse]:
    """Close an event in quarantine, or have it looked at again."""
    request = ResolveQuarantinedRequest(event_id=event_id, reason=reason, look_again=look_again)
    return Call("AdminService/ResolveQuarantined", request, ResolveQuarantinedResponse, timeout_s)


def list_uncollected(
    *, account_id: str = "", page_size: int = 0, page_token: str = "", timeout_s: float | None = None
) -> Call[ListUncollectedResponse]:
    """List work that was done and that no wallet covered, newest first."""
    request = ListUncollectedRequest(account_id=account_id, page_size=page_size, page_token=page_token)
    return Call("AdminService/ListUncollected", request, ListUncollectedResponse, timeout_s)


def audit(*, timeout_s: float | None = None) -> Call[AuditResponse]:
    """Recompute everything that is stored about money."""
    timeout_s = _AUDIT_TIMEOUT_S if timeout_s is None else timeout_s
    return Call("AdminService/Audit", AuditRequest(), AuditResponse, timeout_s)
