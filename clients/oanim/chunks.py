"""Cuts what is to be uploaded into pieces, so that no file is ever in memory whole."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias, cast

CHUNK_BYTES = 256 * 1024

# AsyncIterable is for AsyncClient alone.
Buffer: TypeAlias = bytes | bytearray | memoryview
# What can be sent again: an open file is read from its beginning each time.
Rereadable: TypeAlias = "str | os.PathLike[str] | BinaryIO | Buffer"
Content: TypeAlias = "str | os.PathLike[str] | BinaryIO | Buffer | Iterable[bytes] | AsyncIterable[bytes]"


class Measured(NamedTuple):
    """What an upload says of its content before it sends it."""

    size_bytes: int
    sha256: bytes


def measured(content: Content) -> Measured:
    """Read a content through once."""
    size_bytes, sha256 = 0, hashlib.sha256()
    for chunk in chunks(content):
        size_bytes += len(chunk)
        sha256.update(chunk)
    return Measured(size_bytes, sha256.digest())


def rewind(content: Content) -> None:
    """Have an open file read from its beginning again; other contents are of themselves."""
    if hasattr(content, "seek"):
        content.seek(0)


def chunks(content: Content) -> Generator[bytes]:
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


class Reading:
    """The chunks of a content, read by a thread of grpc's, which would keep to itself why reading failed."""

    def __init__(self, content: Content) -> None:
        self._chunks = chunks(content)
        self._one_at_a_time = threading.Lock()
        self._stopped = False
        self.failure: Exception | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with self._one_at_a_time:
            if self._stopped:
                raise StopIteration
            try:
                return next(self._chunks)
            except StopIteration:
                raise
            except Exception as failure:
                self.failure = failure
                raise

    def stop(self) -> None:
        """Return when nothing is read any more, nor will be."""
        with self._one_at_a_time:
            self._stopped = True
            self._chunks.close()


class AsyncReading:
    """The same for asyncio, which takes an asynchronous iterable, too; files are read in a thread."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._reading = Reading(b"" if isinstance(content, AsyncIterable) else content)
        self._failure: Exception | None = None

    @property
    def failure(self) -> Exception | None:
        return self._failure or self._reading.failure

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await asyncio.to_thread(next, self._reading, b""):
            yield chunk
        if isinstance(self._content, AsyncIterable):
            try:
                async for piece in self._content:
                    for chunk in _of_bytes(piece):
                        yield chunk
            except Exception as failure:
                self._failure = failure
                raise

    async def stop(self) -> None:
        await asyncio.to_thread(self._reading.stop)


def _of_file(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def _of_bytes(content: Buffer) -> Iterator[bytes]:
    for start in range(0, len(content), CHUNK_BYTES):
        yield bytes(content[start : start + CHUNK_BYTES])
