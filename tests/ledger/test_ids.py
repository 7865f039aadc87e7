from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oanim_server.ledger.ids import (
    account_id,
    account_text,
    new_account_id,
    reservation_id,
    reservation_text,
)

ACCOUNTS = st.integers(1, 2**60 - 1)


@given(account=ACCOUNTS, number=st.integers(1, 10**18 - 1))
def test_an_id_is_read_as_it_was_written(account: int, number: int) -> None:
    assert account_id(account_text(account)) == account
    assert reservation_id(reservation_text(account, number)) == (account, number)
    assert reservation_text(account, number).startswith(account_text(account) + "-")


@given(account=ACCOUNTS)
def test_an_id_is_twelve_characters_that_nobody_confuses(account: int) -> None:
    assert len(account_text(account)) == 12
    assert not set(account_text(account)) & set("ilouILOU ")


@given(text=st.text(max_size=40))
def test_what_is_no_id_is_told_by_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert account_text(account_id(text)) == text
    with suppress(ValueError):
        assert reservation_text(*reservation_id(text)) == text


ONE = account_text(1)


NUMBERS = ("", "-", "-0", "-01", "-+1", "--1", "-1 ", "-1-1", "-\u0661", "-1000000000000000000")


@pytest.mark.parametrize(
    "text", ["", "-1", f"i{ONE[1:]}-1", f"{ONE}0-1", *(ONE + number for number in NUMBERS)]
)
def test_no_reservation_has_this_id(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whichever
        reservation_id(text)


def test_new_accounts_are_not_guessed() -> None:
    made = {new_account_id() for _ in range(1_000)}
    assert len(made) == 1_000
    assert all(0 < account < 2**60 for account in made)
    assert max(made) > 2**55
