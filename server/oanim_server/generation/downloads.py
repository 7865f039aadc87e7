"""Outputs on their way from where the provider keeps them to whoever paid for them; nothing is stored.

An output's address is the provider's word, so it is called only on hosts that are configured, over https
(plain http on the loopback address that the provider itself is configured at), and each redirect anew.
"""

from __future__ import annotations

import base64
import binascii
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING

import httpx

from oanim_models.tls import trusted
from oanim_server.generation.refusals import OutputElsewhere, OutputGone, OutputUnavailable
from oanim_server.generation.values import Piece

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from oanim_models.inputs import Output

log = logging.getLogger(__name__)

PIECE_BYTES = 256 * 1024
_REDIRECTS = 5
_LONGEST = (1 << 63) - 1
# What storages answer for what they no longer have; some say 403 to strangers.
_GONE = (403, 404, 410)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Downloads:
    """Reads outputs. `hosts` are names that an output may be at, their subdomains included."""

    def __init__(self, *, hosts: Iterable[str], provider_url: str) -> None:
        self._hosts = tuple(host.lower().strip(".") for host in hosts)
        provider = httpx.URL(provider_url)
        local = provider.host in _LOOPBACK
        self._local = (provider.scheme, provider.host, provider.port) if local else None
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(60.0, connect=10.0),
            trust_env=not local,
            verify=trusted(trust_env=not local),
            headers={"accept-encoding": "identity"},
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def read(self, output: Output) -> AsyncGenerator[Piece]:
        """An output, piece by piece, no faster than it is taken.

        :raises OutputGone: when the provider no longer has it.
        :raises OutputUnavailable: when it does not answer, or breaks off.
        :raises OutputElsewhere: when the output is at a host that is not allowed, or is none.
        """
        pieces = _inline(output) if output.url.startswith("data:") else self._fetched(output)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def _fetched(self, output: Output) -> AsyncGenerator[Piece]:
        try:
            url = httpx.URL(output.url)
            for _ in range(_REDIRECTS):
                self._check(url)
                async with self._client.stream("GET", url) as response:
                    if response.has_redirect_location:
                        url = url.join(response.headers["location"])
                        continue
                    _check_status(response)
                    first = Piece(_content_type(output, response), _length(response), b"")
                    async for chunk in response.aiter_bytes(PIECE_BYTES):
                        yield first._replace(chunk=chunk)
                        first = Piece("", 0, b"")
                    if first.content_type:
                        yield first
                    return
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise OutputElsewhere from error
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            log.warning("an output cannot be read", extra={"error": type(error).__name__})
            raise OutputUnavailable from error
        raise OutputUnavailable

    def _check(self, url: httpx.URL) -> None:
        host = url.host.lower()
        named = any(host == name or host.endswith(f".{name}") for name in self._hosts)
        if (url.scheme == "https" and named) or (url.scheme, url.host, url.port) == self._local:
            return
        log.error("an output is at a host that is not configured", extra={"host": host})
        raise OutputElsewhere


def _check_status(response: httpx.Response) -> None:
    if response.status_code in _GONE:
        raise OutputGone
    if response.status_code != httpx.codes.OK:
        log.warning("an output cannot be read", extra={"status": response.status_code})
        raise OutputUnavailable


def _content_type(output: Output, response: httpx.Response) -> str:
    known = output.content_type or response.headers.get("content-type", "").partition(";")[0].strip()
    return known or "application/octet-stream"


def _length(response: httpx.Response) -> int:
    """What the provider says; nothing where that is not the length of what arrives."""
    length = response.headers.get("content-length", "")
    if not length.isdecimal() or "content-encoding" in response.headers:
        return 0
    return known if (known := int(length[:20])) <= _LONGEST else 0


async def _inline(output: Output) -> AsyncGenerator[Piece]:
    """An output that the provider answered in its result."""
    head, _, text = output.url.removeprefix("data:").partition(",")
    media_type, _, encoding = head.partition(";")
    try:
        if encoding != "base64":
            raise OutputElsewhere
        content = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise OutputElsewhere from error
    content_type = output.content_type or media_type or "application/octet-stream"
    for start in range(0, max(1, len(content)), PIECE_BYTES):
        chunk = content[start : start + PIECE_BYTES]
        yield Piece("", 0, chunk) if start else Piece(content_type, len(content), chunk)
