"""Whose address a call counts for: a header is believed from configured proxies alone."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from oanim_server.accounts.addresses import counted_address
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
        # Proxies write ports, brackets and quotes, too.
        ("ipv4:10.0.0.1:40312", "203.0.113.9:4444", "203.0.113.9"),
        ("ipv4:10.0.0.1:40312", '"203.0.113.9"', "203.0.113.9"),
        ("ipv4:10.0.0.1:40312", "[2001:db8::2]", "2001:db8::2"),
        ("ipv4:10.0.0.1:40312", '"[2001:db8::2]:4711"', "2001:db8::2"),
        ("ipv4:10.0.0.1:40312", "fe80::1%eth0", "fe80::1"),
        ("ipv4:10.0.0.1:40312", "203.0.113.9:4444, 10.9.9.9:80,", "203.0.113.9"),
    ],
)
def test_a_call_counts_for_the_nearest_address_that_is_no_proxy(peer: str, header: str, address: str) -> None:
    assert address_of(peer, header, PROXIES) == address


@pytest.mark.parametrize(
    "hop", ["unknown", "_hidden", "203.0.113.9:4444:1", "[", "a, unknown", "203.0.113.9;"]
)
def test_a_hop_that_cannot_be_read_is_somebody_and_never_this_machine(hop: str) -> None:
    address = address_of("ipv4:127.0.0.1:40312", hop, (ip_network("127.0.0.0/8"),))
    assert (address, counted_address(address)) == ("0.0.0.0", "0.0.0.0")  # noqa: S104 - nobody listens there


def test_another_machine_s_loopback_is_not_this_machine() -> None:
    assert address_of("ipv4:10.0.0.1:40312", "127.0.0.1", PROXIES) == "10.0.0.1"
    assert address_of("ipv4:10.0.0.1:40312", "::1", (*PROXIES, ip_network("::1"))) == "10.0.0.1"
    assert address_of("ipv4:127.0.0.1:40312", "127.0.0.1", (ip_network("127.0.0.1"),)) == "127.0.0.1"
