"""How much an input asks for, and what that much costs.

An input is passed on to the provider as it was written, so whatever a provider would understand as a
larger quantity must be understood here too or be refused: what is not understood is never priced as less.
"""

from __future__ import annotations

import json
import math
import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oanim_models.catalogue import Price

OPERATION: Final = "operation"
IMAGE: Final = "image"
SECOND: Final = "second"
CHARACTERS: Final = "1000_characters"
KILOPIXEL_SECOND: Final = "kilopixel_second"

MAX_QUANTITY = 10**9
MAX_AMOUNT_MICROS = 10**12

# "5", "8s" and "2.5" are what models take; signs, spaces, exponents and digits of other scripts are not.
_SECONDS = re.compile(r"([0-9]{1,10}(?:\.[0-9]{1,9})?)s?")
_WHOLE = re.compile(r"[0-9]{1,10}")


class InvalidInput(ValueError):
    """A field of an input is not what the model takes."""

    def __init__(self, field: str, description: str) -> None:
        """Name the field by its path in the input and say what it must be."""
        super().__init__(f"{field}: {description}")
        self.field = field
        self.description = description


def charge_micros(amount_micros: int, base_quantity: int, quantity: int) -> int:
    """Price a quantity: ceil(amount x max(quantity, base) / base) micro-USD, and 0 for 0.

    Raises ValueError when one of the three is out of range; their signs are checked one by one.
    """
    if not 0 <= amount_micros <= MAX_AMOUNT_MICROS:
        message = "the amount must be 0 to 10^12 micro-USD"
        raise ValueError(message)
    if not 1 <= base_quantity <= MAX_QUANTITY:
        message = "the base quantity must be 1 to 10^9"
        raise ValueError(message)
    if not 0 <= quantity <= MAX_QUANTITY:
        message = "the quantity must be 0 to 10^9"
        raise ValueError(message)
    if quantity == 0:
        return 0
    return -(-amount_micros * max(quantity, base_quantity) // base_quantity)


def quantity_of(price: Price, model_input: Mapping[str, Any]) -> int:
    """Read the quantity an input asks for, in the price's unit (characters for `1000_characters`).

    A field that is absent or null asks for the base. Raises InvalidInput naming the field.
    """
    if price.unit == OPERATION:
        return price.base_quantity
    if price.unit == KILOPIXEL_SECOND:
        field = "model"
        raise InvalidInput(field, f"{price.model} is quoted by quantity, not by input")
    quantity = max(_asked(price, model_input, path) for path in price.quantity_field.split(","))
    return _bounded(price.quantity_field, quantity)


def parse_input(text: str) -> dict[str, Any]:
    """Read an `input_json`. Raises InvalidInput when it is not one JSON object, or names a field twice.

    A field named twice is refused because two readers may each see the other one.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except InvalidInput:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidInput(_INPUT, "must be a JSON object") from error
    if not isinstance(value, dict):
        raise InvalidInput(_INPUT, "must be a JSON object")
    return value


_INPUT = "input_json"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidInput(_INPUT, f"names {name[:64]!r} twice")
        found[name] = value
    return found


def _no_constant(name: str) -> None:
    raise InvalidInput(_INPUT, f"{name} is not JSON")


def _asked(price: Price, model_input: Mapping[str, Any], path: str) -> int:
    name, in_parts, field = path.partition("[].")
    value = model_input.get(name)
    if value is None:
        return price.base_quantity
    if not in_parts:
        return _read(price, name, value)
    if not isinstance(value, list):
        raise InvalidInput(name, "must be a list")
    return sum(_part(price, part, f"{name}[{index}]", field) for index, part in enumerate(value))


def _part(price: Price, part: object, path: str, field: str) -> int:
    if not isinstance(part, dict):
        raise InvalidInput(path, "must be an object")
    value = part.get(field)
    return price.base_quantity if value is None else _read(price, f"{path}.{field}", value)


def _read(price: Price, path: str, value: object) -> int:
    if price.unit == CHARACTERS:
        return _characters(path, value)
    return _seconds(path, value) if price.unit == SECOND else _count(path, value)


def _characters(field: str, value: object) -> int:
    if not isinstance(value, str):
        raise InvalidInput(field, "must be text")
    return _bounded(field, len(value))


def _count(field: str, value: object) -> int:
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return _bounded(field, int(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return _bounded(field, value)
    if isinstance(value, float) and value.is_integer():
        return _bounded(field, int(value))
    raise InvalidInput(field, "must be a whole number")


def _seconds(field: str, value: object) -> int:
    if isinstance(value, str) and (match := _SECONDS.fullmatch(value)):
        return _bounded(field, math.ceil(Fraction(match[1])))
    if isinstance(value, int) and not isinstance(value, bool):
        return _bounded(field, value)
    if isinstance(value, float) and math.isfinite(value):
        return _bounded(field, math.ceil(value))
    raise InvalidInput(field, "must be a number of seconds")


def _bounded(field: str, quantity: int) -> int:
    if not 1 <= quantity <= MAX_QUANTITY:
        raise InvalidInput(field, "must be 1 to 1,000,000,000")
    return quantity
