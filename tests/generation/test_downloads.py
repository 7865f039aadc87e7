"""Outputs on their way: whole or refused, from nowhere but the hosts that are configured."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import os
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from oanim_models.inputs import Output
from oanim_server.generation.downloads import PIECE_BYTES, Downloads
from oanim_server.generation.refusals import OutputElsewhere, OutputGone, OutputUnavailable
from oanim_server.ledger.refusals import NotFound
from tests.generation.house import NOBODY
from tests.generation.provider import Answer, Provider, provider

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oanim_server.generation.values import Piece
    from tests.generation.house import Fal, House

CONTENT = os.urandom(3 * PIECE_BYTES + 17)


@pytest.fixture
def host() -> Iterator[Provider]:
    with provider() as one:
        one.answers["/file"] = Answer(200, {"content-type": "image/png"}, CONTENT)
        yield one


def read(url: str, *, provider_url: str, hosts: tuple[str, ...] = (), content_type: str = "") -> list[Piece]:
    """All pieces of an output at a url."""

    async def pieces() -> list[Piece]:
        downloads = Downloads(hosts=hosts, provider_url=provider_url)
        try:
            return [piece async for piece in downloads.read(Output(url, content_type, "x"))]
        finally:
            await downloads.aclose()

    return asyncio.run(pieces())


def test_an_output_comes_in_pieces_with_its_type_and_length_first(host: Provider) -> None:
    first, *rest = read(f"{host.url}/file", provider_url=host.url)
    assert (first.content_type, first.size_bytes) == ("image/png", len(CONTENT))
    assert {piece[:2] for piece in rest} == {("", 0)}
    assert max(len(piece.chunk) for piece in (first, *rest)) == PIECE_BYTES
    assert b"".join(piece.chunk for piece in (first, *rest)) == CONTENT


def test_an_empty_output_is_an_output(host: Provider) -> None:
    host.answers["/empty"] = Answer(200, {})
    assert read(f"{host.url}/empty", provider_url=host.url, content_type="audio/wav") == [
        ("audio/wav", 0, b"")
    ]


def test_an_output_that_was_packed_for_the_way_is_unpacked(host: Provider) -> None:
    host.answers["/packed"] = Answer(200, {"content-encoding": "gzip"}, gzip.compress(CONTENT))
    pieces = read(f"{host.url}/packed", provider_url=host.url)
    assert (pieces[0].size_bytes, b"".join(piece.chunk for piece in pieces)) == (0, CONTENT)


def test_a_redirect_is_followed_where_it_may_go(host: Provider) -> None:
    host.answers["/moved"] = Answer(307, {"location": "/file"})
    pieces = read(f"{host.url}/moved", provider_url=host.url)
    assert b"".join(piece.chunk for piece in pieces) == CONTENT


def test_a_length_that_no_number_of_ours_holds_is_not_told(host: Provider) -> None:
    host.answers["/huge"] = Answer(200, {"content-length": str(10**19)}, CONTENT)

    async def first() -> Piece:
        downloads = Downloads(hosts=(), provider_url=host.url)
        output = Output(f"{host.url}/huge", "image/png", "x")
        async with aclosing(downloads), aclosing(downloads.read(output)) as pieces:
            return await anext(pieces)

    assert asyncio.run(first()) == ("image/png", 0, CONTENT[:PIECE_BYTES])


def test_an_output_in_the_answer_itself_is_read_from_there() -> None:
    url = f"data:image/png;base64,{base64.b64encode(CONTENT).decode()}"
    pieces = read(url, provider_url=NOBODY)
    assert (pieces[0].content_type, pieces[0].size_bytes) == ("image/png", len(CONTENT))
    assert b"".join(piece.chunk for piece in pieces) == CONTENT


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/file",
        "http://localhost/file",
        "http://fal.media/file",
        "https://fal.media.example.com/file",
        "https://notfal.media/file",
        "https://169.254.169.254/latest",
        "https://user@example.com/file",
        "file:///etc/passwd",
        "gopher://fal.media/",
        "data:image/png,plain",
        "data:image/png;base64,???",
        "http://[",
        "",
    ],
)
def test_nothing_is_read_from_anywhere_else(host: Provider, url: str) -> None:
    with pytest.raises(OutputElsewhere):
        read(url, provider_url=host.url, hosts=("fal.media",))


@pytest.mark.parametrize(
    ("location", "refusal"),
    [
        ("http://127.0.0.1:1/", OutputElsewhere),
        ("https://example.com/", OutputElsewhere),
        ("file:///etc/passwd", OutputElsewhere),
        ("/loop", OutputUnavailable),
    ],
)
def test_a_redirect_elsewhere_is_not_followed(
    host: Provider, location: str, refusal: type[Exception]
) -> None:
    host.answers["/loop"] = Answer(302, {"location": location})
    with pytest.raises(refusal):
        read(f"{host.url}/loop", provider_url=host.url)


@pytest.mark.parametrize(
    ("status", "refusal"), [(404, OutputGone), (410, OutputGone), (500, OutputUnavailable)]
)
def test_what_the_provider_does_not_give_is_refused(
    host: Provider, status: int, refusal: type[Exception]
) -> None:
    host.answers["/file"] = Answer(status, {})
    with pytest.raises(refusal):
        read(f"{host.url}/file", provider_url=host.url)


def test_an_output_of_a_generation_is_what_the_provider_made(house: House, fal: Fal, prompt: str) -> None:
    generation = house.made(house.account(), prompt)
    content_type, size_bytes, content = house.downloaded(generation)
    stored = fal.http.get(generation.outputs[0].url).content
    assert (content_type, size_bytes) == ("image/png", len(stored))
    assert hashlib.sha256(content).digest() == hashlib.sha256(stored).digest()
    with pytest.raises(NotFound):
        house.downloaded(generation, 1)
    with pytest.raises(NotFound):
        house.downloaded(generation, -1)


@pytest.mark.parametrize(
    ("fault", "refusal"),
    [
        ("gone", OutputGone),
        ("500", OutputUnavailable),
        ("429", OutputUnavailable),
        ("drop_before", OutputUnavailable),
        ("drop_after", OutputUnavailable),
    ],
)
def test_an_output_that_breaks_off_is_refused_and_can_be_asked_for_again(
    house: House, fal: Fal, prompt: str, fault: str, refusal: type[Exception]
) -> None:
    generation = house.made(house.account(), prompt)
    fal.told(prompt, "output", fault)
    with pytest.raises(refusal):
        house.downloaded(generation)
    assert len(house.downloaded(generation)[2]) > 0


def test_what_has_not_ended_has_no_outputs(house: House, fal: Fal, prompt: str) -> None:
    fal.told(prompt, "submit", "queue", seconds=None)
    generation = house.generate(house.account(), prompt).generation
    with pytest.raises(NotFound):
        house.downloaded(generation)
    fal.forgive()
    house.ended(generation)
