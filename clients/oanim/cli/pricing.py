"""The command that shows what models cost; it needs no key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from oanim.cli.command import with_public_client
from oanim.cli.money import dollars
from oanim.cli.showing import Answer, table

if TYPE_CHECKING:
    from oanim.client import Client
    from openanimate.metering.v1.pricing_service_pb2 import Price

_CATEGORIES = ("image", "edit", "background", "upscale", "video", "audio", "render", "other")
_UNITS = {"1000_characters": "characters", "kilopixel_second": "kilopixel-second", "second": "s"}


@click.command()
@click.option("--category", type=click.Choice(_CATEGORIES), help="Only what is for this.")
@with_public_client
def pricing(client: Client, *, category: str | None) -> Answer:
    """Show what each model costs."""
    from oanim.cli.messages import plain

    answer = client.list_prices(category=category or "")
    rows = [
        (
            price.category,
            price.model or "any other model",
            dollars(price.amount_micros),
            f"per {per(price)}",
            "default" if price.is_default else "",
        )
        for price in answer.prices
    ]
    lines = table(("Category", "Model", "Price", "", ""), rows, right=(2,))
    if answer.free_credits_micros:
        lines.append(f"A new account has {dollars(answer.free_credits_micros)} of free credits.")
    return Answer(data=plain(answer), lines=lines)


def per(price: Price) -> str:
    """Say what the price buys: image, 5 s, 1000 characters."""
    unit = _UNITS.get(price.unit, price.unit)
    return unit if price.base_quantity == 1 else f"{price.base_quantity} {unit}"
