"""Addresses: the e-mail address that is an account's, the network address that sign-ups are counted by."""

from __future__ import annotations

import ipaddress
import unicodedata

from oanim_server.ledger.refusals import InvalidField

MAX_EMAIL_BYTES = 254


def email_address(text: str) -> str:
    """Fold an e-mail address, so that neither case nor composition makes two of one.

    :raises InvalidField: for what cannot be one. Whether mail arrives there is not known.
    """
    local, _, domain = text.partition("@")
    if not local or not domain or "@" in domain:
        raise InvalidField(field="email", description="it must have one @ with something on both sides")
    if not text.isprintable() or any(character.isspace() for character in text):
        raise InvalidField(field="email", description="it may have no spaces or control characters")
    if len(text.encode()) > MAX_EMAIL_BYTES:
        raise InvalidField(field="email", description=f"it may have {MAX_EMAIL_BYTES} bytes at most")
    folded = unicodedata.normalize("NFC", text).casefold()
    return unicodedata.normalize("NFC", folded)


def counted_address(peer: str) -> str:
    """What sign-ups of a peer are counted under: IPv6 by /64; empty for loopback, which is not counted."""
    address = ipaddress.ip_address(peer)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_loopback:
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
