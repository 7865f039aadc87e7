"""Downloads what fal.ai made from where it keeps it, whole or not at all; no key goes along.

An address comes from an answer, so each, redirections included, must be https; on this machine it may be only
where fal.ai's stand-in is on this machine, too.
"""

from __future__ import annotations

import base64
import binascii
from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING

import httpx

from oanim.cli.failures import AWAY, Failure
from oanim.cli.placing import whole
from oanim_models.tls import trusted

if TYPE_CHECKING:
    from pathlib import Path

_REDIRECTIONS = 5
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)


class Gone(Failure):
    """What was made is no longer there to be had."""


def is_loopback(url: str) -> bool:
    """Whether an address is on this machine."""
    host = httpx.URL(url).host
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


async def fetch(url: str, path: Path, *, from_loopback: bool) -> None:
    """Download a file, or write out a data URL."""
    if url.startswith("data:"):
        _write_data(url, path)
        return
    try:
        trust_env = not from_loopback
        async with httpx.AsyncClient(
            timeout=_TIMEOUT, trust_env=trust_env, verify=trusted(trust_env=trust_env)
        ) as client:
            for _ in range(_REDIRECTIONS):
                target = httpx.URL(url)
                if target.scheme != "https" and not (from_loopback and is_loopback(url)):
                    raise Failure(f"{path} is kept at an address that is not safe to call, so it was not.")
                async with client.stream("GET", target) as answer:
                    if answer.next_request is None:
                        await _write(answer, path)
                        return
                    url = str(answer.next_request.url)
    except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as error:
        raise Failure(f"{path} could not be downloaded ({type(error).__name__}).", AWAY) from error
    raise Failure(f"{path} could not be downloaded: it was redirected too often.")


async def _write(answer: httpx.Response, path: Path) -> None:
    if answer.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        raise Gone(f"{path} could not be downloaded: fal.ai no longer keeps it.")
    if answer.status_code != HTTPStatus.OK:
        raise Failure(f"{path} could not be downloaded (status {answer.status_code}).")
    with whole(path) as file:
        async for piece in answer.aiter_bytes():
            file.write(piece)


def _write_data(url: str, path: Path) -> None:
    kind, _, content = url.partition(",")
    if not kind.endswith(";base64"):
        raise Failure(f"{path} came in a form that is not known.")
    try:
        data = base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise Failure(f"{path} came damaged.") from error
    with whole(path) as file:
        file.write(data)
