"""Who may call what: keys, roles, the local socket, and what becomes of a revoked key."""

from __future__ import annotations

import stat
import time
from typing import TYPE_CHECKING

import grpc
import pytest

from oanim_server.rpc.roles import TABLE, check_complete
from oanim_server.rpc.server import SERVICES
from openanimate.metering.v1 import account_service_pb2 as account
from openanimate.metering.v1 import admin_service_pb2 as admin
from openanimate.metering.v1 import pricing_service_pb2 as pricing
from openanimate.metering.v1 import wallet_service_pb2 as wallet
from openanimate.metering.v1.role_pb2 import ROLE_ADMIN, ROLE_SERVICE, ROLE_USER, ROLE_WORKER, Role
from tests.server import SECONDS, Calls, Refused, User, new_key

if TYPE_CHECKING:
    from tests.server import RunningServer

KEY_INVALID = Refused(grpc.StatusCode.UNAUTHENTICATED, "KEY_INVALID")


@pytest.mark.parametrize(
    "token",
    [
        "",
        "anim_",
        "sk-123",
        "anim_abcdefgh_abcdefghabcdefghabcdefgh",
        "anim_abcdefgh_abcdefghabcdefghabcdefgh" * 100,
    ],
)
def test_a_call_without_a_good_key_is_refused(server: RunningServer, token: str) -> None:
    calls = Calls(server.channel, User("", "", token))
    assert calls.refused(calls.wallet.GetWallet, wallet.GetWalletRequest()) == KEY_INVALID


