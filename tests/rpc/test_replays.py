"""A key is answered before anything else is asked: what became of names and prices refuses no replay."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import grpc
import pytest

from openanimate.metering.v1 import pricing_service_pb2 as pricing
from openanimate.metering.v1 import wallet_service_pb2 as wallet
from openanimate.metering.v1.role_pb2 import ROLE_ADMIN
from tests.rpc.conftest import postgresql_settings
from tests.server import Calls, Refused, new_key, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.postgresql import Cluster
    from tests.server import RunningServer

UNLISTED = pricing.Price(
    category="other", amount_micros=50_000, unit="operation", base_quantity=1, provider="fal"
)
SPEECH = pricing.Price(
    model="minimax/speech",
    endpoint="fal-ai/minimax/speech",
    category="audio",
    amount_micros=1,
    unit="second",
    base_quantity=1,
    quantity_field="duration",
    provider="fal",
)


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningServer]:
    """A server on each database that nobody else asks for prices."""
    environment = {"OANIM_DATA": str(tmp_path)}
    with ExitStack() as stack:
        if request.param == "postgresql":
            cluster: Cluster = request.getfixturevalue("postgresql_cluster")
            environment |= stack.enter_context(postgresql_settings(cluster))
        yield stack.enter_context(running(environment))


def publish(shop: RunningServer, *prices: pricing.Price) -> None:
    admin = Calls(shop.channel, shop.create_key(ROLE_ADMIN))
    admin(admin.pricing.PublishPrices, pricing.PublishPricesRequest(prices=[UNLISTED, *prices]))


def reserving(model: str, quantity: int) -> wallet.ReserveRequest:
    line = wallet.PricedLine(model=model, quantity=quantity)
    return wallet.ReserveRequest(idempotency_key=new_key(), line=line)


def replayed(calls: Calls, request: wallet.ReserveRequest, first: wallet.ReserveResponse) -> None:
    """The same request is the first answer again."""
    expected = wallet.ReserveResponse(replayed=True)
    expected.MergeFrom(first)
    assert calls(calls.wallet.Reserve, request) == expected


def test_a_model_that_was_listed_since_or_is_listed_no_more_is_the_same_request(shop: RunningServer) -> None:
    calls = Calls(shop.channel, shop.sign_up())
    publish(shop)
    by_endpoint = reserving(SPEECH.endpoint, 5)
    unlisted = calls(calls.wallet.Reserve, by_endpoint)
    publish(shop, SPEECH)
    replayed(calls, by_endpoint, unlisted)
    again = reserving(SPEECH.endpoint, 5)
    listed = calls(calls.wallet.Reserve, again)
    assert (unlisted.reservation.price.model, listed.reservation.price.model) == (
        SPEECH.endpoint,
        SPEECH.model,
    )
    publish(shop)
    replayed(calls, again, listed)
    other = reserving(SPEECH.model, 5)
    other.idempotency_key = again.idempotency_key
    assert calls.refused(calls.wallet.Reserve, other).reason == "IDEMPOTENCY_KEY_REUSED"


def test_a_price_that_no_amount_can_pay_refuses_a_new_key_and_no_replay(shop: RunningServer) -> None:
    calls = Calls(shop.channel, shop.sign_up())
    publish(shop, SPEECH)
    request = reserving(SPEECH.model, 1_000_000)
    first = calls(calls.wallet.Reserve, request)
    dear = pricing.Price()
    dear.CopyFrom(SPEECH)
    dear.amount_micros = 2_000_000
    publish(shop, dear)
    replayed(calls, request, first)
    refused = calls.refused(calls.wallet.Reserve, reserving(SPEECH.model, 1_000_000))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    other = reserving(SPEECH.model, 1_000_001)
    other.idempotency_key = request.idempotency_key
    assert calls.refused(calls.wallet.Reserve, other) == Refused(
        grpc.StatusCode.ALREADY_EXISTS,
        "IDEMPOTENCY_KEY_REUSED",
        {"idempotency_key": request.idempotency_key, "wallet_seq": "2"},
    )
