"""Where a call comes from: the peer, or whom a proxy that is configured names in X-Forwarded-For.

Nobody else is believed: otherwise a header would lift every limit that is counted by address.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Sequence

    Networks = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]

# What a call over a unix socket comes from.
LOCAL = "127.0.0.1"
# Whom a proxy on this machine names in a way that cannot be read: all of them are one.
SOMEBODY = "0.0.0.0"  # noqa: S104 - nobody listens there


def address_of(peer: str, forwarded_for: str, trusted: Networks) -> str:
    """The caller's network address, as text without a port.

    :param peer: as gRPC writes it: `ipv4:127.0.0.1:40312`, `ipv6:%5B::1%5D:40312`, `unix:...`.
    :param forwarded_for: the header; what each proxy saw, the nearest one last.
    """
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return LOCAL
    address = unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0]
    if not trusted or not _within(address, trusted):
        return address
    for hop in reversed([hop for hop in forwarded_for.split(",") if hop.strip()]):
        seen = _address_in(hop)
        if seen is None or (_is_loopback(seen) and not _is_loopback(address)):
            # Whoever it was, it was not this machine: that is exempt from limits.
            return SOMEBODY if _is_loopback(address) else address
        address = seen
        if not _within(address, trusted):
            break
    return address


def _address_in(hop: str) -> str | None:
    """The address in a hop, which proxies write with a port, brackets or quotes; None where there is none."""
    text = hop.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    text = text.partition("%")[0]
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return None
    return text


def _is_loopback(address: str) -> bool:
    return _unmapped(address).is_loopback


def _unmapped(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    parsed = ipaddress.ip_address(address)
    return getattr(parsed, "ipv4_mapped", None) or parsed


def _within(address: str, networks: Networks) -> bool:
    return any(_unmapped(address) in network for network in networks)
