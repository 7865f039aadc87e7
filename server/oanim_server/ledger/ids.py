"""Ids as text: 60-bit numbers inside, twelve characters of Crockford's base 32 outside.

A reservation's id begins with its wallet's, so that no look-up is needed to route or to authorise.
"""

from __future__ import annotations

import secrets

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
_LENGTH = 12


def new_account_id() -> int:
    """A number nobody can guess, and nobody has but by a chance of one in 10^18."""
    return secrets.randbits(60) or 1


def account_text(account_id: int) -> str:
    """An account's id as the contract shows it."""
    return "".join(_ALPHABET[account_id >> shift & 31] for shift in range(5 * (_LENGTH - 1), -1, -5))


def account_id(text: str) -> int:
    """The number of an account's id; ValueError for what is none."""
    if len(text) != _LENGTH:
        raise ValueError(text)
    number = 0
    for character in text:
        value = _VALUES.get(character)
        if value is None:
            raise ValueError(text)
        number = number << 5 | value
    return number


def reservation_text(wallet_id: int, number: int) -> str:
    """A reservation's id: `<account>-<number>`."""
    return f"{account_text(wallet_id)}-{number}"


def reservation_id(text: str) -> tuple[int, int]:
    """The wallet and the number of a reservation's id; ValueError for what is none."""
    account, hyphen, number = text.partition("-")
    if (
        not hyphen
        or not number.isascii()
        or not number.isdigit()
        or number.startswith("0")
        or len(number) > 18
    ):
        raise ValueError(text)
    return account_id(account), int(number)
