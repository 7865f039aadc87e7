from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oanim_server.ledger.values import DAY, SECOND
from oanim_server.ledger.windows import Period, Window, window_named, window_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def at(text: str) -> int:
    """Microseconds since 1970 of a time in UTC."""
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


def window(name: str, start: str, end: str) -> Window:
    return Window(name, at(start), at(end))


@pytest.mark.parametrize(
    ("period", "time", "expected"),
    [
        (Period.DAY, "2026-11-26 13:45", window("day 2026-11-26", "2026-11-26", "2026-11-27")),
        (Period.DAY, "2026-12-31 23:59", window("day 2026-12-31", "2026-12-31", "2027-01-01")),
        (Period.DAY, "2028-02-28 12:00", window("day 2028-02-28", "2028-02-28", "2028-02-29")),
        (Period.DAY, "2028-02-29 12:00", window("day 2028-02-29", "2028-02-29", "2028-03-01")),
        # 2026-11-26 is a Thursday.
        (Period.WEEK, "2026-11-26", window("week 2026-11-23", "2026-11-23", "2026-11-30")),
        # A week belongs to both of the years that it lies in.
        (Period.WEEK, "2026-12-31", window("week 2026-12-28", "2026-12-28", "2027-01-04")),
        (Period.WEEK, "2027-01-03", window("week 2026-12-28", "2026-12-28", "2027-01-04")),
        (Period.WEEK, "2027-01-04", window("week 2027-01-04", "2027-01-04", "2027-01-11")),
        (Period.WEEK, "2028-03-01", window("week 2028-02-28", "2028-02-28", "2028-03-06")),
        (Period.MONTH, "2026-11-26", window("month 2026-11-01", "2026-11-01", "2026-12-01")),
        (Period.MONTH, "2026-12-31", window("month 2026-12-01", "2026-12-01", "2027-01-01")),
        (Period.MONTH, "2028-02-29", window("month 2028-02-01", "2028-02-01", "2028-03-01")),
        (Period.MONTH, "2100-02-28", window("month 2100-02-01", "2100-02-01", "2100-03-01")),
    ],
)
def test_the_window_of_an_instant(period: Period, time: str, expected: Window) -> None:
    assert window_of(period, at(time)) == expected


@pytest.mark.parametrize("period", Period)
def test_a_window_turns_at_midnight_utc_exactly(period: Period) -> None:
    # A Monday, the first of a month.
    turn = at("2027-02-01")
    before, after = window_of(period, turn - 1), window_of(period, turn)
    assert before.end == after.start == turn
    assert window_of(period, after.end - 1) == after


@pytest.mark.parametrize("period", Period)
def test_windows_follow_each_other_without_a_gap_and_their_names_name_them(period: Period) -> None:
    window = window_of(period, 0)
    lengths = set()
    for _ in range(3_000):
        assert window_named(window.name) == window
        lengths.add((window.end - window.start) // DAY)
        following = window_of(period, window.end)
        assert following.start == window.end
        window = following
    assert lengths == {Period.DAY: {1}, Period.WEEK: {7}, Period.MONTH: {28, 29, 30, 31}}[period]


@given(
    st.sampled_from(Period),
    st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(9998, 1, 1)),  # noqa: DTZ001 - UTC is meant
)
def test_a_window_is_what_the_calendar_says(period: Period, time: datetime) -> None:
    found = window_of(period, (time - datetime(1970, 1, 1)) // timedelta(microseconds=1))  # noqa: DTZ001
    first = {
        Period.DAY: time.date(),
        Period.WEEK: date.fromisocalendar(*time.isocalendar()[:2], 1),
        Period.MONTH: time.date().replace(day=1),
    }[period]
    assert found.name == f"{period.name.lower()} {first}"
    assert EPOCH + timedelta(microseconds=found.start) == datetime(*first.timetuple()[:3], tzinfo=UTC)
    assert found.start % (86_400 * SECOND) == found.end % (86_400 * SECOND) == 0
    assert found.start <= at(str(time)) < found.end
