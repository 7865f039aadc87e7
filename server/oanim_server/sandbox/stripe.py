"""A stand-in for Stripe that the real SDK talks to: API, pay page, signed webhooks, control endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
from starlette.applications import Starlette

from oanim_models.tls import trusted
from oanim_server.sandbox.faults import Faults
from oanim_server.sandbox.hanging import Patience
from oanim_server.sandbox.serving import Sandbox
from oanim_server.sandbox.stripe_account import Account
from oanim_server.sandbox.stripe_api import Api
from oanim_server.sandbox.stripe_control import Control
from oanim_server.sandbox.stripe_pay import Pages

if TYPE_CHECKING:
    from collections.abc import Sequence


class StripeSandbox(Sandbox):
    """A Stripe of your own: give its url to `StripeClient` as `base_addresses={"api": url}`."""

    def __init__(self, *, port: int = 0) -> None:
        super().__init__("Stripe", lambda _folder, url: _Stripe(url), port=port)

    def send_webhooks(self, url: str, *secrets: str, types: Sequence[str] = ("*",)) -> None:
        """Send events here from now on, and nowhere else; several secrets sign as while one is rolled."""
        endpoint = {"url": url, "secrets": list(secrets), "types": list(types)}
        where = f"{self.url}/sandbox/webhooks"
        with httpx.Client(timeout=10, trust_env=False, verify=trusted(trust_env=False)) as http:
            http.post(where, json={"endpoints": [endpoint]}).raise_for_status()


class _Stripe:
    def __init__(self, url: str) -> None:
        self._account = Account(url)
        self._patience = Patience()
        faults = Faults()
        self.app = Starlette(
            routes=[
                *Control(self._account, faults).routes,
                *Pages(self._account).routes,
                *Api(self._account, faults, self._patience).routes,
            ]
        )

    async def close(self) -> None:
        """Let go of every connection that waits, and send nothing more."""
        self._patience.end()
        await self._account.webhooks.close()
