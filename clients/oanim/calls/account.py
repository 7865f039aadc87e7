"""The calls of AccountService."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oanim.calls.call import Call, key_or_new
from openanimate.metering.v1.account_service_pb2 import (
    CreateApiKeyRequest,
    CreateApiKeyResponse,
    DeleteLimitRequest,
    DeleteLimitResponse,
    ListApiKeysRequest,
    ListApiKeysResponse,
    ListLimitsRequest,
    ListLimitsResponse,
    RevokeApiKeyRequest,
    RevokeApiKeyResponse,
    SetLimitRequest,
    SetLimitResponse,
    SignUpRequest,
    SignUpResponse,
    WhoAmIRequest,
    WhoAmIResponse,
)

if TYPE_CHECKING:
    from openanimate.metering.v1.account_service_pb2 import LimitPeriod


def sign_up(
    *, email: str, idempotency_key: str | None = None, timeout_s: float | None = None
) -> Call[SignUpResponse]:
    """Open an account with a wallet, the free credits and a first key."""
    request = SignUpRequest(email=email, idempotency_key=key_or_new(idempotency_key))
    return Call("AccountService/SignUp", request, SignUpResponse, timeout_s)


def who_am_i(*, timeout_s: float | None = None) -> Call[WhoAmIResponse]:
    """Answer whose key the client has, and what the server allows."""
    return Call("AccountService/WhoAmI", WhoAmIRequest(), WhoAmIResponse, timeout_s)


def create_api_key(
    *, name: str, idempotency_key: str | None = None, timeout_s: float | None = None
) -> Call[CreateApiKeyResponse]:
    """Make another key for the caller's account; its secret is shown once."""
    request = CreateApiKeyRequest(name=name, idempotency_key=key_or_new(idempotency_key))
    return Call("AccountService/CreateApiKey", request, CreateApiKeyResponse, timeout_s)


def list_api_keys(
    *, page_size: int = 0, page_token: str = "", timeout_s: float | None = None
) -> Call[ListApiKeysResponse]:
    """List the account's keys, newest first, without their secrets."""
    request = ListApiKeysRequest(page_size=page_size, page_token=page_token)
    return Call("AccountService/ListApiKeys", request, ListApiKeysResponse, timeout_s)


def revoke_api_key(*, key_id: str, timeout_s: float | None = None) -> Call[RevokeApiKeyResponse]:
    """End a key."""
    request = RevokeApiKeyRequest(key_id=key_id)
    return Call("AccountService/RevokeApiKey", request, RevokeApiKeyResponse, timeout_s)


def set_limit(
    *,
    key_id: str = "",
    period: LimitPeriod.ValueType,
    limit_micros: int,
    idempotency_key: str | None = None,
    timeout_s: float | None = None,
) -> Call[SetLimitResponse]:
    """Limit what the account, or one of its keys, may spend in a day, a week or a month, UTC."""
    request = SetLimitRequest(
        key_id=key_id,
        period=period,
        limit_micros=limit_micros,
        idempotency_key=key_or_new(idempotency_key),
    )
    return Call("AccountService/SetLimit", request, SetLimitResponse, timeout_s)


def list_limits(*, account_id: str = "", timeout_s: float | None = None) -> Call[ListLimitsResponse]:
    """List the limits of the account and of its keys, with what is left of each."""
    request = ListLimitsRequest(account_id=account_id)
    return Call("AccountService/ListLimits", request, ListLimitsResponse, timeout_s)


def delete_limit(
    *,
    key_id: str = "",
    period: LimitPeriod.ValueType,
    idempotency_key: str | None = None,
    timeout_s: float | None = None,
) -> Call[DeleteLimitResponse]:
    """Take a limit away."""
    request = DeleteLimitRequest(key_id=key_id, period=period, idempotency_key=key_or_new(idempotency_key))
    return Call("AccountService/DeleteLimit", request, DeleteLimitResponse, timeout_s)
