"""Whom an https connection trusts."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    import ssl


@cache
def trusted(*, trust_env: bool) -> ssl.SSLContext:
    """The authorities that httpx trusts, read once a process: that takes longer than all else of a client.

    :param trust_env: whether SSL_CERT_FILE and SSL_CERT_DIR name others.
    """
    return httpx.create_ssl_context(trust_env=trust_env)