def test_a_call_without_the_header_or_of_another_scheme_is_refused(server: RunningServer) -> None:
    calls = Calls(server.channel, server.sign_up())
    for metadata in (
        (),
        (("authorization", f"Basic {calls.user.token}"),),
        (("authorization", calls.user.token),),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            calls.wallet.GetWallet(wallet.GetWalletRequest(), metadata=metadata, timeout=SECONDS)
        assert Refused.of(caught.value) == KEY_INVALID


def test_authentication_comes_before_the_shape_of_a_request(server: RunningServer) -> None:
    calls = Calls(server.channel, User("", "", "none"))
    assert calls.refused(calls.wallet.Reserve, wallet.ReserveRequest()) == KEY_INVALID


def test_prices_need_no_key(server: RunningServer) -> None:
    calls = Calls(server.channel, User("", "", ""))
    listed = calls.pricing.ListPrices(pricing.ListPricesRequest(category="image"), timeout=SECONDS)
    assert {price.category for price in listed.prices} == {"image"}
    price = pricing.GetPriceRequest(model="fal-ai/flux/schnell")
    assert calls.pricing.GetPrice(price, timeout=SECONDS).price.amount_micros == 3_000


def test_who_am_i_names_the_account_the_key_and_the_limits(calls: Calls) -> None:
    answer = calls(calls.account.WhoAmI, account.WhoAmIRequest())
    assert (answer.account_id, answer.api_key.key_id) == (calls.user.account_id, calls.user.key_id)
    assert answer.rate_limits == account.RateLimits(
        calls_per_second=200, burst=400, open_streams=20, running_generations=20, leased_renders=10
    )
    assert (answer.api_key.role, answer.sandbox, answer.api_key.used) == (ROLE_USER, False, True)


def test_who_am_i_tells_a_service_the_limits_of_a_service(server: RunningServer) -> None:
    for role, per_second, burst in ((ROLE_SERVICE, 10_000, 20_000), (ROLE_WORKER, 200, 400)):
        calls = Calls(server.channel, server.create_key(role))
        limits = calls(calls.account.WhoAmI, account.WhoAmIRequest()).rate_limits
        assert (limits.calls_per_second, limits.burst, limits.open_streams) == (per_second, burst, 20)


@pytest.mark.parametrize(
    ("role", "method", "request_"),
    [
        (ROLE_WORKER, "wallet.GetWallet", wallet.GetWalletRequest()),
        (ROLE_ADMIN, "wallet.Reserve", wallet.ReserveRequest()),
        (ROLE_SERVICE, "account.CreateApiKey", account.CreateApiKeyRequest()),
        (ROLE_SERVICE, "pricing.PublishPrices", pricing.PublishPricesRequest()),
        (ROLE_ADMIN, "admin.CreateKey", admin.CreateKeyRequest(role=ROLE_ADMIN, name="x")),
    ],
)
def test_a_role_may_only_make_its_calls(
    server: RunningServer, role: Role.ValueType, method: str, request_: object
) -> None:
    calls = Calls(server.channel, server.create_key(role))
    stub, name = method.split(".")
    refused = calls.refused(getattr(getattr(calls, stub), name), request_)  # type: ignore[arg-type]
    named = Role.Name(role).removeprefix("ROLE_").lower()
    assert refused == Refused(grpc.StatusCode.PERMISSION_DENIED, "WRONG_ROLE", {"role": named})


def test_a_user_may_not_make_keys_of_roles_through_the_network(calls: Calls) -> None:
    request = admin.CreateKeyRequest(role=ROLE_ADMIN, name="x", idempotency_key=new_key())
    refused = calls.refused(calls.admin.CreateKey, request)
    assert refused == Refused(grpc.StatusCode.PERMISSION_DENIED, "WRONG_ROLE", {"role": "user"})


def test_the_local_socket_is_its_owners_alone_and_serves_nothing_else(server: RunningServer) -> None:
    socket = server.data / "oanim.sock"
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        local = Calls(channel, server.sign_up())
        with pytest.raises(grpc.RpcError) as caught:
            local(local.wallet.GetWallet, wallet.GetWalletRequest())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_an_admin_reads_every_wallet_and_a_service_too(server: RunningServer, calls: Calls) -> None:
    own = calls(calls.wallet.GetWallet, wallet.GetWalletRequest())
    request = wallet.GetWalletRequest(account_id=calls.user.account_id)
    for role in (ROLE_ADMIN, ROLE_SERVICE):
        reader = Calls(server.channel, server.create_key(role))
        assert reader(reader.wallet.GetWallet, request) == own


def test_a_revoked_key_is_refused_and_its_streams_end(server: RunningServer, calls: Calls) -> None:
    second = calls(
        calls.account.CreateApiKey,
        account.CreateApiKeyRequest(name="second", idempotency_key=new_key()),
    )
    other = Calls(server.channel, User(calls.user.account_id, second.api_key.key_id, second.secret))
    watch = other.wallet.WatchWallet(
        wallet.WatchWalletRequest(), metadata=other.user.metadata, timeout=SECONDS
    )
    next(watch)
    revoke = account.RevokeApiKeyRequest(key_id=second.api_key.key_id)
    assert calls(calls.account.RevokeApiKey, revoke).api_key.HasField("revoked_at")
    revoked = time.monotonic()
    assert other.refused(other.wallet.GetWallet, wallet.GetWalletRequest()) == KEY_INVALID
    with pytest.raises(grpc.RpcError) as caught:
        next(watch)
    assert Refused.of(caught.value) == KEY_INVALID
    assert time.monotonic() - revoked < 15, "30 s are promised, on every replica"
    assert calls(calls.wallet.GetWallet, wallet.GetWalletRequest()).wallet.account_id


def test_the_role_table_has_a_row_for_every_method_and_none_besides() -> None:
    check_complete(SERVICES)
    with pytest.raises(RuntimeError, match="AdminService/CreateKey"):
        check_complete(SERVICES[:-1])
    assert all(roles is None or isinstance(roles, frozenset) for roles in TABLE.values())


def test_keys_are_listed_without_their_secrets_and_page(calls: Calls) -> None:
    for name in ("b", "c"):
        calls(calls.account.CreateApiKey, account.CreateApiKeyRequest(name=name, idempotency_key=new_key()))
    first = calls(calls.account.ListApiKeys, account.ListApiKeysRequest(page_size=2))
    rest = calls(
        calls.account.ListApiKeys,
        account.ListApiKeysRequest(page_size=2, page_token=first.next_page_token),
    )
    assert [key.name for key in first.api_keys] == ["c", "b"]
    assert ([key.key_id for key in rest.api_keys], rest.next_page_token) == ([calls.user.key_id], "")


def test_an_email_has_one_account_whatever_its_case(server: RunningServer, calls: Calls) -> None:
    address = f"{new_key()}@Example.com"
    server.sign_up(address)
    again = account.SignUpRequest(email=address.upper(), idempotency_key=new_key())
    assert calls.refused(calls.account.SignUp, again) == Refused(
        grpc.StatusCode.ALREADY_EXISTS, "EMAIL_TAKEN"
    )
    bad = account.SignUpRequest(email="nobody", idempotency_key=new_key())
    assert calls.refused(calls.account.SignUp, bad).fields == ("email",)
