"""Servers that sell: each with a Stripe of its own, which tells them only what a test has it tell."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from oanim_server.sandbox import StripeSandbox
from oanim_server.web.webhook import PATH
from openanimate.metering.v1 import checkout_service_pb2 as checkout
from openanimate.metering.v1 import wallet_service_pb2 as wallet
from tests import loopback, migrated
from tests.server import Endpoint, new_key, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import httpx

    from openanimate.metering.v1.checkout_service_pb2 import Checkout
    from openanimate.metering.v1.wallet_pb2 import Wallet
    from tests.postgresql import Cluster
    from tests.server import Calls, RunningServer

FREE = 5_000_000
FIFTY = 50_000_000
# What fifty dollars buy.
FIFTY_FIVE = 55_000_000
SECRETS = ("whsec_former", "whsec_present")


def environment_of(stripe: StripeSandbox) -> dict[str, str]:
    """The settings of a server that sells through this sandbox."""
    return {
        "OANIM_STRIPE_KEY": "sk_test_sandbox",
        "OANIM_STRIPE_URL": stripe.url,
        "OANIM_STRIPE_WEBHOOK_SECRETS": ",".join(SECRETS),
        # Tests sign up more often than a day's free credits allow.
        "OANIM_FREE_CREDITS_DAILY_CAP_USD": "100000",
    }


def signature(payload: bytes, secret: str = SECRETS[-1], at: int | None = None) -> str:
    """Stripe's signature of a body, as its header carries it."""
    at = int(time.time()) if at is None else at
    mac = hmac.new(secret.encode(), f"{at}.".encode() + payload, hashlib.sha256)
    return f"t={at},v1={mac.hexdigest()}"


class Stripe:
    """A sandbox of Stripe, told what to do."""

    def __init__(self, sandbox: StripeSandbox) -> None:
        self.sandbox = sandbox
        self._http = loopback.client(base_url=sandbox.url)

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()

    def tell(self, path: str, /, **body: object) -> dict[str, Any]:
        """Send an order of the sandbox's own, a path under /sandbox."""
        answer = self._http.post(f"/sandbox/{path}", json=body).raise_for_status()
        content: dict[str, Any] = answer.json() if answer.content else {}
        return content

    def forget_faults(self) -> None:
        """Work as it should again."""
        self._http.delete("/sandbox/faults").raise_for_status()

    def told(self, path: str, /, **body: object) -> None:
        """Send an order, and wait until its events were delivered."""
        self.tell(path, **body)
        assert self.tell("queue/wait", seconds=20)["waiting"] == 0

    def event(self, kind: str, about: str) -> bytes:
        """The latest event of a type about an object, or about what a session was paid with, as a body."""
        state = self._http.get("/sandbox/state").raise_for_status().json()
        found = [one for one in state["events"] if one["type"] == kind and about in json.dumps(one)]
        return json.dumps(found[-1], indent=2).encode()


class Shop:
    """A server, and the Stripe that it sells through."""

    def __init__(self, server: Endpoint, stripe: Stripe) -> None:
        self.server = server
        self.stripe = stripe

    def listen(self) -> None:
        """Have Stripe send its events from now on."""
        self.stripe.sandbox.send_webhooks(f"{self.server.http_url}{PATH}", SECRETS[-1])

    def deliver(self, payload: bytes, header: str | None = None) -> httpx.Response:
        """Deliver a body as Stripe does, signed unless a header says otherwise."""
        headers = {"stripe-signature": signature(payload) if header is None else header}
        return loopback.post(f"{self.server.http_url}{PATH}", content=payload, headers=headers)

    def page(self, path: str) -> httpx.Response:
        """A page of ours, as a browser without redirects sees it."""
        return loopback.get(f"{self.server.http_url}{path}")

    def metrics(self) -> dict[str, float]:
        """What /metrics says, by name and labels."""
        lines = [line for line in self.page("/metrics").text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    @staticmethod
    def begin(calls: Calls, amount_micros: int = FIFTY) -> Checkout:
        """Begin to buy."""
        request = checkout.CreateCheckoutRequest(amount_micros=amount_micros, idempotency_key=new_key())
        return calls(calls.checkout.CreateCheckout, request).checkout

    def buy(self, calls: Calls, amount_micros: int = FIFTY) -> Checkout:
        """Buy: the credits are in when this returns. The shop must listen."""
        begun = self.begin(calls, amount_micros)
        self.stripe.told(f"sessions/{session_of(begun)}/pay")
        bought = now(calls, begun)
        assert bought.state == checkout.CHECKOUT_STATE_PAID
        return bought


class RunningShop(Shop):
    """A shop in this process."""

    def __init__(self, server: RunningServer, stripe: Stripe) -> None:
        super().__init__(server, stripe)
        self.server: RunningServer = server


def session_of(begun: Checkout) -> str:
    """Stripe's id of the session of an open checkout."""
    return begun.url.rpartition("/")[2]


def now(calls: Calls, begun: Checkout) -> Checkout:
    """How a checkout stands."""
    request = checkout.GetCheckoutRequest(checkout_id=begun.checkout_id)
    return calls(calls.checkout.GetCheckout, request).checkout


def wallet_of(calls: Calls) -> Wallet:
    """The wallet of whoever calls."""
    return calls(calls.wallet.GetWallet, wallet.GetWalletRequest()).wallet


@contextmanager
def stripe_of_its_own() -> Iterator[Stripe]:
    """A Stripe where nothing has happened yet."""
    with StripeSandbox() as sandbox:
        stripe = Stripe(sandbox)
        try:
            yield stripe
        finally:
            stripe.close()


@contextmanager
def selling_on(dialect: str, cluster: Callable[[], Cluster], data: Path) -> Iterator[RunningShop]:
    """A shop on a database of its own."""
    environment = {"OANIM_DATA": str(data)}
    if dialect == "postgresql":
        url = migrated.postgresql(cluster())
        environment |= {"OANIM_DATABASE_URL": url, "OANIM_POSTGRESQL_UNSAFE": "1"}
    with selling(environment) as shop:
        yield shop


@contextmanager
def selling(environment: Mapping[str, str]) -> Iterator[RunningShop]:
    """A shop with these settings that listens to its Stripe, until the block ends."""
    with stripe_of_its_own() as stripe, running({**environment_of(stripe.sandbox), **environment}) as server:
        shop = RunningShop(server, stripe)
        shop.listen()
        yield shop
