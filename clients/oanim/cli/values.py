"""The kinds of values that options take: amounts of money and points in time, read exactly or not at all."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING

import click

from oanim.cli.money import MICROS_PER_CENT, micros_of

if TYPE_CHECKING:
    from typing import Any


class Usd(click.ParamType[int]):
    """An amount in USD, in micro-USD from then on; `in_cents` refuses parts of a cent."""

    name = "USD"

    def __init__(self, *, in_cents: bool = False) -> None:
        self._in_cents = in_cents

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            micros = micros_of(str(value))
        except ValueError as error:
            self.fail(f"it {error}, not {str(value)!r}.", param, ctx)
        if self._in_cents and micros % MICROS_PER_CENT:
            self.fail(f"it must be whole cents, not {str(value)!r}.", param, ctx)
        return micros


class Instant(click.ParamType[datetime]):
    """A point in time, UTC unless it says otherwise; a day is its last instant."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return instant_of(str(value))
        except (ValueError, OverflowError):
            self.fail(
                f"it must be a day such as 2026-11-23 or a time such as 2026-11-23T11:59:00, not {value!r}.",
                param,
                ctx,
            )


def instant_of(text: str) -> datetime:
    """Read a day or an ISO 8601 time; raises ValueError or OverflowError for anything else."""
    try:
        return datetime.combine(date.fromisoformat(text), time.max, UTC)
    except ValueError:
        instant = datetime.fromisoformat(text)
    return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)
