"""The price file as values: which models are listed, what each costs and what its input calls a quantity.

A model may be named by its published name or by its provider's endpoint, and both give the one price:
otherwise the endpoint would buy a listed model at the price of an unlisted one.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from decimal import Decimal
from fractions import Fraction
from importlib import resources
from typing import Any

from oanim_models.quantities import (
    CHARACTERS,
    IMAGE,
    KILOPIXEL_SECOND,
    MAX_AMOUNT_MICROS,
    MAX_QUANTITY,
    OPERATION,
    SECOND,
    InvalidInput,
)

UNITS = (OPERATION, IMAGE, SECOND, CHARACTERS, KILOPIXEL_SECOND)
CATEGORIES = ("image", "edit", "background", "upscale", "video", "audio", "other", "render")

MAX_MODEL_LENGTH = 128
MAX_MARGIN_PERCENT = 1_000
MAX_BONUS_PERCENT = 100
# The name becomes the path of a paid request: no empty, dotted or escaped segment, no query, and
# nothing below `requests`, where the provider keeps the jobs that exist.
_MODEL = re.compile(r"[a-z0-9][a-z0-9._-]*(?:/(?!requests(?:/|$))[a-z0-9][a-z0-9._-]*)+")

_QUANTITY_FIELD = re.compile(r"[a-z_]+(?:\[\]\.[a-z_]+)?(?:,[a-z_]+(?:\[\]\.[a-z_]+)?)*")


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs: `amount_micros` buys `base_quantity` of `unit`.

    `quantity_field` says what in an input sets the quantity, empty where nothing does: a field, or
    several between commas of which the greatest counts, `list[].field` being the sum over a list of
    objects. `endpoint` is the provider's own name of the model.
    """

    model: str
    category: str
    provider: str
    endpoint: str
    unit: str
    base_quantity: int
    amount_micros: int
    quantity_field: str = ""
    default: bool = False

    def __post_init__(self) -> None:
        """Refuse a row that would price nonsense; the message names the model."""
        if self.category not in CATEGORIES or self.unit not in UNITS:
            message = f"{self.model}: unknown category {self.category!r} or unit {self.unit!r}"
            raise ValueError(message)
        if not 1 <= self.base_quantity <= MAX_QUANTITY or not 1 <= self.amount_micros <= MAX_AMOUNT_MICROS:
            message = f"{self.model}: base quantity or amount out of range"
            raise ValueError(message)
        if (self.unit in (IMAGE, SECOND, CHARACTERS)) != bool(self.quantity_field):
            message = f"{self.model}: a price per {self.unit} and quantity_field do not go together"
            raise ValueError(message)
        if self.quantity_field and not _QUANTITY_FIELD.fullmatch(self.quantity_field):
            message = f"{self.model}: quantity_field {self.quantity_field!r} is not readable"
            raise ValueError(message)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every published price, in the order of the file, with the margin already in the amounts."""

    prices: tuple[Price, ...]
    unlisted_amount_micros: int
    free_credits_micros: int
    margin_percent: Decimal
    content_hash: str
    # Of a purchase: a percentage of the whole amount, from the threshold on.
    bonus_threshold_micros: int
    bonus_percent: int

    def __post_init__(self) -> None:
        """Refuse amounts that could not be charged or given."""
        for name, least in (("unlisted_amount_micros", 1), ("free_credits_micros", 0)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= MAX_AMOUNT_MICROS:
                message = f"{name} is {value!r} and must be a whole number from {least} to 10^12"
                raise ValueError(message)

    def price(self, model: str) -> Price | None:
        """Find a listed model by its published name or its endpoint; None if it is not listed."""
        for price in self.prices:
            if model in (price.model, price.endpoint):
                return price
        return None

    def canonical(self, model: str) -> str:
        """Name a model as published; an unlisted one keeps its name. Raises InvalidInput for a bad name."""
        listed = self.price(model)
        return listed.model if listed else valid_model(model)

    def fallback(self, model: str) -> Price:
        """Price one operation of a model that is not listed. Raises InvalidInput for a bad name."""
        return Price(
            model=valid_model(model),
            category="other",
            provider="fal",
            endpoint=model,
            unit=OPERATION,
            base_quantity=1,
            amount_micros=self.unlisted_amount_micros,
        )

    def default(self, category: str) -> Price | None:
        """Find what a category uses when no model is named; None for a category without a default."""
        return next((price for price in self.prices if price.category == category and price.default), None)

    def with_margin(self, percent: Decimal) -> Catalogue:
        """Fold an operator's margin into every amount, each rounded up once.

        Raises ValueError for a negative margin, for one above 1,000 percent, when there is one already, and
        when an amount would be too large.
        """
        if not percent.is_finite() or not 0 <= percent <= MAX_MARGIN_PERCENT or self.margin_percent:
            message = "a margin is 0 to 1000 percent and is added once"
            raise ValueError(message)
        return replace(
            self,
            prices=tuple(
                replace(price, amount_micros=_marked_up(price.amount_micros, percent))
                for price in self.prices
            ),
            unlisted_amount_micros=_marked_up(self.unlisted_amount_micros, percent),
            margin_percent=percent,
            content_hash=_hash(self, percent),
        )


def load() -> Catalogue:
    """Read the packaged price file, without a margin."""
    return parse(resources.files("oanim_models").joinpath("prices.toml").read_text(encoding="utf-8"))


def parse(text: str) -> Catalogue:
    """Read a price file. Raises ValueError (of TOML, or naming the row) when it is not one."""
    content = tomllib.loads(text)
    rows = _taken(content, "prices")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        message = "prices is no list of [[prices]]"
        raise ValueError(message)
    prices = tuple(map(_price, rows))
    names = [price.model for price in prices]
    endpoints = [price.endpoint for price in prices]
    defaults = [price.category for price in prices if price.default]
    for what in (names, endpoints, defaults):
        if len(set(what)) != len(what):
            message = f"listed twice: {sorted({name for name in what if what.count(name) > 1})}"
            raise ValueError(message)
    bonus = content.pop("bonus", {"threshold_micros": 0, "percent": 0})
    catalogue = Catalogue(
        prices=prices,
        unlisted_amount_micros=_taken(content, "unlisted_amount_micros"),
        free_credits_micros=_taken(content, "free_credits_micros"),
        margin_percent=Decimal(0),
        content_hash="",
        bonus_threshold_micros=_whole(bonus, "threshold_micros", MAX_AMOUNT_MICROS),
        bonus_percent=_whole(bonus, "percent", MAX_BONUS_PERCENT),
    )
    if content:
        message = f"unknown settings in the price file: {sorted(content)}"
        raise ValueError(message)
    return replace(catalogue, content_hash=_hash(catalogue, Decimal(0)))


def valid_model(model: str) -> str:
    """Return the name when it can be a provider's path. Raises InvalidInput otherwise."""
    if len(model) > MAX_MODEL_LENGTH or not _MODEL.fullmatch(model):
        field = "model"
        raise InvalidInput(field, "must be a model's name such as fal-ai/flux/schnell")
    return model


