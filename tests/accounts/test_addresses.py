from __future__ import annotations

import pytest

from oanim_server.accounts.addresses import counted_address, email_address
from oanim_server.ledger.refusals import InvalidField


@pytest.mark.parametrize(
    ("given", "folded"),
    [
        ("ada@example.com", "ada@example.com"),
        ("Ada@EXAMPLE.com", "ada@example.com"),
        ("Straße@example.com", "strasse@example.com"),
        ("JOSE\u0301@example.com", "jos\u00e9@example.com"),
        ("a" * 242 + "@example.com", "a" * 242 + "@example.com"),
    ],
)
def test_an_email_address_is_the_same_whatever_its_case(given: str, folded: str) -> None:
    assert email_address(given) == folded


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "ada",
        "@example.com",
        "ada@",
        "ada@home@example.com",
        " ada@example.com",
        "ada@example.com ",
        "ada@example.com\n",
        "a da@example.com",
        "ada\u00a0@example.com",
        "ada\0@example.com",
        "ada\u200b@example.com",
        "ada\ud800@example.com",
        "a" * 243 + "@example.com",
        "é" * 122 + "@example.com",
    ],
)
def test_what_cannot_be_an_email_address_is_refused_by_its_field(bad: str) -> None:
    with pytest.raises(InvalidField) as refused:
        email_address(bad)
    assert refused.value.field == "email"


@pytest.mark.parametrize(
    ("peer", "counted"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("127.0.0.1", ""),
        ("127.8.9.1", ""),
        ("::1", ""),
        ("::ffff:127.0.0.1", ""),
    ],
)
def test_sign_ups_are_counted_by_address_and_not_on_loopback(peer: str, counted: str) -> None:
    assert counted_address(peer) == counted
