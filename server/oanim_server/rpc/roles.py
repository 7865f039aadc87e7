"""Who may call what: one row a method. With a method that has no row the server does not start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oanim_server.accounts.values import Role
from oanim_server.ledger.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.descriptor import ServiceDescriptor

PACKAGE = "openanimate.metering.v1"

# None: no key is asked for. An empty set: nobody, through a network.
Roles = frozenset[Role] | None

_ANYONE: Roles = None
_EVERY_ROLE = frozenset(Role)
_USER = frozenset({Role.USER})
_OWNERS = frozenset({Role.USER, Role.ADMIN})
_READERS = frozenset({Role.USER, Role.SERVICE, Role.ADMIN})
SPENDERS = frozenset({Role.USER, Role.SERVICE})
_WORKER = frozenset({Role.WORKER})
# A worker spends under the lease of a render alone.
_HOLDERS = SPENDERS | _WORKER
_ADMIN = frozenset({Role.ADMIN})
_SERVICE = frozenset({Role.SERVICE})
_LOCAL_SOCKET_ONLY: frozenset[Role] = frozenset()

_TABLE: dict[str, Roles] = {
    "AccountService/SignUp": _ANYONE,
    "AccountService/WhoAmI": _EVERY_ROLE,
    "AccountService/CreateApiKey": _USER,
    "AccountService/ListApiKeys": _USER,
    "AccountService/RevokeApiKey": _USER,
    "AccountService/SetLimit": _USER,
    "AccountService/ListLimits": _OWNERS,
    "AccountService/DeleteLimit": _USER,
    "WalletService/GetWallet": _READERS,
    "WalletService/WatchWallet": _READERS,
    "WalletService/Reserve": _HOLDERS,
    "WalletService/Commit": _HOLDERS,
    "WalletService/Release": _HOLDERS,
    "WalletService/Extend": _HOLDERS,
    "WalletService/GetReservation": _READERS,
    "WalletService/ListReservations": _READERS,
    "WalletService/ListTransactions": _READERS,
    "WalletService/GetUsage": _READERS,
    "WalletService/ListUsage": _READERS,
    "WalletService/StreamUsage": _SERVICE,
    "WalletService/Meter": _SERVICE,
    "PricingService/ListPrices": _ANYONE,
    "PricingService/GetPrice": _ANYONE,
    "PricingService/Quote": _READERS,
    "PricingService/PublishPrices": _ADMIN,
    "CheckoutService/CreateCheckout": _USER,
    "CheckoutService/GetCheckout": _OWNERS,
    "CheckoutService/WatchCheckout": _OWNERS,
    "CheckoutService/ListPurchases": _OWNERS,
    "CheckoutService/GetReceipt": _OWNERS,
    "GenerateService/Generate": _USER,
    "GenerateService/GetGeneration": _OWNERS,
    "GenerateService/ListGenerations": _OWNERS,
    "GenerateService/CancelGeneration": _USER,
    "GenerateService/UploadInput": _USER,
    "GenerateService/DownloadOutput": _USER,
    "RenderService/SubmitRender": _USER,
    "RenderService/GetRender": _OWNERS,
    "RenderService/WatchRender": _OWNERS,
    "RenderService/ListRenders": _OWNERS,
    "RenderService/CancelRender": _USER,
    "RenderService/DownloadRender": _USER,
    "RenderService/LeaseRender": _WORKER,
    "RenderService/DownloadBundle": _WORKER,
    "RenderService/Heartbeat": _WORKER,
    "RenderService/CompleteRender": _WORKER,
    "RenderService/FailRender": _WORKER,
    "AdminService/CreateKey": _LOCAL_SOCKET_ONLY,
    "AdminService/GrantCredits": _ADMIN,
    "AdminService/AdjustBalance": _ADMIN,
    "AdminService/FreezeAccount": _ADMIN,
    "AdminService/RefundPurchase": _ADMIN,
    "AdminService/ListAccounts": _ADMIN,
    "AdminService/ListQuarantined": _ADMIN,
    "AdminService/ResolveQuarantined": _ADMIN,
    "AdminService/ListUncollected": _ADMIN,
    "AdminService/Audit": _ADMIN,
}

TABLE: dict[str, Roles] = {f"/{PACKAGE}.{method}": roles for method, roles in _TABLE.items()}


class WrongRole(Refusal):
    """The key is good, its role may not make this call."""

    def __init__(self, role: Role) -> None:
        super().__init__()
        self.role = role.name.lower()


def check_complete(services: Iterable[ServiceDescriptor]) -> None:
    """See that every method has a row and every row its method.

    :raises RuntimeError: naming those that do not. The server must not start.
    """
    methods = {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}
    if odd := sorted(methods ^ TABLE.keys()):
        raise RuntimeError(f"the role table and the contract differ: {', '.join(odd)}")
