"""Reads where the server is and how to reach it.

An API key never travels in clear beyond this machine: plaintext is refused for any other host unless the
caller insists.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_URL = "https://api.open-animate.com"
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """A target in grpc's words; `tls` is False for plaintext to this machine and for a local socket."""

    target: str
    tls: bool


def url_from_environment() -> str:
    """Answer ANIMATE_API_URL, or the public service."""
    return os.environ.get("ANIMATE_API_URL", "").strip() or DEFAULT_URL


def key_from_environment() -> str:
    """Answer ANIMATE_API_KEY; empty without one."""
    return os.environ.get("ANIMATE_API_KEY", "")


def roots_from_environment() -> str | None:
    """Answer OANIM_CA_FILE, the certificates of a private authority."""
    return os.environ.get("OANIM_CA_FILE", "").strip() or None


def checked_key(api_key: str) -> str:
    """Strip an API key, or raise ValueError, without showing it, for what cannot be one."""
    key = api_key.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("the API key has characters that no API key has")
    return key


def parse(url: str, *, allow_insecure: bool) -> Address:
    """Read `https://host[:port]`, `http://host:port` or `unix:/path`; raises ValueError for anything else."""
    if url.startswith("unix:"):
        return _local_socket(url)
    try:
        parts = urlsplit(url)
        given_port = parts.port
    except ValueError as error:
        raise _no_url(url) from error
    if parts.scheme not in _PORTS or not parts.hostname:
        raise _no_url(url)
    if parts.username is not None or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError(f"a server's URL is a scheme, a host and a port, nothing else: {shown(url)}")
    if parts.scheme == "http" and not allow_insecure and not _is_loopback(parts.hostname):
        raise ValueError(f"{shown(url)} would send the API key in clear; use https")
    port = given_port if given_port is not None else _PORTS[parts.scheme]
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Address(target=f"dns:///{host}:{port}", tls=parts.scheme == "https")


def _no_url(url: str) -> ValueError:
    return ValueError(
        f"not a server's URL: {shown(url)}; use https://host[:port], http://host:port or unix:/path"
    )


def _local_socket(url: str) -> Address:
    path = url.removeprefix("unix:").removeprefix("//")
    if not path:
        raise ValueError("unix: wants the path of a socket after it")
    return Address(target=f"unix:{Path(path).absolute()}", tls=False)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def shown(url: str) -> str:
    """Leave out what stands before an @: it may be a secret."""
    scheme, separator, rest = url.partition("://")
    return scheme + separator + rest.rpartition("@")[2]
