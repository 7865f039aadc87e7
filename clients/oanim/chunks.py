"""Cuts what is to be uploaded into pieces, so that no file is ever in memory whole."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

CHUNK_BYTES = 256 * 1024

# AsyncIterable is for AsyncClient alone.
Buffer: TypeAlias = bytes | bytearray | memoryview
Content: TypeAlias = "str | os.PathLike[str] | BinaryIO | Buffer | Iterable[bytes] | AsyncIterable[bytes]"


def chunks(content: Content) -> Iterator[bytes]:
    """Cut a path's file, an open binary file, bytes, or an iterable of bytes."""
    if isinstance(content, str | os.PathLike):
        with Path(content).open("rb") as file:
            yield from _of_file(file)
    elif isinstance(content, bytes | bytearray | memoryview):
        yield from _of_bytes(content)
    elif hasattr(content, "read"):
        yield from _of_file(cast("BinaryIO", content))
    elif isinstance(content, Iterable):
        for piece in content:
            yield from _of_bytes(piece)
    else:
        raise TypeError("an asynchronous iterable needs AsyncClient")


async def chunks_async(content: Content) -> AsyncIterator[bytes]:
    """Cut as `chunks` does, reading files in a thread, or an asynchronous iterable of bytes."""
    if isinstance(content, AsyncIterable):
        async for piece in content:
            for chunk in _of_bytes(piece):
                yield chunk
        return
    pieces = chunks(content)
    while chunk := await asyncio.to_thread(next, pieces, b""):
        yield chunk


def _of_file(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def _of_bytes(content: Buffer) -> Iterator[bytes]:
    for start in range(0, len(content), CHUNK_BYTES):
        yield bytes(content[start : start + CHUNK_BYTES])
