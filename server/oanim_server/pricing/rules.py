"""What may be published, what a model costs, and what an input asks for: pure.

What was not understood of an input is refused, never priced as less.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from dataclasses import astuple, replace
from typing import TYPE_CHECKING

from oanim_models.catalogue import CATEGORIES, UNITS, Price, valid_model
from oanim_models.quantities import (
    KILOPIXEL_SECOND,
    MAX_AMOUNT_MICROS,
    MAX_QUANTITY,
    OPERATION,
    InvalidInput,
    charge_micros,
    parse_input,
    quantity_of,
)
from oanim_server.ledger.refusals import InvalidField
from oanim_server.ledger.values import Line
from oanim_server.pricing.refusals import UnknownModel
from oanim_server.pricing.values import OWN, Listing, PriceTable, ProposedPrice, Quote, Unlisted, Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from oanim_models.catalogue import Catalogue

PROVIDERS = ("fal", OWN)
MAX_PRICES = 1_000
MAX_INPUT_BYTES = 65_536
_CATEGORY_ORDER = {category: place for place, category in enumerate(CATEGORIES)}


# Publishing -----------------------------------------------------------------------------------------


def of_catalogue(catalogue: Catalogue) -> tuple[Price, ...]:
    """The rows that a price file publishes."""
    unlisted = Price(
        model="",
        category="other",
        provider="fal",
        endpoint="",
        unit=OPERATION,
        base_quantity=1,
        amount_micros=catalogue.unlisted_amount_micros,
    )
    return in_order([*catalogue.prices, unlisted])


def of_proposal(proposed: Sequence[ProposedPrice]) -> tuple[Price, ...]:
    """The rows that a call publishes.

    :raises InvalidField: naming the price, for a table that would not price everything, once.
    """
    if len(proposed) > MAX_PRICES:
        raise InvalidField("prices", f"there may be {MAX_PRICES:,} at most")
    names: set[str] = set()
    defaults: set[str] = set()
    prices = []
    for index, row in enumerate(proposed):
        price = _price(f"prices[{index}]", row)
        for name in {price.model, price.endpoint}:
            if name in names:
                raise InvalidField(f"prices[{index}].model", f"{name or 'the empty model'} is priced twice")
            names.add(name)
        if price.default and price.category in defaults:
            raise InvalidField(f"prices[{index}].is_default", f"{price.category} has a default already")
        if price.default:
            defaults.add(price.category)
        prices.append(price)
    if "" not in names:
        raise InvalidField(
            "prices", "a price for models that are not listed, with an empty model, is missing"
        )
    return in_order(prices)


def not_past(effective_at: int | None, now: int) -> int:
    """When a publication comes into force: at once, or at a time to come.

    :raises InvalidField: for a time that has passed.
    """
    if effective_at is None:
        return now
    if effective_at < now:
        raise InvalidField("effective_at", "it is in the past")
    return effective_at


def in_order(prices: Iterable[Price]) -> tuple[Price, ...]:
    """As they are shown: by category and name, the price of unlisted models last."""
    return tuple(
        sorted(prices, key=lambda price: (not price.model, _CATEGORY_ORDER[price.category], price.model))
    )


def hash_of(prices: Sequence[Price], effective_at: int) -> bytes:
    """What makes two publications by call the same."""
    content = [effective_at, *sorted(astuple(price) for price in prices)]
    return hashlib.sha256(json.dumps(content).encode()).digest()


def hash_of_file(content_hash: str) -> bytes:
    """What makes two publications of a file the same; no call's hash is equal to it."""
    return hashlib.sha256(f"file {content_hash}".encode()).digest()


def table(version: Version, prices: Sequence[Price]) -> PriceTable:
    """A version with its prices, found by a model's name and by its provider's name of it."""
    by_name = {price.endpoint: price for price in prices} | {price.model: price for price in prices}
    return PriceTable(version.number, version.effective_at, tuple(prices), by_name)


def in_force(versions: Sequence[Version], at: int) -> Version | None:
    """The version whose prices hold: of those that came last into force by then, the highest.

    :param versions: in ascending order.
    """
    place = bisect_right(versions, at, key=lambda version: version.effective_at)
    return versions[place - 1] if place else None


# Asking ---------------------------------------------------------------------------------------------


def of_category(found: PriceTable, category: str) -> PriceTable:
    """The part of the table that is of a category; all of it for an empty one.

    :raises InvalidField: for what is no category.
    """
    if not category:
        return found
    if category not in CATEGORIES:
        raise InvalidField("category", f"it must be one of {', '.join(CATEGORIES)}")
    return replace(found, prices=tuple(price for price in found.prices if price.category == category))


