"""The nouns of pricing. Amounts are micro-USD, times microseconds since 1970.

A single price is `oanim_models.catalogue.Price`, the same at both ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from oanim_models.catalogue import Price
    from oanim_server.ledger.values import Line

# What becomes of a model that is not in the table.
Unlisted = Literal["default", "refuse"]

# Who does work that no provider does, as prices and charges name it; the contract leaves it empty.
OWN = "oanim"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedPrice:
    """A price that somebody wants published. An empty endpoint is the model's own name."""

    model: str
    category: str
    amount_micros: int
    unit: str
    base_quantity: int
    quantity_field: str
    provider: str
    endpoint: str
    is_default: bool


class Version(NamedTuple):
    """When a version of the price table comes into force."""

    effective_at: int
    number: int


@dataclass(frozen=True, slots=True)
class PriceTable:
    """A version of the price table: by category and name, the price of unlisted models last."""

    version: int
    effective_at: int
    prices: tuple[Price, ...]
    by_name: dict[str, Price] = field(repr=False, compare=False)


class Listing(NamedTuple):
    """What one model costs, and whether it is in the table or has the price of those that are not."""

    price_version: int
    price: Price
    listed: bool


class Quote(NamedTuple):
    """What a piece of work costs, and the line that pins the price for a reservation."""

    amount_micros: int
    quantity: int
    price_version: int
    price: Price
    line: Line