def _taken(content: dict[str, Any], name: str) -> Any:
    try:
        return content.pop(name)
    except KeyError:
        message = f"{name} is missing"
        raise ValueError(message) from None


def _price(row: dict[str, Any]) -> Price:
    model = row.get("model", "a price")
    known = {"provider": "fal", "endpoint": model, "base_quantity": 1}
    for field in fields(Price):
        value = row.get(field.name)
        # TOML's true is no amount, though Python's is.
        if field.name in row and type(value).__name__ != field.type:
            message = f"{model}: {field.name} is {value!r}"
            raise ValueError(message)
    try:
        price = Price(**{**known, **row})
    except TypeError as error:
        message = f"{model}: {error}"
        raise ValueError(message) from error
    valid_model(price.model)
    valid_model(price.endpoint)
    return price


def _whole(content: dict[str, Any], name: str, most: int) -> int:
    value = content.get(name)
    if type(value) is not int or not 0 <= value <= most:
        message = f"bonus.{name} must be a whole number from 0 to {most}"
        raise ValueError(message)
    return value


def _marked_up(amount_micros: int, percent: Decimal) -> int:
    exact = amount_micros * (1 + Fraction(percent) / 100)
    return -(-exact.numerator // exact.denominator)


def _hash(catalogue: Catalogue, percent: Decimal) -> str:
    """SHA-256 of the prices before the margin, and the margin, whatever the order and layout of the file."""
    content = {
        "prices": sorted((asdict(price) for price in catalogue.prices), key=lambda row: str(row["model"])),
        "unlisted_amount_micros": catalogue.unlisted_amount_micros,
        "free_credits_micros": catalogue.free_credits_micros,
        "margin_percent": str(Fraction(percent)),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