def listing(found: PriceTable, model: str, unlisted: Unlisted) -> Listing:
    """What a model costs.

    :raises InvalidField: for what cannot be a model's name.
    :raises UnknownModel: for one that is not listed, where those are refused or it is of our own.
    """
    listed = found.by_name.get(model) if model else None
    if listed is not None:
        return Listing(found.version, listed, listed=True)
    try:
        valid_model(model)
    except InvalidInput as error:
        raise InvalidField("model", error.description) from None
    # The price of an unlisted model is one of an operation of a provider's: of nothing that we do ourselves.
    if unlisted == "refuse" or model.startswith(f"{OWN}/"):
        raise UnknownModel(model)
    return Listing(found.version, replace(found.by_name[""], model=model, endpoint=model), listed=False)


def quantity_in(price: Price, input_json: str) -> int:
    """The quantity that an input asks for.

    :raises InvalidField: for an input that is no JSON object of 64 KB at most, or has no quantity.
    """
    if len(input_json.encode()) > MAX_INPUT_BYTES:
        raise InvalidField("input_json", f"it may have {MAX_INPUT_BYTES:,} bytes at most")
    try:
        return quantity_of(price, parse_input(input_json))
    except InvalidInput as error:
        field = error.field if error.field in ("model", "input_json") else f"input_json.{error.field}"
        raise InvalidField(field, error.description) from None


def quote(found: Listing, quantity: int) -> Quote:
    """What a quantity costs: multiplied first, rounded up once.

    :raises InvalidField: for a quantity out of range, or too much for one amount.
    """
    price = found.price
    if not 0 <= quantity <= MAX_QUANTITY:
        raise InvalidField("quantity", f"it is {quantity} and must be from 0 to 10^9")
    amount = charge_micros(price.amount_micros, price.base_quantity, quantity)
    if amount > MAX_AMOUNT_MICROS:
        raise InvalidField("quantity", f"it would cost {amount} micro-USD and one amount is at most 10^12")
    line = Line(
        price_version=found.price_version,
        model=price.model,
        category=price.category,
        provider=price.provider,
        unit=price.unit,
        price_micros=price.amount_micros,
        base_quantity=price.base_quantity,
        quantity=quantity,
    )
    return Quote(amount, quantity, found.price_version, price, line)


def _price(path: str, row: ProposedPrice) -> Price:
    """One proposed price, its fields checked in the contract's order."""
    if row.model:
        _named(f"{path}.model", row.model)
    if row.category not in CATEGORIES:
        raise InvalidField(f"{path}.category", f"it must be one of {', '.join(CATEGORIES)}")
    if not 1 <= row.amount_micros <= MAX_AMOUNT_MICROS:
        raise InvalidField(
            f"{path}.amount_micros", f"it is {row.amount_micros} and must be from 1 to 10^12 micro-USD"
        )
    _check_unit(f"{path}.unit", row)
    if not 1 <= row.base_quantity <= MAX_QUANTITY:
        raise InvalidField(f"{path}.base_quantity", f"it is {row.base_quantity} and must be from 1 to 10^9")
    provider = row.provider or OWN
    if provider not in PROVIDERS:
        raise InvalidField(f"{path}.provider", "it must be fal, or empty for work of our own")
    if row.endpoint:
        _named(f"{path}.endpoint", row.endpoint)
    if not row.model:
        _check_unlisted(path, row)
    try:
        return Price(
            model=row.model,
            category=row.category,
            provider=provider,
            endpoint=row.endpoint or row.model,
            unit=row.unit,
            base_quantity=row.base_quantity,
            amount_micros=row.amount_micros,
            quantity_field=row.quantity_field,
            default=row.is_default,
        )
    except ValueError:
        raise InvalidField(
            f"{path}.quantity_field", f"it does not go with the unit {row.unit}, or is not readable"
        ) from None


def _check_unit(path: str, row: ProposedPrice) -> None:
    if row.unit not in UNITS:
        raise InvalidField(path, f"it must be one of {', '.join(UNITS)}")
    if (row.category == "render") != (row.unit == KILOPIXEL_SECOND):
        raise InvalidField(path, f"renders are priced by the {KILOPIXEL_SECOND}, and nothing else is")


def _check_unlisted(path: str, row: ProposedPrice) -> None:
    """The price of models that nobody knows: of their input no quantity can be read."""
    if (row.unit, row.base_quantity) != (OPERATION, 1):
        raise InvalidField(f"{path}.unit", "models that are not listed are priced by one operation")
    if row.provider != "fal":
        raise InvalidField(f"{path}.provider", "models that are not listed are fal's")
    if row.endpoint:
        raise InvalidField(f"{path}.endpoint", "models that are not listed have their own names")
    if row.is_default:
        raise InvalidField(f"{path}.is_default", "a default is a model that is listed")


def _named(path: str, name: str) -> None:
    try:
        valid_model(name)
    except InvalidInput as error:
        raise InvalidField(path, error.description) from None
