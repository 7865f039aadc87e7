"""Whose address a call counts for: a header is believed from configured proxies alone."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from oanim_server.rpc.address import address_of

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "header", "address"),
    [
        ("ipv4:198.51.100.7:40312", "", "198.51.100.7"),
        ("ipv6:%5B2001:db8::1%5D:40312", "", "2001:db8::1"),
        ("ipv6:%5Bfe80::1%25eth0%5D:40312", "", "fe80::1"),
        ("unix:", "", "127.0.0.1"),
        # Anyone can write a header.
        ("ipv4:198.51.100.7:40312", "203.0.113.9", "198.51.100.7"),
        # A proxy's is believed, from the right: left of the first stranger is the stranger's own word.
        ("ipv4:10.0.0.1:40312", "203.0.113.9", "203.0.113.9"),
        ("ipv4:10.0.0.1:40312", "1.2.3.4, 203.0.113.9, 10.9.9.9", "203.0.113.9"),
        ("ipv6:%5Bfd00::1%5D:40312", "2001:db8::2", "2001:db8::2"),
        ("ipv6:%5B::ffff:10.0.0.1%5D:40312", "203.0.113.9", "203.0.113.9"),
        ("ipv4:10.0.0.1:40312", "unknown", "10.0.0.1"),
        ("ipv4:10.0.0.1:40312", "", "10.0.0.1"),
    ],
)
def test_a_call_counts_for_the_nearest_address_that_is_no_proxy(peer: str, header: str, address: str) -> None:
    assert address_of(peer, header, PROXIES) == address
