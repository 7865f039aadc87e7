"""Reads and writes amounts of money, exactly: micro-USD are integers and no float ever comes near them."""

from __future__ import annotations

import re

MICROS_PER_USD = 1_000_000
MICROS_PER_CENT = MICROS_PER_USD // 100
MAX_AMOUNT_MICROS = 10**12
LOW_BALANCE_MICROS = MICROS_PER_USD

_AMOUNT = re.compile(r"([0-9]*)(?:\.([0-9]*))?", re.ASCII)
_DECIMALS = 6
_SMALLEST_TOP_UP_USD = 10


def dollars(micros: int) -> str:
    """Write an amount with two decimals, or as many up to six as it has: $5.00, $0.003, -$1.25."""
    return f"{'-' if micros < 0 else ''}${usd(abs(micros))}"


def usd(micros: int) -> str:
    """Write an amount as a bare number, as micros_of reads it and a spreadsheet, too: 5.00, 0.003, -1.25."""
    whole, fraction = divmod(abs(micros), MICROS_PER_USD)
    digits = f"{fraction:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if micros < 0 else ''}{whole}.{digits}"


def top_up(missing_micros: int) -> str:
    """Say how to get so much more, and not less than is worth a purchase."""
    amount = max(_SMALLEST_TOP_UP_USD, -(-missing_micros // MICROS_PER_USD))
    return f"Top up: oanim billing buy --amount {amount}"


def micros_of(text: str) -> int:
    """Read an amount in USD such as 5, 5.00 or .25.

    Raises ValueError, saying what is wrong, for anything but a plain number from 0 to 1,000,000 with at most
    six decimals.
    """
    match = _AMOUNT.fullmatch(text.strip())
    whole, fraction = (match[1], match[2] or "") if match else ("", "")
    if not whole and not fraction:
        raise ValueError("must be a plain number of USD such as 5.00")
    if len(fraction) > _DECIMALS:
        raise ValueError("must have at most six decimals")
    # Leading zeros aside, what is longer is out of range; int() itself refuses thousands of digits.
    if len(whole.lstrip("0")) > len(str(MAX_AMOUNT_MICROS // MICROS_PER_USD)):
        raise ValueError("must be at most 1000000")
    micros = int(whole.lstrip("0") or "0") * MICROS_PER_USD + int(fraction.ljust(_DECIMALS, "0"))
    if micros > MAX_AMOUNT_MICROS:
        raise ValueError("must be at most 1000000")
    return micros
