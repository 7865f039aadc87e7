"""Amounts and points in time are read exactly, or refused."""

from __future__ import annotations

from datetime import UTC, datetime

import click
import pytest

from oanim.cli.values import Instant, Usd


@pytest.mark.parametrize(
    ("text", "micros"), [("25", 25_000_000), ("25.01", 25_010_000), ("0.010000", 10_000), ("0", 0)]
)
def test_whole_cents_are_an_amount_to_buy(text: str, micros: int) -> None:
    assert Usd(in_cents=True).convert(text, None, None) == micros


@pytest.mark.parametrize("text", ["25.001", "0.000001", "9.999", "", "-5", "1e2", "nan", "25,00", "1000001"])
def test_anything_else_is_not(text: str) -> None:
    with pytest.raises(click.BadParameter, match="it must be"):
        Usd(in_cents=True).convert(text, None, None)


def test_a_limit_may_have_parts_of_a_cent() -> None:
    assert Usd().convert("0.000001", None, None) == 1


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-11-23T11:59:00", datetime(2026, 11, 23, 11, 59, tzinfo=UTC)),
        ("2026-11-23T11:59:00Z", datetime(2026, 11, 23, 11, 59, tzinfo=UTC)),
        ("2026-11-23 12:01", datetime(2026, 11, 23, 12, 1, tzinfo=UTC)),
        ("2026-11-23T01:00:00.5+02:00", datetime(2026, 11, 22, 23, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-11-23", datetime(2026, 11, 23, 23, 59, 59, 999_999, tzinfo=UTC)),
    ],
)
def test_a_time_is_utc_unless_it_says_otherwise_and_a_day_is_its_last_instant(
    text: str, instant: datetime
) -> None:
    assert Instant().convert(text, None, None) == instant


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-13-01", "2026-11-23T25:00", "0001-01-01T00:00+02:00"]
)
def test_what_is_no_point_in_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="it must be a day such as"):
        Instant().convert(text, None, None)
