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
    for hop in reversed(forwarded_for.split(",")):
        seen = hop.strip()
        if not _is_address(seen):
            break
        address = seen
        if not _within(address, trusted):
            break
    return address


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _within(address: str, networks: Networks) -> bool:
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return any((mapped or parsed) in network for network in networks)
