"""A server's prices inside the test's process: real ledger, real database, a clock that the test moves."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from oanim_models import catalogue
from oanim_server.ledger.ledger import Ledger
from oanim_server.pricing.prices import Prices
from oanim_server.pricing.values import ProposedPrice
from tests.ledger.driving import Clock, with_clock

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from oanim_models.catalogue import Price
    from oanim_server.database.engine import Database
    from oanim_server.pricing.values import Unlisted

T = TypeVar("T")

PUBLISHED = catalogue.load()


class Shop:
    """One server process: what it has, and an event loop to run it on."""

    def __init__(
        self, database: Database, *, unlisted: Unlisted = "default", clock: Clock | None = None
    ) -> None:
        self.clock = clock or Clock()
        with_clock(database, self.clock)
        self.database = database
        self.ledger = Ledger(database)
        self.ledger.start(sweep=False)
        self.prices = Prices(database, self.ledger, unlisted=unlisted)
        self._runner = asyncio.Runner()

    def do(self, work: Coroutine[object, object, T]) -> T:
        """Have work done on the event loop."""
        return self._runner.run(work)

    def close(self) -> None:
        self._runner.run(self.ledger.stop())
        self._runner.close()
        self.database.close()


def proposed(price: Price) -> ProposedPrice:
    """A price as a call would publish it."""
    return ProposedPrice(
        model=price.model,
        category=price.category,
        amount_micros=price.amount_micros,
        unit=price.unit,
        base_quantity=price.base_quantity,
        quantity_field=price.quantity_field,
        provider=price.provider,
        endpoint=price.endpoint,
        is_default=price.default,
    )


UNLISTED = ProposedPrice(
    model="",
    category="other",
    amount_micros=50_000,
    unit="operation",
    base_quantity=1,
    quantity_field="",
    provider="fal",
    endpoint="",
    is_default=False,
)
IMAGE = ProposedPrice(
    model="fal-ai/flux/schnell",
    category="image",
    amount_micros=3_000,
    unit="image",
    base_quantity=1,
    quantity_field="num_images",
    provider="fal",
    endpoint="",
    is_default=False,
)


def costing(amount_micros: int) -> list[ProposedPrice]:
    """A table with one model, which costs so much."""
    return [replace(IMAGE, amount_micros=amount_micros), UNLISTED]
