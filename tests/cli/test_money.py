"""Amounts are written and read exactly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oanim.cli.money import dollars, micros_of, top_up, usd


@pytest.mark.parametrize(
    ("micros", "written"),
    [
        (0, "$0.00"),
        (3_000, "$0.003"),
        (5_000_000, "$5.00"),
        (350_000, "$0.35"),
        (248_832, "$0.248832"),
        (1, "$0.000001"),
        (-1_250_000, "-$1.25"),
        (2**63 - 1, "$9223372036854.775807"),
    ],
)
def test_an_amount_is_written_with_two_decimals_or_as_many_as_it_has(micros: int, written: str) -> None:
    assert dollars(micros) == written


@pytest.mark.parametrize(("micros", "written"), [(-1_250_000, "-1.25"), (0, "0.00"), (1, "0.000001")])
def test_a_bare_number_has_no_sign_of_a_currency(micros: int, written: str) -> None:
    assert usd(micros) == written


@pytest.mark.parametrize(("missing", "amount"), [(0, 10), (10_000_000, 10), (10_000_001, 11)])
def test_a_top_up_is_enough_and_whole_dollars(missing: int, amount: int) -> None:
    assert top_up(missing) == f"Top up: oanim billing buy --amount {amount}"


@given(st.integers(0, 10**12))
def test_what_was_written_is_read_again_as_it_was(micros: int) -> None:
    assert micros_of(dollars(micros).removeprefix("$")) == micros


@pytest.mark.parametrize(
    ("text", "micros"),
    [("5.00", 5_000_000), ("5", 5_000_000), (".25", 250_000), ("5.", 5_000_000), (" 0.000001 ", 1), ("0", 0)],
)
def test_a_plain_number_is_an_amount(text: str, micros: int) -> None:
    assert micros_of(text) == micros


@pytest.mark.parametrize(
    "text",
    ["", ".", "nan", "inf", "-1", "-0", "+1", "1e3", "1_000", "1,5", "$5", "\u0665", "0.0000001", "1.0000000",
     "1000000.000001", "9" * 5_000],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        micros_of(text)
