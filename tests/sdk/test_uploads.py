"""Uploads: whatever the content comes as, it leaves in small pieces."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING

import pytest

from oanim.aio import AsyncClient
from oanim.chunks import CHUNK_BYTES, Content, chunks
from openanimate.metering.v1.generate_service_pb2 import UploadInputResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.sdk.driving import Driver
    from tests.sdk.scripted import ScriptedServer

PICTURE = bytes(range(256)) * 2_500  # 640,000 bytes
SIZES = [CHUNK_BYTES, CHUNK_BYTES, 640_000 - 2 * CHUNK_BYTES]


def uploaded(server: ScriptedServer) -> list[bytes]:
    (messages,) = server.requests("GenerateService/UploadInput")
    return [message.chunk for message in messages]


@pytest.mark.parametrize("kind", ["path", "name", "file", "bytes", "bytearray", "memoryview", "iterable"])
def test_a_content_arrives_whole_in_pieces_of_256_kib(
    server: ScriptedServer, driver: Driver, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(PICTURE)
    server.script("GenerateService/UploadInput", UploadInputResponse(upload_id="u"))
    contents: dict[str, Content] = {
        "path": path,
        "name": str(path),
        "file": io.BytesIO(PICTURE),
        "bytes": PICTURE,
        "bytearray": bytearray(PICTURE),
        "memoryview": memoryview(PICTURE),
        "iterable": iter([PICTURE]),
    }

    assert driver.call("upload_input", content=contents[kind]) == UploadInputResponse(upload_id="u")
    assert [len(chunk) for chunk in uploaded(server)] == SIZES
    assert b"".join(uploaded(server)) == PICTURE


def test_an_asynchronous_iterable_is_for_the_asynchronous_client(server: ScriptedServer) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    async def upload() -> None:
        async with AsyncClient("anim_key", url=server.url) as client:
            await client.upload_input(content=pieces())

    server.script("GenerateService/UploadInput", UploadInputResponse())
    asyncio.run(upload())

    assert uploaded(server) == [b"one", b"two"]
    with pytest.raises(TypeError, match="needs AsyncClient"):
        list(chunks(pieces()))


def test_a_file_that_is_not_there_is_the_callers_own_error(
    server: ScriptedServer, driver: Driver, tmp_path: Path
) -> None:
    server.script("GenerateService/UploadInput", UploadInputResponse())

    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        driver.call("upload_input", content=tmp_path / "none.png")


def test_a_content_that_fails_halfway_is_the_callers_own_error(
    server: ScriptedServer, driver: Driver
) -> None:
    def torn() -> Iterator[bytes]:
        yield b"half"
        raise OSError("the disk is gone")

    server.script("GenerateService/UploadInput", UploadInputResponse())

    with pytest.raises(OSError, match="the disk is gone"):
        driver.call("upload_input", content=torn())
