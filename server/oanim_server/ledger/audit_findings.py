"""What an audit says of one account: each problem a sentence that begins with whose it is and where."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator


class Findings:
    """Adds to the problems of a report."""

    def __init__(self, account: str, problems: list[str]) -> None:
        self._account = account
        self._problems = problems

    def off(self, problem: str) -> None:
        """Something is not right."""
        self._problems.append(f"{self._account}: {problem}")

    def same(self, what: str, expected: object, found: object) -> None:
        """See that what is stored is what was recomputed."""
        if expected != found:
            self.off(f"{what}: {found} is stored, {expected} is right")

    def numbers(self, what: str, text: str, width: int, or_null: int | None = None) -> list[list[Any]]:
        """A list of lists of so many integers, one maybe null; anything else is a problem, and nothing."""
        try:
            found = orjson.loads(text)
        except ValueError:
            found = None
        if isinstance(found, list) and all(
            isinstance(item, list)
            and len(item) == width
            and all(
                type(number) is int or (number is None and place == or_null)
                for place, number in enumerate(item)
            )
            for item in found
        ):
            return found
        self.off(f"{what} cannot be read")
        return []

    @contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """Read a row and look at it; one that means nothing is a problem, and the audit goes on."""
        try:
            yield
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
            self.off(f"{what} cannot be read")
