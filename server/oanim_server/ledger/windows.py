"""The windows that limits are counted in: a day, a week from Monday or a month, UTC.

A window is named by its period and its first day, as `week 2026-11-23`. The name is part of the database.
"""

from __future__ import annotations

from datetime import date
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from oanim_server.ledger.values import DAY

_EPOCH_DAY = date(1970, 1, 1).toordinal()


class Period(IntEnum):
    """What a limit is counted over. The numbers are those of LimitPeriod in the contract."""

    DAY = 1
    WEEK = 2
    MONTH = 3


class Window(NamedTuple):
    """One period of time, in microseconds since 1970: from `start`, up to and without `end`."""

    name: str
    start: int
    end: int


def window_of(period: Period, at: int) -> Window:
    """The window of a period that an instant lies in."""
    return _window_of_day(period, at // DAY)


def window_named(name: str) -> Window:
    """The window of a name."""
    period, _, first = name.partition(" ")
    return _window_of_day(Period[period.upper()], date.fromisoformat(first).toordinal() - _EPOCH_DAY)


# A wallet's calls lie in few days: this year's and last year's fit.
@lru_cache(maxsize=2_000)
def _window_of_day(period: Period, day: int) -> Window:
    today = date.fromordinal(day + _EPOCH_DAY)
    if period is Period.DAY:
        first, after = today.toordinal(), today.toordinal() + 1
    elif period is Period.WEEK:
        first = today.toordinal() - today.weekday()
        after = first + 7
    else:
        first = today.replace(day=1).toordinal()
        months = today.year * 12 + today.month
        after = date(months // 12, months % 12 + 1, 1).toordinal()
    name = f"{period.name.lower()} {date.fromordinal(first).isoformat()}"
    return Window(name, (first - _EPOCH_DAY) * DAY, (after - _EPOCH_DAY) * DAY)
