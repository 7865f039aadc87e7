"""Where a client goes, and what it never does on the way."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from oanim.address import Address, parse
from oanim.aio import AsyncClient
from oanim.client import Client


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://api.open-animate.com", Address("dns:///api.open-animate.com:443", tls=True)),
        ("https://farm.example:8443/", Address("dns:///farm.example:8443", tls=True)),
        ("http://localhost:50051", Address("dns:///localhost:50051", tls=False)),
        ("http://127.0.0.7:1", Address("dns:///127.0.0.7:1", tls=False)),
        ("http://[::1]:50051", Address("dns:///[::1]:50051", tls=False)),
        ("unix:/run/oanim.sock", Address("unix:/run/oanim.sock", tls=False)),
        ("unix:///run/oanim.sock", Address("unix:/run/oanim.sock", tls=False)),
        ("unix:oanim.sock", Address(f"unix:{Path.cwd() / 'oanim.sock'}", tls=False)),
    ],
)
def test_a_url_is_read(url: str, address: Address) -> None:
    assert parse(url, allow_insecure=False) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:50051",
        "ftp://host",
        "https://",
        "unix:",
        "https://host/path",
        "https://host?x=1",
        "http://h:x",
    ],
)
def test_anything_else_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse(url, allow_insecure=False)


@pytest.mark.parametrize(
    "url", ["http://api.open-animate.com", "http://10.0.0.1:50051", "http://localhost.x:1"]
)
def test_a_key_is_not_sent_in_clear_beyond_this_machine(url: str) -> None:
    with pytest.raises(ValueError, match="in clear; use https"):
        Client("anim_key", url=url)


def test_a_key_is_sent_in_clear_to_whoever_insists() -> None:
    assert parse("http://10.0.0.1:50051", allow_insecure=True) == Address("dns:///10.0.0.1:50051", tls=False)


def test_no_error_shows_a_password_or_a_key() -> None:
    for url in ("https://user:secret@host", "ftp://user:secret@host"):
        with pytest.raises(ValueError, match="host") as refused:
            Client(url=url)
        assert "secret" not in str(refused.value)
    with pytest.raises(ValueError, match="characters") as refused:
        Client("anim_sec\nret", url="http://localhost:1")
    assert "sec" not in str(refused.value)


def test_a_client_shows_its_url_and_not_its_key() -> None:
    async def asynchronous() -> str:
        async with AsyncClient("anim_key", url="http://localhost:1") as client:
            return repr(client)

    with Client("anim_key", url="http://localhost:1") as client:
        assert repr(client) == "Client(url='http://localhost:1')"
    assert asyncio.run(asynchronous()) == "AsyncClient(url='http://localhost:1')"


def test_url_and_certificates_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ANIMATE_API_URL", "https://farm.example")
    monkeypatch.setenv("OANIM_CA_FILE", str(tmp_path / "none.pem"))

    with pytest.raises(FileNotFoundError, match=r"none\.pem"):
        Client("anim_key")
    monkeypatch.delenv("OANIM_CA_FILE")
    with Client("anim_key") as client:
        assert repr(client) == "Client(url='https://farm.example')"


def test_without_a_word_it_is_the_public_service() -> None:
    with Client("anim_key") as client:
        assert repr(client) == "Client(url='https://api.open-animate.com')"
