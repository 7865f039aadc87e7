"""HTTP to what the tests run on this machine: past any proxy, and without reading authorities again."""

from __future__ import annotations

from functools import partial
from typing import Any

import httpx

from oanim_models.tls import trusted

client = partial(httpx.Client, timeout=30.0, trust_env=False, verify=trusted(trust_env=False))


def get(url: str, **options: Any) -> httpx.Response:
    """One GET on a connection of its own."""
    return request("GET", url, **options)


def post(url: str, **options: Any) -> httpx.Response:
    """One POST on a connection of its own."""
    return request("POST", url, **options)


def request(method: str, url: str, **options: Any) -> httpx.Response:
    """One request on a connection of its own."""
    with client() as one:
        return one.request(method, url, **options)
