from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest
import stripe

from oanim_server.sandbox import FalSandbox, StripeSandbox
from tests import loopback
from tests.sandbox.receiving import SECRET, Inbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx


@pytest.fixture(scope="module")
def shared_sandbox() -> Iterator[FalSandbox]:
    with FalSandbox() as running:
        yield running


@pytest.fixture
def fal(shared_sandbox: FalSandbox) -> Iterator[httpx.Client]:
    """Speak to the sandbox as a caller with a key; no fault outlives its test."""
    headers = {"Authorization": "Key id:secret"}
    with loopback.client(base_url=shared_sandbox.url, headers=headers) as client:
        yield client
        client.delete("/sandbox/faults").raise_for_status()


class Tell(Protocol):
    """Tell the sandbox of Stripe what to do: a path under /sandbox, and what is sent there."""

    def __call__(self, path: str, /, **body: object) -> dict[str, Any]: ...


@pytest.fixture
def sandbox() -> Iterator[StripeSandbox]:
    """A Stripe of a test's own, where nothing has happened yet."""
    with StripeSandbox() as running:
        yield running


@pytest.fixture
def client(sandbox: StripeSandbox) -> stripe.StripeClient:
    """The real SDK, without its own retries."""
    return stripe.StripeClient("sk_test_sandbox", base_addresses={"api": sandbox.url}, max_network_retries=0)


@pytest.fixture
def http(sandbox: StripeSandbox) -> Iterator[httpx.Client]:
    """A browser, or an SDK that has not been written yet."""
    headers = {"Authorization": "Bearer sk_test_sandbox"}
    with loopback.client(base_url=sandbox.url, headers=headers) as one:
        yield one


@pytest.fixture
def tell(http: httpx.Client) -> Tell:
    def post(path: str, /, **body: object) -> dict[str, Any]:
        answer = http.post(f"/sandbox/{path}", json=body).raise_for_status()
        content: dict[str, Any] = answer.json() if answer.content else {}
        return content

    return post


@pytest.fixture
def inbox(sandbox: StripeSandbox) -> Iterator[Inbox]:
    """A webhook that is sent every event."""
    with Inbox() as one:
        sandbox.send_webhooks(one.url, SECRET)
        yield one


@pytest.fixture
def session(client: stripe.StripeClient) -> stripe.checkout.Session:
    """Fifty dollars to pay."""
    return client.v1.checkout.sessions.create(
        {
            "mode": "payment",
            "line_items": [
                {
                    "price_data": {
                        "currency": "usd",
                        "unit_amount": 5_000,
                        "product_data": {"name": "Credits"},
                    },
                    "quantity": 1,
                }
            ],
            "client_reference_id": "purchase-1",
            "metadata": {"account": "a"},
            "success_url": "http://127.0.0.1:1/paid?session={CHECKOUT_SESSION_ID}",
            "cancel_url": "http://127.0.0.1:1/cancelled",
        }
    )
