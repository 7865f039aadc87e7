"""Uploads as they come: a first message that describes what follows, and then its bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oanim_server.ledger.refusals import InvalidField
from oanim_server.rendering.refusals import FileTooLarge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_CHUNK = "chunk"


async def first_of(requests: AsyncIterator[Any], part: str) -> Any:
    """What an upload begins with.

    :raises InvalidField: when it begins with something else, or with nothing.
    """
    async for request in requests:
        if request.WhichOneof("part") == part:
            return getattr(request, part)
        break
    raise InvalidField(field=part, description="the first message must have it")


async def chunks_of(requests: AsyncIterator[Any]) -> AsyncIterator[bytes]:
    """The bytes that follow. Raises InvalidField for a message that has none."""
    async for request in requests:
        if request.WhichOneof("part") != _CHUNK:
            raise InvalidField(field=_CHUNK, description="every message but the first must have it")
        yield request.chunk


def size_bytes(field: str, value: int, most: int) -> int:
    """How long a file is said to be. Raises InvalidField for none, FileTooLarge above the most."""
    if value < 1:
        raise InvalidField(field=field, description=f"it is {value} and must be from 1 to {most:,} bytes")
    if value > most:
        raise FileTooLarge(limit_bytes=most)
    return value


def sha256(field: str, value: bytes) -> bytes:
    """A SHA-256."""
    if len(value) != 32:
        raise InvalidField(field=field, description=f"it has {len(value)} bytes and must have 32")
    return value
